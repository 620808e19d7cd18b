"""The scale filter: against direct ridge regression, known growth, known shapes, any bit depth, and truth in simulated video."""
import cv2
import numpy as np
import pytest

from tirnas.boxes import cxcywh_to_xywh, iou
from tirnas.core import UserError
from tirnas.data.scenes import random_scene
from tirnas.data.synthetic import favouring, render
from tirnas.scale import (ScaleFilter, ScaleSettings, best_step, correlate, cut_sizes, directed_strength, keep_possible,
                          remove_level, resize_box, row_transform, template_size, wanted_response)

CENTER = np.array([160.0, 120.0])


def world():
    "A warm textured body, at twice the frame's resolution."
    rng = np.random.default_rng(3)
    scene = cv2.GaussianBlur(rng.normal(0, 60, (720, 880)), (0, 0), 5) + 90
    y, x = np.mgrid[:720, :880]
    body = np.exp(-((x - 440) / 34) ** 8 - ((y - 360) / 90) ** 8)
    return (scene + body * (70 + cv2.GaussianBlur(rng.normal(0, 90, (720, 880)), (0, 0), 6))).astype(np.float32)


WORLD, SIZE = world(), np.array([36.0, 92.0])


def shot(width, height):
    "The world with its body `width` and `height` times as large, centred in a frame of 320 x 240 px."
    shrink = np.array([[0.5 * width, 0, CENTER[0] - 220 * width], [0, 0.5 * height, CENTER[1] - 180 * height]])
    return cv2.warpAffine(WORLD, shrink, (320, 240), borderMode=cv2.BORDER_REPLICATE)


def box_of(size_wh):
    return cxcywh_to_xywh(np.concatenate([CENTER, size_wh]))


def follow(shots, settings=ScaleSettings()):
    "Sizes (T, 2) that the filter gives when the centre is known."
    follower, sizes = ScaleFilter(settings), [SIZE]
    follower.init(shots[0], box_of(SIZE))
    for frame in shots[1:]:
        box = box_of(sizes[-1])
        box = resize_box(box, follower.update(frame, box))
        follower.learn(frame, box)
        sizes.append(box[2:])
    return np.array(sizes)


@pytest.mark.parametrize("per_frame", [1.012, 0.988])
def test_growth_is_recovered(per_frame):
    growth = per_frame ** np.arange(40)
    found = follow([shot(g, g) for g in growth])[:, 0] / SIZE[0]
    assert abs(np.log(found / growth)).max() < 0.04


def test_a_change_of_shape_is_recovered_by_two_filters_only():
    wide, high = 1.008 ** np.arange(30), 0.992 ** np.arange(30)
    shots, truth = [shot(w, h) for w, h in zip(wide, high)], np.stack([wide, high], 1)
    each = follow(shots, ScaleSettings(axes="each")) / SIZE
    both = follow(shots) / SIZE
    assert abs(np.log(each / truth)).max() < 0.05
    assert abs(np.log(both[-1] / truth[-1])).max() > 0.15


@pytest.mark.parametrize("axes", ["both", "each"])
def test_a_target_that_stays_keeps_its_size(axes):
    rng = np.random.default_rng(0)
    shots = [shot(1, 1) + rng.normal(0, 3, (240, 320)).astype(np.float32) for _ in range(25)]
    assert abs(np.log(follow(shots, ScaleSettings(axes=axes)) / SIZE)).max() < 0.02


def test_bit_depth_and_level_change_nothing():
    growth = 1.01 ** np.arange(10)
    plain = [shot(g, g) for g in growth]
    low = min(f.min() for f in plain)
    counts = [np.rint(40 * (f - low) + 7000).astype(np.uint16) for f in plain]
    small = [(f - low).clip(0, 255).astype(np.uint8) for f in plain]
    wanted = follow(plain)
    for shots in (counts, small, [f.astype(np.float64) * 1e-3 - 9 for f in plain]):
        assert np.allclose(follow(shots), wanted, rtol=0.01)


def test_the_closed_form_is_ridge_regression():
    "All circular shifts of a row as one matrix, solved directly; then both filters on another row."
    rng, settings = np.random.default_rng(1), ScaleSettings(num_scales=9, regulariser=0.3)
    train, test = rng.normal(size=(2, 9, 20))
    fade = np.hanning(11)[1:-1, None]
    shifts = lambda row: np.stack([np.roll(row * fade, -k, axis=0).ravel() for k in range(9)])
    x, wanted = shifts(train), wanted_response(settings)
    weights = np.linalg.solve(x.T @ x + 0.3 * np.eye(x.shape[1]), x.T @ wanted)
    transform = row_transform(9)
    numerator = np.fft.rfft(wanted).conj()[:, None] * (transform @ train)
    answer = correlate(numerator, (abs(transform @ train) ** 2).sum(1), transform @ test, settings)
    assert np.allclose(answer, shifts(test) @ weights, atol=1e-5)


def test_learning_is_a_running_average():
    settings = ScaleSettings(rate=0.3)
    first, second, both = (ScaleFilter(settings) for _ in range(3))
    first.init(shot(1, 1), box_of(SIZE))
    second.init(shot(1.05, 1), box_of(SIZE))
    both.init(shot(1, 1), box_of(SIZE))
    both.learn(shot(1.05, 1), box_of(SIZE))
    for a, b, mean in zip(first.filters[0], second.filters[0], both.filters[0]):
        assert np.allclose(mean, 0.7 * a + 0.3 * b, atol=1e-5)


