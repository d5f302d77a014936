"""Least squares of time series: ordinary, and generalised where voxels share a model of the noise.

Letters: T volumes, P columns, C contrasts of Q rows each, B voxels of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.autoregression import whiten

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ContrastFit:
    """One contrast in B voxels."""

    effect: Floats  # (B, Q)
    unscaled: Floats  # (Q, Q): covariance of the effect for noise of variance 1, the same in all voxels

    def variance(self, noise: Floats) -> Floats:
        """Return the sampling variances of the rows, (B, Q), for noise of these variances, (B,)."""
        return noise[:, None] * np.diag(self.unscaled)

    def quadratic(self) -> Floats:
        """Return e' U^-1 e, (B,): divided by Q and the noise's variance it is F."""
        return np.einsum("bq,bq->b", self.effect, np.linalg.solve(self.unscaled, self.effect.T).T)


@dataclass(frozen=True, eq=False)
class BlockFit:
    """The fit of B voxels."""

    noise: Floats  # (B,): variance of the (whitened) residuals
    contrasts: tuple[ContrastFit, ...]


class Factorised:
    """A design that is whitened and factorised, for all voxels of one model of the noise.

    Parameters
    ----------
    matrix : ndarray, shape (T, P)
        Of full rank.
    weights : sequence of ndarray, shape (Q, P)
        Contrasts.
    partials : ndarray, shape (p,)
        Partial autocorrelations of the noise; empty: ordinary least squares.
    """

    def __init__(self, matrix: Floats, weights: Sequence[Floats], partials: Floats) -> None:
        self._partials = partials
        white = np.ascontiguousarray(whiten(np.ascontiguousarray(matrix.T), partials).T)
        self._basis, triangle = np.linalg.qr(white)
        self._rows = [np.linalg.solve(triangle.T, one.T).T for one in weights]  # (Q, P): on the basis
        self._unscaled = [rows @ rows.T for rows in self._rows]
        self._dof = matrix.shape[0] - matrix.shape[1]

    def fit(self, series: Floats) -> BlockFit:
        """Fit series of B voxels, (B, T)."""
        white = whiten(series, self._partials)
        onto = white @ self._basis
        left = np.einsum("bt,bt->b", white, white) - np.einsum("bp,bp->b", onto, onto)
        noise = np.maximum(left, 0.0) / self._dof
        fits = tuple(ContrastFit(onto @ rows.T, cov) for rows, cov in zip(self._rows, self._unscaled, strict=True))
        return BlockFit(noise, fits)

    def covariances(self) -> list[Floats]:
        """Return the covariances of the contrasts' effects for innovations of variance 1."""
        return self._unscaled


def project(series: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Return residuals of ordinary least squares and their sums of squares.

    Parameters
    ----------
    series : ndarray, shape (B, T)
    basis : ndarray, shape (T, P)
        Orthonormal, of the design.

    Returns
    -------
    residuals : ndarray, shape (B, T)
    sums : ndarray, shape (B,)
    """
    residuals = series - (series @ basis) @ basis.T
    return residuals, np.einsum("bt,bt->b", residuals, residuals)
