"""What `pip install` gives, without a clone: the package builds, holds its models, and tracks from any folder."""
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import ENV, ROOT, shell, tracked_files

DATA = {f"tirnas/{name}" for name in ("models/base.safetensors", "models/mini.safetensors", "models/README.md", "benchmarks.json",
                                      "published_scores/paper.csv", "published_scores/ptb_tir.csv", "published_scores/lsotb_tir_2020.csv")}
# Loaded by Python at start: whoever imports a part of the notebook stack fails.
GUARD = """import sys
class Guard:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0].startswith(("papermill", "dvc", "nbdev", "jupyter", "IPython", "ipykernel", "ipywidgets", "nbformat", "pandas")):
            raise ImportError(name + " is not part of the base installation")
sys.meta_path.insert(0, Guard)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    "A wheel and a source archive, built from a copy of the tracked files without asking any index."
    for tool in ("build", "setuptools", "pip"):
        if not find_spec(tool): pytest.skip(f"{tool} is not installed: pip install -e '.[dev]' -c constraints.txt")
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run = shell(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), cwd=source)
    assert run.returncode == 0, run.stderr
    return next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def installed(packages, tmp_path_factory):
    "A fresh environment with the wheel, which sees the other packages of this one, and a folder that is no repository."
    place = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    (library,) = (place / "venv").glob("lib/python*/site-packages")
    shared = sysconfig.get_paths()["purelib"]
    (library / "others.pth").write_text(f"{shared}\n")            # as a path only: the .pth of an editable tirnas there is not read
    (library / "sitecustomize.py").write_text(GUARD)
    pip = [sys.executable, "-m", "pip", "-q", "--python", place / "venv/bin/python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", packages[0]], cwd=place, env=plain(), check=True)
    return place


def plain():
    "The environment's variables, without any that leads Python back to the repository."
    return {k: v for k, v in ENV.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def call(place, command, *words):
    "Run a command of the fresh environment from a folder that is no repository; its end and what it said."
    run = [place / "venv/bin" / command, *map(str, words)]
    return subprocess.run(run, cwd=place, env=plain(), text=True, capture_output=True, timeout=300)


def test_wheel_holds_the_package_alone(packages):
    names = set(zipfile.ZipFile(packages[0]).namelist())
    modules = {os.path.relpath(path, ROOT) for path in (ROOT / "tirnas").rglob("*.py")}
    assert DATA | modules <= names
    assert all(name.startswith(("tirnas/", "tirnas-")) for name in names) and not [n for n in names if n.endswith((".ipynb", ".jpg"))]
    entry = zipfile.ZipFile(packages[0]).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "tirnas = tirnas.cli:main" in entry


def test_source_archive_holds_what_builds_it(packages):
    with tarfile.open(packages[1]) as archive: names = {name.partition("/")[2] for name in archive.getnames()}
    assert DATA | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert not [name for name in names if name.startswith(("tests/", "samples/", "nbs/"))]


def test_installed_command_runs_without_the_notebook_stack(installed):
    run = call(installed, "tirnas", "--help")
    assert run.returncode == 0 and "track" in run.stdout, run.stderr
    run = call(installed, "tirnas", "models")
    assert run.returncode == 0 and "base" in run.stdout and "mini" in run.stdout, run.stderr
    where = call(installed, "python", "-c", "import tirnas; print(tirnas.__file__)")
    assert where.stdout.startswith(str(installed)), "the repository's package was tested, not the wheel"
    assert "not part of the base installation" in call(installed, "python", "-c", "import nbdev").stderr


def test_installed_command_tracks(installed, tmp_path):
    "On the frames of an embedded sequence, with its first box; the boxes are those of the package in the repository."
    from tirnas.tracker import Tracker
    from tirnas.data.sequences import open_dataset

    frames = tmp_path / "frames"
    frames.mkdir()
    sequence = ROOT / "samples/person_street_02"
    for name in sorted(os.listdir(sequence / "img"))[:6]: (frames / name).symlink_to(sequence / "img" / name)
    first = (sequence / "groundtruth.txt").read_text().split("\n", 1)[0].strip()
    run = call(installed, "tirnas", "track", frames, "--box", first, "--origin", "1", "--model", "base", "--out", tmp_path / "boxes.txt")
    assert run.returncode == 0, run.stderr
    boxes = np.loadtxt(tmp_path / "boxes.txt", delimiter=",")
    (here,) = open_dataset(sequence)
    tracker = Tracker.load("base")
    tracker.init(here.frame(0), here.boxes_xywh[0])
    expected = [here.boxes_xywh[0], *(tracker.update(here.frame(t))[0] for t in range(1, 6))]
    assert np.allclose(boxes - [1, 1, 0, 0], expected, atol=1e-3)
