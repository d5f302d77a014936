"""Cluster-robust (CR2) tests of multilevel models: the fitted covariance is the working model, and need not be true.

The residuals of cluster i are multiplied with A_i = L (L'(V_i - X_i M X_i')L)^(-1/2) L',
where V_i = L L' is the working covariance of its maps and M that of the
coefficients: the estimate is then unbiased where the working model holds (Bell &
McCaffrey 2002; Pustejovsky & Tipton 2018, as in clubSandwich). Degrees of
freedom are Satterthwaite's under that model, tests of several rows Hotelling's
T² (AHT), as in cr2.py; here they follow the data, and differ between voxels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame
from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.cr2 import TAKEN_UP, WEIGHED
from ibma_app.stats.multilevel import OMEGA2, TAU2, Layers, MultilevelFit, Work, lay_clusters, new_work, pack
from ibma_app.stats.two_variances import ACROSS, ALONG, INVERSE, Voxel, likelihood
from ibma_app.stats.voxels import TILE, Group, fill_tile, group_voxels
from ibma_app.stats.weighted import IDENTICAL, VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_SWEEPS = 40
_AT_ONCE = 2_000_000  # numbers of the parts of a batch of voxels


class _Parts(NamedTuple):
    """What the tests of a batch of T voxels are made of: R rows, m clusters at most."""

    effects: Floats  # (T, R)
    scores: Floats  # (T, m, R) sums of the adjusted residuals
    inner: Floats  # (T, m, R, R) products of their weights under the working model
    fitted: Floats  # (T, m, R, P) their weights on the coefficients
    sizes: Floats  # (T, R) the rows' working variances
    taken: Floats  # (T, R) the part of these that the design fits exactly


class _Space(NamedTuple):
    """Space for one cluster of n maps."""

    factor: Floats  # (n, n) L
    matrix: Floats  # (n, n)
    vectors: Floats  # (n, n)
    columns: Floats  # (P, n)
    score: Floats  # (n,)
    work: Floats  # (n,)
    weights: Floats  # (R, n)


@inner
def _rotate(matrix: Floats, vectors: Floats, n: int, p: int, q: int) -> None:
    """Make one element off the diagonal 0 (Jacobi)."""
    theta = (matrix[q, q] - matrix[p, p]) / (2.0 * matrix[p, q])
    t = (1.0 if theta >= 0.0 else -1.0) / (abs(theta) + np.sqrt(theta * theta + 1.0))
    c = 1.0 / np.sqrt(t * t + 1.0)
    s = t * c
    for i in range(n):
        one, other = matrix[i, p], matrix[i, q]
        matrix[i, p], matrix[i, q] = c * one - s * other, s * one + c * other
    for i in range(n):
        one, other = matrix[p, i], matrix[q, i]
        matrix[p, i], matrix[q, i] = c * one - s * other, s * one + c * other
        one, other = vectors[i, p], vectors[i, q]
        vectors[i, p], vectors[i, q] = c * one - s * other, s * one + c * other


@inner
def _diagonalise(matrix: Floats, vectors: Floats, n: int) -> None:
    """Turn a symmetric matrix into its eigenvalues, on the diagonal, and eigenvectors, in columns."""
    for i in range(n):
        for j in range(n):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(_SWEEPS):
        left = 0.0
        for p in range(n):
            for q in range(p + 1, n):
                if abs(matrix[p, q]) > 1e-16 * np.sqrt(abs(matrix[p, p] * matrix[q, q])):
                    left += 1.0
                    _rotate(matrix, vectors, n, p, q)
        if left == 0.0:
            return


@inner
def _factor_cluster(d: Floats, first: int, n: int, tau2: float, factor: Floats) -> None:
    """Write L of a cluster's working covariance diag(1/d) + tau2."""
    for i in range(n):
        for j in range(i + 1):
            total = tau2 + (1.0 / d[first + i] if i == j else 0.0)
            for s in range(j):
                total -= factor[i, s] * factor[j, s]
            factor[i, j] = np.sqrt(total) if i == j else total / factor[j, j]


