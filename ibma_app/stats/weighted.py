"""Weighted least squares of one voxel, and what its weights 1/(v + tau2) say about tau2.

With W the weights, P = W - W X (X'WX)^-1 X'W and r the residuals, the estimators
of tau2 need y'Py = Q(tau2), y'PPy, y'PPPy, tr P and tr PP (Viechtbauer 2005).
Sums run in four lanes over maps padded with weight 0: as fast as a compiler
allowed to reorder sums would make them, and always in the same order.

A voxel lies in two arrays, which every function here is given (views and tuples
of arrays would cost more than the arithmetic):

maps : ndarray, shape (COLUMNS + P + P (P + 1) / 2, K4)
    Rows: effects, variances (inf beyond k), weights, weighted residuals, then
    the basis' columns, then their products, pair after pair.
small : ndarray, shape (7, P, P)
    X'WX factored, X'W²X, X'W³X, (X'WX)^-1, two for work; of the last, the
    first row: the coefficients.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, EFFECT, LANES, RESIDUAL, VARIANCE, WEIGHT
from ibma_app.stats.compiled import compiled

Floats = NDArray[np.float64]

IDENTICAL = 1e-14  # residual over total sum of squares (weighted): the maps say the same
FACTOR, SECOND, THIRD, INVERSE, LOWER, PRODUCT, VECTORS = range(7)


class Moments(NamedTuple):
    """What weights 1/(v + tau2) give."""

    q: float  # y'Py
    ypp: float  # y'PPy
    yppp: float  # y'PPPy
    tr_p: float
    tr_pp: float
    sum_w: float
    sum_ww: float
    sound: bool  # False where X'WX could not be factored


@compiled
def _weigh(maps: Floats, tau2: float) -> tuple[float, float]:
    """Set the weights; return the sums of w and w²."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    for i in range(0, maps.shape[1] - LANES + 1, LANES):
        w0 = 1.0 / (maps[VARIANCE, i] + tau2)
        w1 = 1.0 / (maps[VARIANCE, i + 1] + tau2)
        w2 = 1.0 / (maps[VARIANCE, i + 2] + tau2)
        w3 = 1.0 / (maps[VARIANCE, i + 3] + tau2)
        maps[WEIGHT, i], maps[WEIGHT, i + 1], maps[WEIGHT, i + 2], maps[WEIGHT, i + 3] = w0, w1, w2, w3
        s0 += w0
        s1 += w1
        s2 += w2
        s3 += w3
        t0 += w0 * w0
        t1 += w1 * w1
        t2 += w2 * w2
        t3 += w3 * w3
    return (s0 + s1) + (s2 + s3), (t0 + t1) + (t2 + t3)


@compiled
def _triple(maps: Floats, pair: int) -> tuple[float, float, float]:
    """Sum w·x, w²·x and w³·x of a row x, in four lanes."""
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    for i in range(0, maps.shape[1] - LANES + 1, LANES):
        w0, w1, w2, w3 = maps[WEIGHT, i], maps[WEIGHT, i + 1], maps[WEIGHT, i + 2], maps[WEIGHT, i + 3]
        p0, p1, p2, p3 = w0 * maps[pair, i], w1 * maps[pair, i + 1], w2 * maps[pair, i + 2], w3 * maps[pair, i + 3]
        a0 += p0
        a1 += p1
        a2 += p2
        a3 += p3
        p0, p1, p2, p3 = w0 * p0, w1 * p1, w2 * p2, w3 * p3
        b0 += p0
        b1 += p1
        b2 += p2
        b3 += p3
        c0 += w0 * p0
        c1 += w1 * p1
        c2 += w2 * p2
        c3 += w3 * p3
    return (a0 + a1) + (a2 + a3), (b0 + b1) + (b2 + b3), (c0 + c1) + (c2 + c3)


