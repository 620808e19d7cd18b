"""The watcher of a search, in a real kernel beside a real process that writes the history."""
import json
import threading
import time

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tirnas.core import UserError, write_json
from tirnas.watch import invent_candidates, invent_history
from tirnas.widgets import News, SearchWatcher, age_text, status_html

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
        "    while watcher.drawn != epoch:\n"
        "        turns += 1\n        time.sleep(0.01)\n        assert turns < 6000, (epoch, watcher.status.value)\n"
        "    writer.stdin.write('next\\n')\n    writer.stdin.flush()\n"
        "assert turns > 20, 'the kernel stood still while the watcher drew'",
        "assert writer.wait(60) == 0 and watcher.at.value == watcher.at.max == 3 and not watcher.at.disabled\n"
        "assert 'edges with skip_connect' in watcher.status.value and '<b>epoch 3</b>' in watcher.status.value\n"
        "latest = [picture.value for picture in watcher.tabs.children]",
        "watcher.at.value = 2\nwait_for(lambda: watcher.drawn == 3)\n"
        "assert all(now.value != then for now, then in zip(watcher.tabs.children, latest))",
        "watcher.at.value = 3\nwait_for(lambda: watcher.drawn == 4)\n"
        "assert [picture.value for picture in watcher.tabs.children] == latest",
        "watcher.close()\nassert not watcher.thread.is_alive()")
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
        wait_for(lambda: watcher.drawn == count)
        path.write_text(part)
        wait_for(lambda: "<i>" + str(path) in watcher.status.value and f"<b>candidate {count - 1}</b>" in watcher.status.value)
        assert watcher.drawn == count
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
    wait_for(lambda: watcher.drawn == 3 and "<i></i>" in watcher.status.value)


def test_the_slider_stays_where_it_was_put(tmp_path, watch):
    path, history = tmp_path / "search.json", invent_history(6)
    write_json(path, history[:4])
    watcher = watch()
    wait_for(lambda: watcher.drawn == 4)
    watcher.at.value = 1
    wait_for(lambda: watcher.drawn == 2)
    write_json(path, history[:5])
    wait_for(lambda: watcher.at.max == 4)
    assert watcher.at.value == 1
    watcher.at.value = 4
    wait_for(lambda: watcher.drawn == 5)
    write_json(path, history)
    wait_for(lambda: watcher.at.value == 5 and watcher.drawn == 6)


def test_a_new_search_in_the_same_file(tmp_path, watch):
    "A shorter history, then one of another strategy: slider and tabs follow."
    path = tmp_path / "search.json"
    write_json(path, invent_history(6))
    watcher = watch()
    wait_for(lambda: watcher.drawn == 6)
    write_json(path, invent_history(2, seed=5))
    wait_for(lambda: watcher.drawn == 2 and watcher.at.max == 1)
    write_json(path, invent_candidates(3))
    wait_for(lambda: watcher.tabs.titles == ("candidates", "cells") and watcher.drawn == 3)
    assert len(watcher.tabs.children) == 2 and "<b>candidate 2</b>" in watcher.status.value


def test_nothing_is_drawn_twice(tmp_path, watch):
    path = tmp_path / "search.json"
    write_json(path, invent_history(2))
    watcher, drawn = watch(0.01), []
    wait_for(lambda: watcher.drawn == 2)
    watcher.tabs.children[0].observe(drawn.append, "value")
    before = watcher.tabs.children[0].value
    time.sleep(0.3)
    assert not drawn and watcher.tabs.children[0].value is before


def test_an_unforeseen_error_is_told(tmp_path, watch, monkeypatch):
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    record = invent_history(1)[0]
    write_json(tmp_path / "search.json", [record | {"loss": {"weight": "a", "arch": "b"}}])
    watcher = watch()
    wait_for(lambda: "stopped watching" in watcher.status.value)
    watcher.thread.join(10)
    assert not watcher.thread.is_alive() and errors


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
