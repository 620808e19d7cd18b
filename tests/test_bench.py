"""The history of the benchmarks, the clock of a frame's parts, and a real run of the quickest parts."""
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from conftest import ROOT

from tirnas.core import UserError

sys.path.insert(0, str(ROOT / "benchmarks"))
import history      # noqa: E402
import parts        # noqa: E402
from history import Measured      # noqa: E402

ROWS = [Measured("step", "s", [0.5, 0.4, 0.9]), Measured("size of all", "MB", [4.821820])]


# --- history

def test_a_run_is_one_line_with_all_that_a_figure_needs(tmp_path, monkeypatch, capsys):
    place = tmp_path / "history.jsonl"
    monkeypatch.setenv("TIRNAS_HISTORY", str(place))
    for _ in range(2): history.keep("some", ROWS, history.begin())
    first, second = history.read(place)
    assert len(place.read_text().splitlines()) == 2 and "kept in" in capsys.readouterr().out
    step = first["figures"][0]
    assert (step["name"], step["unit"], step["values"]) == ROWS[0] and (step["median"], step["low"], step["high"]) == (0.5, 0.4, 0.9)
    assert {"date", "load_at_start", "commit", "dirty", "versions", "machine", "options"} < first.keys()
    assert first["versions"]["torch"] and first["machine"]["processor"] and first["machine"]["cores"] >= 1


def test_nothing_is_kept_where_nothing_shall_be(tmp_path, monkeypatch):
    before = history.HISTORY.read_bytes() if history.HISTORY.exists() else None
    monkeypatch.setenv("TIRNAS_HISTORY", "")
    history.keep("some", ROWS, history.begin())
    assert (history.HISTORY.read_bytes() if history.HISTORY.exists() else None) == before


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "h.jsonl").write_text('{"benchmark": "a"}\n{"bench\n')
    with pytest.raises(UserError, match=r"h.jsonl:2 is no run .* remove the line"): history.read(tmp_path / "h.jsonl")


def test_the_table_says_median_spread_and_unit():
    head, *lines = history.table(ROWS)
    assert [line.split() for line in lines] == [["step", "0.5", "0.4", "to", "0.9", "s"], ["size", "of", "all", "4.822", "4.822", "to", "4.822", "MB"]]
    assert [history.digits(v) for v in (0.000123, 0.0123456, 9999.4, 82133.4)] == ["0.00012", "0.01235", "9999", "82133"]


def test_runs_whose_spreads_do_not_touch_are_marked():
    run = lambda values: {"figures": [Measured("step", "s", values).record()]}
    assert history.compared(run([1, 2, 3]), run([3, 4, 5]))[0].endswith(" s")
    assert history.compared(run([1, 2, 3]), run([4, 4, 5]))[0].endswith(" s  *")
    assert history.compared(run([1]), {"figures": [Measured("other", "s", [1]).record()]}) == []


def test_the_runs_that_ship_can_be_read():
    for run in history.read(history.HISTORY):
        assert run["commit"] and all(f["low"] <= f["median"] <= f["high"] for f in run["figures"])


# --- parts of a frame

def test_time_within_a_part_is_counted_once():
    clock = parts.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.02))
    outer = clock.timed("outer", inner)
    outer()
    assert not clock.seconds, "the clock is off"
    clock.on, started = True, time.perf_counter()
    outer()
    assert 0 < clock.seconds["outer"] < clock.seconds["inner"] and sum(clock.seconds.values()) <= time.perf_counter() - started


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_parts_and_rest_make_the_frame(engine):
    if engine == "onnx" and not find_spec("onnxruntime"): pytest.skip("no ONNX Runtime here: pip install 'tirnas[deploy]'")
    import tirnas.engine
    import tirnas.tracker
    module = {"torch": tirnas.tracker, "onnx": tirnas.engine}[engine]
    before = vars(module).copy()
    *rows, (last, unit, fps) = parts.time_track("mini", engine, ROOT / "samples", 2)
    found = {part: ms for part, _, ms in rows}
    net = {"torch": {"backbone", "head", "filter, application"}, "onnx": {"backbone, head, filter application"}}[engine]
    assert found.keys() == {"crop", "peak", "refinement", "filter, update", "rest"} | net and all(ms > 0 for ms in found.values())
    assert (last, unit) == ("frames a second", "frames/s") and sum(found.values()) == pytest.approx(1000 / fps)
    assert vars(module) == before, "the tracker is as it was"


# --- the whole

def run_all(*words, **env):
    return subprocess.run([sys.executable, "benchmarks/all.py", *words], cwd=ROOT, env=os.environ | env, text=True, capture_output=True)


def test_a_run_prints_its_table_and_keeps_it(tmp_path):
    run = run_all("--only", "sizes", "--rounds", "2", TIRNAS_HISTORY=str(tmp_path / "h.jsonl"))
    assert run.returncode == 0, run.stderr
    (kept,) = map(json.loads, (tmp_path / "h.jsonl").read_text().splitlines())
    sizes = {f["name"]: f["values"] for f in kept["figures"]}
    assert sizes["size: mini, torch"] == [(ROOT / "tirnas/models/mini.safetensors").stat().st_size / 1e6] * 2
    assert all(name in run.stdout for name in sizes) and kept["benchmark"] == "all" and kept["options"] == ["--only", "sizes", "--rounds", "2"]


@pytest.mark.parametrize("words, said", [(("--rounds", "0"), "--rounds must be at least 1"), (("--only", "sleep"), "invalid choice: 'sleep'")])
def test_bad_input_is_refused(words, said):
    run = run_all(*words)
    assert run.returncode == 2 and said in run.stderr.splitlines()[-1]


def test_a_part_that_fails_is_named_and_nothing_is_kept(tmp_path):
    "Here params.yaml cannot be found, as the program lies in an empty folder."
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("all.py", "history.py"): (folder / name).write_bytes((ROOT / "benchmarks" / name).read_bytes())
    env = os.environ | {"TIRNAS_HISTORY": str(tmp_path / "h.jsonl"), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, str(folder / "all.py"), "--only", "sizes", "--rounds", "1"], cwd=tmp_path, env=env, text=True, capture_output=True)
    assert run.returncode == 1 and run.stderr.splitlines()[-1].startswith("benchmark: sizes could not be measured: ") and not (tmp_path / "h.jsonl").exists()
