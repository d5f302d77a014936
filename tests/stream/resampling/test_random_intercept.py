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
from ibma_app.stats.intercept_flips import bound_flips
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.fast_bounds import FastBounded, takes_bounds
from ibma_app.stream.resampling.refit import Refit, Refitter
from ibma_app.stream.resampling.relabelling import plan_scheme
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.resampling.scoring import Scoring
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


@pytest.mark.parametrize("tail", ["two-sided", "negative", "F"])
@pytest.mark.parametrize("dof", ["satterthwaite", "kenward-roger"])
def test_what_is_bounded_is_what_is_fitted(stack_of, tail, dof):
    """Only what may be high is fitted: the same bytes as fitting all, where maps are missing at some voxels too."""
    rng, mask = np.random.default_rng(3), np.ones((12, 10, 8), dtype=bool)
    unit, visit = np.repeat(np.arange(9), 3)[:-2], np.tile(np.arange(3), 9)[:-2]
    y = rng.normal(0, 1, (9, mask.size))[unit] + rng.normal(size=(unit.size, mask.size))
    y[:, :100] += 3.0 * visit[:, None]
    y[3, 300:600] = y[7, 500] = 0.0
    matrix = np.column_stack([np.ones(unit.size), visit - 1.0, unit % 2, (visit - 1.0) * (unit % 2)])
    weights = np.eye(4)[[1, 3]] if tail == "F" else np.eye(4)[1]
    design = design_of(matrix, weights, unit, visit, "two-sided" if tail == "F" else tail)
    stack, test = stack_of(mask, effect=y.astype(np.float32).astype(float)), design.tests[0]
    model = Model(find_estimator("random-intercept"), design, {"dof": dof})
    settings = InferenceSettings(cluster_p=0.05, permutations=100)
    scheme = plan_scheme(model, test, settings)
    refitter = Refitter(stack, model, scheme, 1)
    for names in (("max-stat",), ("max-stat", "cluster-mass")):
        scores = {name: find_inference(name).score for name in names}
        scoring = Scoring(scores, stack.grid, scheme.tail, settings, np.flatnonzero(refitter.live))
        assert takes_bounds(model, scheme, scoring)
        fast, job = FastBounded(model, refitter, scoring), range(30)
        np.testing.assert_array_equal(fast.score(job), Refit(refitter, scoring).score(job))
    assert not takes_bounds(model, scheme, Scoring({"tfce": find_inference("tfce").score}, stack.grid, scheme.tail,
                                                   settings, np.flatnonzero(refitter.live)))  # fmt: skip


@pytest.mark.parametrize("icc", [0.0, 0.5, 0.9])
def test_no_flip_exceeds_its_bound(icc):
    rng = np.random.default_rng(5)
    unit, visit = np.repeat(np.arange(14), 4), np.tile(np.arange(4), 14)
    kept = rng.random(unit.size) < 0.7
    unit, visit = np.unique(unit[kept], return_inverse=True)[1], visit[kept]
    matrix = np.column_stack([np.ones(unit.size), visit - 1.0, unit % 2])
    y = np.sqrt(icc) * rng.normal(size=(14, 400))[unit] + np.sqrt(1 - icc) * rng.normal(size=(unit.size, 400))
    signs = rng.choice([1.0, -1.0], (6, 14))[:, unit]
    covered = np.ones(y.shape, dtype=bool)
    for rows in (np.eye(3)[[1]], np.eye(3)[[2]], np.eye(3)[1:]):
        bounds = bound_flips(y, covered, matrix, rows, unit, signs)
        for row, sign in enumerate(signs):
            for corrected in (False, True):
                frame = frame_design(matrix, [(rows, len(rows) > 1)])
                fit = fit_random_intercept(sign[:, None] * y, covered, frame, unit, corrected=corrected)
                statistic = fit.tested.values[0, 2] if len(rows) > 1 else fit.tested.values[0, 2] ** 2
                high = statistic > 1.0
                assert (statistic[high] <= 0.95 * np.abs(bounds[row][high])).all()
                assert np.median(statistic[high] / np.abs(bounds[row][high])) > 0.4  # and is not far from it
