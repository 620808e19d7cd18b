"""The widgets as a person meets them: a real JupyterLab, a real browser, a mouse. TIRNAS_SCREENSHOTS=FOLDER keeps pictures."""
import ast
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ENV, ROOT
from PIL import Image

from tirnas.core import write_json
from tirnas.data.sequences import open_dataset
from tirnas.watch import invent_history

try: from playwright.sync_api import expect, sync_playwright
except ImportError: sync_playwright = None
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LAB = shutil.which("jupyter-lab", path=ENV["PATH"])
pytestmark = pytest.mark.skipif(not (sync_playwright and CHROMIUM and LAB), reason="needs a browser: "
                                "pip install -e '.[dev,browser]' -c constraints.txt, and Chromium (Debian: apt install chromium)")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
WAIT_MS = 120_000
SEQUENCE = "person_aerial_13"
CELLS = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport numpy as np\n"
    "from tirnas.data.sequences import open_dataset\nfrom tirnas.widgets import *\n"
    f"data = open_dataset({str(ROOT / 'samples')!r})\nsequence = next(s for s in data if s.name == {SEQUENCE!r})",
    "track = TrackWidget(sequence, 'base')\ntrack",
    "browser = DataBrowser(data)\nbrowser",
    "boxes = {name: sequence.boxes_xywh + [i, 2 * i, 0, 0] for i, name in enumerate(('near', 'far'), 1)}\n"
    "compare = CompareWidget(sequence, boxes)\ncompare",
    "watcher = SearchWatcher('search.json', interval_s=0.2)\nwatcher",
    "long = sequence.replace(frame_paths=sequence.frame_paths * 40, boxes_xywh=np.tile(sequence.boxes_xywh, (40, 1)))\n"
    "stopped = TrackWidget(long, 'base', box_xywh=sequence.boxes_xywh[0])\nstopped")
TRACK, BROWSE, COMPARE, WATCH, STOP = range(1, 6)


def wait_for(condition, limit_s=120.0):
    "Wait until `condition()` is true, and give what it gave."
    end = time.monotonic() + limit_s
    while not (got := condition()) and time.monotonic() < end: time.sleep(0.05)
    assert got
    return got


