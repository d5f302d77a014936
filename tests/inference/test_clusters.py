"""The clusters table against hand-made maps, a brute-force scan, and nilearn."""

import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nilearn.reporting import get_clusters_table
from scipy import ndimage
from scipy.stats import norm

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import sidecar_of, with_caveat
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import clusters, find_inference
from ibma_app.inference.cluster_table import tabulate_clusters
from ibma_app.inference.clusters import apply_min_extent

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
LN10 = np.log(10)


def make_field(volume, mask=None, tail="two-sided", affine=AFFINE):
    """A field of a z volume over a mask (by default everywhere)."""
    mask = np.ones(volume.shape, dtype=bool) if mask is None else mask
    z = volume[mask].astype(float)
    logp = {
        "two-sided": np.minimum(norm.logsf(np.abs(z)) + np.log(2), 0),
        "positive": norm.logsf(z),
        "negative": norm.logcdf(z),
    }[tail]
    grid = Grid(affine=affine, mask=mask)
    return Field(z=z, tail=tail, estimable=np.ones(z.size, dtype=bool), grid=grid, log10_p=-logp / LN10)


def above(field, threshold):
    """What exceeds a |z| threshold in the field's tail."""
    height = {"two-sided": np.abs(field.z), "positive": field.z, "negative": -field.z}[field.tail]
    return Significance(log10_p=field.log10_p, significant=height > threshold, z_threshold=threshold)


