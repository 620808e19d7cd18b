"""tirnas.benchmark: raw results, resume, processes, and scores of files against the official numbers."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tirnas.benchmark import (evaluate, is_finished, load_fps, load_results, make_tracker, run_benchmark, run_parallel,
                              run_sequence, truth_files)
from tirnas.core import TrackState, UserError
from tirnas.data.sequences import Sequence, open_dataset, read_boxes, write_attributes, write_boxes, write_sequence

FIXTURES = Path(__file__).parent / "fixtures" / "evaluation"
NUMBERS = {"precision": "precision", "norm_precision": "norm_precision", "success_auc": "success"}


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    for name, num_frames in (("car", 6), ("boy", 4)):
        boxes = np.array([[10.25 + 2 * t, 12.5, 14, 20] for t in range(num_frames)])
        write_sequence(tmp_path / "data" / name, random.integers(0, 255, (num_frames, 48, 64)).astype(np.uint8), boxes)
    write_attributes(tmp_path / "data" / "att" / "car.txt", ["occlusion"])
    return tmp_path / "data"


@pytest.fixture
def official(tmp_path):
    "The synthetic fixture, where a test may spoil it."
    return shutil.copytree(FIXTURES / "synthetic", tmp_path / "synthetic", copy_function=shutil.copyfile)


def run(name, data, out, **more):
    return run_benchmark(name, open_dataset(data), out, progress=False, **more)


class Drifting:
    "Adds a little to the box in each frame, and counts its calls."
    def init(self, frame, box_xywh):
        self.box, self.frames = np.array(box_xywh, dtype=float), [frame]

    def update(self, frame):
        self.frames.append(frame)
        self.box = self.box + (0.333333, 0, 0, 0)
        return self.box.copy(), TrackState(1.0, "held")


def test_run_sequence_is_one_pass(data):
    sequence, tracker = open_dataset(data)[1], Drifting()
    boxes, seconds = run_sequence(tracker, sequence)
    assert len(tracker.frames) == len(boxes) == len(seconds) == 6
    np.testing.assert_array_equal(boxes[0], sequence.boxes_xywh[0])
    np.testing.assert_allclose(boxes[:, 0] - boxes[0, 0], np.arange(6) * 0.333333)
    for t, frame in enumerate(tracker.frames): np.testing.assert_array_equal(frame, sequence.frame(t))


@pytest.mark.parametrize("origin", (0, 1))
def test_files_count_from_the_origin(data, tmp_path, origin):
    sequences = [s.replace(origin=origin) for s in open_dataset(data)]
    folder = run_benchmark("constant", sequences, tmp_path / "results", progress=False)
    assert folder == tmp_path / "results" / "constant"
    for sequence in sequences:
        rows = read_boxes(folder / f"{sequence.name}.txt")
        expected = np.tile(sequence.boxes_xywh[0] + [origin, origin, 0, 0], (len(sequence), 1))
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4)
        assert len((folder / f"{sequence.name}_time.txt").read_text().split()) == len(sequence)
    assert sorted(p.name for p in folder.iterdir()) == ["boy.txt", "boy_time.txt", "car.txt", "car_time.txt"]


def test_finished_sequences_are_not_run_again(data, tmp_path):
    folder = run("constant", data, tmp_path / "results")
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    (folder / "boy.txt").unlink()
    run("constant", data, tmp_path / "results")
    after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert {n for n in after if after[n] != stamps[n]} == {"boy.txt", "boy_time.txt"}


@pytest.mark.parametrize("spoil", (lambda rows: rows[:-1], lambda rows: rows + rows[-1:], lambda rows: [],
                                   lambda rows: ["9,9,9,9", *rows[1:]], lambda rows: ["lost", *rows[1:]]),
                         ids=("short", "long", "empty", "another target", "text"))
def test_unusable_results_are_run_again(data, tmp_path, spoil):
    path = run("constant", data, tmp_path / "results") / "car.txt"
    good = path.read_text()
    path.write_text("\n".join(spoil(good.splitlines())))
    assert not is_finished(path.parent, open_dataset(data)[1])
    run("constant", data, tmp_path / "results")
    assert path.read_text() == good


def test_processes_write_the_same_bytes(data, tmp_path):
    one, two = run("csrt", data, tmp_path / "one"), run("csrt", data, tmp_path / "two", jobs=2)
    for name in ("boy.txt", "car.txt"): assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("jobs", (1, 2))
def test_a_failing_sequence_is_named_and_the_others_kept(data, tmp_path, jobs):
    (data / "boy" / "img" / "0003.jpg").write_text("no image")
    with pytest.raises(UserError, match="constant on boy: .*0003.jpg cannot be read"):
        run("constant", data, tmp_path / "results", jobs=jobs)
    assert [p.name for p in sorted((tmp_path / "results" / "constant").iterdir())] == ["car.txt", "car_time.txt"]


def test_an_unexpected_error_names_the_sequence(data, tmp_path):
    sequence = open_dataset(data)[0].replace(boxes_xywh=np.array([["a", "b", "c", "d"]]))
    with pytest.raises(RuntimeError, match="constant failed on boy: ValueError"):
        run_benchmark("constant", [sequence, open_dataset(data)[1]], tmp_path / "results", progress=False)


def die(sequence: Sequence) -> None:
    "Stand-in for a worker that the operating system kills."
    import os
    os._exit(1)


def test_a_dying_worker_is_reported(data):
    with pytest.raises(RuntimeError, match="a worker process died"): list(run_parallel(die, open_dataset(data), 2))


def test_progress_goes_to_standard_error(data, tmp_path, capsys):
    run_benchmark("constant", open_dataset(data), tmp_path / "results")
    captured = capsys.readouterr()
    assert captured.out == "" and "constant" in captured.err and "2/2" in captured.err


def test_bad_arguments(data, tmp_path):
    with pytest.raises(UserError, match="jobs is 0: give"): run("constant", data, tmp_path / "results", jobs=0)
    with pytest.raises(UserError, match="'no-such-tracker'"): run("no-such-tracker", data, tmp_path / "results", jobs=2)
    assert not (tmp_path / "results").exists()


def test_baselines_need_no_torch():
    code = ("import sys; from tirnas.benchmark import make_tracker, evaluate; make_tracker('csrt'); "
            "assert 'torch' not in sys.modules and 'tirnas.tracker' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert type(make_tracker("constant")).__name__ == "ConstantBox"


def test_load_results_and_speed(data, tmp_path):
    folder = run("constant", data, tmp_path / "results")
    (folder / "boy_time.txt").write_text("0.5\n0.1\n0.1\n0.1\n")
    assert set(load_results(folder, ["boy", "car", "absent"])) == {"boy", "car"}
    assert load_fps(folder, ["boy", "absent"]) == {"boy": pytest.approx(5)}
    (folder / "boy_time.txt").write_text("0\n0\n0\n0\n")
    assert load_fps(folder, ["boy"]) == {}


# --- evaluate: annotations and files only

def test_evaluate_gives_the_official_numbers():
    scores, warnings = evaluate(FIXTURES / "synthetic" / "anno", FIXTURES / "synthetic" / "results", "lsotb-tir")
    expected = json.loads((FIXTURES / "synthetic.json").read_text())
    assert warnings == [] and list(scores) == sorted(expected)
    for tracker, official in expected.items():
        ours = scores[tracker]
        assert ours["fps"] is None and ours["benchmark"] == "lsotb-tir" and ours["protocol"] == "official"
        for theirs, name in NUMBERS.items(): assert ours[name] == pytest.approx(official[theirs], rel=0, abs=1e-9)
        attributes = official["per_attribute"]
        assert set(ours["per_attribute"]) == set(attributes)
        for name, numbers in attributes.items():
            assert (ours["per_attribute"][name] is None) == (numbers["success_auc"] is None)
            if numbers["success_auc"] is not None:
                assert ours["per_attribute"][name]["success"] == pytest.approx(numbers["success_auc"], rel=0, abs=1e-9)


def test_evaluate_needs_no_frames_and_knows_three_layouts(data, tmp_path):
    results = run("constant", data, tmp_path / "results").parent
    with_frames = evaluate(data, results, "simtir")
    for name in ("boy", "car"): shutil.rmtree(data / name / "img")
    assert evaluate(data, results, "simtir") == with_frames
    flat = tmp_path / "flat"
    for name in ("boy", "car"): write_boxes(flat / f"{name}.txt", read_boxes(data / name / "groundtruth.txt"))
    shutil.copytree(data / "att", flat / "att")
    assert evaluate(flat, results, "simtir") == with_frames
    single, warnings = evaluate(data / "car", results, "simtir")
    assert single["constant"]["per_sequence"]["car"] == with_frames[0]["constant"]["per_sequence"]["car"]
    assert warnings == ["constant: results without annotation, not scored: boy"]


def test_truth_of_a_relative_single_folder(data, monkeypatch):
    monkeypatch.chdir(data / "car")
    assert list(truth_files(".")) == ["car"]


def test_fps_of_results(data, tmp_path):
    folder = run("constant", data, tmp_path / "results")
    (folder / "boy_time.txt").write_text("0.1\n" * 4)
    (folder / "car_time.txt").write_text("0.05\n" * 6)
    scores, _ = evaluate(data, folder.parent, "simtir")
    assert scores["constant"]["fps"] == pytest.approx(15)
    assert scores["constant"]["per_sequence"]["car"]["fps"] == pytest.approx(20)


def test_missing_sequences_are_told(official):
    (official / "results" / "lag5" / "synth_03.txt").unlink()
    scores, warnings = evaluate(official / "anno", official / "results", "lsotb-tir")
    assert warnings == ["lag5: no result for 1 of 12 sequences, which its means leave out: synth_03"]
    assert scores["lag5"]["missing"] == ["synth_03"] and scores["jitter2"]["missing"] == []


def test_foreign_attributes_are_told(official):
    _, warnings = evaluate(official / "anno", official / "results", "simtir")
    assert warnings == ["the annotations have attributes that simtir does not: drone-mounted, hand-held, surveillance, vehicle-mounted"]
    assert evaluate(official / "anno", official / "results", "lsotb-tir-st100")[1] == []


def error(official, data="anno", results="results", benchmark="lsotb-tir"):
    with pytest.raises(UserError) as caught: evaluate(official / data, official / results, benchmark)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("rows", (-1, 1))
def test_wrong_row_count(official, rows):
    path = official / "results" / "lag5" / "synth_02.txt"
    lines = path.read_text().split()
    path.write_text("\n".join(lines[:-1] if rows < 0 else lines + lines[-1:]))
    counts = f"the result has {len(lines) + rows} rows but its ground truth has {len(lines)}"
    assert error(official).startswith(f"lag5/synth_02: {counts}")


def test_text_instead_of_numbers(official):
    path = official / "results" / "lag5" / "synth_02.txt"
    lines = path.read_text().split()
    path.write_text("\n".join([*lines[:2], "1,2,three,4", *lines[3:]]))
    assert "synth_02.txt:3: '1,2,three,4' is not a box: give four numbers" in error(official)


def test_times_that_are_no_numbers(official):
    (official / "results" / "lag5" / "synth_02_time.txt").write_text("fast")
    assert "synth_02_time.txt is not a file of times" in error(official)


def test_an_empty_result_file(official):
    (official / "results" / "lag5" / "synth_02.txt").write_text("")
    assert "lag5/synth_02" in error(official)


def test_empty_and_missing_folders(official):
    (official / "empty" / "tracker").mkdir(parents=True)
    assert "empty holds no results: give <tracker>/<sequence>.txt" in error(official, results="empty")
    assert "absent is not a folder" in error(official, results="absent")
    assert "absent is not a folder" in error(official, data="absent")
    assert "tracker holds no annotations" in error(official, data="empty/tracker")


def test_results_of_another_benchmark(official):
    (official / "other" / "kcf").mkdir(parents=True)
    (official / "other" / "kcf" / "car.txt").write_text("1,2,3,4\n")
    assert error(official, results="other") == "kcf: no result for any of the 12 sequences; give at least one"


def test_unknown_benchmark(official):
    assert error(official, benchmark="otb") == "benchmark 'otb' is unknown: give one of simtir, lsotb-tir, ptb-tir"
