"""Confidence limits of noncentrality: the t or F distribution of which an observed statistic is a given quantile.

Its distribution function is an integral (t) or a sum (F) to near machine
precision: SciPy's own noncentral functions are of four to six digits. Newton's
steps on the normal scale invert it. Maps of many voxels are interpolated, for
each dof, between nodes that are inverted so: relative errors are below 1e-10.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_REACH = 9.0  # standard deviations: what lies beyond is less than 1e-18
_TAIL = 1e-19
_STEP = 0.03  # between nodes, in units in which limits are smooth
_DEGREE = 7
_FEW = 400  # values of one dof that are inverted each by itself
_STEPS = 60  # of Newton at most; four to six are taken
_AT_ONCE = 4096  # nodes: 64 points each
_AT_ONCE_F = 64  # the sums of large noncentralities have many terms
_LARGEST_F = 1e5  # larger ones are taken for it: they explain all variance but a ten-thousandth part


def t_cdf(t: ArrayLike, dof: float, noncentrality: ArrayLike) -> Floats:
    """Return P(T <= t) of noncentral t.

    With S the chi variable over the root of its dof, P(T <= t) is the mean of
    Phi(t S - noncentrality) over S. The integral is taken where Phi is neither
    0 nor 1; beyond, the distribution of S is known.

    Parameters
    ----------
    t, noncentrality : array_like
        Of one shape.
    dof : float
        Above 0; precise for whole numbers.
    """
    return _t_cdf(np.asarray(t, dtype=np.float64), dof, np.asarray(noncentrality, dtype=np.float64))[0]


def _t_cdf(t: Floats, dof: float, delta: Floats) -> tuple[Floats, Floats]:
    """Return the distribution function (N,) and minus its derivative by the noncentrality."""
    half = 0.5 * dof
    ends = np.sqrt(np.array([special.gammaincinv(half, _TAIL), special.gammainccinv(half, _TAIL)]) / half)
    size = np.maximum(np.abs(t), 1e-12)
    middle = delta / np.where(t < 0, -size, size)
    low = np.clip(middle - _REACH / size, ends[0], ends[1])
    high = np.clip(middle + _REACH / size, ends[0], ends[1])
    s = 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * _POINTS
    log_density = math.log(2.0) + half * math.log(half) - special.gammaln(half)
    density = np.exp(log_density + (dof - 1.0) * np.log(s) - half * s * s)
    density *= 0.5 * (high - low)[:, None] * _WEIGHTS
    x = t[:, None] * s - delta[:, None]
    beyond = np.where(t >= 0, special.gammaincc(half, half * high**2), special.gammainc(half, half * low**2))
    slope = (density * np.exp(-0.5 * x * x)).sum(axis=1) / math.sqrt(2.0 * math.pi)
    return (density * special.ndtr(x)).sum(axis=1) + beyond, slope


def f_cdf(f: ArrayLike, rows: float, dof: float, noncentrality: ArrayLike) -> Floats:
    """Return P(F <= f) of noncentral F, as a Poisson mixture of incomplete beta functions (f, noncentrality >= 0)."""
    return _f_cdf(np.asarray(f, dtype=np.float64), rows, dof, np.asarray(noncentrality, dtype=np.float64))[0]


def _f_cdf(f: Floats, rows: float, dof: float, noncentrality: Floats) -> tuple[Floats, Floats]:
    """Return the distribution function (N,) and minus its derivative by the noncentrality."""
    x = rows * f / (rows * f + dof)
    mean = 0.5 * noncentrality
    width = 8.0 * np.sqrt(mean) + 20.0
    first = np.maximum(np.floor(mean - width), 0.0)
    terms = np.arange(float(np.max(2.0 * width, initial=0.0)) + 1.0)
    number = first[:, None] + terms
    log_weight = special.xlogy(number, mean[:, None]) - mean[:, None] - special.gammaln(number + 1.0)
    weight = np.exp(log_weight)
    a, b = 0.5 * rows + number, 0.5 * dof
    part = special.betainc(a, b, x[:, None])
    # d/dm of sum Pois(j; m) I_j is sum Pois(j; m) (I_(j+1) - I_j), and that difference is (DLMF 8.17.20)
    log_drop = special.xlogy(a, x[:, None]) + special.xlog1py(b, -x[:, None]) - np.log(a) - special.betaln(a, b)
    return (weight * part).sum(axis=1), 0.5 * (weight * np.exp(log_drop)).sum(axis=1)


def t_limit(t: ArrayLike, dof: ArrayLike, z: float) -> Floats:
    """Return the noncentrality at which P(T <= t) is Phi(z): with z = 1.96 the lower end of a 95 % interval.

    The upper end is that of -z.

    Parameters
    ----------
    t : array_like
    dof : array_like
        Broadcast against t; infinite: t is normal.
    z : float
    """
    values, dofs = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(dof, dtype=np.float64))
    out = np.empty(values.shape)
    for one in np.unique(dofs):
        there = dofs == one
        out[there] = values[there] - z if np.isinf(one) else _by_nodes(values[there], float(one), z)
    return out


def _by_nodes(t: Floats, dof: float, z: float) -> Floats:
    """Invert each value where there are few, else interpolate."""
    if t.size <= _FEW:
        return _invert_t(t, dof, z)
    from scipy.interpolate import make_interp_spline

    scale = math.sqrt(2.0 * dof)
    u = np.arcsinh(t / scale)  # the limit bends where |t| is about the root of twice the dof
    nodes = _nodes(float(u.min()), float(u.max()))
    spline = make_interp_spline(nodes, _invert_t(scale * np.sinh(nodes), dof, z), k=_DEGREE)
    return np.asarray(spline(u), dtype=np.float64)


def _nodes(low: float, high: float) -> Floats:
    """Return equidistant nodes from a little below to a little above; they do not depend on the extremes' digits."""
    first, last = math.floor(low / _STEP) - 4, math.ceil(high / _STEP) + 5
    return np.asarray(_STEP * np.arange(first, last), dtype=np.float64)


