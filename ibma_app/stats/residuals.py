"""Standardised residuals of weighted linear models at every voxel, each with the maps that cover it."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RANK_TOLERANCE = 1e-9  # remainder of a column, relative to its length, that is rounding error
NOTHING_LEFT = 1e-14  # residual over total sum of squares at which a fit is exact


@inner
def project_out(basis: Floats, rank: int, vector: Floats, k: int) -> None:
    """Subtract from a vector its projection on a basis; twice, to remove rounding error."""
    for _ in range(2):
        for a in range(rank):
            along = 0.0
            for i in range(k):
                along += basis[a, i] * vector[i]
            for i in range(k):
                vector[i] -= along * basis[a, i]


@inner
def _norm(vector: Floats, k: int) -> float:
    """Return the length of the first k values."""
    total = 0.0
    for i in range(k):
        total += vector[i] * vector[i]
    return np.sqrt(total)


@inner
def _orthonormalise(columns: Floats, roots: Floats, index: NDArray[np.int64], k: int, basis: Floats) -> int:
    """Make a basis of the weighted rows of the design; return its rank."""
    rank = 0
    for p in range(columns.shape[0]):
        vector = basis[rank]
        for i in range(k):
            vector[i] = roots[i] * columns[p, index[i]]
        before = _norm(vector, k)
        project_out(basis, rank, vector, k)
        left = _norm(vector, k)
        if left <= RANK_TOLERANCE * before or before == 0.0:
            continue
        for i in range(k):
            vector[i] /= left
        rank += 1
    return rank


@compiled
def _standardise(
    values: Floats, variance: Floats, covered: Bools, tau2: Floats, columns: Floats, out: Floats, sound: Bools
) -> None:
    """Loop over voxels."""
    n_maps = values.shape[0]
    basis = np.zeros((columns.shape[0] + 1, n_maps))
    roots = np.zeros(n_maps)
    vector = np.zeros(n_maps)
    index = np.zeros(n_maps, np.int64)
    for voxel in range(values.shape[1]):
        k = 0
        for i in range(n_maps):
            if covered[i, voxel]:
                index[k] = i
                roots[k] = 1.0 / np.sqrt(variance[i, voxel] + tau2[voxel])
                vector[k] = roots[k] * values[i, voxel]
                k += 1
        total = _norm(vector, k)
        rank = _orthonormalise(columns, roots, index, k, basis)
        project_out(basis, rank, vector, k)
        left = _norm(vector, k)
        sound[voxel] = k > rank and left * left > NOTHING_LEFT * total * total and np.isfinite(left)
        if sound[voxel]:
            for i in range(k):
                out[voxel, index[i]] = vector[i] / left


def standardised_residuals(
    values: Floats, variance: Floats | None, covered: Bools, matrix: Floats, tau2: Floats | None = None
) -> tuple[Floats, Bools]:
    """Fit a linear model with weights 1/(variance + tau2) and return its residuals on a common scale.

    Residuals are divided by the root of their map's variance, then by the root
    of their sum of squares: r / sqrt(RSS) for least squares.

    Parameters
    ----------
    values : ndarray, shape (K, B)
        Effects, or z.
    variance : ndarray, shape (K, B), optional
        Sampling variances; None: all alike.
    covered : ndarray of bool, shape (K, B)
    matrix : ndarray, shape (K, P)
        The design.
    tau2 : ndarray, shape (B,), optional
        Variance between maps.

    Returns
    -------
    residuals : ndarray, shape (B, K)
        0 where a map does not cover the voxel; their squares sum to 1.
    sound : ndarray of bool, shape (B,)
        False where the maps leave no residual, and all are 0.
    """
    n_maps, voxels = values.shape
    out = np.zeros((voxels, n_maps))
    sound = np.zeros(voxels, dtype=np.bool_)
    _standardise(
        np.ascontiguousarray(values, dtype=np.float64),
        np.ones((n_maps, voxels)) if variance is None else np.ascontiguousarray(variance, dtype=np.float64),
        np.ascontiguousarray(covered, dtype=np.bool_),
        np.zeros(voxels) if tau2 is None else np.ascontiguousarray(tau2, dtype=np.float64),
        np.ascontiguousarray(matrix.T, dtype=np.float64),
        out,
        sound,
    )
    return out, sound
