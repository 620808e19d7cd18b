"""Time one bi-level step of the search, and its memory, against a plain re-statement of the usual implementation.

    python benchmarks/search.py                     the step of the mini recipe, one form after the other, three rounds
    python benchmarks/search.py --memory            peak memory of the step for K = 1, 2, 4, 8
    python benchmarks/search.py --options           what the options of the search cost
    python benchmarks/search.py --device cuda --bf16

The usual implementation has one module for each operation of each edge, asks for the gradients of all parameters in both
passes, and runs all cells. Every form makes the same numbers from the same weights (tests/test_supernet.py). A form runs in a
process of its own; its memory is the growth of the process's peak from before the first step. Batches are random numbers:
reading and cutting frames is not part of the step.
"""
import argparse
import contextlib
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from history import Measured, begin, keep
from tirnas.bilevel import apply_gradients, frozen, gradients
from tirnas.core import UserError, load_params, seed_everything
from tirnas.data.episodes import Episodes
from tirnas.nets.depthwise import DepthwiseConv
from tirnas.nets.fused import FusedCell
from tirnas.nets.relaxation import PLAIN
from tirnas.nets.supernet import Supernet, plain_cell
from tirnas.objective import SearchNet, SearchParams, classify
from tirnas.search import fresh_run, move_alpha, move_weights

ROOT = Path(__file__).parent.parent
FORMS = {"usual": "one module an operation, all gradients in both passes, all cells",
         "alpha": "... and the architecture pass asks for the gradients of alpha alone",
         "depthwise": "... and depth-wise gradients as convolutions",
         "stop": "... and no cells behind the last map that is read",
         "fused-all": "fused cells, gradients of alpha alone, all cells",
         "fused": "fused cells, as the search runs them"}


def make_net(form: str, params: SearchParams, device: torch.device) -> SearchNet:
    "The network of one form, with the classifier of the recipe."
    make_cell = FusedCell if form.startswith("fused") else plain_cell
    net = SearchNet(Supernet(params.macro, params.rate, params.selection, make_cell=make_cell), params).to(device)
    if form in ("usual", "alpha"):
        for module in net.modules():
            if isinstance(module, DepthwiseConv): module.__class__ = nn.Conv2d
    if form not in ("stop", "fused"): net.backbone.strides = (8, 16)
    return net


def bilevel_step(net: SearchNet, batches: list, optimisers: list, params: SearchParams, form: str, bf16: bool) -> None:
    "Move alpha on the first batch, then the weights on the second."
    alpha, weights = net.alpha_parameters(), net.weight_parameters()
    device = batches[0][0].device.type
    for batch, moving, resting, optimiser, clip in zip(batches, (alpha, weights), (weights, alpha), optimisers, (float("inf"), params.weights.clip)):
        with frozen([] if form == "usual" else resting):
            with torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext():
                loss = classify(net, *batch, params).loss
            if form == "usual":
                grads = gradients(loss, [*moving, *resting])[:len(moving)]
            else: grads = gradients(loss, moving)
            apply_gradients(grads, moving, optimiser, clip)


