"The backbone contract, and the sizes of the ResNets part by part."
import pytest
import torch

from tirnas.core import UserError
from tirnas.nets.backbones import Backbone, Block, ResNet, searched_backbone
from tirnas.nets.cells import Macro
from tirnas.nets.cost import cost_report, count_parameters
from tirnas.nets.genotype import random_genotype
from tirnas.nets.supernet import Supernet

MAKERS = {
    "resnet18": lambda: ResNet(18), "resnet50": lambda: ResNet(50),
    "single": lambda: searched_backbone(random_genotype("single", 0), Macro("single", 6, 4, 4)),
    "dual": lambda: searched_backbone(random_genotype("dual", 0), Macro("dual", 5, 4, 2)),
    "supernet": lambda: Supernet(Macro("dual", 4, 4, 4), rate=2)}


@pytest.mark.parametrize("name", MAKERS)
def test_every_backbone_keeps_the_contract(name):
    net = MAKERS[name]()
    assert isinstance(net, Backbone)
    maps = net(torch.randn(2, 1, 64, 32))
    assert {s: tuple(m.shape) for s, m in maps.items()} == {s: (2, net.channels[s], 64 // s, 32 // s) for s in (8, 16)}
    with pytest.raises(UserError, match="multiples of 16"): net(torch.randn(1, 1, 60, 32))
    with pytest.raises(UserError, match=r"need \(batch, 1, height, width\)"): net(torch.randn(1, 3, 64, 32))


@pytest.mark.parametrize("name", MAKERS)
def test_both_maps_reach_the_first_layer_and_seeds_fix_the_weights(name):
    torch.manual_seed(1)
    net = MAKERS[name]()
    torch.manual_seed(1)
    twin = MAKERS[name]()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters()))
    for stride in (8, 16):
        net.zero_grad()
        net(torch.randn(2, 1, 64, 64))[stride].square().mean().backward()
        assert next(net.stem.parameters()).grad.abs().sum() > 0


# Parameters in millions and multiply-accumulates in 10^9 at 288 px on colour images, counted by hand from layer shapes.
@pytest.mark.parametrize("depth, total_m, parts", [
    (18, 2.783, {"stem": (0.010, 0.195), "layer1": (0.148, 0.764), "layer2": (0.526, 0.679), "layer3": (2.100, 0.679)}),
    (50, 8.543, {"stem": (0.010, 0.195), "layer1": (0.216, 1.104), "layer2": (1.220, 1.699), "layer3": (7.098, 2.421)})])
def test_resnets_have_the_size_of_the_part_that_dimp_uses(depth, total_m, parts):
    with torch.device("meta"):
        net = ResNet(depth, in_channels=3)
        *rows, total = cost_report(net, torch.empty(1, 3, 288, 288))
    assert round(total.parameters / 1e6, 3) == total_m
    assert {r.part: (round(r.parameters / 1e6, 3), round(r.macs / 1e9, 3)) for r in rows} == parts


def test_one_channel_saves_two_thirds_of_the_first_convolution():
    assert count_parameters(ResNet(18, in_channels=3)) - count_parameters(ResNet(18)) == 2 * 64 * 49


def test_a_block_with_a_dead_path_is_its_shortcut():
    for kind in ("basic", "bottleneck"):
        block = Block(kind, {"basic": 8, "bottleneck": 32}[kind], 8, 1).eval()
        torch.nn.init.zeros_(block.path[-2].weight)
        x = torch.rand(1, {"basic": 8, "bottleneck": 32}[kind], 4, 4)
        assert torch.equal(block(x), x)


def test_an_unknown_depth_is_refused():
    with pytest.raises(UserError, match="no ResNet of depth 101: use 18 or 50"): ResNet(101)