def smooth_map(seed, shape=(24, 26, 22), fwhm=3.0):
    """Smooth noise of unit variance."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), fwhm / 2.355)
    return noise / noise.std()


def test_two_clusters_of_opposite_sign_that_touch():
    volume = np.zeros((8, 8, 8))
    volume[2:4, 2, 2] = 4.0, 5.0
    volume[4, 2, 2] = -6.0
    field = make_field(volume)
    effect = field.z * 10
    negative, positive = tabulate_clusters(field, above(field, 3.0), effect)
    assert (negative.cluster_id, negative.peak_z, negative.n_voxels) == ("1", -6.0, 1)
    assert (positive.cluster_id, positive.peak_z, positive.n_voxels) == ("2", 5.0, 2)
    assert positive.mean_z == 4.5
    assert positive.volume_mm3 == pytest.approx(16.0)
    assert positive.peak_effect == 50.0
    # voxel (3, 2, 2) in mm, RAS+ although the first axis runs to the left
    assert (positive.x, positive.y, positive.z) == (84.0, -122.0, -68.0)
    assert positive.log10p == pytest.approx(-norm.logsf(5.0) / LN10 - np.log10(2))
    assert positive.region == "n/a"


def test_columns_are_those_of_the_contract():
    volume = np.zeros((3, 3, 3))
    volume[1, 1, 1] = 4.0
    field = make_field(volume)
    (row,) = tabulate_clusters(field, above(field, 3.0))
    names = "cluster_id x y z peak_z mean_z peak_effect log10p volume_mm3 n_voxels region composition"
    assert list(row.cells()) == names.split()
    assert row.cells()["peak_effect"] is None


@pytest.mark.parametrize(("connectivity", "expected"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity(connectivity, expected, monkeypatch):
    monkeypatch.setattr(clusters, "MIN_DISTANCE", 100)
    volume = np.zeros((6, 6, 6))
    volume[1, 1, 1], volume[2, 2, 1], volume[3, 3, 2] = 5.0, 4.0, 3.5
    field = make_field(volume)
    rows = tabulate_clusters(field, above(field, 3.0), connectivity=connectivity)
    assert len(rows) == expected


def test_unknown_connectivity_shows_the_menu():
    field = make_field(np.full((2, 2, 2), 5.0))
    with pytest.raises(UsageError, match="6, 18, 26"):
        tabulate_clusters(field, above(field, 3.0), connectivity=27)


def test_nothing_significant():
    field = make_field(np.zeros((4, 4, 4)))
    assert tabulate_clusters(field, above(field, 3.0)) == ()


def test_sub_peaks_keep_their_distance():
    volume = np.zeros((30, 3, 3))
    volume[1:28, 1, 1] = 4.0
    volume[[3, 6, 8, 20, 26], 1, 1] = 9.0, 8.0, 7.0, 6.0, 5.0
    field = make_field(volume)
    rows = tabulate_clusters(field, above(field, 3.0))
    # 6 voxels of 2 mm apart or nearer than 8 mm: the 8.0 falls out, the 7.0 (10 mm away) stays
    assert [(row.cluster_id, row.peak_z) for row in rows] == [("1", 9), ("1a", 7), ("1b", 6), ("1c", 5)]
    assert all(row.n_voxels is None and row.mean_z is None and row.volume_mm3 is None for row in rows[1:])
    assert rows[0].n_voxels == 27


def test_sub_peaks_equal_a_brute_force_scan(monkeypatch):
    monkeypatch.setattr(clusters, "MAX_SUB_PEAKS", 5)
    field = make_field(smooth_map(3) * 2)
    found = tabulate_clusters(field, above(field, 1.5))
    volume = field.grid.to_volume(field.z)
    expected = {}
    for sign in (1, -1):
        labels, n_found = ndimage.label(sign * volume > 1.5, np.ones((3, 3, 3)))
        # the neighbours of the same cluster are all supra-threshold neighbours of that sign
        height = np.where(labels > 0, sign * volume, -9)
        summit = (labels > 0) & (ndimage.maximum_filter(height, 3) == height)
        for label in range(1, n_found + 1):
            voxels = np.argwhere(summit & (labels == label))
            voxels = voxels[np.argsort(-np.abs(volume[tuple(voxels.T)]), kind="stable")]
            kept = []
            for voxel in voxels:
                if all(2.0 * np.linalg.norm(voxel - other) >= 8.0 for other in kept):
                    kept.append(voxel)
            peaks = [float(volume[tuple(voxel)]) for voxel in kept[:6]]
            expected[peaks[0]] = (peaks, int((labels == label).sum()))
    groups = {}
    for row in found:
        groups.setdefault(row.cluster_id.rstrip("abcdefgh"), []).append(row)
    assert len(groups) == len(expected) > 10
    assert any(len(rows) > 2 for rows in groups.values())
    for rows in groups.values():
        peaks, size = expected[rows[0].peak_z]
        assert [row.peak_z for row in rows] == peaks
        assert rows[0].n_voxels == size


def test_order_by_peak_and_ties_are_deterministic():
    volume = np.zeros((12, 5, 5))
    volume[1, 1, 1] = 5.0
    volume[4, 1, 1], volume[4, 1, 2] = -5.0, -4.0
    volume[8, 1, 1] = 5.0
    volume[10, 1, 1] = 7.0
    field = make_field(volume)
    rows = tabulate_clusters(field, above(field, 3.0))
    # strongest first, then of equal peaks the larger, then the first in C order
    assert [(row.cluster_id, row.x) for row in rows] == [("1", 70.0), ("2", 82.0), ("3", 88.0), ("4", 74.0)]


def test_plateau_has_one_peak(monkeypatch):
    monkeypatch.setattr(clusters, "MIN_DISTANCE", 0.0)
    volume = np.zeros((9, 9, 9))
    volume[3:6, 3:6, 3:6] = 5.0
    field = make_field(volume)
    (row,) = tabulate_clusters(field, above(field, 3.0))
    assert (row.n_voxels, row.x) == (27, 84.0)


@pytest.mark.parametrize(("two_sided", "tail"), [(False, "positive"), (True, "two-sided")])
def test_equals_nilearn(two_sided, tail):
    # Each map's own clusters: sizes in mm3, main peaks and their places; nilearn labels with 6
    # neighbours. Its sub-peaks follow another rule (centres of plateaus after a filter of its own).
    field = make_field(smooth_map(5), tail=tail)
    image = nib.Nifti1Image(field.grid.to_volume(field.z), AFFINE)
    theirs = get_clusters_table(image, 1.8, two_sided=two_sided, min_distance=8.0)
    theirs = theirs[theirs["Cluster Size (mm3)"] != ""]
    ours = [row for row in tabulate_clusters(field, above(field, 1.8), connectivity=6) if row.n_voxels]
    assert len(ours) == len(theirs) > 10
    columns = ["Peak Stat", "X", "Y", "Z", "Cluster Size (mm3)"]
    expected = sorted(theirs[columns].itertuples(index=False, name=None))
    found = sorted((row.peak_z, row.x, row.y, row.z, row.volume_mm3) for row in ours)
    # nilearn rounds sizes down to whole mm3 (8 mm3 voxels: exact) and stores float32-ish stats
    np.testing.assert_allclose(np.array(found), np.array(expected, dtype=float), rtol=1e-6)


def test_one_tail_ignores_the_other_sign():
    volume = np.zeros((6, 6, 6))
    volume[1, 1, 1], volume[4, 4, 4] = 5.0, -9.0
    for tail, peak in (("positive", 5.0), ("negative", -9.0)):
        field = make_field(volume, tail=tail)
        (row,) = tabulate_clusters(field, above(field, 3.0))
        assert row.peak_z == peak


def test_mask_border_separates_and_wraps_nothing():
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[0, 0, 4] = mask[0, 1, 0] = mask[4, 4, 4] = mask[0, 0, 0] = True
    volume = np.where(mask, 4.0, 9.0)
    field = make_field(volume, mask=mask)
    rows = tabulate_clusters(field, above(field, 3.0))
    assert sorted(row.n_voxels for row in rows) == [1, 1, 2]
    assert all(row.peak_z == 4.0 for row in rows)


def test_oblique_affine():
    affine = np.array([[1.5, 1.0, 0, 3], [-1.0, 1.5, 0, 4], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    volume = np.zeros((5, 5, 5))
    volume[1, 2, 3] = 4.0
    field = make_field(volume, affine=affine)
    (row,) = tabulate_clusters(field, above(field, 3.0))
    np.testing.assert_allclose([row.x, row.y, row.z], (affine @ [1, 2, 3, 1])[:3])
    assert row.volume_mm3 == pytest.approx(9.75)


def test_min_extent_leaves_table_and_mask():
    volume = np.zeros((10, 10, 10))
    volume[1:4, 1, 1] = 4.0
    volume[6, 6, 6] = 8.0
    volume[4, 1, 1] = -5.0
    field = make_field(volume)
    significance = above(field, 3.0)
    kept = apply_min_extent(field, significance, 2)
    assert kept.significant.sum() == 3
    assert kept.z_threshold == 4.0  # of the voxels that still are; before, the threshold itself
    np.testing.assert_array_equal(kept.log10_p, significance.log10_p)
    assert [row.n_voxels for row in tabulate_clusters(field, kept)] == [3]
    assert apply_min_extent(field, significance, 1) is significance
    with pytest.raises(UsageError, match="--min-extent"):
        apply_min_extent(field, significance, -1)


def with_small_clusters():
    """A field with a large weak cluster and a stronger one of one voxel; and a weakest voxel, alone."""
    volume = np.zeros((10, 10, 10))
    volume[1:4, 1:4, 1] = 5.0
    volume[6, 6, 6] = 8.0
    volume[8, 8, 8] = 4.6
    return make_field(volume)


@pytest.mark.parametrize("name", ["fdr", "fdr-by", "bonferroni", "ari", "uncorrected"])
def test_min_extent_says_what_still_holds(name):
    field, inference = with_small_clusters(), find_inference(name)
    found = inference.infer(field, None, InferenceSettings())
    assert found.significant.sum() == 11
    assert found.z_threshold == 4.6
    kept = apply_min_extent(field, found, 5)
    assert kept.significant.sum() == 9
    assert kept.z_threshold == 5.0  # a voxel that is still significant
    told, before = sidecar_of(kept.facts), sidecar_of(found.facts)
    assert told["MinExtent"] == 5
    assert "MinExtent" not in before
    if name.startswith("fdr"):
        rate = before["Controls"]
        assert told["Controls"] == f"{rate} before clusters of fewer than 5 voxels were left out, not after"
        assert told["Caveat"].startswith(f"the {rate} holds for all voxels that pass")
        assert "max-stat or cluster-mass, or ari" in told["Caveat"]
    else:  # any subset keeps a family-wise rate, a voxel's own, and the bounds of all sets
        assert told["Controls"] == before["Controls"]
        assert "Caveat" not in told
    nothing = apply_min_extent(field, found, 100)
    assert not nothing.significant.any()
    assert nothing.z_threshold is None


def test_caveats_add_up():
    field = with_small_clusters()
    found = find_inference("fdr").infer(field, None, InferenceSettings())
    found = replace(found, facts=with_caveat(found.facts, "p are too small"))
    told = sidecar_of(apply_min_extent(field, found, 5).facts)["Caveat"]
    assert told.startswith("p are too small; the false discovery rate holds")


def test_a_thousand_clusters_at_2_mm_in_time():
    shape = (91, 109, 91)
    noise = smooth_map(1, shape, fwhm=2.4)
    centre = (np.indices(shape).T - np.array(shape) / 2) / (np.array(shape) * 0.4)
    mask = ((centre**2).sum(-1) < 1).T
    field = make_field(noise, mask=mask)
    significance = above(field, 2.0)
    start = time.process_time()
    rows = tabulate_clusters(field, significance)
    seconds = time.process_time() - start
    assert sum(row.n_voxels is not None for row in rows) > 1000
    # the promise; measured 0.05 s of CPU time
    assert seconds < 0.3
