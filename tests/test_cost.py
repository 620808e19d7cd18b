"Counts against closed forms and the table of named genotypes; prices of choices; measuring leaves no trace."
import pytest
import torch
from torch import nn

from tirnas.core import UserError
from tirnas.nets.backbones import ResNet
from tirnas.nets.cells import Macro, full_links
from tirnas.nets.cost import (candidate_costs, cost_report, count_macs, count_parameters, expected_cost, fixed_cost,
                              genotype_cost, latency_ms, measure_parameters, measuring)
from tirnas.nets.genotype import DerivedNetwork, Genotype, positions, random_genotype
from tirnas.nets.ops import PRIMITIVES
from tirnas.nets.supernet import Supernet, plain_cell


def conv_macs(net, image):
    "Multiply-accumulates of all convolutions from the sizes of their outputs and weights."
    total = 0
    def add(conv, args, out):
        nonlocal total
        total += out[:, 0].numel() * conv.weight.numel()
    handles = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad(): net(image)
    for handle in handles: handle.remove()
    return total


def chain(*ops):
    "A single-bottom cell in which each node reads the one before."
    return tuple(((op, i),) for i, op in enumerate(ops))


def star(op):
    "A single-bottom cell in which each node reads the input."
    return (((op, 0),),) * 4


def both(op):
    "A dual-bottom cell in which each node reads the two inputs."
    return (((op, 0), (op, 1)),) * 4


def neighbours(op):
    "A dual-bottom cell in which each node reads the two states before it."
    return tuple(((op, i), (op, i + 1)) for i in range(4))


def pairs(*edges):
    "Eight edges as four nodes of two, in the order of the sources."
    return tuple(tuple(sorted(edges[i:i + 2], key=lambda edge: edge[1])) for i in range(0, 8, 2))


SEP3, SEP5, DIL3, DIL5 = "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"
MAX, AVG, SKIP = "max_pool_3x3", "avg_pool_3x3", "skip_connect"
# The three published cells: PC-DARTS (Xu et al., 2020, searched on CIFAR-10 and on ImageNet), DARTS (Liu et al., 2019).
PCD_CIFAR = (pairs((SEP3, 1), (SKIP, 0), (SEP3, 0), (DIL3, 1), (SEP5, 0), (SEP3, 1), (AVG, 0), (DIL3, 1)),
             pairs((SEP5, 1), (MAX, 0), (SEP5, 1), (SEP5, 2), (SEP3, 0), (SEP3, 3), (SEP3, 1), (SEP3, 2)))
PCD_IMAGE = (pairs((SKIP, 1), (SEP3, 0), (SEP3, 0), (SKIP, 1), (SEP3, 1), (SEP3, 3), (SEP3, 1), (DIL5, 4)),
             pairs((SEP3, 0), (SKIP, 1), (DIL5, 2), (MAX, 1), (SEP3, 2), (SEP3, 1), (SEP5, 0), (SEP3, 3)))
DARTS_V2 = (pairs((SEP3, 0), (SEP3, 1), (SEP3, 0), (SEP3, 1), (SEP3, 1), (SKIP, 0), (SKIP, 0), (DIL3, 2)),
            pairs((MAX, 0), (MAX, 1), (SKIP, 2), (MAX, 1), (MAX, 0), (SKIP, 2), (SKIP, 2), (MAX, 1)))
