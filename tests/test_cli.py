"""The command as a shell runs it: exit code 2 and one sentence for bad input, whole files for good."""
import json

import cv2
import numpy as np
import pytest
from conftest import ROOT, shell

from tirnas.data.sequences import read_boxes, write_sequence
from tirnas.dimp.card import ModelCard, save_model
from tirnas.dimp.net import HeadSettings
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import random_genotype


def walk(t):
    frame = np.random.default_rng(t).normal(90, 4, (90, 120))
    frame[30:60, 20 + 3 * t:32 + 3 * t] += 80
    return frame.clip(0, 255).astype(np.uint8)


@pytest.fixture
def sequence(tmp_path):
    boxes = np.array([[20 + 3 * t, 30, 12, 30] for t in range(10)], dtype=float)
    return write_sequence(tmp_path / "data" / "walk", map(walk, range(10)), boxes)


@pytest.fixture
def model(tmp_path):
    card = ModelCard(random_genotype("single", 1), Macro("single", 3, 4, 4), HeadSettings(8, 16, 4, 16), 64, 4.5, {})
    return save_model(tmp_path / "model.safetensors", card.build(), card)


def tirnas(*words, cwd=ROOT):
    return shell("tirnas", *map(str, words), cwd=cwd)


def refused(run, *parts):
    "Exit code 2, and one line that has all the parts."
    assert run.returncode == 2, (run.returncode, run.stdout, run.stderr)
    (line,) = [l for l in run.stderr.splitlines() if l.startswith("tirnas: ")]
    assert all(part in line for part in parts) and "Traceback" not in run.stderr


def test_track_writes_all_boxes(sequence, model, tmp_path):
    run = tirnas("track", sequence / "img", "--box", "21,31,12,30", "--model", model, "--out", tmp_path / "boxes.txt")
    assert run.returncode == 0 and "fps" in run.stdout and "10/10" in run.stderr
    boxes = read_boxes(tmp_path / "boxes.txt")
    assert boxes.shape == (10, 4) and boxes[0].tolist() == [21, 31, 12, 30] and (boxes[:, 2:] > 0).all()


def test_run_and_evaluate(sequence, model, tmp_path):
    data = sequence.parent
    for tracker in ("constant", model):
        assert tirnas("run", "--data", data, "--tracker", tracker, "--out", tmp_path / "results").returncode == 0
    run = tirnas("evaluate", "--data", data, "--results", tmp_path / "results", "--out", tmp_path / "scores")
    assert run.returncode == 0 and "constant" in run.stdout and "model" in run.stdout
    assert (tmp_path / "scores" / "scores.json").is_file() and (tmp_path / "scores" / "report.html").is_file()


def test_run_tells_failures_and_ends_with_1(sequence, tmp_path):
    data = sequence.parent
    write_sequence(data / "other", map(walk, range(4)), np.tile([20.0, 30, 12, 30], (4, 1)))
    (data / "other" / "img" / "0003.jpg").write_bytes(b"broken")
    run = tirnas("run", "--data", data, "--tracker", "constant", "--out", tmp_path / "results")
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "tirnas: constant failed on 1 of 2 sequences, the others are done: other: " in run.stderr and "0003.jpg cannot be read" in run.stderr
    assert len(read_boxes(tmp_path / "results" / "constant" / "walk.txt")) == 10


OWN = """
class Mine:
    def init(self, frame, box): self.box = box
    def update(self, frame): return [self.box[0] + 1, *self.box[1:]]
class Half:
    def init(self, frame, box): pass
"""


