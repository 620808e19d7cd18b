"""tirnas.report and its parts (tables, rankings, plots, failures, pages): true, whole, escaped and the same every time."""
import base64
import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT

from tirnas.core import UserError
from tirnas.data.sequences import open_dataset, to_file
from tirnas.failures import find_failures, lost_at, overlap_of, window
from tirnas.intervals import better
from tirnas.metrics import score_tracker
from tirnas.plots import (KINDS, NAMED, PALETTE, PLOTS, draw_all, interval_plot, plain, png_bytes, published_plot, speed_plot,
                          styles)
from tirnas.published import FOOTNOTES, peers
from tirnas.rankings import (COLUMNS, OWN, attribute_table, count_table, disagreement_table, gap_notes, longterm_table, main_table,
                             paired_table, paper_scores, published_attribute_table, published_cautions, published_table,
                             sequence_table, starts_table)
from tirnas.report import (NOTES, RULES, attribute_plot, benchmark_of, curve_csv, norm_precision_plot, precision_plot, ranked, report_page,
                           scores_table, success_plot, write_report)
from tirnas.scoring import benchmark_list
from tirnas.tables import Cell, Table, column, html_table, latex_table, markdown_table, places, plain_table, text_table

NASTY = '<script>alert(1)</script>|$x_1$, "q"&{}%#~^\\'
NAMES = (NASTY, "[0] first", "Wärmebild_β", "a*b`c", "  ", "追")
CURVE_PLOTS = (success_plot, precision_plot, norm_precision_plot)
TABLES = {"scores.json", *(f"{name}.{kind}" for name in ("scores", "attributes") for kind in ("md", "tex")), *(f"{k}.csv" for k in KINDS)}
ALWAYS = TABLES | {"report.html", "intervals.png", "attributes.png", *(f"{k}.{kind}" for k in KINDS for kind in ("png", "pdf")),
                   *(f"attribute_{k}.png" for k in KINDS)}


def entry(shift, **more):
    truth = {f"s{i}": np.tile([10.0 + i, 20, 30, 60], (10, 1)) for i in range(3)}
    tags = {"s0": {"occlusion"}, "s1": {"occlusion", "rare"}}
    return score_tracker({name: boxes + [shift, 0, 0, 0] for name, boxes in truth.items()}, truth, tags, **more)


def full(shift):
    "An entry with every optional part of scores.json."
    one = entry(shift, fps={"s0": 30.0, "s1": 60.0, "s2": 30.0})
    attributes = {name: {**one["per_attribute"]["occlusion"], "curves": one["curves"]} for name in ("occlusion", "blur", "clutter")}
    around = {number: [one[number] - 0.01, one[number] + 0.02] for number in COLUMNS}
    return one | {"per_attribute": attributes | {"rare": None}, "intervals": around, "parameters": 5.31e6, "short": [],
                  "runs": {"count": 3, "success": {"mean": one["success"], "std": 0.0124}}, "benchmark": "lsotb-tir",
                  "longterm": {"f": 0.5, "precision": 0.6, "recall": 0.43, "threshold": 0.2},
                  "starts": {"tre": {"success": 0.4, "precision": 0.7}, "sre": {"success": 0.3, "precision": 0.6}}}


@pytest.fixture
def scores():
    return {"far": entry(25), "_near": entry(3, fps={"s0": 30.0, "s1": 60.0, "s2": 30.0}), NASTY: entry(9)}


class Parsed(HTMLParser):
    "Tags in balance, the text, tables as rows, and everything that a browser would fetch."
    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.fetched, self.texts, self.rows = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID: self.open.append(tag)
        if tag == "tr": self.rows.append([])
        if tag in ("td", "th"): self.rows[-1].append("")
        self.fetched += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action", "poster")]

    def handle_endtag(self, tag): assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open) and self.open[-1] != "small": self.rows[-1][-1] += data


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


# Tables