# Kind, normal and reduction cell, and the known (parameters in millions, MACs in thousand millions) of a network of 16
# cells whose first is 14, 16, 18 and 20 channels wide: stem of stride 1, reductions 3, 6, 9, 12, colour image of 128 px.
NAMED = {
    "pcd_cifar": ("dual", *PCD_CIFAR, ((4.65, 1.25), (6.03, 1.60), (7.58, 1.99), (9.32, 2.42))),
    "pcd_image": ("dual", *PCD_IMAGE, ((4.66, 1.24), (6.05, 1.59), (7.62, 1.98), (9.37, 2.41))),
    "darts_v2": ("dual", *DARTS_V2, ((3.77, 1.03), (4.90, 1.33), (6.18, 1.66), (7.61, 2.03))),
    "all_sep3": ("dual", both(SEP3), both(SEP3), ((5.89, 1.51), (7.65, 1.94), (9.64, 2.42), (11.86, 2.96))),
    "all_sep5": ("dual", both(SEP5), both(SEP5), ((6.28, 1.86), (8.10, 2.34), (10.14, 2.87), (12.41, 3.45))),
    "all_dil3": ("dual", both(DIL3), both(DIL3), ((3.75, 1.01), (4.88, 1.29), (6.15, 1.62), (7.57, 1.98))),
    "all_dil5": ("dual", both(DIL5), both(DIL5), ((3.95, 1.18), (5.10, 1.49), (6.40, 1.84), (7.85, 2.23))),
    "all_max": ("dual", both(MAX), both(MAX), ((1.61, 0.50), (2.10, 0.65), (2.66, 0.81), (3.29, 1.00))),
    "chain_dil5_dual": ("dual", *[neighbours(DIL5)] * 2, ((3.95, 1.18), (5.10, 1.49), (6.40, 1.84), (7.85, 2.23))),
    "chain_sep3": ("single", *[chain(*[SEP3] * 4)] * 2, ((3.01, 0.78), (3.91, 1.00), (4.93, 1.25), (6.06, 1.52))),
    "star_sep3": ("single", star(SEP3), star(SEP3), ((3.01, 0.78), (3.91, 1.00), (4.93, 1.25), (6.06, 1.52))),
    "chain_sep5": ("single", *[chain(*[SEP5] * 4)] * 2, ((3.21, 0.95), (4.14, 1.20), (5.18, 1.47), (6.34, 1.77))),
    "star_sep5": ("single", star(SEP5), star(SEP5), ((3.21, 0.95), (4.14, 1.20), (5.18, 1.47), (6.34, 1.77))),
    "chain_dil3": ("single", *[chain(*[DIL3] * 4)] * 2, ((1.94, 0.53), (2.53, 0.68), (3.19, 0.85), (3.92, 1.03))),
    "star_dil3": ("single", star(DIL3), star(DIL3), ((1.94, 0.53), (2.53, 0.68), (3.19, 0.85), (3.92, 1.03))),
    "chain_dil5": ("single", *[chain(*[DIL5] * 4)] * 2, ((2.04, 0.61), (2.64, 0.78), (3.31, 0.96), (4.06, 1.16))),
    "star_dil5": ("single", star(DIL5), star(DIL5), ((2.04, 0.61), (2.64, 0.78), (3.31, 0.96), (4.06, 1.16))),
    # Only the sizes of the last two are known. Of all chains without skips, in any order, these operations alone give
    # the sizes of "mix"; six give those of "chain_dil_maxred", of which this is the one with a single pool.
    "mix": ("single", *[chain(SEP3, SEP5, DIL3, DIL5)] * 2, ((2.55, 0.72), (3.30, 0.91), (4.15, 1.13), (5.10, 1.37))),
    "chain_dil_maxred": ("single", chain(*[DIL5] * 4), chain(MAX, DIL5, DIL5, DIL5),
                         ((1.96, 0.59), (2.54, 0.75), (3.19, 0.93), (3.91, 1.12))),
}
CASES = [(name, c, known) for name, (*_, row) in NAMED.items() for c, known in zip((14, 16, 18, 20), row)]


def block(kernel, c, pixels):
    "Parameters and MACs of one separable block: depth-wise kernel, 1x1 convolution, scale and shift of c channels."
    return kernel ** 2 * c + c * c + 2 * c, (kernel ** 2 * c + c * c) * pixels


