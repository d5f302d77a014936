"""Tails against mpmath, relative 1e-9 and better."""

import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats

from ibma_app.stats.tails import (
    chi2_to_log10p,
    f_to_z,
    p_to_z,
    t_to_z,
    z_from_log_sf,
    z_to_f,
    z_to_log10p,
    z_to_log_sf,
    z_to_t,
)


def exact_z_of_t(t, dof, start):
    """z of t by integrating the density, with 40 digits.

    With s² = log(1 + t²/dof) the density is exp(-(dof - 1/2) s²/2) sqrt(q / sinh q), q = s²/2:
    nearly normal, so that a few pieces integrate it (Hill 1970).
    """
    t, dof = mp.mpf(t), mp.mpf(dof)
    constant = mp.gamma((dof + 1) / 2) / mp.gamma(dof / 2) / mp.sqrt(dof * mp.pi)
    if t < 1:
        central = mp.quad(lambda x: constant * (1 + x * x / dof) ** (-(dof + 1) / 2), [0, t / 2, t])
        return mp.findroot(lambda z: mp.erf(z / mp.sqrt(2)) / 2 - central, start)
    s0, a = mp.sqrt(mp.log1p(t * t / dof)), dof - mp.mpf(1) / 2
    base, step = a * s0 * s0 / 2, 1 / (a * s0)

    def density(s):
        q = s * s / 2
        return mp.exp(base - a * q) * mp.sqrt(q / mp.sinh(q))

    tail = mp.quad(density, [s0 + n * step for n in (0, 1, 3, 10, 30, 100, 300)])
    log_tail = mp.log(tail) - base + mp.log(constant * mp.sqrt(dof))
    return mp.findroot(lambda z: mp.log(mp.erfc(z / mp.sqrt(2)) / 2) - log_tail, start)


@pytest.mark.parametrize("dof", [1, 1.5, 2, 5, 10, 20.5, 200, 2000, 5e4, 1e6])
def test_t_to_z(dof):
    t = np.array([1e-12, 2e-8, 1e-5, 0.3, 1.0, 1.4, 2, 5, 50, 1000])
    z = t_to_z(t, dof)
    with mp.workdps(40):
        known = [float(exact_z_of_t(a, dof, mp.mpf(b))) for a, b in zip(t.tolist(), z.tolist(), strict=True)]
    np.testing.assert_allclose(z, known, rtol=1e-12)
    np.testing.assert_array_equal(t_to_z(-t, dof), -z)


@pytest.mark.parametrize("dof", [1, 2, 3, 8, 29, 400, 1e6])
def test_whole_dof_are_interpolated_to_all_digits_but_a_few(dof):
    """A hair's breadth of dof away, z is computed without the nodes: it moves by less than the share of dof."""
    rng = np.random.default_rng(4)
    t = np.concatenate([rng.uniform(-9, 9, 3000), 10 ** rng.uniform(-9, 0.5, 1000), np.arange(513) / 64])
    beside = t_to_z(t, np.nextafter(dof, np.inf))
    np.testing.assert_allclose(t_to_z(t, dof), beside, rtol=3e-13)


@pytest.mark.parametrize("dof", [1.37, 4.5, 12.6666, 300.001])
def test_frequent_dof_are_interpolated_as_whole_ones_are(dof):
    t = np.concatenate([np.random.default_rng(5).uniform(-9, 9, 3000), np.arange(513) / 64])
    np.testing.assert_allclose(t_to_z(t, dof, dof), t_to_z(t, dof), rtol=3e-13)
    both = t_to_z(t[:2], np.array([dof, dof + 0.25]), dof)
    np.testing.assert_array_equal(both, [t_to_z(t[0], dof, dof), t_to_z(t[1], dof + 0.25)])


def test_t_to_z_does_not_depend_on_what_else_is_converted():
    rng = np.random.default_rng(5)
    t, dof = rng.normal(size=200) * 4, rng.choice([2.0, 3.0, 7.5, 40.0, 0.0, np.inf], 200)
    alone = [t_to_z(a, b) for a, b in zip(t, dof, strict=True)]
    np.testing.assert_array_equal(t_to_z(t, dof), alone)


def test_anchors():
    np.testing.assert_allclose(t_to_z([50, -45], [2000, 5000]), [40.27, -41.23], atol=0.005)
    assert t_to_z(1000, 10) == pytest.approx(10.6178815, abs=1e-6)


def test_t_where_scipy_has_all_digits():
    rng = np.random.default_rng(0)
    t, dof = rng.normal(0, 3, 2000), rng.integers(1, 60, 2000).astype(float)
    np.testing.assert_allclose(t_to_z(t, dof), -stats.norm.isf(stats.t.sf(-t, dof)), rtol=1e-6, atol=1e-9)
    low = stats.t.sf(np.abs(t), dof)
    np.testing.assert_allclose(np.abs(t_to_z(t, dof)), stats.norm.isf(low), rtol=1e-9, atol=1e-12)