def test_run_a_tracker_of_ones_own(sequence, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    common = ("run", "--data", sequence.parent, "--out", tmp_path / "results")
    run = tirnas(*common, "--tracker", "mine.py:Mine", "--name", "moves", "--repeat", "2", cwd=tmp_path)
    assert run.returncode == 0 and "decoded before its clock starts" in run.stdout, run.stderr
    assert "warning: all 2 runs of moves are the same" in run.stderr
    assert len(read_boxes(tmp_path / "results" / "moves" / "run_02" / "walk.txt")) == 10
    refused(tirnas(*common, "--tracker", "mine.py:Half", cwd=tmp_path), "'mine.py:Half' is no tracker", "no method update(frame)")
    refused(tirnas(*common, "--tracker", "none.py:Mine", cwd=tmp_path), "none.py does not exist")
    refused(tirnas(*common, "--tracker", "mine.py:Mine", "--starts", "all", cwd=tmp_path), "'all' is unknown: give one of ope, tre, sre")
    refused(tirnas(*common, "--tracker", "mine.py:Mine", "--benchmark", "ptb-tir", cwd=tmp_path), "none of the 1 sequences is of ptb-tir")


def test_starts_runs_and_comparison(tmp_path):
    data, out = tmp_path / "data", tmp_path / "results"
    for name, step in (("fast", 3), ("slow", 0)):
        boxes = np.array([[20 + step * t % 60, 30, 12, 30] for t in range(24)], dtype=float)
        write_sequence(data / name, [walk(0)] * 24, boxes)
    for words in (("constant",), ("kcf",), ("constant", "--starts", "tre"), ("constant", "--starts", "sre")):
        assert tirnas("run", "--data", data, "--out", out, "--tracker", *words).returncode == 0
    assert len(list((out / "constant" / "sre").glob("slow_??.txt"))) == 12
    run = tirnas("evaluate", "--data", data, "--results", out, "--out", tmp_path / "s", "--compare", "kcf", "constant", "--published")
    assert run.returncode == 0 and "kcf - constant, success: " in run.stdout and "no published scores of simtir" in run.stdout, run.stderr
    starts = json.loads((tmp_path / "s" / "scores.json").read_text())["constant"]["starts"]
    assert set(starts) == {"tre", "sre"} and starts["sre"]["success"] < 1
    refused(tirnas("evaluate", "--data", data, "--results", out, "--out", tmp_path / "s", "--compare", "kcf", "mil"), "'mil' is no tracker here")


@pytest.mark.parametrize("box, parts", [
    ("1,2,3", ("four numbers",)), ("a,b,c,d", ("four numbers",)), ("5,5,0,9", ("has no size",)), ("5,5,nan,9", ("four numbers",)),
    ("400,5,20,20", ("lies outside the frame of 120 x 90 px",)), ("-30,5,20,20", ("lies outside",))])
def test_bad_boxes(sequence, model, tmp_path, box, parts):
    out = tmp_path / "boxes.txt"
    refused(tirnas("track", sequence / "img", f"--box={box}", "--model", model, "--out", out), *parts)
    assert not out.exists()


def test_bad_sources(sequence, model, tmp_path):
    (tmp_path / "empty").mkdir()
    common = ("--box", "21,31,12,30", "--model", model, "--out", tmp_path / "boxes.txt")
    refused(tirnas("track", tmp_path / "missing", *common), "missing does not exist", "give a folder of images")
    refused(tirnas("track", tmp_path / "empty", *common), "empty holds no images")
    (tmp_path / "text.mp4").write_text("no video")
    refused(tirnas("track", tmp_path / "text.mp4", *common), "cannot be opened as a video")


def test_unreadable_image_in_the_middle(sequence, model, tmp_path):
    (sequence / "img" / "0005.jpg").write_bytes(b"broken")
    out = tmp_path / "boxes.txt"
    out.write_text("mine\n")
    refused(tirnas("track", sequence / "img", "--box", "21,31,12,30", "--model", model, "--out", out), "0005.jpg cannot be read")
    assert out.read_text() == "mine\n" and not [p for p in tmp_path.iterdir() if p.name.startswith(".boxes")]


def test_bad_data(sequence, tmp_path):
    results = tmp_path / "results"
    refused(tirnas("run", "--data", tmp_path / "no", "--tracker", "constant", "--out", results), "is not a folder")
    (sequence / "img" / "0010.jpg").unlink()
    run = tirnas("run", "--data", sequence.parent, "--tracker", "constant", "--out", results)
    assert run.returncode == 0 and "has 9 frames but 10 boxes" in run.stderr and "groundtruth.txt" in run.stderr
    assert len(read_boxes(results / "constant" / "walk.txt")) == 9


def test_bad_names(sequence, tmp_path):
    results = tmp_path / "results"
    refused(tirnas("run", "--data", sequence.parent, "--tracker", "no-such", "--out", results), "no-such")
    refused(tirnas("evaluate", "--data", sequence.parent, "--results", results, "--out", tmp_path / "s", "--benchmark", "otb"), "'otb' is unknown")
    refused(tirnas("evaluate", "--data", sequence.parent, "--results", tmp_path / "none", "--out", tmp_path / "s"), "none")
    assert not (tmp_path / "s").exists()


def test_bad_models(sequence, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04pickle")
    refused(tirnas("track", sequence / "img", "--box", "21,31,12,30", "--model", bad, "--out", tmp_path / "b.txt"), "is not a tirnas model")
    refused(tirnas("track", sequence / "img", "--box", "21,31,12,30", "--model", "huge", "--out", tmp_path / "b.txt"), "'huge' is neither a file")


def test_bad_genotype(tmp_path):
    path = tmp_path / "g.json"
    path.write_text("{}")
    refused(tirnas("cost", path), "g.json")


def test_video_is_tracked(model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (120, 90))
    for t in range(10): writer.write(cv2.cvtColor(walk(t), cv2.COLOR_GRAY2BGR))
    writer.release()
    run = tirnas("track", tmp_path / "walk.avi", "--box", "20,30,12,30", "--model", model, "--out", tmp_path / "boxes.txt")
    assert run.returncode == 0 and len(read_boxes(tmp_path / "boxes.txt")) == 10


@pytest.mark.parametrize("out, part", [("", "is a folder"), ("file/boxes.txt", "cannot be written (Not a directory)")])
def test_a_place_that_cannot_be_written_is_found_first(sequence, model, tmp_path, out, part):
    (tmp_path / "file").write_text("mine\n")
    run = tirnas("track", sequence / "img", "--box", "21,31,12,30", "--model", model, "--out", tmp_path / out)
    refused(run, "--out", part)
    assert "frame/s" not in run.stderr and (tmp_path / "file").read_text() == "mine\n"


def test_data_check(sequence, tmp_path):
    data, report = sequence.parent, tmp_path / "report.json"
    run = tirnas("data", "check", data)
    assert run.returncode == 0 and "120x90 uint8" in run.stdout and "ok" in run.stdout
    (sequence / "img" / "0005.jpg").write_bytes((sequence / "img" / "0005.jpg").read_bytes()[:-200])
    assert tirnas("data", "check", data, "--fast").returncode == 0
    run = tirnas("data", "check", data, "--jobs", "2", "--json", report, "--layout", "otb")
    assert run.returncode == 1 and "walk/img/0005.jpg: cannot be read" in run.stdout and "Traceback" not in run.stderr
    (finding,) = json.loads(report.read_text())["sequences"][0]["findings"]
    assert finding["kind"] == "unreadable" and finding["file"] == "walk/img/0005.jpg"


def test_data_check_refuses(sequence, tmp_path):
    refused(tirnas("data", "check", tmp_path / "none"), "none is not a folder")
    refused(tirnas("data", "check", sequence.parent, "--layout", "lasot"), "'lasot' is unknown")
    refused(tirnas("data", "check", sequence.parent, "--jobs", "0"), "jobs is 0")
    refused(tirnas("data", "check", sequence.parent, "--json", sequence.parent / "report.json"), "lies in the data folder")
    refused(tirnas("data", "check", sequence.parent, "--json", tmp_path), "--json", "is a folder")
    assert sorted(p.name for p in sequence.parent.rglob("*") if p.suffix == ".json") == []


def test_data_list(sequence, tmp_path):
    write_sequence(tmp_path / "data" / "empty", [], np.empty((0, 4)))
    run = tirnas("data", "list", sequence.parent)
    assert run.returncode == 0 and [line.split()[0] for line in run.stdout.splitlines()] == ["sequence", "empty", "walk", "2"]
    assert "holds no images" in run.stdout and run.stdout.splitlines()[2].split()[1:] == ["10", "120x90"]
    assert run.stdout.splitlines()[-1] == "2 sequences, layout otb"


def test_simulate_as_asked(tmp_path):
    run = tirnas("simulate", tmp_path / "a", "--sequences", "1", "--frames", "8", "--attribute", "low resolution", "--bits", "14")
    assert run.returncode == 0, run.stderr
    home = tmp_path / "a" / "train_0000"
    assert cv2.imread(str(home / "img" / "0001.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert "low resolution" in tirnas("data", "list", tmp_path / "a").stdout
    assert tirnas("simulate", tmp_path / "again", "--scene", home / "scene.yaml").returncode == 0
    assert (tmp_path / "again" / "scene" / "groundtruth.txt").read_text() == (home / "groundtruth.txt").read_text()
    assert (tmp_path / "again" / "scene" / "img" / "0008.png").read_bytes() == (home / "img" / "0008.png").read_bytes()


def test_simulate_refuses(tmp_path):
    refused(tirnas("simulate", tmp_path / "a", "--attribute", "rain"), "'rain'")
    refused(tirnas("simulate", tmp_path / "a", "--bits", "12"), "bits is 12")
    refused(tirnas("simulate", tmp_path / "a", "--scene", tmp_path / "none.yaml"), "none.yaml cannot be read")
    (tmp_path / "bad.yaml").write_text("seed: [1\n")
    refused(tirnas("simulate", tmp_path / "a", "--scene", tmp_path / "bad.yaml"), "bad.yaml is not YAML")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("origin", ("0", "1"))
def test_track_counts_as_the_box_does(sequence, model, tmp_path, origin):
    box = "21,31,12,30" if origin == "1" else "20,30,12,30"
    run = tirnas("track", sequence / "img", "--box", box, "--model", model, "--origin", origin, "--out", tmp_path / "boxes.txt")
    assert run.returncode == 0 and f"counted from {origin}" in run.stdout, run.stderr
    assert tirnas("run", "--data", sequence.parent, "--tracker", model, "--out", tmp_path / "results").returncode == 0
    expected = read_boxes(tmp_path / "results" / "model" / "walk.txt") - [1 - int(origin), 1 - int(origin), 0, 0]
    np.testing.assert_allclose(read_boxes(tmp_path / "boxes.txt"), expected, atol=2e-4)


def test_files_in_the_place_of_folders(sequence, tmp_path):
    data, file = sequence.parent, tmp_path / "file"
    file.write_text("mine\n")
    assert tirnas("run", "--data", data, "--tracker", "constant", "--out", tmp_path / "results").returncode == 0
    before = sorted(tmp_path.rglob("*"))
    refused(tirnas("evaluate", "--data", data, "--results", tmp_path / "results", "--out", file), "--out", "is a file: give a folder")
    refused(tirnas("evaluate", "--data", data, "--results", tmp_path / "results", "--out", file / "s"), "cannot be written (Not a directory)")
    refused(tirnas("run", "--data", data, "--tracker", "kcf", "--out", file), "cannot be written (Not a directory)")
    refused(tirnas("run", "--data", data, "--tracker", "kcf", "--out", tmp_path / "new", "--device", "foo"), "device 'foo' cannot be used here")
    assert sorted(tmp_path.rglob("*")) == before and file.read_text() == "mine\n"


def test_evaluate_repeats_what_run_noted(sequence, tmp_path):
    results = tmp_path / "results"
    assert tirnas("run", "--data", sequence.parent, "--tracker", "constant", "--out", results).returncode == 0
    common = ("evaluate", "--data", sequence.parent, "--results", results, "--out", tmp_path / "s")
    path = results / "constant" / "run.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"refused": {"walk": "small"}, "parameters": 7}))
    run = tirnas(*common)
    assert run.returncode == 0 and "constant: it could not start on walk; the first box stands" in run.stderr
    assert json.loads((tmp_path / "s" / "scores.json").read_text())["constant"]["parameters"] == 7
    for spoilt in ("{", "[]", '{"parameters": "x"}'):
        path.write_text(spoilt)
        run = tirnas(*common)
        assert run.returncode == 0 and "run.json is damaged" in run.stderr and "Traceback" not in run.stderr, run.stderr
    path.unlink()       # as with results of other programs, or of `tirnas track`
    run = tirnas(*common)
    assert run.returncode == 0 and "run.json" not in run.stderr


def test_evaluate_shows_strips_where_there_are_frames(tmp_path):
    boxes = np.array([[5 + 5 * t, 30, 12, 30] for t in range(20)], dtype=float)
    data, alone = tmp_path / "data", tmp_path / "alone"
    write_sequence(data / "far", map(walk, range(20)), boxes)
    alone.mkdir()
    (alone / "far.txt").write_text((data / "far" / "groundtruth.txt").read_text())
    assert tirnas("run", "--data", data, "--tracker", "constant", "--out", tmp_path / "results").returncode == 0
    def page(folder):
        run = tirnas("evaluate", "--data", folder, "--results", tmp_path / "results", "--out", tmp_path / "s")
        assert run.returncode == 0, run.stderr
        return (tmp_path / "s" / "report.html").read_text(), run.stderr
    heading = "Where the target was lost"
    assert heading in page(data)[0] and heading not in page(alone)[0]
    for path in (data / "far" / "img").iterdir(): path.write_bytes(b"broken")
    text, said = page(data)
    assert heading not in text and "no film strips: " in text


def test_published_scores_come_with_their_cautions(sequence, tmp_path):
    (tmp_path / "anno").mkdir()
    name = "airplane"
    for folder in ("anno", "results/mine"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{name}.txt").write_text("10,10,20,20\n" * 5)
    run = tirnas("evaluate", "--data", tmp_path / "anno", "--results", tmp_path / "results", "--out", tmp_path / "s",
                 "--benchmark", "lsotb-tir", "--published")
    assert run.returncode == 0 and "Not comparable: mine, scored on 1 sequences" in run.stdout, run.stderr
    assert "37 trackers stored in the LSOTB-TIR toolkit" in run.stdout
