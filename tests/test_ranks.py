"""Several real processes: the same result as one, alpha equal to the byte after every step, and what happens when one of them fails."""
import dataclasses
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from blocks import BLOCKS, CPU, PARAMS, Blocks
from conftest import ROOT
from test_search import EVERY, SEARCH

import tirnas.core
import tirnas.retrain
import tirnas.search
from tirnas.benchmark import run_benchmark
from tirnas.core import UserError, load_state, save_state
from tirnas.data.sequences import open_dataset
from tirnas.data.unrolled import UnrollSettings
from tirnas.lock import hold
from tirnas.nets.genotype import random_genotype
from tirnas.ranks import ALONE, RankDied, Ranks, launched_as, processes_here, run_ranks, together
from tirnas.retrain import retrain
from tirnas.search import search
from tirnas.shards import check_alike, check_shards
from tirnas.strategies import find_genotype
from tirnas.unroll import unrolling

QUIET = dict(report=lambda record: None)
GENOTYPE = random_genotype("single", 3)
LED = dataclasses.replace(PARAMS, shards=2, unroll=UnrollSettings(2, 4, 0.5))
SEARCHES = {name: dataclasses.replace(SEARCH, shards=2, **change) for name, change in (("paper", {}), ("edges and dropouts", EVERY[3]), ("sampled", EVERY[2]))}


def digest_of(tensors) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


def search_noting(folder: Path, ranks: Ranks = ALONE) -> None:
    "Three searches; the alpha of every step of this process is noted, the checkpoints are kept."
    true, seen = tirnas.search.make_step, []
    def noting(run, batches):
        true(run, batches)
        seen.append(digest_of(run.net.alpha_parameters()))
    tirnas.search.make_step = noting
    for name, params in SEARCHES.items(): search(BLOCKS, params, CPU, folder / f"{name}.safetensors", ranks=ranks, **QUIET)
    tirnas.search.make_step = true
    (folder / f"alpha-{ranks.rank}.json").write_text(json.dumps(seen))


def train_and_track(folder: Path, ranks: Ranks = ALONE) -> None:
    "A retraining led by its own tracks, and a benchmark of two floors."
    retrain(BLOCKS, GENOTYPE, LED, CPU, folder / "retrain.safetensors", unroll=unrolling(BLOCKS, LED, GENOTYPE), ranks=ranks)
    for name in ("constant", "kcf"): run_benchmark(name, open_dataset(folder / "data"), folder / "results", progress=False, ranks=ranks)
    if ranks.size > 1: save_state(folder / f"rank-{ranks.rank}.safetensors", {"mine": ranks.share(list(range(5)))})


def difference(a: dict, b: dict) -> float:
    "The largest difference of two networks' tensors, as a share of the largest number in each."
    assert a.keys() == b.keys()
    return max((x.double() - y.double()).abs().max().item() / max(x.double().abs().max().item(), 1e-12) for x, y in zip(a.values(), b.values()))


def test_two_processes_search_as_one(tmp_path):
    "Same batches, same channels: after three epochs the networks agree to 6 digits, and so do losses and genotype."
    for kind in ("one", "two"): (tmp_path / kind).mkdir()
    search_noting(tmp_path / "one")
    run_ranks(search_noting, (tmp_path / "two",), 2)
    alphas = [json.loads((tmp_path / "two" / f"alpha-{rank}.json").read_text()) for rank in range(2)]
    assert alphas[0] == alphas[1] and len(alphas[0]) == sum(p.epochs * p.steps for p in SEARCHES.values()) and len(set(alphas[0])) > 9
    for name in SEARCHES:
        one, two = (load_state(tmp_path / kind / f"{name}.safetensors") for kind in ("one", "two"))
        print(f"{name}: networks of one and two processes differ by {difference(one['net'], two['net']):.1e}")
        assert difference(one["net"], two["net"]) < 1e-6 and one["fingerprint"] == two["fingerprint"]
        for a, b in zip(one["history"], two["history"]):
            assert a["genotype"] == b["genotype"] and a["loss"]["weight"] == pytest.approx(b["loss"]["weight"], rel=1e-6)


