"""z of a mixed model in many relabellings at once, in single precision, and where it may be largest.

What single precision cannot tell, and what may be a map's largest, is named, for the
exact fit to decide. See `tau2_nodes.py` and `tau2_between.py`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, folded, inner
from ibma_app.stats.logtails import LOG_2, log1mexp, z_of_log_sf
from ibma_app.stats.tails import log_f_tail
from ibma_app.stats.tau2_between import FOUND_ROWS, LEFT, ONE, ZERO, N, find_tau2
from ibma_app.stats.tau2_nodes import DOF, NODE_ROWS, TOTAL, WIDE, Maps, Nodes, lay_nodes, new_nodes, new_work
from ibma_app.stats.tau2_nuisance import DesignNodes, lay_design_nodes, new_design_nodes, new_design_work
from ibma_app.stats.tau2_products import Reduced, new_reduced, reduce_row
from ibma_app.stats.ztable import STEPS, make_ztable

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]
Slots = NDArray[np.int32]


class Scaling(NamedTuple):
    """What scales the covariance: the larger of a share of the residual y'Py and a share of its dof."""

    residual: np.float32
    dof: np.float32
    sure: np.float32  # share of y'Py of the nuisance below which what the test leaves of it is rounding
    normal: bool  # z itself is the statistic


def _scaling(residual: float, dof: float, sure: float, *, normal: bool) -> Scaling:
    return Scaling(np.float32(residual), np.float32(dof), np.float32(sure), normal)


SCALINGS = {
    "knha": _scaling(1, 0, 1e-4, normal=False),
    "adhoc": _scaling(1, 1, -1, normal=False),
    "t": _scaling(0, 1, -1, normal=False),
    "z": _scaling(0, 1, -1, normal=True),
}
"""By the settings of `mixed.fit_mixed`."""

BATCH = 32  # relabellings of one product; with the tile, what the cache holds
NEAR = np.float32(0.04)  # heights that fall short of the largest by no more than this share may be the largest
MOST = 512  # candidates of a relabelling that are listed
_STEPS = np.float32(STEPS)
_ROW = np.uint32(STEPS + 1)  # of a table
_NAN = np.float32(np.nan)
_SHARE, _AT = FOUND_ROWS * WIDE, (FOUND_ROWS + 1) * WIDE  # further rows of what is found


class Tables(NamedTuple):
    """z of |r| = sqrt(t² / (t² + dof)), of each number of degrees of freedom that occurs; D of them."""

    z: Singles  # (D * (STEPS + 1),)
    scale: Singles  # (D,) steps per one
    slots: Slots  # by dof: which of the D


class Plan(NamedTuple):
    """What is computed of each relabelling."""

    method: int  # of `tau2_nodes.METHODS`
    scaling: Scaling  # of `SCALINGS`
    nodes: int  # J
    sides: int  # 1 or -1: z counts in this direction; 2: in both
    prune: bool  # heights that cannot be the largest of a block are left out; maps of z are not wanted
    tables: Tables


class Scan(NamedTuple):
    """What M relabellings make of B voxels."""

    z: Singles  # (M, B); (M, 0) when pruned
    counts: Integers  # (M,) candidates: voxels whose height may be the largest, or is not known
    voxels: Slots  # (M, MOST) the first of them
    heights: Singles  # (M, MOST) theirs; NaN where not known


class _Best(NamedTuple):
    """What is the highest so far."""

    height: Singles  # (M,)
    share: Singles  # (M, D) of the voxels with the same dof: n² over what `_may_be_high` compares it with


class _Space(NamedTuple):
    """Work space of a tile."""

    which: Slots  # (WIDE,) the table of each voxel
    found: Singles  # ((FOUND_ROWS + 2) * WIDE,)
    out: Singles  # (WIDE,) z
    heights: Singles  # (WIDE,) in the direction that counts


