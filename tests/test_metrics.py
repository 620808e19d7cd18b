"""tirnas.metrics against numbers of the official toolkit (run under GNU Octave), and what each rule changes."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.metrics import (ERROR_THRESHOLDS_PX, NORM_ERROR_THRESHOLDS, OVERLAP_THRESHOLDS, FrameScores, center_errors, curves,
                            frame_scores, headline, norm_errors, overlaps, repair, score_sequence, score_sequences,
                            score_tracker)

FIXTURES = Path(__file__).parent / "fixtures" / "evaluation"
EDGE_CASES = json.loads((FIXTURES / "edge_cases.json").read_text())
OFFICIAL = json.loads((FIXTURES / "synthetic.json").read_text())
EXACT = {"rtol": 0, "atol": 1e-9}
# the official name of each number -> ours
NUMBERS = {"precision": "precision", "norm_precision": "norm_precision", "success_auc": "success"}
EXTRA = {"norm_precision_at_0.2": "norm_precision_at_0.2", "success_rate_at_0.5": "success_rate_at_0.5"}


def read(path):
    return np.loadtxt(path, delimiter=",", ndmin=2)


@pytest.fixture(scope="module")
def truth():
    return {path.stem: read(path) for path in sorted((FIXTURES / "synthetic" / "anno").glob("*.txt"))}


@pytest.fixture(scope="module")
def attributes(truth):
    names = list(OFFICIAL["jitter2"]["per_attribute"])
    flags = {name: read(FIXTURES / "synthetic" / "anno" / "att" / f"{name}.txt")[0] for name in truth}
    return {name: {a for a, flag in zip(names, row) if flag > 0} for name, row in flags.items()}


@pytest.fixture(scope="module", params=OFFICIAL)
def tracker(request, truth, attributes):
    results = {name: read(FIXTURES / "synthetic" / "results" / request.param / f"{name}.txt") for name in truth}
    return score_tracker(results, truth, attributes), OFFICIAL[request.param]


def boxes(rows):
    return np.array(rows, dtype=float)  # null becomes NaN


@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_case_frames(case):
    case = EDGE_CASES[case]
    scores = frame_scores(boxes(case["result"]), boxes(case["gt"]))
    for ours, official in ((scores.overlap, "overlap"), (scores.error, "error"), (scores.norm_error, "norm_error")):
        np.testing.assert_allclose(ours, boxes(case[official]), **EXACT)


@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_case_curves(case):
    case = EDGE_CASES[case]
    ours = score_sequence(boxes(case["result"]), boxes(case["gt"])).curves
    for kind in ("success", "precision", "norm_precision"):
        np.testing.assert_allclose(getattr(ours, kind), case[f"{kind}_curve"], **EXACT)
    for official, name in NUMBERS.items():
        np.testing.assert_allclose(headline(ours)[name], case[official], **EXACT)


def test_overall_numbers_and_curves(tracker):
    ours, official = tracker
    for name in NUMBERS: np.testing.assert_allclose(ours[NUMBERS[name]], official[name], **EXACT)
    for name in EXTRA: np.testing.assert_allclose(ours[EXTRA[name]], official["extra"][name], **EXACT)
    for kind, curve in official["curves"].items():
        np.testing.assert_allclose(ours["curves"][kind], curve, **EXACT)


def test_every_sequence(tracker):
    ours, official = tracker
    assert set(ours["per_sequence"]) == set(official["per_sequence"]) and not ours["missing"]
    for sequence, numbers in official["per_sequence"].items():
        for name, ours_name in (NUMBERS | EXTRA).items():
            np.testing.assert_allclose(ours["per_sequence"][sequence][ours_name], numbers[name], **EXACT)


def test_every_attribute(tracker):
    ours, official = tracker
    assert set(ours["per_attribute"]) == set(official["per_attribute"])
    for attribute, numbers in official["per_attribute"].items():
        entry = ours["per_attribute"][attribute]
        if numbers["sequences"] < 2:
            assert entry is None and numbers["precision"] is None
            continue
        assert entry["sequences"] == numbers["sequences"]
        for name in NUMBERS: np.testing.assert_allclose(entry[NUMBERS[name]], numbers[name], **EXACT)


def test_counts_of_the_fixture(truth):
    results = {name: read(FIXTURES / "synthetic" / "results" / "invalid" / f"{name}.txt") for name in truth}
    entry = score_tracker(results, truth)
    assert entry["invalid"] == sum(int((~(t > 0).all(1)).sum()) for t in truth.values()) >= 12 * 3 + 3
    assert entry["frames"] == sum(map(len, truth.values()))
    assert entry["repaired"] == sum(s["repaired"] for s in entry["per_sequence"].values()) > 12


def repaired_one_by_one(results, truth):
    "The rule as written: in order, from rows already repaired."
    out, count = results.copy(), 0
    for i in range(1, len(out)):
        row = out[i]
        if (np.isnan(row).all() or row[2] <= 0 or row[3] <= 0) and not np.isnan(truth[i]).any():
            out[i], count = out[i - 1], count + 1
    return out, count


@pytest.mark.parametrize("seed", range(5))
def test_repair_equals_the_loop(seed):
    random = np.random.default_rng(seed)
    results, truth = random.uniform(-3, 20, (60, 4)), random.uniform(0, 20, (60, 4))
    results[random.random(60) < 0.2] = np.nan
    results[random.random((60, 4)) < 0.1] = np.nan
    truth[random.random(60) < 0.1, 0] = np.nan
    ours, count = repair(results, truth)
    expected, expected_count = repaired_one_by_one(results, truth)
    np.testing.assert_array_equal(ours, expected)
    assert count == expected_count > 5


def test_inputs_are_left_alone():
    results, truth = boxes([[1, 1, 2, 2], [3, 3, 0, 0]]), boxes([[5, 5, 2, 2], [0, 0, 0, 0]])
    before = results.copy(), truth.copy()
    score_sequence(results, truth)
    assert (results == before[0]).all() and (truth == before[1]).all()


def test_pixel_origin_cancels_up_to_rounding():
    random = np.random.default_rng(1)
    a, b = random.uniform(1, 40, (200, 4)), random.uniform(1, 40, (200, 4))
    zero_a, zero_b = a - [1, 1, 0, 0], b - [1, 1, 0, 0]
    np.testing.assert_allclose(overlaps(a, b), overlaps(zero_a, zero_b), atol=1e-12)
    np.testing.assert_allclose(center_errors(a, b), center_errors(zero_a, zero_b), atol=1e-12)
    np.testing.assert_allclose(norm_errors(a, b), norm_errors(zero_a, zero_b), atol=1e-12)


def test_thresholds():
    assert len(OVERLAP_THRESHOLDS) == 21 and OVERLAP_THRESHOLDS[-1] == 1
    assert len(ERROR_THRESHOLDS_PX) == 51 and ERROR_THRESHOLDS_PX[20] == 20
    assert len(NORM_ERROR_THRESHOLDS) == 51 and NORM_ERROR_THRESHOLDS[20] == 0.2


def test_ceiling_and_floor_of_absent_frames():
    truth = np.tile([10.0, 10, 20, 40], (50, 1))
    truth[40:] = 0
    perfect, away = score_sequence(truth, truth).curves, score_sequence(truth + [500, 0, 1, 1], truth).curves
    assert perfect.success[0] == 0.8 and perfect.precision[0] == 1
    assert away.precision[50] == away.norm_precision[50] == 11 / 50 and away.success[0] == 1 / 50


def test_missing_sequences_are_listed_and_left_out():
    box = np.tile([10.0, 10, 20, 40], (30, 1))
    entry = score_tracker({"a": box, "unknown": box}, {"a": box, "b": box, "c": box}, fps={"a": 30.0})
    assert entry["missing"] == ["b", "c"] and list(entry["per_sequence"]) == ["a"]
    assert entry["success"] == pytest.approx(20 / 21) and entry["fps"] == pytest.approx(10)


def test_scores_are_json_and_untimed_speed_is_null():
    box = np.tile([10.0, 10, 20, 40], (30, 1))
    entry = score_tracker({"a": box}, {"a": box})
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    assert entry["fps"] is None and entry["per_attribute"] == {}


def test_a_short_result_names_tracker_sequence_and_counts():
    box = np.tile([10.0, 10, 20, 40], (10, 1))
    with pytest.raises(UserError, match="kcf/car: the result has 9 rows but its ground truth has 10"):
        score_tracker({"car": box[:9]}, {"car": box}, tracker="kcf")


def test_rows_beyond_the_truth_are_not_looked_at():
    box = np.tile([10.0, 10, 20, 40], (10, 1))
    longer = np.concatenate([box, np.full((3, 4), np.nan)])
    assert score_tracker({"car": longer}, {"car": box}) == score_tracker({"car": box}, {"car": box})


def test_a_missing_tail_without_valid_truth_is_scored_as_if_it_were_there():
    truth = np.tile([10.0, 10, 20, 40], (10, 1))
    truth[7:] = [[0, 0, 0, 0], [np.nan] * 4, [0, 5, 5, 5]]
    results = np.tile([11.0, 10, 20, 40], (10, 1))
    short, whole = score_tracker({"car": results[:7]}, {"car": truth}), score_tracker({"car": results}, {"car": truth})
    assert short.pop("short") == ["car"] and whole.pop("short") == [] and short == whole


@pytest.mark.parametrize("bad", (np.zeros((0, 4)), np.zeros((10, 5)), np.zeros(4)))
def test_wrong_shape(bad):
    with pytest.raises(UserError, match="the result has shape .* give one row x,y,w,h"):
        score_tracker({"car": bad}, {"car": np.ones((10, 4))})


def test_no_result_at_all():
    with pytest.raises(UserError, match="kcf: no result for any of the 1 sequences"):
        score_tracker({}, {"car": np.ones((10, 4))}, tracker="kcf")


def test_a_frame_of_nan_misses_everything():
    truth = np.tile([10.0, 10, 20, 40], (4, 1))
    results = truth.copy()
    results[3] = [10, 10, np.nan, 40]
    shares = curves(frame_scores(results, truth))
    assert shares.success[0] == shares.precision[50] == shares.norm_precision[50] == 0.75


def counted_one_by_one(frames):
    "The curves as section 2 says them: compare every frame with every threshold."
    share = lambda values, hit, thresholds: [sum(bool(hit(v, t)) for v in values) / len(values) for t in thresholds]
    return (share(frames.overlap, lambda v, t: v > t, OVERLAP_THRESHOLDS),
            share(frames.error, lambda v, t: v <= t, ERROR_THRESHOLDS_PX),
            share(frames.norm_error, lambda v, t: v <= t, NORM_ERROR_THRESHOLDS))


@pytest.mark.parametrize("seed", range(4))
def test_counting_equals_comparing(seed):
    "Also on thresholds, their neighbours, beyond both ends, and at NaN and infinity."
    random = np.random.default_rng(seed)
    def values(thresholds):
        near = np.concatenate([thresholds, np.nextafter(thresholds, 9), np.nextafter(thresholds, -9)])
        return random.choice([*near, -1, 1 + 2e-16, 60, np.nan, np.inf, -np.inf], 90)
    frames = FrameScores(values(OVERLAP_THRESHOLDS), values(ERROR_THRESHOLDS_PX), values(NORM_ERROR_THRESHOLDS), np.ones(90, bool))
    for ours, expected in zip(curves(frames), counted_one_by_one(frames)): assert ours.tolist() == expected


def test_sequences_end_to_end_equal_sequences_alone():
    truth = {path.stem: read(path) for path in sorted((FIXTURES / "synthetic" / "anno").glob("*.txt"))}
    results = {name: read(FIXTURES / "synthetic" / "results" / "invalid" / f"{name}.txt") for name in truth}
    for name, together in score_sequences(results, truth).items():
        alone = score_sequence(results[name], truth[name])
        assert together[1:] == alone[1:]
        for one, other in zip(together.curves, alone.curves): np.testing.assert_array_equal(one, other)


def test_average_overlap_counts_invalid_frames_as_nothing():
    truth = np.tile([10.0, 10, 10, 10], (4, 1))
    truth[3] = 0
    results = truth + [[0, 0, 0, 0], [5, 0, 0, 0], [50, 0, 0, 0], [9, 9, 9, 9]]
    assert score_sequence(results, truth).average_overlap == pytest.approx((1 + 1 / 3) / 4)


def test_scoring_needs_neither_torch_nor_opencv():
    heavy = "{'torch', 'cv2', 'matplotlib'} & set(sys.modules)"
    modules = "tirnas.metrics, tirnas.protocols, tirnas.multistart, tirnas.intervals, tirnas.longterm, tirnas.results"
    code = f"import sys, {modules}; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
