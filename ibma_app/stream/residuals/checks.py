"""Looks at residuals for what tests take for granted: groups of one variance, and symmetric noise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.block import VoxelBlock
from ibma_app.core.estimate import Estimate
from ibma_app.core.system.threads import in_threads
from ibma_app.stats.partition import residuals
from ibma_app.stats.residuals import standardised_residuals
from ibma_app.stats.tau2_by_group import group_rank
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import ONE_THREAD, Resources

Floats = NDArray[np.float64]

SAMPLED, AT_ONCE = 40, 512  # blocks of voxels, evenly chosen, and voxels in each: more do not change a mean


@dataclass(frozen=True)
class Spread:
    """The variances of the groups of one covariate, over the mask."""

    column: str
    of: str  # "residuals", or "tau2": of true effects
    values: Mapping[str, float]  # group -> variance, in the units of effects squared
    sizes: Mapping[str, int]  # group -> maps
    of_maps: Mapping[str, float]  # group -> variance of a map, sampling variance included

    @property
    def ratio(self) -> float:
        """The largest variance of a map over the smallest."""
        return max(self.of_maps.values()) / min(self.of_maps.values())


def compare_groups(stack: Stack, model: Model) -> tuple[Spread, ...]:
    """Compare the variances of groups of maps.

    Residual variances are geometric means over voxels, freed from the bias that
    the logarithm has with few degrees of freedom (of normal noise); tau2 are
    means over voxels, each group's estimated by itself.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels; some of these are looked at.
    model : Model

    Returns
    -------
    tuple of Spread
        One for each of the design's groupings, where two groups or more leave degrees of freedom; () where groups have
        their own tau2, where maps are clustered, and where no voxel is covered by all of them.
    """
    estimator, design = model.estimator, model.design
    clustered = model.clusters is not None and np.unique(model.clusters).size < len(design.matrix)
    if not estimator.if_groups_differ or clustered or model.variance_groups is not None:
        return ()
    found = []
    for column, labels in design.groupings.items():
        rows = {label: np.array(labels) == label for label in sorted(set(labels))}
        dof = {label: int(own.sum()) - group_rank(design.matrix[own]) for label, own in rows.items()}
        if len(rows) < 2 or min(dof.values()) < 2:
            continue
        compare = _tau2 if estimator.variance_groups is not None else _residual_variances
        compared = compare(stack, model, column, rows, dof)
        if compared is None:
            continue
        sizes = {label: int(own.sum()) for label, own in rows.items()}
        of = "tau2" if estimator.variance_groups is not None else "residuals"
        found.append(Spread(column, of, compared[0], sizes, compared[1]))
    return tuple(found)


_Rows = Mapping[str, NDArray[np.bool_]]
_Compared = tuple[dict[str, float], dict[str, float]] | None
"""The variance of each group, and that of a map; None: no voxel is covered by all maps."""


def _sample(stack: Stack) -> Iterator[VoxelBlock]:
    """Read blocks of voxels all over the mask, of which those that all maps cover are returned."""
    starts = np.unique(np.linspace(0, max(stack.n_voxels - AT_ONCE, 0), SAMPLED).astype(np.int64))
    for start in starts.tolist():
        block = stack.read(start, start + AT_ONCE)
        whole = block.covered.all(axis=0)
        if whole.any():
            kinds = {kind: None if (values := getattr(block, kind)) is None else values[:, whole] for kind in KINDS}
            yield VoxelBlock(block.covered[:, whole], **kinds)


KINDS = ("effect", "variance", "z")


def _residual_variances(stack: Stack, model: Model, column: str, rows: _Rows, dof: Mapping[str, int]) -> _Compared:
    """Average the logarithms of each group's residual variance, by its own rows of the design."""
    totals, count = dict.fromkeys(rows, 0.0), 0
    for block in _sample(stack):
        values = np.asarray(block.effect if "effect" in model.estimator.needs else block.z)
        squares = {}
        for label, own in rows.items():
            basis, sizes, _ = np.linalg.svd(model.design.matrix[own], full_matrices=False)
            nuisance = np.ascontiguousarray(basis[:, sizes > 1e-9 * sizes[0]])
            squares[label] = (residuals(values[own], block.covered[own], nuisance) ** 2).sum(axis=0) / dof[label]
        sound = np.all([square > 0.0 for square in squares.values()], axis=0)
        count += int(sound.sum())
        for label, square in squares.items():
            totals[label] += float(np.log(square[sound]).sum())
    if not count:
        return None
    bias = {label: special.digamma(0.5 * left) - np.log(0.5 * left) for label, left in dof.items()}
    found = {label: float(np.exp(total / count - bias[label])) for label, total in totals.items()}
    return found, found


def _tau2(stack: Stack, model: Model, column: str, rows: _Rows, dof: Mapping[str, int]) -> _Compared:
    """Average each group's tau2, and set it in proportion beside the typical sampling variance of a map."""
    grouped = replace(model, settings={**model.settings, "tau2_by": column, "tau2_ci": "no"})
    totals, typical, count = dict.fromkeys(rows, 0.0), 0.0, 0
    for block in _sample(stack):
        fitted = grouped.fit(block)
        for label, values in (fitted.tau2_groups or {}).items():
            totals[label] += float(values.sum())
        typical += float((1.0 / (1.0 / np.asarray(block.variance)).mean(axis=0)).sum())
        count += block.covered.shape[1]
    if not count:
        return None
    found = {label: total / count for label, total in totals.items()}
    return found, {label: tau2 + typical / count for label, tau2 in found.items()}


def residual_skewness(stack: Stack, model: Model, estimate: Estimate, resources: Resources = ONE_THREAD) -> Floats:
    """Return the skewness of the residuals at each voxel, (V,); 0 where fewer than 3 maps leave any.

    sqrt(n) sum r³ / (sum r²)^1.5 of the n maps there, each residual divided by
    the standard deviation that the model gives it.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
    estimate : Estimate
        The fit of the model.
    resources : Resources
        Blocks are worked on by its threads.
    """
    found = np.zeros(stack.n_voxels)
    size = block_size(stack.n_maps)

    def work(start: int) -> None:
        end = min(start + size, stack.n_voxels)
        block = stack.read(start, end)
        values = np.asarray(block.effect if "effect" in model.estimator.needs else block.z)
        variance = block.variance if model.estimator.weights == "variance" else None
        tau2 = estimate.tau2_of(model.variance_groups, slice(start, end))
        if tau2 is not None and variance is not None:
            variance = variance + tau2
        left, sound = standardised_residuals(values, variance, block.covered, model.design.matrix)
        n = np.count_nonzero(block.covered, axis=0)
        found[start:end] = np.where(sound & (n > 2), np.sqrt(n) * (left**3).sum(axis=1), 0.0)

    in_threads(work, range(0, stack.n_voxels, size), resources.threads)
    return found


def written(spread: Spread) -> str:
    """Write the variances of groups: ``group: p 2.3 (10 maps), q 1.0 (30 maps)``."""
    parts = (f"{label} {value:.3g} ({spread.sizes[label]} maps)" for label, value in spread.values.items())
    return f"{spread.column}: {', '.join(parts)}"
