"""What goes wrong around a run: killed processes, a full disk, a second run in the same folder, a strange environment; all of it real."""
import contextlib
import functools
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import chores
import kills
import numpy as np
import pytest
import torch
from conftest import ENV, ROOT

from tirnas.benchmark import run_benchmark
from tirnas.core import DiskFull, UserError, load_state, save_state, write_atomic
from tirnas.data.prepare import PrepareParams, prepare
from tirnas.data.sequences import open_dataset, write_frame, write_sequence
from tirnas.data.synthetic import film_scene, random_scene, simulate
from tirnas.evaluation import publish
from tirnas.film import Film
from tirnas.lock import hold, hold_folder
from tirnas.workers import WorkerDied, run_parallel

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
KILLS = int(os.environ.get("TIRNAS_KILLS", 0))      # in all; 0: a few, of the stages that no other file kills
NEEDS_ROOM = r"it needs [\d,]+ bytes and the disk has [\d,]+ free; make room and run again$"


def hidden(home):
    "What a run that ended well must not leave."
    return sorted(str(p.relative_to(home)) for p in home.rglob(".*"))


# --- kill -9

@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    home = tmp_path_factory.mktemp("stock")
    kills.provide(home)
    return home


@LINUX
@pytest.mark.parametrize("stage", kills.STAGES)
def test_killed_at_random_moments_and_ends_with_the_same_bytes(stage, stock, tmp_path):
    "All kills of a stage hit one folder, one after the other; what the last run leaves is what an undisturbed one leaves, to the byte."
    share = -(-KILLS // len(kills.STAGES)) if KILLS else {"prepare": 2, "retrain": 2, "evaluate": 2}.get(stage, 0)
    if not share: pytest.skip("at will: TIRNAS_KILLS=40")
    whole, broken = (kills.fresh(stage, stock, tmp_path / name) for name in ("whole", "broken"))
    took = kills.finish(stage, whole)
    moments, ended = kills.kill_at_random(stage, stock, broken, share, 0.9 * took, random.Random(stage))
    print(f"{stage}: a whole run takes {took:.2f} s; killed {len(moments)} times, after {', '.join(f'{m:.2f}' for m in moments)} s; {ended} runs ended before")
    kills.finish(stage, broken)
    expected, found = kills.contents(whole), kills.contents(broken)
    if stage in ("search", "retrain"): found = {name: data for name, data in found.items() if name in expected}
    else: assert hidden(broken) == []
    assert expected and sorted(found) == sorted(expected) and found == expected


# --- a disk without room

@contextlib.contextmanager
def small_disk(folder, size):
    "A disk of `size` bytes in memory, mounted on a folder."
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode: pytest.skip(f"no small disk can be mounted here ({made.stderr.strip()})")
    try: yield folder
    finally: subprocess.run(["umount", "-l", folder], check=True)


def fill(folder, leave):
    "Take all room of the disk of a folder but `leave` bytes."
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(bytes(free - leave))


@LINUX
def test_a_checkpoint_without_room(tmp_path):
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        path = save_state(disk / "search.safetensors", {"weights": torch.ones(100_000), "epoch": 1})
        with pytest.raises(DiskFull, match=f"^{path} cannot be written .No space left on device.: {NEEDS_ROOM}") as told:
            save_state(path, {"weights": torch.ones(200_000), "epoch": 2})
        needs, free = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:bytes|free)", str(told.value)))
        assert 800_000 <= needs < 801_000 and free == os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < needs
        assert load_state(path)["epoch"] == 1 and [p.name for p in disk.iterdir()] == ["search.safetensors"]


