"""Cluster-robust least squares against R's clubSandwich and afex (tests/reference), textbooks and plain algebra."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ibma_app.stats import cr2
from ibma_app.stats.basis import frame_design
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.sandwich import complete_tests, fit_sandwich

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = json.loads((REFERENCE / "clubsandwich.json").read_text())["cases"]
AFEX = json.loads((REFERENCE / "afex.json").read_text())


def fit(y, matrix, tests, clusters, covered=None):
    y = np.ascontiguousarray(y if np.ndim(y) == 2 else np.asarray(y, dtype=float)[:, None])
    covered = np.ones(y.shape, dtype=bool) if covered is None else np.ascontiguousarray(covered)
    frame = frame_design(matrix, [(np.atleast_2d(rows), is_f) for rows, is_f in tests])
    return fit_sandwich(y, covered, frame, np.unique(clusters, return_inverse=True)[1])


def indicators(labels):
    return (np.asarray(labels)[:, None] == np.unique(labels)[None]).astype(float)


def plain_cr2(y, matrix, clusters, rows):
    """Give effects, T² and dof (of one row: t and dof) by dense matrices, as the papers write them."""
    bread = np.linalg.pinv(matrix.T @ matrix)
    rest = np.eye(len(y)) - matrix @ bread @ matrix.T
    loads = []
    for label in np.unique(clusters):
        own = clusters == label
        values, vectors = np.linalg.eigh(rest[np.ix_(own, own)])
        power = vectors @ np.diag(np.where(values > 1e-10, np.maximum(values, 1e-10) ** -0.5, 0.0)) @ vectors.T
        loads.append((rows @ bread @ matrix[own].T @ power @ rest[own]).T)  # (K, Q): its inner product with y
    loads = np.array(loads)  # (m, K, Q)
    effect = rows @ bread @ matrix.T @ y
    sums = np.einsum("ikq,k->iq", loads, y)
    covariance = sums.T @ sums
    b = np.einsum("iks,jkt->ijst", loads, loads)
    half = np.linalg.inv(np.linalg.cholesky(np.einsum("iist->st", b)))
    b = half @ b @ half.T
    q = len(rows)
    spread = np.einsum("ijst,ijts->", b, b) + (np.einsum("ijss->ij", b) ** 2).sum()
    eta = q * (q + 1) / spread
    squared = effect @ np.linalg.solve(covariance, effect)
    if q == 1:
        return effect[0] / np.sqrt(covariance[0, 0]), eta
    return squared * (eta - q + 1) / (eta * q), eta - q + 1


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_clubsandwich(case):
    """1e-8 relative, dof 1e-6: both sides work in doubles, on other bases."""
    tests = [(np.array(test["rows"], dtype=float), "F" in test) for test in case["tests"]]
    found = fit(case["y"], np.array(case["X"], dtype=float), tests, case["unit"])
    assert found.tested.estimable.all()
    for c, known in enumerate(case["tests"]):
        effect, variance, statistic = found.tested.values[c, :, 0]
        np.testing.assert_allclose(found.dof[c, 0], known["dof"], rtol=1e-6)
        if "F" in known:
            np.testing.assert_allclose(statistic, known["F"], rtol=1e-8)
        else:
            np.testing.assert_allclose([effect, np.sqrt(variance)], [known["effect"], known["se"]], rtol=1e-8)
            np.testing.assert_allclose(statistic, known["t"], rtol=1e-8)


def test_afex():
    """Balanced designs: the multivariate F tests of within-subject effects, and the F of subject means."""
    y, unit, stim, rep, group = (np.array(AFEX[key]) for key in ("y", "unit", "stim", "rep", "group"))
    helmert = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    main, sided = np.ones(3) / 3, np.array([0.5, 0.5])
    apart = np.array([-1.0, 1.0])
    cells = indicators(3 * stim + rep)  # stimulus outer
    effects = {
        "stim": np.array([np.kron(row, main) for row in helmert]),
        "rep": np.array([np.kron(main, row) for row in helmert]),
        "stim:rep": np.array([np.kron(a, b) for a in helmert for b in helmert]),
    }
    for name, rows in effects.items():
        padded = np.column_stack([rows, np.zeros((len(rows), 11))])
        found = fit(y, np.column_stack([cells, indicators(unit)[:, 1:]]), [(padded, True)], unit)
        known = AFEX["within"][name]
        np.testing.assert_allclose(found.tested.values[0, STATISTICS, 0], known["F"], rtol=1e-8)
        np.testing.assert_allclose(found.dof[0, 0], known["dof"], rtol=1e-9)
    by_group = indicators(9 * group + 3 * stim + rep)
    asked = {name: np.kron(sided, rows) for name, rows in effects.items()}
    asked |= {f"group:{name}": np.kron(apart, rows) for name, rows in effects.items()}
    asked["group"] = np.kron(apart, np.ones((1, 9)) / 9)
    for name, rows in asked.items():
        found = fit(y, by_group, [(rows, True)], unit)
        known = AFEX["between"] if name == "group" else AFEX["mixed"][name]
        np.testing.assert_allclose(found.tested.values[0, STATISTICS, 0], known["F"], rtol=1e-8)
        np.testing.assert_allclose(found.dof[0, 0], known["dof"], rtol=1e-9)


@pytest.fixture
def sixteen():
    """16 subjects x 9 conditions at 5 voxels, no two variances alike."""
    rng = np.random.default_rng(3)
    condition, unit = np.tile(np.arange(9), 16), np.repeat(np.arange(16), 9)
    y = rng.normal(0, 2, (16, 5))[unit] + rng.normal(size=(144, 5)) * np.linspace(0.3, 3, 9)[condition][:, None]
    return y, condition, unit


def test_within_subjects_is_the_one_sample_t_of_contrasts(sixteen):
    y, condition, unit = sixteen
    weights = np.r_[np.array([1, 1, 1, -1, -1, 0, 0, -2, 1]) / 3, np.zeros(15)]
    matrix = np.column_stack([indicators(condition), indicators(unit)[:, 1:]])
    known = stats.ttest_1samp((y.reshape(16, 9, 5) * weights[:9, None]).sum(axis=1), 0.0)
    for x, rows in ((matrix, weights), (indicators(condition), weights[:9])):
        found = fit(y, x, [(rows, False)], unit)
        np.testing.assert_allclose(found.tested.values[0, STATISTICS], known.statistic, rtol=1e-11)
        np.testing.assert_allclose(found.dof[0], 15.0, rtol=1e-12)


@pytest.mark.parametrize("first", [8, 5])
def test_between_subjects_is_the_two_sample_t_of_means(sixteen, first):
    y, condition, unit = sixteen
    group = (unit >= first).astype(float)
    x = np.column_stack([indicators(condition), group])
    found = fit(y, x, [(np.eye(10)[9], False)], unit)
    means = y.reshape(16, 9, 5).mean(axis=1)
    known = stats.ttest_ind(means[first:], means[:first], equal_var=False)
    np.testing.assert_allclose(found.tested.values[0, STATISTICS], known.statistic, rtol=1e-11)
    if first == 8:
        pooled = stats.ttest_ind(means[8:], means[:8])
        np.testing.assert_allclose(found.tested.values[0, STATISTICS], pooled.statistic, rtol=1e-11)
        np.testing.assert_allclose(found.dof[0], 14.0, rtol=1e-12)


def test_each_map_alone_is_welch_and_the_one_sample_t():
    rng = np.random.default_rng(4)
    y = rng.normal(size=(20, 6)) * np.repeat([3.0, 1.0], [5, 15])[:, None]
    group = np.repeat([0.0, 1.0], [5, 15])
    found = fit(y, np.column_stack([np.ones(20), group]), [(np.eye(2)[1], False)], np.arange(20))
    known = stats.ttest_ind(y[5:], y[:5], equal_var=False)
    np.testing.assert_allclose(found.tested.values[0, STATISTICS], known.statistic, rtol=1e-12)
    # Satterthwaite's dof where both variances are one (Bell & McCaffrey 2002): of the numbers of maps alone
    expected = (1 / 5 + 1 / 15) ** 2 / (1 / (5**2 * 4) + 1 / (15**2 * 14))
    np.testing.assert_allclose(found.dof[0], expected, rtol=1e-12)
    mean = fit(y, np.ones((20, 1)), [(np.eye(1), False)], np.arange(20))
    np.testing.assert_allclose(mean.tested.values[0, STATISTICS], stats.ttest_1samp(y, 0.0).statistic, rtol=1e-12)
    np.testing.assert_allclose(mean.dof[0], 19.0, rtol=1e-12)


def test_coverage(sixteen):
    """300 patterns: each voxel's numbers are those of plain algebra on the maps that cover it."""
    _, condition, unit = sixteen
    rng = np.random.default_rng(5)
    y = rng.normal(size=(144, 300)) + rng.normal(size=(16, 300))[unit]
    covered = rng.random((144, 300)) < 0.8
    covered[:9, :100] = False  # a whole subject, or all but one of its maps
    covered[3, 50:100] = True
    within = np.column_stack([indicators(condition), indicators(unit)[:, 1:]])
    rows = np.zeros((2, 24))
    rows[0, [0, 1]], rows[1, [1, 5]] = [1, -1], [1, -1]
    between = np.column_stack([indicators(condition), unit % 3 == 0, np.cos(unit)])
    other = np.eye(11)[9:]
    poisoned = np.where(covered, y, np.nan)
    for x, c in ((within, rows), (between, other)):
        found = fit(poisoned, x, [(c[:1], False), (c, True)], unit, covered)
        assert found.tested.estimable.all()
        np.testing.assert_array_equal(found.counts[0], covered.sum(axis=0))
        for b in range(0, 300, 7):
            there = covered[:, b]
            for test, asked in ((0, c[:1]), (1, c)):
                statistic, dof = plain_cr2(y[there, b], x[there], unit[there], asked)
                np.testing.assert_allclose(found.tested.values[test, STATISTICS, b], statistic, rtol=1e-8)
                np.testing.assert_allclose(found.dof[test, b], dof, rtol=1e-8)
    assert np.unique(found.dof[0]).size > 290


