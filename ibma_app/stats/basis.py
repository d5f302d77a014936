"""An orthonormal basis of the rows of a design that a voxel's maps cover.

Fits are made in such a basis, not in the design's own columns: cross-products
then stay well-conditioned (uncentred years, polynomials), and rank and
estimability are settled once per pattern of coverage, whatever the weights.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled

Floats = NDArray[np.float64]

RANK_TOLERANCE = 1e-9  # of columns that have norm 1 over all maps
LANES = 4  # maps are padded to a multiple: sums then run in four lanes
EFFECT, VARIANCE, WEIGHT, RESIDUAL, COLUMNS = range(5)  # rows of a voxel's array; see weighted.py


class Frame(NamedTuple):
    """A design with its tests, ready for the kernels."""

    columns: Floats  # (P, K) orthonormal, spanning the design
    rows: Floats  # (R, P) all tests' rows, stacked, on these columns
    starts: NDArray[np.int64]  # (C + 1,) first row of each test
    upper: NDArray[np.bool_]  # (C,) True for F tests


class Pattern(NamedTuple):
    """What one pattern of coverage makes of a frame; filled in place."""

    covered: NDArray[np.bool_]  # (K,) the pattern
    index: NDArray[np.int64]  # (K,) covered maps, the first k
    columns: Floats  # (P, K) basis of the covered rows, the first r; 0 beyond k
    rows: Floats  # (R, P) the tests on the basis
    estimable: NDArray[np.bool_]  # (C,)
    triangle: Floats  # (P, P) work
    pivots: NDArray[np.int64]  # (P,) work


def _independent(rows: Floats) -> Floats:
    """Return rows that span the same hypothesis, without redundant ones."""
    if rows.shape[0] == 1:
        return rows
    _, size, directions = np.linalg.svd(rows)
    rank = int(np.count_nonzero(size > 1e-10 * size[0])) if size.size else 0
    return rows if rank == rows.shape[0] else directions[:rank]


def frame_design(matrix: Floats, tests: list[tuple[Floats, bool]]) -> Frame:
    """Lay a design and its tests out for the kernels.

    Parameters
    ----------
    matrix : ndarray, shape (K, P)
        Of full rank.
    tests : list of (weights (Q, P), is_f)

    Raises
    ------
    ValueError
        When the design is not of full rank.
    """
    design = np.ascontiguousarray(matrix, dtype=np.float64)
    norms = np.sqrt((design**2).sum(axis=0))
    if design.shape[0] < design.shape[1] or not np.all(norms > 0):
        raise ValueError("The design matrix has an empty column or fewer rows than columns.")
    columns, triangle = np.linalg.qr(design / norms)
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
    )


@compiled
def new_pattern(frame: Frame) -> Pattern:
    """Allocate a pattern for a frame."""
    p, k = frame.columns.shape
    return Pattern(
        np.zeros(k, np.bool_),
        np.zeros(k, np.int64),
        np.zeros((p, k)),
        np.zeros(frame.rows.shape),
        np.zeros(frame.upper.size, np.bool_),
        np.zeros((p, p)),
        np.zeros(p, np.int64),
    )


@compiled
def _take_rows(frame: Frame, pattern: Pattern) -> int:
    """Copy the covered rows of the frame's columns; return how many."""
    k = 0
    for i in range(pattern.covered.size):
        if pattern.covered[i]:
            pattern.index[k] = i
            k += 1
    for j in range(frame.columns.shape[0]):
        for i in range(k):
            pattern.columns[j, i] = frame.columns[j, pattern.index[i]]
        for i in range(k, pattern.columns.shape[1]):
            pattern.columns[j, i] = 0.0
    return k


@compiled
def _largest_column(columns: Floats, k: int, first: int, used: NDArray[np.int64]) -> tuple[int, float]:
    """Return the position, from ``first`` on, of the column with the largest norm."""
    best = first
    largest = -1.0
    for s in range(first, used.size):
        total = 0.0
        for i in range(k):
            total += columns[used[s], i] ** 2
        if total > largest:
            largest = total
            best = s
    return best, np.sqrt(largest)


