"""The paper's recipe from data of the paper's shape to its tables: what a person with LSOTB-TIR types, cut to a few updates."""
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ENV, ROOT, shell

from tirnas.ablation import flat
from tirnas.core import TRAINED, UserError, read_params, rehearsal_of
from tirnas.data.annotations import ATTRIBUTES
from tirnas.data.episodes import usable_frames
from tirnas.data.sequences import open_dataset
from tirnas.dimp.card import load_card
from tirnas.nets.cost import count_parameters
from tirnas.published import paper_table
from tirnas.report import read_scores
from tirnas.scoring import benchmark_list, evaluate

FULL = os.environ.get("TIRNAS_REHEARSAL") == "1"      # the network's 16 cells and every sequence: an hour of two cores


def script(name):
    "A script of benchmarks/ as a module."
    if str(ROOT / "benchmarks") not in sys.path: sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return script("paper_data").write_all(tmp_path_factory.mktemp("made up"), 9, 12, 4, 3)


def test_the_data_have_the_layout_and_names_of_the_real_sets(made_up):
    train, test, ptb = (open_dataset(made_up[part]) for part in ("train", "test", "ptb"))
    assert [len(train), len(test), len(ptb)] == [9, 12, 4] and {s.place.layout for s in train} == {"lsotb-tir-train"}
    assert {s.place.layout for s in test} == {"lsotb-tir"} and {s.place.layout for s in ptb} == {"ptb-tir"}
    assert {s.name for s in test} <= set(benchmark_list("lsotb-tir")["sequences"]) and not {s.name for s in test} & {s.name for s in train}
    scenario = {"V": "vehicle-mounted", "H": "hand-held", "S": "surveillance", "D": "drone-mounted"}
    for s in (*train, *test, *ptb):
        height, width = s.frame(2).shape
        assert len(usable_frames(s.boxes_xywh)) == 3 and (s.boxes_xywh[:, :2] >= 0).all() and (s.boxes_xywh[:, 2:] + s.boxes_xywh[:, :2] <= (width, height)).all()
        x, y, w, h = s.boxes_xywh[2].astype(int)
        assert s.frame(2)[y:y + h, x:x + w].mean() > s.frame(2).mean() + 40, "the box is not on the warm block"
    for s in test: assert s.attributes & set(scenario.values()) == {scenario[s.name.split("_")[-2]]}


def test_a_whole_set_scores_as_the_benchmark(tmp_path):
    "All names, all attributes; the lengths alone differ from the real ones, which is said."
    root = tmp_path / "LSOTB-TIR"
    script("paper_data").write_benchmark(root, "lsotb-tir", 120, 2)
    for s in open_dataset(root):
        (tmp_path / "results" / "still").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "still" / f"{s.name}.txt").write_text((root / "anno" / f"{s.name}.txt").read_text())
    scores, remarks = evaluate(root, tmp_path / "results", "lsotb-tir")
    assert len(scores["still"]["per_sequence"]) == 120 and list(scores["still"]["per_attribute"]) == list(ATTRIBUTES["lsotb-tir"])
    assert all(part["sequences"] >= 2 for part in scores["still"]["per_attribute"].values())
    assert any("annotations of another length than in the list of lsotb-tir" in remark for remark in remarks)


def test_the_cut_is_a_rehearsal_of_what_the_recipe_has():
    rehearse = script("rehearse")
    own = flat(read_params(ROOT / "params.yaml")["paper"])
    assert not set(rehearse.CUT | rehearse.SMALLER) - own.keys()
    assert not any("macro" in key or "heads" in key for key in rehearse.CUT), "the cut leaves the network as it is"
    cut = rehearse.CUT
    assert rehearsal_of(cut["retrain.epochs"] * cut["retrain.steps"]) and not rehearsal_of(own["retrain.epochs"] * own["retrain.steps"])
    for recipe, group in read_params(ROOT / "params.yaml").items():
        if recipe in ("recipe", "data"): continue
        assert min(group[stage]["epochs"] * group[stage]["steps"] for stage in ("search", "retrain")) >= TRAINED, recipe


def table_of(path):
    "Rows of a Markdown table by their first cell, and the notes below."
    lines = path.read_text().splitlines()
    head, _, *rows = [[re.sub(r"^\*\*|\*\*$", "", cell.strip()) for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(head, row)) for row in rows}, [line[2:] for line in lines if line.startswith("- ")]


def entry(success, benchmark, **more):
    "Scores of one tracker, as far as the paper's tables go."
    return {"success": success, "precision": success + 0.1, "norm_precision": success + 0.05, "benchmark": benchmark, "protocol": "official",
            "per_sequence": benchmark_list(benchmark)["sequences"], **more}


def write_scores(folder, scores):
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(scores if isinstance(scores, str) else json.dumps(scores))
    return str(folder)


