"""Percent signal change: what is needed, and what is said when it is not there."""

import numpy as np
import pytest

from ibma_app.importers.units import one_height, percent, unknown, weight_sum


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1], 1),
        ([-1], 1),
        ([1, -1], 1),
        ([2, -1, -1], 2),
        ([0.5, 0.5, -1, 0], 1),
        ([1, 1, 1], 3),
        ([0.33333, 0.33333, 0.33334, -1], 1),  # thirds in five digits
        ([1, -1, 1e-12], 1),  # dust
        ([1, -0.5], None),
        ([0, 0], None),
        ([np.nan, 1], None),
    ],
)
def test_the_sum_of_weights(weights: list[float], expected: float | None):
    total, reason = weight_sum({str(i): weight for i, weight in enumerate(weights)})
    assert (total is None) == bool(reason)
    assert total == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_heights_within_a_tenth_are_one():
    assert one_height({"a": 1, "b": -1}, {"a": 1.0, "b": 1.0})[0] == 1.0
    assert one_height({"a": 1, "b": -1}, {"a": 1.0, "b": 1.04})[0] == pytest.approx(1.02)
    assert one_height({"a": 1, "b": -1}, {"a": 1.0, "b": 1.3})[0] is None
    assert one_height({"a": 1, "b": 0}, {"a": 1.0, "b": 9.0})[0] == 1.0
    assert one_height({"a": 1}, {})[0] is None
    assert one_height({"a": 1}, {"a": 0.0})[0] is None


def test_scaling_leaves_t_alone():
    rng = np.random.default_rng(0)
    maps = {"effect": rng.normal(size=(2, 3, 4)), "variance": rng.random((2, 3, 4)), "t": rng.normal(size=(2, 3, 4))}
    mean = 100 + rng.random((2, 3, 4))
    scaling = percent(mean, "the mean", {"a": 2.0, "b": -2.0}, {"a": 0.5, "b": 0.5})
    scaled = scaling.apply(maps)
    factor = 100 * 0.5 / (2 * mean)
    np.testing.assert_allclose(scaled["effect"], maps["effect"] * factor, rtol=1e-14)
    np.testing.assert_allclose(scaled["variance"], maps["variance"] * factor**2, rtol=1e-14)
    assert scaled["t"] is maps["t"]
    assert scaling.median == pytest.approx(np.median(factor), rel=1e-3)
    assert (scaling.units, scaling.height) == ("percent", 0.5)


def test_one_mean_for_all_voxels():
    scaling = percent(100.0, "data scaled to 100", {"a": 1.0}, {"a": 1.0})
    assert scaling.factor == scaling.median == 1.0


def test_no_signal_no_percent():
    assert percent(np.zeros((2, 2, 2)), "mean", {"a": 1.0}, {"a": 1.0}).units == "unknown"
    mean = np.array([[[100.0, 0.0, -5.0, np.nan]]])
    factor = percent(mean, "mean", {"a": 1.0}, {"a": 1.0}).factor
    np.testing.assert_array_equal(np.isfinite(factor), [[[True, False, False, False]]])


def test_unknown_changes_nothing():
    maps = {"effect": np.ones((2, 2, 2))}
    scaling = unknown("nobody knows")
    assert scaling.apply(maps)["effect"] is maps["effect"]
    assert (scaling.units, scaling.source, scaling.median) == ("unknown", "nobody knows", None)
