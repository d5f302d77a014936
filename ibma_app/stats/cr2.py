"""CR2: the part of cluster-robust tests that depends on design, clusters and coverage, but not on the data.

The residuals of cluster i are multiplied with A_i = (I - H_ii)^(-1/2), so that
the estimate of the covariance is unbiased when errors are independent and of
one variance (Bell & McCaffrey 2002; the working model is the identity). The
degrees of freedom are those of Satterthwaite's approximation under that
model; tests of several rows are Hotelling's T² with the dof of a Wishart
matrix that has the same total variance (AHT, "HTZ" of clubSandwich;
Pustejovsky & Tipton 2018). None of this depends on the data: it is computed
once for each pattern of coverage.

On an orthonormal basis Q of the covered rows, H = Q Q', and the powers of
I - H_ii come from the eigenvectors of H_ii. Where a direction of a cluster has
leverage 1, the design fits it exactly: no residual is left to estimate an
error from. Columns that distinguish one cluster from the others do that (a
column for each subject). A test whose estimate gives such a direction no
weight is not affected, as if those columns had been absorbed first. A test
that gives it weight cannot be estimated.
"""

import hashlib
import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame, Patterns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

TAKEN_UP = 1e-10  # 1 - leverage up to which a direction has no residual
WEIGHED = 1e-6  # smallest weight, relative to a test's, that is not 0
_MOST = 8_000_000  # numbers that are kept at most


class Adjusted(NamedTuple):
    """One pattern's tests: C of them, with R rows in all."""

    rows: Floats  # (R, P) on the pattern's basis; of F tests such that I is their covariance under the working model
    weights: Floats  # (R, K) of the residuals, whose sums over clusters estimate the rows' covariance; 0: not covered
    dof: Floats  # (C,) of t, or the denominator's of F; 0 where not estimable
    factor: Floats  # (C,) 1 for t; the factor that turns T² into F
    estimable: Bools  # (C,)
    taken: Bools  # (C,) not estimable since it gives weight to what the design fits exactly


def _halves(basis: Floats, rows: Floats, clusters: Ints) -> tuple[Floats, Floats]:
    """Return A_i Q_i row for each cluster i, (R, K), and the squared part of Q_i row with leverage 1, (R,)."""
    weights, taken = np.zeros((rows.shape[0], clusters.size)), np.zeros(rows.shape[0])
    along = basis @ rows.T  # (K, R)
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    ends = np.cumsum(sizes)
    for size in np.unique(sizes[sizes > 0]):
        members = np.stack([order[end - size : end] for end in ends[sizes == size]])  # (M, size)
        part = basis[members]
        leverage, directions = np.linalg.eigh(part @ part.swapaxes(1, 2))
        left = 1.0 - leverage
        sound = left > TAKEN_UP
        turned = directions.swapaxes(1, 2) @ along[members]  # (M, size, R)
        taken += np.where(sound[:, :, None], 0.0, turned**2).sum(axis=(0, 1))
        scale = np.where(sound, 1.0 / np.sqrt(np.where(sound, left, 1.0)), 0.0)
        weights[:, members] = (directions @ (scale[:, :, None] * turned)).transpose(2, 0, 1)
    return weights, taken


def _by_cluster(weights: Floats, basis: Floats, clusters: Ints) -> tuple[Floats, Floats]:
    """Return g_s·g_t within each cluster, (m, R, R), and Q_i'g, (m, R, P), of weights g, (R, K)."""
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    sorted_weights = weights[:, order]
    products = sorted_weights[:, None] * sorted_weights[None]
    inner = np.add.reduceat(products, starts, axis=2).transpose(2, 0, 1)
    fitted = np.add.reduceat(sorted_weights[:, :, None] * basis[order][None], starts, axis=1).transpose(1, 0, 2)
    return inner, fitted


def _squared_sums(inner: Floats, fitted: Floats) -> float:
    """Sum over s and t the variances of the rows' covariances, under the working model.

    With B_ij = d_ij g_i g_i' - h_i h_j' (R x R) of clusters i and j, that is the
    sum over i and j of tr(B_ij B_ij) + (tr B_ij)²; of one row twice the sum of B_ij².
    """
    own = np.einsum("cst,csp,ctp->st", inner, fitted, fitted)
    diagonal = inner.diagonal(axis1=1, axis2=2)  # (m, R)
    lengths = (fitted**2).sum(axis=2)  # (m, R)
    crossed = np.einsum("ctp,csq->stpq", fitted, fitted)
    total = (inner**2).sum() - 2.0 * own.sum() + np.einsum("stpq,stqp->", crossed, crossed)
    total += (diagonal.sum(axis=1) ** 2).sum() - 2.0 * (diagonal.sum(axis=1) * lengths.sum(axis=1)).sum()
    return float(total + (crossed**2).sum())


