"""Weighted least squares of one voxel with weights 1/(v + tau2), and the sums that estimate tau2.

With W the weights, P = W - W X (X'WX)^-1 X'W and r the residuals, the estimators
of tau2 need y'Py = Q(tau2), y'PPy, y'PPPy, tr P and tr PP (Viechtbauer 2005).
Sums run in four lanes over maps padded with weight 0: as fast as if a compiler
might reorder them, and always in the same order.

Every function takes the two arrays of a voxel (views and tuples of arrays would
take longer than the arithmetic):

maps : ndarray, shape (COLUMNS + P + P (P + 1) / 2, G, 4)
    Rows of maps in G groups of four lanes: effects, variances (inf beyond k),
    weights, weighted residuals, then the basis' columns, then their products,
    pair after pair.
small : ndarray, shape (8, P, P)
    X'WX factored, X'W²X, X'W³X, (X'WX)^-1, two for work; coefficients in the
    first row of the next; of the last, one number: whether the basis is one
    constant column.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, CONSTANT, EFFECT, KIND, LANES, RESIDUAL, VARIANCE, WEIGHT
from ibma_app.stats.compiled import inner
from ibma_app.stats.lanes import (
    residual_sums,
    residuals_of_mean,
    residuals_of_one,
    sums_of_mean,
    sums_of_one,
    triple,
    weigh,
    weighted_dot,
)
from ibma_app.stats.simd import fill4, get4, put4, sum4

Floats = NDArray[np.float64]

IDENTICAL = 1e-14  # residual over total sum of squares (weighted) up to which the maps have the same effect
ONCE, TWICE = np.int64(1), np.int64(2)  # passes of `moments`; a literal number would be another compiled signature
FACTOR, SECOND, THIRD, INVERSE, LOWER, PRODUCT, VECTORS = range(KIND)


class Moments(NamedTuple):
    """The sums of a fit with weights 1/(v + tau2)."""

    q: float  # y'Py
    ypp: float  # y'PPy
    yppp: float  # y'PPPy
    tr_p: float
    tr_pp: float
    sum_w: float
    sum_ww: float
    sound: bool  # False where X'WX could not be factored


@inner
def _moments_of_mean(maps: Floats, small: Floats, tau2: float) -> Moments:
    """`moments` of a constant column: the fit is a weighted mean."""
    sum_w, sum_ww, cubed, sum_wy = sums_of_mean(maps, tau2)
    inverse = 1.0 / sum_w
    mean = sum_wy * inverse
    column = maps[COLUMNS, 0, 0]
    small[VECTORS, 0, 0] = mean / column
    small[FACTOR, 0, 0] = abs(column) * np.sqrt(sum_w)
    small[INVERSE, 0, 0] = inverse / (column * column)
    q, ypp, wuu, along = residuals_of_mean(maps, mean)
    ratio = sum_ww * inverse
    return Moments(
        q,
        ypp,
        wuu - along * along * inverse,
        sum_w - ratio,
        sum_ww - 2.0 * cubed * inverse + ratio * ratio,
        sum_w,
        sum_ww,
        sum_w > 0.0,
    )


@inner
def _moments_of_one(maps: Floats, small: Floats, tau2: float) -> Moments:
    """`moments` of a basis of one column that is not constant."""
    sum_w, sum_ww, a, b, c, d = sums_of_one(maps, COLUMNS + small.shape[1], tau2)
    inverse = 1.0 / a
    coefficient = d * inverse
    small[VECTORS, 0, 0] = coefficient
    small[FACTOR, 0, 0] = np.sqrt(a)
    small[INVERSE, 0, 0] = inverse
    q, ypp, wuu, along = residuals_of_one(maps, coefficient)
    ratio = b * inverse
    return Moments(
        q,
        ypp,
        wuu - along * along * inverse,
        sum_w - ratio,
        sum_ww - 2.0 * c * inverse + ratio * ratio,
        sum_w,
        sum_ww,
        a > 0.0,
    )


@inner
def _gram(maps: Floats, small: Floats, rank: int) -> None:
    """Fill X'WX, X'W²X and X'W³X."""
    pair = COLUMNS + small.shape[1]
    for a in range(rank):
        for b in range(a + 1):
            first, second, third = triple(maps, pair)
            small[FACTOR, a, b] = first
            small[SECOND, a, b] = second
            small[SECOND, b, a] = second
            small[THIRD, a, b] = third
            small[THIRD, b, a] = third
            pair += 1


@inner
def _factor(small: Floats, rank: int) -> bool:
    """Factor X'WX = L L' in place; return False where it is not positive."""
    for a in range(rank):
        for b in range(a + 1):
            total = small[FACTOR, a, b]
            for s in range(b):
                total -= small[FACTOR, a, s] * small[FACTOR, b, s]
            if a > b:
                small[FACTOR, a, b] = total / small[FACTOR, b, b]
            elif total > 0.0:
                small[FACTOR, a, a] = np.sqrt(total)
            else:
                return False
    return True


@inner
def _invert(small: Floats, rank: int) -> None:
    """Write the inverse of X'WX = L L' from its factor L."""
    for a in range(rank):
        for b in range(a + 1):
            total = 1.0 if a == b else 0.0
            for s in range(b, a):
                total -= small[FACTOR, a, s] * small[LOWER, s, b]
            small[LOWER, a, b] = total / small[FACTOR, a, a]
    for a in range(rank):
        for b in range(a + 1):
            total = 0.0
            for s in range(a, rank):
                total += small[LOWER, s, a] * small[LOWER, s, b]
            small[INVERSE, a, b] = total
            small[INVERSE, b, a] = total


