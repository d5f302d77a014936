"""z of many relabellings at once, against the fit of each."""

import itertools

import numpy as np
import pytest

from ibma_app.stats.basis import frame_design
from ibma_app.stats.mixed import fit_mixed
from ibma_app.stats.relabelled import MOST, NEAR, SCALINGS, Plan, make_tables, scan_means
from ibma_app.stats.tails import t_to_z
from ibma_app.stats.tau2_nodes import METHODS, Maps, count_nodes, log_reach

TESTS = ("knha", "adhoc", "t", "z")
LIKELIHOODS = ("ml", "reml")


def draw(n_maps, n_voxels, spread=0.4, seed=0, covered=1.0):
    """Effects and variances (K, B) with tau2 from 0 to 100 times the variances, and coverage of three maps or more."""
    rng = np.random.default_rng(seed)
    v = rng.lognormal(0, spread, (n_maps, 1)) * rng.chisquare(15, (n_maps, n_voxels)) / 15
    tau2 = rng.choice([0.0, 0.0, 0.1, 1.0, 10.0, 100.0], n_voxels)
    y = rng.normal(0, np.sqrt(v + tau2)) + rng.choice([0.0, 0.0, 1.0], n_voxels)
    there = rng.random(y.shape) < covered
    there[rng.permuted(np.tile(np.arange(n_maps)[:, None], n_voxels), axis=0) < 3] = True
    return y, v, there


def signs_of(n_maps, n_rows, seed=1):
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n_rows, n_maps))
    signs[0] = 1.0
    return signs


def exact_z(y, v, covered, signs, name, test):
    """(M, B) by a fit of each relabelling; 0 where there is none."""
    frame = frame_design(np.ones((len(y), 1)), [(np.ones((1, 1)), False)])
    dof = covered.sum(axis=0) - 1.0
    rows = []
    for flip in signs:
        t = fit_mixed(flip[:, None] * y, v, covered, frame, name, test).tested.values[0, 2]
        rows.append(t if test == "z" else t_to_z(t, dof))
    return np.array(rows)


def scan(y, v, covered, signs, name, test, *, step=0.5, sides=2, prune=False):
    maps = Maps(np.where(covered, y, 0.0), np.where(covered, v, np.inf))
    method = METHODS[name]
    nodes = count_nodes(float(np.quantile(log_reach(maps, method), 0.99)), step)
    plan = Plan(method, SCALINGS[test], nodes, sides, prune, make_tables(covered.sum(axis=0) - 1))
    return scan_means(plan, maps, signs)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("name", METHODS)
def test_z_is_that_of_each_fit(name, test):
    """Means to 3e-5, the worst of a thousand to 1e-2 of 1 + |z|: what a cubic leaves at these steps (decision 0021)."""
    for n_maps, covered in ((3, 1.0), (5, 1.0), (21, 0.7), (40, 1.0)):
        y, v, there = draw(n_maps, 200, covered=covered, seed=n_maps)
        signs = signs_of(n_maps, 8)
        exact = exact_z(y, v, there, signs, name, test)
        z = scan(y, v, there, signs, name, test).z
        known = ~np.isnan(z)
        assert known.mean() > (0.9 if n_maps == 3 else 0.999)
        error = (np.abs(z - exact) / (1 + np.abs(exact)))[known]
        assert np.median(error) < 5e-5, (n_maps, covered)
        assert np.quantile(error, 0.999) < (0.01 if name in LIKELIHOODS else 2e-3), (n_maps, covered)


