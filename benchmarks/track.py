"""Success, speed and cost of models beside OpenCV's CSRT and a DiMP-18 in the same framework, on one machine in one run.

    python benchmarks/track.py                                      every known model on SimTIR
    python benchmarks/track.py --models base mini --jobs 2
    python benchmarks/track.py --data samples path/to/sequence --shifts
    python benchmarks/track.py --only speed --threads 2             or scores, macs, state
    python benchmarks/track.py --quick                              a few short sequences: does it run?

Scores: every tracker starts at `--starts` frames of each sequence (the first valid ones from evenly spaced places of its
first half on) and runs to the end. Differences are paired by sequence, their 95 % intervals from 10,000 drawings of
sequences; `all` averages the starts of a sequence first. `--shifts` moves the first box by -1, 0 and 1 px both ways.

Speed: a tracker runs in a process of its own on frames read before, one process after the other, interleaved over rounds;
torch and OpenCV get the same number of threads. Starting and the first update of each sequence are timed apart.

DiMP-18 is ResNet-18 with DiMP's sizes of head and box branch in our framework, weights random, on crops of the same size
as the model's; it lacks the residual block of the published head (1.18 M parameters), so it is the lighter one. It refines
its box and learns in every frame, as it would on a target that is never lost and has no rival, and its box keeps its size,
so that random weights cannot make it faster or slower.

State (only where asked for): what a model says of itself, frame by frame from the first valid one on, beside the truth: of
frames whose box does not touch the target, and of the others, how many read held, uncertain and lost; how well confidence
tells the two apart (area under the ROC curve, boxes of IoU above 0.3 against those of 0); and in how many frames a rival
was told from the target by its distance.

MACs: of convolutions and matrix products, backward passes of the ascent included; steps of the filter beside a distractor
are not part of the sum by parts. `as tracked` is the mean over the frames of a sequence, memory filling, all steps counted.
"""
import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from history import Measured, begin, keep
from tirnas.benchmark import RunFailed, run_benchmark, start_at
from tirnas.boxes import check_box, iou
from tirnas.budget import BY_BRANCH, part_costs
from tirnas.core import UserError, seed_everything, use_threads
from tirnas.data.sequences import Sequence, open_dataset, to_file
from tirnas.dimp.card import ModelCard, load_model, save_model
from tirnas.dimp.net import HeadSettings, TrackingNet
from tirnas.dimp.online import BoxSettings, PeakSettings, TrackSettings
from tirnas.evaluation import truth_of
from tirnas.intervals import bootstrap_means, interval, resample_counts
from tirnas.machine import cores, processor
from tirnas.metrics import OFFICIAL
from tirnas.multistart import valid_starts
from tirnas.nets.cost import CostRow, macs_of
from tirnas.peaks import find_peak
from tirnas.scoring import score_folder
from tirnas.tracker import Tracker, find_model, known_models
from tirnas.trackers import Contender, make_tracker

ROOT = Path(__file__).parent.parent
FLOOR, BASELINES = "csrt", ("csrt", "constant")
SCORES = ("success", "precision")
SHIFTS_PX = tuple(itertools.product((-1, 0, 1), repeat=2))
PAPER_PARAMETERS = 5_310_000
QUICK = {"sequences": 4, "sequence_frames": 32, "rounds": 1, "frames": 8, "threads": [1]}


# --- scores

def start_frames(truth_xywh: np.ndarray, count: int) -> list[int]:
    "Frames, from 0, at which a sequence is started; `truth_xywh` (N, 4) in file convention."
    valid = valid_starts(truth_xywh)
    wanted = np.linspace(0, 0.5, count) * len(truth_xywh)
    return valid[np.minimum(np.searchsorted(valid, wanted), len(valid) - 1)].tolist()


def starts_of(sequence: Sequence, count: int) -> list[Sequence]:
    "The sequence from each start on."
    truth = to_file(sequence.boxes_xywh, sequence.origin)
    try: frames = start_frames(truth, count)
    except UserError as e: raise UserError(f"{sequence.name}: {e}") from e
    return [start_at(sequence, k, first, truth[first]) for k, first in enumerate(frames)]


