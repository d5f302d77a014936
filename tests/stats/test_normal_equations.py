"""z from normal equations, against a fit of each voxel by numpy."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.stats.normal_equations import make_tables, relabelled_z, take_data


@pytest.fixture
def drawn(rng):
    """Designs (M, S, K) with an intercept first, data (K, B), and coverage."""
    columns = rng.normal(size=(3, 3, 11))
    columns[:, 0] = 1.0
    return columns, rng.normal(0.3, 1.0, (11, 50)), rng.uniform(size=(11, 50)) < 0.85


def sums_of_squares(design, y):
    """Return what least squares leaves."""
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


@pytest.mark.parametrize("rows", [0, 2])
def test_z_is_that_of_t_and_f_of_nested_fits(drawn, rows):
    columns, values, covered = drawn
    nuisance = 3 - max(rows, 1)
    tables = make_tables(np.arange(1.0, 9.0), rows)
    out = np.empty((3, 50))
    relabelled_z(columns, nuisance, take_data(values, covered, 3, tables), tables, out)
    for m in range(3):
        for voxel in range(50):
            there = covered[:, voxel]
            design, y = columns[m][:, there].T, values[there, voxel]
            full, null = sums_of_squares(design, y), sums_of_squares(design[:, :nuisance], y)
            dof = there.sum() - 3
            f = (null - full) / max(rows, 1) / (full / dof)
            if rows:
                expected = stats.norm.isf(stats.f.sf(f, rows, dof))
            else:
                sign = np.sign(np.linalg.lstsq(design, y, rcond=None)[0][2])
                expected = sign * stats.norm.isf(stats.t.sf(np.sqrt(f), dof))
            assert out[m, voxel] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_columns_that_depend_on_each_other_are_not_decided(drawn):
    columns, values, covered = drawn
    columns[1, 2] = 2.0 * columns[1, 1] - columns[1, 0]
    tables = make_tables(np.arange(1.0, 9.0), 0)
    out = np.empty((3, 50))
    relabelled_z(columns, 2, take_data(values, covered, 3, tables), tables, out)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()
