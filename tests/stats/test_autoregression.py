"""Autoregressive noise: corrected autocorrelations, whitening, generalised least squares, calibration."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from ibma_app.stats.autoregression import (
    Precision,
    correct_autocorrelations,
    expected_products,
    extend_autocorrelations,
    lag_products,
    partial_autocorrelations,
    predictors,
    process_autocorrelations,
)
from ibma_app.stats.gls import Factorised, fit_ordinary, orthonormalise
from ibma_app.stats.gls_by_group import fit_by_group, group_rows, round_partials
from ibma_app.stats.noise_calibration import calibrate_noise

REFERENCE = Path(__file__).parents[1] / "reference" / "gls_corar1.json"
T = 60


@pytest.fixture(scope="module")
def design() -> np.ndarray:
    rng = np.random.default_rng(0)
    steps = np.arange(T)
    return np.column_stack(
        [np.sin(steps / 3), rng.standard_normal((T, 4)).cumsum(axis=0), np.cos(steps / 20), np.ones(T)]
    )


def _covariance(partials: np.ndarray) -> np.ndarray:
    """The covariance of an autoregressive process whose innovations have variance 1."""
    rho = extend_autocorrelations(process_autocorrelations(partials[None]), T)[0]
    return toeplitz(rho) / np.prod(1 - partials**2)


@given(st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=5))
def test_partial_autocorrelations_and_back(values):
    partials = np.array([values])
    rho = process_autocorrelations(partials)
    np.testing.assert_allclose(partial_autocorrelations(rho), partials, atol=1e-8)
    # Yule and Walker's equations
    order = len(values)
    np.testing.assert_allclose(toeplitz(rho[0, :order]) @ predictors(partials)[-1][0], rho[0, 1:], atol=1e-10)


@pytest.mark.parametrize("partials", [[], [0.4], [0.5, -0.2], [0.6, 0.2, 0.1, -0.3], [0.9, -0.8, 0.5, 0.1, 0.2, -0.6]])
def test_precision_is_the_inverse_covariance(partials):
    partials = np.array(partials)
    precision = np.linalg.inv(_covariance(partials)) if partials.size else np.eye(T)
    np.testing.assert_allclose(Precision.of(partials).times(np.eye(T)), precision, atol=1e-9)
    y, order = np.random.default_rng(6).standard_normal((3, T)), len(partials)
    ends = np.stack([y[:, :order], y[:, ::-1][:, :order]], axis=1)
    forms = Precision.of(partials).forms(lag_products(y, order), ends)
    np.testing.assert_allclose(forms, np.einsum("bt,ts,bs->b", y, precision, y), rtol=1e-9)


def test_expected_products_are_the_traces(design):
    basis = np.linalg.qr(design)[0]
    residual = np.eye(T) - basis @ basis.T
    found = expected_products(basis, 2, 4)
    for i in range(3):
        for j in range(5):
            near, far = (np.eye(T) if lag == 0 else np.eye(T, k=lag) + np.eye(T, k=-lag) for lag in (i, j))
            assert found[i, j] == pytest.approx(np.trace(near @ residual @ far @ residual), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6])
def test_autocorrelations_are_corrected_for_the_design(design, phi):
    rng = np.random.default_rng(1)
    noise = lfilter([1], [1, -phi], rng.standard_normal((4000, T + 50)))[:, 50:]
    products = fit_ordinary(noise, orthonormalise(design, []), 1).products
    naive = (products[:, 1] / products[:, 0] / 2).mean()
    # the ratio of two estimates has a bias of its own, of order 1/T; the design's is several times as large
    corrected = correct_autocorrelations(products, expected_products(np.linalg.qr(design)[0], 1))[:, 1]
    assert naive < phi - 0.04
    assert abs(corrected.mean() - phi) < max(0.02, 0.4 * (phi - naive))


def test_generalised_least_squares_is_statsmodels(design):
    rng = np.random.default_rng(2)
    y = rng.standard_normal((3, T)).cumsum(axis=1)
    contrasts = [np.eye(design.shape[1])[:1], np.eye(design.shape[1])[:2]]
    for partials in (np.zeros(0), np.array([0.37]), np.array([0.5, -0.25])):
        covariance = _covariance(partials) if partials.size else np.eye(T)
        basis = orthonormalise(design, contrasts)
        ours = Factorised(basis, partials).fit(y, fit_ordinary(y, basis, len(partials)))
        for voxel in range(3):
            theirs = sm.GLS(y[voxel], design, sigma=covariance).fit()
            assert ours.noise[voxel] == pytest.approx(theirs.scale, rel=1e-8)
            assert ours.contrasts[0].effect[voxel, 0] == pytest.approx(theirs.params[0], rel=1e-8)
            variance = ours.contrasts[0].variance(ours.noise)[voxel, 0]
            assert variance == pytest.approx(theirs.bse[0] ** 2, rel=1e-8)
            f = ours.contrasts[1].quadratic()[voxel] / 2 / ours.noise[voxel]
            assert f == pytest.approx(float(theirs.f_test(contrasts[1]).fvalue), rel=1e-8)


def test_columns_of_single_volumes_are_gaps(design):
    # a column for each scrubbed volume gives what the volumes' absence gives, with the gap in time
    partials, gone = np.array([0.5, 0.2]), [0, 17, 18, 40]
    kept = np.setdiff1d(np.arange(T), gone)
    y = np.random.default_rng(3).standard_normal((1, T)).cumsum(axis=1)
    wild = y.copy()
    wild[0, gone] = 1e4
    basis = orthonormalise(np.column_stack([design, np.eye(T)[:, gone]]), [np.eye(design.shape[1] + len(gone))[:1]])
    ours = Factorised(basis, partials).fit(wild, fit_ordinary(wild, basis, 2))
    theirs = sm.GLS(y[0, kept], design[kept], sigma=_covariance(partials)[np.ix_(kept, kept)]).fit()
    assert ours.contrasts[0].effect[0, 0] == pytest.approx(theirs.params[0], rel=1e-7)
    assert ours.contrasts[0].variance(ours.noise)[0, 0] == pytest.approx(theirs.bse[0] ** 2, rel=1e-7)


def test_corrected_ar1_is_near_restricted_maximum_likelihood():
    reference = json.loads(REFERENCE.read_text())
    y = np.array(reference["y"])
    design = np.column_stack([np.array(reference["design"]), np.ones(y.shape[1])])
    basis = orthonormalise(design, [np.eye(design.shape[1])[:1]])
    ordinary = fit_ordinary(y, basis, 1)
    rho = correct_autocorrelations(ordinary.products, expected_products(basis.basis, 1))
    assert rho[:, 1].mean() == pytest.approx(np.mean(reference["rho"]), abs=0.02)
    rounded = round_partials(partial_autocorrelations(rho), (0.05,))
    errors = np.empty(len(y))
    for rows, fit in fit_by_group(y, ordinary, rounded, (0.05,), basis):
        errors[rows] = np.sqrt(fit.contrasts[0].variance(fit.noise)[:, 0])
    ratios = errors / np.array(reference["se"])
    assert ratios.mean() == pytest.approx(1.0, abs=0.02)
    assert np.sqrt(np.mean((ratios - 1) ** 2)) < 0.04


def test_each_voxel_is_in_one_group():
    partials = np.random.default_rng(4).uniform(-1.2, 1.2, (500, 3))
    steps = (0.05, 0.1, 0.1)
    rounded = round_partials(partials, steps)
    assert np.abs(rounded).max() < 0.97
    inside = np.abs(partials).max(axis=1) < 0.9
    assert (np.abs(rounded - partials)[inside] <= np.array(steps) / 2 + 1e-12).all()
    seen = np.zeros(500, dtype=int)
    for value, rows in group_rows(rounded, steps):
        assert (rounded[rows] == value).all()
        seen[rows] += 1
    assert (seen == 1).all()
    assert len({tuple(value) for value, _ in group_rows(rounded, steps)}) == len(np.unique(rounded, axis=0))


def test_calibration_is_what_another_simulation_finds(design):
    partials = np.array([0.5])
    weights = [np.eye(design.shape[1])[:1]]
    basis = orthonormalise(design, weights)
    expected = expected_products(basis.basis, 2)
    rho = extend_autocorrelations(process_autocorrelations(partials[None]), 6)[0]
    found = calibrate_noise(design, weights, expected, rho, (0.05, 0.1))
    root = np.linalg.cholesky(_covariance(partials))
    y = np.random.default_rng(5).standard_normal((20_000, T)) @ root.T
    ordinary = fit_ordinary(y, basis, 2)
    estimated = correct_autocorrelations(ordinary.products, expected)
    rounded = round_partials(partial_autocorrelations(estimated), (0.05, 0.1))
    effect, variance = np.empty(len(y)), np.empty(len(y))
    for rows, fit in fit_by_group(y, ordinary, rounded, (0.05, 0.1), basis):
        effect[rows] = fit.contrasts[0].effect[:, 0]
        variance[rows] = fit.contrasts[0].variance(fit.noise)[:, 0]
    assert found.factors[0] == pytest.approx(effect.var() / variance.mean(), rel=0.03)  # 1 % is that variance's error
    assert 1.02 < found.factors[0] < 1.3
    assert found.dof[0] == pytest.approx(2 * variance.mean() ** 2 / variance.var(), rel=0.15)
    assert found.dof[0] < T - design.shape[1]
