"""The online tracker with a network of random weights: what must hold whatever the weights."""
import numpy as np
import pytest
import torch

from tirnas.core import UserError
from tirnas.data.crops import search_window
from tirnas.dimp.net import HeadSettings, ModelCard
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import random_genotype
from tirnas.tracker import Memory, Tracker, TrackSettings, damp_size, first_views


@pytest.fixture(scope="module")
def tracker():
    torch.manual_seed(0)
    card = ModelCard(random_genotype("dual", 1), Macro("dual", 3, 4, 4), HeadSettings(8, 16, 4, 16), 64, 4.0, {})
    return Tracker(card.build(), card)


def scene(t):
    frame = np.random.default_rng(0).normal(90, 8, (90, 120))
    frame[30:60, 20 + 2 * t:34 + 2 * t] += 60
    return frame.clip(0, 255).astype(np.uint8)


def follow(tracker, frames, box):
    tracker.init(frames[0], box)
    return [tracker.update(frame) for frame in frames[1:]]


BOX = (20.0, 30.0, 14.0, 30.0)


def test_same_frames_same_boxes(tracker):
    frames = [scene(t) for t in range(12)]
    first, second = follow(tracker, frames, BOX), follow(tracker, frames, BOX)
    assert all(np.array_equal(a, b) and s == u for (a, s), (b, u) in zip(first, second))


def test_bit_depth_and_gain_do_not_matter(tracker):
    "16-bit counts with another gain and offset are the same scene."
    frames = [scene(t) for t in range(12)]
    counts = [(30 * f.astype(np.uint16) + 4000) for f in frames]
    for (a, _), (b, _) in zip(follow(tracker, frames, BOX), follow(tracker, counts, BOX)):
        assert np.abs(a - b).max() < 0.5


def test_three_channels_are_one(tracker):
    frames = [scene(t) for t in range(6)]
    for (a, _), (b, _) in zip(follow(tracker, frames, BOX), follow(tracker, [np.dstack([f] * 3) for f in frames], BOX)):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("box", [(0, 0, 14, 30), (110, 70, 10, 20), (-5, 20, 14, 30), (50, 40, 1, 1), (-20, -20, 200, 160)])
def test_odd_boxes_stay_boxes(tracker, box):
    for found, state in follow(tracker, [scene(t) for t in range(8)], box):
        assert np.isfinite(found).all() and (found[2:] > 0).all() and state.status in ("held", "uncertain", "lost")


def test_constant_frames(tracker):
    for found, _ in follow(tracker, [np.full((90, 120), 7, np.uint8)] * 5, BOX): assert np.isfinite(found).all()


def test_a_lost_target_keeps_its_box(tracker):
    nothing = Tracker(tracker.net, tracker.card, TrackSettings(not_found=1e9))
    for found, state in follow(nothing, [scene(t) for t in range(5)], BOX):
        assert np.array_equal(found, BOX) and state.status == "lost"


def test_update_before_init(tracker):
    with pytest.raises(UserError, match="call init"): Tracker(tracker.net, tracker.card).update(scene(0))


def test_memory_weights_by_simulation():
    "Against the rule in plain numbers: others shrink by 1 - rate, the first ones never fall below their share."
    settings, rate = TrackSettings(memory_size=10**6, first_share=0.25), 0.05
    memory, weights = Memory(torch.zeros(4, 1, 1, 1), torch.zeros(4, 2), settings), [0.25] * 4
    for _ in range(60):
        memory.add(torch.zeros(1, 1, 1), torch.zeros(2), rate)
        weights = [w * (1 - rate) / sum(weights) for w in weights] + [rate]
        if sum(weights[:4]) < 0.25:
            first, rest = sum(weights[:4]), sum(weights[4:])
            weights = [w * 0.25 / first for w in weights[:4]] + [w * 0.75 / rest for w in weights[4:]]
    assert np.allclose(memory.weights.numpy(), weights, atol=1e-5)


def test_shifted_views_move_the_box_with_the_picture():
    frame = np.zeros((90, 120), np.uint8)
    frame[30:60, 20:34] = 200
    views, boxes = first_views(frame, search_window(np.array(BOX), 4.0, 64), np.array(BOX))
    for view, (x, y, w, h) in zip(views[:6], boxes[:6]):
        bright = np.argwhere(view > (view.min() + view.max()) / 2)
        assert np.abs(bright.min(0) - (y, x)).max() <= 1.5 and np.abs(bright.max(0) + 1 - (y + h, x + w)).max() <= 1.5


def test_damped_size_between_its_ends():
    old, new = np.array([20.0, 40]), np.array([14.0, 8, 30, 44])
    assert np.allclose(damp_size(old, new, 1), new) and np.allclose(damp_size(old, new, 0), [19, 10, 20, 40])
