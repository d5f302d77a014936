"""z of relabelled regressors beside a nuisance, many at once, against the fit of each."""

import numpy as np
import pytest

from ibma_app.stats.basis import frame_design
from ibma_app.stats.mixed import fit_mixed
from ibma_app.stats.partition import partition_design
from ibma_app.stats.relabelled import NEAR, SCALINGS, Plan, make_tables, scan_designs
from ibma_app.stats.tails import t_to_z
from ibma_app.stats.tau2_nodes import METHODS, Maps, count_nodes
from ibma_app.stats.tau2_nuisance import survey_design

TESTS = ("knha", "adhoc", "t", "z")


def draw(n_maps, n_voxels, spread=0.4, seed=0, covered=1.0):
    """Effects and variances (K, B), tau2 from 0 to 100 times the variances; at least 7 maps cover a voxel."""
    rng = np.random.default_rng(seed)
    v = rng.lognormal(0, spread, (n_maps, 1)) * rng.chisquare(15, (n_maps, n_voxels)) / 15
    tau2 = rng.choice([0.0, 0.0, 0.1, 1.0, 10.0, 100.0], n_voxels)
    y = rng.normal(0, np.sqrt(v + tau2)) + 2.0
    there = rng.random(y.shape) < covered
    there[rng.permuted(np.tile(np.arange(n_maps)[:, None], n_voxels), axis=0) < 7] = True
    return y, v, there


def design_of(kind, n_maps, seed=0):
    """A design (K, P) and the weights of its test."""
    rng = np.random.default_rng(seed)
    ones, age = np.ones(n_maps), rng.normal(40, 9, n_maps)
    group = (np.arange(n_maps) % 3 == 0).astype(float)
    designs = {
        "slope": ([ones, age], [0.0, 1.0]),
        "groups": ([ones, group], [0.0, 1.0]),
        "adjusted": ([ones, group, age, rng.normal(size=n_maps)], [0.0, 1.0, 0.0, 0.0]),
        "dummies": ([ones, age, group, (np.arange(n_maps) % 5 == 1).astype(float)], [0.0, 1.0, 0.0, 0.0]),
    }
    columns, weights = designs[kind]
    return np.column_stack(columns), np.array([weights])


def relabel(kind, n_maps, n_rows, seed=1):
    """The tested regressors (M, K), permuted, of norm 1, and the nuisance (P, K)."""
    partition = partition_design(*design_of(kind, n_maps))
    rng = np.random.default_rng(seed)
    orders = [np.arange(n_maps), *(rng.permutation(n_maps) for _ in range(n_rows - 1))]
    x = np.array([partition.effective[order, 0] for order in orders])
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True)), np.ascontiguousarray(partition.nuisance.T)


def exact_fits(y, v, covered, regressors, nuisance, name, test):
    """z (M, B) and where it is estimable, by a fit of each relabelling."""
    rows, estimable = [], []
    for x in regressors:
        matrix = np.column_stack([x, nuisance.T])
        frame = frame_design(matrix, [(np.eye(1, matrix.shape[1]), False)])
        fit = fit_mixed(y, v, covered, frame, name, test)
        t = fit.tested.values[0, 2]
        dof = np.maximum(fit.counts[0] - fit.counts[1], 1).astype(float)
        rows.append(t if test == "z" else t_to_z(t, dof))
        estimable.append(fit.tested.estimable[0])
    return np.array(rows), np.array(estimable)


def scan(y, v, covered, regressors, nuisance, name, test, *, step=0.5, sides=2, prune=False):
    maps = Maps(np.where(covered, y, 0.0), np.where(covered, v, np.inf))
    reach, dof = survey_design(maps, nuisance, METHODS[name])
    tables = make_tables(dof.astype(np.int64))
    nodes = count_nodes(float(np.quantile(reach, 0.99)), step)
    return scan_designs(Plan(METHODS[name], SCALINGS[test], nodes, sides, prune, tables), maps, regressors, nuisance)


@pytest.mark.parametrize("kind", ["slope", "groups", "adjusted"])
@pytest.mark.parametrize("name", METHODS)
def test_z_is_that_of_each_fit(name, kind):
    for test, n_maps, covered in (("knha", 10, 1.0), ("adhoc", 21, 1.0), ("t", 21, 0.8), ("z", 12, 0.9)):
        y, v, there = draw(n_maps, 200, covered=covered, seed=n_maps)
        regressors, nuisance = relabel(kind, n_maps, 6)
        exact, estimable = exact_fits(y, v, there, regressors, nuisance, name, test)
        z = scan(y, v, there, regressors, nuisance, name, test).z
        known = ~np.isnan(z) & estimable
        assert known.mean() > 0.98, (test, n_maps)
        error = (np.abs(z - exact) / (1 + np.abs(exact)))[known]
        assert np.median(error) < 1e-4, (test, n_maps)
        assert np.quantile(error, 0.998) < 0.015, (test, n_maps)


