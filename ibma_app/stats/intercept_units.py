"""Units (subjects, studies) of one pattern of coverage: what the likelihood of a random intercept needs of them.

See intercept_likelihood.py for the formulas. A pattern costs one pass over its
maps and the factors of one matrix for each ratio of the grid, so that thousands
of patterns do not count.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import inner

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GRID = np.concatenate([[0.0], 10.0 ** np.linspace(-3.0, 4.0, 15)])  # ratios, times the mean size of a unit
SIZES, UNITS, WITHIN = range(3)  # of `Units.found`
_NOTHING = 1e-12  # squared length of a column within units that is rounding


class Units(NamedTuple):
    """One pattern of coverage: its units, and their sums of its basis."""

    found: Ints  # (3,) different sizes S, units with a map, rank of the basis within units
    of: Ints  # (K,) the unit of each covered map
    sizes: Floats  # (S,) maps of a unit, ascending
    counts: Floats  # (S,) units of that size
    kinds: Ints  # (m,) the size of each unit, by its place in ``sizes``; -1: no map
    roots: Floats  # (m,) 1 / sqrt(maps); 0: no map
    sums: Floats  # (m, P) of the basis, times that: a_i
    within: Floats  # (P, P) products of what is left of the basis within units: S
    between: Floats  # (S, P, P) sums of a_i a_i'
    grid: Floats  # (G,) ratios r
    factors: Floats  # (G, P, P) at each, L^-1 with L L' = M
    logs: Floats  # (G,) sum log(1 + r n_i) + log det M
    spare: Floats  # (P, P) for work


def new_units(clusters: Ints, n_columns: int) -> Units:
    """Allocate for the patterns of maps of these clusters, (K,)."""
    in_each = np.bincount(clusters)
    m, p, s, g = in_each.size, n_columns, min(int(in_each.max()), in_each.size), GRID.size
    return Units(
        np.zeros(3, dtype=np.int64),
        np.zeros(clusters.size, dtype=np.int64),
        np.zeros(s),
        np.zeros(s),
        np.zeros(m, dtype=np.int64),
        np.zeros(m),
        np.zeros((m, p)),
        np.zeros((p, p)),
        np.zeros((s, p, p)),
        np.zeros(g),
        np.zeros((g, p, p)),
        np.zeros(g),
        np.zeros((p, p)),
    )


@inner
def factorise(matrix: Floats, rank: int, out: Floats) -> float:
    """Write the lower L of L L' = matrix (it may replace the matrix); return log det, or NaN where there is none."""
    total = 0.0
    for a in range(rank):
        for b in range(a + 1):
            left = matrix[a, b]
            for s in range(b):
                left -= out[a, s] * out[b, s]
            if a > b:
                out[a, b] = left / out[b, b]
            elif left > 0.0:
                out[a, a] = np.sqrt(left)
                total += np.log(left)
            else:
                return np.nan
    return total


@inner
def invert_lower(lower: Floats, rank: int, out: Floats) -> None:
    """Write the inverse of a lower triangle; what is above it becomes 0."""
    for b in range(rank):
        for a in range(b):
            out[a, b] = 0.0
        out[b, b] = 1.0 / lower[b, b]
        for a in range(b + 1, rank):
            total = 0.0
            for s in range(b, a):
                total += lower[a, s] * out[s, b]
            out[a, b] = -total / lower[a, a]


@inner
def _swap(matrix: Floats, one: int, other: int, rank: int) -> None:
    """Swap two rows and the columns of their numbers."""
    for b in range(rank):
        matrix[one, b], matrix[other, b] = matrix[other, b], matrix[one, b]
    for a in range(rank):
        matrix[a, one], matrix[a, other] = matrix[a, other], matrix[a, one]


@inner
def _rank_of(matrix: Floats, rank: int) -> int:
    """Return the rank of a matrix between 0 and I, by elimination with pivots; the matrix is used up."""
    for step in range(rank):
        best = step
        for a in range(step, rank):
            if matrix[a, a] > matrix[best, best]:
                best = a
        if matrix[best, best] <= _NOTHING:
            return step
        _swap(matrix, step, best, rank)
        for a in range(step + 1, rank):
            share = matrix[a, step] / matrix[step, step]
            for b in range(step + 1, rank):
                matrix[a, b] -= share * matrix[step, b]
    return rank


