"""The fit of a run: nilearn's ordinary least squares, and what is not fitted."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from ibma_app.firstlevel.design import RunDesign
from ibma_app.firstlevel.fit import fit_run
from ibma_app.firstlevel.noise import choose_noise
from ibma_app.firstlevel.records import RunContrast, Timing

T = 80
COLUMNS = ("a", "b", "x", "y", "constant")
CONTRASTS = (
    RunContrast("diff", ({"a": 1.0, "b": -1.0},)),
    RunContrast("any", ({"a": 1.0}, {"b": 1.0}), "F"),
)


@pytest.fixture(scope="module")
def design() -> RunDesign:
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.standard_normal((T, 4)).cumsum(axis=0), np.ones(T)])
    return RunDesign(matrix, COLUMNS, ("a", "b"), CONTRASTS, {}, {}, Timing(2.0, T, 0.0, ""))


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    return 1000 + np.random.default_rng(1).standard_normal((30, T)).cumsum(axis=1)


def test_ordinary_least_squares_is_nilearns(design, series):
    from nilearn.glm.contrasts import compute_contrast
    from nilearn.glm.first_level import run_glm

    labels, results = run_glm(series.T, design.matrix, noise_model="ols")
    fit = fit_run(series, design, choose_noise("ols", 2.0, T))
    for ours, stat in zip(fit.contrasts, ("t", "F"), strict=True):
        weights = design.weights(ours.contrast)
        theirs = compute_contrast(labels, results, weights if stat == "F" else weights[0], stat)
        np.testing.assert_allclose(ours.statistic, theirs.stat(), rtol=1e-10)
        np.testing.assert_allclose(ours.z, theirs.z_score(), rtol=1e-7)
        if stat == "t":
            np.testing.assert_allclose(ours.effect, theirs.effect_size(), rtol=1e-10)
            np.testing.assert_allclose(ours.variance, np.squeeze(theirs.effect_variance()), rtol=1e-10)
    assert [one.dof for one in fit.contrasts] == [75.0, 75.0]
    residuals = series - (design.matrix @ np.linalg.lstsq(design.matrix, series.T, rcond=None)[0]).T
    np.testing.assert_allclose(fit.residual_sd, np.sqrt((residuals**2).sum(axis=1) / 75), rtol=1e-10)
    np.testing.assert_allclose(fit.rsquared, 1 - residuals.var(axis=1) / series.var(axis=1), rtol=1e-10)
    np.testing.assert_allclose(fit.mean, series.mean(axis=1))


@pytest.mark.parametrize("name", ["ols", "ar", "ar1"])
def test_residuals_are_what_the_estimates_of_the_contrasts_leave(design, series, name):
    series = np.vstack([series, np.full(T, 7.0)])  # the last voxel is not fitted
    plain = fit_run(series, design, choose_noise(name, 2.0, T))
    fit = fit_run(series, design, choose_noise(name, 2.0, T), estimates=True)
    np.testing.assert_array_equal(fit.contrasts[1].statistic, plain.contrasts[1].statistic)
    left = np.hstack([fit.residuals(series[:, at : at + 30], design.matrix[at : at + 30]) for at in (0, 30, 60)])
    assert not left[-1].any()
    explained = (series - left)[:-1]
    b = np.linalg.lstsq(design.matrix, explained.T, rcond=None)[0]
    np.testing.assert_allclose(design.matrix @ b, explained.T, rtol=1e-11)  # it lies in the design
    np.testing.assert_allclose(b[0] - b[1], fit.contrasts[0].effect[:-1], rtol=1e-8)
    if name == "ols":
        np.testing.assert_allclose(design.matrix.T @ left.T, 0, atol=1e-8)


def test_plain_ar1_is_nilearns(design):
    from nilearn.glm.contrasts import compute_contrast
    from nilearn.glm.first_level import run_glm

    # nilearn leaves the first volume as it is; ours whitens it exactly, which changes one in 80
    series = lfilter([1], [1, -0.4], np.random.default_rng(2).standard_normal((30, T)))
    labels, results = run_glm(series.T, design.matrix, noise_model="ar1", bins=100)
    theirs = compute_contrast(labels, results, design.weights(CONTRASTS[0])[0], "t")
    ours = fit_run(series, design, choose_noise("ar1", 2.0, T)).contrasts[0]
    assert np.corrcoef(ours.statistic, theirs.stat())[0, 1] > 0.99
    assert np.median(ours.variance / np.squeeze(theirs.effect_variance())) == pytest.approx(1.0, abs=0.05)


def test_single_precision_will_do(design, series):
    single = fit_run(series.astype(np.float32), design, choose_noise("ar", 2.0, T))
    double = fit_run(series, design, choose_noise("ar", 2.0, T))
    np.testing.assert_allclose(single.contrasts[0].z, double.contrasts[0].z, atol=0.02)
    np.testing.assert_allclose(single.mean, double.mean, rtol=1e-6)


@pytest.mark.parametrize("name", ["ar", "ar1", "ols"])
def test_voxels_without_signal_are_not_fitted(design, series, name):
    broken = series.copy()
    broken[3] = 7.0
    broken[4, 10] = np.nan
    broken[5] = 0.0
    broken[6] = design.matrix @ np.arange(1.0, 6.0)  # explained to the last digit
    fit = fit_run(broken, design, choose_noise(name, 2.0, T))
    whole = fit_run(series, design, choose_noise("ols", 2.0, T))
    assert np.flatnonzero(~fit.fitted).tolist() == [3, 4, 5, 6]
    for one in fit.contrasts:
        assert not one.statistic[3:7].any()
        assert not one.z[3:7].any()
        assert np.isfinite(one.z).all()
    assert not fit_run(np.zeros_like(series), design, choose_noise(name, 2.0, T)).fitted.any()
    if name == "ols":
        good = fit.fitted
        np.testing.assert_allclose(fit.contrasts[0].statistic[good], whole.contrasts[0].statistic[good], rtol=1e-12)


def test_scrubbed_volumes_do_not_matter(design, series):
    gone = (5, 6, 50)
    matrix = np.column_stack([design.matrix, np.eye(T)[:, gone]])
    columns = (*COLUMNS, "s5", "s6", "s50")
    scrubbed = RunDesign(matrix, columns, ("a", "b"), CONTRASTS, {}, {}, design.timing, scrubbed=gone)
    wild = series.copy()
    wild[:, gone] += 500.0
    noise = choose_noise("ar", 2.0, T)
    one, other = fit_run(series, scrubbed, noise), fit_run(wild, scrubbed, noise)
    np.testing.assert_allclose(one.contrasts[0].statistic, other.contrasts[0].statistic, rtol=1e-6)
    np.testing.assert_allclose(one.mean, other.mean)
    np.testing.assert_allclose(one.rho, other.rho, atol=1e-8)


def test_false_positives_of_white_noise(design):
    noise = np.random.default_rng(5).standard_normal((20_000, T))
    fit = fit_run(noise + 100, design, choose_noise("ar", 2.0, T))
    (t, f) = fit.contrasts
    rate = (2 * stats.norm.sf(np.abs(t.z)) < 0.05).mean()
    assert rate == pytest.approx(0.05, abs=0.005)  # 3 standard errors
    assert t.variance.mean() / t.effect.var() == pytest.approx(1.0, abs=0.04)
    assert (f.z > stats.norm.isf(0.05)).mean() == pytest.approx(0.05, abs=0.006)
    assert t.dof < 75
    assert fit.rho.mean() == pytest.approx(0.0, abs=0.02)


def test_order_follows_the_repetition_time():
    assert [choose_noise("ar", tr, T).order for tr in (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0)] == [6, 5, 4, 3, 2, 2, 1]
    assert [choose_noise("ar", 0.5, volumes).order for volumes in (3, 16, 24, 200)] == [1, 1, 2, 6]
    assert choose_noise("ols", 2.0, T).order == 0
    assert "Worsley" in choose_noise("ar", 2.0, T).words


@pytest.mark.parametrize("volumes", [4, 6, 8, 20])
def test_very_short_runs_are_fitted(volumes):
    rng = np.random.default_rng(7)
    matrix = np.column_stack([rng.standard_normal(volumes), np.ones(volumes)])
    contrasts = (RunContrast("a", ({"a": 1.0},)),)
    design = RunDesign(matrix, ("a", "constant"), ("a",), contrasts, {}, {}, Timing(0.5, volumes, 0.0, ""))
    fit = fit_run(100 + rng.standard_normal((2000, volumes)), design, choose_noise("ar", 0.5, volumes))
    assert fit.fitted.all()
    assert 0 < fit.contrasts[0].dof <= volumes - 2
    assert (np.abs(fit.contrasts[0].z) > 1.96).mean() < 0.08
