"""Warnings of a search, and what is read and drawn from its history file."""
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from matplotlib.figure import Figure
from blocks import BLOCKS, CPU
from test_search import SEARCH

from tirnas.core import UserError, write_json
from tirnas.nets.cells import full_links, state_name
from tirnas.nets.genotype import Genotype, discretise, random_genotype
from tirnas.nets.ops import PRIMITIVES
from tirnas.search import search
from tirnas.strategies import find_genotype
from tirnas.warnings import FALL, FLAT, LEFT, LOG8, RISE, WIDE_GAP, edge_names, warnings_of
from tirnas.watch import (answer, by_epoch, draw_alpha_history, draw_candidates, draw_cells, draw_curves, drawings,
                          invent_candidates, invent_history, read_history, summarise, to_csv)

NO_SKIP = Genotype("single", *(((("sep_conv_3x3", 0),),) * 4,) * 2)


def with_skips(count):
    "A genotype whose normal cell has this many skips, and whose reduction cell has four."
    skip, conv = ((("skip_connect", 0),),), ((("sep_conv_3x3", 0),),)
    return Genotype("single", skip * count + conv * (4 - count), skip * 4)


def record(epoch=9, entropy=1.5, **keys):
    return {"epoch": epoch, "entropy": {"normal": entropy, "reduce": 1.5}, "temperature": 1.0, "genotype": NO_SKIP.to_json(),
            "mixing": {which: [[1 / 8] * 8] * 10 for which in ("normal", "reduce")},
            "loss": {"weight": 0.5, "arch": 0.5}, "gap": {"supernet": 0.5, "discrete": 0.5}, **keys}


def said(*history, warmup_epochs=2, epochs=10):
    return warnings_of(list(history), warmup_epochs, epochs)


@pytest.mark.parametrize("skips, warned", [(0, False), (1, False), (2, True), (4, True)])
def test_collapse_counts_skips_of_the_normal_cell(skips, warned):
    told = said(record(genotype=with_skips(skips).to_json()))
    assert [f"{skips} edges with skip_connect" in w for w in told] == [True] * warned


def test_flat_from_the_last_quarter_on():
    flat = FLAT * LOG8 + 1e-6
    assert not said(record(epoch=6, entropy=flat)) and not said(record(epoch=9, entropy=flat - 2e-6))
    for epoch in (7, 8, 9): assert "still flat" in said(record(epoch=epoch, entropy=flat))[0]


@pytest.mark.parametrize("epoch, warned", [(1, False), (2, True), (3, True), (4, False)])
def test_decided_early_in_the_first_quarter_after_the_warm_up(epoch, warned):
    "Ten epochs, two of warm-up: the first quarter of the other eight are epochs 2 and 3."
    told = said(record(epoch=epoch, entropy=LEFT * LOG8 - 1e-6))
    assert [f"in epoch {epoch}: normal 1.040 of" in w for w in told] == [True] * warned
    assert not said(record(epoch=epoch, entropy=LEFT * LOG8 + 1e-6))


def test_a_fall_within_one_epoch():
    after = 2.0 - FALL * LOG8
    assert "decided early" in said(record(epoch=7, entropy=2.0), record(epoch=8, entropy=after - 1e-6))[0]
    assert not said(record(epoch=7, entropy=2.0), record(epoch=8, entropy=after + 1e-6))
    assert not said(record(epoch=7, entropy=2.0), record(epoch=8, entropy=after - 1e-6, temperature=0.9))


def test_none_on_an_edge_and_on_average():
    rows = [[0.49] + [0.51 / 7] * 7] * 10
    assert not said(record(mixing={"normal": rows, "reduce": rows}))
    one = [*rows[:4], [0.52] + [0.48 / 7] * 7, *rows[5:]]
    told, = said(record(mixing={"normal": rows, "reduce": one}))
    assert f"{edge_names('single')[4]} of the reduce cell" in told and "normal" not in told
    most = [[0.51] + [0.49 / 7] * 7] * 10
    told, = said(record(mixing={"normal": most, "reduce": rows}))
    assert "the normal cell on average (0.51)" in told