def shifts_of(sequence: Sequence) -> list[Sequence]:
    "The sequence from its first start on, its first box moved by each of SHIFTS_PX."
    first, = starts_of(sequence, 1)
    box = to_file(first.boxes_xywh[0], first.origin)
    return [start_at(first, k, 0, box + (*step, 0, 0)) for k, step in enumerate(SHIFTS_PX)]


class Plan(NamedTuple):
    "What is tracked of a data set: for each sequence its starts; and the true boxes that count, in the same order."
    tracked: list[list[Sequence]]
    truths: list[list[Sequence]]

    @classmethod
    def of(cls, sequences: list[Sequence], starts: int, shifted: bool) -> "Plan":
        "All starts of all sequences; a moved first box is no truth."
        if not shifted: return cls(*[[starts_of(s, starts) for s in sequences]] * 2)
        tracked, first = [shifts_of(s) for s in sequences], [starts_of(s, 1)[0] for s in sequences]
        return cls(tracked, [[s.replace(boxes_xywh=f.boxes_xywh) for s in group] for group, f in zip(tracked, first)])


def score(who: Contender, plan: Plan, out: Path, jobs: int) -> dict[str, np.ndarray]:
    "Track all starts; each score as (sequences, starts)."
    folder = run_benchmark(who, list(itertools.chain(*plan.tracked)), out, jobs, progress=sys.stderr.isatty())
    found = score_folder(folder, truth_of(list(itertools.chain(*plan.truths))), OFFICIAL, who.label)[0]["per_sequence"]
    return {m: np.array([[found[s.name][m] for s in group] for group in plan.tracked]) for m in SCORES}


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float] | None:
    "Mean difference of scores (S,) paired by sequence, and its 95 % interval; None for a single sequence."
    if len(ours) < 2: return None
    gaps = ours - theirs
    return float(gaps.mean()), *map(float, interval(bootstrap_means(gaps, resample_counts(len(gaps)))))


def in_words(ours: np.ndarray, theirs: np.ndarray) -> str:
    "The difference of scores (S,) and its interval, if there is one."
    gap = difference(ours, theirs)
    return f"{ours.mean() - theirs.mean():+.3f} (one sequence)" if gap is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gap)


def score_lines(label: str, scores: dict[str, np.ndarray], floor: dict[str, np.ndarray]) -> list[str]:
    "A line for each start, and one for all."
    starts = scores[SCORES[0]].shape[1]
    each = {str(k + 1): slice(k, k + 1) for k in range(starts)} if starts > 1 else {}
    lines = []
    for name, part in (each | {"all": slice(None)}).items():
        texts = []
        for metric in SCORES:
            ours, theirs = (s[metric][:, part].mean(1) for s in (scores, floor))
            texts.append(f"{ours.mean():9.3f}  {'' if label == FLOOR else in_words(ours, theirs):24}")
        lines.append(f"{label:16} {name:>5} " + " ".join(texts))
    return lines


def show_scores(data: Path, sequences: list[Sequence], contenders: list[Contender], work: Path, args: argparse.Namespace) -> dict:
    "Print success and precision on one data set; return success and its difference from the floor by tracker."
    plan = Plan.of(sequences, args.starts, False)
    scores = {who.label: score(who, plan, work / "starts", args.jobs) for who in contenders}
    frames = sum(len(start) for group in plan.tracked for start in group)
    print(f"\n{short(data)}: {len(sequences)} sequence(s), {args.starts} start(s) of each, {frames} frames a tracker")
    print(f"{'tracker':16} {'start':>5} " + " ".join(f"{m:>9}  {f'minus {FLOOR} [95 %]':24}" for m in SCORES))
    for label, found in scores.items(): print("\n".join(score_lines(label, found, scores[FLOOR])), flush=True)
    if args.shifts: show_shifts(sequences, contenders, work, args.jobs)
    means = {label: found["success"].mean(1) for label, found in scores.items()}
    return {label: (float(m.mean()), difference(m, means[FLOOR]), float(means[FLOOR].mean())) for label, m in means.items()}


