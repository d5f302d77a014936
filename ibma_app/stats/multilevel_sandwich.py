"""Cluster-robust (CR2) tests of multilevel models: the fitted covariance is the working model, and need not be true.

Degrees of freedom are Satterthwaite's under that model, tests of several rows
Hotelling's T² (AHT), as in cr2.py; here they follow the data, and differ
between voxels (Pustejovsky & Tipton 2018).
"""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame
from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.cr2 import WEIGHED
from ibma_app.stats.multilevel_cr2 import Parts, Space, take_apart
from ibma_app.stats.multilevel_fit import OMEGA2, TAU2, Layers, MultilevelFit, Work, lay_clusters, new_work, pack
from ibma_app.stats.two_variances import ALONG, Voxel, likelihood
from ibma_app.stats.voxels import TILE, Group, fill_tile, group_voxels
from ibma_app.stats.weighted import IDENTICAL, VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_SINGULAR = 1e-10  # of a row's variance, what the other rows leave of it


@inner
def _covariance(parts: Parts, s: int, t: int, m: int, rank: int) -> float:
    """Return the expectation of two rows' robust covariance under the working model."""
    total = 0.0
    for c in range(m):
        total += parts.inner[c, s, t]
        for p in range(rank):
            total -= parts.fitted[c, s, p] * parts.fitted[c, t, p]
    return total


@inner
def _robust(parts: Parts, s: int, t: int, m: int) -> float:
    """Return two rows' robust covariance."""
    total = 0.0
    for c in range(m):
        total += parts.scores[c, s] * parts.scores[c, t]
    return total


@inner
def _substitute(factor: Floats, values: Floats, q: int) -> None:
    """Solve a lower triangular system in place."""
    for i in range(q):
        for j in range(i):
            values[i] -= factor[i, j] * values[j]
        values[i] /= factor[i, i]


@inner
def _whiten(parts: Parts, first: int, last: int, m: int, rank: int) -> bool:
    """Transform rows so that their expected covariance is I; return whether it is not singular."""
    factor, q = parts.factor, last - first
    for i in range(q):
        size = _covariance(parts, first + i, first + i, m, rank)
        for j in range(i + 1):
            total = _covariance(parts, first + i, first + j, m, rank)
            for s in range(j):
                total -= factor[i, s] * factor[j, s]
            if i > j:
                factor[i, j] = total / factor[j, j]
            elif total > _SINGULAR * size and size > 0.0:
                factor[i, i] = np.sqrt(total)
            else:
                return False
    _substitute(factor, parts.effects[first:last], q)
    for c in range(m):
        _substitute(factor, parts.scores[c, first:last], q)
        for p in range(rank):
            _substitute(factor, parts.fitted[c, first:last, p], q)
        for s in range(first, last):
            _substitute(factor, parts.inner[c, first:last, s], q)
        for s in range(first, last):
            _substitute(factor, parts.inner[c, s, first:last], q)
    return True


@inner
def _crossed(parts: Parts, s: int, t: int, m: int, p: int, r: int) -> float:
    """Sum products of two rows' weights on two coefficients over clusters."""
    total = 0.0
    for c in range(m):
        total += parts.fitted[c, t, p] * parts.fitted[c, s, r]
    return total


@inner
def _spread(parts: Parts, first: int, last: int, m: int, rank: int) -> float:
    """Return `cr2._squared_sums` of rows."""
    total = 0.0
    for c in range(m):
        diagonal, lengths = 0.0, 0.0
        for s in range(first, last):
            diagonal += parts.inner[c, s, s]
            for t in range(first, last):
                product = 0.0
                for p in range(rank):
                    product += parts.fitted[c, s, p] * parts.fitted[c, t, p]
                total += parts.inner[c, s, t] * (parts.inner[c, s, t] - 2.0 * product)
                if s == t:
                    lengths += product
        total += diagonal * (diagonal - 2.0 * lengths)
    for s in range(first, last):
        for t in range(first, last):
            for p in range(rank):
                for r in range(rank):
                    one = _crossed(parts, s, t, m, p, r)
                    total += one * (one + _crossed(parts, s, t, m, r, p))
    return total


@inner
def _hotelling(parts: Parts, first: int, last: int, m: int) -> float:
    """Return T² of rows; -1 where their robust covariance is singular."""
    factor, q, squared = parts.factor, last - first, 0.0
    for i in range(q):
        size = _robust(parts, first + i, first + i, m)
        for j in range(i + 1):
            total = _robust(parts, first + i, first + j, m)
            for s in range(j):
                total -= factor[i, s] * factor[j, s]
            if i > j:
                factor[i, j] = total / factor[j, j]
            elif total > IDENTICAL * size and size > 0.0:
                factor[i, i] = np.sqrt(total)
            else:
                return -1.0
    _substitute(factor, parts.effects[first:last], q)
    for i in range(first, last):
        squared += parts.effects[i] ** 2
    return squared


