"""tirnas.benchmark: raw results, resume after any kind of stop, processes, seeds, starts, trackers of other people."""
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import ENV

from tirnas.benchmark import Outcome, RunFailed, Task, is_finished, plan, run_benchmark, run_sequence, run_task, settle
from tirnas.core import TrackState, UserError
from tirnas.data.sequences import Sequence, open_dataset, read_boxes, write_attributes, write_sequence
from tirnas.trackers import Contender
from tirnas.workers import WorkerDied, run_parallel


@pytest.fixture
def data(tmp_path):
    random = np.random.default_rng(0)
    for name, num_frames in (("car", 6), ("boy", 4)):
        boxes = np.array([[10.25 + 2 * t, 12.5, 14, 20] for t in range(num_frames)])
        write_sequence(tmp_path / "data" / name, random.integers(0, 255, (num_frames, 48, 64)).astype(np.uint8), boxes)
    write_attributes(tmp_path / "data" / "att" / "car.txt", ["occlusion"])
    return tmp_path / "data"


def own(folder, update, more="", name="Own"):
    "A user's tracker in a file, with this body of `update` and more class or module code; its word."
    path = folder / f"{name.lower()}.py"
    path.write_text(f"""
import os, random, time
from pathlib import Path
import numpy as np
HERE = Path(__file__).parent
class {name}:
    def init(self, frame, box): self.box, self.t = np.array(box), 0
    def update(self, frame):
        self.t += 1
        {update}
{more}
""")
    return f"{path}:{name}"


def run(name, data, out, **more):
    return run_benchmark(name, open_dataset(data), out, progress=False, **more)


class Drifting:
    "Adds a little to the box in each frame, and counts its calls."
    def init(self, frame, box_xywh):
        self.box, self.frames = np.array(box_xywh, dtype=float), [frame]

    def update(self, frame):
        self.frames.append(frame)
        self.box = self.box + (0.333333, 0, 0, 0)
        return self.box.copy(), TrackState(1.0, "held")


def test_run_sequence_is_one_pass(data):
    sequence, tracker = open_dataset(data)[1], Drifting()
    boxes, seconds, confidence = run_sequence(tracker, sequence)
    assert confidence.tolist() == [1] * 6
    assert len(tracker.frames) == len(boxes) == len(seconds) == 6
    np.testing.assert_array_equal(boxes[0], sequence.boxes_xywh[0])
    np.testing.assert_allclose(boxes[:, 0] - boxes[0, 0], np.arange(6) * 0.333333)
    for t, frame in enumerate(tracker.frames): np.testing.assert_array_equal(frame, sequence.frame(t))


@pytest.mark.parametrize("origin", (0, 1))
def test_files_count_from_the_origin(data, tmp_path, origin):
    sequences = [s.replace(origin=origin) for s in open_dataset(data)]
    folder = run_benchmark("constant", sequences, tmp_path / "results", progress=False)
    assert folder == tmp_path / "results" / "constant"
    for sequence in sequences:
        rows = read_boxes(folder / f"{sequence.name}.txt")
        expected = np.tile(sequence.boxes_xywh[0] + [origin, origin, 0, 0], (len(sequence), 1))
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4)
        assert len((folder / f"{sequence.name}_time.txt").read_text().split()) == len(sequence)
    assert sorted(p.name for p in folder.iterdir()) == ["boy.txt", "boy_confidence.txt", "boy_time.txt",
                                                       "car.txt", "car_confidence.txt", "car_time.txt", "run.json"]


def test_finished_sequences_are_not_run_again(data, tmp_path):
    folder = run("constant", data, tmp_path / "results")
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    (folder / "boy.txt").unlink()
    run("constant", data, tmp_path / "results")
    after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert {n for n in after if after[n] != stamps[n]} == {"boy.txt", "boy_confidence.txt", "boy_time.txt", "run.json"}


