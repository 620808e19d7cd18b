"""Exported graphs beside torch: time of a frame, size of the files, success on SimTIR, and how far apart the boxes end.

    python benchmarks/export.py                                 every model that ships: torch, its graphs, and these in 8 bits
    python benchmarks/export.py --models base --threads 1 --rounds 5
    python benchmarks/export.py --only speed                    or scores, sizes

Speed: each engine runs in a process of its own on frames read before, one process after the other, interleaved over rounds.
The first update of a sequence is not timed, starting and importing are timed apart. The least median over rounds is what the
machine can do when it is not disturbed; the median over all rounds says how disturbed it was.

Scores: one start a sequence, from its first frame to its last. `within 0.5 px` counts sequences in which all boxes of an
engine agree with those of torch. Trackers that learn as they go amplify rounding: `torch, last bit` is torch itself with
every weight changed by about half a unit in its last place, which says how much agreement can be asked for at all.
"""
import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from history import Measured, begin, keep
from tirnas.bundle import find_bundle
from tirnas.core import UserError
from tirnas.data.sequences import Sequence, open_dataset, to_file
from tirnas.metrics import score_tracker

ROOT = Path(__file__).parent.parent
ENGINES = ("torch", "onnx", "int8")
LAST_BIT = 6e-8


def load(engine: str, place: str):
    "A tracker on torch from a model file, or on ONNX Runtime from a folder."
    if engine == "torch":
        from tirnas.tracker import Tracker
        return Tracker.load(place)
    from tirnas.engine import OnnxTracker
    return OnnxTracker.load(place)


def nudged(tracker):
    "A tracker on torch, its weights changed in the last bit."
    import torch
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in tracker.net.parameters(): weights.mul_(1 + LAST_BIT * torch.randn_like(weights))
    return tracker


def follow(tracker, sequence: Sequence) -> np.ndarray:
    "Boxes (T, 4), the given one first."
    tracker.init(sequence.frame(0), sequence.boxes_xywh[0])
    return np.stack([sequence.boxes_xywh[0], *(tracker.update(sequence.frame(t))[0] for t in range(1, len(sequence)))])


# --- speed

def time_engine(engine: str, place: str, sequences: list[Sequence]) -> dict:
    "Milliseconds of an update (median and mean), of starting, and of importing and loading, in this process."
    start = time.perf_counter()
    tracker, starts, updates = load(engine, place), [], []
    ready = time.perf_counter() - start
    for sequence in sequences:
        frames = [sequence.frame(t) for t in range(len(sequence))]
        start = time.perf_counter()
        tracker.init(frames[0], sequence.boxes_xywh[0])
        starts.append(time.perf_counter() - start)
        tracker.update(frames[1])
        for frame in frames[2:]:
            start = time.perf_counter()
            tracker.update(frame)
            updates.append(time.perf_counter() - start)
    found = {"median": statistics.median(updates), "mean": statistics.mean(updates), "start": statistics.median(starts[1:] or starts), "ready": ready}
    return {name: 1000 * value for name, value in found.items()}


