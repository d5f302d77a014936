"""Bonferroni and false discovery rate against statsmodels and nilearn."""

import numpy as np
import pytest
from nilearn.glm import fdr_threshold, threshold_stats_img
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import sidecar_of
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import INFERENCES, find_inference
from ibma_app.inference.fdr import step_up

LN10 = np.log(10)


def make_field(z, tail="two-sided", estimable=None):
    """A field of V voxels in a row."""
    z = np.asarray(z, dtype=float)
    grid = Grid(affine=np.diag([2.0, 2, 2, 1]), mask=np.ones((z.size, 1, 1), dtype=bool))
    estimable = np.ones(z.size, dtype=bool) if estimable is None else estimable
    log_p = {
        "two-sided": np.minimum(norm.logsf(np.abs(z)) + np.log(2), 0),
        "positive": norm.logsf(z),
        "negative": norm.logcdf(z),
    }[tail]
    return Field(z=z, tail=tail, estimable=estimable, grid=grid, log10_p=-log_p / LN10)


def signal(seed, n=4000):
    """Noise with a twentieth of strong effects of both signs."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(n)
    z[: n // 20] += rng.choice([-3.5, 3.5], n // 20)
    return z


METHODS = {"bonferroni": "bonferroni", "fdr": "fdr_bh", "fdr-by": "fdr_by"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tail", ["two-sided", "positive", "negative"])
@pytest.mark.parametrize("name", METHODS)
def test_equals_statsmodels(name, tail, seed):
    field = make_field(signal(seed), tail)
    found = find_inference(name).infer(field, None, InferenceSettings(alpha=0.05))
    reject, adjusted, *_ = multipletests(10.0**-field.log10_p, alpha=0.05, method=METHODS[name])
    np.testing.assert_array_equal(found.significant, reject)
    assert 5 < reject.sum() < 400
    # 1e-10: statsmodels works on p, ours on its logarithm
    np.testing.assert_allclose(10.0**-found.log10_p, adjusted, rtol=1e-10)
    assert found.z_threshold == np.abs(field.z[reject]).min()


def test_fdr_threshold_equals_nilearn():
    z = signal(4)
    found = find_inference("fdr").infer(make_field(z, "positive"), None, InferenceSettings(alpha=0.05))
    # nilearn returns the smallest significant z, less 1e-12
    assert found.z_threshold == pytest.approx(fdr_threshold(z, 0.05), abs=2e-12)


@pytest.mark.parametrize(("name", "control"), [("bonferroni", "bonferroni"), ("fdr", "fdr")])
@pytest.mark.parametrize(("tail", "two_sided"), [("two-sided", True), ("positive", False)])
def test_maps_equal_nilearn(name, control, tail, two_sided):
    import nibabel as nib

    rng = np.random.default_rng(5)
    volume = rng.standard_normal((16, 16, 16))
    volume[:4, :4, :4] += 4
    volume[-4:, -4:, -4:] -= 4
    image = nib.Nifti1Image(volume, np.eye(4))
    mask = nib.Nifti1Image(np.ones(volume.shape, dtype=np.uint8), np.eye(4))
    theirs, threshold = threshold_stats_img(
        image, mask_img=mask, alpha=0.05, height_control=control, two_sided=two_sided, cluster_threshold=0
    )
    field = make_field(volume.ravel(), tail)
    found = find_inference(name).infer(field, None, InferenceSettings(alpha=0.05))
    np.testing.assert_array_equal(found.significant, theirs.get_fdata().ravel() != 0)
    if name == "bonferroni":
        sides = 2 if two_sided else 1
        assert norm.isf(sidecar_of(found.facts)["PThreshold"] / sides) == pytest.approx(threshold, rel=1e-9)


def test_step_up_keeps_the_order_of_p_that_underflow():
    # p = 1e-400 and 1e-500 are both 0 in floating point
    adjusted = step_up(np.array([400.0, 500.0, 0.1]))
    np.testing.assert_allclose(adjusted, [400 + np.log10(2 / 3), 500 + np.log10(1 / 3), 0.1])


def test_step_up_takes_the_smaller_bound_of_a_weaker_voxel():
    # p = 0.04 and 0.05 of two: the first alone would be 0.08, but the second gives 0.05 to both
    np.testing.assert_allclose(10 ** -step_up(-np.log10([0.04, 0.05])), [0.05, 0.05])


def test_p_of_exactly_alpha_passes():
    field = make_field([norm.isf(0.025)])
    for name in ("bonferroni", "fdr", "fdr-by"):
        assert find_inference(name).infer(field, None, InferenceSettings(alpha=0.05)).significant[0], name


def test_voxels_that_are_not_estimable_do_not_count():
    z = signal(6, 1000)
    estimable = np.arange(1000) % 3 > 0
    whole = make_field(z, estimable=estimable)
    part = make_field(z[estimable])
    for name in METHODS:
        infer = find_inference(name).infer
        found, alone = infer(whole, None, InferenceSettings()), infer(part, None, InferenceSettings())
        np.testing.assert_array_equal(found.log10_p[estimable], alone.log10_p)
        assert sidecar_of(found.facts)["NumberOfTests"] == 666


def test_uncorrected_thresholds_at_the_cluster_forming_level():
    field = make_field([3.2, 3.3, -3.3, 0])
    found = find_inference("uncorrected").infer(field, None, InferenceSettings(cluster_p=0.001))
    # |z| of 0.001 two-sided is 3.2905
    np.testing.assert_array_equal(found.significant, [False, True, True, False])
    np.testing.assert_array_equal(found.log10_p, field.log10_p)
    assert find_inference("uncorrected").infer(field, None, InferenceSettings(cluster_p=0.0015)).significant[0]


def test_unknown_inference_shows_the_menu():
    with pytest.raises(UsageError) as caught:
        find_inference("fwer")
    assert all(name in caught.value.message for name in INFERENCES)