def show_shifts(sequences: list[Sequence], contenders: list[Contender], work: Path, jobs: int) -> None:
    "Print how success swings with the first box taken a pixel off."
    plan = Plan.of(sequences, 1, True)
    print(f"first box moved by -1, 0, 1 px in x and y ({len(SHIFTS_PX)} ways), from the first start on")
    print(f"{'tracker':16} {'success, mean':>14} {'range over ways':>18} {'as given':>9} {'range within a sequence, mean':>30}")
    for who in contenders:
        found = score(who, plan, work / "shifts", jobs)["success"]
        ways, within = found.mean(0), np.ptp(found, axis=1).mean()
        spread, given = f"{ways.min():.3f} to {ways.max():.3f}", ways[SHIFTS_PX.index((0, 0))]
        print(f"{who.label:16} {ways.mean():14.3f} {spread:>18} {given:9.3f} {within:30.3f}", flush=True)


# --- what a model says of itself

class Said(NamedTuple):
    "Of one frame: overlap with the truth, status, confidence, and whether distance decided between two peaks."
    overlap: float
    status: str
    confidence: float
    by_distance: bool


def by_distance(tracker: Tracker, before_xywh: np.ndarray) -> bool:
    "Whether a rival as high as the target stood in the last map, and one of the two was far from the last box."
    peaks = dataclasses.replace(tracker.settings.peaks, hard_negative=np.inf)
    window, scores, *_ = tracker.last
    return find_peak(scores, window.to_crop(before_xywh), tracker.net.heads.cls_stride, tracker.net.heads.filter_size, peaks).verdict == "hard"


def said_of(tracker: Tracker, sequence: Sequence) -> list[Said]:
    "What a tracker says in each frame after the first that has a true box."
    tracker.init(sequence.frame(0), sequence.boxes_xywh[0])
    said = []
    for t in range(1, len(sequence)):
        before, true = tracker.box, sequence.boxes_xywh[t]
        box, state = tracker.update(sequence.frame(t))
        if np.isfinite(true).all() and (true[2:] > 0).all():
            said.append(Said(float(iou(box, true)), state.status, state.confidence, by_distance(tracker, before)))
    return said


def roc_area(good: np.ndarray, bad: np.ndarray) -> float:
    "Chance that one of the good values is above one of the bad ones; a half where they are equal."
    return float(((good[:, None] > bad) + 0.5 * (good[:, None] == bad)).mean()) if len(good) and len(bad) else float("nan")


def show_state(paths: dict[str, Path], sequences: list[Sequence]) -> None:
    "Print what each model says of its boxes, found and lost."
    print(f"\n{'model':16} {'boxes':10} {'frames':>7} {'held':>6} {'uncertain':>10} {'lost':>6} {'confidence, median':>19}")
    for label, path in paths.items():
        tracker = Tracker.load(path)
        said = [s for sequence in sequences for s in said_of(tracker, starts_of(sequence, 1)[0])]
        for name, part in (("IoU above 0", [s for s in said if s.overlap > 0]), ("IoU 0", [s for s in said if s.overlap == 0])):
            counts = [sum(s.status == status for s in part) for status in ("held", "uncertain", "lost")]
            middle = float(np.median([s.confidence for s in part])) if part else float("nan")
            print(f"{label:16} {name:11} {len(part):6} {counts[0]:6} {counts[1]:10} {counts[2]:6} {middle:19.3f}")
        good, bad = (np.array([s.confidence for s in said if test(s.overlap)]) for test in (lambda o: o > 0.3, lambda o: o == 0))
        print(f"{label:16} ROC area of confidence {roc_area(good, bad):.3f}; distance decided in {sum(s.by_distance for s in said)} of {len(said)} frames", flush=True)


# --- DiMP-18

DIMP_TRACK = TrackSettings(update_every=20, peaks=PeakSettings(not_found=-1e9, window=0.0, neighbourhood=1e9),
                           box=BoxSettings(size_from="ascent", rounds=5, num_boxes=10, size_rate=0.0))
DIMP_HEADS = HeadSettings(cls_stride=16, cls_dim=256, filter_size=4, iou_dim=256)


def dimp_label(card: ModelCard) -> str:
    "What the DiMP-18 beside a model is called: by its crops."
    return f"dimp18_{card.crop_px}px_x{card.search_factor:g}"


