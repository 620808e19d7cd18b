"""The crop against closed forms and brute force, the augmentation against its definitions, training against tracking."""
import dataclasses

import cv2
import numpy as np
import pytest
import torch

from tirnas.core import UserError
from tirnas.data.crops import (cover_target, DISPLAY_RANGE, Augmentation, Look, Window, add_stripes, augment, bend_contrast, crop_frame, draw_look,
                               erase_rectangle, jitter_box, jump_gain, lower_resolution, normalise, search_window, shift_over_zeros,
                               smear, tame_stuck)
from tirnas.data.episodes import EpisodeSampler, EpisodeSettings
from tirnas.data.sequences import Sequence
from tirnas.dimp.card import ModelCard
from tirnas.dimp.net import HeadSettings
from tirnas.nets.cells import Macro
from tirnas.nets.genotype import random_genotype
from tirnas.tracker import Tracker


def rough(shape, seed=0):
    "A smooth random field of about 90 +- 30."
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, shape), (0, 0), 2)
    return 90 + 30 * field / field.std()


def area_weights(size, out):
    "(out, size): the share of every pixel in each of `out` equal stretches of an axis."
    edges = np.linspace(0, size, out + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return overlap.clip(0) * out / size


def linear_weights(size, out):
    "(out, size): linear interpolation between pixel centres at the centres of `out` equal stretches, edges repeated."
    place = ((np.arange(out) + 0.5) * size / out - 0.5).clip(0, size - 1)
    return (1 - np.abs(place[:, None] - np.arange(size))).clip(0)


def slow_crop(frame, window):
    "The definition: repeat the border, then average over areas or interpolate, in float64."
    rows = np.arange(window.y0, window.y0 + window.side_px).clip(0, frame.shape[0] - 1)
    columns = np.arange(window.x0, window.x0 + window.side_px).clip(0, frame.shape[1] - 1)
    weights = (area_weights if window.side_px > window.crop_px else linear_weights)(window.side_px, window.crop_px)
    return weights @ frame[np.ix_(rows, columns)].astype(float) @ weights.T


WINDOWS = [(10, 5, 40, 40), (10, 5, 40, 64), (3, 7, 41, 64), (0, 0, 60, 33), (-20, 10, 50, 50), (70, 40, 50, 64), (-30, -30, 40, 32),
           (-10, -20, 150, 64), (-500, 10, 30, 32), (300, 10, 30, 32), (20, -900, 37, 32), (20, 400, 37, 64), (63, 30, 2, 16), (0, 0, 1, 8)]


@pytest.mark.parametrize("place", WINDOWS)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_crop_by_brute_force(place, kind):
    frame, window = rough((70, 100)).astype(kind), Window(*place)
    crop = crop_frame(frame, window)
    assert crop.dtype == np.float32 and crop.shape == (window.crop_px,) * 2
    assert np.allclose(crop, slow_crop(frame, window), atol=1e-3)


@pytest.mark.parametrize("place", WINDOWS[:10])
def test_no_resize_means_the_frame_itself(place):
    "At scale 1 every pixel is a pixel of the frame or a repeated border pixel, to the bit."
    frame, window = rough((70, 100)).astype(np.uint8), Window(*place[:3], place[2])
    padded = np.pad(frame, 600, mode="edge")
    top, left = window.y0 + 600, window.x0 + 600
    assert np.array_equal(crop_frame(frame, window), padded[top:top + window.side_px, left:left + window.side_px])


@pytest.mark.parametrize("side, crop_px", [(32, 128), (50, 128), (100, 128), (127, 128), (128, 128), (129, 128), (150, 128), (256, 128), (384, 96), (301, 77)])
def test_a_ramp_stays_a_ramp(side, crop_px):
    "The frame's value is its x coordinate, so the crop must read `to_frame` of its own pixel centres: no shift, any scale."
    ramp = np.tile(np.arange(640, dtype=np.float32) + 0.5, (480, 1))
    window = Window(60, 40, side, crop_px)
    seen = crop_frame(ramp, window)
    expected = window.to_frame(np.array([[i + 0.5, 0, 0, 0] for i in range(crop_px)]))[:, 0]
    error = (seen - expected)[:, 1 + crop_px // side:-1 - crop_px // side]
    assert abs(error).max() < (1e-3 if side <= crop_px else 0.126 * crop_px / side)     # whole pixels are averaged by their parts
    assert abs(error.mean()) < 2e-3
    assert np.allclose(crop_frame(ramp.T.copy(), Window(40, 60, side, crop_px)), seen.T, atol=1e-4)


def test_boxes_there_and_back():
    rng = np.random.default_rng(0)
    boxes = rng.uniform((-50, -50, 1, 1), (300, 200, 90, 120), (500, 4))
    for box in boxes:
        window = search_window(box, 4.2, 96)
        assert np.allclose(window.to_frame(window.to_crop(boxes)), boxes, rtol=0, atol=1e-9)
        assert np.allclose(window.to_crop([window.x0, window.y0, window.side_px, window.side_px]), [0, 0, 96, 96], rtol=0, atol=1e-12)
        x, y, w, h = window.to_crop(box)
        assert max(abs(x + w / 2 - 48), abs(y + h / 2 - 48)) <= window.scale
    exact = Window(-7, 3, 64, 128)
    assert np.array_equal(exact.to_frame(exact.to_crop(boxes.round(1).astype(np.float32))), boxes.round(1).astype(np.float32))


def test_deep_frames_without_wild_values_are_their_numbers():
    "Eight bits stored in sixteen give the same crop, to the bit."
    frame = rough((120, 160)).astype(np.uint8)
    for place in ((20, 10, 90, 64), (-20, 60, 90, 128)):
        assert np.array_equal(crop_frame(frame, Window(*place)), crop_frame(frame.astype(np.uint16), Window(*place)))


@pytest.mark.parametrize("value", [0, 65535])
def test_a_stuck_pixel_does_not_own_the_contrast(value):
    clean = (4000 + 3 * rough((120, 160))).astype(np.uint16)
    stuck = clean.copy(); stuck[50, 60] = value
    window = Window(20, 10, 96, 96)
    a, b = (normalise(crop_frame(f, window)) for f in (clean, stuck))
    away = np.ones_like(a, bool); away[40, 40] = False
    assert np.abs(a - b)[away].max() < 0.1 and abs(b[40, 40]) < 15
    assert np.abs(normalise(stuck[10:106, 20:116].astype(np.float32)) - a)[away].max() > 0.3     # untamed


PICTURE = 40 * rough((120, 160)).round()


def seen(frame): return normalise(crop_frame(frame, Window(20, 10, 96, 96)))


@pytest.mark.parametrize("frame", [PICTURE + 1e9, (PICTURE + 2**40).astype(np.int64), PICTURE.astype(np.int64) + 2**62,
                                   (PICTURE + 2**31).astype(np.uint32), PICTURE.astype(np.int64).astype(np.uint64) + np.uint64(2**63), np.float32(PICTURE * 1e-8),
                                   PICTURE * 1e40, PICTURE * 1e300, PICTURE.astype(np.int16), PICTURE * 1e-300])
def test_other_depths_show_the_same_picture(frame):
    "An offset that single precision swallows, a contrast that looks like rounding, numbers that it cannot hold."
    assert np.abs(seen(frame) - seen(np.float32(PICTURE))).max() < 1e-4


@pytest.mark.parametrize("kind, value", [(np.int32, 65535), (np.float32, 65535), (np.float64, 65535), (np.float32, 1e9), (np.float64, -1e200),
                                         (np.int64, 2**62), (np.int64, -2**62), (np.uint64, 2**64 - 1), (np.int16, 32767)])
def test_a_dead_pixel_of_any_depth_is_tamed(kind, value):
    counts = (4000 + PICTURE).astype(kind)
    dead = counts.copy(); dead[50, 60] = value
    away = np.ones((96, 96), bool); away[40, 40] = False
    assert np.abs(seen(dead) - seen(counts))[away].max() < 0.1 and abs(seen(dead)[40, 40]) < 15


@pytest.mark.parametrize("flat", [np.full((120, 160), 300.0), np.full((120, 160), 2**40), np.full((120, 160), np.float32(1e-8)), np.full((120, 160), 0.1) + 1e-20 * PICTURE,
                                  300 * (1 + 2e-16 * np.sign(PICTURE))])
def test_rounding_is_no_contrast_at_any_depth(flat):
    assert not seen(flat).any()


def test_depths_of_cameras_are_their_numbers():
    "Eight and sixteen bits, and floats of usual contrast, come out as they were: the models were trained so."
    for kind in (np.uint8, np.uint16, np.float32):
        frame = (100 + 0.5 * PICTURE).clip(0, 255).astype(kind)
        assert np.array_equal(crop_frame(frame, Window(20, 10, 96, 96)), frame[10:106, 20:116].astype(np.float32))


def test_a_crop_with_nan_is_nan_at_any_depth():
    for kind in (np.float16, np.float32, np.float64):
        frame = PICTURE.astype(kind); frame[50, 60] = np.nan
        assert np.isnan(seen(frame)).any()


def test_taming_by_sorting():
    rng = np.random.default_rng(1)
    for spread in (0, 1, 30, 900):
        counts = rng.normal(5000, spread, (47, 61)).clip(0, 65535).astype(np.uint16)
        counts[rng.random(counts.shape) < 0.004] = 65535
        order = np.sort(counts, axis=None).astype(int)
        few = counts.size // 100
        low, high = order[few], order[counts.size - few - 1]
        expected = counts if low == high else counts.clip(max(2 * low - high, 0), 2 * high - low)
        assert np.array_equal(tame_stuck(counts), expected)


@pytest.mark.parametrize("kind, top", [(np.uint8, 255), (np.uint16, 65535)])
def test_constant_frames_are_zeros(kind, top):
    for place in ((5, 5, 40, 64), (5, 5, 61, 48), (-9, -9, 70, 31)):
        assert not normalise(crop_frame(np.full((80, 90), top, kind), Window(*place))).any()


def test_normalise_by_definition():
    crop = (8000 + 20 * np.random.default_rng(0).standard_normal((64, 64))).astype(np.float32)
    exact = (crop.astype(float) - crop.mean(dtype=float)) / crop.std(dtype=float)
    assert normalise(crop).dtype == np.float32 and np.allclose(normalise(crop), exact, atol=1e-4)
    assert np.array_equal(normalise(crop[:, ::-1]), normalise(np.ascontiguousarray(crop[:, ::-1])))


class Film(Sequence):
    "Frames in memory; the paths are the frames."
    def frame(self, t): return self.frame_paths[t]


BOXES = np.array([[20.0 + 3 * t, 30 - 4 * t, 14.3, 30.7] for t in range(6)])      # ends half outside the frame


def film(kind):
    frames = []
    for t, (x, y, w, h) in enumerate(BOXES):
        frame = rough((90, 120), t)
        frame[max(int(y), 0):int(y + h), int(x):int(x + w)] += 60
        frame = frame.clip(0, 255).astype(np.uint8)
        if kind == np.uint16:
            frame = frame.astype(np.uint16) * 37 + 5000
            frame[10, 25], frame[60, 40] = 65535, 0
        frames.append(frame)
    return Film("film", tuple(frames), BOXES)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("crop_px, factor", [(64, 4.0), (96, 2.0), (32, 5.0)])
def test_training_and_tracking_see_the_same_pixels(kind, crop_px, factor):
    "What the sampler gives the network and what the tracker gives it for the same frame and box: the same bits."
    torch.manual_seed(0)
    card = ModelCard(random_genotype("dual", 1), Macro("dual", 3, 4, 4), HeadSettings(8, 16, 4, 16), crop_px, factor, {})
    tracker, seen = Tracker(card.build(), card), []
    tracker.net.backbone.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0].numpy().copy()))
    sequence = film(kind)
    settings = EpisodeSettings(1, 4, crop_px, factor, 3, 0.0, 0.0)
    batch = EpisodeSampler([sequence], settings, Augmentation(), 0)(1)
    for crop, box, t in zip(batch.images[0], batch.boxes_xywh[0], batch.frame_indices[0]):
        tracker.init(sequence.frame(t), BOXES[t])
        tracker.update(sequence.frame(t))
        first, again = seen[-2][0], seen[-1][0]
        assert np.array_equal(crop, first) and np.array_equal(crop, again)
        assert np.array_equal(box, search_window(BOXES[t], factor, crop_px).to_crop(BOXES[t]))