@pytest.mark.parametrize("spoil", (lambda rows: rows[:-1], lambda rows: rows + rows[-1:], lambda rows: [],
                                   lambda rows: ["9,9,9,9", *rows[1:]], lambda rows: ["lost", *rows[1:]]),
                         ids=("short", "long", "empty", "another target", "text"))
def test_unusable_results_are_run_again(data, tmp_path, spoil):
    path = run("constant", data, tmp_path / "results") / "car.txt"
    good = path.read_text()
    path.write_text("\n".join(spoil(good.splitlines())))
    assert not is_finished(path.parent, open_dataset(data)[1])
    run("constant", data, tmp_path / "results")
    assert path.read_text() == good


def test_processes_write_the_same_bytes(data, tmp_path):
    one, two = run("csrt", data, tmp_path / "one"), run("csrt", data, tmp_path / "two", jobs=2)
    for name in ("boy.txt", "car.txt"): assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("jobs", (1, 2))
def test_a_failing_sequence_is_named_and_the_others_kept(data, tmp_path, jobs):
    (data / "boy" / "img" / "0003.jpg").write_text("no image")
    with pytest.raises(RunFailed, match="constant failed on 1 of 2 sequences.*: boy: .*0003.jpg cannot be read"):
        run("constant", data, tmp_path / "results", jobs=jobs)
    assert [p.name for p in sorted((tmp_path / "results" / "constant").iterdir())] == ["car.txt", "car_confidence.txt", "car_time.txt", "run.json"]


@pytest.mark.parametrize("jobs", (1, 2))
def test_a_tracker_that_raises_loses_no_other_sequence(data, tmp_path, jobs):
    word = own(tmp_path, "return self.box if frame.shape and self.t < 4 else [][1]")    # boy has 4 frames, car 6
    with pytest.raises(RunFailed, match=r"Own failed on 1 of 2 .*: car: IndexError: list index out of range \(own.py:10\)"):
        run(word, data, tmp_path / "results", jobs=jobs)
    assert read_boxes(tmp_path / "results" / "Own" / "boy.txt").shape == (4, 4)


def test_sequences_that_cannot_be_started(data, tmp_path):
    empty = open_dataset(data)[0].replace(name="absent", boxes_xywh=np.full((4, 4), np.nan))
    nothing = empty.replace(name="nothing", frame_paths=(), boxes_xywh=np.empty((0, 4)))
    with pytest.raises(RunFailed, match="2 of 4 .*no target in the first frame.*no frames"):
        run_benchmark("constant", [empty, nothing, *open_dataset(data)], tmp_path / "results", progress=False)
    assert len(list((tmp_path / "results").rglob("*_time.txt"))) == 2


def die(sequence: Sequence) -> None:
    "Stand-in for a worker that the operating system kills."
    import os
    os._exit(1)


def test_a_dying_worker_is_reported(data):
    with pytest.raises(WorkerDied, match="a worker process died"): list(run_parallel(die, open_dataset(data), 2))


def test_a_tracker_that_kills_its_process_loses_no_other_sequence(data, tmp_path):
    word = own(tmp_path, "if self.t == 5: os._exit(3)\n        return self.box")     # only car is that long
    with pytest.raises(RunFailed, match="Own failed on 1 of 2 .*: car: a worker process died"):
        run(word, data, tmp_path / "results", jobs=2)
    assert is_finished(tmp_path / "results" / "Own", open_dataset(data)[0])


def test_progress_goes_to_standard_error(data, tmp_path, capsys):
    run_benchmark("constant", open_dataset(data), tmp_path / "results")
    captured = capsys.readouterr()
    assert captured.out == "" and "10/10" in captured.err and "2/2 sequences" in captured.err
    assert "constant car: 6 frames, " in captured.err and "frames/s" in captured.err


def test_bad_arguments(data, tmp_path):
    with pytest.raises(UserError, match="jobs is 0: give"): run("constant", data, tmp_path / "results", jobs=0)
    with pytest.raises(UserError, match="'no-such-tracker'"): run("no-such-tracker", data, tmp_path / "results", jobs=2)
    assert not (tmp_path / "results").exists()


