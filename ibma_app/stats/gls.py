"""Least squares of time series: ordinary, and generalised where voxels share a model of the noise.

Generalised least squares of a series is that of its ordinary residuals r, plus the ordinary estimates. With W the
inverse covariance of the noise, the residuals' sum of squares needs r'W r, which the products of neighbours of r give,
and the projection of r on the design: one product with a matrix for each series, and no series is whitened.

Letters: T volumes, P columns, C contrasts of Q rows each, B voxels of a block, p the order of the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.autoregression import Precision, lag_products

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

    noise: Floats  # (B,): variance of the innovations
    contrasts: tuple[ContrastFit, ...]


@dataclass(frozen=True, eq=False)
class Orthonormal:
    """A design of full rank by an orthonormal basis."""

    basis: Floats  # (T, P)
    contrasts: tuple[Floats, ...]  # (Q, P) each: on the basis

    @property
    def rows(self) -> Floats:
        """All rows of all contrasts, (R, P)."""
        return np.concatenate([*self.contrasts, np.zeros((0, self.basis.shape[1]))])


def orthonormalise(matrix: Floats, weights: Sequence[Floats]) -> Orthonormal:
    """Find the basis of a design, (T, P), and its contrasts, (Q, P) each, on it."""
    basis, triangle = np.linalg.qr(matrix)
    return Orthonormal(basis, tuple(np.linalg.solve(triangle.T, one.T).T for one in weights))


@dataclass(frozen=True, eq=False)
class OrdinaryFit:
    """What ordinary least squares finds in B voxels, and what generalised least squares needs of it."""

    estimates: Floats  # (B, R): of all rows of all contrasts
    products: Floats  # (B, p + 1): of the residuals, by `lag_products`; first their sum of squares
    ends: Floats  # (B, 2, p): their first values, and their last, the last one first

    @classmethod
    def room(cls, voxels: int, rows: int, order: int) -> "OrdinaryFit":
        """Make room for so many voxels."""
        return cls(np.zeros((voxels, rows)), np.zeros((voxels, order + 1)), np.zeros((voxels, 2, order)))

    def put(self, rows: slice, found: "OrdinaryFit") -> None:
        """Put a block in its place."""
        self.estimates[rows], self.products[rows], self.ends[rows] = found.estimates, found.products, found.ends

    def take(self, rows: NDArray[np.int64]) -> "OrdinaryFit":
        """Return what belongs to some voxels."""
        return OrdinaryFit(self.estimates[rows], self.products[rows], self.ends[rows])


def fit_ordinary(series: Floats, design: Orthonormal, order: int) -> OrdinaryFit:
    """Fit series, (B, T), by ordinary least squares, with products of neighbours up to ``order`` volumes apart."""
    onto = series @ design.basis
    residuals = series - onto @ design.basis.T
    ends = np.stack([residuals[:, :order], residuals[:, ::-1][:, :order]], axis=1)
    return OrdinaryFit(onto @ design.rows.T, lag_products(residuals, order), ends)


class Factorised:
    """A design that is factorised for all voxels of one model of the noise.

    Parameters
    ----------
    design : Orthonormal
    partials : ndarray, shape (p,)
        Partial autocorrelations of the noise; empty: ordinary least squares.
    """

    def __init__(self, design: Orthonormal, partials: Floats) -> None:
        basis = design.basis
        self._precision = Precision.of(partials)
        weighted = self._precision.times(basis)
        # basis' W basis = L L': L^-1 takes W basis to what series are projected on
        inverse = np.linalg.inv(np.linalg.cholesky(basis.T @ weighted))
        self._rows = tuple(one @ inverse.T for one in design.contrasts)  # (Q, P)
        self._onto = weighted @ inverse.T
        self._onto -= basis @ (basis.T @ self._onto)  # a series' projection is that of its ordinary residuals
        self._dof = basis.shape[0] - basis.shape[1]

    def fit(self, series: Floats, ordinary: OrdinaryFit) -> BlockFit:
        """Fit series of B voxels, (B, T), of which the ordinary fit is known."""
        onto = series @ self._onto
        left = self._precision.forms(ordinary.products, ordinary.ends) - np.einsum("bp,bp->b", onto, onto)
        fits, first = [], 0
        for rows in self._rows:
            effect = ordinary.estimates[:, first : first + len(rows)] + onto @ rows.T
            fits.append(ContrastFit(effect, rows @ rows.T))
            first += len(rows)
        return BlockFit(np.maximum(left, 0.0) / self._dof, tuple(fits))
