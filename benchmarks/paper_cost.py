"""What the paper's recipe costs: updates, seconds of each as measured, and from them hours and memory on one device and on eight.

    OMP_NUM_THREADS=1 python benchmarks/paper_cost.py                       this processor, few crops, carried on to 64
    python benchmarks/paper_cost.py --device cuda --targets 4 8 --frames 8  a GPU, the true batch

An update is measured with two sizes of batch (`--targets`, each target in `--frames` crops), each in a process of its own, and the line
through both is carried on to the recipe's batch: seconds and memory are a constant and a share for each crop. Eight devices are one
eighth of the time for the same crops (shards: 8, steps / 8), the exchange of gradients not counted. The last columns are no measurement:
they divide the operations of the update (2 a multiply-accumulate, counted by torch in forward and backward pass) by an assumed
throughput of `--tflops`, a third of the 67 TFLOP/s that an H100 is specified with in fp32: a lower bound, since thin layers wait for memory.
"""
import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tirnas.core import load_params, pick_device, use_threads
from tirnas.data.sequences import open_dataset
from tirnas.nets.genotype import random_genotype
from tirnas.objective import SearchParams
from tirnas.retrain import RetrainParams, start_retrain
from tirnas.search import draw_batches, move_alpha, move_weights, start_search

ROOT = Path(__file__).parent.parent
KINDS = ("search, weights", "search, alpha", "retrain")


def smaller(params, targets: int, frames: int):
    "The same settings with another batch."
    return dataclasses.replace(params, shards=1, episodes=dataclasses.replace(params.episodes, num_pedestrians=targets, num_frames=frames))


class InPlace:
    "Stands for a pool of threads: torch counts operations in its own thread only."
    def map(self, work, *items): return map(work, *items)


def make_update(kind: str, args: argparse.Namespace, targets: int):
    "A function that makes one update of the recipe on a batch of so many targets."
    sequences, device = open_dataset(ROOT / "samples"), pick_device(args.device)
    if kind == "retrain":
        params = smaller(load_params(RetrainParams, "retrain", args.recipe, ROOT / "params.yaml"), targets, args.frames)
        run = start_retrain(sequences, random_genotype(params.macro.kind, 0), params, device)
        batches = run.batches(0)
        return lambda: run.update(batches, InPlace())
    params = smaller(load_params(SearchParams, "search", args.recipe, ROOT / "params.yaml"), targets, args.frames)
    run = start_search(sequences, params, device)
    batches, move = draw_batches(run, params.warmup_epochs * params.steps), move_alpha if kind.endswith("alpha") else move_weights
    return lambda: move(run, batches)


def peak_mb(device: torch.device) -> float:
    "The most memory that was in use since the process began."
    if device.type == "cuda": return torch.cuda.max_memory_allocated(device) / 1e6
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3


def measure(kind: str, args: argparse.Namespace, targets: int) -> dict:
    "Seconds of an update (median, the first left out), peak memory and multiply-accumulates of forward and backward pass."
    use_threads()
    update, seconds = make_update(kind, args, targets), []
    with FlopCounterMode(display=False) as counter: update()
    for _ in range(args.updates):
        start = time.perf_counter()
        update()
        if args.device == "cuda": torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "mb": peak_mb(pick_device(args.device)), "macs": counter.get_total_flops() / 2}


def line(small: dict, large: dict, crops: tuple[int, int], wanted: int) -> dict:
    "Both measurements carried on to another number of crops."
    share = {k: (large[k] - small[k]) / (crops[1] - crops[0]) for k in small}
    return {k: large[k] + share[k] * (wanted - crops[1]) for k in small}


def updates_of(kind: str, recipe: str) -> tuple[int, int]:
    "How many such updates the recipe makes, and the crops of each."
    group = load_params(RetrainParams if kind == "retrain" else SearchParams, kind.split(",")[0], recipe, ROOT / "params.yaml")
    epochs = group.epochs - (group.warmup_epochs if kind.endswith("alpha") else 0)
    return epochs * group.steps, group.shards * group.episodes.num_pedestrians * group.episodes.num_frames


def report(found: dict[str, list[dict]], args: argparse.Namespace) -> None:
    "Print the table."
    crops = tuple(t * args.frames for t in args.targets)
    print(f"recipe {args.recipe} on {args.device}, load {os.getloadavg()[0]:.1f}; measured with {crops[0]} and {crops[1]} crops")
    print(f"{'':16} {'updates':>8} {'crops':>6} {f's, {crops[0]} crops':>11} {f's, {crops[1]} crops':>11} | {'s/update':>9} {'hours':>8} {'on eight':>9}"
          f" {'memory, GB':>11} | {'TMAC/update':>11} {f'h at {args.tflops:g} TFLOP/s':>16} {'on eight':>9}")
    totals = [0.0, 0.0]
    for kind, (small, large) in found.items():
        number, wanted = updates_of(kind, args.recipe)
        full = line(small, large, crops, wanted)
        hours, assumed = number * full["seconds"] / 3600, number * 2 * full["macs"] / (args.tflops * 1e12) / 3600
        totals = [totals[0] + hours, totals[1] + assumed]
        print(f"{kind:16} {number:8} {wanted:6} {small['seconds']:11.2f} {large['seconds']:11.2f} | {full['seconds']:9.1f} {hours:8.0f} {hours / 8:9.0f}"
              f" {full['mb'] / 1e3:11.1f} | {full['macs'] / 1e12:11.2f} {assumed:16.1f} {assumed / 8:9.1f}")
    print(f"{'together':16} {'':54} {totals[0]:8.0f} {totals[0] / 8:9.0f} {'':11} | {'':11} {totals[1]:16.1f} {totals[1] / 8:9.1f}")


def main() -> None:
    "Measure as asked and print the table."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--targets", type=int, nargs=2, default=(2, 3), help="2 or more: a target needs another to be told from")
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--updates", type=int, default=2, help="updates that are timed, after one that is not")
    parser.add_argument("--tflops", type=float, default=22)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return print(json.dumps(measure(args.one[0], args, int(args.one[1]))))
    found = {}
    for kind in KINDS:
        more = ["--recipe", args.recipe, "--device", args.device, "--frames", str(args.frames), "--updates", str(args.updates)]
        print(f"{kind}: {args.updates + 1} updates with {args.targets[0]} and with {args.targets[1]} targets, some minutes", file=sys.stderr, flush=True)
        run = lambda targets: subprocess.run([sys.executable, __file__, *more, "--one", kind, str(targets)], check=True, stdout=subprocess.PIPE, text=True)
        found[kind] = [json.loads(run(targets).stdout.splitlines()[-1]) for targets in args.targets]
    report(found, args)


if __name__ == "__main__": main()
