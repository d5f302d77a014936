"""The estimator random-intercept: its maps, what it refuses and what it warns of."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.estimators.random_intercept import ESTIMATOR, check, far_tail, fit, flip_bounds, remark, units_of

M, N = 10, 3
UNIT, VISIT = np.repeat(np.arange(M), N), np.tile(np.arange(N), M)
MATRIX = np.column_stack([np.ones(M * N), VISIT, UNIT % 2]).astype(float)
SLOPE, GROUP = Test("slope", np.array([[0.0, 1.0, 0.0]])), Test("group", np.array([[0.0, 0.0, 1.0]]))
ANY = Test("any", np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
DESIGN = Design(
    MATRIX, ("intercept", "visit", "group"), (SLOPE, GROUP, ANY), formula="1 + visit + group", repeated=True,
    clusters=UNIT, cluster_name="participant_id", units=UNIT, unit_name="participant_id",
)  # fmt: skip


KENWARD_ROGER, SANDWICH = {"dof": "kenward-roger"}, {"errors": "sandwich"}
PLAIN = {"dof": "satterthwaite", "errors": "model"}
REFERENCE = Path(__file__).parents[1] / "reference"
GIVEN, PINNED = (
    json.loads((REFERENCE / f"{name}.json").read_text())["cases"] for name in ("lmertest", "lmer_sandwich")
)


@pytest.fixture
def block():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(M, 40)).repeat(N, axis=0) * np.linspace(0, 3, 40) + rng.normal(size=(M * N, 40))
    covered = rng.random(y.shape) < np.where(np.arange(40) < 20, 1.0, 0.8)
    return VoxelBlock(covered, effect=np.where(covered, y, 0.0))


def test_maps_and_z(block):
    estimate = fit(block, DESIGN)
    assert estimate.dof is None
    total = estimate.tau2 + estimate.sigma2
    np.testing.assert_allclose(estimate.icc * total, estimate.tau2, rtol=1e-12, atol=1e-15)
    assert (estimate.icc == 0).any()
    assert (estimate.icc > 0.5).any()
    for name in ("slope", "group"):
        test = estimate.tests[name]
        np.testing.assert_allclose(test.statistic, test.effect / np.sqrt(test.variance), rtol=1e-12)
        np.testing.assert_allclose(test.z, special.ndtri(stats.t.cdf(test.statistic, test.dof)), rtol=1e-6)
    any_ = estimate.tests["any"]
    np.testing.assert_allclose(any_.z, special.ndtri(stats.f.cdf(any_.statistic, 2, any_.dof)), rtol=1e-6)
    inside = (np.arange(40) < 20) & (estimate.tau2 > 0)
    np.testing.assert_allclose(estimate.tests["group"].dof[inside], M - 2, rtol=1e-6)
    np.testing.assert_allclose(estimate.tests["slope"].dof[inside], M * N - M - 1, rtol=1e-6)


def test_kenward_roger_errs_less(block):
    plain, corrected = fit(block, DESIGN), fit(block, DESIGN, **KENWARD_ROGER)
    np.testing.assert_array_equal(plain.tau2, corrected.tau2)
    missing = np.arange(40) >= 20
    for name in ("slope", "group"):
        one, other = plain.tests[name], corrected.tests[name]
        np.testing.assert_array_equal(one.effect, other.effect)
        assert (other.variance >= one.variance * (1 - 1e-9)).all()
        assert (other.variance[missing] > 1.001 * one.variance[missing]).any()
    # of complete data where the variances are inside their range both are the textbook's
    inside = ~missing & (plain.tau2 > 0)
    for name in ("slope", "group"):
        np.testing.assert_allclose(corrected.tests[name].dof[inside], plain.tests[name].dof[inside], rtol=1e-6)
        np.testing.assert_allclose(corrected.tests[name].z[inside], plain.tests[name].z[inside], rtol=1e-6)


@pytest.mark.parametrize(("case", "pinned"), list(zip(GIVEN, PINNED, strict=True)), ids=[one["name"] for one in GIVEN])
def test_sandwich_is_that_of_lme4_and_clubsandwich(case, pinned):
    matrix, units = np.array(case["X"], dtype=float), np.array(case["unit"]) - 1
    tests = tuple(Test(str(c), np.array(one["rows"], dtype=float)) for c, one in enumerate(case["tests"]))
    design = Design(matrix, tuple(map(str, range(matrix.shape[1]))), tests, units=units, unit_name="participant_id")
    y = np.array(case["y"], dtype=float)[:, None]
    found = fit(VoxelBlock(np.ones(y.shape, dtype=bool), effect=y), design, **SANDWICH)
    for test, one in zip(tests, pinned["tests"], strict=True):
        mine = found.tests[test.name]
        if mine.statistic_name == "t":
            np.testing.assert_allclose(np.sqrt(mine.variance[0]), one["se"], rtol=2e-6)
        # lme4 ends where its criterion hardly changes, 1e-7 from its least
        np.testing.assert_allclose(mine.statistic[0], one[mine.statistic_name], rtol=2e-6, atol=1e-8)
        np.testing.assert_allclose(mine.dof[0], one["dof"], rtol=2e-5)


def test_sandwich_where_nothing_varies_within_units_and_with_other_settings():
    y = np.random.default_rng(1).normal(size=(M, 2))[UNIT]
    y[:, 1] += np.random.default_rng(2).normal(size=M * N)
    found = fit(VoxelBlock(np.ones(y.shape, dtype=bool), effect=y), DESIGN, **SANDWICH)
    assert found.identical.tolist() == [True, False]
    assert [test.estimable.tolist() for test in found.tests.values()] == [[False, True]] * 3
    np.testing.assert_allclose(found.tests["slope"].effect[0], 0.0, atol=1e-12)
    assert remark(replace(found, tau2=np.zeros(2)), {**PLAIN, **SANDWICH})[1:] == ()
    signs = np.ones((4, M * N))
    assert np.isfinite(
        flip_bounds(VoxelBlock(np.ones(y.shape, bool), effect=y), replace(DESIGN, tests=(SLOPE,)), {}, signs)
    ).all()
    assert np.isinf(flip_bounds(VoxelBlock(np.ones(y.shape, bool), effect=y), DESIGN, SANDWICH, signs)).all()
    with pytest.raises(DataError, match="Leave one of them out"):
        check(DESIGN, {**KENWARD_ROGER, **SANDWICH})
    alone = replace(DESIGN, matrix=np.column_stack([MATRIX, UNIT == 0]), tests=(Test("one", np.eye(4)[3:]),))
    with pytest.raises(DataError, match="rests on what one participant alone has"):
        check(alone, SANDWICH)


def test_no_variance_between_units_is_remarked(block):
    estimate = fit(block, DESIGN)
    share = (estimate.tau2 == 0).mean()
    (fact,) = remark(estimate, PLAIN)
    assert fact.sidecar() == {"ShareOfVoxelsWithTau2Zero": pytest.approx(share, abs=1e-6)}
    none = replace(estimate, tau2=np.where(np.arange(40) % 2, estimate.tau2, 0.0))
    _, warning = remark(none, PLAIN)
    assert "of the voxels maps of one unit do not correlate" in warning.text
    assert "up to 7.5" in warning.text
    assert "up to 6.1" in remark(none, {**PLAIN, **KENWARD_ROGER})[1].text


def test_small_p_of_few_participants_have_a_caveat():
    assert "up to 31 of 100 data sets" in far_tail(DESIGN, PLAIN)
    assert "up to 9 of 100 data sets" in far_tail(DESIGN, {**PLAIN, **KENWARD_ROGER})
    assert far_tail(DESIGN, {**PLAIN, **SANDWICH}) == ""
    many = np.repeat(np.arange(60), 2)
    assert far_tail(replace(DESIGN, matrix=np.ones((120, 1)), units=many, tests=()), PLAIN) == ""


def test_units_are_those_of_the_design():
    assert units_of(DESIGN, {}) is UNIT
    assert units_of(replace(DESIGN, units=None), {}).tolist() == list(range(M * N))
    assert ESTIMATOR.models_clusters


def test_designs_that_leave_nothing_to_estimate_a_variance_from():
    assert check(DESIGN, {}) == ()
    with pytest.raises(DataError, match="here each has one"):
        check(replace(DESIGN, units=None, clusters=None), {})
    whole = np.column_stack([UNIT[:, None] == np.arange(M), VISIT]).astype(float)
    with pytest.raises(DataError, match=r"Leave C\(participant_id\) out"):
        check(replace(DESIGN, matrix=whole, tests=()), {})
    few = np.array([0, 0, 1, 2, 3, 4])
    matrix = np.column_stack([np.ones(6), [0.0, 1, 0, 0, 0, 0]])
    with pytest.raises(DataError, match="too few of them have several maps"):
        check(replace(DESIGN, matrix=matrix, units=few, tests=()), {})
    parted = np.repeat([0, 1], [M * N - 1, 1])
    with pytest.raises(DataError, match="exchangeability parts the maps of one participant"):
        check(replace(DESIGN, exchangeability=parted), {})


def test_few_units_and_wider_clusters_are_warned_of():
    rows = UNIT < 4
    small = replace(DESIGN, matrix=MATRIX[rows], units=UNIT[rows], clusters=UNIT[rows])
    (note,) = check(small, {})
    assert "between 4 participants, 2 more than the formula takes up" in note
    some = np.arange(M * N) % 7 != 3
    (note,) = check(replace(DESIGN, matrix=MATRIX[some], units=UNIT[some], clusters=UNIT[some]), {})
    assert "with 10 participants, not all with the same number of maps" in note
    assert 'dof = "kenward-roger" under [estimator.random-intercept]' in note
    assert not check(replace(DESIGN, matrix=MATRIX[some], units=UNIT[some], clusters=UNIT[some]), KENWARD_ROGER)
    (note,) = check(replace(DESIGN, clusters=UNIT // 2, cluster_name="cluster"), {})
    assert "participants of one cluster (column 'cluster') to be independent" in note
