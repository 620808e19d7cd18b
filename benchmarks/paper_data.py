"""Made-up data in the shape of the paper's: LSOTB-TIR's 1,280 training and 120 test sequences, and PTB-TIR's 60.

    python benchmarks/paper_data.py OUT [--train 1280] [--test 120] [--ptb 60] [--frames 6]

Writes OUT/LSOTB-TIR-training, OUT/LSOTB-TIR and OUT/PTB-TIR in the layouts of the real sets: folders, file names, annotation
formats, attribute files, and the real names of the test sequences. Pictures are tiny: a warm block that walks over noise.
Nothing can be learnt from them; they show that everything between the data and the tables works.
"""
import argparse
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from tirnas.data.annotations import ATTRIBUTES, write_attributes
from tirnas.scoring import benchmark_list

FRAME_HW = 48, 64       # px
TARGET_WH = 10, 16      # px
SCENARIOS = {"V": "vehicle-mounted", "D": "drone-mounted", "S": "surveillance", "H": "hand-held"}     # by the letter in LSOTB-TIR's names
NAMES = ("person", "car", "dog", "bicycle")     # of training sequences
VID = ("<annotation><folder>{folder}</folder><filename>{frame}</filename><size><width>{width}</width><height>{height}</height></size><object>"
       "<trackid>0</trackid><name>{name}</name><bndbox><xmax>{right}</xmax><xmin>{left}</xmin><ymax>{bottom}</ymax><ymin>{top}</ymin></bndbox>"
       "<occluded>0</occluded><generated>0</generated></object></annotation>\n")


def walk(frames: int, rng: np.random.Generator) -> np.ndarray:
    "Boxes (T, 4) xywh from 0, whole pixels: a straight walk inside the frame."
    room = np.array(FRAME_HW[::-1]) - TARGET_WH - 2
    ends = rng.uniform(1, room, (2, 2))
    corners = np.linspace(*ends, frames).round()
    return np.hstack([corners, np.tile(TARGET_WH, (frames, 1))]).astype(int)


def picture(box_xywh: np.ndarray, ground: np.ndarray) -> np.ndarray:
    "A frame (H, W) of 8 bits with a warm block at the box."
    x, y, w, h = box_xywh
    frame = ground.copy()
    frame[y:y + h, x:x + w] += 70
    return frame.clip(0, 255).astype(np.uint8)


def write_frames(folder: Path, boxes_xywh: np.ndarray, digits: int, rng: np.random.Generator) -> None:
    "Write the frames of a sequence, numbered from 1."
    folder.mkdir(parents=True)
    ground = rng.normal(80, 12, FRAME_HW)
    for t, box in enumerate(boxes_xywh, 1): cv2.imwrite(str(folder / f"{t:0{digits}d}.jpg"), picture(box, ground))


def write_training(root: Path, sequences: int, frames: int) -> None:
    "Write the training set: TrainingData/TIR_training_001/person_001/00000001.jpg, and Annotations likewise with XML files."
    for number, kind in zip(range(sequences), cycle(NAMES)):
        rng = np.random.default_rng([1, number])
        boxes, folder = walk(frames, rng), f"TIR_training_{number % 4 + 1:03d}/{kind}_{number // len(NAMES) + 1:03d}"
        write_frames(root / "TrainingData" / folder, boxes, 8, rng)
        notes = root / "Annotations" / folder
        notes.mkdir(parents=True)
        for t, (x, y, w, h) in enumerate(boxes, 1):
            about = {"folder": folder, "frame": f"{t:08d}", "name": kind, "height": FRAME_HW[0], "width": FRAME_HW[1]}
            (notes / f"{t:08d}.xml").write_text(VID.format(**about, left=x, top=y, right=x + w, bottom=y + h))


def marks_of(name: str, number: int, benchmark: str) -> set[str]:
    "Attributes of a made-up test sequence: challenges in turn, and the scenario that its name says."
    challenges = [a for a in ATTRIBUTES[benchmark] if a not in SCENARIOS.values()]
    scenario = {SCENARIOS[part] for part in name.split("_") if part in SCENARIOS and benchmark == "lsotb-tir"}
    return {a for i, a in enumerate(challenges) if number % (i + 1) == 0} | scenario


def write_benchmark(root: Path, benchmark: str, sequences: int, frames: int) -> None:
    "Write the first test sequences of lsotb-tir or ptb-tir: frames, annotations from 1, attributes."
    videos, truths, digits = {"lsotb-tir": ("sequences", "anno", 4), "ptb-tir": ("tirsequences", "tiranno", 8)}[benchmark]
    names = list(benchmark_list(benchmark)["sequences"])
    for number, name in enumerate(names[:sequences]):
        rng = np.random.default_rng([2, number])
        boxes = walk(frames, rng)
        write_frames(root / videos / name / "img", boxes, digits, rng)
        (root / truths / "att").mkdir(parents=True, exist_ok=True)
        (root / truths / f"{name}.txt").write_text("".join(f"{x + 1},{y + 1},{w},{h}\n" for x, y, w, h in boxes))
        write_attributes(root / truths / "att" / f"{name}.txt", marks_of(name, number, benchmark), benchmark)


def write_all(out: Path, train: int = 1280, test: int = 120, ptb: int = 60, frames: int = 6) -> dict[str, Path]:
    "Write all three sets below `out` and return their folders."
    roots = {"train": out / "LSOTB-TIR-training", "test": out / "LSOTB-TIR", "ptb": out / "PTB-TIR"}
    write_training(roots["train"], train, frames)
    write_benchmark(roots["test"], "lsotb-tir", test, frames)
    write_benchmark(roots["ptb"], "ptb-tir", ptb, frames)
    return roots


def main() -> None:
    "Write the sets and say where."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    for name, count in (("train", 1280), ("test", 120), ("ptb", 60), ("frames", 6)): parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    for name, root in write_all(given.out, given.train, given.test, given.ptb, given.frames).items(): print(f"{name:6} {root}")


if __name__ == "__main__": main()
