"""Seconds and memory that scoring 6 trackers on 120 sequences of 82,133 frames takes, cold, in one process.

    python benchmarks/scoring.py [--trackers 6] [--repeats 3] [--protocol official]

Annotations and results are invented: the names and lengths of the LSOTB-TIR list, random walks in whole pixels with
absent and border frames, and six perturbed copies with four decimals. They are made in a temporary folder, which the
system's file cache then holds; nothing else is warm. Each repeat is a new process that reads all files and computes every
score, curve, attribute, interval and long-term score. `reading` is the part of `evaluate` spent on files. `process` is
the whole life of the process: interpreter, imports and evaluate. `processor` is the processor time of that, which
another job on the machine disturbs less.
"""
import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from history import Measured, begin, keep
from tirnas.data.annotations import write_boxes
from tirnas.metrics import OFFICIAL
from tirnas.results import load_confidence, load_fps, load_results
from tirnas.scoring import benchmark_list, evaluate, load_truth

BENCHMARK = "lsotb-tir"


def walk(frames: int, random: np.random.Generator) -> np.ndarray:
    "A random walk in whole pixels with absent frames in every fourth sequence."
    size = random.integers(12, 90, 2) + random.normal(0, 0.5, (frames, 2)).cumsum(axis=0)
    boxes = np.concatenate([300 + random.normal(0, 3, (frames, 2)).cumsum(axis=0), size.clip(6)], axis=1).round()
    boxes[:, :2] = np.maximum(boxes[:, :2], 1)
    if random.random() < 0.25: boxes[frames // 2:frames // 2 + 12] = 0
    return boxes


def invent(folder: Path, trackers: int) -> int:
    "Write annotations, attributes and results; return the number of frames."
    random, total = np.random.default_rng(0), 0
    benchmark = benchmark_list(BENCHMARK)
    (folder / "anno" / "att").mkdir(parents=True)
    for name, frames in benchmark["sequences"].items():
        boxes, total = walk(frames, random), total + frames
        write_boxes(folder / "anno" / f"{name}.txt", boxes)
        marks = (random.random(len(benchmark["attributes"])) < 0.4).astype(int)
        (folder / "anno" / "att" / f"{name}.txt").write_text(",".join(map(str, marks)) + "\n")
        for k in range(trackers):
            track = boxes + random.normal(0, 2 + 2 * k, boxes.shape) + 0.02 * k * np.arange(frames)[:, None]
            track[random.random(frames) < 0.002] = np.nan
            write_boxes(folder / "results" / f"tracker{k}" / f"{name}.txt", track)
    return total


def once(folder: Path, protocol: str) -> dict[str, float]:
    "Score everything, then read everything again: seconds of evaluate, of reading, peak MB, processor seconds."
    started = time.perf_counter()
    scores, _ = evaluate(folder / "anno", folder / "results", BENCHMARK, protocol)
    scored = time.perf_counter()
    computed = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    truth = load_truth(folder / "anno", BENCHMARK)
    for tracker in scores:
        for load in (load_results, load_fps, load_confidence): load(folder / "results" / tracker, truth.boxes)
    return {"evaluate": scored - started, "reading": time.perf_counter() - scored, "peak": peak, "processor": computed}


def main() -> None:
    "Print the table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trackers", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--protocol", default=OFFICIAL.name)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once: return print(*once(given.once, given.protocol).values())
    with tempfile.TemporaryDirectory() as place:
        began, rows, frames = begin(), [], invent(Path(place), given.trackers)
        print(f"{given.trackers} trackers, 120 sequences, {frames} frames; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"{'':10}{'process':>10}{'evaluate':>10}{'reading':>10}{'computing':>10}{'processor':>10}{'peak':>10}")
        command = [sys.executable, __file__, "--protocol", given.protocol, "--once", place]
        for repeat in range(given.repeats):
            started = time.perf_counter()
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            evaluated, reading, peak, processor = map(float, said.split())
            process = time.perf_counter() - started - reading
            times = (process, evaluated, reading, evaluated - reading, processor)
            rows.append((process, evaluated, processor, peak))
            print(f"repeat {repeat + 1:3}{''.join(f'{t:8.2f} s' for t in times)}{peak:7.0f} MB")
        keep("scoring", [Measured(name, unit, list(values)) for (name, unit), values in
                         zip((("process", "s"), ("evaluate", "s"), ("processor", "s"), ("peak", "MB")), zip(*rows))], began)


if __name__ == "__main__": main()
