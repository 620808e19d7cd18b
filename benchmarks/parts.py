"""Where the time of a frame goes while a model really tracks: crop, backbone, head, filter, refinement, and the rest.

    python benchmarks/parts.py [--models base mini] [--engines torch onnx] [--frames 40]

The functions that the tracker calls are timed from outside, on three SimTIR sequences read before. `tirnas bench` times the
parts of a torch tracker alone, which leaves out crops, the peak and Python. On ONNX Runtime one graph holds the backbone,
the head and the filter's application, so these are one part there.
"""
import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from tirnas.data.sequences import Sequence, open_dataset
from tirnas.follow import load_tracker

ROOT = Path(__file__).parent.parent
OF_TORCH = {"crop_frame": "crop", "normalise": "crop", "see": "backbone", "apply_filter": "filter, application", "find_peak": "peak",
            "fit_by_branch": "refinement", "learn_more": "filter, update"}
OF_ONNX = {"crop_frame": "crop", "normalise": "crop", "find_peak": "peak", "fit_box": "refinement", "learn_frame": "filter, update"}


class Clock:
    "Seconds by part while it is on; a call within another is counted to the inner one alone."

    def __init__(self):
        self.seconds, self.inner, self.on = Counter(), [0.0], False

    def timed(self, part: str, call: Callable) -> Callable:
        "The same call, its seconds counted to a part."
        def timing(*args, **named):
            self.inner.append(0.0)
            started = time.perf_counter()
            try: return call(*args, **named)
            finally:
                taken = time.perf_counter() - started
                own = taken - self.inner.pop()
                self.inner[-1] += taken
                if self.on: self.seconds[part] += own
        return timing


@contextlib.contextmanager
def watched(where: ModuleType | object, names: dict[str, str], clock: Clock) -> Iterator[None]:
    "Within the block, calls of these names go by the clock."
    before = {name: getattr(where, name) for name in names}
    for name, part in names.items(): setattr(where, name, clock.timed(part, before[name]))
    try: yield
    finally:
        for name, call in before.items(): setattr(where, name, call)


@contextlib.contextmanager
def watched_tracker(model: str, engine: str, clock: Clock) -> Iterator:
    "A tracker whose parts go by the clock."
    tracker = load_tracker(model, engine)
    if engine == "torch":
        import tirnas.tracker
        with watched(tirnas.tracker, OF_TORCH, clock), watched(tracker.net.classifier, {"features": "head"}, clock): yield tracker
    else:
        import tirnas.engine
        tracker.graphs = tracker.graphs._replace(see=clock.timed("backbone, head, filter application", tracker.graphs.see))
        with watched(tirnas.engine, OF_ONNX, clock): yield tracker


def spread_out(data: Path, count: int = 3) -> list[Sequence]:
    "Some sequences of a data set, evenly spaced."
    sequences = open_dataset(data)
    return sequences[::max(1, len(sequences) // count)][:count]


def follow(tracker, pictures: list, first_xywh, clock: Clock) -> float:
    "Seconds of all updates but the first, which the clock does not see."
    tracker.init(pictures[0], first_xywh)
    tracker.update(pictures[1])
    clock.on, started = True, time.perf_counter()
    for picture in pictures[2:]: tracker.update(picture)
    clock.on = False
    return time.perf_counter() - started


def time_track(model: str, engine: str, data: Path, frames: int = 40) -> list[tuple[str, str, float]]:
    "Part, unit and value: milliseconds of a mean frame by part, the rest, and frames a second."
    clock, total, count = Clock(), 0.0, 0
    with watched_tracker(model, engine, clock) as tracker:
        for sequence in spread_out(data):
            pictures = [sequence.frame(t) for t in range(min(frames + 2, len(sequence)))]
            if not count: follow(tracker, pictures[:8], sequence.boxes_xywh[0], Clock())
            total, count = total + follow(tracker, pictures, sequence.boxes_xywh[0], clock), count + len(pictures) - 2
    parts = [*clock.seconds.items(), ("rest", total - sum(clock.seconds.values()))]
    return [*((part, "ms", 1000 * seconds / count) for part, seconds in parts), ("frames a second", "frames/s", count / total)]


def main() -> None:
    "Print a table for each model and engine."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["base", "mini"])
    parser.add_argument("--engines", nargs="+", default=["torch", "onnx"], choices=("torch", "onnx"))
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    if args.frames < 1: parser.error("--frames must be at least 1")
    for model in args.models:
        for engine in args.engines:
            print(f"\n{model} on {engine}")
            for part, unit, value in time_track(model, engine, ROOT / "samples", args.frames): print(f"{part:36} {value:9.3f} {unit}")


if __name__ == "__main__": main()
