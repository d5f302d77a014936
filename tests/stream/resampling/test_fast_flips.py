"""The faster path of one sample's sign flips against the general one, which fits every voxel in every flip."""

import pickle

import numpy as np
import pytest

from ibma_app.core.design import TAILS, Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import ESTIMATORS, find_estimator
from ibma_app.inference import find_inference
from ibma_app.stats import signed_sums
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling import fast_flips, resample
from ibma_app.stream.resampling.fast_flips import FastFlips, gather_sums
from ibma_app.stream.resampling.relabelling import plan_scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.workers.resources import Resources

SUMMED = [name for name in ESTIMATORS if find_estimator(name).signed_sums]
SPARSE, ALL = ("max-stat", "cluster-mass"), ("max-stat", "cluster-size", "cluster-mass", "tfce")
SETTINGS = InferenceSettings(cluster_p=0.02, permutations=60, seed=4)
MASK = np.ones((9, 8, 7), dtype=bool)


def one_sample(n_maps, tail="two-sided", weight=1.0):
    return Design(np.ones((n_maps, 1)), ("Intercept",), (Test("mean", np.array([[weight]]), tail),))


@pytest.fixture
def stacked(stack_of, rng):
    """Return ``stacked(name, n_maps=9, holes=0.2) -> Stack`` with what an estimator reads, and some signal."""

    def make(name, n_maps=9, holes=0.2, dof=None):
        values = rng.normal(0.0, 1.3, (n_maps, MASK.sum()))
        values[:, :40] += 1.2
        values[rng.uniform(size=values.shape) < holes] = np.nan
        values[:4] = np.where(np.isnan(values[:4]), 0.1, values[:4])
        if "z" in find_estimator(name).needs:
            stack = stack_of(MASK, z=values)
        else:
            variance = np.where(np.isnan(values), np.nan, rng.uniform(0.3, 3.0, values.shape))
            stack = stack_of(MASK, effect=values, variance=variance)
        object.__setattr__(stack, "sample_size", np.arange(10.0, 10.0 + n_maps))
        object.__setattr__(stack, "dof", dof)
        return stack

    return make


@pytest.fixture
def score(monkeypatch):
    """Return ``score(stack, model, names=ALL, *, fast=True, settings=SETTINGS, threads=1) -> Null``."""

    def call(stack, model, names=ALL, *, fast=True, settings=SETTINGS, threads=1):
        scores = {name: find_inference(name).score for name in names}
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(resample, "gather_sums", lambda *_: None)
                patch.setattr(resample, "gather_residuals", lambda *_: None)
            return resample.score_resamples(stack, model, model.design.tests[0], scores, settings, Resources(threads))

    return call


