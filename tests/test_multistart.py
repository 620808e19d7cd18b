"""tirnas.multistart: where PTB-TIR's toolkit starts, and how it adds the runs up."""
import math

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.metrics import ERROR_THRESHOLDS_PX, OVERLAP_THRESHOLDS, frame_scores, headline, score_sequence
from tirnas.multistart import SHIFTS, run_truths, score_runs, score_starts, segments, shifted_boxes, valid_starts

BOX = np.array([30.0, 20, 25, 60])


def tile(frames):
    return np.tile(BOX, (frames, 1)) + np.arange(frames)[:, None] * [1, 0, 0, 0]


def starts_by_the_colon(truth, segments):
    "In the toolkit's own terms: frames from 1, places 1, 1 + K/19, ... up to K, rounded down, and K once more."
    valid = [i for i, box in enumerate(truth.tolist(), 1) if all(v > 0 for v in box)]
    last = max(k for k, frame in enumerate(valid, 1) if len(truth) - frame + 1 >= 20)
    step, places, place = last / (segments - 1), [], 1.0
    while place <= last + 1e-9:
        places.append(math.floor(place + 1e-9))
        place = 1 + len(places) * step
    return [valid[place - 1] - 1 for place in [*places, last]]


@pytest.mark.parametrize("frames", (20, 21, 30, 38, 39, 40, 57, 58, 100, 211, 1792))
def test_starts_are_those_of_the_colon(frames):
    truth = tile(frames)
    assert [first for first, _ in segments(truth)] == starts_by_the_colon(truth, 20)
    truth[frames // 3:frames // 2] = 0
    assert [first for first, _ in segments(truth)] == starts_by_the_colon(truth, 20)


@pytest.mark.parametrize("frames", (38, 100, 1000))
def test_twenty_segments_of_at_least_twenty_frames(frames):
    truth = tile(frames)
    found = segments(truth)
    assert len(found) == 20 and found[0][0] == 0 and found[-1][0] == frames - 20
    for first, box in found: np.testing.assert_array_equal(box, truth[first])
    assert [len(t) for t in run_truths(truth, "tre")] == [frames - first for first, _ in found]


def test_no_start_on_an_invalid_frame():
    truth = tile(300)
    truth[:7, 0], truth[50:90], truth[200] = 0, np.nan, [5, 5, 0, 5]
    assert segments(truth)[0][0] == valid_starts(truth)[0] == 7
    assert all((box > 0).all() for _, box in segments(truth))
    assert all(len(t) == 293 for t in run_truths(truth, "sre")) and len(run_truths(truth, "sre")) == 12


def test_too_short_to_start():
    for truth in (tile(19), 0 * tile(50)):
        with pytest.raises(UserError, match="no valid annotation with 20 frames left"): segments(truth)
    with pytest.raises(UserError, match="'ope' is no kind of starts: give tre or sre"): run_truths(tile(50), "ope")


def test_twelve_boxes_by_hand():
    boxes = dict(zip(SHIFTS, shifted_boxes(BOX, (480, 640)).tolist(), strict=True))
    assert boxes == {
        "left": [27, 20, 25, 60], "right": [33, 20, 25, 60], "up": [30, 14, 25, 60], "down": [30, 26, 25, 60],
        "top left": [28, 14, 27, 66], "top right": [30, 14, 28, 66], "bottom left": [28, 20, 27, 66], "bottom right": [30, 20, 28, 66],
        "scale 0.8": [33, 26, 20, 48], "scale 0.9": [31, 23, 23, 54], "scale 1.1": [29, 17, 28, 66], "scale 1.2": [28, 14, 30, 72]}


def test_boxes_are_kept_in_the_frame():
    at_origin = shifted_boxes(np.array([1.0, 1, 20, 20]), (100, 100))
    assert (at_origin[:, :2] >= 1).all() and at_origin[0].tolist() == [1, 1, 20, 20]
    at_end = shifted_boxes(np.array([81.0, 81, 20, 20]), (100, 100))
    assert (at_end[:, :2] + at_end[:, 2:] - 1 <= 100).all() and at_end[1].tolist() == [83, 81, 18, 20]
    assert (shifted_boxes(np.array([80.0, 80, 20, 20]), (100, 100), origin=0) == at_end - [1, 1, 0, 0]).all()


def test_runs_are_added_up_hit_by_hit():
    truth, random = tile(90), np.random.default_rng(0)
    truth[30:35] = 0
    runs = [truth[first:] + random.normal(0, 4, (90 - first, 4)) for first, _ in segments(truth)]
    scored = score_runs(runs, truth, "tre")
    frames = [frame_scores(run, piece) for run, piece in zip(runs, run_truths(truth, "tre"))]
    total = sum(map(len, runs))
    success = [sum((f.overlap > t).sum() for f in frames) / total for t in OVERLAP_THRESHOLDS]
    precision = [sum((f.error <= t).sum() for f in frames) / total for t in ERROR_THRESHOLDS_PX]
    np.testing.assert_allclose(scored.curves.success, success, rtol=0, atol=1e-15)
    np.testing.assert_allclose(scored.curves.precision, precision, rtol=0, atol=1e-15)
    assert scored.frames == total and scored.invalid == sum((~f.valid).sum() for f in frames)


def test_a_long_run_weighs_more_than_a_short_one():
    truth = tile(200)
    runs = [truth[first:] + [0 if first < 100 else 500, 0, 0, 0] for first, _ in segments(truth)]
    mean = np.mean([score_sequence(run, piece).curves.success[0] for run, piece in zip(runs, run_truths(truth, "tre"))])
    assert score_runs(runs, truth, "tre").curves.success[0] > mean + 0.1


def test_the_shifted_box_itself_is_not_scored():
    truth = tile(40)
    runs = [np.concatenate([box[None], truth[1:]]) for box in shifted_boxes(truth[0], (480, 640))]
    assert headline(score_runs(runs, truth, "sre").curves)["success"] == pytest.approx(20 / 21)


def test_sequences_count_equally():
    truth = {"long": tile(400), "short": tile(40)}
    runs = {"long": [truth["long"]] * 12, "short": [truth["short"] + [900, 0, 0, 0]] * 12}
    entry = score_starts(runs, truth, "sre")
    assert entry["success"] == pytest.approx((20 / 21 + 20 / 21 / 40) / 2) and (entry["sequences"], entry["runs"]) == (2, 24)


def test_a_run_of_the_wrong_length_is_named():
    truth = tile(40)
    runs = [truth] * 11 + [truth[:-1]]
    with pytest.raises(UserError, match="kcf/sre/car run 12: the result has 39 rows but its ground truth has 40"):
        score_starts({"car": runs}, {"car": truth}, "sre", tracker="kcf")
    with pytest.raises(UserError, match="11 sre runs, but the sequence has 12 starts"): score_starts({"car": runs[:11]}, {"car": truth}, "sre")
    with pytest.raises(UserError, match="kcf: no tre run of any sequence"): score_starts({}, {"car": truth}, "tre", tracker="kcf")
