"""Random field theory against SPM's functions (pinned numbers; see tests/reference/rft_spm.m)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ibma_app.stats.rft import (
    EPS,
    RandomField,
    cluster_level,
    ec_densities,
    expected_maxima,
    extent_threshold,
    height_of_p,
    height_threshold,
    peak_log10p,
)

PINNED = json.loads((Path(__file__).parents[1] / "reference" / "rft_spm.json").read_text(encoding="utf-8"))
KINDS = {"Z": "z", "T": "t", "F": "F"}


def field_of(row):
    """The field of a pinned row."""
    return RandomField(KINDS[row["kind"]], tuple(float(v) for v in row["df"]))


def padded(resels):
    """Resels in all four dimensions."""
    return np.pad(np.asarray(resels, dtype=float), (0, 4 - len(resels)))


def falling(field, resels, height):
    """Whether expected counts fall from this height on, as p must."""
    at = height + np.linspace(0, 0.2, 5)
    return bool(np.all(np.diff(expected_maxima(field, at, resels)) <= 0))


def test_densities_equal_spm():
    assert len(PINNED["fields"]) > 100
    for row in PINNED["fields"]:
        found = ec_densities(field_of(row), row["height"])[:, 0]
        # SPM takes the tail as 1 - cdf: right to 1e-16 of 1, not of the tail
        np.testing.assert_allclose(found, np.maximum(row["EC"], EPS), rtol=1e-6, atol=5e-16)


def test_peak_p_equal_spm():
    compared = 0
    for row in PINNED["fields"]:
        field, resels = field_of(row), padded(row["resels"])
        expected = expected_maxima(field, row["height"], resels)[0]
        np.testing.assert_allclose(expected, row["Ec"], rtol=1e-6, atol=1e-12)
        if row["Ec"] > 0 and falling(field, resels, row["height"]):
            p = 10.0 ** -peak_log10p(field, [row["height"]], resels)[0]
            # 1 - (1 - p) has lost what is below 1e-16; with resels 1e-13
            np.testing.assert_allclose(p, row["P"], rtol=1e-6, atol=1e-12)
            compared += 1
    assert compared > 100


def test_extent_p_equal_spm():
    for row in PINNED["fields"]:
        if row["Ec"] <= 0 or row["Ek"] > 1e6:  # (no clusters to speak of: EC densities at their floor)
            continue
        level = cluster_level(field_of(row), row["height"], padded(row["resels"]), row["extents"])
        np.testing.assert_allclose(level.expected, row["Ec"], rtol=1e-6, atol=1e-12)
        if row["EC"][0] > 1e-8:  # 1 - cdf again
            np.testing.assert_allclose(level.expected_resels, row["Ek"], rtol=1e-6)
            np.testing.assert_allclose(level.p, row["pk"], rtol=1e-6, atol=1e-12)
            np.testing.assert_allclose(10.0**-level.log10_p, row["Pk"], rtol=1e-6, atol=1e-12)


def test_thresholds_equal_spm():
    compared = 0
    for row in PINNED["thresholds"]:
        if row["height"] is None or not math.isfinite(row["height"]):
            continue  # Newton's steps left the numbers
        found = height_threshold(field_of(row), padded(row["resels"]), row["n"], row["alpha"])
        # SPM stops when a step is below 1e-6; a slope by differences of 1e-6 leaves a little more
        np.testing.assert_allclose(found, row["height"], rtol=2e-6)
        compared += 1
    assert compared > 80


@pytest.mark.parametrize("dof", [6.0, 31.5])
def test_two_sided_t_is_the_f_field_of_one_row(dof):
    # F densities from the gamma functions of Worsley's formula, not from t (as the code has them)
    heights = np.array([2.0, 3.3, 5.1])
    two_sided = ec_densities(RandomField("t", (1.0, dof), two_sided=True), heights)
    k, v, f = 1.0, dof, heights**2
    x = k * f / v
    a, b = 4 * np.log(2) / (2 * np.pi), math.lgamma(v / 2) + math.lgamma(k / 2)
    rest = (1 + x) ** (-(v + k - 2) / 2)
    poly = (v - 1) * (v - 2) * x**2 - (2 * v * k - v - k - 1) * x + (k - 1) * (k - 2)
    expected = [
        stats.f.sf(f, k, v),
        a**0.5 * math.exp(math.lgamma((v + k - 1) / 2) - b) * 2**0.5 * x ** ((k - 1) / 2) * rest,
        a * math.exp(math.lgamma((v + k - 2) / 2) - b) * x ** ((k - 2) / 2) * rest * ((v - 1) * x - (k - 1)),
        a**1.5 * math.exp(math.lgamma((v + k - 3) / 2) - b) / 2**0.5 * x ** ((k - 3) / 2) * rest * poly,
    ]
    np.testing.assert_allclose(two_sided, expected, rtol=1e-10)
    np.testing.assert_allclose(two_sided, ec_densities(RandomField("F", (1.0, dof)), f), rtol=1e-12)


def test_t_with_many_dof_is_gaussian():
    heights = np.array([2.0, 4.0, 5.0])
    np.testing.assert_allclose(
        ec_densities(RandomField("t", (1.0, 1e7)), heights), ec_densities(RandomField("z"), heights), rtol=1e-4
    )
    infinite = ec_densities(RandomField("t", (1.0, math.inf)), heights)
    np.testing.assert_array_equal(infinite, ec_densities(RandomField("z"), heights))


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("kind", "dof"), [("z", (1.0, math.inf)), ("t", (1.0, 11.0)), ("F", (3.0, 20.0))])
def test_p_falls_with_height_and_threshold_is_where_it_is_alpha(kind, dof, two_sided):
    field = RandomField(kind, dof, two_sided=two_sided)
    for resels in ([1, 2.0, 1.0, 0.2], [1, 20, 150, 600.0], [-3, 10, 30, 20.0]):
        heights = np.linspace(0.0, 40, 2001)
        log10_p = peak_log10p(field, heights, resels)
        assert np.isfinite(log10_p).all()
        assert (np.diff(log10_p) >= -1e-9).all()
        at = height_threshold(field, resels, 10**9, 0.05)
        np.testing.assert_allclose(peak_log10p(field, [at], resels), -math.log10(0.05), atol=1e-8)


def test_heights_of_p_equal_scipy():
    for p in (0.3, 1e-3, 1e-9):
        np.testing.assert_allclose(height_of_p(RandomField("z"), p), stats.norm.isf(p), rtol=1e-10)
        np.testing.assert_allclose(height_of_p(RandomField("t", (1, 9.0)), p), stats.t.isf(p, 9), rtol=1e-9)
        np.testing.assert_allclose(
            height_of_p(RandomField("t", (1, 9.0), two_sided=True), p), stats.t.isf(p / 2, 9), rtol=1e-9
        )
        # (scipy's own isf is off by 3e-10 of p at 1e-9)
        np.testing.assert_allclose(stats.f.sf(height_of_p(RandomField("F", (3, 9.0)), p), 3, 9), p, rtol=1e-12)


def test_bonferroni_wins_on_rough_maps():
    field, resels = RandomField("z"), [1.0, 100.0, 3000.0, 40000.0]
    assert height_threshold(field, resels, 200, 0.05) == pytest.approx(stats.norm.isf(0.05 / 200))


def test_extent_threshold_is_where_p_is_alpha():
    field, resels = RandomField("t", (1.0, 15.0)), [1.0, 20.0, 120.0, 300.0]
    extent = extent_threshold(field, 3.7, resels, 0.05)
    level = cluster_level(field, 3.7, resels, [extent, extent * 1.01])
    np.testing.assert_allclose(10.0 ** -level.log10_p[0], 0.05, rtol=1e-9)
    assert level.log10_p[1] > level.log10_p[0]
    assert extent_threshold(field, 30.0, resels, 0.05) == 0.0


def test_huge_clusters_do_not_underflow():
    level = cluster_level(RandomField("z"), 3.1, [1.0, 20.0, 120.0, 300.0], [500.0, 900.0])
    assert np.isfinite(level.log10_p).all()
    assert level.log10_p[1] > level.log10_p[0] > 50
