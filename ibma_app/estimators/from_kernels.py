"""What every estimator does alike: arrays for the kernels, and z from their tests."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.estimate import Estimate, TestEstimate
from ibma_app.core.methods import Setting, SignedSums
from ibma_app.stats.basis import Frame, frame_design
from ibma_app.stats.contrasts import Tested
from ibma_app.stats.tails import f_to_z, t_to_z
from ibma_app.stats.weighted import IDENTICAL

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def check_settings(
    name: str, settings: Mapping[str, Setting], given: Mapping[str, str], design: Design | None = None
) -> dict[str, str]:
    """Fill in defaults, those of a design where they depend on it.

    Raises
    ------
    UsageError
        For a setting or a choice that does not exist.
    """
    for key, value in given.items():
        if key not in settings:
            menu = ", ".join(settings) or "none"
            raise UsageError(f"Estimator {name} has no setting {key!r}; its settings: {menu}.")
        if settings[key].choices and value not in settings[key].choices:
            menu = ", ".join(settings[key].choices)
            raise UsageError(f"Setting {key} of estimator {name} is {value!r}; choose from: {menu}.")
    return {key: given.get(key, setting.default(design)) for key, setting in settings.items()}


def frame_of(design: Design) -> Frame:
    """Lay a design out for the kernels.

    Raises
    ------
    DataError
        When it is not of full rank.
    """
    tests = [(test.weights, test.is_f) for test in design.tests]
    try:
        return frame_design(design.matrix, tests, through_origin=design.through_origin)
    except ValueError as error:
        raise DataError(f"The design {design.formula!r} cannot be fitted. {error}") from error


def kind_of(block: VoxelBlock, kind: str) -> Floats:
    """Return one kind of a block, (K, B), as the kernels take it.

    Raises
    ------
    DataError
        When the block was read without it.
    """
    values = getattr(block, kind)
    if values is None:
        raise DataError(f"The maps were read without their {kind}.")
    return np.ascontiguousarray(values, dtype=np.float64)


def covered_of(block: VoxelBlock) -> Bools:
    """Return a block's coverage, (K, B), as the kernels take it."""
    return np.ascontiguousarray(block.covered, dtype=np.bool_)


def left_dof(counts: NDArray[np.int16]) -> Floats:
    """Return n - rank of each voxel, (B,), at least 0, from both, (2, B)."""
    left: Floats = np.maximum(counts[0] - counts[1], 0).astype(np.float64)
    return left


def test_estimates(design: Design, frame: Frame, tested: Tested, dof: Floats | None) -> dict[str, TestEstimate]:
    """Give each test its z.

    Parameters
    ----------
    tested : Tested
        t tests: effect over standard error; F tests: the quadratic form over its rows.
    dof : ndarray, shape (B,), or None
        Denominator dof; None for z tests, whose F is a chi-square over its rows.
    """
    found = {}
    for c, test in enumerate(design.tests):
        estimable = tested.estimable[c]
        effect, variance, statistic = tested.values[c]
        if frame.upper[c]:
            rows = float(frame.starts[c + 1] - frame.starts[c])
            z = np.where(estimable, f_to_z(statistic, rows, np.inf if dof is None else dof), 0.0)
            found[test.name] = TestEstimate(z, estimable, statistic=statistic, statistic_name="F")
            continue
        z = statistic if dof is None else t_to_z(statistic, dof)
        found[test.name] = TestEstimate(
            z,
            estimable,
            effect,
            variance,
            None if dof is None else statistic,
            "z" if dof is None else "t",
        )
    return found


