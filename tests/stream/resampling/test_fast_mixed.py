"""The faster path of mixed models against the general one, which fits every voxel in every relabelling."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ibma_app.core.design import TAILS, Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import ESTIMATORS, find_estimator
from ibma_app.inference import find_inference
from ibma_app.stats import relabelled
from ibma_app.stats.tau2_nodes import METHODS
from ibma_app.stream import memory_plan
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling import fast_mixed, resample
from ibma_app.stream.resampling.fast_mixed import FastMixed, takes_scan
from ibma_app.stream.resampling.refit import Refitter
from ibma_app.stream.resampling.relabelling import plan_scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.workers.resources import Resources

MIXED = [name for name in ESTIMATORS if find_estimator(name).tau2_method]
NAMES = ("max-stat", "cluster-size", "cluster-mass", "tfce")
SETTINGS = InferenceSettings(cluster_p=0.02, permutations=60, seed=4)


def one_sample(n_maps, tail="two-sided", weight=1.0):
    test = Test("mean", np.array([[weight]]), tail)
    return Design(np.ones((n_maps, 1)), ("Intercept",), (test,))


def smooth_maps(n_maps, shape=(12, 11, 10), seed=0, covered=1.0):
    """A mask, effects and variances (K, V) with some signal, tau2 in places, and edges that differ between maps."""
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, dtype=bool)
    mask[0, :2] = False
    y, v = np.empty((2, n_maps, int(mask.sum())))
    tau2 = np.exp(ndimage.gaussian_filter(rng.normal(size=shape), 2.0) * 12)[mask]
    for k in range(n_maps):
        v[k] = np.exp(ndimage.gaussian_filter(rng.normal(size=shape), 1.0) * 2 + rng.normal(0, 0.5))[mask]
        noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
        y[k] = (noise / noise.std())[mask] * np.sqrt(v[k] + tau2)
        y[k, :80] += 1.0
        if covered < 1.0:
            y[k, ndimage.gaussian_filter(rng.normal(size=shape), 1.5)[mask] > 0.12 * covered] = np.nan
    return mask, y.astype(np.float32).astype(float), v.astype(np.float32).astype(float)


@pytest.fixture
def score(monkeypatch):
    """Return ``score(stack, model, names=NAMES, *, fast=True, settings=SETTINGS, threads=1) -> Null``."""

    def call(stack, model, names=NAMES, *, fast=True, settings=SETTINGS, threads=1):
        scores = {name: find_inference(name).score for name in names}
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(resample, "takes_scan", lambda model, scheme: False)
            made = []
            patch.setattr(FastMixed, "__init__", note(FastMixed.__init__, made))
            null = resample.score_resamples(
                stack, model, model.design.tests[0], scores, settings, Resources(threads=threads)
            )
        assert bool(made) == fast
        return null

    return call


def note(init, made):
    def noted(self, *given):
        made.append(self)
        init(self, *given)

    return noted


def test_all_mixed_estimators_are_scanned():
    assert {find_estimator(name).tau2_method for name in ESTIMATORS} - {None} == set(METHODS)
    assert all("tau2" in find_estimator(name).gives for name in MIXED)


@pytest.mark.parametrize("covered", [1.0, 0.8])
@pytest.mark.parametrize("estimator", MIXED)
def test_the_largest_heights_are_those_of_every_fit(stack_of, score, estimator, covered):
    for n_maps, test in ((4, "adhoc"), (9, "t"), (14, "knha"), (14, "z")):
        mask, y, v = smooth_maps(n_maps, covered=covered, seed=n_maps)
        stack = stack_of(mask, effect=y, variance=v)
        model = Model(find_estimator(estimator), one_sample(n_maps), {"test": test})
        exact = score(stack, model, ("max-stat",), fast=False)
        alone, together = score(stack, model, ("max-stat",)), score(stack, model)
        for found in (alone, together):
            np.testing.assert_allclose(found.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9)
            np.testing.assert_array_equal(found.observed["max-stat"], exact.observed["max-stat"])


@pytest.mark.parametrize("estimator", MIXED)
def test_clusters_and_tfce_are_nearly_those_of_every_fit(stack_of, score, estimator):
    mask, y, v = smooth_maps(12, covered=0.9)
    model = Model(find_estimator(estimator), one_sample(12))
    stack = stack_of(mask, effect=y, variance=v)
    exact, fast = score(stack, model, fast=False), score(stack, model)
    for name in ("cluster-mass", "tfce"):
        np.testing.assert_allclose(fast.maxima[name], exact.maxima[name], rtol=5e-3, atol=0.02)
        np.testing.assert_allclose(fast.observed[name], exact.observed[name], rtol=5e-3, atol=0.02)
    # a voxel may pass the threshold in one and not in the other
    assert np.mean(fast.maxima["cluster-size"] == exact.maxima["cluster-size"]) > 0.9
    assert np.abs(fast.maxima["cluster-size"] - exact.maxima["cluster-size"]).max() <= 2


@pytest.mark.parametrize("names", [("max-stat",), ("cluster-size", "tfce"), NAMES])
@pytest.mark.parametrize("tail", TAILS)
def test_the_maps_as_they_are_go_the_same_way(stack_of, score, tail, names):
    """The identity's largest score is the largest of what is observed, to the last bit."""
    mask, y, v = smooth_maps(10, covered=0.9)
    for estimator in ("reml", "dl"):
        model = Model(find_estimator(estimator), one_sample(10, tail))
        null = score(stack_of(mask, effect=y, variance=v), model, names)
        for name in names:
            assert null.maxima[name][0] == null.observed[name].max() > 0


