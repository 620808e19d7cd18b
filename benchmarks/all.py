"""The time budget: start-up, data, search, retraining, the tracker part by part, evaluation, and the size of what ships.

    python benchmarks/all.py                                every part, three rounds, a few minutes
    python benchmarks/all.py --only track loader --rounds 5

Each part runs in a process of its own with one thread, one after the other, and the rounds are interleaved, so that what
disturbs the machine disturbs all parts. Within a part the first call warms up and is not counted. The table gives the median
over rounds and the spread; the run is kept in benchmarks/history.jsonl (benchmarks/history.py). The sizes are those of a
quick look: search.py, loader.py, memory.py, scoring.py, track.py and export.py measure each thing thoroughly.
"""
import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from history import Measured, begin, keep, table
from tirnas.core import UserError, load_params, use_threads

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
Figures = dict[str, tuple[str, float]]      # name -> unit, value
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TIRNAS_THREADS"), "1")


def seconds_of(work: Callable[[], object]) -> float:
    "Seconds that a call takes."
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# --- parts

def startup() -> Figures:
    "Seconds of whole processes: version, import, and a track of two frames from the command to its box file."
    from tirnas.data.sequences import open_dataset, write_sequence
    sequence = open_dataset(SAMPLES)[0]
    box = ",".join(f"{v:.1f}" for v in sequence.boxes_xywh[0])
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(Path(folder) / "two", [sequence.frame(0), sequence.frame(1)], sequence.boxes_xywh[:2])
        track = ["-m", "tirnas", "track", f"{folder}/two/img", "--box", box, "--out", f"{folder}/boxes.txt"]
        commands = {"tirnas --version": ["-m", "tirnas", "--version"], "import tirnas": ["-c", "import tirnas"],
                    "tirnas track, two frames, torch": track, "tirnas track, two frames, onnx": [*track, "--engine", "onnx"]}
        def once(words): subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=ROOT)
        for words in commands.values(): once(words)
        return {f"start: {name}": ("s", seconds_of(lambda words=words: once(words))) for name, words in commands.items()}


def prepare() -> Figures:
    "Frames a second that are rendered, and written as the prepare stage does it, by one process."
    from tirnas.data.prepare import PrepareParams, find_training
    from tirnas.speed import speed_scene
    speed_scene(2)
    painted = seconds_of(lambda: speed_scene(60))
    params = load_params(PrepareParams, "prepare", "mini", ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        few = dataclasses.replace(params, sequences=3)
        taken = seconds_of(lambda: find_training(few, Path(folder), Path(folder) / "rendered"))
    return {"prepare: rendering": ("frames/s", 60 / painted), "prepare: planning, rendering, writing": ("frames/s", few.sequences * few.frames / taken)}


def loader() -> Figures:
    "Training crops a second from one thread, at the mini recipe."
    from tirnas.data.episodes import EpisodeSampler, crops_per_second
    from tirnas.data.sequences import open_dataset
    from tirnas.retrain import RetrainParams
    params = load_params(RetrainParams, "retrain", "mini", ROOT / "params.yaml")
    sampler = EpisodeSampler(open_dataset(SAMPLES), params.episodes, params.augmentation, params.seed)
    for step in range(3): sampler(step)
    return {"loader: one thread": ("crops/s", crops_per_second(sampler, range(3, 33)))}


def search() -> Figures:
    "Seconds of a step of the search, the usual implementation beside ours."
    import torch
    from search import measure
    from tirnas.objective import SearchParams
    params = load_params(SearchParams, "search", "mini", ROOT / "params.yaml")
    found = {form: measure(form, params, torch.device("cpu"), 3, False) for form in ("usual", "fused")}
    return {f"search: step, {name}": ("s", found[form]["seconds"]) for name, form in (("usual implementation", "usual"), ("ours", "fused"))}


def retrain() -> Figures:
    "Seconds of an update of retraining, and its peak memory."
    from memory import updates
    seconds, peak = updates("mini", 4, True)
    return {"retrain: update": ("s", seconds), "retrain: peak memory": ("MB", peak)}


def evaluate() -> Figures:
    "Seconds of scoring one tracker on 120 sequences with intervals, and of a bootstrap of 10,000 drawings."
    import numpy as np
    from scoring import invent, once
    from tirnas.intervals import bootstrap_means, interval, resample_counts
    with tempfile.TemporaryDirectory() as folder:
        frames = invent(Path(folder), 1)
        once(Path(folder), "official")
        scored = once(Path(folder), "official")["evaluate"]
    gaps = np.random.default_rng(0).normal(size=120)
    def draw(): interval(bootstrap_means(gaps, resample_counts(len(gaps))))
    draw()
    return {"evaluate: scoring with intervals": ("frames/s", frames / scored), "evaluate: bootstrap, 120 sequences": ("ms", 1000 * seconds_of(draw))}


def track() -> Figures:
    "Milliseconds of a mean frame by part, and frames a second, of both models on both engines."
    from parts import time_track
    found = {}
    for model in ("base", "mini"):
        for engine in ("torch", "onnx"):
            for part, unit, value in time_track(model, engine, SAMPLES): found[f"{model}, {engine}: {part}"] = unit, value
    return found


def sizes() -> Figures:
    "Megabytes of what ships."
    models = ROOT / "tirnas" / "models"
    size = lambda files: ("MB", sum(p.stat().st_size for p in files) / 1e6)
    return {**{f"size: {p.stem}, torch": size([p]) for p in sorted(models.glob("*.safetensors"))},
            **{f"size: {p.name}, ONNX graphs": size(p.glob("*.onnx")) for p in sorted((models / "onnx").iterdir())}}


PARTS = {part.__name__: part for part in (startup, prepare, loader, search, retrain, track, evaluate, sizes)}


# --- rounds

def apart(part: str) -> Figures:
    "What a part finds in a fresh process of one thread."
    done = subprocess.run([sys.executable, __file__, "--one", part], text=True, capture_output=True, env=os.environ | ONE_THREAD)
    if done.returncode: raise UserError(f"{part} could not be measured: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
    return {name: tuple(found) for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


def joined(rounds: list[Figures]) -> list[Measured]:
    "The values of all rounds, figure by figure."
    return [Measured(name, unit, [figures[name][1] for figures in rounds]) for name, (unit, _) in rounds[0].items()]


def all_rounds(parts: list[str], count: int) -> list[Figures]:
    "What the rounds find, part after part; Ctrl-C ends them, and the rounds that are whole count."
    rounds = []
    try:
        for number in range(count):
            found = {}
            for part in parts:
                print(f"round {number + 1} of {count}: {part}", file=sys.stderr, flush=True)
                found |= apart(part)
            rounds.append(found)
    except KeyboardInterrupt:
        if not rounds: raise
        print(f"stopped: {len(rounds)} of {count} rounds are whole", file=sys.stderr)
    return rounds


def main() -> None:
    "Measure what is asked for, print it, keep it."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds < 1: parser.error("--rounds must be at least 1")
    if args.one:
        use_threads(1)
        return print(json.dumps(PARTS[args.one]()))
    began, rounds = begin(), all_rounds(args.only, args.rounds)
    rows = joined(rounds)
    print(f"{len(rounds)} rounds, one thread, load at the start {began['load_at_start']}", *table(rows), sep="\n")
    keep("all", rows, began)


if __name__ == "__main__":
    try: main()
    except UserError as e: sys.exit(f"benchmark: {e}")
