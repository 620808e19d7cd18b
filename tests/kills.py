"""Stages of the pipeline as processes that can be killed: each goes on in the folder that it is started in, at a size for tests."""
import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from blocks import BLOCKS, CPU, PARAMS
from nursery import nursery
from test_search import SEARCH

import tirnas.retrain
from tirnas.core import use_threads, write_json
from tirnas.data.prepare import PrepareParams, load_index, prepare
from tirnas.data.unrolled import UnrollSettings
from tirnas.dimp.card import save_model
from tirnas.evaluation import EvaluateParams, evaluate_model
from tirnas.nets.genotype import random_genotype
from tirnas.retrain import retrain
from tirnas.search import search
from tirnas.unroll import unrolling

CELLS = random_genotype("single", 3)


def prepare_stage(home: Path, jobs: int = 1) -> None:
    prepare(PrepareParams((), 5, 8, 3), home / "data", home / "prepared", jobs)


def prepare_in_two(home: Path) -> None:
    prepare_stage(home, jobs=2)


def search_stage(home: Path) -> None:
    params = dataclasses.replace(SEARCH, epochs=4, steps=4)
    genotype, _ = search(BLOCKS, params, CPU, home / "search.safetensors", home / "search.json", report=lambda record: None)
    genotype.save(home / "genotype.json")


def retrain_stage(home: Path) -> None:
    params = dataclasses.replace(PARAMS, epochs=4, shards=1, validate_sequences=0, unroll=UnrollSettings(2, 6, 0.5))
    tirnas.retrain.SAVE_EVERY_S = 0.0
    net, history = retrain(BLOCKS, CELLS, params, CPU, home / "retrain.safetensors", unroll=unrolling(BLOCKS, params, CELLS))
    save_model(home / "model.safetensors", net, params.card(CELLS, {}))
    write_json(home / "history.json", history)


def evaluate_stage(home: Path) -> None:
    evaluate_model(EvaluateParams(("constant", "kcf")), load_index(home / "prepared", "test"), home / "model.safetensors", home)


def provide(home: Path) -> None:
    "Make what the stages read: two sequences, an index of them, and a model that has learnt nothing."
    from tirnas.data.synthetic import simulate
    simulate(home / "data", 2, 6, seed=9, prefix="test", progress=False)
    prepare(PrepareParams((), 1, 4, 3), home / "data", home / "prepared")
    save_model(home / "model.safetensors", PARAMS.card(CELLS, {}).build(), PARAMS.card(CELLS, {}))


STAGES = {"prepare": prepare_stage, "prepare in two processes": prepare_in_two, "search": search_stage, "retrain": retrain_stage,
          "evaluate": evaluate_stage}
NEEDS = {"prepare": ("data",), "prepare in two processes": ("data",), "evaluate": ("data", "prepared", "model.safetensors")}


def do(stage: Callable[[Path], None], home: Path) -> None:
    use_threads()
    with open(home / "said.txt", "a") as said:
        for stream in (1, 2): os.dup2(said.fileno(), stream)
        stage(home)


def start(stage: Callable[[Path], None], home: Path):
    "A process that does a stage in `home`; what it says goes into a file there."
    process = nursery().Process(target=do, args=(stage, home))
    process.start()
    return process


def finish(stage: str, home: Path) -> float:
    "Let a stage run to its end; the seconds that took."
    nursery()
    begun, process = time.perf_counter(), start(STAGES[stage], home)
    process.join()
    assert process.exitcode == 0, (home / "said.txt").read_text()[-2000:]
    return time.perf_counter() - begun


def fresh(stage: str, stock: Path, home: Path) -> Path:
    "Make `home` a folder that holds what the stage reads and nothing else."
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for name in NEEDS.get(stage, ()): (shutil.copytree if (stock / name).is_dir() else shutil.copy)(stock / name, home / name)
    return home


def kill_at_random(stage: str, stock: Path, home: Path, kills: int, span_s: float, rng: random.Random) -> tuple[list[float], int]:
    "Start a stage again and again and kill it; at how many seconds, and how many runs ended before and were begun anew."
    moments, ended, is_whole = [], 0, True
    while len(moments) < kills:
        begun, process, moment = time.perf_counter(), start(STAGES[stage], home), rng.uniform(0, span_s)
        process.join(moment)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), (home / "said.txt").read_text()[-2000:]
        if process.exitcode: moments.append(moment)
        else:
            ended, span_s = ended + 1, 0.9 * (time.perf_counter() - begun) if is_whole else span_s
            fresh(stage, stock, home)
        is_whole = not process.exitcode
    return moments, ended


def contents(home: Path) -> dict[str, bytes]:
    "The files in a folder and below, but for times and what was said."
    files = [p for p in home.rglob("*") if p.is_file() and not p.name.endswith("_time.txt") and p.name not in ("said.txt", "run.json")]
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted(files)}
