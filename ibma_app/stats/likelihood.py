"""The tau2 of the largest (restricted) likelihood, certified to be the global one.

In the coordinates that diagonalise the contrasts' variance, the derivative of
the (restricted) log likelihood in t = tau2 is half of g - h with

    g = sum z²/(l + t)²  = y'PPy,        h = sum 1/(l + t)  = tr P  (ML: sum w).

g^(-1/2) and 1/h are generalised means of (l + t), hence concave and increasing
in t. Tangents bound a concave function from above, chords and its slope at
infinity from below: values and derivatives at two points show whether g - h can
change sign between them. Intervals where it might are split. So a second
optimum is found where there is one, and a voxel without one costs no more than
Newton's steps to its root. Tolerances are relative to t plus the smallest variance.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import CONSTANT, KIND, LANES, VARIANCE
from ibma_app.stats.compiled import folded, inner
from ibma_app.stats.weighted import FACTOR, ONCE, Moments, moments, smallest_variance

Floats = NDArray[np.float64]

_CLOSE = 1e-14  # distance to the root, relative to t plus the smallest variance
ML, REML = range(2)
_MOST = 400  # evaluations of one voxel; 6 are usual
_DEPTH = 64  # intervals on the stack, at most
_SIZE = 14  # numbers of an interval; the first row of the stack has their count after them


class Point(NamedTuple):
    """g and h at t, and their derivatives: g' = -2 gg, h' = -hh."""

    t: float
    g: float  # y'PPy
    gg: float  # y'PPPy
    h: float  # tr P; ML: sum w
    hh: float  # tr PP; ML: sum w²
    q: float  # y'Py


class Curve(NamedTuple):
    """G = g^(-1/2), H = 1/h and their derivatives at t."""

    t: float
    g: float
    dg: float
    h: float
    dh: float


class Limits(NamedTuple):
    """Values of a voxel that do not depend on t."""

    rank: int
    restricted: bool
    slope_g: float  # of G at infinity
    smallest: float  # variance


@folded
def _point(t: float, m: Moments, limits: Limits) -> Point:
    """Turn moments into a point."""
    if limits.restricted:
        return Point(t, m.ypp, m.yppp, m.tr_p, m.tr_pp, m.q)
    return Point(t, m.ypp, m.yppp, m.sum_w, m.sum_ww, m.q)


@folded
def _curve(p: Point) -> Curve:
    """Turn a point into the concave functions and their slopes."""
    g = 1.0 / math.sqrt(p.g)
    h = 1.0 / p.h
    return Curve(p.t, g, g * p.gg / p.g, h, p.hh * h * h)


@folded
def _rises(p: Point) -> bool:
    """Whether the likelihood rises at a point."""
    return p.g > p.h


@inner
def _evaluate(maps: Floats, small: Floats, limits: Limits, t: float) -> Point:
    """Evaluate at t."""
    return _point(t, moments(maps, small, limits.rank, t, ONCE), limits)


@folded
def _slope(p: Point) -> float:
    """Return the slope of h/g - 1, which is linear in t when variances are equal, times g."""
    return 2.0 * p.gg * p.h / p.g - p.hh


@inner
def _root(before: Point, here: Point) -> float:
    """Return where h/g - 1 would be 0 were t a cubic of it through two points; nan where it is none."""
    slope_0, slope_1 = _slope(before), _slope(here)
    if not (slope_0 > 0.0 and slope_1 > 0.0):
        return np.nan
    low, high = before.h / before.g - 1.0, here.h / here.g - 1.0
    rise = high - low
    if rise == 0.0:
        return np.nan
    x, width = -low / rise, here.t - before.t
    bend_0, bend_1 = rise * before.g / slope_0 - width, rise * here.g / slope_1 - width
    return before.t + x * width + x * (1.0 - x) * ((1.0 - x) * bend_0 - x * bend_1)


@inner
def _next(before: Point, here: Point, floor: float, ceiling: float, smallest: float) -> tuple[float, float]:
    """Return the next t to evaluate, and its approximate relative distance from the root.

    A cubic through two points is of order 2.7, Newton's step of 2, halving the bracket of 1.
    """
    t = _root(before, here)
    if floor <= t <= ceiling:
        size = t + smallest
        return t, ((t - before.t) / size * (t - here.t) / size) ** 2
    slope = _slope(here)
    t = here.t + (here.g - here.h) / slope if slope > 0.0 else np.inf
    if floor <= t <= ceiling and not math.isinf(t):
        return t, ((t - here.t) / (t + smallest)) ** 2
    t = 4.0 * (floor + smallest) if math.isinf(ceiling) else 0.5 * (floor + ceiling)
    return t, abs(t - here.t) / (t + smallest)


@inner
def _climb(maps: Floats, small: Floats, limits: Limits, low: Point, ceiling: float, guess: float) -> Point:
    """Return a maximum above ``low``, where the likelihood rises; the point is the last one evaluated.

    Steps to the root of h/g - 1 inside a bracket whose upper end (inf when
    there is none) may be found on the way. A guess not above ``low`` is ignored.
    """
    floor = low.t
    before = here = low
    if guess > floor and guess < ceiling:
        here = _evaluate(maps, small, limits, guess)
    for _ in range(200):
        if _rises(here):
            floor = here.t
        else:
            ceiling = here.t
        t, error = _next(before, here, floor, ceiling, limits.smallest)
        before = here
        here = _evaluate(maps, small, limits, t)
        if error <= _CLOSE:
            break
    return here


@inner
def _rises_between(low: Point, high: Point) -> bool:
    """Whether the likelihood is sure to rise all the way from ``low`` to ``high``.

    G lies under both tangents, H above its chord; the square of the former less
    the latter is convex on both sides of where the tangents meet.
    """
    if high.t <= low.t:
        return True
    a, b = _curve(low), _curve(high)
    width = b.t - a.t
    bend = a.dg - b.dg
    meet = (b.g - a.g - b.dg * width) / bend if bend > 0.0 else width
    if not 0.0 < meet < width:
        return True  # G is straight up to rounding, its square convex
    top = a.g + a.dg * meet
    return top * top < a.h + (b.h - a.h) * meet / width


@inner
def _least(g: float, dg: float, h: float, dh: float, width: float) -> float:
    """Return the least of (g + dg s)² - h - dh s for s from 0 to width."""
    s = min(max((dh - 2.0 * g * dg) / (2.0 * dg * dg), 0.0), width)
    low = g + dg * s
    return low * low - h - dh * s


@inner
def _falls_between(low: Point, high: Point) -> bool:
    """Whether the likelihood is sure to fall all the way from ``low`` to ``high``.

    G lies above its chord, H under both tangents. At a root, an end's own value
    is 0 up to rounding, so that the slope decides there.
    """
    a, b = _curve(low), _curve(high)
    width = b.t - a.t
    chord = (b.g - a.g) / width
    bend = a.dh - b.dh
    meet = (b.h - a.h - b.dh * width) / bend if bend > 0.0 else width
    if not 0.0 < meet < width:
        meet = width  # H is straight up to rounding
    slack = 1e-12 * a.h
    if _least(a.g, chord, a.h, a.dh, meet) < -slack:
        return False
    height = a.h + a.dh * meet
    return _least(a.g + chord * meet, chord, height, b.dh, width - meet) >= -slack


@inner
def _falls_from(low: Point, slope_g: float) -> float:
    """Return 0 when the likelihood is sure to fall from ``low`` to infinity, else a step to look at."""
    a = _curve(low)
    step = (a.dh - 2.0 * a.g * slope_g) / (2.0 * slope_g * slope_g)
    if step <= 0.0:
        return 0.0
    if _least(a.g, slope_g, a.h, a.dh, np.inf) > 1e-12 * a.h:
        return 0.0
    return 2.0 * step


@inner
def log_likelihood(maps: Floats, small: Floats, limits: Limits, t: float) -> float:
    """Return the (restricted) log likelihood at t, up to a constant."""
    m = moments(maps, small, limits.rank, t, ONCE)
    total = -0.5 * m.q
    for i in range(maps.shape[1]):
        for lane in range(LANES):
            if not math.isinf(maps[VARIANCE, i, lane]):
                total -= 0.5 * math.log(maps[VARIANCE, i, lane] + t)
    if limits.restricted:
        for a in range(limits.rank):
            total -= math.log(small[FACTOR, a, a])
    return total


class Interval(NamedTuple):
    """Two points, and whether the likelihood rises just after the first and just before the second."""

    low: Point
    high: Point
    leaves: bool
    arrives: bool


@inner
def _push(stack: Floats, size: int, interval: Interval) -> int:
    """Put an interval on the stack; return the stack's size."""
    row = stack[size]
    row[0], row[1], row[2], row[3], row[4], row[5] = interval.low
    row[6], row[7], row[8], row[9], row[10], row[11] = interval.high
    row[12], row[13] = interval.leaves, interval.arrives
    return size + 1


