"""Voxels of any design laid out at fixed values of tau2: the tested regressor x is relabelled, the nuisance Z stays.

With P = W - WZ (Z'WZ)^-1 Z'W, a test needs x'Py and x'Px. On columns z of Z made
orthonormal in the weights (z'Wz = I),

    x'Py = sum x Py,         which changes with tau2 by  -sum x PPy,
    x'Px = sum w x² - c'c,   which changes by  -(sum w² x² - 2 c'e + c'Sc),
    c = sum w x z,  e = sum w² x z,  S = sum w² z z',

so that all that a relabelling changes are products of x, or of x², with what is
laid out here. `tau2_products.py` makes of them what `tau2_between.py` takes.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.tau2_nodes import (
    COUNT,
    DL,
    EXPECTED,
    FREE,
    GUESS_TIMES,
    GUESS_TOTAL,
    HEDGES,
    LOG_DET,
    NODE_ROWS,
    SIDIK_JONKMAN,
    SLOPE,
    STEP,
    SW,
    SWWYY,
    SWYY,
    TRACE,
    VOXEL_ROWS,
    WIDE,
    YY,
    Maps,
    Nodes,
    Work,
    go_on,
    lay_fixed,
    new_work,
    settle,
    take,
    weigh,
)

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_DEPENDENT = 1e-12  # share of a column's square that others leave of it, when it is theirs


class DesignNodes(NamedTuple):
    """A tile of a design laid out: a block for each node, then one for the guess of a moment estimate.

    A row is WIDE numbers. In a guess w² is what its weights' trace needs: v where they are equal.
    """

    nodes: Nodes  # columns: (K, > (J + 1) (2 + 2 P) * WIDE) Py, its slope, w z of each z, and w² z
    squares: Singles  # (K, > (J + 1) 2 * WIDE) w and w²
    gram: Singles  # ((J + 1) P P * WIDE,) S
    columns: int  # P


class DesignWork(NamedTuple):
    """Work space; a row is WIDE numbers."""

    work: Work
    z: Floats  # (P, K * WIDE) the orthonormal columns
    py: Floats  # (K * WIDE,)
    ppy: Floats  # (K * WIDE,)
    second: Floats  # (K * WIDE,) what stands for w² in slopes
    factor: Floats  # (P, P, WIDE) of Z'WZ
    inverse: Floats  # (P, WIDE) of its diagonal; 0 where a column depends on those before it
    along: Floats  # (P, WIDE)
    spread: Floats  # (WIDE,) the variance of the effects about their plain mean


def new_design_nodes(n_maps: int, nodes: int, columns: int) -> DesignNodes:
    """Allocate for K maps at J nodes, with P columns of nuisance."""
    rows = (nodes + 1) * (2 + 2 * columns)
    laid = Nodes(
        np.zeros((n_maps, rows * WIDE + 16), dtype=np.float32),
        np.zeros(nodes * NODE_ROWS * WIDE, dtype=np.float32),
        np.zeros(VOXEL_ROWS * WIDE, dtype=np.float32),
    )
    squares = np.zeros((n_maps, 2 * (nodes + 1) * WIDE + 16), dtype=np.float32)
    gram = np.zeros((nodes + 1) * columns * columns * WIDE, dtype=np.float32)
    return DesignNodes(laid, squares, gram, columns)


def new_design_work(n_maps: int, columns: int) -> DesignWork:
    """Allocate for K maps, with P columns of nuisance."""
    py, ppy, second = (np.zeros(n_maps * WIDE) for _ in range(3))
    return DesignWork(
        new_work(n_maps),
        np.zeros((columns, n_maps * WIDE)),
        py,
        ppy,
        second,
        np.zeros((columns, columns, WIDE)),
        np.zeros((columns, WIDE)),
        np.zeros((columns, WIDE)),
        np.zeros(WIDE),
    )


@inner
def _product(nuisance: Floats, p: int, q: int, w: Floats, out: Floats) -> None:
    """Sum w z z' of two columns."""
    for x in range(WIDE):
        out[x] = 0.0
    for i in range(nuisance.shape[1]):
        product, weights = nuisance[p, i] * nuisance[q, i], w[i * WIDE : (i + 1) * WIDE]
        for x in range(WIDE):
            out[x] += product * weights[x]


@inner
def _factor(nuisance: Floats, space: DesignWork) -> None:
    """Factor Z'WZ = L L'; a column that depends on those before it is left out."""
    factor, inverse = space.factor, space.inverse
    for p in range(nuisance.shape[0]):
        for q in range(p + 1):
            entry = factor[p, q]
            _product(nuisance, p, q, space.work.w, entry)
            inverse[p] = entry
            for s in range(q):
                one, other = factor[p, s], factor[q, s]
                for x in range(WIDE):
                    entry[x] -= one[x] * other[x]
            if q < p:
                for x in range(WIDE):
                    entry[x] *= inverse[q, x]
        for x in range(WIDE):
            sound = factor[p, p, x] > _DEPENDENT * inverse[p, x]
            factor[p, p, x] = math.sqrt(factor[p, p, x]) if sound else 1.0
            inverse[p, x] = 1.0 / factor[p, p, x] if sound else 0.0


