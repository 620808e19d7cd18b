"Operations and random channel selection: closed forms, gradients and statistics."
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tirnas.core import UserError
from tirnas.nets.mixed import MixedOp, select_channels
from tirnas.nets.ops import PRIMITIVES, FactorizedReduce, make_op


def only(name):
    "The mixing weights that put everything on one operation."
    return F.one_hot(torch.tensor(PRIMITIVES.index(name)), len(PRIMITIVES)).float()


def channels_used(edge, hw=8):
    "Channels that a pass replaced by zeros when all weight is on `none`."
    out = edge(torch.ones(1, edge.channels, hw, hw), only("none"))
    return tuple((out[0].flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist())


@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_every_operation_keeps_channels_and_divides_by_its_stride(name, stride, affine):
    out = make_op(name, 6, stride, affine)(torch.randn(2, 6, 8, 12))
    assert out.shape == (2, 6, 8 // stride, 12 // stride)


@pytest.mark.parametrize("name, stride, expected", [
    ("none", 2, 0), ("max_pool_3x3", 1, 0), ("avg_pool_3x3", 2, 0), ("skip_connect", 1, 0),
    ("skip_connect", 2, 10 * 10 + 20),
    ("sep_conv_3x3", 1, 2 * (10 * 9 + 100 + 20)), ("sep_conv_5x5", 2, 2 * (10 * 25 + 100 + 20)),
    ("dil_conv_3x3", 2, 10 * 9 + 100 + 20), ("dil_conv_5x5", 1, 10 * 25 + 100 + 20)])
def test_parameter_counts_are_the_closed_forms(name, stride, expected):
    assert sum(p.numel() for p in make_op(name, 10, stride, True).parameters()) == expected


def test_no_learnt_scale_in_the_search_form_and_pools_are_normalised_only_there():
    for name in PRIMITIVES:
        norms = [m for m in make_op(name, 4, 2, False).modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(m.weight is None for m in norms)
        assert bool(norms) == (name != "none")
    assert not [m for m in make_op("max_pool_3x3", 4, 1, True).modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name, strides, dilations", [
    ("sep_conv_3x3", [2, 1, 1, 1], [1, 1, 1, 1]), ("sep_conv_5x5", [2, 1, 1, 1], [1, 1, 1, 1]),
    ("dil_conv_3x3", [2, 1], [2, 1]), ("dil_conv_5x5", [2, 1], [2, 1])])
def test_the_stride_is_in_the_first_depthwise_convolution(name, strides, dilations):
    convs = [m for m in make_op(name, 4, 2, True).modules() if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convs] == strides
    assert [c.dilation[0] for c in convs] == dilations
    assert [c.groups for c in convs] == [4, 1] * (len(convs) // 2) and all(c.bias is None for c in convs)


def test_factorized_reduce_reads_the_even_and_the_odd_diagonal():
    reduce = FactorizedReduce(3, 4).eval()
    x = torch.rand(2, 3, 6, 8)
    weight_even, weight_odd = (c.weight[:, :, 0, 0] for c in (reduce.even, reduce.odd))
    plain = torch.cat([torch.einsum("oc,bchw->bohw", weight_even, x[:, :, ::2, ::2]),
                       torch.einsum("oc,bchw->bohw", weight_odd, x[:, :, 1::2, 1::2])], 1)
    torch.testing.assert_close(reduce(x), plain / (1 + reduce.norm.eps) ** 0.5)


def test_two_passes_use_different_channels():
    torch.manual_seed(0)
    edge = MixedOp(16, 1, rate=4)
    seen = {channels_used(edge) for _ in range(20)}
    assert len(seen) > 10
    assert all(len(channels) == 4 for channels in seen)


def test_what_the_operations_receive_are_the_channels_that_the_output_betrays():
    "The channels are constant, so a normalised pool gives zeros, up to rounding, at exactly the places that were read."
    torch.manual_seed(0)
    edge, received = MixedOp(12, 1, rate=3), []
    edge.ops["max_pool_3x3"].register_forward_pre_hook(lambda module, args: received.append(args[0]))
    x = torch.arange(1, 13).float().view(1, 12, 1, 1).expand(1, 12, 4, 4)
    for _ in range(10):
        out = edge(x, only("max_pool_3x3"))
        zeroed = (out[0, :, 0, 0].abs() < 0.5).nonzero().flatten()
        assert torch.equal(received[-1][0, :, 0, 0] - 1, zeroed.float())
    assert len({tuple(r[0, :, 0, 0].tolist()) for r in received}) > 1


def test_every_channel_is_selected_about_equally_often():
    torch.manual_seed(0)
    edge, passes = MixedOp(8, 1, rate=4), 2000
    counts = torch.zeros(8)
    for _ in range(passes): counts[list(channels_used(edge, 2))] += 1
    expected, deviation = passes / 4, (passes * 0.25 * 0.75) ** 0.5
    assert (counts - expected).abs().max() < 4.5 * deviation


def test_fixed_selection_never_changes_and_is_saved():
    torch.manual_seed(0)
    edge = MixedOp(16, 1, rate=4, selection="fixed")
    assert len({channels_used(edge) for _ in range(20)}) == 1
    torch.manual_seed(1)
    other = MixedOp(16, 1, rate=4, selection="fixed")
    assert channels_used(other) != channels_used(edge)
    other.load_state_dict(edge.state_dict())
    assert channels_used(other) == channels_used(edge)


def test_the_seed_decides_the_channels():
    edge = MixedOp(16, 1, rate=4)
    torch.manual_seed(5)
    first = [channels_used(edge) for _ in range(5)]
    torch.manual_seed(5)
    assert [channels_used(edge) for _ in range(5)] == first


def test_the_rate_of_one_is_the_plain_mixture():
    torch.manual_seed(0)
    for stride in (1, 2):
        edge, x, weights = MixedOp(4, stride, rate=1), torch.randn(2, 4, 8, 8), torch.randn(8).softmax(0)
        plain = sum(w * edge.ops[name](x) for name, w in zip(PRIMITIVES, weights) if name != "none")
        torch.testing.assert_close(edge(x, weights), plain, rtol=0, atol=0)


def test_a_skip_only_mixture_returns_the_input():
    x = torch.randn(2, 16, 8, 8)
    for rate in (1, 2, 4, 8):
        assert torch.equal(MixedOp(16, 1, rate)(x, only("skip_connect")), x)


def test_the_bypass_of_stride_two_is_the_2x2_maximum():
    torch.manual_seed(0)
    edge, x = MixedOp(8, 2, rate=4), torch.rand(2, 8, 8, 8) + 1
    out = edge(x, only("none"))
    rest = out[0].flatten(1).abs().sum(1) > 0
    blocks = x.view(2, 8, 4, 2, 4, 2).amax((3, 5))
    assert rest.sum() == 6
    assert torch.equal(out[:, rest], blocks[:, rest])


def test_gradients_of_the_operations_reach_exactly_the_selected_channels():
    torch.manual_seed(0)
    edge = MixedOp(12, 1, rate=4).eval()
    for _ in range(5):
        x = torch.randn(2, 12, 6, 6, requires_grad=True)
        state = torch.get_rng_state()
        chosen = list(channels_used(edge))
        torch.set_rng_state(state)
        out = edge(x, only("dil_conv_3x3"))
        out[:, chosen].sum().backward()
        touched = (x.grad.abs().sum((0, 2, 3)) > 0).nonzero().flatten().tolist()
        assert touched == chosen


def test_unselected_channels_have_the_identity_gradient():
    torch.manual_seed(0)
    edge, x = MixedOp(8, 1, rate=4), torch.randn(1, 8, 4, 4, requires_grad=True)
    edge(x, only("none")).sum().backward()
    assert sorted(x.grad.unique().tolist()) == [0.0, 1.0]
    assert (x.grad[0, :, 0, 0] == 0).sum() == 2


def test_mixing_weights_receive_the_gradient_of_the_definition():
    torch.manual_seed(0)
    edge, x = MixedOp(4, 1, rate=1).double(), torch.randn(2, 4, 4, 4, dtype=torch.double)
    weights = torch.randn(8, dtype=torch.double).softmax(0).requires_grad_()
    edge(x, weights).sum().backward()
    expected = [0.0 if name == "none" else edge.ops[name](x).sum().item() for name in PRIMITIVES]
    torch.testing.assert_close(weights.grad, torch.tensor(expected, dtype=torch.double))


def test_reduced_precision_mixes_and_returns_the_type_of_the_input():
    with torch.autocast("cpu", torch.bfloat16):
        assert MixedOp(8, 2, rate=4)(torch.randn(1, 8, 8, 8), only("sep_conv_3x3")).dtype == torch.float32


def test_selection_draws_without_repetition():
    drawn = select_channels(10, 4)
    assert len(set(drawn.tolist())) == 4 and torch.equal(drawn, drawn.sort().values)


@pytest.mark.parametrize("make, text", [
    (lambda: make_op("conv_1x1", 4, 1, True), "unknown operation 'conv_1x1'"),
    (lambda: MixedOp(10, 1, rate=4), "K = 4 does not divide 10 channels"),
    (lambda: MixedOp(8, 1, rate=0), "K = 0 does not divide 8 channels"),
    (lambda: MixedOp(8, 1, rate=16), "K = 16 does not divide 8 channels"),
    (lambda: MixedOp(8, 1, selection="shuffle"), "unknown channel selection 'shuffle'"),
    (lambda: MixedOp(4, 2, rate=4), "use an even number")])
def test_bad_input_is_one_sentence(make, text):
    with pytest.raises(UserError, match=text): make()
