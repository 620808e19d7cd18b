"""One stage of the pipeline, as one of the processes that torchrun, fabric run or srun starts; from the root of the repository:

    torchrun --nproc-per-node 8 docs/launch/stage.py search gpu
    fabric run --accelerator cuda --devices 8 docs/launch/stage.py retrain gpu

Search, retrain and evaluate can be shared; `dvc repro prepare` goes before them. The first process keeps the executed notebook
in runs/, the others in runs/ranks/. SIGTERM and Ctrl-C let search and retrain save first; evaluate has kept each sequence that is done.
"""
import logging
import os
import signal
import sys
from pathlib import Path

import papermill
import psutil
from nbclient.exceptions import DeadKernelError


def pass_on(number: int, frame) -> None:
    """Tell the kernel, once, and wait for it; by itself papermill would end at once, and the kernel with it.

    After Ctrl-C a launcher tells us a second time, which must not end the kernel in the middle of a step. srun tells the kernel itself."""
    for n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)
    if "SLURM_STEP_ID" not in os.environ:
        for kernel in psutil.Process().children(): kernel.send_signal(number)


stage, recipe = sys.argv[1:]
if stage == "prepare": sys.exit("prepare works in one process: run `dvc repro prepare`, then start search, retrain and evaluate with a launcher")
rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
kept = Path("runs", f"{stage}.ipynb") if rank == "0" else Path("runs", "ranks", f"{stage}-{rank}.ipynb")
kept.parent.mkdir(parents=True, exist_ok=True)
logging.basicConfig(level=logging.INFO, format="%(message)s")       # else what the stage says is lost
for n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, pass_on)
try: papermill.execute_notebook(f"nbs/stages/{stage}.ipynb", str(kept), {"recipe": recipe}, log_output=rank == "0", progress_bar=rank == "0")
except DeadKernelError:
    if signal.getsignal(signal.SIGTERM) is pass_on: raise
    sys.exit(f"{stage} was stopped, what it has finished is kept: the same command goes on from there")
