"""Weighted least squares whose weights are inverse *estimated* variances: standard errors and degrees of freedom.

Weights 1/v with v estimated on m degrees of freedom follow their errors, so that the usual variance (X'WX)^-1 is too
small and its ratio has heavier tails than z. Meier (1953) gives the first-order correction for the mean,

    (1/sum w) (1 + 4 sum (1/m) (w/sum w) (1 - w/sum w)),    dof (sum w)² / sum (w²/m);

Kenward and Roger (1997) the same for regression, of which the mean is the case X = 1:

    A = (X'WX)^-1,  h = x'Ax,  A + 2 A [sum (2/m) w (1 - w h) x x'] A.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Corrected(NamedTuple):
    """Corrections for estimated variances, of C tests at B voxels."""

    inflation: Floats  # (C, B) times the variance of a t test; 1 of F tests, see scale
    dof: Floats  # (C, B) of t, or the denominator's of F; inf where all variances are known
    scale: Floats  # (C, B) what F is divided by; 1 of t tests


def correct_mean(variance: Floats, covered: Bools, m: Floats) -> tuple[Floats, Floats]:
    """Return Meier's inflation of the variance and Satterthwaite's dof of weighted means, (B,) each.

    Parameters
    ----------
    variance, covered : (K, B) arrays
    m : (K, 1) or (K, B) array
        Degrees of freedom of each variance; inf where it is known.
    """
    total, spread, slack = np.zeros((3, variance.shape[1]))
    weights = np.divide(1.0, variance, out=np.zeros_like(variance), where=covered)
    for w in weights:  # map after map: the same bits for one voxel as for many
        total += w
    total = np.where(total > 0, total, 1.0)
    for w, dof in zip(weights, np.broadcast_to(m, variance.shape), strict=True):
        share = w / total
        spread += np.divide(share**2, dof, out=np.zeros_like(share), where=dof > 0)
        slack += np.divide(share * (1.0 - share), dof, out=np.zeros_like(share), where=dof > 0)
    with np.errstate(divide="ignore"):
        return 1.0 + 4.0 * slack, 1.0 / spread


def correct_tests(
    variance: Floats, covered: Bools, m: Floats, matrix: Floats, tests: list[tuple[Floats, bool]], *, equal: bool
) -> Corrected:
    """Return what estimated variances do to the tests of a regression.

    Parameters
    ----------
    variance, covered : (K, B) arrays
    m : (K, 1) or (K, B) array
        Degrees of freedom of each variance; inf where it is known.
    matrix : (K, P) array
    tests : list of (Q, P) weights and whether it is an F test
    equal : bool
        Weights are 1, and the variance of the coefficients is propagated:
        unbiased as it is, with Satterthwaite's dof.

    Returns
    -------
    Corrected
        Of F tests, ``dof`` are those of Fai and Cornelius (1996), from the
        dof of the orthogonal contrasts that they consist of, and ``scale`` is
        their mean inflation.
    """
    n_voxels, columns = variance.shape[1], matrix.shape[1]
    variance = np.where(covered, variance, 1.0)
    dofs = np.where(covered, m, np.inf)
    if columns == 1 and not equal and np.ptp(matrix) == 0 and not any(is_f for _, is_f in tests):
        inflation, dof = correct_mean(variance, covered, m)
        ones = np.ones((len(tests), n_voxels))
        return Corrected(ones * inflation, ones * dof, ones)
    weights = covered.astype(np.float64) if equal else np.divide(
        1.0, variance, out=np.zeros_like(variance), where=covered
    )  # fmt: skip
    gram = np.zeros((n_voxels, columns, columns))
    for row, w in zip(matrix, weights, strict=True):
        gram += w[:, None, None] * np.outer(row, row)
    inverse = np.asarray(
        np.linalg.pinv(gram, hermitian=True), dtype=np.float64
    )  # of fewer columns where coverage leaves fewer
    fit = _Regression(matrix, weights, variance, dofs, inverse, equal)
    base, extra = fit.covariances()
    found = [_of_test(np.atleast_2d(rows), base, extra, fit, is_f=is_f) for rows, is_f in tests]
    return Corrected(*(np.array(part) for part in zip(*found, strict=True)))


class _Regression(NamedTuple):
    """A weighted regression at B voxels."""

    matrix: Floats  # (K, P)
    weights: Floats  # (K, B)
    variance: Floats  # (K, B)
    dofs: Floats  # (K, B)
    inverse: Floats  # (B, P, P)
    equal: bool

    def covariances(self) -> tuple[Floats, Floats]:
        """Return the covariance of the coefficients and what estimated weights add to it, (B, P, P) each."""
        middle = np.zeros_like(self.inverse)
        for row, w, v, m in zip(self.matrix, self.weights, self.variance, self.dofs, strict=True):
            if self.equal:
                amount = w * v
            else:
                h = np.einsum("i,bij,j->b", row, self.inverse, row)
                amount = np.divide(4.0 * w * (1.0 - w * h), m, out=np.zeros_like(w), where=m > 0)
            middle += amount[:, None, None] * np.outer(row, row)
        around = self.inverse @ middle @ self.inverse
        return (around, np.zeros_like(around)) if self.equal else (self.inverse, around)

    def spread(self, contrast: Floats) -> Floats:
        """Return half the sampling variance of a contrast's variance, (B,); contrast is (B, P)."""
        total = np.zeros(self.inverse.shape[0])
        for row, w, v, m in zip(self.matrix, self.weights, self.variance, self.dofs, strict=True):
            along = w * np.einsum("bi,bij,j->b", contrast, self.inverse, row)  # the map's weight in the contrast
            part = (along**2 * np.where(w > 0, v, 0.0)) ** 2
            total += np.divide(part, m, out=np.zeros_like(part), where=m > 0)
        return total


def _of_test(
    rows: Floats, base: Floats, extra: Floats, fit: _Regression, *, is_f: bool
) -> tuple[Floats, Floats, Floats]:
    """Return inflation, dof and scale of one test, (B,) each."""
    covariance = rows @ base @ rows.T  # (B, Q, Q)
    added = rows @ extra @ rows.T
    ones = np.ones(covariance.shape[0])
    if not is_f:
        f = covariance[:, 0, 0]
        safe = np.where(f > 0, f, 1.0)
        spread = fit.spread(np.broadcast_to(rows[0], (f.size, rows.shape[1])))
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 + added[:, 0, 0] / safe, np.where(spread > 0, f**2 / spread, np.inf), ones
    values, vectors = np.linalg.eigh(covariance)
    expected, count = np.zeros_like(ones), rows.shape[0]
    inflation = np.zeros_like(ones)
    for q in range(count):
        direction = vectors[:, :, q]
        spread = fit.spread(direction @ rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            dof = np.where(spread > 0, values[:, q] ** 2 / spread, np.inf)
            expected += np.where(np.isinf(dof), 1.0, np.where(dof > 2, dof / (dof - 2.0), np.inf))
        safe = np.where(values[:, q] > 0, values[:, q], 1.0)
        inflation += 1.0 + np.einsum("bi,bij,bj->b", direction, added, direction) / safe
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = np.where(expected > count, 2.0 * expected / (expected - count), np.inf)
    return ones, np.where(np.isinf(expected), 2.0, dof), inflation / count
