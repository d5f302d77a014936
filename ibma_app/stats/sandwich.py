"""Ordinary least squares with a cluster-robust (CR2) error at every voxel, each with the maps that cover it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame
from ibma_app.stats.compiled import compiled, folded
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES, Tested, new_tested
from ibma_app.stats.cr2 import Adjusted, adjust_patterns
from ibma_app.stats.ols import residual_sum
from ibma_app.stats.voxels import TILE, Group, Workspace, fill_tile, group_voxels, new_workspace
from ibma_app.stats.weighted import IDENTICAL, VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class SandwichFit(NamedTuple):
    """A fit of B voxels."""

    tested: Tested
    dof: Floats  # (C, B) of each test: of t, or the denominator's of F; 0 where not estimable
    counts: NDArray[np.int16]  # (2, B) maps n, and rank of their rows
    identical: Bools  # (B,)


class _Weights(NamedTuple):
    """What N patterns make of the tests' errors; maps as in `Patterns`, the covered ones first."""

    rows: Floats  # (N, R, P) the tests on the bases; see `Adjusted`
    weights: Floats  # (N, R, K) of the residuals
    sizes: Floats  # (N, R) sums of their squares
    clusters: Ints  # (N, K)
    dof: Floats  # (N, C)
    factor: Floats  # (N, C)
    estimable: Bools  # (N, C)


class _Place(NamedTuple):
    """One voxel."""

    voxel: int
    slot: int  # its pattern
    rank: int
    least: float  # of weighted residuals' sums of squares, over those of their weights: below is rounding


class _Sums(NamedTuple):
    """Space for one voxel."""

    clusters: Floats  # (R, m) weighted sums of residuals
    factor: Floats  # (R, R + 1)


def _weigh(group: Group, frame: Frame, clusters: Ints) -> _Weights:
    """Lay out the adjustments of a group's patterns."""
    table = group.patterns
    adjusted = adjust_patterns(frame, table, clusters)
    weights = np.stack([one.weights for one in adjusted])
    weights = np.ascontiguousarray(np.take_along_axis(weights, table.which[:, None], axis=2))
    return _Weights(
        np.stack([one.rows for one in adjusted]),
        weights,
        np.stack([(one.weights**2).sum(axis=1) for one in adjusted]),
        clusters[table.which],
        np.stack([one.dof for one in adjusted]),
        np.stack([one.factor for one in adjusted]),
        np.stack([one.estimable for one in adjusted]) & table.estimable,
    )


@folded
def _effect(rows: Floats, slot: int, a: int, small: Floats, rank: int) -> float:
    """Return one row's effect."""
    total = 0.0
    for i in range(rank):
        total += rows[slot, a, i] * small[VECTORS, 0, i]
    return total


@folded
def _sum_clusters(error: _Weights, slot: int, row: int, y: Floats, b: int, k: int, out: Floats) -> None:
    """Sum a row's weighted residuals over each cluster."""
    for j in range(out.shape[1]):
        out[row, j] = 0.0
    for i in range(k):
        out[row, error.clusters[slot, i]] += error.weights[slot, row, i] * y[b, i]


@folded
def _product(sums: Floats, a: int, b: int) -> float:
    """Return the robust covariance of two rows."""
    total = 0.0
    for j in range(sums.shape[1]):
        total += sums[a, j] * sums[b, j]
    return total


@folded
def _t_squared(error: _Weights, at: _Place, first: int, size: int, sums: _Sums, small: Floats) -> float:
    """Return Hotelling's T² of rows whose cluster sums are there; -1 where their covariance is not positive."""
    work = sums.factor
    squared = 0.0
    for a in range(size):
        for b in range(a + 1):
            product = _product(sums.clusters, first + a, first + b)
            for s in range(b):
                product -= work[a, s] * work[b, s]
            if a > b:
                work[a, b] = product / work[b, b]
            elif product > at.least * error.sizes[at.slot, first + a]:
                work[a, a] = np.sqrt(product)
            else:
                return -1.0
        left = _effect(error.rows, at.slot, first + a, small, at.rank)
        for b in range(a):
            left -= work[a, b] * work[b, size]
        work[a, size] = left / work[a, a]
        squared += work[a, size] ** 2
    return squared