@pytest.fixture
def tree(tmp_path):
    from tirnas.data.synthetic import simulate
    simulate(tmp_path / "one" / "data", 3, 6, 5, 1)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "data").symlink_to(tmp_path / "one" / "data")
    return tmp_path


def test_two_processes_train_and_track_as_one(tree):
    "Weights, batch statistics, records and every box."
    train_and_track(tree / "one")
    run_ranks(train_and_track, (tree / "two",), 2)
    one, two = (load_state(tree / kind / "retrain.safetensors") for kind in ("one", "two"))
    print(f"networks of one and two processes differ by {difference(one['net'], two['net']):.1e}")
    assert difference(one["net"], two["net"]) < 1e-6
    for a, b in zip(one["history"], two["history"]): assert a == pytest.approx(b, rel=1e-5)
    assert [load_state(tree / "two" / f"rank-{r}.safetensors")["mine"] for r in range(2)] == [[0, 2, 4], [1, 3]]
    kept = {p.relative_to(tree / "one"): p.read_bytes() for p in (tree / "one" / "results").rglob("*.txt") if "_time" not in p.name}
    assert len(kept) == 12 and all((tree / "two" / p).read_bytes() == text for p, text in kept.items())


def one_dies(folder: Path, ranks: Ranks = ALONE) -> None:
    if ranks.rank == 1: os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()


def one_refuses(folder: Path, ranks: Ranks = ALONE) -> None:
    if ranks.rank == 1: raise UserError("walk is empty: remove it")
    ranks.wait()


def one_breaks(folder: Path, ranks: Ranks = ALONE) -> None:
    if ranks.rank == 0: raise RuntimeError("kcf failed on 1 of 3 sequences, the others are done: walk: it fell")
    ranks.wait()


def test_a_process_that_dies_is_named(tmp_path):
    started = time.monotonic()
    with pytest.raises(RankDied, match="process 1 of 2 was ended by SIGKILL, perhaps for lack of memory: the same command goes on from the last"):
        run_ranks(one_dies, (tmp_path,), 2)
    assert time.monotonic() - started < 300, "it hung"
    with pytest.raises(UserError, match="^walk is empty: remove it$"): run_ranks(one_refuses, (tmp_path,), 2)
    with pytest.raises(RankDied, match=r"process 0 of 2 failed \(kcf failed on 1 of 3 sequences, .* it fell\): the same command goes on"):
        run_ranks(one_breaks, (tmp_path,), 2)


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_ranks import dawdling, stoppable
from tirnas.core import use_threads
from tirnas.ranks import together
if __name__ == "__main__":
    use_threads()
    together({work}, Path(sys.argv[1]))
    print("done")