def timed_apart(engine: str, place: str, threads: int, args: argparse.Namespace) -> dict:
    "What `time_engine` finds in a fresh process."
    command = [sys.executable, __file__, "--time", engine, place, "--data", str(args.data), "--sequences", str(args.sequences)]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TIRNAS_THREADS")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict.fromkeys(names, str(threads)))
    if done.returncode: raise UserError(f"{engine} could not be timed: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def show_speed(model: str, places: dict[str, str], args: argparse.Namespace) -> None:
    "Print the times of every engine."
    began, cases = begin(), list(itertools.product(args.threads, places))
    rounds = [{case: timed_apart(case[1], places[case[1]], case[0], args) for case in cases} for _ in range(args.rounds)]
    print(f"\n{model}: ms a frame, {args.sequences} sequences, {args.rounds} round(s), load {os.getloadavg()[0]:.1f} at the end")
    print(f"{'engine':8} {'threads':>7} {'least median':>13} {'median':>8} {'least mean':>11} {'frames/s':>9} {'start':>7} {'import, load':>13}  times torch")
    least = {case: min(r[case]["mean"] for r in rounds) for case in cases}
    for threads, engine in cases:
        found = {key: [r[threads, engine][key] for r in rounds] for key in ("median", "mean", "start", "ready")}
        mean = least[threads, engine]
        print(f"{engine:8} {threads:7} {min(found['median']):13.2f} {statistics.median(found['median']):8.2f} {mean:11.2f} {1000 / mean:9.1f} "
              f"{min(found['start']):7.0f} {min(found['ready']):13.0f}  {least[threads, 'torch'] / mean:.2f}", flush=True)
    keep("export", [Measured(f"{model} on {engine}, {threads} thread(s): median frame", "ms", [r[threads, engine]["median"] for r in rounds]) for threads, engine in cases], began)


# --- scores and sizes

def show_scores(model: str, places: dict[str, str], sequences: list[Sequence]) -> None:
    "Print success and precision of every engine, and how far its boxes are from torch's."
    truth = {s.name: to_file(s.boxes_xywh, s.origin) for s in sequences}
    trackers = {"torch": lambda: load("torch", places["torch"]), "torch, last bit": lambda: nudged(load("torch", places["torch"])),
                **{engine: lambda engine=engine: load(engine, places[engine]) for engine in places if engine != "torch"}}
    print(f"\n{model}: {len(sequences)} sequences from their first frame")
    print(f"{'engine':16} {'success':>8} {'precision':>10} {'within 0.5 px of torch':>23} {'median of largest gaps, px':>27}")
    for label, make in trackers.items():
        tracker = make()
        boxes = {s.name: follow(tracker, s) for s in sequences}
        if label == "torch": first = boxes
        gaps = [np.abs(boxes[name] - first[name]).max() for name in boxes]
        entry = score_tracker({s.name: to_file(boxes[s.name], s.origin) for s in sequences}, truth)
        within = f"{sum(g < 0.5 for g in gaps)} of {len(gaps)}"
        print(f"{label:16} {entry['success']:8.3f} {entry['precision']:10.3f} {within:>23} {statistics.median(gaps):27.5f}", flush=True)


def show_sizes(model: str, places: dict[str, str]) -> None:
    "Print the megabytes of every form."
    print(f"\n{model}: MB on disk")
    for engine, place in places.items():
        files = [Path(place)] if Path(place).is_file() else sorted(Path(place).glob("*.onnx"))
        each = ", ".join(f"{p.stem} {p.stat().st_size / 1e6:.2f}" for p in files)
        print(f"{engine:8} {sum(p.stat().st_size for p in files) / 1e6:6.2f}  {each}")


# --- arguments

def parse() -> argparse.Namespace:
    "Read and check the arguments."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["base", "mini"], help="names of models that ship")
    parser.add_argument("--data", type=Path, default=ROOT / "samples")
    parser.add_argument("--only", nargs="+", choices=("speed", "scores", "sizes"), default=["sizes", "speed", "scores"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=6, help="sequences for the speed, evenly spaced")
    parser.add_argument("--time", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.rounds, args.sequences, *args.threads) < 1: parser.error("--rounds, --sequences and --threads must be at least 1")
    return args


def main() -> None:
    "Measure what was asked for."
    args = parse()
    sequences = open_dataset(args.data)
    some = [sequences[i] for i in np.unique(np.linspace(0, len(sequences) - 1, args.sequences).round().astype(int))]
    if args.time: return print(json.dumps(time_engine(*args.time, some)))
    from tirnas.export import export_model
    for model in args.models:
        with tempfile.TemporaryDirectory() as home:
            places = {"torch": str(ROOT / "tirnas" / "models" / f"{model}.safetensors"), "onnx": str(find_bundle(model))}
            if "int8" in args.engines: places["int8"] = str(export_model(places["torch"], Path(home) / model, int8=True))
            places = {engine: places[engine] for engine in ENGINES if engine == "torch" or engine in args.engines}
            if "sizes" in args.only: show_sizes(model, places)
            if "speed" in args.only: show_speed(model, places, args)
            if "scores" in args.only: show_scores(model, places, sequences)


if __name__ == "__main__":
    try: main()
    except UserError as e: sys.exit(f"benchmark: {e}")
