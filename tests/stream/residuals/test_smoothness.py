"""Smoothness of a stack's residuals: slabs put together are what the whole would be."""

import numpy as np
import pytest
from scipy import ndimage

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.estimate import Estimate
from ibma_app.estimators import ESTIMATORS, find_estimator
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.grid_and_mask import choose_grid
from ibma_app.stream.prepare import Plan
from ibma_app.stream.residuals import smoothness
from ibma_app.stream.residuals.smoothness import estimate_smoothness
from ibma_app.stream.stack import stack_maps
from ibma_app.stream.workers.resources import Resources

SHAPE = (12, 11, 10)
K = 9


def design_of(n):
    """Intercept and a trend."""
    matrix = np.column_stack([np.ones(n), np.linspace(-1, 1, n)])
    return Design(matrix, ("intercept", "trend"), (Test("intercept", np.array([[1.0, 0.0]])),))


@pytest.fixture
def volumes(rng):
    """Smooth effects, and variances that differ."""
    noise = [ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.0) for _ in range(K)]
    effect = 5 * np.array(noise) + 1.0
    return {"effect": effect, "variance": 0.2 * np.exp(0.1 * rng.standard_normal(effect.shape)), "z": effect}


@pytest.fixture
def open_stack(observe, volumes, tmp_path):
    """Stack some kinds of the volumes, zeroed where ``hide`` says so; an ellipsoid is covered."""
    centre = (np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2) / (np.array(SHAPE) * 0.45)
    ball = ((centre**2).sum(-1) < 1).T

    def open_(kinds, hide=None):
        shown = np.broadcast_to(ball, (K, *SHAPE)) if hide is None else ball & ~hide
        rows = [
            observe(f"{k}", {kind: np.where(shown[k], volumes[kind][k], 0).astype(np.float32) for kind in kinds})
            for k in range(K)
        ]
        return stack_maps(rows, Plan(choose_grid(rows)[0], tuple(kinds), "subject", min_coverage=0.5))

    return open_


def expected_width(stack, smoothness_of, weights=None):
    """SPM's rule on residuals by numpy's least squares (complete coverage)."""
    block = stack.read(0, stack.n_voxels)
    values = block.z if block.effect is None else block.effect
    x = design_of(K).matrix
    roots = np.ones(values.shape) if weights is None else np.sqrt(weights)
    u = np.empty_like(values)
    for voxel in range(values.shape[1]):
        wx, wy = roots[:, [voxel]] * x, roots[:, voxel] * values[:, voxel]
        u[:, voxel] = wy - wx @ np.linalg.lstsq(wx, wy, rcond=None)[0]
    return smoothness_of(u / np.sqrt((u**2).sum(axis=0)), stack.grid.mask)


@pytest.mark.parametrize("name", ["ols", "stouffer-rfx", "fixed-effects", "reml"])
def test_equals_residuals_by_least_squares(open_stack, smoothness_of, name):
    estimator = find_estimator(name)
    with open_stack(estimator.needs) as stack:
        model = Model(estimator, design_of(K))
        estimate = estimate_maps(stack, model)
        found = estimate_smoothness(stack, model, estimate)
        weights = None
        if "variance" in estimator.needs:
            tau2 = 0.0 if estimate.tau2 is None else estimate.tau2
            weights = 1 / (stack.read(0, stack.n_voxels).variance + tau2)
        expected = expected_width(stack, smoothness_of, weights)
    # exact but for rounding of two least-squares solvers
    np.testing.assert_allclose(found.fwhm, expected.fwhm, rtol=1e-9)
    assert found.n_voxels == expected.n_voxels
    assert found.n_maps == K
    assert 2 < min(found.fwhm) <= max(found.fwhm) < 5


@pytest.mark.parametrize("slab", [1, 150, 10**6])
@pytest.mark.parametrize("threads", [1, 3])
def test_slabs_and_threads_change_nothing(open_stack, rng, monkeypatch, slab, threads):
    model = Model(find_estimator("ols"), design_of(K))
    hide = np.zeros((K, *SHAPE), dtype=bool)
    hide[2, :5] = hide[5, :, 6:] = True
    with open_stack(["effect"], hide) as stack:
        estimate = Estimate({}, np.zeros(stack.n_voxels, dtype=np.int16))
        whole = estimate_smoothness(stack, model, estimate)
        monkeypatch.setattr(smoothness, "SLAB", slab)
        found = estimate_smoothness(stack, model, estimate, Resources(threads=threads))
        assert found == whole
        assert 0 < found.n_voxels < stack.n_voxels / 1.3


def test_some_maps_speak_for_many(open_stack, monkeypatch):
    model = Model(find_estimator("ols"), design_of(K))
    with open_stack(["effect"]) as stack:
        estimate = Estimate({}, np.zeros(stack.n_voxels, dtype=np.int16))
        every = estimate_smoothness(stack, model, estimate)
        monkeypatch.setattr(smoothness, "MOST_MAPS", 6)
        some = estimate_smoothness(stack, model, estimate)
    assert some.n_maps == 6
    # 6 of 9 residual maps: sampling error of a width is a few percent
    np.testing.assert_allclose(some.fwhm, every.fwhm, rtol=0.15)
    assert some.fwhm != every.fwhm


def test_estimators_without_residuals_are_refused(open_stack):
    without = {name for name in ESTIMATORS if not find_estimator(name).has_residuals}
    assert without >= {"stouffer", "stouffer-weighted", "fisher", "tippett"}
    with open_stack(["z"]) as stack, pytest.raises(UsageError, match="stouffer fits no linear model"):
        estimate_smoothness(
            stack,
            Model(find_estimator("stouffer"), design_of(K)),
            Estimate({}, np.zeros(stack.n_voxels, dtype=np.int16)),
        )


def test_no_residual_degrees_of_freedom(open_stack):
    estimator = find_estimator("ols")
    design = Design(np.eye(K), tuple("abcdefghi"), ())
    with open_stack(["effect"]) as stack, pytest.raises(DataError, match=r"cannot be estimated.*larger mask"):
        estimate_smoothness(stack, Model(estimator, design), Estimate({}, np.zeros(stack.n_voxels, dtype=np.int16)))
