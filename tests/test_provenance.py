"""Every figure on a page has an entry that says where it comes from, and every entry is on a page; what the command says of them."""
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, shell

from tirnas.core import UserError
from tirnas.provenance import NUMBER, compare, computed, figure_numbers, find_figures, load_figures, lock_state, numbers_in, provenance

FIGURES = load_figures(ROOT)
PAGES = ("README.md", "docs/figures.md", "tirnas/models/README.md")
TOLD = "write them into docs/figures.json (tirnas.provenance says what an entry holds)"


def bare(text):
    "Numbers of a text without code, links and their signs."
    plain = re.sub(r"`[^`\n]*`|\]\([^)]*\)", " ", text)
    return {n.lstrip("+-") for n in numbers_in(plain)}


def rows(page):
    "First cell and figures of each row of a page's tables; a last column of commands is not one of figures."
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.M):
        head, _, *lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        end = -1 if head[-1] == "command" else None
        for cells in lines: yield cells[0], " ".join(cells[1:end])


def prose(page):
    "Lines of a page that are in no table and in no block of code."
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    return [line for line in text.splitlines() if not line.startswith("|")]


def entries_of(page, row):
    return [f for f in FIGURES.values() if any(row.startswith(start) for start in f["rows"].get(page, ()))]


ROWS = [(page, row, said) for page in PAGES for row, said in rows(page)]


@pytest.mark.parametrize("page, row, said", ROWS, ids=[f"{p.split('/')[-1]}-{r[:30]}" for p, r, _ in ROWS])
def test_every_number_in_a_table_has_an_entry(page, row, said):
    known = set().union(*map(figure_numbers, entries_of(page, row)))
    assert not (lacking := bare(said) - known), f"{page}, {row}: no entry of this row holds {sorted(lacking)}: {TOLD}"


@pytest.mark.parametrize("page", PAGES)
def test_every_fraction_in_prose_has_an_entry(page):
    known = set().union(*map(figure_numbers, FIGURES.values()))
    said = {n for line in prose(page) for n in bare(re.sub(r"(Python |arXiv )[\d.]+", "", line)) if "." in n}
    assert not (lacking := said - known), f"{page}: no entry holds {sorted(lacking)}: {TOLD}"


@pytest.mark.parametrize("name", FIGURES)
def test_every_entry_is_on_a_page(name):
    figure = FIGURES[name]
    for page, starts in figure["rows"].items():
        for start in starts: assert any(row.startswith(start) for row, _ in rows(page)), f"{name}: no row of {page} starts with {start!r}"
    shown = set().union(*(bare((ROOT / page).read_text()) for page in PAGES))
    assert not (gone := figure_numbers(figure) - shown), f"{name}: no page says {sorted(gone)} any more"
    assert re.fullmatch("[0-9a-f]{7,40}", figure["commit"]) and re.fullmatch(r"\d{4}-\d\d-\d\d", figure["measured"])
    assert figure["command"] and figure["machine"] and figure["tolerance"] and figure["checks"].keys() <= figure["values"].keys()


def test_values_that_can_be_computed_are_the_ones_on_the_pages():
    wrong = [row for figure in FIGURES.values() for row in compare(figure, ROOT) if not row["same"]]
    assert not wrong, wrong


def test_the_commands_exist():
    "A script that an entry names is there, and so is a target of make."
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name, figure in FIGURES.items():
        for script in re.findall(r"(?:benchmarks|nbs)/\S+\.(?:py|ipynb)", figure["command"]): assert (ROOT / script).is_file(), name
        for target in re.findall(r"\bmake ([a-z-]+)", figure["command"]): assert target in targets, name


def test_numbers_are_read_as_they_are_written():
    assert numbers_in("±0.01, 1,400 of 82,133; 0.648 to 0.657 in 12 ms") == ["0.01", "1,400", "82,133", "0.648", "0.657", "12"]
    assert not NUMBER.findall("CSRT2 x3 v1.2.3-4 a.5")


# --- a clone in which something moved

@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    "A few files of this repository, committed."
    copy = tmp_path_factory.mktemp("clone")
    for name in ("params.yaml", "dvc.lock", "metrics.json", "docs/figures.json", "tirnas/models/mini.safetensors", "tirnas/models/base.safetensors", "tirnas/core.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "state"]): subprocess.run([*git, *words], cwd=copy, check=True)
    return copy


def asked(clone, *words):
    return shell(sys.executable, "-P", "-m", "tirnas", "provenance", *words, cwd=clone)


def test_what_moved_is_said(clone):
    before = json.loads(asked(clone, "pipeline_success", "--json").stdout)
    assert before["now"]["git"]["dirty"] == [] and before["now"]["git"]["commit"] and not before["figures"]["pipeline_success"]["commit_here"]
    assert "metrics.json" not in before["now"]["pipeline"]["changed_since"]
    scores = json.loads((clone / "metrics.json").read_text())
    scores["csrt"]["success"] += 0.1
    (clone / "metrics.json").write_text(json.dumps(scores))
    said = asked(clone, "0.443")
    assert said.returncode == 0, said.stderr
    assert "pipeline_success: the pages say 0.420 for CSRT, json metrics.json csrt.success gives 0.520" in said.stdout
    assert "metrics.json" in lock_state(clone)["changed_since"] and "1 files differ from the commit" in said.stdout


def test_a_clone_without_git_is_no_error(clone, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    shutil.copytree(clone, tmp_path / "plain", ignore=shutil.ignore_patterns(".git"))
    assert provenance("loader", tmp_path / "plain")["now"]["git"] == {"commit": None, "date": None, "dirty": None}


@pytest.mark.parametrize("word", ["-0.041", "323 M", "+0.143"])
def test_a_number_is_asked_for_as_it_is_read(clone, word):
    "Its sign is no option, its unit no mistake."
    said = asked(clone, word, "--json")
    assert said.returncode == 0 and json.loads(said.stdout)["figures"], said.stderr


@pytest.mark.parametrize("words, said", [(["0.999"], "is neither a number in the figures nor one of their names"), (["loader", "extra"], "see `tirnas provenance --help`")])
def test_bad_input_is_one_sentence(clone, words, said):
    run = asked(clone, *words)
    assert run.returncode == 2 and said in run.stderr and run.stderr.count("\n") == 1


def test_an_installed_package_alone_says_what_it_lacks(tmp_path):
    shutil.copytree(ROOT / "tirnas", tmp_path / "site/tirnas", ignore=shutil.ignore_patterns("__pycache__", "models"))
    code = "import sys; sys.path.insert(0, 'site'); sys.argv[1:] = ['provenance', '0.582']; import tirnas; assert 'site' in tirnas.__file__; from tirnas.cli import main; main()"
    run = shell(sys.executable, "-c", code, cwd=tmp_path)
    assert run.returncode == 2 and "run this in a clone of tirnas" in run.stderr and run.stderr.count("\n") == 1


def test_a_broken_list_is_told(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/figures.json").write_text("{")
    with pytest.raises(UserError, match="cannot be understood"): load_figures(tmp_path)
    (tmp_path / "docs/figures.json").write_text(json.dumps({"figures": {"one": {"what": ""}}}))
    with pytest.raises(UserError, match="the entry one lacks or does not know checks"): load_figures(tmp_path)


def test_products_of_parameters():
    assert computed("params mini.retrain.epochs mini.retrain.steps", ROOT) == 14 * 50 == 700
    with pytest.raises(UserError, match="neither a number"): find_figures(FIGURES, "no such")
