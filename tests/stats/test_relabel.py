"""Partition of designs, relabellings, and the table from t and F to z."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ibma_app.stats.partition import constant_within, partition_design, residuals, same_rows
from ibma_app.stats.relabel import (
    count_permutations,
    flip_signs,
    generator,
    permute,
    rows_within,
    whole_blocks,
    whole_clusters,
)
from ibma_app.stats.ztable import make_ztable, share_of_z, z_from_table


@pytest.fixture
def design():
    rng = np.random.default_rng(0)
    return np.column_stack([np.ones(12), rng.normal(40, 9, 12), rng.normal(100, 15, 12), np.repeat([0, 1], 6)])


@pytest.mark.parametrize("weights", [[[0, 1, -1, 0]], [[1, 0, 0, 0.5]], [[0, 1, 0, 0], [0, 0, 1, 0]], np.eye(4)])
def test_the_effective_coefficients_are_the_contrast(design, weights):
    weights = np.array(weights, dtype=float)
    parts = partition_design(design, weights)
    y = np.random.default_rng(1).normal(size=(12, 5))
    both = np.column_stack(parts)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    turned = np.linalg.lstsq(both, y, rcond=None)[0]
    np.testing.assert_allclose(turned[: len(weights)], weights @ beta, rtol=1e-9, atol=1e-12)
    assert both.shape == design.shape
    np.testing.assert_allclose(parts.effective.T @ parts.nuisance, 0, atol=1e-10)
    np.testing.assert_allclose(parts.nuisance.T @ parts.nuisance, np.eye(parts.nuisance.shape[1]), atol=1e-12)


def test_redundant_rows_change_nothing(design):
    rows = np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0]])
    more = np.vstack([rows, rows.sum(axis=0)])
    one, other = partition_design(design, rows), partition_design(design, more)
    assert other.effective.shape == (12, 2)
    np.testing.assert_allclose(one.nuisance @ one.nuisance.T, other.nuisance @ other.nuisance.T, atol=1e-10)


def test_signs_are_flipped_where_permuting_would_change_nothing(design):
    all_of_them = np.zeros(12, dtype=np.int64)
    flips = {
        (1, 0, 0, 0): True,  # the mean at age 0, beside age, iq and group
        (0, 1, 0, 0): False,
        (0, 1, -1, 0): False,
        (0, 0, 0, 1): False,
        (1, 0, 0, 1): True,  # the other group's mean
    }
    for weights, expected in flips.items():
        parts = partition_design(design, np.array([weights], dtype=float))
        assert constant_within(parts, all_of_them) == expected, weights
    # a covariate of the site, when maps are exchanged within sites
    parts = partition_design(design, np.array([[0, 0, 0, 1.0]]))
    assert constant_within(parts, np.repeat([0, 1], 6))


def test_residuals_follow_coverage():
    rng = np.random.default_rng(2)
    y, covered = rng.normal(size=(7, 40)), rng.random((7, 40)) < 0.8
    nuisance = np.linalg.qr(np.column_stack([np.ones(7), rng.normal(size=7)]))[0]
    left = residuals(y, covered, nuisance)
    for b in range(40):
        there = covered[:, b]
        beta = np.linalg.lstsq(nuisance[there], y[there, b], rcond=None)[0]
        np.testing.assert_allclose(left[there, b], y[there, b] - nuisance[there] @ beta, atol=1e-12)
        np.testing.assert_array_equal(left[~there, b], y[~there, b])


def test_rows_that_differ_by_rounding_are_one_row():
    matrix = np.array([[1, 0.1 + 0.2], [1, 0.3], [1, 0.4], [2, 0.3]])
    labels = same_rows(matrix)
    assert labels[0] == labels[1]
    assert len(set(labels.tolist())) == 3
    assert (same_rows(np.empty((3, 0))) == 0).all()


def test_all_flips_or_random_ones():
    every = flip_signs(5, None, 32, 0, symmetric=False)
    assert every.exhaustive
    assert {tuple(row) for row in every.signs.tolist()} == set(itertools.product([1, -1], repeat=5))
    assert (every.signs[0] == 1).all()
    half = flip_signs(5, None, 32, 0, symmetric=True)
    assert (half.n_drawn, half.size, half.mirrored) == (16, 32, True)
    both = np.vstack([half.signs, -half.signs])
    assert len({tuple(row) for row in both.tolist()}) == 32
    some = flip_signs(5, None, 31, 0, symmetric=True)
    assert (some.exhaustive, some.size) == (False, 31)
    assert (some.signs[0] == 1).all()
    more = flip_signs(5, None, 31, 1, symmetric=True)
    assert not np.array_equal(some.signs, more.signs)
    longer = flip_signs(70, None, 50, 1, symmetric=True)
    np.testing.assert_array_equal(longer.signs[:20], flip_signs(70, None, 20, 1, symmetric=True).signs)
    blocks = np.array([3, 3, 9, 9])
    assert len({tuple(row) for row in flip_signs(4, blocks, 4, 0, symmetric=False).signs.tolist()}) == 4


def test_all_distinct_permutations():
    labels = np.array([0, 0, 1, 1, 1])
    found = permute(labels, rows_within(np.zeros(5)), 10, 0)
    assert (found.exhaustive, found.size) == (True, 10)
    assert len({tuple(labels[row]) for row in found.orders}) == 10
    np.testing.assert_array_equal(found.orders[0], np.arange(5))
    assert all(sorted(row) == [0, 1, 2, 3, 4] for row in found.orders.tolist())
    every = permute(np.arange(5), rows_within(np.zeros(5)), 120, 0)
    assert {tuple(row) for row in every.orders.tolist()} == set(itertools.permutations(range(5)))


def test_permutations_stay_within_blocks():
    blocks = np.array([0, 0, 0, 1, 1, 2])
    every = permute(np.arange(6), rows_within(blocks), 12, 0)
    assert (every.exhaustive, every.size) == (True, 12)
    some = permute(np.arange(6), rows_within(blocks), 11, 0)
    assert not some.exhaustive
    for found in (every, some):
        assert (blocks[found.orders] == blocks).all()


def test_whole_blocks_change_places():
    blocks = np.array([0, 0, 1, 1, 2, 2, 3])
    every = permute(np.arange(7), whole_blocks(blocks), 6, 0)
    assert (every.exhaustive, every.size) == (True, 6)
    for found in (every, permute(np.arange(7), whole_blocks(blocks), 5, 0)):
        pairs = found.orders[:, :6].reshape(-1, 3, 2)
        assert (pairs[:, :, 1] - pairs[:, :, 0] == 1).all()
        assert (found.orders[:, 6] == 6).all()


def test_whole_clusters_change_places_with_those_of_their_pattern():
    clusters = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3])
    places = np.array([0, 0, 1, 1, 1, 0, 2, 2, 1])  # cluster 2 lacks condition 2, its rows stand in another order
    everywhere = np.zeros(9, dtype=int)
    slots = whole_clusters(clusters, places, clusters, everywhere)
    assert [slot.tolist() for slot in slots] == [[[0, 3, 6], [1, 4, 7]], [[5, 2]], [[8]]]
    assert count_permutations(np.arange(9), slots) == 2
    found = permute(np.arange(9), slots, 10, 0)
    assert found.orders.tolist() == [list(range(9)), [1, 0, 2, 4, 3, 5, 7, 6, 8]]
    apart = whole_clusters(clusters, places, clusters, np.where(clusters == 1, 1, 0))
    assert count_permutations(np.arange(9), apart) == 1


def test_families_change_places_with_families_like_them():
    clusters = np.array([0, 0, 1, 2, 3, 3])  # subjects: of family 0 one with both conditions, one with one
    families = np.array([0, 0, 0, 1, 1, 1])
    places = np.array([0, 1, 0, 0, 0, 1])
    (slot,) = whole_clusters(clusters, places, families, np.zeros(6, dtype=int))
    assert slot.tolist() == [[2, 0, 1], [3, 4, 5]]  # who has one condition stands for who has one


def test_random_numbers_are_keyed_by_seed_and_index():
    assert generator(1, 2).integers(0, 1000, 5).tolist() == generator(1, 2).integers(0, 1000, 5).tolist()
    assert generator(1, 2).integers(0, 1000, 5).tolist() != generator(2, 1).integers(0, 1000, 5).tolist()


@pytest.mark.parametrize("dof", [1, 2, 7, 19, 300, 20_000])
def test_the_table_is_the_function(dof):
    rng = np.random.default_rng(dof)
    t = np.abs(np.r_[stats.t.rvs(dof, size=4000, random_state=rng), 10 ** rng.uniform(-8, 1.5, 2000)])
    found = z_from_table(t**2, np.full(t.size, float(dof)), make_ztable(dof))
    log_p = stats.t.logsf(t, dof)
    # scipy's tails are exact to about 1e-8 there
    known = (t > 0.1) & (log_p > -600)
    np.testing.assert_allclose(stats.norm.logsf(found[known]), log_p[known], rtol=1e-7)
    order = np.argsort(t)
    assert (np.diff(found[order]) >= 0).all()


@pytest.mark.parametrize("rows", [2, 3])
def test_the_table_of_f(rows):
    f = stats.f.rvs(rows, 15, size=3000, random_state=1)
    found = z_from_table(f * rows, np.full(f.size, 15.0), make_ztable(15, rows))
    np.testing.assert_allclose(found, stats.norm.isf(stats.f.sf(f, rows, 15)), rtol=1e-6, atol=1e-6)


def test_the_share_at_which_z_is_reached():
    table = make_ztable(19)
    t = stats.t.isf(stats.norm.sf(3.1), 19)
    np.testing.assert_allclose(share_of_z(3.1, table), t / np.sqrt(t**2 + 19), rtol=1e-9)


def test_no_residual_is_no_z():
    assert z_from_table(np.array([1.0, 0.0]), np.array([1e-16, 0.0]), make_ztable(5)).tolist() == [0.0, 0.0]
