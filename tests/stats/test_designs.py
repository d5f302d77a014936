"""Designs, coverage and F tests of the compiled fits, against statsmodels and plain linear algebra."""

import numpy as np
import pytest
import statsmodels.api as sm

from ibma_app.stats.basis import frame_design
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.mixed import H2, Q, fit_fixed, fit_mixed
from ibma_app.stats.ols import fit_ols
from ibma_app.stats.voxels import group_voxels


def everywhere(values):
    return np.ones(values.shape, dtype=bool)


def test_ols_against_statsmodels():
    rng = np.random.default_rng(0)
    k = 18
    x = np.column_stack([np.ones(k), rng.normal(2000, 5, k), np.arange(k) % 3 == 0])  # uncentred years
    y = rng.normal(0, 1, (k, 5)) + 3
    f_rows = np.array([[0, 1.0, 0], [0, 0, 1.0]])
    tests = [(np.array([[1.0, 2000, 0]]), False), (f_rows, True), (f_rows[:1], True)]
    fit = fit_ols(y, everywhere(y), frame_design(x, tests))
    for b in range(5):
        known = sm.OLS(y[:, b], x).fit()
        t = known.t_test(tests[0][0])
        values = fit.tested.values[:, :, b]
        np.testing.assert_allclose(values[0, EFFECTS], t.effect[0], rtol=1e-9)
        np.testing.assert_allclose(values[0, VARIANCES], t.sd[0, 0] ** 2, rtol=1e-8)
        np.testing.assert_allclose(values[0, STATISTICS], t.tvalue[0, 0], rtol=1e-8)
        np.testing.assert_allclose(values[1, STATISTICS], known.f_test(f_rows).fvalue, rtol=1e-8)
        np.testing.assert_allclose(values[2, STATISTICS], known.f_test(f_rows[:1]).fvalue, rtol=1e-8)
    np.testing.assert_array_equal(fit.counts[:, 0], [k, 3])


def test_repeated_measures():
    """9 conditions of 16 subjects: 144 maps, 24 columns of full rank, t and a two-row F."""
    rng = np.random.default_rng(1)
    condition, subject = np.tile(np.arange(9), 16), np.repeat(np.arange(16), 9)
    x = np.column_stack([np.eye(9)[condition], np.eye(16)[subject][:, 1:]])
    y = rng.normal(0, 1, (144, 3)) + rng.normal(0, 2, (16, 3))[subject]
    weights = np.zeros((1, 24))
    weights[0, :9] = [1 / 6, 1 / 6, -1 / 3] * 3
    rows = np.zeros((2, 24))
    rows[0, [0, 1, 3, 4]] = [1, -1, -1, 1]
    rows[1, [1, 2, 4, 5]] = [1, -1, -1, 1]
    fit = fit_ols(y, everywhere(y), frame_design(x, [(weights, False), (rows, True)]))
    for b in range(3):
        known = sm.OLS(y[:, b], x).fit()
        np.testing.assert_allclose(fit.tested.values[0, STATISTICS, b], known.t_test(weights).tvalue[0, 0], rtol=1e-8)
        np.testing.assert_allclose(fit.tested.values[1, STATISTICS, b], known.f_test(rows).fvalue, rtol=1e-8)


def test_redundant_rows_ask_the_same():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(12), rng.normal(size=(12, 2))])
    y = rng.normal(size=(12, 4))
    rows = np.eye(3)[1:]
    both = [(rows, True), (np.vstack([rows, rows.sum(axis=0)]), True)]
    frame = frame_design(x, both)
    np.testing.assert_array_equal(np.diff(frame.starts), [2, 2])
    fit = fit_ols(y, everywhere(y), frame)
    np.testing.assert_allclose(fit.tested.values[1], fit.tested.values[0], rtol=1e-10)


def test_rank_and_estimability_follow_coverage():
    """Where a group's maps are missing, its level is not estimable, what the others say still is."""
    group = np.repeat([0, 1, 2], 5)
    x = np.eye(3)[group]
    y = np.random.default_rng(3).normal(size=(15, 3))
    v = np.full(y.shape, 0.3)
    covered = everywhere(y)
    covered[10:, 1] = False
    covered[5:, 2] = False
    tests = [(np.array([row]), False) for row in ([1.0, -1, 0], [0, 0, 1.0], [1.0, 0, -1])]
    tests.append((np.array([[1.0, -1, 0], [0, 1, -1]]), True))
    frame = frame_design(x, tests)
    for fit in (
        fit_ols(y, covered, frame),
        fit_mixed(y, v, covered, frame, "reml", "knha"),
        fit_fixed(y, v, covered, frame),
    ):
        np.testing.assert_array_equal(fit.counts, [[15, 10, 5], [3, 2, 1]])
        known = [[True, True, False], [True, False, False], [True, False, False], [True, False, False]]
        np.testing.assert_array_equal(fit.tested.estimable, known)
    here = fit_ols(y, covered, frame).tested.values[0, :, 1]
    two = sm.OLS(y[:10, 1], x[:10, :2]).fit().t_test([1, -1])
    np.testing.assert_allclose(here, [two.effect[0], two.sd[0, 0] ** 2, two.tvalue[0, 0]], rtol=1e-9)


