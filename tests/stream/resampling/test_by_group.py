"""Resampling with a tau2 for each group: signs of residuals, the model fitted again, maps as they are the same way."""

from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling.resample import count_relabellings, score_resamples
from ibma_app.stream.residuals.smoothness import estimate_smoothness
from ibma_app.stream.workers.resources import Resources

MASK = np.ones((5, 4, 3), dtype=bool)
V = MASK.size
SIZES = (3, 6)


def maps(seed=0):
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.3, 1.0, (sum(SIZES), V))
    y = rng.normal(size=v.shape) * np.sqrt(v + np.repeat([9.0, 1.0], SIZES)[:, None])
    return y.astype(np.float32).astype(float), v.astype(np.float32).astype(float)


def two_groups(weights=(0.0, 1.0), tail="two-sided", **more):
    group = np.repeat([0.0, 1.0], SIZES)
    matrix = np.column_stack([np.ones(group.size), group])
    labels = tuple(np.where(group == 0, "p", "q").tolist())
    return Design(
        matrix, ("intercept", "q"), (Test("test", np.array([weights]), tail),), groupings={"g": labels}, **more
    )


def model_of(design, method="reml"):
    return Model(find_estimator(method), design, {"tau2_by": "g"})


def run(stack, model, names=("max-stat",), permutations=1000, threads=1):
    scores = {name: find_inference(name).score for name in names}
    settings = InferenceSettings(permutations=permutations, seed=3, cluster_p=0.05)
    return score_resamples(stack, model, model.design.tests[0], scores, settings, Resources(threads=threads))


@pytest.mark.parametrize("method", ["reml", "dl"])
@pytest.mark.parametrize("tail", ["two-sided", "positive"])
def test_every_flip_of_the_residuals(stack_of, method, tail):
    y, v = maps()
    design = two_groups(tail=tail)
    stack, model = stack_of(MASK, effect=y, variance=v), model_of(design, method)
    null = run(stack, model)
    assert (null.relabelling.name, null.exhaustive, null.resamples) == ("sign flips of residuals", True, 2**9)
    left = y - y.mean(axis=0)  # of what the null hypothesis leaves: one mean
    peaks = []
    for number in range(2**9):
        signs = 1.0 - 2.0 * ((number >> np.arange(9)) & 1)
        block = VoxelBlock(np.ones(y.shape, dtype=bool), left * signs[:, None], v)
        z = model.fit(block).tests["test"].z
        peaks.append(np.abs(z).max() if tail == "two-sided" else z.max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=1e-9)


def test_the_maps_as_they_are_score_what_the_estimate_has(stack_of):
    y, v = maps(1)
    y[0, :4] = np.nan
    design = two_groups()
    stack, model = stack_of(MASK, effect=y, variance=v), model_of(design)
    null, estimate = run(stack, model), estimate_maps(stack, model)
    np.testing.assert_allclose(null.observed["max-stat"], np.abs(estimate.tests["test"].z), rtol=1e-7)
    assert null.maxima["max-stat"][0] == null.observed["max-stat"].max()


def test_covariates_and_blocks(stack_of):
    y, v = maps(2)
    design = two_groups()
    matrix = np.column_stack([design.matrix, np.random.default_rng(0).normal(size=9)])
    test = Test("test", np.array([[0.0, 0.0, 1.0]]))
    within = replace(design, matrix=matrix, columns=("intercept", "q", "age"), tests=(test,))
    stack = stack_of(MASK, effect=y, variance=v)
    assert run(stack, model_of(within)).relabelling.name == "sign flips of residuals"
    blocks = replace(two_groups(), exchangeability=np.repeat(np.arange(3), 3), whole_blocks=True)
    whole = run(stack, model_of(blocks))
    assert (whole.relabelling.name, whole.resamples) == ("sign flips of residuals of whole blocks", 8)


def test_one_mean_and_threads(stack_of):
    y, v = maps(3)
    labels = two_groups().groupings
    mean = Design(np.ones((9, 1)), ("intercept",), (Test("test", np.ones((1, 1))),), groupings=labels)
    stack, model = stack_of(MASK, effect=y, variance=v), model_of(mean)
    names = ("max-stat", "cluster-mass", "tfce")
    one, other = run(stack, model, names), run(stack, model, names, threads=2)
    assert one.relabelling.name == "sign flips"
    assert count_relabellings(model, mean.tests[0], InferenceSettings()) == 2**8  # mirror images are not computed
    for name in names:
        np.testing.assert_array_equal(one.maxima[name], other.maxima[name])


def test_smoothness_is_of_residuals_over_their_own_deviation(stack_of):
    y, v = maps(4)
    stack, model = stack_of(MASK, effect=y, variance=v), model_of(two_groups())
    estimate = estimate_maps(stack, model)
    found = estimate_smoothness(stack, model, estimate)
    total = v + np.stack([estimate.tau2_groups[label] for label in model.variance_groups])
    known = stack_of(MASK, effect=y, variance=total)
    plain = Model(find_estimator("reml"), model.design)
    none = replace(estimate, tau2_groups=None, tau2=np.zeros(V))
    np.testing.assert_allclose(found.fwhm, estimate_smoothness(known, plain, none).fwhm, rtol=1e-5)
