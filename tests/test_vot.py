"""tirnas.vot: the real toolkit runs our trackers on a sequence of SimTIR, where it is installed."""
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ENV, ROOT, shell

from tirnas.benchmark import run_sequence
from tirnas.core import UserError
from tirnas.data.sequences import open_dataset
from tirnas.dimp.card import ModelCard, save_model
from tirnas.dimp.net import HeadSettings
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import random_genotype
from tirnas.trackers import make_tracker
from tirnas.vot import Responder, anchors, load_trax, write_vot_sequence, write_workspace

NEEDS = ("vot", "trax")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]
needs_toolkit = pytest.mark.skipif(bool(MISSING), reason="vot-toolkit is not installed (docs/guide.md, VOT, says how)")
FRAMES = 30
STACK = """
title: Short thermal stack
experiments:
  supervised:
    type: supervised
    repetitions: 1
    analyses: [{type: supervised_average_ar}]
  unsupervised:
    type: unsupervised
    repetitions: 1
    analyses: [{type: average_accuracy}]
  multistart:
    type: multistart
    analyses: [{type: multistart_average_ar}]
"""


@pytest.fixture
def sequence():
    found = next(s for s in open_dataset(ROOT / "samples") if s.name == "person_street_01")
    return found.replace(frame_paths=found.frame_paths[:FRAMES], boxes_xywh=found.boxes_xywh[:FRAMES])


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    card = ModelCard(random_genotype("single", 1), Macro("single", 3, 4, 4), HeadSettings(8, 16, 4, 16), 64, 4.5, {})
    return save_model(tmp_path / "ours.safetensors", card.build(), card)


def vot(*words, cwd):
    "The toolkit's own command; its question for a newer version goes nowhere."
    code = "import sys; from vot.utilities.cli import main; sys.argv[0] = 'vot'; main()"
    env = ENV | {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "VOT_RESULTS_BINARY": "0"}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, env=env, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture
def workspace(tmp_path, sequence, model):
    (tmp_path / "short.yaml").write_text(STACK)
    labels = write_workspace(tmp_path / "workspace", [sequence], [str(model), "constant", "csrt"], str(tmp_path / "short.yaml"))
    assert labels == ["ours", "constant", "csrt"]
    return tmp_path / "workspace"


@needs_toolkit
def test_vot_test(workspace):
    said = vot("test", "ours", cwd=workspace)
    assert "Test concluded successfuly" in said and said.count("confidence=") == 50


@needs_toolkit
def test_vot_evaluate(workspace, sequence, model):
    said = vot("evaluate", "ours", "constant", "csrt", cwd=workspace)
    assert "Evaluation concluded successfuly" in said
    given = np.round(sequence.boxes_xywh[0], 4).astype(np.float32)      # TraX sends four decimals
    for label, word in (("ours", str(model)), ("constant", "constant"), ("csrt", "csrt")):
        path = workspace / "results" / label / "unsupervised" / sequence.name / f"{sequence.name}_001.txt"
        rows = [[float(v) for v in line.split(",")] for line in path.read_text().splitlines()]
        alone = sequence.replace(boxes_xywh=np.vstack([given, sequence.boxes_xywh[1:]]))
        np.testing.assert_allclose(rows[1:], run_sequence(make_tracker(word), alone).boxes_xywh[1:], atol=1e-3)
    words = ("analysis", "--name", "scores", "--format", "json", "ours", "constant", "csrt")
    assert "Analysis successful" in vot(*words, cwd=workspace)
    assert "ours" in next((workspace / "analysis").rglob("*.json")).read_text()


def test_the_layout_is_read_back(tmp_path, sequence):
    write_vot_sequence(tmp_path / "data" / sequence.name, sequence)
    (again,) = open_dataset(tmp_path / "data")
    assert again.place.layout == "vot" and again.attributes == sequence.attributes
    np.testing.assert_allclose(again.boxes_xywh, sequence.boxes_xywh, atol=1e-4)
    np.testing.assert_array_equal(again.frame(7), sequence.frame(7))


