"""Standardised effects: what has one, and that intervals hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator
from ibma_app.stats.noncentral import t_limit
from ibma_app.stream.effect_sizes import find_effect_sizes, mean_weights
from ibma_app.stream.estimate import Model, estimate_maps

R = json.loads((Path(__file__).parents[1] / "reference" / "effect_sizes.json").read_text())
ONE, TWO = np.array(R["one"]), np.array(R["two"])
GROUP = np.repeat([0.0, 1.0], [ONE.size, TWO.size])


def design(matrix: np.ndarray, *weights: list[float] | list[list[float]], **more) -> Design:
    tests = tuple(Test(f"t{index}", np.atleast_2d(row)) for index, row in enumerate(weights))
    return Design(np.asarray(matrix, float), tuple(f"c{i}" for i in range(np.shape(matrix)[1])), tests, **more)


def sizes(stack_of, values: np.ndarray, design: Design, **settings: str) -> dict:
    stack = stack_of(np.ones((values.shape[1], 1, 1)), effect=values)
    model = Model(find_estimator("ols"), design, settings)
    return find_effect_sizes(stack, model, estimate_maps(stack, model))


def test_one_sample_and_two_groups_equal_rs(stack_of):
    one = sizes(stack_of, np.tile(ONE[:, None], (1, 3)), design(np.ones((10, 1)), [1.0]))["t0"]
    assert one.kind == "g"
    np.testing.assert_allclose(one.value, R["one_sample"]["g"], rtol=1e-6)  # float32 maps
    np.testing.assert_allclose([one.lower[0], one.upper[0]], R["one_sample"]["limits"], rtol=2e-6)
    matrix = np.column_stack([np.ones(17), GROUP])
    found = sizes(stack_of, np.concatenate([ONE, TWO])[:, None], design(matrix, [0, -1], [1, 0], [[0, 1], [1, 0]]))
    two = found["t0"]
    assert two.value[0] == pytest.approx(R["two_samples"]["g"], rel=1e-6)
    np.testing.assert_allclose([two.lower[0], two.upper[0]], R["two_samples"]["limits"], rtol=2e-5)
    assert found["t2"].kind == "eta2"
    assert found["t2"].lower[0] <= found["t2"].value[0] <= found["t2"].upper[0]


def test_groups_count_the_maps_that_cover(stack_of):
    values = np.tile(np.concatenate([ONE, TWO])[:, None], (1, 2))
    values[[1, 12, 13], 1] = np.nan
    matrix = np.column_stack([np.ones(17), GROUP])
    found = sizes(stack_of, values, design(matrix, [0, -1]))["t0"]
    a, b = np.delete(ONE, 1), np.delete(TWO, [2, 3])
    t = stats.ttest_ind(a, b).statistic
    by = np.sqrt(1 / a.size + 1 / b.size)
    assert found.lower[1] == pytest.approx(by * float(t_limit(t, a.size + b.size - 2, 1.959963984540054)), rel=1e-5)


def test_what_has_no_g():
    intercept, age = np.ones(17), np.arange(17.0)
    groups = np.column_stack([1 - GROUP, GROUP])
    assert mean_weights(design(groups, [1, -1]), Test("d", np.array([[1.0, -1.0]]))).tolist() == [1.0] * 10 + [-1.0] * 7
    assert mean_weights(design(groups), Test("a", np.array([[1.0, 0.0]]))).tolist() == [1.0] * 10 + [0.0] * 7
    assert mean_weights(design(groups), Test("m", np.array([[0.5, 0.5]]))) is not None  # the mean of both
    assert mean_weights(design(groups), Test("s", np.array([[1.0, 1.0]]))) is None  # a sum
    assert mean_weights(design(groups), Test("h", np.array([[0.5, -0.5]]))) is None  # half a difference
    aged = design(np.column_stack([intercept, age]))
    assert mean_weights(aged, Test("age", np.array([[0.0, 1.0]]))) is None
    assert mean_weights(aged, Test("mean", np.array([[1.0, 0.0]]))) is None  # of people of age 0
    additive = np.column_stack([intercept, GROUP, np.arange(17) % 2])
    assert mean_weights(design(additive), Test("g", np.array([[0.0, 1.0, 0.0]]))) is None
    assert mean_weights(design(groups, repeated=True), Test("d", np.array([[1.0, -1.0]]))) is None


def test_errors_of_unequal_groups_have_no_g(stack_of):
    matrix = np.column_stack([np.ones(17), GROUP])
    values = np.concatenate([ONE, TWO])[:, None]
    assert sizes(stack_of, values, design(matrix, [0, 1]), errors="sandwich") == {}


def test_intervals_hold_the_population(stack_of):
    rng, delta, voxels = np.random.default_rng(3), 0.8, 4000
    found = sizes(stack_of, rng.normal(delta, 1.0, (8, voxels)), design(np.ones((8, 1)), [1.0]))["t0"]
    held = np.mean((found.lower < delta) & (delta < found.upper))
    assert abs(held - 0.95) < 4 * np.sqrt(0.05 * 0.95 / voxels)
    assert found.value.mean() == pytest.approx(delta, abs=0.03)  # unbiased
