"""A design split by a test into effective and nuisance regressors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.residuals import project_out

Floats = NDArray[np.float64]

SAME = 1e-9  # relative to a column's norm: numbers closer than this are equal


class Partition(NamedTuple):
    """A design with the same span, whose first columns are what is tested."""

    effective: Floats  # (K, Q) its coefficients are the contrast's values
    nuisance: Floats  # (K, P - Q) orthonormal, orthogonal to effective


def partition_design(matrix: Floats, weights: Floats) -> Partition:
    """Split a design by a contrast, whatever columns it touches.

    With D = (X'X)^-1 and C the contrast, the effective regressors are
    X D C' (C D C')^-1: the coefficients on them are C b of the whole model.
    The nuisance regressors span the models in which C b = 0 (Beckmann,
    Jenkinson & Smith 2001; Smith, Jenkinson, Beckmann, Miller & Woolrich 2007;
    Winkler et al. 2014, appendix A).

    Parameters
    ----------
    matrix : ndarray, shape (K, P)
        Of full rank.
    weights : ndarray, shape (Q, P)
        Rows that follow from others are left out (the hypothesis is the same).
    """
    design = np.asarray(matrix, dtype=np.float64)
    rows = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    if rows.shape[0] > 1:
        _, sizes, directions = np.linalg.svd(rows)
        rank = int(np.count_nonzero(sizes > 1e-10 * sizes[0]))
        rows = rows if rank == rows.shape[0] else directions[:rank]
    basis, triangle = np.linalg.qr(design)
    # on the orthonormal basis: contrast C b = A g, with A = C R^-1
    along = np.linalg.solve(triangle.T, rows.T).T
    effective = basis @ np.linalg.solve(along @ along.T, along).T
    _, _, directions = np.linalg.svd(along)
    return Partition(effective, basis @ directions[rows.shape[0] :].T)


def constant_within(partition: Partition, blocks: NDArray[np.int64]) -> bool:
    """Return whether what is tested is constant within blocks, up to nuisance.

    It is when a vector that is constant within blocks lies in the design's
    span but not in that of the nuisance: permuting within blocks would leave
    it where it is, so that signs must be flipped instead.

    Parameters
    ----------
    partition : Partition
        Of K maps.
    blocks : ndarray of int, shape (K,)
        The block of each map.
    """
    indicators = unit_indicators(blocks)
    effective, _ = np.linalg.qr(partition.effective)
    span = np.column_stack([effective, partition.nuisance])  # orthonormal
    # constant vectors in the span: directions d of the indicators with |span' (I d)| = |d|
    _, sizes, directions = np.linalg.svd(span.T @ indicators)
    inside = indicators @ directions[: sizes.size][sizes > 1.0 - SAME].T
    if inside.shape[1] == 0:
        return False
    return bool(np.abs(effective.T @ inside).max() > 1e-6)


def unit_indicators(labels: NDArray[np.int64]) -> Floats:
    """Return an orthonormal column for each label that rows bear, (K, m)."""
    indicators = (labels[:, None] == np.unique(labels)[None]).astype(np.float64)
    unit: Floats = indicators / np.sqrt(indicators.sum(axis=0))
    return unit


def spans_labels(matrix: Floats, labels: NDArray[np.int64]) -> bool:
    """Return whether a design of full rank, (K, P), has a column for each label, or columns that amount to it."""
    unit, (basis, _) = unit_indicators(labels), np.linalg.qr(matrix)
    return bool(np.abs(unit - basis @ (basis.T @ unit)).max() <= 1e-8)


def same_rows(matrix: Floats) -> NDArray[np.int64]:
    """Number the distinct rows of a matrix (K, P): equal rows get one number, (K,)."""
    if matrix.shape[1] == 0:
        return np.zeros(matrix.shape[0], dtype=np.int64)
    norms = np.sqrt((matrix**2).sum(axis=0))
    scaled = matrix / np.where(norms > 0, norms, 1.0)
    labels = np.zeros(matrix.shape[0], dtype=np.int64)
    for column in scaled.T:  # by gaps: rounding might separate two equal numbers
        order = np.argsort(column, kind="stable")
        ranks = np.empty(column.size, dtype=np.int64)
        ranks[order] = np.cumsum(np.diff(column[order], prepend=column[order[0]]) > SAME)
        labels = np.unique(labels * (column.size + 1) + ranks, return_inverse=True)[1]
    return labels.astype(np.int64)


@inner
def _covered_basis(columns: Floats, index: NDArray[np.int64], k: int, basis: Floats) -> int:
    """Make an orthonormal basis of the covered rows of orthonormal columns (P, K); return its rank."""
    rank = 0
    for p in range(columns.shape[0]):
        for i in range(k):
            basis[rank, i] = columns[p, index[i]]
        project_out(basis, rank, basis[rank], k)
        total = 0.0
        for i in range(k):
            total += basis[rank, i] ** 2
        if total > SAME * SAME:
            basis[rank, :k] /= np.sqrt(total)
            rank += 1
    return rank


@compiled
def _residualise(values: Floats, covered: NDArray[np.bool_], columns: Floats) -> None:
    """Loop over voxels; a new basis is made where coverage changes."""
    n_maps, n_voxels = values.shape
    basis = np.zeros((columns.shape[0] + 1, n_maps))
    index = np.zeros(n_maps, np.int64)
    vector = np.zeros(n_maps)
    k, rank = 0, 0
    for voxel in range(n_voxels):
        fresh = voxel == 0
        for i in range(n_maps):
            fresh = fresh or covered[i, voxel] != covered[i, voxel - 1]
        if fresh:
            k = 0
            for i in range(n_maps):
                if covered[i, voxel]:
                    index[k] = i
                    k += 1
            rank = _covered_basis(columns, index, k, basis)
        for i in range(k):
            vector[i] = values[index[i], voxel]
        project_out(basis, rank, vector, k)
        for i in range(k):
            values[index[i], voxel] = vector[i]


def residuals(values: Floats, covered: NDArray[np.bool_], nuisance: Floats) -> Floats:
    """Return the residuals of each voxel's covered maps after least squares on the nuisance.

    Parameters
    ----------
    values : ndarray, shape (K, B)
    covered : ndarray of bool, shape (K, B)
    nuisance : ndarray, shape (K, P)
        Orthonormal.

    Returns
    -------
    ndarray, shape (K, B)
        Where a map does not cover, its value as it was.
    """
    left = np.array(values, dtype=np.float64, order="C")
    if nuisance.shape[1]:
        _residualise(left, np.ascontiguousarray(covered, dtype=np.bool_), np.ascontiguousarray(nuisance.T))
    return left
