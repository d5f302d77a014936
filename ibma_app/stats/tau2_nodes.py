"""Voxels laid out at fixed values of tau2, so that relabelling the maps is a product of matrices.

At a fixed tau2 a mixed model is linear in what a relabelling changes: of one
sample, the sums of w·y over maps of changed signs are a product of the signs
with w·y, and sums of w, w·y² and logs do not change. So are their derivatives
in tau2. Here they are laid out at J values of tau2, the nodes, a tile of voxels
at a time; `tau2_between.py` finds each relabelling's tau2 between them.

A voxel's variances are in units of the smallest of them, c. Nodes are equally
spaced in the log of T = 1 + tau2 / c, where every weight 1 / (v + tau2) is a
logistic curve, as smooth as any other whatever its variance. Slopes are in q,
which goes from 0 to 1 between two nodes with

    T = (T0 (1 - q) + r T1 q) / (1 - q + r q),    r = sqrt(T0 / T1),

a stand-in for the log that needs no log and no exponential.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

WIDE = 128
"""Voxels of a tile: what a batch of relabellings makes of one stays in the processor's cache."""

CRITERION, D_CRITERION, TOTAL, D_TOTAL, PLACE = range(5)
NODE_ROWS = 5
"""Numbers of a voxel at a node: what no relabelling changes of the criterion and of y'Py, their slopes, and T."""

DOF, RATIO, GUESS_TOTAL, GUESS_LESS, GUESS_TIMES = range(5)
VOXEL_ROWS = 5
"""Numbers of a voxel: n - rank, r, and of a moment estimator, which is (total - n² - less) times."""

ML, REML, ROOT, DL, HUNTER_SCHMIDT, HEDGES, SIDIK_JONKMAN = range(7)
METHODS = {
    "ml": ML,
    "reml": REML,
    "paule-mandel": ROOT,
    "empirical-bayes": ROOT,
    "dl": DL,
    "hunter-schmidt": HUNTER_SCHMIDT,
    "hedges": HEDGES,
    "sidik-jonkman": SIDIK_JONKMAN,
}
"""By the names of `tau2.estimate_tau2`. Those up to REML have minima to be found, and those from DL on are moments."""

FEWEST, MOST = 4, 40  # nodes
TINY = 1e-300
SLACK = 1.01  # beyond what is reached: rounding must not hide that it is
SHORTEST = 1.02  # the nodes' last T, at least: between two that coincide there is no cubic


class Maps(NamedTuple):
    """K maps at B voxels, each covered by two maps or more."""

    y: Floats  # (K, B) effects, 0 where not covered
    v: Floats  # (K, B) variances, inf where not covered


class Nodes(NamedTuple):
    """A tile laid out; a row is WIDE numbers."""

    columns: Singles  # (K, > rows * WIDE) of each node n = x'Py / sqrt(x'Px) and its slope, then a moment's n
    fixed: Singles  # (J * NODE_ROWS * WIDE,)
    voxel: Singles  # (VOXEL_ROWS * WIDE,)


class Work(NamedTuple):
    """Work space, flat; a row is WIDE numbers, and there are K4 rows, K padded to a multiple of four."""

    y: Floats  # (K4 * WIDE,)
    v: Floats  # (K4 * WIDE,) variances over the smallest, less 1; inf where not covered
    w: Floats  # (K4 * WIDE,)
    sums: Floats  # (SUMS * WIDE,)


UNIT, LARGEST, COUNT, FREE, YY, EXPECTED, STEP, T, SW, SWW, SWYY, SWWYY = range(12)
LOG, PRODUCT, LOG_DET, TRACE, SCALE, HALF, SLOPE = range(12, 19)
SUMS = 19
"""Numbers of a voxel that are worked with: 1 / c, largest variance, n, n - rank, y'y and its expectation at tau2 = 0
with equal weights, T of the next node over T, T; sums of w, w², w·y², w²·y² and log w there; of the columns that no
relabelling changes, log det Z'WZ and tr (Z'WZ)^-1 Z'W²Z."""


def count_rows(method: int, nodes: int) -> int:
    """Count the rows of a tile's columns."""
    return 2 * nodes + (1 if method >= DL else 0)


def new_nodes(n_maps: int, method: int, nodes: int) -> Nodes:
    """Allocate for K maps at J nodes; an odd multiple of 64 bytes from map to map, or caches would clash."""
    return Nodes(
        np.zeros((n_maps, count_rows(method, nodes) * WIDE + 16), dtype=np.float32),
        np.zeros(nodes * NODE_ROWS * WIDE, dtype=np.float32),
        np.zeros(VOXEL_ROWS * WIDE, dtype=np.float32),
    )