@compiled
def _weighted_dot(maps: Floats, a: int, b: int) -> float:
    """Sum w·a·b of two rows in four lanes."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for i in range(0, maps.shape[1] - LANES + 1, LANES):
        s0 += maps[WEIGHT, i] * maps[a, i] * maps[b, i]
        s1 += maps[WEIGHT, i + 1] * maps[a, i + 1] * maps[b, i + 1]
        s2 += maps[WEIGHT, i + 2] * maps[a, i + 2] * maps[b, i + 2]
        s3 += maps[WEIGHT, i + 3] * maps[a, i + 3] * maps[b, i + 3]
    return (s0 + s1) + (s2 + s3)


@compiled
def _residual_sums(maps: Floats) -> tuple[float, float, float]:
    """Turn residuals r into u = w·r; sum u·r, u² and w·u² in four lanes."""
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    for i in range(0, maps.shape[1] - LANES + 1, LANES):
        w0, w1, w2, w3 = maps[WEIGHT, i], maps[WEIGHT, i + 1], maps[WEIGHT, i + 2], maps[WEIGHT, i + 3]
        r0, r1, r2, r3 = maps[RESIDUAL, i], maps[RESIDUAL, i + 1], maps[RESIDUAL, i + 2], maps[RESIDUAL, i + 3]
        u0, u1, u2, u3 = w0 * r0, w1 * r1, w2 * r2, w3 * r3
        maps[RESIDUAL, i], maps[RESIDUAL, i + 1], maps[RESIDUAL, i + 2], maps[RESIDUAL, i + 3] = u0, u1, u2, u3
        a0 += u0 * r0
        a1 += u1 * r1
        a2 += u2 * r2
        a3 += u3 * r3
        u0, u1, u2, u3 = u0 * u0, u1 * u1, u2 * u2, u3 * u3
        b0 += u0
        b1 += u1
        b2 += u2
        b3 += u3
        c0 += w0 * u0
        c1 += w1 * u1
        c2 += w2 * u2
        c3 += w3 * u3
    return (a0 + a1) + (a2 + a3), (b0 + b1) + (b2 + b3), (c0 + c1) + (c2 + c3)


@compiled
def _sums_of_one(maps: Floats, pair: int, tau2: float) -> tuple[float, float, float, float, float, float]:
    """Set the weights; sum w, w², w x², w² x², w³ x² and w x y in four lanes and one pass."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for i in range(0, maps.shape[1] - LANES + 1, LANES):
        w0 = 1.0 / (maps[VARIANCE, i] + tau2)
        w1 = 1.0 / (maps[VARIANCE, i + 1] + tau2)
        w2 = 1.0 / (maps[VARIANCE, i + 2] + tau2)
        w3 = 1.0 / (maps[VARIANCE, i + 3] + tau2)
        maps[WEIGHT, i], maps[WEIGHT, i + 1], maps[WEIGHT, i + 2], maps[WEIGHT, i + 3] = w0, w1, w2, w3
        s0, s1, s2, s3 = s0 + w0, s1 + w1, s2 + w2, s3 + w3
        t0, t1, t2, t3 = t0 + w0 * w0, t1 + w1 * w1, t2 + w2 * w2, t3 + w3 * w3
        d0 += w0 * maps[COLUMNS, i] * maps[EFFECT, i]
        d1 += w1 * maps[COLUMNS, i + 1] * maps[EFFECT, i + 1]
        d2 += w2 * maps[COLUMNS, i + 2] * maps[EFFECT, i + 2]
        d3 += w3 * maps[COLUMNS, i + 3] * maps[EFFECT, i + 3]
        p0, p1, p2, p3 = w0 * maps[pair, i], w1 * maps[pair, i + 1], w2 * maps[pair, i + 2], w3 * maps[pair, i + 3]
        a0, a1, a2, a3 = a0 + p0, a1 + p1, a2 + p2, a3 + p3
        p0, p1, p2, p3 = w0 * p0, w1 * p1, w2 * p2, w3 * p3
        b0, b1, b2, b3 = b0 + p0, b1 + p1, b2 + p2, b3 + p3
        c0, c1, c2, c3 = c0 + w0 * p0, c1 + w1 * p1, c2 + w2 * p2, c3 + w3 * p3
    return (
        (s0 + s1) + (s2 + s3),
        (t0 + t1) + (t2 + t3),
        (a0 + a1) + (a2 + a3),
        (b0 + b1) + (b2 + b3),
        (c0 + c1) + (c2 + c3),
        (d0 + d1) + (d2 + d3),
    )


@compiled
def _residuals_of_one(maps: Floats, coefficient: float) -> tuple[float, float, float, float]:
    """Set u = w r; sum u r, u², w u² and w x u in four lanes and one pass."""
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for i in range(0, maps.shape[1] - LANES + 1, LANES):
        w0, w1, w2, w3 = maps[WEIGHT, i], maps[WEIGHT, i + 1], maps[WEIGHT, i + 2], maps[WEIGHT, i + 3]
        x0, x1, x2, x3 = maps[COLUMNS, i], maps[COLUMNS, i + 1], maps[COLUMNS, i + 2], maps[COLUMNS, i + 3]
        r0 = maps[EFFECT, i] - coefficient * x0
        r1 = maps[EFFECT, i + 1] - coefficient * x1
        r2 = maps[EFFECT, i + 2] - coefficient * x2
        r3 = maps[EFFECT, i + 3] - coefficient * x3
        u0, u1, u2, u3 = w0 * r0, w1 * r1, w2 * r2, w3 * r3
        maps[RESIDUAL, i], maps[RESIDUAL, i + 1], maps[RESIDUAL, i + 2], maps[RESIDUAL, i + 3] = u0, u1, u2, u3
        a0, a1, a2, a3 = a0 + u0 * r0, a1 + u1 * r1, a2 + u2 * r2, a3 + u3 * r3
        b0, b1, b2, b3 = b0 + u0 * u0, b1 + u1 * u1, b2 + u2 * u2, b3 + u3 * u3
        w0, w1, w2, w3 = w0 * u0, w1 * u1, w2 * u2, w3 * u3
        c0, c1, c2, c3 = c0 + w0 * u0, c1 + w1 * u1, c2 + w2 * u2, c3 + w3 * u3
        d0, d1, d2, d3 = d0 + x0 * w0, d1 + x1 * w1, d2 + x2 * w2, d3 + x3 * w3
    return (
        (a0 + a1) + (a2 + a3),
        (b0 + b1) + (b2 + b3),
        (c0 + c1) + (c2 + c3),
        (d0 + d1) + (d2 + d3),
    )