@inner
def _next_size(maps: Floats, last: float) -> float:
    """Return the smallest number of maps above the last; infinite when there is none."""
    size = np.inf
    for i in range(maps.size):
        if last < maps[i] < size:
            size = maps[i]
    return size


@inner
def _find_size(sizes: Floats, n_sizes: int, maps: float) -> int:
    for s in range(n_sizes):
        if sizes[s] == maps:
            return s
    return -1


@inner
def _count(k: int, units: Units) -> None:
    """Count each unit's maps, and list the sizes that occur."""
    found, sizes, counts, kinds, roots = units.found, units.sizes, units.counts, units.kinds, units.roots
    for i in range(roots.size):
        roots[i] = 0.0
    for i in range(k):
        roots[units.of[i]] += 1.0
    n_sizes, n_units, size = 0, 0, _next_size(roots, 0.0)
    while size < np.inf:
        sizes[n_sizes], counts[n_sizes] = size, 0.0
        n_sizes += 1
        size = _next_size(roots, size)
    for i in range(roots.size):
        kinds[i] = _find_size(sizes, n_sizes, roots[i])
        if kinds[i] >= 0:
            n_units += 1
            counts[kinds[i]] += 1.0
            roots[i] = 1.0 / np.sqrt(roots[i])
    found[SIZES], found[UNITS] = n_sizes, n_units


@inner
def _sum_column(columns: Floats, slot: int, a: int, k: int, units: Units) -> None:
    """Sum one column over units."""
    for i in range(units.roots.size):
        units.sums[i, a] = 0.0
    for i in range(k):
        units.sums[units.of[i], a] += columns[slot, a, i] * units.roots[units.of[i]]


@inner
def _multiply_columns(columns: Floats, slot: int, a: int, b: int, k: int, units: Units) -> None:
    """Write one element of the products between and within units."""
    sums, between = units.sums, units.between
    for s in range(units.found[SIZES]):
        between[s, a, b] = 0.0
    for i in range(units.kinds.size):
        if units.kinds[i] >= 0:
            between[units.kinds[i], a, b] += sums[i, a] * sums[i, b]
    total = 0.0
    for i in range(k):
        unit = units.of[i]
        one = columns[slot, a, i] - sums[unit, a] * units.roots[unit]
        total += one * (columns[slot, b, i] - sums[unit, b] * units.roots[unit])
    units.within[a, b] = total
    units.within[b, a] = total
    for s in range(units.found[SIZES]):
        between[s, b, a] = between[s, a, b]


@inner
def _lay_grid(k: int, rank: int, units: Units) -> None:
    """Factor M at the ratios of the grid."""
    spare = units.spare
    for g in range(units.grid.size):
        ratio = GRID[g] * units.found[UNITS] / k
        units.grid[g], total = ratio, 0.0
        for a in range(rank):
            for b in range(rank):
                spare[a, b] = units.within[a, b]
        for s in range(units.found[SIZES]):
            weight = 1.0 + ratio * units.sizes[s]
            total += units.counts[s] * np.log(weight)
            for a in range(rank):
                for b in range(rank):
                    spare[a, b] += units.between[s, a, b] / weight
        units.logs[g] = total + factorise(spare, rank, spare)
        invert_lower(spare, rank, units.factors[g])


@inner
def lay_units(columns: Floats, which: Ints, slot: int, k: int, rank: int, clusters: Ints, units: Units) -> None:
    """Prepare one pattern of coverage.

    Parameters
    ----------
    columns, which, slot, k, rank
        Basis and covered maps of `Patterns`, the pattern's place there, its maps and their rank.
    clusters : ndarray of int, shape (K,)
        The unit of each map.
    units : Units
        Filled.
    """
    for i in range(k):
        units.of[i] = clusters[which[slot, i]]
    _count(k, units)
    for a in range(rank):
        _sum_column(columns, slot, a, k, units)
        for b in range(a + 1):
            _multiply_columns(columns, slot, a, b, k, units)
            units.spare[a, b] = units.within[a, b]
            units.spare[b, a] = units.within[a, b]
    units.found[WITHIN] = _rank_of(units.spare, rank)
    _lay_grid(k, rank, units)
