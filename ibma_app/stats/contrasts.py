"""Tests of one voxel's coefficients: t and F from coefficients and their covariance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import folded, inner
from ibma_app.stats.weighted import INVERSE, VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


EFFECTS, VARIANCES, STATISTICS = range(3)


class Tested(NamedTuple):
    """C tests at B voxels; filled in place, all 0 where not estimable."""

    # (C, 3, B): effect, variance (both 0 for F tests), and statistic: t or F, or for z tests z or chi-square / rows
    values: Floats
    estimable: Bools  # (C, B)


def new_tested(tests: int, voxels: int) -> Tested:
    """Allocate for C tests and B voxels."""
    return Tested(np.zeros((tests, 3, voxels)), np.zeros((tests, voxels), dtype=np.bool_))


@inner
def _covariance(rows: Floats, slot: int, a: int, b: int, small: Floats, rank: int) -> float:
    """Return the covariance of two rows' effects."""
    total = 0.0
    for i in range(rank):
        along = 0.0
        for j in range(rank):
            along += small[INVERSE, i, j] * rows[slot, b, j]
        total += rows[slot, a, i] * along
    return total


@inner
def _effect(rows: Floats, slot: int, a: int, small: Floats, rank: int) -> float:
    """Return one row's effect."""
    total = 0.0
    for i in range(rank):
        total += rows[slot, a, i] * small[VECTORS, 0, i]
    return total


@inner
def _f_of(rows: Floats, slot: int, first: int, size: int, small: Floats, rank: int, work: Floats) -> float:
    """Return b' (D V D')^-1 b / Q for Q independent rows D; -1 where it does not exist."""
    statistic = 0.0
    for a in range(size):
        for b in range(a + 1):
            total = _covariance(rows, slot, first + a, first + b, small, rank)
            for s in range(b):
                total -= work[a, s] * work[b, s]
            if a > b:
                work[a, b] = total / work[b, b]
            elif total > 0.0:
                work[a, a] = np.sqrt(total)
            else:
                return -1.0
        left = _effect(rows, slot, first + a, small, rank)
        for b in range(a):
            left -= work[a, b] * work[b, size]
        work[a, size] = left / work[a, a]
        statistic += work[a, size] ** 2
    return statistic / size


class Hypotheses(NamedTuple):
    """C tests of R rows in all, on the bases of N patterns of coverage."""

    rows: Floats  # (N, R, P) of `Patterns`
    estimable: Bools  # (N, C) likewise
    starts: Ints  # (C + 1,) of `Frame`
    upper: Bools  # (C,) likewise
    work: Floats  # (R, R + 1)


@folded
def test_voxel(
    tests: Hypotheses, slot: int, small: Floats, rank: int, scale: float, tested: Tested, voxel: int
) -> None:
    """Write the tests of one voxel.

    Parameters
    ----------
    tests, slot
        The tests, and the pattern of the voxel.
    small : ndarray
        Holds coefficients and covariance on the pattern's basis (see weighted.py).
    scale : float
        Multiplies the covariance. 0 (identical effects): the effect is kept,
        variance and statistic stay 0 and the test counts as not estimable.
    tested : Tested
        Filled at the voxel.
    """
    rows, known, starts, upper, work = tests
    values, estimable = tested
    for c in range(upper.size):
        if not known[slot, c]:
            continue
        first = starts[c]
        size = starts[c + 1] - first
        effect, variance, statistic = 0.0, 0.0, -1.0
        if size == 1 and not upper[c]:
            effect = _effect(rows, slot, first, small, rank)
            variance = scale * _covariance(rows, slot, first, first, small, rank)
            sound = variance > 0.0
            statistic = effect / np.sqrt(variance) if sound else 0.0
        else:
            if scale > 0.0:
                statistic = _f_of(rows, slot, first, size, small, rank, work) / scale
            sound = statistic >= 0.0
        if np.isfinite(effect) and np.isfinite(variance) and np.isfinite(statistic):
            values[c, EFFECTS, voxel] = effect
            if sound:
                values[c, VARIANCES, voxel] = variance
                values[c, STATISTICS, voxel] = statistic
                estimable[c, voxel] = True