@inner
def _test(parts: Parts, frame: Frame, c: int, m: int, rank: int, at: int, fit: MultilevelFit) -> bool:
    """Write one test of one voxel; return whether it has a statistic."""
    first, last = frame.starts[c], frame.starts[c + 1]
    for r in range(first, last):
        if parts.taken[r] > WEIGHED**2 * parts.sizes[r]:
            return False
    if frame.upper[c] and not _whiten(parts, first, last, m, rank):
        return False
    q, expected = last - first, 0.0
    for r in range(first, last):
        expected += _covariance(parts, r, r, m, rank)
    spread = _spread(parts, first, last, m, rank)
    if not (spread > 0.0 and expected > 0.0):
        return False
    wishart = q * (q + 1) * (expected / q) ** 2 / spread
    dof = wishart - q + 1.0
    if not dof > 0.0:
        return False
    if frame.upper[c]:
        squared = _hotelling(parts, first, last, m)
        if not (squared >= 0.0 and np.isfinite(squared)):
            return False
        fit.tested.values[c, STATISTICS, at] = squared * dof / (wishart * q)
    else:
        effect, variance = parts.effects[first], _robust(parts, first, first, m)
        if not (variance > 0.0 and np.isfinite(variance) and np.isfinite(effect)):
            return False
        fit.tested.values[c, EFFECTS, at], fit.tested.values[c, VARIANCES, at] = effect, variance
        fit.tested.values[c, STATISTICS, at] = effect / np.sqrt(variance)
    fit.dof[c, at] = dof
    return True


@compiled
def _test_all(
    effect: Floats,
    variance: Floats,
    group: Group,
    layers: Layers,
    frame: Frame,
    work: Work,
    spaces: tuple[Space, Parts],
    fit: MultilevelFit,
) -> None:
    """Loop over voxels."""
    table, (space, parts) = group.patterns, spaces
    for start in range(0, group.voxels.size, TILE):
        fill_tile(effect, group.voxels, start, work.y)
        for b in range(fill_tile(variance, group.voxels, start, work.v)):
            at, slot = group.voxels[start + b], group.slots[start + b]
            k, rank, m = table.maps[slot], table.rank[slot], layers.clusters[slot]
            if rank == 0 or k <= rank:
                continue
            unit, total, _ = pack(work, layers, slot, b, k, rank)
            if not (np.isfinite(total) and unit > 0.0 and np.isfinite(unit)):
                continue
            voxel = Voxel(work.x, work.one, layers.starts[slot], work.forms, work.d, work.weighted, work.sums)
            tau2, omega2 = fit.summary[TAU2, at] / unit, fit.summary[OMEGA2, at] / unit
            likelihood(voxel, m, rank, tau2, omega2)
            take_apart(voxel, table.rows[slot], m, rank, tau2, space, parts)
            for r in range(parts.effects.size):
                parts.effects[r] = 0.0
                for a in range(rank):
                    one = work.small[VECTORS, 0, a] - voxel.forms[ALONG, 0, a]
                    parts.effects[r] += table.rows[slot, r, a] * one * np.sqrt(unit)
                for c in range(m):
                    parts.scores[c, r] *= np.sqrt(unit)
            for c in range(frame.upper.size):
                if table.estimable[slot, c]:
                    fit.tested.estimable[c, at] = _test(parts, frame, c, m, rank, at, fit)


def test_robustly(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, clusters: Ints, fit: MultilevelFit
) -> None:
    """Replace the tests of a fit by cluster-robust ones.

    Parameters
    ----------
    effect, variance, covered, frame, clusters
        As given to `fit_multilevel`.
    fit : MultilevelFit
        What that returned.
    """
    (p, k), n_rows = frame.columns.shape, frame.rows.shape[0]
    m = int(np.unique(clusters).size)
    space = Space(
        np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k)), np.zeros((p, k)), np.zeros(k), np.zeros(k),
        np.zeros((n_rows, k)),
    )  # fmt: skip
    parts = Parts(
        np.zeros(n_rows), np.zeros((m, n_rows)), np.zeros((m, n_rows, n_rows)), np.zeros((m, n_rows, p)),
        np.zeros(n_rows), np.zeros(n_rows), np.zeros((n_rows, n_rows)),
    )  # fmt: skip
    fit.tested.values[:], fit.dof[:], fit.tested.estimable[:] = 0.0, 0.0, False
    work = new_work(frame)
    for group in group_voxels(covered, frame):
        layers = lay_clusters(group, frame, clusters)
        _test_all(effect, variance, group, layers, frame, work, (space, parts), fit)
