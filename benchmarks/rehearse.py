"""The paper's recipe from the data to the tables, cut to a few updates on small crops: is there anything left to fix?

    python benchmarks/rehearse.py --out rehearsal [--train 1280] [--test 120] [--ptb 60] [--frames 4] [--ablation] [--smaller]

In a copy of this repository, on made-up data of the real shape (benchmarks/paper_data.py), the commands are run that a person
with LSOTB-TIR and PTB-TIR would type: the pipeline, Table II over both benchmarks, and with --ablation the five rows of Table I
through DVC's queue. Only the words after `cut:` are the rehearsal's own. They are parameters, not an environment variable,
because DVC keeps parameters beside every result and would otherwise take a rehearsal for the real thing. The network keeps
its 16 cells; --smaller cuts it too. Tables, plots, report and executed notebooks are copied to --out. Whatever comes out calls
itself a rehearsal, and its numbers mean nothing.
"""
import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paper_data import write_all

ROOT = Path(__file__).resolve().parents[1]
CUT = {
    **{f"search.{key}": value for key, value in {"epochs": 2, "steps": 2, "warmup_epochs": 1}.items()},
    **{f"retrain.{key}": value for key, value in {"epochs": 2, "steps": 2, "warmup_steps": 1, "validate_sequences": 2}.items()},
    **{f"{stage}.episodes.{key}": value for stage in ("search", "retrain")
       for key, value in {"num_pedestrians": 2, "num_frames": 2, "crop_px": 64}.items()},
}
SMALLER = {
    **{f"{stage}.macro.{key}": value for stage in ("search", "retrain") for key, value in {"cells": 3, "channels": 4, "stem_stride": 4}.items()},
    "search.heads.cls_dim": 16, "retrain.heads.cls_dim": 16, "retrain.heads.iou_dim": 16, "evaluate.floors": "[constant,kcf]",
}
DROPPED = r"^(?!Experiment|State|tirnas\.(success|precision|norm_precision$|backbone)|.*\.(rate|kind|triplet|center|seed)$)"      # all columns of `dvc exp show` but scores, cost and what the rows set
WAIT_S = 3      # between two looks at the queue


def copy_repository(target: Path) -> None:
    "A committed copy of what git tracks here, or would."
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True)
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    git = ["git", "-c", "user.name=rehearsal", "-c", "user.email=rehearsal@example.org", "-c", "core.hooksPath=/dev/null"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as it stands"]): subprocess.run([*git, *words], cwd=target, check=True)


def environment(here: Path) -> dict[str, str]:
    "The environment of a command: this Python's programs, and the package of the copy, whatever happens to the original meanwhile."
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(here)}


def call(words: list[str], here: Path, cut: tuple[str, ...] = (), log: Path | None = None) -> str:
    "Show a command, run it, say what it took; return what it prints, the end of which is shown if it fails."
    print(f"\n$ {shlex.join(words)}" + (f"\n  cut: {shlex.join(cut)}" if cut else ""), flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*words, *cut], cwd=here, env=environment(here), stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    process.returncode = os.waitstatus_to_exitcode(status)      # wait4 has taken it away from Popen
    print(f"  {time.perf_counter() - started:.0f} s, at most {usage.ru_maxrss / 2**20:.1f} GiB in one process", flush=True)
    if log: log.write_text(text)
    if process.returncode: sys.exit(f"{text[-3000:]}\nrehearse: the command above failed with exit code {process.returncode}")
    return text


def set_words(values: dict) -> tuple[str, ...]:
    "The -S words of `dvc exp run` for settings of the recipe."
    return tuple(word for key, value in values.items() for word in ("-S", f"paper.{key}={value}"))


def keep(here: Path, out: Path, *names: str) -> None:
    "Copy files and folders of the run to where they stay."
    for name in names: (shutil.copytree if (here / name).is_dir() else shutil.copy)(here / name, out / Path(name).name)


def pipeline(here: Path, data: dict[str, Path], cut: tuple[str, ...], out: Path) -> None:
    "The four stages on LSOTB-TIR."
    words = ["dvc", "exp", "run", "-S", "recipe=paper", "-S", f"data.root={data['test']}", "-S", f"paper.prepare.train_roots=[{data['train']}]"]
    call([*words, "-S", "paper.prepare.sequences=0"], here, cut, out / "pipeline.log")
    keep(here, out, "out/report", "out/genotype.json", "out/model.safetensors", "metrics.json", "runs")


def second_benchmark(here: Path, data: dict[str, Path], out: Path) -> None:
    "The pipeline's model on PTB-TIR, and both benchmarks in Table II."
    ptb = ["--benchmark", "ptb-tir", "--data", str(data["ptb"])]
    call(["tirnas", "run", *ptb, "--tracker", "out/model.safetensors", "--name", "tirnas", "--out", "results"], here)
    call(["tirnas", "evaluate", *ptb, "--results", "results", "--out", "scores"], here)
    print(call(["tirnas", "table2", "out/report", "scores", "--out", "table2.md"], here))
    keep(here, out, "scores", "table2.md")


def wait_for_queue(here: Path) -> None:
    "Wait until nothing is queued or running."
    while True:
        listed = subprocess.run(["dvc", "queue", "status"], cwd=here, env=environment(here), text=True, capture_output=True, check=True).stdout
        if not any(line.split()[-1:] in (["Queued"], ["Running"]) for line in listed.splitlines()): return
        time.sleep(WAIT_S)


def ablation(here: Path, data: dict[str, Path], cut: tuple[str, ...], out: Path) -> None:
    "The five rows of Table I through DVC's queue."
    words = ["tirnas", "table1", "queue", "--recipe", "paper", "--seeds", "1", "-S", f"data.root={data['test']}",
             "-S", f"paper.prepare.train_roots=[{data['train']}]", "-S", "paper.prepare.sequences=0"]
    call(words, here, cut)
    started = time.perf_counter()
    call(["dvc", "queue", "start"], here)
    wait_for_queue(here)
    print(f"  the queue took {time.perf_counter() - started:.0f} s", flush=True)
    print(call(["dvc", "exp", "show", "--hide-workspace", "--only-changed", "--drop", DROPPED, "--md"], here, log=out / "experiments.md"))
    print(call(["tirnas", "table1", "show", "--recipe", "paper", "--out", str(out / "table1_ablation.md")], here))


def main() -> None:
    "Make the data and a copy of the repository, and run what was asked for."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder for what is written")
    for name, count in (("train", 1280), ("test", 120), ("ptb", 60), ("frames", 4)):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"{count} unless given")
    parser.add_argument("--ablation", action="store_true", help="the five rows of Table I as well")
    parser.add_argument("--smaller", action="store_true", help="a network of three cells")
    given = parser.parse_args()
    if given.out.exists(): parser.error(f"{given.out} exists: give a new folder")
    cut, out = set_words(CUT | (SMALLER if given.smaller else {})), given.out.resolve()
    with tempfile.TemporaryDirectory() as work:
        here, started = Path(work) / "clone", time.perf_counter()
        copy_repository(here)
        data = write_all(Path(work) / "data", given.train, given.test, given.ptb, given.frames)
        print(f"{given.train} + {given.test} + {given.ptb} sequences of {given.frames} frames made up in {time.perf_counter() - started:.0f} s")
        out.mkdir(parents=True)
        pipeline(here, data, cut, out)
        if given.ptb: second_benchmark(here, data, out)
        if given.ablation: ablation(here, data, cut, out)
    print(f"\nrehearse: tables, plots and the report are in {out}; they are those of a rehearsal and mean nothing")


if __name__ == "__main__": main()
