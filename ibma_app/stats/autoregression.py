"""Autoregressive noise of time series: autocorrelations corrected for the design, and whitening.

Residuals of a design are correlated less than the noise is, as the design takes low frequencies and what follows the
task. Worsley (2002) solves E[r'D_i r] = sum_j trace(D_i R D_j R) g_j for the autocovariances g of the noise, where D_j
adds up neighbours j volumes apart and R makes residuals. Lags beyond those that are estimated are those of the
autoregressive process itself, by iteration.

Letters: T volumes, B voxels of a block, p the order, L lags.

References
----------
Worsley KJ, Liao CH, Aston J, et al. A general statistical analysis for fMRI data. NeuroImage 2002; 15: 1-15.
Durbin J. The fitting of time-series models. Review of the International Statistical Institute 1960; 28: 233-244.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST = 0.97  # of a partial autocorrelation: beyond it a series is a random walk
ITERATIONS = 2  # after which autocorrelations change by less than their error
FARTHEST = 30  # lags whose expected products enter the correction


def lag_products(residuals: Floats, lags: int) -> Floats:
    """Return r'D_j r for j = 0 to ``lags``: sums of squares, and twice the sums of products of neighbours.

    Parameters
    ----------
    residuals : ndarray, shape (B, T)
    lags : int

    Returns
    -------
    ndarray, shape (B, lags + 1)
    """
    length = residuals.shape[1]
    sums = [np.einsum("bt,bt->b", residuals, residuals)]
    for lag in range(1, lags + 1):
        sums.append(2.0 * np.einsum("bt,bt->b", residuals[:, lag:], residuals[:, : length - lag]))
    return np.stack(sums, axis=1)


def expected_products(basis: Floats, lags: int, farthest: int = FARTHEST) -> Floats:
    """Return trace(D_i R D_j R): what autocovariances at lag j contribute to residuals' products at lag i.

    Parameters
    ----------
    basis : ndarray, shape (T, P)
        Orthonormal, of the design.
    lags : int
        Largest i.
    farthest : int
        Largest j, if the series is so long.

    Returns
    -------
    ndarray, shape (lags + 1, farthest + 1)
    """
    length = basis.shape[0]
    residual = np.eye(length) - basis @ basis.T
    near = [_shifted(residual, lag) for lag in range(lags + 1)]
    columns = []
    for lag in range(min(farthest, length - 1) + 1):
        moved = near[lag] if lag <= lags else _shifted(residual, lag)
        columns.append([float(np.einsum("ab,ba->", one, moved)) for one in near])
    return np.array(columns).T


def _shifted(matrix: Floats, lag: int) -> Floats:
    """Return D_lag times a matrix."""
    if not lag:
        return matrix
    moved = np.zeros_like(matrix)
    moved[lag:] += matrix[:-lag]
    moved[:-lag] += matrix[lag:]
    return moved


def correct_autocorrelations(products: Floats, expected: Floats) -> Floats:
    """Estimate the autocorrelations of the noise from products of residuals.

    Parameters
    ----------
    products : ndarray, shape (B, p + 1)
        By `lag_products`.
    expected : ndarray, shape (p + 1, J)
        By `expected_products`.

    Returns
    -------
    ndarray, shape (B, p + 1)
        1 at lag 0.
    """
    near = products.shape[1]
    inverse = np.linalg.inv(expected[:, :near]).T
    covariances = products @ inverse
    rho = covariances / covariances[:, :1]
    for _ in range(ITERATIONS):
        far = extend_autocorrelations(rho, expected.shape[1])[:, near:]
        covariances = (products - covariances[:, :1] * (far @ expected[:, near:].T)) @ inverse
        rho = covariances / covariances[:, :1]
    return rho


def extend_autocorrelations(rho: Floats, length: int) -> Floats:
    """Continue autocorrelations as the autoregressive process of their order does: (B, p + 1) to (B, length)."""
    order = rho.shape[1] - 1
    partials = partial_autocorrelations(rho)
    predictor = predictors(partials)[-1]
    series = np.zeros((length, rho.shape[0]))  # lags first: each step reads whole rows
    series[: order + 1] = process_autocorrelations(partials).T[:length]
    weights = np.ascontiguousarray(predictor.T)
    for lag in range(order + 1, length):
        for back in range(order):
            series[lag] += weights[back] * series[lag - 1 - back]
    return series.T


def partial_autocorrelations(rho: Floats) -> Floats:
    """Return the partial autocorrelations, (B, p), of autocorrelations (B, p + 1), by Durbin and Levinson.

    They are held within `LARGEST`, so that the process is stationary.
    """
    voxels, order = rho.shape[0], rho.shape[1] - 1
    partials = np.zeros((voxels, order))
    predictor = np.zeros((voxels, 0))
    variance = np.ones(voxels)
    for lag in range(1, order + 1):
        explained = np.einsum("bj,bj->b", predictor, rho[:, 1:lag][:, ::-1])
        found = np.clip((rho[:, lag] - explained) / variance, -LARGEST, LARGEST)
        partials[:, lag - 1] = found
        predictor = np.column_stack([predictor - found[:, None] * predictor[:, ::-1], found])
        variance = variance * (1.0 - found**2)
    return partials


def predictors(partials: Floats) -> list[Floats]:
    """Return the coefficients that predict a value from the one, two, ..., p values before it: each (B, k)."""
    found: list[Floats] = []
    predictor = np.zeros((partials.shape[0], 0))
    for lag in range(partials.shape[1]):
        last = partials[:, lag : lag + 1]
        predictor = np.column_stack([predictor - last * predictor[:, ::-1], last])
        found.append(predictor)
    return found


def process_autocorrelations(partials: Floats) -> Floats:
    """Return the autocorrelations, (B, p + 1), of processes with these partial autocorrelations, (B, p)."""
    rho = np.ones((partials.shape[0], 1))
    variance = np.ones(partials.shape[0])
    predictor = np.zeros((partials.shape[0], 0))
    for lag in range(partials.shape[1]):
        last = partials[:, lag]
        explained = np.einsum("bj,bj->b", predictor, rho[:, 1 : lag + 1][:, ::-1])
        rho = np.column_stack([rho, explained + last * variance])
        predictor = np.column_stack([predictor - last[:, None] * predictor[:, ::-1], last])
        variance = variance * (1.0 - last**2)
    return rho


def whiten(series: Floats, partials: Floats) -> Floats:
    """Whiten series exactly, from the first volume on, scaled to the variance of the innovations.

    Parameters
    ----------
    series : ndarray, shape (B, T)
    partials : ndarray, shape (p,)
        Of the noise: one process for all series.

    Returns
    -------
    ndarray, shape (B, T)
        L^-1 of each series, where the noise has the covariance L L' (times the innovations' variance).
    """
    order, length = len(partials), series.shape[1]
    if not order:
        return series
    steps = [step[0] for step in predictors(partials[None, :])]
    variances = np.cumprod(np.append(1.0, 1.0 - partials**2))
    white = series.copy()
    for lag in range(1, order + 1):
        white[:, order:] -= steps[-1][lag - 1] * series[:, order - lag : length - lag]
    for volume in range(min(order, length)):
        if volume:
            white[:, volume] -= series[:, :volume][:, ::-1] @ steps[volume - 1]
        white[:, volume] *= np.sqrt(variances[order] / variances[volume])
    return white
