"""tirnas.intervals: the bootstrap against closed forms, coverage, pairs, and merged runs."""
import json

import numpy as np
import pytest

from tirnas.core import UserError
from tirnas.intervals import METRICS, better, bootstrap_means, interval, intervals, mean_scores, merge_runs, resample_counts
from tirnas.metrics import score_tracker


def entry_of(values, metric="success"):
    return {"per_sequence": {f"s{i}": {**dict.fromkeys(METRICS, 0.0), metric: float(v)} for i, v in enumerate(values)}}


def scored(spread, seed, names=("a", "b", "c")):
    random = np.random.default_rng(seed)
    truth = {n: np.tile([50.0, 60, 30, 40], (40 + 7 * i, 1)) for i, n in enumerate(names)}
    results = {n: t + random.normal(0, spread, t.shape) for n, t in truth.items()}
    return score_tracker(results, truth, {n: {"occlusion"} for n in names}, {n: 10.0 + seed for n in names})


def test_counts_are_drawings_with_replacement():
    counts = resample_counts(30, 4000)
    assert counts.shape == (4000, 30) and (counts.sum(axis=1) == 30).all() and counts.max() > 3
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(counts.var(axis=0), 29 / 30, atol=0.12)
    assert (counts == resample_counts(30, 4000)).all() and (counts != resample_counts(30, 4000, seed=1)).any()


def test_means_are_those_of_the_drawn_sequences():
    values, counts = np.random.default_rng(0).random((5, 3)), resample_counts(5, 50)
    for row, mean in zip(counts.astype(int), bootstrap_means(values, counts)):
        np.testing.assert_allclose(mean, np.repeat(values, row, axis=0).mean(axis=0))


def test_interval_of_a_normal_sample_is_the_textbook_one():
    values = np.random.default_rng(1).normal(0.6, 0.1, 400)
    low, high = interval(bootstrap_means(values, resample_counts(400)))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03 * half * 2) and high == pytest.approx(values.mean() + half, abs=0.03 * half * 2)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    random, counts, inside = np.random.default_rng(2), resample_counts(60, 1000), 0
    for _ in range(300):
        low, high = interval(bootstrap_means(random.beta(4, 2, 60), counts))
        inside += low <= 2 / 3 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_one_sequence_has_no_interval():
    assert intervals(entry_of([0.5])["per_sequence"]) == {} and "success" in intervals(entry_of([0.5, 0.6])["per_sequence"])
    with pytest.raises(UserError, match="no sequence to draw from"): intervals({})


def test_better_is_antisymmetric_and_paired():
    random = np.random.default_rng(3)
    hard = random.random(80)
    a, b = entry_of(hard + 0.01 + random.normal(0, 0.01, 80)), entry_of(hard)
    ab, ba = better(a, b, "success"), better(b, a, "success")
    assert ab["low"] > 0 and ab["p_better"] > 0.99
    assert ab["difference"] == pytest.approx(-ba["difference"]) and ab["low"] == pytest.approx(-ba["high"])
    assert ab["p_better"] == pytest.approx(1 - ba["p_better"])
    wide = intervals(a["per_sequence"])["success"]
    assert ab["high"] - ab["low"] < (wide[1] - wide[0]) / 5


def test_equal_trackers_are_even():
    assert better(entry_of([0.5, 0.7]), entry_of([0.5, 0.7]), "success") == {"difference": 0, "low": 0, "high": 0, "p_better": 0.5}


def test_better_looks_at_common_sequences_only():
    a, b = entry_of([0.1, 0.2, 0.3]), entry_of([0.1, 0.2])
    a["per_sequence"]["s2"]["success"] = 99.0
    assert better(a, b, "success")["difference"] == 0
    with pytest.raises(UserError, match="no sequence in common"): better({"per_sequence": {"x": a["per_sequence"]["s0"]}}, b, "success")
    with pytest.raises(UserError, match="'auc' is no score: give one of precision"): better(a, b, "auc")


def test_merged_runs():
    runs = [scored(spread, seed) for seed, spread in enumerate((2, 4, 6))]
    merged = merge_runs(runs)
    for metric in (*METRICS, "success_rate_at_0.5", "success_rate_at_0.75"):
        values = [run[metric] for run in runs]
        assert merged[metric] == merged["runs"][metric]["mean"] == pytest.approx(np.mean(values))
        assert merged["runs"][metric]["std"] == pytest.approx(np.std(values, ddof=1))
        mean = np.mean([merged["per_sequence"][name][metric] for name in "abc"])
        assert merged[metric] == pytest.approx(mean)
        assert merged["per_attribute"]["occlusion"][metric if metric in merged["per_attribute"]["occlusion"] else "success"] is not None
    assert merged["runs"]["count"] == 3 and merged["fps"] == pytest.approx(11) and merged["frames"] == runs[0]["frames"]
    np.testing.assert_allclose(merged["curves"]["success"], np.mean([run["curves"]["success"] for run in runs], axis=0))
    assert set(merged) == set(runs[0]) | {"runs"} and json.loads(json.dumps(merged)) == merged


def test_one_run_has_no_spread():
    run = scored(3, 0)
    merged = merge_runs([run])
    assert merged["runs"]["success"] == {"mean": run["success"], "std": 0.0} and merged["per_sequence"] == run["per_sequence"]
    with pytest.raises(UserError, match="no run to merge"): merge_runs([])


def test_runs_with_different_sequences():
    whole, part = scored(2, 0), scored(2, 1, names=("a", "b"))
    for runs in ([whole, part], [part, whole]):
        with pytest.raises(UserError, match="not all runs have scores of c: merge runs of the same sequences"): merge_runs(runs)
    assert mean_scores([{"fps": None}, {"fps": None}]) == {"fps": None}


def test_longterm_scores_of_runs_are_averaged():
    one, two = scored(2, 0) | {"longterm": {"precision": 0.5, "recall": 0.6, "f": 0.55, "threshold": None}}, scored(2, 1)
    two["longterm"] = {"precision": 0.7, "recall": 0.6, "f": 0.65, "threshold": None}
    merged = merge_runs([one, two])
    assert merged["longterm"] == {"precision": pytest.approx(0.6), "recall": pytest.approx(0.6), "f": pytest.approx(0.6), "threshold": None}


@pytest.mark.parametrize("empty", (None, "absent"))
def test_what_the_first_run_lacks_is_taken_from_the_next(empty):
    told = {"precision": 0.7, "recall": 0.6, "f": 0.65, "threshold": 0.5}
    one, two = scored(2, 0) | {"longterm": None, "fps": None, "parameters": None}, scored(2, 1) | {"longterm": told, "parameters": 5.0}
    if empty == "absent":
        for key in ("longterm", "fps", "parameters"): del one[key]
    merged = merge_runs([one, two])
    assert merged["longterm"] == told and merged["fps"] == two["fps"] and merged["parameters"] == 5
    assert merged["success"] == pytest.approx((one["success"] + two["success"]) / 2)
