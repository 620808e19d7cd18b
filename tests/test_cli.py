"""The command as a shell runs it: exit code 2 and one sentence for bad input, whole files for good."""
import functools
import http.server
import json
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import cv2
import numpy as np
import pytest
from conftest import ENV, ROOT, shell
from nursery import forked, run_tirnas
from safetensors import safe_open
from typer.testing import CliRunner

from tirnas.cli import app
from tirnas.core import UserError
from tirnas.data.sequences import read_boxes, write_sequence
from tirnas.dimp.card import ModelCard, save_model
from tirnas.dimp.net import HeadSettings
from tirnas.film import Film
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
    return forked(run_tirnas, *map(str, words), cwd=cwd, env=ENV)


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


BOX = ("--box", "21,31,12,30")


def film_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (got := capture.read())[0]: frames.append(got[1])
    return frames


@pytest.mark.parametrize("number, content, part", [
    (5, b"broken", "0005.jpg cannot be read"), (7, cv2.imencode(".jpg", np.zeros((50, 60), np.uint8))[1].tobytes(), "the size in px changes")])
def test_what_was_tracked_before_a_broken_frame_is_kept(sequence, model, tmp_path, number, content, part):
    (sequence / "img" / f"{number:04d}.jpg").write_bytes(content)
    out, film, record = tmp_path / "boxes.txt", tmp_path / "t.avi", tmp_path / "r.json"
    run = tirnas("track", sequence / "img", *BOX, "--model", model, "--out", out, "--video", film, "--json", record)
    refused(run, part, f"breaks at frame {number - 1}, counted from 0", f"the {number - 1} frames before it are in {out}")
    told = json.loads(record.read_text())
    assert len(read_boxes(out)) == len(film_of(film)) == len(told["frames"]) == number - 1 and told["summary"]["ended"] == "broken"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_broken_first_frame_leaves_nothing(sequence, model, tmp_path):
    (sequence / "img" / "0001.jpg").write_bytes(b"broken")
    out = tmp_path / "boxes.txt"
    out.write_text("mine\n")
    before = sorted(tmp_path.rglob("*"))
    refused(tirnas("track", sequence / "img", *BOX, "--model", model, "--out", out, "--video", tmp_path / "t.webm"), "0001.jpg cannot be read")
    assert out.read_text() == "mine\n" and sorted(tmp_path.rglob("*")) == before


def test_film_and_record_of_deep_frames(model, tmp_path):
    "14-bit counts of an odd size: as many pictures as frames, lit, with a coloured box where the boxes say."
    counts = [7900 + 2 * np.random.default_rng(t).normal(90, 4, (91, 121)) for t in range(12)]
    for t, frame in enumerate(counts): frame[30:60, 20 + 2 * t:32 + 2 * t] += 160
    truth = np.array([[20 + 2 * t, 30, 12, 30] for t in range(12)], dtype=float)
    write_sequence(tmp_path / "deep", [c.astype(np.uint16) for c in counts], truth)
    run = tirnas("track", tmp_path / "deep" / "img", "--box", "20,30,12,30", "--model", model, "--out", tmp_path / "b.txt",
                 "--video", tmp_path / "new" / "t.webm", "--json", tmp_path / "r.json")
    assert run.returncode == 0 and "film in" in run.stdout and "FFMPEG" not in run.stderr, run.stderr
    pictures, told, boxes = film_of(tmp_path / "new" / "t.webm"), json.loads((tmp_path / "r.json").read_text()), read_boxes(tmp_path / "b.txt")
    assert len(pictures) == len(boxes) == len(told["frames"]) == 12
    assert told["summary"]["model"] == str(model) and told["summary"]["engine"] == "torch" and told["summary"]["fps"] > 0
    assert told["frames"][0]["confidence"] is None and all(0 <= f["confidence"] <= 1 for f in told["frames"][1:])
    assert {f["status"] for f in told["frames"]} <= {"given", "held", "uncertain", "lost"}
    np.testing.assert_allclose([f["box_xywh"] for f in told["frames"]], boxes, atol=1e-4)
    assert 20 < np.median(pictures[6]) < 160 and all(side % 2 == 0 for side in pictures[6].shape[:2])
    times = 3       # 121 px are too few to see a text in
    for picture, (x, y, w, h), frame in zip(pictures[1:], boxes[1:], told["frames"][1:]):
        colour = np.ptp(picture.astype(int), axis=2) > 60
        row = int((y + h / 2) * times)
        columns = np.flatnonzero(colour[row]) if 0 <= row < len(colour) else []
        sides = [side for side in (x * times, (x + w) * times) if 4 < side < picture.shape[1] - 4]
        assert all(np.abs(columns - side).min() < 4 for side in sides), frame