def test_confounded_by_coverage():
    """A covariate that is constant among the maps that cover leaves the intercept, not the slope."""
    x = np.column_stack([np.ones(8), [1, 1, 1, 1, 1, 1, 2, 3]])
    y = np.random.default_rng(4).normal(size=(8, 1))
    covered = np.arange(8)[:, None] < 6
    frame = frame_design(x, [(np.array([row]), False) for row in ([0.0, 1], [1.0, 0], [1.0, 1])])
    fit = fit_ols(y, covered, frame)
    assert fit.counts[1, 0] == 1
    np.testing.assert_array_equal(fit.tested.estimable[:, 0], [False, False, True])
    np.testing.assert_allclose(fit.tested.values[2, EFFECTS, 0], y[:6].mean(), rtol=1e-12)


def test_one_map_passes_through():
    y, v = np.array([[1.25, -3.0]]), np.array([[0.5, 2.0]])
    frame = frame_design(np.ones((1, 1)), [(np.eye(1), False)])
    fit = fit_fixed(y, v, everywhere(y), frame)
    np.testing.assert_array_equal(fit.tested.values[0, EFFECTS], y[0])
    np.testing.assert_array_equal(fit.tested.values[0, VARIANCES], v[0])
    np.testing.assert_array_equal(fit.summary[[Q, H2]], [[0, 0], [1, 1]])
    none = fit_mixed(y, v, everywhere(y), frame, "reml", "knha")
    assert not none.tested.estimable.any()


@pytest.mark.parametrize("test", ["knha", "adhoc", "t", "z"])
def test_identical_effects(test):
    """Only the Knapp-Hartung scale vanishes with the residuals."""
    y, v = np.full((6, 3), 0.1), np.random.default_rng(5).uniform(0.1, 2, (6, 3))
    frame = frame_design(np.ones((6, 1)), [(np.eye(1), False)])
    fit = fit_mixed(y, v, everywhere(y), frame, "reml", test)
    np.testing.assert_allclose(fit.tested.values[0, EFFECTS], 0.1, rtol=1e-14)
    if test in ("knha", "adhoc"):
        assert fit.identical.all()
        assert not fit.tested.estimable.any()
        assert not fit.tested.values[0, VARIANCES:].any()
    else:
        assert not fit.identical.any()
        np.testing.assert_allclose(fit.tested.values[0, VARIANCES], 1 / (1 / v).sum(axis=0), rtol=1e-12)


def test_many_patterns_are_grouped_in_bounded_memory(monkeypatch):
    monkeypatch.setattr("ibma_app.stats.voxels._TABLE", 500)
    rng = np.random.default_rng(6)
    y, v = rng.normal(size=(10, 400)), rng.uniform(0.1, 1, (10, 400))
    covered = rng.random(y.shape) < 0.6
    frame = frame_design(np.ones((10, 1)), [(np.eye(1), False)])
    groups = list(group_voxels(covered, frame))
    assert len(groups) > 3
    np.testing.assert_array_equal(np.sort(np.concatenate([group.voxels for group in groups])), np.arange(400))
    parts = fit_mixed(y, v, covered, frame, "dl", "knha")
    monkeypatch.undo()
    whole = fit_mixed(y, v, covered, frame, "dl", "knha")
    np.testing.assert_array_equal(parts.tested.values, whole.tested.values)
    np.testing.assert_array_equal(parts.summary, whole.summary)


@pytest.mark.parametrize("maps", [64, 65, 130])
def test_patterns_of_many_maps(maps):
    rng = np.random.default_rng(maps)
    kinds = rng.random((maps, 5)) < 0.7
    covered = np.ascontiguousarray(kinds[:, rng.integers(0, 5, 60)])
    (group,) = group_voxels(covered, frame_design(np.ones((maps, 1)), [(np.eye(1), False)]))
    np.testing.assert_array_equal(group.patterns.maps[group.slots], covered.sum(axis=0))
    for voxel, slot in zip(group.voxels, group.slots, strict=True):
        k = group.patterns.maps[slot]
        np.testing.assert_array_equal(group.patterns.which[slot, :k], np.flatnonzero(covered[:, voxel]))


def test_not_of_full_rank():
    with pytest.raises(ValueError, match="dependent"):
        frame_design(np.column_stack([np.ones(5), np.arange(5), 2 * np.arange(5)]), [])
    with pytest.raises(ValueError, match="fewer rows"):
        frame_design(np.ones((1, 2)), [])