def test_the_identity_scores_as_any_relabelling(stack_of):
    """What `identity` gives, and what a job makes of the same relabelling, are one number."""
    mask, y, v = smooth_maps(10)
    resampler = open_fast(stack_of(mask, effect=y, variance=v), "reml", one_sample(10))
    np.testing.assert_array_equal(resampler.identity(1)[1], resampler.score(range(1))[:, 0])
    np.testing.assert_array_equal(resampler.score(range(40))[:, 7], resampler.score(range(7, 8))[:, 0])


def open_fast(stack, estimator, design, names=NAMES, settings=SETTINGS):
    model = Model(find_estimator(estimator), design)
    scheme = plan_scheme(model, design.tests[0], settings)
    refitter = Refitter(stack, model, scheme, 1)
    scores = {name: find_inference(name).score for name in names}
    scoring = Scoring(scores, stack.grid, scheme.tail, settings, np.flatnonzero(refitter.live))
    return FastMixed(model, refitter, scoring)


@pytest.mark.parametrize("names", [("max-stat",), NAMES])
def test_another_process_gives_the_same_bytes(stack_of, names):
    mask, y, v = smooth_maps(10, covered=0.9)
    resampler = open_fast(stack_of(mask, effect=y, variance=v), "reml", one_sample(10), names)
    sent = pickle.loads(pickle.dumps(resampler))
    assert sent.size == resampler.size
    np.testing.assert_array_equal(sent.score(range(5, 30)), resampler.score(range(5, 30)))
    assert b"".join(a.tobytes() for a in sent.data()) == b"".join(a.tobytes() for a in resampler.data())


@pytest.mark.parametrize("names", [("max-stat",), NAMES])
def test_threads_jobs_and_tiles_change_nothing(stack_of, score, monkeypatch, names):
    mask, y, v = smooth_maps(11, covered=0.9)
    stack, model = stack_of(mask, effect=y, variance=v), Model(find_estimator("reml"), one_sample(11))
    one = score(stack, model, names)
    for threads in (1, 3):
        if threads > 1:
            monkeypatch.setattr(memory_plan, "BLOCK", 256)
            monkeypatch.setattr(fast_mixed, "MAPS", 7)
            monkeypatch.setattr(fast_mixed, "PEAKS", 9)
        two = score(stack, model, names, threads=threads)
        for name in names:
            np.testing.assert_array_equal(two.maxima[name], one.maxima[name])
            np.testing.assert_array_equal(two.observed[name], one.observed[name])


def test_a_negative_weight_turns_the_tail(stack_of, score):
    mask, y, v = smooth_maps(9)
    stack = stack_of(mask, effect=y, variance=v)
    up = score(stack, Model(find_estimator("reml"), one_sample(9, "positive")))
    down = score(stack, Model(find_estimator("reml"), one_sample(9, "negative", -1.0)))
    for name in NAMES:
        np.testing.assert_array_equal(down.maxima[name], up.maxima[name])


