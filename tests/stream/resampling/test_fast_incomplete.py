"""The faster path of least squares at any coverage against the general one, which fits every voxel each time."""

import pickle

import numpy as np
import pytest

from ibma_app.core.design import TAILS, Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream import memory_plan
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling import fast_incomplete, resample
from ibma_app.stream.resampling.fast_incomplete import FastIncomplete
from ibma_app.stream.workers.resources import Resources

ALL = ("max-stat", "cluster-size", "cluster-mass", "tfce")
SETTINGS = InferenceSettings(cluster_p=0.02, permutations=40, seed=4)
MASK = np.ones((9, 8, 7), dtype=bool)
K = 12
AGE = np.linspace(-1.0, 1.3, K) ** 3
GROUP = np.repeat([0.0, 1.0, 2.0], 4)


def designs(tail="two-sided"):
    """One of each kind: a slope, a mean beside it, an F test, the F of a mean, and one through the origin."""
    one = np.ones(K)
    groups = np.column_stack([one, GROUP == 1, GROUP == 2, AGE])
    return {
        "slope": Design(np.column_stack([one, AGE]), ("i", "x"), (Test("x", np.array([[0, 1.0]]), tail),)),
        "mean": Design(np.column_stack([one, AGE]), ("i", "x"), (Test("m", np.array([[1.0, 0]]), tail),)),
        "turned": Design(groups, ("i", "a", "b", "x"), (Test("t", np.array([[0, -1.0, 0.5, 0]]), tail),)),
        "F": Design(groups, ("i", "a", "b", "x"), (Test("f", np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0]])),)),
        "F of a mean": Design(one[:, None], ("i",), (Test("f", np.ones((1, 1)), is_f=True),)),
        "origin": Design((AGE + 0.4)[:, None], ("x",), (Test("x", np.ones((1, 1)), tail),)),
    }


@pytest.fixture
def stacked(stack_of, rng):
    """Return ``stacked(name) -> Stack``: a fifth of the values is not there, at some voxels a whole group."""

    def make(name):
        values = rng.normal(0.0, 1.3, (K, MASK.sum())) + 0.4
        values[:, :40] += 1.2 * AGE[:, None]
        values[rng.uniform(size=values.shape) < 0.2] = np.nan
        values[GROUP == 2, 100:110] = np.nan
        values[:5, 300:304] = np.nan
        values[:, 200] = 2.0
        return stack_of(MASK, **{"z" if "z" in find_estimator(name).needs else "effect": values})

    return make


@pytest.fixture
def score(monkeypatch):
    """Return ``score(stack, model, *, fast=True, settings=SETTINGS, threads=1) -> Null``."""

    def call(stack, model, *, fast=True, settings=SETTINGS, threads=1):
        scores = {name: find_inference(name).score for name in ALL}
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(resample, "takes_products", lambda *_: False)
            return resample.score_resamples(stack, model, model.design.tests[0], scores, settings, Resources(threads))

    return call


@pytest.fixture
def taken(monkeypatch):
    """The resamplers that this path made."""
    made = []

    def make(*arguments):
        made.append(FastIncomplete(*arguments))
        return made[-1]

    monkeypatch.setattr(resample, "FastIncomplete", make)
    return made


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", list(designs()))
@pytest.mark.parametrize("name", ["ols", "stouffer-rfx"])
def test_scores_are_those_of_fits(name, kind, tail, stacked, score, taken):
    """Sums of both are in double precision; z between the nodes of its table is known to 1e-8."""
    stack, model = stacked(name), Model(find_estimator(name), designs(tail)[kind])
    fast, slow = score(stack, model), score(stack, model, fast=False)
    assert len(taken) == 1
    for score_name, maxima in slow.maxima.items():
        np.testing.assert_allclose(fast.maxima[score_name], maxima, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(fast.observed[score_name], slow.observed[score_name], rtol=1e-6, atol=1e-6)


def test_the_same_bytes_from_threads_and_another_process(stacked, score, monkeypatch, taken):
    stack, model = stacked("ols"), Model(find_estimator("ols"), designs()["turned"])
    monkeypatch.setattr(memory_plan, "BLOCK", 128)
    monkeypatch.setattr(memory_plan, "SMALLEST_BLOCK", 64)
    one = score(stack, model)
    two = score(stack, model, threads=2)
    for name in ALL:
        assert one.maxima[name].tobytes() == two.maxima[name].tobytes()
    there = pickle.loads(pickle.dumps(taken[0]))
    assert there.score(range(1, 9)).tobytes() == taken[0].score(range(1, 9)).tobytes()


def test_wide_designs_and_clusters_are_fitted(stacked, score, taken, monkeypatch):
    monkeypatch.setattr(fast_incomplete, "MOST_COLUMNS", 3)
    score(stacked("ols"), Model(find_estimator("ols"), designs()["F"]))
    monkeypatch.setattr(fast_incomplete, "MOST_COLUMNS", 12)
    score(stacked("ols"), Model(find_estimator("ols"), designs()["slope"], {"errors": "sandwich"}))
    assert not taken
