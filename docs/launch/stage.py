"""One stage of the pipeline, as one of the processes that torchrun, fabric run or srun starts; from the root of the repository:

    torchrun --nproc-per-node 8 docs/launch/stage.py search gpu
    fabric run --accelerator cuda --devices 8 docs/launch/stage.py retrain gpu

The first process keeps the executed notebook in runs/, the others in runs/ranks/.
"""
import os
import sys
from pathlib import Path

import papermill

stage, recipe = sys.argv[1:]
rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
kept = Path("runs", f"{stage}.ipynb") if rank == "0" else Path("runs", "ranks", f"{stage}-{rank}.ipynb")
kept.parent.mkdir(parents=True, exist_ok=True)
papermill.execute_notebook(f"nbs/stages/{stage}.ipynb", str(kept), {"recipe": recipe}, log_output=rank == "0", progress_bar=rank == "0")