def test_whole_blocks_flip_together(stack_of, score):
    mask, y, v = smooth_maps(8)
    design = replace(one_sample(8, "positive"), exchangeability=np.array([0, 0, 1, 1, 2, 2, 3, 3]), whole_blocks=True)
    stack, model = stack_of(mask, effect=y, variance=v), Model(find_estimator("dl"), design)
    fast, exact = score(stack, model), score(stack, model, fast=False)
    assert fast.resamples == 16
    np.testing.assert_allclose(fast.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9)


@pytest.mark.parametrize("names", [("max-stat",), NAMES])
def test_many_candidates_have_the_whole_map_fitted(stack_of, score, monkeypatch, names):
    mask, y, v = smooth_maps(10)
    stack, model = stack_of(mask, effect=y, variance=v), Model(find_estimator("reml"), one_sample(10))
    exact = score(stack, model, names, fast=False)
    monkeypatch.setattr(relabelled, "MOST", 1)
    fast = score(stack, model, names)
    np.testing.assert_allclose(fast.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9)
    if "tfce" in names:  # a relabelling with one candidate alone keeps its scanned map
        assert np.isclose(fast.maxima["tfce"], exact.maxima["tfce"], rtol=1e-5).mean() > 0.8


@pytest.mark.parametrize("names", [("max-stat",), NAMES])
def test_a_scan_that_promises_too_much_has_the_whole_map_fitted(stack_of, score, monkeypatch, names):
    mask, y, v = smooth_maps(10)
    stack, model = stack_of(mask, effect=y, variance=v), Model(find_estimator("reml"), one_sample(10))
    exact = score(stack, model, names, fast=False)
    plain = fast_mixed.scan_means

    def promise(plan, maps, weights):
        scan = plain(plan, maps, weights)
        scan.heights[:, 0] *= 1.5
        return scan

    monkeypatch.setattr(fast_mixed, "scan_means", promise)
    fast = score(stack, model, names)
    np.testing.assert_allclose(fast.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9)


def test_effects_alike_but_for_their_signs(stack_of, score):
    """In some flips they are the same: no test, in one path as in the other."""
    mask, y, v = smooth_maps(5)
    y[:, 100:160] = np.array([[1.0], [-1.0], [1.0], [1.0], [-1.0]])
    stack, model = stack_of(mask, effect=y, variance=v), Model(find_estimator("reml"), one_sample(5), {"test": "knha"})
    fast, exact = score(stack, model), score(stack, model, fast=False)
    np.testing.assert_allclose(fast.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9)
    np.testing.assert_allclose(fast.maxima["tfce"], exact.maxima["tfce"], rtol=5e-3, atol=0.02)


def designs(n_maps, tail="two-sided"):
    """Designs with an intercept, and the scheme that each has."""
    rng = np.random.default_rng(n_maps)
    ones, age = np.ones(n_maps), rng.normal(0, 9, n_maps)
    group = (np.arange(n_maps) % 3 == 0).astype(float)

    def make(columns, weights, **more):
        test = Test("test", np.array([weights], dtype=float), tail)
        return Design(np.column_stack(columns), tuple(map(str, range(len(columns)))), (test,), **more)

    return {
        "slope": make([ones, age], [0, 1]),
        "two groups": make([1 - group, group], [-1, 1]),
        "adjusted": make([ones, group, age], [0, 1, 0]),
        "mean": make([ones, age], [1, 0]),
        "one group": make([1 - group, group], [0, 1]),
        "within blocks": make([ones, age], [0, 1], exchangeability=np.arange(n_maps) % 2),
    }


