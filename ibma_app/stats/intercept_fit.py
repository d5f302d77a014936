"""Linear models with a random intercept for each unit by REML at every voxel, each with the maps that cover it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame
from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES, Tested, new_tested
from ibma_app.stats.intercept_likelihood import (
    INVERSE,
    SLOPE,
    SOLVED,
    Point,
    Sums,
    Work,
    evaluate,
    find_ratio,
    form,
    multiply,
    new_sums,
    new_work,
    sum_units,
)
from ibma_app.stats.intercept_small import (
    ROW,
    ROW_SOLVED,
    Moments,
    corrected_f,
    corrected_row,
    find_moments,
    new_moments,
)
from ibma_app.stats.intercept_units import UNITS, WITHIN, Units, lay_units, new_units
from ibma_app.stats.ols import residual_sum
from ibma_app.stats.partition import unit_indicators
from ibma_app.stats.voxels import TILE, Group, Workspace, fill_tile, group_voxels, new_workspace
from ibma_app.stats.weighted import IDENTICAL, VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_FAR = 100.0  # ratio, over the maps of a unit, from which on residuals of least squares are too inexact


class InterceptFit(NamedTuple):
    """A fit of B voxels."""

    tested: Tested
    dof: Floats  # (C, B) of each test: of t, or the denominator's of F; 0 where not estimable
    sigma2: Floats  # (B,) variance within units
    tau2: Floats  # (B,) variance between units
    counts: NDArray[np.int16]  # (2, B) maps n, and rank of their rows
    identical: Bools  # (B,) no variance, or none within units


class _Place(NamedTuple):
    """One voxel."""

    voxel: int
    slot: int  # its pattern
    rank: int
    left: float  # maps minus rank
    ratio: float  # tau2 / sigma2


class _Space(NamedTuple):
    """Space for the tests of one voxel."""

    effects: Floats  # (P,) coefficients on the basis
    vectors: Floats  # (2, P)
    covariance: Floats  # (Q, Q) of an F test's rows, over sigma2
    directions: Floats  # (Q, Q) its eigenvectors, in columns
    dofs: Floats  # (Q,) of each of them


class _State(NamedTuple):
    """Everything that is worked with."""

    corrected: bool  # Kenward & Roger's tests; else Satterthwaite's
    clusters: Ints  # (K,) the unit of each map
    units: Units
    sums: Sums
    work: Work
    space: _Space
    moments: Moments


@inner
def _satterthwaite(point: Point, left: float, variance: float, slope: float) -> float:
    """Return 2 var^2 / (gradient' covariance gradient), by the observed information on sigma2 and the ratio.

    ``variance`` and its derivative by the ratio are over sigma2 (Fai & Cornelius 1996; Kuznetsova et al. 2017).
    """
    along = left * point.q1 / point.q
    curve = point.logs2 + left * point.q2 / point.q
    spread = variance * variance * curve + 2.0 * variance * slope * along + left * slope * slope
    return variance * variance * left * point.curve / spread


@inner
def _row_dof(point: Point, at: _Place, work: Work, space: _Space) -> tuple[float, float]:
    """Return the variance over sigma2 of the row in ``space``, and its dof."""
    vectors = space.vectors
    multiply(work.squares, INVERSE, vectors, ROW, ROW_SOLVED, at.rank)
    variance = 0.0
    for a in range(at.rank):
        variance += vectors[ROW, a] * vectors[ROW_SOLVED, a]
    if at.ratio == 0.0:  # at the boundary sigma2 alone is estimated
        return variance, at.left
    slope = -form(work.squares, SLOPE, vectors, ROW_SOLVED, at.rank)
    return variance, _satterthwaite(point, at.left, variance, slope)


@inner
def diagonalise(matrix: Floats, size: int, directions: Floats) -> None:
    """Turn a symmetric matrix into its eigenvalues, on the diagonal, by Jacobi's rotations."""
    for a in range(size):
        for b in range(size):
            directions[a, b] = 1.0 if a == b else 0.0
    for _ in range(60):
        off, scale = 0.0, 0.0
        for a in range(size):
            scale += matrix[a, a] * matrix[a, a]
            for b in range(a):
                off += matrix[a, b] * matrix[a, b]
        if off <= 1e-30 * scale:
            break
        for a in range(1, size):
            for b in range(a):
                _rotate(matrix, size, directions, a, b)


@inner
def _rotate(matrix: Floats, size: int, directions: Floats, a: int, b: int) -> None:
    """Make one element 0."""
    if matrix[a, b] == 0.0:
        return
    half = (matrix[b, b] - matrix[a, a]) / (2.0 * matrix[a, b])
    tangent = (1.0 if half >= 0.0 else -1.0) / (abs(half) + np.sqrt(half * half + 1.0))
    cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
    sine = tangent * cosine
    for i in range(size):
        one, other = matrix[i, a], matrix[i, b]
        matrix[i, a], matrix[i, b] = cosine * one - sine * other, sine * one + cosine * other
    for i in range(size):
        one, other = matrix[a, i], matrix[b, i]
        matrix[a, i], matrix[b, i] = cosine * one - sine * other, sine * one + cosine * other
    for i in range(size):
        one, other = directions[i, a], directions[i, b]
        directions[i, a], directions[i, b] = cosine * one - sine * other, sine * one + cosine * other


@inner
def _joint_dof(dofs: Floats, size: int) -> float:
    """Return the denominator's dof of F, the mean of squared t with these dof (Fai & Cornelius 1996)."""
    low, high, total, expected = np.inf, 0.0, 0.0, 0.0
    for a in range(size):
        low, high, total = min(low, dofs[a]), max(high, dofs[a]), total + dofs[a]
        expected += dofs[a] / (dofs[a] - 2.0) if dofs[a] > 2.0 else np.inf
    if high - low < 1e-8:
        return total / size
    return 2.0 if low <= 2.0 else 2.0 * expected / (expected - size)


@inner
def _cross(rows: Floats, first: int, size: int, at: _Place, work: Work, space: _Space) -> float:
    """Write the covariance of an F test's rows, over sigma2; return its trace."""
    vectors, trace = space.vectors, 0.0
    for a in range(size):
        for i in range(at.rank):
            vectors[ROW, i] = rows[at.slot, first + a, i]
        multiply(work.squares, INVERSE, vectors, ROW, ROW_SOLVED, at.rank)
        for b in range(size):
            total = 0.0
            for i in range(at.rank):
                total += rows[at.slot, first + b, i] * vectors[ROW_SOLVED, i]
            space.covariance[b, a] = total
        trace += space.covariance[a, a]
    return trace


@inner
def _f_test(
    rows: Floats, first: int, size: int, point: Point, at: _Place, work: Work, space: _Space
) -> tuple[float, float]:
    """Return F and its denominator's dof; F is -1 where the rows' covariance is singular."""
    least = 1e-12 * _cross(rows, first, size, at, work, space)
    diagonalise(space.covariance, size, space.directions)
    statistic = 0.0
    for a in range(size):
        effect = 0.0
        for i in range(at.rank):
            total = 0.0
            for b in range(size):
                total += space.directions[b, a] * rows[at.slot, first + b, i]
            space.vectors[ROW, i] = total
            effect += total * space.effects[i]
        variance, space.dofs[a] = _row_dof(point, at, work, space)
        if not variance > least:
            return -1.0, 0.0
        statistic += effect * effect / variance
    return statistic / size * at.left / point.q, _joint_dof(space.dofs, size)


@inner
def _test(group: Group, frame: Frame, c: int, point: Point, at: _Place, state: _State, fit: InterceptFit) -> None:
    """Write one test of one voxel."""
    first, rows, space = frame.starts[c], group.patterns.rows, state.space
    effect, variance, values, size = 0.0, 0.0, fit.tested.values, frame.starts[c + 1] - frame.starts[c]
    if frame.upper[c] and state.corrected:
        statistic, dof = corrected_f(rows[at.slot], first, size, space.effects, at.rank, state.work, state.moments)
        statistic *= at.left / point.q
        sound = statistic >= 0.0
    elif frame.upper[c]:
        statistic, dof = _f_test(rows, first, size, point, at, state.work, space)
        sound = statistic >= 0.0
    else:
        for i in range(at.rank):
            space.vectors[ROW, i] = rows[at.slot, first, i]
            effect += rows[at.slot, first, i] * space.effects[i]
        if state.corrected:
            variance, dof = corrected_row(space.vectors, at.rank, state.work, state.moments)
        else:
            variance, dof = _row_dof(point, at, state.work, space)
        variance *= point.q / at.left
        sound = variance > 0.0
        statistic = effect / np.sqrt(variance)
    if sound and dof > 0.0 and np.isfinite(dof) and np.isfinite(statistic) and np.isfinite(variance):
        values[c, EFFECTS, at.voxel], values[c, VARIANCES, at.voxel] = effect, variance
        values[c, STATISTICS, at.voxel], fit.dof[c, at.voxel] = statistic, dof
        fit.tested.estimable[c, at.voxel] = True


@inner
def _keep_effects(group: Group, frame: Frame, at: _Place, small: Floats, fit: InterceptFit) -> None:
    """Write the effects of a voxel without an error to test them by: those of least squares."""
    for c in range(frame.upper.size):
        if group.patterns.estimable[at.slot, c] and not frame.upper[c]:
            total = 0.0
            for i in range(at.rank):
                total += group.patterns.rows[at.slot, frame.starts[c], i] * small[VECTORS, 0, i]
            fit.tested.values[c, EFFECTS, at.voxel] = total if np.isfinite(total) else 0.0


@inner
def _identified(units: Units, k: int, rank: int) -> bool:
    """Return whether both variances can be estimated; of units that have one map each, their sum can be."""
    within = k - units.found[UNITS] - units.found[WITHIN]
    between = units.found[UNITS] + units.found[WITHIN] - rank
    return (within > 0 and between > 0) or units.found[UNITS] == k


@inner
def _shift(y: Floats, b: int, k: int, columns: Floats, at: _Place, small: Floats, state: _State) -> None:
    """Turn the residuals of least squares into those of the model at this ratio, and its coefficients likewise."""
    for a in range(at.rank):
        step = state.work.vectors[SOLVED, a]
        small[VECTORS, 0, a] += step
        for i in range(k):
            y[b, i] -= step * columns[at.slot, a, i]
    for a in range(at.rank):
        total = 0.0
        for i in range(k):
            total += columns[at.slot, a, i] * y[b, i]
        state.sums.whole[a] = total
    sum_units(y, b, k, at.rank, state.units, state.sums)


@inner
def _fit_voxel(group: Group, frame: Frame, at: _Place, small: Floats, state: _State, fit: InterceptFit) -> None:
    """Fit one voxel at its ratio."""
    point = evaluate(at.ratio, state.units, state.sums, at.rank, at.left, state.work)
    fit.sigma2[at.voxel] = point.q / at.left
    fit.tau2[at.voxel] = at.ratio * point.q / at.left
    for a in range(at.rank):
        state.space.effects[a] = small[VECTORS, 0, a] + state.work.vectors[SOLVED, a]
    if state.corrected:
        find_moments(point, at.left, at.rank, state.work, state.moments)
    for c in range(frame.upper.size):
        if group.patterns.estimable[at.slot, c]:
            _test(group, frame, c, point, at, state, fit)


@compiled
def _fit(data: Floats, group: Group, frame: Frame, workspace: Workspace, state: _State, fit: InterceptFit) -> None:
    """Loop over voxels, which are sorted by pattern."""
    small, y, table, units, laid = workspace.small, workspace.y, group.patterns, state.units, -1
    for start in range(0, group.voxels.size, TILE):
        for b in range(fill_tile(data, group.voxels, start, y)):
            voxel, slot = group.voxels[start + b], group.slots[start + b]
            k, rank = table.maps[slot], table.rank[slot]
            fit.counts[0, voxel], fit.counts[1, voxel] = k, rank
            if k <= rank or rank == 0:
                continue
            if slot != laid:
                lay_units(table.columns, table.which, slot, k, rank, state.clusters, units)
                laid = slot
            if not _identified(units, k, rank):
                continue
            for i in range(k):
                y[b, i] = y[b, table.which[slot, i]]  # which[i] >= i
            rss, total = residual_sum(y, b, table.columns, slot, k, rank, small)
            state.sums.whole[:rank] = 0.0
            sum_units(y, b, k, rank, units, state.sums)
            left, ratio, same = float(k - rank), 0.0, rss <= IDENTICAL * total
            if units.found[UNITS] < k and not same:
                ratio = find_ratio(units, state.sums, rank, left, state.work)
            at = _Place(voxel, slot, rank, left, ratio)
            if ratio * units.found[UNITS] > _FAR * k and ratio < np.inf:
                # little is left within units: what the model predicts is taken off first, or it would cancel
                evaluate(ratio, units, state.sums, rank, left, state.work)
                _shift(y, b, k, table.columns, at, small, state)
                at = _Place(voxel, slot, rank, left, find_ratio(units, state.sums, rank, left, state.work))
            if same or at.ratio == np.inf:
                fit.identical[voxel] = True
                _keep_effects(group, frame, at, small, fit)
            else:
                _fit_voxel(group, frame, at, small, state, fit)


def count_within_and_between(matrix: Floats, clusters: Ints) -> tuple[int, int]:
    """Count the maps, and the units, that a design of full rank (K, P) leaves to estimate the two variances from.

    Returns
    -------
    within, between : int
        n - rank of the design with a column for each unit, and that rank minus the design's.
    """
    basis, _ = np.linalg.qr(matrix)
    unit = unit_indicators(clusters)
    inside = basis - unit @ (unit.T @ basis)
    rank = unit.shape[1] + int(np.count_nonzero(np.linalg.svd(inside, compute_uv=False) > 1e-6))
    return len(matrix) - rank, rank - matrix.shape[1]


def fit_random_intercept(
    values: Floats, covered: Bools, frame: Frame, clusters: Ints, *, corrected: bool = False
) -> InterceptFit:
    """Fit a linear model with a random intercept for each unit at each voxel, by REML.

    The variance ratio is where the restricted likelihood is largest, of several
    maxima the larger one, 0 included. Tests have Satterthwaite degrees of
    freedom (Satterthwaite 1946; Fai & Cornelius 1996) by the observed
    information, as lmerTest has them (Kuznetsova, Brockhoff & Christensen 2017); or
    Kenward & Roger's covariance, dof and scaled F, as pbkrtest has them.

    Parameters
    ----------
    values : ndarray, shape (K, B), C order
    covered : ndarray of bool, shape (K, B)
        Values elsewhere are not used, whatever they are.
    frame : Frame
        From `frame_design`.
    clusters : ndarray of int, shape (K,)
        The unit of each map, 0 to m - 1.
    corrected : bool
        Kenward & Roger's tests; else Satterthwaite's.

    Returns
    -------
    InterceptFit
        Where no unit has two maps, tests are those of least squares, and all
        variance is called sigma2. Nothing is estimable where the maps cannot
        tell the variances apart otherwise (the design distinguishes all units,
        or takes up all that varies within them), and where nothing varies
        within units (``identical``: effects are kept).
    """
    voxels, tests, p = values.shape[1], frame.upper.size, frame.columns.shape[0]
    fit = InterceptFit(
        new_tested(tests, voxels),
        np.zeros((tests, voxels)),
        np.zeros(voxels),
        np.zeros(voxels),
        np.zeros((2, voxels), dtype=np.int16),
        np.zeros(voxels, dtype=np.bool_),
    )
    units = new_units(clusters, p)
    size = int(np.diff(frame.starts).max(initial=1))
    space = _Space(np.zeros(p), np.zeros((2, p)), np.zeros((size, size)), np.zeros((size, size)), np.zeros(size))
    state = _State(corrected, clusters, units, new_sums(units), new_work(p), space, new_moments(p, size))
    workspace = new_workspace(frame)
    for group in group_voxels(covered, frame):
        order = np.argsort(group.slots, kind="stable")
        by_pattern = Group(group.voxels[order], group.slots[order], group.patterns)
        _fit(values, by_pattern, frame, workspace, state, fit)
    return fit
