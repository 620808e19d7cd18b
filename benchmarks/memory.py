"""What it costs to give freed memory back: seconds of an update of retraining, and peak memory, with and without `keep_memory`.

    OMP_NUM_THREADS=1 python benchmarks/memory.py                      the mini recipe on embedded sequences
    OMP_NUM_THREADS=1 python benchmarks/memory.py --recipe base --steps 4

Each way runs in a process of its own, in turns; random weights, no file is written.
"""
import argparse
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from history import Measured, begin, keep

ROOT = Path(__file__).parent.parent


def updates(recipe: str, steps: int, keep: bool) -> tuple[float, float]:
    "Median seconds of an update, the first left out, and peak memory in MB of this process."
    from tirnas import core
    if not keep: core.keep_memory = lambda: False
    from tirnas.core import load_params, pick_device, use_threads
    from tirnas.data.sequences import open_dataset
    from tirnas.nets.genotype import random_genotype
    from tirnas.nets.pretrained import BackboneSettings
    from tirnas.retrain import RetrainParams, side_by_side, start_retrain
    use_threads()
    params = load_params(RetrainParams, "retrain", recipe, ROOT / "params.yaml")
    params = dataclasses.replace(params, start_from=None, backbone=BackboneSettings(params.backbone.name))
    run = start_retrain(open_dataset(ROOT / "samples"), random_genotype(params.macro.kind, 0), params, pick_device("cpu"))
    seconds = []
    with ThreadPoolExecutor(side_by_side(params.shards), initializer=use_threads) as pool:
        for step in range(steps + 1):
            batches, start = run.batches(step), time.perf_counter()
            run.update(batches, pool)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    "Time both ways and print them."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--steps", type=int, default=10, help="updates that are timed, a process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=("kept", "given back"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(*updates(args.recipe, args.steps, args.one == "kept"))
        return
    began, found = begin(), {"given back": [], "kept": []}
    for _ in range(args.rounds):
        for way in found:
            command = [sys.executable, __file__, "--one", way, "--recipe", args.recipe, "--steps", str(args.steps)]
            found[way].append([float(v) for v in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()])
    print(f"update of the {args.recipe} recipe, load {os.getloadavg()[0]:.1f}")
    for way, rows in found.items():
        seconds, peak = zip(*rows)
        print(f"memory {way:10}  {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})  peak {max(peak):.0f} MB")
    keep("memory", [Measured(f"memory {way}: {what}", unit, [row[k] for row in rows]) for way, rows in found.items()
                    for k, (what, unit) in enumerate((("update", "s"), ("peak", "MB")))], began)


if __name__ == "__main__": main()