def test_jitter_by_its_distribution():
    rng, box = np.random.default_rng(0), np.array([50.0, 60, 20, 45])
    drawn = np.array([jitter_box(box, 2.0, 0.25, rng) for _ in range(4000)])
    w, h = drawn[:, 2], drawn[:, 3]
    moved = (drawn[:, :2] + drawn[:, 2:] / 2 - (60, 82.5)) / np.sqrt(w * h)[:, None]
    assert abs(moved).max() <= 1 and np.allclose(moved.std(0), 1 / np.sqrt(3), atol=0.02) and np.allclose(moved.mean(0), 0, atol=0.04)
    assert np.allclose([np.log(w / 20).std(), np.log(h / 45).std()], 0.25, atol=0.01)


# augmentation

BLOB_XYWH = np.array([22.0, 30.0, 14.0, 20.0])


def blob(side=80):
    crop = np.zeros((side, side), np.float32)
    crop[30:50, 22:36] = 1
    return crop


def centroid(crop):
    mass, at = crop - np.median(crop), np.arange(len(crop)) + 0.5
    return np.array([mass.sum(0) @ at, mass.sum(1) @ at]) / mass.sum()


@pytest.mark.parametrize("settings, eps", [(Augmentation(flip=1.0), 1e-4), (Augmentation(pad_px=10), 1e-4), (Augmentation(flip=0.5, pad_px=7), 1e-4),
                                           (Augmentation(blur=1.5), 0.02), (Augmentation(smear=6.0), 0.02), (Augmentation(low_res=1.0), 0.5)])