def save_dimp(folder: Path, like: ModelCard) -> Path:
    "A model file of a DiMP-18 with random weights that sees the same crops as another model."
    seed_everything(0)
    card = ModelCard(None, None, DIMP_HEADS, like.crop_px, like.search_factor, {"weights": "random"}, "resnet18", DIMP_TRACK)
    return save_model(folder / f"{dimp_label(like)}.safetensors", card.build(), card)


# --- speed

def spread_out(sequences: list[Sequence], count: int) -> list[Sequence]:
    "At most `count` of the sequences, evenly spaced."
    return [sequences[i] for i in np.unique(np.linspace(0, len(sequences) - 1, count).round().astype(int))]


def time_tracker(word: str, sequences: list[Sequence], frames: int, threads: int) -> dict:
    "Frames per second of updates over all sequences, and ms of starting (median)."
    tracker, starts, seconds = make_tracker(word), [], []
    use_threads(threads)
    for sequence in sequences:
        pictures = [sequence.frame(t) for t in range(min(frames + 2, len(sequence)))]
        box = check_box(sequence.boxes_xywh[0], pictures[0].shape[:2])
        tracker.init(pictures[0], box)
        tracker.update(pictures[1])
        start = time.perf_counter()
        tracker.init(pictures[0], box)
        starts.append(time.perf_counter() - start)
        tracker.update(pictures[1])
        for picture in pictures[2:]:
            start = time.perf_counter()
            tracker.update(picture)
            seconds.append(time.perf_counter() - start)
    return {"fps": len(seconds) / sum(seconds), "init_ms": 1000 * statistics.median(starts)}


