"""Each relabelling's tau2, found between the nodes of `tau2_nodes.py`, with what a test needs there.

Between two nodes every function is the cubic of its values and slopes. Where
the criterion, minus twice the log likelihood, has a minimum, that of its cubic
is taken; where it has several, the lowest. All is in single precision and
without a branch for a voxel, so that many voxels share an instruction.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import folded, inner
from ibma_app.stats.tau2_nodes import (
    CRITERION,
    D_CRITERION,
    D_TOTAL,
    DOF,
    GUESS_LESS,
    GUESS_TIMES,
    GUESS_TOTAL,
    NODE_ROWS,
    PLACE,
    RATIO,
    REML,
    ROOT,
    SIDIK_JONKMAN,
    TOTAL,
    WIDE,
)

Singles = NDArray[np.float32]

Single = np.float32
ZERO, ONE, _TWO, _THREE = (Single(number) for number in range(4))
_G, _DG, _E, _DE, _AT = (row * WIDE for row in (CRITERION, D_CRITERION, TOTAL, D_TOTAL, PLACE))
_NEXT = NODE_ROWS * WIDE  # from one node to the next

N, LEFT, LOWEST, WHERE = (row * WIDE for row in range(4))
FOUND_ROWS = 4
"""Rows of what is found: n = x'Py / sqrt(x'Px) and y'Py less n² at the tau2; the rest is work space."""


@folded
def _cubic(f0: Single, d0: Single, f1: Single, d1: Single, q: Single) -> Single:
    """Return the cubic of two values and slopes."""
    rise = f1 - f0
    return f0 + q * (d0 + q * ((_THREE * rise - d0 - d0 - d1) + q * (d0 + d1 - rise - rise)))


@inner
def _start(row: Singles, fixed: Singles, found: Singles) -> None:
    """Take the first node, tau2 = 0."""
    for x in range(WIDE):
        n = row[x]
        found[N + x] = n
        found[LEFT + x] = fixed[_E + x] - n * n
        found[LOWEST + x] = fixed[_G + x] - n * n


@inner
def _find_lowest(row: Singles, fixed: Singles, nodes: int, found: Singles) -> None:
    """Find the lowest minimum of the criterion."""
    for j in range(nodes - 1):
        a, b = 2 * j * WIDE, j * _NEXT
        for x in range(WIDE):
            n0, s0, n1, s1 = row[a + x], row[a + WIDE + x], row[a + 2 * WIDE + x], row[a + 3 * WIDE + x]
            m0, m1, t0, t1 = n0 * n0, n1 * n1, _TWO * n0 * s0, _TWO * n1 * s1
            f0, f1 = fixed[b + _G + x] - m0, fixed[b + _NEXT + _G + x] - m1
            d0, d1 = fixed[b + _DG + x] - t0, fixed[b + _NEXT + _DG + x] - t1
            rise = f1 - f0
            bend, twist = _THREE * rise - d0 - d0 - d1, d0 + d1 - rise - rise
            q = -d0 / (bend + math.sqrt(max(bend * bend - _THREE * twist * d0, ZERO)))
            lowest = f0 + q * (d0 + q * (bend + q * twist))
            here = (d0 < ZERO) & (d1 >= ZERO) & (lowest < found[LOWEST + x])
            n = _cubic(n0, s0, n1, s1, q)
            e0, e1 = fixed[b + _E + x] - m0, fixed[b + _NEXT + _E + x] - m1
            left = _cubic(e0, fixed[b + _DE + x] - t0, e1, fixed[b + _NEXT + _DE + x] - t1, q)
            found[N + x] = n if here else found[N + x]
            found[LEFT + x] = left if here else found[LEFT + x]
            found[LOWEST + x] = lowest if here else found[LOWEST + x]


