"""Fixed- and mixed-effects models at every voxel, each with the maps that cover it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, EFFECT, VARIANCE, Frame
from ibma_app.stats.compiled import compiled, folded, inner
from ibma_app.stats.contrasts import Hypotheses, Tested, new_tested, test_voxel
from ibma_app.stats.tau2 import LIKELY, estimate_tau2, likely_fit
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
from ibma_app.stats.weighted import IDENTICAL, INVERSE, TWICE, VECTORS, Moments, moments, weighted_total

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_KNAPP_HARTUNG, _AT_LEAST_ONE, UNSCALED = range(3)
SCALES = {"knha": _KNAPP_HARTUNG, "adhoc": _AT_LEAST_ONE, "t": UNSCALED, "z": UNSCALED}


TAU2, Q, I2, H2 = range(4)


class MixedFit(NamedTuple):
    """A fit of B voxels; 0 where nothing could be estimated."""

    tested: Tested
    counts: NDArray[np.int16]  # (2, B) maps n, and rank of their rows
    summary: Floats  # (4, B) tau2, Q, I2 (percent), H2
    identical: Bools  # (B,)


class Choices(NamedTuple):
    """What is fitted."""

    random: bool  # tau2 is estimated: mixed effects
    scale: int
    equal_weights: bool
    likely: int  # of `tau2.LIKELY`, when tau2 is that of a likelihood; else -1


@folded
def _heterogeneity(fixed: Moments, dof: int, choices: Choices, tau2: float) -> tuple[float, float]:
    """Return I2 and H2 (Higgins & Thompson 2002) as metafor has them."""
    if not choices.random:
        i2 = max(0.0, 100.0 * (fixed.q - dof) / fixed.q) if fixed.q > 0.0 else 0.0
        return i2, fixed.q / dof
    typical = dof / fixed.tr_p
    return 100.0 * tau2 / (typical + tau2), tau2 / typical + 1.0


@inner
def plain_mean(flat: Floats, small: Floats, k: int, rank: int) -> None:
    """Replace the weighted fit by equal weights, with the maps' variances propagated."""
    for a in range(rank):
        total = 0.0
        for i in range(k):
            total += flat[COLUMNS + a, i] * flat[EFFECT, i]
        small[VECTORS, 0, a] = total
        for b in range(rank):
            total = 0.0
            for i in range(k):
                total += flat[COLUMNS + a, i] * flat[VARIANCE, i] * flat[COLUMNS + b, i]
            small[INVERSE, a, b] = total


@folded
def judge(
    maps: Floats, fixed: Moments, dof: int, choices: Choices, q: float, summary: Floats, voxel: int
) -> tuple[float, bool]:
    """Find the scale of the tests of one packed voxel whose tau2 is in ``summary``.

    Parameters
    ----------
    fixed : Moments
        Of tau2 = 0.
    q : float
        y'Py of its tau2, whose weights are in ``maps``.

    Returns
    -------
    scale : float
        Factor of the covariance; -1 where nothing is estimable.
    identical : bool
        The maps' effects are identical, so that there is no test.
    """
    tau2 = summary[TAU2, voxel]
    if not fixed.sound:
        return -1.0, False
    if dof == 0:
        summary[H2, voxel] = 1.0
        return (-1.0 if choices.random else 1.0), False
    i2, h2 = _heterogeneity(fixed, dof, choices, tau2)
    if not (np.isfinite(fixed.q) and np.isfinite(h2)):
        return -1.0, False  # overflow
    summary[Q, voxel], summary[I2, voxel], summary[H2, voxel] = fixed.q, i2, h2
    if not choices.random:
        return 1.0, False
    # identical effects make the Knapp-Hartung scale 0, which leaves no test, and are an accident of data where the
    # scale is at least 1; the other tests take the sampling variances at their word and stay estimable
    if choices.scale == UNSCALED:
        return 1.0, False
    if q <= IDENTICAL * weighted_total(maps):
        return 0.0, True
    return (max(1.0, q / dof) if choices.scale == _AT_LEAST_ONE else q / dof), False