def test_places_follow_printed_digits():
    assert places([0.6162, 0.5, 0.6164, None, 0.4, 0.3]) == [1, 2, 1, 0, 3, 0]
    assert places([0.1, 0.1]) == places([None, None]) == [0, 0] and places([0.4]) == [0] and places([]) == []
    assert places([10.04, 10.0, 9.0], decimals=1) == [1, 1, 2]
    assert [cell.mark for cell in column([0.2, None, 0.9])] == [2, 0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_latex_is_balanced_and_escaped(name):
    text = latex_table(Table(["tracker_x", "a & b"], [[Cell(name), Cell("0.6 ± 0.1", "[0.5, 0.7]", 1)], [Cell("-"), Cell("-")]]))
    body = text.split("\\midrule\n")[1].split("\n\\bottomrule")[0].split("\n")
    assert len(body) == 2 and all(line.startswith("{") and line.endswith(r" \\") for line in body)
    bare = re.sub(r"\\[\\&%$#_{}]", "", text.split("\n", 1)[1])
    depth = np.cumsum([{"{": 1, "}": -1}.get(letter, 0) for letter in bare])
    assert depth.min() >= 0 and depth[-1] == 0
    rows = [line for line in bare.split("\n") if "&" in line]
    assert len(rows) == 3 and all(line.count("&") == 1 for line in rows)
    assert not re.search(r"[_#%~^|<>]", bare) and bare.count("$") == 2
    assert re.findall(r"\\(?:begin|end)\{(\w+)\}", text) == ["tabular", "tabular"]
    assert [rule for rule in ("toprule", "midrule", "bottomrule") if text.count("\\" + rule) == 1] == ["toprule", "midrule", "bottomrule"]
    assert r"\textbf{0.6 $\pm$ 0.1} {\scriptsize [0.5, 0.7]}" in text and "& -- " in text


@pytest.mark.parametrize("name", NAMES)
def test_markdown_cells_cannot_break_out(name):
    head, rule, line = markdown_table(text_table(["a", "b"], [[name, "1"]])).split("\n")
    assert len(re.split(r"(?<!\\)\|", line.replace("\\\\", ""))) == 4
    assert "<" not in line and set(rule) == set("| -:") and rule.count(":") == 1
    assert len(head) == len(rule) == len(line)


@pytest.mark.parametrize("name", NAMES)
def test_html_cells_cannot_break_out(name):
    parsed = Parsed(html_table(text_table(["a", "b"], [[name, "1"]])))
    assert parsed.rows[1] == [name, "1"] and set(parsed.tags) == {"table", "thead", "tbody", "tr", "th", "td"}


def test_plain_table_is_aligned():
    lines = plain_table(text_table(["a", "b"], [["long name", "1"], ["x", "0.25"]])).split("\n")
    assert lines == ["a             b", "long name     1", "x          0.25"]


@pytest.mark.parametrize("name", ("one\ntwo", "one\r\n\ttwo", "one\x00\x1btwo", "one\u2028two"))
def test_a_name_keeps_to_its_line(name):
    table = text_table(["a", "b"], [[name, "1"], ["x", "2"]])
    for written, lines in ((markdown_table(table), 4), (latex_table(table), 9)):
        assert len(written.splitlines()) == lines and "one two" in written


# Rankings

def test_ranking_is_by_success_and_then_by_name(scores):
    assert ranked(scores) == ["_near", NASTY, "far"]
    assert ranked({"b": entry(3), "a": entry(3)}) == ["a", "b"]
    assert ranked({"b": {"x": None}, "a": {"x": 0.1}, "c": {}}, "x") == ["a", "b", "c"]


def test_main_table_shows_the_scores(scores):
    table = main_table(scores)
    assert table.head == ["tracker", *COLUMNS.values(), "fps"]
    for row in table.rows:
        one = scores[row[0].text]
        for cell, number in zip(row[1:], COLUMNS): assert cell.text == f"{one[number]:.3f}"
        assert row[-1].text == ("-" if one["fps"] is None else f"{one['fps']:.1f}")
    assert [row[1].mark for row in table.rows] == [1, 2, 3]
    assert scores_table(scores) == markdown_table(table) and r"\_near" in scores_table(scores)


def test_main_table_with_everything():
    row = main_table({"a": full(3)}).rows[0]
    one = full(3)
    assert row[1] == Cell(f"{one['success']:.3f} ± 0.012", f"[{one['success'] - 0.01:.3f}, {one['success'] + 0.02:.3f}]")
    assert row[2].text == f"{one['precision']:.3f}" and row[-1].text == "5.31" and row[-2].text == "40.0"


def test_old_entries_lack_columns_not_rows(scores):
    for one in scores.values():
        for key in ("success_rate_at_0.75", "average_overlap", "short", "fps"): one.pop(key, None)
    assert main_table(scores).head == ["tracker", *list(COLUMNS.values())[:5]] and len(main_table(scores).rows) == 3
    assert texts(count_table(scores))[0][-2:] == ["0", "1"]


def test_attributes(scores):
    table = attribute_table(scores)
    assert table.head == ["attribute", "sequences", *ranked(scores)]
    first = f"{scores['_near']['per_attribute']['occlusion']['success']:.3f}"
    assert texts(table)[0][:3] == ["occlusion", "2", first] and texts(table)[1] == ["rare", "< 2", "-", "-", "-"]
    assert [cell.mark for cell in table.rows[0]] == [0, 0, 1, 2, 3]
    assert attribute_table({"a": entry(3) | {"per_attribute": {}}}).rows == []


def test_sequences_worst_first(scores):
    for name, value in (("s0", 0.5), ("s1", 0.1), ("s2", 0.3)): scores["_near"]["per_sequence"][name]["success"] = value
    del scores["far"]["per_sequence"]["s1"]
    table = sequence_table(scores)
    assert [row[0] for row in texts(table)] == ["s1", "s2", "s0"] and table.head[2:] == [*ranked(scores), "range"]
    assert texts(table)[0][2] == "0.100" and texts(table)[0][4] == "-"
    apart = disagreement_table(scores, 2)
    assert apart.head == ["sequence", "_near", NASTY, "difference"] and len(apart.rows) == 2
    gaps = [abs(float(row[3])) for row in texts(apart)]
    assert gaps == sorted(gaps, reverse=True) and texts(apart)[0][0] == "s1"


def test_a_sequence_that_the_best_lacks_is_listed_last(scores):
    del scores["_near"]["per_sequence"]["s1"]
    assert texts(sequence_table(scores))[-1][:3] == ["s1", "10", "-"]


def test_pairs_are_those_of_better(scores):
    table, lead = paired_table(scores), better(scores["_near"], scores["far"], "success")
    assert texts(table)[1] == ["far", f"{lead['difference']:+.3f}", f"{lead['p_better']:.3f}"]
    assert table.rows[1][1].interval == f"[{lead['low']:+.3f}, {lead['high']:+.3f}]"
    other = entry(9) | {"per_sequence": {"elsewhere": entry(9)["per_sequence"]["s0"]}}
    assert paired_table({"a": entry(3), "b": other}) is None and paired_table({"a": entry(3)}) is None


def test_counts_and_gaps(scores):
    scores["far"] |= {"missing": ["s9"], "short": ["s1", "s2"], "invalid": 4, "repaired": 2, "runs": {"count": 3}}
    assert texts(count_table(scores))[-1] == ["far", "3", "30", "4", "2", "1", "2", "3"]
    assert gap_notes(scores) == ["far: no result for s9", "far: fewer rows than frames in s1, s2"]


def test_longterm_and_starts():
    both = {"a": full(3), "b": entry(9)}
    assert texts(longterm_table(both)) == [["a", "0.500", "0.600", "0.430", "0.200"]] and longterm_table({"b": entry(9)}) is None
    assert texts(starts_table(both))[0][2:4] == ["0.400", "0.300"] and texts(starts_table(both))[1][2:4] == ["-", "-"]
    assert starts_table({"b": entry(9)}) is None


@pytest.mark.parametrize("benchmark", ("lsotb-tir", "ptb-tir"))
def test_own_tracker_among_the_published(benchmark):
    mine = {"mine": entry(9) | {"success": 0.6, "norm_precision": 0.123, "norm_precision_at_0.2": 0.987}, "ECO": entry(25)}
    table, known = published_table(mine, benchmark), peers(benchmark)
    assert len(table.rows) == len(known) + 2 and "0.987" not in markdown_table(table)
    successes = [float(row[2]) for row in texts(table)]
    assert successes == sorted(successes, reverse=True) and [row[1] for row in texts(table)] == [str(i + 1) for i in range(len(table.rows))]
    own = {row[0].text for row in table.rows if row[-1].text == OWN}
    assert own == {"mine", f"ECO ({OWN})"} == {row[0].text for row in table.rows if row[0].mark}
    for row in texts(table):
        if row[-1] != OWN: assert row[2:4] == [f"{known[row[0]][n]:.3f}" for n in ("success", "precision")]
    assert (COLUMNS["norm_precision"] in table.head) == (benchmark == "lsotb-tir")
    assert not any("0.2" in head for head in table.head)


def test_published_by_attribute(scores):
    assert published_attribute_table(scores, "ptb-tir") is None and published_table(scores, "simtir") is None
    table = published_attribute_table({"mine": full(3)}, "lsotb-tir")
    row = next(row for row in texts(table) if row[0] == "mine")
    occlusion = table.head.index("occlusion")
    assert row[occlusion] == f"{full(3)['success']:.3f}" and row[table.head.index("hand-held")] == "-"
    assert next(row for row in texts(table) if row[0] == "ECO-TIR")[occlusion] == "0.618"


def test_paper_tables_keep_columns_apart():
    mine = {"mine": entry(9) | {"success": 0.6, "precision": 0.7, "norm_precision": 0.5}}
    assert texts(paper_scores(mine, "lsotb-tir", "II"))[-1] == ["mine", "0.700", "0.600", "0.500", "-", "-"]
    assert texts(paper_scores(mine, "ptb-tir", "II"))[-1] == ["mine", "-", "-", "-", "0.700", "0.600"]
    assert texts(paper_scores(mine, "lsotb-tir", "I"))[-1] == ["mine", "0.700", "0.600", "0.500", "-", "-", "-"]
    assert texts(paper_scores(mine, "lsotb-tir", "I"))[0][1:] == ["0.768", "0.640", "0.697", "2.96", "0.78", "3.3"]
    assert len(paper_scores(mine, "simtir", "II").rows) == 9


def test_unfair_comparisons_are_named():
    other = {"mine": entry(9) | {"protocol": "got10k"}}
    assert [re.search("3 sequences|got10k", text)[0] for text in published_cautions(other, "lsotb-tir")] == ["3 sequences", "got10k"]
    listed = list(benchmark_list("ptb-tir")["sequences"])
    whole = entry(9) | {"per_sequence": {name: {} for name in reversed(listed)}}
    assert published_cautions({"mine": whole}, "ptb-tir") == []
    swapped = entry(9) | {"per_sequence": {name: {} for name in ["mine", *listed[1:]]}}
    assert published_cautions({"own": swapped}, "ptb-tir") == [
        "Not comparable: own, scored on 60 sequences, 59 of them among the 60 of the published trackers."]


def test_doubts_stand_under_the_ptb_ranking():
    notes = " ".join(FOOTNOTES["ptb-tir"])
    assert "0.643" in notes and "0.641" in notes and "0.741 / 0.539" in notes and "0.731 / 0.516" in notes
    assert set(FOOTNOTES["paper"]) & set(FOOTNOTES["ptb-tir"]) and "0.643" not in " ".join(FOOTNOTES["lsotb-tir"])


@pytest.mark.parametrize("parameters", ("many", {"count": 3}, float("nan"), float("inf"), -5, None))
def test_parameters_that_are_no_number_are_a_dash(parameters):
    odd = {"a": full(3), "b": full(9) | {"parameters": parameters}}
    assert [row[-1].text for row in main_table(odd).rows] == ["5.31", "-"]
    assert set(draw_all(odd)) == set(PLOTS)


def test_attributes_keep_the_order_of_the_benchmark():
    part, order = full(3)["per_attribute"]["occlusion"], ["vehicle", "occlusion", "blur", "clutter"]
    many = {"a": full(3) | {"per_attribute": {"clutter": part, "rare": None}},
            "b": full(9) | {"per_attribute": dict.fromkeys(order, part)}}
    assert [row[0] for row in texts(attribute_table(many))] == [*order, "rare"]
    assert [label.get_text() for label in attribute_plot(many).axes[0].get_yticklabels()] == [f"{name} (2)" for name in order]
    assert [ax.get_title() for ax in PLOTS["attribute_success"](many).axes] == [f"{name} (2)" for name in order]
    assert [label.get_text() for label in PLOTS["radar"](many).axes[0].get_xticklabels()] == [f"{name} (2)" for name in order]


# Plots

@pytest.mark.parametrize("plot, number", list(zip(CURVE_PLOTS, KINDS)))
def test_curves_and_legend(scores, plot, number):
    ax = plot(scores).axes[0]
    order = ranked(scores, number)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label[:7] for label in labels] == [f"[{scores[name][number]:.3f}]" for name in order]
    for line, name in zip(ax.lines, order): np.testing.assert_array_equal(line.get_ydata(), scores[name]["curves"][number])
    assert ax.get_xlabel() and ax.get_ylabel()


