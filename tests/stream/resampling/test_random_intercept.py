"""Resampling a random intercept: every sign flip of whole participants, refitted; places; threads and scores."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.design import Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stats.basis import frame_design
from ibma_app.stats.intercept_fit import fit_random_intercept
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.workers.resources import Resources

MASK = np.ones((4, 3, 2), dtype=bool)
V = MASK.size


def draw(n_units, visits, missing=()):
    rng = np.random.default_rng(7)
    unit, visit = np.repeat(np.arange(n_units), visits), np.tile(np.arange(visits), n_units)
    kept = ~np.isin(np.arange(unit.size), missing)
    y = rng.normal(0, 1.5, (n_units, V))[unit] + rng.normal(size=(unit.size, V))
    return y[kept].astype(np.float32).astype(float), unit[kept], visit[kept]


def design_of(matrix, weights, unit, visit, tail="two-sided", **more):
    names = {"cluster_name": "participant_id", "unit_name": "participant_id"}
    columns = tuple(f"x{i}" for i in range(matrix.shape[1]))
    test = Test("test", np.atleast_2d(np.asarray(weights, dtype=float)), tail)
    return Design(matrix, columns, (test,), clusters=unit, units=unit, places=visit, repeated=True, **names, **more)


def resample(stack, design, names=("max-stat",), threads=1, **given):
    settings = InferenceSettings(cluster_p=0.02, **given)
    scores = {name: find_inference(name).score for name in names}
    model = Model(find_estimator("random-intercept"), design)
    return score_resamples(stack, model, design.tests[0], scores, settings, Resources(threads=threads))


def largest_z(y, matrix, weights, unit):
    rows = np.atleast_2d(np.asarray(weights, dtype=float))
    fit = fit_random_intercept(
        np.ascontiguousarray(y), np.ones(y.shape, bool), frame_design(matrix, [(rows, False)]), unit
    )
    z = stats.norm.isf(stats.t.sf(np.abs(fit.tested.values[0, 2]), fit.dof[0]))
    return np.abs(z).max()


@pytest.mark.parametrize("of", ["within", "between", "mean"])
@pytest.mark.parametrize("missing", [(), (1, 5, 9, 17)])
def test_every_sign_flip_of_whole_participants(stack_of, of, missing):
    """The residuals of the model without what is tested, each participant's as a whole with one sign, refitted."""
    y, unit, visit = draw(6, 3, missing)
    matrix = np.column_stack([np.ones(unit.size), visit - 1.0, unit % 2 - 0.5])
    weights = np.eye(3)[{"mean": 0, "within": 1, "between": 2}[of]]
    null = resample(stack_of(MASK, effect=y), design_of(matrix, weights, unit, visit))
    assert (null.relabelling.name, null.resamples) == ("sign flips of residuals of whole clusters", 64)
    rest = matrix[:, weights == 0]
    left = y - rest @ np.linalg.lstsq(rest, y, rcond=None)[0]
    peaks = []
    for signs in itertools.product([1.0, -1.0], repeat=6):
        peaks.append(largest_z(np.array(signs)[unit][:, None] * left, matrix, weights, unit))
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=1e-6, atol=1e-9)
    # the maps as they are: the residuals have their fit, and their test
    np.testing.assert_allclose(null.maxima["max-stat"][0], largest_z(y, matrix, weights, unit), rtol=1e-6)


def test_participants_who_are_exchangeable_change_places(stack_of):
    y, unit, visit = draw(6, 3)
    matrix = np.column_stack([np.ones(18), visit - 1.0, (unit >= 3).astype(float)])
    design = design_of(matrix, [0, 0, 1], unit, visit, exchangeability=np.zeros(18, dtype=np.int64))
    null = resample(stack_of(MASK, effect=y), design)
    assert (null.relabelling.name, null.resamples) == (
        "permutations (Freedman-Lane) of whole clusters within blocks",
        20,
    )
    left, peaks = y - matrix[:, :2] @ np.linalg.lstsq(matrix[:, :2], y, rcond=None)[0], []
    for second in itertools.combinations(range(6), 3):
        moved = matrix.copy()
        moved[:, 2] = np.isin(unit, second)
        peaks.append(largest_z(left, moved, [0, 0, 1], unit))
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=1e-6, atol=1e-9)


def test_threads_and_scores_change_nothing(stack_of):
    y, unit, visit = draw(9, 3, (4, 8))
    matrix = np.column_stack([np.ones(unit.size), visit - 1.0])
    design = design_of(matrix, [0, 1], unit, visit)
    one = resample(stack_of(MASK, effect=y), design, ("max-stat", "cluster-mass", "tfce"), permutations=60)
    two = resample(stack_of(MASK, effect=y), design, ("max-stat",), threads=2, permutations=60)
    np.testing.assert_array_equal(one.maxima["max-stat"], two.maxima["max-stat"])
    assert one.resamples == 60