def test_edges_are_finite_and_ordered():
    t = np.array([-1e300, -1e10, 0.0, 5e-324, 1e-300, 1.0, 1e10, 1e154, 1e300])
    for dof in (1.0, 7.0, 1e6):
        z = t_to_z(t, dof)
        assert np.isfinite(z).all()
        assert (np.diff(z) >= 0).all()
    assert t_to_z(3.0, np.inf) == 3.0
    assert t_to_z(3.0, 0.0) == 0.0
    f = f_to_z([0.0, 1e-300, 1.0, 1e10, 1e300], 3, 20)
    assert np.isfinite(f).all()
    assert (np.diff(f) >= 0).all()
    assert np.isfinite(p_to_z([0.0, 1e-320, 0.5, 1.0])).all()
    assert np.isfinite(z_to_log10p([0.0, 40.0, 1e5, -1e5], "two-sided")).all()


def test_f_to_z():
    rng = np.random.default_rng(1)
    f, q, dof = rng.gamma(2, 1, 500), rng.integers(1, 6, 500), rng.integers(1, 300, 500)
    p = stats.f.sf(f, q, dof)
    np.testing.assert_allclose(f_to_z(f, q, dof), stats.norm.isf(p), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(f_to_z(f, q, np.inf), stats.norm.isf(stats.chi2.sf(f * q, q)), rtol=1e-8, atol=1e-10)
    # F with one row is t squared: its p is t's, two-sided
    np.testing.assert_allclose(
        z_to_log_sf(f_to_z([1e4, 2500.0], 1, [10, 2000])),
        z_to_log_sf(t_to_z([100.0, 50.0], [10, 2000])) + np.log(2),
        rtol=1e-11,
    )
    np.testing.assert_allclose(z_to_log10p(f_to_z(f, q, dof), "positive"), -np.log10(p), rtol=1e-8, atol=1e-10)


def test_log_p():
    z = np.array([-40.0, -3.0, -1e-3, 0.0, 0.5, 8.0, 38.0, 60.0])
    with mp.workdps(60):
        known = [float(-mp.log10(mp.erfc(mp.mpf(a) / mp.sqrt(2)) / 2)) for a in z.tolist()]
    np.testing.assert_allclose(z_to_log10p(z, "positive"), known, rtol=1e-12)
    np.testing.assert_allclose(z_to_log10p(-z, "negative"), known, rtol=1e-12)
    np.testing.assert_allclose(10 ** -z_to_log10p(z[1:6], "two-sided"), 2 * special.ndtr(-np.abs(z[1:6])), rtol=1e-12)
    np.testing.assert_allclose(z_to_log10p(t_to_z(4.0, 12), "positive"), -np.log10(stats.t.sf(4, 12)), rtol=1e-10)
    np.testing.assert_allclose(z_from_log_sf(z_to_log_sf(z[1:])), z[1:], rtol=1e-9, atol=1e-15)


def test_p_to_z():
    p = np.array([1e-300, 1e-20, 0.01, 0.5, 0.9, 1 - 1e-12])
    np.testing.assert_allclose(p_to_z(p), stats.norm.isf(p), rtol=1e-9, atol=1e-15)


def test_chi2():
    q, dof = np.array([0.0, 0.5, 12.0, 150.0, 1e5]), np.array([3, 3, 20, 12, 500])
    with mp.workdps(50):
        known = [
            float(-mp.log10(mp.gammainc(mp.mpf(int(k)) / 2, mp.mpf(x) / 2, regularized=True)))
            for x, k in zip(q.tolist(), dof, strict=True)
        ]
    np.testing.assert_allclose(chi2_to_log10p(q, dof), known, rtol=1e-11, atol=1e-15)
    assert chi2_to_log10p(5.0, 0) == 0.0


@pytest.mark.parametrize("dof", [1, 4, 30, 1e4, np.inf])
def test_z_to_t_inverts_t_to_z(dof):
    z = np.array([-60.0, -37.5, -36.9, -8.0, -1.0, 0.0, 0.3, 5.0, 19.9, 20.0, 22.0, 36.9, 37.5])
    if dof == 1:
        z = z[np.abs(z) < 37]  # beyond, t is no number: the tail of a Cauchy reaches 1e308 there
    # t_to_z is exact to 1e-9; the way back through stdtrit to about 1e-10 of t
    # (SciPy before 1.17 gives 1e-16 for the median)
    np.testing.assert_allclose(t_to_z(z_to_t(z, dof), dof), z, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize(("rows", "dof"), [(1.0, 0.8), (1.0, 7.0), (2.0, 3.3), (3.0, 12.0), (10.0, 500.0)])
def test_z_to_f_inverts_f_to_z(rows, dof):
    z = np.array([-20.0, -3.0, -0.5, 0.0, 1e-3, 0.7, 2.0, 6.0, 19.99, 20.0, 25.0, 37.0])
    if dof < 1:
        z = z[z < 25]  # beyond, F is no number: the tail reaches 1e308 there
    f = z_to_f(z, rows, dof)
    assert (np.diff(f) > 0).all()
    # far below the median F is tiny, and z changes slowly with it
    np.testing.assert_allclose(f_to_z(f, rows, dof), z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(f[4:7], stats.f.isf(stats.norm.sf(z[4:7]), rows, dof), rtol=1e-9)