def timed_apart(word: str, threads: int, args: argparse.Namespace) -> dict:
    "What `time_tracker` finds in a fresh process."
    command = [sys.executable, __file__, "--time", word, "--threads", str(threads), "--frames", str(args.frames)]
    command += ["--data", str(args.data[0])] + (["--layout", args.layout] if args.layout else []) + (["--quick"] if args.quick else [])
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TIRNAS_THREADS")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict.fromkeys(names, str(threads)))
    if done.returncode: raise UserError(f"{word} could not be timed: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def show_speed(words: dict[str, str], cards: dict[str, ModelCard], sequences: list[Sequence], args: argparse.Namespace) -> dict:
    "Print frames per second of all trackers by threads; return the medians by (label, threads)."
    began, cases = begin(), list(itertools.product(args.threads, words))
    rounds = [{case: timed_apart(words[case[1]], case[0], args) for case in cases} for _ in range(args.rounds)]
    print(f"\nspeed on {', '.join(s.name for s in sequences)}, up to {args.frames} updates each, {args.rounds} round(s), "
          f"load {os.getloadavg()[0]:.1f} at the end")
    print(f"{'tracker':24} {'threads':>7} {'frames/s':>9} {'range over rounds':>18} {'start, ms':>10}  compared")
    medians = {(label, n): statistics.median(r[n, label]["fps"] for r in rounds) for n, label in cases}
    for n, label in cases:
        fps, starts = ([r[n, label][key] for r in rounds] for key in ("fps", "init_ms"))
        others = [FLOOR, dimp_label(cards[label])] if label in cards else []
        compared = ", ".join(f"{medians[label, n] / medians[other, n]:.2f} x {other}" for other in others)
        spread = f"{min(fps):.1f} to {max(fps):.1f}"
        print(f"{label:24} {n:7} {medians[label, n]:9.1f} {spread:>18} {statistics.median(starts):10.1f}  {compared}")
    if not args.quick: keep("track", [Measured(f"{label}, {n} thread(s)", "frames/s", [r[n, label]["fps"] for r in rounds]) for n, label in cases], began)
    return medians


# --- multiply-accumulates and parameters

def tracked_macs(net: TrackingNet, card: ModelCard, sequence: Sequence, frames: int) -> tuple[int, float]:
    "Multiply-accumulates of the first frame, and their mean over the updates after it, while tracking."
    tracker, pictures = Tracker(net, card), [sequence.frame(t) for t in range(min(frames + 1, len(sequence)))]
    first = macs_of(lambda: tracker.init(pictures[0], check_box(sequence.boxes_xywh[0], pictures[0].shape[:2])))
    return first, statistics.mean(macs_of(lambda: tracker.update(picture)) for picture in pictures[1:])


def describe(track: TrackSettings) -> str:
    "The settings that decide the cost, in words."
    way = track.box.size_from
    fit = f"{track.box.num_boxes} boxes, {track.box.rounds} rounds of {way}" if way in BY_BRANCH else f"no box branch ({way})"
    return f"update of {track.update_steps} steps on {track.memory.size} samples every {track.update_every} frames, {fit}"


def show_macs(paths: dict[str, Path], cards: dict[str, ModelCard], sequence: Sequence, frames: int) -> dict[str, CostRow]:
    "Print parameters and MACs of each part of each network; return the totals."
    totals = {}
    for label, path in paths.items():
        net, card = load_model(path)
        rows = part_costs(net, card)
        first, mean = tracked_macs(net, card, sequence, frames)
        totals[label] = rows[-1]
        print(f"\n{label}: {card.backbone} backbone, crops of {card.crop_px} px, {describe(card.track)}")
        print(f"{'part':20} {'parameters':>11} {'MMACs a frame':>14} {'share':>6}")
        for row in rows: print(f"{row.part:20} {row.parameters:11,} {row.macs / 1e6:14.2f} {row.macs / rows[-1].macs:6.1%}")
        where = f"({sequence.name}; first frame {first / 1e6:.1f} MMACs)"
        print(f"{'as tracked':20} {'':11} {mean / 1e6:14.2f}        {where}", flush=True)
    for label, card in cards.items():
        print(f"{label}: {totals[label].macs / totals[dimp_label(card)].macs:.3f} of the MACs of {dimp_label(card)}, "
              f"{totals[label].parameters / PAPER_PARAMETERS:.3f} of the paper's 5.31 M parameters")
    return totals


# --- goals

def goal_rows(label: str, card: ModelCard, scores: dict[str, dict], fps: dict, totals: dict[str, CostRow]) -> list[tuple]:
    "What was aimed at, the aim, what was found, and whether it was reached; of the parts that ran."
    rows, dimp = [], dimp_label(card)
    for data, found in scores.items():
        success, gap, floor = found[label]
        text, far = f"{success:.3f}, {FLOOR} {floor:.3f}", success > floor
        figure = f"success on {Path(data).name}"
        if gap is None: rows.append((figure, f"above {FLOOR}'s", text, far))
        else:
            text += ", difference {:+.3f} [{:+.3f}, {:+.3f}]".format(*gap)
            rows.append((figure, f"0.10 above {FLOOR}, interval above 0", text, gap[0] >= 0.1 and gap[1] > 0))
    for threads in sorted({n for _, n in fps}):
        ours, theirs, other = (fps[name, threads] for name in (label, FLOOR, dimp))
        figure = f"frames/s, {threads} thread(s)"
        rows.append((figure, f"at least {FLOOR}'s", f"{ours:.1f}, {FLOOR} {theirs:.1f}", ours >= theirs))
        rows.append((figure, f"4 x {dimp}", f"{ours / other:.2f} x", ours >= 4 * other))
    if totals:
        ours, other = totals[label], totals[dimp]
        rows.append(("MACs", f"a quarter of {dimp}", f"{ours.macs / other.macs:.3f}", 4 * ours.macs <= other.macs))
        rows.append(("parameters", "at most 5.31 M", f"{ours.parameters / 1e6:.2f} M", ours.parameters <= PAPER_PARAMETERS))
    return rows


def machine() -> str:
    "The processor, the cores that may be used, the load and the libraries."
    return f"{processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, OpenCV {cv2.__version__}"


# --- arguments

def parse() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    "Read and check the arguments."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="names or files; default: every known model")
    where = "data sets; speed and MACs are measured on the first"
    parser.add_argument("--data", nargs="+", type=Path, default=[ROOT / "samples"], help=where)
    parser.add_argument("--layout", help="of the data sets; default: what is found")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--shifts", action="store_true")
    parser.add_argument("--only", nargs="+", choices=("scores", "speed", "macs", "state"), default=["scores", "speed", "macs"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=62, help="timed updates of a sequence")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--time", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ("starts", "rounds", "frames", "jobs"):
        if getattr(args, name) < 1: parser.error(f"--{name} must be at least 1")
    if min(args.threads) < 1: parser.error("--threads must be at least 1")
    if args.quick: args.rounds, args.frames, args.threads = QUICK["rounds"], min(args.frames, QUICK["frames"]), args.threads[:1]
    return parser, args


def open_data(data: Path, args: argparse.Namespace) -> list[Sequence]:
    "The sequences of a data set; the first few, cut short, if it shall be quick."
    sequences = open_dataset(data, args.layout)
    if not sequences: raise UserError(f"{data} holds no sequence: give a data set or a sequence")
    if not args.quick: return sequences
    end = QUICK["sequence_frames"]
    return [s.replace(frame_paths=s.frame_paths[:end], boxes_xywh=s.boxes_xywh[:end]) for s in sequences[:QUICK["sequences"]]]


def timed_sequences(args: argparse.Namespace) -> list[Sequence]:
    "The sequences that speed is measured on, each from its first valid frame."
    return [starts_of(s, 1)[0].replace(name=s.name) for s in spread_out(open_data(args.data[0], args), 3)]


def short(data: Path) -> str:
    "A data set as tables name it."
    return str(data.relative_to(ROOT)) if data.is_relative_to(ROOT) else str(data)


def find_contenders(args: argparse.Namespace) -> dict[str, Path]:
    "Label -> file of the models."
    words = args.models or list(known_models())
    if not words: raise UserError("no model is known yet: run `make repro`, or give model files with --models")
    labels = [Contender.of(word).label for word in words]
    twice = [label for label in [*labels, *BASELINES] if [*labels, *BASELINES].count(label) > 1]
    if twice: raise UserError(f"two trackers would be called {twice[0]!r}: rename a model file, or give it once")
    return {label: find_model(word) for label, word in zip(labels, words)}


def run(args: argparse.Namespace, folder: Path) -> None:
    "Measure and print what is asked for."
    models = find_contenders(args)
    cards = {label: load_model(path)[1] for label, path in models.items()}
    opened = {data: open_data(data, args) for data in args.data}
    warning = "; QUICK: these figures mean nothing" if args.quick else ""
    print(f"{machine()}; {args.jobs} job(s) of one thread for scores{warning}")
    scores, fps, totals = {}, {}, {}
    if "scores" in args.only:
        contenders = [*(Contender.of(path, label) for label, path in models.items()), *map(Contender.of, BASELINES)]
        for number, (data, sequences) in enumerate(opened.items()):
            scores[short(data)] = show_scores(data, sequences, contenders, folder / str(number), args)
    dimps = {dimp_label(card): save_dimp(folder, card) for card in cards.values()} if {"speed", "macs"} & set(args.only) else {}
    if "speed" in args.only:
        words = {label: str(path) for label, path in (models | {FLOOR: FLOOR} | dimps).items()}
        fps = show_speed(words, cards, timed_sequences(args), args)
    if "state" in args.only:
        for sequences in opened.values(): show_state(models, sequences)
    if "macs" in args.only: totals = show_macs(models | dimps, cards, timed_sequences(args)[0], args.frames)
    print(f"\n{'model':16} {'figure':34} {'goal':40} {'found':56} reached")
    for label, card in cards.items():
        for figure, goal, found, reached in goal_rows(label, card, scores, fps, totals):
            print(f"{label:16} {figure:34} {goal:40} {found:56} {'yes' if reached else 'no'}")


def main() -> None:
    "Do what the arguments ask for; bad input is one sentence."
    parser, args = parse()
    try:
        use_threads(1)
        if args.time: return print(json.dumps(time_tracker(args.time, timed_sequences(args), args.frames, args.threads[0])))
        with tempfile.TemporaryDirectory() as folder: run(args, Path(folder))
    except (UserError, RunFailed) as e: parser.error(str(e))


if __name__ == "__main__": main()
