"""Closed testing with Simes' test: Hommel's value, adjusted p, and true discoveries in any set.

S_i, the Simes p of the i largest of n sorted p, is i times the smallest slope
from the point (n - i, 0) to a later point (j, p_j): a tangent to the lower
convex hull of these points, whose touching point moves in one direction as i
grows. So all S_i take linear time after sorting (Meijer, Krebs & Goeman 2019, Biometrical Journal 61, 73-82),
and:

- Hommel's value h(alpha) is the largest i with S_i > alpha;
- the adjusted p of a hypothesis (Hommel 1988, Biometrika 75, 383-386) is the
  smallest alpha with h(alpha) · p <= alpha: max(S_(i+1), i · p) at the largest i
  with i · p < S_i;
- of a set, at least max_u (1 - u + #{p: h · p <= u · alpha}) are true discoveries
  (Goeman & Solari 2011; Rosenblatt et al. 2018, NeuroImage 181, 786-796).
"""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SMALLEST = 1e-290
"""Smaller p are replaced by this for Simes' test, so that its slopes do not underflow."""


@inner
def _lower_hull(p: Floats) -> Integers:
    """Return the indices j of the points (j, p_j), p ascending, on their lower convex hull."""
    hull = np.empty(p.size, np.int64)
    size = 0
    for k in range(p.size):
        while size >= 2:
            a, b = hull[size - 2], hull[size - 1]
            if (p[b] - p[a]) * (k - a) < (p[k] - p[a]) * (b - a):
                break
            size -= 1
        hull[size] = k
        size += 1
    return hull[:size]


@compiled
def _simes(p: Floats) -> Floats:
    """Return S_0 to S_(n + 1) of ascending p; S_0 is infinite, S_(n + 1) is 0."""
    n = p.size
    simes = np.zeros(n + 2)
    simes[0] = np.inf
    hull = _lower_hull(p)
    at = hull.size - 1
    for i in range(1, n + 1):
        origin = n - i - 1  # the point (n - i, 0), counting from 0
        while at > 0 and hull[at - 1] > origin:
            here, before = hull[at], hull[at - 1]
            if p[before] * (here - origin) > p[here] * (before - origin):
                break
            at -= 1
        simes[i] = min(i * p[hull[at]] / (hull[at] - origin), simes[i - 1])
    return simes


@compiled
def _adjust(p: Floats, simes: Floats, log10_p: Floats, out: Floats) -> None:
    """Fill -log10 of Hommel's adjusted p, for ascending p."""
    n = p.size
    i = 0
    for j in range(n - 1, -1, -1):  # i grows as p falls
        while i < n and (i + 1) * p[j] < simes[i + 1]:
            i += 1
        if p[j] <= SMALLEST:  # Bonferroni's is never smaller
            out[j] = log10_p[j] - np.log10(n)
        else:
            out[j] = -np.log10(max(simes[i + 1], i * p[j]))
        if j < n - 1:  # a smaller p is never adjusted to a larger one
            out[j] = max(out[j], out[j + 1])


def _sorted_p(log10_p: Floats) -> tuple[Integers, Floats]:
    """Return the order of ascending p, and p in that order."""
    order = np.argsort(-log10_p, kind="stable")
    # p with -log10 p beyond 290 are all the smallest one: their order is not changed
    return order, np.maximum(10.0 ** -np.minimum(log10_p[order], 300.0), SMALLEST)


def simes_of_largest(log10_p: Floats) -> Floats:
    """Return the Simes p of the i largest p, for i from 0 (infinite) to N, then 0.

    Parameters
    ----------
    log10_p : ndarray, shape (N,)
        -log10 p, in any order.

    Returns
    -------
    ndarray, shape (N + 2,)
        Not increasing.
    """
    return np.asarray(_simes(_sorted_p(log10_p)[1]))


def hommel_value(log10_p: Floats, alpha: float) -> int:
    """Return h(alpha): the most hypotheses that could be true together, of N.

    Parameters
    ----------
    log10_p : ndarray, shape (N,)
    alpha : float
    """
    return int(np.count_nonzero(simes_of_largest(log10_p)[1:-1] > alpha))


def adjust_hommel(log10_p: Floats) -> Floats:
    """Return -log10 of Hommel's adjusted p.

    Where p is below 1e-290, Bonferroni's, which is never smaller.

    Parameters
    ----------
    log10_p : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N,)
        At least 0.
    """
    if log10_p.size == 0:
        return np.zeros(0)
    order, p = _sorted_p(log10_p)
    adjusted = np.empty(p.size)
    _adjust(p, _simes(p), np.ascontiguousarray(log10_p[order], dtype=np.float64), adjusted)
    found = np.empty(p.size)
    found[order] = np.maximum(adjusted, 0.0)
    return found


def true_discoveries(log10_p: Floats, sets: Integers, n_sets: int, hommel: int, alpha: float) -> Integers:
    """Bound from below how many hypotheses of each set are false, for all sets together.

    Parameters
    ----------
    log10_p : ndarray, shape (M,)
    sets : ndarray of int64, shape (M,)
        The set of each, from 0.
    n_sets : int
        Empty ones included.
    hommel : int
        `hommel_value` over all hypotheses, not those of the sets alone.
    alpha : float
        With confidence 1 - alpha.

    Returns
    -------
    ndarray of int64, shape (n_sets,)
    """
    found = np.zeros(n_sets, dtype=np.int64)
    if log10_p.size == 0:
        return found
    order = np.lexsort((-log10_p, sets))
    owner = sets[order]
    steps = np.maximum(np.ceil(hommel * 10.0 ** -log10_p[order] / alpha), 1.0)
    present, starts, sizes = np.unique(owner, return_index=True, return_counts=True)
    ranks = np.arange(owner.size) - np.repeat(starts, sizes)
    bounds = np.maximum.reduceat(ranks + 2.0 - steps, starts)
    found[present] = np.maximum(bounds, 0.0).astype(np.int64)
    return found
