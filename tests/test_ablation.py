"""Table I through real git and dvc, on a pipeline of one stage whose scores follow from the switches by a formula."""
import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ENV, ROOT, commit_all, shell
from nursery import forked, run_tirnas

from tirnas.ablation import NAMES, OFF, check_recipe, collect_runs, flat, queue_run, remarks_on, set_words, table_one, table_rows
from tirnas.core import UserError, params_from_dict, read_params
from tirnas.nets.cost import count_macs, count_parameters
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import DerivedNetwork, random_genotype
from tirnas.objective import SearchParams
from tirnas.published import paper_table

STAGE = """
import json, shutil, yaml
params = yaml.safe_load(open("params.yaml"))
group = params[params["recipe"]]
search, loss = group["search"], group["retrain"]["loss"]
assert search["seed"] < 5, "the formula ends at seed 4"
assert search["macro"]["kind"] == group["retrain"]["macro"]["kind"] and search["seed"] == group["retrain"]["seed"]
gains = (search["macro"]["kind"] == "dual", search["rate"] > 1, loss["triplet"] > 0, loss["center"] > 0)
success = 0.3 + sum(0.01 * 2 ** i * on for i, on in enumerate(gains)) + 0.1 * search["seed"]
json.dump({"tirnas": {"success": success, "precision": success / 2, "norm_precision": None}}, open("metrics.json", "w"))
shutil.copy(search["macro"]["kind"] + ".json", "out/genotype.json")
"""
PIPELINE = """
stages:
  all:
    cmd: python stage.py
    params: [recipe, data, "${recipe}"]
    outs: [out/genotype.json]
    metrics: [metrics.json: {cache: false}]
"""
SUCCESS = [0.30, 0.31, 0.33, 0.37, 0.45]     # of the rows with seed 0
ROWS = {row.name: row for row in table_rows()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    "A git and dvc repository with our params.yaml and the toy stage."
    folder = tmp_path_factory.mktemp("toy")
    for kind in ("single", "dual"): random_genotype(kind, 0).save(folder / f"{kind}.json")
    for name, text in (("stage.py", STAGE), ("dvc.yaml", PIPELINE), ("metrics.json", '{"tirnas": {"success": 0.99}}')): (folder / name).write_text(text)
    shutil.copy(ROOT / "params.yaml", folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    assert shell("dvc", "init", "-q", cwd=folder).returncode == 0
    commit_all(folder)
    return folder


def table1(*words, cwd):
    return forked(run_tirnas, "table1", *map(str, words), cwd=cwd, env=ENV)


def refused(run, *parts):
    assert run.returncode == 2, (run.returncode, run.stdout, run.stderr)
    (line,) = run.stderr.splitlines()
    assert line.startswith("tirnas: ") and all(part in line for part in parts), line


def override(group, words):
    "What `dvc exp run -S` does with these words, on a recipe's group."
    for word in words[1::2]:
        path, value = word.split("=")
        *parents, last = path.split(".")
        node = group
        for name in parents: node = node[name]
        assert not parents or last in node, path
        node[last] = yaml.safe_load(value)
    return group


@pytest.mark.parametrize("recipe", [k for k, v in read_params(ROOT / "params.yaml").items() if isinstance(v, dict) and k not in ("data", "base")])
def test_every_row_of_every_recipe_loads_and_changes_only_its_switches(recipe):
    fresh = lambda: json.loads(json.dumps(read_params(ROOT / "params.yaml")))
    own = flat(fresh()[recipe])
    check_recipe(fresh(), recipe)
    loaded = {}
    for row in table_rows():
        params = override(fresh(), set_words(row, recipe, 7))
        search = params_from_dict(SearchParams, params[recipe]["search"])
        retrain, loss = params[recipe]["retrain"], params[recipe]["retrain"]["loss"]
        macro = params_from_dict(Macro, retrain["macro"])
        loaded[row.name] = search.macro.kind, macro.kind, search.rate > 1, loss["triplet"] > 0, loss["center"] > 0
        changed = {path for path, value in flat(params[recipe]).items() if value != own[path]}
        assert params["recipe"] == recipe and changed <= {*row.overrides, "search.seed", "retrain.seed"}
        assert (search.seed, retrain["seed"]) == (7, 7) and all(loss[term] > 0 for term in ("classification", "hinge", "overlap"))
    assert list(loaded.values()) == [("single",) * 2 + (False,) * 3, ("dual",) * 2 + (False,) * 3, ("dual", "dual", True, False, False),
                                     ("dual", "dual", True, True, False), ("dual", "dual", True, True, True)]


@pytest.mark.parametrize("path", OFF)
def test_a_recipe_without_a_term_is_refused(path):
    params = override(json.loads(json.dumps(read_params(ROOT / "params.yaml"))), ["-S", f"mini.{path}={OFF[path]}"])
    with pytest.raises(UserError, match=f"mini.{path} is {OFF[path]}: the rows of Table I switch it"): check_recipe(params, "mini")


def test_a_recipe_with_another_backbone_is_refused():
    params = json.loads(json.dumps(read_params(ROOT / "params.yaml")))
    params["mini"]["retrain"]["backbone"] = {"name": "resnet18"}
    with pytest.raises(UserError, match="mini.retrain.backbone.name is resnet18: Table I is about searched cells"): check_recipe(params, "mini")


def test_queue_run_and_show(toy):
    "The whole way; the tests below go on with what it leaves."
    queued = table1("queue", "--seeds", "1", cwd=toy)
    names = [f"table1-mini-{row}-s0" for row in NAMES]
    assert queued.returncode == 0 and queued.stdout.splitlines()[:5] == names and "dvc queue start" in queued.stdout, queued.stderr
    refused(table1("queue", "--seeds", "1", cwd=toy), "table1-mini-dual-s0", "already wait or are done", "--first-seed")
    waiting = table1("show", cwd=toy)
    assert waiting.returncode == 0 and waiting.stdout.count("not run, 1 queued") == 5 and "0.99" not in waiting.stdout, waiting.stderr
    for seed in (2, 5): queue_run(toy, "mini", ROWS["single"], seed)
    queue_run(toy, "mini", ROWS["dual"], 2)
    shell("dvc", "exp", "run", "--run-all", cwd=toy)        # seed 5 fails on purpose

    records, remarks, tested = table_one(toy, "mini")
    assert [r["runs"] for r in records] == [2, 2, 1, 1, 1] and not remarks and tested == "SimTIR"
    assert records[0]["unfinished"] == "1 failed" and [r["label"] for r in records] == [r["method"] for r in paper_table("I")]
    assert [r["success"] for r in records] == pytest.approx([0.40, 0.41, *SUCCESS[2:]])     # the mean of seeds 0 and 2 in two rows
    assert records[0]["success_spread"] == pytest.approx(0.02 ** 0.5) and records[2]["success_spread"] is None
    assert [r["success_step"] for r in records[1:]] == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert records[1]["success_step_spread"] == pytest.approx(0) and records[1]["precision_step"] == pytest.approx(0.005)
    assert records[0]["success_step"] is None and all(r["norm_precision"] is None for r in records)
    assert [r["paper_success_step"] for r in records[1:]] == pytest.approx([0.016, 0, 0.009, 0.004])


def test_costs_are_those_of_the_built_network(toy):
    import torch
    settings = read_params(ROOT / "params.yaml")["mini"]["retrain"]
    crop = torch.zeros(1, 1, *[settings["episodes"]["crop_px"]] * 2)
    records, _, _ = table_one(toy, "mini")
    for record, kind in zip(records, ("single", "dual", "dual", "dual", "dual")):
        net = DerivedNetwork(random_genotype(kind, 0), Macro(**{**settings["macro"], "kind": kind}))
        assert record["parameters"] == pytest.approx(count_parameters(net) / 1e6, abs=1e-12)
        assert record["macs"] == pytest.approx(count_macs(net, crop) / 1e9, abs=1e-12)


def test_what_is_written(toy, tmp_path):
    for ending in ("csv", "md", "tex"):
        run = table1("show", "--out", tmp_path / f"t.{ending}", cwd=toy)
        assert run.returncode == 0 and "0.400 ± 0.141" in run.stdout and "(+0.010 ± 0.000)" in run.stdout, run.stderr
        assert "never compare a number of ours with one of the paper" in run.stdout and "SimTIR" in run.stdout
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [float(r["success"]) for r in rows] == pytest.approx([0.40, 0.41, *SUCCESS[2:]]) and rows[3]["norm_precision"] == ""
    assert [r["paper_precision"] for r in rows] == ["0.768", "0.783", "0.785", "0.792", "0.805"]
    tex = (tmp_path / "t.tex").read_text()
    assert r"0.400 $\pm$ 0.141" in tex and tex.count(r"\\") == 6 and "never compare" in (tmp_path / "t.md").read_text()
    for name, part in (("t.html", "none of the endings .csv, .md, .tex"), ("t.csv/t.md", "cannot be written")):
        refused(table1("show", "--out", tmp_path / name, cwd=toy), part)


def test_a_failed_name_is_free_and_the_rest_is_not(toy):
    refused(table1("queue", "--first-seed", "2", "--seeds", "1", cwd=toy), "table1-mini-dual-s2, table1-mini-single-s2 already")
    queue_run(toy, "mini", ROWS["single"], 5)
    assert table_one(toy, "mini")[0][0]["unfinished"] in ("1 queued", "1 failed")
    assert shell("dvc", "queue", "remove", "--queued", "--failed", cwd=toy).returncode == 0
    assert table_one(toy, "mini")[0][0]["unfinished"] == ""


@pytest.mark.skipif(not os.environ.get("TIRNAS_REHEARSAL"), reason="at will: TIRNAS_REHEARSAL=small")
def test_what_all_runs_set_beside_their_row(toy):
    "The folders of the data and the cut of a rehearsal reach every run; what the rows set cannot be set."
    for word, said in (("mini.search.rate=2", "mini.search.rate is what the rows of Table I set"), ("recipe=gpu", "recipe is what the rows"),
                       ("data.root", "sets nothing: give key=value")):
        refused(table1("queue", "-S", word, cwd=toy), said)
    words = [word for value in ("data.root=elsewhere", "mini.retrain.epochs=1", "mini.retrain.steps=3") for word in ("-S", value)]
    queued = table1("queue", "--seeds", "1", "--first-seed", "4", *words, cwd=toy)
    assert queued.returncode == 0, queued.stderr
    names = [f"table1-mini-{row}-s4" for row in NAMES]
    shell("dvc", "exp", "run", "--run-all", cwd=toy)
    runs = [run for run in collect_runs(toy, "mini") if run.seed == 4]
    assert [run.state for run in runs] == ["success"] * 5 and all(run.settings["data.root"] == "elsewhere" for run in runs)
    said = [remark for remark in remarks_on(runs) if remark.startswith("each run is a rehearsal of 3 weight updates")]
    assert len(said) == 1 and not any("rehearsal" in remark for remark in remarks_on([run for run in collect_runs(toy, "mini") if run.seed != 4]))
    assert shell("dvc", "exp", "remove", *names, cwd=toy).returncode == 0


def test_runs_survive_a_commit_and_strangers_are_told(toy):
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text.replace("    epochs: 14\n", "    epochs: 15\n", 1))
    commit_all(toy)
    for name, row, seed in (("table1-mini-single-s1", "single", 1), ("table1-mini-dual-s3", "single", 3)):
        assert shell("dvc", "exp", "run", "-q", "-n", name, *set_words(ROWS[row], "mini", seed), cwd=toy).returncode == 0
    records, remarks, _ = table_one(toy, "mini")
    assert [r["runs"] for r in records] == [3, 2, 1, 1, 1]
    assert any("table1-mini-dual-s3 is left out, it has search.macro.kind single, not dual" == r for r in remarks)
    assert "the runs started from 2 different commits" in remarks
    assert any(r.startswith("the runs differ in retrain.epochs as well") for r in remarks)
    shell("git", "checkout", "-q", ".", cwd=toy)


def test_an_emptied_cache_costs_only_the_costs(toy):
    (toy / ".dvc" / "cache").rename(toy / "cache.bak")
    records, _, _ = table_one(toy, "mini")
    (toy / "cache.bak").rename(toy / ".dvc" / "cache")
    assert records[0]["success"] == pytest.approx(0.4) and all(r["parameters"] is None and r["macs"] is None for r in records)


def test_where_it_cannot_work(toy, tmp_path):
    refused(table1("show", cwd=tmp_path), "no params.yaml", "run this inside a tirnas repository")
    shutil.copy(toy / "params.yaml", tmp_path)
    for words in (("queue",), ("show",)): refused(table1(*words, cwd=tmp_path), "is no DVC repository: run this in a clone of the project")
    refused(table1("queue", "--recipe", "big", cwd=toy), "recipe 'big' is unknown: params.yaml has mini, base, gpu, paper, safe")
    refused(table1("queue", "--recipe", "base", cwd=toy), "Table I is about searched cells, give searched")
    (tmp_path / "bin").mkdir()
    for name in ("git", "python"): (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    code = "import sys; from tirnas.cli import main; sys.argv[1:] = ['table1', 'queue']; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=toy, text=True, capture_output=True,
                         env={**ENV, "PATH": str(tmp_path / "bin"), "PYTHONPATH": os.pathsep.join([str(ROOT), ENV.get("PYTHONPATH", "")])})
    refused(run, "the command dvc was not found")
