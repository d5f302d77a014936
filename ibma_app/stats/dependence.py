"""Correlations of maps that are not independent: estimated, made positive definite, and what they amount to.

Residual maps are correlated even where maps are not: of K maps about their mean
by -1 / (K - 1). With M the projection that leaves the residuals, their covariance
is M S M, with S that of the maps; where only some pairs of maps depend on each other
S has few unknowns, and is found from it by least squares (the method of moments).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST = 1e-3  # smallest eigenvalue of an estimated correlation matrix; below it is shrunken
SINGULAR = 1e-8  # smallest eigenvalue of one whose inverse is taken
_STEPS = 60


def parts_of(correlation: Floats) -> Ints:
    """Number the sets of maps that depend on each other, (K,): 0 to m - 1, in the order of their first maps."""
    n_maps = len(correlation)
    labels = np.full(n_maps, -1, dtype=np.int64)
    for start in range(n_maps):
        if labels[start] >= 0:
            continue
        labels[start], found = labels.max() + 1, [start]
        while found:
            near = np.flatnonzero((correlation[found.pop()] != 0) & (labels < 0))
            labels[near] = labels[start]
            found += near.tolist()
    return labels


def smallest_eigenvalue(correlation: Floats) -> float:
    """Return the smallest eigenvalue of a symmetric matrix."""
    return float(np.linalg.eigvalsh(correlation)[0])


def shrink(correlation: Floats, least: float = LEAST) -> tuple[Floats, float]:
    """Shrink correlations towards 0 until the least eigenvalue is ``least``; return them, and the share taken off."""
    smallest = smallest_eigenvalue(correlation)
    if smallest >= least:
        return correlation, 0.0
    share = (least - smallest) / (1.0 - smallest)
    return (1.0 - share) * correlation + share * np.eye(len(correlation)), share


def correlate_errors(residuals: Floats, projection: Floats, dependent: NDArray[np.bool_]) -> Floats | None:
    """Estimate the correlations of maps from the covariance of their residuals.

    Parameters
    ----------
    residuals : ndarray, shape (K, K)
        Covariance over voxels.
    projection : ndarray, shape (K, K)
        I - H of the design.
    dependent : ndarray of bool, shape (K, K)
        The pairs that may be correlated; all others are taken as independent.

    Returns
    -------
    ndarray, shape (K, K), or None
        Between 0 and 1: what comes out below 0 is 0. None where residuals do not tell: all maps depend on each other,
        or too few are left beside the design.
    """
    n_maps = len(residuals)
    upper = np.triu_indices(n_maps)
    pairs = [(i, j) for i, j in zip(*upper, strict=True) if i == j or dependent[i, j]]
    made = np.empty((upper[0].size, len(pairs)))
    for column, (i, j) in enumerate(pairs):
        one = np.outer(projection[:, i], projection[j])
        made[:, column] = (one if i == j else one + one.T)[upper]
    found, _, rank, _ = np.linalg.lstsq(made, residuals[upper], rcond=1e-9)
    if rank < len(pairs):
        return None
    covariance = np.zeros((n_maps, n_maps))
    for (i, j), value in zip(pairs, found, strict=True):
        covariance[i, j] = covariance[j, i] = value
    variance = np.diagonal(covariance)
    if not np.all(variance > 0):
        return None
    correlation: Floats = np.clip(covariance / np.sqrt(np.outer(variance, variance)), 0.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _solve(correlation: Floats) -> Floats:
    return np.asarray(np.linalg.solve(correlation, np.ones(len(correlation))), dtype=np.float64)


def generalised_weights(correlation: Floats) -> tuple[Floats, float]:
    """Return the weights R^-1 1 of maps, (K,), and by how much R is shrunken so that none is negative.

    A map that correlates more with the others than they do among themselves gets a negative weight: it would count
    against what it shows. Correlations are then shrunken towards 0, as little as makes all weights at least 0. The
    variance of the weighted sum remains that of R itself.
    """
    identity, weights = np.eye(len(correlation)), _solve(correlation)
    if weights.min() >= -1e-12 * weights.max():
        return weights, 0.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        share = 0.5 * (low + high)
        weights = _solve((1.0 - share) * correlation + share * identity)
        low, high = (low, share) if weights.min() >= 0.0 else (share, high)
    weights = _solve((1.0 - high) * correlation + high * identity)
    return np.maximum(weights, 0.0), high


def lin_sullivan(n_a: float, n_b: float, n_shared: float) -> float:
    """Return the correlation of two studies' tests of one mean that share people (Lin & Sullivan 2009)."""
    return n_shared / float(np.sqrt(n_a * n_b))