def assert_same(fast, slow, rtol=2e-6):
    for name, maxima in slow.maxima.items():
        np.testing.assert_allclose(fast.maxima[name], maxima, rtol=rtol, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(fast.observed[name], slow.observed[name], rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("names", [SPARSE, ALL, ("max-stat",)], ids=["sparse", "all", "peaks"])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", SUMMED)
def test_scores_are_those_of_fits(name, tail, names, stacked, score):
    """Terms are kept in single precision: 6e-8 of each; t grows by more where little is left of the squares."""
    stack = stacked(name)
    model = Model(find_estimator(name), one_sample(9, tail))
    assert gather_sums(stack, model, plan_scheme(model, model.design.tests[0], SETTINGS)) is not None
    assert_same(score(stack, model, names), score(stack, model, names, fast=False))


@pytest.mark.parametrize("name", SUMMED)
def test_a_turned_test_is_the_same_with_turned_signs(name, stacked, score):
    stack = stacked(name)
    turned = Model(find_estimator(name), one_sample(9, "positive", weight=-1.0))
    assert_same(score(stack, turned), score(stack, turned, fast=False))


@pytest.mark.parametrize("settings", [{"test": "z"}, {"test": "t"}, {"weights": "equal"}, {}])
def test_fixed_effects_with_every_setting(settings, stacked, score):
    stack = stacked("fixed-effects", dof=np.linspace(6.0, 40.0, 9)[:, None])
    estimator = find_estimator("fixed-effects")
    design = one_sample(9)
    model = Model(estimator, design, {**estimator.defaults(design), **settings})
    assert_same(score(stack, model), score(stack, model, fast=False))


@pytest.mark.parametrize("name", SUMMED)
def test_values_far_from_one_are_scored_alike(name, stack_of, rng, score):
    """Effects of 1e-12 and, among z, one of 35: no sum is lost in single precision."""
    values = rng.normal(0.0, 1.0, (8, MASK.sum()))
    if "z" in find_estimator(name).needs:
        values[2, 5] = 35.0
        stack = stack_of(MASK, z=values)
    else:
        stack = stack_of(MASK, effect=1e-12 * values, variance=np.full(values.shape, 1e-24))
    object.__setattr__(stack, "sample_size", np.arange(10.0, 18.0))
    model = Model(find_estimator(name), one_sample(8))
    assert_same(score(stack, model, SPARSE), score(stack, model, SPARSE, fast=False), rtol=2e-5)


@pytest.mark.parametrize("name", SUMMED)
def test_the_same_bytes_from_threads_other_jobs_and_another_process(name, stacked, score, monkeypatch):
    stack, names = stacked(name), SPARSE
    model = Model(find_estimator(name), one_sample(9))
    one, two = score(stack, model, names), score(stack, model, names, threads=2)
    monkeypatch.setattr(fast_flips, "SPARSE", 7)
    monkeypatch.setattr(signed_sums, "TILE", 130)
    other = score(stack, model, names)
    for inference in names:
        assert one.maxima[inference].tobytes() == two.maxima[inference].tobytes() == other.maxima[inference].tobytes()
    scheme = plan_scheme(model, model.design.tests[0], SETTINGS)
    gathered = gather_sums(stack, model, scheme)
    scores = {inference: find_inference(inference).score for inference in names}
    here = FastFlips(gathered, scheme, Scoring(scores, stack.grid, scheme.tail, SETTINGS, gathered.live))
    there = pickle.loads(pickle.dumps(here))
    assert here.score(range(1, 6)).tobytes() == there.score(range(1, 6)).tobytes()


def test_relabellings_with_too_many_or_no_high_voxels_are_scored_whole(stacked, score, monkeypatch):
    stack = stacked("stouffer")
    model = Model(find_estimator("stouffer"), one_sample(9))
    usual = score(stack, model, SPARSE)
    monkeypatch.setattr(fast_flips, "MOST", 2)
    few = score(stack, model, SPARSE)
    peaks = score(stack, model, ("max-stat",))
    monkeypatch.setattr(fast_flips, "FLOOR", 30.0)
    none = score(stack, model, ("max-stat",))
    for inference in SPARSE:
        np.testing.assert_array_equal(few.maxima[inference], usual.maxima[inference])
    np.testing.assert_array_equal(peaks.maxima["max-stat"], usual.maxima["max-stat"])
    np.testing.assert_array_equal(none.maxima["max-stat"], usual.maxima["max-stat"])


def test_voxels_without_a_test_are_left_out(stack_of, rng, score):
    values = rng.normal(size=(6, MASK.sum()))
    values[:, 3] = 0.7  # identical: no error
    values[1:, 8] = np.nan  # one map
    stack = stack_of(MASK, effect=values)
    model = Model(find_estimator("ols"), one_sample(6))
    fast = score(stack, model)
    assert fast.observed["max-stat"][3] == fast.observed["max-stat"][8] == 0.0
    assert_same(fast, score(stack, model, fast=False))


def test_designs_f_tests_and_sandwiches_do_not_take_this_path(stack_of, rng):
    stack = stack_of(MASK, effect=rng.normal(size=(8, MASK.sum())))
    ols = find_estimator("ols")
    f = Design(np.ones((8, 1)), ("Intercept",), (Test("mean", np.ones((1, 1)), is_f=True),))
    slope = Design(
        np.column_stack([np.ones(8), np.arange(8.0)]), ("Intercept", "x"), (Test("x", np.array([[0, 1.0]])),)
    )
    for model in (Model(ols, f), Model(ols, slope), Model(ols, one_sample(8), {"errors": "sandwich"})):
        assert gather_sums(stack, model, plan_scheme(model, model.design.tests[0], SETTINGS)) is None
