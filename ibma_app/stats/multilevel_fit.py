"""Multilevel models at every voxel: sampling variances, a variance between clusters and one between their maps.

The model of metafor's ``rma.mv(yi, vi, random = ~ 1 | cluster/map)`` (Konstantopoulos
2011), its two variances by restricted maximum likelihood. Reference for the
likelihood: two_variances.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame
from ibma_app.stats.clustered import order_maps
from ibma_app.stats.compiled import compiled, folded, inner
from ibma_app.stats.contrasts import Hypotheses, Tested, new_tested, test_voxel
from ibma_app.stats.two_variances import (
    ALONG,
    FORMS,
    GRAM,
    INVERSE,
    WITHIN,
    Point,
    Voxel,
    evaluate,
    likelihood,
    quadratic_of,
    trace_of,
)
from ibma_app.stats.two_variances_mean import evaluate_mean, likelihood_of_mean
from ibma_app.stats.voxels import TILE, Group, fill_tile, group_voxels
from ibma_app.stats.weighted import INVERSE as INVERSE_OF_SMALL
from ibma_app.stats.weighted import VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

TAU2, OMEGA2, Q, I2_BETWEEN, I2_WITHIN = range(5)
_CLOSE = 1e-6  # last step, relative to the variances plus the smallest sampling variance: the error is its square
_MOST = 200  # steps at one voxel; 6 are usual
_STARTS = ((0.0, 0.0), (0.1, 0.0), (0.1, 1.0), (0.6, 0.0), (0.6, 0.5), (0.6, 1.0))
"""Parts of the effects' variance, and the share of it between clusters."""
_ROUNDING = 1e-12  # of the likelihood
_SAME = 1e-9  # relative difference of what two variances add to all contrasts, up to which they cannot be told apart


class Freedom(NamedTuple):
    """What is special about a voxel's likelihood."""

    mean: bool  # the design is an intercept alone
    between: bool  # tau2 can be estimated
    within: bool  # omega2 can be


class MultilevelFit(NamedTuple):
    """A fit of B voxels; 0 where nothing could be estimated."""

    tested: Tested
    dof: Floats  # (C, B) of t, or the denominator's of F
    counts: NDArray[np.int16]  # (2, B) maps n, and rank of their rows
    summary: Floats  # (5, B) tau2, omega2, Q, I2 between and within (percent)


class Layers(NamedTuple):
    """What clusters make of N patterns of coverage, the maps of each ordered by cluster."""

    which: Ints  # (N, K) as in `Patterns`
    columns: Floats  # (N, P, K4) likewise
    clusters: Ints  # (N,) their number m
    starts: Ints  # (N, m + 1) first covered map of each
    between: Bools  # (N,) whether tau2 can be estimated
    within: Bools  # (N,) whether omega2 can be, beside it
    dof: Floats  # (N, C) of the tests; 0 or less: not estimable


class Work(NamedTuple):
    """Space for one voxel."""

    y: Floats  # (TILE, K)
    v: Floats  # (TILE, K)
    x: Floats  # (P + 1, K)
    one: Floats  # (K,) variances
    d: Floats  # (K,)
    weighted: Floats  # (P + 1, K)
    sums: Floats  # (2, P + 1)
    forms: Floats  # (FORMS, P + 1, P + 1)
    small: Floats  # (8, P, P)
    rows: Floats  # (R, R + 1)