class _Rows(NamedTuple):
    """A tile in one relabelling."""

    row: Singles  # n and its slope at each node, and n of a guess
    fixed: Singles
    voxel: Singles


class _Place(NamedTuple):
    """Where a tile's results belong."""

    row: int
    voxel: int
    width: int  # voxels


def make_tables(dofs: Integers) -> Tables:
    """Tabulate z for some degrees of freedom, each > 0."""
    dofs = np.unique(dofs)
    slots = np.zeros(int(dofs.max(initial=0)) + 1, dtype=np.int32)
    slots[dofs] = np.arange(dofs.size)
    tables = [make_ztable(float(dof)) for dof in dofs]
    scale = np.array([table.steps_per_one for table in tables], dtype=np.float32)
    return Tables(np.concatenate([table.z for table in tables]).astype(np.float32), scale, slots)


@folded
def _left(scaling: Scaling, n: np.float32, left: np.float32, dof: np.float32) -> np.float32:
    """Return what n² / left * dof is t² of, from what is left of y'Py."""
    scaled = max(scaling.residual * left, scaling.dof * dof)
    return scaled if scaled > scaling.sure * (left + n * n) else _NAN


@inner
def _exact_z(n: float, left: float, dof: float) -> float:
    """Return z of t = n sqrt(dof / left)."""
    tail, upper = log_f_tail(n * n / left * dof, 1.0, dof)
    return math.copysign(z_of_log_sf((tail if upper else log1mexp(tail)) - LOG_2), n)


@inner
def _to_z(plan: Plan, voxel: Singles, space: _Space) -> None:
    """Write z of a tile, NaN where single precision cannot tell it."""
    tables, scaling, which, found, out = plan.tables, plan.scaling, space.which, space.found, space.out
    z, scale, beyond = tables.z, tables.scale, ZERO
    for x in range(WIDE):
        n = found[N + x]
        left = _left(scaling, n, found[LEFT + x], voxel[DOF * WIDE + x])
        found[_SHARE + x] = abs(n) / math.sqrt(n * n + left)
    if scaling.normal:
        for x in range(WIDE):
            out[x] = found[N + x]
        return
    for x in range(WIDE):
        slot = np.uint32(which[x])
        at = found[_SHARE + x] * scale[slot]
        i = np.uint32(at if at < _STEPS else ZERO)  # NaN too
        low = z[slot * _ROW + i]
        out[x] = low + (at - np.float32(i)) * (z[slot * _ROW + i + np.uint32(1)] - low)
        found[_AT + x] = at
    for x in range(WIDE):  # by itself: it shares instructions
        at = found[_AT + x]
        size = out[x] if at < _STEPS else _NAN
        out[x] = size if found[N + x] > ZERO else -size
        beyond = max(beyond, at)
    if beyond >= _STEPS:
        for x in range(WIDE):
            n, dof = found[N + x], voxel[DOF * WIDE + x]
            if found[_AT + x] >= _STEPS:
                left = _left(scaling, n, found[LEFT + x], dof)
                out[x] = np.float32(_exact_z(np.float64(n), np.float64(left), np.float64(dof)))


@inner
def _may_be_high(plan: Plan, row: Singles, fixed: Singles, best: Singles, space: _Space) -> bool:
    """Tell whether any voxel of a tile might come near the highest so far, wherever between the nodes its tau2 is."""
    least, bar = (ONE - NEAR) * (ONE - NEAR), space.out
    for x in range(WIDE):
        bar[x] = best[space.which[x]] * least
    high = 0
    for j in range(plan.nodes):
        a, b = 2 * j * WIDE, j * NODE_ROWS * WIDE
        if plan.scaling.residual > ZERO:
            for x in range(WIDE):
                high += 0 if row[a + x] * row[a + x] < bar[x] * fixed[b + TOTAL * WIDE + x] else 1
        else:
            for x in range(WIDE):
                high += 0 if row[a + x] * row[a + x] < bar[x] else 1
    return high > 0


