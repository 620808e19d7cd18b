"The decision against brute force, the strict file, the derived network, the drawing."
import itertools
import json

import matplotlib
import pytest
import torch
from torch import nn

from tirnas.core import UserError
from tirnas.nets.cells import INPUTS, Macro
from tirnas.nets.genotype import (OPERATIONS, DerivedNetwork, Genotype, arrange, discretise, draw_cell,
                                  random_genotype, strongest_edges)
from tirnas.nets.ops import PRIMITIVES
from tirnas.nets.supernet import Supernet

matplotlib.use("Agg")
EDGES = {"single": 10, "dual": 14}
KEPT = {"single": 1, "dual": 2}


def brute_force(alpha, kind):
    "Try every subset of edges of each node and every operation on them; keep the subset of the greatest sorted scores."
    weights, nodes, row = alpha.double().softmax(1).tolist(), [], 0
    for node in range(4):
        states = len(INPUTS[kind]) + node
        rated = [max((weights[row + s][o], PRIMITIVES[o]) for o in range(1, 8)) for s in range(states)]
        best = max(itertools.combinations(range(states), KEPT[kind]), key=lambda sub: sum(rated[s][0] for s in sub))
        nodes.append(tuple((rated[s][1], s) for s in best))
        row += states
    return tuple(nodes)


@pytest.mark.parametrize("kind", ["single", "dual"])
@pytest.mark.parametrize("seed", range(25))
def test_decision_equals_brute_force(kind, seed):
    torch.manual_seed(seed)
    normal, reduce = (3 * torch.randn(EDGES[kind], 8) for _ in range(2))
    genotype = discretise(normal, reduce, kind)
    assert genotype.normal == brute_force(normal, kind)
    assert genotype.reduce == brute_force(reduce, kind)


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_none_is_never_chosen(kind):
    alpha = torch.randn(EDGES[kind], 8)
    alpha[:, PRIMITIVES.index("none")] = 50.0
    genotype = discretise(alpha, alpha, kind)
    assert all(op in OPERATIONS and op != "none" for node in genotype.normal for op, _ in node)


def test_none_lowers_the_score_of_its_edge():
    alpha = torch.zeros(10, 8)
    alpha[1, PRIMITIVES.index("sep_conv_3x3")], alpha[1, PRIMITIVES.index("none")] = 3.0, 5.0
    alpha[2, PRIMITIVES.index("skip_connect")] = 1.0
    assert strongest_edges(alpha, "single")[1] == (("skip_connect", 1),)


def test_equal_edges_are_decided_by_the_earlier_source():
    assert [node[0][1] for node in strongest_edges(torch.zeros(10, 8), "single")] == [0, 0, 0, 0]
    assert [tuple(s for _, s in node) for node in strongest_edges(torch.zeros(14, 8), "dual")] == [(0, 1)] * 4


@pytest.mark.parametrize("alpha, kind, text", [
    (torch.zeros(10, 8), "dual", r"needs finite numbers of shape \(14, 8\)"),
    (torch.zeros(14, 7), "dual", "needs finite numbers"),
    (torch.full((10, 8), float("nan")), "single", "needs finite numbers"),
    (torch.zeros(10, 8), "one", "unknown kind of cell 'one'")])
def test_a_wrong_alpha_is_refused(alpha, kind, text):
    with pytest.raises(UserError, match=text): discretise(alpha, alpha, kind)


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_file_round_trip(tmp_path, kind):
    genotype = random_genotype(kind, 11)
    path = genotype.save(tmp_path / "genotype.json")
    assert Genotype.load(path) == genotype == Genotype.from_json(genotype.to_json())
    assert path.read_text() == genotype.to_json()
    assert json.loads(genotype.to_json())["schema"] == 1


GOOD = random_genotype("dual", 0)


def changed(**changes):
    "The JSON text of a good dual genotype with some keys replaced, or removed by None."
    value = {**json.loads(GOOD.to_json()), **changes}
    return json.dumps({k: v for k, v in value.items() if v is not None})


def edited(node, edge, value):
    "The JSON text of a good genotype with one edge of the normal cell replaced."
    normal = json.loads(GOOD.to_json())["normal"]
    normal[node][edge] = value
    return changed(normal=normal)


