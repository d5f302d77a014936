"""Between-map variance tau2 at every voxel.

Moment estimators, roots of Q(tau2) and the Q-profile interval; likelihoods are
in likelihood.py. Reference: Viechtbauer W (2005), J Educ Behav Stat 30,
261-293; Veroniki et al. (2016), Res Synth Methods 7, 55-79. Conventions are
metafor's.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.stats.basis import COLUMNS, EFFECT, VARIANCE, Frame
from ibma_app.stats.compiled import compiled
from ibma_app.stats.likelihood import maximise_likelihood
from ibma_app.stats.voxels import TILE, Bench, fill_tile, load_voxel, new_bench
from ibma_app.stats.weighted import IDENTICAL, moments, smallest_variance, unweighted_sum, weighted_total

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_DL, _HEDGES, _HUNTER_SCHMIDT, _SIDIK_JONKMAN = range(4)
_MOMENTS = {
    "dl": _DL,
    "hedges": _HEDGES,
    "hunter-schmidt": _HUNTER_SCHMIDT,
    "sidik-jonkman": _SIDIK_JONKMAN,
}
METHODS = (*_MOMENTS, "paule-mandel", "empirical-bayes", "ml", "reml")

_CLOSE = 1e-8  # a step of tau2 plus the smallest variance; Newton's next would be its square


@compiled
def _hedges(maps: Floats, k: int, rank: int) -> float:
    """Variance components: unweighted residuals less the mean sampling variance."""
    rss = unweighted_sum(maps, k, rank)
    expected = 0.0
    for i in range(k):
        leverage = 0.0
        for a in range(rank):
            leverage += maps[COLUMNS + a, i] ** 2
        expected += maps[VARIANCE, i] * (1.0 - leverage)
    return (rss - expected) / (k - rank)


@compiled
def _variance_of_effects(maps: Floats, k: int) -> float:
    """Sidik and Jonkman's first guess: the variance of the effects about their mean."""
    mean = 0.0
    for i in range(k):
        mean += maps[EFFECT, i]
    mean /= k
    total = 0.0
    for i in range(k):
        total += (maps[EFFECT, i] - mean) ** 2
    return total / k


@compiled
def _moment_of_voxel(maps: Floats, small: Floats, k: int, rank: int, method: int) -> float:
    """Return one voxel's moment estimate, before truncation at 0."""
    if method == _HEDGES:
        return _hedges(maps, k, rank)
    weight_at = 0.0
    if method == _SIDIK_JONKMAN:
        weight_at = _variance_of_effects(maps, k)
        if weight_at <= 0.0:
            return 0.0
    m = moments(maps, small, rank, weight_at)
    if not m.sound or m.q <= IDENTICAL * weighted_total(maps):
        return 0.0
    if method == _SIDIK_JONKMAN:
        return weight_at * m.q / (k - rank)
    if method == _DL:
        return (m.q - (k - rank)) / m.tr_p
    return (m.q - k) / m.sum_w


@compiled
def _solve_q(maps: Floats, small: Floats, rank: int, target: float) -> float:
    """Return tau2 >= 0 with Q(tau2) = target; 0 where Q(0) is smaller.

    1/Q is concave and increasing in tau2: a Newton step from anywhere lands
    left of the root, and those from there never pass it and converge
    quadratically. No bracket, no absolute tolerance.
    """
    m = moments(maps, small, rank, 0.0)
    if not m.sound or m.q <= target or m.ypp <= 0.0:
        return 0.0
    smallest = smallest_variance(maps)
    tau2 = max((m.q - target) / m.tr_p, 0.0)
    for _ in range(200):
        m = moments(maps, small, rank, tau2)
        before = tau2
        tau2 = max(tau2 + (m.q / target - 1.0) * m.q / m.ypp, 0.0)
        if abs(tau2 - before) <= _CLOSE * (tau2 + smallest):
            break
    return tau2


@compiled
def _by_moments(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, method: int, out: Floats
) -> None:
    """Loop over voxels: moment estimators."""
    bench = new_bench(frame)
    for start in range(0, effect.shape[1], TILE):
        for b in range(fill_tile(effect, variance, covered, start, bench)):
            k, rank = load_voxel(frame, bench, b)
            if rank > 0 and k > rank:
                tau2 = _moment_of_voxel(bench.maps, bench.small, k, rank, method)
                out[start + b] = tau2 if tau2 > 0.0 and np.isfinite(tau2) else 0.0


@compiled
def _by_roots(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, targets: Floats, out: Floats
) -> None:
    """Loop over voxels: Q(tau2) = the target of the voxel's dof."""
    bench = new_bench(frame)
    for start in range(0, effect.shape[1], TILE):
        for b in range(fill_tile(effect, variance, covered, start, bench)):
            k, rank = load_voxel(frame, bench, b)
            if rank > 0 and k > rank:
                tau2 = _solve_q(bench.maps, bench.small, rank, targets[k - rank])
                out[start + b] = tau2 if np.isfinite(tau2) else 0.0


@compiled
def _likely_of_voxel(bench: Bench, k: int, rank: int, restricted: bool) -> float:
    """Return one voxel's ML or REML estimate."""
    maps, small = bench.maps, bench.small
    fixed = moments(maps, small, rank, 0.0)
    if not fixed.sound or fixed.q <= IDENTICAL * weighted_total(maps):
        return 0.0
    return maximise_likelihood(maps, small, k, rank, restricted, fixed, unweighted_sum(maps, k, rank))


@compiled
def _by_likelihood(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, restricted: bool, out: Floats
) -> None:
    """Loop over voxels: ML and REML."""
    bench = new_bench(frame)
    for start in range(0, effect.shape[1], TILE):
        for b in range(fill_tile(effect, variance, covered, start, bench)):
            k, rank = load_voxel(frame, bench, b)
            if rank > 0 and k > rank:
                tau2 = _likely_of_voxel(bench, k, rank, restricted)
                out[start + b] = tau2 if np.isfinite(tau2) else 0.0


def estimate_tau2(effect: Floats, variance: Floats, covered: Bools, frame: Frame, method: str) -> Floats:
    """Estimate tau2 at each voxel.

    Parameters
    ----------
    effect, variance : ndarray, shape (K, B), C order
    covered : ndarray of bool, shape (K, B)
    frame : Frame
        From `frame_design`.
    method : str
        One of `METHODS`.

    Returns
    -------
    ndarray, shape (B,)
        At least 0; 0 where n <= rank and where effects are identical.
    """
    out = np.zeros(effect.shape[1])
    if method in _MOMENTS:
        _by_moments(effect, variance, covered, frame, _MOMENTS[method], out)
    elif method in ("ml", "reml"):
        _by_likelihood(effect, variance, covered, frame, method == "reml", out)
    else:  # Morris' empirical Bayes equation has Paule and Mandel's root, Q(tau2) = K - P
        targets = np.arange(effect.shape[0] + 1, dtype=np.float64)
        _by_roots(effect, variance, covered, frame, targets, out)
    return out


def tau2_interval(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Return the Q-profile interval of tau2 (Viechtbauer 2007, Stat Med 26, 37-52).

    Both ends are 0 where even tau2 = 0 fits the maps too well.
    """
    dof = np.arange(1, effect.shape[0] + 1, dtype=np.float64)
    ends = []
    for upper_tail in (0.5 - level / 2, 0.5 + level / 2):
        targets = np.concatenate([[0.0], special.chdtri(dof, upper_tail)])
        end = np.zeros(effect.shape[1])
        _by_roots(effect, variance, covered, frame, targets, end)
        ends.append(end)
    return ends[0], ends[1]