def test_a_tracker_keeps_its_colour(scores):
    colours = lambda lines: {line.get_label().split("] ")[1]: line.get_color() for line in lines}
    seen = [colours(plot(scores).axes[0].lines) for plot in (*CURVE_PLOTS, attribute_plot)]
    assert all(one == seen[0] for one in seen) and len(set(seen[0].values())) == 3
    style = styles({str(i): {"success": i} for i in range(28)})
    assert len({(one["color"], one["linestyle"]) for one in style.values()}) == 28 and style["27"]["color"] == PALETTE[0]


def test_attribute_plot(scores):
    ax = attribute_plot(scores).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["occlusion (2)"]
    assert ax.lines[0].get_xdata()[0] == scores["_near"]["per_attribute"]["occlusion"]["success"]


def test_intervals_are_error_bars():
    bars, dot = interval_plot({"a": full(3)}).axes[0].lines
    np.testing.assert_allclose(bars.get_xdata(), full(3)["intervals"]["success"])
    assert dot.get_xdata()[0] == full(3)["success"]


def test_panels_have_titles_with_counts_and_their_own_ranking():
    many = {"a": full(3), "b": full(9)}
    for kind in KINDS:
        axes = PLOTS[f"attribute_{kind}"](many).axes
        assert [ax.get_title() for ax in axes[:3]] == ["occlusion (2)", "blur (2)", "clutter (2)"] and not axes[3].axison
        labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
        assert labels == [f"[{many[n]['per_attribute']['occlusion'][kind]:.3f}] {n}" for n in ranked(many, kind)]