def new_work(n_maps: int) -> Work:
    """Allocate for K maps."""
    rows = 4 * ((n_maps + 3) // 4)
    return Work(np.zeros(rows * WIDE), np.full(rows * WIDE, np.inf), np.zeros(rows * WIDE), np.zeros(SUMS * WIDE))


@inner
def _copy(maps: Maps, start: int, work: Work) -> None:
    """Copy a tile and find its smallest variances; beyond the last voxel lies a harmless one."""
    y, v, sums = work.y, work.v, work.sums
    width = min(WIDE, maps.y.shape[1] - start)
    for x in range(WIDE):
        sums[UNIT * WIDE + x] = np.inf
    for i in range(maps.y.shape[0]):
        for x in range(width):
            y[i * WIDE + x] = maps.y[i, start + x]
            v[i * WIDE + x] = maps.v[i, start + x]
        for x in range(width, WIDE):
            y[i * WIDE + x] = 0.0
            v[i * WIDE + x] = 1.0
        for x in range(WIDE):
            sums[UNIT * WIDE + x] = min(sums[UNIT * WIDE + x], v[i * WIDE + x])
    for x in range(WIDE):
        sums[UNIT * WIDE + x] = 1.0 / sums[UNIT * WIDE + x]
        sums[SCALE * WIDE + x] = math.sqrt(sums[UNIT * WIDE + x])


@inner
def take(maps: Maps, start: int, work: Work) -> None:
    """Copy a tile in units of each voxel's smallest variance, and sum what needs no weights."""
    _copy(maps, start, work)
    y, v, sums = work.y, work.v, work.sums
    for x in range(WIDE):
        sums[LARGEST * WIDE + x] = 1.0
        sums[COUNT * WIDE + x] = 0.0
        sums[YY * WIDE + x] = 0.0
        sums[EXPECTED * WIDE + x] = 0.0
        sums[T * WIDE + x] = 1.0
    for i in range(maps.y.shape[0]):
        for x in range(WIDE):
            ratio = v[i * WIDE + x] * sums[UNIT * WIDE + x]
            scaled = y[i * WIDE + x] * sums[SCALE * WIDE + x]
            y[i * WIDE + x] = scaled
            v[i * WIDE + x] = max(ratio - 1.0, 0.0)
            covered = ratio < np.inf
            ratio = ratio if covered else 0.0
            sums[LARGEST * WIDE + x] = max(sums[LARGEST * WIDE + x], ratio)
            sums[COUNT * WIDE + x] += 1.0 if covered else 0.0
            sums[YY * WIDE + x] += scaled * scaled
            sums[EXPECTED * WIDE + x] += ratio


@inner
def weigh(work: Work) -> None:
    """Sum w, w², w·y², w²·y² and log w at each voxel's T; maps in fours, so that sums are touched less often."""
    y, v, w, sums = work.y, work.v, work.w, work.sums
    for x in range(WIDE):
        sums[SW * WIDE + x] = 0.0
        sums[SWW * WIDE + x] = 0.0
        sums[SWYY * WIDE + x] = 0.0
        sums[SWWYY * WIDE + x] = 0.0
        sums[LOG * WIDE + x] = 0.0
        sums[PRODUCT * WIDE + x] = 1.0
    groups = v.size // (4 * WIDE)
    for g in range(groups):
        a = 4 * g * WIDE
        for x in range(WIDE):
            place = sums[T * WIDE + x]
            y0, y1, y2, y3 = y[a + x], y[a + WIDE + x], y[a + 2 * WIDE + x], y[a + 3 * WIDE + x]
            w0, w1 = 1.0 / (v[a + x] + place), 1.0 / (v[a + WIDE + x] + place)
            w2, w3 = 1.0 / (v[a + 2 * WIDE + x] + place), 1.0 / (v[a + 3 * WIDE + x] + place)
            w[a + x], w[a + WIDE + x], w[a + 2 * WIDE + x], w[a + 3 * WIDE + x] = w0, w1, w2, w3
            u0, u1, u2, u3 = w0 * y0, w1 * y1, w2 * y2, w3 * y3
            sums[SW * WIDE + x] += (w0 + w1) + (w2 + w3)
            sums[SWW * WIDE + x] += (w0 * w0 + w1 * w1) + (w2 * w2 + w3 * w3)
            sums[SWYY * WIDE + x] += (u0 * y0 + u1 * y1) + (u2 * y2 + u3 * y3)
            sums[SWWYY * WIDE + x] += (u0 * u0 + u1 * u1) + (u2 * u2 + u3 * u3)
            w0, w1 = w0 if w0 > 0.0 else 1.0, w1 if w1 > 0.0 else 1.0
            w2, w3 = w2 if w2 > 0.0 else 1.0, w3 if w3 > 0.0 else 1.0
            sums[PRODUCT * WIDE + x] *= (w0 * w1) * (w2 * w3)
        if g % 4 == 3 or g == groups - 1:  # a log for 16 maps: their product is no smaller than 1e-300
            for x in range(WIDE):
                sums[LOG * WIDE + x] += math.log(sums[PRODUCT * WIDE + x])
                sums[PRODUCT * WIDE + x] = 1.0


@inner
def go_on(work: Work) -> None:
    """Go on to the next node."""
    sums = work.sums
    for x in range(WIDE):
        sums[T * WIDE + x] *= sums[STEP * WIDE + x]
    weigh(work)


@inner
def _mean_sums(work: Work) -> None:
    """Set log det and trace of a mean alone."""
    sums = work.sums
    for x in range(WIDE):
        sums[LOG_DET * WIDE + x] = math.log(sums[SW * WIDE + x])
        sums[TRACE * WIDE + x] = sums[SWW * WIDE + x] / sums[SW * WIDE + x]


@inner
def _reach(method: int, counts: tuple[float, float], yy: float, largest: float, moments: tuple[float, float]) -> float:
    """Return a T beyond which no relabelling has its tau2.

    The likelihoods fall where y'PPy <= yy / T² is less than tr P >= dof / (largest - 1 + T). A moment estimate is
    largest where the test leaves all of y'Py: ``moments`` are that at T = 1 and what it is divided by.
    """
    n, dof = counts
    if method <= REML:
        mean = yy / (n if method == ML else dof)
        return 0.5 * (mean + math.sqrt(mean * mean + 4.0 * mean * (largest - 1.0)))
    if DL <= method <= HUNTER_SCHMIDT:
        least = dof if method == DL else n
        return 1.0 + min((moments[0] - least) / max(moments[1], TINY), yy)
    return yy / dof + (1.0 if method == SIDIK_JONKMAN else 0.0)


@inner
def settle(method: int, nodes: int, work: Work, voxel: Singles, taken: float) -> None:
    """Choose each voxel's nodes, and set its own numbers, from the sums at T = 1.

    ``taken`` is what a relabelling may still take off sum w less the trace: 1 at most, and 0 of a mean.
    """
    sums = work.sums
    for x in range(WIDE):
        n, dof, yy = sums[COUNT * WIDE + x], max(sums[FREE * WIDE + x], 1.0), sums[YY * WIDE + x]
        sw, swyy = sums[SW * WIDE + x], sums[SWYY * WIDE + x]
        trace = sw - sums[TRACE * WIDE + x]
        divided = sw if method == HUNTER_SCHMIDT else trace - taken
        reach = SLACK * _reach(method, (n, dof), yy, sums[LARGEST * WIDE + x], (swyy, divided))
        sums[STEP * WIDE + x] = math.exp(math.log(max(reach, SHORTEST)) / (nodes - 1))
        total, less, times = swyy, dof, 1.0 / max(trace, TINY)
        if method == HUNTER_SCHMIDT:
            less, times = n, 1.0 / sw
        elif method == HEDGES:
            total, less, times = yy, sums[EXPECTED * WIDE + x], 1.0 / dof
        elif method == SIDIK_JONKMAN:
            total, less, times = yy, 0.0, 1.0 / n
        voxel[DOF * WIDE + x] = dof
        voxel[RATIO * WIDE + x] = 1.0 / math.sqrt(sums[STEP * WIDE + x])
        voxel[GUESS_TOTAL * WIDE + x] = total
        voxel[GUESS_LESS * WIDE + x] = less
        voxel[GUESS_TIMES * WIDE + x] = times


@inner
def lay_fixed(method: int, work: Work, fixed: Singles, first: int) -> None:
    """Lay out what no relabelling changes at a node, in ``fixed`` from ``first`` on."""
    sums = work.sums
    for x in range(WIDE):
        root = math.sqrt(sums[STEP * WIDE + x])
        slope = (root - 1.0 / root) * sums[T * WIDE + x]  # dT / dq
        total, d_total = sums[SWYY * WIDE + x], -slope * sums[SWWYY * WIDE + x]
        criterion, d_criterion = total, d_total
        if method <= REML:  # minus twice the log likelihood
            criterion -= sums[LOG * WIDE + x]
            d_criterion += slope * sums[SW * WIDE + x]
        else:  # Q less its expectation
            criterion -= sums[FREE * WIDE + x]
        if method == REML:
            criterion += sums[LOG_DET * WIDE + x]
            d_criterion -= slope * sums[TRACE * WIDE + x]
        fixed[first + CRITERION * WIDE + x] = criterion
        fixed[first + D_CRITERION * WIDE + x] = d_criterion
        fixed[first + TOTAL * WIDE + x] = total
        fixed[first + D_TOTAL * WIDE + x] = d_total
        fixed[first + PLACE * WIDE + x] = sums[T * WIDE + x]
        sums[SLOPE * WIDE + x] = slope


@inner
def _lay_columns(work: Work, columns: Singles, first: int) -> None:
    """Lay out n and its slope at a node."""
    y, w, sums = work.y, work.w, work.sums
    for x in range(WIDE):
        sums[SCALE * WIDE + x] = 1.0 / math.sqrt(sums[SW * WIDE + x])
        sums[HALF * WIDE + x] = 0.5 * sums[SLOPE * WIDE + x] * sums[TRACE * WIDE + x]
    for i in range(columns.shape[0]):
        for x in range(WIDE):
            weight = w[i * WIDE + x]
            along = weight * y[i * WIDE + x] * sums[SCALE * WIDE + x]
            columns[i, first + x] = along
            columns[i, first + WIDE + x] = along * (sums[HALF * WIDE + x] - sums[SLOPE * WIDE + x] * weight)


@inner
def _lay_guess(method: int, work: Work, columns: Singles, first: int) -> None:
    """Lay out the n that a moment estimate needs: of DL and Hunter-Schmidt at T = 1, of the others unweighted."""
    y, w, sums = work.y, work.w, work.sums
    weighted = method <= HUNTER_SCHMIDT
    for i in range(columns.shape[0]):
        for x in range(WIDE):
            scale = 1.0 / math.sqrt(sums[(SW if weighted else COUNT) * WIDE + x])
            columns[i, first + x] = y[i * WIDE + x] * scale * (w[i * WIDE + x] if weighted else 1.0)


@inner
def _begin(maps: Maps, start: int, method: int, work: Work, nodes: int, voxel: Singles) -> None:
    """Take a tile of one sample, and settle its nodes."""
    take(maps, start, work)
    sums = work.sums
    for x in range(WIDE):
        n = sums[COUNT * WIDE + x]
        sums[FREE * WIDE + x] = n - 1.0
        sums[EXPECTED * WIDE + x] *= 1.0 - 1.0 / n
    weigh(work)
    _mean_sums(work)
    settle(method, nodes, work, voxel, 0.0)


@compiled
def lay_nodes(maps: Maps, start: int, method: int, work: Work, nodes: Nodes) -> None:
    """Lay out the voxels of one sample from ``start`` on.

    Parameters
    ----------
    maps : Maps
        B voxels, each covered by two maps or more.
    start : int
    method : int
        One of `METHODS`.
    work : Work
    nodes : Nodes
        Filled, beyond the last voxel with harmless numbers.
    """
    count = nodes.fixed.size // (NODE_ROWS * WIDE)
    _begin(maps, start, method, work, count, nodes.voxel)
    if method >= DL:
        _lay_guess(method, work, nodes.columns, 2 * count * WIDE)
    for j in range(count):
        if j:
            go_on(work)
            _mean_sums(work)
        lay_fixed(method, work, nodes.fixed, j * NODE_ROWS * WIDE)
        _lay_columns(work, nodes.columns, 2 * j * WIDE)


@compiled
def _reaches(maps: Maps, method: int, work: Work, voxel: Singles, out: Floats) -> None:
    """Write how far the log of T reaches at each voxel, (B,)."""
    for start in range(0, out.size, WIDE):
        _begin(maps, start, method, work, 2, voxel)
        for x in range(min(WIDE, out.size - start)):
            out[start + x] = math.log(work.sums[STEP * WIDE + x])


def log_reach(maps: Maps, method: int) -> Floats:
    """Tell how far apart the log of T has its first and its last node, (B,)."""
    out = np.zeros(maps.y.shape[1])
    _reaches(maps, method, new_work(maps.y.shape[0]), np.zeros(VOXEL_ROWS * WIDE, dtype=np.float32), out)
    return out


def count_nodes(reach: float, step: float) -> int:
    """Tell how many nodes there must be for steps of the log of T no longer than ``step``, within limits."""
    return int(min(max(math.ceil(reach / step) + 1, FEWEST), MOST))
