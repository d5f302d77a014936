"""How much the maps of a stack depend on each other, estimated from the maps themselves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Dependence, Design
from ibma_app.core.errors import DataError
from ibma_app.stats.correlations import FEWEST
from ibma_app.stats.dependence import correlate_errors, shrink
from ibma_app.stats.partition import residuals
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]


def measure_dependence(stack: Stack, design: Design) -> tuple[Dependence, tuple[str, ...]]:
    """Estimate the correlations that a design's dependence asks for.

    One number for each pair, over the voxels that both maps cover. Of the same
    data ("same-data") they are those of the maps' z themselves, as in same-data
    meta-analysis (Lefort-Besnard, Nichols & Maumet 2025): all pairs, what the
    maps have in common included. Within clusters ("cluster") they are those of
    the residuals that the design leaves, without the bias of residuals
    (`correlate_errors`). Effects are compared in units of their standard errors.

    Parameters
    ----------
    stack : Stack
        K maps with z, or with effect and variance.
    design : Design
        Of K rows, with a dependence.

    Returns
    -------
    Dependence
        With correlations that are positive definite (of same data, semidefinite).
    tuple of str
        Notes on what was shrunken.

    Raises
    ------
    DataError
        Maps that do not vary or share too few voxels; clusters that are too few.
    """
    dependence = design.dependence
    if dependence is None or dependence.correlation is not None:
        raise ValueError("There is nothing to estimate.")
    if dependence.source == "same-data":
        covariance, shared = _covary(stack, np.zeros((stack.n_maps, 0)))
        return replace(dependence, correlation=_correlate(covariance, shared, stack, np.ones(shared.shape, bool))), ()
    basis, _ = np.linalg.qr(design.matrix)
    covariance, shared = _covary(stack, basis)
    dependent = dependence.parts[:, None] == dependence.parts
    correlation = _correlate(covariance, shared, stack, dependent)
    spread = np.sqrt(np.diagonal(covariance[..., 0]))
    found = correlate_errors(correlation * np.outer(spread, spread), np.eye(stack.n_maps) - basis @ basis.T, dependent)
    if found is None:
        raise DataError(
            f"--dependence cluster: {int(dependence.parts.max()) + 1} clusters of {stack.n_maps} maps are too few to "
            "estimate how the maps within them are correlated, beside the columns of --formula. Give the correlations "
            "as a file, --dependence FILE (map_a, map_b, correlation)."
        )
    kept, share = shrink(found)
    notes = () if share == 0.0 else (
        f"--dependence cluster: the correlations that were estimated contradict each other (not positive definite) and "
        f"are shrunken by {share:.1%}.",
    )  # fmt: skip
    return replace(dependence, correlation=kept, shrunk=share), notes


def _standardised(block: VoxelBlock) -> Floats:
    """Return z of each map, or its effect in units of its standard error; 0 where it does not cover."""
    if block.z is not None:
        values = np.asarray(block.z, dtype=np.float64)
    else:
        effect, variance = np.asarray(block.effect, dtype=np.float64), np.asarray(block.variance, dtype=np.float64)
        values = effect / np.sqrt(np.where(block.covered, variance, 1.0))
    return np.where(block.covered, values, 0.0)


def _covary(stack: Stack, basis: Floats) -> tuple[Floats, Floats]:
    """Return the covariances of maps without a basis, over all voxels, and the number of voxels, (K, K).

    The covariances are (K, K, 3): of the pair, and the variances of the one and the other over the voxels of both.
    """
    n_maps = stack.n_maps
    sums = np.zeros((4, n_maps, n_maps))  # of 1, of the first, of its square, of products
    size = block_size(n_maps)
    for start in range(0, stack.n_voxels, size):
        block = stack.read(start, min(start + size, stack.n_voxels))
        there = block.covered.astype(np.float64)
        values = residuals(_standardised(block), block.covered, basis) * there
        sums += np.stack([there @ there.T, values @ there.T, values**2 @ there.T, values @ values.T])
    count = np.maximum(sums[0], 1.0)
    means, squares, products = sums[1] / count, sums[2] / count, sums[3] / count
    variance = squares - means**2
    return np.stack([products - means * means.T, variance, variance.T], axis=-1), sums[0]


def _refuse(bad: NDArray[np.bool_], shared: Floats, labels: Sequence[str]) -> DataError:
    """Say why correlations cannot be estimated: of all maps, of one, or of a pair."""
    file = "Give the correlations as a file, --dependence FILE (map_a, map_b, correlation)"
    alone = np.flatnonzero(np.diagonal(bad))
    if alone.size == len(labels):
        why = f"the mask has {int(shared.max())} voxels, and" if shared.max() < FEWEST else "none of the maps varies:"
        return DataError(f"--dependence: {why} correlations need {FEWEST} or more that vary. {file}.")
    if alone.size:
        one, count = labels[alone[0]], int(shared[alone[0], alone[0]])
        why = f"it covers {count} voxels, fewer than {FEWEST}" if count < FEWEST else "it does not vary"
        return DataError(f"How {one} is correlated with others cannot be estimated: {why}. {file}, or leave it out.")
    a, b = np.argwhere(bad)[0]
    why = f"have fewer than {FEWEST} voxels in common" if shared[a, b] < FEWEST else "do not vary where both are"
    return DataError(
        f"How {labels[a]} and {labels[b]} are correlated cannot be estimated: they {why}. {file}, or leave one of them "
        "out."
    )


def _correlate(covariance: Floats, shared: Floats, stack: Stack, wanted: NDArray[np.bool_]) -> Floats:
    """Turn covariances into correlations, (K, K); refuse pairs that are wanted and do not tell."""
    spread = np.sqrt(np.maximum(covariance[..., 1] * covariance[..., 2], 0.0))
    sound = (spread > 0.0) & (shared >= FEWEST)
    if np.any(wanted & ~sound):
        raise _refuse(wanted & ~sound, shared, [survey.label for survey in stack.survey])
    found: Floats = np.clip(covariance[..., 0] / np.where(sound, spread, 1.0), -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return np.where(sound, found, 0.0)