def measure(form: str, params: SearchParams, device: torch.device, steps: int, bf16: bool) -> dict:
    "Seconds a step (median) and peak memory of the steps, MB."
    seed_everything(0)
    net = make_net(form, params, device)
    p, k, side = params.episodes.num_pedestrians, params.episodes.num_frames, params.episodes.crop_px
    box = torch.tensor([side * 0.4, side * 0.3, side * 0.2, side * 0.4], device=device)
    batches = [(torch.randn(p, k, 1, side, side, device=device), box.expand(p, k, 4).clone()) for _ in range(2)]
    optimisers = [params.alpha.make(net.alpha_parameters()), params.weights.make(net.weight_parameters())]
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(steps + 2):
        sync()
        start = time.perf_counter()
        bilevel_step(net, batches, optimisers, params, form, bf16)
        sync()
        times.append(time.perf_counter() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else grown
    return {"seconds": statistics.median(times[2:]), "memory": memory}


def run(form: str, args: argparse.Namespace, rate: int | None = None) -> dict:
    "Measure one form in a fresh process."
    command = [sys.executable, __file__, "--form", form, "--recipe", args.recipe, "--steps", str(args.steps), "--device", args.device]
    command += ["--threads", str(args.threads)] + (["--rate", str(rate)] if rate else []) + (["--bf16"] if args.bf16 else [])
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": done.stderr.strip().splitlines()[-1]}


def compare(args: argparse.Namespace, params: SearchParams) -> None:
    "Print all forms, interleaved over the rounds."
    began, rounds = begin(), [{form: run(form, args) for form in FORMS} for _ in range(args.rounds)]
    images = 2 * params.episodes.num_pedestrians * params.episodes.num_frames
    print(f"recipe {args.recipe}, {args.device}{' bf16' if args.bf16 else ''}, {args.threads} thread(s), torch {torch.__version__}, "
          f"{images} images a step, median of {args.steps} steps in each of {args.rounds} rounds")
    print(f"{'form':10} {'s a step':>9} {'range over rounds':>18} {'images/s':>9} {'memory MB':>10} {'speed':>6}")
    seconds = {form: [r[form]["seconds"] for r in rounds] for form in FORMS}
    usual = statistics.median(seconds["usual"])
    for form, what in FORMS.items():
        middle = statistics.median(seconds[form])
        spread = f"{min(seconds[form]):.3f} to {max(seconds[form]):.3f}"
        memory = statistics.median(r[form]["memory"] for r in rounds)
        print(f"{form:10} {middle:9.3f} {spread:>18} {images / middle:9.0f} {memory:10.0f} {usual / middle:6.2f}  {what}")
    keep("search", [Measured(f"{form}: {what}", unit, [r[form][key] for r in rounds]) for form in FORMS
                    for what, unit, key in (("step", "s", "seconds"), ("memory", "MB", "memory"))], began)


def show_memory(args: argparse.Namespace) -> None:
    "Print time and peak memory of the usual and the fused form for several K."
    print(f"{'form':10} {'K':>2} {'s a step':>9} {'memory MB':>10}")
    for form in ("usual", "fused-all", "fused"):
        for rate in (1, 2, 4, 8):
            found = run(form, args, rate)
            print(f"{form:10} {rate:2} " + (found["error"] if "error" in found else f"{found['seconds']:9.3f} {found['memory']:10.0f}"))


OPTIONS = {"first order, as the paper": {}, "second order": dict(order="second"), "auxiliary head": dict(auxiliary=0.4),
           "sampled edges": dict(relaxation=dataclasses.replace(PLAIN, sampled=True)),
           "sampled edges, K = 1": dict(rate=1, relaxation=dataclasses.replace(PLAIN, sampled=True)),
           "edge normalisation": dict(relaxation=dataclasses.replace(PLAIN, edge_normalisation=True)),
           "skip dropout, drop-path": dict(relaxation=dataclasses.replace(PLAIN, skip_dropout=0.3, drop_path=0.2))}


def show_options(args: argparse.Namespace, params: SearchParams) -> None:
    "Print the seconds of the two updates of a step for each option."
    print(f"{'option':26} {'alpha, s':>9} {'weights, s':>10}")
    p, k, side = params.episodes.num_pedestrians, params.episodes.num_frames, params.episodes.crop_px
    boxes = np.tile([side * 0.4, side * 0.3, side * 0.2, side * 0.4], (p, k, 1))
    batch = Episodes(np.random.default_rng(0).normal(size=(p, k, 1, side, side)).astype(np.float32), boxes, ("",) * p, np.zeros((p, k)))
    for name, change in OPTIONS.items():
        run, times = fresh_run(dataclasses.replace(params, **change), torch.device(args.device)), []
        for _ in range(args.steps + 1):
            marks = [time.perf_counter()]
            for move in (move_alpha, move_weights):
                move(run, {"weight": [(0, batch)], "arch": [(0, batch)]})
                marks.append(time.perf_counter())
            times.append([b - a for a, b in zip(marks, marks[1:])])
        alpha, weights = (statistics.median(column) for column in zip(*times[1:]))
        print(f"{name:26} {alpha:9.3f} {weights:10.3f}", flush=True)


def main() -> None:
    "Read the arguments and run what they ask for."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--options", action="store_true")
    parser.add_argument("--rate", type=int)
    parser.add_argument("--form", choices=FORMS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if min(args.steps, args.rounds) < 1: parser.error("--steps and --rounds must be at least 1")
    try: params = load_params(SearchParams, "search", args.recipe, ROOT / "params.yaml")
    except UserError as e: parser.error(str(e))
    if args.rate: params = dataclasses.replace(params, rate=args.rate)
    if args.form: print(json.dumps(measure(args.form, params, torch.device(args.device), args.steps, args.bf16)))
    elif args.memory: show_memory(args)
    elif args.options: show_options(args, params)
    else: compare(args, params)


if __name__ == "__main__": main()
