"""What a relabelling's products with a design's tile make of it: the rows that `tau2_between.py` takes."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import inner
from ibma_app.stats.tau2_nodes import (
    CRITERION,
    D_CRITERION,
    DL,
    GUESS_LESS,
    GUESS_TIMES,
    HEDGES,
    NODE_ROWS,
    REML,
    SIDIK_JONKMAN,
    VOXEL_ROWS,
    WIDE,
)
from ibma_app.stats.tau2_nuisance import DesignNodes

Singles = NDArray[np.float32]

_SURE = np.float32(1e-4)  # share of sum w x² below which what the nuisance leaves of it is rounding
_ZERO, _ONE, _TWO, _NAN = np.float32(0), np.float32(1), np.float32(2), np.float32(np.nan)
_THIRD, _FIFTH, _SEVENTH = (np.float32(1 / number) for number in (3, 5, 7))
_SLOPE, _BEFORE, _LOG, _POISON = (row * WIDE for row in range(1, 5))


class Reduced(NamedTuple):
    """One relabelling of a tile, as `tau2_between.find_tau2` takes it."""

    row: Singles  # ((2 J + 1) * WIDE,)
    fixed: Singles
    voxel: Singles
    explained: Singles  # (5 * WIDE,) x'Px, its slope, the same at the node before, its log over the first, for work


def new_reduced(laid: DesignNodes) -> Reduced:
    """Allocate for a tile of J nodes."""
    rows = 2 * (laid.nodes.fixed.size // (NODE_ROWS * WIDE)) + 1
    sizes = rows * WIDE, laid.nodes.fixed.size, VOXEL_ROWS * WIDE, 5 * WIDE
    row, fixed, voxel, explained = (np.zeros(size, dtype=np.float32) for size in sizes)
    return Reduced(row, fixed, voxel, explained)


@inner
def _explain(row: Singles, squares: Singles, gram: Singles, columns: int, explained: Singles) -> None:
    """Set x'Px and its slope from one block's products; NaN where rounding is all that the nuisance leaves."""
    for x in range(WIDE):
        explained[x] = squares[x]
        explained[_SLOPE + x] = -squares[WIDE + x]
    for p in range(columns):
        along, second = row[(2 + p) * WIDE :], row[(2 + columns + p) * WIDE :]
        for x in range(WIDE):
            explained[x] -= along[x] * along[x]
            explained[_SLOPE + x] += _TWO * along[x] * second[x]
        for q in range(columns):
            other, entry = row[(2 + q) * WIDE :], gram[(p * columns + q) * WIDE :]
            for x in range(WIDE):
                explained[_SLOPE + x] -= along[x] * other[x] * entry[x]
    for x in range(WIDE):
        explained[x] = explained[x] if explained[x] > _SURE * squares[x] else _NAN


@inner
def _reduce_guess(method: int, row: Singles, squares: Singles, laid: DesignNodes, reduced: Reduced) -> None:
    """Set what a moment estimate takes; ``row`` and ``squares`` begin with its block."""
    explained, voxel, columns = reduced.explained, reduced.voxel, laid.columns
    n = reduced.row[reduced.row.size - WIDE :]
    if method == SIDIK_JONKMAN:
        n[:] = _ZERO
        return
    gram = laid.gram[laid.gram.size - columns * columns * WIDE :]
    _explain(row, squares, gram, columns, explained)
    for x in range(WIDE):
        n[x] = row[x] / math.sqrt(explained[x])
        taken = explained[_SLOPE + x] / explained[x]
        if method == DL:
            voxel[GUESS_TIMES * WIDE + x] = _ONE / (laid.nodes.voxel[GUESS_TIMES * WIDE + x] + taken)
        elif method == HEDGES:
            voxel[GUESS_LESS * WIDE + x] = laid.nodes.voxel[GUESS_LESS * WIDE + x] + taken


@inner
def _add_log(j: int, fixed: Singles, explained: Singles) -> None:
    """Add log x'Px, up to a constant, and its slope to the criterion of node j."""
    b = j * NODE_ROWS * WIDE
    for x in range(WIDE):
        rise = explained[x] - explained[_BEFORE + x]
        r = rise / (explained[x] + explained[_BEFORE + x]) if j else _ZERO
        r2 = r * r  # log (1 + r) / (1 - r), r small from one node to the next
        grown = _TWO * r * (_ONE + r2 * (_THIRD + r2 * (_FIFTH + r2 * _SEVENTH)))
        explained[_LOG + x] = explained[_LOG + x] + grown if j else _ZERO
        fixed[b + CRITERION * WIDE + x] += explained[_LOG + x]
        fixed[b + D_CRITERION * WIDE + x] += explained[_SLOPE + x] / explained[x]


@inner
def reduce_row(method: int, row: Singles, squares: Singles, laid: DesignNodes, reduced: Reduced) -> None:
    """Reduce one relabelling's products.

    Parameters
    ----------
    method : int
        One of `tau2_nodes.METHODS`.
    row, squares : ndarray
        Products of x with ``laid.nodes.columns``, and of x² with ``laid.squares``.
    laid : DesignNodes
    reduced : Reduced
        Filled. n is NaN where x depends on the nuisance, up to rounding.
    """
    explained, fixed, columns = reduced.explained, reduced.fixed, laid.columns
    count, each = fixed.size // (NODE_ROWS * WIDE), (2 + 2 * columns) * WIDE
    reduced.voxel[:] = laid.nodes.voxel
    fixed[:] = laid.nodes.fixed
    explained[_POISON : _POISON + WIDE] = _ZERO
    for j in range(count):
        block, a = row[j * each :], 2 * j * WIDE
        for x in range(WIDE):
            explained[_BEFORE + x] = explained[x]
        _explain(block, squares[2 * j * WIDE :], laid.gram[j * columns * columns * WIDE :], columns, explained)
        for x in range(WIDE):
            root = math.sqrt(explained[x])
            n = block[x] / root
            reduced.row[a + x] = n
            reduced.row[a + WIDE + x] = block[WIDE + x] / root - n * explained[_SLOPE + x] / (_TWO * explained[x])
            explained[_POISON + x] += _ZERO * n
        if method == REML:
            _add_log(j, fixed, explained)
    if method >= DL:
        _reduce_guess(method, row[count * each :], squares[2 * count * WIDE :], laid, reduced)
    for j in range(count):  # what is not known at one node is known at none
        for x in range(WIDE):
            reduced.row[2 * j * WIDE + x] += explained[_POISON + x]