def own_dof_estimates(
    design: Design, frame: Frame, tested: Tested, dof: Floats, frequent: Floats
) -> dict[str, TestEstimate]:
    """Give each test its z, where each has its own dof.

    Parameters
    ----------
    tested : Tested
    dof : ndarray, shape (C, B)
        Of t, or the denominator's of F.
    frequent : ndarray, shape (C,)
        Those that most voxels have.
    """
    found = {}
    for c, test in enumerate(design.tests):
        estimable = tested.estimable[c]
        effect, variance, statistic = tested.values[c]
        if frame.upper[c]:
            rows = float(frame.starts[c + 1] - frame.starts[c])
            z = np.where(estimable, f_to_z(statistic, rows, dof[c]), 0.0)
            found[test.name] = TestEstimate(z, estimable, statistic=statistic, statistic_name="F", dof=dof[c])
        else:
            z = t_to_z(statistic, dof[c], frequent[c])
            found[test.name] = TestEstimate(z, estimable, effect, variance, statistic, "t", dof[c])
    return found


def tails_of(test: Test) -> set[str]:
    """Return the tails in which a one-sample test needs a directed combination."""
    if test.is_f:
        return {"two-sided"}
    turned = {"positive": "negative", "negative": "positive"}
    return {test.tail, turned.get(test.tail, test.tail)}


def _z_of_weighted(sums: Floats, own: Floats, tail: str) -> Floats:
    """Return z of sums of w z, from the root of the sum of w²."""
    return sums / own[0]


def sums_of_z(block: VoxelBlock, weights: Floats) -> SignedSums:
    """Return Stouffer's z with weights (K,) as a function of the maps' signs."""
    covered = covered_of(block)
    terms = np.where(covered, weights[:, None] * kind_of(block, "z"), 0.0)
    size = np.sqrt(np.maximum((weights[:, None] ** 2 * covered).sum(axis=0), np.finfo(np.float64).tiny))
    return SignedSums(terms, size[None], _z_of_weighted)


def _z_of_plain(sums: Floats, own: Floats, tail: str) -> Floats:
    """Return z of t = mean over its standard error, from n and the sum of y²; 0 where that is rounding."""
    n, squares = own
    left = squares - sums**2 / np.maximum(n, 1.0)
    sound = (n > 1) & (left > IDENTICAL * squares)
    t = sums * np.sqrt(np.where(sound, (n - 1.0) / np.maximum(n, 1.0) / np.where(sound, left, 1.0), 0.0))
    return t_to_z(t, n - 1.0)


def sums_of_values(block: VoxelBlock, kind: str) -> SignedSums:
    """Return the one-sample t of plain means of effects or z as a function of the maps' signs."""
    covered = covered_of(block)
    terms = np.where(covered, kind_of(block, kind), 0.0)
    return SignedSums(terms, np.stack([covered.sum(axis=0).astype(np.float64), (terms**2).sum(axis=0)]), _z_of_plain)


def one_sample_estimate(block: VoxelBlock, design: Design, z_of_tail: Mapping[str, Floats]) -> Estimate:
    """Turn a combined z, (B,) by tail, into the tests of a one-sample design.

    A negative weight asks the question with the sign turned; an F test is
    two-sided and upper-tail.

    Raises
    ------
    DataError
        For any other design.
    """
    n = covered_of(block).sum(axis=0).astype(np.int16)
    found = {}
    for test in design.tests:
        weights = np.atleast_2d(np.asarray(test.weights, dtype=np.float64))
        if not design.one_sample or weights.shape != (1, 1) or weights[0, 0] == 0:
            raise DataError("This estimator takes one-sample designs only (formula 1); use stouffer-rfx for others.")
        if test.is_f:
            z = z_of_tail["two-sided"]
            found[test.name] = TestEstimate(
                f_to_z(z * z, 1.0, np.inf) * (n > 0), n > 0, statistic=z * z, statistic_name="F"
            )
        elif weights[0, 0] > 0:
            found[test.name] = TestEstimate(z_of_tail[test.tail], n > 0)
        else:
            turned = {"positive": "negative", "negative": "positive"}.get(test.tail, test.tail)
            found[test.name] = TestEstimate(-z_of_tail[turned], n > 0)
    return Estimate(found, n)