def test_the_target_stays_in_its_box(settings, eps):
    "Where a bright blob is, its box is, whatever moved it."
    rng, middles = np.random.default_rng(0), []
    for _ in range(40):
        crop, (x, y, w, h) = augment(blob(), BLOB_XYWH, draw_look(settings, rng), settings, rng)
        assert np.allclose(centroid(crop), (x + w / 2, y + h / 2), atol=eps) and (w, h) == (14, 20)
        middles.append(centroid(crop) - (x + w / 2, y + h / 2))
    assert np.allclose(np.mean(middles, 0), 0, atol=max(eps / 5, 1e-4))


def test_flip_mirrors_the_pixel_grid():
    crop = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    flipped, box = augment(crop, np.array([2.0, 3, 5, 4]), Look(True, False, 1.0), Augmentation(flip=1.0), np.random.default_rng(0))
    assert np.array_equal(flipped, crop[:, ::-1]) and box.tolist() == [9, 3, 5, 4]
    assert np.array_equal(flipped[3:7, 9:14], crop[3:7, 2:7][:, ::-1])


def test_zero_padding_is_pad_and_cut():
    crop = np.random.default_rng(0).standard_normal((24, 24)).astype(np.float32)
    for dx in range(-10, 11, 5):
        for dy in (-10, -1, 0, 7):
            assert np.array_equal(shift_over_zeros(crop, dx, dy), np.pad(crop, 10)[10 - dy:34 - dy, 10 - dx:34 - dx])