@inner
def _turn_back(factor: Floats, values: Floats, n: int, out: Floats) -> None:
    """Write L' times a vector; it may be the same array."""
    for i in range(n):
        total = 0.0
        for j in range(i, n):
            total += factor[j, i] * values[j]
        out[i] = total


@inner
def _square(factor: Floats, n: int, out: Floats) -> None:
    """Write L'L."""
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for s in range(i, n):
                total += factor[s, i] * factor[s, j]
            out[i, j], out[j, i] = total, total


@inner
def _adjust(x: Floats, forms: Floats, first: int, n: int, rank: int, space: _Space) -> None:
    """Diagonalise L'(V_i - X_i M X_i')L."""
    matrix, columns = space.matrix, space.columns
    for a in range(rank):
        _turn_back(space.factor, x[a, first : first + n], n, columns[a])
    _square(space.factor, n, space.vectors)
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for s in range(n):
                total += space.vectors[i, s] * space.vectors[s, j]
            for a in range(rank):
                for b in range(rank):
                    total -= columns[a, i] * forms[INVERSE, a, b] * columns[b, j]
            matrix[i, j], matrix[j, i] = total, total
    _diagonalise(matrix, space.vectors, n)


@inner
def _weigh(first: int, n: int, x: Floats, along: Floats, space: _Space, largest: float, out: Floats) -> float:
    """Write the weights of a row's residuals, L G^(-1/2) L^-1 X_i M c; return the part that is fitted exactly."""
    factor, matrix, vectors, score, work = space.factor, space.matrix, space.vectors, space.score, space.work
    for i in range(n):
        total = 0.0
        for a in range(along.size):
            total += x[a, first + i] * along[a]
        for j in range(i):
            total -= factor[i, j] * score[j]
        score[i] = total / factor[i, i]
        work[i] = 0.0
    taken = 0.0
    for e in range(n):
        part = 0.0
        for i in range(n):
            part += vectors[i, e] * score[i]
        if matrix[e, e] <= TAKEN_UP * largest:
            taken += part * part
            continue
        part /= np.sqrt(matrix[e, e])
        for i in range(n):
            work[i] += part * vectors[i, e]
    for i in range(n):
        total = 0.0
        for j in range(i + 1):
            total += factor[i, j] * work[j]
        out[i] = total
    return taken


@inner
def _score(voxel: Voxel, first: int, n: int, rank: int, weights: Floats) -> float:
    """Return the weighted sum of a cluster's residuals."""
    total = 0.0
    for i in range(n):
        residual = 0.0
        for a in range(rank + 1):
            residual += voxel.x[a, first + i] * voxel.forms[ALONG, 0, a]
        total += weights[i] * residual
    return total


@inner
def _project(voxel: Voxel, first: int, n: int, rank: int, weights: Floats, out: Floats) -> None:
    """Write weights on the coefficients, in units of these' covariance."""
    for s in range(rank):
        total = 0.0
        for a in range(s + 1):
            along = 0.0
            for i in range(n):
                along += voxel.x[a, first + i] * weights[i]
            total += along * voxel.forms[ACROSS, a, s]
        out[s] = total


@inner
def _add_cluster(voxel: Voxel, first: int, n: int, rank: int, space: _Space, t: int, c: int, parts: _Parts) -> None:
    """Write a cluster's scores and products from its weights."""
    weights = space.weights
    n_rows = weights.shape[0]
    for r in range(n_rows):
        parts.scores[t, c, r] = _score(voxel, first, n, rank, weights[r])
        _project(voxel, first, n, rank, weights[r], parts.fitted[t, c, r])
        _turn_back(space.factor, weights[r], n, weights[r])
    for r in range(n_rows):
        for s in range(n_rows):
            total = 0.0
            for i in range(n):
                total += weights[r, i] * weights[s, i]
            parts.inner[t, c, r, s] = total