def test_losses_that_part():
    falling = [record(epoch=t, loss={"weight": 0.6 - 0.01 * t, "arch": a}) for t, a in enumerate([0.5] * 6 + [0.5 * RISE + 0.01] * 3)]
    assert not said(*falling[:8]) and "rose from 0.500" in said(*falling)[0]
    assert not said(*[r | {"loss": r["loss"] | {"weight": 0.6}} for r in falling])


def test_a_wide_gap_at_the_end():
    wide = {"supernet": 0.2, "discrete": 0.2 * WIDE_GAP + 1e-6}
    assert not said(record(epoch=6, gap=wide)) and not said(record(gap={"supernet": 0.2, "discrete": 0.2 * WIDE_GAP}))
    assert "same episodes" in said(record(gap=wide))[0]


def test_no_warnings_in_the_warm_up_and_for_candidates():
    bad = record(epoch=1, entropy=0.1, genotype=with_skips(4).to_json(), gap={"supernet": 0.1, "discrete": 1.0})
    assert said(bad) == [] == said() == said(*invent_candidates()) and said(bad | {"epoch": 2})


@pytest.mark.parametrize("kind", ["single", "dual"])
def test_edge_names_are_those_of_the_rows_of_alpha(kind):
    "An alpha that is sure of one row decides for the edge of that name."
    import torch
    for row, name in enumerate(edge_names(kind)):
        alpha = torch.zeros(len(edge_names(kind)), len(PRIMITIVES))
        alpha[row, PRIMITIVES.index("dil_conv_5x5")] = 5
        nodes = discretise(alpha, alpha, kind).normal
        found = [f"{state_name(kind, source)}->{i}" for i, node in enumerate(nodes) for op, source in node if op == "dil_conv_5x5"]
        assert found == [name]
    assert len(edge_names(kind)) == sum(map(len, full_links(kind)))


def test_the_history_of_a_real_search(tmp_path):
    "What tirnas.search writes is what tirnas.watch reads."
    _, history = search(BLOCKS, SEARCH, CPU, log=tmp_path / "search.json", report=lambda r: None)
    assert read_history(tmp_path / "search.json") == history and by_epoch(history)
    for draw in drawings(history).values(): draw(history, Figure())
    assert set(history[0]) - {"skips"} == set(invent_history(3)[0]), "but for what only the warnings read, an invented record has a real one's keys"
    assert f"| {history[-1]['cost']['parameters']:,} / " in summarise(history)


def test_the_history_of_real_candidates(tmp_path):
    import dataclasses
    params = dataclasses.replace(SEARCH, strategy="random")
    genotype, history = find_genotype(BLOCKS, params, CPU, log=tmp_path / "search.json", report=lambda r: None)
    assert read_history(tmp_path / "search.json") == history and not by_epoch(history)
    assert answer(history)["genotype"] == genotype.to_json()
    for draw in drawings(history).values(): draw(history, Figure())
    assert set(history[0]) == set(invent_candidates()[0])


