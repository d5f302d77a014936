"""Random intercepts at every voxel: against lmerTest's numbers, plain algebra, textbooks and boundaries."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from ibma_app.stats.basis import frame_design
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.intercept_fit import count_within_and_between, fit_random_intercept

CASES = json.loads((Path(__file__).parents[1] / "reference" / "lmertest.json").read_text())["cases"]


def fit(y, matrix, units, tests, covered=None, *, corrected=False):
    y = np.ascontiguousarray(np.asarray(y, dtype=float).reshape(len(matrix), -1))
    covered = np.ones(y.shape, dtype=bool) if covered is None else covered
    rows = [(np.atleast_2d(np.asarray(one, dtype=float)), np.ndim(one) == 2) for one in tests]
    frame, units = frame_design(matrix, rows), np.asarray(units, dtype=np.int64)
    return fit_random_intercept(y, covered, frame, units, corrected=corrected)


def whole_likelihood(ratio, y, matrix, units):
    """-2 log L of REML, sigma2 profiled out, of the whole matrices."""
    v = np.eye(len(y)) + ratio * (units[:, None] == units[None])
    w = np.linalg.inv(v)
    inner = matrix.T @ w @ matrix
    beta = np.linalg.solve(inner, matrix.T @ w @ y)
    q = (y - matrix @ beta) @ w @ (y - matrix @ beta)
    left = len(y) - matrix.shape[1]
    return left * np.log(q) + np.linalg.slogdet(v)[1] + np.linalg.slogdet(inner)[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_lmertest(case):
    matrix, units = np.array(case["X"], dtype=float), np.array(case["unit"]) - 1
    tests = [one["rows"] if "F" in one else one["rows"][0] for one in case["tests"]]
    found = fit(case["y"], matrix, units, tests)
    # lme4's criterion is flat at its minimum: its ratio has half of the digits of a double
    np.testing.assert_allclose(found.tau2 / found.sigma2, case["ratio"], rtol=1e-7)
    np.testing.assert_allclose(found.sigma2, case["sigma2"], rtol=1e-7)
    for c, one in enumerate(case["tests"]):
        assert found.tested.estimable[c, 0]
        values = found.tested.values[c, :, 0]
        np.testing.assert_allclose(values[STATISTICS], one.get("t", one.get("F")), rtol=1e-6)
        if "t" in one:
            np.testing.assert_allclose(values[[EFFECTS, VARIANCES]], [one["effect"], one["se"] ** 2], rtol=1e-6)
        np.testing.assert_allclose(found.dof[c, 0], one["dof"], rtol=1e-5)  # lmerTest's derivatives are numerical


def draw(seed, n_units=15, visits=4, keep=0.7, tau=1.0, voxels=40):
    rng = np.random.default_rng(seed)
    units, visit = np.repeat(np.arange(n_units), visits), np.tile(np.arange(visits), n_units)
    kept = rng.random(units.size) < keep
    units, visit = np.unique(units[kept], return_inverse=True)[1], visit[kept]
    matrix = np.column_stack([np.ones(units.size), visit + rng.uniform(-0.3, 0.3, visit.size), units % 2])
    y = tau * rng.normal(size=(units.max() + 1, voxels))[units] + rng.normal(size=(units.size, voxels))
    return y, matrix, units


@pytest.mark.parametrize("tau", [0.0, 0.2, 1.0, 10.0])
def test_the_likelihood_is_largest_there(tau):
    y, matrix, units = draw(3, tau=tau)
    found = fit(y, matrix, units, [[0, 1, 0]])
    ratios = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 200)])
    at_zero = 0
    for voxel in range(y.shape[1]):
        values = [whole_likelihood(ratio, y[:, voxel], matrix, units) for ratio in ratios]
        best = int(np.argmin(values))
        ratio = found.tau2[voxel] / found.sigma2[voxel]
        least = whole_likelihood(ratio, y[:, voxel], matrix, units)
        assert least <= values[best] + 1e-9
        at_zero += ratio == 0.0
        if ratio == 0.0:
            assert best == 0
        else:
            low, high = ratios[max(best - 1, 0)], ratios[min(best + 1, 200)]
            golden = optimize.minimize_scalar(
                whole_likelihood, bounds=(low, high), method="bounded", args=(y[:, voxel], matrix, units),
                options={"xatol": 1e-9 * high},
            )  # fmt: skip
            np.testing.assert_allclose(ratio, golden.x, rtol=1e-5)  # a search knows a minimum to half of the digits
    assert (at_zero > 5) == (tau < 1.0)


def test_two_maxima():
    """Of two maxima of the likelihood the larger one is taken, 0 among them."""
    units = np.repeat([0, 1, 2, 3], [40, 30, 2, 1])
    matrix, rng, several = np.ones((73, 1)), np.random.default_rng(0), []
    y = 0.3 * rng.normal(size=(73, 200))
    y[70:] += np.array([[1.0], [1.0], [-1.0]]) * rng.uniform(0.3, 1.2, 200)
    found = fit(y, matrix, units, [[1.0]])
    ratios = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 100)])
    for voxel in range(200):
        values = np.array([whole_likelihood(ratio, y[:, voxel], matrix, units) for ratio in ratios])
        inside = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
        several.append(inside.sum() + (values[0] < values[1]) > 1)
        ratio = found.tau2[voxel] / found.sigma2[voxel]
        assert whole_likelihood(ratio, y[:, voxel], matrix, units) <= values.min() + 1e-9
    assert sum(several) > 3
    chosen = found.tau2[several]
    assert (chosen == 0).any()
    assert (chosen > 0).any()


def test_coverage_is_as_if_the_maps_were_not_there():
    y, matrix, units = draw(5, keep=1.0, voxels=400)
    rng = np.random.default_rng(8)
    patterns = rng.random((len(y), 300)) < 0.7
    which = rng.integers(0, 300, 400)
    covered = np.ascontiguousarray(patterns[:, which])
    tests = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [[0, 1, 0], [0, 0, 1]]]
    found = fit(np.where(covered, y, np.nan), matrix, units, tests, covered)
    for voxel in range(0, 400, 23):
        rows = covered[:, voxel]
        _, there = np.unique(units[rows], return_inverse=True)
        alone = fit(y[rows, voxel], matrix[rows], there, tests)
        for name in ("sigma2", "tau2"):
            np.testing.assert_allclose(getattr(found, name)[voxel], getattr(alone, name)[0], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(found.dof[:, voxel], alone.dof[:, 0], rtol=1e-7)
        np.testing.assert_allclose(found.tested.values[:, :, voxel], alone.tested.values[:, :, 0], rtol=1e-7)
        assert found.counts[0, voxel] == rows.sum()
    assert found.tested.estimable.all()


def test_balanced_data_are_the_textbooks():
    """Tests of complete data: of differences with the pooled error within units, and the two-sample t of means."""
    rng = np.random.default_rng(2)
    units, visit = np.repeat(np.arange(12), 3), np.tile(np.arange(3), 12)
    y = rng.normal(size=(12, 30))[units] * 2 + rng.normal(size=(36, 30))
    group = units % 2
    matrix = np.column_stack([visit == 0, visit == 1, visit == 2, group - 0.5]).astype(float)
    found = fit(y, matrix, units, [[1, -1, 0, 0], [0, 0, 0, 1]])
    cube = y.reshape(12, 3, 30)
    left = cube - cube.mean(axis=1, keepdims=True) - cube.mean(axis=0) + cube.mean(axis=(0, 1))
    within = (left**2).sum(axis=(0, 1)) / 22
    np.testing.assert_allclose(found.sigma2, within, rtol=1e-9)
    means = cube.mean(axis=1)
    np.testing.assert_allclose(
        found.tested.values[0, STATISTICS], (cube[:, 0] - cube[:, 1]).mean(axis=0) / np.sqrt(within * 2 / 12), rtol=1e-8
    )
    np.testing.assert_allclose(found.dof[0], 22, rtol=1e-7)
    one, two = means[1::2], means[::2]
    pooled = (((one - one.mean(0)) ** 2).sum(0) + ((two - two.mean(0)) ** 2).sum(0)) / 10
    t = (one.mean(0) - two.mean(0)) / np.sqrt(pooled / 3)
    np.testing.assert_allclose(found.tested.values[1, STATISTICS], t, rtol=1e-8)
    np.testing.assert_allclose(found.dof[1], 10, rtol=1e-7)


def test_nothing_varies_within_units():
    units = np.repeat(np.arange(6), 3)
    y = np.random.default_rng(1).normal(size=6)[units]
    found = fit(y, np.ones((18, 1)), units, [[1.0]])
    assert found.identical[0]
    assert not found.tested.estimable[0, 0]
    np.testing.assert_allclose(found.tested.values[0, EFFECTS, 0], y.mean(), rtol=1e-12)
    assert not found.tested.values[0, STATISTICS, 0]
    # next to nothing: the ratio is far out, and still right (the variances of a balanced one-way layout)
    noise = 1e-4 * np.random.default_rng(2).normal(size=18)
    near = fit(y + noise, np.ones((18, 1)), units, [[1.0]])
    cube = (y + noise).reshape(6, 3)
    within = ((cube - cube.mean(axis=1, keepdims=True)) ** 2).sum() / 12
    np.testing.assert_allclose(near.sigma2[0], within, rtol=1e-6)
    np.testing.assert_allclose(near.tau2[0], cube.mean(axis=1).var(ddof=1) - within / 3, rtol=1e-9)
    np.testing.assert_allclose(near.dof[0, 0], 5, rtol=1e-6)


def test_one_map_each_is_least_squares():
    y, matrix, _ = draw(4)
    units = np.arange(len(y))
    found = fit(y, matrix, units, [[0, 1, 0], [[0, 1, 0], [0, 0, 1]]])
    _, rss, *_ = np.linalg.lstsq(matrix, y, rcond=None)
    np.testing.assert_allclose(found.sigma2, rss / (len(y) - 3), rtol=1e-10)
    assert not found.tau2.any()
    assert (found.dof == len(y) - 3).all()


def test_what_cannot_be_told_apart_is_left_out():
    units = np.repeat(np.arange(5), 2)
    y = np.random.default_rng(1).normal(size=(10, 3))
    whole = np.column_stack([units == unit for unit in range(5)] + [np.tile([0, 1], 5)]).astype(float)
    assert count_within_and_between(whole, units) == (4, 0)
    assert not fit(y, whole, units, [np.eye(6)[5]]).tested.estimable.any()
    few = np.array([0, 0, 1, 2, 3, 4, 5])
    visit = np.array([0.0, 1, 0, 0, 0, 0, 0])
    matrix = np.column_stack([np.ones(7), visit])
    assert count_within_and_between(matrix, few) == (0, 5)
    assert not fit(y[:7], matrix, few, [[1, 0]]).tested.estimable.any()
    assert count_within_and_between(matrix[:, :1], few) == (1, 5)
    assert fit(y[:7], matrix[:, :1], few, [[1]]).tested.estimable.all()


def test_ill_scaled_columns():
    y, matrix, units = draw(6)
    years = matrix * [1.0, 1.0, 1.0] + np.outer(np.ones(len(y)), [0.0, 2000.0, 0.0])
    one, two = (fit(y, columns, units, [[0, 1, 0], [0, 0, 1]]) for columns in (matrix, years))
    np.testing.assert_allclose(two.tested.values, one.tested.values, rtol=1e-8)
    np.testing.assert_allclose(two.dof, one.dof, rtol=1e-7)


CORRECTED = json.loads((Path(__file__).parents[1] / "reference" / "pbkrtest.json").read_text())["cases"]


@pytest.mark.parametrize(("case", "pinned"), list(zip(CASES, CORRECTED, strict=True)), ids=[c["name"] for c in CASES])
def test_pbkrtest(case, pinned):
    matrix, units = np.array(case["X"], dtype=float), np.array(case["unit"]) - 1
    tests = [one["rows"] if "F" in one else one["rows"][0] for one in case["tests"]]
    found = fit(case["y"], matrix, units, tests, corrected=True)
    for c, (rows, one) in enumerate(zip(tests, pinned["tests"], strict=True)):
        assert found.tested.estimable[c, 0]
        values = found.tested.values[c, :, 0]
        statistic = values[STATISTICS] if np.ndim(rows) == 2 else values[STATISTICS] ** 2
        np.testing.assert_allclose(statistic, one["F"], rtol=2e-6)
        np.testing.assert_allclose(found.dof[c, 0], one["dof"], rtol=1e-6)
        if np.ndim(rows) == 1:
            np.testing.assert_allclose(values[VARIANCES], one["variances"], rtol=1e-6)
            assert one["scaling"] == pytest.approx(1.0, abs=1e-8)