def edge_size(op, c, pixels, reduces):
    "Parameters and MACs of one operation whose output has `pixels` pixels; a skip that reduces is two halves of a 1x1."
    if op == SKIP: return (c * c + 2 * c, c * c * pixels) if reduces else (0, 0)
    if op in (MAX, AVG): return 0, 0
    parameters, macs = block(int(op[-1]), c, pixels)
    return (2 * parameters, 2 * macs) if op.startswith("sep") else (parameters, macs)


def hand_count(kind, normal, reduce, channels, px=128):
    "Parameters and MACs of the whole network, from the paper's description alone."
    inputs = {"single": 1, "dual": 2}[kind]
    c, side, before, last = channels, px, 3 * channels, 3 * channels
    parameters, macs = 3 * 3 * 3 * (3 * c) + 2 * (3 * c), 3 * 3 * 3 * (3 * c) * px * px
    for i in range(16):
        reduces = i in (3, 6, 9, 12)
        if reduces: c *= 2
        for width in (before, last)[-inputs:]:
            parameters, macs = parameters + width * c + 2 * c, macs + width * c * side * side
        if reduces: side //= 2
        for op, source in (edge for node in (reduce if reduces else normal) for edge in node):
            more = edge_size(op, c, side * side, reduces and source < inputs)
            parameters, macs = parameters + more[0], macs + more[1]
        before, last = last, 4 * c
    return parameters, macs


@pytest.mark.parametrize("name, channels, known", CASES, ids=[f"{name}-{c}" for name, c, _ in CASES])
def test_named_genotypes_have_exactly_the_size_counted_by_hand(name, channels, known):
    kind, normal, reduce, _ = NAMED[name]
    macro, by_hand = Macro(kind, 16, channels, 1, in_channels=3), hand_count(kind, normal, reduce, channels)
    genotype = Genotype(kind, normal, reduce)
    with torch.device("meta"): net = DerivedNetwork(genotype, macro)
    assert count_parameters(net) == by_hand[0]
    assert genotype_cost(genotype, macro, 128) == by_hand
    assert (round(by_hand[0] / 1e6, 2), round(by_hand[1] / 1e9, 2)) == known


@pytest.mark.parametrize("name, parameters, macs", [
    ("pcd_cifar", 6_026_640, 1_596_850_176), ("mix", 3_303_600, 912_326_656)])
def test_networks_with_real_weights_have_these_integers(name, parameters, macs):
    kind, normal, reduce, _ = NAMED[name]
    net = DerivedNetwork(Genotype(kind, normal, reduce), Macro(kind, 16, 16, 1, in_channels=3))
    assert (count_parameters(net), count_macs(net, torch.zeros(1, 3, 128, 128))) == (parameters, macs)
    assert hand_count(kind, normal, reduce, 16) == (parameters, macs)


@pytest.mark.parametrize("seed", range(4))
def test_macs_equal_the_closed_form_of_convolutions(seed):
    kind = ("single", "dual")[seed % 2]
    net, image = DerivedNetwork(random_genotype(kind, seed), Macro(kind, 6, 4, 4)).eval(), torch.zeros(2, 1, 32, 64)
    assert count_macs(net, image) == conv_macs(net, image)


def test_macs_of_search_networks_and_resnets_equal_the_closed_form():
    image = torch.zeros(1, 1, 32, 32)
    for net in (Supernet(Macro("dual", 3, 4, 4), rate=2, make_cell=plain_cell).eval(), ResNet(18).eval()):
        assert count_macs(net, image) == conv_macs(net, image)


def test_linear_layers_and_dense_convolutions_count():
    assert count_macs(nn.Linear(10, 5), torch.zeros(3, 10)) == 150
    assert count_macs(nn.Conv2d(4, 6, 5, stride=2, padding=2, groups=2), torch.zeros(2, 4, 8, 8)) == 2 * 16 * 6 * 25 * 2
    assert count_macs(nn.ReLU(), torch.zeros(2, 4)) == 0