@LINUX
def test_frames_without_room_and_the_same_command_once_there_is(tmp_path):
    command = [sys.executable, "-m", "tirnas", "simulate", str(tmp_path / "disk" / "out"), "--sequences", "3", "--frames", "4"]
    simulate(tmp_path / "whole", 3, 4, seed=0, progress=False)
    first = sum(-(-p.stat().st_size // 4096) * 4096 for p in (tmp_path / "whole" / "train_0000").rglob("*") if p.is_file())
    with small_disk(tmp_path / "disk", 4_000_000) as disk:
        fill(disk, 3 * first // 2)
        run = subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True)
        last = run.stderr.strip().splitlines()[-1]
        assert run.returncode == 2 and re.search(rf"^tirnas: .*cannot be written .No space left on device.: {NEEDS_ROOM}", last), run.stderr
        there = sorted(p.name for p in (disk / "out").iterdir())
        assert hidden(disk) == [] and 1 <= sum("train" in name for name in there) < 3
        assert all(len(s) == 4 for s in open_dataset(disk / "out"))
        (disk / "filler").unlink()
        assert subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True).returncode == 0
        assert kills.contents(disk / "out") == kills.contents(tmp_path / "whole")


@pytest.fixture
def data(tmp_path):
    boxes = np.tile([10.0, 12, 14, 20], (60, 1)) + np.arange(60)[:, None] * 0.1234
    for name in ("boy", "car", "man"): write_sequence(tmp_path / "data" / name, np.full((60, 48, 64), 90, np.uint8), boxes)
    return tmp_path / "data"


@LINUX
@pytest.mark.parametrize("jobs", (1, 2))
def test_results_without_room_end_the_run(data, tmp_path, jobs):
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        fill(disk, 24_000)
        with pytest.raises(DiskFull, match=NEEDS_ROOM): run_benchmark("constant", open_dataset(data), disk / "results", jobs, progress=False)
        assert hidden(disk) == []
        (disk / "filler").unlink()
        home = run_benchmark("constant", open_dataset(data), disk / "results", jobs, progress=False)
        assert len(list(home.glob("*_time.txt"))) == 3


@LINUX
def test_published_results_without_room_are_those_of_the_last_evaluation(tmp_path):
    with small_disk(tmp_path / "disk", 400_000) as disk:
        for name, size in (("old", 10), ("new", 300_000)): write_atomic(tmp_path / name / "tirnas" / "car.txt", "1,2,3,4\n" * (size // 8))
        publish(tmp_path / "old", disk / "results")
        (disk / "other").write_bytes(bytes(200_000))
        with pytest.raises(DiskFull, match=NEEDS_ROOM): publish(tmp_path / "new", disk / "results")
        assert (disk / "results" / "tirnas" / "car.txt").read_text() == "1,2,3,4\n" and hidden(disk) == []


@LINUX
def test_a_film_without_room_leaves_the_old_one(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (30, 120, 160, 3)).astype(np.uint8)
    with small_disk(tmp_path / "disk", 100_000) as disk:
        (disk / "track.avi").write_bytes(b"an older film")
        film = Film(disk / "track.avi")
        for picture in pictures: film.add(picture)
        with pytest.raises(DiskFull, match=r"track.avi is cut off after [\d,]+ bytes.*: make room"): film.close()
        assert (disk / "track.avi").read_bytes() == b"an older film" and len(list(disk.iterdir())) == 1


def write_with_a_limit(home):
    "What is said by three writers who may write no file over 50,000 bytes."
    noise = np.random.default_rng(0).integers(0, 255, (400, 400)).astype(np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    for write in (lambda: save_state(home / "state.safetensors", {"weights": torch.ones(99_999)}), lambda: write_frame(home / "0001.jpg", noise),
                  lambda: write_atomic(home / "car.txt", "1,2,3,4" * 9999)):
        try: write()
        except DiskFull as e: print(e, flush=True)


@LINUX
def test_a_limit_on_the_size_of_files(tmp_path):
    "Where no disk can be mounted, the same is tried with the limit that the operating system puts on files."
    names = ("state.safetensors", "0001.jpg", "car.txt")
    for name in names: (tmp_path / name).write_text("old")
    process = kills.start(write_with_a_limit, tmp_path)
    process.join()
    said = (tmp_path / "said.txt").read_text().splitlines()
    for name, line in zip(names, said, strict=True): assert re.search(f"{name} cannot be written .File too large.: {NEEDS_ROOM}", line)
    assert {p.name: p.read_text() for p in tmp_path.iterdir() if p.name != "said.txt"} == dict.fromkeys(names, "old")


# --- two runs in one folder

WAITS = "import sys, time; from tirnas.lock import hold_folder, hold\nwith hold_folder(sys.argv[1], 'a first run'): print('here', flush=True); time.sleep(60)"


@LINUX
def test_the_second_run_is_told_of_the_first_and_a_killed_one_is_forgotten(data, tmp_path):
    first = subprocess.Popen([sys.executable, "-c", WAITS, tmp_path / "results" / "constant"], cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "here\n"
    told = f"results/constant is in use by a first run, process {first.pid} on .* since .*: wait until that ends, or give another place"
    with pytest.raises(UserError, match=told): run_benchmark("constant", open_dataset(data), tmp_path / "results", progress=False)
    assert [p.name for p in (tmp_path / "results" / "constant").iterdir()] == [".lock"]
    first.kill()
    first.communicate()
    (tmp_path / "results" / "constant" / ".car.txt.0a1b2c3d.partial").write_text("left by a killed run")
    run_benchmark("constant", open_dataset(data), tmp_path / "results", progress=False)
    assert hidden(tmp_path / "results") == []


def test_each_writer_holds_its_place(data, tmp_path):
    with hold_folder(tmp_path / "prepared", "another"), pytest.raises(UserError, match="prepared is in use by another"):
        prepare(PrepareParams((), 1, 4, 0), data, tmp_path / "prepared")
    with hold_folder(tmp_path / "filmed", "another"), pytest.raises(UserError, match="filmed is in use by another"):
        film_scene(tmp_path / "filmed", random_scene(0, 4))
    with hold(tmp_path / "state.safetensors", "another"), pytest.raises(UserError, match="state.safetensors is in use by another"):
        with hold(tmp_path / "state.safetensors"): pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


@LINUX
def test_never_two_at_once(tmp_path):
    "Forty visits by three processes: the lock file is made and removed all the time, and no visit overlaps another."
    list(run_parallel(functools.partial(chores.take_turns, tmp_path / "book"), range(40), 3))
    lines = (tmp_path / "book").read_text().splitlines()
    assert len(lines) == 80 and all(a.replace(" in", "") == b.replace(" out", "") for a, b in zip(lines[::2], lines[1::2]))


# --- a worker that dies

@LINUX
def test_a_worker_that_is_killed_while_it_films_is_named(tmp_path):
    "The largest of the children of a real command is killed, as the operating system does; the command ends, and the next goes on."
    command = [sys.executable, "-m", "tirnas", "simulate", str(tmp_path / "out"), "--sequences", "4", "--frames", "20", "--jobs", "2"]
    run = subprocess.Popen(command, cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True)
    victims = []
    while not victims and run.poll() is None:
        time.sleep(0.01)
        at_work = list((tmp_path / "out").glob(".train_*.partial"))
        victims = [pid for pid in children(run.pid) if at_work and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(victims[0], signal.SIGKILL)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 2 and re.search(r"tirnas: a worker process died over train_000\d \(signal SIGKILL\), perhaps for lack of memory", said), said
    assert subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True).returncode == 0
    assert len(open_dataset(tmp_path / "out")) == 4 and hidden(tmp_path / "out") == []


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@LINUX
def test_every_death_is_told_and_all_other_work_is_done():
    found = list(run_parallel(chores.die_if_even, range(5), 2, died=lambda number, why: (number, why)))
    lived, died = [n for n in found if isinstance(n, int)], [n for n in found if not isinstance(n, int)]
    assert sorted(lived) == [1, 3] and sorted(n for n, _ in died) == [0, 2, 4] and all("SIGKILL" in why for _, why in died)
    with pytest.raises(WorkerDied, match="over 4"): list(run_parallel(chores.die_if_even, [1, 4, 3], 1))


# --- strange places to work in

BACKWARDS = """
import itertools, time
calls, now, now_ns = itertools.count(), time.time(), time.time_ns()
time.time, time.time_ns = lambda: now - 10.0 * next(calls), lambda: now_ns - 10**10 * next(calls)
"""
NOWHERE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
STRANGE = {
    "a clock that goes back": {"clock": True},
    "data that cannot be written": {"read_only": True},
    "no home": {"env": {"HOME": "/proc/nowhere"}},
    "no UTF-8": {"env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}},
    "one core": {"one_core": True},
    "no network": {"offline": True, "env": NOWHERE},
}
EVERYTHING = {key: True for how in STRANGE.values() for key in how} | {"env": {k: v for how in STRANGE.values() for k, v in how.get("env", {}).items()}}


@contextlib.contextmanager
def unwritable(folder):
    "Make a folder one that not even root can write into."
    if os.geteuid() == 0 and subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], capture_output=True).returncode == 0:
        assert subprocess.run(["touch", folder / "x"], capture_output=True).returncode
        try: yield
        finally: subprocess.run(["umount", "-l", folder], check=True)
    else:
        paths = [folder, *folder.rglob("*")]
        for path in paths: path.chmod(path.stat().st_mode & ~0o222)
        try: yield
        finally:
            for path in paths: path.chmod(path.stat().st_mode | 0o200)


def without_network():
    "A command that runs another without any network, where that is allowed."
    ways = (["unshare", "-n"], ["unshare", "-rn"])
    works = [way for way in ways if subprocess.run([*way, "true"], capture_output=True).returncode == 0]
    return works[0] if works else []


def errand(home, env={}, clock=False, read_only=False, one_core=False, offline=False):
    "Do all that a user does in a folder `wärme`, in a process of its own; what came out, but for times."
    home = home / "wärme"
    noise, boxes = np.random.default_rng(0), np.array([[60.0 + 2 * t, 30, 20, 40] for t in range(5)])
    frames = noise.normal(90, 8, (5, 120, 160)).clip(0, 200).astype(np.uint8)
    for t in range(5): frames[t, 30:70, 60 + 2 * t:80 + 2 * t] += 50
    write_sequence(home / "data" / "fußgänger", frames, boxes)
    (home / "clock").mkdir()
    (home / "clock" / "sitecustomize.py").write_text(BACKWARDS if clock else "")
    if clock: os.utime(home / "data" / "fußgänger" / "groundtruth.txt", (4e9, 4e9))
    command = [*(without_network() if offline else []), sys.executable, ROOT / "tests" / "errand.py", "data", "out"]
    around = {**ENV, "PYTHONPATH": os.pathsep.join(map(str, (home / "clock", ROOT))), **env}
    few = functools.partial(os.sched_setaffinity, 0, {min(os.sched_getaffinity(0))}) if one_core else None
    with unwritable(home / "data") if read_only else contextlib.nullcontext():
        run = subprocess.run(command, cwd=home, env=around, capture_output=True, preexec_fn=few)
    assert run.returncode == 0, run.stderr.decode(errors="replace")[-3000:]
    assert (home / "out" / "scores" / "report.html").stat().st_size > 10_000 and hidden(home) == []
    scores = json.loads((home / "out" / "scores" / "scores.json").read_text())
    return {name: data for name, data in kills.contents(home / "out").items() if not name.startswith("scores/")}, scores["kcf"]["success"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return errand(tmp_path_factory.mktemp("usual"))


@LINUX
@pytest.mark.parametrize("place", [*STRANGE, "all of these"])
def test_all_works_and_gives_the_same_bytes_with(place, usual, tmp_path):
    if place in STRANGE and not KILLS: pytest.skip("tried with all the others; by itself at will: TIRNAS_KILLS=40")
    assert len(usual[0]) > 10 and errand(tmp_path, **STRANGE.get(place, EVERYTHING)) == usual
