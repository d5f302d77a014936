"""Fits a model to a stack, tile by tile, in threads or by workers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Estimator
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.jobs import do_jobs
from ibma_app.stream.workers.resources import ONE_THREAD, Resources


@dataclass(frozen=True, eq=False)
class Model:
    """What is fitted: an estimator with its settings, on a design of K rows."""

    estimator: Estimator
    design: Design
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def clusters(self) -> NDArray[np.int64] | None:
        """The cluster of each map, (K,), where maps of one may depend on each other in this fit; else None."""
        known = self.estimator.clusters
        return None if known is None else known(self.design, self.settings)

    @property
    def relabelled_together(self) -> NDArray[np.int64] | None:
        """The cluster of each map, (K,), or the maps whose sampling errors depend on each other; None: each alone."""
        known = self.design.dependence
        return self.clusters if known is None else known.parts

    @property
    def variance_groups(self) -> tuple[str, ...] | None:
        """The group of each map, (K,), where each group has a variance between maps of its own; else None."""
        known = self.estimator.variance_groups
        return None if known is None else known(self.design, self.settings)

    @property
    def relabels(self) -> str | None:
        """What residuals under the null are relabelled of, "effect" or "z"; None: the tested regressors are."""
        return self.estimator.relabels if self.variance_groups is None else "effect"

    def fit(self, block: VoxelBlock) -> Estimate:
        """Fit it at the voxels of a block."""
        result: Estimate = self.estimator.fit(block, self.design, **self.settings)
        return result


def estimate_maps(
    stack: Stack,
    model: Model,
    resources: Resources = ONE_THREAD,
    on_progress: Callable[[int], None] | None = None,
) -> Estimate:
    """Fit a model at every voxel of a stack.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
        Its design has one row per map of the stack (``stack.kept`` says which).
    resources : Resources
        Tiles are fitted by its threads, or sent to its workers.
    on_progress : callable, optional
        Called with the number of voxels of each tile when it is done.

    Returns
    -------
    Estimate
        Of V voxels; the same bytes whatever the resources.
    """
    n_rows = model.design.matrix.shape[0]
    if n_rows != stack.n_maps:
        raise ValueError(f"The design has {n_rows} rows, the stack {stack.n_maps} maps.")
    size = block_size(stack.n_maps)
    starts = range(0, stack.n_voxels, size)

    def read(start: int) -> VoxelBlock:
        return stack.read(start, start + size)

    def done(start: int, part: Estimate) -> None:
        _fill(whole, part, start)
        if on_progress is not None:
            on_progress(min(size, stack.n_voxels - start))

    first = model.fit(read(0))  # before the others: kernels are compiled once, and its arrays show what to allocate
    whole: Estimate = _allocate(first, min(size, stack.n_voxels), stack.n_voxels)
    done(0, first)
    nbytes = size * stack.n_maps * 8 * (len(stack.kinds) + 1)
    do_jobs(Model.fit, model, starts[1:], done, resources, read=read, nbytes=nbytes)
    return whole


def _allocate(part: Any, n_part: int, n_voxels: int) -> Any:
    """Make a record like ``part`` with arrays of ``n_voxels``."""
    if isinstance(part, np.ndarray):
        if part.shape[:1] != (n_part,):
            raise ValueError(f"An estimator returned {part.shape} values for {n_part} voxels.")
        return np.zeros((n_voxels, *part.shape[1:]), dtype=part.dtype)
    if isinstance(part, Mapping):
        return {key: _allocate(value, n_part, n_voxels) for key, value in part.items()}
    if is_dataclass(part) and not isinstance(part, type):
        names = [entry.name for entry in fields(part)]
        return type(part)(**{name: _allocate(getattr(part, name), n_part, n_voxels) for name in names})
    return part


def _fill(whole: Any, part: Any, start: int) -> None:
    """Copy the arrays of a tile to their place in the whole ones."""
    if isinstance(whole, np.ndarray):
        whole[start : start + len(part)] = part
    elif isinstance(whole, Mapping):
        if whole.keys() != part.keys():
            raise ValueError("An estimator returned other tests for another tile.")
        for key in whole:
            _fill(whole[key], part[key], start)
    elif is_dataclass(whole) and not isinstance(whole, type):
        for entry in fields(whole):
            _fill(getattr(whole, entry.name), getattr(part, entry.name), start)
    elif whole != part:
        raise ValueError("An estimator returned other kinds of values for another tile.")
