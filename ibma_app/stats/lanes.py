"""Sums over one voxel's maps in four lanes, always in the same order.

Maps are padded to groups of four with weight 0. See weighted.py for the array.
"""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, EFFECT, RESIDUAL, VARIANCE, WEIGHT
from ibma_app.stats.compiled import inner

Floats = NDArray[np.float64]
Four = tuple[float, float, float, float]


@inner
def weigh(maps: Floats, tau2: float) -> tuple[float, float]:
    """Set the weights; return the sums of w and w²."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0 = 1.0 / (maps[VARIANCE, i, 0] + tau2)
        w1 = 1.0 / (maps[VARIANCE, i, 1] + tau2)
        w2 = 1.0 / (maps[VARIANCE, i, 2] + tau2)
        w3 = 1.0 / (maps[VARIANCE, i, 3] + tau2)
        maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3] = w0, w1, w2, w3
        s0 += w0
        s1 += w1
        s2 += w2
        s3 += w3
        t0 += w0 * w0
        t1 += w1 * w1
        t2 += w2 * w2
        t3 += w3 * w3
    return (s0 + s1) + (s2 + s3), (t0 + t1) + (t2 + t3)


@inner
def triple(maps: Floats, pair: int) -> tuple[float, float, float]:
    """Sum w·x, w²·x and w³·x of a row x, in four lanes."""
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0, w1, w2, w3 = maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3]
        p0, p1, p2, p3 = w0 * maps[pair, i, 0], w1 * maps[pair, i, 1], w2 * maps[pair, i, 2], w3 * maps[pair, i, 3]
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


@inner
def weighted_dot(maps: Floats, a: int, b: int) -> float:
    """Sum w·a·b of two rows in four lanes."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        s0 += maps[WEIGHT, i, 0] * maps[a, i, 0] * maps[b, i, 0]
        s1 += maps[WEIGHT, i, 1] * maps[a, i, 1] * maps[b, i, 1]
        s2 += maps[WEIGHT, i, 2] * maps[a, i, 2] * maps[b, i, 2]
        s3 += maps[WEIGHT, i, 3] * maps[a, i, 3] * maps[b, i, 3]
    return (s0 + s1) + (s2 + s3)


@inner
def residual_sums(maps: Floats) -> tuple[float, float, float]:
    """Turn residuals r into u = w·r; sum u·r, u² and w·u² in four lanes."""
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0, w1, w2, w3 = maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3]
        r0, r1, r2, r3 = maps[RESIDUAL, i, 0], maps[RESIDUAL, i, 1], maps[RESIDUAL, i, 2], maps[RESIDUAL, i, 3]
        u0, u1, u2, u3 = w0 * r0, w1 * r1, w2 * r2, w3 * r3
        maps[RESIDUAL, i, 0], maps[RESIDUAL, i, 1], maps[RESIDUAL, i, 2], maps[RESIDUAL, i, 3] = u0, u1, u2, u3
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


