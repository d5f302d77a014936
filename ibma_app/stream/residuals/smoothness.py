"""Estimates the smoothness of a model's residuals, a few planes of voxels at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.estimate import Estimate, Smoothness
from ibma_app.core.system.threads import in_threads
from ibma_app.stats.resels import extended_axes, fwhm_of, sum_roughness
from ibma_app.stats.residuals import standardised_residuals
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import ONE_THREAD, Resources

Floats = NDArray[np.float64]

MOST_MAPS = 256
"""Residual maps whose differences are used, evenly chosen (SPM uses 64): more do not change the estimate."""
SLAB = 2**15  # voxels of a slab of planes; the plane after a slab is fitted twice
VALUES = 2**22  # residuals in a slab: with many maps it has fewer voxels


def estimate_smoothness(
    stack: Stack, model: Model, estimate: Estimate, resources: Resources = ONE_THREAD
) -> Smoothness:
    """Estimate the FWHM of a model's residuals, as SPM does (Kiebel et al. 1999).

    Residuals of mixed models are divided by the root of variance + tau2 first.
    Differences are taken where the same maps cover both voxels. Each thread
    holds a slab of planes, with the plane that follows.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
        Its design has one row per row of the stack.
    estimate : Estimate
        The fit of the model: ``tau2`` is used.
    resources : Resources
        Slabs are worked on by its threads; the result does not depend on their number.

    Returns
    -------
    Smoothness

    Raises
    ------
    UsageError
        When the estimator has no residuals.
    DataError
        When no neighbouring voxels have residuals.
    """
    estimator = model.estimator
    if not estimator.has_residuals:
        raise UsageError(f"{estimator.name} fits no linear model: there are no residuals to find the smoothness of.")
    mask = stack.grid.mask
    axes = extended_axes(mask)
    first_voxel = np.concatenate([[0], np.cumsum(mask.sum(axis=(1, 2)))])
    kept = np.unique(np.linspace(0, stack.n_maps - 1, min(stack.n_maps, MOST_MAPS)).round().astype(np.int64))

    def work(slab: tuple[int, int]) -> Floats:
        first, last = slab
        end = min(last + 1, mask.shape[0])  # with the next plane, for the differences between the two
        start, stop = int(first_voxel[first]), int(first_voxel[end])
        residuals, covered, sound = _residuals(stack, model, estimate, kept, slice(start, stop))
        places = np.full(mask[first:end].shape, -1, dtype=np.int64)
        places[mask[first:end]] = np.arange(stop - start)
        sums = sum_roughness(residuals, covered, sound, places, axes, last - first, stack.n_maps / kept.size)
        return sums

    found: dict[tuple[int, int], Floats] = {}
    slabs = list(_slabs(first_voxel, min(SLAB, VALUES // kept.size)))
    in_threads(work, slabs, resources.threads, found.__setitem__)
    try:
        width = fwhm_of(np.vstack([found[slab] for slab in slabs]), axes)
    except ValueError as error:
        raise DataError(
            f"The smoothness of the residuals of {estimator.name} cannot be estimated: {error}. Random field theory "
            "needs it; choose another inference, or a larger mask."
        ) from None
    return Smoothness(width.fwhm, width.n_voxels, int(kept.size))


def _slabs(first_voxel: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Divide the planes into slabs of about ``size`` voxels, of at least one plane each."""
    start = 0
    n_planes = first_voxel.size - 1
    for plane in range(1, n_planes + 1):
        if plane == n_planes or first_voxel[plane + 1] - first_voxel[start] > size:
            yield start, plane
            start = plane


def _residuals(
    stack: Stack, model: Model, estimate: Estimate, kept: NDArray[np.int64], voxels: slice
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Fit neighbouring voxels, a tile at a time, and return the standardised residuals of some maps."""
    start, stop, needs = voxels.start, voxels.stop, model.estimator.needs
    residuals = np.empty((stop - start, kept.size))
    covered = np.empty((stop - start, stack.n_maps), dtype=bool)
    sound = np.empty(stop - start, dtype=bool)
    size = block_size(stack.n_maps)
    for tile in range(start, stop, size):
        end = min(tile + size, stop)
        block = stack.read(tile, end)
        values = block.effect if "effect" in needs else block.z
        variance = block.variance if model.estimator.weights == "variance" else None
        if values is None:
            raise ValueError(f"The maps were read without what {model.estimator.name} needs.")
        tau2 = estimate.tau2_of(model.variance_groups, slice(tile, end))
        if tau2 is not None and tau2.ndim == 2 and variance is not None:  # of each map
            variance, tau2 = variance + tau2, None
        fitted, sound[tile - start : end - start] = standardised_residuals(
            values, variance, block.covered, model.design.matrix, tau2
        )
        residuals[tile - start : end - start] = fitted[:, kept]
        covered[tile - start : end - start] = block.covered.T
    return residuals, covered, sound
