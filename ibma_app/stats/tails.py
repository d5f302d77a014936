"""Converts statistics to z and to -log10 p, in log space and vectorised.

Finite input gives finite output, relative error below 1e-9 for |t| to 1000 and
dof from 1 to 1e6; dof may be infinite (the statistic is then normal or
chi-square). Method: continued fractions of the incomplete beta and gamma
functions (DLMF 8.17.22, 8.9.2) in logarithms, then Halley's iteration on the
log of the normal tail. For t with whole dof, the usual case, that is done once
at 513 nodes; between them z follows from its derivatives.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.logtails import (
    LOG_2,
    log1mexp,
    log_beta,
    log_beta_tail,
    log_gamma_tail,
    log_normal_sf,
    z_of_central,
    z_of_log_sf,
    z_of_tail,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LOG_10 = math.log(10.0)
_SMALLEST = 5e-324  # p of 0 is replaced by this
_NEAREST_ONE = 1.0 - 2.0**-53

_NODES = 64  # of t per unit; the error of quintic interpolation is below 1e-12
_REACH = 8  # |t| up to which z is interpolated; larger ones are few
_MOST_DOF = 1e6
_FAR = 20.0  # |z| whose probability is not left to stdtrit: SciPy before 1.17 stops at 1e-100
_NO_NODES = np.zeros((_NODES * _REACH + 1, 3))


def _aligned(*values: ArrayLike) -> tuple[tuple[int, ...], list[Floats]]:
    """Broadcast, and flatten to contiguous float64 for the kernels."""
    arrays = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values))
    # copies: a broadcast view is read-only, which would be another compiled signature
    return arrays[0].shape, [np.array(array, order="C").reshape(-1) for array in arrays]


@inner
def _log_t_point(t: float, dof: float) -> tuple[float, float]:
    """Return log x and log (1 - x) of x = dof / (dof + t²), for t > 0."""
    ratio = t / math.sqrt(dof)
    if ratio < 1e150:
        both = math.log1p(ratio * ratio)
    else:
        both = 2.0 * math.log(ratio)
    return -both, 2.0 * math.log(ratio) - both


@inner
def _z_of_t(t: float, dof: float, log_b: float) -> float:
    """Turn one t into z; 0 for dof that are not positive."""
    if math.isinf(dof) and dof > 0.0:
        return t
    size = abs(t)
    if not dof > 0.0 or not size > 0.0:
        return 0.0
    if size < 1e-8:  # z is proportional to t: f_t(0) / f_z(0)
        z = size * math.exp(0.5 * math.log(2.0 * math.pi) - 0.5 * math.log(dof) - log_b)
    else:
        log_x, log_y = _log_t_point(size, dof)
        log_tail, two_sided = log_beta_tail(0.5 * dof, 0.5, log_x, log_y, log_b)
        if two_sided and log_tail < -0.3:
            z = z_of_log_sf(log_tail - LOG_2)
        elif two_sided:
            z = z_of_central(log1mexp(log_tail))
        else:
            z = z_of_central(log_tail) if log_tail < -0.3 else z_of_log_sf(log1mexp(log_tail) - LOG_2)
    return z if t > 0.0 else -z


@lru_cache(maxsize=4096)
def _nodes(dof: float) -> Floats:
    """Return z and its first two derivatives by t, times steps, at the nodes, (N, 3).

    With densities f of t and phi of z: z' = f / phi, z'' = z' (f'/f + z z').
    """
    t = np.arange(_NODES * _REACH + 1) / _NODES
    z = np.empty(t.size)
    one, nothing = np.zeros(t.size, dtype=np.int64), np.full(1, -1, dtype=np.int64)
    log_b = log_beta(0.5 * dof, 0.5)
    _t_to_z_by_dof(t, one, np.array([dof]), np.array([log_b]), nothing, _NO_NODES[np.newaxis], z)
    log_slope = 0.5 * math.log(2.0 * math.pi) + 0.5 * z * z
    log_slope -= log_b + 0.5 * math.log(dof) + 0.5 * (dof + 1.0) * np.log1p(t * t / dof)
    slope = np.exp(log_slope)
    bend = slope * (z * slope - (dof + 1.0) * t / (dof + t * t))
    return np.column_stack([z, slope / _NODES, bend / _NODES**2])


@inner
def _interpolate_z(size: float, nodes: Floats) -> float:
    """Interpolate z of |t| by a quintic Hermite polynomial between two nodes."""
    at = size * _NODES
    node = int(at)
    s = at - node
    r = 1.0 - s
    z0, d0, b0 = nodes[node, 0], nodes[node, 1], nodes[node, 2]
    z1, d1, b1 = nodes[node + 1, 0], nodes[node + 1, 1], nodes[node + 1, 2]
    left = r * r * r * (z0 + s * (3.0 * z0 + d0) + s * s * (6.0 * z0 + 3.0 * d0 + 0.5 * b0))
    right = s * s * s * (z1 + r * (3.0 * z1 - d1) + r * r * (6.0 * z1 - 3.0 * d1 + 0.5 * b1))
    return left + right


@compiled
def _t_to_z_by_dof(
    t: Floats, which: Ints, dofs: Floats, log_b: Floats, slots: Ints, nodes: Floats, out: Floats
) -> None:
    """Loop: which of the distinct dof each t has, and in which slot of (N, M, 3) nodes these are (-1: in none)."""
    for i in range(t.size):
        size, slot = abs(t[i]), slots[which[i]]
        if slot >= 0 and size < _REACH:
            z = _interpolate_z(size, nodes[slot])
            out[i] = z if t[i] > 0.0 else 0.0 - z
        else:
            out[i] = _z_of_t(t[i], dofs[which[i]], log_b[which[i]])


@inner
def log_f_tail(f: float, dof1: float, dof2: float) -> tuple[float, bool]:
    """Return the log of one tail of F and whether it is the upper one, for f > 0."""
    if math.isinf(dof2):
        half = 0.5 * dof1
        return log_gamma_tail(half, half * f, math.lgamma(half))
    log_ratio = math.log(f) + math.log(dof1) - math.log(dof2)
    if log_ratio > 0.0:
        both = log_ratio + math.log1p(math.exp(-log_ratio))
    else:
        both = math.log1p(math.exp(log_ratio))
    a, b = 0.5 * dof2, 0.5 * dof1
    return log_beta_tail(a, b, -both, log_ratio - both, log_beta(a, b))


@compiled
def _f_to_z(f: Floats, dof1: Floats, dof2: Floats, out: Floats) -> None:
    """Loop over `log_f_tail`; 0 where dof are not positive."""
    for i in range(f.size):
        if dof1[i] > 0.0 and dof2[i] > 0.0:
            log_tail, upper = log_f_tail(max(f[i], 1e-300), dof1[i], dof2[i])
            out[i] = z_of_tail(log_tail, upper)
        else:
            out[i] = 0.0


@compiled
def _chi2_to_log10p(q: Floats, dof: Floats, out: Floats) -> None:
    """Loop over `log_gamma_tail`; 0 where dof are not positive."""
    last = 0.0
    log_gamma = 0.0
    for i in range(q.size):
        if not (dof[i] > 0.0 and q[i] > 0.0):
            out[i] = 0.0
            continue
        if dof[i] != last:
            last = dof[i]
            log_gamma = math.lgamma(0.5 * last)
        log_tail, upper = log_gamma_tail(0.5 * last, 0.5 * q[i], log_gamma)
        out[i] = -(log_tail if upper else log1mexp(log_tail)) / _LOG_10


@compiled
def _log_sf(z: Floats, out: Floats) -> None:
    """Loop over `log_normal_sf`."""
    for i in range(z.size):
        out[i] = log_normal_sf(z[i])


@compiled
def _z_from_log_sf(log_p: Floats, out: Floats) -> None:
    """Loop over `z_of_tail`."""
    for i in range(log_p.size):
        out[i] = z_of_tail(log_p[i], True)


def t_to_z(t: ArrayLike, dof: ArrayLike, frequent: float = 0.0) -> Floats:
    """Return z with the same upper-tail probability as t.

    Parameters
    ----------
    t, dof : array_like
        Broadcast against each other. dof inf: z is t; dof <= 0: z is 0.
    frequent : float
        dof, whole or not, that many t have: z is interpolated for them, too.

    Returns
    -------
    ndarray
        z, with the sign of t.
    """
    shape, (t_flat, dof_flat) = _aligned(t, dof)
    out = np.empty(t_flat.size)
    if (dof_flat == dof_flat[:1]).all():
        dofs, which = dof_flat[:1], np.zeros(dof_flat.size, dtype=np.int64)
    else:
        dofs, which = np.unique(dof_flat, return_inverse=True)
    many = ((dofs == np.floor(dofs)) | (dofs == frequent)) & (dofs > 0.0) & (dofs <= _MOST_DOF)
    slots = np.where(many, np.cumsum(many) - 1, -1)
    nodes = np.stack([_NO_NODES, *(_nodes(dof) for dof in dofs[many].tolist())])[1:]
    log_b = np.array([log_beta(0.5 * dof, 0.5) if 0.0 < dof < np.inf else 0.0 for dof in dofs.tolist()])
    _t_to_z_by_dof(t_flat, which.reshape(-1), dofs, log_b, slots, nodes, out)
    return out.reshape(shape)


def z_to_t(z: ArrayLike, dof: ArrayLike) -> Floats:
    """Return the t of the same upper-tail probability as z; the inverse of `t_to_z`.

    Within |z| < 20 `scipy.special.stdtrit` inverts the probability; further out
    `t_to_z` is inverted by bisection on log t.
    """
    from scipy import special  # slow to import, as in z_to_f

    z, dof = np.broadcast_arrays(np.asarray(z, dtype=np.float64), np.asarray(dof, dtype=np.float64))
    size = np.abs(z)
    with np.errstate(all="ignore"):
        t = -special.stdtrit(dof, special.ndtr(-size))
    t = np.where(np.isinf(dof), size, t)
    far = np.flatnonzero((size >= _FAR) & np.isfinite(dof) & np.isfinite(size))
    if far.size:
        t = t.copy()
        t.flat[far] = _invert(size.flat[far], lambda at: t_to_z(at, dof.flat[far]))
    return np.copysign(t, z)


def z_to_f(z: ArrayLike, rows: float, dof: float) -> Floats:
    """Return the F of the same upper-tail probability as z; the inverse of `f_to_z`.

    Parameters
    ----------
    z : array_like
    rows, dof : float
        Degrees of freedom, both finite.
    """
    from scipy import special

    z = np.asarray(z, dtype=np.float64)
    with np.errstate(divide="ignore"):  # the smaller of the two tails, so that neither is rounded to 1
        upper = special.betaincinv(0.5 * dof, 0.5 * rows, special.ndtr(-z))
        lower = special.betaincinv(0.5 * rows, 0.5 * dof, special.ndtr(z))
        f = dof / rows * np.where(z > 0.0, 1.0 / upper - 1.0, lower / (1.0 - lower))
    far = np.flatnonzero(z >= _FAR)
    if far.size:
        f = np.array(f)
        f.flat[far] = _invert(z.flat[far], lambda at: f_to_z(at, rows, dof))
    return f


def _invert(z: Floats, z_of: Callable[[Floats], Floats]) -> Floats:
    """Find the statistics, above 1, that have these z, by bisection on their logarithms."""
    low, high = np.zeros(z.size), np.full(z.size, 700.0)
    for _ in range(60):  # 700 / 2**60: the last bit of the logarithm
        middle = 0.5 * (low + high)
        below = z_of(np.exp(middle)) < z
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.exp(high)


def f_to_z(f: ArrayLike, dof1: ArrayLike, dof2: ArrayLike) -> Floats:
    """Return z = isf(p) of F: negative where p exceeds 1/2.

    Parameters
    ----------
    f, dof1, dof2 : array_like
        Broadcast. dof2 inf: F is chi-square over dof1; dof <= 0: z is 0.
    """
    shape, flat = _aligned(f, dof1, dof2)
    out = np.empty(flat[0].size)
    _f_to_z(*flat, out)
    return out.reshape(shape)


def p_to_z(p: ArrayLike) -> Floats:
    """Return z = isf(p); p = 0 and p = 1 are replaced by the nearest floats between."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), _SMALLEST, _NEAREST_ONE)
    # near 1, log1p keeps what log(p) has lost
    return np.where(clipped <= 0.5, z_from_log_sf(np.log(clipped)), -z_from_log_sf(np.log1p(-clipped)))