def lay_clusters(group: Group, frame: Frame, clusters: Ints) -> Layers:
    """Order each pattern's maps by cluster, and find which variances can be told apart there, and the dof of its tests.

    A test that is within clusters (what a cluster's maps share cancels in its
    least-squares estimate) has as many dof as maps are left beside clusters
    and columns, any other as many as there are clusters more than columns
    (``dfs = "contain"`` of metafor, whose dof of tests within are more).

    Parameters
    ----------
    group : Group
    frame : Frame
    clusters : ndarray of int, shape (K,)
    """
    table = group.patterns
    n_patterns = len(table.which)
    found = Layers(
        *order_maps(table, clusters),
        np.zeros(n_patterns, dtype=np.bool_),
        np.zeros(n_patterns, dtype=np.bool_),
        np.zeros((n_patterns, frame.upper.size)),
    )
    for n in range(n_patterns):
        k, rank = int(table.maps[n]), int(table.rank[n])
        own = clusters[found.which[n, :k]]
        first = np.flatnonzero(np.diff(own, prepend=-1))
        m = first.size
        if rank == 0 or k <= rank:
            continue
        basis = found.columns[n, :rank, :k].T
        indicators = (own[:, None] == own[first]).astype(np.float64)
        left = indicators - basis @ (basis.T @ indicators)
        added = int(np.linalg.matrix_rank(left, tol=1e-8))
        spread = left @ left.T  # what tau2 adds to the contrasts' covariance
        maker = np.eye(k) - basis @ basis.T  # what omega2 adds
        level = np.trace(spread) / (k - rank)
        found.between[n] = added > 0
        found.within[n] = bool(np.abs(spread - level * maker).max() > _SAME * max(level, 1.0)) or not added
        for c in range(frame.upper.size):
            own_rows = table.rows[n, frame.starts[c] : frame.starts[c + 1], :rank]
            weights = basis @ own_rows.T
            inside = np.abs(indicators.T @ weights).max() <= 1e-8 * np.abs(weights).max()
            found.dof[n, c] = k - rank - added if inside else m - rank
    return found


@inner
def _newton(point: Point, free: Freedom) -> tuple[float, float]:
    """Return Newton's step in the free variances; Fisher's where the likelihood is not convex there."""
    a, b, c = point.tau_tau, point.tau_omega, point.omega_omega
    if free.between and free.within:
        if not (a > 0.0 and a * c - b * b > 1e-10 * a * c):
            a, b, c = point.expected_tau_tau, point.expected_tau_omega, point.expected_omega_omega
        determinant = a * c - b * b
        if determinant > 1e-12 * a * c:
            return (b * point.omega - c * point.tau) / determinant, (b * point.tau - a * point.omega) / determinant
        return -point.tau / (2.0 * a), -point.omega / (2.0 * c)
    if free.between:
        return -point.tau / (a if a > 0.0 else point.expected_tau_tau), 0.0
    return 0.0, -point.omega / (c if c > 0.0 else point.expected_omega_omega)


@folded
def _step(point: Point, free: Freedom, tau2: float, omega2: float) -> tuple[float, float]:
    """Return the next step: of a variance at 0 only upwards."""
    free_tau = free.between and (tau2 > 0.0 or point.tau < 0.0)
    free_omega = free.within and (omega2 > 0.0 or point.omega < 0.0)
    if not (free_tau or free_omega):
        return 0.0, 0.0
    to_tau, to_omega = _newton(point, Freedom(free.mean, free_tau, free_omega))
    if free_tau and free_omega:
        if tau2 == 0.0 and to_tau < 0.0:
            return _newton(point, Freedom(free.mean, False, True))
        if omega2 == 0.0 and to_omega < 0.0:
            return _newton(point, Freedom(free.mean, True, False))
    return to_tau, to_omega


@folded
def _at(voxel: Voxel, m: int, rank: int, free: Freedom, tau2: float, omega2: float) -> Point:
    """Evaluate the likelihood."""
    return evaluate_mean(voxel, m, tau2, omega2) if free.mean else evaluate(voxel, m, rank, tau2, omega2)