def test_baselines_need_no_torch():
    code = ("import sys; from tirnas.trackers import make_tracker; import tirnas.benchmark; make_tracker('csrt'); "
            "assert 'torch' not in sys.modules and 'tirnas.tracker' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_refused_box_is_a_warning_and_no_speed(data, tmp_path):
    small = open_dataset(data)[0].replace(boxes_xywh=np.tile([10.0, 10, 4, 4], (4, 1)))
    with pytest.warns(UserWarning, match="boy: the first box stands for all frames, as mil cannot start on 4 x 4 px"):
        folder = run_benchmark("mil", [small, open_dataset(data)[1]], tmp_path / "results", progress=False)
    np.testing.assert_allclose(read_boxes(folder / "boy.txt"), np.tile([11, 11, 4, 4], (4, 1)))
    assert not (folder / "boy_time.txt").exists() and (folder / "car_time.txt").exists()
    assert list(json.loads((folder / "run.json").read_text())["refused"]) == ["boy"]
    with pytest.warns(UserWarning, match="boy: the first box"): run_benchmark("mil", [small], tmp_path / "results", progress=False)


# --- trackers of other people

def test_a_module_that_workers_import(data, tmp_path, monkeypatch):
    own(tmp_path, "self.box = self.box + [1, 0, 0, 0]; return self.box", name="Walker")
    monkeypatch.chdir(tmp_path)
    folder = run("walker:Walker", data, tmp_path / "results", jobs=2)
    np.testing.assert_allclose(np.diff(read_boxes(folder / "car.txt")[:, 0]), 1)
    noted = json.loads((folder / "run.json").read_text())
    assert noted["source"] == "walker:Walker" and len(noted["sha256"]) == 64 and "decoded before" in noted["timing"]


def test_each_worker_has_one_thread(data, tmp_path):
    words = "import cv2, torch; (HERE / f'{os.getpid()}.log').write_text(f\"{torch.get_num_threads()} {cv2.getNumThreads()} {os.environ['OMP_NUM_THREADS']}\")"
    run(own(tmp_path, f"{words}; return self.box"), data, tmp_path / "results", jobs=2)
    assert {p.read_text() for p in tmp_path.glob("*.log")} == {"1 1 1"}


def test_the_clock_leaves_decoding_out(data):
    class Slow(Sequence):
        def frames(self):
            for frame in super().frames():
                time.sleep(0.05)
                yield frame
    sequence = Slow("car", open_dataset(data)[1].frame_paths, open_dataset(data)[1].boxes_xywh)
    assert run_sequence(Drifting(), sequence)[1].sum() < 0.05


def test_changed_code_goes_on_and_another_tracker_does_not(data, tmp_path):
    out = tmp_path / "results"
    folder = run(own(tmp_path, "return self.box"), data, out)
    (folder / "boy.txt").unlink()
    with pytest.warns(UserWarning, match="own.py:Own has changed since the finished"): run(own(tmp_path, "return self.box + 1"), data, out)
    assert read_boxes(folder / "boy.txt")[1, 0] == read_boxes(folder / "boy.txt")[0, 0] + 1
    with pytest.raises(UserError, match="holds results of another tracker"): run(Contender.of("kcf", "Own"), data, out)


# --- seeds, runs and starts

def test_runs_have_seeds_that_do_not_depend_on_order(data, tmp_path):
    word = own(tmp_path, "return self.box + [random.random(), np.random.rand(), 0, 0]")
    one, two = run(word, data, tmp_path / "one", repeat=2), run(word, data, tmp_path / "two", repeat=2, jobs=2)
    names = [f"run_{k}/{name}.txt" for k in ("01", "02") for name in ("boy", "car")]
    content = [(one / name).read_text() for name in names]
    assert content == [(two / name).read_text() for name in names] and len(set(content)) == 4
    assert not list(one.glob("*.txt"))


def test_a_seed_attribute_is_set_and_equal_runs_are_told(data, tmp_path):
    word = own(tmp_path, "return self.box + [self.seed, 0, 0, 0]", more="    seed = None")
    folder = run(word, data, tmp_path / "results", repeat=3)
    assert [read_boxes(folder / f"run_0{k}" / "car.txt")[1, 0] for k in (1, 2, 3)] == [12.25, 13.25, 14.25]
    with pytest.warns(UserWarning, match="all 2 runs of constant are the same"): run("constant", data, tmp_path / "results", repeat=2)


def test_plans_are_checked(data):
    for wrong in ({"repeat": 0}, {"starts": "all"}, {"repeat": 2, "starts": "tre"}):
        with pytest.raises(UserError, match="give"): plan(open_dataset(data), **wrong)


# --- a kill in the middle, with the real signal

def alive(pid):
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("jobs", ("1", "2"))
def test_kill_9_in_the_middle(tmp_path, jobs):
    data, out = tmp_path / "data", tmp_path / "results" / "Own"
    for k in range(4):
        boxes = np.tile([10.0, 12, 14, 20], (8, 1))
        write_sequence(data / f"s{k}", np.full((8, 48, 64), 9 * k, np.uint8), boxes)
    log = "with open(HERE / 'calls.log', 'a') as f: f.write(f'{os.getpid()} {frame[0, 0]} {self.t}\\n')"
    word = own(tmp_path, f"{log}\n        time.sleep(0.05); return self.box + [self.t, 0, 0, 0]")
    command = ["tirnas", "run", "--data", data, "--tracker", word, "--out", out.parent, "--jobs", jobs]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ENV)
    calls = lambda: [tuple(map(int, line.split())) for line in (tmp_path / "calls.log").read_text().splitlines()]
    wait_for(lambda: list(out.glob("s?.txt")) and calls()[-1][2] in (2, 3, 4))
    process.send_signal(signal.SIGKILL)
    process.wait()
    workers = {pid for pid, *_ in calls()}
    wait_for(lambda: not any(map(alive, workers)))
    finished = {p: p.stat().st_mtime_ns for p in out.glob("s?.txt")}
    assert 0 < len(finished) < 4 and all(len(read_boxes(p)) == 8 for p in finished)
    before = len(calls())
    assert subprocess.run(list(map(str, command)), capture_output=True, env=ENV).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert len(calls()) - before == 7 * (4 - len(finished))
    for k in range(4): np.testing.assert_allclose(read_boxes(out / f"s{k}.txt")[:, 0], 11 + np.arange(8))
    assert sorted(p.name for p in out.iterdir()) == sorted(["run.json", *(f"s{k}{end}.txt" for k in range(4) for end in ("", "_time"))])


