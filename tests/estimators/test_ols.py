"""Ordinary least squares with pooled and with cluster-robust errors."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.estimators.ols import ESTIMATOR, check, clusters_of, fit

M, N = 8, 3
CONDITION, UNIT = np.tile(np.arange(N), M), np.repeat(np.arange(M), N)
MATRIX = np.column_stack([np.eye(N)[CONDITION], UNIT % 2])
WITHIN = Test("within", np.array([[1.0, -1.0, 0.0, 0.0]]))
BETWEEN = Test("between", np.array([[0.0, 0.0, 0.0, 1.0]]))
ANY = Test("any", np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 1.0, -1.0, 0.0]]))
DESIGN = Design(MATRIX, ("a", "b", "c", "g"), (WITHIN, BETWEEN, ANY), clusters=UNIT.astype(np.int64))


@pytest.fixture
def block():
    rng = np.random.default_rng(0)
    y = (
        rng.normal(size=(M, 30)).repeat(N, axis=0)
        + rng.normal(size=(M * N, 30)) * np.array([2.0, 2.0, 0.3])[CONDITION, None]
    )
    covered = np.ones(y.shape, dtype=bool)
    covered[:, 20:] = rng.random((M * N, 10)) < 0.8
    return VoxelBlock(covered, effect=np.where(covered, y, 0.0))


def test_each_test_has_its_own_dof(block):
    estimate = fit(block, DESIGN, errors="sandwich")
    assert estimate.dof is None
    np.testing.assert_array_equal(estimate.tests["within"].dof[:20], M - 1)
    np.testing.assert_array_equal(estimate.tests["between"].dof[:20], M - 2)
    np.testing.assert_array_equal(estimate.tests["any"].dof[:20], M - 2)
    for name in ("within", "between", "any"):
        assert estimate.dof_of(name) is estimate.tests[name].dof
        assert np.unique(estimate.tests[name].dof[20:]).size > 5
    for name in ("within", "between"):
        test = estimate.tests[name]
        np.testing.assert_allclose(test.z, special.ndtri(stats.t.cdf(test.statistic, test.dof)), rtol=1e-6)
    any_ = estimate.tests["any"]
    np.testing.assert_allclose(any_.z, special.ndtri(stats.f.cdf(any_.statistic, 2, any_.dof)), rtol=1e-6)
    assert any_.effect is None


def test_textbook(block):
    estimate = fit(block, DESIGN, errors="sandwich")
    y = block.effect[:, :20].reshape(M, N, 20)
    np.testing.assert_allclose(
        estimate.tests["within"].statistic[:20], stats.ttest_1samp(y[:, 0] - y[:, 1], 0.0).statistic, rtol=1e-10
    )
    means = y.mean(axis=1)
    np.testing.assert_allclose(
        estimate.tests["between"].statistic[:20], stats.ttest_ind(means[1::2], means[::2]).statistic, rtol=1e-10
    )


def test_pooled_takes_no_notice_of_clusters(block):
    one, two = (fit(block, design, errors="pooled") for design in (DESIGN, replace(DESIGN, clusters=None)))
    np.testing.assert_array_equal(one.tests["within"].statistic, two.tests["within"].statistic)
    np.testing.assert_array_equal(one.dof, block.covered.sum(axis=0) - 4)
    assert clusters_of(DESIGN, {"errors": "pooled"}) is None


def test_without_clusters_each_map_is_alone(block):
    alone = replace(DESIGN, clusters=None)
    np.testing.assert_array_equal(clusters_of(alone, {"errors": "sandwich"}), np.arange(M * N))
    one = fit(block, alone, errors="sandwich")
    two = fit(block, replace(DESIGN, clusters=np.arange(M * N)), errors="sandwich")
    np.testing.assert_array_equal(one.tests["any"].statistic, two.tests["any"].statistic)


def test_each_voxel_alone_is_the_same_bits(block):
    together = fit(block, DESIGN, errors="sandwich")
    for voxel in range(30):
        part = VoxelBlock(block.covered[:, [voxel]], effect=block.effect[:, [voxel]])
        alone = fit(part, DESIGN, errors="sandwich")
        for name, test in together.tests.items():
            for value in ("z", "statistic", "dof"):
                assert getattr(alone.tests[name], value)[0] == getattr(test, value)[voxel]


def test_order_of_maps_and_names_of_clusters_do_not_matter(block):
    order = np.random.default_rng(1).permutation(M * N)
    names = np.random.default_rng(2).permutation(M)
    other = replace(DESIGN, matrix=MATRIX[order], clusters=names[UNIT[order]].astype(np.int64))
    one, two = (
        fit(block, DESIGN, errors="sandwich"),
        fit(VoxelBlock(block.covered[order], effect=block.effect[order]), other, errors="sandwich"),
    )
    for name, test in one.tests.items():
        np.testing.assert_allclose(two.tests[name].z, test.z, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(two.tests[name].dof, test.dof, rtol=1e-8)


SUBJECTS = np.column_stack([np.eye(N)[CONDITION], np.eye(M)[UNIT][:, 1:]])
NAMED = replace(DESIGN, cluster_name="participant_id", formula="0 + C(contrast) + C(participant_id)", repeated=True)
POOLED, ROBUST = {"errors": "pooled"}, {"errors": "sandwich"}


def repeated(matrix, weights, **more):
    test = Test("t", np.atleast_2d(weights))
    return replace(NAMED, matrix=matrix, columns=tuple("abcdefghijklmno"[: matrix.shape[1]]), tests=(test,), **more)


def test_the_default_is_that_of_the_design():
    assert ESTIMATOR.defaults(NAMED) == ROBUST
    assert ESTIMATOR.defaults(replace(NAMED, clusters=None)) == POOLED
    assert ESTIMATOR.defaults(replace(NAMED, clusters=np.arange(M * N))) == POOLED


def test_a_column_of_clusters_is_named():
    of_column = replace(NAMED, cluster_name="cluster", repeated=False)
    assert check(of_column, ROBUST) == (
        "Maps of one cluster are taken to depend on each other: there are 8 clusters, by the column 'cluster'.",
    )


def test_robust_errors_answer_tests_between_subjects():
    assert check(NAMED, ROBUST) == ()
    for weights in ([1.0, 0, 0, 0], [1, 1, 1, 1.5], [0, 0, 0, 1]):
        assert check(repeated(MATRIX, weights), ROBUST) == ()


@pytest.mark.parametrize(
    "weights", [np.eye(10)[0], np.r_[np.ones(3) / 3, np.zeros(7)], np.eye(10)[3:5], np.eye(10)[:2]]
)
def test_subject_columns_leave_nothing_between_subjects(weights):
    with pytest.raises(DataError, match=r"Leave C\(participant_id\) out of the formula") as caught:
        check(repeated(SUBJECTS, weights), ROBUST)
    assert "'t'" in caught.value.message
    # the advice holds
    narrow = np.atleast_2d(weights)[:, :3]
    if narrow.any():
        assert check(repeated(SUBJECTS[:, :3], narrow), ROBUST) == ()


def test_a_column_of_one_subject_alone():
    odd = np.column_stack([np.eye(N)[CONDITION], (UNIT == 2) & (CONDITION == 1)])
    with pytest.raises(DataError, match="one participant alone has"):
        check(repeated(odd, np.eye(4)[3]), ROBUST)
    with pytest.raises(DataError, match="one map alone has"):
        check(replace(repeated(odd, np.eye(4)[3]), clusters=None, cluster_name=""), ROBUST)


def test_more_rows_than_subjects_can_tell():
    few = UNIT < 3
    design = repeated(np.column_stack([np.eye(N)[CONDITION], UNIT % 2])[few], np.eye(4)[:3], clusters=UNIT[few])
    with pytest.raises(
        DataError, match="3 rows, too many for an error that is estimated from 3 independent participants"
    ):
        check(design, ROBUST)


def test_pooled_errors_want_subject_columns_and_tests_within():
    (note,) = check(repeated(SUBJECTS, [1, -1, *np.zeros(8)]), POOLED)
    assert "sphericity" in note
    with pytest.raises(DataError, match=r"Add '\+ C\(participant_id\)'"):
        check(repeated(MATRIX, [1, -1, 0, 0]), POOLED)
    for weights in (np.eye(10)[0], np.eye(10)[4], np.eye(10)[:2]):
        with pytest.raises(DataError, match="only tests within each participant"):
            check(repeated(SUBJECTS, weights), POOLED)
    assert check(replace(repeated(MATRIX, [1, -1, 0, 0]), clusters=None), POOLED) == ()


def test_exchangeability_may_not_part_subjects():
    parted = np.tile(np.arange(N), M)
    with pytest.raises(DataError, match="parts the maps of one participant"):
        check(replace(NAMED, exchangeability=parted), ROBUST)
    assert check(replace(NAMED, exchangeability=UNIT // 2), ROBUST) == ()
    assert check(replace(NAMED, exchangeability=parted, clusters=None), ROBUST) == ()
