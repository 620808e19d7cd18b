"The decision against brute force, edge weights and the limit on skips, the strict file, the network, the drawing."
import itertools
import json

import matplotlib
import pytest
import torch
from conftest import ROOT, shell
from torch import nn

from tirnas.core import UserError
from tirnas.nets.cells import INPUTS, Macro
from tirnas.nets.drawing import arrange, draw_cell, edge_labels
from tirnas.nets.genotype import OPERATIONS, DerivedNetwork, Genotype, discretise, positions, random_genotype
from tirnas.nets.ops import PRIMITIVES
from tirnas.nets.supernet import Supernet

matplotlib.use("Agg")
EDGES = {"single": 10, "dual": 14}
KEPT = {"single": 1, "dual": 2}


def brute_force(alpha, kind, edges=None, struck=()):
    "Try every subset of edges of each node and every operation on them; keep the subset of the greatest sum of scores."
    weights, nodes, row = alpha.double().softmax(1).tolist(), [], 0
    edges = [1.0] * EDGES[kind] if edges is None else edges.double().tolist()
    for node in range(4):
        states = len(INPUTS[kind]) + node
        rated = [max((weights[row + s][o], PRIMITIVES[o]) for o in range(1, 8)
                     if not (PRIMITIVES[o] == "skip_connect" and row + s in struck)) for s in range(states)]
        best = max(itertools.combinations(range(states), KEPT[kind]),
                   key=lambda sub: sum(rated[s][0] * edges[row + s] for s in sub))
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
@pytest.mark.parametrize("seed", range(10))
def test_edge_weights_scale_the_score_of_an_edge(kind, seed):
    torch.manual_seed(seed)
    alpha, edges = torch.randn(EDGES[kind], 8), {w: torch.rand(EDGES[kind]) for w in ("normal", "reduce")}
    genotype = discretise(alpha, alpha, kind, edges)
    assert genotype.normal == brute_force(alpha, kind, edges["normal"])
    assert genotype.reduce == brute_force(alpha, kind, edges["reduce"])


def test_edge_weights_choose_edges_and_never_operations():
    torch.manual_seed(0)
    alpha = torch.randn(14, 8)
    winner = dict(positions(brute_force(alpha, "dual"), "dual"))
    for seed in range(20):
        weights = torch.rand(14, generator=torch.Generator().manual_seed(seed))
        chosen = positions(discretise(alpha, alpha, "dual", {"normal": weights, "reduce": weights}).normal, "dual")
        for row, op in chosen: assert winner.setdefault(row, op) == op
    assert len(winner) > 8


def test_even_edge_weights_change_nothing():
    alpha = torch.randn(14, 8)
    even = {which: torch.ones(14) for which in ("normal", "reduce")}
    assert discretise(alpha, alpha, "dual", even) == discretise(alpha, alpha, "dual")


def skips_of(nodes):
    return [(i, s) for i, node in enumerate(nodes) for op, s in node if op == "skip_connect"]


@pytest.mark.parametrize("kind", ["single", "dual"])
@pytest.mark.parametrize("seed", range(10))
def test_limit_on_skips_equals_striking_them_one_by_one(kind, seed):
    torch.manual_seed(seed)
    alpha, edges = torch.randn(EDGES[kind], 8), {w: 0.5 + torch.rand(EDGES[kind]) for w in ("normal", "reduce")}
    alpha[:, PRIMITIVES.index("skip_connect")] += 2
    rows = [(node, s) for node in range(4) for s in range(len(INPUTS[kind]) + node)]
    weights, struck = alpha.double().softmax(1)[:, PRIMITIVES.index("skip_connect")], set()
    expected = brute_force(alpha, kind, edges["normal"])
    for limit in range(len(skips_of(expected)), -1, -1):
        while len(skips_of(expected)) > limit:
            struck.add(min((rows.index(edge) for edge in skips_of(expected)), key=lambda row: weights[row].item()))
            expected = brute_force(alpha, kind, edges["normal"], struck)
        genotype = discretise(alpha, alpha, kind, edges, max_skips=limit)
        assert genotype.normal == expected and len(skips_of(genotype.normal)) == limit
        assert genotype.reduce == brute_force(alpha, kind, edges["reduce"])
    assert len(struck) > 1


