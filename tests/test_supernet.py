"The search network: two parameter groups, mixing, gradients."
import math

import pytest
import torch
from torch import nn

from tirnas.core import UserError
from tirnas.nets.cells import Macro
from tirnas.nets.ops import PRIMITIVES, MixedOp
from tirnas.nets.supernet import Supernet, edge_entropy

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
    assert not torch.equal(net.alpha_normal, net.alpha_reduce)


def test_maps_at_strides_8_and_16(net):
    maps = net(torch.randn(2, 1, 64, 32))
    assert {s: tuple(m.shape) for s, m in maps.items()} == {s: (2, net.channels[s], 64 // s, 32 // s) for s in (8, 16)}


def test_every_parameter_gets_a_gradient(net):
    sum(m.square().mean() for m in net(torch.randn(2, 1, 32, 32)).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(alpha.grad.abs().sum() > 0 for alpha in net.alpha_parameters())


def test_normal_and_reduce_matrices_go_to_their_cells(net):
    net.eval()
    image = torch.randn(1, 1, 32, 32)
    def stride_8(seed):
        torch.manual_seed(seed)
        return net(image)[8]
    before = stride_8(0)
    with torch.no_grad(): net.alpha_reduce.add_(torch.randn_like(net.alpha_reduce))
    assert not torch.equal(before, stride_8(0))


def test_mixing_weights_are_a_softmax_and_entropy_follows(net):
    for weights in net.mixing_weights().values():
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert net.entropy()["normal"] == pytest.approx(math.log(8), abs=1e-4)
    with torch.no_grad(): net.alpha_reduce[:, 1] = 200.0
    assert net.entropy() == {"normal": pytest.approx(math.log(8), abs=1e-4), "reduce": pytest.approx(0, abs=1e-6)}


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
    image = torch.randn(1, 1, 32, 32)
    net.eval()
    assert not torch.equal(net(image)[16], net(image)[16])
    fixed = Supernet(net.macro, rate=2, selection="fixed").eval()
    assert torch.equal(fixed(image)[16], fixed(image)[16])


def test_no_learnt_normalisation_scale_and_every_edge_is_mixed(net):
    assert all(m.weight is None for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    edges = [e for cell in net.cells for e in cell.edges]
    assert len(edges) == 3 * {"single": 10, "dual": 14}[net.macro.kind]
    assert all(isinstance(e, MixedOp) and e.keep * 2 == e.channels for e in edges)


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
