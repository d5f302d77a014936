"""What every inference that takes p of single voxels must do."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from ibma_app.core.design import TAILS
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import sidecar_of
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import INFERENCES, find_inference, inference_settings

SHAPE = (9, 8, 7)

# random fields need a smoothness, ari forms clusters, resampling has its own battery: test_resampled_inferences.py
OTHERS = ("rft-voxel", "rft-cluster", "ari")
VOXELWISE = [name for name in INFERENCES if name not in OTHERS and find_inference(name).score is None]


def make_field(z, tail="two-sided", estimable=None):
    """A field over the corner of a volume that holds as many voxels as z."""
    z = np.asarray(z, dtype=float)
    mask = np.zeros(SHAPE, dtype=bool)
    mask.ravel()[: z.size] = True
    log_p = {
        "two-sided": np.minimum(norm.logsf(np.abs(z)) + np.log(2), 0),
        "positive": norm.logsf(z),
        "negative": norm.logcdf(z),
    }[tail]
    return Field(
        z=z,
        tail=tail,
        estimable=np.ones(z.size, dtype=bool) if estimable is None else estimable,
        grid=Grid(affine=np.diag([2.0, 2, 2, 1]), mask=mask),
        log10_p=-log_p / np.log(10),
    )


def noise(seed=0, shift=0.0):
    """504 voxels, a tenth of them with effects of either sign."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(np.prod(SHAPE))
    z[:50] += rng.choice([-5.0, 5.0], 50)
    return z + shift


@pytest.fixture(params=VOXELWISE)
def infer(request):
    """Each inference in turn, with default settings unless told otherwise."""
    record = find_inference(request.param)

    def run(field, **settings):
        return record.infer(field, None, replace(InferenceSettings(), **settings))

    return run


@pytest.mark.parametrize("tail", TAILS)
def test_p_is_corrected_upwards_and_finite(infer, tail):
    field = make_field(noise(), tail)
    found = infer(field)
    assert found.log10_p.shape == found.significant.shape == field.z.shape
    assert np.isfinite(found.log10_p).all()
    assert (found.log10_p >= 0).all()
    assert not np.signbit(found.log10_p).any()
    assert (found.log10_p <= field.log10_p + 1e-12).all()
    assert found.significant.any()


@pytest.mark.parametrize("tail", TAILS)
def test_stronger_voxels_are_no_less_significant(infer, tail):
    field = make_field(noise(1), tail)
    found = infer(field)
    order = np.argsort(field.log10_p)
    assert (np.diff(found.log10_p[order]) >= 0).all()
    strength = {"two-sided": np.abs(field.z), "positive": field.z, "negative": -field.z}[tail]
    assert strength[found.significant].min() > strength[~found.significant].max()
    assert found.z_threshold == np.abs(field.z[found.significant]).min()


def test_signs_are_treated_alike(infer):
    z = noise(2)
    for tail, other in (("positive", "negative"), ("two-sided", "two-sided")):
        one, mirrored = infer(make_field(z, tail)), infer(make_field(-z, other))
        np.testing.assert_array_equal(one.significant, mirrored.significant)
        np.testing.assert_allclose(one.log10_p, mirrored.log10_p, rtol=1e-12)


def test_where_nothing_can_be_estimated_p_is_1(infer):
    z = noise(3)
    estimable = np.arange(z.size) % 4 > 0
    z[~estimable] = 50.0  # must not be looked at
    found = infer(make_field(z, estimable=estimable))
    assert not found.significant[~estimable].any()
    assert (found.log10_p[~estimable] == 0).all()
    assert found.significant.any()
    z[~estimable] = 0.0
    again = infer(make_field(z, estimable=estimable))
    np.testing.assert_array_equal(found.log10_p[estimable], again.log10_p[estimable])


def test_nothing_estimable_at_all(infer):
    found = infer(make_field(np.zeros(5), estimable=np.zeros(5, dtype=bool)))
    assert not found.significant.any()
    assert found.z_threshold is None
    assert (found.log10_p == 0).all()