def long_walk(folder, count):
    (folder / "img").mkdir(parents=True)
    for t in range(count): cv2.imwrite(str(folder / "img" / f"{t + 1:05d}.jpg"), walk(t % 10))
    return folder / "img"


def test_ctrl_c_keeps_boxes_film_and_record(model, tmp_path):
    words = ["tirnas", "track", long_walk(tmp_path / "long", 3000), *BOX, "--model", model, "--out", tmp_path / "b.txt",
             "--video", tmp_path / "t.avi", "--json", tmp_path / "r.json"]
    run = subprocess.Popen(list(map(str, words)), cwd=ROOT, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (film := tmp_path / ".t.partial.avi").exists() or film.stat().st_size < 20000:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    kept = len(read_boxes(tmp_path / "b.txt"))
    assert run.returncode == 130 and f"stopped; the {kept} frames so far are kept" in err and "Traceback" not in err, err
    assert 0 < kept < 3000 and kept == len(film_of(tmp_path / "t.avi")) == len(json.loads((tmp_path / "r.json").read_text())["frames"])


PAGE = """<video id=v muted src="{}"></video><script>
const tell = text => fetch("/told?" + encodeURIComponent(text));
v.onended = () => tell("played " + v.videoWidth + "x" + v.videoHeight + " to " + v.currentTime.toFixed(2));
v.onerror = () => tell("error " + v.error.message); v.play();</script>"""


@pytest.fixture
def told_by_browser(tmp_path):
    "A function that opens a page of `tmp_path` in Chromium and returns what the page fetches from /told?."
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium: pytest.skip("needs Chromium: apt install chromium")
    heard = queue.Queue()
    class Files(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/told?"): return super().do_GET()
            heard.put(urllib.parse.unquote(self.path.partition("?")[2]))
            self.send_error(404)
        def log_message(self, *words): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--no-proxy-server",
             f"--user-data-dir={tmp_path}/home", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
    opened = []
    def ask(name):
        opened.append(subprocess.Popen([*words, f"http://127.0.0.1:{server.server_port}/{name}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return heard.get(timeout=60)
    yield ask
    for browser in opened: browser.terminate(); browser.wait(20)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("suffix", (".webm", ".mp4"))
def test_a_browser_plays_the_film(tmp_path, told_by_browser, suffix):
    film = Film(tmp_path / f"t{suffix}", fps=25)
    for t in range(10): film.add(cv2.cvtColor(walk(t), cv2.COLOR_GRAY2BGR))
    film.close()
    (tmp_path / "page.html").write_text(PAGE.format(film.path.name))
    assert re.fullmatch(r"played 120x90 to 0\.(3|4)\d", said := told_by_browser("page.html")), said


def test_track_refuses_before_anything_is_read(sequence, model, tmp_path):
    common = ("track", sequence / "img", *BOX, "--model", model, "--out", tmp_path / "b.txt")
    refused(tirnas(*common, "--video", tmp_path / "t.mov"), "names no format", ".webm (VP8)")
    refused(tirnas(*common, "--json", tmp_path / "b.txt"), "--out and --json are both")
    refused(tirnas(*common, "--engine", "caffe"), "engine 'caffe' is unknown: give one of torch, onnx")
    refused(tirnas("track", "97", *BOX, "--model", model), "there is no such camera")
    assert not (tmp_path / "b.txt").exists()


def test_onnx_says_what_it_lacks():
    code = "import sys; sys.modules['onnxruntime'] = None; from tirnas.follow import load_tracker; load_tracker('base', 'onnx')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, text=True, capture_output=True)
    assert "UserError: tracking with ONNX graphs needs onnxruntime, which is not installed: pip install 'tirnas[deploy]'" in run.stderr


def test_without_torch_a_command_says_so():
    code = "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['models']; from tirnas.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, text=True, capture_output=True)
    refused(run, "this command needs the module torch", "`tirnas doctor`")


def test_a_camera_without_a_display_is_filmed(model, tmp_path, monkeypatch):
    "There is no camera here: frames stand in for it, from the place on where a camera's frames would come."
    monkeypatch.setattr("tirnas.data.sequences.open_source", lambda source: (map(walk, range(6)), None))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["track", "0", *BOX, "--model", str(model)])
    assert run.exit_code == 0 and "no window can be shown" in run.stderr and "film in track.webm" in run.stdout, run.output
    assert len(read_boxes(tmp_path / "boxes.txt")) == 6 and film_of(tmp_path / "track.webm")
    run = CliRunner().invoke(app, ["track", "0", "--model", str(model), "--out", "other.txt"])
    assert str(run.exception).startswith("--box is missing") and "no window can be shown" in str(run.exception) and not (tmp_path / "other.txt").exists()


def test_bad_data(sequence, tmp_path):
    results = tmp_path / "results"
    refused(tirnas("run", "--data", tmp_path / "no", "--tracker", "constant", "--out", results), "no does not exist: give the folder that holds the sequences")
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


def asked(*words):
    "What a command prints, run within this process, where torch is loaded already; mistakes are raised."
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False).stdout


def test_bad_genotypes(model, tmp_path):
    path = tmp_path / "g.json"
    for content, part in ((b"{}", "g.json"), (bytes(range(256)), "is no genotype, as it is not even text"), (None, "cannot be read")):
        path.unlink(missing_ok=True)
        if content is not None: path.write_bytes(content)
        with pytest.raises(UserError, match=part): asked("cost", path)
    with pytest.raises(UserError, match="is a model, not a genotype"): asked("cost", model)
    refused(tirnas("cost", path), "g.json cannot be read")


def test_models_and_cost_count_the_same_backbone(tmp_path):
    records = json.loads(asked("models", "--json"))
    for record in records:
        with safe_open(record["file"], framework="np") as f:
            sizes = {name: f.get_tensor(name).size for name in f.keys() if "running_" not in name}
        assert record["parameters"] == sum(sizes.values())
        assert record["backbone_parameters"] == sum(size for name, size in sizes.items() if name.startswith("backbone."))
    lines = asked("models").splitlines()
    assert "backbone" in lines[0] and "`tirnas cost` counts the backbone" in lines[-1]
    path = tmp_path / "g.json"
    path.write_text(random_genotype("dual", 1).to_json())
    told = asked("cost", path, "--cells", 3, "--channels", 4, "--stem-stride", 4, "--input", 64)
    assert "the backbone alone, with 3 cells, 4 channels, stem stride 4" in told and "`tirnas models`" in told


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
    refused(tirnas("data", "check", tmp_path / "none"), "none does not exist")
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


def test_data_list_of_a_detection_set_is_by_image(tmp_path):
    (tmp_path / "images").mkdir()
    for k in (1, 2, 3): cv2.imwrite(str(tmp_path / "images" / f"{k}.jpg"), walk(k))
    objects = [{"id": n, "image_id": k, "category_id": 1, "bbox": [5 + 2 * n, 9, 12, 30], "iscrowd": 0} for n, k in enumerate([1] * 7 + [2] * 3)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": [{"id": k, "file_name": f"{k}.jpg", "width": 120, "height": 90} for k in (1, 2, 3)],
                                                    "annotations": objects, "categories": [{"id": 1, "name": "person"}]}))
    run = tirnas("data", "list", tmp_path)
    lines = run.stdout.splitlines()
    assert run.returncode == 0 and len(lines) == 4 and lines[-1] == "10 objects on 2 images, layout coco", run.stdout + run.stderr
    assert lines[1].split() == ["images/1.jpg", "7", "120x90", "7", "person"]
    told = json.loads(asked("data", "list", tmp_path, "--json"))
    assert [i["objects"] for i in told["images"]] == [7, 3] and told["layouts"] == ["coco"] and told["sequences"] == []


def test_evaluate_in_short(sequence, tmp_path):
    common = ("--data", sequence.parent, "--out")
    assert tirnas("run", *common, tmp_path / "results", "--tracker", "constant").returncode == 0
    run = tirnas("evaluate", *common, tmp_path / "s", "--results", tmp_path / "results", "--json")
    told, scores = json.loads(run.stdout), json.loads((tmp_path / "s" / "scores.json").read_text())
    assert told["benchmark"] == "simtir" and told["protocol"] == "official" and "fewer than 20 frames" in told["remarks"][0]
    for number in ("success", "precision", "norm_precision"): assert told["trackers"]["constant"][number] == pytest.approx(scores["constant"][number])


@pytest.mark.parametrize("words, part", [
    (("track",), "missing argument"), (("trak",), "no such command 'trak'"), (("run", "--data", "."), "missing option"),
    (("track", "x", "--origin", "2"), "--origin"), (("simulate", "x", "--frames", "many"), "--frames")])
def test_mistakes_in_the_call_are_one_sentence(words, part):
    run = tirnas(*words)
    refused(run, part, " --help`")
    assert len(run.stderr.splitlines()) == 1 and not run.stdout


def test_version_and_the_module(tmp_path):
    import tirnas as package
    run = shell("tirnas", "--version", cwd=ROOT)
    assert run.stdout.startswith(f"tirnas {package.__version__}, Python ")
    module = subprocess.run([sys.executable, "-m", "tirnas", "--version"], cwd=ROOT, env=ENV, text=True, capture_output=True)
    assert module.stdout == run.stdout and module.returncode == 0


def test_completion_in_bash(tmp_path):
    "The script that `--show-completion` prints, loaded and asked as bash asks it."
    if not shutil.which("bash"): pytest.skip("needs bash")
    asked = 'COMP_WORDS=(tirnas {}); COMP_CWORD={}; _tirnas_completion tirnas; echo "${{COMPREPLY[@]}}"\n'
    script = 'eval "$(_TIRNAS_COMPLETE=source_bash tirnas)"\n' + asked.format("eva", 1) + asked.format("track --model ''", 3) + asked.format("data ''", 2)
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=ENV, text=True, capture_output=True)
    words = [line.split() for line in run.stdout.splitlines()]
    assert words[0] == ["evaluate"] and {"base", "mini"} <= set(words[1]) and set(words[2]) == {"list", "check"}, run.stderr


