"""One seed on one machine: the same bytes from one thread, whatever the process; and two threads within what docs/figures.md says."""
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from threads import furthest, same_bytes      # noqa: E402

# A search, a retraining and a track, as small as they can be, in a process with its own number of threads.
CODE = """
import sys; sys.path[:0] = [f"{sys.argv[1]}/benchmarks", f"{sys.argv[1]}/tests"]
import dataclasses, numpy as np, torch
from blocks import BLOCKS, PARAMS
from test_search import SEARCH
from tirnas.core import use_threads
from tirnas.nets.genotype import random_genotype
from threads import retrain_trace, search_trace, track_trace
short = [b.replace(frame_paths=b.frame_paths[:12], boxes_xywh=b.boxes_xywh[:12]) for b in BLOCKS[:2]]
threads = use_threads(int(sys.argv[3]))
traces = {"search": search_trace(BLOCKS, SEARCH), "retrain": retrain_trace(BLOCKS, PARAMS, random_genotype("single", 0)),
          "track": track_trace("mini", short, threads)}
assert torch.get_num_threads() == threads
np.savez(sys.argv[2], **{f"{what}/{name}": values for what, trace in traces.items() for name, values in trace.items()})
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "What three processes leave: one thread, one thread again, two threads."
    folder, found = tmp_path_factory.mktemp("threads"), []
    for number, threads in enumerate((1, 1, 2)):
        out = folder / f"{number}.npz"
        env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "TIRNAS_THREADS"), str(threads)) | {"OMP_WAIT_POLICY": "passive", "PYTHONHASHSEED": str(number)}
        done = subprocess.run([sys.executable, "-c", CODE, str(ROOT), str(out), str(threads)], env=env, text=True, capture_output=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        with np.load(out) as kept: found.append({k: kept[k] for k in kept})
    return found


def part(run, what):
    return {name: values for name, values in run.items() if name.startswith(f"{what}/")}


@pytest.mark.parametrize("what", ["search", "retrain", "track"])
def test_one_thread_repeats_itself_to_the_byte(runs, what):
    first, again, _ = (part(run, what) for run in runs)
    assert len(first) >= 2 and same_bytes(first, again)


@pytest.mark.parametrize("what", ["search", "retrain"])
def test_losses_and_weights_of_two_threads_are_close(runs, what):
    one, _, two = (part(run, what) for run in runs)
    apart = furthest(one, two)
    assert max(apart.values()) < 1e-3, apart


def test_boxes_of_two_threads_are_within_half_a_pixel(runs):
    one, _, two = (part(run, "track") for run in runs)
    assert all(np.abs(one[name] - two[name]).max() < 0.5 for name in one)


def test_what_differs_in_the_last_bit_is_seen():
    one = {"weights": np.array([1.0, -4.0])}
    two = {"weights": np.nextafter(one["weights"], 5)}
    assert same_bytes(one, {"weights": one["weights"].copy()}) and not same_bytes(one, two)
    assert furthest(one, {"weights": np.array([1.0, -3.0])}) == {"weights": 0.25}
