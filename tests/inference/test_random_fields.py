"""Random field inference on maps: which null field, what is searched, what is said."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Smoothness
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import sidecar_of
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference.rft_cluster import INFERENCE as CLUSTER
from ibma_app.inference.rft_voxel import INFERENCE as VOXEL
from ibma_app.stats.resels import count_resels
from ibma_app.stats.rft import RandomField, cluster_level, height_threshold

AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])
SHAPE = (20, 18, 16)
DEFAULT = InferenceSettings()
LN10 = np.log(10)


def make_field(t, dof=14.0, tail="two-sided", fwhm=(3.0, 2.5, 2.0), name="t", rows=1.0):
    """A field of t (or F) over an ellipsoid."""
    centre = (np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2) / (np.array(SHAPE) * 0.45)
    mask = ((centre**2).sum(-1) < 1).T
    values = t[mask]
    if name == "F":
        log_p = stats.f.logsf(values, rows, dof)
        z = stats.norm.isf(np.exp(log_p))
    else:
        z = np.sign(values) * stats.norm.isf(stats.t.sf(np.abs(values), dof))
        upper, lower = stats.t.logsf(values, dof), stats.t.logcdf(values, dof)
        both = np.minimum(np.minimum(upper, lower) + np.log(2), 0)
        log_p = {"two-sided": both, "positive": upper, "negative": lower}[tail]
    return Field(
        z=z,
        tail=tail,
        estimable=np.ones(z.size, dtype=bool),
        grid=Grid(affine=AFFINE, mask=mask),
        log10_p=-log_p / LN10,
        statistic=values,
        statistic_name=name,
        dof=(rows, dof),
        smoothness=Smoothness(fwhm, 999, 15),
    )


def blobs(seed=0):
    """Smooth noise with a strong peak of each sign."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.0)
    volume = noise / noise.std()
    volume[6:9, 8:10, 8] += 9
    volume[13:15, 9, 5:8] -= 11
    return volume


@pytest.mark.parametrize("tail", ["two-sided", "positive", "negative"])
def test_voxels_are_significant_above_the_threshold(tail):
    field = make_field(blobs(), tail=tail)
    found = VOXEL.infer(field, None, DEFAULT)
    resels = count_resels(field.grid.mask, (3.0, 2.5, 2.0))
    null = RandomField("t", (1.0, 14.0), tail == "two-sided")
    height = height_threshold(null, resels, field.z.size, 0.05)
    strength = {"two-sided": np.abs, "positive": np.positive, "negative": np.negative}[tail](field.statistic)
    np.testing.assert_array_equal(found.significant, strength >= height)
    assert 0 < found.significant.sum() < 100
    assert sidecar_of(found.facts)["HeightThreshold"] == height
    assert sidecar_of(found.facts)["FWHM"] == pytest.approx([6.0, 6.25, 6.0])
    assert sidecar_of(found.facts)["Resels"] == pytest.approx(resels)
    assert sidecar_of(found.facts)["RandomField"].startswith("t field with 14 degrees of freedom")
    assert (found.log10_p <= field.log10_p).all()
    order = np.argsort(strength)
    assert (np.diff(found.log10_p[order]) >= -1e-12).all()


def test_the_other_sign_mirrors():
    one = VOXEL.infer(make_field(blobs(), tail="positive"), None, DEFAULT)
    other = VOXEL.infer(make_field(-blobs(), tail="negative"), None, DEFAULT)
    np.testing.assert_allclose(one.log10_p, other.log10_p, rtol=1e-9, atol=1e-12)
    for inference in (VOXEL, CLUSTER):
        one, other = (inference.infer(make_field(sign * blobs()), None, DEFAULT) for sign in (1, -1))
        np.testing.assert_allclose(one.log10_p, other.log10_p, rtol=1e-9, atol=1e-12)


def test_f_tests_have_the_f_field():
    field = make_field(blobs() ** 2, tail="positive", name="F", rows=3.0)
    found = VOXEL.infer(field, None, DEFAULT)
    assert sidecar_of(found.facts)["RandomField"] == "F field with 3 and 14 degrees of freedom"
    resels = count_resels(field.grid.mask, (3.0, 2.5, 2.0))
    height = height_threshold(RandomField("F", (3.0, 14.0)), resels, field.z.size, 0.05)
    np.testing.assert_array_equal(found.significant, field.statistic >= height)
    assert found.significant.any()


