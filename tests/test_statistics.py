"The curves that compare synthetic with real frames, against sorted samples and closed forms."
import json

import numpy as np
import pytest
from conftest import ROOT

from tirnas.data.statistics import (GREY_EDGES, OCTAVES, Statistics, differences, frame_statistics, mean_statistics,
                                    relative_differences, spectrum_of)


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return [np.clip(rng.normal(mean, spread, (240, 320)), 0, 255).astype(np.uint8) for mean, spread in ((90, 10), (150, 30))]


def test_histogram_distance_is_the_work_of_moving_the_sorted_samples(frames):
    a, b = (frame_statistics(f) for f in frames)
    centres = GREY_EDGES[:-1] + 4
    spread_out = [np.repeat(centres, np.round(s.grey * 76800).astype(int)) for s in (a, b)]
    work = np.abs(np.sort(spread_out[0]) - np.sort(spread_out[1])).mean()
    assert np.isclose(differences(a, b)[0], work, rtol=1e-3)


def test_gradient_of_a_ramp_is_one_octave():
    ramp = np.tile(np.arange(320) * 0.5, (240, 1))
    curve = frame_statistics(ramp).gradient
    assert curve[np.searchsorted(OCTAVES, -1, "right") - 1] == 1


def test_power_is_parsevals():
    "Over all rings together, the power of windowed white noise is its variance times the energy of the window."
    rng, side = np.random.default_rng(1), 240
    noise = rng.normal(0, 7, (side, side))
    expected = 49 * np.mean(np.hanning(side) ** 2) ** 2
    assert np.allclose(10 ** spectrum_of(noise)[6:], expected, rtol=0.25)


def test_distance_is_zero_to_itself_and_one_between_two_sources(frames):
    a, b = (frame_statistics(f) for f in frames)
    assert np.allclose(differences(a, a), 0) and np.allclose(differences(a, b), differences(b, a))
    middle = mean_statistics([a, b])
    assert np.allclose(relative_differences(middle, {"a": a, "b": b}), 0)
    assert np.allclose(relative_differences(a, {"a": a, "b": b}), 0.5, atol=0.05), "half way from the mean"


def test_large_and_small_frames_use_the_middle():
    rng = np.random.default_rng(2)
    large = rng.integers(0, 255, (400, 500)).astype(np.uint8)
    large[80:320, 90:410] = 77
    assert frame_statistics(large).grey[77 // 8] == 1


def test_the_simulator_is_nearer_to_real_frames_than_its_first_version():
    stored = json.loads((ROOT / "nbs" / "real_statistics.json").read_text())
    curves = lambda entry: Statistics(*(np.array(entry[name]) for name in Statistics._fields))
    real = {name: curves(entry) for name, entry in stored["real"].items()}
    assert len(real) == 3 and all(np.isclose(s.grey.sum(), 1, atol=1e-3) for s in real.values())
    from tirnas.data.synthetic import film, random_scene
    now = mean_statistics(frame_statistics(next(film(random_scene(123_000 + i, frames=1)))[0]) for i in range(40))
    assert relative_differences(now, real).mean() < relative_differences(curves(stored["first simulator"]), real).mean()
