"The search network: two parameter groups, mixing, gradients."
import math

import pytest
import torch
from torch import nn

from tirnas.core import UserError
from tirnas.nets.cells import Macro, num_edges, full_links
from tirnas.nets.fused import FusedCell, copy_weights
from tirnas.nets.mixed import Mixing
from tirnas.nets.ops import PRIMITIVES
from tirnas.nets.relaxation import Relaxation, relax, settle
from tirnas.nets.supernet import Supernet, edge_entropy, plain_cell

SMALL = dict(cells=3, channels=4, stem_stride=4)


@pytest.fixture(params=["single", "dual"])
def net(request):
    torch.manual_seed(0)
    return Supernet(Macro(request.param, **SMALL), rate=2)


def test_alpha_and_weights_are_disjoint_and_together_complete(net):
    alpha, weights = ({id(p) for p in group} for group in (net.alpha_parameters(), net.weight_parameters()))
    assert not alpha & weights
    assert alpha | weights == {id(p) for p in net.parameters()}
    assert len(alpha) == 2 == len(net.alpha_parameters())
    assert len(weights) == len(net.weight_parameters())


def test_an_optimiser_of_one_group_leaves_the_other_alone(net):
    for train, keep in ((net.alpha_parameters, net.weight_parameters), (net.weight_parameters, net.alpha_parameters)):
        optimizer = torch.optim.SGD(train(), lr=0.1, momentum=0.9, weight_decay=0.1)
        before = [p.detach().clone() for p in keep()]
        moved = [p.detach().clone() for p in train()]
        net.zero_grad()
        sum(m.square().mean() for m in net(torch.randn(2, 1, 32, 32)).values()).backward()
        optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(keep(), before))
        assert any(not torch.equal(p, q) for p, q in zip(train(), moved))


def test_alpha_starts_as_small_noise_of_the_right_shape(net):
    edges = {"single": 10, "dual": 14}[net.macro.kind]
    for alpha in net.alpha_parameters():
        assert alpha.shape == (edges, len(PRIMITIVES))
        assert 0.5e-3 < alpha.std() < 1.5e-3
    assert not torch.equal(net.alpha["normal"], net.alpha["reduce"])