@inner
def _read(row: Floats) -> Interval:
    """Read an interval off the stack."""
    low = Point(row[0], row[1], row[2], row[3], row[4], row[5])
    high = Point(row[6], row[7], row[8], row[9], row[10], row[11])
    return Interval(low, high, row[12] > 0.0, row[13] > 0.0)


@inner
def _settled(interval: Interval, smallest: float) -> bool:
    """Whether an interval is sure to hide no maximum, or is too short to matter."""
    low, high = interval.low, interval.high
    share = (high.t - low.t) / (low.t + smallest)
    if interval.leaves and interval.arrives:
        return share < 1e-6 or _rises_between(low, high)
    if not interval.leaves and not interval.arrives:
        return share < 1e-6 or _falls_between(low, high)
    return not interval.leaves and share < 1e-3  # one minimum, bracketed


@inner
def _walk(maps: Floats, small: Floats, limits: Limits, top: Point, stack: Floats, found: Floats) -> int:
    """Look for maxima above ``top``, whose intervals go on the stack; return how many were found."""
    count = 0
    size = int(stack[0, _SIZE])
    for _ in range(found.size):
        step = _falls_from(top, limits.slope_g)
        if step <= 0.0 or size + 2 > _DEPTH:
            break
        there = _evaluate(maps, small, limits, top.t + step)
        rises = _rises(there)
        size = _push(stack, size, Interval(top, there, False, rises))
        top = there
        if rises:
            top = _climb(maps, small, limits, there, np.inf, 0.0)
            size = _push(stack, size, Interval(there, top, True, True))
            found[count] = top.t
            count += 1
    stack[0, _SIZE] = size
    return count