"""


def stoppable(folder: Path, ranks: Ranks = ALONE):
    params = dataclasses.replace(SEARCH, shards=2, epochs=6, steps=4)
    return search(BLOCKS, params, CPU, folder / "search.safetensors", folder / "search.json", ranks=ranks)


def test_asked_to_stop_all_stop_at_one_step_and_go_on(tmp_path):
    "SIGTERM to the parent of two; resumed by one process, the search ends as one that nobody stopped."
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(work="stoppable", paths=[str(ROOT / "tests"), str(ROOT)]))
    def start(folder, processes):
        (tmp_path / folder).mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "1", "TIRNAS_PROCESSES": str(processes)})
    process = start("broken", 2)
    while not (tmp_path / "broken" / "search.safetensors").exists() and process.poll() is None: time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM and "all 2 processes have stopped" in out, err[-2000:]
    assert 4 <= load_state(tmp_path / "broken" / "search.safetensors")["step"] < 24
    out, err = start("broken", 1).communicate(timeout=240)
    assert out.endswith("done\n"), err[-2000:]
    (tmp_path / "whole").mkdir()
    stoppable(tmp_path / "whole")
    broken, whole = (load_state(tmp_path / folder / "search.safetensors") for folder in ("broken", "whole"))
    assert broken["step"] == whole["step"] == 24 and difference(broken["net"], whole["net"]) < 1e-3
    assert broken["history"][-1]["genotype"] == whole["history"][-1]["genotype"]


def dawdling(folder: Path, ranks: Ranks = ALONE):
    "Each step takes a second at least, so that a signal meets one that is not at its end."
    true = tirnas.search.make_step
    def slow(run, batches):
        (folder / f"{ranks.rank}.begun").touch()
        time.sleep(1)
        true(run, batches)
    tirnas.search.make_step = slow
    return stoppable(folder, ranks)


def test_ctrl_c_is_heard_by_parent_and_ranks_and_is_one_signal_all_the_same(tmp_path):
    "A terminal sends SIGINT to all processes of a command; none takes what its parent passes on for a second one."
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(work="dawdling", paths=[str(ROOT / "tests"), str(ROOT)]))
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1", "TIRNAS_PROCESSES": "2"})
    while not all((tmp_path / f"{rank}.begun").exists() for rank in range(2)) and process.poll() is None: time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode and "all 2 processes have stopped" in out, err[-2000:]
    assert load_state(tmp_path / "search.safetensors")["step"] == 1


def two_in_a_folder_of_another(folder: Path, ranks: Ranks = ALONE) -> None:
    "The disk of the second process is slower than that of the first, which puts the other run's checkpoint aside."
    true = tirnas.core.load_state
    def late(path):
        time.sleep(ranks.rank)
        return true(path)
    tirnas.core.load_state = late
    search(BLOCKS, dataclasses.replace(SEARCH, shards=2), CPU, folder / "search.safetensors", ranks=ranks, **QUIET)
    retrain(BLOCKS, GENOTYPE, LED, CPU, folder / "retrain.safetensors", ranks=ranks)


def test_several_processes_put_the_checkpoint_of_another_run_aside_once(tmp_path):
    for name in ("search", "retrain"): save_state(tmp_path / f"{name}.safetensors", {"fingerprint": "another"})
    run_ranks(two_in_a_folder_of_another, (tmp_path,), 2)
    for name in ("search", "retrain"):
        assert load_state(tmp_path / f"{name}.safetensors.old") == {"fingerprint": "another"} and "history" in load_state(tmp_path / f"{name}.safetensors")


def told_alone(folder: Path, ranks: Ranks = ALONE) -> None:
    "The second process alone is told to stop; the first one's disk is slow."
    def late(path, state):
        time.sleep(2)
        return save_state(path, state)
    def tell(run, *args, true):
        if ranks.rank: os.kill(os.getpid(), signal.SIGTERM)
        return true(run, *args)
    for module, name in ((tirnas.search, "make_step"), (tirnas.retrain, "try_update")):
        setattr(module, name, functools.partial(tell, true=getattr(module, name)))
        module.save_state = late
    for stage, work in (("search", lambda path: search(BLOCKS, dataclasses.replace(SEARCH, shards=2, steps=9), CPU, path, ranks=ranks, **QUIET)),
                        ("retrain", lambda path: retrain(BLOCKS, GENOTYPE, dataclasses.replace(LED, steps=9), CPU, path, ranks=ranks))):
        try: work(folder / stage)
        except SystemExit: (folder / f"{stage}-{ranks.rank}.json").write_text(json.dumps((folder / stage).exists()))


def test_no_process_that_stops_ends_before_the_state_is_saved(tmp_path):
    "The launcher of the processes ends all of them when one has ended."
    run_ranks(told_alone, (tmp_path,), 2)
    assert {p.name: p.read_text() for p in tmp_path.glob("*.json")} == dict.fromkeys([f"{stage}-{rank}.json" for stage in ("search", "retrain") for rank in (0, 1)], "true")
    assert load_state(tmp_path / "search")["step"] == load_state(tmp_path / "retrain")["done"] == 1


def evaluate_and_look(folder: Path, ranks: Ranks = ALONE) -> None:
    "As the notebook of the stage does; the first process takes its time to write."
    import tirnas.evaluation
    from tirnas.data.prepare import load_index
    true = tirnas.evaluation.publish
    def late(*places):
        time.sleep(2)
        true(*places)
    tirnas.evaluation.publish = late
    tirnas.evaluation.evaluate_model(tirnas.evaluation.EvaluateParams(("constant",)), load_index(folder / "prepared", "test"), folder / "model.safetensors", folder, ranks=ranks)
    assert (folder / "metrics.json").is_file() and list((folder / "out" / "results" / "constant").glob("*.txt"))


def test_what_an_evaluation_writes_is_there_for_all_processes(tmp_path):
    import kills
    kills.provide(tmp_path)
    run_ranks(evaluate_and_look, (tmp_path,), 2)


class Burnt(Blocks):
    "A block whose frames from the 20th on are broken by one pixel that is no number."
    def frame(self, t):
        frame = super().frame(t).astype(np.float32)
        if t >= 19: frame[30, 30] = np.nan
        return frame


DIRTY = [*BLOCKS[1:], Burnt("burnt_09", tuple(range(30)), BLOCKS[2].boxes_xywh)]


def test_a_loss_that_is_no_number_names_sequence_and_frames(tmp_path):
    "The checkpoint of the epoch before is kept as it was, and only a wish lets the run go on, to finite weights."
    params, seen = dataclasses.replace(PARAMS, epochs=4, steps=8, shards=1), []
    def keep(record): seen.append((tmp_path / "c").read_bytes())
    with pytest.raises(UserError, match=r"training diverged at step \d+ \(batch \d+, sequences [^;]*burnt_09 \([^;]*\b(2\d|30)\b.*the loss is nan.*"
                                        "lower weights.lr, look at these frames, or set skip_bad_batches to true; the last checkpoint is kept"):
        retrain(DIRTY, GENOTYPE, params, CPU, tmp_path / "c", keep)
    assert (not seen and not (tmp_path / "c").exists()) or (tmp_path / "c").read_bytes() == seen[-1]
    with pytest.warns(UserWarning, match=r"burnt_09 \("):
        net, history = retrain(DIRTY, GENOTYPE, dataclasses.replace(params, skip_bad_batches=True), CPU)
    assert all(t.isfinite().all() for t in net.state_dict().values()) and all(np.isfinite(r["total"]) for r in history)
    with pytest.raises(UserError, match=r"search diverged at step \d+ \(batch \d+ of the (weight|arch) half, sequences .*burnt_09 \("):
        search(DIRTY, dataclasses.replace(SEARCH, epochs=10), CPU, **QUIET)
    with pytest.warns(UserWarning, match="search diverged at step .* this update is left out"):
        search(DIRTY, dataclasses.replace(SEARCH, epochs=10, skip_bad_batches=True), CPU, tmp_path / "s", **QUIET)
    assert all(t.isfinite().all() for t in load_state(tmp_path / "s")["net"].values())


def test_an_update_left_out_leaves_no_trace():
    "Weights, statistics and generator-independent state are those of a run that never saw the batch."
    from concurrent.futures import ThreadPoolExecutor
    from tirnas.retrain import start_retrain
    run = start_retrain(BLOCKS, GENOTYPE, PARAMS, CPU)
    good = run.batches(0)
    bad = [(n, dataclasses.replace(b, images=np.where(np.arange(2)[:, None, None, None, None] == 1, np.nan, b.images).astype(np.float32))) for n, b in run.batches(1)]
    before = {k: v.clone() for k, v in run.copies[0].state_dict().items()}
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(FloatingPointError, match="the loss is nan"): run.update(bad, pool)
        assert all(torch.equal(before[k], v) for c in run.copies for k, v in c.state_dict().items())
        run.update(good, pool)
    assert not all(torch.equal(before[k], v) for k, v in run.copies[0].state_dict().items())


@pytest.mark.parametrize("order, half", [("first", "arch"), ("second", "arch"), ("second", "weight")])
def test_an_update_of_alpha_left_out_leaves_no_trace(order, half):
    "Of the step of the weights that the second order foresees neither."
    params = dataclasses.replace(SEARCH, order=order, warmup_epochs=0)
    run = tirnas.search.start_search(BLOCKS, params, CPU)
    tirnas.search.begin_epoch(run)
    batches = tirnas.search.draw_batches(run, 0)
    batches[half] = [(n, dataclasses.replace(b, images=np.full_like(b.images, np.nan))) for n, b in batches[half]]
    before = {k: v.clone() for k, v in run.net.state_dict().items()}
    with pytest.raises(FloatingPointError): tirnas.search.move_alpha(run, batches)
    assert all(torch.equal(before[k], v) for k, v in run.net.state_dict().items())


def test_nothing_but_broken_batches_is_no_training():
    wild = dataclasses.replace(PARAMS, skip_bad_batches=True, weights=dataclasses.replace(PARAMS.weights, lr=1e30), epochs=4)
    with warnings.catch_warnings(), pytest.raises(UserError, match="every update of epoch . was left out"):
        warnings.simplefilter("ignore")
        retrain(BLOCKS, GENOTYPE, wild, CPU)


MEMORY = """
import sys
sys.path[:0] = {paths!r}
import dataclasses, resource
from blocks import BLOCKS, CPU, PARAMS
import torch
import tirnas.core
from tirnas.core import UserError
from tirnas.lock import hold
from tirnas.nets.genotype import random_genotype
from tirnas.retrain import retrain
tirnas.core.keep_memory = lambda: False     # memory that is kept is in pieces, and the limit counts it
torch.set_num_threads(1)
def train(pedestrians, px):
    episodes = dataclasses.replace(PARAMS.episodes, num_pedestrians=pedestrians, crop_px=px)
    retrain(BLOCKS, random_genotype("single", 3), dataclasses.replace(PARAMS, episodes=episodes, epochs=1, steps=1, shards=1), CPU)