@inner
def _find_root(row: Singles, fixed: Singles, nodes: int, found: Singles) -> None:
    """Find where the criterion, Q less its expectation, passes 0: by its inverse's cubic and a Newton step."""
    for j in range(nodes - 1):
        a, b = 2 * j * WIDE, j * _NEXT
        for x in range(WIDE):
            n0, s0, n1, s1 = row[a + x], row[a + WIDE + x], row[a + 2 * WIDE + x], row[a + 3 * WIDE + x]
            m0, m1, t0, t1 = n0 * n0, n1 * n1, _TWO * n0 * s0, _TWO * n1 * s1
            f0, f1 = fixed[b + _G + x] - m0, fixed[b + _NEXT + _G + x] - m1
            d0, d1 = fixed[b + _DG + x] - t0, fixed[b + _NEXT + _DG + x] - t1
            rise = f1 - f0
            q = min(max(_cubic(ZERO, rise / d0, ONE, rise / d1, -f0 / rise), ZERO), ONE)
            bend, twist = _THREE * rise - d0 - d0 - d1, d0 + d1 - rise - rise
            off = f0 + q * (d0 + q * (bend + q * twist))
            q -= off / (d0 + q * (_TWO * bend + _THREE * q * twist))
            here = (f0 > ZERO) & (f1 <= ZERO)
            n = _cubic(n0, s0, n1, s1, q)
            e0, e1 = fixed[b + _E + x] - m0, fixed[b + _NEXT + _E + x] - m1
            left = _cubic(e0, fixed[b + _DE + x] - t0, e1, fixed[b + _NEXT + _DE + x] - t1, q)
            found[N + x] = n if here else found[N + x]
            found[LEFT + x] = left if here else found[LEFT + x]


@inner
def _guess(row: Singles, voxel: Singles, nodes: int, found: Singles) -> None:
    """Set the T of a moment estimate."""
    a = 2 * nodes * WIDE
    for x in range(WIDE):
        n = row[a + x]
        tau2 = (voxel[GUESS_TOTAL * WIDE + x] - n * n - voxel[GUESS_LESS * WIDE + x]) * voxel[GUESS_TIMES * WIDE + x]
        found[WHERE + x] = ONE + max(tau2, ZERO)


@inner
def _go_there(row: Singles, fixed: Singles, voxel: Singles, nodes: int, found: Singles) -> None:
    """Take n and what is left at a given T."""
    _start(row, fixed, found)
    for j in range(nodes - 1):
        a, b = 2 * j * WIDE, j * _NEXT
        for x in range(WIDE):
            n0, s0, n1, s1 = row[a + x], row[a + WIDE + x], row[a + 2 * WIDE + x], row[a + 3 * WIDE + x]
            low, high = fixed[b + _AT + x], fixed[b + _NEXT + _AT + x]
            here = found[WHERE + x] > low
            place = min(found[WHERE + x], high)
            q = (place - low) / ((place - low) + voxel[RATIO * WIDE + x] * (high - place))
            n = _cubic(n0, s0, n1, s1, q)
            e0, e1 = fixed[b + _E + x] - n0 * n0, fixed[b + _NEXT + _E + x] - n1 * n1
            t0, t1 = fixed[b + _DE + x] - _TWO * n0 * s0, fixed[b + _NEXT + _DE + x] - _TWO * n1 * s1
            left = _cubic(e0, t0, e1, t1, q)
            found[N + x] = n if here else found[N + x]
            found[LEFT + x] = left if here else found[LEFT + x]


@inner
def _scale_guess(voxel: Singles, found: Singles) -> None:
    """Multiply Sidik and Jonkman's first guess with Q over its dof."""
    for x in range(WIDE):
        q = max(found[LEFT + x], ZERO)
        found[WHERE + x] = ONE + (found[WHERE + x] - ONE) * q / voxel[DOF * WIDE + x]


@inner
def find_tau2(method: int, row: Singles, fixed: Singles, voxel: Singles, found: Singles) -> None:
    """Find the tau2 of one relabelling at a tile's voxels, and n and what is left there.

    Parameters
    ----------
    method : int
        One of `tau2_nodes.METHODS`.
    row : ndarray, shape (> rows * WIDE,)
        The relabelling's product with the tile's columns.
    fixed, voxel : ndarray
        Of `Nodes`.
    found : ndarray, shape (FOUND_ROWS * WIDE,)
        Filled.
    """
    nodes = fixed.size // _NEXT
    if method > ROOT:
        _guess(row, voxel, nodes, found)
        _go_there(row, fixed, voxel, nodes, found)
        if method == SIDIK_JONKMAN:
            _scale_guess(voxel, found)
            _go_there(row, fixed, voxel, nodes, found)
        return
    _start(row, fixed, found)
    if method <= REML:
        _find_lowest(row, fixed, nodes, found)
    else:
        _find_root(row, fixed, nodes, found)