@compiled
def _fit(
    effect: Floats,
    variance: Floats,
    group: Group,
    frame: Frame,
    workspace: Workspace,
    choices: Choices,
    out: MixedFit,
) -> None:
    """Loop over voxels; tau2 is given."""
    tested, counts, summary, identical = out
    maps, flat, small, y, v = workspace.maps, workspace.flat, workspace.small, workspace.y, workspace.v
    table, voxels, slots = group.patterns, group.voxels, group.slots
    ns, ranks, index, columns = table.maps, table.rank, table.which, table.columns
    tests = Hypotheses(table.rows, table.estimable, frame.starts, frame.upper, workspace.work)
    slot, k, rank = -1, 0, 0
    for start in range(0, voxels.size, TILE):
        fill_tile(effect, voxels, start, y)
        for b in range(fill_tile(variance, voxels, start, v)):
            voxel = voxels[start + b]
            if slots[start + b] != slot:
                slot = slots[start + b]
                k, rank = ns[slot], ranks[slot]
                lay_pattern(flat, small, columns, slot, k, rank)
            counts[0, voxel], counts[1, voxel] = k, rank
            if rank == 0:
                continue
            pack_voxel(flat, y, v, index, slot, b, k)
            fixed = moments(maps, small, rank, 0.0, TWICE)
            tau2 = summary[TAU2, voxel]
            q = moments(maps, small, rank, tau2, TWICE).q if fixed.sound and tau2 > 0.0 else fixed.q
            scale, same = judge(maps, fixed, k - rank, choices, q, summary, voxel)
            identical[voxel] = same
            if scale < 0.0:
                continue
            if choices.equal_weights:
                plain_mean(flat, small, k, rank)
            test_voxel(tests, slot, small, rank, scale, tested, voxel)


@compiled
def _fit_likely(
    effect: Floats,
    variance: Floats,
    group: Group,
    frame: Frame,
    workspace: Workspace,
    choices: Choices,
    out: MixedFit,
) -> None:
    """Loop over voxels as `_fit` does, and find each one's tau2 (ML, REML) while it is packed."""
    tested, counts, summary, identical = out
    maps, flat, small, y, v = workspace.maps, workspace.flat, workspace.small, workspace.y, workspace.v
    table, voxels, slots = group.patterns, group.voxels, group.slots
    ns, ranks, index, columns = table.maps, table.rank, table.which, table.columns
    tests = Hypotheses(table.rows, table.estimable, frame.starts, frame.upper, workspace.work)
    slot, k, rank = -1, 0, 0
    for start in range(0, voxels.size, TILE):
        fill_tile(effect, voxels, start, y)
        for b in range(fill_tile(variance, voxels, start, v)):
            voxel = voxels[start + b]
            if slots[start + b] != slot:
                slot = slots[start + b]
                k, rank = ns[slot], ranks[slot]
                lay_pattern(flat, small, columns, slot, k, rank)
            counts[0, voxel], counts[1, voxel] = k, rank
            if rank == 0:
                continue
            pack_voxel(flat, y, v, index, slot, b, k)
            fixed = moments(maps, small, rank, 0.0, TWICE)
            q = fixed.q
            if k > rank:
                summary[TAU2, voxel], q = likely_fit(maps, small, k, rank, choices.likely, fixed)
            scale, same = judge(maps, fixed, k - rank, choices, q, summary, voxel)
            identical[voxel] = same
            if scale >= 0.0:
                test_voxel(tests, slot, small, rank, scale, tested, voxel)


def _centred(effect: Floats, covered: Bools) -> Floats:
    """Subtract from each voxel's effects the plain mean of the covering maps."""
    n = np.maximum(np.count_nonzero(covered, axis=0), 1)
    return np.where(covered, effect - np.where(covered, effect, 0.0).sum(axis=0) / n, 0.0)