def test_a_map_of_zeros(infer):
    found = infer(make_field(np.zeros(100)))
    assert not found.significant.any()
    assert found.z_threshold is None


def test_one_voxel_is_not_corrected(infer):
    field = make_field([3.9], "positive")
    found = infer(field)
    assert found.significant.all()
    np.testing.assert_allclose(found.log10_p, field.log10_p, rtol=1e-12)


def test_a_constant_map(infer):
    found = infer(make_field(np.full(60, 6.0)))
    assert found.significant.all()
    assert np.ptp(found.log10_p) < 1e-12


def test_p_that_underflow(infer):
    z = noise(4)
    z[:3] = 60.0, 200.0, -90.0
    found = infer(make_field(z))
    assert np.isfinite(found.log10_p).all()
    assert found.log10_p[1] > found.log10_p[2] > found.log10_p[0] > 700


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_levels_out_of_range(infer, level):
    with pytest.raises(UsageError, match="between 0 and 1"):
        infer(make_field(noise()), alpha=level, cluster_p=level)


def test_a_stricter_level_finds_less(infer):
    field = make_field(noise(5))
    wide, strict = infer(field, alpha=0.2, cluster_p=0.01), infer(field, alpha=0.001, cluster_p=1e-5)
    assert wide.significant.sum() > strict.significant.sum()
    assert not (strict.significant & ~wide.significant).any()


def test_inputs_stay_as_they_are_and_results_repeat(infer):
    field = make_field(noise(6))
    z, log10_p = field.z.copy(), field.log10_p.copy()
    one, two = infer(field), infer(field)
    np.testing.assert_array_equal(field.z, z)
    np.testing.assert_array_equal(field.log10_p, log10_p)
    np.testing.assert_array_equal(one.log10_p, two.log10_p)
    assert one.facts == two.facts


def test_facts_tell_level_and_number_of_tests(infer):
    found = infer(make_field(noise()))
    assert sidecar_of(found.facts)["NumberOfTests"] == 504
    assert 0 < sidecar_of(found.facts)["Alpha"] < 1


@pytest.mark.parametrize("name", INFERENCES)
def test_record(name):
    record = find_inference(name)
    assert record.name == name
    assert record.title
    assert not record.title.endswith(".")
    assert not record.words or record.words.endswith(".")
    assert bool(record.score_label) == (record.score is not None)
    for key, setting in record.settings.items():
        assert setting.meaning, key
        assert set(setting.choices) <= set(inference_settings()[key])
    for column in record.columns:
        assert column.label
        assert column.description


@pytest.mark.parametrize("name", [name for name in INFERENCES if find_inference(name).score])
def test_a_score_of_all_voxels_is_their_height(name):
    # what the report tells as a height, resampling takes from all voxels, and the other way round
    record = find_inference(name)
    scorer = record.score(make_field(noise()).grid, "two-sided", InferenceSettings())
    assert record.score_is_height == (scorer.floor == -np.inf)
    if record.score_is_height:
        heights = np.array([1.0, 4.5, 2.0])
        np.testing.assert_array_equal(scorer.each(np.arange(3), heights), heights)
        assert scorer.largest(np.arange(3), heights) == 4.5


@pytest.mark.parametrize("name", [name for name in INFERENCES if find_inference(name).columns])
def test_columns_measure_clusters(name):
    field = make_field(noise())
    for column in find_inference(name).columns:
        measure = column.prepare(field, InferenceSettings())
        assert 0 < measure(np.arange(50)) <= (1 if column.percent else np.inf)
        assert measure(np.arange(50)) == measure(np.arange(50))


def test_keys_of_the_configuration():
    assert (
        inference_settings().items()
        >= {
            "connectivity": (6, 18, 26),
            "tail_fit": (False, True),
            "tfce_e": (),
            "tfce_h": (),
        }.items()
    )