def test_table_two_joins_both_benchmarks(tmp_path):
    one = write_scores(tmp_path / "one", {"mine": entry(0.5, "lsotb-tir", rehearsal="a rehearsal"), "other": entry(0.6, "lsotb-tir")})
    two = write_scores(tmp_path / "two", {"mine": entry(0.7, "ptb-tir")})
    run = shell("tirnas", "table2", one, two, "--out", str(tmp_path / "t.md"), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows, notes = table_of(tmp_path / "t.md")
    assert list(rows["mine"].values()) == ["mine", "0.600", "0.500", "0.550", "0.800", "0.700"]
    assert list(rows["other"].values())[3:] == ["0.650", "-", "-"] and list(rows)[:9] == [row["method"] for row in paper_table("II")]
    assert notes[0] == "On lsotb-tir: Not comparable: mine, a rehearsal." and not any(note.startswith("On ptb-tir") for note in notes)
    assert shell("tirnas", "table2", one, "--out", str(tmp_path / "t.tex"), cwd=tmp_path).returncode == 0 and r"\toprule" in (tmp_path / "t.tex").read_text()


@pytest.mark.parametrize("text, said", [
    ("{", "cannot be read"), ("[" * 100_000, "cannot be read"), ("{}", "holds no scores of trackers"), ('{"a": 3}', "holds no scores"),
    (json.dumps({"a": {**entry(0.5, "lsotb-tir"), "success": "much"}}), "holds no scores"),
    (json.dumps({"a": {**entry(0.5, "lsotb-tir"), "benchmark": ["x"]}}), "holds no scores"),
    (json.dumps({"a": entry(0.5, "simtir")}), "has scores on simtir: the paper's tables have lsotb-tir and ptb-tir")])
def test_other_files_are_refused(tmp_path, text, said):
    with pytest.raises(UserError, match=said): read_scores(write_scores(tmp_path / "s", text))


def test_table_two_writes_nothing_of_what_it_cannot_join(tmp_path):
    one, two = (write_scores(tmp_path / name, {"mine": entry(0.5, "ptb-tir")}) for name in ("one", "two"))
    for words, said in (((one, two), "two of these folders hold scores on ptb-tir"), ((one, "--out", "t.html"), "ends neither in .md nor in .tex")):
        run = shell("tirnas", "table2", *words, cwd=tmp_path)
        assert run.returncode == 2 and said in run.stderr and len(run.stderr.splitlines()) == 1, run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    "What the rehearsal writes; with TIRNAS_REHEARSAL=1 the whole of it, else few sequences and a small network."
    if not os.environ.get("TIRNAS_REHEARSAL"): pytest.skip("at will: TIRNAS_REHEARSAL=small (some minutes) or 1 (an hour)")
    out = tmp_path_factory.mktemp("rehearsed") / "out"
    words = ["--ablation"] if FULL else ["--smaller", "--train", "10", "--test", "4", "--ptb", "0", "--frames", "3"]
    command = [sys.executable, str(ROOT / "benchmarks" / "rehearse.py"), "--out", str(out), *words]
    run = subprocess.run(command, cwd=ROOT, env=ENV, text=True, capture_output=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return out


def test_everything_is_written_and_says_what_it_is(rehearsed):
    report, card = rehearsed / "report", load_card(rehearsed / "model.safetensors")
    assert card.origin["recipe"] == "paper" and "a rehearsal of 4 weight updates" in card.origin["rehearsal"]
    metrics, scores = json.loads((rehearsed / "metrics.json").read_text()), json.loads((report / "scores.json").read_text())
    backbone = {"parameters": count_parameters(card.build().backbone)}
    assert metrics["tirnas"]["rehearsal"] == scores["tirnas"]["rehearsal"] == card.origin["rehearsal"]
    assert metrics["tirnas"]["backbone"]["parameters"] == scores["tirnas"]["backbone"]["parameters"] == backbone["parameters"]
    assert "rehearsal" not in metrics["constant"] and scores["tirnas"]["benchmark"] == "lsotb-tir"
    page = (report / "report.html").read_text()
    assert "tirnas is a rehearsal of 4 weight updates" in page and "of another length than in the list of lsotb-tir" in page
    for stage in ("search", "retrain"): assert "a rehearsal of 4 weight updates" in (rehearsed / "runs" / f"{stage}.ipynb").read_text()


def test_tables_have_the_papers_rows_and_columns(rehearsed):
    scores = json.loads((rehearsed / "report" / "scores.json").read_text())
    for number, columns in (("I", ("parameters (M)", "FLOPs (G)", "GPU days")), ("II", ("PTB-TIR precision", "PTB-TIR success"))):
        rows, notes = table_of(rehearsed / "report" / f"table{len(number)}.md")
        assert list(rows)[:-len(scores)] == [row["method"] for row in paper_table(number)] and set(columns) <= set(rows["tirnas"])
        for key, head in (("precision", "precision"), ("success", "success"), ("norm_precision", "norm. precision (AUC)")):
            assert rows["tirnas"][f"LSOTB-TIR {head}"] == f"{scores['tirnas'][key]:.3f}"
        assert any("a rehearsal of 4 weight updates" in note for note in notes)
        assert f"{scores['tirnas']['success']:.3f}" in (rehearsed / "report" / f"table{len(number)}.tex").read_text()
    cost = table_of(rehearsed / "report" / "table1.md")[0]["tirnas"]
    assert cost["parameters (M)"] == f"{scores['tirnas']['backbone']['parameters'] / 1e6:.2f}" and cost["FLOPs (G)"] == f"{scores['tirnas']['backbone']['macs'] / 1e9:.2f}"


def test_attribute_plots_have_every_attribute_of_two_sequences(rehearsed):
    scores = json.loads((rehearsed / "report" / "scores.json").read_text())
    listed = [line.split("|")[1].strip() for line in (rehearsed / "report" / "attributes.md").read_text().splitlines()[2:]]
    assert listed == [a for a in ATTRIBUTES["lsotb-tir"] if a in scores["tirnas"]["per_attribute"]] and (not FULL or len(listed) == 16)
    for name in ("attributes", "radar", *(f"attribute_{kind}" for kind in ("success", "precision", "norm_precision"))):
        assert (rehearsed / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not FULL, reason="set TIRNAS_REHEARSAL=1 to run the whole rehearsal, with the five rows of Table I")
def test_the_five_rows_and_both_benchmarks(rehearsed):
    rows, notes = table_of(rehearsed / "table1_ablation.md")
    assert len(rows) == 5 and all(row["runs"] == "1" and row["parameters, M"] != "-" for row in rows.values())
    joined = table_of(rehearsed / "table2.md")[0]["tirnas"]
    assert "-" not in joined.values()
