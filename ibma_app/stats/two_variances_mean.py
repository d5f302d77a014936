"""The restricted likelihood of two variances of a mean, in a fifth of the time of two_variances.py."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import folded, inner
from ibma_app.stats.two_variances import ALONG, INVERSE, LARGE, SMALL, Point, Voxel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@inner
def likelihood_of_mean(y: Floats, v: Floats, starts: Ints, m: int, tau2: float, omega2: float) -> float:
    """Return minus twice the log likelihood where the design is a constant of 1, of m clusters."""
    log, product, total, along, square = 0.0, 1.0, 0.0, 0.0, 0.0
    for c in range(m):
        s, sy = 0.0, 0.0
        for i in range(starts[c], starts[c + 1]):
            variance = v[i] + omega2
            d = 1.0 / variance
            s += d
            sy += d * y[i]
            square += d * y[i] * y[i]
            product *= variance
            if product > LARGE or product < SMALL:
                log += math.log(product)
                product = 1.0
        factor = 1.0 + tau2 * s
        product *= factor
        g = 1.0 / factor
        total += g * s
        along += g * sy
        square -= tau2 * g * sy * sy
    return log + math.log(product) + math.log(total) + square - along * along / total


class _Sums(NamedTuple):
    """Sums over a cluster's maps of d, d², d³, and of these with y and y²."""

    s: float
    q: float
    cube: float
    sy: float
    qy: float
    cube_y: float
    syy: float
    qyy: float
    cube_yy: float
    log: float
    product: float  # of variances not in ``log`` yet


class _Forms(NamedTuple):
    """Forms of a constant and the effects: both constants, one of each, both effects."""

    xx: float
    xy: float
    yy: float


@folded
def _sum_maps(y: Floats, v: Floats, first: int, last: int, omega2: float, log: float, product: float) -> _Sums:
    """Sum a cluster up."""
    s, q, cube, sy, qy, cube_y, syy, qyy, cube_yy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(first, last):
        variance = v[i] + omega2
        product *= variance
        if product > LARGE or product < SMALL:
            log += math.log(product)
            product = 1.0
        d = 1.0 / variance
        dy, dd = d * y[i], d * d
        s += d
        q += dd
        cube += dd * d
        sy += dy
        qy += d * dy
        cube_y += dd * dy
        syy += dy * y[i]
        qyy += dy * dy
        cube_yy += d * dy * dy
    return _Sums(s, q, cube, sy, qy, cube_y, syy, qyy, cube_yy, log, product)


@folded
def _add(forms: _Forms, xx: float, xy: float, yy: float) -> _Forms:
    """Add a cluster's products."""
    return _Forms(forms.xx + xx, forms.xy + xy, forms.yy + yy)


@folded
def _about(forms: _Forms, b: float) -> float:
    """Return the form of the residual y - b x with itself."""
    return forms.yy - 2.0 * b * forms.xy + b * b * forms.xx


@inner
def evaluate_mean(voxel: Voxel, m: int, tau2: float, omega2: float) -> Point:
    """Return `evaluate` where the first column is a constant of 1 and the second the effects; leaves the same forms."""
    zero = _Forms(0.0, 0.0, 0.0)
    gram, between, within, between_twice, mixed, within_twice = zero, zero, zero, zero, zero, zero
    omega, omega_omega, log, product = 0.0, 0.0, 0.0, 1.0
    for c in range(m):
        one = _sum_maps(voxel.x[1], voxel.v, voxel.starts[c], voxel.starts[c + 1], omega2, log, product)
        factor = 1.0 + tau2 * one.s
        log, product, g = one.log, one.product * factor, 1.0 / factor
        t, ty, tg = g * one.s, g * one.sy, tau2 * g
        shift = tau2 * ty  # V^-1 y is d (y - shift), and V^-1 x is g d
        rx, ry = g * one.q, one.qy - shift * one.q  # sums of d V^-1 x and d V^-1 y
        omega += one.s - tg * one.q
        omega_omega += one.q - 2.0 * tg * one.cube + (tg * one.q) ** 2
        gram = _add(gram, t, ty, one.syy - shift * one.sy)
        between = _add(between, t * t, t * ty, ty * ty)
        within = _add(within, g * rx, g * ry, one.qyy - shift * (2.0 * one.qy - shift * one.q))
        between_twice = _add(between_twice, t * t * t, t * t * ty, t * ty * ty)
        mixed = _add(mixed, g * t * rx, 0.5 * g * (t * ry + ty * rx), g * ty * ry)
        cube_y = one.cube_y - shift * one.cube
        cube_yy = one.cube_yy - shift * (2.0 * one.cube_y - shift * one.cube)
        within_twice = _add(
            within_twice, g * g * one.cube - tg * rx * rx, g * cube_y - tg * rx * ry, cube_yy - tg * ry * ry
        )
    log += math.log(product * gram.xx)
    inverse = 1.0 / gram.xx
    b = gram.xy * inverse
    voxel.forms[INVERSE, 0, 0], voxel.forms[ALONG, 0, 0] = inverse, -b
    on_tau, on_omega = between.xy - b * between.xx, within.xy - b * within.xx
    part_tau, part_omega = inverse * between.xx, inverse * within.xx
    tau_tau = between.xx - 2.0 * inverse * between_twice.xx + part_tau * part_tau
    both = within.xx - 2.0 * inverse * mixed.xx + part_tau * part_omega
    omega_omega += part_omega * part_omega - 2.0 * inverse * within_twice.xx
    return Point(
        log + gram.yy - b * gram.xy,
        gram.xx - part_tau - _about(between, b),
        omega - part_omega - _about(within, b),
        2.0 * (_about(between_twice, b) - inverse * on_tau * on_tau) - tau_tau,
        2.0 * (_about(mixed, b) - inverse * on_tau * on_omega) - both,
        2.0 * (_about(within_twice, b) - inverse * on_omega * on_omega) - omega_omega,
        tau_tau, both, omega_omega,
    )  # fmt: skip