@folded
def _test(error: _Weights, frame: Frame, at: _Place, c: int, sums: _Sums, small: Floats, values: Floats) -> bool:
    """Write one test of one voxel whose cluster sums are there; return whether it has a statistic."""
    first = frame.starts[c]
    effect, variance, statistic = 0.0, 0.0, 0.0
    if frame.upper[c]:
        squared = _t_squared(error, at, first, frame.starts[c + 1] - first, sums, small)
        sound = squared >= 0.0
        statistic = error.factor[at.slot, c] * squared if sound else 0.0
    else:
        effect = _effect(error.rows, at.slot, first, small, at.rank)
        variance = _product(sums.clusters, first, first)
        sound = variance > at.least * error.sizes[at.slot, first]
        variance = variance if sound else 0.0
        statistic = effect / np.sqrt(variance) if sound else 0.0
    if not (np.isfinite(effect) and np.isfinite(variance) and np.isfinite(statistic)):
        return False
    values[c, EFFECTS, at.voxel] = effect
    values[c, VARIANCES, at.voxel] = variance
    values[c, STATISTICS, at.voxel] = statistic
    return sound


@compiled
def _fit(
    data: Floats, group: Group, error: _Weights, frame: Frame, workspace: Workspace, sums: _Sums, fit: SandwichFit
) -> None:
    """Loop over voxels."""
    small, y, table = workspace.small, workspace.y, group.patterns
    for start in range(0, group.voxels.size, TILE):
        for b in range(fill_tile(data, group.voxels, start, y)):
            voxel, slot = group.voxels[start + b], group.slots[start + b]
            k, rank = table.maps[slot], table.rank[slot]
            fit.counts[0, voxel], fit.counts[1, voxel] = k, rank
            if k <= rank or rank == 0:
                continue
            for i in range(k):
                y[b, i] = y[b, table.which[slot, i]]  # which[i] >= i
            rss, total = residual_sum(y, b, table.columns, slot, k, rank, small)
            if rss <= IDENTICAL * total:
                fit.identical[voxel] = True
                y[b, :k] = 0.0
            at = _Place(voxel, slot, rank, IDENTICAL * total)
            for c in range(frame.upper.size):
                if not error.estimable[slot, c]:
                    continue
                for row in range(frame.starts[c], frame.starts[c + 1]):
                    _sum_clusters(error, slot, row, y, b, k, sums.clusters)
                if _test(error, frame, at, c, sums, small, fit.tested.values):
                    fit.tested.estimable[c, voxel] = True
                    fit.dof[c, voxel] = error.dof[slot, c]


def fit_sandwich(values: Floats, covered: Bools, frame: Frame, clusters: Ints) -> SandwichFit:
    """Fit a linear model at each voxel, its errors alike within no more than each cluster.

    Coefficients are those of least squares. Their covariance is CR2 with an
    identity working model, and every test has Satterthwaite degrees of freedom
    of its own (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018). With each
    map its own cluster that is HC2: the t of two groups is Welch's.

    Parameters
    ----------
    values : ndarray, shape (K, B), C order
    covered : ndarray of bool, shape (K, B)
        Values elsewhere are not used, whatever they are.
    frame : Frame
        From `frame_design`.
    clusters : ndarray of int, shape (K,)
        The cluster of each map, from 0 on.

    Returns
    -------
    SandwichFit
        t, and F from T². A test is not estimable when it gives weight to what
        the design fits exactly in a cluster, when its dof are not positive, or
        when there are no residuals.
    """
    voxels, tests = values.shape[1], frame.upper.size
    fit = SandwichFit(
        new_tested(tests, voxels),
        np.zeros((tests, voxels)),
        np.zeros((2, voxels), dtype=np.int16),
        np.zeros(voxels, dtype=np.bool_),
    )
    workspace = new_workspace(frame)
    rows = frame.rows.shape[0]
    sums = _Sums(np.zeros((rows, int(clusters.max(initial=-1)) + 1)), np.zeros((rows, rows + 1)))
    for group in group_voxels(covered, frame):
        _fit(values, group, _weigh(group, frame, clusters), frame, workspace, sums, fit)
    return fit


def complete_tests(frame: Frame, clusters: Ints) -> tuple[Adjusted, Floats]:
    """Return the tests where all K maps cover, and the basis of the design that they are given on, (K, P).

    Parameters
    ----------
    frame : Frame
    clusters : ndarray of int, shape (K,)
    """
    (group,) = group_voxels(np.ones((clusters.size, 1), dtype=np.bool_), frame)
    basis: Floats = group.patterns.columns[0, :, : clusters.size].T
    return adjust_patterns(frame, group.patterns, clusters)[0], basis
