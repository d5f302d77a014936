"""Fixed- and mixed-effects models at every voxel, each with the maps that cover it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, EFFECT, VARIANCE, Frame
from ibma_app.stats.compiled import compiled
from ibma_app.stats.contrasts import Tested, new_tested, test_voxel
from ibma_app.stats.tau2 import estimate_tau2
from ibma_app.stats.voxels import TILE, Bench, fill_tile, load_voxel, new_bench
from ibma_app.stats.weighted import IDENTICAL, INVERSE, VECTORS, Moments, moments, weighted_total

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_KNAPP_HARTUNG, _AT_LEAST_ONE, _UNSCALED = range(3)
_SCALES = {"knha": _KNAPP_HARTUNG, "adhoc": _AT_LEAST_ONE, "t": _UNSCALED, "z": _UNSCALED}


class MixedFit(NamedTuple):
    """A fit of B voxels; 0 where nothing could be estimated."""

    tested: Tested
    n: NDArray[np.int16]  # (B,)
    rank: NDArray[np.int16]  # (B,)
    tau2: Floats  # (B,)
    q: Floats  # (B,)
    i2: Floats  # (B,) percent
    h2: Floats  # (B,)
    identical: Bools  # (B,)


class _Choices(NamedTuple):
    """What is fitted."""

    random: bool  # tau2 is estimated: mixed effects
    scale: int
    equal_weights: bool


@compiled
def _heterogeneity(fixed: Moments, dof: int, random: bool, tau2: float) -> tuple[float, float]:
    """Return I2 and H2 (Higgins & Thompson 2002) as metafor has them."""
    if not random:
        i2 = max(0.0, 100.0 * (fixed.q - dof) / fixed.q) if fixed.q > 0.0 else 0.0
        return i2, fixed.q / dof
    typical = dof / fixed.tr_p
    return 100.0 * tau2 / (typical + tau2), tau2 / typical + 1.0


@compiled
def _plain_mean(maps: Floats, small: Floats, k: int, rank: int) -> None:
    """Replace the weighted fit by equal weights, with the maps' variances propagated."""
    for a in range(rank):
        total = 0.0
        for i in range(k):
            total += maps[COLUMNS + a, i] * maps[EFFECT, i]
        small[VECTORS, 0, a] = total
        for b in range(rank):
            total = 0.0
            for i in range(k):
                total += maps[COLUMNS + a, i] * maps[VARIANCE, i] * maps[COLUMNS + b, i]
            small[INVERSE, a, b] = total


@compiled
def _scale_of(q: float, dof: int, scale: int, identical: bool) -> float:
    """Return what multiplies the covariance (Knapp & Hartung 2003).

    Identical effects make the Knapp-Hartung scale 0: no test. The other tests
    take the sampling variances at their word and stay estimable.
    """
    if scale == _UNSCALED:
        return 1.0
    if scale == _AT_LEAST_ONE:
        return max(1.0, q / dof)
    return 0.0 if identical else q / dof


@compiled
def _fit_voxel(bench: Bench, k: int, rank: int, choices: _Choices, out: MixedFit, b: int) -> float:
    """Fit one packed voxel; return what multiplies its covariance, -1 where nothing is estimable."""
    maps, small = bench.maps, bench.small
    fixed = moments(maps, small, rank, 0.0)
    dof = k - rank
    tau2 = out.tau2[b]
    scale = 1.0
    if not fixed.sound:
        return -1.0
    if dof == 0:
        out.h2[b] = 1.0
        return -1.0 if choices.random else 1.0
    i2, h2 = _heterogeneity(fixed, dof, choices.random, tau2)
    if not (np.isfinite(fixed.q) and np.isfinite(h2)):
        return -1.0  # overflow
    out.q[b], out.i2[b], out.h2[b] = fixed.q, i2, h2
    if choices.random:
        q = fixed.q
        if tau2 > 0.0:
            q = moments(maps, small, rank, tau2).q
        identical = q <= IDENTICAL * weighted_total(maps)
        scale = _scale_of(q, dof, choices.scale, identical)
        out.identical[b] = identical and choices.scale == _KNAPP_HARTUNG
    return scale


@compiled
def _fit(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, choices: _Choices, out: MixedFit
) -> None:
    """Loop over voxels; ``out.tau2`` is given."""
    bench = new_bench(frame)
    work = np.empty((frame.rows.shape[0], frame.rows.shape[0] + 1))
    for start in range(0, effect.shape[1], TILE):
        for b in range(fill_tile(effect, variance, covered, start, bench)):
            k, rank = load_voxel(frame, bench, b)
            out.n[start + b] = k
            out.rank[start + b] = rank
            if rank == 0:
                continue
            scale = _fit_voxel(bench, k, rank, choices, out, start + b)
            if scale < 0.0:
                continue
            if choices.equal_weights:
                _plain_mean(bench.maps, bench.small, k, rank)
            test_voxel(frame, bench.pattern, bench.small, rank, scale, out.tested, start + b, work)


def _fit_all(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, choices: _Choices, tau2: Floats
) -> MixedFit:
    """Allocate and fit."""
    voxels = effect.shape[1]
    counts = [np.zeros(voxels, dtype=np.int16) for _ in range(2)]
    floats = [np.zeros(voxels) for _ in range(3)]
    identical = np.zeros(voxels, dtype=np.bool_)
    out = MixedFit(new_tested(frame.upper.size, voxels), *counts, tau2, *floats, identical)
    _fit(effect, variance, covered, frame, choices, out)
    return out


def fit_fixed(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, equal_weights: str = "no"
) -> MixedFit:
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
    choices = _Choices(False, _UNSCALED, equal_weights == "yes")
    return _fit_all(effect, variance, covered, frame, choices, np.zeros(effect.shape[1]))


def fit_mixed(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, method: str, test: str
) -> MixedFit:
    """Fit a mixed-effects model at each voxel: weights 1/(variance + tau2).

    Parameters
    ----------
    effect, variance, covered, frame
        As in `fit_fixed`.
    method : str
        One of `tau2.METHODS`.
    test : {"knha", "adhoc", "t", "z"}
        What scales the covariance: Knapp and Hartung's residual variance, the
        same but at least 1, or nothing (``t`` and ``z`` do not differ here).

    Returns
    -------
    MixedFit
        Nothing is estimable where n <= rank.
    """
    tau2 = estimate_tau2(effect, variance, covered, frame, method)
    return _fit_all(effect, variance, covered, frame, _Choices(True, _SCALES[test], False), tau2)