def test_a_reader_that_goes_away(tmp_path):
    run = subprocess.run(["bash", "-c", "tirnas data list samples | head -1; echo ${PIPESTATUS[0]}"], cwd=ROOT, env=ENV, text=True, capture_output=True)
    assert run.stdout.splitlines()[0].startswith("sequence") and "Traceback" not in run.stderr and run.stdout.splitlines()[1] in "01"


def test_doctor_finds_what_is_wrong():
    run = tirnas("doctor", "--json")
    found = {(f["group"], f["name"]): f for f in json.loads(run.stdout)["findings"]}
    assert run.returncode == 0 and found["packages", "numpy"]["found"] == np.__version__ and found["OpenCV", "version"]["found"] == cv2.__version__
    assert found["OpenCV", "CSRT"]["state"] == ("ok" if hasattr(cv2, "TrackerCSRT_create") else "wrong")
    for (group, name), f in found.items():
        if group == "extras" and f["state"] == "optional": assert f"[{name}]'" in f["remedy"] and f["remedy"].startswith("pip install ")
    ill = subprocess.run(["tirnas", "doctor"], cwd=ROOT, env=ENV | {"TIRNAS_THREADS": "all"}, text=True, capture_output=True)
    assert ill.returncode == 1 and "TIRNAS_THREADS is 'all': give a whole number" in ill.stdout and "Traceback" not in ill.stderr


def test_bench_counts_what_it_says(model):
    told = json.loads(asked("bench", "--model", model, "--frames", 10, "--rounds", 2, "--json"))
    assert len(told["fps_of_rounds"]) == 2 and told["frames"] == 10 and "thread" in told["threads"]
    assert min(told["fps_of_rounds"]) <= told["fps"] <= max(told["fps_of_rounds"])
    assert sum(part["ms"] for part in told["parts"]) > 0 and told["parts"][0]["part"] == "backbone"
