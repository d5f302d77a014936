"""An orthonormal basis of the rows of a design that a voxel's maps cover.

Fits are made in such a basis, not in the design's own columns: cross-products
then stay well-conditioned (uncentred years, polynomials), and rank and
estimability are found once per pattern of coverage, whatever the weights.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

RANK_TOLERANCE = 1e-9  # of columns that have norm 1 over all maps
LANES = 4  # maps are padded to a multiple: sums then run in four lanes
EFFECT, VARIANCE, WEIGHT, RESIDUAL, COLUMNS = range(5)  # rows of a voxel's array; see weighted.py
KIND = 7  # index in a voxel's small array at which ...
CONSTANT = 1.0  # ... this says that the basis is one constant column


class Frame(NamedTuple):
    """A design with its tests, ready for the kernels."""

    columns: Floats  # (P, K) orthonormal, spanning the design
    rows: Floats  # (R, P) all tests' rows, stacked, on these columns
    starts: Ints  # (C + 1,) first row of each test
    upper: Bools  # (C,) True for F tests
    constant: bool  # the design is an intercept alone
    through_origin: bool  # its columns do not span an intercept


class Patterns(NamedTuple):
    """The bases and tests of a frame in N patterns of coverage."""

    maps: Ints  # (N,) maps k that cover
    rank: Ints  # (N,) of their rows
    which: Ints  # (N, K) the covered maps, the first k
    columns: Floats  # (N, P, K4) basis of the covered rows, the first ``rank``; 0 beyond k
    rows: Floats  # (N, R, P) the tests on that basis
    estimable: Bools  # (N, C)


def _independent(rows: Floats) -> Floats:
    """Return rows that span the same hypothesis, without redundant ones."""
    if rows.shape[0] == 1:
        return rows
    _, size, directions = np.linalg.svd(rows)
    rank = int(np.count_nonzero(size > 1e-10 * size[0])) if size.size else 0
    return rows if rank == rows.shape[0] else directions[:rank]


def spans_constant(matrix: Floats) -> bool:
    """Return whether the columns of a design, (K, P), span an intercept."""
    basis, _ = np.linalg.qr(matrix)
    ones = np.ones(len(matrix))
    left = ones - basis @ (basis.T @ ones)
    return bool(left @ left <= 1e-12 * ones.size)


def frame_design(matrix: Floats, tests: list[tuple[Floats, bool]], *, through_origin: bool | None = None) -> Frame:
    """Prepare a design and its tests for the kernels.

    Parameters
    ----------
    matrix : ndarray, shape (K, P)
        Of full rank.
    tests : list of (weights (Q, P), is_f)
    through_origin : bool, optional
        As in the frame; None: what the matrix says.

    Raises
    ------
    ValueError
        When the design is not of full rank.
    """
    design = np.ascontiguousarray(matrix, dtype=np.float64)
    norms = np.sqrt((design**2).sum(axis=0))
    if design.shape[0] < design.shape[1] or not np.all(norms > 0):
        raise ValueError("The design matrix has an empty column or fewer rows than columns.")
    constant = bool(design.shape[1] == 1 and np.ptp(design) == 0)
    columns, triangle = np.linalg.qr(design / norms)
    if constant:
        columns, triangle = np.full(design.shape, design.shape[0] ** -0.5), np.sign(design[:1])
    if np.abs(np.diag(triangle)).min() < 1e-12:
        raise ValueError("The columns of the design matrix are linearly dependent.")
    back = np.linalg.inv(triangle * norms)  # coefficients of the design from those of the basis
    stacked, starts = [], [0]
    for weights, _ in tests:
        rows = _independent(np.atleast_2d(np.asarray(weights, dtype=np.float64)))
        stacked.append(rows @ back)
        starts.append(starts[-1] + rows.shape[0])
    return Frame(
        np.ascontiguousarray(columns.T),
        np.ascontiguousarray(np.vstack(stacked)) if stacked else np.zeros((0, design.shape[1])),
        np.asarray(starts, dtype=np.int64),
        np.asarray([is_f for _, is_f in tests], dtype=np.bool_),
        constant,
        not spans_constant(columns) if through_origin is None else through_origin,
    )


@inner
def _remove(columns: Floats, triangle: Floats, k: int, step: int, taken: int, other: int) -> None:
    """Subtract from column ``other`` its projection on the unit column ``taken``."""
    total = 0.0
    for i in range(k):
        total += columns[taken, i] * columns[other, i]
    triangle[step, other] += total
    for i in range(k):
        columns[other, i] -= total * columns[taken, i]


@inner
def _square_sum(columns: Floats, k: int, one: int) -> float:
    """Return the squared norm of a column."""
    total = 0.0
    for i in range(k):
        total += columns[one, i] ** 2
    return total


@inner
def _orthonormalise(columns: Floats, triangle: Floats, pivots: Ints, k: int) -> int:
    """Turn columns into a basis by pivoted Gram-Schmidt, twice is enough; return the rank.

    ``pivots[s]`` is the s-th column taken; ``triangle[s, j]`` the coefficient
    of column j on it.
    """
    p = pivots.size
    for j in range(p):
        pivots[j] = j
        for s in range(p):
            triangle[s, j] = 0.0
    for s in range(p):
        best, largest = s, -1.0
        for j in range(s, p):
            norm = _square_sum(columns, k, pivots[j])
            if norm > largest:
                best, largest = j, norm
        pivots[s], pivots[best] = pivots[best], pivots[s]
        taken = pivots[s]
        for earlier in range(s):  # a second pass for the column taken
            _remove(columns, triangle, k, earlier, pivots[earlier], taken)
        norm = np.sqrt(_square_sum(columns, k, taken))
        if norm <= RANK_TOLERANCE:
            return s
        triangle[s, taken] = norm
        for i in range(k):
            columns[taken, i] /= norm
        for later in range(s + 1, p):
            _remove(columns, triangle, k, s, taken, pivots[later])
    return p


@inner
def _row_on_basis(rows: Floats, row: int, triangle: Floats, pivots: Ints, rank: int, out: Floats, n: int) -> bool:
    """Write a test's row on the basis; return whether it is estimable there.

    It is when it is a combination of covered rows: d R = row for some d.
    """
    size = 0.0
    for j in range(pivots.size):
        size = max(size, abs(rows[row, j]))
        out[n, row, j] = 0.0
    for s in range(rank):
        left = rows[row, pivots[s]]
        for earlier in range(s):
            left -= out[n, row, earlier] * triangle[earlier, pivots[s]]
        out[n, row, s] = left / triangle[s, pivots[s]]
    for j in range(rank, pivots.size):
        left = rows[row, pivots[j]]
        for s in range(rank):
            left -= out[n, row, s] * triangle[s, pivots[j]]
        if abs(left) > 1e-6 * size:
            return False
    return True


@inner
def _take_rows(frame: Frame, covered: Bools, voxel: int, columns: Floats, index: Ints, n: int) -> int:
    """Copy the covered rows of the frame's columns; return how many."""
    k = 0
    for i in range(covered.shape[0]):
        if covered[i, voxel]:
            index[n, k] = i
            for j in range(columns.shape[0]):
                columns[j, k] = frame.columns[j, i]
            k += 1
    return k


