"""The estimator multilevel: degrees of freedom, clusters of one map, coverage, refusals. Its numbers: tests/stats."""

from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.estimators import find_estimator

MULTILEVEL = find_estimator("multilevel")
CLUSTERS = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
K = CLUSTERS.size


def design_of(matrix, *tests, clusters=CLUSTERS):
    return Design(
        matrix, tuple(f"c{i}" for i in range(matrix.shape[1])), tests, clusters=clusters, cluster_name="cluster"
    )


def mean(clusters=CLUSTERS):
    return design_of(np.ones((clusters.size, 1)), Test("mean", np.eye(1)), clusters=clusters)


@pytest.fixture
def block():
    rng = np.random.default_rng(11)
    v = rng.uniform(0.1, 0.6, (K, 30))
    y = (
        0.4
        + rng.normal(size=(6, 30))[CLUSTERS] * 0.6
        + rng.normal(size=(K, 30)) * 0.4
        + rng.normal(size=v.shape) * v**0.5
    )
    return VoxelBlock(np.ones(v.shape, dtype=bool), effect=y, variance=v)


def test_dof_between_and_within(block):
    """Between: clusters less columns. Within (balanced): maps less clusters and columns within, as a paired t."""
    pairs, clusters = slice(0, 8), CLUSTERS[:8]
    condition = np.tile([-1.0, 1.0], 4)
    between = np.array([0.0, 1.0, 2.0, 4.0])[clusters]
    matrix = np.column_stack([np.ones(8), condition, between])
    tests = (Test("within", np.eye(3)[1:2]), Test("between", np.eye(3)[2:]), Test("both", np.eye(3)[1:], is_f=True))
    part = VoxelBlock(block.covered[pairs], effect=block.effect[pairs], variance=np.full((8, 30), 0.3))
    found = MULTILEVEL.fit(part, design_of(matrix, *tests, clusters=clusters))
    assert set(found.tests["within"].dof) == {3.0}  # 8 maps - 4 clusters - 1
    assert set(found.tests["between"].dof) == {1.0}  # 4 clusters - 3 columns
    assert set(found.tests["both"].dof) == {1.0}
    halves = part.effect[1::2] - part.effect[::2]
    paired = halves.mean(axis=0) / 2
    np.testing.assert_allclose(found.tests["within"].effect, paired, rtol=1e-12)
    error = np.maximum(halves.var(axis=0, ddof=1) / 2, 0.3) / 8  # omega2 is not below 0
    free = found.tau2 > 0  # else the error of differences and that of means are one estimate
    assert free.sum() > 5
    np.testing.assert_allclose(found.tests["within"].variance[free], error[free], rtol=1e-8)


def test_one_map_per_cluster_is_reml(block):
    alone = np.arange(K)
    found, known = MULTILEVEL.fit(block, mean(alone)), find_estimator("reml").fit(block, mean(alone), test="t")
    np.testing.assert_allclose(found.tau2, known.tau2, rtol=1e-7, atol=1e-9)
    assert not found.omega2.any()
    np.testing.assert_allclose(found.i2, known.i2, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.tests["mean"].z, known.tests["mean"].z, rtol=1e-7)
    np.testing.assert_allclose(found.piupper, known.piupper, rtol=1e-7)
    (note,) = MULTILEVEL.check(mean(alone), {"errors": "model"})
    assert "column cluster" in note


@pytest.mark.parametrize("errors", ["model", "sandwich"])
def test_voxels_are_fitted_to_the_maps_that_cover_them(block, errors):
    rng = np.random.default_rng(3)
    covered = rng.random((K, 30)) > 0.3
    found = MULTILEVEL.fit(replace(block, covered=covered), mean(), errors=errors)
    for b in range(30):
        rows = covered[:, b]
        _, clusters = np.unique(CLUSTERS[rows], return_inverse=True)
        part = VoxelBlock(np.ones((rows.sum(), 1), dtype=bool), effect=block.effect[rows, b : b + 1],
                          variance=block.variance[rows, b : b + 1])  # fmt: skip
        alone = MULTILEVEL.fit(part, mean(clusters), errors=errors)
        for name in ("tau2", "omega2", "i2", "q"):
            np.testing.assert_allclose(getattr(found, name)[b], getattr(alone, name)[0], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.tests["mean"].z[b], alone.tests["mean"].z[0], rtol=1e-7, atol=1e-9)
        if errors == "model":
            assert found.tests["mean"].dof[b] == clusters.max()