@inner
def _orthonormalise(nuisance: Floats, space: DesignWork) -> None:
    """Make the nuisance orthonormal in the weights."""
    _factor(nuisance, space)
    for p in range(nuisance.shape[0]):
        for i in range(nuisance.shape[1]):
            column = space.z[p, i * WIDE : (i + 1) * WIDE]
            column[:] = nuisance[p, i]
            for s in range(p):
                other, share = space.z[s, i * WIDE : (i + 1) * WIDE], space.factor[p, s]
                for x in range(WIDE):
                    column[x] -= share[x] * other[x]
            for x in range(WIDE):
                column[x] *= space.inverse[p, x]


@inner
def _project(values: Floats, space: DesignWork, out: Floats) -> None:
    """Write P times some values, (K * WIDE,)."""
    w, z, along = space.work.w, space.z, space.along
    n_maps = out.size // WIDE
    for p in range(z.shape[0]):
        along[p] = 0.0
        for i in range(n_maps):
            a = i * WIDE
            for x in range(WIDE):
                along[p, x] += w[a + x] * z[p, a + x] * values[a + x]
    for i in range(n_maps):
        a = i * WIDE
        left = out[a : a + WIDE]
        for x in range(WIDE):
            left[x] = values[a + x]
        for p in range(z.shape[0]):
            for x in range(WIDE):
                left[x] -= along[p, x] * z[p, a + x]
        for x in range(WIDE):
            left[x] *= w[a + x]