def test_a_limit_that_is_kept_anyway_changes_nothing():
    alpha = torch.randn(14, 8)
    assert discretise(alpha, alpha, "dual", max_skips=8) == discretise(alpha, alpha, "dual")


def test_a_struck_skip_loses_even_where_all_other_weights_are_zero():
    alpha = torch.full((10, 8), -1000.0)
    alpha[:, PRIMITIVES.index("skip_connect")] = 1000.0
    genotype = discretise(alpha, alpha, "single", max_skips=0)
    assert not skips_of(genotype.normal) and len(skips_of(genotype.reduce)) == 4


@pytest.mark.parametrize("arguments, text", [
    (dict(edges={"normal": torch.ones(10), "reduce": torch.ones(14)}), r"edge weights of shape \(10,\)"),
    (dict(edges={"normal": torch.ones(14), "reduce": -torch.ones(14)}), "from 0 up"),
    (dict(edges={"normal": torch.full((14,), float("inf")), "reduce": torch.ones(14)}), "finite"),
    (dict(max_skips=-1), "at most -1 skips"), (dict(max_skips=1.5), "at most 1.5 skips"),
    (dict(max_skips=True), "at most True skips")])
def test_wrong_edge_weights_and_limits_are_refused(arguments, text):
    with pytest.raises(UserError, match=text): discretise(torch.zeros(14, 8), torch.zeros(14, 8), "dual", **arguments)


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_positions_find_the_rows_of_the_full_cell(kind):
    rows = [(node, s) for node in range(4) for s in range(len(INPUTS[kind]) + node)]
    nodes = random_genotype(kind, 9).normal
    found = [(PRIMITIVES[op], *rows[row]) for row, op in positions(nodes, kind)]
    assert found == [(op, i, s) for i, node in enumerate(nodes) for op, s in node]


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
    assert discretise(alpha, alpha, "single").normal[1] == (("skip_connect", 1),)


def test_equal_edges_are_decided_by_the_earlier_source():
    flat = {kind: torch.zeros(EDGES[kind], 8) for kind in EDGES}
    decided = {kind: discretise(alpha, alpha, kind).normal for kind, alpha in flat.items()}
    assert [tuple(s for _, s in node) for node in decided["single"]] == [(0,)] * 4
    assert [tuple(s for _, s in node) for node in decided["dual"]] == [(0, 1)] * 4


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


@pytest.mark.parametrize("text, message", [
    (edited(0, 0, ["conv", 0]), "unknown operation 'conv'"),
    (changed(normal=json.loads(GOOD.to_json())["normal"][:3]), "3 nodes given"),
    (edited(2, 1, ["skip_connect", 4]), "source 4 is not an earlier state"),
    (changed(schema=2), "newer than this program")])
def test_the_command_refuses_damaged_files_with_code_2(tmp_path, text, message):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    run = shell("tirnas", "cost", str(path), cwd=ROOT)
    (line,) = run.stderr.splitlines()
    assert run.returncode == 2 and run.stdout == "" and line.startswith("tirnas: ") and message in line and str(path) in line


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


def test_weights_stand_beside_the_operations():
    torch.manual_seed(0)
    alpha = torch.randn(14, 8, requires_grad=True)
    genotype, weights = discretise(alpha, alpha, "dual"), alpha.softmax(1)
    texts = [t.get_text() for t in draw_cell(genotype, "normal", weights=weights).texts]
    for label in edge_labels(genotype, "normal", weights.tolist()): assert label in texts
    for (row, op), label in zip(positions(genotype.normal, "dual"), edge_labels(genotype, "normal", weights)):
        assert label == f"{PRIMITIVES[op]} {weights[row, op].item():.2f}"
    with pytest.raises(UserError, match=r"weights of shape \(10, 8\): a dual cell needs shape \(14, 8\)"):
        draw_cell(genotype, "normal", weights=weights[:10])
    matplotlib.pyplot.close("all")