def z_from_log_sf(log_p: ArrayLike) -> Floats:
    """Return z with log P(Z > z) = ``log_p`` (natural logarithm)."""
    shape, (flat,) = _aligned(log_p)
    out = np.empty(flat.size)
    _z_from_log_sf(flat, out)
    return out.reshape(shape)


def z_to_log_sf(z: ArrayLike) -> Floats:
    """Return log P(Z > z) (natural logarithm)."""
    shape, (flat,) = _aligned(z)
    out = np.empty(flat.size)
    _log_sf(flat, out)
    return out.reshape(shape)


def z_to_log10p(z: ArrayLike, tail: str) -> Floats:
    """Return -log10 p of z.

    Parameters
    ----------
    z : array_like
    tail : {"two-sided", "positive", "negative"}
    """
    values = np.asarray(z, dtype=np.float64)
    if tail == "two-sided":
        return np.maximum(-(z_to_log_sf(np.abs(values)) + LOG_2) / _LOG_10, 0.0)
    return np.maximum(-z_to_log_sf(values if tail == "positive" else -values) / _LOG_10, 0.0)


def chi2_to_log10p(q: ArrayLike, dof: ArrayLike) -> Floats:
    """Return -log10 P(chi-square > q); 0 where dof or q are not positive."""
    shape, (q_flat, dof_flat) = _aligned(q, dof)
    out = np.empty(q_flat.size)
    _chi2_to_log10p(q_flat, dof_flat, out)
    return np.maximum(out, 0.0).reshape(shape)