@inner
def _keep_basis(columns: Floats, triangle: Floats, pivots: Ints, k: int, n_maps: int) -> int:
    """Make the basis of k rows of n_maps; return its rank."""
    if k < n_maps:
        return _orthonormalise(columns, triangle, pivots, k)
    for j in range(pivots.size):
        pivots[j] = j
        for s in range(pivots.size):
            triangle[s, j] = 1.0 if s == j else 0.0
    return pivots.size


@compiled
def _settle(
    frame: Frame, covered: Bools, voxels: Ints, out: Patterns, columns: Floats, triangle: Floats, pivots: Ints
) -> None:
    """Loop over patterns, each given by a voxel that has it; the last three are for work."""
    for n in range(voxels.size):
        k = _take_rows(frame, covered, voxels[n], columns, out.which, n)
        rank = _keep_basis(columns, triangle, pivots, k, covered.shape[0])
        for s in range(rank):
            for i in range(k):
                out.columns[n, s, i] = columns[pivots[s], i]
        for c in range(frame.upper.size):
            out.estimable[n, c] = rank > 0
            for row in range(frame.starts[c], frame.starts[c + 1]):
                if not _row_on_basis(frame.rows, row, triangle, pivots, rank, out.rows, n):
                    out.estimable[n, c] = False
        out.maps[n], out.rank[n] = k, rank


def _settle_constant(frame: Frame, covered: Bools) -> Patterns:
    """Make the bases of patterns (N, K) of an intercept alone: no kernel to wait for, where most designs are this."""
    n_patterns, n_maps = covered.shape
    maps = np.count_nonzero(covered, axis=1)
    some = np.maximum(maps, 1)[:, np.newaxis]
    taken = np.arange(n_maps) < maps[:, np.newaxis]  # in a pattern's own places
    columns = np.zeros((n_patterns, 1, (n_maps + LANES - 1) // LANES * LANES))
    columns[:, 0, :n_maps] = np.where(taken, 1.0 / np.sqrt(some.astype(np.float64)), 0.0)
    rows = frame.rows / np.sqrt(some / n_maps)[..., np.newaxis]
    rows[maps == 0] = 0.0
    return Patterns(
        maps,
        np.minimum(maps, 1),
        np.where(taken, np.argsort(~covered, axis=1, kind="stable"), 0),
        columns,
        rows,
        np.repeat(maps[:, np.newaxis] > 0, frame.upper.size, axis=1),
    )


def settle_patterns(frame: Frame, covered: Bools, voxels: Ints) -> Patterns:
    """Make a basis for each pattern of coverage, each given by a voxel that has it.

    Parameters
    ----------
    frame : Frame
    covered : ndarray of bool, shape (K, B)
    voxels : ndarray of int, shape (N,)
    """
    if frame.constant:
        return _settle_constant(frame, np.ascontiguousarray(covered[:, voxels].T))
    n, (p, k) = voxels.size, frame.columns.shape
    out = Patterns(
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros((n, k), dtype=np.int64),
        np.zeros((n, p, (k + LANES - 1) // LANES * LANES)),
        np.zeros((n, *frame.rows.shape)),
        np.zeros((n, frame.upper.size), dtype=np.bool_),
    )
    work = np.zeros((p, k)), np.zeros((p, p)), np.zeros(p, dtype=np.int64)
    _settle(frame, covered, voxels, out, *work)
    return out
