"""One stage of the pipeline, as one of the processes that torchrun, fabric run or srun starts; from the root of the repository:

    torchrun --nproc-per-node 8 docs/launch/stage.py search gpu
    fabric run --accelerator cuda --devices 8 docs/launch/stage.py retrain gpu

The first process keeps the executed notebook in runs/, the others in runs/ranks/. SIGTERM lets the stage save and end.
"""
import logging
import os
import signal
import sys
from pathlib import Path

import papermill
import psutil


def pass_on(number: int, frame) -> None:
    "Tell the kernel and wait for it; by itself papermill would end at once, and the kernel with it. srun has told the kernel already."
    if "SLURM_STEP_ID" not in os.environ:
        for kernel in psutil.Process().children(): kernel.send_signal(number)


stage, recipe = sys.argv[1:]
rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
kept = Path("runs", f"{stage}.ipynb") if rank == "0" else Path("runs", "ranks", f"{stage}-{rank}.ipynb")
kept.parent.mkdir(parents=True, exist_ok=True)
logging.basicConfig(level=logging.INFO, format="%(message)s")       # else what the stage says is lost
signal.signal(signal.SIGTERM, pass_on)
papermill.execute_notebook(f"nbs/stages/{stage}.ipynb", str(kept), {"recipe": recipe}, log_output=rank == "0", progress_bar=rank == "0")
