"""A mixed model's p under the null: refits of data that are simulated from its own variances."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.estimate import Estimate
from ibma_app.core.inference_facts import CalibrationFacts
from ibma_app.stats.calibration import LEVELS, count_beyond, fit_line
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.jobs import do_jobs
from ibma_app.stream.workers.resources import ONE_THREAD, Resources

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

log = logging.getLogger(__name__)

REFITS = 25  # at least
VALUES = 500_000  # simulated p of a test, at least: a small mask is refitted more often
MOST_REFITS = 2_000
AT_ONCE = 2**17  # values that are drawn at once: with many maps fewer voxels


@dataclass(frozen=True, eq=False)
class _Bootstrap:
    """What is refitted, how often, and with which random numbers."""

    model: Model
    refits: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Tile:
    """B voxels, from ``start`` on."""

    start: int
    block: VoxelBlock
    tau2: Floats  # (B,), or (K, B) where groups have their own
    estimable: tuple[NDArray[np.bool_], ...]  # by test, (B,)


def calibrate_tests(
    stack: Stack,
    model: Model,
    estimate: Estimate,
    seed: int,
    resources: Resources = ONE_THREAD,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, CalibrationFacts]:
    """Measure how often each test's p come up where there is nothing, by a parametric bootstrap.

    Effects are drawn from N(0, v + tau2) with the maps' own variances and the
    estimated tau2, and variances, where a map's dof m are known, from v times chi-square(m) / m;
    the model is fitted to them anew. Whatever the nuisance effects are, they would not
    change the test. Counts are pooled over voxels and refits.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
        A mixed model.
    estimate : Estimate
        Its fit of the stack.
    seed : int
        With the place of a tile and the number of a refit it decides the random numbers.
    resources : Resources
    on_progress : callable, optional
        Called with the number of voxels of each tile when it is done.

    Returns
    -------
    dict of str to CalibrationFacts
        By test; the same whatever the resources.
    """
    if "tau2_ci" in model.settings:
        model = replace(model, settings={**model.settings, "tau2_ci": "no"})
    names, size = [test.name for test in model.design.tests], block_size(stack.n_maps)
    estimable = [estimate.tests[name].estimable for name in names]
    most = max((int(np.count_nonzero(there)) for there in estimable), default=0)
    refits = min(max(REFITS, math.ceil(VALUES / max(most, 1))), MOST_REFITS)
    counts = np.zeros((len(names), LEVELS.size + 1), dtype=np.int64)

    def read(start: int) -> _Tile:
        there = slice(start, min(start + size, stack.n_voxels))
        tau2 = estimate.tau2_of(model.variance_groups, there)
        if tau2 is None:
            raise ValueError(f"{model.estimator.name} estimates no tau2.")
        block = stack.read(start, start + size)
        if stack.samples is not None:  # variances of standardised effects are a formula's
            block = replace(block, dof=None)
        return _Tile(start, block, tau2, tuple(found[there] for found in estimable))

    def done(start: int, found: Integers) -> None:
        np.add(counts, found, out=counts)
        if on_progress is not None:
            on_progress(min(size, stack.n_voxels - start))

    nbytes = size * stack.n_maps * 8 * (len(stack.kinds) + 2)
    shared = _Bootstrap(model, refits, seed)
    do_jobs(_refit, shared, range(0, stack.n_voxels, size), done, resources, read=read, nbytes=nbytes)
    calibrated = {}
    for name, (*beyond, total) in zip(names, counts, strict=True):
        intercept, slope = fit_line(np.array(beyond), max(int(total), 1))
        calibrated[name] = CalibrationFacts(slope, intercept, refits, int(total))
    return calibrated


def _refit(shared: _Bootstrap, tile: _Tile) -> Integers:
    """Refit a tile; return how many p of each test reach each level, and how many there are, (C, levels + 1)."""
    counts = np.zeros((len(shared.model.design.tests), LEVELS.size + 1), dtype=np.int64)
    n_maps, n_voxels = tile.block.covered.shape
    width = max(AT_ONCE // n_maps, 1)
    for start in range(0, n_voxels, width):
        there = slice(start, start + width)
        estimable = tuple(found[there] for found in tile.estimable)
        part = _Tile(tile.start + start, _cut(tile.block, there), tile.tau2[..., there], estimable)
        _refit_part(shared, part, counts)
    return counts


def _cut(block: VoxelBlock, there: slice) -> VoxelBlock:
    """Return some voxels of a block with effects and variances."""
    dof = block.dof if block.dof is None or block.dof.shape[1] == 1 else block.dof[:, there]
    effect, variance = np.asarray(block.effect)[:, there], np.asarray(block.variance)[:, there]
    return VoxelBlock(covered=block.covered[:, there], effect=effect, variance=variance, dof=dof)


def _refit_part(shared: _Bootstrap, tile: _Tile, counts: Integers) -> None:
    """Refit some voxels of a tile, and add to the counts."""
    block, tests = tile.block, shared.model.design.tests
    spread = np.sqrt(np.asarray(block.variance) + tile.tau2)
    for refit in range(shared.refits):
        numbers = np.random.Generator(np.random.Philox(key=np.array([shared.seed, refit], dtype=np.uint64),
                                                       counter=[0, 0, 1, tile.start]))  # fmt: skip
        drawn = replace(block, effect=numbers.standard_normal(spread.shape) * spread, variance=_draw(block, numbers))
        fitted = shared.model.fit(drawn).tests
        for row, (test, there) in enumerate(zip(tests, tile.estimable, strict=True)):
            found = fitted[test.name]
            sound = there & found.estimable
            log10_p = z_to_log10p(found.z[sound], test.tail)
            counts[row, :-1] += count_beyond(log10_p)
            counts[row, -1] += log10_p.size


def _draw(block: VoxelBlock, numbers: np.random.Generator) -> Floats:
    """Draw the variances that maps of these dof would have estimated; of unknown dof they stay."""
    variance = np.asarray(block.variance, dtype=np.float64)
    if block.dof is None:
        return variance
    dof = np.broadcast_to(block.dof, variance.shape)
    known = np.isfinite(dof) & (dof > 0)
    if not known.any():
        return variance
    drawn = numbers.chisquare(np.where(known, dof, 1.0)) / np.where(known, dof, 1.0)
    return np.where(known, variance * np.maximum(drawn, 1e-6), variance)