@inner
def _traces(small: Floats, rank: int) -> tuple[float, float, float]:
    """Return tr(A^-1 B), tr(A^-1 C) and tr(A^-1 B A^-1 B) of A, B, C = X'WX, X'W²X, X'W³X."""
    first, second, third = 0.0, 0.0, 0.0
    for a in range(rank):
        for b in range(rank):
            total = 0.0
            for s in range(rank):
                total += small[INVERSE, a, s] * small[SECOND, s, b]
            small[PRODUCT, a, b] = total
            second += small[INVERSE, a, b] * small[THIRD, b, a]
        first += small[PRODUCT, a, a]
    for a in range(rank):
        for b in range(rank):
            third += small[PRODUCT, a, b] * small[PRODUCT, b, a]
    return first, second, third


@inner
def _start(maps: Floats, small: Floats, rank: int) -> None:
    """Set the coefficients to 0 and the residuals to the effects."""
    for a in range(rank):
        small[VECTORS, 0, a] = 0.0
    for i in range(maps.shape[1]):
        put4(maps, RESIDUAL, i, get4(maps, EFFECT, i))


@inner
def _step(maps: Floats, small: Floats, rank: int) -> None:
    """Add (X'WX)^-1 X'W r to the coefficients, and subtract its fit from the residuals r."""
    for a in range(rank):
        small[LOWER, 0, a] = weighted_dot(maps, COLUMNS + a, np.int64(RESIDUAL))
    for a in range(rank):
        total = 0.0
        for b in range(rank):
            total += small[INVERSE, a, b] * small[LOWER, 0, b]
        small[VECTORS, 0, a] += total
        for i in range(maps.shape[1]):
            put4(maps, RESIDUAL, i, get4(maps, RESIDUAL, i) - total * get4(maps, COLUMNS + a, i))


@inner
def moments(maps: Floats, small: Floats, rank: int, tau2: float, passes: int) -> Moments:
    """Fit one voxel with weights 1/(v + tau2).

    Weights, factor, inverse and coefficients are left in place; the row of
    residuals becomes W r. A second of the ``passes`` removes rounding error:
    for results, not for steps of an iteration.
    """
    if small[KIND, 0, 0] == CONSTANT:
        return _moments_of_mean(maps, small, tau2)
    if rank == 1:
        return _moments_of_one(maps, small, tau2)
    sum_w, sum_ww = weigh(maps, tau2)
    _gram(maps, small, rank)
    if not _factor(small, rank):
        return Moments(0.0, 0.0, 0.0, 0.0, 0.0, sum_w, sum_ww, False)
    _invert(small, rank)
    _start(maps, small, rank)
    for _ in range(passes):
        _step(maps, small, rank)
    q, ypp, wuu = residual_sums(maps)
    first, second, third = _traces(small, rank)
    for a in range(rank):
        small[LOWER, 0, a] = weighted_dot(maps, COLUMNS + a, np.int64(RESIDUAL))
    along = 0.0
    for a in range(rank):
        for b in range(rank):
            along += small[LOWER, 0, a] * small[INVERSE, a, b] * small[LOWER, 0, b]
    return Moments(q, ypp, wuu - along, sum_w - first, sum_ww - 2.0 * second + third, sum_w, sum_ww, True)


@inner
def refit(maps: Floats, small: Floats, rank: int) -> float:
    """Remove rounding error from the coefficients of the last fit, as a second pass of `moments` does; return Q."""
    for i in range(maps.shape[1]):
        put4(maps, RESIDUAL, i, get4(maps, EFFECT, i))
    for a in range(rank):
        for i in range(maps.shape[1]):
            put4(maps, RESIDUAL, i, get4(maps, RESIDUAL, i) - small[VECTORS, 0, a] * get4(maps, COLUMNS + a, i))
    _step(maps, small, rank)
    return residual_sums(maps)[0]


@inner
def smallest_variance(maps: Floats) -> float:
    """Return the smallest sampling variance of a voxel."""
    smallest = np.inf
    for i in range(maps.shape[1]):
        for lane in range(LANES):
            smallest = min(smallest, maps[VARIANCE, i, lane])
    return smallest


@inner
def weighted_total(maps: Floats) -> float:
    """Return the sum of w y² with the weights of the last fit."""
    return weighted_dot(maps, np.int64(EFFECT), np.int64(EFFECT))


@inner
def _sum_about_mean(maps: Floats, k: int) -> float:
    """Return the sum of squares of the effects about their plain mean, in four lanes."""
    sums = fill4(0.0)
    for i in range(maps.shape[1]):
        sums = sums + get4(maps, EFFECT, i)
    mean = sum4(sums) / k
    total = 0.0
    for i in range(k):
        total += (maps[EFFECT, i // LANES, i % LANES] - mean) ** 2
    return total


@inner
def unweighted_sum(maps: Floats, small: Floats, k: int, rank: int) -> float:
    """Return the residual sum of squares with equal weights (the basis is orthonormal)."""
    if small[KIND, 0, 0] == CONSTANT:
        return _sum_about_mean(maps, k)
    _start(maps, small, rank)
    for i in range(maps.shape[1]):
        put4(maps, WEIGHT, i, fill4(1.0))
    for a in range(rank):
        for b in range(rank):
            small[INVERSE, a, b] = 1.0 if a == b else 0.0
    for _ in range(2):
        _step(maps, small, rank)
    return weighted_dot(maps, np.int64(RESIDUAL), np.int64(RESIDUAL))