@inner
def _raise_best(plan: Plan, width: int, space: _Space, best: Singles) -> None:
    """Note the largest shares of a tile, by dof."""
    found = space.found
    for x in range(width):
        share = found[N + x] * found[N + x]
        if plan.scaling.residual > ZERO:
            share = found[_SHARE + x] * found[_SHARE + x]
        if space.heights[x] > ZERO and share > best[space.which[x]]:
            best[space.which[x]] = share


@inner
def _note_high(r: int, first: int, width: int, heights: Singles, best: Singles, scan: Scan) -> bool:
    """List the candidates of a tile; return whether there are any."""
    bar = best[r] - NEAR * abs(best[r])
    high = 0
    for x in range(width):
        high += 0 if heights[x] < bar else 1
    if high == 0:
        return False
    for x in range(width):
        if heights[x] > best[r]:
            best[r] = heights[x]
    bar = best[r] - NEAR * abs(best[r])
    for x in range(width):
        if not heights[x] < bar:
            at = scan.counts[r]
            if at < scan.voxels.shape[1]:
                scan.voxels[r, at] = first + x
                scan.heights[r, at] = heights[x]
            scan.counts[r] += 1
    return True


@inner
def _scan_row(plan: Plan, rows: _Rows, at: _Place, best: _Best, scan: Scan, space: _Space) -> None:
    """Scan one tile in one relabelling."""
    if plan.prune and not _may_be_high(plan, rows.row, rows.fixed, best.share[at.row], space):
        return
    find_tau2(plan.method, rows.row, rows.fixed, rows.voxel, space.found)
    _to_z(plan, rows.voxel, space)
    out, heights, side = space.out, space.heights, np.float32(plan.sides)
    for x in range(WIDE):
        heights[x] = abs(out[x]) if plan.sides == 2 else side * out[x]
    if not plan.prune:
        for x in range(at.width):
            scan.z[at.row, at.voxel + x] = out[x]
    if _note_high(at.row, at.voxel, at.width, heights, best.height, scan) and plan.prune:
        _raise_best(plan, at.width, space, best.share[at.row])


@inner
def _find_tables(tables: Tables, voxel: Singles, which: Slots) -> None:
    """Tell which table of z each voxel has."""
    for x in range(WIDE):
        which[x] = tables.slots[min(int(voxel[DOF * WIDE + x]), tables.slots.size - 1)]


@compiled
def _scan_mean(plan: Plan, products: Singles, nodes: Nodes, at: _Place, best: _Best, scan: Scan, space: _Space) -> None:
    """Scan one tile of one sample in the relabellings whose products with it are given."""
    _find_tables(plan.tables, nodes.voxel, space.which)
    for b in range(min(products.shape[0], scan.counts.size - at.row)):
        rows = _Rows(products[b], nodes.fixed, nodes.voxel)
        _scan_row(plan, rows, _Place(at.row + b, at.voxel, at.width), best, scan, space)


@compiled
def _scan_design(
    plan: Plan,
    products: tuple[Singles, Singles],
    laid: DesignNodes,
    at: _Place,
    best: _Best,
    scan: Scan,
    space: tuple[_Space, Reduced],
) -> None:
    """Scan one tile of a design in the relabellings whose products with it, of x and of x², are given."""
    work, reduced = space
    _find_tables(plan.tables, laid.nodes.voxel, work.which)
    for b in range(min(products[0].shape[0], scan.counts.size - at.row)):
        reduce_row(plan.method, products[0][b], products[1][b], laid, reduced)
        rows = _Rows(reduced.row, reduced.fixed, reduced.voxel)
        _scan_row(plan, rows, _Place(at.row + b, at.voxel, at.width), best, scan, work)