@pytest.mark.parametrize("text, message", [
    ("", "not JSON"), ("{", "not JSON"), ("[1, 2]", "a JSON list, not an object"), ("3", "a JSON int"),
    (changed(schema=2), "schema 2 of the genotype is newer than this program: use schema 1, or update tirnas"),
    (changed(schema=0), "unknown"), (changed(schema="1"), "unknown"), (changed(schema=None), "schema None"),
    (changed(schema=True), "schema True"),
    (changed(kind="triple"), "unknown kind of cell 'triple'"), (changed(kind=["dual"]), "unknown kind of cell"),
    (changed(kind=None), "missing or unknown key 'kind'"), (changed(reduce=None), "missing or unknown key 'reduce'"),
    (changed(extra=1), "missing or unknown key 'extra'"),
    (changed(normal=json.loads(GOOD.to_json())["normal"][:3]), "normal cell: 3 nodes given: a cell has exactly 4"),
    (changed(reduce=[]), "reduce cell: 0 nodes"), (changed(normal={}), "no nodes given"),
    (changed(normal=[[], [], [], []]), "node 0: 0 edges given: a dual cell keeps exactly 2"),
    (changed(kind="single"), "a single cell keeps exactly 1"), (changed(normal=["a"] * 4), "no edges given"),
    (edited(0, 0, ["conv", 0]), "normal cell, node 0: unknown operation 'conv'"),
    (edited(1, 0, ["none", 0]), "normal cell, node 1: unknown operation 'none'"),
    (edited(2, 1, ["skip_connect", 4]), "node 2: source 4 is not an earlier state: use 0 to 3"),
    (edited(0, 0, ["skip_connect", -1]), "source -1"), (edited(0, 0, ["skip_connect", 1.0]), "an edge must be"),
    (edited(0, 0, ["skip_connect"]), "an edge must be"), (edited(0, 0, 7), "an edge must be"),
    (edited(0, 0, ["skip_connect", True]), "an edge must be"), (edited(0, 0, [[1], 0]), "an edge must be"),
    (edited(0, 0, ["skip_connect", 1]), "two edges read the same source 1")])
def test_damaged_files_are_refused_with_one_sentence(tmp_path, text, message):
    with pytest.raises(UserError, match=message): Genotype.from_json(text)
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(UserError) as error: Genotype.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read as a genotype"): Genotype.load(tmp_path / "missing.json")
    with pytest.raises(UserError, match="cannot be read as a genotype"): Genotype.load(tmp_path)
    (tmp_path / "image.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="image.json"): Genotype.load(tmp_path / "image.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="deep.json"): Genotype.load(tmp_path / "deep.json")


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_random_genotypes_depend_on_the_seed_alone_and_use_the_whole_space(kind):
    torch.manual_seed(0)
    first = [random_genotype(kind, seed) for seed in range(60)]
    torch.manual_seed(1)
    assert [random_genotype(kind, seed) for seed in range(60)] == first
    edges = [(i, edge) for g in first for cell in (g.normal, g.reduce) for i, node in enumerate(cell) for edge in node]
    assert {op for _, (op, _) in edges} == set(OPERATIONS)
    assert {(i, s) for i, (_, s) in edges} == {(i, s) for i in range(4) for s in range(len(INPUTS[kind]) + i)}


@pytest.mark.parametrize("kind", ["single", "dual"])
@pytest.mark.parametrize("stem, cells", [(1, 5), (2, 5), (4, 6)])
def test_derived_network_has_the_maps_of_its_search_network(kind, stem, cells):
    macro = Macro(kind, cells, 4, stem)
    net = DerivedNetwork(random_genotype(kind, 5), macro)
    maps = net(torch.randn(2, 1, 32, 64))
    assert net.channels == Supernet(macro, rate=1).channels
    assert {s: tuple(m.shape) for s, m in maps.items()} == {s: (2, net.channels[s], 32 // s, 64 // s) for s in (8, 16)}
    assert all(m.weight is not None for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_all_parameters_of_a_derived_network_learn():
    net = DerivedNetwork(random_genotype("dual", 2), Macro("dual", 6, 4, 4))
    sum(m.square().mean() for m in net(torch.randn(2, 1, 32, 32)).values()).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_operations_stand_where_the_genotype_says():
    genotype = random_genotype("dual", 3)
    net = DerivedNetwork(genotype, Macro("dual", 6, 4, 4))
    for plan, cell in zip(net.macro.plan(), net.cells):
        nodes = genotype.reduce if plan.reduction else genotype.normal
        assert cell.links == tuple(tuple(s for _, s in node) for node in nodes)
        for (op, source), edge in zip((e for node in nodes for e in node), cell.edges):
            kernels = [m.kernel_size[0] for m in edge.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
            expected = {"sep_conv_3x3": [3, 3], "sep_conv_5x5": [5, 5], "dil_conv_3x3": [3], "dil_conv_5x5": [5]}
            assert kernels == expected.get(op, [])


def test_a_derived_network_needs_the_kind_of_its_layout():
    with pytest.raises(UserError, match="a single genotype in a dual layout"):
        DerivedNetwork(random_genotype("single", 0), Macro("dual", 6, 4, 4))


@pytest.mark.parametrize("seed", range(6))
def test_drawing_names_every_node_and_operation_and_covers_no_box(seed):
    kind = ("single", "dual")[seed % 2]
    genotype = random_genotype(kind, seed)
    texts = [t.get_text() for t in draw_cell(genotype, "reduce").texts if t.get_text()]
    assert sorted(texts) == sorted([*INPUTS[kind], "0", "1", "2", "3", "out", *(op for n in genotype.reduce for op, _ in n)])
    places, _, _ = arrange(genotype.reduce, len(INPUTS[kind]))
    assert len({tuple(p) for p in places}) == len(places)
    matplotlib.pyplot.close("all")