def _whiten(rows: Floats, weights: Floats, basis: Floats, clusters: Ints) -> tuple[Floats, Floats] | None:
    """Transform the rows of an F test so that their covariance is I under the working model; None if it is singular."""
    inner, fitted = _by_cluster(weights, basis, clusters)
    covariance = inner.sum(axis=0) - np.einsum("csp,ctp->st", fitted, fitted)
    size = np.sqrt(np.diagonal(covariance))
    if not np.all(size > 0.0):
        return None
    values, directions = np.linalg.eigh(covariance / np.outer(size, size))
    if values[0] <= 1e-10 * values[-1]:
        return None
    turn = (directions / np.sqrt(values)).T / size
    return turn @ rows, turn @ weights


def adjust(basis: Floats, rows: Floats, starts: Ints, upper: Bools, clusters: Ints) -> Adjusted:
    """Prepare cluster-robust tests of one pattern of coverage.

    Parameters
    ----------
    basis : ndarray, shape (K, P)
        Orthonormal, of the covered rows; 0 where a map does not cover, and beyond the rank.
    rows : ndarray, shape (R, P)
        All tests' rows on it.
    starts : ndarray of int, shape (C + 1,)
        First row of each test.
    upper : ndarray of bool, shape (C,)
        True for F tests.
    clusters : ndarray of int, shape (K,)
        0 to m - 1.
    """
    weights, taken = _halves(basis, rows, clusters)
    rows, n_tests = rows.copy(), upper.size
    dof, factor = np.zeros(n_tests), np.ones(n_tests)
    estimable, weighed = np.zeros(n_tests, dtype=np.bool_), np.zeros(n_tests, dtype=np.bool_)
    for c in range(n_tests):
        own = slice(starts[c], starts[c + 1])
        weighed[c] = np.any(taken[own] > WEIGHED**2 * (rows[own] ** 2).sum(axis=1))
        if weighed[c]:
            continue
        if upper[c]:
            whitened = _whiten(rows[own], weights[own], basis, clusters)
            if whitened is None:
                continue
            rows[own], weights[own] = whitened
        inner, fitted = _by_cluster(weights[own], basis, clusters)
        q = starts[c + 1] - starts[c]
        spread = _squared_sums(inner, fitted)
        expected = float(np.trace(inner.sum(axis=0))) - float((fitted**2).sum())  # q once whitened
        if not (spread > 0.0 and expected > 0.0):
            continue
        wishart = q * (q + 1) * (expected / q) ** 2 / spread
        nearest = round(wishart)  # balanced designs have whole dof, the same in all patterns
        wishart = float(nearest) if abs(wishart - nearest) < 1e-9 * nearest else wishart
        dof[c] = wishart - q + 1.0
        factor[c] = dof[c] / (wishart * q) if upper[c] else 1.0
        estimable[c] = dof[c] > 0.0
    dof[~estimable] = 0.0
    return Adjusted(rows, weights, dof, factor, estimable, weighed)


class _Kept:
    """Keeps what was adjusted before, for all threads; emptied when it becomes too large."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[bytes, Adjusted] = {}
        self._numbers = 0

    def get(self, key: bytes) -> Adjusted | None:
        """Return it, or None."""
        return self._found.get(key)

    def add(self, key: bytes, adjusted: Adjusted) -> None:
        """Keep it."""
        with self._lock:
            numbers = sum(part.size for part in adjusted)
            if self._numbers + numbers > _MOST:
                self._found, self._numbers = {}, 0
            self._found[key] = adjusted
            self._numbers += numbers


_kept = _Kept()


def adjust_patterns(frame: Frame, patterns: Patterns, clusters: Ints) -> list[Adjusted]:
    """Return `adjust` of N patterns of coverage; known ones are not computed again.

    Parameters
    ----------
    frame : Frame
        Its design has K rows.
    patterns : Patterns
        Of the frame.
    clusters : ndarray of int, shape (K,)
        0 to m - 1.
    """
    design = hashlib.blake2b(digest_size=16)
    for part in (frame.columns, frame.rows, frame.starts, frame.upper, clusters):
        design.update(np.ascontiguousarray(part).tobytes())
    found = []
    for n, k in enumerate(patterns.maps.tolist()):
        which = patterns.which[n, :k]
        key = design.digest() + which.astype(np.int32).tobytes()
        adjusted = _kept.get(key)
        if adjusted is None:
            basis = np.zeros((clusters.size, frame.columns.shape[0]))
            basis[which] = patterns.columns[n, :, :k].T
            adjusted = adjust(basis, patterns.rows[n], frame.starts, frame.upper, clusters)
            _kept.add(key, adjusted)
        found.append(adjusted)
    return found