def test_absent_targets_and_16_bits(tmp_path, sequence):
    boxes = sequence.boxes_xywh.copy()
    boxes[3], boxes[4] = np.nan, 0
    write_vot_sequence(tmp_path / "data" / "gone", sequence.replace(boxes_xywh=boxes))
    assert (tmp_path / "data" / "gone" / "groundtruth.txt").read_text().splitlines()[3:5] == ["0", "0"]
    assert np.isnan(open_dataset(tmp_path / "data")[0].boxes_xywh[3:5]).all()


def test_anchors_look_at_the_longer_side():
    found = anchors(np.ones(101, dtype=bool))
    assert found[[0, 50, 100]].tolist() == [1, 1, -1] and np.count_nonzero(found) == 3
    assert not anchors(np.zeros(4, dtype=bool)).any()


def test_a_refused_start_stands_still_and_the_next_start_does_not(sequence):
    responder, frames = Responder("mil"), sequence.frame_paths
    with pytest.warns(UserWarning, match="the box stands still"): responder.start(frames[0], [10, 10, 4, 4])
    assert responder.step(frames[1])[0].tolist() == [10, 10, 4, 4]
    responder.start(frames[0], sequence.boxes_xywh[0])
    assert type(responder.active).__name__ == "OpenCVTracker"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "trax", None)
    with pytest.raises(UserError, match=r"vot-trax is not installed: pip install 'tirnas\[vot\]'"): load_trax()


def test_the_command(tmp_path):
    done = shell("tirnas", "vot", str(tmp_path / "w"), "--data", str(ROOT / "samples" / "person_street_01"), "--tracker", "kcf", cwd=tmp_path)
    assert done.returncode == 0 and "vot evaluate kcf" in done.stdout, done.stderr
    assert json.loads((tmp_path / "w" / "config.yaml").read_text()) == {"registry": ["./trackers.ini"], "stack": "vot2016/tir"}


def test_a_shorter_sequence_leaves_no_old_frames(tmp_path, sequence):
    folder = write_vot_sequence(tmp_path / "s", sequence.replace(attributes=frozenset({"occlusion"})))
    (folder / "color" / "00000001.png").touch()
    (folder / "color" / "notes.txt").touch()
    short = sequence.replace(frame_paths=sequence.frame_paths[:5], boxes_xywh=sequence.boxes_xywh[:5], attributes=frozenset())
    write_vot_sequence(folder, short)
    suffix = sequence.frame_paths[0].suffix
    assert sorted(p.name for p in (folder / "color").iterdir()) == [*(f"{k:08d}{suffix}" for k in range(1, 6)), "notes.txt"]
    assert not list(folder.glob("*.tag"))


@pytest.mark.parametrize("words, part", [
    (("w", "--tracker", "nope"), "'nope' is neither a file"), (("w", "--tracker", "kcf", "--stack", "nostack"), "nostack is no stack"),
    (("w", "--tracker", "kcf", "--tracker", "kcf"), "two trackers would be called 'kcf'"),
    (("w", "--tracker", "kcf", "--stack", "no.yaml"), "no.yaml does not exist"),
    (("data", "--tracker", "kcf"), "lie in each other"), (("data/w", "--tracker", "kcf"), "lie in each other"),
    (("file", "--tracker", "kcf"), "file is a file: give a folder")])
def test_mistakes_are_found_before_anything_is_written(tmp_path, sequence, words, part):
    write_vot_sequence(tmp_path / "data" / "walk", sequence.replace(frame_paths=sequence.frame_paths[:2], boxes_xywh=sequence.boxes_xywh[:2]))
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = shell("tirnas", "vot", *words, "--data", "data", cwd=tmp_path)
    assert done.returncode == 2 and part in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