def test_maps_at_strides_8_and_16(net):
    maps = net(torch.randn(2, 1, 64, 32))
    assert {s: tuple(m.shape) for s, m in maps.items()} == {s: (2, net.channels[s], 64 // s, 32 // s) for s in (8, 16)}


def test_every_parameter_gets_a_gradient(net):
    sum(m.square().mean() for m in net(torch.randn(2, 1, 32, 32)).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(alpha.grad.abs().sum() > 0 for alpha in net.alpha_parameters())


def test_normal_and_reduce_matrices_go_to_their_cells(net):
    image = torch.randn(2, 1, 32, 32)
    def stride_8(seed):
        torch.manual_seed(seed)
        return net(image)[8]
    before = stride_8(0)
    with torch.no_grad(): net.alpha["reduce"].add_(torch.randn_like(net.alpha["reduce"]))
    assert not torch.equal(before, stride_8(0))


def test_mixing_weights_are_a_softmax(net):
    for which, told in net.mixing().items():
        torch.testing.assert_close(told.weights_EO, net.alpha[which].softmax(1))
        assert told[1:] == (None, 0.0, 0.0)


def test_entropy_equals_its_definition():
    weights = torch.randn(5, 8, dtype=torch.double).softmax(1)
    torch.testing.assert_close(edge_entropy(weights), -(weights * weights.log()).sum(1))


def test_seed_fixes_weights_channels_and_maps(net):
    def run(seed):
        torch.manual_seed(seed)
        twin = Supernet(net.macro, rate=2)
        return twin(torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32).expand(2, -1, -1, -1))[16]
    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_two_passes_differ_unless_the_selection_is_fixed(net):
    image = torch.randn(2, 1, 32, 32)
    assert not torch.equal(net(image)[16], net(image)[16])
    fixed = Supernet(net.macro, rate=2, selection="fixed")
    assert torch.equal(fixed(image)[16], fixed(image)[16])


def test_no_learnt_normalisation_scale_and_every_edge_is_mixed(net):
    assert all(m.weight is None and m.running_mean is None for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(isinstance(cell, FusedCell) and cell.keep * 2 == cell.channels for cell in net.cells)
    assert [cell.num_edges for cell in net.cells] == 3 * [{"single": 10, "dual": 14}[net.macro.kind]]


def test_state_round_trip_is_exact(net):
    twin = Supernet(net.macro, rate=2)
    twin.load_state_dict(net.state_dict())
    image = torch.randn(2, 1, 32, 32)
    torch.manual_seed(1)
    first = net(image)
    torch.manual_seed(1)
    assert all(torch.equal(first[s], m) for s, m in twin(image).items())


def test_a_rate_that_does_not_divide_the_channels_is_refused():
    with pytest.raises(UserError, match="K = 3 does not divide 4 channels"): Supernet(Macro("dual", **SMALL), rate=3)


LAYOUTS = [Macro("single", 3, 8, 4), Macro("dual", 3, 8, 4), Macro("dual", 8, 4, 2), Macro("single", 5, 4, 1)]


def twins(macro, rate, selection, relaxation=Relaxation(False, 1.0, 1.0, False, 0.0, 0.0), dtype=torch.float):
    "A plain and a fused network with the same weights and alphas, both with alphas far from even."
    torch.manual_seed(3)
    nets = [Supernet(macro, rate, selection, relaxation, cell).to(dtype) for cell in (plain_cell, FusedCell)]
    nets[1].stem.load_state_dict(nets[0].stem.state_dict())
    for plain, fused in zip(nets[0].cells, nets[1].cells): copy_weights(plain, fused)
    with torch.no_grad():
        for a, b in zip(*(net.alpha_parameters() for net in nets)): b.copy_(a.normal_())
    return nets


def run(net, image, mixing=None):
    "Maps and gradients of alphas, of the stem and of the image, from a fixed seed."
    torch.manual_seed(5)
    image = image.clone().requires_grad_()
    maps = net(image, mixing)
    wanted = [*net.alpha_parameters(), *net.stem.parameters(), image]
    loss = sum((m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view_as(m)).sum() / m.numel() for m in maps.values())
    return [*maps.values(), *(g for g in torch.autograd.grad(loss, wanted, allow_unused=True) if g is not None)]


@pytest.mark.parametrize("macro", LAYOUTS, ids=str)
@pytest.mark.parametrize("rate, selection", [(1, "random"), (2, "random"), (4, "random"), (2, "fixed")])
def test_the_fused_form_equals_the_plain_one(macro, rate, selection):
    "Maps and gradients of whole networks, in double precision, to 1e-9 of their size."
    results = [run(net, torch.randn(3, 1, 32, 48, dtype=torch.double, generator=torch.Generator().manual_seed(0)))
               for net in twins(macro, rate, selection, dtype=torch.double)]
    for plain, fused in zip(*results, strict=True):
        assert plain.shape == fused.shape and (plain - fused).abs().max() < 1e-9 * plain.abs().max()


MINI = Macro("dual", 5, 16, 4)


@pytest.mark.parametrize("plan", [*MINI.plan(), *Macro("single", 3, 16, 4).plan()], ids=lambda p: f"{p.which} {p.c}")
def test_single_precision_of_a_cell(plan):
    """Outputs and gradients of each cell of the mini recipe to 1e-5 of their size.

    All but one element in a thousand: where a rectifier's input is zero up to rounding, the two forms may fall on either side."""
    torch.manual_seed(0)
    kind = "dual" if plan in MINI.plan() else "single"
    plain, fused = plain_cell(kind, plan, 4, "random"), FusedCell(kind, plan, 4, "random")
    copy_weights(plain, fused)
    side = 96 // plan.stride * (2 if plan.reduction else 1)
    shapes = [(4, plan.c_in_prev, *2 * [side * (2 if plan.reduction_prev else 1)]), (4, plan.c_in, side, side)][-len(plain.preprocess):]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    weights, found = torch.randn(len(plain.edges), 8).softmax(1).requires_grad_(), []
    for cell, order in ((plain, lambda x: x), (fused, lambda x: x.transpose(0, 1))):
        torch.manual_seed(1)
        out = order(cell(tuple(order(x) for x in inputs), Mixing(weights)))
        found.append([out, *torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), [weights, *inputs])])
    for want, got in zip(*found, strict=True): assert ((want - got).abs() < 1e-5 * want.abs().max()).float().mean() > 0.999


def test_gradients_of_every_weight_equal_those_of_the_plain_form():
    "Through the copying itself: the fused gradients are those of the plain weights, row by row."
    plain, fused = twins(Macro("dual", 3, 8, 4), 2, "random", dtype=torch.double)
    image, slopes = torch.randn(3, 1, 32, 32, dtype=torch.double), []
    for net in (plain, fused):
        torch.manual_seed(5)
        for p, g in zip(net.parameters(), torch.autograd.grad(sum(m.square().mean() for m in net(image).values()), list(net.parameters()))): p.data = g
    expected = Supernet(plain.macro, 2).double()
    for a, b in zip(plain.cells, expected.cells): copy_weights(a, b)
    for a, b in zip(fused.cells, expected.cells):
        for p, q in zip(a.parameters(), b.parameters()): torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-12)


def test_edge_weights_reach_both_forms_alike():
    nets = twins(Macro("dual", 3, 8, 4), 2, "random", Relaxation(False, 0.5, 0.5, True, 0.0, 0.0), torch.double)
    assert all(len(net.alpha_parameters()) == 4 for net in nets)
    results = [run(net, torch.randn(2, 1, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(0))) for net in nets]
    for plain, fused in zip(*results): torch.testing.assert_close(plain, fused, rtol=1e-8, atol=1e-10)
    beta = results[0][2 + 2:2 + 4]
    assert all(b.shape == (14,) and b.abs().sum() > 0 for b in beta)


