"""make says what is missing on a machine that lacks something, before it makes anything."""
import os
import shutil
import subprocess

import pytest


def make(folder, python, **env):
    run = subprocess.run(["make", "test", f"PYTHON={python}"], cwd=folder, env={**os.environ, **env}, text=True, capture_output=True)
    assert run.returncode != 0 and not (folder / ".venv").exists()
    return run.stdout


def fake_python(path, version_ok, has_venv):
    "A stand-in interpreter that answers make's questions as an old or a stripped one would."
    path.write_text("#!/bin/sh\ncase \"$*\" in\n*pip*) exit 1;;\n*--version*) echo Python 3.9.2;;\n"
                    f"*version_info*) exit {0 if version_ok else 1};;\n*'import venv'*) exit {0 if has_venv else 1};;\n*) exit 1;;\nesac\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version_ok, has_venv, said", [
    (False, True, "is too old: tirnas needs Python 3.11 or newer"), (True, False, "venv module is missing"),
    (True, True, "neither ensurepip nor pip")])
def test_a_python_that_will_not_do(repository, tmp_path, version_ok, has_venv, said):
    assert said in make(repository, fake_python(tmp_path / "python", version_ok, has_venv))


def test_no_python(repository):
    assert "Python is missing: install Python 3.11 or newer" in make(repository, "no-such-python")


def test_no_git(repository, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "make"): (tools / name).symlink_to(shutil.which(name))
    python = fake_python(tools / "python", True, True)
    assert "git is missing" in make(repository, python, PATH=str(tools))