@compiled
def _orthonormalise(pattern: Pattern, k: int) -> int:
    """Turn the columns into a basis by pivoted Gram-Schmidt, twice is enough; return the rank.

    ``pivots[s]`` is the s-th column taken; ``triangle[s, j]`` what column j
    has of it.
    """
    columns, triangle, pivots = pattern.columns, pattern.triangle, pattern.pivots
    p = pivots.size
    for j in range(p):
        pivots[j] = j
        for s in range(p):
            triangle[s, j] = 0.0
    rank = 0
    for s in range(p):
        best, _ = _largest_column(columns, k, s, pivots)
        pivots[s], pivots[best] = pivots[best], pivots[s]
        taken = pivots[s]
        for earlier in range(s):  # the second pass for the column taken
            _remove(columns, triangle, k, earlier, pivots[earlier], taken)
        total = 0.0
        for i in range(k):
            total += columns[taken, i] ** 2
        norm = np.sqrt(total)
        if norm <= RANK_TOLERANCE:
            break
        triangle[s, taken] = norm
        for i in range(k):
            columns[taken, i] /= norm
        for later in range(s + 1, p):
            _remove(columns, triangle, k, s, taken, pivots[later])
        rank += 1
    return rank


@compiled
def _remove(columns: Floats, triangle: Floats, k: int, step: int, taken: int, other: int) -> None:
    """Take out of column ``other`` its part along the unit column ``taken``."""
    total = 0.0
    for i in range(k):
        total += columns[taken, i] * columns[other, i]
    triangle[step, other] += total
    for i in range(k):
        columns[other, i] -= total * columns[taken, i]


@compiled
def _row_on_basis(rows: Floats, row: int, pattern: Pattern, rank: int) -> bool:
    """Write a test's row on the basis; return whether it is estimable there.

    It is when it is a combination of covered rows: d R = row for some d.
    """
    triangle, pivots, out = pattern.triangle, pattern.pivots, pattern.rows
    size = 0.0
    for j in range(pivots.size):
        size = max(size, abs(rows[row, j]))
        out[row, j] = 0.0
    for s in range(rank):
        left = rows[row, pivots[s]]
        for earlier in range(s):
            left -= out[row, earlier] * triangle[earlier, pivots[s]]
        out[row, s] = left / triangle[s, pivots[s]]
    for j in range(rank, pivots.size):
        left = rows[row, pivots[j]]
        for s in range(rank):
            left -= out[row, s] * triangle[s, pivots[j]]
        if abs(left) > 1e-6 * size:
            return False
    return True


@compiled
def _order_basis(pattern: Pattern, k: int, rank: int) -> None:
    """Bring the basis into rows 0 to rank - 1, in the order taken."""
    columns, pivots = pattern.columns, pattern.pivots
    kept = np.empty((rank, k))
    for s in range(rank):
        for i in range(k):
            kept[s, i] = columns[pivots[s], i]
    for s in range(rank):
        for i in range(k):
            columns[s, i] = kept[s, i]


@compiled
def settle_pattern(frame: Frame, pattern: Pattern) -> tuple[int, int]:
    """Fill a pattern whose ``covered`` is set; return the maps k and the rank r."""
    k = _take_rows(frame, pattern)
    tests = pattern.estimable.size
    if k == pattern.covered.size:
        rank = frame.columns.shape[0]
        for row in range(frame.rows.shape[0]):
            for j in range(rank):
                pattern.rows[row, j] = frame.rows[row, j]
        for c in range(tests):
            pattern.estimable[c] = True
    else:
        rank = _orthonormalise(pattern, k)
        for c in range(tests):
            pattern.estimable[c] = True
            for row in range(frame.starts[c], frame.starts[c + 1]):
                if not _row_on_basis(frame.rows, row, pattern, rank):
                    pattern.estimable[c] = False
        _order_basis(pattern, k, rank)
    return k, rank


@compiled
def same_pattern(covered: NDArray[np.bool_], voxel: int, pattern: Pattern) -> bool:
    """Whether the pattern settled last is that of row ``voxel`` of covered (voxels, K)."""
    for i in range(covered.shape[1]):
        if covered[voxel, i] != pattern.covered[i]:
            return False
    return True