def test_speed_plot_places_points_and_sizes():
    many = {"a": full(3), "b": full(9) | {"fps": 200.0, "parameters": None}, "untimed": entry(3)}
    ax = speed_plot(many).axes[0]
    points = [np.asarray(p.get_offsets())[0] for p in ax.collections if len(p.get_offsets())]
    np.testing.assert_allclose(points, [[40, many["a"]["success"]], [200, many["b"]["success"]]])
    assert sorted(text.get_text() for text in ax.texts) == ["a", "b"]
    assert speed_plot({"untimed": entry(3)}) is None


def test_plots_that_would_be_empty_are_left_out(scores):
    assert set(draw_all({"a": full(3)})) == set(PLOTS)
    scores = {name: one | {"fps": None} for name, one in scores.items()}
    sheets = {f"attribute_{kind}" for kind in KINDS}
    assert set(draw_all(scores)) == {*KINDS, "intervals", "attributes"} | sheets
    for one in scores.values(): del one["per_attribute"]["occlusion"]["curves"]
    assert set(draw_all(scores)) == {*KINDS, "intervals", "attributes"}, "scores of older versions have no curves by attribute"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", (1, 40))
def test_one_tracker_and_forty(count):
    scores = {f"tracker_with_a_rather_long_name_{i}": full(i) for i in range(count)}
    for figure in draw_all(scores).values():
        image = cv2.imdecode(np.frombuffer(figure._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[1] <= 640 and image.std() > 5
    ax = success_plot(scores).axes[0]
    assert len(ax.lines) == count and len(ax.get_legend().get_texts()) == min(count, NAMED)


def test_names_are_drawn_as_they_are():
    assert plain("a_b") == "a_b" and plain("$x$") == r"\$x\$" and len(plain("y" * 99)) == 30
    for name in ("$", "$$", "$x_1$", "\\$", "_hidden", "{}$^"): png_bytes(success_plot({name: entry(3), "b": entry(9)}))


# Failures

def test_lost_at():
    flat = np.full(30, 0.5)
    assert lost_at(flat) is None and lost_at(np.zeros(9)) is None and lost_at(np.zeros(10)) == 0
    gone = np.concatenate([flat, np.full(5, np.nan), np.zeros(10)])
    assert lost_at(gone) == 35 and lost_at(gone[:-1]) is None and lost_at(np.full(40, np.nan)) is None
    found_again = np.concatenate([flat, np.zeros(9), flat, np.zeros(12), flat])
    assert lost_at(found_again) == 69


def test_overlap_of_rows_that_are_no_boxes():
    truth = np.array([[10.0, 10, 10, 10], [0, 0, 0, 0], [np.nan] * 4, [10, 10, 10, 10]])
    overlap = overlap_of(np.array([[10.0, 10, 10, 10], [1, 1, 1, 1], [1, 1, 1, 1], [np.nan] * 4]), truth)
    np.testing.assert_array_equal(overlap, [1, np.nan, np.nan, 0])


@pytest.mark.parametrize("box", ((0, 0, 10, 20), (300, 220, 20, 20), (-30, -30, 20, 20), (0, 0, 320, 240), (100, 100, 1, 1)))
def test_window_lies_in_the_frame(box):
    left, top, right, bottom = window(np.array(box, float), (240, 320))
    assert 0 <= left < right <= 320 and 0 <= top < bottom <= 240 and np.isclose((right - left) * 3, (bottom - top) * 4)


@pytest.fixture(scope="module")
def tracked():
    "Two real sequences of SimTIR, a tracker that leaves both, and one with a short and a missing result."
    sequences = list(open_dataset(ROOT / "samples"))[:2]
    leave = lambda s: to_file(s.boxes_xywh + np.maximum(np.arange(len(s)) - 30, 0)[:, None] * [9, 0, 0, 0])
    results = {"leaves": {s.name: leave(s) for s in sequences}, "short": {sequences[0].name: leave(sequences[0])[:60]}}
    truth = {s.name: to_file(s.boxes_xywh) for s in sequences}
    cut = {sequences[0].name: truth[sequences[0].name][:60]}
    return sequences, results, {"leaves": score_tracker(results["leaves"], truth), "short": score_tracker(results["short"], cut)}


def test_failures_are_found_where_the_box_leaves(tracked):
    sequences, results, scores = tracked
    found = find_failures(scores, sequences, results, "leaves")
    assert {f.sequence.name for f in found} == {s.name for s in sequences}
    for f in found:
        overlap = overlap_of(f.boxes_xywh, f.sequence.boxes_xywh)
        assert overlap[f.frame] == 0 and np.nanmin(overlap[:f.frame]) > 0
    assert [scores["leaves"]["per_sequence"][f.sequence.name]["success"] for f in found] == sorted(
        e["success"] for e in scores["leaves"]["per_sequence"].values())
    assert len(find_failures(scores, sequences, results, "leaves", count=1)) == 1
    (short,) = find_failures(scores, sequences, results, "short")
    assert len(short.boxes_xywh) == 60


def test_strips_stand_in_the_page(tracked, tmp_path):
    sequences, results, scores = tracked
    page = write_report(scores, [], tmp_path, sequences=sequences, results=results)
    alts = re.findall(r'<img alt="([^"]+)"', page.read_text())
    assert sum("leaves on" in alt for alt in alts) == 2 and sum("short on" in alt for alt in alts) == 1
    for half in ({"sequences": sequences}, {"results": results}):
        with pytest.raises(UserError, match="both or neither"): write_report(scores, [], tmp_path / "half", **half)
    assert not (tmp_path / "half").exists()


# The report

def test_csv_keeps_every_digit(scores):
    for kind in KINDS:
        rows = list(csv.DictReader(io.StringIO(curve_csv(scores, kind))))
        assert list(rows[0]) == ["threshold", *sorted(scores)] and len(rows) == len(KINDS[kind].thresholds)
        for name in scores: assert [float(row[name]) for row in rows] == scores[name]["curves"][kind]
        np.testing.assert_allclose([float(row["threshold"]) for row in rows], KINDS[kind].thresholds, atol=1e-12)


def test_report_files(scores, tmp_path):
    page = write_report(scores, ["far: something & nothing"], tmp_path / "out", title="SimTIR <1>")
    assert page == tmp_path / "out" / "report.html" and {p.name for p in page.parent.iterdir()} == ALWAYS | {"speed.png"}
    assert json.loads((page.parent / "scores.json").read_text()) == scores
    keys = re.findall(r'^ "((?:[^"\\]|\\.)*)": \{$', (page.parent / "scores.json").read_text(), re.M)
    assert [json.loads(f'"{key}"') for key in keys] == sorted(scores)
    text = page.read_text()
    assert "SimTIR &lt;1&gt;" in text and "far: something &amp; nothing" in text and "20/21" in text
    assert (page.parent / "scores.tex").read_text() == latex_table(main_table(scores)) + "\n"
    write_report({name: one | {"fps": None} for name, one in scores.items()}, [], page.parent)
    assert not (page.parent / "speed.png").exists(), "a plot of the earlier report"


def test_scores_json_keeps_the_order_of_attributes(tmp_path):
    order = ["vehicle-mounted", "occlusion", "blur", "deformation"]
    part = full(3)["per_attribute"]["occlusion"]
    many = {name: full(3) | {"per_attribute": dict.fromkeys(order, part)} for name in ("b", "a")}
    write_report(many, [], tmp_path)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written == many and list(written) == ["a", "b"] and list(written["b"]["per_attribute"]) == order
    assert [line.split("|")[1].strip() for line in (tmp_path / "attributes.md").read_text().splitlines()[2:]] == order
    with pytest.raises(ValueError): write_report({"a": full(3) | {"fps": float("nan")}}, [], tmp_path / "nan")


def test_a_perfect_tracker_may_pass_twenty_of_twenty_one():
    fractions = np.random.default_rng(0).uniform(1, 99, (400, 4)).round(4)
    perfect = score_tracker({"s": fractions}, {"s": fractions})["success"]
    whole = score_tracker({"s": fractions.round()}, {"s": fractions.round()})["success"]
    assert whole == pytest.approx(20 / 21) and 20 / 21 + 1e-4 < perfect <= 1
    assert "whole pixels" in NOTES[1] and "fractions" in NOTES[1] and "extension" in RULES["got10k"]


def test_page_is_self_contained_and_escaped(tmp_path):
    many = {name: full(i + 1) for i, name in enumerate(NAMES)}
    page = write_report(many, [NASTY], tmp_path, NASTY)
    parsed, text = Parsed(page.read_text()), page.read_text()
    assert parsed.fetched and all(source.startswith("data:image/png;base64,") for source in parsed.fetched)
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r'src="data:[^"]*"', "", text)) and str(tmp_path) not in text
    assert parsed.tags.count("script") == 1 and not {"link", "iframe", "object", "base"} & set(parsed.tags)
    embedded = {base64.b64decode(source.split(",")[1]) for source in parsed.fetched}
    assert embedded == {path.read_bytes() for path in tmp_path.glob("*.png")} and len(embedded) == len(PLOTS) + 1
    for table in (main_table(many), sequence_table(many), count_table(many)):
        for row in texts(table): assert row in parsed.rows


