"""tirnas.scoring and tirnas.results: from files to the official numbers, and every kind of bad input."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data.annotations import read_boxes, write_attributes, write_boxes
from tirnas.data.sequences import write_sequence
from tirnas.intervals import intervals
from tirnas.multistart import segments, shifted_boxes
from tirnas.protocols import PROTOCOLS
from tirnas.results import is_clean, load_fps, load_results, load_starts, read_rows, tracker_folders
from tirnas.scoring import BENCHMARKS, benchmark_list, evaluate, load_attributes, load_truth, score_results, truth_files

FIXTURES = Path(__file__).parent / "fixtures" / "evaluation"
OFFICIAL = json.loads((FIXTURES / "synthetic.json").read_text())
NUMBERS = {"precision": "precision", "norm_precision": "norm_precision", "success_auc": "success"}
LENIENT = [name for name in PROTOCOLS if name != "strict"]


@pytest.fixture
def official(tmp_path):
    "The synthetic fixture, where a test may spoil it."
    return shutil.copytree(FIXTURES / "synthetic", tmp_path / "synthetic", copy_function=shutil.copyfile)


@pytest.fixture
def small(tmp_path):
    "Two sequences, one tracker, nothing wrong: data/ and results/."
    random = np.random.default_rng(0)
    for name, frames in (("car", 40), ("boy", 25)):
        truth = np.array([30.0, 40, 20, 50]) + np.arange(frames)[:, None] * [2, 1, 0, 0]
        write_boxes(tmp_path / "data" / f"{name}.txt", truth)
        write_attributes(tmp_path / "data" / "att" / f"{name}.txt", ["occlusion"])
        write_boxes(tmp_path / "results" / "kcf" / f"{name}.txt", (truth + random.normal(0, 2, truth.shape)).clip(1))
    return tmp_path


def scored(place, protocol="official", benchmark="simtir"):
    return evaluate(place / "data", place / "results", benchmark, protocol)


def refusal(place, protocol="official", benchmark="simtir"):
    with pytest.raises(UserError) as caught: scored(place, protocol, benchmark)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spoil(place, change, name="car"):
    path = place / "results" / "kcf" / f"{name}.txt"
    lines = path.read_text().split()
    path.write_text("".join(f"{line}\n" for line in change(lines)))
    return path


# --- the official numbers, from files

def test_evaluate_gives_the_official_numbers():
    scores, remarks = evaluate(FIXTURES / "synthetic" / "anno", FIXTURES / "synthetic" / "results", "lsotb-tir")
    assert remarks == ["none of the 12 sequences is of lsotb-tir: all are scored, but not comparable with its scores"]
    assert list(scores) == sorted(OFFICIAL)
    for tracker, official in OFFICIAL.items():
        ours = scores[tracker]
        assert ours["fps"] is None and ours["benchmark"] == "lsotb-tir" and ours["protocol"] == "official"
        for theirs, name in NUMBERS.items(): assert ours[name] == pytest.approx(official[theirs], rel=0, abs=1e-9)
        for kind, curve in official["curves"].items():
            np.testing.assert_allclose(ours["curves"][kind], curve, rtol=0, atol=1e-9)
        assert list(ours["per_attribute"]) == list(official["per_attribute"])
        for name, numbers in official["per_attribute"].items():
            assert (ours["per_attribute"][name] is None) == (numbers["success_auc"] is None)
            if numbers["success_auc"] is not None:
                for theirs, number in NUMBERS.items():
                    assert ours["per_attribute"][name][number] == pytest.approx(numbers[theirs], rel=0, abs=1e-9)


def test_the_contract_of_an_entry(small):
    scores, _ = scored(small)
    keys = {"benchmark", "protocol", "precision", "norm_precision", "norm_precision_at_0.2", "success", "success_rate_at_0.5",
            "success_rate_at_0.75", "average_overlap", "frames", "repaired", "invalid", "fps", "curves", "missing", "short",
            "intervals", "longterm", "runs", "starts", "parameters", "per_attribute", "per_sequence"}
    assert set(scores["kcf"]) == keys
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["kcf"]["longterm"] is scores["kcf"]["runs"] is scores["kcf"]["starts"] is None
    assert set(scores["kcf"]["intervals"]) == {"precision", "norm_precision", "norm_precision_at_0.2", "success", "average_overlap"}


@pytest.mark.parametrize("protocol", LENIENT)
def test_entries_say_their_protocol(small, protocol):
    assert scored(small, protocol)[0]["kcf"]["protocol"] == protocol


def test_absent_targets_give_longterm_scores():
    scores, _ = evaluate(FIXTURES / "synthetic" / "anno", FIXTURES / "synthetic" / "results", "lsotb-tir")
    assert 0 < scores["lost_half"]["longterm"]["f"] < scores["jitter2"]["longterm"]["f"] < 1
    assert scores["jitter2"]["longterm"]["threshold"] is None


# --- where annotations lie

def test_layouts_give_the_same_scores(small):
    expected = scored(small)
    for tree in ("tiranno", "anno"):
        shutil.copytree(small / "data", small / tree / tree)
        assert evaluate(small / tree, small / "results", "simtir") == expected
    for truth in ("groundtruth.txt", "groundtruth_rect.txt"):
        nested = small / truth[:-4]
        for name in ("car", "boy"): write_boxes(nested / name / truth, read_boxes(small / "data" / f"{name}.txt"))
        shutil.copytree(small / "data" / "att", nested / "att")
        assert evaluate(nested, small / "results", "simtir") == expected
        single, remarks = evaluate(nested / "car", small / "results", "simtir")
        assert single["kcf"]["per_sequence"] == {"car": expected[0]["kcf"]["per_sequence"]["car"]}
        assert remarks == ["kcf: results without annotation, not scored: boy"]


def test_a_layout_that_needs_its_frames(small):
    "RGBT folders keep boxes under another name; the readers of the data part find them."
    truth = read_boxes(small / "data" / "car.txt")
    images = np.zeros((len(truth), 120, 160), np.uint8)
    write_sequence(small / "plain" / "car", images, truth - [1, 1, 0, 0])
    (small / "rgbt" / "car").mkdir(parents=True)
    shutil.move(small / "plain" / "car" / "img", small / "rgbt" / "car" / "infrared")
    shutil.copyfile(small / "data" / "car.txt", small / "rgbt" / "car" / "infrared.txt")
    found = load_truth(small / "rgbt", "simtir")
    np.testing.assert_allclose(found.boxes["car"], truth)


def test_truth_of_a_relative_single_folder(small, monkeypatch):
    write_boxes(small / "set" / "car" / "groundtruth.txt", np.ones((3, 4)))
    monkeypatch.chdir(small / "set" / "car")
    assert list(truth_files(".")) == ["car"]


def test_truth_can_be_kept(small):
    truth = load_truth(small / "data", "simtir")
    assert score_results(small / "results", truth) == scored(small)


# --- the lists of the benchmarks

def test_lists_are_those_of_the_toolkits():
    frames = {name: sum(benchmark_list(name)["sequences"].values()) for name in BENCHMARKS}
    assert frames == {"simtir": 0, "ptb-tir": 30029, "lsotb-tir": 82133, "lsotb-tir-st100": 64367, "lsotb-tir-lt11": 37930}
    union = {n for name in ("lsotb-tir", "lsotb-tir-st100", "lsotb-tir-lt11") for n in benchmark_list(name)["sequences"]}
    assert len(union) == 136
    assert benchmark_list("lsotb-tir")["attributes"] == list(OFFICIAL["jitter2"]["per_attribute"])


def listed(place, benchmark, count, frames=None):
    "Annotations and results of the first sequences of a list, with its lengths unless `frames` is given."
    chosen = list(benchmark_list(benchmark)["sequences"].items())[:count]
    for name, length in chosen:
        truth = np.tile([30.0, 40, 20, 50], (frames or length, 1))
        write_boxes(place / "data" / f"{name}.txt", truth)
        write_boxes(place / "results" / "kcf" / f"{name}.txt", truth)
    return [name for name, _ in chosen]


def test_only_sequences_of_the_list_are_scored(tmp_path):
    names = listed(tmp_path, "lsotb-tir", 3)
    write_boxes(tmp_path / "data" / "my_dog.txt", np.ones((5, 4)))
    write_boxes(tmp_path / "results" / "kcf" / "my_dog.txt", np.ones((5, 4)))
    scores, remarks = scored(tmp_path, benchmark="lsotb-tir")
    assert list(scores["kcf"]["per_sequence"]) == names
    assert remarks[0].startswith("no annotation for 117 of the 120 sequences of lsotb-tir: ") and "and 109 more" in remarks[0]
    assert remarks[1] == "1 sequences are not of lsotb-tir and left out: my_dog"
    assert remarks[2] == "kcf: results without annotation, not scored: my_dog" and len(remarks) == 3
    assert refusal(tmp_path, "strict", "lsotb-tir").startswith("no annotation for 117 of the 120")


def test_a_whole_list_has_nothing_to_say(tmp_path):
    listed(tmp_path, "lsotb-tir-lt11", 11)
    for protocol in PROTOCOLS:
        scores, remarks = scored(tmp_path, protocol, "lsotb-tir-lt11")
        assert remarks == [] and scores["kcf"]["per_attribute"] == {}
    assert scores["kcf"]["success"] == pytest.approx(20 / 21)


def test_other_lengths_than_listed_are_told(tmp_path):
    names = listed(tmp_path, "lsotb-tir-lt11", 11, frames=30)
    remarks = scored(tmp_path, benchmark="lsotb-tir-lt11")[1]
    assert len(remarks) == 1 and f"{names[0]} (30 rows, not " in remarks[0]
    assert "another length" in refusal(tmp_path, "strict", "lsotb-tir-lt11")


def test_long_list_has_no_attributes_even_with_files(tmp_path):
    names = listed(tmp_path, "lsotb-tir-lt11", 11)
    (tmp_path / "data" / "att").mkdir()
    (tmp_path / "data" / "att" / f"{names[0]}.txt").write_text("1,0\n")
    assert scored(tmp_path, benchmark="lsotb-tir-lt11")[0]["kcf"]["per_attribute"] == {}


def test_unknown_benchmark_and_protocol(small):
    assert refusal(small, benchmark="otb").startswith("benchmark 'otb' is unknown: give one of simtir, ptb-tir, lsotb-tir,")
    assert refusal(small, protocol="vot").startswith("protocol 'vot' is unknown: give one of official, pysot, pytracking, got10k, strict")


# --- bad results: shorter, longer, empty, text, NaN, negative, wrong separator

def test_a_short_result(small):
    path = spoil(small, lambda lines: lines[:-3])
    said = f"{path}: the result has 37 rows but its ground truth has 40; give one row for each frame"
    for protocol in ("official", "pysot", "strict"): assert refusal(small, protocol) == said
    for protocol in ("pytracking", "got10k"):
        scores, remarks = scored(small, protocol)
        assert scores["kcf"]["short"] == ["car"]
        assert remarks == ["kcf: short results, accepted by this protocol: car (37 of 40)"]
        assert scores["kcf"]["per_sequence"]["car"]["frames"] == {"pytracking": 40, "got10k": 37}[protocol]


def test_a_short_result_whose_missing_tail_is_invalid(small):
    truth = read_boxes(small / "data" / "car.txt")
    truth[-3:] = 0
    write_boxes(small / "data" / "car.txt", truth)
    whole = scored(small)[0]["kcf"]
    spoil(small, lambda lines: lines[:-3])
    scores, remarks = scored(small)
    assert scores["kcf"]["short"] == ["car"] and scores["kcf"]["success"] == whole["success"]
    assert scores["kcf"]["repaired"] == whole["repaired"] == 0
    assert "car.txt: the result has 37 rows but its ground truth has 40" in refusal(small, "strict")
    spoil(small, lambda lines: lines[:-1])
    assert "car.txt: the result has 36 rows but its ground truth has 40" in refusal(small)


def test_a_long_result(small):
    whole = scored(small)[0]["kcf"]
    path = spoil(small, lambda lines: [*lines, "nan,nan,nan,nan", "1,1,0,0"])
    for protocol in ("official", "pytracking", "got10k"):
        scores, remarks = scored(small, protocol)
        assert remarks == ["kcf: rows beyond the last frame are ignored: car (42 of 40)"] and scores["kcf"]["short"] == []
        assert scores["kcf"]["frames"] == whole["frames"] and scores["kcf"]["repaired"] == 0
    assert scored(small)[0]["kcf"]["success"] == whole["success"]
    for protocol in ("pysot", "strict"):
        assert refusal(small, protocol).startswith(f"{path}: the result has 42 rows but its ground truth has 40")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("content", ("", "\n \n"))
def test_an_empty_result(small, protocol, content):
    path = small / "results" / "kcf" / "car.txt"
    path.write_text(content)
    assert refusal(small, protocol) == f"{path} is empty: give one row x,y,w,h for each frame"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("line, said", (("1,2,three,4", "'1,2,three,4' is not a box: give four numbers"),
                                        ("lost", "'lost' is not a box"), ("1:2:3:4", "'1:2:3:4' is not a box"),
                                        ("1|2|3|4", "is not a box"), ("1,2,3", "'1,2,3' is not a box"),
                                        ("1,2,3,4,5", "'1,2,3,4,5' is not a box"), ("1,,3,4", "a number is lacking between"),
                                        ("1.2.3,4,5,6", "is not a box"), ("1-2,3,4,5", "is not a box"),
                                        (",2,3,4", "a number is lacking"), ("1,2,3\n4,5,6,7,8", "'1,2,3' is not a box")))
def test_a_line_that_is_no_box(small, protocol, line, said):
    path = spoil(small, lambda lines: [*lines[:6], line, *lines[7:]])
    message = refusal(small, protocol)
    assert message.startswith(f"{path}:7: ") and said in message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_result_that_is_no_text(small, protocol):
    path = small / "results" / "kcf" / "car.txt"
    path.write_bytes(b"\xff\xfe\x00\x81MATLAB")
    assert str(path) in refusal(small, protocol)


@pytest.mark.parametrize("rows, repaired, refusing", (
    (["nan,nan,nan,nan"], 1, {"pytracking": "has a NaN", "strict": "is not a box with an area"}),
    (["NaN,40,20,50"], 0, {"pytracking": "has a NaN", "strict": "is not a box with an area"}),
    (["30,40,-20,50", "30,40,20,-50"], 2, {"pytracking": "has a negative size", "strict": "is not a box with an area"}),
    (["0,0,0,0"], 1, {"strict": "is not a box with an area"}),
    (["inf,40,20,50"], 0, {"strict": "is not a box with an area"}),
))
def test_rows_that_are_unusable(small, rows, repaired, refusing):
    path = spoil(small, lambda lines: [*lines[:6], *rows, *lines[6 + len(rows):]])
    for protocol in PROTOCOLS:
        if protocol in refusing:
            message = refusal(small, protocol)
            assert message.startswith(f"{path}:7: ") and refusing[protocol] in message
        else:
            counted = scored(small, protocol)[0]["kcf"]
            expected = repaired if protocol in ("official", "pytracking") else 0
            assert counted["repaired"] == counted["per_sequence"]["car"]["repaired"] == expected


@pytest.mark.parametrize("separator", ("\t", " ", ", ", ";", "  "))
def test_separators_that_are_understood(small, separator):
    expected = scored(small)
    path = small / "results" / "kcf" / "car.txt"
    path.write_bytes(path.read_text().replace(",", separator).replace("\n", "\r\n").encode())
    assert scored(small) == expected


# --- bad coverage

def test_a_missing_result(small):
    (small / "results" / "kcf" / "boy.txt").unlink()
    scores, remarks = scored(small)
    assert remarks == ["kcf: no result for 1 of 2 sequences, which its means leave out: boy"]
    assert scores["kcf"]["missing"] == ["boy"] and list(scores["kcf"]["per_sequence"]) == ["car"]
    for protocol in ("pysot", "pytracking", "got10k"):
        assert refusal(small, protocol) == f"kcf: no result for boy; {protocol} needs all sequences, official leaves it out"
    assert "no result for 1 of 2 sequences" in refusal(small, "strict") and str(small / "results" / "kcf") in refusal(small, "strict")


def test_a_result_of_an_unknown_sequence(small):
    write_boxes(small / "results" / "kcf" / "bus.txt", np.ones((3, 4)))
    for protocol in LENIENT:
        scores, remarks = scored(small, protocol)
        assert remarks == ["kcf: results without annotation, not scored: bus"] and "bus" not in scores["kcf"]["per_sequence"]
    assert "not scored: bus" in refusal(small, "strict")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_common_sequence(small, protocol):
    for name in ("car", "boy"): (small / "results" / "kcf" / f"{name}.txt").rename(small / "results" / "kcf" / f"other_{name}.txt")
    said = refusal(small, protocol)
    assert said == "kcf: no result for any of the 2 sequences; give at least one" or "no result for 2 of 2 sequences" in said


def test_a_missing_annotation(tmp_path):
    names = listed(tmp_path, "lsotb-tir-lt11", 11)
    (tmp_path / "data" / f"{names[4]}.txt").unlink()
    scores, remarks = scored(tmp_path, benchmark="lsotb-tir-lt11")
    assert remarks == [f"no annotation for 1 of the 11 sequences of lsotb-tir-lt11: {names[4]}",
                       f"kcf: results without annotation, not scored: {names[4]}"]
    assert len(scores["kcf"]["per_sequence"]) == 10
    assert names[4] in refusal(tmp_path, "strict", "lsotb-tir-lt11")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_annotation_that_is_no_table(small, protocol):
    path = small / "data" / "car.txt"
    path.write_text("1,2,3,4\nabsent here\n")
    assert refusal(small, protocol).startswith(f"{path}:2: 'absent here' is not a box")
    path.write_text("")
    assert refusal(small, protocol).startswith(f"{path} is empty")


def test_empty_and_missing_folders(small):
    (small / "empty" / "tracker").mkdir(parents=True)
    def said(data, results):
        with pytest.raises(UserError) as caught: evaluate(small / data, small / results, "simtir")
        return str(caught.value)
    assert "empty holds no results: give <tracker>/<sequence>.txt" in said("data", "empty")
    assert "absent is not a folder" in said("data", "absent") and "absent is not a folder" in said("absent", "results")
    assert "tracker holds no annotations" in said("empty/tracker", "results")
    assert "empty holds no" in said("empty", "results")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("content", ("1,0,1\n", "", "1," * 16 + "1\n", "2," * 15 + "1\n"))
def test_an_attribute_file_of_the_wrong_length(official, protocol, content):
    path = official / "anno" / "att" / "synth_03.txt"
    path.write_text(content)
    with pytest.raises(UserError) as caught: evaluate(official / "anno", official / "results", "lsotb-tir", protocol)
    assert str(caught.value).startswith(f"{path}:1: ") and "lsotb-tir has 16 attributes" in str(caught.value)


def test_attributes_that_are_lacking(official):
    (official / "anno" / "att" / "synth_03.txt").unlink()
    remarks = evaluate(official / "anno", official / "results", "lsotb-tir")[1]
    assert remarks[1] == "no attributes for 1 of 12 sequences: synth_03"
    shutil.rmtree(official / "anno" / "att")
    scores, remarks = evaluate(official / "anno", official / "results", "lsotb-tir")
    assert len(remarks) == 1 and scores["lag5"]["per_attribute"] == {}


def test_foreign_attributes_are_told(official):
    _, remarks = evaluate(official / "anno", official / "results", "simtir")
    assert remarks == ["the annotations have attributes that simtir does not: drone-mounted, hand-held, surveillance, vehicle-mounted"]


def test_ten_attributes_have_the_order_of_ptb(tmp_path):
    names = listed(tmp_path, "ptb-tir", 2)
    (tmp_path / "data" / "att").mkdir()
    for name in names: (tmp_path / "data" / "att" / f"{name}.txt").write_text("1,0,0,1,0,0,0,0,0,1\n")
    assert load_attributes(tmp_path / "data", names, "ptb-tir")[names[0]] == {"deformation", "background clutter", "thermal crossover"}
    assert list(scored(tmp_path, benchmark="ptb-tir")[0]["kcf"]["per_attribute"]) == ["deformation", "background clutter", "thermal crossover"]


# --- times, runs, starts, confidence

def test_speed(small):
    folder = small / "results" / "kcf"
    (folder / "car_time.txt").write_text("0.05\n" * 40)
    assert scored(small)[0]["kcf"]["fps"] == pytest.approx(10)  # boy counts as 0
    (folder / "boy_time.txt").write_text("0\n" * 25)
    assert load_fps(folder, ["boy"]) == {}
    (folder / "boy_time.txt").write_text("0.1\nfast\n")
    assert f"{folder / 'boy_time.txt'}:2: " in refusal(small) and "'fast' is not one of times" in refusal(small)


@pytest.mark.parametrize("text, line, said", (
    ("0.1\n-0.1\n", 2, "-0.1 is no time"), ("0.1\n0.2\nnan\n", 3, "nan is no time"), ("inf\n", 1, "inf is no time"),
    ("0.1 0.2\n0.1 0.2\n", 1, "'0.1 0.2' is not one of times"), ("0.1 0.2 0.3\n", 1, "'0.1 0.2 0.3' is not one of times"),
    ("0.1\n\n0.2\n", 2, "'' is not one of times"), ("0.1,0.2\n", 1, "'0.1,0.2' is not one of times")))
def test_times_that_are_none(small, text, line, said):
    path = small / "results" / "kcf" / "car_time.txt"
    path.write_text(text)
    assert refusal(small).startswith(f"{path}:{line}: {said}")


def test_runs_are_merged(small):
    one = scored(small)[0]["kcf"]
    folder = small / "results" / "kcf"
    for run, shift in (("run_01", 0.0), ("run_02", 3.0)):
        for name in ("car", "boy"): write_boxes(folder / run / f"{name}.txt", read_boxes(folder / f"{name}.txt") + [shift, 0, 0, 0])
    for name in ("car", "boy"): (folder / f"{name}.txt").unlink()
    entry = scored(small)[0]["kcf"]
    assert list(tracker_folders(small / "results")) == ["kcf"] and entry["runs"]["count"] == 2
    assert entry["success"] < one["success"] and entry["runs"]["success"]["mean"] == entry["success"]
    assert entry["intervals"] == intervals(entry["per_sequence"]) != one["intervals"]
    assert entry["runs"]["success"]["std"] == pytest.approx((one["success"] - entry["success"]) * 2 ** 0.5)
    (folder / "run_02" / "boy.txt").unlink()
    entry, remarks = scored(small)[0]["kcf"], scored(small)[1]
    assert remarks == ["kcf/run_02: no result for 1 of 2 sequences, which its means leave out: boy",
                       "kcf: not every run has a result, so all runs leave out: boy"]
    assert entry["missing"] == ["boy"] and list(entry["per_sequence"]) == ["car"] and entry["frames"] == 40
    assert entry["success"] == entry["runs"]["success"]["mean"] == entry["per_sequence"]["car"]["success"]
    assert entry["intervals"] == {}
    for protocol in ("pysot", "pytracking", "got10k"): assert refusal(small, protocol).startswith("kcf/run_02: no result for boy; ")
    (folder / "run_01" / "car.txt").unlink()
    assert refusal(small) == "kcf: no sequence has a result in all 2 runs; finish the runs or remove one"


def test_runs_without_absent_targets_in_common(small):
    "Only boy has absent targets, and only one run has boy: neither order of the runs is an error."
    truth = read_boxes(small / "data" / "boy.txt")
    truth[10:15] = 0
    write_boxes(small / "data" / "boy.txt", truth)
    folder = small / "results" / "kcf"
    for run in ("run_01", "run_02"): shutil.copytree(folder, small / "runs" / run)
    shutil.rmtree(folder)
    shutil.copytree(small / "runs", folder)
    for lacks, has in (("run_01", "run_02"), ("run_02", "run_01")):
        shutil.move(folder / lacks / "boy.txt", small / "kept.txt")
        assert scored(small)[0]["kcf"]["longterm"] is None
        shutil.move(small / "kept.txt", folder / lacks / "boy.txt")
    assert scored(small)[0]["kcf"]["longterm"]["f"] > 0


def test_results_beside_runs_are_told(small):
    folder = small / "results" / "kcf"
    (folder / "car_time.txt").write_text("0.05\n" * 40)
    for name in ("car", "boy"): write_boxes(folder / "run_01" / f"{name}.txt", read_boxes(folder / f"{name}.txt"))
    assert scored(small)[1] == ["kcf: results beside its folders run_*, not scored: boy, car"]
    assert "beside its folders run_*" in refusal(small, "strict")


def test_a_tracker_with_starts_alone_is_told(small):
    write_boxes(small / "results" / "mosse" / "sre" / "car_01.txt", np.ones((40, 4)))
    scores, remarks = scored(small)
    assert list(scores) == ["kcf"] and remarks == ["mosse: starts without one-pass results, not scored: add <sequence>.txt"]
    assert "mosse" in refusal(small, "strict")
    shutil.rmtree(small / "results" / "kcf")
    assert "starts in tre or sre are not enough" in refusal(small)


def test_starts_of_a_sequence_that_is_too_short(small):
    folder = small / "results" / "kcf"
    for path in (small / "data" / "boy.txt", folder / "boy.txt"): write_boxes(path, read_boxes(path)[:12])
    truth = read_boxes(small / "data" / "car.txt")
    for k, (first, _) in enumerate(segments(truth), 1): write_boxes(folder / "tre" / f"car_{k:02d}.txt", truth[first:])
    write_boxes(folder / "tre" / "boy_01.txt", np.ones((12, 4)))
    scores, remarks = scored(small)
    assert scores["kcf"]["starts"]["tre"]["sequences"] == 1
    assert remarks[-1].startswith("kcf: tre runs of boy are left out: a sequence of 12 frames has no valid annotation")


# --- what the official toolkits cannot score

def test_what_the_toolkits_cannot_score_is_told(small):
    for path in (small / "data" / "boy.txt", small / "results" / "kcf" / "boy.txt"): write_boxes(path, read_boxes(path)[:19])
    scores, remarks = scored(small)
    assert remarks == ["fewer than 20 frames, on which the official toolkits stop: boy (19)"] and len(scores["kcf"]["per_sequence"]) == 2
    assert "boy (19) (strict refuses that)" in refusal(small, "strict")
    for protocol in ("pysot", "pytracking", "got10k"): assert scored(small, protocol)[1] == []


def test_a_first_annotation_without_target_is_told(small):
    truth = read_boxes(small / "data" / "car.txt")
    truth[0] = 0
    write_boxes(small / "data" / "car.txt", truth)
    said = "no valid annotation in frame 1, so that the official toolkits would start later: car"
    assert scored(small)[1] == [said] and refusal(small, "strict") == f"{said} (strict refuses that)"
    truth[0] = [0, 40, 20, 50]
    write_boxes(small / "data" / "car.txt", truth)
    assert scored(small)[1] == [said] and scored(small, "strict")[1] == []


@pytest.mark.parametrize("row", ("nan,nan,nan,nan", "0,0,0,0"))
def test_strict_lets_a_tracker_be_silent_where_no_target_is(small, row):
    truth = read_boxes(small / "data" / "car.txt")
    truth[6:8] = 0
    write_boxes(small / "data" / "car.txt", truth)
    path = spoil(small, lambda lines: [*lines[:6], row, row, *lines[8:]])
    silent = scored(small, "strict")[0]["kcf"]
    assert silent["per_sequence"]["car"]["invalid"] == 2 and silent["longterm"]["precision"] > 0
    spoil(small, lambda lines: [*lines[:6], "30,40,20,50", "30,40,20,50", *lines[8:]])
    assert scored(small, "strict")[0]["kcf"]["success"] == silent["success"]
    spoil(small, lambda lines: [*lines[:6], "1,2,nan,4", *lines[7:]])
    assert refusal(small, "strict").startswith(f"{path}:7: 1,2,nan,4 is not a box")
    spoil(small, lambda lines: [*lines[:6], row, row, row, *lines[9:]])
    assert refusal(small, "strict").startswith(f"{path}:9: {row} is not a box")


def test_a_hole_in_the_annotation_is_told_of_the_annotation(small):
    truth = read_boxes(small / "data" / "car.txt")
    truth[4, 0] = np.nan
    write_boxes(small / "data" / "car.txt", truth)
    assert refusal(small, "pytracking").startswith("the annotation of car:5: nan,44,20,50 has a NaN, which pytracking refuses")


def test_a_stray_file_among_annotations(small):
    (small / "data" / "README.txt").write_text("Made by hand.\n")
    said = refusal(small)
    assert said.startswith(f"{small / 'data' / 'README.txt'}:1: ") and said.endswith("; remove the file if it is no annotation")


def test_starts_are_scored(small):
    folder = small / "results" / "kcf"
    truth = read_boxes(small / "data" / "car.txt")
    for k, (first, _) in enumerate(segments(truth), 1): write_boxes(folder / "tre" / f"car_{k:02d}.txt", truth[first:])
    for k, box in enumerate(shifted_boxes(truth[0], (400, 400)), 1):
        write_boxes(folder / "sre" / f"car_{k:02d}.txt", np.concatenate([box[None], truth[1:]]))
    (scores, remarks) = scored(small)
    assert scores["kcf"]["starts"]["tre"]["success"] == scores["kcf"]["starts"]["sre"]["success"] == pytest.approx(20 / 21)
    assert remarks == [f"kcf: no complete {kind} runs for boy: left out there" for kind in ("tre", "sre")]
    assert len(load_starts(folder, "tre", ["car"])["car"]) == len(segments(truth))


def test_unfinished_starts_are_left_out(small):
    folder = small / "results" / "kcf"
    truth = read_boxes(small / "data" / "car.txt")
    for k, (first, _) in enumerate(segments(truth)[:5], 1): write_boxes(folder / "tre" / f"car_{k:02d}.txt", truth[first:])
    scores, remarks = scored(small)
    assert scores["kcf"]["starts"] is None
    assert remarks == ["kcf: no complete tre runs for boy, car: left out there"]
    assert "tre" in refusal(small, "strict")


def test_confidence_is_read(small):
    truth = read_boxes(small / "data" / "car.txt")
    truth[20:30] = 0
    write_boxes(small / "data" / "car.txt", truth)
    folder = small / "results" / "kcf"
    assert scored(small)[0]["kcf"]["longterm"]["threshold"] is None
    (folder / "car_confidence.txt").write_text("".join(f"{0.1 if 20 <= t < 30 else 0.9}\n" for t in range(40)))
    (folder / "boy_confidence.txt").write_text("0.9\n" * 25)
    told = scored(small)[0]["kcf"]["longterm"]
    assert told["threshold"] == 0.9 and told["precision"] > 0.5
    (folder / "boy_confidence.txt").write_text("0.9\n" * 3)
    assert refusal(small).startswith(f"{folder / 'boy.txt'}: 3 values of confidence for 25 boxes")


# --- reading

@pytest.mark.parametrize("text", ("1,2,3,4", "1,2,3,4\n-5.5,1e2,+7,.5\n", "1\t2\t3\t4\n", "NaN,nan,Inf,-inf\n1,2,3,4\n"))
def test_clean_files_read_as_others(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    np.testing.assert_array_equal(read_rows(tmp_path / "a.txt"), read_boxes(tmp_path / "a.txt"))


def test_numbers_are_read_to_the_last_bit(tmp_path):
    boxes = np.random.default_rng(0).uniform(-1e3, 1e3, (500, 4))
    path = tmp_path / "a.txt"
    path.write_text("".join(",".join(map(repr, row)) + "\n" for row in boxes.tolist()))
    assert is_clean(path.read_bytes())
    np.testing.assert_array_equal(read_rows(path), boxes)
    assert load_results(tmp_path, ["a", "b"]).keys() == {"a"}


def test_scoring_needs_neither_torch_nor_opencv():
    heavy = "{'torch', 'cv2', 'matplotlib'} & set(sys.modules)"
    code = (f"import sys; from tirnas.scoring import evaluate; evaluate({str(FIXTURES / 'synthetic' / 'anno')!r}, "
            f"{str(FIXTURES / 'synthetic' / 'results')!r}, 'lsotb-tir'); assert not {heavy}, {heavy}")
    subprocess.run([sys.executable, "-c", code], check=True)
