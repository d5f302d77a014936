"""Bonferroni and the false discovery rate in data sets of independent voxels, where nothing hides errors of small p."""

from collections.abc import Callable

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import find_inference
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.estimate import Model

VOXELS, AT_ONCE = 2000, 10  # of a data set; data sets that are fitted together
METHODS = ("bonferroni", "fdr")


def count_far(model: Model, draw: Callable[[np.random.Generator, int], np.ndarray], seed: int, sets: int) -> np.ndarray:
    """Count the data sets in which each method finds something, by test, (tests * methods,).

    Parameters
    ----------
    model : Model
        Of effects.
    draw : callable
        Of a generator and a number of voxels: effects, (K, V).
    seed : int
    sets : int
    """
    line, settings = Grid(np.eye(4), np.ones((VOXELS, 1, 1), dtype=bool)), InferenceSettings()
    found = np.zeros((len(model.design.tests), len(METHODS)))
    for first in range(0, sets, AT_ONCE):
        effect = draw(np.random.default_rng([first, seed, 3]), AT_ONCE * VOXELS)
        fitted = model.fit(VoxelBlock(np.ones(effect.shape, dtype=bool), effect=effect))
        for row, test in enumerate(model.design.tests):
            one = fitted.tests[test.name]
            log10_p = np.where(one.estimable, z_to_log10p(one.z, test.tail), 0.0)
            for start in range(0, AT_ONCE * VOXELS, VOXELS):
                part = slice(start, start + VOXELS)
                field = Field(one.z[part], test.tail, one.estimable[part], line, log10_p[part])
                found[row] += [find_inference(name).infer(field, None, settings).significant.any() for name in METHODS]
    return found.ravel()
