"""All that a user does, at once and small, in one process: `python errand.py DATA OUT`; what is in OUT afterwards depends on nothing else."""
import dataclasses
import sys
from pathlib import Path

from tirnas.cli import run_app
from tirnas.core import use_threads, write_json


def tirnas(*words) -> None:
    "A command as it is typed, which must succeed."
    sys.argv = ["tirnas", *map(str, words)]
    code = run_app()
    assert code == 0, f"{words}: exit code {code}"


def use_commands(data: Path, out: Path) -> None:
    "Film, track, run and evaluate."
    tirnas("simulate", out / "filmed", "--sequences", 1, "--frames", 3)
    (sequence,) = data.iterdir()        # as the system spells it, whatever the locale
    tirnas("track", sequence / "img", "--box", "100,60,20,40", "--out", out / "boxes.txt")
    tirnas("run", "--data", data, "--tracker", "kcf", "--out", out / "results")
    tirnas("evaluate", "--data", data, "--results", out / "results", "--out", out / "scores")


def learn(out: Path) -> None:
    "Search and retrain."
    from blocks import BLOCKS, CPU, PARAMS
    from test_search import SEARCH

    from tirnas.dimp.card import save_model
    from tirnas.retrain import retrain
    from tirnas.search import search
    short = {"epochs": 1, "steps": 1}
    quiet = lambda record: None
    genotype, history = search(BLOCKS, dataclasses.replace(SEARCH, warmup_epochs=0, **short), CPU, out / "search.safetensors", report=quiet)
    params = dataclasses.replace(PARAMS, shards=1, validate_sequences=0, macro=SEARCH.macro, **short)
    net, losses = retrain(BLOCKS, genotype, params, CPU, out / "retrain.safetensors")
    save_model(out / "model.safetensors", net, params.card(genotype, {}))
    write_json(out / "learnt.json", [history, losses])


if __name__ == "__main__":
    use_threads()
    data, out = map(Path, sys.argv[1:])
    use_commands(data, out)
    learn(out)