@pytest.mark.parametrize("benchmark, shown, absent", (
    ("lsotb-tir", (*FOOTNOTES["lsotb-tir"], *FOOTNOTES["paper"], "ECO-TIR"), ()),
    ("ptb-tir", (*FOOTNOTES["ptb-tir"], *FOOTNOTES["paper"], "DeepSTRCF"), ("SiamRPN++",)),
    ("lsotb-tir-st100", ("must not be compared",), ("ECO-TIR", "DiMP")),
    ("lsotb-tir-lt11", ("share none",), ("ECO-TIR", "DiMP")),
    ("simtir", (), ("published", "ECO-TIR", "DiMP")), (None, ("benchmark not named",), ("ECO-TIR", "DiMP"))))
def test_published_scores_stand_only_where_they_belong(scores, benchmark, shown, absent):
    text = " ".join(Parsed(report_page(scores, [], {}, {}, "title", benchmark)).texts)
    for words in shown: assert words in text
    for words in absent: assert words not in text
    assert (published_plot(scores, benchmark) is not None if benchmark else True) == (benchmark in ("lsotb-tir", "ptb-tir", None))


def test_benchmark_is_taken_from_the_scores(tmp_path):
    assert benchmark_of({"a": full(3)}) == "lsotb-tir" and benchmark_of({"a": full(3), "b": entry(3)}) is None
    text = write_report({"a": entry(3) | {"benchmark": "ptb-tir"}}, [], tmp_path).read_text()
    assert "<p>ptb-tir, protocol official" in text and "scored on 3 sequences" in text and (tmp_path / "published.png").exists()


