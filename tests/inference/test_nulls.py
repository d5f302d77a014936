"""What a page keeps of a null: counts, the observed score, and how many reach it."""

import numpy as np
import pytest

from ibma_app.core.estimate import Null
from ibma_app.core.inference_facts import Relabelling
from ibma_app.inference.nulls import BINS, summarise_null


def make_null(maxima, observed):
    return Null({"tfce": np.asarray(maxima, dtype=float)}, {"tfce": np.asarray(observed, dtype=float)},
                exhaustive=False, relabelling=Relabelling(flips=True, of="maps"))  # fmt: skip


def test_counts_are_those_of_the_maxima():
    maxima = np.random.default_rng(0).gumbel(5, 1, 1000)
    maxima[0] = 6.0
    found = summarise_null(make_null(maxima, [6.0, 1.0, -2.0]), "tfce", 7.9)
    expected, edges = np.histogram(maxima, bins=BINS)
    assert found.counts == tuple(expected)
    assert (found.low, found.high) == (edges[0], edges[-1])
    assert (found.observed, found.reached, found.resamples) == (6.0, (maxima >= 6.0).sum(), 1000)
    assert found.threshold == 7.9


def test_an_observed_score_far_out_leaves_the_bins_to_the_null():
    maxima = np.r_[900.0, np.linspace(1, 3, 97), 50.0, 900.0]  # the identity and its mirror image
    found = summarise_null(make_null(maxima, [900.0]), "tfce")
    assert found.high == 3.0
    assert sum(found.counts) == 97
    assert (found.reached, found.resamples, found.threshold) == (2, 100, None)


@pytest.mark.parametrize("observed", [[0.0, 0.0], []])
def test_a_null_of_nothing(observed):
    found = summarise_null(make_null(np.zeros(10), observed), "tfce")
    assert sum(found.counts) == 10
    assert found.reached == 10
