"""The restricted likelihood of one voxel under a random intercept, from sums over units.

Maps of a unit (a subject, a study) have a covariance sigma2 (I + r 11') with
r = tau2 / sigma2. On an orthonormal basis Q of a pattern's covered rows, all
that the likelihood needs are sums over each unit: with a_i the basis' and t_i
the residuals' sum over the n_i maps of unit i, both over sqrt(n_i), and
h_i = 1 / (1 + r n_i),

    M = Q'WQ = S + sum h_i a_i a_i',    b = Q'We = Q'e - sum (1 - h_i) a_i t_i,
    q = SSW + sum h_i t_i^2 - b'M^-1 b,
    -2 log L(r) = (n - p) log q + sum log(1 + r n_i) + log det M + constant,

where e are the residuals of least squares (Q'e = 0; see `fit_random_intercept` for others), S and SSW are the products
of what is left of Q and e within units, and sums over units of one size are
added up beforehand (Patterson & Thompson 1971; Lindstrom & Bates 1988). One
value of r then costs as much as there are sizes and columns, whatever the number
of maps.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import inner
from ibma_app.stats.intercept_units import GRID, SIZES, Units, factorise, invert_lower

Floats = NDArray[np.float64]

FARTHEST = 1e12  # ratio, times the mean size of a unit: further out, there is no variance within units
INVERSE, SLOPE, CURVE, PRODUCT, TRIANGLE = range(5)  # of `Work.squares`: M^-1, M', M'', M^-1 M', L
RIGHT, RIGHT_SLOPE, RIGHT_CURVE, SOLVED, TURNED = range(5)  # of `Work.vectors`: b, b', b'', M^-1 b, b' - M'M^-1 b


class Sums(NamedTuple):
    """One voxel: its units' sums of the residuals."""

    units: Floats  # (m,) t_i
    squares: Floats  # (S + 1,) sums of t_i^2 of each size; the last: SSW
    along: Floats  # (S, P) sums of a_i t_i
    whole: Floats  # (P,) Q'e


class Work(NamedTuple):
    """Space for one voxel."""

    squares: Floats  # (5, P, P)
    vectors: Floats  # (5, P)


class Point(NamedTuple):
    """The likelihood at one ratio r."""

    q: float
    q1: float  # its derivative
    q2: float  # and the next
    logs2: float  # second derivative of the logarithms of determinants
    slope: float  # of -2 log L
    curve: float  # its second derivative


def new_sums(units: Units) -> Sums:
    """Allocate for one voxel."""
    s, p = units.between.shape[:2]
    return Sums(np.zeros(units.kinds.size), np.zeros(s + 1), np.zeros((s, p)), np.zeros(p))


def new_work(n_columns: int) -> Work:
    """Allocate for one voxel."""
    return Work(np.zeros((5, n_columns, n_columns)), np.zeros((5, n_columns)))


@inner
def sum_units(y: Floats, b: int, k: int, rank: int, units: Units, sums: Sums) -> None:
    """Sum one voxel's residuals, row b of ``y``, over units."""
    for i in range(sums.units.size):
        sums.units[i] = 0.0
    for i in range(k):
        sums.units[units.of[i]] += y[b, i] * units.roots[units.of[i]]
    total, last = 0.0, sums.squares.size - 1
    for i in range(k):
        total += (y[b, i] - sums.units[units.of[i]] * units.roots[units.of[i]]) ** 2
    for s in range(units.found[SIZES]):
        sums.squares[s] = 0.0
        for a in range(rank):
            sums.along[s, a] = 0.0
    sums.squares[last] = total
    for i in range(sums.units.size):
        kind, one = units.kinds[i], sums.units[i]
        if kind >= 0:
            sums.squares[kind] += one * one
            for a in range(rank):
                sums.along[kind, a] += units.sums[i, a] * one


@inner
def best_on_grid(units: Units, sums: Sums, rank: int, left: float, work: Work) -> int:
    """Return the place on the grid where -2 log L is least; ``left`` is n - p."""
    right, best, least = work.vectors, 0, np.inf
    for g in range(units.grid.size):
        total = sums.squares[sums.squares.size - 1]
        for a in range(rank):
            right[RIGHT, a] = sums.whole[a]
        for s in range(units.found[SIZES]):
            h = 1.0 / (1.0 + units.grid[g] * units.sizes[s])
            total += h * sums.squares[s]
            for a in range(rank):
                right[RIGHT, a] -= (1.0 - h) * sums.along[s, a]
        for a in range(rank):
            along = 0.0
            for c in range(a + 1):
                along += units.factors[g, a, c] * right[RIGHT, c]
            total -= along * along
        value = left * np.log(total) + units.logs[g] if total > 0.0 else -np.inf
        if value < least:
            best, least = g, value
    return best


@inner
def _dot(vectors: Floats, one: int, other: int, rank: int) -> float:
    total = 0.0
    for a in range(rank):
        total += vectors[one, a] * vectors[other, a]
    return total


@inner
def form(squares: Floats, which: int, vectors: Floats, one: int, rank: int) -> float:
    """Return x'Ax of one matrix and one vector."""
    total = 0.0
    for a in range(rank):
        along = 0.0
        for b in range(rank):
            along += squares[which, a, b] * vectors[one, b]
        total += vectors[one, a] * along
    return total


@inner
def multiply(squares: Floats, which: int, vectors: Floats, one: int, out: int, rank: int) -> None:
    """Write a matrix times a vector."""
    for a in range(rank):
        total = 0.0
        for b in range(rank):
            total += squares[which, a, b] * vectors[one, b]
        vectors[out, a] = total


