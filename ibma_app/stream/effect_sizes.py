"""Standardised effects of least squares: Hedges' g of t tests, partial eta squared of F tests, with exact intervals.

g is the effect over the standard deviation of maps about their means (of one
sample: d_z), with Hedges' factor. A mean, or a difference of means, has one; a
regression coefficient has none.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import Blocks
from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import Estimate, TestEstimate
from ibma_app.stats.noncentral import f_limit, hedges_factor, t_limit
from ibma_app.stats.partition import same_rows
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size

Floats = NDArray[np.float64]

Z_95 = 1.959963984540054
LEAST_DOF = 2.0  # with fewer the mean of d does not exist
CLOSE = 1e-9


class EffectSize(NamedTuple):
    """A standardised effect of one test, with its 95 % interval: (V,) each, 0 where the test cannot be estimated."""

    kind: str  # "g" or "eta2", as in names of files
    value: Floats
    lower: Floats
    upper: Floats


def mean_weights(design: Design, test: Test) -> Floats | None:
    """Return a t test as weights of the maps' means in each cell of the design, (K,) cell by map.

    Parameters
    ----------
    design : Design
    test : Test

    Returns
    -------
    ndarray of float, shape (K,), or None
        The weight of the mean of each map's cell, cells being maps with equal rows. None where the test is not of
        a mean or of a difference of means: F tests, designs with fewer columns than cells (covariates, factors
        without their interaction), weights whose positive or negative ones do not sum to 1 or 0; repeated measures.
    """
    if test.is_f or design.repeated or design.dependent or design.dependence is not None:
        return None
    cells = same_rows(design.matrix)
    _, first = np.unique(cells, return_index=True)
    rows = design.matrix[first]
    if rows.shape[0] != rows.shape[1] or np.linalg.matrix_rank(rows) < rows.shape[1]:
        return None
    weights = np.linalg.solve(rows.T, np.ravel(test.weights))
    weights[np.abs(weights) < CLOSE] = 0.0
    up, down = weights[weights > 0].sum(), -weights[weights < 0].sum()
    if any(abs(total - 1.0) > CLOSE and total > CLOSE for total in (up, down)):
        return None
    by_cell = dict(zip(cells[first].tolist(), weights.tolist(), strict=True))
    return np.array([by_cell[cell] for cell in cells.tolist()])


def find_effect_sizes(stack: Blocks, model: Model, estimate: Estimate) -> dict[str, EffectSize]:
    """Standardise the effects of a fit.

    Parameters
    ----------
    stack : Blocks
        K maps, V voxels.
    model : Model
        Its estimator says whether all maps share one variance.
    estimate : Estimate

    Returns
    -------
    dict of str to EffectSize
        By test name; tests without one are not in it.
    """
    one_variance = model.estimator.one_variance
    if one_variance is None or not one_variance(model.design, model.settings):
        return {}
    found: dict[str, EffectSize] = {}
    for test in model.design.tests:
        fitted, dof = estimate.tests[test.name], estimate.dof_of(test.name)
        if fitted.statistic is None or dof is None:
            continue
        known = fitted.estimable if estimate.identical is None else fitted.estimable & ~estimate.identical
        if fitted.statistic_name == "F":
            found[test.name] = _eta2(fitted, known, float(np.linalg.matrix_rank(test.weights)), dof, estimate.n)
        elif (weights := mean_weights(model.design, test)) is not None:
            size = root_of_inverse_counts(stack, model.design, weights)
            found[test.name] = _hedges_g(fitted, known, dof, size)
    return found


def root_of_inverse_counts(stack: Blocks, design: Design, weights: Floats) -> Floats:
    """Return the standard error of a test's effect over the standard deviation of maps, (V,): √(Σ w² / n) over cells.

    ``weights`` are those of `mean_weights`, n the maps of a cell that cover the voxel.
    """
    cells = same_rows(design.matrix)
    which = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
    which = [rows for rows in which if weights[rows[0]]]
    total = np.zeros(stack.n_voxels)
    step = block_size(stack.n_maps)
    for start in range(0, stack.n_voxels, step):
        covered = stack.read(start, start + step).covered
        counts = (covered[rows].sum(axis=0) for rows in which)
        parts = [weights[rows[0]] ** 2 / np.maximum(count, 1) for rows, count in zip(which, counts, strict=True)]
        total[start : start + covered.shape[1]] = np.sum(parts, axis=0)
    return np.sqrt(total)


def _hedges_g(fitted: TestEstimate, known: NDArray[np.bool_], dof: Floats, size: Floats) -> EffectSize:
    """Turn t into g; the interval is of the population's effect, not of its estimate, and has no factor."""
    there = known & (dof >= LEAST_DOF)
    assert fitted.statistic is not None  # checked by find_effect_sizes
    t, dofs, size = fitted.statistic[there], dof[there], size[there]
    distinct, index = np.unique(dofs, return_inverse=True)
    factor = np.array([hedges_factor(float(one)) for one in distinct])[index]
    value, lower, upper = np.zeros((3, there.size))
    value[there] = factor * t * size
    lower[there], upper[there] = size * t_limit(t, dofs, Z_95), size * t_limit(t, dofs, -Z_95)
    return EffectSize("g", value, lower, upper)


def _eta2(fitted: TestEstimate, known: NDArray[np.bool_], rows: float, dof: Floats, n: NDArray[np.int16]) -> EffectSize:
    """Turn F into partial eta squared: the share of the variance that the tested columns explain."""
    there = known & (dof > 0)
    assert fitted.statistic is not None  # checked by find_effect_sizes
    f, dofs, count = fitted.statistic[there], dof[there], n[there]
    value, lower, upper = np.zeros((3, there.size))
    value[there] = rows * f / (rows * f + dofs)
    for out, z in ((lower, Z_95), (upper, -Z_95)):
        noncentrality = f_limit(f, rows, dofs, z)
        out[there] = noncentrality / (noncentrality + count)
    return EffectSize("eta2", value, lower, upper)