@inner
def _take_apart(
    voxel: Voxel, rows: Floats, m: int, rank: int, tau2: float, space: _Space, t: int, parts: _Parts
) -> None:
    """Fill the parts of one voxel whose likelihood was evaluated at its variances."""
    forms, n_rows = voxel.forms, rows.shape[0]
    along = np.zeros((n_rows, rank))
    for r in range(n_rows):
        for a in range(rank):
            for b in range(rank):
                along[r, a] += forms[INVERSE, a, b] * rows[r, b]
            parts.sizes[t, r] += rows[r, a] * along[r, a]
    for c in range(m):
        first = voxel.starts[c]
        n = voxel.starts[c + 1] - first
        _factor_cluster(voxel.d, first, n, tau2, space.factor)
        largest = 0.0
        for i in range(n):
            total = 0.0
            for j in range(i, n):
                total += space.factor[j, i] ** 2
            largest = max(largest, total * total)
        _adjust(voxel.x, forms, first, n, rank, space)
        for r in range(n_rows):
            parts.taken[t, r] += _weigh(first, n, voxel.x, along[r], space, largest, space.weights[r])
        _add_cluster(voxel, first, n, rank, space, t, c, parts)


@compiled
def _take_all(
    effect: Floats,
    variance: Floats,
    group: Group,
    layers: Layers,
    work: Work,
    summary: Floats,
    space: _Space,
    parts: _Parts,
) -> None:
    """Loop over the voxels of a batch."""
    table = group.patterns
    for start in range(0, group.voxels.size, TILE):
        fill_tile(effect, group.voxels, start, work.y)
        for b in range(fill_tile(variance, group.voxels, start, work.v)):
            at, slot, t = group.voxels[start + b], group.slots[start + b], start + b
            k, rank, m = table.maps[slot], table.rank[slot], layers.clusters[slot]
            if rank == 0 or k <= rank:
                continue
            unit, total, _ = pack(work, layers, slot, b, k, rank)
            if not (np.isfinite(total) and unit > 0.0 and np.isfinite(unit)):
                continue
            voxel = Voxel(work.x, work.one, layers.starts[slot], work.forms, work.d, work.weighted, work.sums)
            tau2, omega2 = summary[TAU2, at] / unit, summary[OMEGA2, at] / unit
            likelihood(voxel, m, rank, tau2, omega2)
            _take_apart(voxel, table.rows[slot], m, rank, tau2, space, t, parts)
            for r in range(table.rows.shape[1]):
                for a in range(rank):
                    b_a = work.small[VECTORS, 0, a] - voxel.forms[ALONG, 0, a]
                    parts.effects[t, r] += table.rows[slot, r, a] * b_a
                parts.effects[t, r] *= np.sqrt(unit)
                for c in range(m):
                    parts.scores[t, c, r] *= np.sqrt(unit)


def _spread(inner_products: Floats, fitted: Floats) -> Floats:
    """Return `cr2._squared_sums` of each of T voxels."""
    own = np.einsum("vcst,vcsp,vctp->v", inner_products, fitted, fitted)
    diagonal = inner_products.diagonal(axis1=2, axis2=3)
    lengths = (fitted**2).sum(axis=3)
    crossed = np.einsum("vctp,vcsq->vstpq", fitted, fitted)
    total = (inner_products**2).sum(axis=(1, 2, 3)) - 2.0 * own + np.einsum("vstpq,vstqp->v", crossed, crossed)
    total += (diagonal.sum(axis=2) ** 2).sum(axis=1) - 2.0 * (diagonal.sum(axis=2) * lengths.sum(axis=2)).sum(axis=1)
    spread: Floats = total + (crossed**2).sum(axis=(1, 2, 3, 4))
    return spread


def _turn(parts: _Parts, own: slice, usable: Bools) -> Floats:
    """Return what makes the rows' covariance I under the working model, (T, q, q); unusable where it is singular."""
    fitted = parts.fitted[:, :, own]
    covariance = parts.inner[:, :, own, own].sum(axis=1) - np.einsum("vcsp,vctp->vst", fitted, fitted)
    size = np.sqrt(np.maximum(covariance.diagonal(axis1=1, axis2=2), 0.0))
    usable &= np.all(size > 0.0, axis=1)
    size[~usable] = 1.0
    covariance[~usable] = np.eye(covariance.shape[1])
    values, directions = np.linalg.eigh(covariance / (size[:, :, None] * size[:, None, :]))
    usable &= values[:, 0] > 1e-10 * values[:, -1]
    values[~usable] = 1.0
    turned: Floats = (directions / np.sqrt(values)[:, None, :]).swapaxes(1, 2) / size[:, None, :]
    return turned