def test_polarity_and_curve_keep_the_order():
    crop = normalise(rough((32, 32)).astype(np.float32))
    rank = np.argsort(crop, axis=None, kind="stable")
    for exponent in (0.4, 0.9, 1.7):
        assert (np.diff(bend_contrast(crop, exponent).ravel()[rank]) >= 0).all()
    inverted, _ = augment(crop, BLOB_XYWH, Look(False, True, 1.0), Augmentation(), np.random.default_rng(0))
    assert np.allclose(inverted, -crop, atol=1e-5)


def test_gain_jump_saturates():
    crop = np.linspace(-3, 3, 49, dtype=np.float32).reshape(7, 7)
    jumped = jump_gain(crop, 2.0, 0.5)
    inside = abs(crop * 2 + 0.5) < DISPLAY_RANGE
    assert np.allclose(jumped[inside], crop[inside] * 2 + 0.5) and set(jumped[~inside]) == {-DISPLAY_RANGE, DISPLAY_RANGE}


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 137])
@pytest.mark.parametrize("length", [0.5, 2.0, 5.0, 9.0])
def test_smear_of_a_point_is_a_line(length, degrees):
    point = np.zeros((41, 41), np.float32); point[20, 20] = 1
    line = smear(point, length, degrees)
    ys, xs = np.nonzero(line)
    along = (xs - 20) * np.cos(np.radians(degrees)) + (ys - 20) * np.sin(np.radians(degrees))
    across = (ys - 20) * np.cos(np.radians(degrees)) - (xs - 20) * np.sin(np.radians(degrees))
    assert abs(across).max() <= 0.75 and abs(np.ptp(along) - length) <= 1.5 and np.isclose(line.sum(), 1, atol=1e-5)
    assert np.allclose(line, line[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize("factor", [1.5, 2.0, 2.7, 3.0, 200.0])
def test_lower_resolution_by_definition(factor):
    crop = rough((60, 60)).astype(np.float32)
    coarse = max(1, round(60 / factor))
    down, up = area_weights(60, coarse), linear_weights(coarse, 60)
    assert np.allclose(lower_resolution(crop, factor), up @ down @ crop @ down.T @ up.T, atol=1e-3)


def test_stripes_are_rows_and_columns():
    crop = rough((50, 50)).astype(np.float32)
    added = np.array([add_stripes(crop, 0.4, np.random.default_rng(i)) - crop for i in range(40)])
    rows, columns, all_ = added.mean(2, keepdims=True), added.mean(1, keepdims=True), added.mean((1, 2), keepdims=True)
    assert np.allclose(added, rows + columns - all_, atol=1e-4)
    assert np.allclose([(rows - all_).std(), (columns - all_).std()], 0.4, rtol=0.05)


def test_erasing_leaves_most_of_the_target():
    for seed in range(60):
        erased = erase_rectangle(np.ones((64, 64), np.float32), np.random.default_rng(seed))
        ys, xs = np.nonzero(erased == 0)
        assert len(ys) == (np.ptp(ys) + 1) * (np.ptp(xs) + 1) and max(np.ptp(ys), np.ptp(xs)) < 64 / 5 + 1


ALL = Augmentation(flip=0.5, polarity=0.5, contrast=0.3, gain_jump=0.5, noise=0.3, stripes=0.2, blur=1.5, smear=4.0, low_res=0.5, erase=0.5, pad_px=8)


def test_augmentation_is_a_function_of_its_generator():
    crop = normalise(rough((64, 64)).astype(np.float32))
    kept = crop.copy()
    draw = lambda seed: augment(crop, BLOB_XYWH, draw_look(ALL, np.random.default_rng(seed)), ALL, np.random.default_rng(seed + 100))
    first = [draw(seed) for seed in range(20)]
    for seed in (7, 3, 11):
        again = draw(seed)
        assert np.array_equal(first[seed][0], again[0]) and np.array_equal(first[seed][1], again[1])
    assert np.array_equal(crop, kept) and len({c.tobytes() for c, _ in first}) == 20
    for c, _ in first: assert c.dtype == np.float32 and c.flags.c_contiguous and np.isfinite(c).all()


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Augmentation)])
def test_each_change_can_be_switched_on_alone(name):
    "Off is off: without it nothing changes; with it something does."
    crop = normalise(rough((64, 64)).astype(np.float32))
    settings = dataclasses.replace(Augmentation(), **{name: 6 if name == "pad_px" else 1.0})
    rng = np.random.default_rng(0)
    changed = [augment(crop, BLOB_XYWH, draw_look(settings, rng), settings, rng) for _ in range(8)]
    assert any(not np.array_equal(c, crop) for c, _ in changed)
    same, box = augment(crop, BLOB_XYWH, draw_look(Augmentation(), rng), Augmentation(), rng)
    assert np.array_equal(same, crop) and np.array_equal(box, BLOB_XYWH)
    if name not in ("flip", "pad_px"): assert all(np.array_equal(b, BLOB_XYWH) for _, b in changed)


