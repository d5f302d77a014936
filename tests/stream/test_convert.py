"""What is derived from what, and which voxels a map covers."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.errors import DataError
from ibma_app.stream.convert import (
    BACKGROUND,
    COVERED,
    NOT_FINITE,
    VARIANCE_ABSURD,
    VARIANCE_NOT_POSITIVE,
    can_give,
    convert_maps,
    kinds_to_open,
)

SHAPE = (4, 5, 6)


@pytest.fixture
def truth(rng):
    effect, variance = rng.normal(size=SHAPE), rng.gamma(5.0, 0.2, size=SHAPE)
    t = effect / np.sqrt(variance)
    z = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), 12))
    return {"effect": effect, "variance": variance, "t": t, "z": z, "p": 2 * stats.norm.sf(np.abs(z))}


@pytest.fixture
def convert(observe):
    def run(volumes, needs, **fields):
        observation = observe("01", volumes, **fields)
        kinds = kinds_to_open(observation, needs)
        return convert_maps(observation, {kind: np.asarray(volumes[kind]) for kind in kinds}, needs)

    return run


@pytest.mark.parametrize(
    ("have", "needs", "opened"),
    [
        ("effect variance t z p dof", ["effect"], "effect"),
        ("effect variance t z p dof", ["effect", "variance"], "effect variance"),
        ("effect variance t z p dof", ["effect", "variance", "dof"], "effect variance dof"),
        ("effect t z", ["effect", "variance"], "effect t"),
        ("effect z", ["effect", "variance"], "effect z"),
        ("effect z dof", ["effect", "variance"], "effect z dof"),
        ("effect variance t z", ["z"], "z"),
        ("effect variance t", ["z"], "t"),
        ("t dof", ["z"], "t dof"),
        ("effect variance p", ["z"], "effect variance"),
        ("effect p", ["z"], "effect p"),
        ("p", ["z"], "p"),
        ("effect t", ["effect", "variance", "z"], "effect t"),
        ("effect variance z", ["t"], "effect variance"),
        ("z dof", ["t"], "z dof"),
    ],
)
def test_only_the_files_that_are_needed_are_opened(observe, have, needs, opened):
    observation = observe("01", dict.fromkeys(have.split(), np.ones((2, 2, 2))))
    assert sorted(kinds_to_open(observation, needs)) == sorted(opened.split())


@pytest.mark.parametrize(
    ("have", "need", "remedy"),
    [
        (["effect"], "variance", "--estimator auto"),
        (["t"], "effect", "--estimator auto"),
        (["effect"], "z", "stat-t"),
        (["z"], "sample_size", "SampleSize"),
    ],
)
def test_a_missing_kind_names_the_file_and_the_remedy(observe, have, need, remedy):
    observation = observe("07", dict.fromkeys(have, np.ones((2, 2, 2))))
    with pytest.raises(DataError, match=remedy) as caught:
        kinds_to_open(observation, [need])
    assert str(observation.path) in caught.value.message
    assert "sub-07" in caught.value.message


def test_what_can_be_given_without_reading(observe):
    one = np.ones((2, 2, 2))
    assert can_give(observe("01", {"effect": one, "t": one}), "variance")
    assert not can_give(observe("01", {"effect": one, "p": one}), "variance")
    assert can_give(observe("01", {"effect": one, "p": one}), "z")
    assert not can_give(observe("01", {"p": one}), "z")
    assert can_give(observe("01", {"p": one}, tail="positive"), "z")
    assert can_give(observe("01", {"p": one}, tail="negative"), "z")
    assert can_give(observe("01", {"p": one}), "p")


@pytest.mark.parametrize(
    ("have", "needs", "derived"),
    [
        (["effect", "variance"], ["effect", "variance"], ()),
        (["effect", "t"], ["effect", "variance"], ("variance from effect and t",)),
        (["effect", "z"], ["effect", "variance"], ("variance from effect and z",)),
        (["t"], ["z"], ("z from t and dof",)),
        (["effect", "variance"], ["z"], ("t from effect and variance; z from t and dof",)),
        (["effect", "p"], ["z"], ("z from p, signed by the effect",)),
        (["effect", "variance"], ["t"], ("t from effect and variance",)),
        (["z"], ["t"], ("t from z",)),
    ],
)
def test_derivations_give_the_truth_back(convert, truth, have, needs, derived):
    converted = convert({kind: truth[kind] for kind in have}, needs, dof=12.0, tail="two-sided")
    assert converted.derived == derived
    assert (converted.reasons == COVERED).all()
    assert converted.signed
    for need in needs:
        np.testing.assert_allclose(converted.arrays[need], truth[need], rtol=1e-8)


def test_p_of_each_tail(convert, truth):
    upper = stats.norm.sf(truth["z"])
    converted = convert({"p": upper}, ["z"], tail="positive")
    np.testing.assert_allclose(converted.arrays["z"], truth["z"], rtol=1e-9)
    assert converted.signed
    lower = convert({"p": stats.norm.cdf(truth["z"])}, ["z"], tail="negative")
    np.testing.assert_allclose(lower.arrays["z"], truth["z"], rtol=1e-9)
    assert lower.signed
    unsigned = convert({"p": truth["p"]}, ["z"], tail="two-sided")
    np.testing.assert_allclose(unsigned.arrays["z"], stats.norm.isf(truth["p"]), rtol=1e-9)
    assert not unsigned.signed
    with pytest.raises(DataError, match="two-sided, positive"):
        convert({"p": truth["p"]}, ["z"], tail="upside-down")


@pytest.mark.parametrize("label", ["oneMinusP", "OneMinusP"])
def test_one_minus_p_is_refused_by_its_label(convert, truth, label):
    with pytest.raises(DataError, match="1 - p"):
        convert({"p": truth["p"]}, ["z"], entities={"desc": label})


@pytest.mark.parametrize("text", ["1-p map", "Voxelwise 1 - p values", "one minus p", "tfce_corrp_tstat1"])
def test_one_minus_p_is_refused_by_its_sidecar(convert, truth, text):
    with pytest.raises(DataError, match="1 - p"):
        convert({"p": truth["p"]}, ["z"], metadata={"Description": text})


@pytest.mark.parametrize("label", ["incorrPlus", "session1Minus", "run1mPost"])
def test_innocent_labels_pass(convert, truth, label):
    assert convert({"p": truth["p"]}, ["z"], entities={"contrast": label}).arrays["z"].any()


def test_log10p_is_no_p(convert, truth):
    with pytest.raises(DataError, match="no p map"):
        convert({"p": -np.log10(truth["p"]) * 3}, ["z"])


def test_assumed_and_unknown_dof_are_told(convert, truth):
    assumed = convert({"t": truth["t"]}, ["z"], dof=12.0, dof_source="SampleSize - 1")
    np.testing.assert_allclose(assumed.arrays["z"], truth["z"], rtol=1e-8)
    assert "SampleSize - 1" in assumed.notes[0].text
    unknown = convert({"t": truth["t"]}, ["z"])
    np.testing.assert_array_equal(unknown.arrays["z"], truth["t"])
    assert "--dof" in unknown.notes[0].text
    assert unknown.derived == ("z from t (dof unknown: t taken as z)",)
    assert not convert({"effect": truth["effect"]}, ["effect"]).notes


def test_a_dof_map_counts_voxel_by_voxel(convert, truth, rng):
    dof = rng.integers(3, 30, size=SHAPE).astype(float)
    dof[0, 0, 0] = 0
    converted = convert({"t": truth["t"], "dof": dof}, ["z"])
    expected = np.sign(truth["t"]) * stats.norm.isf(stats.t.sf(np.abs(truth["t"]), np.maximum(dof, 1)))
    assert converted.reasons[0, 0, 0] == NOT_FINITE
    inside = converted.reasons == COVERED
    np.testing.assert_allclose(converted.arrays["z"][inside], expected[inside], rtol=1e-8)


def test_coverage_follows_every_kind_that_is_used(convert, truth):
    effect, variance = truth["effect"].copy(), truth["variance"].copy()
    effect[0, 0, 0], effect[0, 0, 1], variance[0, 0, 2] = 0, np.nan, np.inf
    variance[0, 1, 0], variance[0, 1, 1] = 0, -1
    variance[0, 2, 0] = 0.9e-10 * np.median(truth["variance"])
    variance[0, 2, 1] = 1.2e-10 * np.median(truth["variance"])
    effect[0, 3, 0], variance[0, 3, 0] = 0, np.nan
    found = convert({"effect": effect, "variance": variance}, ["effect", "variance"])
    expected = np.zeros(SHAPE, dtype=int)
    expected[0, 0, 0] = expected[0, 3, 0] = BACKGROUND
    expected[0, 0, 1] = expected[0, 0, 2] = NOT_FINITE
    expected[0, 1, 0] = expected[0, 1, 1] = VARIANCE_NOT_POSITIVE
    expected[0, 2, 0] = VARIANCE_ABSURD
    np.testing.assert_array_equal(found.reasons, expected)
    assert not found.arrays["effect"][expected != COVERED].any()
    alone = convert({"effect": effect, "variance": variance}, ["effect"])
    assert alone.reasons[0, 1, 0] == COVERED


def test_background_of_p_is_exactly_one(convert, truth):
    p = truth["p"].copy()
    p[0, 0, 0], p[0, 0, 1], p[0, 0, 2] = 1, 0, np.nan
    found = convert({"p": p}, ["z"])
    assert list(found.reasons[0, 0, :4]) == [BACKGROUND, BACKGROUND, NOT_FINITE, COVERED]


def test_a_t_of_zero_gives_no_variance(convert, truth):
    t = truth["t"].copy()
    t[0, 0, 0] = 0
    assert convert({"effect": truth["effect"], "t": t}, ["effect", "variance"]).reasons[0, 0, 0] == BACKGROUND