@pytest.mark.parametrize("name", ["reml", "dl", "paule-mandel"])
def test_more_nodes_come_closer(name):
    y, v, there = draw(15, 500, spread=1.0)
    signs = signs_of(15, 8)
    exact = exact_z(y, v, there, signs, name, "adhoc")
    errors = [
        np.mean(np.abs(scan(y, v, there, signs, name, "adhoc", step=step).z - exact)) for step in (1.0, 0.5, 0.25)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert fine < coarse / 4


def test_variances_a_million_times_larger_than_others():
    """Studies in units of their own: the log of tau2 has a long way to go, and a voxel may have two optima."""
    rng = np.random.default_rng(3)
    v = 10.0 ** rng.uniform(-3, 3, (21, 1)) * rng.chisquare(15, (21, 500)) / 15
    y = rng.normal(0, np.sqrt(v + 1.0))
    there, signs = np.ones(y.shape, dtype=bool), signs_of(21, 8)
    for name, most in (("reml", 2e-3), ("dl", 1e-3), ("paule-mandel", 1e-3)):
        z = scan(y, v, there, signs, name, "knha").z
        error = np.abs(z - exact_z(y, v, there, signs, name, "knha"))
        assert np.quantile(error, 0.99) < 10 * most
        assert np.median(error) < most


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("sides", [2, 1, -1])
@pytest.mark.parametrize("covered", [1.0, 0.8])
@pytest.mark.parametrize("test", TESTS)
def test_the_highest_is_among_the_candidates(test, covered, sides, prune):
    for name, seed in itertools.product(("reml", "ml", "dl", "sidik-jonkman", "paule-mandel"), range(2)):
        y, v, there = draw(12, 500, spread=1.0, seed=seed, covered=covered)
        signs = signs_of(12, 8, seed)
        exact = exact_z(y, v, there, signs, name, test)
        heights = np.abs(exact) if sides == 2 else sides * exact
        found = scan(y, v, there, signs, name, test, step=0.8, sides=sides, prune=prune)
        assert found.z.shape == ((8, 0) if prune else (8, 500))
        for row, highest in enumerate(heights.argmax(axis=1)):
            listed, promised = found.voxels[row, : found.counts[row]], found.heights[row, : found.counts[row]]
            assert highest in listed, (name, seed, row)
            at = promised[listed == highest][0]
            assert np.isnan(at) or at >= np.nanmax(promised) * (1 - NEAR)
        assert found.counts.max() < MOST


def test_what_single_precision_cannot_tell_is_left_open():
    """One flip of four makes all effects the same: Knapp and Hartung's scale is 0, and rounding all that is left."""
    y = np.array([[1.0], [-1.0], [1.0], [-1.0]]) * np.ones((4, 5)) + 1e-9 * np.arange(5)
    v, there = np.ones(y.shape), np.ones(y.shape, dtype=bool)
    signs = np.array([[1.0, 1, 1, 1], [1, -1, 1, -1]])
    found = scan(y, v, there, signs, "reml", "knha")
    assert np.isfinite(found.z[0]).all()
    assert np.isnan(found.z[1]).all()
    np.testing.assert_array_equal(found.voxels[1, : found.counts[1]], np.arange(5))
    assert np.isfinite(scan(y, v, there, signs, "reml", "adhoc").z).all()


@pytest.mark.parametrize("name", ["reml", "dl", "paule-mandel", "sidik-jonkman"])
def test_neighbours_change_no_bit(name):
    """Nor do mirrored signs, in two tails."""
    y, v, there = draw(10, 300, covered=0.8)
    signs = signs_of(10, 50)
    plan = Plan(METHODS[name], SCALINGS["knha"], 7, 2, False, make_tables(np.arange(1, 10)))

    def z(voxels, rows):
        part = np.ix_(range(10), voxels)
        maps = Maps(np.where(there, y, 0.0)[part], np.where(there, v, np.inf)[part])
        return scan_means(plan, maps, signs[rows]).z

    whole = z(np.arange(300), np.arange(50))
    np.testing.assert_array_equal(z(np.arange(17, 260), np.arange(50)), whole[:, 17:260])
    np.testing.assert_array_equal(z(np.arange(300), np.arange(40, 50)), whole[40:])
    signs = -signs
    np.testing.assert_array_equal(z(np.arange(300), np.arange(50)), -whole)


def test_many_candidates_are_counted_beyond_those_listed():
    y, v, _ = draw(8, 1)
    y, v = np.tile(y, MOST + 10), np.tile(v, MOST + 10)
    found = scan(y, v, np.ones(y.shape, dtype=bool), signs_of(8, 3), "dl", "knha")
    assert (found.counts == MOST + 10).all()
    np.testing.assert_array_equal(found.voxels[0], np.arange(MOST))


def test_far_tails_are_exact():
    """Beyond the end of the table of z, where |r| is nearly 1."""
    rng = np.random.default_rng(5)
    for n_maps in (3, 6, 21):
        v = rng.uniform(0.5, 2, (n_maps, 400))
        y = rng.normal(0, np.sqrt(v)) + np.linspace(5, 20, 400)
        there, signs = np.ones(y.shape, dtype=bool), np.ones((1, n_maps))
        exact = exact_z(y, v, there, signs, "dl", "knha")
        z = scan(y, v, there, signs, "dl", "knha").z
        known = ~np.isnan(z)
        assert known.mean() > 0.5
        np.testing.assert_allclose(z[known], exact[known], rtol=2e-3)
