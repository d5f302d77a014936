"""Hedges' g against the noncentral t it comes from."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.errors import DataError
from ibma_app.stream.hedges_g import (
    Sample,
    Stated,
    describe_dof,
    describe_mixture,
    find_sample,
    hedges_g,
    pool_variances,
)


@pytest.mark.parametrize("sample", [Sample(4, 3), Sample(12, 11), Sample(60, 59), Sample(6.0, 23)])
@pytest.mark.parametrize("true", [0.0, 0.4, -1.2])
def test_g_is_unbiased_and_its_variance_is_that_of_the_noncentral_t(sample, true):
    null = stats.nct(sample.dof, true * np.sqrt(sample.n))
    g_of_one, _ = hedges_g(np.array(1.0), sample)  # g is a multiple of t
    np.testing.assert_allclose(g_of_one * null.mean(), true, atol=1e-10)
    t = true * np.sqrt(sample.n) / (g_of_one * np.sqrt(sample.n))  # the t whose g is the truth
    _, variance = hedges_g(np.array(t), sample)
    np.testing.assert_allclose(variance, g_of_one**2 * null.var(), rtol=1e-8)


def test_samples(observe):
    t = {"t": np.ones((2, 2, 2))}
    assert find_sample(observe("1", t, sample_size=20.0)) == Sample(20, 19)
    assert find_sample(observe("1", t, sample_size=25.0), Stated(10, 15)) == Sample(6, 23, two_groups=True)
    assert find_sample(observe("1", t, sample_size=40.0), Stated(10, 15)) == Sample(6, 23, two_groups=True)  # of three
    for few in (observe("1", t, sample_size=3.0), observe("1", t)):
        with pytest.raises(DataError, match="sub-1"):
            find_sample(few)


def test_degrees_of_freedom_are_those_of_the_map(observe):
    t = {"t": np.ones((2, 2, 2))}
    own = {"sample_size": 40.0, "dof_source": "sidecar"}
    assert find_sample(observe("1", t, **own, dof=39.0)) == Sample(40, 39)
    assert find_sample(observe("1", t, **own, dof=36.0)) == Sample(40, 36)
    assert find_sample(observe("1", t, **own, dof=36.0), Stated(design="paired")) == Sample(40, 36)
    assert find_sample(observe("1", t, **own, dof=37.0), Stated(20, 20)) == Sample(10, 37, two_groups=True)
    assert find_sample(observe("1", t, sample_size=40.0, dof=39.0, dof_source="SampleSize - 1")) == Sample(40, 39)


def test_a_map_that_may_be_of_two_groups_is_asked_about(observe):
    observation = observe("1", {"t": np.ones((2, 2, 2))}, sample_size=40.0, dof=38.0, dof_source="sidecar")
    with pytest.raises(DataError, match=r"two groups, or of one with a covariate.*n1 and n2"):
        find_sample(observation)
    assert find_sample(observation, Stated(design="one-sample")) == Sample(40, 38)
    with pytest.raises(DataError, match="sizes of both groups"):
        find_sample(observation, Stated(design="two-sample"))
    with pytest.raises(DataError, match="one-sample, paired, two-sample"):
        find_sample(observation, Stated(design="between"))


def test_more_dof_than_people_are_noted(observe):
    rows = [
        observe(str(dof), {"t": np.ones((2, 2, 2))}, sample_size=20.0, dof=dof, dof_source="sidecar")
        for dof in (19.0, 12.0, 60.0)
    ]
    samples = [find_sample(row) for row in rows]
    assert [sample.dof for sample in samples] == [19, 12, 60]
    assert "sub-60.0" in describe_dof(rows, samples)
    assert "sub-12" not in describe_dof(rows, samples)
    assert describe_dof(rows[:2], samples[:2]) is None


def test_a_mixture_of_designs_is_noted():
    assert describe_mixture([Sample(20, 19)] * 3) is None
    assert describe_mixture([Sample(10, 38, two_groups=True)] * 3) is None
    assert "1 of 3 studies" in describe_mixture([Sample(20, 19), Sample(20, 19), Sample(10, 38, two_groups=True)])


def test_pooled_variances_are_those_of_the_weighted_mean_over_what_is_covered():
    samples = [Sample(10, 9), Sample(30, 29), Sample(6, 23, two_groups=True), Sample(12, 11), Sample(20, 19)]
    g = np.array([[0.2, 0.5], [1.0, 0.7], [0.4, 0.0], [0.1, 0.3], [0.6, 0.9]])
    covered = np.ones(g.shape, dtype=bool)
    covered[2, 1] = False
    n = np.array([sample.n for sample in samples])
    mean = [(n * g[:, 0]).sum() / n.sum(), (n * g[:, 1]).sum() / (n.sum() - 6)]
    found = pool_variances(g, covered, samples)
    few = pool_variances(g[:4], covered[:4], samples[:4])
    for row, sample in enumerate(samples):
        factor = hedges_g(np.array(1.0), sample)[0]  # g of a t of 1
        for column in np.flatnonzero(covered[row]):
            expected = hedges_g(np.array(mean[column] / factor), sample)[1]
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-12)
            if row < 4:  # fewer than five studies: each one's own g
                own = hedges_g(np.array(g[row, column] / factor), sample)[1]
                np.testing.assert_allclose(few[row, column], own, rtol=1e-12)
    assert found[2, 1] == few[2, 1] == 0