def test_report_sums_to_its_total():
    net, image = DerivedNetwork(random_genotype("dual", 1), Macro("dual", 6, 4, 4)), torch.zeros(1, 1, 32, 32)
    *parts, total = cost_report(net, image)
    assert [row.part for row in parts] == ["stem", *(f"cells.{i}" for i in range(6))]
    assert total == ("total", count_parameters(net), count_macs(net, image))
    assert (sum(r.parameters for r in parts), sum(r.macs for r in parts)) == total[1:]
    assert all(row.macs > 0 for row in parts)


def test_alpha_is_a_part_of_a_search_network_and_computes_nothing():
    rows = {row.part: row for row in cost_report(Supernet(Macro("single", 3, 4, 4), rate=2), torch.zeros(1, 1, 32, 32))}
    assert rows["alpha"][1:] == (2 * 10 * 8, 0)


def test_the_total_has_parameters_outside_all_parts_as_well():
    net = nn.Sequential(nn.Linear(3, 2))
    net.register_parameter("scale", nn.Parameter(torch.ones(5)))
    assert [row.parameters for row in cost_report(net, torch.zeros(1, 3))] == [8, 13]


def test_latency_is_a_positive_time_and_runs_as_often_as_told():
    passes = []
    net = nn.Conv2d(1, 1, 1)
    net.register_forward_hook(lambda *args: passes.append(torch.get_num_threads()))
    assert latency_ms(net, torch.zeros(1, 1, 4, 4), repeats=5) > 0
    assert passes == [1] * 8


def test_measuring_restores_modes_threads_and_gradients_even_after_a_failure():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    net.train()
    net[1].eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError), measuring(net):
            assert not net[0].training and torch.get_num_threads() == 1 and not torch.is_grad_enabled()
            raise RuntimeError
        assert (net.training, net[0].training, net[1].training) == (True, True, False)
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
    finally: torch.set_num_threads(threads)


