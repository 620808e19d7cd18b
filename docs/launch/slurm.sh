#!/bin/bash
#SBATCH --job-name=tirnas
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=SIGTERM@120
#SBATCH --requeue
# sbatch docs/launch/slurm.sh search paper      from the root of the repository, on a file system that all nodes share.
# Prepare with `dvc repro prepare`, in one process. Then set paper.search.shards in params.yaml to a multiple of the processes, 16 here, and num_pedestrians to the share of each.
# Two minutes before the end all processes are asked to stop: search and retraining save at the next update (or, where it validates,
# when that is done; it last saved ten minutes before that at most). Handed in once more, the job goes on from there.
set -euo pipefail
source .venv/bin/activate
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS=1
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 python docs/launch/stage.py "$@"