def test_a_crop_without_contrast_stays_finite():
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop, _ = augment(np.zeros((32, 32), np.float32), BLOB_XYWH, draw_look(ALL, rng), ALL, rng)
        assert np.isfinite(crop).all()


@pytest.mark.parametrize("key, value, said", [("flip", 1.5, "probability"), ("low_res", 2, "probability"), ("noise", -0.1, "0, which switches it off"), ("pad_px", -3, "pad_px")])
def test_strengths_out_of_range(key, value, said):
    with pytest.raises(UserError, match=said): Augmentation(**{key: value})


def test_a_cover_is_one_rectangle_of_one_value_that_hides_a_part_of_the_box_from_a_side():
    "On a ramp no two pixels are alike, so what changed is what was covered."
    crop = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    x, y, w, h = box = (20, 12, 16, 36)
    sides = set()
    for seed in range(60):
        covered = cover_target(crop, np.array(box, float), np.random.default_rng(seed))
        changed = covered != crop
        assert len(np.unique(covered[changed])) == 1 and covered[changed][0] in crop
        inside, hidden = changed[y:y + h, x:x + w], covered == covered[changed][0]
        assert (hidden == np.outer(hidden.any(1), hidden.any(0))).all() or hidden.sum() == np.outer(changed.any(1), changed.any(0)).sum() + 1
        assert 0.15 < inside.mean() < 0.7
        edges = {"top": inside[0], "bottom": inside[-1], "left": inside[:, 0], "right": inside[:, -1]}
        whole = {name for name, edge in edges.items() if edge.mean() > 0.98}
        assert len(whole) == 1
        sides |= whole
    assert sides == {"top", "bottom", "left", "right"}


def test_a_cover_does_not_move_the_box():
    crop, box = normalise(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)), np.array([20.0, 12, 16, 36])
    settings = Augmentation(cover=1.0)
    covered, same = augment(crop, box, Look(False, False, 1.0), settings, np.random.default_rng(1))
    assert np.array_equal(same, box) and not np.array_equal(covered, crop) and abs(covered.mean()) < 1e-5 and abs(covered.std() - 1) < 1e-4