@inner
def _sum_design(space: DesignWork) -> None:
    """Set what the nuisance makes of the sums, with its columns and Py there."""
    y, w, sums = space.work.y, space.work.w, space.work.sums
    for x in range(WIDE):
        sums[SWYY * WIDE + x] = 0.0
        sums[SWWYY * WIDE + x] = 0.0
        sums[LOG_DET * WIDE + x] = 0.0
        sums[TRACE * WIDE + x] = 0.0
    for i in range(space.py.size // WIDE):
        a = i * WIDE
        for x in range(WIDE):
            sums[SWYY * WIDE + x] += y[a + x] * space.py[a + x]
            sums[SWWYY * WIDE + x] += space.py[a + x] * space.py[a + x]
    for p in range(space.z.shape[0]):
        for x in range(WIDE):
            sums[LOG_DET * WIDE + x] += 2.0 * math.log(space.factor[p, p, x])
        for i in range(space.py.size // WIDE):
            a = i * WIDE
            for x in range(WIDE):
                along = w[a + x] * space.z[p, a + x]
                sums[TRACE * WIDE + x] += along * along


@inner
def _lay_block(space: DesignWork, block: int, laid: DesignNodes) -> None:
    """Lay out Py, PPy with its sign, w z, w² z, w, w² and S as they are in the work space."""
    w, z, second = space.work.w, space.z, space.second
    columns = z.shape[0]
    first = block * (2 + 2 * columns) * WIDE
    for i in range(laid.squares.shape[0]):
        a = i * WIDE
        row = laid.nodes.columns[i, first : first + (2 + 2 * columns) * WIDE]
        squares = laid.squares[i, 2 * block * WIDE : 2 * (block + 1) * WIDE]
        for x in range(WIDE):
            row[x] = space.py[a + x]
            row[WIDE + x] = -space.ppy[a + x]
            squares[x] = w[a + x]
            squares[WIDE + x] = second[a + x]
        for p in range(columns):
            one, other = row[(2 + p) * WIDE :], row[(2 + columns + p) * WIDE :]
            for x in range(WIDE):
                one[x] = w[a + x] * z[p, a + x]
                other[x] = second[a + x] * z[p, a + x]
    for p in range(columns):
        for q in range(columns):
            total = space.along[p]
            total[:] = 0.0
            for i in range(laid.squares.shape[0]):
                a = i * WIDE
                for x in range(WIDE):
                    total[x] += second[a + x] * z[p, a + x] * z[q, a + x]
            at = ((block * columns + p) * columns + q) * WIDE
            laid.gram[at : at + WIDE] = total


@inner
def _weigh_equally(space: DesignWork) -> None:
    """Set equal weights of what is covered, variances in the place of w², and the variance of the effects."""
    y, v, w, sums = space.work.y, space.work.v, space.work.w, space.work.sums
    mean, spread = space.ppy, space.spread  # the former for work
    for x in range(WIDE):
        mean[x] = 0.0
        spread[x] = 0.0
    for a in range(0, space.second.size, WIDE):
        for x in range(WIDE):
            covered = v[a + x] < np.inf
            w[a + x] = 1.0 if covered else 0.0
            space.second[a + x] = 1.0 + v[a + x] if covered else 0.0
            mean[x] += y[a + x] / sums[COUNT * WIDE + x]
    for a in range(0, space.second.size, WIDE):
        for x in range(WIDE):
            spread[x] += w[a + x] * (y[a + x] - mean[x]) ** 2 / sums[COUNT * WIDE + x]


@inner
def _take_out(nuisance: Floats, space: DesignWork) -> None:
    """Take the nuisance out of the effects, with equal weights, and count what is left."""
    y, sums = space.work.y, space.work.sums
    _weigh_equally(space)
    _orthonormalise(nuisance, space)
    _project(y, space, space.py)
    for x in range(WIDE):
        sums[FREE * WIDE + x] = sums[COUNT * WIDE + x] - 1.0
        sums[YY * WIDE + x] = 0.0
    for a in range(0, space.second.size, WIDE):
        for x in range(WIDE):
            y[a + x] = space.py[a + x]
            sums[YY * WIDE + x] += y[a + x] ** 2
    for p in range(nuisance.shape[0]):
        for x in range(WIDE):
            sums[FREE * WIDE + x] -= 1.0 if space.inverse[p, x] > 0.0 else 0.0
        for a in range(0, space.second.size, WIDE):
            for x in range(WIDE):
                sums[EXPECTED * WIDE + x] -= space.second[a + x] * space.z[p, a + x] ** 2


@inner
def _weigh_design(nuisance: Floats, space: DesignWork) -> None:
    """Orthonormalise, project and sum with the weights that are there."""
    _orthonormalise(nuisance, space)
    _project(space.work.y, space, space.py)
    _sum_design(space)


@inner
def _begin(maps: Maps, nuisance: Floats, start: int, method: int, space: DesignWork, laid: DesignNodes) -> None:
    """Take a tile, settle its nodes and lay out the guess of a moment estimate."""
    work, voxel = space.work, laid.nodes.voxel
    count = laid.nodes.fixed.size // (NODE_ROWS * WIDE)
    take(maps, start, work)
    _take_out(nuisance, space)
    space.ppy[:] = 0.0
    if method == HEDGES:
        _lay_block(space, count, laid)
    weigh(work)
    _weigh_design(nuisance, space)
    if method == SIDIK_JONKMAN:
        for x in range(WIDE):
            reached = space.spread[x] * max(work.sums[FREE * WIDE + x], 1.0)
            work.sums[YY * WIDE + x] = max(work.sums[YY * WIDE + x], reached)
    settle(method, count, work, voxel, 1.0)
    for x in range(WIDE):
        if method == DL:  # of which a relabelling takes its own part
            voxel[GUESS_TIMES * WIDE + x] = work.sums[SW * WIDE + x] - work.sums[TRACE * WIDE + x]
        elif method == SIDIK_JONKMAN:
            voxel[GUESS_TOTAL * WIDE + x] = space.spread[x]
            voxel[GUESS_TIMES * WIDE + x] = 1.0
    if DL <= method < HEDGES:
        for a in range(space.second.size):
            space.second[a] = work.w[a] * work.w[a]
        _lay_block(space, count, laid)


@compiled
def lay_design_nodes(
    maps: Maps, nuisance: Floats, start: int, method: int, space: DesignWork, laid: DesignNodes
) -> None:
    """Lay out the voxels of a design from ``start`` on.

    Parameters
    ----------
    maps : Maps
        B voxels, each covered by more maps than the design has columns there.
    nuisance : ndarray, shape (P, K)
    start : int
    method : int
        One of `tau2_nodes.METHODS`.
    space : DesignWork
    laid : DesignNodes
        Filled, beyond the last voxel with harmless numbers.
    """
    work, sums = space.work, space.work.sums
    _begin(maps, nuisance, start, method, space, laid)
    for j in range(laid.nodes.fixed.size // (NODE_ROWS * WIDE)):
        if j:
            go_on(work)
            _weigh_design(nuisance, space)
        lay_fixed(method, work, laid.nodes.fixed, j * NODE_ROWS * WIDE)
        _project(space.py, space, space.ppy)
        for i in range(maps.y.shape[0]):
            for x in range(WIDE):
                slope = sums[SLOPE * WIDE + x]
                space.ppy[i * WIDE + x] *= slope
                space.second[i * WIDE + x] = slope * work.w[i * WIDE + x] ** 2
        _lay_block(space, j, laid)


@compiled
def _survey(
    maps: Maps, nuisance: Floats, method: int, space: DesignWork, laid: DesignNodes, out: tuple[Floats, Floats]
) -> None:
    """Write how far the log of T reaches, and the dof, of each voxel."""
    reach, dof = out
    for start in range(0, reach.size, WIDE):
        _begin(maps, nuisance, start, method, space, laid)
        for x in range(min(WIDE, reach.size - start)):
            reach[start + x] = math.log(space.work.sums[STEP * WIDE + x])
            dof[start + x] = space.work.sums[FREE * WIDE + x]


def survey_design(maps: Maps, nuisance: Floats, method: int) -> tuple[Floats, Floats]:
    """Tell how far apart the log of T has its first and last node, and the dof, of each voxel, both (B,)."""
    n_maps, columns = maps.y.shape[0], nuisance.shape[0]
    out = np.zeros(maps.y.shape[1]), np.zeros(maps.y.shape[1])
    _survey(maps, nuisance, method, new_design_work(n_maps, columns), new_design_nodes(n_maps, 2, columns), out)
    return out
