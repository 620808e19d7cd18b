"""tirnas.published: the package carries the figures as their sources print them, and the doubts about them."""
import csv
import re
import tomllib

import pytest
from conftest import ROOT

from tirnas.core import UserError
from tirnas.data.annotations import ATTRIBUTES
from tirnas.published import ALIASES, FILES, FOOTNOTES, SOURCES, WITHOUT, paper_table, peers, published, read_csv

METRICS = ("success", "precision", "norm_precision")


def raw(name):
    return list(csv.DictReader((ROOT / "tirnas" / "published_scores" / f"{name}.csv").open(encoding="utf8")))


# Copied from the sources by hand, not from our files: toolkit curves, the figure's legend, the paper's text.
@pytest.mark.parametrize("benchmark, tracker, success, precision, norm_precision", (
    ("lsotb-tir", "ECO-TIR", 0.631, 0.768, 0.695), ("lsotb-tir", "MDNet", 0.601, 0.750, 0.686),
    ("lsotb-tir", "SiamRPN++", 0.604, 0.711, 0.651), ("lsotb-tir", "HSSNet", 0.409, 0.515, 0.488),
    ("lsotb-tir", "TADT", 0.587, 0.710, 0.635), ("lsotb-tir", "ECO", 0.609, 0.739, 0.670),
    ("ptb-tir", "ECO", 0.633, 0.838, None), ("ptb-tir", "DeepSTRCF", 0.626, 0.832, None),
    ("ptb-tir", "MLSSNet", 0.516, 0.731, None), ("ptb-tir", "DSiam", 0.319, 0.431, None)))
def test_spot_checks(benchmark, tracker, success, precision, norm_precision):
    entry = published(benchmark)[tracker]
    assert entry["success"] == pytest.approx(success, abs=0.00056) and entry["precision"] == pytest.approx(precision, abs=0.00056)
    assert entry["norm_precision"] == (None if norm_precision is None else pytest.approx(norm_precision, abs=0.00056))


def test_every_number_is_the_one_in_the_file():
    for benchmark, name in FILES.items():
        rows, entries = raw(name), published(benchmark)
        assert len(rows) == len(entries) == {"lsotb-tir": 37, "ptb-tir": 27}[benchmark]
        for row in rows:
            entry = entries[row["tracker"]]
            assert entry["success"] == float(row["success_auc"]) and entry["precision"] == float(row["precision"])
            for attribute, numbers in entry["per_attribute"].items():
                assert numbers == {metric: float(row[f"{attribute}/{metric}"]) for metric in METRICS}


def test_attributes_are_those_of_the_benchmark_in_its_order():
    for entry in published("lsotb-tir").values(): assert tuple(entry["per_attribute"]) == ATTRIBUTES["lsotb-tir"]
    assert all(not entry["per_attribute"] for entry in published("ptb-tir").values())


@pytest.mark.parametrize("benchmark", ("lsotb-tir", "ptb-tir"))
def test_numbers_are_shares_below_the_ceiling(benchmark):
    ceiling = {"lsotb-tir": 0.9485, "ptb-tir": 0.9515}[benchmark]
    for entry in published(benchmark).values():
        assert 0 < entry["success"] < ceiling and entry["success"] < entry["precision"] < 1


def test_lists_without_figures():
    for benchmark in ("lsotb-tir-st100", "lsotb-tir-lt11", "simtir"): assert published(benchmark) == peers(benchmark) == {}
    assert "must not be compared" in WITHOUT["lsotb-tir-st100"] and WITHOUT["lsotb-tir-lt11"]
    with pytest.raises(UserError, match="lsotb-tir, ptb-tir"): published("vot-tir")


def test_paper_tables():
    one, two = paper_table("I"), paper_table("II")
    assert len(one) == 5 and len(two) == 9
    assert one[-1]["lsotb_success"] == two[-1]["lsotb_success"] == 0.669
    assert set(two[0]) == {"method", "lsotb_precision", "lsotb_success", "lsotb_norm_precision", "ptb_precision", "ptb_success"}
    assert "ptb_success" not in one[0] and one[0]["params_M"] == 2.96 and one[3]["params_M"] is None
    assert two[-1]["ptb_success"] == 0.643, "as printed; the text of the paper says 0.641"


def test_peers_prefer_the_toolkit_and_name_their_source():
    for benchmark, source in SOURCES.items():
        everyone, known = peers(benchmark), published(benchmark)
        for name, entry in everyone.items():
            assert entry["source"] == (source if name in known else "paper, Table II")
            if name in known: assert all(entry[metric] == known[name][metric] for metric in METRICS)
        assert set(everyone) - set(known) == {"DiMP", "MMNet", ALIASES["Ours"]}
    assert peers("ptb-tir")[ALIASES["Ours"]] == {"success": 0.643, "precision": 0.776, "norm_precision": None,
                                                 "per_attribute": {}, "source": "paper, Table II"}


def test_footnotes_quote_numbers_that_are_in_the_files():
    "A number in a footnote is in a file, or is one that only the sources' prose has."
    prose = {"0.767", "0.641", "0.948", "0.951", "0.0005"}
    known = {f"{float(value):.3f}" for name in (*FILES.values(), "paper") for row in raw(name) for value in row.values()
             if re.fullmatch(r"[\d.]+", value)}
    for notes in FOOTNOTES.values():
        quoted = set(re.findall(r"\b0\.\d{3,4}\b", " ".join(notes)))
        assert quoted - prose <= known, quoted - prose - known


def test_a_missing_number_is_none():
    assert read_csv("paper")[1]["gpu_days"] is None
    assert read_csv("paper")[0]["method"] == "single-bottom + cls"


def test_the_wheel_carries_the_files():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["tirnas"]
    packed = {path.name for pattern in patterns for path in (ROOT / "tirnas").glob(pattern)}
    there = {path.name for path in (ROOT / "tirnas" / "published_scores").iterdir()}
    assert there <= packed and there == {f"{name}.csv" for name in (*FILES.values(), "paper")}
