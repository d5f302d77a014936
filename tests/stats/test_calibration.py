"""The line of p that come up too often: drawn from a known one, and its inverse."""

import numpy as np
import pytest

from ibma_app.stats.calibration import LEVELS, calibrate, count_beyond, fit_line, uncalibrate


def test_counts_are_of_values_that_reach_each_level(rng):
    log10_p = rng.exponential(1.0, 5000)
    np.testing.assert_array_equal(count_beyond(log10_p), [(log10_p >= level).sum() for level in LEVELS])


def test_uniform_p_need_no_calibration(rng):
    """A million p: at the farthest level, 1e-4, the share is known to a tenth, .04 in log10."""
    intercept, slope = fit_line(count_beyond(-np.log10(rng.uniform(size=1_000_000))), 1_000_000)
    assert abs(intercept) < 0.05
    assert abs(slope) < 0.02


@pytest.mark.parametrize(("intercept", "slope"), [(0.05, 0.06), (-0.3, 0.15), (0.0, 0.5)])
def test_a_known_line_is_found_and_undone(rng, intercept, slope):
    """P(-log10 p >= x) = 10^(intercept - (1 - slope) x): the share at x over 10^-x is the line."""
    log10_p = (intercept - np.log10(rng.uniform(size=2_000_000))) / (1.0 - slope)
    found = fit_line(count_beyond(log10_p), log10_p.size)
    assert found[0] == pytest.approx(intercept, abs=0.04)
    assert found[1] == pytest.approx(slope, abs=0.015)
    right = calibrate(log10_p, intercept, slope)
    for level in (3.0, 4.0):  # where it is raised
        assert np.mean(right >= level) == pytest.approx(10.0**-level, rel=4 / np.sqrt(2e6 * 10.0**-level))


def test_p_are_never_lowered_and_stay_in_order():
    log10_p = np.linspace(0.0, 12.0, 500)
    right = calibrate(log10_p, -0.4, 0.1)  # below 4, p come up less often than they say
    np.testing.assert_array_equal(right[log10_p < 3.9], log10_p[log10_p < 3.9])
    assert (right <= log10_p).all()
    assert (np.diff(right) > 0).all()
    assert (calibrate(log10_p, 0.3, 0.1) >= 0).all()


@pytest.mark.parametrize(("intercept", "slope"), [(0.05, 0.06), (-0.4, 0.1)])
def test_thresholds_are_turned_back(intercept, slope):
    for level in (0.5, 3.0, 6.6):
        turned = uncalibrate(level, intercept, slope)
        assert float(calibrate(np.array([turned]), intercept, slope)[0]) == pytest.approx(level, rel=1e-12)


def test_levels_that_are_hardly_reached_are_not_used():
    counts = np.zeros(LEVELS.size, dtype=np.int64)
    assert fit_line(counts, 1000) == (0.0, 0.0)
    counts[0] = 150
    assert fit_line(counts, 1000) == (pytest.approx(np.log10(1.5)), 0.0)
