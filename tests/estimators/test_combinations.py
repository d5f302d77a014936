"""Stouffer, Fisher, Tippett and participant-level fixed effects, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.estimators import find_estimator


def design_of(k, tail="two-sided", is_f=False):
    return Design(np.ones((k, 1)), ("Intercept",), (Test("mean", np.eye(1), tail, is_f),))


def block_of(z, **more):
    z = np.asarray(z, dtype=float)
    return VoxelBlock(np.ones(z.shape, dtype=bool), z=z, **more)


def z_of(name, z, tail="two-sided", **more):
    block = block_of(z, **more)
    return find_estimator(name).fit(block, design_of(len(z), tail)).tests["mean"].z


RNG = np.random.default_rng(0)
Z = RNG.normal(0.3, 1.2, (7, 50))
SIZES = RNG.integers(8, 90, 7).astype(float)


def test_stouffer():
    np.testing.assert_allclose(z_of("stouffer", Z), Z.sum(axis=0) / np.sqrt(7), rtol=1e-13)
    w = np.sqrt(SIZES)
    np.testing.assert_allclose(
        z_of("stouffer-weighted", Z, sample_size=SIZES), w @ Z / np.sqrt(SIZES.sum()), rtol=1e-13
    )


def test_sample_sizes_are_wanted():
    for sizes in (None, np.where(np.arange(7) == 2, np.nan, SIZES), np.where(np.arange(7) == 2, 0, SIZES)):
        with pytest.raises(DataError, match="sample size"):
            z_of("stouffer-weighted", Z, sample_size=sizes)


@pytest.mark.parametrize(("name", "method"), [("fisher", "fisher"), ("tippett", "tippett")])
def test_directed_p(name, method):
    up = np.array([stats.combine_pvalues(stats.norm.sf(z), method).pvalue for z in Z.T])
    low = np.array([stats.combine_pvalues(stats.norm.cdf(z), method).pvalue for z in Z.T])
    np.testing.assert_allclose(z_of(name, Z, "positive"), stats.norm.isf(up), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(z_of(name, Z, "negative"), -stats.norm.isf(low), rtol=1e-9, atol=1e-9)
    both = z_of(name, Z)
    p = np.minimum(1, 2 * np.minimum(up, low))
    np.testing.assert_allclose(2 * stats.norm.sf(np.abs(both)), p, rtol=1e-8)
    np.testing.assert_array_equal(np.sign(both)[p < 1], np.where(up <= low, 1, -1)[p < 1])
    assert not both[p == 1].any()


def test_far_tails_do_not_underflow():
    """40 maps of z = 30, whose p is 1e-198 each: log p = -2 sum(log p) of chi-square by hand."""
    strong = np.full((40, 1), 30.0)
    fisher = z_of("fisher", strong, "positive")
    assert 180 < fisher[0] < 195  # sqrt(40) * 30 = 189.7 is Stouffer's
    np.testing.assert_allclose(z_of("fisher", -strong, "negative"), -fisher, rtol=1e-13)
    assert np.isfinite(z_of("fisher", -strong, "positive")).all()
    tippett = z_of("tippett", strong, "positive")
    log_p = stats.norm.logsf(30) + np.log(40)
    np.testing.assert_allclose(stats.norm.logsf(tippett), log_p, rtol=1e-12)
    assert np.isfinite(z_of("tippett", -strong, "positive")).all()


def test_f_of_one_row_is_two_sided():
    for name in ("stouffer", "stouffer-rfx", "fisher", "tippett"):
        t = find_estimator(name).fit(block_of(Z), design_of(7)).tests["mean"]
        f = find_estimator(name).fit(block_of(Z), design_of(7, is_f=True)).tests["mean"]
        assert f.statistic_name == "F"
        np.testing.assert_allclose(stats.norm.sf(f.z), 2 * stats.norm.sf(np.abs(t.z)), rtol=1e-8)


def test_stouffer_rfx_is_a_t_test():
    estimate = find_estimator("stouffer-rfx").fit(block_of(Z), design_of(7))
    test = estimate.tests["mean"]
    np.testing.assert_allclose(test.statistic, stats.ttest_1samp(Z, 0).statistic, rtol=1e-12)
    assert test.effect is None
    assert test.variance is None
    np.testing.assert_array_equal(estimate.dof, 6)


def test_runs_of_one_participant():
    """Fixed effects with t: the covering runs' dof are summed; infinite when one is unknown."""
    y = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 9.0]])
    v = np.array([[0.5, 1.0, 1.0], [0.25, 1.0, 9.0]])
    covered = np.array([[True, True, True], [True, True, False]])
    estimator = find_estimator("fixed-effects")
    block = VoxelBlock(covered, effect=y, variance=v, dof=np.array([[100.0], [50.0]]))
    estimate = estimator.fit(block, design_of(2), test="t")
    test = estimate.tests["mean"]
    np.testing.assert_array_equal(estimate.dof, [150, 150, 100])
    np.testing.assert_allclose(test.effect, [(2 + 8) / 6, 1.5, 3.0], rtol=1e-14)
    np.testing.assert_allclose(test.variance, [1 / 6, 0.5, 1.0], rtol=1e-14)
    np.testing.assert_allclose(test.statistic, test.effect / np.sqrt(test.variance), rtol=1e-14)
    np.testing.assert_allclose(stats.norm.sf(test.z), stats.t.sf(test.statistic, estimate.dof), rtol=1e-9)
    unknown = VoxelBlock(covered, effect=y, variance=v, dof=np.array([[100.0], [np.inf]]))
    estimate = estimator.fit(unknown, design_of(2), test="t")
    test = estimate.tests["mean"]
    np.testing.assert_array_equal(estimate.dof, [np.inf, np.inf, 100])
    np.testing.assert_array_equal(test.z[:2], test.statistic[:2])


def test_equal_weights():
    rng = np.random.default_rng(1)
    y, v = rng.normal(size=(5, 4)), rng.uniform(0.1, 2, (5, 4))
    block = VoxelBlock(np.ones(y.shape, dtype=bool), effect=y, variance=v)
    test = find_estimator("fixed-effects").fit(block, design_of(5), weights="equal").tests["mean"]
    np.testing.assert_allclose(test.effect, y.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(test.variance, v.sum(axis=0) / 25, rtol=1e-12)
