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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST = 0.97  # of a partial autocorrelation: beyond it a series is a random walk
ITERATIONS = 2  # after which autocorrelations change by less than their error
FARTHEST = 30  # lags whose expected products enter the correction
BLOCK = 2048  # voxels that are corrected at once: their lags stay in the processor's cache


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
    columns = []
    for lag in range(min(farthest, length - 1) + 1):
        # R D_j R = D_j - (D_j Q) Q' - Q (R D_j Q)'; the trace with D_i is twice the sum of its i-th diagonal
        moved = _shifted(basis, lag)
        rest = moved - basis @ (basis.T @ moved)
        sums = np.array(
            [-np.vdot(moved[: length - i], basis[i:]) - np.vdot(basis[: length - i], rest[i:]) for i in range(lags + 1)]
        )
        if lag <= lags:
            sums[lag] += length - lag
        sums[1:] *= 2.0
        columns.append(sums)
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
    corrected = np.empty_like(products)
    for start in range(0, len(products), BLOCK):
        some = products[start : start + BLOCK]
        covariances = some @ inverse
        for _ in range(ITERATIONS):
            far = extend_autocorrelations(covariances / covariances[:, :1], expected.shape[1])[:, near:]
            covariances = (some - covariances[:, :1] * (far @ expected[:, near:].T)) @ inverse
        corrected[start : start + BLOCK] = covariances / covariances[:, :1]
    return corrected


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


@dataclass(frozen=True, eq=False)
class Precision:
    """W, (T, T), the inverse covariance of an autoregressive process whose innovations have variance 1.

    With a = (1, -phi_1, ..., -phi_p), W is the band of sum_k a_k a_(k+d), less what that has too much in the corners
    (Gohberg and Semencul). T is larger than p.
    """

    band: Floats  # (p + 1,): on the diagonals d = 0 to p
    corner: Floats  # (p, p): H, where H'H is too much in each corner

    @classmethod
    def of(cls, partials: Floats) -> "Precision":
        """Make it of the process's partial autocorrelations, (p,)."""
        order = len(partials)
        a = np.append(1.0, -predictors(partials[None, :])[-1][0] if order else [])
        corner = np.zeros((order, order))
        for row in range(order):
            corner[row, : order - row] = a[row + 1 :]
        return cls(np.array([a[: order + 1 - lag] @ a[lag:] for lag in range(order + 1)]), corner)

    def times(self, columns: Floats) -> Floats:
        """Return W times columns, (T, P)."""
        order, length = len(self.corner), columns.shape[0]
        product = self.band[0] * columns
        for lag in range(1, order + 1):
            product[lag:] += self.band[lag] * columns[: length - lag]
            product[: length - lag] += self.band[lag] * columns[lag:]
        too_much = self.corner.T @ self.corner
        product[:order] -= too_much @ columns[:order]
        product[::-1][:order] -= too_much @ columns[::-1][:order]
        return product

    def forms(self, products: Floats, ends: Floats) -> Floats:
        """Return r'W r of series, (B,).

        Parameters
        ----------
        products : ndarray, shape (B, p + 1)
            By `lag_products`; of more lags, the first count.
        ends : ndarray, shape (B, 2, p)
            The first p values, and the last p, the last one first.
        """
        order = len(self.corner)
        too_much = ends[:, :, :order] @ self.corner.T
        return products[:, : order + 1] @ self.band - (too_much**2).sum(axis=(1, 2))