def _test(parts: _Parts, frame: Frame, c: int, usable: Bools, voxels: Ints, fit: MultilevelFit) -> None:
    """Write one test of a batch of voxels."""
    own, upper = slice(int(frame.starts[c]), int(frame.starts[c + 1])), bool(frame.upper[c])
    inner_products, fitted, scores = parts.inner[:, :, own, own], parts.fitted[:, :, own], parts.scores[:, :, own]
    effects, q = parts.effects[:, own], own.stop - own.start
    if upper:
        turn = _turn(parts, own, usable)
        inner_products = turn[:, None] @ inner_products @ turn.swapaxes(1, 2)[:, None]
        fitted, scores = turn[:, None] @ fitted, np.einsum("vst,vct->vcs", turn, scores)
        effects = np.einsum("vst,vt->vs", turn, effects)
    expected = np.trace(inner_products.sum(axis=1), axis1=1, axis2=2) - (fitted**2).sum(axis=(1, 2, 3))
    spread = _spread(inner_products, fitted)
    robust = np.einsum("vcs,vct->vst", scores, scores)
    with np.errstate(invalid="ignore", divide="ignore"):
        wishart = q * (q + 1) * (expected / q) ** 2 / spread
        dof = wishart - q + 1.0
        usable &= (spread > 0.0) & (expected > 0.0) & np.isfinite(dof) & (dof > 0.0)
    if upper:
        values = np.linalg.eigvalsh(robust)
        usable &= values[:, 0] > IDENTICAL * np.maximum(values[:, -1], 1e-300)
        robust[~usable] = np.eye(q)
        squared = np.einsum("vs,vs->v", effects, np.linalg.solve(robust, effects[:, :, None])[:, :, 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = squared * dof / (wishart * q)
        variance, effect = np.zeros_like(statistic), np.zeros_like(statistic)
    else:
        variance, effect = robust[:, 0, 0], effects[:, 0]
        usable &= variance > 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = effect / np.sqrt(variance)
    for place, numbers in ((EFFECTS, effect), (VARIANCES, variance), (STATISTICS, statistic)):
        fit.tested.values[c, place, voxels] = np.where(usable, numbers, 0.0)
    fit.tested.estimable[c, voxels] = usable
    fit.dof[c, voxels] = np.where(usable, dof, 0.0)


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
    space = _Space(
        np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k)), np.zeros((p, k)), np.zeros(k), np.zeros(k),
        np.zeros((n_rows, k)),
    )  # fmt: skip
    work = new_work(frame)
    for group in group_voxels(covered, frame):
        layers = lay_clusters(group, frame, clusters)
        m = max(int(layers.clusters.max()), 1)
        size = max(1, _AT_ONCE // (m * n_rows * (n_rows + p + 1)))
        for start in range(0, group.voxels.size, size):
            voxels, slots = group.voxels[start : start + size], group.slots[start : start + size]
            n = voxels.size
            parts = _Parts(
                np.zeros((n, n_rows)), np.zeros((n, m, n_rows)), np.zeros((n, m, n_rows, n_rows)),
                np.zeros((n, m, n_rows, p)), np.zeros((n, n_rows)), np.zeros((n, n_rows)),
            )  # fmt: skip
            _take_all(effect, variance, Group(voxels, slots, group.patterns), layers, work, fit.summary, space, parts)
            for c in range(frame.upper.size):
                own = slice(int(frame.starts[c]), int(frame.starts[c + 1]))
                usable = group.patterns.estimable[slots, c] & (fit.counts[0, voxels] > fit.counts[1, voxels])
                usable &= ~np.any(parts.taken[:, own] > WEIGHED**2 * parts.sizes[:, own], axis=1)
                _test(parts, frame, c, usable, voxels, fit)
