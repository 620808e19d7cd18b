"Layout of networks and the graph of cells."
import pytest
import torch
from torch import nn

from tirnas.core import UserError
from tirnas.nets.cells import Cell, CellNet, Macro, full_links, make_preprocess, make_stem, num_edges
from tirnas.nets.mixed import Mixing
from tirnas.nets.ops import FactorizedReduce, make_op

SEP = lambda edge, c, stride: make_op("sep_conv_3x3", c, stride, True)


def test_edge_counts_are_those_of_the_paper():
    assert num_edges(full_links("single")) == 10
    assert num_edges(full_links("dual")) == 14


@pytest.mark.parametrize("stem, cells, positions", [
    (1, 16, (3, 6, 9, 12)), (1, 8, (1, 3, 4, 6)), (1, 5, (1, 2, 3, 4)), (2, 8, (2, 4, 6)), (4, 6, (2, 4)), (4, 3, (1, 2))])
def test_reductions_are_spread_evenly_and_end_at_stride_16(stem, cells, positions):
    macro = Macro("dual", cells, 8, stem)
    plans = macro.plan()
    assert macro.reduction_positions == positions == tuple(p.index for p in plans if p.reduction)
    assert stem * 2 ** macro.reductions == 16 == plans[-1].stride
    assert [p.c * stem for p in plans] == [8 * p.stride for p in plans]


def test_plan_of_a_small_dual_network_by_hand():
    plans = Macro("dual", 6, 8, 4).plan()
    assert [(p.reduction, p.reduction_prev, p.c_in_prev, p.c_in, p.c, p.stride) for p in plans] == [
        (False, False, 24, 24, 8, 4), (False, False, 24, 32, 8, 4), (True, False, 32, 32, 16, 8),
        (False, True, 32, 64, 16, 8), (True, False, 64, 64, 32, 16), (False, True, 64, 128, 32, 16)]


def test_the_paper_layout_has_the_interface_of_resnet50():
    assert Macro("dual", 16, 16, 1).out_channels == {8: 512, 16: 1024}


@pytest.mark.parametrize("kind", ["single", "dual"])
@pytest.mark.parametrize("stem, cells", [(1, 5), (2, 4), (4, 3), (4, 6), (2, 8)])
def test_network_gives_the_announced_maps(kind, stem, cells):
    macro = Macro(kind, cells, 4, stem, in_channels=3)
    links = ((0,),) * 4 if kind == "single" else ((0, 1),) * 4
    net = CellNet(macro, lambda plan: Cell(kind, plan, links, SEP, affine=True), affine=True)
    maps = net(torch.randn(2, 3, 32, 64))
    assert {s: tuple(m.shape) for s, m in maps.items()} == {s: (2, net.channels[s], 32 // s, 64 // s) for s in (8, 16)}
    assert [len(cell.preprocess) for cell in net.cells] == [{"single": 1, "dual": 2}[kind]] * cells


def test_only_edges_from_inputs_of_reduction_cells_have_stride_two():
    for kind, inputs in (("single", 1), ("dual", 2)):
        for plan in Macro(kind, 6, 4, 4).plan():
            strides = []
            Cell(kind, plan, full_links(kind), lambda e, c, s: strides.append(s) or nn.Identity(), affine=False)
            sources = [s for node in full_links(kind) for s in node]
            assert strides == [2 if plan.reduction and s < inputs else 1 for s in sources]


def test_older_input_is_halved_after_a_reduction_in_dual_cells_only():
    plans = Macro("dual", 6, 4, 4).plan()
    assert [isinstance(make_preprocess("dual", p, True)[0], FactorizedReduce) for p in plans] == \
        [False, False, False, True, False, True]
    assert len(make_preprocess("single", plans[3], True)) == 1


def test_a_cell_sums_edges_into_nodes_and_stacks_the_nodes():
    class Scale(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor
        def forward(self, x): return self.factor * x
    plan = Macro("dual", 6, 4, 4).plan()[1]
    cell = Cell("dual", plan, ((0, 1), (0, 2), (1, 3), (3, 4)), lambda e, c, s: Scale(10 ** e), affine=True).eval()
    inputs = torch.randn(1, plan.c_in_prev, 4, 4), torch.randn(1, plan.c_in, 4, 4)
    a, b = (prep(x) for prep, x in zip(cell.preprocess, inputs))
    n0 = a + 10 * b
    n1 = 100 * a + 1000 * n0
    n2 = 10 ** 4 * b + 10 ** 5 * n1
    n3 = 10 ** 6 * n1 + 10 ** 7 * n2
    torch.testing.assert_close(cell(inputs), torch.cat([n0, n1, n2, n3], 1))


def test_rows_of_weights_go_to_their_edges():
    class Take(nn.Module):
        def forward(self, x, row, *rates): return 0 * x + row.sum()
    plan = Macro("single", 6, 4, 4).plan()[0]
    cell = Cell("single", plan, full_links("single"), lambda e, c, s: Take(), affine=True)
    weights = 2.0 ** torch.arange(10).view(10, 1)
    out = cell((torch.randn(1, plan.c_in, 4, 4),), Mixing(weights))[0, ::4, 0, 0]
    assert out.tolist() == [1.0, 2.0 + 4, 8.0 + 16 + 32, 64.0 + 128 + 256 + 512]


def test_stem_layers():
    for stride, convs in ((1, 1), (2, 1), (4, 2)):
        stem = make_stem(Macro("dual", 6, 8, stride, in_channels=3), True)
        assert sum(isinstance(m, nn.Conv2d) for m in stem) == convs
        assert isinstance(stem[-1], nn.BatchNorm2d) and stem[-1].num_features == 24


@pytest.mark.parametrize("make, text", [
    (lambda: Macro("dual", 6, 8, 8), "stem stride 8 is not possible"),
    (lambda: Macro("dual", 2, 8, 4), "use at least 3 cells"),
    (lambda: Macro("dual", 3, 8, 2), "use at least 4 cells"),
    (lambda: Macro("dual", 4, 8, 1), "use at least 5 cells"),
    (lambda: Macro("two", 6, 8, 4), "unknown kind of cell 'two'"),
    (lambda: Macro("dual", 6, 0, 4), "at least 1")])
def test_bad_layouts_are_one_sentence(make, text):
    with pytest.raises(UserError, match=text): make()


@pytest.mark.parametrize("shape", [(1, 1, 40, 64), (1, 1, 64, 72), (1, 3, 64, 64), (1, 64, 64)])
def test_images_of_a_wrong_shape_are_refused(shape):
    net = CellNet(Macro("single", 3, 4, 4), lambda p: Cell("single", p, ((0,),) * 4, SEP, affine=True), affine=True)
    with pytest.raises(UserError, match="multiples of 16"): net(torch.randn(shape))
