"""The command as a shell runs it: exit code 2 and one sentence for bad input, whole files for good."""
import cv2
import numpy as np
import pytest
from conftest import ROOT, shell

from tirnas.data.sequences import read_boxes, write_sequence
from tirnas.dimp.net import HeadSettings, ModelCard, save_model
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
    refused(tirnas("run", "--data", sequence.parent, "--tracker", "constant", "--out", results), "has 9 frames but 10 boxes")
    refused(tirnas("run", "--data", sequence.parent, "--tracker", "no-such", "--out", results), "9 frames")


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
