"""The window under a display of its own (Xvfb): what it shows, what the mouse draws, how it ends a track."""
import itertools
import multiprocessing
import os
import shutil
import struct
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import ENV, ROOT
from test_cli import model, sequence, walk  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from tirnas.cli import app
from tirnas.core import UserError
from tirnas.data.sequences import read_boxes
from tirnas.window import Window, ask_box

SCREEN = (600, 800)


@pytest.fixture
def screen(tmp_path, monkeypatch):
    "A display that nobody sees: the file that holds what is on it."
    pytest.importorskip("tkinter", reason="needs Tk: apt install python3-tk")
    if not shutil.which("Xvfb"): pytest.skip("needs Xvfb: apt install xvfb")
    ours, theirs = os.pipe()
    words = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", f"{SCREEN[1]}x{SCREEN[0]}x24", "-fbdir", str(tmp_path), "-nolisten", "tcp"]
    server = subprocess.Popen(words, pass_fds=[theirs], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(theirs)
    with os.fdopen(ours) as said: monkeypatch.setenv("DISPLAY", f":{said.readline().strip()}")
    yield tmp_path / "Xvfb_screen0"
    server.terminate()
    server.wait(20)


def look(screen):
    "What is on the display, (H, W, 3) in OpenCV's channel order, from an XWD file: a header, colours of 12 bytes, pixels."
    data = screen.read_bytes()
    header = struct.unpack(">25I", data[:100])
    pixels = np.frombuffer(data, np.uint8, offset=header[0] + 12 * header[19])
    return np.ascontiguousarray(pixels[:SCREEN[0] * header[12]].reshape(SCREEN[0], -1, 4)[:, :SCREEN[1], :3])


def apart(call, *words):
    "What a call returns in a process of its own: Xlib ends the process that once used a display which is gone."
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool: return pool.submit(call, *words).result(120)


def wait_for(condition, seconds=30):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)
    return found


def show_two(screen, pictures):
    window = Window("a title")
    kept = [window.show(picture) for picture in pictures]
    def there():
        window.root.update()
        return cv2.matchTemplate(look(screen), np.ascontiguousarray(pictures[-1]), cv2.TM_SQDIFF).min() < 1
    wait_for(there)
    window.close()
    window.close()
    return [*kept, window.show(pictures[0])]


def test_the_window_shows_the_picture(screen):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert apart(show_two, screen, [picture, picture[::-1]]) == [True, True, False]


def drag_twice():
    frames = iter([np.zeros((60, 80), np.uint8)] * 3)
    enlarged = lambda frame: cv2.resize(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), None, fx=2, fy=2)
    window = Window()
    def drag(*ends):
        for event, (x, y) in zip(("<ButtonPress-1>", "<B1-Motion>", "<ButtonRelease-1>"), (ends[0], ends[1], ends[1])):
            window.canvas.event_generate(event, x=x, y=y)
    window.root.after(100, drag, (10, 10), (12, 60))
    window.root.after(200, drag, (110, 90), (30, 20))
    frame, box = ask_box(window, frames, enlarged, moving=False)
    window.root.after(100, window.close)
    return frame.shape, box, ask_box(window, frames, enlarged, moving=False)


def test_a_small_drag_is_no_box_and_a_closed_window_none(screen):
    assert apart(drag_twice) == ((60, 80), (15, 10, 40, 35), None)


def track_until_escape(*words):
    shows, count = Window.show, itertools.count(1)
    def show_and_press(window, picture):
        still = shows(window, picture)
        if next(count) < 4 or not still: return still
        window.root.focus_force()
        window.root.update()
        window.root.event_generate("<Escape>")
        return window.is_open
    Window.show = show_and_press
    run = CliRunner().invoke(app, list(map(str, words)))
    return run.exit_code, run.output


def test_escape_ends_a_track_and_keeps_it(screen, sequence, model, tmp_path):
    code, said = apart(track_until_escape, "track", sequence / "img", "--box", "21,31,12,30", "--model", model, "--show", "--out", tmp_path / "b.txt")
    kept = len(read_boxes(tmp_path / "b.txt"))
    assert code == 0 and 4 <= kept < 10 and f"stopped; the {kept} frames so far are kept" in said, said


def test_the_first_box_is_drawn_with_the_mouse(screen, sequence, model, tmp_path):
    "The whole program, and a mouse that another program moves."
    if not shutil.which("xdotool"): pytest.skip("needs xdotool: apt install xdotool")
    mouse = lambda *words: subprocess.run(["xdotool", *map(str, words)], env=ENV | {"DISPLAY": os.environ["DISPLAY"]}, text=True, capture_output=True).stdout.split()
    words = ["tirnas", "track", sequence / "img", "--model", model, "--out", tmp_path / "b.txt", "--video", tmp_path / "t.avi"]
    run = subprocess.Popen(list(map(str, words)), cwd=ROOT, env=ENV | {"DISPLAY": os.environ["DISPLAY"]}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: mouse("search", "--name", "draw a box") and look(screen).max() > 100)
    seen = look(screen)[..., 0]
    top, left = (int(v.min()) for v in np.nonzero(seen > 60))
    times = 3       # 120 px wide frames are shown three times as large
    for action in (("mousemove", left + 20 * times, top + 30 * times), ("mousedown", 1), ("mousemove", left + 26 * times, top + 40 * times),
                   ("mousemove", left + 32 * times, top + 60 * times), ("mouseup", 1)):
        mouse(*action)
        time.sleep(0.1)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0 and "10 frames" in out, err
    np.testing.assert_allclose(read_boxes(tmp_path / "b.txt")[0], (20, 30, 12, 30), atol=0.5)


def test_without_a_display_there_is_a_reason(monkeypatch):
    pytest.importorskip("tkinter", reason="needs Tk: apt install python3-tk")
    monkeypatch.setenv("DISPLAY", ":97")
    with pytest.raises(UserError, match="no window can be shown"): Window()