@folded
def _climb(
    voxel: Voxel, m: int, rank: int, free: Freedom, start: tuple[float, float], smallest: float
) -> tuple[float, float]:
    """Go from a start to a maximum of the likelihood with both variances at least 0; leave its forms."""
    tau2, omega2 = start
    point = _at(voxel, m, rank, free, tau2, omega2)
    for _ in range(_MOST):
        to_tau, to_omega = _step(point, free, tau2, omega2)
        if to_tau == 0.0 and to_omega == 0.0:
            break
        length = 1.0
        if to_tau < 0.0:
            length = min(length, -tau2 / to_tau)
        if to_omega < 0.0:
            length = min(length, -omega2 / to_omega)
        done = length == 1.0 and abs(to_tau) + abs(to_omega) <= _CLOSE * (tau2 + omega2 + smallest)
        while True:
            new_tau, new_omega = tau2 + length * to_tau, omega2 + length * to_omega
            new_tau = new_tau if new_tau > _ROUNDING * tau2 else 0.0
            new_omega = new_omega if new_omega > _ROUNDING * omega2 else 0.0
            new = _at(voxel, m, rank, free, new_tau, new_omega)
            if new.value <= point.value + _ROUNDING * (1.0 + abs(point.value)):
                break
            length *= 0.25
            if length < 1e-9:
                _at(voxel, m, rank, free, tau2, omega2)  # for its forms
                return tau2, omega2
        tau2, omega2, point = new_tau, new_omega, new
        if done:
            break
    return tau2, omega2


@folded
def _start(voxel: Voxel, m: int, rank: int, free: Freedom, total: float) -> tuple[float, float]:
    """Return the likeliest of a few starts."""
    best, tau2, omega2 = np.inf, 0.0, 0.0
    for size, share in _STARTS:
        if (share > 0.0 and not free.between) or (size > 0.0 and share < 1.0 and not free.within):
            continue
        one, other = share * size * total, (1.0 - share) * size * total
        if free.mean:
            value = likelihood_of_mean(voxel.x[1], voxel.v, voxel.starts, m, one, other)
        else:
            value = likelihood(voxel, m, rank, one, other)
        if value < best:
            best, tau2, omega2 = value, one, other
    return tau2, omega2


@folded
def pack(work: Work, layers: Layers, slot: int, b: int, k: int, rank: int) -> tuple[float, float, float]:
    """Lay out one voxel in units of its mean variance; return that, its residuals' mean square, the least variance.

    Effects are replaced by the residuals of least squares; its coefficients are left in ``small``.
    """
    x, v = work.x, work.one
    unit = 0.0
    for i in range(k):
        v[i] = work.v[b, layers.which[slot, i]]
        x[rank, i] = work.y[b, layers.which[slot, i]]
        unit += v[i]
    unit /= k
    smallest, total, root = np.inf, 0.0, np.sqrt(unit)
    for i in range(k):
        v[i] /= unit
        x[rank, i] /= root
        smallest = min(smallest, v[i])
    for a in range(rank):
        along = 0.0
        for i in range(k):
            x[a, i] = layers.columns[slot, a, i]
            along += x[a, i] * x[rank, i]
        work.small[VECTORS, 0, a] = along
        for i in range(k):
            x[rank, i] -= along * x[a, i]
    for i in range(k):
        total += x[rank, i] ** 2
    return unit, total / max(k - rank, 1), smallest


@folded
def _heterogeneity(voxel: Voxel, m: int, k: int, rank: int, free: Freedom, summary: Floats, at: int) -> float:
    """Write Q, and return the typical sampling variance of Higgins and Thompson."""
    precision = 0.0
    if free.mean:
        along, square, squared = 0.0, 0.0, 0.0
        for i in range(k):
            w = 1.0 / voxel.v[i]
            precision += w
            squared += w * w
            along += w * voxel.x[1, i]
            square += w * voxel.x[1, i] ** 2
        summary[Q, at] = square - along * along / precision
        return (k - rank) / (precision - squared / precision)
    likelihood(voxel, m, rank, 0.0, 0.0)
    for i in range(k):
        precision += voxel.d[i]
    summary[Q, at] = quadratic_of(voxel.forms, GRAM, rank)
    return (k - rank) / (precision - trace_of(voxel.forms, WITHIN, rank))


