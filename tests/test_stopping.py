"""Work that is told to stop, or that is broken off, goes on from where it last saved and ends with the same bytes."""
import dataclasses
import os
import signal
import time

import pytest
import torch
from blocks import BLOCKS, CPU, PARAMS
from test_search import SEARCH

from tirnas import retrain as retraining, search as searching
from tirnas.core import UserError, load_state
from tirnas.data.unrolled import UnrollSettings
from tirnas.lock import hold
from tirnas.nets.genotype import random_genotype
from tirnas.stopping import stop_signals
from tirnas.strategies import find_genotype
from tirnas.unroll import unrolling

CELLS = random_genotype("single", 3)
LED = dataclasses.replace(PARAMS, epochs=2, steps=4, shards=1, validate_sequences=0, unroll=UnrollSettings(3, 6, 1.0))


def test_a_first_signal_raises_a_flag_and_a_second_one_ends():
    with pytest.raises(KeyboardInterrupt):
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            while not stop(): pass
            assert stop() == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class PowerCut(BaseException):
    "Not to be caught, as little as the thing itself."


def cut(*_): raise PowerCut
def stop(*_): os.kill(os.getpid(), signal.SIGTERM)


def broken_off(monkeypatch, owner, name, calls, what):
    "The function `name` of a module or class does `what` before its call number `calls`, and nothing more afterwards."
    real, count = getattr(owner, name), []
    def broken(*args):
        count.append(None)
        if len(count) == calls: what()
        return real(*args)
    monkeypatch.setattr(owner, name, broken)


def train(path=None):
    net, history = retraining.retrain(BLOCKS, CELLS, LED, CPU, path, unroll=unrolling(BLOCKS, LED, CELLS))
    return net.state_dict(), history


@pytest.mark.parametrize("what, every_s, ends, done", [(stop, 600.0, SystemExit, 6), (cut, 0.0, PowerCut, 5), (cut, 600.0, PowerCut, 4)])
def test_a_retraining_broken_off_within_an_epoch_ends_with_the_same_bytes(tmp_path, monkeypatch, what, every_s, ends, done):
    "In update 6 of 8, four an epoch. What is led to in the second epoch comes from the weights after the first, which are gone by then."
    path = tmp_path / "retrain.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(retraining, "SAVE_EVERY_S", every_s)
        broken_off(patch, retraining.RetrainRun, "update", 6, what)
        with pytest.raises(ends): train(path)
    state = load_state(path)
    assert state["done"] == done and len(state["rows"]) == done % 4 and len(state["history"]) == 1 and len(state["pieces"]) > 0
    weights, history = train(path)
    expected, told = train()
    assert history == told and all(torch.equal(weights[k], v) for k, v in expected.items())


@pytest.mark.parametrize("calls", [4, 8])
def test_a_retraining_that_is_told_to_stop_in_the_last_update_of_an_epoch_saves_before_it_validates(tmp_path, monkeypatch, calls):
    "Long videos take longer than a machine leaves time; the run that goes on validates first."
    path, asked = tmp_path / "retrain.safetensors", []
    def validate(net, epochs):
        asked.append(epochs)
        return {"checked": float(sum(p.double().sum() for p in net.state_dict().values()))}
    run = lambda path: retraining.retrain(BLOCKS, CELLS, LED, CPU, path, validate=validate, unroll=unrolling(BLOCKS, LED, CELLS))
    with monkeypatch.context() as patch:
        broken_off(patch, retraining.RetrainRun, "update", calls, stop)
        with pytest.raises(SystemExit): run(path)
    assert len(load_state(path)["history"]) == len(asked) == calls // 4 - 1 and load_state(path)["done"] == calls
    net, history = run(path)
    assert asked == [1, 2]
    expected, told = run(None)
    assert history == told and all(torch.equal(net.state_dict()[k], v) for k, v in expected.state_dict().items())


def test_a_retraining_that_is_told_to_stop_while_it_validates_follows_no_videos_first(tmp_path):
    path, followed = tmp_path / "retrain.safetensors", []
    def validate(net, epochs):
        stop()
        return {}
    def unroll(net, epochs):
        followed.append(epochs)
        return []
    with pytest.raises(SystemExit): retraining.retrain(BLOCKS, CELLS, LED, CPU, path, validate=validate, unroll=unroll)
    assert followed == [0] and load_state(path)["done"] == 4 and len(load_state(path)["history"]) == 1
    net, history = retraining.retrain(BLOCKS, CELLS, LED, CPU, path)
    expected, told = retraining.retrain(BLOCKS, CELLS, LED, CPU)
    assert history == told and all(torch.equal(net.state_dict()[k], v) for k, v in expected.state_dict().items())


def test_the_pieces_that_a_stopped_run_keeps_matter(tmp_path, monkeypatch):
    "Without them the same run ends elsewhere: the test above would see it if they were lost."
    path = tmp_path / "retrain.safetensors"
    with monkeypatch.context() as patch:
        broken_off(patch, retraining.RetrainRun, "update", 6, stop)
        with pytest.raises(SystemExit): train(path)
    restore = retraining.restore
    monkeypatch.setattr(retraining, "restore", lambda run, state: restore(run, {**state, "pieces": []}))
    weights, _ = train(path)
    expected, _ = train()
    assert any(not torch.equal(weights[k], v) for k, v in expected.items())


def test_a_search_saves_within_an_epoch_when_it_is_time(tmp_path, monkeypatch):
    "One step of two an epoch is done when the power goes."
    path, params = tmp_path / "search.safetensors", dataclasses.replace(SEARCH, epochs=2)
    run = lambda path: searching.search(BLOCKS, params, CPU, path, report=lambda record: None)
    with monkeypatch.context() as patch:
        patch.setattr(searching, "SAVE_EVERY_S", 0.0)
        broken_off(patch, searching, "make_step", 4, cut)
        with pytest.raises(PowerCut): run(path)
    assert load_state(path)["step"] == 3
    assert run(path) == run(None)


def test_a_second_search_by_candidates_is_told_of_the_first(tmp_path):
    "As one by gradient is."
    path = tmp_path / "search.safetensors"
    with hold(path, "a search"), pytest.raises(UserError, match="a search"):
        find_genotype(BLOCKS, dataclasses.replace(SEARCH, strategy="random"), CPU, path)
    assert not path.exists()
