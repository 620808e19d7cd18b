"""A stage under a launcher, `docs/launch/stage.py`, that is told to stop."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

CELL = """
import dataclasses, os, time
from pathlib import Path
from blocks import BLOCKS, CPU
from test_search import SEARCH
import tirnas.search
from tirnas.search import search
true = tirnas.search.make_step
def slow(run, batches):
    Path("begun").write_text(str(os.getpid()))
    time.sleep(2)
    true(run, batches)
tirnas.search.make_step = slow
search(BLOCKS, dataclasses.replace(SEARCH, steps=9), CPU, "search.safetensors")
"""


def test_what_cannot_be_shared_is_said_before_anything_starts(tmp_path):
    run = subprocess.run([sys.executable, str(ROOT / "docs" / "launch" / "stage.py"), "prepare", "mini"], cwd=tmp_path, text=True, capture_output=True)
    assert run.returncode == 1 and run.stderr.startswith("prepare works in one process: run `dvc repro prepare`") and not any(tmp_path.iterdir())


def write_stage(home, stage, code):
    (home / "nbs" / "stages").mkdir(parents=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell('recipe = "mini"', metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), home / "nbs" / "stages" / f"{stage}.ipynb")


def launched(home, stage, env):
    "A launched stage, at work."
    process = subprocess.Popen([sys.executable, str(ROOT / "docs" / "launch" / "stage.py"), stage, "mini"], cwd=home, env=env,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not ((home / "begun").exists() and (home / "begun").read_text()) and process.poll() is None: time.sleep(0.05)
    return process


def test_a_stage_that_cannot_save_in_between_ends_in_a_sentence(tmp_path):
    write_stage(tmp_path, "evaluate", "import time\nfrom pathlib import Path\nPath('begun').write_text('x')\ntime.sleep(60)")
    process = launched(tmp_path, "evaluate", {**os.environ})
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and said.rstrip().endswith("evaluate was stopped, what it has finished is kept: the same command goes on from there"), said


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs signals as Linux has them")
@pytest.mark.parametrize("slurm", [False, True])
def test_a_stage_that_is_told_to_stop_saves_first(tmp_path, slurm):
    "srun tells the kernel itself; torchrun and fabric run tell only the processes that they have started, and after Ctrl-C a second time."
    write_stage(tmp_path, "search", CELL)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]), **({"SLURM_STEP_ID": "0"} if slurm else {})}
    process = launched(tmp_path, "search", env)
    if slurm: os.kill(int((tmp_path / "begun").read_text()), signal.SIGTERM)
    else:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode and "stopped after step " in said, said[-2000:]
    assert (tmp_path / "search.safetensors").exists()
