"""How long it takes to list a data set of the size of LSOTB-TIR: 1,400 sequences, 600,000 frames.

    python benchmarks/list_dataset.py [--sequences 1400] [--frames 600000] [--layout otb]

Makes a tree of empty files in a temporary folder, lists it anew and from the index, and removes it. What is measured is
the number of questions to the file system; on a disk that has to turn for each of them, the first listing takes longer.
"""
import argparse
import os
import tempfile
import time
from pathlib import Path

from history import Measured, begin, keep

VID = ("<annotation><object><trackid>0</trackid><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>80</ymax>"
       "</bndbox></object></annotation>")


def make_tree(root: Path, layout: str, sequences: int, frames: int) -> None:
    "Empty frames and a one-line truth in a layout: otb, got10k, lsotb-tir or lsotb-tir-train."
    for s in range(sequences):
        name, count = f"seq_{s:04d}", frames // sequences
        images = {"otb": f"{name}/img", "got10k": f"train/{name}", "lsotb-tir": f"sequences/{name}/img",
                  "lsotb-tir-train": f"TrainingData/TIR_training_{s % 4 + 1:03d}/{name}"}[layout]
        truth = {"otb": f"{name}/groundtruth.txt", "got10k": f"train/{name}/groundtruth.txt", "lsotb-tir": f"anno/{name}.txt"}.get(layout)
        (root / images).mkdir(parents=True)
        for t in range(count): os.close(os.open(root / images / f"{t + 1:08d}.jpg", os.O_CREAT | os.O_WRONLY))
        if truth:
            (root / truth).parent.mkdir(parents=True, exist_ok=True)
            (root / truth).write_text("10,20,30,60\n" * count)
        else:
            notes = root / images.replace("TrainingData", "Annotations")
            notes.mkdir(parents=True)
            for t in range(count): (notes / f"{t + 1:08d}.xml").write_text(VID)
        if layout == "got10k": (root / truth).with_name("absence.label").write_text("0\n" * count)


def timed(what: str, work, rows: list[Measured]):
    "Do `work`, say and note how long it took, and return what it returned."
    started = time.perf_counter()
    result = work()
    rows.append(Measured(what, "s", [time.perf_counter() - started]))
    print(f"{what:<42} {rows[-1].values[0]:8.3f} s", flush=True)
    return result


def main() -> None:
    "Make a tree, list it anew and from the index, and print the times."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=1400)
    parser.add_argument("--frames", type=int, default=600_000)
    parser.add_argument("--layout", default="otb", choices=("otb", "got10k", "lsotb-tir", "lsotb-tir-train"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["TIRNAS_CACHE"] = f"{home}/cache"
        root, began, rows = Path(home) / "data", begin(), []
        timed("making the tree", lambda: make_tree(root, given.layout, given.sequences, given.frames), rows)
        for folder, _, _ in os.walk(root): os.utime(folder, (1e9, 1e9))
        from tirnas.data.sequences import open_dataset
        first = timed("listing anew", lambda: open_dataset(root), rows)
        timed("listing from the index", lambda: open_dataset(root), rows)
        assert len(first) == given.sequences and first[0].place.layout == given.layout
        timed("boxes and frame names of one sequence", lambda: len(first[0]), rows)
        timed("boxes and frame names of all sequences", lambda: sum(map(len, first)), rows)
        keep("list", rows, began)


if __name__ == "__main__": main()