def test_a_voxel_of_one_cluster_has_no_test(block):
    covered = np.zeros((K, 30), dtype=bool)
    covered[:2] = True
    for errors in ("model", "sandwich"):
        found = MULTILEVEL.fit(replace(block, covered=covered), mean(), errors=errors)
        assert not found.tests["mean"].estimable.any()
        assert not found.tests["mean"].z.any()


def test_what_rests_on_too_few_clusters_is_refused():
    one = mean(np.zeros(4, dtype=np.int64))
    with pytest.raises(DataError, match="no degrees of freedom: 1 independent clusters"):
        MULTILEVEL.check(one, {"errors": "model"})
    with pytest.raises(DataError, match="no cluster-robust error with 1 independent clusters"):
        MULTILEVEL.check(one, {"errors": "sandwich"})
    parted = replace(mean(), exchangeability=np.arange(K))
    with pytest.raises(DataError, match="parts the maps of one cluster"):
        MULTILEVEL.check(parted, {"errors": "model"})
    many = np.repeat(np.arange(20), 2)
    assert MULTILEVEL.check(mean(many), {"errors": "model"}) == ()


@pytest.mark.parametrize(("errors", "of_mean"), [("model", "5.6"), ("sandwich", "5.7")])
def test_few_clusters_are_warned_of_with_what_was_measured(errors, of_mean):
    (note,) = MULTILEVEL.check(mean(), {"errors": errors})
    assert "from 6 clusters: they are hardly known" in note
    assert f"up to {of_mean} of 100 voxels had p < .05 in the test of the mean" in note
    matrix = np.column_stack([np.ones(K), np.arange(K)])
    (note,) = MULTILEVEL.check(design_of(matrix, Test("x", np.eye(2)[1:])), {"errors": errors})
    assert ("6.4 in tests of covariates" in note) == (errors == "model")
    assert ("[estimator.multilevel]" in note) == (errors == "model")


def test_thirty_clusters_are_warned_of_where_covariates_are_tested():
    clusters = np.repeat(np.arange(30), 2)
    design = design_of(np.column_stack([np.ones(60), np.arange(60)]), Test("x", np.eye(2)[1:]), clusters=clusters)
    (note,) = MULTILEVEL.check(design, {"errors": "model"})
    assert "from 30 clusters: with 30 clusters" in note
    assert "5.6 of 100 voxels had p < .05 in the test of a covariate of maps" in note
    assert MULTILEVEL.check(design, {"errors": "sandwich"}) == ()
    assert MULTILEVEL.check(mean(clusters), {"errors": "model"}) == ()


def test_one_cluster_of_several_maps_is_warned_of():
    clusters = np.append(np.arange(24), 3)
    labels = tuple(f"c{i}" for i in clusters)
    (note,) = MULTILEVEL.check(replace(mean(clusters), cluster_labels=labels), {"errors": "model"})
    assert "one cluster alone (c3) has several maps, 2." in note


def test_robust_and_model_errors_agree_on_average():
    """Where the model holds both errors are estimates of one variance: their means over many voxels agree."""
    rng = np.random.default_rng(8)
    clusters = np.repeat(np.arange(12), 3)
    v = np.full((36, 4000), 0.2)
    y = rng.normal(size=(12, 4000))[clusters] * 0.5 + rng.normal(size=v.shape) * np.sqrt(0.2 + 0.1)
    block = VoxelBlock(np.ones(v.shape, dtype=bool), effect=y, variance=v)
    model, robust = (MULTILEVEL.fit(block, mean(clusters), errors=one).tests["mean"] for one in ("model", "sandwich"))
    np.testing.assert_allclose(model.effect, robust.effect, atol=1e-12)
    true = (0.25 + 0.3 / 3) / 12
    assert model.variance.mean() == pytest.approx(true, rel=0.03)
    assert robust.variance.mean() == pytest.approx(true, rel=0.03)
    np.testing.assert_allclose(robust.dof, 11.0, rtol=1e-9)
