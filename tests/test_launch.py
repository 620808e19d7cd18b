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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs signals as Linux has them")
@pytest.mark.parametrize("slurm", [False, True])
def test_a_stage_that_is_told_to_stop_saves_first(tmp_path, slurm):
    "srun tells the kernel itself; torchrun and fabric run tell only the processes that they have started, and after Ctrl-C a second time."
    (tmp_path / "nbs" / "stages").mkdir(parents=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell('recipe = "mini"', metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(CELL)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "nbs" / "stages" / "search.ipynb")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]), **({"SLURM_STEP_ID": "0"} if slurm else {})}
    process = subprocess.Popen([sys.executable, str(ROOT / "docs" / "launch" / "stage.py"), "search", "mini"], cwd=tmp_path, env=env,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    begun = tmp_path / "begun"
    while not (begun.exists() and begun.read_text()) and process.poll() is None: time.sleep(0.05)
    if slurm: os.kill(int(begun.read_text()), signal.SIGTERM)
    else:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode and "stopped after step 1 of" in said, said[-2000:]
    assert (tmp_path / "search.safetensors").exists()
