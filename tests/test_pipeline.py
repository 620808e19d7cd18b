"""The pipeline as a user runs it: dvc repro in a fresh copy, and what it says when something is wrong."""
import dataclasses
import importlib
import json
import shutil
import subprocess

import pytest
import yaml
from conftest import ENV, ROOT, commit_all, shell
from nursery import forked, run_cells
from test_layout import STAGES, cells, imports, source

from tirnas.core import load_params, read_params
from tirnas.data.prepare import PrepareParams, prepare
from tirnas.data.synthetic import simulate

GROUPS = {"prepare": ("tirnas.data.prepare", "PrepareParams"), "search": ("tirnas.search", "SearchParams"),
          "retrain": ("tirnas.retrain", "RetrainParams"), "evaluate": ("tirnas.evaluation", "EvaluateParams")}
RECIPES = [k for k, v in read_params(ROOT / "params.yaml").items() if isinstance(v, dict) and k != "data"]


def pipeline():
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("group", GROUPS)
def test_recipes_load(recipe, group):
    module, name = GROUPS[group]
    assert load_params(getattr(importlib.import_module(module), name), group, recipe, ROOT / "params.yaml")


def test_no_group_of_parameters_stands_for_another():
    "`dvc exp run -S` silently ignores what it is told of a group that is shared by a YAML alias."
    assert not [e for e in yaml.parse((ROOT / "params.yaml").read_text()) if isinstance(e, yaml.AliasEvent)]


def test_recipes_that_should_be_equal_are():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert params["base"]["search"] == params["mini"]["search"]
    assert all(params["safe"][group] == params["paper"][group] for group in ("prepare", "retrain", "evaluate"))


def notebook_imports(notebook):
    names = set()
    for cell in cells(notebook):
        names |= {line.split()[1] for line in source(cell).splitlines() if line.startswith("from tirnas")}
    todo, closure = list(names), set()
    while todo:
        name = todo.pop()
        if name in closure or not (ROOT / (name.replace(".", "/") + ".py")).is_file(): continue
        closure.add(name)
        todo += [n for n in imports(name) if n.startswith("tirnas.")]
    return {name.replace(".", "/") + ".py" for name in closure}


@pytest.mark.parametrize("notebook", STAGES, ids=lambda p: p.stem)
def test_a_stage_depends_on_all_it_imports(notebook):
    "dvc does not follow imports: a module left out of deps would change without a rerun."
    deps = pipeline()[notebook.stem]["deps"]
    assert {d for d in deps if d.startswith("tirnas/") and d.endswith(".py")} == notebook_imports(notebook)
    assert all((ROOT / d).exists() for d in deps if d.startswith("tirnas/"))
    assert f"nbs/stages/{notebook.name}" in deps


@pytest.mark.parametrize("notebook", STAGES, ids=lambda p: p.stem)
def test_parameters_are_those_passed(notebook):
    "papermill only prints a line for a name that the notebook does not have."
    (cell,) = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    words = pipeline()[notebook.stem]["cmd"].split()
    passed = {words[i + 1] for i, word in enumerate(words) if word == "-p"}
    assert passed == {line.split("=")[0].strip() for line in source(cell).splitlines() if "=" in line}


def shrink(folder):
    "Turn the copy's default recipe into one of a few steps on two short sequences of its own."
    shutil.rmtree(folder / "samples")
    simulate(folder / "samples", 2, 12, seed=7, prefix="tiny", progress=False)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    mini = params["mini"]
    mini["prepare"] |= {"sequences": 4, "frames": 12}
    mini["search"] |= {"epochs": 2, "steps": 2, "warmup_epochs": 1}
    mini["retrain"] |= {"epochs": 2, "steps": 2}
    for stage in ("search", "retrain"):
        mini[stage]["macro"] |= {"cells": 3, "channels": 4}
        mini[stage]["episodes"] |= {"num_pedestrians": 2, "crop_px": 64}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "dvc.lock").unlink(missing_ok=True)
    commit_all(folder)


RESULTS = ("out/genotype.json", "out/search.json", "out/model.safetensors", "out/retrain.csv")


def test_the_whole_pipeline(repository):
    "All stages; then what learns once more, to the same bytes."
    shrink(repository)
    for words in ((), ("-f", "-s", "search", "retrain")):
        run = shell("dvc", "repro", *words, cwd=repository)
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        bytes_of = {name: (repository / name).read_bytes() for name in RESULTS}
        if not words: first = bytes_of
    assert bytes_of == first and run.stdout.count("Running stage") == 2
    again = shell("dvc", "repro", cwd=repository)
    assert again.returncode == 0 and all(f"Stage '{stage}' didn't change, skipping" in again.stdout for stage in GROUPS)
    left = subprocess.run(["git", "status", "--porcelain"], cwd=repository, text=True, capture_output=True, check=True).stdout
    assert {line[3:] for line in left.splitlines()} <= {"dvc.lock", "metrics.json", "data.dvc"}
    scores = json.loads((repository / "metrics.json").read_text())
    assert set(scores) == {"tirnas", "constant", "kcf", "csrt"} and all(0 <= s["success"] <= 1 for s in scores.values())


def last_words(folder, stage):
    "Of a stage that fails. That papermill says the same is seen once, below."
    run = forked(run_cells, f"nbs/stages/{stage}.ipynb", {"recipe": "mini"}, cwd=folder, env=ENV)
    assert run.returncode == 1
    return run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("stage", ["search", "retrain", "evaluate"])
def test_a_stage_before_its_input(repository, stage):
    assert "run the prepare stage first" in last_words(repository, stage)


@pytest.mark.parametrize("stage, said", [("retrain", "run the search stage first"), ("evaluate", "run the retrain stage first")])
def test_a_stage_between(repository, stage, said):
    "Prepared data alone is not enough for the later stages."
    simulate(repository / "data", 1, 4, seed=7, prefix="tiny", progress=False)
    prepare(PrepareParams((), 4, 4, 0), repository / "data", repository / "prepared")
    assert said in last_words(repository, stage)


def test_an_unknown_key(repository):
    text = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(text.replace("    train_roots:", "    sequnces: 3\n    train_roots:", 1))
    assert "mini.prepare.sequnces is unknown: the keys here are" in last_words(repository, "prepare")
    assert not (repository / "prepared").exists()


def test_prepare_without_data(repository):
    "Papermill's last line is that of the notebook."
    shutil.rmtree(repository / "data", ignore_errors=True)
    run = shell("papermill", "nbs/stages/prepare.ipynb", "runs/prepare.ipynb", "-p", "recipe", "mini", cwd=repository)
    assert run.returncode == 1 and "does not exist: give the folder that holds the sequences" in run.stderr.strip().splitlines()[-1]
    assert last_words(repository, "prepare").endswith(run.stderr.strip().splitlines()[-1])
