"""The value of every map at a few voxels, and the test there when each map in turn is left out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import Floats, VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import Estimate
from ibma_app.core.results import CellAtPeak, Combined, MapAtPeak, PeakEvidence
from ibma_app.stream.estimate import Model
from ibma_app.stream.stack import Stack

REFITTED_ALL = 60
"""Up to so many maps each is left out in turn; of more, the ``REFITTED`` most influential."""
REFITTED = 40
REFIT_COST = 1e8
"""Most products spent on a peak: each map left out takes about K P² of them."""


class _Solved(NamedTuple):
    """A weighted linear model of the K maps at one voxel."""

    tested: Floats  # (Q,) the test's rows times the coefficients
    predicted: Floats  # (K,)
    # influence of each map on the tested rows, up to a factor that all maps share
    # (DFBETAS; Belsley, Kuh & Welsch 1980): the most influential maps are left out
    shift: Floats  # (K,)


def read_peaks(
    stack: Stack, model: Model, estimate: Estimate, test: Test, places: Mapping[int, str]
) -> tuple[PeakEvidence, ...]:
    """Read the maps at a test's peaks, and fit there without each map in turn.

    The model itself is fitted, as if one map did not cover the voxel (metafor's ``leave1out``,
    designs with moderators too).

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
        That the estimate was made with.
    estimate : Estimate
        Of the V voxels.
    test : Test
        One of the design's.
    places : mapping of int to str
        Voxel of the mask -> its name. Voxels where the test cannot be estimated are left out.

    Returns
    -------
    tuple of PeakEvidence
        In the order of ``places``.
    """
    fitted = estimate.tests[test.name]
    inside = np.argwhere(stack.grid.mask)
    alone = replace(model, design=replace(model.design, tests=(test,)))
    peaks = []
    for at, name in places.items():
        if not fitted.estimable[at]:
            continue
        block = stack.read(at, at + 1)
        tau2 = None if estimate.tau2 is None else float(estimate.tau2[at])
        combined = _combined(estimate, test, at)
        between = estimate.tau2_of(model.variance_groups, slice(at, at + 1))
        of_maps = np.broadcast_to(0.0 if between is None else between, block.covered.shape)[:, 0]
        maps = _maps_at(block, alone, combined, of_maps)
        x, y, z = stack.grid.places_at(np.array([at]))[0]
        peaks.append(
            PeakEvidence(
                test=test.name,
                name=name,
                voxel=tuple(int(index) for index in inside[at]),
                where=stack.grid.tell(at),
                xyz=(float(x), float(y), float(z)),
                combined=combined,
                maps=maps,
                tau2=tau2,
                q=_at(estimate.q, at),
                q_dof=None if estimate.q is None else _left_dof(block, model.design),
                q_log10p=_at(estimate.q_log10p, at),
                i2=_at(estimate.i2, at),
                sigma2=_at(estimate.sigma2, at),
                cells=_cells(block, model),
            )
        )
    return tuple(peaks)


def _cells(block: VoxelBlock, model: Model) -> tuple[CellAtPeak, ...]:
    """Estimate the means of the design's cells at one voxel, where an estimator has effects with their errors."""
    cells = model.design.cells
    if not cells or "effect" not in model.estimator.needs:
        return ()
    tests = tuple(Test(f"cell{number}", cell.weights[np.newaxis]) for number, cell in enumerate(cells))
    estimate = replace(model, design=replace(model.design, tests=tests)).fit(block)
    found = []
    for test, cell in zip(tests, cells, strict=True):
        fitted = estimate.tests[test.name]
        if fitted.estimable[0] and fitted.effect is not None:
            found.append(CellAtPeak(cell.name, _combined(estimate, test, 0), cell.rows))
    return tuple(found)


def _at(values: Floats | None, at: int) -> float | None:
    return None if values is None else float(values[at])


def _left_dof(block: VoxelBlock, design: Design) -> int:
    covered = block.covered[:, 0]
    return int(covered.sum() - np.linalg.matrix_rank(design.matrix[covered]))


def _combined(estimate: Estimate, test: Test, at: int) -> Combined:
    """Return one test at one voxel of an estimate."""
    fitted = estimate.tests[test.name]
    dof = None if fitted.statistic_name == "z" else _at(estimate.dof_of(test.name), at)
    return Combined(
        z=float(fitted.z[at]),
        effect=_at(fitted.effect, at),
        variance=_at(fitted.variance, at),
        dof=dof if dof is not None and np.isfinite(dof) else None,
    )