def _fit_all(effect: Floats, variance: Floats, covered: Bools, frame: Frame, choices: Choices, method: str) -> MixedFit:
    """Allocate and fit, group after group.

    Through the origin (the columns span no constant) Q and tau2 are of the
    centred effects, as metafor has them; with a constant that makes no
    difference. The coefficients are of the effects themselves.
    """
    out, workspace = new_fit(frame, effect.shape[1]), new_workspace(frame)
    for_tau2 = _centred(effect, covered) if frame.through_origin else effect
    for group in group_voxels(covered, frame):
        if method in LIKELY and for_tau2 is effect:
            _fit_likely(effect, variance, group, frame, workspace, choices, out)
            continue
        if choices.random:
            estimate_tau2(for_tau2, variance, group, workspace, method, out.summary[TAU2])
        if for_tau2 is not effect:
            aside = new_fit(frame, effect.shape[1])
            aside.summary[:] = out.summary
            _fit(for_tau2, variance, group, frame, workspace, choices, aside)
        _fit(effect, variance, group, frame, workspace, choices, out)
        if for_tau2 is not effect:
            out.summary[Q:, group.voxels] = aside.summary[Q:, group.voxels]
    return out


def new_fit(frame: Frame, voxels: int) -> MixedFit:
    """Allocate for B voxels."""
    return MixedFit(
        new_tested(frame.upper.size, voxels),
        np.zeros((2, voxels), dtype=np.int16),
        np.zeros((4, voxels)),
        np.zeros(voxels, dtype=np.bool_),
    )


def fit_fixed(effect: Floats, variance: Floats, covered: Bools, frame: Frame, equal_weights: str = "no") -> MixedFit:
    """Fit a fixed-effects model at each voxel.

    Parameters
    ----------
    effect, variance : ndarray, shape (K, B), C order
        Effects and sampling variances.
    covered : ndarray of bool, shape (K, B)
        Values elsewhere are not used, whatever they are.
    frame : Frame
        From `frame_design`.
    equal_weights : {"no", "yes"}
        Plain means with propagated variances. Q stays that of inverse-variance weights.

    Returns
    -------
    MixedFit
        Estimable from n = rank on: a single map passes through.
    """
    choices = Choices(False, UNSCALED, equal_weights == "yes", -1)
    return _fit_all(effect, variance, covered, frame, choices, "")


def fit_mixed(effect: Floats, variance: Floats, covered: Bools, frame: Frame, method: str, test: str) -> MixedFit:
    """Fit a mixed-effects model at each voxel: weights 1/(variance + tau2).

    Parameters
    ----------
    effect, variance, covered, frame
        As in `fit_fixed`.
    method : str
        As for `tau2.estimate_tau2`.
    test : {"knha", "adhoc", "t", "z"}
        What scales the covariance: Knapp and Hartung's residual variance, the
        same but at least 1, or nothing (``t`` and ``z`` do not differ here).

    Returns
    -------
    MixedFit
        Nothing is estimable where n <= rank.
    """
    choices = Choices(True, SCALES[test], False, LIKELY.get(method, -1))
    return _fit_all(effect, variance, covered, frame, choices, method)


def fit_totals(effect: Floats, total: Floats, covered: Bools, frame: Frame, test: str) -> MixedFit:
    """Fit a mixed-effects model at each voxel whose variances are known, each map's tau2 included.

    Parameters
    ----------
    effect, covered, frame, test
        As in `fit_mixed`.
    total : ndarray, shape (K, B), C order
        Sampling variance plus tau2 of each map.

    Returns
    -------
    MixedFit
        Nothing is estimable where n <= rank. Its summary is that of no further heterogeneity: tau2 is 0.
    """
    out, workspace = new_fit(frame, effect.shape[1]), new_workspace(frame)
    for group in group_voxels(covered, frame):
        _fit(effect, total, group, frame, workspace, Choices(True, SCALES[test], False, -1), out)
    return out
