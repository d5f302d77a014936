"""Hedges' g against the noncentral t it comes from."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.errors import DataError
from ibma_app.stream.hedges_g import Sample, find_sample, hedges_g


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
    assert find_sample(observe("1", t, sample_size=20.0), 10, 15) == Sample(6, 23)
    for few in (observe("1", t, sample_size=3.0), observe("1", t)):
        with pytest.raises(DataError, match="sub-1"):
            find_sample(few)
