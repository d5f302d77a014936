"""Tiles put together are what one piece would be."""

import dataclasses

import numpy as np
import pytest

from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate, TestEstimate
from ibma_app.core.methods import Estimator
from ibma_app.stream import memory_plan
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.grid_and_mask import choose_grid
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.prepare import Plan
from ibma_app.stream.stack import stack_maps
from ibma_app.stream.workers.resources import Resources

SHAPE = (9, 8, 7)


def mean_fit(block, design, scale="1"):
    n = block.covered.sum(axis=0)
    mean = float(scale) * block.effect.sum(axis=0) / np.maximum(n, 1)
    test = TestEstimate(z=mean * 2, estimable=n > 1, effect=mean, statistic_name="t")
    return Estimate(tests={"intercept": test}, n=n.astype(np.int16), tau2=mean**2)


MEAN = Estimator("mean", "the mean", ("effect",), mean_fit, ())


@pytest.fixture
def design():
    return Design(np.ones((4, 1)), ("intercept",), ())


@pytest.fixture
def stack(observe, rng):
    volumes = rng.normal(size=(4, *SHAPE))
    volumes[2, :3] = 0
    rows = [observe(f"{k}", {"effect": volume}) for k, volume in enumerate(volumes)]
    with stack_maps(rows, Plan(choose_grid(rows)[0], ("effect",), "subject", min_coverage=0.5)) as opened:
        yield opened


@pytest.mark.parametrize("threads", [1, 4])
def test_tiles_are_put_together(stack, design, monkeypatch, threads):
    whole = mean_fit(stack.read(0, stack.n_voxels), design, "3")
    monkeypatch.setattr(memory_plan, "BLOCK", 32)
    monkeypatch.setattr(memory_plan, "SMALLEST_BLOCK", 32)
    counts = []
    found = estimate_maps(stack, Model(MEAN, design, {"scale": "3"}), Resources(threads), counts.append)
    assert sum(counts) == stack.n_voxels
    assert len(counts) == -(-stack.n_voxels // 32)
    for entry in dataclasses.fields(Estimate):
        expected, value = getattr(whole, entry.name), getattr(found, entry.name)
        if entry.name != "tests":
            assert (value is None) == (expected is None)
            if value is not None:
                np.testing.assert_array_equal(value, expected)
                assert value.dtype == expected.dtype
    test, expected = found.tests["intercept"], whole.tests["intercept"]
    np.testing.assert_array_equal(test.z, expected.z)
    np.testing.assert_array_equal(test.estimable, expected.estimable)
    assert (test.statistic_name, test.variance) == ("t", None)


def test_a_failing_fit_ends_the_run(stack, design, monkeypatch):
    monkeypatch.setattr(memory_plan, "BLOCK", 32)
    calls = []

    def fit(block, design):
        calls.append(1)
        if len(calls) > 3:
            raise FloatingPointError("no")
        return mean_fit(block, design)

    with pytest.raises(FloatingPointError):
        estimate_maps(stack, Model(dataclasses.replace(MEAN, fit=fit), design), Resources(threads=2))


def test_a_design_of_other_length_is_a_mistake(stack):
    with pytest.raises(ValueError, match="rows"):
        estimate_maps(stack, Model(MEAN, Design(np.ones((3, 1)), ("intercept",), ())))


def test_tiles_depend_on_the_number_of_maps_alone():
    assert block_size(2) == block_size(500) == 8192
    assert block_size(3000) == 1024
    assert block_size(10**6) == 256
