"""The rules of the house: numbered imports, light metrics, narrow stage notebooks."""
import ast
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, tracked_files

LIBRARY = sorted(ROOT.glob("nbs/[0-9]*.ipynb"))
TUTORIALS = sorted(ROOT.glob("nbs/tutorials/*.ipynb"))
STAGES = sorted(ROOT.glob("nbs/stages/*.ipynb"))


def cells(notebook, kind="code"):
    return [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def module_of(notebook):
    (name,) = [m[1] for c in cells(notebook) if (m := re.search(r"^#\|\s*default_exp (\S+)", source(c), re.M))]
    return f"tirnas.{name}"


NUMBER = {module_of(n): n.name.split("_")[0] for n in LIBRARY}


def imports(module):
    "Absolute names of the tirnas modules that an exported module imports anywhere, also inside functions."
    package, tree = module.split(".")[:-1], ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])
        elif isinstance(node, ast.Import): yield from (a.name for a in node.names)


def test_each_module_has_one_notebook():
    exported = {str(p.relative_to(ROOT).with_suffix("")).replace("/", ".") for p in (ROOT / "tirnas").rglob("*.py")
                if p.name not in ("__init__.py", "__main__.py", "_modidx.py")}
    assert exported == set(NUMBER) and len(NUMBER) == len(LIBRARY)


@pytest.mark.parametrize("module", NUMBER)
def test_imports_go_to_smaller_numbers(module):
    for name in imports(module):
        if name in NUMBER: assert NUMBER[name] < NUMBER[module], f"{module} imports {name}"
        assert name not in ("tirnas.show",) or NUMBER[module] >= "62", f"{module} draws: only notebooks and reports do"


@pytest.mark.parametrize("module", NUMBER)
def test_nets_and_metrics_know_little(module):
    names = set(imports(module))
    if module == "tirnas.metrics": assert not any(n.split(".")[0] in ("torch", "cv2", "matplotlib") for n in names)
    if module.startswith("tirnas.nets."): assert all(n.startswith("tirnas.nets.") or n == "tirnas.core" or not n.startswith("tirnas") for n in names)


@pytest.mark.parametrize("notebook", LIBRARY + TUTORIALS, ids=lambda p: p.stem)
def test_library_notebooks_teach(notebook):
    text = "\n".join(source(c) for c in cells(notebook))
    assert "expect_fail(lambda" not in text, "expect_fail is a context manager: called with a function it checks nothing"
    assert any("assert " in source(c) for c in cells(notebook) if not source(c).startswith("#| export"))
    assert any(o.get("data", {}).keys() & {"image/png"} for c in cells(notebook) for o in c.get("outputs", [])), "no picture"


@pytest.mark.parametrize("notebook", LIBRARY + TUTORIALS + STAGES, ids=lambda p: p.stem)
def test_no_cell_is_long(notebook):
    "Forty lines are what a person takes in at once; a longer class or function is several ideas."
    lengths = {source(c).split("\n", 2)[:2][-1]: len(source(c).splitlines()) for c in cells(notebook)}
    assert not {first: lines for first, lines in lengths.items() if lines > 40}


@pytest.mark.parametrize("notebook", STAGES, ids=lambda p: p.stem)
def test_stage_notebooks_are_templates(notebook):
    code = cells(notebook)
    assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1
    for cell in code:
        assert not cell["outputs"] and cell["execution_count"] is None
        assert not [n for n in ast.walk(ast.parse(source(cell))) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


@pytest.mark.parametrize("notebook, following", list(zip(LIBRARY, LIBRARY[1:])), ids=lambda p: p.stem)
def test_each_notebook_leads_to_the_next(notebook, following):
    prose = "\n".join(source(c) for c in cells(notebook, "markdown"))
    (line,) = re.findall(r"^Next: .*", prose, re.M)
    assert re.search(r"\]\((.*?)\)", line)[1] == following.name


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda p: p.stem)
def test_tutorials_are_read_not_imported(notebook):
    code = cells(notebook)
    assert not [c for c in code if re.search(r"^#\|\s*(export|default_exp)", source(c), re.M)], "a tutorial exports nothing"
    assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert any(o.get("data", {}).keys() & {"image/png"} for c in code for o in c["outputs"]), "no picture"


def test_no_machine_paths():
    pattern = re.compile(r"(?<![\w./{}])/(tmp|work|root|home|mnt)/[\w.-]+")
    for name in tracked_files():
        if name.suffix in {".py", ".ipynb", ".md", ".yaml", ".toml", ".ini", ".txt", ".dvc", ".lock"} and name.name != "test_layout.py":
            assert not pattern.search((ROOT / name).read_text(errors="replace")), name


def test_command_line_starts_without_torch():
    "Help must come at once; torch alone takes seconds to import."
    code = "import sys, tirnas.cli; print([m for m in ('torch', 'cv2', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert out.stdout.strip() == "[]"