@pytest.mark.parametrize("name", ["reml", "hedges", "dl", "sidik-jonkman"])
def test_columns_that_few_maps_carry_may_be_lost(name):
    """Where no map of a group covers a voxel, its column is no column there: rank and dof follow the voxel."""
    y, v, there = draw(15, 300, covered=0.55)
    regressors, nuisance = relabel("dummies", 15, 6)
    exact, estimable = exact_fits(y, v, there, regressors, nuisance, name, "adhoc")
    maps = Maps(np.where(there, y, 0.0), np.where(there, v, np.inf))
    _, dof = survey_design(maps, nuisance, METHODS[name])
    rank = [np.linalg.matrix_rank(nuisance.T[there[:, b]], tol=1e-9) for b in range(300)]
    np.testing.assert_array_equal(dof, there.sum(axis=0) - rank - 1)
    assert np.unique(rank).size > 1
    z = scan(y, v, there, regressors, nuisance, name, "adhoc").z
    known = ~np.isnan(z) & estimable
    assert known.mean() > 0.95
    assert np.quantile(np.abs(z - exact)[known] / (1 + np.abs(exact[known])), 0.99) < 0.01


def test_a_regressor_that_depends_on_the_nuisance_is_left_open():
    n_maps = 12
    y, v, there = draw(n_maps, 50)
    group = np.repeat([0.0, 1.0], 6)
    nuisance = np.linalg.qr(np.column_stack([np.ones(n_maps), group]))[0].T
    regressors = np.array([np.tile([0.0, 1.0], 6), group, np.roll(group, 1)])
    for name in METHODS:
        found = scan(y, v, there, regressors, nuisance, name, "knha")
        assert np.isfinite(found.z[[0, 2]]).all()
        assert np.isnan(found.z[1]).all()
        assert found.counts[1] == 50


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("sides", [2, 1, -1])
def test_the_highest_is_among_the_candidates(sides, prune):
    for name, test, kind in (("reml", "knha", "groups"), ("dl", "adhoc", "adjusted"), ("paule-mandel", "z", "slope")):
        y, v, there = draw(14, 600, spread=1.0, covered=0.9)
        regressors, nuisance = relabel(kind, 14, 8)
        exact, _ = exact_fits(y, v, there, regressors, nuisance, name, test)
        heights = np.abs(exact) if sides == 2 else sides * exact
        found = scan(y, v, there, regressors, nuisance, name, test, step=0.8, sides=sides, prune=prune)
        for row, highest in enumerate(heights.argmax(axis=1)):
            listed, promised = found.voxels[row, : found.counts[row]], found.heights[row, : found.counts[row]]
            assert highest in listed
            at = promised[listed == highest][0]
            assert np.isnan(at) or at >= np.nanmax(promised) * (1 - NEAR)


@pytest.mark.parametrize("name", ["reml", "dl", "hedges", "paule-mandel"])
def test_neighbours_change_no_bit(name):
    y, v, there = draw(12, 300, covered=0.8)
    regressors, nuisance = relabel("adjusted", 12, 40)
    plan = Plan(METHODS[name], SCALINGS["knha"], 7, 2, False, make_tables(np.arange(1, 11)))

    def z(voxels, rows):
        part = np.ix_(range(12), voxels)
        maps = Maps(np.where(there, y, 0.0)[part], np.where(there, v, np.inf)[part])
        return scan_designs(plan, maps, regressors[rows], nuisance).z

    whole = z(np.arange(300), np.arange(40))
    np.testing.assert_array_equal(z(np.arange(17, 260), np.arange(40)), whole[:, 17:260])
    np.testing.assert_array_equal(z(np.arange(300), np.arange(33, 40)), whole[33:])


def test_units_of_the_regressor_do_not_matter():
    y, v, there = draw(12, 200)
    regressors, nuisance = relabel("slope", 12, 4)
    one, other = (scan(y, v, there, regressors * scale, nuisance, "reml", "knha").z for scale in (1.0, 8.0))
    np.testing.assert_array_equal(one, other)
