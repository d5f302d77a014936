"""All-resolutions inference against nilearn on the same clusters."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.glm import cluster_level_inference
from scipy import ndimage
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import sidecar_of
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference.ari import INFERENCE, bound_discoveries
from ibma_app.inference.cluster_table import table_columns, tabulate_clusters
from ibma_app.inference.clusters import apply_min_extent

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (16, 15, 14)
LN10 = np.log(10)


def make_field(volume, tail="positive", mask=None):
    """A field of z."""
    mask = np.ones(volume.shape, dtype=bool) if mask is None else mask
    z = volume[mask]
    log_p = {
        "two-sided": np.minimum(norm.logsf(np.abs(z)) + np.log(2), 0),
        "positive": norm.logsf(z),
        "negative": norm.logcdf(z),
    }[tail]
    return Field(z, tail, np.ones(z.size, dtype=bool), Grid(AFFINE, mask), -log_p / LN10)


def activated(seed=0):
    """Smooth noise with a broad and a small activation."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 0.8)
    volume = noise / noise.std()
    volume[3:8, 3:8, 3:8] += 3.5
    volume[11, 11, 10:12] += 6
    return volume


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("threshold", [2.0, 2.6])
def test_bounds_equal_nilearn(alpha, threshold):
    volume = activated()
    settings = InferenceSettings(alpha=alpha, cluster_p=float(norm.sf(threshold)), options={"connectivity": 6})
    field = make_field(volume)
    found = INFERENCE.infer(field, None, settings)
    table = tabulate_clusters(field, found, connectivity=6, measures={"tdp": bound_discoveries(field, alpha)})
    rows = [row for row in table if row.n_voxels]
    image = nib.Nifti1Image(volume, AFFINE)
    # nilearn labels with 6 neighbours and takes voxels strictly above the threshold
    theirs = cluster_level_inference(image, threshold=threshold, alpha=alpha).get_fdata()
    assert len(rows) == sidecar_of(found.facts)["NumberOfClusters"] > 4
    proportions = []
    for row in rows:
        i, j, k = np.rint(np.array([row.x, row.y, row.z]) / 3).astype(int)
        proportions.append(row.cells()["tdp"])
        # nilearn's image is float32 at times: 1e-6
        assert row.cells()["tdp"] == pytest.approx(theirs[i, j, k], abs=1e-6)
    assert max(proportions) > 0.2
    assert min(proportions) == 0
    # significant: the clusters in which something is true
    labels, _ = ndimage.label(volume > threshold)
    expected = np.isin(labels, np.unique(labels[(theirs > 0) & (labels > 0)]))
    np.testing.assert_array_equal(field.grid.to_volume(found.significant), expected)


def test_adjusted_p_equal_statsmodels():
    field = make_field(activated(1), "two-sided")
    found = INFERENCE.infer(field, None, InferenceSettings())
    expected = multipletests(10.0**-field.log10_p, method="hommel")[1]
    np.testing.assert_allclose(10.0**-found.log10_p, expected, rtol=1e-9)
    np.testing.assert_array_equal(found.listed, field.log10_p >= 3 - 1e-9)
    assert sidecar_of(found.facts)["NumberOfVoxelsWithAdjustedP"] == (expected <= 0.05).sum()


def test_two_signs():
    field, mirrored = (make_field(sign * activated(2), "two-sided") for sign in (1, -1))
    one, two = (INFERENCE.infer(each, None, InferenceSettings()) for each in (field, mirrored))
    np.testing.assert_array_equal(one.significant, two.significant)
    np.testing.assert_array_equal(one.log10_p, two.log10_p)


def test_any_set_has_a_bound():
    field = make_field(activated(3))
    bound = bound_discoveries(field, 0.05)
    strongest = np.argsort(-field.z)
    shares = [bound(strongest[:n]) for n in (1, 20, 200, field.z.size)]
    assert shares[0] == 1.0
    assert (np.diff(shares) <= 0).all()
    assert bound(strongest[-50:]) == 0
    assert bound(np.zeros(0, dtype=np.int64)) == 0
    # at least as many are true in a larger set
    assert shares[2] * 200 >= shares[1] * 20


def test_noise_has_no_discoveries():
    found = INFERENCE.infer(make_field(np.zeros((5, 5, 5))), None, InferenceSettings())
    assert sidecar_of(found.facts)["HommelValue"] == 125
    assert sidecar_of(found.facts)["TrueDiscoveries"] == 0
    assert not found.significant.any()
    assert found.z_threshold is None


def test_estimable_voxels_alone():
    volume = activated(4)
    field = make_field(volume)
    estimable = np.arange(field.z.size) % 3 > 0
    part = Field(field.z, "positive", estimable, field.grid, field.log10_p)
    found = INFERENCE.infer(part, None, InferenceSettings())
    assert (found.log10_p[~estimable] == 0).all()
    assert not found.listed[~estimable].any()
    expected = multipletests(10.0 ** -field.log10_p[estimable], method="hommel")[1]
    np.testing.assert_allclose(10.0 ** -found.log10_p[estimable], expected, rtol=1e-9)
    empty = Field(field.z, "positive", np.zeros_like(estimable), field.grid, field.log10_p)
    assert not INFERENCE.infer(empty, None, InferenceSettings()).significant.any()


def test_min_extent_leaves_table_and_mask():
    field = make_field(activated(5))
    found = apply_min_extent(field, INFERENCE.infer(field, None, InferenceSettings(cluster_p=0.01)), 10)
    table = tabulate_clusters(field, found, measures={"tdp": bound_discoveries(field, 0.05)})
    rows = [row for row in table if row.n_voxels]
    assert rows
    assert all(row.n_voxels >= 10 for row in rows)
    assert list(rows[0].cells()) == list(table_columns(measured=["tdp"]))
    assert list(rows[0].cells())[-1] == "tdp"


@pytest.mark.parametrize("level", [0.0, 1.0, float("nan")])
def test_levels_out_of_range(level):
    field = make_field(activated())
    for settings in (InferenceSettings(alpha=level), InferenceSettings(cluster_p=level)):
        with pytest.raises(UsageError, match="between 0 and 1"):
            INFERENCE.infer(field, None, settings)