def vary(field, some, dof):
    """Give some voxels more dof at the same p, as the map's t there would have; the field's stay the smallest."""
    statistic = field.statistic.copy()
    if field.statistic_name == "F":
        statistic[some] = stats.f.isf(stats.f.sf(statistic[some], *field.dof), field.dof[0], dof)
    else:
        statistic[some] = -stats.t.isf(stats.t.cdf(statistic[some], field.dof[1]), dof)
    return replace(field, statistic=statistic, largest_dof=dof)


@pytest.mark.parametrize("name", ["t", "F"])
def test_voxels_of_more_dof_are_searched_as_if_they_had_the_fewest(name):
    volume = np.clip(blobs(), -12.0, 12.0)
    same = make_field(volume**2, tail="positive", name="F", rows=3.0) if name == "F" else make_field(volume)
    some = np.arange(same.z.size) % 3 == 0
    found = VOXEL.infer(vary(same, some, 40.0), None, DEFAULT)
    expected = VOXEL.infer(same, None, DEFAULT)
    # z and p of all voxels are the same, and so is all that is found
    np.testing.assert_allclose(found.log10_p, expected.log10_p, rtol=1e-7, atol=1e-9)
    assert 0 < found.significant.sum() < 100
    told = sidecar_of(found.facts)
    assert told["HeightThreshold"] == sidecar_of(expected.facts)["HeightThreshold"]
    assert "14 degrees of freedom (the smallest of the mask)" in told["RandomField"]


def test_one_voxel_of_fewer_dof_does_not_make_the_gaussian_field():
    field = make_field(blobs(), dof=6.0, fwhm=(7.0, 7.0, 7.0))
    one = np.zeros(field.z.size, dtype=bool)
    one[0] = True
    varied = vary(field, ~one, 7.0)
    gaussian = sidecar_of(VOXEL.infer(replace(varied, statistic=None, dof=None), None, DEFAULT).facts)
    told = sidecar_of(VOXEL.infer(varied, None, DEFAULT).facts)
    assert gaussian["RandomField"] == "Gaussian field of z, both signs"
    z_of = stats.norm.isf(stats.t.sf(told["HeightThreshold"], 6))
    assert z_of > gaussian["HeightThreshold"] + 0.05  # its peaks are more frequent: they must be higher in z


def test_clusters_are_those_of_the_most_dof():
    same = make_field(blobs(1) * 1.8)
    varied = vary(same, np.arange(same.z.size) % 3 == 0, 40.0)
    settings = InferenceSettings(cluster_p=0.01)
    told = sidecar_of(CLUSTER.infer(varied, None, settings).facts)
    assert told["RandomField"] == "t field with 40 degrees of freedom (the largest of the mask), both signs"
    assert told["ClusterFormingHeight"] == pytest.approx(stats.t.isf(0.005, 40))
    resels = count_resels(varied.grid.mask, (3.0, 2.5, 2.0))
    level = cluster_level(RandomField("t", (1.0, 40.0), True), stats.t.isf(0.005, 40), resels, [])
    assert told["ExpectedVoxelsPerCluster"] == pytest.approx(level.expected_resels * 15.0)
    # clusters of more dof are larger by chance: what is found is not more
    before = sidecar_of(CLUSTER.infer(same, None, settings).facts)
    assert told["ExpectedVoxelsPerCluster"] > before["ExpectedVoxelsPerCluster"]
    assert told["NumberOfClusters"] == before["NumberOfClusters"]


@pytest.mark.parametrize("inference", [VOXEL, CLUSTER])
def test_without_residuals_it_is_refused_in_words(inference):
    field = replace(make_field(blobs()), smoothness=None)
    with pytest.raises(UsageError, match=f"--inference {inference.name} needs the smoothness.*Choose another"):
        inference.infer(field, None, DEFAULT)


