"""Combining z or p over the maps that cover a voxel: Stouffer, Fisher, Tippett.

Both tails of p are handled as logarithms, so that neither underflows nor rounds to 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.dependence import generalised_weights
from ibma_app.stats.logtails import LOG_2, log1mexp, log_gamma_tail, log_normal_sf, z_of_log_sf, z_of_tail
from ibma_app.stats.voxels import find_patterns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FISHER, _TIPPETT = range(2)
_TWO_SIDED, _POSITIVE, _NEGATIVE = range(3)
_TAILS = {"two-sided": _TWO_SIDED, "positive": _POSITIVE, "negative": _NEGATIVE}


@compiled
def _weighted_z(z: Floats, covered: Bools, weights: Floats, out: Floats) -> None:
    """Sum w z / sqrt(sum w²) over each voxel's maps, in the maps' order."""
    top = np.zeros(z.shape[1])
    bottom = np.zeros(z.shape[1])
    for i in range(z.shape[0]):
        for b in range(z.shape[1]):
            if covered[i, b]:
                top[b] += weights[i] * z[i, b]
                bottom[b] += weights[i] * weights[i]
    for b in range(z.shape[1]):
        if bottom[b] > 0.0:
            out[b] = top[b] / math.sqrt(bottom[b])


@inner
def _log_fisher(z: Floats, covered: Bools, sign: float, b: int) -> tuple[float, bool]:
    """Return one tail of Fisher's chi-square for p = P(Z > sign z); see `log_gamma_tail`."""
    n = 0
    total = 0.0
    for i in range(z.shape[0]):
        if covered[i, b]:
            total -= log_normal_sf(sign * z[i, b])
            n += 1
    if total <= 0.0:
        return 0.0, True
    return log_gamma_tail(float(n), total, math.lgamma(float(n)))


@compiled
def _fisher_sums(z: Floats, covered: Bools, terms: Floats, constant: Floats) -> None:
    """Write half the difference of each map's -log p of both tails, and half the sum of all maps'."""
    for i in range(z.shape[0]):
        for b in range(z.shape[1]):
            if covered[i, b]:
                up, low = -log_normal_sf(z[i, b]), -log_normal_sf(-z[i, b])
                terms[i, b] = 0.5 * (up - low)
                constant[b] += 0.5 * (up + low)


@compiled
def _fisher_z(up: Floats, low: Floats, n: Floats, tail: int, out: Floats) -> None:
    """Turn sums of -log p of both tails into z."""
    for b in range(out.size):
        if n[b] > 0.0:
            log_gamma = math.lgamma(n[b])
            above, below = (0.0, True), (0.0, True)
            if up[b] > 0.0:
                above = log_gamma_tail(n[b], up[b], log_gamma)
            if low[b] > 0.0:
                below = log_gamma_tail(n[b], low[b], log_gamma)
            out[b] = _directed(above, below, tail)


@inner
def _log_tippett(z: Floats, covered: Bools, sign: float, b: int) -> tuple[float, bool]:
    """Return the log of Tippett's p = 1 - (1 - smallest p)^n, or of 1 - p when False."""
    n = 0
    largest = -math.inf
    for i in range(z.shape[0]):
        if covered[i, b]:
            largest = max(largest, sign * z[i, b])
            n += 1
    log_least = log_normal_sf(largest)
    if log_least < -30.0:  # n p, to 1e-13
        return min(math.log(n) + log_least, 0.0), True
    log_rest = n * log_normal_sf(-largest)
    if log_rest < -LOG_2:
        return log_rest, False
    return log1mexp(log_rest), True


@inner
def _upper(tail: tuple[float, bool]) -> float:
    """Return log p of a tail and whether it is the upper one."""
    return tail[0] if tail[1] else log1mexp(tail[0])


@inner
def _directed(up: tuple[float, bool], low: tuple[float, bool], tail: int) -> float:
    """Turn the tests of both directions into z.

    Two-sided: twice the smaller p, capped at 1, and signed by it.
    """
    if tail == _POSITIVE:
        return z_of_tail(up[0], up[1])
    if tail == _NEGATIVE:
        return -z_of_tail(low[0], low[1])
    log_up, log_low = _upper(up), _upper(low)
    z = z_of_log_sf(min(log_up, log_low))
    return z if log_up <= log_low else -z


