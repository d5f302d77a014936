"""The fit of one run: effects, variances and statistics of its contrasts, and what describes its series."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.firstlevel.design import RunDesign
from ibma_app.firstlevel.noise import NoiseModel
from ibma_app.firstlevel.records import Floats, RunContrast
from ibma_app.stats.autoregression import (
    FARTHEST,
    correct_autocorrelations,
    expected_products,
    partial_autocorrelations,
)
from ibma_app.stats.gls import BlockFit, OrdinaryFit, Orthonormal, fit_ordinary, orthonormalise
from ibma_app.stats.gls_by_group import ROWS, fit_by_group, round_partials
from ibma_app.stats.noise_calibration import Calibration, calibrate_noise
from ibma_app.stats.tails import f_to_z, t_to_z

log = logging.getLogger(__name__)

SAMPLE = 20_000  # voxels whose mean autocorrelation is simulated
SECONDS = 40.0  # that it reaches: with half of it, variances of noise with a memory of 15 s are 3 % too large
FLAT = 1e-6  # relative to the mean: a voxel that varies less has no signal
EXPLAINED = 1e-10  # share of the variance that is left: less is rounding error


@dataclass(frozen=True, eq=False)
class ContrastMaps:
    """One contrast in the V voxels of the mask; 0 where a voxel is not fitted."""

    contrast: RunContrast
    effect: Floats | None  # (V,); None for F tests of several rows
    variance: Floats | None  # (V,)
    statistic: Floats  # (V,): t or F
    z: Floats  # (V,)
    dof: float  # of t, or the second of F


@dataclass(frozen=True, eq=False)
class RunFit:
    """What is computed of one run, in the V voxels of its mask."""

    fitted: NDArray[np.bool_]  # (V,): voxels with a series that varies and is finite
    mean: Floats  # (V,): over the volumes used
    rsquared: Floats  # (V,): share of the variance about the mean that the design explains
    rho: Floats  # (V,): lag-1 autocorrelation of the noise
    residual_sd: Floats  # (V,): of ordinary residuals
    contrasts: tuple[ContrastMaps, ...]
    calibration: Calibration | None = None
    estimates: Floats | None = None  # (V, P): of the columns, the constant's less the mean; where they are asked for

    def residuals(self, series: NDArray[np.floating], matrix: Floats) -> Floats:
        """Return the residuals of N volumes, y - X b: (V, N), 0 where a voxel is not fitted.

        Parameters
        ----------
        series : ndarray, shape (V, N)
        matrix : ndarray, shape (N, P)
            Their rows of the design.
        """
        assert self.estimates is not None, "the estimates were not asked for"
        values = np.where(self.fitted[:, None], series, 0.0) - self.mean[:, None] * self.fitted[:, None]
        left: Floats = values - self.estimates @ matrix.T
        return left


def fit_run(series: NDArray[np.floating], design: RunDesign, noise: NoiseModel, *, estimates: bool = False) -> RunFit:
    """Fit a run voxel by voxel.

    Parameters
    ----------
    series : ndarray, shape (V, T)
        A row for each voxel of the mask; single precision will do.
    design : RunDesign
    noise : NoiseModel
    estimates : bool
        Whether the estimates of all columns are kept, for residuals.
    """
    length, order = design.matrix.shape[0], noise.order
    weights = [design.weights(contrast) for contrast in design.contrasts]
    every = np.zeros((len(series), design.matrix.shape[1])) if estimates else None
    columns = [] if every is None else [np.eye(every.shape[1])]
    orthonormal = orthonormalise(design.matrix, [*weights, *columns])
    kept = np.setdiff1d(np.arange(length), np.array(design.scrubbed, dtype=np.int64))
    fitted, mean, rsquared, ordinary = _describe(series, orthonormal, kept, max(order, 1))
    lags = _farthest(length, design.timing.repetition_time, order)
    expected = expected_products(orthonormal.basis, lags, max(lags, FARTHEST))
    near = expected[: max(order, 1) + 1, : FARTHEST + 1]
    rho = np.zeros(ordinary.products.shape)
    rho[:, 0] = 1.0
    if noise.corrected or not order:
        rho[fitted] = correct_autocorrelations(ordinary.products[fitted], near)
    else:
        rho[fitted, 1] = ordinary.products[fitted, 1] / (2.0 * ordinary.products[fitted, 0])
    rounded = round_partials(partial_autocorrelations(rho[:, : order + 1]), noise.steps)
    rows = np.flatnonzero(fitted)
    calibration = None
    if noise.corrected and weights and fitted.any():
        mean_rho = _mean_autocorrelation(series, orthonormal, rows, expected[:, : lags + 1])
        calibration = calibrate_noise(design.matrix, weights, near, mean_rho, noise.steps)
        log.debug("Variances are multiplied by %s; dof %s.", calibration.factors.round(4), calibration.dof.round(1))
    blocks = fit_by_group(series, ordinary, rounded, noise.steps, orthonormal, rows)
    contrasts = tuple(_collect(blocks, len(series), design, weights, calibration, every))
    sd = np.sqrt(np.where(fitted, ordinary.products[:, 0], 0.0) / design.dof)
    lag1 = np.where(fitted, np.clip(rho[:, 1], -1.0, 1.0), 0.0)
    return RunFit(fitted, mean, rsquared, lag1, sd, contrasts, calibration, every)


def _describe(
    series: NDArray[np.floating], design: Orthonormal, kept: NDArray[np.int64], order: int
) -> tuple[NDArray[np.bool_], Floats, Floats, OrdinaryFit]:
    """Fit ordinary least squares block by block: which voxels have a signal, mean, R², and the fit."""
    voxels = len(series)
    mean, rsquared = np.zeros(voxels), np.zeros(voxels)
    fitted = np.zeros(voxels, dtype=bool)
    ordinary = OrdinaryFit.room(voxels, len(design.rows), order)
    whole = len(kept) == series.shape[1]
    for start in range(0, voxels, ROWS):
        rows = slice(start, start + ROWS)
        values = series[rows].astype(np.float64)
        used = values if whole else values[:, kept]
        finite = np.isfinite(values.sum(axis=1))
        with np.errstate(all="ignore"):  # rows that are not finite are none of ours
            centre = np.where(finite, used.mean(axis=1), 0.0)
            values -= centre[:, None]
            values[~finite] = 0.0
            used = values if whole else values[:, kept]
            total = np.einsum("bt,bt->b", used, used)
            found = fit_ordinary(values, design, order)
            left = found.products[:, 0]
            flat = total <= len(kept) * (FLAT * np.abs(centre)) ** 2
            good = finite & ~flat & (total > 0) & (left > EXPLAINED * total)
            share = np.where(good, 1.0 - left / np.where(total > 0, total, 1.0), 0.0)
        fitted[rows], mean[rows], rsquared[rows] = good, centre, share
        ordinary.put(rows, found)
    return fitted, mean, rsquared, ordinary


def _farthest(length: int, repetition_time: float, order: int) -> int:
    """Return how many lags the simulated noise has of its own: 40 s, at most a quarter of the run."""
    return int(np.clip(round(SECONDS / repetition_time), max(order, 1), max(length // 4, order, 1)))


def _mean_autocorrelation(
    series: NDArray[np.floating], design: Orthonormal, rows: NDArray[np.int64], expected: Floats
) -> Floats:
    """Return the mean autocorrelation of the noise over voxels spread evenly over the mask, for the lags expected."""
    some = rows[:: max(1, len(rows) // SAMPLE)]
    total = np.zeros(len(expected))
    for start in range(0, len(some), ROWS):
        values = series[some[start : start + ROWS]].astype(np.float64)
        values -= values.mean(axis=1, keepdims=True)
        products = fit_ordinary(values, design, len(expected) - 1).products
        total += (products / products[:, :1]).sum(axis=0)
    return correct_autocorrelations((total / len(some))[None, :], expected)[0]


def _collect(
    blocks: Iterator[tuple[NDArray[np.int64], BlockFit]],
    voxels: int,
    design: RunDesign,
    weights: Sequence[Floats],
    calibration: Calibration | None,
    estimates: Floats | None,
) -> Iterator[ContrastMaps]:
    """Put blocks of voxels together, and make statistics of them; fill the estimates of columns, if any."""
    count = len(design.contrasts)
    factors = np.ones(count) if calibration is None else calibration.factors
    dofs = np.full(count, float(design.dof)) if calibration is None else calibration.dof
    effects, variances, statistics = ([np.zeros(voxels) for _ in range(count)] for _ in range(3))
    for rows, fit in blocks:
        if estimates is not None:
            estimates[rows] = fit.contrasts[-1].effect
        for index, contrast in enumerate(fit.contrasts[:count]):
            if design.contrasts[index].stat == "F":
                noise = fit.noise * factors[index] * len(weights[index])
                statistics[index][rows] = contrast.quadratic() / noise
                continue
            effects[index][rows] = contrast.effect[:, 0]
            variances[index][rows] = contrast.variance(fit.noise)[:, 0] * factors[index]
            statistics[index][rows] = effects[index][rows] / np.sqrt(variances[index][rows])
    for index, one in enumerate(design.contrasts):
        dof = float(dofs[index])
        if one.stat == "F":
            fitted = statistics[index] > 0
            z = np.where(fitted, f_to_z(statistics[index], len(weights[index]), dof), 0.0)
            yield ContrastMaps(one, None, None, statistics[index], z, dof)
        else:
            z = t_to_z(statistics[index], dof, frequent=dof)
            yield ContrastMaps(one, effects[index], variances[index], statistics[index], z, dof)
