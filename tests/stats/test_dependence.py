"""Correlations of dependent maps: without bias, positive definite; the formulas of same-data meta-analysis."""

import numpy as np
import pytest

from ibma_app.stats.combine import stouffer, stouffer_dependent, stouffer_generalised
from ibma_app.stats.dependence import (
    correlate_errors,
    generalised_weights,
    lin_sullivan,
    parts_of,
    shrink,
    smallest_eigenvalue,
)

K = 7


@pytest.fixture
def correlation():
    rng = np.random.default_rng(1)
    return np.corrcoef(rng.normal(size=(K, 300)) + 0.8 * rng.normal(size=300))


@pytest.fixture
def z():
    return np.random.default_rng(2).normal(1, 1, (K, 50))


def test_formulas_of_same_data_meta_analysis(z, correlation):
    """Mean z / sqrt(1'R1) K and 1'R^-1 z / sqrt(1'R^-1 1), as written (Lefort-Besnard et al. 2025), 1e-12."""
    everywhere, ones = np.ones(z.shape, dtype=bool), np.ones(K)
    found = stouffer_dependent(z, everywhere, ones, correlation)
    np.testing.assert_allclose(found, z.mean(axis=0) / np.sqrt(ones @ correlation @ ones / K**2), rtol=1e-12)
    inverse = np.linalg.inv(correlation)
    assert (inverse @ ones > 0).all()
    known = ones @ inverse @ z / np.sqrt(ones @ inverse @ ones)
    np.testing.assert_allclose(stouffer_generalised(z, everywhere, correlation), known, rtol=1e-12)
    weights = np.arange(1.0, K + 1)
    known = weights @ z / np.sqrt(weights @ correlation @ weights)
    np.testing.assert_allclose(stouffer_dependent(z, everywhere, weights, correlation), known, rtol=1e-12)
    independent = stouffer_dependent(z, everywhere, weights, np.eye(K))
    np.testing.assert_allclose(independent, stouffer(z, everywhere, weights), rtol=1e-14)


def test_each_voxel_has_the_maps_that_cover_it(z, correlation):
    covered = np.random.default_rng(3).random(z.shape) > 0.4
    covered[:, 0] = False
    poisoned = np.where(covered, z, np.nan)
    plain = stouffer_dependent(poisoned, covered, np.ones(K), correlation)
    general = stouffer_generalised(poisoned, covered, correlation)
    assert plain[0] == general[0] == 0.0
    for b in range(1, z.shape[1]):
        rows = covered[:, b]
        if rows.any():
            part = z[rows, b : b + 1], np.ones((rows.sum(), 1), dtype=bool)
            own = correlation[np.ix_(rows, rows)]
            assert plain[b] == pytest.approx(stouffer_dependent(*part, np.ones(rows.sum()), own)[0], rel=1e-13)
            assert general[b] == pytest.approx(stouffer_generalised(*part, own)[0], rel=1e-13)


def test_no_map_has_a_negative_weight():
    """A map that is most like the others, and less like itself: R^-1 1 would turn its sign."""
    R = np.full((4, 4), 0.5)
    R[0] = R[:, 0] = 0.75
    np.fill_diagonal(R, 1.0)
    assert np.linalg.eigvalsh(R)[0] > 0
    assert np.linalg.solve(R, np.ones(4))[0] < 0
    weights, share = generalised_weights(R)
    assert weights.min() >= 0
    assert 0 < share < 0.5
    closer = np.linalg.solve((1 - share + 1e-6) * R + (share - 1e-6) * np.eye(4), np.ones(4))
    assert closer.min() < 0  # no more is taken off than it needs
    z = np.random.default_rng(0).normal(size=(4, 200_000))
    z = np.linalg.cholesky(R) @ z
    found = stouffer_generalised(z, np.ones(z.shape, dtype=bool), R)
    assert found.std() == pytest.approx(1.0, abs=0.01)  # the variance is that of R


@pytest.mark.parametrize("sizes", [(2, 2, 3, 4, 1, 1, 1, 2), (5, 1, 1, 1, 1), (4, 4, 4)])
@pytest.mark.parametrize("covariate", [False, True])
def test_correlations_from_residuals_have_no_bias(sizes, covariate):
    """Residuals of large clusters correlate by less than maps do, as the mean takes their errors with it."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    dependent = labels[:, None] == labels
    R = np.where(dependent, 0.6, 0.0) + 0.4 * np.eye(labels.size)
    rng = np.random.default_rng(7)
    design = np.column_stack([np.ones(labels.size), *([rng.normal(size=labels.size)] if covariate else [])])
    projection = np.eye(labels.size) - design @ np.linalg.pinv(design)
    exact = correlate_errors(projection @ R @ projection, projection, dependent)
    np.testing.assert_allclose(exact, R, atol=1e-10)
    values = projection @ (np.linalg.cholesky(R) @ rng.normal(size=(labels.size, 40_000)) + rng.normal(size=40_000))
    found = correlate_errors(np.cov(values), projection, dependent)
    np.testing.assert_allclose(found, R, atol=0.05)
    assert not found[~dependent].any()


def test_residuals_of_one_cluster_or_two_do_not_tell():
    projection = np.eye(6) - 1 / 6
    assert correlate_errors(projection, projection, np.ones((6, 6), dtype=bool)) is None
    two = np.repeat([0, 1], 3)
    assert correlate_errors(projection, projection, two[:, None] == two) is None


def test_uncorrelated_maps_about_their_mean():
    """Residuals correlate by -1 / (K - 1): that is no correlation of the maps."""
    projection = np.eye(6) - 1 / 6
    assert projection[0, 1] / projection[0, 0] == pytest.approx(-1 / 5)
    dependent = np.zeros((6, 6), dtype=bool)
    dependent[:2, :2] = True
    np.testing.assert_allclose(correlate_errors(projection, projection, dependent), np.eye(6), atol=1e-12)


def test_shrinking_makes_positive_definite():
    R = np.array([[1, 0.9, 0.9], [0.9, 1, 0.1], [0.9, 0.1, 1]])
    assert np.linalg.eigvalsh(R)[0] < 0
    found, share = shrink(R)
    assert np.linalg.eigvalsh(found)[0] == pytest.approx(1e-3, rel=1e-6)
    np.testing.assert_allclose(found[0, 1], 0.9 * (1 - share))
    assert shrink(np.eye(3)) == (pytest.approx(np.eye(3)), 0.0)


def test_parts_and_numbers():
    R = np.eye(5)
    R[0, 3] = R[3, 0] = R[3, 4] = R[4, 3] = 0.5
    assert parts_of(R).tolist() == [0, 1, 2, 0, 0]
    assert smallest_eigenvalue(np.eye(5)) == 1.0
    assert lin_sullivan(100, 400, 50) == pytest.approx(0.25)
