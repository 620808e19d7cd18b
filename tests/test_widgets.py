"""What the widgets do in a kernel, without a browser (tests/test_browser.py has one): pictures, filters, runs, the watched search."""
import base64
import builtins
import json
import threading
import time

import cv2
import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tirnas.canvas import COLOURS, Chart, draw_box, has_size, mosaic, to_picture, write_text
from tirnas.core import TrackState, UserError, write_json
from tirnas.data.sequences import Sequence, open_sequence, read_boxes, to_file, write_boxes, write_sequence
from tirnas.playback import Step, confidence_chart, open_clip, track_steps
from tirnas.player import Player
from tirnas.track_widget import BoxDrawing, Run
from tirnas.watch import invent_candidates, invent_history
from tirnas.widgets import CompareWidget, DataBrowser, News, SearchWatcher, TrackWidget, age_text, status_html

WRITER = """
import sys
from tirnas.core import write_json
from tirnas.watch import invent_history
history = invent_history(4, toward={"skip_connect": 2.0}, speed=0.6)
for epoch in range(1, 5):
    write_json(sys.argv[1], history[:epoch])
    sys.stdin.readline()
"""
WAIT = """
import time
def wait_for(condition, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end: time.sleep(0.02)
    assert condition()
"""


def wait_for(condition, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end: time.sleep(0.02)
    assert condition()


def run_cells(folder, *cells):
    "Execute cells in a fresh kernel; the notebook, and the state of its widgets as a page would have received it."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (WAIT, *cells)])
    client = NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    try: client.execute()
    except CellExecutionError as e: pytest.fail(str(e))
    return notebook, [model["state"] for model in notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()]


def of_kind(states, kind):
    return [state for state in states if state.get("_model_name") == f"{kind}Model"]


def test_a_search_in_another_process_is_seen(tmp_path):
    "The page receives pictures, status and slider of each epoch while cells of the kernel go on running."
    (tmp_path / "write.py").write_text(WRITER)
    notebook, states = run_cells(
        tmp_path,
        f"import subprocess, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tirnas.widgets import SearchWatcher\n"
        "watcher = SearchWatcher('out/search.json', interval_s=0.05)\nwatcher",
        "wait_for(lambda: 'waiting' in watcher.status.value and 'No such file' in watcher.status.value)\nassert watcher.at.disabled",
        f"import os\nenv = {{**os.environ, 'PYTHONPATH': {str(ROOT)!r}}}\n"
        "writer = subprocess.Popen([sys.executable, 'write.py', 'out/search.json'], env=env, stdin=subprocess.PIPE, text=True)",
        "turns = 0\nfor epoch in range(1, 5):\n"
        "    while watcher.tabs.drawn != epoch:\n"
        "        turns += 1\n        time.sleep(0.01)\n        assert turns < 6000, (epoch, watcher.status.value)\n"
        "    writer.stdin.write('next\\n')\n    writer.stdin.flush()\n"
        "assert turns > 20, 'the kernel stood still while the watcher drew'",
        "assert writer.wait(60) == 0 and watcher.at.value == watcher.at.max == 3 and not watcher.at.disabled\n"
        "assert 'edges with skip_connect' in watcher.status.value and '<b>epoch 3</b>' in watcher.status.value\n"
        "latest = [picture.value for picture in watcher.tabs.children]",
        "watcher.at.value = 2\nwait_for(lambda: watcher.tabs.drawn == 3)\n"
        "assert all(now.value != then for now, then in zip(watcher.tabs.children, latest))",
        "watcher.at.value = 3\nwait_for(lambda: watcher.tabs.drawn == 4)\n"
        "assert [picture.value for picture in watcher.tabs.children] == latest",
        "watcher.close()\nassert not watcher.repeater.thread.is_alive()")
    pictures = of_kind(states, "Image")
    assert len(pictures) == 3 and of_kind(states, "Tab")[0]["titles"] == ["weights", "cells", "curves"]
    assert "<b>epoch 3</b>" in of_kind(states, "HTML")[0]["value"] and of_kind(states, "IntSlider")[0]["max"] == 3
    shown = notebook.cells[1].outputs[0]["data"]
    assert "application/vnd.jupyter.widget-view+json" in shown


@pytest.fixture
def watch(tmp_path):
    "Start watchers that are closed after the test, whatever happens."
    started = []
    def start(interval_s=0.02):
        started.append(SearchWatcher(tmp_path / "search.json", interval_s))
        return started[-1]
    yield start
    for watcher in started: watcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch ")]


