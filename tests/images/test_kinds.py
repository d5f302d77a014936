"""Files that are no such maps, by their names, ranges and distributions."""

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.errors import DataError
from ibma_app.images.kinds import refuse_no_statistic, refuse_turned_p

SHAPE = (20, 20, 20)


@pytest.fixture
def t():
    values = np.random.default_rng(3).standard_t(20, size=SHAPE) + 0.3
    values[:4] = 0.0
    return values


def blobs(t):
    """Number the half-planes of a volume, as clusters are numbered."""
    numbers = np.zeros(SHAPE)
    for number in range(1, 8):
        numbers[2 * number : 2 * number + 2, 3:9] = number
    return numbers


NO_T = {
    "binary mask": (lambda t: (t != 0).astype(float), "a mask"),
    "mask of -1 and 1": (np.sign, "a mask"),
    "labels of regions": (lambda t: np.where(t != 0, np.arange(t.size).reshape(SHAPE) % 400 + 1.0, 0), "labels"),
    "clusters by number": (blobs, "labels of regions or clusters"),
    "rounded": (np.rint, "rounded"),
    "1 - p": (lambda t: np.where(t != 0, 1 - stats.t.sf(t, 20), 0), "p, 1 - p or a probability"),
    "p": (lambda t: np.where(t != 0, 2 * stats.t.sf(np.abs(t), 20), 0), "p, 1 - p or a probability"),
    "probability": (lambda t: np.where(t != 0, 1 / (1 + np.exp(-t)), 0), "p, 1 - p or a probability"),
    "correlation": (lambda t: np.tanh(t), "a correlation"),
}


@pytest.mark.parametrize("kind", ["t", "z"])
@pytest.mark.parametrize("name", NO_T)
def test_what_is_no_statistic_is_refused_by_its_values(t, kind, name):
    make, looks = NO_T[name]
    with pytest.raises(DataError, match="is no") as raised:
        refuse_no_statistic(kind, make(t).astype(np.float32), "map.nii")
    assert looks in raised.value.message


@pytest.mark.parametrize("kind", ["t", "z", "effect"])
def test_statistics_pass(t, kind):
    for values in (t, t.astype(np.float32), 1e-3 * t if kind == "effect" else 0.6 * t, np.where(t > 1, t, 0)):
        refuse_no_statistic(kind, values, "map.nii", ["sub-01_contrast-maskedFacesGtUncpx_stat-t_statmap.nii.gz"])
    refuse_no_statistic(kind, np.ones((4, 4, 4)), "map.nii")  # too few to tell


@pytest.mark.parametrize(("name", "refused"), [("binary mask", True), ("labels of regions", True), ("rounded", False)])
def test_effects_may_be_whole_numbers_but_no_labels(t, name, refused):
    values = NO_T[name][0](t)
    if refused:
        with pytest.raises(DataError, match="is no effect map"):
            refuse_no_statistic("effect", values, "map.nii")
    else:
        refuse_no_statistic("effect", values, "map.nii")
    for constant in (1.0, 2.0):  # a mask has an outside
        refuse_no_statistic("effect", np.full(SHAPE, constant), "map.nii")


@pytest.mark.parametrize(
    "name",
    ["pain_vox_corrp_tstat1.nii.gz", "palm_dat_tstat_fwep.nii.gz", "palm_vox_tstat_uncp_c1.nii", "lP_FWE+.img",
     "lP+.nii", "study-a_contrast-painVoxCorrpTstat1_stat-t_statmap.nii.gz", "x_tfce_tstat1.nii.gz",
     "cluster_index.nii.gz", "sub-01_desc-log10p_stat-z_statmap.nii.gz", "sub-01_desc-brainmask_stat-z_statmap.nii.gz"],
)  # fmt: skip
def test_names_of_what_is_no_statistic(t, name):
    with pytest.raises(DataError, match="its name says"):
        refuse_no_statistic("t", t, "map.nii", [name])


def p_of(t, tail):
    return {"two": 2 * stats.t.sf(np.abs(t), 20), "up": stats.t.sf(t, 20), "down": stats.t.cdf(t, 20)}[tail]


@pytest.mark.parametrize("beside", ["t", "z", "effect", "effect and variance"])
@pytest.mark.parametrize(
    ("which", "turned", "tail", "words"),
    [
        ("two", False, None, ""),
        ("two", True, None, "is a map of 1 - p"),
        ("up", False, "positive", ""),
        ("down", False, "negative", ""),
        ("up", True, "positive", "no p map of the positive tail"),
        ("down", True, "negative", "no p map of the negative tail"),
        ("up", False, None, "write Tail positive"),
        ("down", False, "two-sided", "write Tail negative"),
    ],
)
def test_p_must_go_with_the_statistic_beside_it(t, beside, which, turned, tail, words):
    variance = np.random.default_rng(4).uniform(0.5, 2.0, SHAPE)
    effect = t * np.sqrt(variance)
    every = {"t": t, "z": t, "effect": effect, "variance": variance}
    maps = {kind: every[kind] for kind in beside.split(" and ")}
    p = p_of(t, which)
    maps = {"p": np.where(t != 0, 1 - p if turned else p, 0), **maps}
    if words:
        with pytest.raises(DataError, match=words):
            refuse_turned_p(maps, tail, "p.nii")
    else:
        refuse_turned_p(maps, tail, "p.nii")


def test_p_alone_must_not_pile_up_near_one(t):
    p = p_of(1.5 * t, "two")
    refuse_turned_p({"p": p}, None, "p.nii")
    with pytest.raises(DataError, match="no two-sided p map"):
        refuse_turned_p({"p": 1 - p}, None, "p.nii")
    refuse_turned_p({"p": p_of(t - 2, "up")}, "positive", "p.nii")  # most effects may be negative
    with pytest.raises(DataError, match="corrected for multiple tests"):
        refuse_turned_p({"p": np.minimum(1 - 1e-6, 50 * p)}, None, "p.nii")
    refuse_turned_p({"p": np.random.default_rng(1).uniform(size=SHAPE)}, None, "p.nii")
