"""tirnas.report: what is written is true, whole, escaped and the same every time."""
import base64
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest

from tirnas.metrics import score_tracker
from tirnas.report import (CURVES, PLOTS, attribute_plot, breakdown_rows, curve_csv, markdown_table,
                           norm_precision_plot, precision_plot, ranked, scores_table, success_plot, write_report)

NASTY = '<script>alert(1)</script>|$x_1$, "q"'
FILES = {"scores.json", "report.html", *(f"{k}.csv" for k in CURVES), *(f"{k}.png" for k in PLOTS)}


def entry(shift, **more):
    truth = {f"s{i}": np.tile([10.0 + i, 20, 30, 60], (10, 1)) for i in range(3)}
    tags = {"s0": {"occlusion"}, "s1": {"occlusion", "rare"}}
    return score_tracker({name: boxes + [shift, 0, 0, 0] for name, boxes in truth.items()}, truth, tags, **more)


@pytest.fixture
def scores():
    return {"far": entry(25), "_near": entry(3, fps={"s0": 30.0, "s1": 60.0, "s2": 30.0}), NASTY: entry(9)}


def test_ranking_is_by_success_and_then_by_name(scores):
    assert ranked(scores) == ["_near", NASTY, "far"]
    assert ranked({"b": entry(3), "a": entry(3)}) == ["a", "b"]


def test_table(scores):
    head, rule, *rows = scores_table(scores).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in (head, rule, *rows)]
    assert {len(row) for row in cells} == {7}
    assert cells[0][0] == "tracker" and cells[0][-1] == "fps" and set(cells[1][1:]) == {"---:"}
    assert cells[2][0] == "_near" and cells[2][1] == f"{scores['_near']['success']:.3f}" and cells[2][-1] == "40.0"
    assert cells[2][2] == f"{scores['_near']['precision']:.3f}" and cells[4][-1] == "-"


def test_breakdown(scores):
    rows = breakdown_rows(scores, "per_sequence")
    assert [row[0] for row in rows] == ["sequence", "s0", "s1", "s2"] and rows[0][1:] == ranked(scores)
    assert rows[1][1] == f"{scores['_near']['per_sequence']['s0']['success']:.3f}"
    assert breakdown_rows(scores, "per_attribute")[-1] == ["rare", "-", "-", "-"]
    del scores["far"]["per_sequence"]["s1"]
    assert breakdown_rows(scores, "per_sequence")[2][3] == "-"


@pytest.mark.parametrize("plot, number", ((success_plot, "success"), (precision_plot, "precision"),
                                          (norm_precision_plot, "norm_precision")))
def test_curves_and_legend(scores, plot, number):
    ax = plot(scores).axes[0]
    order = ranked(scores, number)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label[:7] for label in labels] == [f"[{scores[name][number]:.3f}]" for name in order]
    for line, name in zip(ax.lines, order):
        np.testing.assert_array_equal(line.get_ydata(), scores[name]["curves"][number])
    assert ax.get_xlabel() and ax.get_ylabel()


def test_a_tracker_keeps_its_colour(scores):
    colours = lambda lines: {line.get_label().split("] ")[1]: line.get_color() for line in lines}
    seen = [colours(plot(scores).axes[0].lines) for plot in PLOTS.values()]
    assert all(one == seen[0] for one in seen) and len(set(seen[0].values())) == 3


def test_attribute_plot(scores):
    ax = attribute_plot(scores).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["occlusion (2)"]
    assert ax.lines[0].get_xdata()[0] == scores["_near"]["per_attribute"]["occlusion"]["success"]


@pytest.mark.filterwarnings("error")
def test_many_trackers_without_attributes():
    scores = {f"tracker{i}": entry(i) | {"per_attribute": {}} for i in range(37)}
    for plot in PLOTS.values():
        image = cv2.imdecode(np.frombuffer(plot(scores)._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[1] <= 640
    assert len(success_plot(scores).axes[0].lines) == 37
    assert len(success_plot(scores).axes[0].get_legend().get_texts()) == 12


def test_csv_keeps_every_digit(scores):
    for kind, thresholds in CURVES.items():
        rows = list(csv.DictReader(io.StringIO(curve_csv(scores, kind))))
        assert list(rows[0]) == ["threshold", *sorted(scores)] and len(rows) == len(thresholds)
        for name in scores: assert [float(row[name]) for row in rows] == scores[name]["curves"][kind]
        np.testing.assert_allclose([float(row["threshold"]) for row in rows], thresholds, atol=1e-12)


def test_report_files(scores, tmp_path):
    page = write_report(scores, ["far: something & nothing"], tmp_path / "out", title="SimTIR <1>")
    assert page == tmp_path / "out" / "report.html" and {p.name for p in page.parent.iterdir()} == FILES
    assert json.loads((page.parent / "scores.json").read_text()) == scores
    keys = re.findall(r'^ "((?:[^"\\]|\\.)*)": \{$', (page.parent / "scores.json").read_text(), re.M)
    assert [json.loads(f'"{key}"') for key in keys] == sorted(scores)
    text = page.read_text()
    assert "SimTIR &lt;1&gt;" in text and "far: something &amp; nothing" in text and "20/21" in text


def test_page_is_self_contained_and_escaped(scores, tmp_path):
    page = write_report(scores, [], tmp_path)
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text) and "http" not in text and str(tmp_path) not in text
    embedded = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", text)]
    assert embedded == [(tmp_path / f"{name}.png").read_bytes() for name in PLOTS]


def test_two_processes_write_the_same_bytes(tmp_path):
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from test_report import entry; "
            "from tirnas.report import write_report; write_report({'a': entry(3), 'b': entry(9)}, ['w'], sys.argv[2])")
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / name)], check=True)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and set(one) == FILES
    pictures = b"".join(data for name, data in one.items() if name.endswith("png"))
    assert not any(word in pictures for word in (b"tEXt", b"matplotlib", b"tIME"))


def test_no_figure_is_left_open(scores, tmp_path):
    before = plt.get_fignums()
    write_report(scores, [], tmp_path)
    assert plt.get_fignums() == before


def test_markdown_cells_cannot_break_out():
    assert markdown_table([["a", "b"], ["x|y", "1"]]).splitlines()[2] == r"| x\|y | 1 |"
