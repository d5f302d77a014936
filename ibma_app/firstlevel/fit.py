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
    correct_autocorrelations,
    expected_products,
    lag_products,
    partial_autocorrelations,
)
from ibma_app.stats.gls import BlockFit, project
from ibma_app.stats.gls_by_group import ROWS, fit_by_group, round_partials
from ibma_app.stats.noise_calibration import Calibration, calibrate_noise
from ibma_app.stats.tails import f_to_z, t_to_z

log = logging.getLogger(__name__)

BLOCK = 4096  # voxels that are described at once
SAMPLE = 20_000  # voxels whose mean autocorrelation is simulated
SECONDS = 20.0  # that it reaches
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


def fit_run(series: NDArray[np.floating], design: RunDesign, noise: NoiseModel) -> RunFit:
    """Fit a run voxel by voxel.

    Parameters
    ----------
    series : ndarray, shape (V, T)
        A row for each voxel of the mask; single precision will do.
    design : RunDesign
    noise : NoiseModel
    """
    length = design.matrix.shape[0]
    basis = np.linalg.qr(design.matrix)[0]
    kept = np.setdiff1d(np.arange(length), np.array(design.scrubbed, dtype=np.int64))
    expected = expected_products(basis, max(noise.order, 1))
    fitted, mean, rsquared, sums, products = _describe(series, basis, kept, max(noise.order, 1))
    rho = np.zeros(products.shape)
    rho[:, 0] = 1.0
    if noise.corrected or not noise.order:
        rho[fitted] = correct_autocorrelations(products[fitted], expected)
    else:
        rho[fitted, 1] = products[fitted, 1] / (2.0 * products[fitted, 0])
    steps = noise.steps
    rounded = round_partials(partial_autocorrelations(rho[:, : noise.order + 1]), steps)
    weights = [design.weights(contrast) for contrast in design.contrasts]
    calibration = None
    if noise.corrected and weights and fitted.any():
        lags = _farthest(length, design.timing.repetition_time, noise.order)
        mean_rho = _mean_autocorrelation(series, basis, np.flatnonzero(fitted), lags)
        calibration = calibrate_noise(design.matrix, basis, weights, expected, mean_rho, steps)
        log.debug("Variances are multiplied by %s; dof %s.", calibration.factors.round(4), calibration.dof.round(1))
    rows = np.flatnonzero(fitted)
    blocks = fit_by_group(series, mean, rounded, steps, design.matrix, weights, rows)
    contrasts = _collect(blocks, len(series), design, weights, calibration)
    sd = np.sqrt(sums / design.dof)
    lag1 = np.where(fitted, np.clip(rho[:, 1], -1.0, 1.0), 0.0)
    return RunFit(fitted, mean, rsquared, lag1, sd, tuple(contrasts), calibration)


def _describe(
    series: NDArray[np.floating], basis: Floats, kept: NDArray[np.int64], lags: int
) -> tuple[NDArray[np.bool_], Floats, Floats, Floats, Floats]:
    """Fit ordinary least squares block by block: which voxels have a signal, mean, R², sums of squares, products."""
    voxels = len(series)
    mean, rsquared, sums = (np.zeros(voxels) for _ in range(3))
    fitted = np.zeros(voxels, dtype=bool)
    products = np.zeros((voxels, lags + 1))
    whole = len(kept) == series.shape[1]
    for start in range(0, voxels, BLOCK):
        rows = slice(start, start + BLOCK)
        values = series[rows].astype(np.float64)
        used = values if whole else values[:, kept]
        finite = np.isfinite(values.sum(axis=1))
        with np.errstate(all="ignore"):  # rows that are not finite are none of ours
            centre = np.where(finite, used.mean(axis=1), 0.0)
            values -= centre[:, None]
            values[~finite] = 0.0
            used = values if whole else values[:, kept]
            total = np.einsum("bt,bt->b", used, used)
            residuals, left = project(values, basis)
            flat = total <= len(kept) * (FLAT * np.abs(centre)) ** 2
            good = finite & ~flat & (total > 0) & (left > EXPLAINED * total)
            share = np.where(good, 1.0 - left / np.where(total > 0, total, 1.0), 0.0)
        fitted[rows], mean[rows], rsquared[rows] = good, centre, share
        sums[rows] = np.where(good, left, 0.0)
        products[rows] = lag_products(residuals, lags)
    return fitted, mean, rsquared, sums, products


def _farthest(length: int, repetition_time: float, order: int) -> int:
    """Return how many lags the simulated noise has of its own: 20 s, at most a quarter of the run."""
    return int(np.clip(round(SECONDS / repetition_time), order, max(length // 4, order)))


def _mean_autocorrelation(series: NDArray[np.floating], basis: Floats, rows: NDArray[np.int64], lags: int) -> Floats:
    """Return the mean autocorrelation of the noise over voxels spread evenly over the mask, (lags + 1,)."""
    some = rows[:: max(1, len(rows) // SAMPLE)]
    total = np.zeros(lags + 1)
    for start in range(0, len(some), ROWS):
        values = series[some[start : start + ROWS]].astype(np.float64)
        residuals, sums = project(values - values.mean(axis=1, keepdims=True), basis)
        total += (lag_products(residuals, lags) / sums[:, None]).sum(axis=0)
    return correct_autocorrelations((total / len(some))[None, :], expected_products(basis, lags, lags))[0]


def _collect(
    blocks: Iterator[tuple[NDArray[np.int64], BlockFit]],
    voxels: int,
    design: RunDesign,
    weights: Sequence[Floats],
    calibration: Calibration | None,
) -> Iterator[ContrastMaps]:
    """Put blocks of voxels together, and make statistics of them."""
    count = len(design.contrasts)
    factors = np.ones(count) if calibration is None else calibration.factors
    dofs = np.full(count, float(design.dof)) if calibration is None else calibration.dof
    effects, variances, statistics = ([np.zeros(voxels) for _ in range(count)] for _ in range(3))
    for rows, fit in blocks:
        for index, contrast in enumerate(fit.contrasts):
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
