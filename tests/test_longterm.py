"""tirnas.longterm against a straight program of the VOT long-term definition, and limits."""
import math

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.longterm import choose_thresholds, longterm


def iou(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def straight(results, truth, confidence):
    "Every threshold that occurs, every sequence, every frame after the first."
    best = (-1, 0, 0, None)
    for threshold in sorted({c for name in truth for c in confidence[name]}, reverse=True):
        precisions, recalls = [], []
        for name in truth:
            total = said = there = 0
            for r, g, c in list(zip(results[name].tolist(), truth[name].tolist(), confidence[name]))[1:]:
                if any(map(math.isnan, g)): continue
                present, says = g[2] > 0 and g[3] > 0, not any(map(math.isnan, r)) and r[2] > 0 and r[3] > 0 and c >= threshold
                there, said = there + present, said + says
                if present and says: total += iou(r, g)
            precisions.append(total / said if said else 1)
            recalls.append(total / there)
        p, r = np.mean(precisions), np.mean(recalls)
        f = 2 * p * r / (p + r) if p + r else 0
        if f > best[0] + 1e-12: best = (f, p, r, threshold)
    return dict(zip(("f", "precision", "recall", "threshold"), best))


def invented(seed, sequences=3, frames=60):
    random = np.random.default_rng(seed)
    truth, results, confidence = {}, {}, {}
    for i in range(sequences):
        boxes = np.tile([40.0, 30, 20, 30], (frames, 1)) + np.arange(frames)[:, None] * [1, 0, 0, 0]
        track = boxes + random.normal(0, 3, boxes.shape)
        boxes[20:30 + 5 * i] = 0
        boxes[50] = np.nan
        track[random.random(frames) < 0.1] = np.nan
        track[random.random(frames) < 0.1, 2] = 0
        truth[f"s{i}"], results[f"s{i}"] = boxes, track
        confidence[f"s{i}"] = np.where(boxes[:, 2] > 0, 0.7, 0.4) + random.normal(0, 0.15, frames)
    return results, truth, confidence


@pytest.mark.parametrize("seed", range(5))
def test_without_confidence(seed):
    results, truth, confidence = invented(seed)
    ours, expected = longterm(results, truth), straight(results, truth, {name: np.ones(len(c)) for name, c in confidence.items()})
    assert ours["threshold"] is None
    for key in ("precision", "recall", "f"): assert ours[key] == pytest.approx(expected[key], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_confidence(seed):
    "Few enough frames that every confidence is a threshold."
    results, truth, confidence = invented(seed, frames=56, sequences=1)
    ours, expected = longterm(results, truth, confidence), straight(results, truth, confidence)
    for key, value in expected.items(): assert ours[key] == pytest.approx(value, abs=1e-12)
    assert ours["f"] > longterm(results, truth)["f"]


def test_thresholds_are_shared_by_sequences_and_thinned_out():
    results, truth, confidence = invented(0, sequences=4, frames=200)
    ours, expected = longterm(results, truth, confidence), straight(results, truth, confidence)
    assert ours["f"] <= expected["f"] + 1e-12 and ours["f"] == pytest.approx(expected["f"], abs=0.02)
    values = choose_thresholds(np.random.default_rng(0).random(5000))
    assert len(values) == 100 and (np.diff(values) < 0).all()
    assert choose_thresholds(np.array([-np.inf, 0.5, np.nan, 0.5])).tolist() == [0.5]


def test_no_absent_target_no_score():
    results, truth, _ = invented(0)
    present = {name: np.where(boxes > 0, boxes, 10.0) for name, boxes in truth.items()}
    assert longterm(results, present) is None
    at_border = {name: boxes * [0, 1, 1, 1] for name, boxes in present.items()}
    assert longterm(results, at_border) is None


def test_a_perfect_tracker_and_a_silent_one():
    _, truth, _ = invented(1)
    assert longterm(truth, truth) == {"precision": 1, "recall": 1, "f": 1, "threshold": None}
    assert longterm({name: 0 * t for name, t in truth.items()}, truth) == {"precision": 1, "recall": 0, "f": 0, "threshold": None}


def test_frames_not_annotated_and_the_first_do_not_count():
    results, truth, _ = invented(2)
    expected = longterm(results, truth)
    for boxes in results.values(): boxes[[0, 50]] = [500, 500, 9, 9]
    assert longterm(results, truth) == expected


def test_a_short_result_reports_nothing_in_the_rest():
    results, truth, _ = invented(3)
    cut = {name: boxes[:40] for name, boxes in results.items()}
    padded = {name: np.concatenate([boxes[:40], np.zeros((20, 4))]) for name, boxes in results.items()}
    longer = {name: np.concatenate([boxes, np.ones((5, 4))]) for name, boxes in results.items()}
    assert longterm(cut, truth) == longterm(padded, truth) and longterm(longer, truth) == longterm(results, truth)


def test_wrong_number_of_confidences():
    results, truth, confidence = invented(4)
    with pytest.raises(UserError, match="s1: 7 values of confidence for 60 boxes"): longterm(results, truth, confidence | {"s1": np.ones(7)})


def test_errors_name_the_file():
    truth = {"s1": np.array([[1.0, 1, 5, 5], [0, 0, 0, 0], [1, 1, 5, 5]])}
    with pytest.raises(UserError, match="^kcf/s1.txt: 2 values of confidence for 3 boxes"):
        longterm(truth, truth, {"s1": np.ones(2)}, {"s1": "kcf/s1.txt"})