train(2, 64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {spare}, resource.RLIM_INFINITY))
try: train(int(sys.argv[1]), 512)
except UserError as e: print(e)
else: print("it fitted")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to limit memory")
def test_too_little_memory_says_what_would_fit(tmp_path):
    "A real limit on the memory of a process; what is said to fit does fit."
    code = MEMORY.format(paths=[str(ROOT / "tests"), str(ROOT)], spare=600 * 2**20)
    def run(number):
        # one arena: each thread may reserve another, which the limit counts
        return subprocess.run([sys.executable, "-c", code, str(number)], cwd=tmp_path, capture_output=True, text=True, timeout=240,
                              env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"})
    done = run(6)
    said = re.match("6 targets x 4 crops of 512 px need more memory than there is; (.) of the targets would fit: "
                    r"set episodes.num_pedestrians to \1, or use a device with more memory", done.stdout)
    assert said, done.stdout + done.stderr[-2000:]
    assert run(said[1]).stdout == "it fitted\n"


def test_what_cannot_be_shared_is_refused(monkeypatch):
    two = type("Two", (Ranks,), {"size": property(lambda self: 2)})()
    with pytest.raises(UserError, match="search.shards is 3 and 2 processes share them: give the recipe a multiple of 2 in params.yaml"): check_shards("search", 3, two)
    with pytest.raises(UserError, match="strategy random runs in one process and there are 2"):
        find_genotype(BLOCKS, dataclasses.replace(SEARCH, strategy="random"), CPU, ranks=two)
    with pytest.raises(UserError, match="second order foresees the step of one batch and shards is 2"):
        dataclasses.replace(SEARCH, order="second", shards=2)
    for name, value in {"SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "16", "SLURM_NNODES": "2"}.items(): monkeypatch.setenv(name, value)
    assert launched_as() == (8, 2) and processes_here() == 8
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")     # a shell that somebody works in, within a job of 16
    assert launched_as() is None and processes_here() == 1


def drift(folder: Path, ranks: Ranks = ALONE) -> None:
    check_alike([torch.ones(3)], ranks)
    try: check_alike([torch.ones(3) + ranks.rank * 1e-7], ranks)
    except RuntimeError as e: (folder / f"{ranks.rank}.txt").write_text(str(e))
    means = ranks.mean([torch.tensor([1.0, ranks.rank]), None, torch.tensor(ranks.rank, dtype=torch.double)])
    assert means[1] is None and means[0].tolist() == [1.0, 0.5] and means[2].item() == 0.5
    assert ranks.agree(ranks.rank) == 0 and ranks.any(ranks.rank == 1, False, ranks.rank == 0) == [True, False, True] and ranks.gather(ranks.share([5, 6, 7])) == [5, 6, 7]


def test_processes_that_drift_apart_notice_it(tmp_path):
    "A difference in the last bit of one weight is found by all."
    run_ranks(drift, (tmp_path,), 2)
    for rank in range(2): assert "process 1 has other weights than process 0" in (tmp_path / f"{rank}.txt").read_text()


def test_bfloat16_in_the_backbone_changes_little(monkeypatch):
    "Losses of the first epoch of a search and of a retraining within 2 % (later ones part), and gradients of 32 bits."
    def losses(precision):
        monkeypatch.setenv("TIRNAS_PRECISION", precision)
        _, searched = search(BLOCKS, SEARCH, CPU, **QUIET)
        net, trained = retrain(BLOCKS, GENOTYPE, PARAMS, CPU)
        assert {p.dtype for p in net.parameters()} == {torch.float32}
        return [*(r["loss"]["weight"] for r in searched), *(r["total"] for r in trained)]
    exact, rough = losses("fp32"), losses("bf16")
    firsts = [0, SEARCH.epochs]
    assert [rough[i] for i in firsts] == pytest.approx([exact[i] for i in firsts], rel=0.02) and rough != exact
    monkeypatch.setenv("TIRNAS_PRECISION", "half")
    with pytest.raises(UserError, match="TIRNAS_PRECISION is 'half': use one of fp32, tf32, bf16"): search(BLOCKS, SEARCH, CPU, **QUIET)


@pytest.mark.parametrize("strategy", ["darts", "random"])
def test_a_search_of_another_precision_is_not_gone_on_from(strategy, tmp_path, monkeypatch, capsys):
    params = dataclasses.replace(SEARCH, strategy=strategy, epochs=2, steps=2, proxy=dataclasses.replace(SEARCH.proxy, steps=2))
    def run(precision):
        monkeypatch.setenv("TIRNAS_PRECISION", precision)
        find_genotype(BLOCKS, params, CPU, tmp_path / "c", **QUIET)
        return capsys.readouterr().out
    assert run("fp32") == "" and run("fp32").startswith("the search goes on after") and "belongs to a run with other parameters" in run("bf16")


def test_a_retraining_of_another_precision_is_not_gone_on_from(tmp_path, monkeypatch, capsys):
    for precision, said in (("fp32", False), ("fp32", False), ("bf16", True)):
        monkeypatch.setenv("TIRNAS_PRECISION", precision)
        retrain(BLOCKS, GENOTYPE, dataclasses.replace(PARAMS, epochs=1), CPU, tmp_path / "c")
        assert ("belongs to a run with other parameters" in capsys.readouterr().out) == said


def test_the_second_run_on_a_checkpoint_is_told_of_the_first(tmp_path):
    with hold(tmp_path / "c", "a search"):
        with pytest.raises(UserError, match=f"process {os.getpid()}"): search(BLOCKS, SEARCH, CPU, tmp_path / "c", **QUIET)
        with pytest.raises(UserError, match=f"process {os.getpid()}"): retrain(BLOCKS, GENOTYPE, PARAMS, CPU, tmp_path / "c")
    retrain(BLOCKS, GENOTYPE, dataclasses.replace(PARAMS, epochs=1), CPU, tmp_path / "c")
