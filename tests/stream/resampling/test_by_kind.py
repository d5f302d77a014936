"""Resampled scores on surfaces, and on surfaces and volumes together, through the resampling functions."""

import numpy as np
import pytest

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Mesh, Surface, Voxels
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field
from ibma_app.core.inference_facts import sidecar_of
from ibma_app.core.methods import InferenceSettings
from ibma_app.core.results import MapSurvey
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stats.min_p import join_nulls
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.row_store import RowStore
from ibma_app.stream.stack import Stack

SIDE, N_MAPS = 9, 12
CORNER = (SIDE * np.arange(3)[:, None] + np.arange(3)).ravel()
NAMES = ("max-stat", "cluster-size", "cluster-mass", "tfce")


def make_sheet(name, edge):
    """A flat square of vertices, 2 mm (or so) apart."""
    numbers = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    points = edge * np.stack([*np.indices(numbers.shape), np.zeros(numbers.shape)], axis=-1).reshape(-1, 3)
    one = [numbers[:-1, :-1], numbers[1:, :-1], numbers[:-1, 1:]]
    two = [numbers[1:, 1:], numbers[1:, :-1], numbers[:-1, 1:]]
    triangles = np.concatenate([np.stack(half, axis=-1).reshape(-1, 3) for half in (one, two)])
    return Surface(name, points.shape[0], mesh=Mesh(points, triangles.astype(np.int32), name))


def make_box(edge):
    indices = np.argwhere(np.ones((4, 4, 4))).astype(np.int32)
    return Voxels("THALAMUS_LEFT", indices, np.diag([edge, edge, edge, 1.0]), (4, 4, 4))


def shape_of(edge=2.0, voxel=2.0):
    structures = (make_sheet("CORTEX_LEFT", edge), make_sheet("CORTEX_RIGHT", edge), make_box(voxel))
    return Elements.whole(structures, ".dscalar.nii")


def make_maps(shape, seed=0):
    """Noise, and an effect in a corner of the left sheet and in half of the box."""
    maps = np.random.default_rng(seed).standard_normal((N_MAPS, shape.n_voxels)).astype(np.float32)
    maps[:, CORNER] += 1.5
    maps[:, -32:] += 1.5
    return maps


def resample(shape, maps, names=NAMES, **options):
    store = RowStore()
    for row, one in enumerate(maps):
        store.append("effect", row, one, 0)
    store.select({0: np.arange(shape.n_voxels)})
    survey = tuple(MapSurvey(f"sub-{row}", (), shape.n_voxels) for row in range(len(maps)))
    numbers, signed = tuple(range(len(maps))), (True,) * len(maps)
    stack = Stack(shape, survey, (), ("effect",), numbers, signed, None, None, store)
    test = Test("mean", np.ones((1, 1)))
    model = Model(find_estimator("ols"), Design(np.ones((len(maps), 1)), ("Intercept",), (test,)))
    settings = InferenceSettings(**{"permutations": 60, "cluster_p": 0.01, **options})
    null = score_resamples(stack, model, test, {name: find_inference(name).score for name in names}, settings)
    fitted = estimate_maps(stack, model).tests["mean"]
    field = Field(fitted.z, "two-sided", fitted.estimable, shape, z_to_log10p(fitted.z, "two-sided"))
    return null, {name: find_inference(name).infer(field, null, settings) for name in names}


@pytest.fixture(scope="module")
def together():
    shape = shape_of()
    maps = make_maps(shape)
    return shape, maps, *resample(shape, maps)


def test_each_kind_is_ranked_in_its_own_null(together):
    shape, maps, null, _ = together
    vertices, voxels = (shape.of_unit(unit) for unit in ("mm2", "mm3"))
    apart = [resample(part, maps[:, part.mask])[0] for part in (vertices, voxels)]
    assert null.kinds == {"cluster-size": 2, "cluster-mass": 2, "tfce": 2}
    for name in null.kinds:
        observed = [np.zeros(shape.n_voxels) for _ in apart]
        for one, part, alone in zip(observed, (vertices, voxels), apart, strict=True):
            one[part.mask] = alone.observed[name]
        scores, maxima = join_nulls(observed, [alone.maxima[name] for alone in apart])
        np.testing.assert_allclose(null.observed[name], scores, rtol=1e-12)
        np.testing.assert_allclose(null.maxima[name], maxima, rtol=1e-12)
    largest = [alone.maxima["max-stat"] for alone in apart]
    np.testing.assert_allclose(null.maxima["max-stat"], np.maximum(*largest), rtol=1e-6)