@compiled
def _fit(
    effect: Floats, variance: Floats, group: Group, layers: Layers, frame: Frame, work: Work, fit: MultilevelFit
) -> None:
    """Loop over voxels."""
    table, small, forms, summary = group.patterns, work.small, work.forms, fit.summary
    tests = Hypotheses(table.rows, table.estimable & (layers.dof > 0.0), frame.starts, frame.upper, work.rows)
    for start in range(0, group.voxels.size, TILE):
        fill_tile(effect, group.voxels, start, work.y)
        for b in range(fill_tile(variance, group.voxels, start, work.v)):
            at, slot = group.voxels[start + b], group.slots[start + b]
            k, rank, m = table.maps[slot], table.rank[slot], layers.clusters[slot]
            fit.counts[0, at], fit.counts[1, at] = k, rank
            if rank == 0 or k <= rank:
                continue
            unit, total, smallest = pack(work, layers, slot, b, k, rank)
            if not (np.isfinite(total) and unit > 0.0 and np.isfinite(unit)):
                continue
            scale = 1.0
            if frame.constant:
                scale = work.x[0, 0]
                work.x[0, :k] = 1.0
            voxel = Voxel(work.x, work.one, layers.starts[slot], forms, work.d, work.weighted, work.sums)
            free = Freedom(frame.constant, layers.between[slot], layers.within[slot])
            first = _start(voxel, m, rank, free, total)
            typical = _heterogeneity(voxel, m, k, rank, free, summary, at)
            tau2, omega2 = _climb(voxel, m, rank, free, first, smallest)
            for a in range(rank):
                small[VECTORS, 0, a] = (small[VECTORS, 0, a] - forms[ALONG, 0, a] / scale) * np.sqrt(unit)
                for c in range(rank):
                    small[INVERSE_OF_SMALL, a, c] = forms[INVERSE, a, c] * unit / (scale * scale)
            summary[TAU2, at], summary[OMEGA2, at] = tau2 * unit, omega2 * unit
            summary[I2_BETWEEN, at] = 100.0 * tau2 / (tau2 + omega2 + typical)
            summary[I2_WITHIN, at] = 100.0 * omega2 / (tau2 + omega2 + typical)
            test_voxel(tests, slot, small, rank, 1.0, fit.tested, at)
            for c in range(frame.upper.size):
                if fit.tested.estimable[c, at]:
                    fit.dof[c, at] = layers.dof[slot, c]


def complete_dof(frame: Frame, clusters: Ints) -> Floats:
    """Return the dof of each test where all maps cover, (C,)."""
    (group,) = group_voxels(np.ones((clusters.size, 1), dtype=np.bool_), frame)
    return lay_clusters(group, frame, clusters).dof[0]


def new_work(frame: Frame) -> Work:
    """Allocate for a frame."""
    (p, k), rows = frame.columns.shape, frame.rows.shape[0]
    return Work(
        np.zeros((TILE, k)),
        np.zeros((TILE, k)),
        np.zeros((p + 1, k)),
        np.zeros(k),
        np.zeros(k),
        np.zeros((p + 1, k)),
        np.zeros((2, p + 1)),
        np.zeros((FORMS, max(p + 1, 3), max(p + 1, 3))),
        np.zeros((8, p, p)),
        np.zeros((rows, rows + 1)),
    )


def fit_multilevel(effect: Floats, variance: Floats, covered: Bools, frame: Frame, clusters: Ints) -> MultilevelFit:
    """Fit a multilevel model at each voxel.

    Parameters
    ----------
    effect, variance : ndarray, shape (K, B)
        Effects and sampling variances.
    covered : ndarray of bool, shape (K, B)
        Values elsewhere are not used, whatever they are.
    frame : Frame
        From `frame_design`.
    clusters : ndarray of int, shape (K,)
        The cluster of each map.

    Returns
    -------
    MultilevelFit
        A variance that the maps at a voxel cannot show (every cluster has one map there: omega2) is 0 and part of
        the other. Nothing is estimable where n <= rank, and no test without dof.
    """
    voxels, n_tests = effect.shape[1], frame.upper.size
    fit = MultilevelFit(
        new_tested(n_tests, voxels),
        np.zeros((n_tests, voxels)),
        np.zeros((2, voxels), dtype=np.int16),
        np.zeros((5, voxels)),
    )
    work = new_work(frame)
    for group in group_voxels(covered, frame):
        layers = lay_clusters(group, frame, clusters)
        _fit(effect, variance, group, layers, frame, work, fit)
    return fit
