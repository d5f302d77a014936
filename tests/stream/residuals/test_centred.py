"""Centred maps: no effect is left, and errors are of the jackknife's size, where maps are missing too."""

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stats.partition import partition_design
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.residuals.centred import Centring


def test_residuals_are_those_of_the_jackknife(stack_of):
    rng = np.random.default_rng(4)
    y = rng.normal(2.0, 1.0, (6, 3)).astype(np.float32).astype(float)
    y[4, 2] = np.nan
    mean = np.nanmean(y, axis=0)
    stack = stack_of(np.ones((3, 1, 1)), effect=y).centred(Centring(np.ones(6), mean, np.full((6, 1), 6**-0.5)))
    without = np.array([[np.nanmean(np.delete(y[:, v], row)) for v in range(3)] for row in range(6)])
    expected = np.nan_to_num(y - without)  # of each map about the mean of the others: HC3
    np.testing.assert_allclose(stack.read(0, 3).effect, expected, atol=1e-12)
    np.testing.assert_allclose(stack.read(1, 3).effect, expected[:, 1:], atol=1e-12)


@pytest.mark.parametrize("estimator", ["ols", "reml"])
def test_errors_do_not_depend_on_effects(stack_of, estimator):
    rng, mask = np.random.default_rng(5), np.ones((6, 5, 4))
    noise, variance = rng.normal(size=(12, 120)), rng.uniform(0.3, 1.0, (12, 120))
    matrix = np.column_stack([np.ones(12), np.repeat([0.0, 1.0], 6)])
    test = Test("d", np.array([[0.0, 1.0]]))
    model = Model(find_estimator(estimator), Design(matrix, ("a", "b"), (test,)))
    regressor, score = partition_design(matrix, test.weights).effective[:, 0], find_inference("max-stat").score
    assert score is not None
    maxima = []
    for effect in (0.0, 64.0):  # a power of two: single precision keeps less of the noise, nothing else
        values = np.round(noise * 1024) / 1024 + effect * matrix[:, 1:]
        stack = stack_of(mask, effect=values, variance=variance)
        fitted = estimate_maps(stack, model).tests["d"].effect
        centring = Centring(regressor, fitted, np.linalg.qr(matrix)[0])
        null = score_resamples(stack.centred(centring), model, test, {"m": score}, InferenceSettings(permutations=60))
        maxima.append(null.maxima["m"])
        again = estimate_maps(stack.centred(centring), model).tests["d"]
        assert np.abs(again.effect).max() < (1e-9 if estimator == "ols" else 0.2)
    np.testing.assert_allclose(maxima[0], maxima[1], rtol=1e-4, atol=1e-4)