@compiled
def _combine_p(z: Floats, covered: Bools, rule: int, tail: int, out: Floats) -> None:
    """Loop over voxels."""
    for b in range(z.shape[1]):
        some = False
        for i in range(z.shape[0]):
            some = some or covered[i, b]
        if some and rule == _TIPPETT:
            out[b] = _directed(_log_tippett(z, covered, 1.0, b), _log_tippett(z, covered, -1.0, b), tail)
        elif some:
            out[b] = _directed(_log_fisher(z, covered, 1.0, b), _log_fisher(z, covered, -1.0, b), tail)


def _ready(z: Floats, covered: Bools) -> tuple[Floats, Bools, Floats]:
    """Return the arguments of the kernels, and the array that they fill."""
    values = np.ascontiguousarray(z, dtype=np.float64)
    return values, np.ascontiguousarray(covered, dtype=np.bool_), np.zeros(values.shape[1])


def stouffer(z: Floats, covered: Bools, weights: Floats) -> Floats:
    """Return Stouffer's z, (B,), from z (K, B) and weights (K,); 0 where no map covers."""
    values, where, out = _ready(z, covered)
    _weighted_z(values, where, np.array(weights, dtype=np.float64), out)
    return out


def stouffer_dependent(z: Floats, covered: Bools, weights: Floats, correlation: Floats) -> Floats:
    """Return Stouffer's z of maps that are correlated, (B,): sum(w z) / sqrt(w'Rw) over the maps that cover.

    Parameters
    ----------
    z : ndarray, shape (K, B)
    covered : ndarray of bool, shape (K, B)
    weights : ndarray, shape (K,) or (N, K)
        In the latter case of each pattern of coverage, in the order of `find_patterns`; 0 where a map does not cover.
    correlation : ndarray, shape (K, K)
    """
    if not covered.shape[1]:
        return np.zeros(0)
    first, slots = find_patterns(covered)
    patterns = covered[:, first].T
    rows = np.where(patterns, weights, 0.0)
    spread = np.array([row @ correlation @ row for row in rows])
    scale = np.where(spread > 0.0, 1.0 / np.sqrt(np.where(spread > 0.0, spread, 1.0)), 0.0)
    total = np.zeros(z.shape[1])
    for one, there, of_patterns in zip(z, covered, (rows * scale[:, None]).T, strict=True):
        total += np.where(there, one, 0.0) * of_patterns[slots]
    return total


def stouffer_generalised(z: Floats, covered: Bools, correlation: Floats) -> Floats:
    """Return 1'R^-1 z / sqrt(1'R^-1 1) over the maps that cover each voxel, (B,); see `generalised_weights`."""
    if not covered.shape[1]:
        return np.zeros(0)
    first, _ = find_patterns(covered)
    weights = np.zeros((first.size, len(correlation)))
    for row, there in zip(weights, covered[:, first].T, strict=True):
        if there.any():
            row[there] = generalised_weights(correlation[np.ix_(there, there)])[0]
    return stouffer_dependent(z, covered, weights, correlation)


def fisher(z: Floats, covered: Bools, tail: str) -> Floats:
    """Return z of Fisher's combined p, (B,), in a tail; from z (K, B)."""
    values, where, out = _ready(z, covered)
    _combine_p(values, where, _FISHER, _TAILS[tail], out)
    return out


def fisher_sums(z: Floats, covered: Bools) -> tuple[Floats, Floats]:
    """Split Fisher's sums of -log p, of z (K, B), into what turning a map's sign changes, and what it does not.

    Returns
    -------
    terms : ndarray, shape (K, B)
        Half the difference of a map's -log p in the upper and in the lower tail.
    constant : ndarray, shape (B,)
        Half the sum of both tails over the maps; the sum of ``sign * terms`` added gives the upper tail's, subtracted
        the lower tail's.
    """
    values, where, constant = _ready(z, covered)
    terms = np.zeros(values.shape)
    _fisher_sums(values, where, terms, constant)
    return terms, constant


def fisher_z(up: Floats, low: Floats, n: Floats, tail: str) -> Floats:
    """Return z of Fisher's combined p, (M,), in a tail; from the sums of -log p of both, and the numbers of maps."""
    out = np.zeros(up.size)
    sums = (np.ascontiguousarray(values, dtype=np.float64) for values in (up, low, n))
    _fisher_z(*sums, _TAILS[tail], out)
    return out


def tippett(z: Floats, covered: Bools, tail: str) -> Floats:
    """Return z of Tippett's combined p, (B,), in a tail; from z (K, B)."""
    values, where, out = _ready(z, covered)
    _combine_p(values, where, _TIPPETT, _TAILS[tail], out)
    return out
