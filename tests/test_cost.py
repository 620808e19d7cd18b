"Counts against closed forms and against the table of named genotypes; measuring leaves no trace."
import pytest
import torch
from torch import nn

from tirnas.nets.backbones import ResNet
from tirnas.nets.cells import Macro
from tirnas.nets.cost import cost_report, count_macs, count_parameters, latency_ms, measuring
from tirnas.nets.genotype import DerivedNetwork, Genotype, random_genotype
from tirnas.nets.supernet import Supernet


def uniform(kind, op):
    "The genotype with `op` on every edge: a chain, or both inputs."
    nodes = tuple(((op, i),) if kind == "single" else ((op, 0), (op, 1)) for i in range(4))
    return Genotype(kind, nodes, nodes)


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


# Multiply-accumulates and parameters, in millions, of 16 cells from 16 channels, stem stride 1, colour image of 128 px;
# counted in closed form from the layer shapes, without the code under test.
@pytest.mark.parametrize("kind, op, parameters_m, macs_g", [
    ("dual", "sep_conv_3x3", 7.65, 1.94), ("dual", "dil_conv_3x3", 4.88, 1.29), ("dual", "dil_conv_5x5", 5.10, 1.49),
    ("dual", "sep_conv_5x5", 8.10, 2.34), ("dual", "max_pool_3x3", 2.10, 0.65), ("single", "sep_conv_3x3", 3.91, 1.00),
    ("single", "dil_conv_3x3", 2.53, 0.68), ("single", "sep_conv_5x5", 4.14, 1.20), ("single", "dil_conv_5x5", 2.64, 0.78)])
def test_named_genotypes_have_the_known_size(kind, op, parameters_m, macs_g):
    with torch.device("meta"):
        net = DerivedNetwork(uniform(kind, op), Macro(kind, 16, 16, 1, in_channels=3))
        macs = count_macs(net, torch.empty(1, 3, 128, 128))
    assert round(count_parameters(net) / 1e6, 2) == parameters_m
    assert round(macs / 1e9, 2) == macs_g


@pytest.mark.parametrize("channels, parameters_m", [(14, 5.89), (18, 9.64), (20, 11.86)])
def test_other_widths_of_the_dual_separable_network(channels, parameters_m):
    with torch.device("meta"):
        net = DerivedNetwork(uniform("dual", "sep_conv_3x3"), Macro("dual", 16, channels, 1, in_channels=3))
    assert round(count_parameters(net) / 1e6, 2) == parameters_m


@pytest.mark.parametrize("seed", range(4))
def test_macs_equal_the_closed_form_of_convolutions(seed):
    kind = ("single", "dual")[seed % 2]
    net, image = DerivedNetwork(random_genotype(kind, seed), Macro(kind, 6, 4, 4)).eval(), torch.zeros(2, 1, 32, 64)
    assert count_macs(net, image) == conv_macs(net, image)


def test_macs_of_search_networks_and_resnets_equal_the_closed_form():
    image = torch.zeros(1, 1, 32, 32)
    for net in (Supernet(Macro("dual", 3, 4, 4), rate=2).eval(), ResNet(18).eval()):
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


def test_the_total_of_a_search_network_has_alpha_as_well():
    *parts, total = cost_report(Supernet(Macro("single", 3, 4, 4), rate=2), torch.zeros(1, 1, 32, 32))
    assert total.parameters - sum(r.parameters for r in parts) == 2 * 10 * 8


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
