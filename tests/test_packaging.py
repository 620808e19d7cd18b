"""What `pip install` gives, without a clone: the package builds, holds its models, and tracks from any folder."""
import importlib.util
import json
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
spec = importlib.util.spec_from_file_location("bench_size", ROOT / "benchmarks" / "size.py")
size = importlib.util.module_from_spec(spec)
spec.loader.exec_module(size)


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


@pytest.fixture(scope="module")
def torchless(packages, tmp_path_factory):
    "A fresh environment with the wheel and links to the packages that 68_engine names for life without torch, and to what they need."
    if not find_spec("onnxruntime"): pytest.skip("onnxruntime is not installed: pip install -e '.[dev]' -c constraints.txt")
    place = tmp_path_factory.mktemp("torchless")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    (library,) = (place / "venv").glob("lib/python*/site-packages")
    for package in size.needed_by(size.without_torch()).values():
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (library / name).exists(): (library / name).symlink_to(package.locate_file(name))
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


def test_life_without_torch(torchless):
    "Render a scene, track it on ONNX Runtime, score the track; the mean overlap is counted once more here."
    from tirnas.boxes import iou
    from tirnas.data.sequences import read_boxes

    assert "ModuleNotFoundError: No module named 'torch'" in call(torchless, "python", "-c", "import torch").stderr
    run = call(torchless, "tirnas", "simulate", "sim", "--sequences", 1, "--frames", 24)
    assert run.returncode == 0, run.stderr
    truth = read_boxes(torchless / "sim/train_0000/groundtruth.txt")
    words = ["track", "sim/train_0000/img", "--origin", 1, "--box", ",".join(map(str, truth[0])), "--model", "mini"]
    run = call(torchless, "tirnas", *words, "--engine", "onnx", "--out", "raw/mini/train_0000.txt", "--video", "track.avi", "--json", "track.json")
    assert run.returncode == 0, run.stderr
    found = read_boxes(torchless / "raw/mini/train_0000.txt")
    overlap = iou(found, truth).mean()
    assert len(found) == 24 and overlap > 0.5 and (torchless / "track.avi").stat().st_size > 10_000
    run = call(torchless, "tirnas", "evaluate", "--benchmark", "simtir", "--data", "sim", "--results", "raw", "--out", "scores")
    assert run.returncode == 0 and (torchless / "scores/report.html").is_file(), run.stderr
    assert abs(json.loads((torchless / "scores/scores.json").read_text())["mini"]["average_overlap"] - overlap) < 0.01


def test_what_needs_torch_says_so(torchless):
    "Exit code 2, a sentence, no file; and the doctor finds nothing wrong with a device that only tracks."
    (torchless / "one").mkdir()
    shutil.copy(next((ROOT / "samples/person_street_02/img").glob("*1.jpg")), torchless / "one")
    run = call(torchless, "tirnas", "track", "one", "--box", "10,10,20,40", "--out", "none.txt")
    assert run.returncode == 2 and "there is no module torch: install torch, or give --engine onnx" in run.stderr
    assert not (torchless / "none.txt").exists() and "Traceback" not in run.stderr
    run = call(torchless, "tirnas", "doctor", "--json")
    found = {(f["group"], f["name"]): f for f in json.loads(run.stdout)["findings"]}
    assert run.returncode == 0 and found["packages", "torch"]["state"] == "optional" and "--engine onnx" in found["packages", "torch"]["found"]
    assert found["models", "base"]["found"].startswith("graphs, ")


def test_a_package_brings_what_it_needs():
    "The list of packages is closed: whatever one of them asks for here is in it, and torch in none that the engine needs."
    from importlib import metadata

    from packaging.requirements import Requirement

    alone, all_of_them = size.needed_by(size.without_torch()), size.needed_by(size.base_packages())
    assert "torch" in all_of_them and "torch" not in alone and {"onnxruntime", "numpy", "typer", "matplotlib"} <= set(alone)
    for name in alone:
        for asked in map(Requirement, metadata.requires(name) or []):
            if not asked.marker or asked.marker.evaluate({"extra": ""}): assert size.canonicalize_name(asked.name) in alone
    assert 0 < size.size_of({"typer": alone["typer"]}) < size.size_of(alone) < size.size_of(all_of_them)