@inner
def _split(maps: Floats, small: Floats, limits: Limits, stack: Floats, found: Floats, count: int) -> int:
    """Settle the intervals on the stack one after the other; return how many maxima are known."""
    size = int(stack[0, _SIZE])
    for _ in range(_MOST):
        if size == 0 or size + 2 > _DEPTH:
            break
        size -= 1
        interval = _read(stack[size])
        if _settled(interval, limits.smallest):
            continue
        low, high, leaves, arrives = interval
        if leaves and not arrives:
            top = _climb(maps, small, limits, low, high.t, 0.0)
            if count < found.size:
                found[count] = top.t
                count += 1
            size = _push(stack, size, Interval(top, high, False, False))
            size = _push(stack, size, Interval(low, top, True, True))
            continue
        middle = math.sqrt((low.t + limits.smallest) * (high.t + limits.smallest)) - limits.smallest
        here = _evaluate(maps, small, limits, max(middle, low.t))
        rises = _rises(here)
        size = _push(stack, size, Interval(here, high, rises, arrives))
        size = _push(stack, size, Interval(low, here, leaves, rises))
    return count


@inner
def _search(maps: Floats, small: Floats, limits: Limits, origin: Point, top: Point) -> float:
    """Find every maximum and return the t of the largest likelihood."""
    stack = np.zeros((_DEPTH + 2, _SIZE + 1))
    found = np.zeros(16)
    if top.t > 0.0:
        stack[0, _SIZE] = _push(stack, np.int64(0), Interval(origin, top, True, True))
    count = _walk(maps, small, limits, top, stack, found)
    count = _split(maps, small, limits, stack, found, count)
    best = top.t
    if count > 0:
        largest = log_likelihood(maps, small, limits, best)
        for i in range(count):
            value = log_likelihood(maps, small, limits, found[i])
            if value > largest:
                largest = value
                best = found[i]
    return best


@inner
def maximise_likelihood(
    maps: Floats, small: Floats, k: int, rank: int, method: int, fixed: Moments, unweighted: float
) -> tuple[float, float]:
    """Return the tau2 >= 0 of the largest likelihood, and its Q where the arrays hold its fit (else nan).

    Parameters
    ----------
    k, rank : int
        Maps, and rank of their rows; k > rank.
    method : int
        `ML` or `REML`.
    fixed : Moments
        Of tau2 = 0.
    unweighted : float
        Residual sum of squares with equal weights.
    """
    if not (fixed.ypp > 0.0 and unweighted > 0.0):
        return 0.0, np.nan
    limits = Limits(rank, method == REML, 1.0 / math.sqrt(unweighted), smallest_variance(maps))
    origin = _point(0.0, fixed, limits)
    top = origin
    if _rises(origin):
        guess = (fixed.q - (k - rank)) / fixed.tr_p  # DerSimonian and Laird's
        top = _climb(maps, small, limits, origin, np.inf, guess)
    if _rises_between(origin, top) and _falls_from(top, limits.slope_g) == 0.0:
        kept = top.t > 0.0 or small[KIND, 0, 0] == CONSTANT  # else `unweighted_sum` has overwritten the arrays
        return top.t, top.q if kept else np.nan
    return _search(maps, small, limits, origin, top), np.nan