def test_counting_does_not_move_running_statistics():
    net = DerivedNetwork(random_genotype("single", 0), Macro("single", 3, 4, 4)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    cost_report(net, torch.randn(2, 1, 32, 32))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


LAYOUTS = [Macro("single", 5, 4, 1), Macro("dual", 6, 4, 4, in_channels=3), Macro("dual", 5, 6, 2), Macro("single", 7, 4, 4)]


@pytest.mark.parametrize("macro", LAYOUTS, ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("measure", [count_macs, measure_parameters])
def test_fixed_part_and_chosen_prices_are_the_whole_network(macro, seed, measure):
    genotype = random_genotype(macro.kind, seed)
    costs, total = candidate_costs(macro, 48, measure), fixed_cost(macro, 48, measure)
    for which in ("normal", "reduce"):
        for place in positions(getattr(genotype, which), macro.kind): total += costs[which][place].item()
    assert total == measure(DerivedNetwork(genotype, macro), torch.zeros(1, macro.in_channels, 48, 48))


@pytest.mark.parametrize("macro", LAYOUTS, ids=str)
def test_cost_of_a_genotype_is_that_of_its_network(macro):
    genotype, image = random_genotype(macro.kind, 5), torch.zeros(1, macro.in_channels, 64, 64)
    net = DerivedNetwork(genotype, macro)
    assert genotype_cost(genotype, macro, 64) == (count_parameters(net), count_macs(net, image))
    assert genotype_cost(genotype, macro, 64)._asdict() == {"parameters": count_parameters(net), "macs": count_macs(net, image)}


def test_prices_have_the_form_of_alpha_and_depend_on_the_source_in_reduction_cells_alone():
    for macro in LAYOUTS:
        costs = candidate_costs(macro, 32, device="meta")
        sources = [s for node in full_links(macro.kind) for s in node]
        of_input = torch.tensor([s < {"single": 1, "dual": 2}[macro.kind] for s in sources])
        for table in costs.values():
            assert table.shape == (len(sources), 8) and table.dtype == torch.double and table.device.type == "cpu"
            assert (table[:, PRIMITIVES.index("none")] == 0).all()
        assert (costs["normal"] == costs["normal"][0]).all()
        assert ((costs["reduce"][:, PRIMITIVES.index(SKIP)] > 0) == of_input).all()


def test_each_place_is_measured_once_and_none_never():
    seen = []
    def measure(module, image_BCHW):
        seen.append((str(module), tuple(image_BCHW.shape)))
        return 1.0
    costs = candidate_costs(Macro("dual", 9, 4, 4), 64, measure)
    assert len(seen) == len(set(seen)) == 7 * 3 + 7 * 2 * 2 - 7 * 2     # 3 widths; reductions: two maps, one known
    assert costs["normal"][0].tolist() == [0] + [7] * 7 and costs["reduce"][0].tolist() == [0] + [2] * 7


def test_prices_may_be_times_and_are_the_same_counts_on_any_device():
    macro = Macro("single", 3, 4, 4)
    times = candidate_costs(macro, 32, lambda module, image_BCHW: latency_ms(module, image_BCHW, repeats=1))
    assert all((table[:, 1:] > 0).all() for table in times.values())
    for measure in (count_macs, measure_parameters):
        cpu, meta = (candidate_costs(macro, 32, measure, device) for device in ("cpu", "meta"))
        assert all(torch.equal(cpu[which], meta[which]) for which in cpu)
        assert fixed_cost(macro, 32, measure, "cpu") == fixed_cost(macro, 32, measure, "meta")


def test_pricing_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    macro = Macro("single", 4, 4, 4)
    candidate_costs(macro, 32), fixed_cost(macro, 32), genotype_cost(random_genotype("single", 0), macro, 80)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("px", [0, -16, 100])
def test_sides_that_are_no_multiples_of_16_are_refused(px):
    macro = Macro("single", 3, 4, 4)
    for price in (candidate_costs, fixed_cost, lambda *a: genotype_cost(random_genotype("single", 0), *a)):
        with pytest.raises(UserError, match=f"image side {px} px: give a multiple of 16"): price(macro, px)


def test_cost_of_a_genotype_needs_the_layout_of_its_kind():
    with pytest.raises(UserError, match="a dual genotype in a single layout"):
        genotype_cost(random_genotype("dual", 0), Macro("single", 3, 4, 4), 32)


def test_expected_cost_and_its_slope_have_their_closed_form():
    torch.manual_seed(0)
    costs = candidate_costs(Macro("dual", 6, 4, 4), 64, device="meta")
    alpha = {which: torch.randn(14, 8, dtype=torch.double, requires_grad=True) for which in costs}
    mixing = {which: a.softmax(1) for which, a in alpha.items()}
    expected_cost(mixing, costs).backward()
    even = sum(table.sum().item() / 8 for table in costs.values())
    total = sum((mixing[which] * costs[which]).sum() for which in costs)
    assert torch.allclose(expected_cost(mixing, costs), total / even)
    for which, table in costs.items():
        weights = mixing[which].detach()
        slope = weights * (table - (weights * table).sum(1, keepdim=True)) / even
        assert torch.allclose(alpha[which].grad, slope)


def test_expected_cost_of_a_sure_choice_is_its_price():
    macro, genotype = Macro("single", 6, 4, 4), random_genotype("single", 3)
    costs = candidate_costs(macro, 64, device="meta")
    mixing = {which: torch.zeros(10, 8) for which in costs}
    assert expected_cost({which: torch.full((10, 8), 1 / 8) for which in costs}, costs).item() == pytest.approx(1)
    for which in costs:
        mixing[which][:, 0] = 1
        for row, op in positions(getattr(genotype, which), "single"): mixing[which][row] = torch.eye(8)[op]
    price = genotype_cost(genotype, macro, 64).macs - fixed_cost(macro, 64)
    even = sum(table.sum().item() / 8 for table in costs.values())
    assert expected_cost(mixing, costs).item() == pytest.approx(price / even) and expected_cost(mixing, costs).dtype == torch.float
