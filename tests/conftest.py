"""Shared by all tests: where the repository is, and a copy of it that a test may run and spoil."""
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tirnas.core import use_threads

os.environ["DVC_NO_ANALYTICS"] = "1"      # as the Makefile says
use_threads()       # the project's thread policy: torch's own default makes these small networks many times slower
# pytest-xdist lets its processes, and through them every program that a test starts, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def tracked_files() -> list[Path]:
    "Files that git tracks, or would, relative to the root."
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True)
    return [Path(name) for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture
def repository(tmp_path) -> Path:
    "A committed copy of this repository, as a fresh clone of the working tree would be."
    copy = tmp_path / "clone"
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    commit_all(copy)
    return copy


def commit_all(folder: Path) -> None:
    "Commit everything in `folder`, which becomes a git repository if it is none."
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.hooksPath=/dev/null"]
    if not (folder / ".git").exists(): subprocess.run([*git, "init", "-q"], cwd=folder, check=True)
    subprocess.run([*git, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-qm", "state", "--allow-empty"], cwd=folder, check=True)


def shell(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    "Run a command as a person would, in this environment, and keep what it says."
    return subprocess.run(command, cwd=cwd, env=ENV, text=True, capture_output=True, timeout=600)