@pytest.mark.parametrize("protocol", ("official", "pysot", "pytracking", "got10k", "strict"))
def test_page_states_its_rule(protocol):
    text = report_page({"a": entry(3) | {"protocol": protocol}}, [], {}, {}, "title", None)
    rules = re.findall(r"<li>The (?:official|strict)? ?rule of? ?(?:the )?([\w-]+)|<li>The (strict) rule", text)
    assert len(rules) == 1 and f"protocol {protocol}:" in text


def test_gaps_are_printed(scores):
    scores["far"] |= {"missing": ["s9"], "short": ["s1"]}
    text = report_page(scores, [], {}, {}, "title", "simtir")
    assert "far: no result for s9" in text and "far: fewer rows than frames in s1" in text and "short results" in text


def test_no_scores_are_refused(tmp_path):
    with pytest.raises(UserError, match="no scores"): write_report({}, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_processes_write_the_same_bytes(tmp_path):
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from test_report import full; "
            "from tirnas.report import write_report; write_report({'a': full(3), 'b': full(9)}, ['w'], sys.argv[2])")
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "one")], check=True, cwd=ROOT)
    write_report({"a": full(3), "b": full(9)}, ["w"], tmp_path / "two")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and set(one) == ALWAYS | {f"{name}.png" for name in (*PLOTS, "published")} | {f"table{n}.{kind}" for n in (1, 2) for kind in ("md", "tex")}
    pictures = b"".join(data for name, data in one.items() if name.endswith("png"))
    assert not any(word in pictures for word in (b"tEXt", b"matplotlib", b"tIME"))
    assert not any(b"CreationDate" in data for name, data in one.items() if name.endswith("pdf"))


def test_no_figure_is_left_open(scores, tmp_path):
    before = plt.get_fignums()
    write_report(scores, [], tmp_path)
    assert plt.get_fignums() == before
