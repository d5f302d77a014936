"""Correlations of many maps against numpy and pandas, tile by tile as at once."""

import numpy as np
import pandas as pd
import pytest

from ibma_app.stats import correlations
from ibma_app.stats.correlations import correlate_maps

# float32 data and products of 500 voxels: rounding of 6e-8 grows to less than 1e-6
TOLERANCE = {"rtol": 0, "atol": 2e-6}


def some_maps(n_maps=7, n_voxels=500, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n_voxels)
    return (rng.normal(size=(n_maps, n_voxels)) * 30 + 20 * signal + 1000).astype(np.float32)


def references(values):
    """Return (K, K) by pandas, pairs over what both cover, and the correlation with the mean of the others."""
    r = pd.DataFrame(values.T.astype(float)).corr(min_periods=100).to_numpy(copy=True)
    return np.where(np.eye(len(r), dtype=bool), np.nan, r)


@pytest.mark.parametrize("tile", [256, 3])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_pairs_are_those_of_pandas(monkeypatch, tile, missing):
    monkeypatch.setattr(correlations, "TILE", tile)
    values = some_maps()
    values[np.random.default_rng(1).random(values.shape) < missing] = np.nan
    found = correlate_maps(values, np.arange(7), 2.0)
    np.testing.assert_allclose(found.means, references(values), **TOLERANCE)
    assert len(found.alike) == 0


def test_agreement_is_the_correlation_with_the_mean_of_the_others():
    values = some_maps().astype(float)
    found = correlate_maps(values.astype(np.float32), np.arange(7), 2.0)
    standard = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    expected = [np.corrcoef(one, np.delete(standard, i, axis=0).mean(axis=0))[0, 1] for i, one in enumerate(standard)]
    np.testing.assert_allclose(found.agreement, expected, **TOLERANCE)


def test_groups_get_the_mean_of_their_pairs():
    values = some_maps()
    groups = np.array([0, 0, 0, 1, 1, 2, 2])
    found = correlate_maps(values, groups, 2.0)
    pairs = references(values)
    expected = [[np.nanmean(pairs[np.ix_(groups == a, groups == b)]) for b in range(3)] for a in range(3)]
    np.testing.assert_allclose(found.means, expected, **TOLERANCE)


def test_pairs_alike_are_listed_whatever_their_scale_and_sign():
    values = some_maps(n_maps=300)
    values[280] = 0.001 * values[3]
    values[7] = -5 * values[299] + 4
    found = correlate_maps(values, np.zeros(300, dtype=int), 0.999)
    assert found.alike.tolist() == [[3, 280], [7, 299]]
    np.testing.assert_allclose(found.alike_r, [1, -1], **TOLERANCE)


def test_what_cannot_correlate_is_not_a_number():
    values = some_maps()
    values[2] = 0.1  # constant
    values[4, 60:] = np.nan  # too few voxels
    found = correlate_maps(values, np.arange(7), 0.9)
    undefined = np.isnan(found.means)
    np.fill_diagonal(undefined, val=False)
    assert np.flatnonzero(undefined.all(axis=1) | (undefined.sum(axis=1) == 6)).tolist() == [2, 4]
    assert np.isnan(found.agreement).nonzero()[0].tolist() == [2, 4]
    assert np.isfinite(found.agreement[[0, 1, 3, 5, 6]]).all()
