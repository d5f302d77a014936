"""Converts millions of t or F to z: by one monotone table per test, and the exact function beyond it.

The table runs over a = sqrt(explained / (explained + residual)), which is
|r| of a t test; there z is smooth, and cubic Hermite interpolation on
4,096 steps is exact to about 1e-9. Beyond its ends (a > 0.95 or very large
statistics, and F whose p exceeds 0.99) the exact function is called.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.logtails import LOG_2, log1mexp, z_of_log_sf, z_of_tail
from ibma_app.stats.tails import f_to_z, log_f_tail, t_to_z

Floats = NDArray[np.float64]

STEPS = 4096
HIGHEST = 0.95
LARGE = 225.0  # t² up to which z is tabulated
IDENTICAL = 1e-14  # residual over total: not estimable, as in the fits


class ZTable(NamedTuple):
    """z of a test with constant degrees of freedom."""

    z: Floats  # (STEPS + 1,)
    slope: Floats  # (STEPS + 1,) its derivative times the step
    first: float  # a of the first node
    steps_per_one: float  # of a
    dof1: float  # rows of an F test; 0 of a t test
    dof2: float


def make_ztable(dof: float, rows: int = 0) -> ZTable:
    """Tabulate z.

    Parameters
    ----------
    dof : float
        Residual degrees of freedom, > 0.
    rows : int
        Of an F test, its numerator's degrees of freedom; 0 for a t test.
    """

    def exact(a: Floats) -> Floats:
        odds = dof * (a / (1.0 - a)) * (a / (1.0 + a))
        return f_to_z(odds / rows, rows, dof) if rows else t_to_z(np.copysign(np.sqrt(odds), a), dof)

    first = 0.0
    large = LARGE + 10.0 * rows
    last = min(HIGHEST, math.sqrt(large / (large + dof)))
    if rows:  # where p is 0.99: below, z is far from any threshold
        grid = np.linspace(0.0, last, 1025)[1:-1]
        first = float(grid[min(int(np.searchsorted(exact(grid), -2.3)), grid.size - 1)])
    nodes = np.linspace(first, last, STEPS + 1)
    near = 1e-5 * last
    slope = (exact(nodes + near) - exact(nodes - near)) / (2 * near)
    step = (last - first) / STEPS
    return ZTable(exact(nodes), slope * step, first, 1.0 / step, float(rows), float(dof))


@inner
def _between(at: float, table: ZTable) -> float:
    """Interpolate at a place on the table, counted in steps."""
    i = int(at)
    s = at - i
    left, right = table.z[i], table.z[i + 1]
    along = s * s * (3.0 - 2.0 * s)
    bend = s * (1.0 - s)
    return left + along * (right - left) + bend * ((1.0 - s) * table.slope[i] - s * table.slope[i + 1])


@inner
def z_of_shares(explained: float, residual: float, table: ZTable) -> float:
    """Return |z| of a t test, or z of an F test, from two sums of squares; 0 where not estimable."""
    total = explained + residual
    if residual <= IDENTICAL * total:
        return 0.0
    at = (math.sqrt(explained / total) - table.first) * table.steps_per_one
    if 0.0 <= at < STEPS:
        return _between(at, table)
    f = explained / residual * table.dof2
    if table.dof1 > 0.0:
        tail, upper = log_f_tail(max(f / table.dof1, 1e-300), table.dof1, table.dof2)
        return z_of_tail(tail, upper)
    tail, upper = log_f_tail(f, 1.0, table.dof2)
    return z_of_log_sf((tail if upper else log1mexp(tail)) - LOG_2)


@inner
def _row_from_table(products: Floats, scale: Floats, table: ZTable, out: Floats) -> int:
    """Interpolate at every r = product * scale, as if none were beyond the table; count those that are."""
    z, slope, steps_per_one = table.z, table.slope, table.steps_per_one
    beyond = 0
    for b in range(products.size):  # without branches and calls, so that it is vectorised
        r = products[b] * scale[b]
        at = abs(r) * steps_per_one
        beyond += at >= STEPS
        at = min(at, STEPS - 1e-9)
        i = np.uint32(at)
        s = at - i
        left, right = z[i], z[i + np.uint32(1)]
        along = s * s * (3.0 - 2.0 * s)
        bend = s * (1.0 - s)
        size = left + along * (right - left) + bend * ((1.0 - s) * slope[i] - s * slope[i + np.uint32(1)])
        out[b] = math.copysign(size, r)
    return beyond


@inner
def z_of_correlations(products: Floats, scale: Floats, table: ZTable, out: Floats) -> None:
    """Write z of a t test, (B,), from r = product * scale, the explained share's root with its sign."""
    if _row_from_table(products, scale, table, out):
        for b in range(products.size):
            r = products[b] * scale[b]
            a = abs(r)
            if a * table.steps_per_one >= STEPS:
                out[b] = math.copysign(z_of_shares(a * a, (1.0 - a) * (1.0 + a), table), r)


@compiled
def _loop(explained: Floats, residual: Floats, table: ZTable, out: Floats) -> None:
    """Loop over `z_of_shares`."""
    for i in range(explained.size):
        out[i] = z_of_shares(explained[i], residual[i], table)


def z_from_table(explained: Floats, residual: Floats, table: ZTable) -> Floats:
    """Return |z| (t) or z (F) from explained and residual sums of squares, both (N,)."""
    out = np.empty(explained.size)
    _loop(np.ascontiguousarray(explained), np.ascontiguousarray(residual), table, out)
    return out


def share_of_z(z: float, table: ZTable) -> float:
    """Return the a = sqrt(explained share) at which |z| is reached, by bisection."""
    low, high = 0.0, 1.0 - 1e-12
    for _ in range(60):
        middle = 0.5 * (low + high)
        if float(z_from_table(np.array([middle**2]), np.array([1.0 - middle**2]), table)[0]) < z:
            low = middle
        else:
            high = middle
    return low
