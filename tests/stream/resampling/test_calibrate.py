"""Calibration of mixed models' p: seeded, and right for data that it has not seen."""

from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator
from ibma_app.stats.calibration import calibrate
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream import memory_plan
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling.calibrate import calibrate_tests
from ibma_app.stream.workers.resources import Resources

MASK = np.ones((20, 20, 20), dtype=bool)
K = 12


def model_of(test="knha", **more):
    design = Design(np.ones((K, 1)), ("Intercept",), (Test("mean", np.ones((1, 1))),))
    return Model(find_estimator("reml"), design, {"test": test, "tau2_ci": "no", "tau2_by": "", **more})


def null_maps(rng, n_voxels, dof=None):
    """Effects of mean 0, tau2 of the size of the variances, and these as maps of so many dof estimate them."""
    true = rng.uniform(0.3, 3.0, (K, n_voxels))
    effect = rng.normal(size=true.shape) * np.sqrt(true + 0.8)
    return effect, true if dof is None else true * rng.chisquare(dof, true.shape) / dof


@pytest.fixture
def stack(stack_of, rng):
    effect, variance = null_maps(rng, MASK.sum())
    effect[3, :900] = np.nan
    variance[3, :900] = np.nan
    return stack_of(MASK, effect=effect, variance=variance)


def run(stack, model, seed=3, resources=None):
    return calibrate_tests(stack, model, estimate_maps(stack, model), seed, resources or Resources(1))["mean"]


def test_the_same_numbers_from_any_number_of_threads_and_others_from_another_seed(stack, monkeypatch):
    one = run(stack, model_of())
    assert one == run(stack, model_of(), resources=Resources(2))
    assert one != run(stack, model_of(), seed=4)
    assert one.refits == 63  # 500,000 / 8,000 voxels
    assert one.n_values == 63 * 8000


def test_a_large_mask_is_refitted_25_times(stack, monkeypatch):
    monkeypatch.setattr("ibma_app.stream.resampling.calibrate.VALUES", 1000)
    assert run(stack, model_of()).refits == 25


def test_p_of_other_null_data_are_right_after_it(stack, rng):
    """p of Wald's z test come up 8 times too often at .001 before (20,000 p: 1 +- .45 after, three standard errors)."""
    model = model_of("z")
    found = run(stack, model)
    assert found.slope > 0.2
    effect, variance = null_maps(rng, 20_000)
    block = VoxelBlock(covered=np.ones(effect.shape, dtype=bool), effect=effect, variance=variance)
    log10_p = z_to_log10p(model.fit(block).tests["mean"].z, "two-sided")
    right = calibrate(log10_p, found.intercept, found.slope)
    assert np.mean(log10_p >= 3.0) > 3e-3
    assert np.mean(right >= 3.0) == pytest.approx(1e-3, abs=0.6e-3)
    assert np.mean(right >= 2.0) == pytest.approx(1e-2, abs=0.25e-2)


def test_variances_of_few_dof_are_drawn_anew(stack_of, rng):
    """With 4 dof a map's weight follows its own error: small p come up more often than with known variances."""
    effect, variance = null_maps(rng, MASK.sum(), dof=4)
    stack = stack_of(MASK, effect=effect, variance=variance)
    known = run(stack, model_of("t"))
    estimated = run(replace(stack, dof=np.full((K, 1), 4.0)), model_of("t"))
    unknown = run(replace(stack, dof=np.full((K, 1), np.inf)), model_of("t"))
    assert unknown == known
    assert estimated.slope * 3 + estimated.intercept > known.slope * 3 + known.intercept + 0.1


def test_each_test_of_a_design_has_its_own(stack_of, rng):
    effect, variance = null_maps(rng, MASK.sum())
    stack = stack_of(MASK, effect=effect, variance=variance)
    group = np.repeat([0.0, 1.0], K // 2)
    tests = (Test("mean", np.array([[1.0, 0.0]])), Test("differ", np.array([[0.0, 1.0]]), "positive"))
    design = Design(np.column_stack([np.ones(K), group]), ("Intercept", "group"), tests)
    model = replace(model_of(), design=design)
    found = calibrate_tests(stack, model, estimate_maps(stack, model), 1)
    assert set(found) == {"mean", "differ"}
    assert found["mean"].n_values == found["differ"].n_values
    assert found["mean"].slope != found["differ"].slope


def test_tiles_and_parts_of_another_size_draw_other_numbers_of_the_same_kind(stack, monkeypatch):
    usual = run(stack, model_of())
    monkeypatch.setattr(memory_plan, "BLOCK", 1024)
    monkeypatch.setattr("ibma_app.stream.resampling.calibrate.AT_ONCE", 300 * K)
    other = run(stack, model_of())
    assert other.n_values == usual.n_values
    assert other.slope == pytest.approx(usual.slope, abs=0.05)