@pytest.mark.parametrize("covered", [1.0, 0.8])
@pytest.mark.parametrize("kind", ["slope", "two groups", "adjusted", "mean", "one group", "within blocks"])
def test_designs_have_the_largest_heights_of_every_fit(stack_of, score, kind, covered):
    mask, y, v = smooth_maps(13, covered=covered, shape=(9, 8, 8))
    stack, settings = stack_of(mask, effect=y, variance=v), replace(SETTINGS, permutations=25)
    for estimator, test, tail in (
        ("reml", "knha", "two-sided"),
        ("ml", "t", "positive"),
        ("dl", "adhoc", "negative"),
        ("hedges", "knha", "two-sided"),
        ("hunter-schmidt", "adhoc", "positive"),
        ("sidik-jonkman", "knha", "two-sided"),
        ("paule-mandel", "z", "two-sided"),
    ):
        model = Model(find_estimator(estimator), designs(13, tail)[kind], {"test": test})
        exact = score(stack, model, ("max-stat",), fast=False, settings=settings)
        for names in (("max-stat",), ("max-stat", "cluster-mass")):
            found = score(stack, model, names, settings=settings)
            np.testing.assert_allclose(found.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9, err_msg=estimator)
            np.testing.assert_array_equal(found.observed["max-stat"], exact.observed["max-stat"])
            for name in names:
                assert found.maxima[name][0] == found.observed[name].max()


@pytest.mark.parametrize("estimator", ["reml", "dl"])
def test_designs_have_nearly_the_clusters_of_every_fit(stack_of, score, estimator):
    mask, y, v = smooth_maps(12, covered=0.9)
    model = Model(find_estimator(estimator), designs(12)["adjusted"])
    stack = stack_of(mask, effect=y, variance=v)
    exact, fast = score(stack, model, fast=False), score(stack, model)
    for name in ("cluster-mass", "tfce"):
        np.testing.assert_allclose(fast.maxima[name], exact.maxima[name], rtol=5e-3, atol=0.02)


def test_a_flipped_mean_has_the_tau2_of_the_model(stack_of):
    """Turning signs takes the constant out of the design's span; tau2 is still not that of centred effects."""
    rng = np.random.default_rng(0)
    v = rng.chisquare(15, (8, 4000)) / 15
    y = rng.normal(0, np.sqrt(v + 0.5))
    design, estimator = designs(8)["mean"], find_estimator("reml")
    block = stack_of(np.ones((20, 20, 10), dtype=bool), effect=y, variance=v).read(0, 4000)
    scheme = plan_scheme(Model(estimator, design), design.tests[0], replace(SETTINGS, permutations=20))
    tau2 = [estimator.fit(*scheme.relabel(block, index)).tau2.mean() for index in range(20)]
    assert tau2[0] == pytest.approx(estimator.fit(block, design).tau2.mean(), rel=1e-9)
    assert np.abs(np.array(tau2[1:]) / tau2[0] - 1).max() < 0.05  # centred ones have 25 % less


def test_two_groups_alike_but_for_their_names(stack_of, score):
    """Where coverage leaves one group alone, some permutations cannot be told from the intercept."""
    mask, y, v = smooth_maps(9, shape=(7, 7, 6))
    y[5:, :60] = np.nan
    stack = stack_of(mask, effect=y, variance=v)
    model = Model(find_estimator("reml"), designs(9)["two groups"])
    settings = replace(SETTINGS, permutations=84)
    exact = score(stack, model, fast=False, settings=settings)
    fast = score(stack, model, settings=settings)
    assert fast.exhaustive
    np.testing.assert_allclose(fast.maxima["max-stat"], exact.maxima["max-stat"], rtol=1e-9)
    np.testing.assert_allclose(fast.maxima["tfce"], exact.maxima["tfce"], rtol=5e-3, atol=0.02)


def test_other_designs_and_settings_take_the_general_path():
    """t tests beside an intercept alone are scanned, with the tau2 that the scan knows."""
    estimator, flips = find_estimator("reml"), one_sample(6)
    origin = Design(np.arange(6.0)[:, None], ("x",), (Test("x", np.ones((1, 1))),))
    f_test = Design(np.ones((6, 1)), ("1",), (Test("mean", np.ones((1, 1)), is_f=True),))

    def taken(estimator, design, settings):
        model = Model(estimator, design, settings)
        return takes_scan(model, plan_scheme(model, design.tests[0], SETTINGS))

    assert taken(estimator, flips, {"test": "adhoc", "tau2_ci": "no"})
    assert taken(estimator, designs(6)["slope"], {})
    assert not taken(estimator, origin, {})
    assert not taken(estimator, f_test, {})
    assert not taken(find_estimator("fixed-effects"), flips, {})
    grouped = replace(flips, groupings={"group": ("a", "b") * (len(flips.matrix) // 2)})
    assert taken(estimator, grouped, {"tau2_by": ""})
    assert not taken(estimator, grouped, {"tau2_by": "group"})
