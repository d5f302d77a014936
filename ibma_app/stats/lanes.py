"""Sums over one voxel's maps in four lanes, always in the same order.

Maps are padded to groups of four with weight 0. See weighted.py for the array.
"""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, EFFECT, RESIDUAL, VARIANCE, WEIGHT
from ibma_app.stats.compiled import inner
from ibma_app.stats.simd import fill4, get4, put4, sum4

Floats = NDArray[np.float64]
Four = tuple[float, float, float, float]


@inner
def weigh(maps: Floats, tau2: float) -> tuple[float, float]:
    """Set the weights; return the sums of w and w²."""
    sum_w, sum_ww = fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w = 1.0 / (get4(maps, VARIANCE, i) + tau2)
        put4(maps, WEIGHT, i, w)
        sum_w = sum_w + w
        sum_ww = sum_ww + w * w
    return sum4(sum_w), sum4(sum_ww)


@inner
def triple(maps: Floats, pair: int) -> tuple[float, float, float]:
    """Sum w·x, w²·x and w³·x of a row x, in four lanes."""
    first, second, third = fill4(0.0), fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w = get4(maps, WEIGHT, i)
        p = w * get4(maps, pair, i)
        first = first + p
        p = w * p
        second = second + p
        third = third + w * p
    return sum4(first), sum4(second), sum4(third)


@inner
def weighted_dot(maps: Floats, a: int, b: int) -> float:
    """Sum w·a·b of two rows in four lanes."""
    found = fill4(0.0)
    for i in range(maps.shape[1]):
        found = found + get4(maps, WEIGHT, i) * get4(maps, a, i) * get4(maps, b, i)
    return sum4(found)


@inner
def residual_sums(maps: Floats) -> tuple[float, float, float]:
    """Turn residuals r into u = w·r; sum u·r, u² and w·u² in four lanes."""
    first, second, third = fill4(0.0), fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w, r = get4(maps, WEIGHT, i), get4(maps, RESIDUAL, i)
        u = w * r
        put4(maps, RESIDUAL, i, u)
        first = first + u * r
        u = u * u
        second = second + u
        third = third + w * u
    return sum4(first), sum4(second), sum4(third)


@inner
def sums_of_one(maps: Floats, pair: int, tau2: float) -> tuple[float, float, float, float, float, float]:
    """Set the weights; sum w, w², w x², w² x², w³ x² and w x y in four lanes and one pass."""
    sum_w, sum_ww, sum_wxy = fill4(0.0), fill4(0.0), fill4(0.0)
    first, second, third = fill4(0.0), fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w = 1.0 / (get4(maps, VARIANCE, i) + tau2)
        put4(maps, WEIGHT, i, w)
        sum_w = sum_w + w
        sum_ww = sum_ww + w * w
        sum_wxy = sum_wxy + w * get4(maps, COLUMNS, i) * get4(maps, EFFECT, i)
        p = w * get4(maps, pair, i)
        first = first + p
        p = w * p
        second = second + p
        third = third + w * p
    return sum4(sum_w), sum4(sum_ww), sum4(first), sum4(second), sum4(third), sum4(sum_wxy)


@inner
def residuals_of_one(maps: Floats, coefficient: float) -> Four:
    """Set u = w r; sum u r, u², w u² and w x u in four lanes and one pass."""
    first, second, third, along = fill4(0.0), fill4(0.0), fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w, x = get4(maps, WEIGHT, i), get4(maps, COLUMNS, i)
        r = get4(maps, EFFECT, i) - coefficient * x
        u = w * r
        put4(maps, RESIDUAL, i, u)
        first = first + u * r
        second = second + u * u
        w = w * u
        third = third + w * u
        along = along + x * w
    return sum4(first), sum4(second), sum4(third), sum4(along)


@inner
def sums_of_mean(maps: Floats, tau2: float) -> Four:
    """Set the weights; sum w, w², w³ and w y."""
    sum_w, sum_ww, cubed, sum_wy = fill4(0.0), fill4(0.0), fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w = 1.0 / (get4(maps, VARIANCE, i) + tau2)
        put4(maps, WEIGHT, i, w)
        sum_w = sum_w + w
        sum_wy = sum_wy + w * get4(maps, EFFECT, i)
        p = w * w
        sum_ww = sum_ww + p
        cubed = cubed + w * p
    return sum4(sum_w), sum4(sum_ww), sum4(cubed), sum4(sum_wy)


@inner
def residuals_of_mean(maps: Floats, mean: float) -> Four:
    """Set u = w (y - mean); sum u (y - mean), u², w u² and w u."""
    first, second, third, along = fill4(0.0), fill4(0.0), fill4(0.0), fill4(0.0)
    for i in range(maps.shape[1]):
        w = get4(maps, WEIGHT, i)
        r = get4(maps, EFFECT, i) - mean
        u = w * r
        put4(maps, RESIDUAL, i, u)
        first = first + u * r
        second = second + u * u
        w = w * u
        third = third + w * u
        along = along + w
    return sum4(first), sum4(second), sum4(third), sum4(along)