def _new_scan(plan: Plan, n_rows: int, n_voxels: int) -> tuple[Scan, _Best, _Space]:
    """Allocate for M relabellings of B voxels."""
    scan = Scan(
        np.empty((n_rows, 0 if plan.prune else n_voxels), dtype=np.float32),
        np.zeros(n_rows, dtype=np.int64),
        np.zeros((n_rows, MOST), dtype=np.int32),
        np.zeros((n_rows, MOST), dtype=np.float32),
    )
    shares = np.zeros((n_rows, plan.tables.scale.size), dtype=np.float32)
    best = _Best(np.full(n_rows, -np.inf, dtype=np.float32), shares)
    single = (np.zeros(rows * WIDE, dtype=np.float32) for rows in (FOUND_ROWS + 2, 1, 1))
    return scan, best, _Space(np.zeros(WIDE, dtype=np.int32), *single)


def _in_batches(weights: Floats) -> list[tuple[int, Singles]]:
    """Cut relabellings into batches of one size, so that products have one shape and their sums one order."""
    n_rows, n_maps = weights.shape
    single = np.zeros((-(-n_rows // BATCH) * BATCH, n_maps), dtype=np.float32)
    single[:n_rows] = weights
    return [(row, single[row : row + BATCH]) for row in range(0, n_rows, BATCH)]


def scan_means(plan: Plan, maps: Maps, signs: Floats) -> Scan:
    """Compute z of one sample's mean in some relabellings, and list where it may be largest.

    Parameters
    ----------
    plan : Plan
    maps : Maps
        K maps at B voxels, each covered by two or more.
    signs : ndarray, shape (M, K)
        What each map is multiplied with: 1 or -1.

    Returns
    -------
    Scan
        The same bits whatever the voxels and relabellings beside.
    """
    n_maps, n_voxels = maps.y.shape
    scan, best, space = _new_scan(plan, signs.shape[0], n_voxels)
    nodes, work = new_nodes(n_maps, plan.method, plan.nodes), new_work(n_maps)
    products = np.zeros((BATCH, nodes.columns.shape[1]), dtype=np.float32)
    batches = _in_batches(signs)
    for voxel in range(0, n_voxels, WIDE):
        lay_nodes(maps, voxel, plan.method, work, nodes)
        for row, batch in batches:
            np.matmul(batch, nodes.columns, out=products)
            place = _Place(row, voxel, min(WIDE, n_voxels - voxel))
            _scan_mean(plan, products, nodes, place, best, scan, space)
    return scan


def scan_designs(plan: Plan, maps: Maps, regressors: Floats, nuisance: Floats) -> Scan:
    """Compute z of a tested regressor in some relabellings, and list where it may be largest.

    Parameters
    ----------
    plan : Plan
    maps : Maps
        K maps at B voxels, each covered by more than the design has columns there.
    regressors : ndarray, shape (M, K)
        What is tested, in each relabelling; of about norm 1.
    nuisance : ndarray, shape (P, K)
        What is not; orthonormal.

    Returns
    -------
    Scan
        As of `scan_means`. z is NaN where the regressor depends on the nuisance, up to rounding.
    """
    n_maps, n_voxels = maps.y.shape
    scan, best, space = _new_scan(plan, regressors.shape[0], n_voxels)
    laid, work = new_design_nodes(n_maps, plan.nodes, len(nuisance)), new_design_work(n_maps, len(nuisance))
    pair = laid.nodes.columns, laid.squares
    products = tuple(np.zeros((BATCH, columns.shape[1]), dtype=np.float32) for columns in pair)
    both = list(zip(_in_batches(regressors), _in_batches(regressors**2), strict=True))
    spaces = space, new_reduced(laid)
    for voxel in range(0, n_voxels, WIDE):
        lay_design_nodes(maps, nuisance, voxel, plan.method, work, laid)
        for (row, batch), (_, squared) in both:
            np.matmul(batch, pair[0], out=products[0])
            np.matmul(squared, pair[1], out=products[1])
            place = _Place(row, voxel, min(WIDE, n_voxels - voxel))
            _scan_design(plan, products, laid, place, best, scan, spaces)
    return scan