BROKEN = {
    "missing": (None, "cannot be read"),
    "cut": ('[{"epoch": 0', "is not JSON"),
    "binary": (b"\xff\xfe\x00", "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "object": ("{}", "holds no list"),
    "empty": ("[]", "no record yet"),
    "numbers": ("[1, 2]", "a record is missing"),
    "neither": ("[{}]", "epoch or candidate is missing"),
    "keys": ('[{"epoch": 0}]', "loss is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_history(tmp_path, name):
    content, words = BROKEN[name]
    path = tmp_path / "search.json"
    if content is not None: path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as told: read_history(path)
    assert str(path) in str(told.value) and "\n" not in str(told.value)


def spoil(history, **keys):
    return [history[0] | keys, *history[1:]]


@pytest.mark.parametrize("keys, words", [
    ({"genotype": "{}"}, "schema"), ({"genotype": 3}, "search again"), ({"loss": 0.3}, "loss.weight is missing"),
    ({"mixing": {"normal": [[1.0] * 8], "reduce": [[1.0] * 8]}}, "mixing weights"), ({"mixing": {"normal": 1, "reduce": 1}}, "search again"),
    ({"genotype": random_genotype("single", 0).to_json()}, "mixing weights"), ({"share": {"none": 0.1, "skip": 0.1}}, "share.skip_connect")])
def test_a_record_of_another_shape(tmp_path, keys, words):
    path = write_json(tmp_path / "search.json", spoil(invent_history(3), **keys))
    with pytest.raises(UserError, match=words): read_history(path)


def test_epochs_and_candidates_do_not_mix(tmp_path):
    path = write_json(tmp_path / "search.json", [*invent_history(2), *invent_candidates(2)])
    with pytest.raises(UserError, match="mixes epochs and candidates"): read_history(path)


@pytest.mark.parametrize("epochs", [1, 2, 30])
@pytest.mark.parametrize("kind", ["single", "dual"])
def test_every_length_can_be_drawn(kind, epochs):
    history, tried = invent_history(epochs, kind=kind), invent_candidates(epochs, kind=kind)
    for found in (history, tried):
        for draw in drawings(found).values(): draw(found, Figure()).savefig("/dev/null", format="png")
        assert len(to_csv(found).splitlines()) == epochs + 1 and summarise(found).endswith("\n")


def test_maps_show_the_weights():
    "Pixel by pixel: map o, row e, column t is the weight of operation o on edge e in epoch t, in both cells."
    history = invent_history(7, speed=0.4)
    axes = draw_alpha_history(history, Figure()).axes
    for i, which in enumerate(("normal", "reduce")):
        for op in range(8):
            shown = axes[8 * i + op].images[0].get_array()
            assert np.array_equal(shown, np.array([r["mixing"][which] for r in history])[:, :, op].T)
    assert len({ax.images[0].get_clim() for ax in axes[:16]}) == 1
    marks = sum(len(line.get_ydata()) for ax in axes[:16] for line in ax.lines)
    assert marks == 16, "a dual-bottom cell keeps eight edges"


def test_cells_carry_the_weights_of_their_edges():
    history = invent_history(9, speed=0.4)
    fig = draw_cells(history, Figure(), at=5)
    genotype = Genotype.from_json(history[5]["genotype"])
    for ax, which in zip(fig.axes, ("normal", "reduce")):
        names = {f"{state_name('dual', s)}->{i}": op for i, node in enumerate(getattr(genotype, which)) for op, s in node}
        rows = dict(zip(edge_names("dual"), history[5]["mixing"][which]))
        expected = sorted(f"{op} {rows[edge][PRIMITIVES.index(op)]:.2f}" for edge, op in names.items())
        assert sorted(t.get_text() for t in ax.texts if " " in t.get_text()) == expected


def test_going_back_among_candidates_gives_the_best_until_then():
    tried = invent_candidates(12)
    for at in range(12):
        losses = [r["loss"]["arch"] if r["loss"]["arch"] is not None else math.inf for r in tried[:at + 1]]
        assert answer(tried[:at + 1]) is tried[losses.index(min(losses))]
        draw_cells(tried, Figure(), at)
    left = draw_candidates(tried, Figure()).axes[0]
    assert left.lines[1].get_ydata()[-1] == min(r["loss"]["arch"] for r in tried if r["loss"]["arch"])


def test_no_candidate_has_a_loss_yet():
    tried = [r | {"loss": {"weight": None, "arch": None}, "hit": {"weight": None, "arch": None}} for r in invent_candidates(2)]
    draw_candidates(tried, Figure()).savefig("/dev/null", format="png")
    assert "- / -" in summarise(tried)


def test_curves_have_gaps_where_there_is_no_loss():
    loss = draw_curves(invent_history(6), Figure()).axes[0]
    assert np.isnan(loss.lines[1].get_ydata()).tolist() == [True, True, False, False, False, False]


def test_reading_needs_no_screen():
    "A watch from a server: pyplot is not imported as long as a figure is given."
    code = ("import sys; from matplotlib.figure import Figure; from tirnas.watch import *\n"
            "draw_curves(invent_history(2), Figure()); print('matplotlib.pyplot' in sys.modules)")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert out.stdout.strip() == "False"


def test_the_csv_reads_back():
    lines = [line.split(",") for line in to_csv(invent_history(4)).splitlines()]
    rows = [dict(zip(lines[0], line)) for line in lines[1:]]
    assert [float(r["loss_weight"]) for r in rows] == [r["loss"]["weight"] for r in invent_history(4)]
    assert [r["loss_arch"] == "" for r in rows] == [True, True, False, False]
    assert json.loads(rows[-1]["macs"]) == invent_history(4)[-1]["cost"]["macs"]
