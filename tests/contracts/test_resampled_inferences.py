"""What every inference that resamples must do."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from ibma_app.core.design import TAILS
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Null
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import Relabelling, sidecar_of
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import INFERENCES, find_inference
from ibma_app.stream.resampling.scoring import Scoring

SHAPE = (9, 8, 7)
SIZE = int(np.prod(SHAPE))
RESAMPLED = [name for name in INFERENCES if find_inference(name).score is not None]


def make_field(z, tail, estimable=None):
    log_p = {"two-sided": norm.logsf(np.abs(z)) + np.log(2), "positive": norm.logsf(z), "negative": norm.logcdf(z)}[
        tail
    ]
    return Field(
        z=z,
        tail=tail,
        estimable=np.ones(z.size, dtype=bool) if estimable is None else estimable,
        grid=Grid(np.diag([2.0, 2, 2, 1]), np.ones(SHAPE, dtype=bool)),
        log10_p=np.maximum(-log_p / np.log(10), 0.0),
    )


def make_null(name, field, maps, settings, **options):
    """The null of maps (R, V) of z, of which the first is the field's."""
    live = np.flatnonzero(field.estimable)
    scoring = Scoring({name: find_inference(name).score}, field.grid, field.tail, settings, live)
    maxima = np.array([scoring.largest(z[live])[0] for z in maps])
    return Null(
        {name: maxima},
        scoring.each(field.z[live]),
        **{"exhaustive": False, "relabelling": Relabelling(flips=True, of="maps"), "seed": 0, **options},
    )


def make_maps(n_maps=99, seed=0, effect=5.0):
    """R maps of noise; the first has a block of either sign."""
    maps = np.random.default_rng(seed).standard_normal((n_maps + 1, *SHAPE))
    maps[0, :3, :3, :3] += effect
    maps[0, 6:, 5:, 4:] -= effect
    return maps.reshape(n_maps + 1, -1)


@pytest.fixture(params=RESAMPLED)
def name(request):
    return request.param


def infer(name, maps, tail="two-sided", *, estimable=None, null_options=None, **settings):
    chosen = replace(InferenceSettings(cluster_p=0.01), **settings)
    field = make_field(maps[0], tail, estimable)
    null = make_null(name, field, maps, chosen, **(null_options or {}))
    return find_inference(name).infer(field, null, chosen), null


@pytest.mark.parametrize("tail", TAILS)
def test_p_is_the_share_of_the_null(name, tail):
    found, null = infer(name, make_maps(), tail)
    counts = (null.maxima[name][:, None] >= null.observed[name] * (1 - 1e-6)).sum(axis=0)
    np.testing.assert_allclose(10.0**-found.log10_p, counts / 100, rtol=1e-12)
    assert found.significant.any()
    np.testing.assert_array_equal(found.significant, found.log10_p >= -np.log10(0.05) * (1 - 1e-9))
    assert found.z_threshold == np.abs(make_maps()[0][found.significant]).min()


def test_signs_are_treated_alike(name):
    maps = make_maps(seed=1)
    for tail, other in (("positive", "negative"), ("two-sided", "two-sided")):
        one, _ = infer(name, maps, tail)
        mirrored, _ = infer(name, -maps, other)
        np.testing.assert_array_equal(one.significant, mirrored.significant)
        np.testing.assert_allclose(one.log10_p, mirrored.log10_p, rtol=1e-12)


def test_one_tail_is_one_tail(name):
    maps = make_maps(seed=2)
    up, _ = infer(name, maps, "positive")
    assert up.significant.any()
    assert (maps[0][up.significant] > 0).all()


def test_what_cannot_be_estimated_is_left_out(name):
    maps = make_maps(seed=3)
    estimable = np.arange(SIZE) % 5 > 0
    maps[:, ~estimable] = 50.0
    found, _ = infer(name, maps, estimable=estimable)
    assert not found.significant[~estimable].any()
    assert (found.log10_p[~estimable] == 0).all()
    maps[:, ~estimable] = 0.0
    again, _ = infer(name, maps, estimable=estimable)
    np.testing.assert_array_equal(found.log10_p, again.log10_p)


def test_nothing_estimable_and_maps_of_zeros(name):
    found, _ = infer(name, make_maps(), estimable=np.zeros(SIZE, dtype=bool))
    assert not found.significant.any()
    found, _ = infer(name, np.zeros((20, SIZE)))
    assert not found.significant.any()
    assert (found.log10_p == 0).all()
    assert found.z_threshold is None


def test_facts_tell_the_resampling(name):
    found, _ = infer(name, make_maps())
    expected = {
        "Resamples": 100,
        "Exhaustive": False,
        "Scheme": "sign flips",
        "Seed": 0,
        "SmallestP": 0.01,
        "Alpha": 0.05,
    }
    assert {key: sidecar_of(found.facts)[key] for key in expected} == expected
    assert "symmetric" in sidecar_of(found.facts)["NullHypothesis"]
    exhaustive, _ = infer(name, make_maps(), null_options={"exhaustive": True, "seed": None, "ties": 2})
    assert "Seed" not in sidecar_of(exhaustive.facts)
    assert sidecar_of(exhaustive.facts)["SmallestP"] == 0.02


def test_scores_beyond_the_threshold_are_significant(name):
    found, null = infer(name, make_maps(seed=4))
    beyond = null.observed[name] > sidecar_of(found.facts)["ScoreThreshold"]
    np.testing.assert_array_equal(found.significant, beyond)


def test_too_few_resamples_are_told(name, caplog):
    with caplog.at_level(logging.WARNING):
        found, _ = infer(name, make_maps(9))
    assert "smallest p that can be reached is 0.1, above --alpha 0.05" in caplog.text
    assert "smallest p" in sidecar_of(found.facts)["Warning"]
    assert not found.significant.any()
    assert sidecar_of(found.facts)["ScoreThreshold"] is None


def test_a_fitted_tail_reaches_further(name):
    plain, _ = infer(name, make_maps(199), alpha=0.004)
    fitted, _ = infer(name, make_maps(199), alpha=0.004, options={"tail_fit": True})
    assert not plain.significant.any()
    # sizes of a few voxels are no smooth tail: no fit is good enough, and counts stand
    assert fitted.log10_p.max() > plain.log10_p.max() or name == "cluster-size"
    known = plain.log10_p < plain.log10_p.max()
    np.testing.assert_array_equal(fitted.log10_p[known], plain.log10_p[known])
    assert "Pareto" in sidecar_of(fitted.facts)["TailFit"]


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_levels_out_of_range(name, level):
    field = make_field(make_maps()[0], "two-sided")
    null = make_null(name, field, make_maps(), InferenceSettings())
    with pytest.raises(UsageError, match="between 0 and 1"):
        find_inference(name).infer(field, null, InferenceSettings(alpha=level, cluster_p=level))


@pytest.mark.parametrize("setting", [{"connectivity": 8}, {"tfce_e": -1}, {"tfce_h": "x"}, {"connectivity": True}])
def test_settings_that_cannot_be(setting):
    touched = ["tfce"] if next(iter(setting)).startswith("tfce") else ["tfce", "cluster-size", "cluster-mass"]
    for one in touched:
        with pytest.raises(UsageError, match=next(iter(setting))):
            infer(one, make_maps(5), options=setting)


@pytest.mark.parametrize("p", [0.5, 0.7])
def test_cluster_forming_levels_that_hold_everything(p):
    with pytest.raises(UsageError, match=r"below 0\.5"):
        infer("cluster-size", make_maps(5), "positive", cluster_p=p)
