"""What residuals say of groups and symmetry, against numbers that are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.residuals.checks import compare_groups, residual_skewness, written

MASK = np.ones((20, 16, 12), dtype=bool)
V = MASK.size


def two_groups(sizes, labels=("p", "q")):
    group = np.repeat([0.0, 1.0], sizes)
    names = tuple(np.repeat(np.array(labels, dtype=object), sizes))
    matrix = np.column_stack([np.ones(group.size), group])
    return Design(matrix, ("intercept", "q"), (Test("q", np.array([[0.0, 1.0]])),), groupings={"g": names})


@pytest.mark.parametrize(("sizes", "sds"), [((4, 16), (3.0, 1.0)), ((10, 30), (1.0, 1.0)), ((3, 20), (1.0, 1.0))])
def test_residual_variances_of_groups(stack_of, sizes, sds):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(sum(sizes), V)) * np.repeat(sds, sizes)[:, None] * np.exp(rng.normal(size=V))
    (found,) = compare_groups(stack_of(MASK, effect=y), Model(find_estimator("ols"), two_groups(sizes)))
    assert (found.column, found.of, found.sizes) == ("g", "residuals", {"p": sizes[0], "q": sizes[1]})
    # V logarithms of variances on few degrees of freedom: 3 standard errors are below 6 %
    assert found.values["p"] / found.values["q"] == pytest.approx((sds[0] / sds[1]) ** 2, rel=0.06)
    assert found.ratio == pytest.approx(max(sds) ** 2, rel=0.06)
    assert written(found).startswith(f"g: p {found.values['p']:.3g} ({sizes[0]} maps), q ")


def test_tau2_of_groups(stack_of):
    rng = np.random.default_rng(1)
    sizes = (10, 20)
    v = rng.uniform(0.5, 1.5, (30, V))
    y = rng.normal(size=v.shape) * np.sqrt(v + np.repeat([4.0, 1.0], sizes)[:, None])
    (found,) = compare_groups(stack_of(MASK, effect=y, variance=v), Model(find_estimator("reml"), two_groups(sizes)))
    assert found.of == "tau2"
    assert found.values == pytest.approx({"p": 4.0, "q": 1.0}, rel=0.1)
    typical = 1.0 / np.log(3.0)  # harmonic mean of a variance between 0.5 and 1.5
    assert found.ratio == pytest.approx((4.0 + typical) / (1.0 + typical), rel=0.05)


def test_models_that_let_groups_differ_are_not_asked(stack_of):
    y = np.random.default_rng(2).normal(size=(12, V))
    stack, design = stack_of(MASK, effect=y, variance=np.ones_like(y)), two_groups((4, 8))
    clustered = replace(design, clusters=np.repeat(np.arange(6), 2))
    assert compare_groups(stack, Model(find_estimator("ols"), clustered, {"errors": "sandwich"})) == ()
    assert compare_groups(stack, Model(find_estimator("reml"), design, {"tau2_by": "g"})) == ()
    assert compare_groups(stack, Model(find_estimator("fixed-effects"), design)) == ()
    assert compare_groups(stack, Model(find_estimator("ols"), two_groups((2, 10)))) == ()  # one degree of freedom


def test_partial_coverage(stack_of):
    y = np.random.default_rng(7).normal(size=(12, V)) * np.repeat([2.0, 1.0], (4, 8))[:, None]
    y[3, : V // 2] = np.nan
    (found,) = compare_groups(stack_of(MASK, effect=y), Model(find_estimator("ols"), two_groups((4, 8))))
    assert found.values == pytest.approx({"p": 4.0, "q": 1.0}, rel=0.06)
    y[5, V // 2 :] = np.nan  # now no voxel has all maps
    assert compare_groups(stack_of(MASK, effect=y), Model(find_estimator("ols"), two_groups((4, 8)))) == ()


def one_mean(n_maps):
    return Design(np.ones((n_maps, 1)), ("intercept",), (Test("mean", np.ones((1, 1))),))


def test_skewness_of_least_squares_is_that_of_the_values(stack_of):
    y = np.random.default_rng(3).gamma(2.0, size=(15, V)).astype(np.float32).astype(float)
    y[2, :50] = np.nan
    y[:13, 60] = np.nan
    stack, model = stack_of(MASK, effect=y), Model(find_estimator("ols"), one_mean(15))
    found = residual_skewness(stack, model, estimate_maps(stack, model))
    whole = np.r_[0:60, 61:V]
    np.testing.assert_allclose(found[whole], stats.skew(y[:, whole], axis=0, nan_policy="omit"), rtol=1e-6, atol=1e-9)
    assert found[60] == 0.0


def test_skewness_of_mixed_models_is_of_residuals_over_their_deviation(stack_of):
    rng = np.random.default_rng(4)
    v = rng.uniform(0.1, 4.0, (12, V)).astype(np.float32).astype(float)
    y = (rng.normal(size=v.shape) * np.sqrt(v + 1.0)).astype(np.float32).astype(float)
    stack, model = stack_of(MASK, effect=y, variance=v), Model(find_estimator("reml"), one_mean(12))
    estimate = estimate_maps(stack, model)
    found = residual_skewness(stack, model, estimate)
    r = (y - estimate.tests["mean"].effect) / np.sqrt(v + estimate.tau2)
    np.testing.assert_allclose(
        found, np.sqrt(12) * (r**3).sum(axis=0) / (r**2).sum(axis=0) ** 1.5, rtol=1e-6, atol=1e-9
    )
    assert abs(found.mean()) < 0.03