def test_a_half_written_file_is_survived(tmp_path, watch):
    path, history = tmp_path / "search.json", invent_candidates(6)
    write_json(path, history[:1])
    text, watcher = path.read_text(), watch()
    for count, part in enumerate((text[:len(text) // 2], "", "{}", "[]", '[{"epoch": 0}]'), start=1):
        wait_for(lambda: watcher.tabs.drawn == count)
        path.write_text(part)
        wait_for(lambda: "<i>" + str(path) in watcher.status.value and f"<b>candidate {count - 1}</b>" in watcher.status.value)
        assert watcher.tabs.drawn == count
        write_json(path, history[:count + 1])
        wait_for(lambda: "<i></i>" in watcher.status.value and watcher.at.max == count)


def test_a_writer_that_is_not_atomic(tmp_path, watch):
    "Whatever a reader meets while a file grows, the watcher ends with the whole of it."
    path, watcher = tmp_path / "search.json", watch()
    for count in (1, 2, 3):
        text = json.dumps(invent_history(3)[:count])
        with path.open("w") as f:
            for i in range(0, len(text), len(text) // 7 + 1):
                f.write(text[i:i + len(text) // 7 + 1])
                f.flush()
                time.sleep(0.03)
    wait_for(lambda: watcher.tabs.drawn == 3 and "<i></i>" in watcher.status.value)


def test_the_slider_stays_where_it_was_put(tmp_path, watch):
    path, history = tmp_path / "search.json", invent_history(6)
    write_json(path, history[:4])
    watcher = watch()
    wait_for(lambda: watcher.tabs.drawn == 4)
    watcher.at.value = 1
    wait_for(lambda: watcher.tabs.drawn == 2)
    write_json(path, history[:5])
    wait_for(lambda: watcher.at.max == 4)
    assert watcher.at.value == 1
    watcher.at.value = 4
    wait_for(lambda: watcher.tabs.drawn == 5)
    write_json(path, history)
    wait_for(lambda: watcher.at.value == 5 and watcher.tabs.drawn == 6)


def test_a_new_search_in_the_same_file(tmp_path, watch):
    "A shorter history, then one of another strategy: slider and tabs follow."
    path = tmp_path / "search.json"
    write_json(path, invent_history(6))
    watcher = watch()
    wait_for(lambda: watcher.tabs.drawn == 6)
    write_json(path, invent_history(2, seed=5))
    wait_for(lambda: watcher.tabs.drawn == 2 and watcher.at.max == 1)
    write_json(path, invent_candidates(3))
    wait_for(lambda: watcher.tabs.titles == ("candidates", "cells") and watcher.tabs.drawn == 3)
    assert len(watcher.tabs.children) == 2 and "<b>candidate 2</b>" in watcher.status.value


def test_nothing_is_drawn_twice(tmp_path, watch):
    path = tmp_path / "search.json"
    write_json(path, invent_history(2))
    watcher, drawn = watch(0.01), []
    wait_for(lambda: watcher.tabs.drawn == 2)
    watcher.tabs.children[0].observe(drawn.append, "value")
    before = watcher.tabs.children[0].value
    time.sleep(0.3)
    assert not drawn and watcher.tabs.children[0].value is before


def test_an_unforeseen_error_is_told(tmp_path, watch, monkeypatch):
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    def broken(news): raise ZeroDivisionError("nobody foresaw this")
    monkeypatch.setattr(News, "look", broken)
    watcher = watch()
    wait_for(lambda: "stopped watching" in watcher.status.value)
    watcher.repeater.thread.join(10)
    assert not watcher.repeater.thread.is_alive() and errors


def test_news_are_read_once(tmp_path):
    path = tmp_path / "search.json"
    news = News(path)
    assert not news.look() and "waiting for it" in news.trouble
    write_json(path, invent_history(2))
    assert [news.look() for _ in range(3)] == [True, False, False] and not news.trouble
    write_json(path, invent_history(2))
    assert news.look(), "a file written anew is read anew, even if it is as long"
    path.unlink()
    assert not news.look() and len(news.history) == 2 and "waiting for it" in news.trouble


def test_names_from_a_file_are_escaped():
    record = invent_history(1)[0] | {"warnings": ["<script>alert(1)</script>"]}
    assert "<script>" not in status_html([record], 1.0) and "&lt;script&gt;" in status_html([record], 1.0)


@pytest.mark.parametrize("seconds, text", [(-3.0, "0 s"), (0.0, "0 s"), (59.4, "59 s"), (60.0, "1 min"), (3599.0, "60 min"), (3600.0, "1 h")])
def test_ages(seconds, text):
    assert age_text(seconds) == text


def test_an_interval_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="above 0"): SearchWatcher(tmp_path / "search.json", interval_s=0.0)


@pytest.fixture(scope="module")
def sequence():
    return open_sequence(ROOT / "samples" / "person_street_03")


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


class Slow:
    "A tracker that takes its time; its word is tests' own."
    pause_s = 0.02
    def init(self, frame, box_xywh): self.box = np.asarray(box_xywh, dtype=float)
    def update(self, frame):
        time.sleep(self.pause_s)
        return self.box, TrackState(0.5, "held")


class Failing(Slow):
    def update(self, frame): raise RuntimeError("no more memory")


SLOW, FAILING = (f"{__file__}:{name}" for name in ("Slow", "Failing"))


# Pictures

@pytest.mark.parametrize("box", [(3, 4, 20, 30), (0, 0, 64, 48), (40.5, 10.25, 5, 7), (60, 40, 30, 30), (-9, -9, 15, 15)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_the_line_of_a_box_lies_on_its_edge(box, scale):
    "Every coloured pixel is within two of the outline, and the whole outline inside the picture is coloured."
    picture = np.zeros((round(48 * scale), round(64 * scale), 3), np.uint8)
    draw_box(picture, box, scale, (255, 255, 255))
    y, x = np.mgrid[:picture.shape[0], :picture.shape[1]]
    left, top, right, bottom = box[0] * scale, box[1] * scale, (box[0] + box[2]) * scale, (box[1] + box[3]) * scale
    inside = np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y))
    outside = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
    off = np.where(inside >= 0, inside, outside)
    assert (off[picture.max(axis=2) > 200] <= 2.5).all()
    assert (picture.max(axis=2)[off <= 0.4] > 200).all()


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (5, 5, 0, 9), (5, 5, -3, 9), (np.nan,) * 4, (1, 1, np.inf, 5)])
def test_an_absent_target_is_not_drawn(box):
    picture = np.zeros((20, 20, 3), np.uint8)
    draw_box(picture, box, 1.0, (255, 255, 255), "target")
    assert not picture.any() and not has_size(box)


def test_boxes_far_away_are_survived():
    picture = np.zeros((20, 20, 3), np.uint8)
    for box in ((1e12, 5, 5, 5), (-1e9, -1e9, 2e9, 2e9)): draw_box(picture, box, 3.0, (255, 255, 255), "far")


@pytest.mark.parametrize("text", ["", "a", "a text much longer than the picture is wide, by far", "Ü中"])
@pytest.mark.parametrize("at", [(-50, -50), (5, 5), (500, 500)])
def test_text_stays_inside(text, at):
    picture = np.zeros((30, 60, 3), np.uint8)
    write_text(picture, text, *at, (255, 255, 255), (0, 0, 200))
    assert picture.shape == (30, 60, 3) and picture.any()


@pytest.mark.parametrize("dtype, top", [(np.uint8, 255), (np.uint16, 16383)])
def test_frames_of_any_depth_become_pictures(dtype, top):
    frame = np.linspace(0, top, 40 * 64).reshape(40, 64).astype(dtype)
    picture, scale = to_picture(frame, 128)
    assert picture.shape == (80, 128, 3) and scale == 2 and picture.dtype == np.uint8
    assert picture[-1, -1, 0] > 240 and picture[0, 0, 0] < 15 and (np.diff(picture[:, 64, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("columns, shape", [(1, (10 + 20 + 5 + 2 * 6, 30)), (2, (20 + 5 + 6, 8 + 30 + 6)), (5, (20, 8 + 30 + 7 + 12))])
def test_a_mosaic_keeps_every_pixel(columns, shape):
    parts = [np.full((h, w, 3), 40 * i + 10, np.uint8) for i, (h, w) in enumerate(((10, 8), (20, 30), (5, 7)))]
    page = mosaic(parts, columns)
    assert page.shape[:2] == shape
    for i, part in enumerate(parts): assert (page == 40 * i + 10).all(axis=2).sum() == part.shape[0] * part.shape[1]


@pytest.mark.parametrize("length", [1, 2, 500])
def test_the_cursor_stands_at_its_frame(length):
    "The only columns that differ between two moments are those around the two cursors, in order and evenly spaced."
    chart = Chart({"a": np.linspace(0, 1, length)}, "a", limits=(0, 1))
    column = lambda t: np.flatnonzero((chart.at(t)[-60] != chart.base[-60]).any(axis=1)).mean()
    where = [column(t) for t in range(0, length, max(length // 7, 1))]
    assert all(0 < w < 840 for w in where) and np.allclose(np.diff(where, 2), 0, atol=1.6)


def test_a_gap_in_a_curve_has_no_dot():
    values = np.r_[np.ones(5), np.nan, np.ones(4)]
    chart = Chart({"a": values}, "a", limits=(0, 2))
    blue = lambda t: (np.abs(chart.at(t).astype(int) - chart.colours[0]).max(axis=2) < 12).sum()
    assert blue(3) > blue(5) + 20


# Player

def test_the_player_shows_the_frame_of_its_slider():
    shades = lambda t: np.full((20, 30, 3), 10 * t, np.uint8)
    player = Player(20, shades)
    for t in (7, 19, 0):
        player.at.value = t
        assert abs(decoded(player.view.value).mean() - 10 * t) < 3 and player.counter.value == f"frame {t} / 19"
    assert player.chart is None and player.curve.layout.display == "none"


def test_the_player_is_loaded_anew():
    "A shorter video while the slider is far out, then none."
    player = Player(50, lambda t: np.zeros((5, 5, 3), np.uint8))
    player.at.value = 49
    player.load(3, lambda t: np.full((5, 5, 3), 200, np.uint8))
    assert (player.at.max, player.at.value, player.play.max) == (2, 0, 2) and decoded(player.view.value).mean() > 190
    player.load(0, None)
    assert player.controls.layout.display == "none" and player.still() is None
    player.load(1, lambda t: np.zeros((5, 5, 3), np.uint8))
    assert player.at.disabled and player.still().shape == (5, 5, 3)


def test_every_widget_leaves_a_picture(sequence):
    boxes = {"a": sequence.boxes_xywh}
    for widget in (TrackWidget(sequence), DataBrowser([sequence]), CompareWidget(sequence, boxes)):
        bundle = widget._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        picture = decoded(base64.b64decode(bundle["image/png"]))
        assert 400 < picture.shape[1] <= 860 and picture.std() > 10
        widget.close()


# Playback

def test_the_sources_of_a_clip(sequence, tmp_path):
    folder = ROOT / "samples" / sequence.name
    first = sequence.frame(0)
    for source in (sequence, folder, folder / "img", f"{folder}/img/*.jpg"):
        clip = open_clip(source)
        assert len(clip) == 84 and (clip.frame(0) == first).all()
    with pytest.raises(UserError, match="does not exist"): open_clip(tmp_path / "nothing.mp4")
    with pytest.raises(UserError, match="no frames|holds no|no images"): open_clip(tmp_path)
    with pytest.raises(UserError, match="20 sequences"): open_clip(ROOT / "samples")


def test_a_video_file_is_a_clip(sequence, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (320, 240))
    for t in range(12): writer.write(cv2.cvtColor(sequence.frame(t), cv2.COLOR_GRAY2BGR))
    writer.release()
    clip = open_clip(tmp_path / "v.avi")
    assert len(clip) == 12 and abs(clip.frame(7).astype(int) - sequence.frame(7)).mean() < 4
    assert len(list(track_steps(Slow(), clip, (10, 10, 20, 20)))) == 12


def test_the_shades_are_the_states():
    states = ["held"] * 30 + ["uncertain"] * 10 + ["lost"] * 20
    steps = [Step(np.array([1.0, 1, 5, 5]), TrackState(0.5, status)) for status in states]
    row = confidence_chart(steps).base[30].astype(int)
    chart = confidence_chart(steps)
    colour = lambda t: row[chart.pixel(t, 0)[0]]
    tint = {name: 255 - 0.25 * (255 - np.array(c)) for name, c in COLOURS.items()}
    for t, status in ((33, "uncertain"), (37, "uncertain"), (43, "lost"), (57, "lost")): assert np.allclose(colour(t), tint[status], atol=3)
    assert (colour(15) == 255).all()


# Track widget

def test_the_mouse_package_may_be_absent(sequence, monkeypatch):
    "Then there is a picture, a field for the numbers, and a sentence that says what to install."
    real = builtins.__import__
    def absent(name, *args, **kwargs):
        if name.startswith("jupyter_bbox_widget"): raise ImportError(name)
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, "__import__", absent)
    widget = TrackWidget(sequence, SLOW)
    assert widget.drawing.mouse is None and "pip install jupyter-bbox-widget" in widget.drawing.hint.value
    widget.drawing.text.value = "10,20,30,40"
    assert widget.box_xywh.tolist() == [10, 20, 30, 40] and not widget.start.disabled


@pytest.mark.parametrize("text, said", [("1,2,3", "not understood"), ("a,b,c,d", "not understood"), ("1,2,3,nan", "not understood")])
def test_text_that_is_no_box_is_told(sequence, text, said):
    drawing = BoxDrawing(sequence.frame(0))
    drawing.text.value = text
    assert said in drawing.hint.value and drawing.box_xywh is None
    drawing.text.value = "1,2,3,4"
    assert drawing.hint.value == "" and drawing.box_xywh.tolist() == [1, 2, 3, 4]


def test_a_run_is_what_the_tracker_alone_gives(sequence):
    from tirnas.tracker import Tracker
    clip = sequence.replace(frame_paths=sequence.frame_paths[:20], boxes_xywh=sequence.boxes_xywh[:20])
    widget, tracker = TrackWidget(clip, "base", box_xywh=clip.boxes_xywh[0]), Tracker.load("base")
    for _ in range(2):      # a second run starts anew
        widget.track()
        widget.wait()
        tracker.init(clip.frame(0), clip.boxes_xywh[0])
        alone = [tracker.update(clip.frame(t))[0] for t in range(1, 20)]
        assert np.allclose(widget.boxes_xywh, [clip.boxes_xywh[0], *alone], atol=1e-4)
        widget.draw_again()
    widget.close()


def test_stopping_keeps_what_there_is(sequence):
    widget = TrackWidget(sequence, SLOW, box_xywh=(10, 10, 20, 20))
    widget.track()
    wait_for(lambda: len(widget.steps) > 3)
    assert widget.running and widget.start.disabled and not widget.halt.disabled and widget.player.controls.layout.display == "none"
    widget.stop()
    kept = len(widget.steps)
    assert 3 < kept < 84 and not widget.running and widget.player.count == kept and widget.halt.disabled and not widget.again.disabled
    time.sleep(0.1)
    assert len(widget.steps) == kept and f"{kept} frames" in widget.status.value


def test_closing_ends_the_thread(sequence):
    widget = TrackWidget(sequence, SLOW, box_xywh=(10, 10, 20, 20))
    widget.track()
    thread = widget.run.thread
    widget.close()
    assert not thread.is_alive()


def test_an_error_within_a_run_is_told(sequence):
    "What was tracked before it is kept; an error at the first frame leads back to the drawing."
    widget = TrackWidget(sequence, FAILING, box_xywh=(10, 10, 20, 20))
    widget.track()
    widget.wait()
    assert len(widget.steps) == 1 and "no more memory" in widget.status.value
    broken = Sequence("broken", [ROOT / "samples" / sequence.name / "img" / "0001.jpg", ROOT / "nothing.jpg"], np.full((2, 4), np.nan))
    widget = TrackWidget(broken, SLOW, box_xywh=(10, 10, 20, 20))
    widget.track()
    widget.wait()
    assert len(widget.steps) == 1 and "nothing.jpg cannot be read" in widget.status.value and widget.player.count == 1


def test_a_run_without_a_widget_ends(sequence):
    run = Run(sequence, "no such tracker", (1, 1, 5, 5))
    run.thread.start()
    run.thread.join(30)
    assert not run.running and not run.steps and "no such tracker" in run.trouble


@pytest.mark.parametrize("origin", [0, 1])
def test_saved_boxes(sequence, tmp_path, origin):
    widget = TrackWidget(sequence, SLOW, box_xywh=(10, 10, 20, 20), origin=origin)
    with pytest.raises(UserError, match="press Track first"): widget.save(tmp_path / "boxes.txt")
    widget.track()
    wait_for(lambda: len(widget.steps) > 2)
    widget.stop()
    read = read_boxes(widget.save(tmp_path / "boxes.txt"))
    assert (read == [10 + origin, 10 + origin, 20, 20]).all() and len(read) == len(widget.steps)
    (tmp_path / "groundtruth.txt").write_text("the truth")
    widget.file.value = str(tmp_path / "groundtruth.txt")
    widget.keep.click()
    assert "give another name" in widget.note.value and (tmp_path / "groundtruth.txt").read_text() == "the truth"
    for bad in (tmp_path, tmp_path / "groundtruth.txt" / "boxes.txt"):
        with pytest.raises(UserError): widget.save(bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["boxes.txt", "groundtruth.txt"]


# Data browser

def test_the_filter_is_that_of_the_attribute_files():
    flags = {f.stem: [v.strip() == "1" for v in f.read_text().split(",")] for f in (ROOT / "samples" / "att").glob("*.txt")}
    browser = DataBrowser(ROOT / "samples")
    columns = list(browser.chips)       # in the order of the files: the samples use all twelve
    rng = np.random.default_rng(0)
    for _ in range(12):
        wanted = rng.choice(12, rng.integers(0, 4), replace=False)
        browser.want(*(columns[i] for i in wanted))
        assert [n for n, _ in browser.listed.options] == sorted(n for n, row in flags.items() if all(row[i] for i in wanted))
        for i, name in enumerate(columns):
            left = sum(row[i] for n, row in flags.items() if all(row[j] for j in wanted))
            assert browser.chips[name].description == f"{name} {left}" and browser.chips[name].disabled == (not left and i not in wanted)


def test_the_browser_draws_once_a_choice(monkeypatch):
    "Filtering does not draw what is already shown, nor the first of the list in passing."
    import tirnas.browse as browse
    drawn, strip = [], browse.strip
    monkeypatch.setattr(browse, "strip", lambda sequence: drawn.append(sequence.name) or strip(sequence))
    browser = DataBrowser(ROOT / "samples")
    browser.listed.value = browser.sequences[4]
    browser.text.value = "aerial"
    browser.text.value = ""
    assert drawn == [browser.sequences[0].name, browser.sequences[4].name] and browser.sequence is browser.sequences[4]


def test_the_browser_survives_a_broken_sequence(tmp_path):
    for name in ("a_whole", "b_broken"): write_sequence(tmp_path / name, [np.full((40, 60), 90, np.uint8)] * 3, np.array([[5.0, 5, 9, 9]] * 3))
    (tmp_path / "b_broken" / "img" / "0001.jpg").write_bytes(b"no image")
    browser = DataBrowser(tmp_path)
    browser.listed.value = browser.sequences[1]
    assert "cannot be read as an image" in browser.facts.value and browser.player.count == 0
    browser.listed.value = browser.sequences[0]
    assert "3 frames of 60 × 40 px" in browser.facts.value and browser.player.count == 3


def test_names_of_sequences_are_escaped(sequence):
    browser = DataBrowser([sequence.replace(name="<script>x<script>")])
    assert "<script>" not in browser.facts.value and "&lt;script&gt;" in browser.facts.value


# Compare widget

def test_the_overlaps_of_compared_trackers(sequence):
    "A box shifted by half its width overlaps by a third; where the target is absent there is no value."
    truth = sequence.boxes_xywh.copy()
    truth[10:20] = 0
    shifted = sequence.boxes_xywh + np.stack([sequence.boxes_xywh[:, 2] / 2, *np.zeros((3, 84))], 1)
    compare = CompareWidget(sequence.replace(boxes_xywh=truth), {"same": sequence.boxes_xywh, "half": shifted})
    assert np.isnan(compare.curves["same"][10:20]).all() and np.allclose(np.delete(compare.curves["same"], range(10, 20)), 1)
    assert np.allclose(np.delete(compare.curves["half"], range(10, 20)), 1 / 3)


@pytest.mark.parametrize("origin", [0, 1])
def test_result_files_count_as_their_benchmark(sequence, tmp_path, origin):
    sequence = sequence.replace(origin=origin)
    path = write_boxes(tmp_path / "t.txt", to_file(sequence.boxes_xywh, origin))
    assert np.nanmin(CompareWidget(sequence, {"t": path}).curves["t"]) > 0.99


@pytest.mark.parametrize("shape", [(80, 4), (84, 5), (4,), (0, 4)])
def test_boxes_of_another_length_are_refused(sequence, shape):
    with pytest.raises(UserError, match="84 frames"): CompareWidget(sequence, {"a": np.ones(shape)})


def test_the_panels_follow_the_slider(sequence):
    compare = CompareWidget(sequence, {str(i): sequence.boxes_xywh + i for i in range(5)})
    seen = set()
    for t in (0, 20, 40):
        compare.player.at.value = t
        seen.add(compare.player.view.value)
    assert len(seen) == 3 and decoded(compare.player.view.value).shape[1] <= 840