def test_an_edge_of_weight_zero_brings_nothing():
    "With all edges but one per node closed, the maps of a node are that edge's alone."
    for net in twins(Macro("single", 3, 4, 4), 2, "random", dtype=torch.double):
        gates = torch.zeros(10, dtype=torch.double)
        told = {which: Mixing(torch.full((10, 8), 1 / 8, dtype=torch.double), gates) for which in ("normal", "reduce")}
        assert all(not m.any() for m in net(torch.randn(2, 1, 32, 32, dtype=torch.double), told).values())


def test_edge_weights_under_autocast():
    net = Supernet(Macro("dual", 3, 8, 4), 2, relaxation=Relaxation(False, 1.0, 1.0, True, 0.0, 0.0))
    with torch.autocast("cpu", torch.bfloat16): assert all(torch.isfinite(m).all() for m in net(torch.randn(2, 1, 32, 32)).values())


def test_options_follow_the_progress_of_the_search():
    "Skip dropout fades, drop-path grows, the temperature falls by equal factors; a draw follows the plain softmax at any temperature."
    alpha = torch.randn(10, 8)
    for sampled in (False, True):
        told = {p: settle_and_relax(Relaxation(sampled, 2.0, 0.5, False, 0.4, 0.2), alpha, p) for p in (0.0, 0.5, 1.0)}
        assert {p: (r.skip_dropout, r.drop_path) for p, (_, r) in told.items()} == {0.0: (0.4, 0.0), 0.5: (0.2, 0.1), 1.0: (0.0, 0.2)}
        for p, temperature in ((0.0, 2.0), (0.5, 1.0), (1.0, 0.5)):
            torch.testing.assert_close(told[p][0].weights_EO, (alpha / (1.0 if sampled else temperature)).softmax(1))
            assert told[p][0][1:] == (None, 0.0, 0.0)


def settle_and_relax(relaxation, alpha, progress):
    return settle(relaxation, alpha, None, "single", progress), relax(relaxation, alpha, None, "single", progress)


@pytest.mark.parametrize("cell", [plain_cell, FusedCell])
def test_skip_dropout_and_dropped_paths_leave_the_mean(cell):
    "Averaged over many passes, a cell with both kinds of dropout gives what it gives without."
    macro = Macro("single", 3, 4, 4)
    torch.manual_seed(0)
    one, image = cell("single", macro.plan()[0], 1, "random"), torch.randn(12, 4, 8, 8)
    if cell is plain_cell: image = image.transpose(0, 1)
    first_node = slice(0, 4)
    def node(told):
        out = one((image,), told)
        return (out if cell is FusedCell else out.transpose(0, 1))[first_node]
    weights = torch.randn(10, 8).softmax(1)
    expected = node(Mixing(weights))
    for told in (Mixing(weights, None, 0.5, 0.0), Mixing(weights, None, 0.0, 0.3)):
        passes = torch.stack([node(told).detach() for _ in range(150)])
        error = (passes.mean(0) - expected).abs()
        assert (passes.std(0) > 0).any() and (error <= 5 * passes.std(0) / 150 ** 0.5 + 1e-5).all()


def test_sampled_edges_compute_one_operation_each():
    torch.manual_seed(0)
    net = Supernet(Macro("dual", 3, 4, 4), 1, "random", Relaxation(True, 1.0, 1.0, False, 0.0, 0.0), plain_cell)
    calls = []
    for cell in net.cells:
        for edge in cell.edges:
            for op in edge.ops.values(): op.register_forward_hook(lambda *_: calls.append(1))
    sum(m.square().mean() for m in net(torch.randn(2, 1, 32, 32)).values()).backward()
    assert 0 < len(calls) <= 3 * num_edges(full_links("dual"))
    assert all(alpha.grad.abs().sum() > 0 for alpha in net.alpha_parameters())


@pytest.mark.parametrize("cell", [plain_cell, FusedCell])
def test_reduced_precision_trains(cell):
    "Under autocast both forms run forward and backward, and every parameter gets a finite gradient."
    torch.manual_seed(0)
    net = Supernet(Macro("dual", 3, 8, 4), 2, make_cell=cell)
    with torch.autocast("cpu", torch.bfloat16): loss = sum(m.float().square().mean() for m in net(torch.randn(2, 1, 32, 32)).values())
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_cells_behind_the_last_map_are_not_run():
    net = Supernet(Macro("dual", 5, 4, 4), 2)
    ran = []
    for i, cell in enumerate(net.cells): cell.register_forward_hook(lambda *_, i=i: ran.append(i))
    torch.manual_seed(0)
    both = net(torch.ones(2, 1, 32, 32))
    net.strides = (8,)
    ran.clear()
    torch.manual_seed(0)
    assert torch.equal(net(torch.ones(2, 1, 32, 32))[8], both[8]) and ran == [0, 1, 2]