# --- whose results these are, and on which frames

def noted(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_baseline_is_not_taken_for_another(data, tmp_path):
    folder = run("constant", data, tmp_path / "results")
    with pytest.raises(UserError, match="holds results of another tracker or model, constant: give another --out or --name"):
        run(Contender.of("kcf", "constant"), data, tmp_path / "results")
    assert noted(folder)["source"] == "constant"


def test_results_that_nobody_signed_are_refused(data, tmp_path):
    folder = run("constant", data, tmp_path / "results")
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="holds results but no run.json"): run("constant", data, tmp_path / "results")


@pytest.mark.parametrize("text", ("{", "[]", "", "3", '{"refused": []}', '{"parameters": "many"}', '{"parameters": 1e999}',
                                  '{"sequences": {"car": 3}}', '{"sequences": {"car": {"frames": []}}}', "\xff"))
def test_a_damaged_note_is_a_sentence(data, tmp_path, text):
    folder = run("constant", data, tmp_path / "results")
    (folder / "run.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match="run.json is damaged"): run("constant", data, tmp_path / "results")
    for path in folder.glob("*.txt"): path.unlink()
    run("constant", data, tmp_path / "results")
    assert set(noted(folder)["sequences"]) == {"boy", "car"}


def test_a_tracker_that_exits_loses_no_other_sequence(data, tmp_path):
    word = own(tmp_path, "if self.t == 5: raise SystemExit(3)\n        return self.box")      # only car is that long
    with pytest.raises(RunFailed, match=r"Own failed on 1 of 2 .*: car: SystemExit: 3 \(own.py:10\)"):
        run(word, data, tmp_path / "results")
    assert is_finished(tmp_path / "results" / "Own", open_dataset(data)[0])
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    with pytest.raises(UserError, match="cannot be imported .SystemExit"): run(f"{tmp_path / 'leaves.py'}:Own", data, tmp_path / "results")


def test_a_mixture_of_code_is_told_every_time(data, tmp_path):
    out = tmp_path / "results"
    folder = run(own(tmp_path, "return self.box"), data, out)
    (folder / "boy.txt").unlink()
    mixed = "results of different states of own.py:Own are mixed, older ones: car"
    with pytest.warns(UserWarning, match=mixed): run(own(tmp_path, "return self.box + 1"), data, out)
    with pytest.warns(UserWarning, match=mixed): run(own(tmp_path, "return self.box + 1"), data, out)
    (folder / "car.txt").unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are mixed")
        run(own(tmp_path, "return self.box + 1"), data, out)
    assert len({entry["sha256"] for entry in noted(folder)["sequences"].values()}) == 1


def test_changed_frames_are_run_again(data, tmp_path):
    folder = run("csrt", data, tmp_path / "results")
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.txt")}
    frames = np.random.default_rng(1).integers(0, 255, (6, 48, 64)).astype(np.uint8)
    write_sequence(data / "car", frames, open_dataset(data)[1].boxes_xywh)
    run("csrt", data, tmp_path / "results")
    assert {n.split("_")[0].split(".")[0] for n in before if (folder / n).stat().st_mtime_ns != before[n]} == {"car"}


@pytest.mark.skipif(sys.platform != "linux", reason="kills itself")
def test_a_refusal_survives_kill_9(data, tmp_path):
    word = own(tmp_path, "return self.box", more="""
    def init(self, frame, box):
        if (HERE / 'second').exists(): os.kill(os.getpid(), 9)
        (HERE / 'second').touch()
        from tirnas.baselines import BoxRefused
        raise BoxRefused('too small')""")
    command = ["tirnas", "run", "--data", data, "--tracker", word, "--out", tmp_path / "results"]
    assert subprocess.run(list(map(str, command)), capture_output=True, env=ENV).returncode == -signal.SIGKILL
    folder = tmp_path / "results" / "Own"
    assert read_boxes(folder / "car.txt").shape == (6, 4) and noted(folder)["refused"] == {"car": "too small"}


def test_a_refusal_is_noted_before_its_boxes(data, tmp_path):
    task, home = Task(open_dataset(data)[0]), tmp_path / "mil"
    (home / "boy.txt").mkdir(parents=True)      # writing the boxes fails
    with pytest.raises(OSError): list(settle(iter([Outcome("boy", 4, refused="small")]), [task], home, {"refused": {}}))
    assert noted(home)["refused"] == {"boy": "small"}


def test_one_job_and_two_have_the_same_threads(data, tmp_path):
    words = "import cv2, torch; (HERE / f'{os.getpid()}.log').write_text(f\"{torch.get_num_threads()} {cv2.getNumThreads()} {os.environ['OMP_NUM_THREADS']} {os.environ['OPENBLAS_NUM_THREADS']}\")"
    word = own(tmp_path, f"{words}; return self.box")
    env = {k: v for k, v in ENV.items() if not k.endswith("_NUM_THREADS")}
    for jobs in ("1", "2"):
        command = ["tirnas", "run", "--data", data, "--tracker", word, "--out", tmp_path / f"r{jobs}", "--jobs", jobs]
        assert subprocess.run(list(map(str, command)), capture_output=True, env=env).returncode == 0
    assert [p.read_text() for p in tmp_path.glob("*.log")] == ["1 1 1 1"] * len(list(tmp_path.glob("*.log"))) and len(list(tmp_path.glob("*.log"))) >= 2
