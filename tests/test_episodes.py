"""Both samplers against brute-force properties, stills, lazy annotations, and batches that depend on their step alone."""
import dataclasses
import itertools
import time

import warnings

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.data.crops import Augmentation, crop_frame, normalise, search_window
from tirnas.data.episodes import (EpisodeSampler, EpisodeSettings, count_stills, crops_per_second, cut_target, draw_frames,
                                  draw_usable, is_still, prefetch, time_shares, usable_frames, within_gap)
from tirnas.data.layouts import Place
from tirnas.data.sequences import Sequence

SETTINGS = EpisodeSettings(num_pedestrians=3, num_frames=4, crop_px=48, search_factor=4.0, max_gap=8, center_jitter=1.0, scale_jitter=0.2)
EVERYTHING = Augmentation(flip=0.5, polarity=0.5, contrast=0.3, gain_jump=0.5, noise=0.2, stripes=0.2, blur=1.0, smear=2.0, low_res=0.5, erase=0.5, pad_px=5)


class Walk(Sequence):
    "A warm block that walks over noise, in memory; the paths are frame numbers."
    def frame(self, t):
        ground = np.random.default_rng([t, len(self.name)]).normal(80, 8, (50, 90))
        x, y, w, h = self.boxes_xywh[t]
        if np.isfinite(x): ground[int(y):int(y + h), int(x):int(x + w)] += 60
        return ground.astype(np.uint8)


def walk(name, num, absent=()):
    boxes = np.array([[10.0 + t % 60, 12, 9, 21] for t in range(num)])
    boxes[list(absent)] = np.nan
    return Walk(name, tuple(range(num)), boxes)


VIDEOS = [walk(f"video_{i}", 40 + i, absent=range(12, 30)) for i in range(5)]
STILLS = [walk(f"still_{i}", 1) for i in range(7)]
BOTH = pytest.mark.parametrize("replace", [False, True], ids=["p_x_k", "dimp"])


def settings(replace, **changes):
    return dataclasses.replace(SETTINGS, with_replacement=replace, **changes)