def test_units_of_length_decide_nothing(together):
    _, maps, null, found = together
    other, decided = resample(shape_of(edge=20.0, voxel=0.2), maps)
    for name in NAMES:
        np.testing.assert_allclose(other.maxima[name], null.maxima[name], rtol=1e-9)
        np.testing.assert_array_equal(decided[name].significant, found[name].significant)


def test_effects_are_found_in_both_kinds_and_said(together):
    _, _, _, found = together
    for name in ("cluster-size", "cluster-mass", "tfce"):
        significant = found[name].significant
        assert significant[CORNER].any()
        assert significant[-32:].any()
        sidecar = sidecar_of(found[name].facts)
        assert "smallest p over kinds" in sidecar["ScoreUnits"]
        assert "TailFit" not in sidecar
        assert sidecar["Connectivity"].startswith("mesh (on surfaces) and ")
    tfce = sidecar_of(found["tfce"].facts)
    assert tfce["ExtentExponent"] == "1 on surfaces and 0.5 in volumes"
    assert tfce["HeightExponent"] == 2.0


def test_surfaces_alone_have_scores_in_their_units():
    shape = shape_of().of_unit("mm2")
    maps = make_maps(shape)[:, : shape.n_voxels]
    null, found = resample(shape, maps)
    assert null.kinds == {}
    assert sidecar_of(found["cluster-size"].facts)["ScoreUnits"] == "mm²"
    assert sidecar_of(found["tfce"].facts)["ExtentExponent"] == 1.0
    areas = null.observed["cluster-size"]
    twice, _ = resample(shape_of(edge=4.0).of_unit("mm2"), maps)
    np.testing.assert_allclose(twice.observed["cluster-size"], 4 * areas, rtol=1e-9)
    assert areas.max() > 0
    np.testing.assert_allclose(twice.observed["tfce"], 4 * null.observed["tfce"], rtol=1e-9)


def test_the_tail_of_ranks_is_not_fitted(together):
    shape, maps, null, _ = together
    _, found = resample(shape, maps, ("tfce",), options={"tail_fit": True})
    assert 10.0 ** -found["tfce"].log10_p.max() >= null.smallest_p() * (1 - 1e-9)


@pytest.mark.parametrize(("n", "permutations", "expected"), [(6, 100, 2 * 2 / 64), (14, 200, 2 / 200)])
def test_two_kinds_reach_twice_the_smallest_p_of_one_and_too_few_are_warned_of(n, permutations, expected, caplog):
    shape = shape_of()
    maps = np.concatenate([make_maps(shape), make_maps(shape, seed=1)])[:n]
    null, found = resample(shape, maps, ("max-stat", "tfce"), permutations=permutations)
    assert null.maxima["tfce"].size == min(permutations, 2**n)
    told = {name: sidecar_of(one.facts) for name, one in found.items()}
    assert told["tfce"]["SmallestP"] == expected
    assert told["max-stat"]["SmallestP"] == expected / 2
    warned = (
        "tfce: with 64 all distinct relabellings and 2 kinds of structures, each ranked in its own null, the smallest"
    )
    assert (f"{warned} p that can be reached is 0.0625, above --alpha 0.05" in caplog.text) == (n == 6)
    assert "max-stat: with" not in caplog.text


def test_without_a_mesh_only_heights_are_scored():
    shape = Elements.whole((Surface("CORTEX_LEFT", 50),), ".func.gii")
    maps = np.random.default_rng(1).standard_normal((N_MAPS, 50)).astype(np.float32)
    null, _ = resample(shape, maps, ("max-stat",))
    assert null.maxima["max-stat"].size == 60
    with pytest.raises(UsageError, match="--surface L=FILE"):
        resample(shape, maps, ("tfce",))