def test_a_new_target_forgets_the_old():
    frame, box = shot(1, 1), box_of(SIZE)
    used, fresh = ScaleFilter(), ScaleFilter()
    used.init(shot(1.3, 0.8), box_of(SIZE * 0.6))
    used.learn(shot(1.3, 0.8), box_of(SIZE * 0.6))
    for follower in (used, fresh): follower.init(frame, box)
    assert used.size_hw == fresh.size_hw and np.array_equal(used.respond(frame, box), fresh.respond(frame, box))


def test_gradients_by_brute_force():
    cut = np.random.default_rng(2).normal(size=(1, 6, 7)).astype(np.float32)
    slow = np.zeros((4, 5, 9))
    for y in range(4):
        for x in range(5):
            across, down = cut[0, y + 1, x + 2] - cut[0, y + 1, x], cut[0, y + 2, x + 1] - cut[0, y, x + 1]
            place = np.arctan2(down, across) % np.pi / np.pi * 9
            lower = int(place)
            slow[y, x, lower % 9] += np.hypot(across, down) * (1 - place + lower)
            slow[y, x, (lower + 1) % 9] += np.hypot(across, down) * (place - lower)
    assert np.allclose(directed_strength(cut, 9)[0], slow, atol=0.05)      # OpenCV's angles are good to a third of a degree


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_frame_keeps_the_size(dtype):
    follower, night = ScaleFilter(), np.full((240, 320), 37, dtype)
    follower.init(shot(1, 1).clip(0, 255).astype(dtype), box_of(SIZE))
    assert (follower.update(night, box_of(SIZE)) == 1).all()
    follower.learn(night, box_of(SIZE))
    assert np.isfinite(follower.respond(shot(1, 1), box_of(SIZE))).all()
    assert not remove_level(cut_sizes(night + 30000 if dtype == np.uint16 else night, box_of(SIZE), follower.rows[0], (36, 16))).any()


@pytest.mark.parametrize("box", [(-20, -20, 40, 60), (310, 230, 40, 60), (5, 5, 1, 1), (-30, -30, 380, 300), (100, 20, 2, 150)])
@pytest.mark.parametrize("axes", ["both", "each"])
def test_boxes_at_the_edge_of_sense(box, axes):
    frame, follower = shot(1, 1), ScaleFilter(ScaleSettings(axes=axes))
    follower.init(frame, np.array(box))
    factors = follower.update(frame, np.array(box))
    assert factors.shape == (2,) and np.isfinite(factors).all() and (factors > 0.7).all() and (factors < 1.3).all()


def test_limits_on_sides():
    hw = (240, 320)
    assert np.allclose(keep_possible(np.array([1.2, 1.2]), np.array([300.0, 100.0]), hw, 4), 320 / 300)
    assert np.allclose(keep_possible(np.array([0.8, 0.9]), np.array([4.0, 100.0]), hw, 4), (1, 0.9))
    assert np.allclose(keep_possible(np.array([0.8, 0.8]), np.array([2.0, 20.0]), hw, 4), 1)       # one that starts below stays
    assert np.allclose(keep_possible(np.array([1.1, 1.1]), np.array([400.0, 20.0]), hw, 4), 1)


@pytest.mark.parametrize("size", [(20, 50), (3, 90), (90, 3), (400, 400), (1, 1)])
def test_template_has_whole_cells(size):
    height, width = template_size(np.array(size), ScaleSettings())
    assert height % 4 == width % 4 == 0 and min(height, width) >= 8
    if max(size) / min(size) < 4: assert 0.6 < height * width / 512 < 1.5 and abs(np.log(height / width * size[0] / size[1])) < 0.3


def test_best_step_at_the_ends():
    assert best_step(np.arange(9.0)) == 4 and best_step(-np.arange(9.0)) == -4 and best_step(np.ones(9)) == 0


def test_simulated_sequences():
    "Given the true centre, the filter's boxes beat the first size, on the mean and clearly."
    gain = {"both": [], "each": []}
    for seed in (7000, 7004, 7006, 7012):
        film = render(favouring(random_scene(seed, 40, (240, 320)), ["scale variation"]))
        truth, seen = film.amodal_xywh, film.visible > 0.3
        place = lambda t, wh: cxcywh_to_xywh(np.concatenate([truth[t, :2] + truth[t, 2:] / 2, wh]))
        fixed = np.mean([iou(place(t, truth[0, 2:]), truth[t]) for t in range(1, 40) if seen[t]])
        for axes, gains in gain.items():
            follower, overlaps, wh = ScaleFilter(ScaleSettings(axes=axes)), [], truth[0, 2:]
            follower.init(film.frames[0], truth[0])
            for t in np.flatnonzero(seen[1:]) + 1:
                box = resize_box(place(t, wh), follower.update(film.frames[t], place(t, wh)))
                follower.learn(film.frames[t], box)
                wh = box[2:]
                overlaps.append(iou(box, truth[t]))
            gains.append(np.mean(overlaps) - fixed)
    assert np.mean(gain["both"]) > 0.05 and np.mean(gain["each"]) > 0.05, gain


@pytest.mark.parametrize("wrong", [dict(cell_px=3), dict(cell_px=0), dict(sigma=0.0), dict(orientations=0), dict(template_px=0), dict(rate=5.0),
                                   dict(margin=0.0), dict(regulariser=-1.0), dict(num_scales=5.0), dict(step=float("nan")), dict(least_side_px=0.0)])
def test_settings_out_of_range(wrong):
    with pytest.raises(UserError, match=f"^scale.{next(iter(wrong))} is .*: give "): ScaleSettings(**wrong)