def test_tests_that_weigh_what_the_design_takes_up_are_refused(sixteen):
    y, condition, unit = sixteen
    matrix = np.column_stack([indicators(condition), indicators(unit)[:, 1:]])
    between = np.zeros((2, 24))
    between[0, :9], between[1, 9] = 1 / 9, 1.0  # the first subject's mean; the second against the first
    found = fit(y, matrix, [(between[:1], False), (between[1:], False), (between, True), (np.eye(24)[:1], False)], unit)
    assert not found.tested.estimable.any()
    assert not found.tested.values.any()
    assert not found.dof.any()
    # a condition of one subject alone: its own column takes it up
    odd = np.column_stack([indicators(condition), (unit == 3) & (condition == 2)])
    found = fit(y, odd, [(np.eye(10)[9], False), (np.eye(10)[0] - np.eye(10)[1], False)], unit)
    np.testing.assert_array_equal(found.tested.estimable.all(axis=1), [False, True])


def test_more_rows_than_clusters_can_tell(sixteen):
    y, condition, unit = sixteen
    few = unit < 5
    rows = np.column_stack([np.eye(9)[:8] - np.eye(9)[1:]])
    found = fit(y[few], indicators(condition[few]), [(rows, True), (rows[:3], True), (rows[:1], False)], unit[few])
    assert found.tested.estimable.all(axis=1).tolist() == [False, True, True]
    assert found.dof[1, 0] == pytest.approx(2.0)


