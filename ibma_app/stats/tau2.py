"""Between-map variance tau2 at every voxel.

Moment estimators, roots of Q(tau2) and the Q-profile interval; likelihoods are
in likelihood.py. Reference: Viechtbauer W (2005), J Educ Behav Stat 30,
261-293; Veroniki et al. (2016), Res Synth Methods 7, 55-79. Conventions are
metafor's.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.stats.basis import COLUMNS, EFFECT, VARIANCE, Frame
from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.likelihood import ML, REML, maximise_likelihood
from ibma_app.stats.voxels import (
    TILE,
    Group,
    Workspace,
    fill_tile,
    group_voxels,
    lay_pattern,
    new_workspace,
    pack_voxel,
)
from ibma_app.stats.weighted import (
    IDENTICAL,
    ONCE,
    TWICE,
    Moments,
    moments,
    refit,
    smallest_variance,
    unweighted_sum,
    weighted_total,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_DL, _HEDGES, _HUNTER_SCHMIDT, SIDIK_JONKMAN = range(4)
MOMENTS = {
    "dl": _DL,
    "hedges": _HEDGES,
    "hunter-schmidt": _HUNTER_SCHMIDT,
    "sidik-jonkman": SIDIK_JONKMAN,
}
LIKELY = {"ml": ML, "reml": REML}

_CLOSE = 1e-8  # last step, relative to tau2 plus the smallest variance: the error is about its square


@inner
def _hedges(maps: Floats, flat: Floats, small: Floats, k: int, rank: int) -> float:
    """Variance components: unweighted residuals less the mean sampling variance."""
    rss = unweighted_sum(maps, small, k, rank)
    expected = 0.0
    for i in range(k):
        leverage = 0.0
        for a in range(rank):
            leverage += flat[COLUMNS + a, i] ** 2
        expected += flat[VARIANCE, i] * (1.0 - leverage)
    return (rss - expected) / (k - rank)


@inner
def variance_of_effects(flat: Floats, k: int) -> float:
    """Sidik and Jonkman's first guess: the variance of the effects about their mean."""
    mean = 0.0
    for i in range(k):
        mean += flat[EFFECT, i]
    mean /= k
    total = 0.0
    for i in range(k):
        total += (flat[EFFECT, i] - mean) ** 2
    return total / k


@inner
def moment_of_voxel(maps: Floats, flat: Floats, small: Floats, k: int, rank: int, method: int) -> float:
    """Return one voxel's moment estimate, before truncation at 0."""
    if method == _HEDGES:
        return _hedges(maps, flat, small, k, rank)
    weight_at = 0.0
    if method == SIDIK_JONKMAN:
        weight_at = variance_of_effects(flat, k)
        if weight_at <= 0.0:
            return 0.0
    m = moments(maps, small, rank, weight_at, ONCE)
    if not m.sound or m.q <= IDENTICAL * weighted_total(maps):
        return 0.0
    if method == SIDIK_JONKMAN:
        return weight_at * m.q / (k - rank)
    if method == _DL:
        return (m.q - (k - rank)) / m.tr_p
    return (m.q - k) / m.sum_w


@inner
def solve_q(maps: Floats, small: Floats, rank: int, target: float) -> float:
    """Return tau2 >= 0 with Q(tau2) = target; 0 where Q(0) is smaller.

    1/Q is concave and increasing in tau2: a Newton step from anywhere lands
    left of the root, and steps from there do not pass it and converge
    quadratically, without a bracket or an absolute tolerance.
    """
    m = moments(maps, small, rank, 0.0, ONCE)
    if not m.sound or m.q <= target or m.ypp <= 0.0:
        return 0.0
    smallest = smallest_variance(maps)
    tau2 = max((m.q - target) / m.tr_p, 0.0)
    for _ in range(200):
        m = moments(maps, small, rank, tau2, ONCE)
        before = tau2
        tau2 = max(tau2 + (m.q / target - 1.0) * m.q / m.ypp, 0.0)
        if abs(tau2 - before) <= _CLOSE * (tau2 + smallest):
            break
    return tau2


@compiled
def _by_moments(effect: Floats, variance: Floats, group: Group, workspace: Workspace, method: int, out: Floats) -> None:
    """Loop over voxels: moment estimators."""
    maps, flat, small, y, v = workspace.maps, workspace.flat, workspace.small, workspace.y, workspace.v
    table, voxels, slots = group.patterns, group.voxels, group.slots
    counts, ranks, index, columns = table.maps, table.rank, table.which, table.columns
    slot, k, rank = -1, 0, 0
    for start in range(0, voxels.size, TILE):
        fill_tile(effect, voxels, start, y)
        for b in range(fill_tile(variance, voxels, start, v)):
            if slots[start + b] != slot:
                slot = slots[start + b]
                k, rank = counts[slot], ranks[slot]
                lay_pattern(flat, small, columns, slot, k, rank)
            pack_voxel(flat, y, v, index, slot, b, k)
            if rank > 0 and k > rank:
                tau2 = moment_of_voxel(maps, flat, small, k, rank, method)
                out[voxels[start + b]] = tau2 if tau2 > 0.0 and np.isfinite(tau2) else 0.0


