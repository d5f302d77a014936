"""Estimated variances: Meier's variance, Satterthwaite's dof, and what they do to errors."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.designs.build import one_sample_design
from ibma_app.estimators import find_estimator
from ibma_app.stats.meier import correct_mean, correct_tests

K, B = 6, 8


@pytest.fixture
def maps():
    rng = np.random.default_rng(12)
    variance = rng.uniform(0.5, 3.0, size=(K, B))
    covered = np.ones((K, B), dtype=bool)
    covered[2, 3], covered[:, 4] = False, False
    covered[5, 4] = True
    return variance, covered, rng.integers(8, 60, size=(K, 1)).astype(float)


def test_the_mean_is_meiers_formula(maps):
    variance, covered, m = maps
    inflation, dof = correct_mean(variance, covered, m)
    for b in range(B):
        w, own = 1 / variance[covered[:, b], b], m[covered[:, b], 0]
        share = w / w.sum()
        np.testing.assert_allclose(inflation[b], 1 + 4 * (share * (1 - share) / own).sum(), rtol=1e-12)
        np.testing.assert_allclose(dof[b], w.sum() ** 2 / (w**2 / own).sum(), rtol=1e-12)
    assert inflation[4] == 1.0  # a single map passes through
    assert dof[4] == m[5, 0]


def test_variances_that_are_known_change_nothing(maps):
    variance, covered, _ = maps
    inflation, dof = correct_mean(variance, covered, np.full((K, 1), np.inf))
    assert (inflation == 1).all()
    assert np.isinf(dof).all()


def test_a_regression_is_kenward_and_rogers_formula(maps):
    variance, covered, m = maps
    x = np.column_stack([np.ones(K), np.arange(K) - 2.0])
    found = correct_tests(variance, covered, m, x, [(np.array([[0.0, 1.0]]), False)], equal=False)
    for b in (0, 3):  # complete, and without one map
        rows, v, own = x[covered[:, b]], variance[covered[:, b], b], m[covered[:, b], 0]
        phi = np.linalg.inv(rows.T @ (rows / v[:, None]))

        def variance_of_slope(values, rows=rows):
            return np.linalg.inv(rows.T @ (rows / values[:, None]))[1, 1]

        # the delta method by numerical derivatives, independent of the closed forms
        slopes = np.array([
            (variance_of_slope(v + step) - variance_of_slope(v - step)) / (2 * step.max())
            for step in np.diag(1e-5 * v)
        ])  # fmt: skip
        spread = (slopes**2 * 2 * v**2 / own).sum()
        np.testing.assert_allclose(found.dof[0, b], 2 * phi[1, 1] ** 2 / spread, rtol=1e-6)
        h = np.einsum("ki,ij,kj->k", rows, phi, rows)
        middle = (rows * (4 / own / v * (1 - h / v))[:, None]).T @ rows
        expected = (phi + phi @ middle @ phi)[1, 1] / phi[1, 1]
        np.testing.assert_allclose(found.inflation[0, b], expected, rtol=1e-10)


def test_an_f_test_of_one_row_is_the_square_of_t(maps):
    variance, covered, m = maps
    x = np.column_stack([np.ones(K), np.arange(K) - 2.0])
    row = np.array([[0.0, 1.0]])
    found = correct_tests(variance, covered, m, x, [(row, False), (row, True)], equal=False)
    np.testing.assert_allclose(found.scale[1, :4], found.inflation[0, :4], rtol=1e-10)
    np.testing.assert_allclose(found.dof[1, :4], found.dof[0, :4], rtol=1e-8)


@pytest.mark.parametrize("formula", ["mean", "slope", "F", "equal"])
def test_the_level_holds_where_z_does_not(formula):
    rng = np.random.default_rng(77)
    studies, voxels, m = 6, 60_000, 11.0
    true = np.geomspace(0.5, 2.0, studies)[:, None]
    effect = np.sqrt(true) * rng.standard_normal((studies, voxels))
    variance = true * rng.chisquare(m, (studies, voxels)) / m
    block = VoxelBlock(np.ones(effect.shape, bool), effect, variance, dof=np.full((studies, 1), m))
    design = one_sample_design(studies)
    x = np.column_stack([np.ones(studies), np.linspace(-1, 1, studies), np.tile([1.0, -1.0], studies // 2)])
    if formula == "slope":
        design = Design(x, ("Intercept", "x", "g"), (Test("x", np.array([[0.0, 1.0, 0.0]])),), formula="1 + x + g")
    if formula == "F":
        design = Design(x, ("Intercept", "x", "g"), (Test("xg", np.eye(3)[1:], is_f=True),), formula="1 + x + g")
    fit, settings = find_estimator("fixed-effects").fit, {"weights": "equal"} if formula == "equal" else {}
    share = {}
    for test in ("meier", "z"):
        (found,) = fit(block, design, test=test, **settings).tests.values()
        p = stats.norm.sf(found.z) if formula == "F" else 2 * stats.norm.sf(np.abs(found.z))
        share[test] = (p < 0.05).mean(), (p < 0.001).mean()
    # first-order corrections: most of the excess is gone, at .05 and further out
    assert share["meier"][0] - 0.05 < 0.4 * (share["z"][0] - 0.05)
    assert share["meier"][0] == pytest.approx(0.05, abs=0.011)
    assert share["meier"][1] - 0.001 < 0.25 * (share["z"][1] - 0.001)