def test_a_subject_of_one_map_adds_nothing_within(sixteen):
    y, condition, unit = sixteen
    kept = (unit > 0) | (condition == 4)
    matrix = np.column_stack([indicators(condition), indicators(unit)[:, 1:]])
    rows = np.r_[1.0, -1.0, np.zeros(22)]
    found = fit(y[kept], matrix[kept], [(rows, False)], unit[kept])
    rest = unit > 0
    without = fit(y[rest], np.delete(matrix, 9, axis=1)[rest], [(np.delete(rows, 9), False)], unit[rest])
    np.testing.assert_allclose(found.tested.values, without.tested.values, rtol=1e-10)
    np.testing.assert_allclose(found.dof, without.dof, rtol=1e-10)


def test_contrasts_that_are_all_alike_have_no_test(sixteen):
    """Every subject's difference is the same, the maps are not: nothing is left but rounding."""
    y, condition, unit = sixteen
    y = y.copy()
    y[condition == 0] = y[condition == 1] + 1.5
    found = fit(y, indicators(condition), [(np.eye(9)[0] - np.eye(9)[1], False)], unit)
    assert not found.tested.estimable.any()
    assert not found.identical.any()
    np.testing.assert_allclose(found.tested.values[0, EFFECTS], 1.5, rtol=1e-12)
    assert not found.tested.values[0, VARIANCES:].any()


def test_identical_maps():
    y = np.full((12, 2), 3.0)
    found = fit(y, np.ones((12, 1)), [(np.eye(1), False), (np.eye(1), True)], np.repeat(np.arange(4), 3))
    assert found.identical.all()
    assert not found.tested.estimable.any()
    np.testing.assert_allclose(found.tested.values[0, EFFECTS], 3.0)
    assert not found.tested.values[:, STATISTICS].any()


def test_dof_of_complete_coverage(sixteen):
    y, condition, unit = sixteen
    frame = frame_design(indicators(condition), [(np.eye(9)[:1], False), (np.eye(9)[:3], True)])
    np.testing.assert_array_equal(
        complete_tests(frame, unit)[0].dof, fit_sandwich(y, np.ones(y.shape, bool), frame, unit).dof[:, 0]
    )


def test_what_is_kept_is_bounded_and_serves_threads(sixteen, monkeypatch):
    _, condition, unit = sixteen
    monkeypatch.setattr(cr2, "_MOST", 3000)
    rng = np.random.default_rng(6)
    values = rng.normal(size=(144, 60))
    covered = rng.random((144, 60)) < 0.8
    tests = [(np.eye(9)[0] - np.eye(9)[1], False)]
    alone = fit(values, indicators(condition), tests, unit, covered)
    together = [None] * 4

    def work(i):
        together[i] = fit(values, indicators(condition), tests, unit, covered)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in together:
        np.testing.assert_array_equal(one.tested.values, alone.tested.values)
        np.testing.assert_array_equal(one.dof, alone.dof)