@BOTH
@pytest.mark.parametrize("num_frames", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("max_gap", [1, 7, 100])
def test_frames_by_brute_force(replace, num_frames, max_gap):
    "Sides, order, the gap and its growth, over random sets of usable frames."
    rng, half = np.random.default_rng(num_frames), num_frames // 2
    for _ in range(150):
        usable = np.sort(rng.choice(120, rng.integers(1, 40), replace=False))
        drawn = draw_frames(usable, num_frames, max_gap, rng, replace)
        assert len(drawn) == num_frames and np.isin(drawn, usable).all() and (np.diff(drawn) >= 0).all()
        base, train, test = drawn[half - 1], drawn[:half], drawn[half:]
        if len(usable) == 1: continue
        assert (train <= base).all() and (test > base).all()
        for side, frames, wanted in ((usable[usable < base], train[:-1], half - 1), (usable[usable > base], test, num_frames - half)):
            if not len(side) or not wanted: continue
            away = np.sort(abs(side - base))
            least = away[min(1 if replace else wanted, len(away)) - 1]
            grown = next(g for g in itertools.count(max_gap, 5) if g >= least or g == max_gap >= least)
            assert abs(frames - base).max() <= grown
            if not replace and len(side) >= wanted: assert len(set(frames)) == wanted


@BOTH
def test_every_frame_within_the_gap_can_come(replace):
    rng, usable = np.random.default_rng(0), np.arange(30)
    pairs = {(a - base, b - base) for a, base, b, _ in (draw_frames(usable, 4, 3, rng, replace) for _ in range(3000))}
    assert {a for a, _ in pairs} == {-3, -2, -1} and {b for _, b in pairs} == ({1, 2, 3} if replace else {1, 2})
    bases = {draw_frames(usable, 4, 3, rng, replace)[1] for _ in range(2000)}
    assert bases == set(range(1, 28))


def test_bases_are_uniform():
    rng = np.random.default_rng(0)
    bases = np.array([draw_frames(np.arange(23), 6, 5, rng)[2] for _ in range(9000)])
    counts = np.bincount(bases, minlength=23)
    assert counts[:2].sum() == counts[20:].sum() == 0 and abs(counts[2:20] / 500 - 1).max() < 0.2


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@BOTH
def test_few_frames_repeat(replace, count):
    drawn = [draw_frames(np.arange(count) * 50, 8, 10, np.random.default_rng(i), replace) for i in range(50)]
    assert all(len(d) == 8 and (np.diff(d) >= 0).all() for d in drawn)
    if count > 1: assert all(d[3] < d[4] for d in drawn)


def test_gap_by_enumeration():
    frames = np.array([3, 9, 10, 40, 41])
    for base, gap, least in itertools.product((0, 9, 25, 90), (0, 2, 16), (1, 3, 5, 9)):
        got = within_gap(frames, base, gap, least)
        grown = next(g for g in range(gap, 200, 5) if (abs(frames - base) <= g).sum() >= min(least, 5))
        assert got.tolist() == frames[abs(frames - base) <= grown].tolist()
    assert within_gap(frames[:0], 3, 5).size == 0


def test_draw_usable_by_distribution():
    "Different, usable, each alike; all of them where more are asked for than there are."
    rng, hits = np.random.default_rng(0), np.zeros(9)
    for _ in range(3000):
        got = draw_usable(9, 3, lambda i: i % 3 > 0, rng)
        assert len(set(got)) == 3
        hits[got] += 1
    assert (hits[::3] == 0).all() and np.allclose(hits[hits > 0] / 1500, 1, atol=0.1)
    assert sorted(draw_usable(9, 20, lambda i: i % 3 > 0, rng)) == [1, 2, 4, 5, 7, 8] and draw_usable(5, 2, lambda i: False, rng) == []


@BOTH
def test_a_batch_is_a_function_of_its_step(replace):
    make = lambda: EpisodeSampler(VIDEOS + STILLS, settings(replace), EVERYTHING, seed=4)
    first = make()
    straight = [first(step) for step in range(8)]
    fresh = make()
    for step in (5, 0, 7):
        a, b = straight[step], fresh(step)
        assert np.array_equal(a.images, b.images) and np.array_equal(a.boxes_xywh, b.boxes_xywh)
        assert a.names == b.names and np.array_equal(a.frame_indices, b.frame_indices)
    assert len({b.images.tobytes() for b in straight}) == 8
    assert not np.array_equal(EpisodeSampler(VIDEOS + STILLS, settings(replace), EVERYTHING, seed=5)(0).images, straight[0].images)


@BOTH
@pytest.mark.parametrize("ahead, workers", [(1, 1), (2, 1), (3, 2), (8, 4)])
def test_prefetch_gives_the_same_batches(replace, ahead, workers):
    "In order, whatever the number of threads and wherever a run resumes; more batches ahead than there are is no fault."
    sampler = EpisodeSampler(VIDEOS + STILLS, settings(replace), EVERYTHING, seed=1)
    straight = [sampler(step) for step in range(7)]
    for start in (0, 4, 6):
        fresh = EpisodeSampler(VIDEOS + STILLS, settings(replace), EVERYTHING, seed=1)
        got = list(prefetch(fresh, range(start, 7), ahead, workers))
        assert len(got) == 7 - start
        for a, b in zip(got, straight[start:]): assert np.array_equal(a.images, b.images) and a.names == b.names


def test_prefetch_passes_errors_on():
    def make(step):
        if step == 3: raise UserError("frame 3 cannot be read")
        return step
    batches, got = prefetch(make, range(6), ahead=2, workers=2), []
    with pytest.raises(UserError, match="frame 3"):
        for batch in batches: got.append(batch)
    assert got == [0, 1, 2]


def test_prefetch_stays_few_ahead():
    started = []
    batches = prefetch(lambda step: started.append(step), range(100), ahead=3)
    next(batches), next(batches)
    time.sleep(0.05)
    assert len(started) <= 5
    batches.close()


def test_identities_are_distinct():
    sampler = EpisodeSampler(VIDEOS, settings(False), Augmentation(), seed=0)
    names = [sampler(step).names for step in range(200)]
    assert all(len(set(n)) == 3 for n in names) and {x for n in names for x in n} == {v.name for v in VIDEOS}


def test_dimp_draws_with_replacement():
    sampler = EpisodeSampler(VIDEOS[:2], settings(True), Augmentation(), seed=0)
    names = [sampler(step).names for step in range(200)]
    assert {len(set(n)) for n in names} == {1, 2}
    assert np.isclose(np.mean([n.count("video_0") for n in names]), 1.5, atol=0.2)


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_stills(replace, share):
    "However many stills there are, a target is one with the given chance; each kind is drawn alike."
    many = VIDEOS + [walk(f"still_{i}", 1) for i in range(300)]
    sampler = EpisodeSampler(many, settings(replace, still_share=share), Augmentation(), seed=0)
    rng = np.random.default_rng(0)
    kinds = [len(many[i]) == 1 for _ in range(800) for i in sampler._targets(rng)]
    assert abs(np.mean(kinds) - share) < 0.035


@pytest.mark.parametrize("videos, stills, replace, low, high", [
    (0, 9, False, 3, 3), (9, 0, False, 0, 0), (1, 9, False, 2, 3), (9, 1, False, 0, 1), (2, 1, False, 1, 1), (0, 1, True, 3, 3), (1, 0, True, 0, 0)])
def test_numbers_bend_where_a_kind_is_short(videos, stills, replace, low, high):
    for share in (0.0, 0.5, 1.0):
        for seed in range(20):
            n = count_stills(videos, stills, settings(replace, still_share=share), np.random.default_rng(seed))
            assert low <= n <= high


@BOTH
def test_stills_alone(replace):
    "One image is a target: its frame is repeated and the copies differ."
    batch = EpisodeSampler(STILLS, settings(replace), EVERYTHING, seed=0)(0)
    assert not batch.frame_indices.any() and batch.images.shape == (3, 4, 1, 48, 48)
    for crops in batch.images: assert len({c.tobytes() for c in crops}) == 4


def test_stills_are_told_from_videos_unread():
    assert is_still(STILLS[0]) and not is_still(VIDEOS[0])
    assert is_still(Sequence.at(Place("coco", "a_0", "", "a.jpg", box_xywh=(1.0, 2.0, 3.0, 4.0)))) and not is_still(Sequence.at(Place("otb", "v", "", "")))


def test_a_frame_is_read_once_for_a_target():
    reads = []

    class Counted(Walk):
        def frame(self, t):
            reads.append(t)
            return super().frame(t)

    one = Counted("still_0", (0,), STILLS[0].boxes_xywh)
    cut_target(one, np.zeros(1, int), settings(False), EVERYTHING, np.random.default_rng(0))
    assert reads == [0]


class Spoilt(Walk):
    "Frames 3, 4 and 5 cannot be read."
    def frame(self, t):
        if 3 <= t <= 5: raise UserError(f"{self.name}/{t}.png cannot be read as an image: replace the file")
        return super().frame(t)


@BOTH
def test_an_unreadable_frame_is_left_out_and_a_batch_stays_a_function_of_its_step(replace):
    spoilt = [Spoilt(s.name, s.frame_paths, s.boxes_xywh) for s in VIDEOS]
    sampler = EpisodeSampler(spoilt, settings(replace), Augmentation(), 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = [sampler(step) for step in range(12)]
        late = EpisodeSampler(spoilt, settings(replace), Augmentation(), 0)(11)
    assert any("cannot be read" in str(w.message) and "left out of training" in str(w.message) for w in caught)
    assert not set(np.concatenate([b.frame_indices.ravel() for b in batches])) & {3, 4, 5}
    assert np.array_equal(late.images, batches[11].images)


def test_a_sequence_without_any_readable_frame_is_one_sentence():
    class Gone(Walk):
        def frame(self, t): raise UserError("gone")
    gone = Gone("lost", VIDEOS[0].frame_paths, VIDEOS[0].boxes_xywh)
    with pytest.warns(UserWarning, match="gone"), pytest.raises(UserError, match="no frame of lost"):
        cut_target(gone, np.arange(4), settings(False), Augmentation(), np.random.default_rng(0))


@BOTH
def test_videos_without_boxes_do_not_stop_a_training_on_stills(replace):
    empty = [Sequence(f"empty{i}", VIDEOS[0].frame_paths, np.zeros_like(VIDEOS[0].boxes_xywh)) for i in range(4)]
    sampler = EpisodeSampler([*empty, *STILLS], settings(replace), Augmentation(), 0)
    for step in range(20): assert not {n for n in sampler(step).names if n.startswith("empty")}


@BOTH
def test_annotations_are_read_when_drawn(replace):
    "Neither construction nor a batch touches more annotations than it needs."
    touched = set()

    class Lazy(Sequence):
        "Not read yet: what `open_dataset` returns."
        @property
        def _pair(self):
            touched.add(self.name)
            return tuple(range(20)), VIDEOS[0].boxes_xywh[:20]

        def frame(self, t): return VIDEOS[0].frame(t)

    many = [Lazy.at(Place("otb", f"video_{i:03d}", "", "")) for i in range(200)]
    sampler = EpisodeSampler(many, settings(replace), Augmentation(), seed=0)
    assert not touched
    batch = sampler(0)
    assert touched == set(batch.names)


@BOTH
def test_absent_targets_are_never_drawn(replace):
    "NaN and zero boxes are no targets, and a sequence of nothing else is passed over."
    gone = walk("video_gone", 20, absent=range(20))
    flat = Walk("video_flat", tuple(range(9)), np.tile([5.0, 5, 0, 9], (9, 1)))
    sampler = EpisodeSampler([gone, *VIDEOS[:3], flat], settings(replace), Augmentation(), seed=0)
    for step in range(60):
        batch = sampler(step)
        assert not {"video_gone", "video_flat"} & set(batch.names)
        assert not np.isin(batch.frame_indices, np.arange(12, 30)).any() and np.isfinite(batch.boxes_xywh).all()


def test_what_cannot_be_drawn():
    gone = [walk(f"video_gone_{i}", 20, absent=range(20)) for i in range(3)]
    with pytest.raises(UserError, match="no training sequences"): EpisodeSampler([], SETTINGS, Augmentation(), 0)
    with pytest.raises(UserError, match="num_pedestrians is 3 but there are 2"): EpisodeSampler(VIDEOS[:2], SETTINGS, Augmentation(), 0)
    with pytest.raises(UserError, match="num_frames is 1"): EpisodeSampler(VIDEOS, settings(False, num_frames=1), Augmentation(), 0)
    with pytest.raises(UserError, match="still_share is 1.5"): EpisodeSampler(VIDEOS, settings(False, still_share=1.5), Augmentation(), 0)
    with pytest.raises(UserError, match="only 1 of the 3"): EpisodeSampler(VIDEOS[:1] + gone, settings(False), Augmentation(), 0)(0)
    with pytest.raises(UserError, match="only 0 of the 3"): EpisodeSampler(gone, settings(True), Augmentation(), 0)(0)


@BOTH
def test_crops_are_those_of_the_boxes(replace):
    "Without jitter and augmentation each crop is the tracker's crop of that frame and box."
    plain = settings(replace, center_jitter=0.0, scale_jitter=0.0)
    sampler, by_name = EpisodeSampler(VIDEOS + STILLS, plain, Augmentation(), 0), {s.name: s for s in VIDEOS + STILLS}
    for step in range(5):
        batch = sampler(step)
        for name, crops, boxes, indices in zip(batch.names, batch.images, batch.boxes_xywh, batch.frame_indices):
            for crop, box, t in zip(crops, boxes, indices):
                window = search_window(by_name[name].boxes_xywh[t], 4.0, 48)
                assert np.array_equal(crop[0], normalise(crop_frame(by_name[name].frame(t), window)))
                assert np.array_equal(box, window.to_crop(by_name[name].boxes_xywh[t]))


def test_train_frames_move_half_as_much():
    wide = settings(False, center_jitter=2.0, scale_jitter=0.0, num_pedestrians=5)
    sampler = EpisodeSampler(VIDEOS, wide, Augmentation(), 0)
    boxes = np.concatenate([sampler(step).boxes_xywh for step in range(60)])
    off = abs(boxes[..., :2] + boxes[..., 2:] / 2 - 24) / np.sqrt(boxes[..., 2:].prod(-1, keepdims=True))
    pixel = 1 / np.sqrt(9 * 21)
    assert off[:, :2].max() <= 0.5 + pixel and 0.9 < off[:, 2:].max() <= 1 + pixel
    assert np.allclose(off[:, 2:].mean() / off[:, :2].mean(), 2, atol=0.2)


def test_shapes_and_types():
    batch = EpisodeSampler(VIDEOS, SETTINGS, EVERYTHING, 0)(0)
    assert batch.images.dtype == np.float32 and batch.images.flags.c_contiguous and batch.boxes_xywh.shape == (3, 4, 4)
    assert batch.frame_indices.shape == (3, 4) and len(batch.names) == 3
    assert usable_frames(np.zeros((0, 4))).size == 0


def test_the_measures_measure():
    sampler = EpisodeSampler(VIDEOS, SETTINGS, EVERYTHING, 0)
    assert crops_per_second(sampler, range(2)) > 0
    shares = time_shares(sampler, range(3))
    assert np.isclose(sum(shares.values()), 1) and all(v > 0 for v in shares.values()) and len(shares) == 5