@compiled
def _by_roots(
    effect: Floats, variance: Floats, group: Group, workspace: Workspace, targets: Floats, out: Floats
) -> None:
    """Loop over voxels: Q(tau2) = the target of the voxel's dof."""
    maps, flat, small, y, v = workspace.maps, workspace.flat, workspace.small, workspace.y, workspace.v
    table, voxels, slots = group.patterns, group.voxels, group.slots
    counts, ranks, index, columns = table.maps, table.rank, table.which, table.columns
    slot, k, rank = -1, 0, 0
    for start in range(0, voxels.size, TILE):
        fill_tile(effect, voxels, start, y)
        for b in range(fill_tile(variance, voxels, start, v)):
            if slots[start + b] != slot:
                slot = slots[start + b]
                k, rank = counts[slot], ranks[slot]
                lay_pattern(flat, small, columns, slot, k, rank)
            pack_voxel(flat, y, v, index, slot, b, k)
            if rank > 0 and k > rank:
                tau2 = solve_q(maps, small, rank, targets[k - rank])
                out[voxels[start + b]] = tau2 if np.isfinite(tau2) else 0.0


@inner
def likely_fit(maps: Floats, small: Floats, k: int, rank: int, method: int, fixed: Moments) -> tuple[float, float]:
    """Return one packed voxel's ML or REML estimate and its Q, and leave its fit in place.

    ``fixed`` are its moments at 0, just computed.
    """
    if not fixed.sound or fixed.q <= IDENTICAL * weighted_total(maps):
        return 0.0, fixed.q
    unweighted = unweighted_sum(maps, small, k, rank)
    tau2, q = maximise_likelihood(maps, small, k, rank, method, fixed, unweighted)
    if math.isnan(q) or not math.isfinite(tau2):
        tau2 = tau2 if math.isfinite(tau2) else 0.0
        return tau2, moments(maps, small, rank, tau2, TWICE).q
    return tau2, (refit(maps, small, rank) if rank > 1 else q)


@compiled
def _by_likelihood(
    effect: Floats, variance: Floats, group: Group, workspace: Workspace, method: int, out: Floats
) -> None:
    """Loop over voxels: ML and REML."""
    maps, flat, small, y, v = workspace.maps, workspace.flat, workspace.small, workspace.y, workspace.v
    table, voxels, slots = group.patterns, group.voxels, group.slots
    counts, ranks, index, columns = table.maps, table.rank, table.which, table.columns
    slot, k, rank = -1, 0, 0
    for start in range(0, voxels.size, TILE):
        fill_tile(effect, voxels, start, y)
        for b in range(fill_tile(variance, voxels, start, v)):
            if slots[start + b] != slot:
                slot = slots[start + b]
                k, rank = counts[slot], ranks[slot]
                lay_pattern(flat, small, columns, slot, k, rank)
            pack_voxel(flat, y, v, index, slot, b, k)
            if rank > 0 and k > rank:
                fixed = moments(maps, small, rank, 0.0, ONCE)
                out[voxels[start + b]] = likely_fit(maps, small, k, rank, method, fixed)[0]


def estimate_tau2(
    effect: Floats, variance: Floats, group: Group, workspace: Workspace, method: str, out: Floats
) -> None:
    """Estimate tau2 at the voxels of a group.

    Parameters
    ----------
    effect, variance : ndarray, shape (K, B), C order
    group : Group
        From `group_voxels`.
    workspace : Workspace
        For work.
    method : str
        "dl", "hedges", "hunter-schmidt", "sidik-jonkman", "paule-mandel", "empirical-bayes", "ml" or "reml".
    out : ndarray, shape (B,)
        Written at the group's voxels: at least 0; 0 where n <= rank and where
        effects are identical.
    """
    if method in MOMENTS:
        _by_moments(effect, variance, group, workspace, MOMENTS[method], out)
    elif method in LIKELY:
        _by_likelihood(effect, variance, group, workspace, LIKELY[method], out)
    else:  # Morris' empirical Bayes equation has Paule and Mandel's root, Q(tau2) = K - P
        _by_roots(effect, variance, group, workspace, np.arange(effect.shape[0] + 1.0), out)


def tau2_interval(effect: Floats, variance: Floats, covered: Bools, frame: Frame) -> tuple[Floats, Floats]:
    """Return the 95 % Q-profile interval of tau2 (Viechtbauer 2007, Stat Med 26, 37-52).

    Arguments as in `mixed.fit_fixed`. Both ends are 0 where even tau2 = 0 fits
    the maps too well.
    """
    dof = np.arange(1, effect.shape[0] + 1, dtype=np.float64)
    ends = np.zeros(effect.shape[1]), np.zeros(effect.shape[1])
    workspace = new_workspace(frame)
    for group in group_voxels(covered, frame):
        for end, upper_tail in zip(ends, (0.025, 0.975), strict=True):
            targets = np.concatenate([[0.0], special.chdtri(dof, upper_tail)])
            _by_roots(effect, variance, group, workspace, targets, end)
    return ends