@pytest.mark.parametrize("inference", [VOXEL, CLUSTER])
def test_only_estimable_voxels_are_searched(inference):
    field = make_field(blobs())
    estimable = np.arange(field.z.size) % 50 > 0
    found = inference.infer(replace(field, estimable=estimable), None, DEFAULT)
    assert not found.significant[~estimable].any()
    assert (found.log10_p[~estimable] == 0).all()
    assert sidecar_of(found.facts)["NumberOfTests"] == estimable.sum()
    nothing = inference.infer(replace(field, estimable=np.zeros_like(estimable)), None, DEFAULT)
    assert not nothing.significant.any()
    assert (nothing.log10_p == 0).all()


def test_one_voxel_is_not_corrected():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    field = Field(
        z=np.array([2.1]), tail="positive", estimable=np.ones(1, dtype=bool), grid=Grid(AFFINE, mask),
        log10_p=-stats.norm.logsf([2.1]) / LN10, smoothness=Smoothness((1.0, 1.0, 1.0), 0, 5),
    )  # fmt: skip
    np.testing.assert_allclose(VOXEL.infer(field, None, DEFAULT).log10_p, field.log10_p, rtol=1e-12)


@pytest.mark.parametrize("tail", ["two-sided", "positive"])
def test_clusters_have_the_p_of_their_extent(tail):
    field = make_field(blobs(1) * 1.8, tail=tail)
    settings = InferenceSettings(cluster_p=0.01)
    found = CLUSTER.infer(field, None, settings)
    null = RandomField("t", (1.0, 14.0), tail == "two-sided")
    height = stats.t.isf(0.01 / (2 if null.two_sided else 1), 14)
    resels = count_resels(field.grid.mask, (3.0, 2.5, 2.0))
    volume = field.grid.to_volume(field.statistic)
    expected = np.zeros(SHAPE)
    n_clusters = 0
    for sign in (1, -1) if null.two_sided else (1,):
        labels, n_found = ndimage.label(sign * volume > height, ndimage.generate_binary_structure(3, 2))
        for label in range(1, n_found + 1):
            size = (labels == label).sum() / 15.0  # voxels in a resel: 3 x 2.5 x 2
            expected[labels == label] = cluster_level(null, height, resels, [size]).log10_p
        n_clusters += n_found
    np.testing.assert_allclose(found.log10_p, expected[field.grid.mask], rtol=1e-9, atol=1e-12)
    told = sidecar_of(found.facts)
    assert told["NumberOfClusters"] == n_clusters > 5
    assert told["ClusterFormingHeight"] == pytest.approx(height)
    assert told["ClusterFormingZ"] == pytest.approx(stats.norm.isf(0.01 / (2 if null.two_sided else 1)))
    assert told["Connectivity"] == 18
    assert 0 < found.significant.sum() < (found.log10_p > 0).sum()
    sizes = np.bincount(ndimage.label(np.abs(volume) > height, ndimage.generate_binary_structure(3, 2))[0].ravel())
    assert sizes[1:].max() >= told["ExtentThreshold"] > 1


def test_lenient_clusters_are_warned_of(caplog):
    field = make_field(blobs())
    with caplog.at_level(logging.WARNING):
        strict = CLUSTER.infer(field, None, InferenceSettings(cluster_p=0.001))
        assert not caplog.records
        assert "Note" not in sidecar_of(strict.facts)
        lenient = CLUSTER.infer(field, None, InferenceSettings(cluster_p=0.01))
    assert "above 0.001" in caplog.text
    assert "above 0.001" in sidecar_of(lenient.facts)["Note"]


def test_connectivity_is_settable():
    volume = np.zeros(SHAPE)
    volume[8, 8, 8], volume[9, 9, 9] = 12.0, 13.0  # corner to corner
    field = make_field(volume)
    counts = [
        sidecar_of(CLUSTER.infer(field, None, InferenceSettings(options=options)).facts)["NumberOfClusters"]
        for options in ({}, {"connectivity": 26})
    ]
    assert counts == [2, 1]


@pytest.mark.parametrize("inference", [VOXEL, CLUSTER])
def test_levels_out_of_range(inference):
    with pytest.raises(UsageError, match="between 0 and 1"):
        inference.infer(make_field(blobs()), None, InferenceSettings(alpha=1.5))
