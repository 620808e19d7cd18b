"""Where processes come from that need no start-up: a server that has everything imported forks them, so each works within milliseconds."""
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import tirnas.browse, tirnas.evaluation, tirnas.export, tirnas.film, tirnas.follow, tirnas.report, tirnas.speed     # noqa: E401, F401
import tirnas.cli, tirnas.data.check, tirnas.engine, tirnas.tracker, tirnas.trackers                               # noqa: E401, F401

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def nursery():
    "The context of such processes, its server running."
    context, before = get_context("forkserver"), os.environ.get("PYTHONPATH")
    context.set_forkserver_preload(["nursery", "kills"])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), str(ROOT), *filter(None, [before])])
    try:
        first = context.Process(target=time.sleep, args=(0,))
        first.start()
        first.join()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None: os.environ["PYTHONPATH"] = before
    return context


def _do(work: Callable, args: tuple, environment: dict[str, str], cwd: str, streams: list[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in enumerate(streams, 1): os.dup2(os.open(name, os.O_WRONLY), number)
    work(*args)


def forked(work: Callable, *args, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    "What `work(*args)` says and how it ends, in a process of its own."
    with tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder) / name) for name in ("out", "err")]
        for name in streams: Path(name).touch()
        process = nursery().Process(target=_do, args=(work, args, env, str(cwd), streams))
        process.start()
        process.join(600)
        if process.exitcode is None: process.kill()
        return subprocess.CompletedProcess(args, process.exitcode, *(Path(name).read_text() for name in streams))


def run_tirnas(*words: str) -> None:
    "The program `tirnas` with these words."
    from tirnas.cli import main
    sys.argv = ["tirnas", *words]
    main()


def run_cells(notebook: str, parameters: dict) -> None:
    "The code cells of a notebook one after the other, the parameters after the cell that has their tag, as papermill does."
    space = {"__name__": "__main__"}
    for cell in json.loads(Path(notebook).read_text())["cells"]:
        if cell["cell_type"] != "code": continue
        exec("".join(cell["source"]), space)
        if "parameters" in cell["metadata"].get("tags", []): space |= parameters
