"""Hommel's procedure against statsmodels, full closed testing, and nilearn."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm.thresholding import _compute_hommel_value, _true_positive_fraction
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from ibma_app.stats.hommel import adjust_hommel, hommel_value, simes_of_largest, true_discoveries

levels = st.lists(st.integers(1, 200).map(lambda n: n / 200), min_size=1, max_size=12)


def simes(p):
    """Simes' p by its definition."""
    return min(np.sort(p) * len(p) / np.arange(1, len(p) + 1))


@given(levels)
def test_simes_p_of_the_largest(values):
    p = np.sort(values)
    found = simes_of_largest(-np.log10(p))
    assert found[0] == np.inf
    assert found[-1] == 0
    np.testing.assert_allclose(found[1:-1], [simes(p[p.size - i :]) for i in range(1, p.size + 1)], rtol=1e-9)


@given(levels)
def test_adjusted_p_equal_statsmodels(values):
    expected = multipletests(values, method="hommel")[1]
    # ties between i · p and Simes' p go either way by rounding, to the same value
    np.testing.assert_allclose(10.0 ** -adjust_hommel(-np.log10(values)), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 17, 1000])
@pytest.mark.parametrize("power", [1, 4, 30])
def test_random_p_equal_statsmodels(n, power):
    p = np.random.default_rng(n + power).random(n) ** power
    np.testing.assert_allclose(10.0 ** -adjust_hommel(-np.log10(p)), multipletests(p, method="hommel")[1], rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_equal_closed_testing(seed):
    # all 2^n intersections tested by Simes: the definition of what the shortcut computes
    rng = np.random.default_rng(seed)
    n, alpha = 7, 0.2
    p = rng.random(n) ** rng.choice([1, 3])
    subsets = [set(c) for r in range(1, n + 1) for c in itertools.combinations(range(n), r)]
    kept = [s for s in subsets if simes(p[list(s)]) > alpha]
    log10_p = -np.log10(p)
    hommel = hommel_value(log10_p, alpha)
    assert hommel == max((len(s) for s in kept), default=0)
    adjusted = 10.0 ** -adjust_hommel(log10_p)
    for i in range(n):
        assert (adjusted[i] <= alpha) == (not any(i in s for s in kept))
    for chosen in subsets:
        voxels = np.array(sorted(chosen))
        largest_true = max((len(s & chosen) for s in kept), default=0)
        sets = np.zeros(voxels.size, dtype=np.int64)
        (found,) = true_discoveries(log10_p[voxels], sets, 1, hommel, alpha)
        assert found == len(chosen) - largest_true


@pytest.mark.parametrize("shift", [0.0, 2.0, 6.0])
def test_equals_nilearn(shift):
    rng = np.random.default_rng(3)
    z = rng.standard_normal(5000)
    z[:800] += shift
    log10_p = -norm.logsf(z) / np.log(10)
    sets = rng.integers(0, 5, 5000)
    sets[:800] = 5
    for alpha in (0.05, 0.3):
        hommel = hommel_value(log10_p, alpha)
        assert hommel == _compute_hommel_value(z, alpha)
        found = true_discoveries(log10_p, sets, 7, hommel, alpha)
        expected = [_true_positive_fraction(z[sets == s], hommel, alpha) * (sets == s).sum() for s in range(6)]
        np.testing.assert_allclose(found, [*expected, 0], atol=1e-9)  # the last set is empty


def test_p_that_underflow_keep_their_order():
    log10_p = np.array([8000.0, 500.0, 400.0, 291.0, 289.0, 5.0, 0.1])
    adjusted = adjust_hommel(log10_p)
    assert (np.diff(adjusted) <= 0).all()
    assert (adjusted <= log10_p).all()
    assert (adjusted >= np.maximum(log10_p - np.log10(7) - 1e-9, 0)).all()
    assert hommel_value(log10_p, 0.05) == 1
    (found,) = true_discoveries(log10_p, np.zeros(7, dtype=np.int64), 1, 1, 0.05)
    assert found == 6


def test_nothing_to_test():
    assert adjust_hommel(np.zeros(0)).size == 0
    assert hommel_value(np.zeros(0), 0.05) == 0
    assert true_discoveries(np.zeros(0), np.zeros(0, dtype=np.int64), 2, 0, 0.05).tolist() == [0, 0]
    assert hommel_value(np.zeros(4), 0.05) == 4
    assert (adjust_hommel(np.zeros(4)) == 0).all()


def test_a_whole_brain_in_linear_time():
    import time

    rng = np.random.default_rng(0)
    log10_p = rng.exponential(1, 228_483) + np.where(np.arange(228_483) < 20_000, 4, 0)
    adjust_hommel(log10_p[:9])
    start = time.process_time()
    adjust_hommel(log10_p)
    # measured 0.06 s, nearly all of it sorting; quadratic time would be minutes
    assert time.process_time() - start < 1.0