def _maps_at(block: VoxelBlock, model: Model, combined: Combined, tau2: Floats) -> tuple[MapAtPeak, ...]:
    """Return the value of each map that covers the voxel, and the test without it; the model has one test."""
    estimator, alone = model.estimator, model.design
    rows = np.flatnonzero(block.covered[:, 0])
    kind = block.effect if "effect" in estimator.needs else block.z
    assert kind is not None  # it has been fitted
    values = kind[rows, 0]
    variance = block.variance[rows, 0] if "variance" in estimator.needs and block.variance is not None else None
    weights = None
    if estimator.weights == "variance" and variance is not None:
        weights = 1.0 / (variance + tau2[rows])
    elif estimator.weights == "sample_size" and block.sample_size is not None:
        weights = np.sqrt(block.sample_size[rows])
    matrix, tested = alone.matrix[rows], np.atleast_2d(alone.tests[0].weights)
    again = _solve(matrix, np.ones(rows.size) if weights is None else weights, values, tested)
    known = _adds_up(again, combined, weights if estimator.weights == "sample_size" else None, values)
    if not known and weights is not None:  # settings may weigh all maps alike
        alike = _solve(matrix, np.ones(rows.size), values, tested)
        if _adds_up(alike, combined, None, values):
            again, weights, known = alike, None, True
    share = 100.0 * weights / weights.sum() if known and weights is not None else None
    afford = int(REFIT_COST // (matrix.shape[0] * matrix.shape[1] ** 2))
    most = min(afford, rows.size if rows.size <= REFITTED_ALL else REFITTED)
    left = np.sort(rows[np.argsort(-again.shift, kind="stable")[:most]])
    without = _leave_out(block, model, left)
    plain = alone.tests_mean(alone.tests[0]) or not (known and estimator.has_residuals)
    return tuple(
        MapAtPeak(
            row=int(row),
            value=float(values[index]),
            variance=None if variance is None else float(variance[index]),
            weight=None if share is None else float(share[index]),
            fitted=None if plain else float(again.predicted[index]),
            without=without.get(int(row)),
        )
        for index, row in enumerate(rows)
    )


def _solve(matrix: Floats, weights: Floats, values: Floats, tested: Floats) -> _Solved:
    """Fit the weighted linear model with numpy."""
    root = np.sqrt(weights)
    inverse = np.linalg.pinv(matrix * root[:, None])  # (P, K)
    coefficients = inverse @ (values * root)
    predicted = matrix @ coefficients
    leverage = np.minimum(root * (matrix * inverse.T).sum(axis=1), 1.0 - 1e-12)
    moved = (tested @ inverse) * (root * (values - predicted) / (1.0 - leverage))
    scale = np.sqrt(((tested @ inverse) ** 2).sum(axis=1, keepdims=True))
    shift = np.hypot.reduce(moved / np.where(scale > 0, scale, 1.0), axis=0)
    return _Solved(tested @ coefficients, predicted, shift)


def _adds_up(again: _Solved, combined: Combined, sized: Floats | None, values: Floats) -> bool:
    """Return whether these weights are the estimator's: they must give the same effect, or z."""
    if combined.effect is not None:
        spread = 1e-3 * float(np.abs(values).max())  # an effect near 0 has the rounding error of larger ones
        return abs(float(again.tested[0]) - combined.effect) <= 1e-6 * max(abs(combined.effect), spread)
    if sized is not None:
        found = float(sized @ values / np.sqrt(sized @ sized))
        return abs(abs(found) - abs(combined.z)) <= 1e-6 * max(abs(combined.z), 1.0)
    return True


def _leave_out(block: VoxelBlock, model: Model, rows: NDArray[np.intp]) -> dict[int, Combined]:
    """Fit one voxel without each of some maps: as a block of as many voxels, each of which lacks one map."""
    covered = np.repeat(block.covered, rows.size, axis=1)
    covered[rows, np.arange(rows.size)] = False
    kinds = {name: getattr(block, name) for name in ("effect", "variance", "z")}
    spread = {name: None if values is None else np.where(covered, values, 0.0) for name, values in kinds.items()}
    lacking = VoxelBlock(covered=covered, dof=block.dof, sample_size=block.sample_size, **spread)
    estimate, test = model.fit(lacking), model.design.tests[0]
    estimable = estimate.tests[test.name].estimable
    return {int(row): _combined(estimate, test, index) for index, row in enumerate(rows) if estimable[index]}
