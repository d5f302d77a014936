"""What maps say at a peak, and what is left without each: metafor's numbers, and plain refits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.design import Cell, Design, Test
from ibma_app.estimators import find_estimator
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.evidence.peak_evidence import REFITTED, REFITTED_ALL, read_peaks

PINNED = json.loads((Path(__file__).parents[2] / "reference" / "leave1out.json").read_text())
NAMES = {"REML": "reml", "DL": "dl", "FE": "fixed-effects"}
MASK = np.ones((1, 1, 3), dtype=bool)

# the stack keeps single precision (6e-8), which the fit passes on several-fold at most
NEAR = 2e-6


def one_sample(n, weight=1.0, **more):
    return Design(np.ones((n, 1)), ("intercept",), (Test("intercept", np.array([[weight]]), **more),))


def evidence(stack, name, design, settings=None, place=1):
    model = Model(find_estimator(name), design, settings or {})
    estimate = estimate_maps(stack, model)
    (peak,) = read_peaks(stack, model, estimate, design.tests[-1], {place: "largest z"})
    return peak, estimate


def bcg_stack(stack_of):
    """The BCG trials as the second of three voxels; the first lacks a trial, the third is noise."""
    y, v = np.array(PINNED["y"]), np.array(PINNED["v"])
    effect = np.column_stack([y, y, y[::-1] + 1])
    effect[0, 0] = np.nan
    variance = np.column_stack([v, v, v])
    variance[0, 0] = np.nan
    return stack_of(MASK, effect=effect, variance=variance)


@pytest.mark.parametrize("fit", PINNED["fits"], ids=lambda fit: f"{fit['method']}-{fit['test']}-{fit['moderator']}")
def test_forest_is_metafors(stack_of, fit):
    n = len(PINNED["y"])
    design = one_sample(n)
    if fit["moderator"]:
        matrix = np.column_stack([np.ones(n), PINNED["ablat"]])
        design = Design(matrix, ("intercept", "ablat"), (Test("ablat", np.array([[0.0, 1.0]])),))
    settings = {} if fit["method"] == "FE" else {"test": fit["test"]}
    peak, _ = evidence(bcg_stack(stack_of), NAMES[fit["method"]], design, settings)
    assert peak.combined.effect == pytest.approx(fit["effect"], rel=NEAR)
    assert np.sqrt(peak.combined.variance) == pytest.approx(fit["se"], rel=NEAR)
    assert peak.q == pytest.approx(fit["Q"], rel=NEAR)
    assert peak.i2 == pytest.approx(fit["I2"], rel=NEAR)
    assert peak.q_dof == n - 1 - fit["moderator"]
    if fit["method"] != "FE":
        assert peak.tau2 == pytest.approx(fit["tau2"], rel=NEAR)
    np.testing.assert_allclose([row.value for row in peak.maps], PINNED["y"], rtol=1e-7)
    np.testing.assert_allclose([row.weight for row in peak.maps], fit["weight"], rtol=NEAR)
    if fit["moderator"]:
        np.testing.assert_allclose([row.fitted for row in peak.maps], fit["fitted"], rtol=1e-5)
    else:
        assert {row.fitted for row in peak.maps} == {None}
    for row, expected in zip(peak.maps, fit["without"], strict=True):
        assert row.without.effect == pytest.approx(expected["effect"], rel=1e-5)
        assert np.sqrt(row.without.variance) == pytest.approx(expected["se"], rel=1e-5)
        assert row.without.dof == expected["dof"]
        assert stats.norm.logcdf(-abs(row.without.z)) == pytest.approx(expected["log_p"], rel=1e-5)


def test_uncovered_map_is_not_told_of(stack_of):
    peak, estimate = evidence(bcg_stack(stack_of), "reml", one_sample(13), place=0)
    assert [row.row for row in peak.maps] == list(range(1, 13))
    assert peak.voxel == (0, 0, 0)
    assert peak.combined.z == estimate.tests["intercept"].z[0]
    assert peak.maps[0].without.dof == 10


def test_sign_turned_test_has_fitted_values(stack_of):
    peak, _ = evidence(bcg_stack(stack_of), "reml", one_sample(13, weight=-1.0))
    assert peak.combined.effect > 0
    assert peak.maps[0].fitted == pytest.approx(-peak.combined.effect, rel=1e-9)


def test_least_squares_without_each_map_are_scipys(stack_of, rng):
    values = rng.normal(0.5, 1, (9, 3))
    peak, _ = evidence(stack_of(MASK, effect=values), "ols", one_sample(9))
    assert {(row.weight, row.variance) for row in peak.maps} == {(None, None)}
    for row in peak.maps:
        left = np.delete(values[:, 1].astype(np.float32).astype(float), row.row)
        expected = stats.ttest_1samp(left, 0)
        assert row.without.effect == pytest.approx(left.mean(), rel=1e-12)
        assert row.without.effect / np.sqrt(row.without.variance) == pytest.approx(expected.statistic, rel=1e-10)
    assert peak.tau2 is None
    assert peak.q_dof is None


def test_weighted_stouffer_tells_weights_and_z_without_each(stack_of, rng):
    z, sizes = rng.normal(1, 1, (6, 3)), np.array([10.0, 20, 30, 15, 12, 50])
    stack = replace(stack_of(MASK, z=z), sample_size=sizes)
    peak, _ = evidence(stack, "stouffer-weighted", one_sample(6))
    root = np.sqrt(sizes)
    assert peak.combined.effect is None
    np.testing.assert_allclose([row.weight for row in peak.maps], 100 * root / root.sum(), rtol=1e-12)
    for row in peak.maps:
        w, left = np.delete(root, row.row), np.delete(z[:, 1].astype(np.float32).astype(float), row.row)
        assert row.without.z == pytest.approx(w @ left / np.sqrt(w @ w), rel=1e-9)


@pytest.mark.parametrize("name", ["stouffer", "fisher", "tippett", "stouffer-rfx"])
def test_estimators_that_weigh_nothing_say_so(stack_of, rng, name):
    peak, estimate = evidence(stack_of(MASK, z=rng.normal(1, 1, (6, 3))), name, one_sample(6))
    assert {(row.weight, row.variance, row.fitted) for row in peak.maps} == {(None, None, None)}
    assert peak.combined.z == estimate.tests["intercept"].z[1]
    assert all(row.without is not None for row in peak.maps)


def test_f_test_has_z_without_each_map(stack_of, rng):
    group = np.repeat([0.0, 1.0, 2.0], 4)
    matrix = np.column_stack([np.ones(12), group == 1, group == 2]).astype(float)
    design = Design(matrix, ("one", "b", "c"), (Test("any", np.eye(3)[1:], is_f=True),))
    effect, variance = rng.normal(group[:, None], 1, (12, 3)), rng.gamma(2, 0.2, (12, 3))
    stack = stack_of(MASK, effect=effect, variance=variance)
    peak, estimate = evidence(stack, "reml", design)
    assert peak.combined.effect is None
    assert peak.combined.dof == 9
    w = 1 / (variance[:, 1] + estimate.tau2[1])
    for code in range(3):  # fitted values of an ANOVA are the weighted means of the groups
        there = group == code
        mean = w[there] @ effect[there, 1] / w[there].sum()
        np.testing.assert_allclose([peak.maps[i].fitted for i in np.flatnonzero(there)], mean, rtol=1e-5)
    alone = replace(design, matrix=matrix[1:])
    refit = estimate_maps(
        stack_of(MASK, effect=effect[1:], variance=variance[1:]), Model(find_estimator("reml"), alone)
    )
    assert peak.maps[0].without.z == pytest.approx(refit.tests["any"].z[1], rel=1e-9)


def test_two_maps_leave_nothing_to_refit(stack_of):
    peak, _ = evidence(stack_of(MASK, effect=np.array([[1.0, 2, 3], [2, 3, 5]])), "ols", one_sample(2))
    assert [row.without for row in peak.maps] == [None, None]


def test_of_many_maps_the_most_influential_are_left_out(stack_of, rng):
    n = REFITTED_ALL + 40
    effect = rng.normal(0.2, 1, (n, 3))
    variance = rng.gamma(2, 0.2, (n, 3))
    effect[17, 1], variance[17, 1] = 15.0, 0.01
    peak, _ = evidence(stack_of(MASK, effect=effect, variance=variance), "reml", one_sample(n))
    refitted = {row.row: row.without for row in peak.maps if row.without}
    assert len(peak.maps) == n
    assert len(refitted) == REFITTED
    moves = {row: abs(left.effect - peak.combined.effect) for row, left in refitted.items()}
    assert max(moves, key=moves.get) == 17


def test_wide_designs_are_refitted_as_often_as_they_can_be_afforded(stack_of, rng, monkeypatch):
    monkeypatch.setattr("ibma_app.stream.evidence.peak_evidence.REFIT_COST", 3 * 12 * 2**2)
    matrix = np.column_stack([np.ones(12), np.arange(12.0)])
    design = Design(matrix, ("one", "x"), (Test("x", np.array([[0.0, 1.0]])),))
    peak, _ = evidence(stack_of(MASK, effect=rng.normal(0, 1, (12, 3))), "ols", design)
    assert sum(row.without is not None for row in peak.maps) == 3
    assert all(row.fitted is not None for row in peak.maps)


@pytest.mark.parametrize("name", ["ols", "random-intercept"])
def test_cells_are_the_models_means(stack_of, name):
    """Cells of complete data are the means of their maps, whatever the model; their errors are the model's."""
    units, visit = np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
    matrix = np.column_stack([visit == 0, visit == 1]).astype(float)
    y = np.random.default_rng(3).normal(size=(8, 3))[units] + np.random.default_rng(4).normal(size=(16, 3))
    cells = tuple(Cell(f"visit {v}", np.eye(2)[v], tuple(np.flatnonzero(visit == v).tolist())) for v in (0, 1))
    design = Design(
        matrix, ("a", "b"), (Test("change", np.array([[-1.0, 1.0]])),), repeated=True, cells=cells,
        clusters=units, units=units, cluster_name="participant_id", unit_name="participant_id",
    )  # fmt: skip
    peak, estimate = evidence(stack_of(MASK, effect=y), name, design)
    assert [cell.name for cell in peak.cells] == ["visit 0", "visit 1"]
    for v, cell in enumerate(peak.cells):
        own = y[visit == v, 1]
        assert cell.combined.effect == pytest.approx(own.mean(), rel=NEAR)
        assert cell.rows == cells[v].rows
        if name == "ols":  # robust errors of one visit: the one-sample t's
            assert cell.combined.variance == pytest.approx(own.var(ddof=1) / 8, rel=NEAR)
            assert cell.combined.dof == pytest.approx(7)
        else:
            total = (estimate.tau2 + estimate.sigma2)[1]
            assert cell.combined.variance == pytest.approx(total / 8, rel=NEAR)
            assert peak.sigma2 == pytest.approx(estimate.sigma2[1])
    assert peak.combined.effect == pytest.approx((y[visit == 1, 1] - y[visit == 0, 1]).mean(), rel=10 * NEAR)