def own_folders(home: Path) -> dict[str, str]:
    "An environment in which Jupyter and IPython find and leave everything below `home`."
    names = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython",
             "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "HOME": "home"}
    for folder in names.values(): (home / folder).mkdir(parents=True)
    settings = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
                "notebook-extension/tracker": {"windowingMode": "none"}}
    for name, values in settings.items(): write_json(home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings", values)
    return {**ENV, **{name: str(home / folder) for name, folder in names.items()}, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "A JupyterLab on this machine alone with one notebook of all widgets: its address, its folder, its runtime folder."
    home, work = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("work")
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), work / "widgets.ipynb")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    options = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": work, "open_browser": False, "allow_root": True}
    command = [LAB, "--IdentityProvider.token=", *(f"--ServerApp.{k}={v}" for k, v in options.items())]
    with (home / "log").open("w") as log: process = subprocess.Popen(command, env=own_folders(home), cwd=work, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/api/status") or process.poll() is not None)
        assert process.poll() is None, (home / "log").read_text()
        yield address, work, home / "runtime"
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try: return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError: return False


@pytest.fixture(scope="module")
def page(server):
    "The notebook in a browser window of 1280 x 1000, all cells run."
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        page.goto(f"{server[0]}/lab/tree/widgets.ipynb")
        expect(page.locator(".jp-CodeCell")).to_have_count(len(CELLS))
        expect(page.get_by_text("| Idle")).to_be_visible()      # in the status bar: only now is there a kernel to run cells
        page.locator(".lm-MenuBar-item", has_text="Run").click()
        page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        expect(output(page, STOP).locator(".widget-vbox").first).to_be_visible()
        yield page
        browser.close()


@pytest.fixture(scope="module")
def ask(server, page):
    "A function that evaluates an expression in the page's kernel, by a client of its own."
    from jupyter_client import BlockingKernelClient
    client = BlockingKernelClient(connection_file=str(next(server[2].glob("kernel-*.json"))))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    def ask(expression: str):
        reply = client.execute_interactive("", user_expressions={"v": expression}, store_history=False, timeout=60)
        value = reply["content"]["user_expressions"]["v"]
        assert value["status"] == "ok", value
        return ast.literal_eval(value["data"]["text/plain"])
    yield ask
    client.stop_channels()


def output(page, cell: int):
    return page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea").first


def picture_of(widget, nth: int = 0) -> str:
    "The address of a widget's picture, which changes with the picture."
    return widget.locator("img:visible").nth(nth).get_attribute("src")


def keep_picture(widget, name: str) -> None:
    "Keep a screenshot where TIRNAS_SCREENSHOTS names a folder; docs/widget.png is one of them."
    if folder := os.environ.get("TIRNAS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(widget.screenshot())).convert("RGB").save(f"{folder}/{name}.png", optimize=True)


def frame_at(widget) -> int:
    "The number in a player's frame counter."
    return int(re.search(r"frame (\d+) /", widget.locator(".widget-label", has_text="frame").inner_text())[1])


def drag(page, area, start_xy, end_xy) -> None:
    "Drag the mouse from one point of an area to another, in its own pixels."
    place = area.bounding_box()
    points = [(place["x"] + x, place["y"] + y) for x, y in (start_xy, end_xy)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=8)
    page.mouse.up()


def draw(page, widget, box_xywh) -> None:
    "Draw a box of frame pixels with the mouse."
    area = widget.locator("svg").first
    area.scroll_into_view_if_needed()
    scale, (x, y, w, h) = area.bounding_box()["width"] / 320, box_xywh
    drag(page, area, (x * scale, y * scale), ((x + w) * scale, (y + h) * scale))


def test_a_drawn_box_is_tracked(page, ask, server):
    "What the mouse drew is what the kernel tracks, and the player shows it."
    from tirnas.tracker import Tracker
    widget, sequence = output(page, TRACK), next(s for s in open_dataset(ROOT / "samples") if s.name == SEQUENCE)
    expect(widget.get_by_role("button", name="Track")).to_be_disabled()
    draw(page, widget, (150, 60, 40, 50))
    wait_for(lambda: ask("track.box_xywh is not None"))
    draw(page, widget, (116, 78, 25, 62))
    box = wait_for(lambda: (b := ask("track.box_xywh.tolist()"))[0] < 140 and b)
    assert np.abs(np.subtract(box, (116, 78, 25, 62))).max() <= 2 and ask("len(track.drawing.mouse.bboxes)") == 1
    assert np.allclose([float(v) for v in widget.locator("input:visible").input_value().split(",")], box, atol=0.06)
    keep_picture(widget, "track_draw")
    widget.get_by_role("button", name="Track").click()
    expect(widget.get_by_text("frame 0 / 83")).to_be_visible()
    tracker = Tracker.load("base")
    tracker.init(sequence.frame(0), box)
    alone = [tracker.update(sequence.frame(t))[0] for t in range(1, 84)]
    assert np.allclose(ask("track.boxes_xywh.tolist()"), [box, *alone], atol=1e-3)


def test_the_video_plays(page, ask):
    "The play button moves counter, picture and cursor, and the boxes are saved."
    widget = output(page, TRACK)
    before = picture_of(widget, 0), picture_of(widget, 1)
    widget.locator(".widget-play button").first.click()
    wait_for(lambda: frame_at(widget) > 5)
    widget.locator(".widget-play button").first.click()
    assert picture_of(widget, 0) != before[0] and picture_of(widget, 1) != before[1]
    wait_for(lambda: ask("track.player.at.value") == frame_at(widget))
    keep_picture(widget, "track_play")


def test_boxes_are_saved(page, ask, server):
    widget = output(page, TRACK)
    widget.get_by_role("button", name="Save boxes").click()
    expect(widget.get_by_text("84 boxes, counted from 0")).to_be_visible()
    assert np.allclose(np.loadtxt(server[1] / "boxes.txt", delimiter=","), ask("track.boxes_xywh.tolist()"), atol=1e-3)


def test_a_run_is_stopped(page, ask):
    "The kernel answers while the run goes on, and what was tracked is kept."
    widget = output(page, STOP)
    widget.get_by_role("button", name="Track").click()
    wait_for(lambda: 0 < ask("len(stopped.steps)") < 3300)
    expect(widget.get_by_text("frames/s")).to_be_visible()
    widget.get_by_role("button", name="Stop").click()
    expect(widget.get_by_text("frame 0 /")).to_be_visible()
    assert 0 < ask("len(stopped.steps)") < 3360 and not ask("stopped.run.thread.is_alive()")
    widget.get_by_role("button", name="Draw again").click()
    expect(widget.locator("svg").first).to_be_visible()


def test_a_data_set_is_filtered(page, ask):
    "Two attributes leave the sequences whose files have both."
    widget, columns = output(page, BROWSE), (1, 6)      # occlusion, fast motion: second and seventh number of an attribute file
    flags = {file.stem: file.read_text().split(",") for file in (ROOT / "samples" / "att").glob("*.txt")}
    wanted = sorted(name for name, row in flags.items() if all(row[i].strip() == "1" for i in columns))
    for name in ("occlusion", "fast motion"): widget.get_by_role("button", name=re.compile(f"^{name} ")).click()
    wait_for(lambda: sorted(widget.locator("option").all_inner_texts()) == wanted)
    expect(widget.get_by_text(f"{len(wanted)} of 20 sequences")).to_be_visible()
    before = picture_of(widget, 1)
    widget.locator("select").select_option(wanted[-1])
    expect(widget.locator("b", has_text=wanted[-1])).to_be_visible()
    wait_for(lambda: picture_of(widget, 1) != before)
    assert ask("browser.sequence.name") == wanted[-1]
    keep_picture(widget, "browse")


def test_trackers_are_compared(page, ask):
    "The slider follows keys and mouse, and so do the pictures."
    widget = output(page, COMPARE)
    before, handle = picture_of(widget), widget.locator(".noUi-handle")
    handle.focus()
    for _ in range(10): page.keyboard.press("ArrowRight")
    wait_for(lambda: frame_at(widget) == 10 == ask("compare.player.at.value") and picture_of(widget) != before)
    drag(page, handle, (8, 8), (300, 8))
    wait_for(lambda: frame_at(widget) > 25 and ask("compare.player.at.value") == frame_at(widget))
    keep_picture(widget, "compare")


def test_a_search_is_watched(page, server):
    "The history grows in the file, and on the page."
    widget, history = output(page, WATCH), invent_history(6, toward={"skip_connect": 2.0})
    expect(widget.get_by_text("waiting for the first record")).to_be_visible()
    write_json(server[1] / "search.json", history[:3])
    expect(widget.get_by_text("epoch 2")).to_be_visible()
    expect(widget.locator(".noUi-handle")).to_have_attribute("aria-valuemax", "2.0")
    before = picture_of(widget)
    write_json(server[1] / "search.json", history)
    expect(widget.get_by_text("epoch 5")).to_be_visible()
    expect(widget.locator(".noUi-handle")).to_have_attribute("aria-valuemax", "5.0")
    wait_for(lambda: picture_of(widget) != before)
    widget.locator(".lm-TabBar-tab", has_text="cells").click()
    wait_for(lambda: widget.locator("img:visible").count() == 1)
    keep_picture(widget, "search")


@pytest.mark.parametrize("cell", (TRACK, BROWSE, COMPARE, WATCH))
def test_nothing_leaves_the_page(page, cell):
    "In a window of 1280 px with the file list open, every picture, button and text ends within the output."
    ends = "o => [...o.querySelectorAll('img, button, input, select, span, .widget-label')].map(e => e.getBoundingClientRect()).filter(r => r.width).map(r => r.right)"
    widget = output(page, cell)
    place = widget.bounding_box()
    assert max(widget.evaluate(ends)) <= place["x"] + place["width"] + 1


def test_a_saved_notebook_keeps_pictures(page, server):
    "What a page without kernel can show is in the file: the still of each widget that had one when it was displayed."
    page.locator(".jp-Notebook").focus()
    page.keyboard.press("Control+s")
    def kinds():
        try: cells = json.loads((server[1] / "widgets.ipynb").read_text())["cells"]
        except json.JSONDecodeError: return []      # it is just being written
        return [set().union(*(o.get("data", {}) for o in c["outputs"])) for c in cells]
    kept = wait_for(lambda: (k := kinds()) and all(k[1:]) and k)
    assert all("image/png" in kept[cell] for cell in (TRACK, BROWSE, COMPARE, STOP))
