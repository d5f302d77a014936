"""Ranks within nulls, and the smallest p of several."""

import numpy as np
import pytest

from ibma_app.stats.min_p import join_nulls, p_of_null


def test_p_is_the_share_that_reaches_a_score():
    p = p_of_null(np.array([0.0, 2.0, 4.0, 9.0]), np.array([4.0, 1.0, 2.0, 3.0]))
    assert p.tolist() == [1.0, 0.75, 0.25, 0.25]


def test_the_smallest_p_is_joint_whatever_the_units():
    rng = np.random.default_rng(3)
    null, other = rng.gamma(2.0, size=200), rng.gamma(2.0, size=200)
    areas, volumes = np.array([null[0], 0.5, 0.0]), np.array([0.0, 0.0, other[0]])
    observed, maxima = join_nulls([areas, volumes], [null, other])
    larger, _ = join_nulls([areas, 1e6 * volumes], [null, 1e6 * other])
    np.testing.assert_allclose(larger, observed, rtol=1e-12)
    smallest = [min((null >= a).mean(), (other >= b).mean()) for a, b in zip(null, other, strict=True)]
    np.testing.assert_allclose(maxima, -np.log10(smallest), rtol=1e-12)
    assert maxima[0] == pytest.approx(observed.max())
    assert observed[1] == pytest.approx(-np.log10((null >= 0.5).mean()))


def test_joint_p_are_uniform_under_the_null():
    rng = np.random.default_rng(4)
    drawn, p = 199, []
    for _ in range(2000):
        shared = rng.standard_normal(drawn)
        maxima = [shared + rng.standard_normal(drawn), np.exp(rng.standard_normal(drawn))]
        observed, joint = join_nulls([one[:1] for one in maxima], maxima)
        p.append(p_of_null(observed, joint)[0])
    # at most the level: ranks tie; three standard errors of 2,000 draws
    shares = np.array([np.mean(np.array(p) <= level + 1e-9) for level in (0.05, 0.2, 0.5)])
    assert (shares <= np.array([0.05, 0.2, 0.5]) + 3 * np.sqrt([0.05 * 0.95, 0.16, 0.25]) / np.sqrt(2000)).all()
    assert (shares >= np.array([0.05, 0.2, 0.5]) - 0.03).all()
