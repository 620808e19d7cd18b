"""What one seed gives again: the same bytes from one thread run twice, and how far two threads are from one.

    python benchmarks/threads.py                                search, retraining and tracking of mini on SimTIR, cut short
    python benchmarks/threads.py --only track --threads 2 3
    python benchmarks/threads.py --every 5                      on every fifth sequence
    python benchmarks/threads.py --epochs 3 --steps 10          more updates of search and retraining

Each run is a process of its own, as threads are given out when torch is loaded. `same bytes` compares everything that a
run leaves: all weights, the records of its epochs, all boxes. `furthest` is the largest difference of a kind of number,
relative to the largest such number, or in pixels for boxes. A sum over more threads is added in another order, so its last
bit differs; whatever learns from its own results carries that on, which is why the difference grows with the updates.
"""
import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from tirnas.core import load_params, use_threads
from tirnas.data.sequences import Sequence, open_dataset, to_file
from tirnas.metrics import score_tracker
from tirnas.nets.genotype import Genotype, random_genotype
from tirnas.objective import SearchParams
from tirnas.retrain import RetrainParams, retrain
from tirnas.search import search_steps, start_search
from tirnas.tracker import Tracker

ROOT = Path(__file__).parent.parent
Trace = dict[str, np.ndarray]


# --- what a run leaves

def flat(tensors) -> np.ndarray:
    "All numbers of some tensors in a row."
    return np.concatenate([t.detach().cpu().double().numpy().ravel() for t in tensors])


def search_trace(sequences: list[Sequence], params: SearchParams) -> Trace:
    "Weights, alpha and losses of a search."
    run = start_search(sequences, params, torch.device("cpu"))
    search_steps(run, lambda: None, lambda: None)
    losses = [[r["loss"]["weight"], r["loss"]["arch"] or 0.0] for r in run.history]
    return {"weights": flat(run.net.weight_parameters()), "alpha": flat(run.net.alpha_parameters()), "losses": np.array(losses)}


def retrain_trace(sequences: list[Sequence], params: RetrainParams, genotype: Genotype) -> Trace:
    "Weights, statistics of norms and losses of a retraining."
    net, history = retrain(sequences, genotype, params, torch.device("cpu"))
    return {"weights": flat(net.parameters()), "statistics": flat(net.buffers()), "losses": np.array([r["total"] for r in history])}


def track_trace(model: Path | str, sequences: list[Sequence], threads: int) -> Trace:
    "The boxes (T, 4) of each sequence, from its first frame on."
    tracker, found = Tracker.load(model), {}
    use_threads(threads)
    for s in sequences:
        tracker.init(s.frame(0), s.boxes_xywh[0])
        found[s.name] = np.stack([s.boxes_xywh[0], *(tracker.update(s.frame(t))[0] for t in range(1, len(s)))])
    return found


# --- how far two of them are apart

def same_bytes(a: Trace, b: Trace) -> bool:
    "Whether two runs left the same, to the last bit."
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def furthest(a: Trace, b: Trace) -> dict[str, float]:
    "The largest difference of each kind of number, relative to the largest number of its kind."
    return {k: float(np.abs(a[k] - b[k]).max() / np.abs(a[k]).max()) for k in a}


# --- processes

def make_trace(what: str, threads: int, args: argparse.Namespace) -> Trace:
    "The trace of one kind of work in this process."
    use_threads(threads)
    sequences = open_dataset(ROOT / "samples")[::args.every]
    cut = dict(epochs=args.epochs, steps=args.steps)
    if what == "track": return track_trace(ROOT / "tirnas/models/mini.safetensors", sequences, threads)
    if what == "search":
        params = load_params(SearchParams, "search", "mini", ROOT / "params.yaml")
        return search_trace(sequences, dataclasses.replace(params, warmup_epochs=min(1, args.epochs - 1), **cut))
    params = load_params(RetrainParams, "retrain", "mini", ROOT / "params.yaml")
    return retrain_trace(sequences, dataclasses.replace(params, **cut), random_genotype(params.macro.kind, 0))


def traced(what: str, threads: int, args: argparse.Namespace) -> Trace:
    "The trace of a fresh process with this number of threads."
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TIRNAS_THREADS"), str(threads))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trace.npz"
        command = [sys.executable, __file__, "--one", what, str(out), "--threads", str(threads), "--epochs", str(args.epochs), "--steps", str(args.steps),
                   "--every", str(args.every)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env | {"OMP_WAIT_POLICY": "passive"})
        with np.load(out) as kept: return {k: kept[k] for k in kept}


def in_words(what: str, first: Trace, other: Trace) -> str:
    "How far a trace is from the first."
    if same_bytes(first, other): return "the same bytes"
    if what != "track": return ", ".join(f"{k} {v:.1e}" for k, v in furthest(first, other).items())
    gaps = [float(np.abs(first[k] - other[k]).max()) for k in first]
    sequences = [s for s in open_dataset(ROOT / "samples") if s.name in first]
    truth = {s.name: to_file(s.boxes_xywh, s.origin) for s in sequences}
    success = [score_tracker({s.name: to_file(t[s.name], s.origin) for s in sequences}, truth)["success"] for t in (first, other)]
    return (f"{sum(g < 0.5 for g in gaps)} of {len(gaps)} sequences within 0.5 px, largest gap {max(gaps):.3f} px, median {statistics.median(gaps):.1e}; "
            f"success {success[0]:.4f} and {success[1]:.4f}")


def main() -> None:
    "Compare every kind of work with itself and across threads."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("search", "retrain", "track"), default=["search", "retrain", "track"])
    parser.add_argument("--threads", nargs="+", type=int, default=[2], help="to compare with one")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="updates an epoch")
    parser.add_argument("--every", type=int, default=1, help="take every n-th sequence")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.epochs, args.steps, args.every, *args.threads) < 1: parser.error("--epochs, --steps, --every and --threads must be at least 1")
    if args.one:
        np.savez(args.one[1], **make_trace(args.one[0], args.threads[0], args))
        return
    print(f"mini on SimTIR; search and retraining of {args.epochs} epochs of {args.steps} updates; torch {torch.__version__}")
    for what in args.only:
        first = traced(what, 1, args)
        for threads in (1, *args.threads):
            print(f"{what:8} 1 thread and {'again' if threads == 1 else f'{threads} threads'}: {in_words(what, first, traced(what, threads, args))}", flush=True)


if __name__ == "__main__": main()