@inner
def _invert(squares: Floats, rank: int) -> None:
    """Replace M by its inverse."""
    factorise(squares[INVERSE], rank, squares[TRIANGLE])
    invert_lower(squares[TRIANGLE], rank, squares[PRODUCT])
    for a in range(rank):
        for b in range(a + 1):
            total = 0.0
            for s in range(a, rank):
                total += squares[PRODUCT, s, a] * squares[PRODUCT, s, b]
            squares[INVERSE, a, b] = total
            squares[INVERSE, b, a] = total


@inner
def _traces(squares: Floats, rank: int) -> tuple[float, float]:
    """Return the two derivatives of log det M, with M^-1 in place of M."""
    first, second = 0.0, 0.0
    for a in range(rank):
        for b in range(rank):
            total = 0.0
            for s in range(rank):
                total += squares[INVERSE, a, s] * squares[SLOPE, s, b]
            squares[PRODUCT, a, b] = total
            second += squares[INVERSE, a, b] * squares[CURVE, a, b]
        first += squares[PRODUCT, a, a]
    for a in range(rank):
        for b in range(rank):
            second -= squares[PRODUCT, a, b] * squares[PRODUCT, b, a]
    return first, second


@inner
def _assemble(ratio: float, units: Units, sums: Sums, rank: int, work: Work) -> None:
    """Write M and b with their derivatives."""
    squares, vectors = work.squares, work.vectors
    for a in range(rank):
        vectors[RIGHT, a], vectors[RIGHT_SLOPE, a], vectors[RIGHT_CURVE, a] = sums.whole[a], 0.0, 0.0
        for b in range(rank):
            squares[INVERSE, a, b] = units.within[a, b]
            squares[SLOPE, a, b] = 0.0
            squares[CURVE, a, b] = 0.0
    for s in range(units.found[SIZES]):
        size = units.sizes[s]
        h = 1.0 / (1.0 + ratio * size)
        h1 = -size * h * h
        h2 = -2.0 * size * h * h1
        for a in range(rank):
            vectors[RIGHT, a] -= (1.0 - h) * sums.along[s, a]
            vectors[RIGHT_SLOPE, a] += h1 * sums.along[s, a]
            vectors[RIGHT_CURVE, a] += h2 * sums.along[s, a]
            for b in range(rank):
                one = units.between[s, a, b]
                squares[INVERSE, a, b] += h * one
                squares[SLOPE, a, b] += h1 * one
                squares[CURVE, a, b] += h2 * one


@inner
def evaluate(ratio: float, units: Units, sums: Sums, rank: int, left: float, work: Work) -> Point:
    """Evaluate -2 log L with two derivatives; M^-1, M' and the rest stay in ``work``."""
    squares, vectors = work.squares, work.vectors
    _assemble(ratio, units, sums, rank, work)
    _invert(squares, rank)
    logs1, logs2 = _traces(squares, rank)
    q, q1, q2 = sums.squares[sums.squares.size - 1], 0.0, 0.0
    for s in range(units.found[SIZES]):
        size = units.sizes[s]
        h = 1.0 / (1.0 + ratio * size)
        logs1 += units.counts[s] * size * h
        logs2 -= units.counts[s] * (size * h) ** 2
        q += h * sums.squares[s]
        q1 -= size * h * h * sums.squares[s]
        q2 += 2.0 * size * size * h * h * h * sums.squares[s]
    multiply(squares, INVERSE, vectors, RIGHT, SOLVED, rank)
    multiply(squares, SLOPE, vectors, SOLVED, TURNED, rank)
    for a in range(rank):
        vectors[TURNED, a] = vectors[RIGHT_SLOPE, a] - vectors[TURNED, a]
    q -= _dot(vectors, RIGHT, SOLVED, rank)
    q1 -= 2.0 * _dot(vectors, RIGHT_SLOPE, SOLVED, rank) - form(squares, SLOPE, vectors, SOLVED, rank)
    q2 -= 2.0 * _dot(vectors, RIGHT_CURVE, SOLVED, rank) - form(squares, CURVE, vectors, SOLVED, rank)
    q2 -= 2.0 * form(squares, INVERSE, vectors, TURNED, rank)
    curve = left * (q2 / q - (q1 / q) ** 2) + logs2
    return Point(q, q1, q2, logs2, left * q1 / q + logs1, curve)


@inner
def _middle(low: float, high: float) -> float:
    """Return the middle of a bracket, by ratio where there is one."""
    return np.sqrt(low * high) if low > 0.0 else 0.5 * high


@inner
def find_ratio(units: Units, sums: Sums, rank: int, left: float, work: Work) -> float:
    """Return the ratio where -2 log L is least, to 1e-11 of itself; infinite where there is no variance within units.

    The least of the grid is refined by Newton's steps within its cell, so that
    the larger of two maxima is found.
    """
    g, last = best_on_grid(units, sums, rank, left, work), units.grid.size - 1
    ratio, low = units.grid[g], units.grid[max(g - 1, 0)]
    high = units.grid[min(g + 1, last)] if g < last else FARTHEST * units.grid[last] / GRID[last]
    at = evaluate(ratio, units, sums, rank, left, work)
    if g == 0 and at.slope >= 0.0:
        return 0.0
    for _ in range(80):
        if at.slope < 0.0:
            low = ratio
        else:
            high = ratio
        step = -at.slope / at.curve if at.curve > 0.0 else np.inf
        newton = low < ratio + step < high
        new = ratio + step if newton else _middle(low, high)
        # the error left by one of Newton's steps is about its square
        done = abs(new - ratio) <= (1e-6 if newton else 1e-12) * new
        ratio = new
        if done:
            break
        at = evaluate(ratio, units, sums, rank, left, work)
    return ratio if ratio < 0.1 * FARTHEST * units.grid[last] / GRID[last] else np.inf