@compiled
def _moments_of_one(maps: Floats, small: Floats, tau2: float) -> Moments:
    """`moments` of a basis of one column, mostly the intercept's."""
    sum_w, sum_ww, a, b, c, d = _sums_of_one(maps, COLUMNS + small.shape[1], tau2)
    inverse = 1.0 / a
    coefficient = d * inverse
    small[VECTORS, 0, 0] = coefficient
    small[FACTOR, 0, 0] = np.sqrt(a)
    small[INVERSE, 0, 0] = inverse
    q, ypp, wuu, along = _residuals_of_one(maps, coefficient)
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


@compiled
def _gram(maps: Floats, small: Floats, rank: int) -> None:
    """Fill X'WX, X'W²X and X'W³X."""
    pair = COLUMNS + small.shape[1]
    for a in range(rank):
        for b in range(a + 1):
            first, second, third = _triple(maps, pair)
            small[FACTOR, a, b] = first
            small[SECOND, a, b] = second
            small[SECOND, b, a] = second
            small[THIRD, a, b] = third
            small[THIRD, b, a] = third
            pair += 1


@compiled
def _factor(small: Floats, rank: int) -> bool:
    """Factor X'WX = L L' in place and invert it; return False where it is not positive."""
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
    return True


@compiled
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


@compiled
def _step(maps: Floats, small: Floats, rank: int) -> None:
    """Add (X'WX)^-1 X'W r to the coefficients and take it out of the residuals r."""
    for a in range(rank):
        small[LOWER, 0, a] = _weighted_dot(maps, COLUMNS + a, RESIDUAL)
    for a in range(rank):
        total = 0.0
        for b in range(rank):
            total += small[INVERSE, a, b] * small[LOWER, 0, b]
        small[VECTORS, 0, a] += total
        for i in range(maps.shape[1]):
            maps[RESIDUAL, i] -= total * maps[COLUMNS + a, i]


@compiled
def moments(maps: Floats, small: Floats, rank: int, tau2: float) -> Moments:
    """Fit one voxel with weights 1/(v + tau2).

    Weights, factor, inverse and coefficients are left in place; the row of
    residuals becomes W r.
    """
    if rank == 1:
        return _moments_of_one(maps, small, tau2)
    sum_w, sum_ww = _weigh(maps, tau2)
    _gram(maps, small, rank)
    if not _factor(small, rank):
        return Moments(0.0, 0.0, 0.0, 0.0, 0.0, sum_w, sum_ww, False)
    for a in range(rank):
        small[VECTORS, 0, a] = 0.0
    for i in range(maps.shape[1]):
        maps[RESIDUAL, i] = maps[EFFECT, i]
    for _ in range(2):  # the second step takes out what rounding left: weights may span decades
        _step(maps, small, rank)
    q, ypp, wuu = _residual_sums(maps)
    first, second, third = _traces(small, rank)
    for a in range(rank):
        small[LOWER, 0, a] = _weighted_dot(maps, COLUMNS + a, RESIDUAL)
    along = 0.0
    for a in range(rank):
        for b in range(rank):
            along += small[LOWER, 0, a] * small[INVERSE, a, b] * small[LOWER, 0, b]
    return Moments(q, ypp, wuu - along, sum_w - first, sum_ww - 2.0 * second + third, sum_w, sum_ww, True)


@compiled
def smallest_variance(maps: Floats) -> float:
    """Return the smallest sampling variance of a voxel."""
    smallest = np.inf
    for i in range(maps.shape[1]):
        smallest = min(smallest, maps[VARIANCE, i])
    return smallest


@compiled
def weighted_total(maps: Floats) -> float:
    """Return the sum of w y² with the weights of the last fit."""
    return _weighted_dot(maps, EFFECT, EFFECT)


@compiled
def unweighted_sum(maps: Floats, k: int, rank: int) -> float:
    """Return the residual sum of squares with equal weights (the basis is orthonormal)."""
    for i in range(k):
        maps[RESIDUAL, i] = maps[EFFECT, i]
    for _ in range(2):
        for a in range(rank):
            along = 0.0
            for i in range(k):
                along += maps[COLUMNS + a, i] * maps[RESIDUAL, i]
            for i in range(k):
                maps[RESIDUAL, i] -= along * maps[COLUMNS + a, i]
    rss = 0.0
    for i in range(k):
        rss += maps[RESIDUAL, i] ** 2
    return rss
