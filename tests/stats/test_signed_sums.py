"""Sums of changed signs, against plain sums in double precision."""

import numpy as np
import pytest

from ibma_app.stats.signed_sums import largest_sums, list_beyond, make_bounds, new_beyond, scale_terms, sum_all


@pytest.fixture
def drawn(rng):
    """Signs (M, K), and terms (K, N) of sizes from 1e-20 to 1e20."""
    signs = rng.choice([-1.0, 1.0], (37, 11))
    terms = rng.normal(size=(11, 5000)).astype(np.float32) * np.exp2(rng.integers(-66, 66, 5000).astype(float))
    terms[:, 7] = 0.0
    return signs, terms


def test_all_sums_are_plain_sums(drawn):
    signs, terms = drawn
    kept = scale_terms(terms)
    assert np.abs(kept.values).max() < 1.0
    for row in signs[:3]:
        plain = np.sum(row[:, None] * terms, axis=0)
        size = np.maximum(np.abs(terms).sum(axis=0), 1e-30)
        np.testing.assert_allclose(sum_all(row, kept) / size, plain / size, rtol=0, atol=1e-14)
    np.testing.assert_allclose(largest_sums(kept), np.abs(terms).sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("two_sided", [True, False])
def test_no_sum_beyond_its_bound_is_missed_and_few_others_are_listed(drawn, rng, two_sided):
    signs, terms = drawn
    kept = scale_terms(terms)
    least = rng.uniform(0.2, 0.6, 5000) * largest_sums(kept)
    beyond = new_beyond(40, 5000)
    list_beyond(signs, kept, make_bounds(least, kept), two_sided=two_sided, beyond=beyond)
    for row, one in enumerate(signs):
        sums = sum_all(one, kept)
        size = np.abs(sums) if two_sided else sums
        listed = beyond.voxels[row, : beyond.counts[row]]
        assert set(np.flatnonzero(size >= least)) <= set(listed)
        assert (size[listed] >= least[listed] - 1e-5 * largest_sums(kept)[listed]).all()
        np.testing.assert_array_equal(beyond.sums[row, : beyond.counts[row]], sums[listed])  # the same bits


def test_what_does_not_fit_is_counted(drawn):
    signs, terms = drawn
    kept = scale_terms(terms)
    beyond = new_beyond(40, 3)
    list_beyond(signs, kept, make_bounds(np.zeros(5000), kept), two_sided=True, beyond=beyond)
    assert (beyond.counts[:37] == 5000).all()
