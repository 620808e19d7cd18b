"""The exported package is what the notebooks say, and the notebooks are clean."""
import subprocess

from conftest import shell


def changed(repository):
    return subprocess.run(["git", "status", "--porcelain"], cwd=repository, text=True, capture_output=True, check=True).stdout


def test_export_changes_nothing(repository):
    assert shell("nbdev_export", cwd=repository).returncode == 0
    assert not changed(repository)


def test_clean_changes_nothing(repository):
    assert shell("nbdev_clean", cwd=repository).returncode == 0
    assert not changed(repository)
