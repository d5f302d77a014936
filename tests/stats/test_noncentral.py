"""Noncentral t and F against R (tests/reference/effect_sizes.R) and SciPy's exact distribution."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ibma_app.stats.noncentral import f_cdf, f_limit, hedges_factor, t_cdf, t_limit

R = json.loads((Path(__file__).parents[1] / "reference" / "effect_sizes.json").read_text())
Z = 1.959963984540054


def column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)


def test_limits_of_t_equal_rs():
    t, dof = column(R["t"], "t"), column(R["t"], "dof")
    # uniroot's tolerance is 1e-13, pt's own error 1e-12 in p
    np.testing.assert_allclose(t_limit(t, dof, Z), column(R["t"], "lower"), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(t_limit(t, dof, -Z), column(R["t"], "upper"), rtol=1e-9, atol=1e-10)


def test_limits_of_f_equal_rs():
    f, rows, dof = (column(R["f"], name) for name in ("f", "rows", "dof"))
    for name, z in (("lower", Z), ("upper", -Z)):
        found = np.array([f_limit(*one, z) for one in zip(f, rows, dof, strict=True)])
        np.testing.assert_allclose(found, column(R["f"], name), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dof", [2.0, 29.0])
def test_many_voxels_are_interpolated_to_the_same(dof):
    t = np.random.default_rng(0).standard_t(4, 3000) * 2 + 1
    t[:2] = -40.0, 900.0
    lower = t_limit(t, dof, Z)
    assert np.abs(t_cdf(t, dof, lower) - stats.norm.cdf(Z)).max() < 1e-11
    np.testing.assert_allclose(stats.nct.cdf(t[2:20], dof, lower[2:20]), 0.975, rtol=1e-10)
    np.testing.assert_allclose(t_limit(-t, dof, -Z), -lower, rtol=1e-12, atol=1e-12)  # the mirror image
    f = np.minimum(t**2, 90.0)
    for z in (Z, -Z):
        found = f_limit(f, 3.0, dof, z)
        inside = found > 0
        assert np.abs(f_cdf(f[inside], 3.0, dof, found[inside]) - stats.norm.cdf(z)).max() < 1e-9
        assert (stats.f.cdf(f[~inside], 3.0, dof) <= stats.norm.cdf(z) + 1e-9).all()


def test_hedges_factor():
    assert hedges_factor(10.0) == pytest.approx(0.9227456, abs=1e-7)  # Hedges 1981, table 1
    assert hedges_factor(np.inf) == 1.0
