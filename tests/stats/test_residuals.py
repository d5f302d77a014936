"""Standardised residuals against statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm

from ibma_app.stats.residuals import standardised_residuals


@pytest.fixture
def maps():
    """12 maps at 40 voxels, three columns, gaps in the coverage."""
    rng = np.random.default_rng(7)
    matrix = np.column_stack([np.ones(12), rng.standard_normal(12) + 5, np.arange(12) % 2])
    covered = rng.random((12, 40)) > 0.15
    covered[:, 0] = True
    return rng.standard_normal((12, 40)), np.exp(rng.standard_normal((12, 40))), covered, matrix


def test_equal_weights_equal_statsmodels(maps):
    values, _, covered, matrix = maps
    found, sound = standardised_residuals(np.where(covered, values, np.nan), None, covered, matrix)
    assert sound.all()
    for voxel in range(values.shape[1]):
        there = covered[:, voxel]
        expected = sm.OLS(values[there, voxel], matrix[there]).fit().resid
        expected /= np.sqrt((expected**2).sum())
        # both are exact to rounding; 1e-10 is far above it
        np.testing.assert_allclose(found[voxel, there], expected, atol=1e-10)
        assert (found[voxel, ~there] == 0).all()


def test_weights_equal_statsmodels(maps):
    values, variance, covered, matrix = maps
    tau2 = np.linspace(0, 2, values.shape[1])
    found, _ = standardised_residuals(values, variance, covered, matrix, tau2)
    for voxel in range(values.shape[1]):
        there = covered[:, voxel]
        weights = 1 / (variance[there, voxel] + tau2[voxel])
        expected = sm.WLS(values[there, voxel], matrix[there], weights).fit().wresid
        np.testing.assert_allclose(found[voxel, there], expected / np.sqrt((expected**2).sum()), atol=1e-10)


def test_nothing_is_left_of_exact_fits(maps):
    values, _, covered, matrix = maps
    values[:, 1] = matrix @ [1.0, 2.0, 3.0]
    covered[:, 2] = np.arange(12) < 3
    covered[:, 3] = False
    values[:, 4] = 0.0
    found, sound = standardised_residuals(values, None, covered, matrix)
    np.testing.assert_array_equal(np.flatnonzero(~sound), [1, 2, 3, 4])
    assert (found[~sound] == 0).all()
    np.testing.assert_allclose((found[sound] ** 2).sum(axis=1), 1.0)


def test_a_column_that_the_covered_rows_lack_is_left_out(maps):
    values, _, covered, matrix = maps
    covered[:, 5] = matrix[:, 2] == 0  # the third column is 0 there, the first two remain
    found, _ = standardised_residuals(values, None, covered, matrix)
    there = covered[:, 5]
    expected = sm.OLS(values[there, 5], matrix[there][:, :2]).fit().resid
    np.testing.assert_allclose(found[5, there], expected / np.sqrt((expected**2).sum()), atol=1e-10)