def _invert_t(t: Floats, dof: float, z: float) -> Floats:
    found: Floats = np.empty(t.size)
    for start in range(0, t.size, _AT_ONCE):
        part = t[start : start + _AT_ONCE]
        begin = part * (1.0 - 0.25 / dof) - z * np.sqrt(1.0 + 0.5 * part * part / dof)  # t as normal
        found[start : start + part.size] = _newton(partial(_t_cdf, part, dof), begin, z)
    return found


def _newton(cdf: Callable[[Floats], tuple[Floats, Floats]], start: Floats, z: float, floor: float = -np.inf) -> Floats:
    """Find where a falling distribution function is Phi(z), on the normal scale, where it is nearly a line."""
    at = np.maximum(start, floor)
    for _ in range(_STEPS):
        p, slope = cdf(at)
        level = special.ndtri(np.clip(p, 1e-300, 1.0 - 2.0**-53))
        density = np.exp(-0.5 * level**2) / math.sqrt(2.0 * math.pi)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (level - z) * density / slope
        step = np.where(np.isfinite(step), step, level - z)
        reach = 2.0 + 0.5 * np.abs(at)
        after = np.maximum(at + np.clip(step, -reach, reach), floor)
        settled = np.abs(after - at) <= 1e-13 * (1.0 + np.abs(after))
        at = after
        if settled.all():
            break
    return at


def f_limit(f: ArrayLike, rows: float, dof: ArrayLike, z: float) -> Floats:
    """Return the noncentrality at which P(F <= f) is Phi(z); 0 where even that of 0 is below.

    Parameters
    ----------
    f : array_like
    rows : float
        Numerator degrees of freedom.
    dof : array_like
        Broadcast against f.
    z : float
    """
    values, dofs = np.broadcast_arrays(np.minimum(f, _LARGEST_F), np.asarray(dof, dtype=np.float64))
    out = np.zeros(values.shape)
    for one in np.unique(dofs):
        x = special.betaincinv(0.5 * rows, 0.5 * one, special.ndtr(z))
        least = one * x / (rows * (1.0 - x))  # the F at which the noncentrality is 0
        there = (dofs == one) & (values > least)
        out[there] = _f_by_nodes(values[there], rows, float(one), z, float(least))
    return out


def _f_by_nodes(f: Floats, rows: float, dof: float, z: float, least: float) -> Floats:
    if f.size <= _FEW:
        return _invert_f(f, rows, dof, z)
    from scipy.interpolate import make_interp_spline

    u, begin = 0.5 * np.log(f), 0.5 * math.log(least)
    nodes = begin + _STEP * np.arange(math.ceil((float(u.max()) - begin) / _STEP) + 5)
    known = _invert_f(np.exp(2.0 * nodes), rows, dof, z)
    known[0] = 0.0
    return np.maximum(np.asarray(make_interp_spline(nodes, known, k=_DEGREE)(u), dtype=np.float64), 0.0)


def _invert_f(f: Floats, rows: float, dof: float, z: float) -> Floats:
    found = np.empty(f.size)
    for start in range(0, f.size, _AT_ONCE_F):
        part = f[start : start + _AT_ONCE_F]
        begin = np.maximum(rows * (part - 1.0) - z * np.sqrt(2.0 * rows + 4.0 * rows * part), 0.1)
        found[start : start + part.size] = _newton(partial(_f_cdf, part, rows, dof), begin, z, 0.0)
    return found


@lru_cache(maxsize=4096)
def hedges_factor(dof: float) -> float:
    """Return Hedges' small-sample factor: the mean of d is the population's effect over it (dof above 1)."""
    if math.isinf(dof):
        return 1.0
    return math.exp(math.lgamma(0.5 * dof) - 0.5 * math.log(0.5 * dof) - math.lgamma(0.5 * (dof - 1.0)))