@inner
def sums_of_one(maps: Floats, pair: int, tau2: float) -> tuple[float, float, float, float, float, float]:
    """Set the weights; sum w, w², w x², w² x², w³ x² and w x y in four lanes and one pass."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0 = 1.0 / (maps[VARIANCE, i, 0] + tau2)
        w1 = 1.0 / (maps[VARIANCE, i, 1] + tau2)
        w2 = 1.0 / (maps[VARIANCE, i, 2] + tau2)
        w3 = 1.0 / (maps[VARIANCE, i, 3] + tau2)
        maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3] = w0, w1, w2, w3
        s0, s1, s2, s3 = s0 + w0, s1 + w1, s2 + w2, s3 + w3
        t0, t1, t2, t3 = t0 + w0 * w0, t1 + w1 * w1, t2 + w2 * w2, t3 + w3 * w3
        d0 += w0 * maps[COLUMNS, i, 0] * maps[EFFECT, i, 0]
        d1 += w1 * maps[COLUMNS, i, 1] * maps[EFFECT, i, 1]
        d2 += w2 * maps[COLUMNS, i, 2] * maps[EFFECT, i, 2]
        d3 += w3 * maps[COLUMNS, i, 3] * maps[EFFECT, i, 3]
        p0, p1, p2, p3 = w0 * maps[pair, i, 0], w1 * maps[pair, i, 1], w2 * maps[pair, i, 2], w3 * maps[pair, i, 3]
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


@inner
def residuals_of_one(maps: Floats, coefficient: float) -> tuple[float, float, float, float]:
    """Set u = w r; sum u r, u², w u² and w x u in four lanes and one pass."""
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0, w1, w2, w3 = maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3]
        x0, x1, x2, x3 = maps[COLUMNS, i, 0], maps[COLUMNS, i, 1], maps[COLUMNS, i, 2], maps[COLUMNS, i, 3]
        r0 = maps[EFFECT, i, 0] - coefficient * x0
        r1 = maps[EFFECT, i, 1] - coefficient * x1
        r2 = maps[EFFECT, i, 2] - coefficient * x2
        r3 = maps[EFFECT, i, 3] - coefficient * x3
        u0, u1, u2, u3 = w0 * r0, w1 * r1, w2 * r2, w3 * r3
        maps[RESIDUAL, i, 0], maps[RESIDUAL, i, 1], maps[RESIDUAL, i, 2], maps[RESIDUAL, i, 3] = u0, u1, u2, u3
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


@inner
def sums_of_mean(maps: Floats, tau2: float) -> Four:
    """Set the weights; sum w, w², w³ and w y."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0, w1 = 1.0 / (maps[VARIANCE, i, 0] + tau2), 1.0 / (maps[VARIANCE, i, 1] + tau2)
        w2, w3 = 1.0 / (maps[VARIANCE, i, 2] + tau2), 1.0 / (maps[VARIANCE, i, 3] + tau2)
        maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3] = w0, w1, w2, w3
        s0, s1, s2, s3 = s0 + w0, s1 + w1, s2 + w2, s3 + w3
        d0, d1 = d0 + w0 * maps[EFFECT, i, 0], d1 + w1 * maps[EFFECT, i, 1]
        d2, d3 = d2 + w2 * maps[EFFECT, i, 2], d3 + w3 * maps[EFFECT, i, 3]
        p0, p1, p2, p3 = w0 * w0, w1 * w1, w2 * w2, w3 * w3
        t0, t1, t2, t3 = t0 + p0, t1 + p1, t2 + p2, t3 + p3
        c0, c1, c2, c3 = c0 + w0 * p0, c1 + w1 * p1, c2 + w2 * p2, c3 + w3 * p3
    return (s0 + s1) + (s2 + s3), (t0 + t1) + (t2 + t3), (c0 + c1) + (c2 + c3), (d0 + d1) + (d2 + d3)


@inner
def residuals_of_mean(maps: Floats, mean: float) -> Four:
    """Set u = w (y - mean); sum u (y - mean), u², w u² and w u."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    c0, c1, c2, c3 = 0.0, 0.0, 0.0, 0.0
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    for i in range(maps.shape[1]):
        w0, w1, w2, w3 = maps[WEIGHT, i, 0], maps[WEIGHT, i, 1], maps[WEIGHT, i, 2], maps[WEIGHT, i, 3]
        r0, r1, r2, r3 = maps[EFFECT, i, 0], maps[EFFECT, i, 1], maps[EFFECT, i, 2], maps[EFFECT, i, 3]
        r0, r1, r2, r3 = r0 - mean, r1 - mean, r2 - mean, r3 - mean
        u0, u1, u2, u3 = w0 * r0, w1 * r1, w2 * r2, w3 * r3
        maps[RESIDUAL, i, 0], maps[RESIDUAL, i, 1], maps[RESIDUAL, i, 2], maps[RESIDUAL, i, 3] = u0, u1, u2, u3
        s0, s1, s2, s3 = s0 + u0 * r0, s1 + u1 * r1, s2 + u2 * r2, s3 + u3 * r3
        t0, t1, t2, t3 = t0 + u0 * u0, t1 + u1 * u1, t2 + u2 * u2, t3 + u3 * u3
        w0, w1, w2, w3 = w0 * u0, w1 * u1, w2 * u2, w3 * u3
        c0, c1, c2, c3 = c0 + w0 * u0, c1 + w1 * u1, c2 + w2 * u2, c3 + w3 * u3
        d0, d1, d2, d3 = d0 + w0, d1 + w1, d2 + w2, d3 + w3
    return (s0 + s1) + (s2 + s3), (t0 + t1) + (t2 + t3), (c0 + c1) + (c2 + c3), (d0 + d1) + (d2 + d3)
