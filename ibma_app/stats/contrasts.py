"""Tests of one voxel's coefficients: t and F from coefficients and their covariance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame, Pattern
from ibma_app.stats.compiled import compiled
from ibma_app.stats.weighted import INVERSE, VECTORS

Floats = NDArray[np.float64]


class Tested(NamedTuple):
    """The tests at B voxels; filled in place, all 0 where not estimable."""

    effect: Floats  # (C, B) 0 for F tests
    variance: Floats  # (C, B)
    statistic: Floats  # (C, B) t or F; of z tests: z, or chi-square over its rows
    estimable: NDArray[np.bool_]  # (C, B)


def new_tested(tests: int, voxels: int) -> Tested:
    """Allocate for C tests and B voxels."""
    floats = [np.zeros((tests, voxels)) for _ in range(3)]
    return Tested(*floats, np.zeros((tests, voxels), dtype=np.bool_))


@compiled
def _covariance(rows: Floats, a: int, b: int, small: Floats, rank: int) -> float:
    """Return the covariance of two rows' effects."""
    total = 0.0
    for i in range(rank):
        along = 0.0
        for j in range(rank):
            along += small[INVERSE, i, j] * rows[b, j]
        total += rows[a, i] * along
    return total


@compiled
def _effect(rows: Floats, a: int, small: Floats, rank: int) -> float:
    """Return one row's effect."""
    total = 0.0
    for i in range(rank):
        total += rows[a, i] * small[VECTORS, 0, i]
    return total


@compiled
def _f_of(rows: Floats, first: int, size: int, small: Floats, rank: int, work: Floats) -> float:
    """Return b' (D V D')^-1 b / Q for Q independent rows D; -1 where it does not exist."""
    statistic = 0.0
    for a in range(size):
        for b in range(a + 1):
            total = _covariance(rows, first + a, first + b, small, rank)
            for s in range(b):
                total -= work[a, s] * work[b, s]
            if a > b:
                work[a, b] = total / work[b, b]
            elif total > 0.0:
                work[a, a] = np.sqrt(total)
            else:
                return -1.0
        left = _effect(rows, first + a, small, rank)
        for b in range(a):
            left -= work[a, b] * work[b, size]
        work[a, size] = left / work[a, a]
        statistic += work[a, size] ** 2
    return statistic / size


@compiled
def test_voxel(
    frame: Frame, pattern: Pattern, small: Floats, rank: int, scale: float, out: Tested, voxel: int, work: Floats
) -> None:
    """Write the tests of one voxel.

    Parameters
    ----------
    small : ndarray
        Holds coefficients and covariance on the pattern's basis (see weighted.py).
    scale : float
        Multiplies the covariance. 0 (identical effects): the effect is kept,
        variance and statistic stay 0 and the test counts as not estimable.
    work : ndarray, shape (R, R + 1)
    """
    rows = pattern.rows
    for c in range(frame.upper.size):
        if not pattern.estimable[c]:
            continue
        first = frame.starts[c]
        size = frame.starts[c + 1] - first
        effect, variance, statistic = 0.0, 0.0, -1.0
        if size == 1 and not frame.upper[c]:
            effect = _effect(rows, first, small, rank)
            variance = scale * _covariance(rows, first, first, small, rank)
            sound = variance > 0.0
            statistic = effect / np.sqrt(variance) if sound else 0.0
        else:
            if scale > 0.0:
                statistic = _f_of(rows, first, size, small, rank, work) / scale
            sound = statistic >= 0.0
        if np.isfinite(effect) and np.isfinite(variance) and np.isfinite(statistic):
            out.effect[c, voxel] = effect
            if sound:
                out.variance[c, voxel] = variance
                out.statistic[c, voxel] = statistic
                out.estimable[c, voxel] = True
