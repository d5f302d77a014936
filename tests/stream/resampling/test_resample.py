"""Resampling against plain enumeration, and the faster path against the general one."""

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from ibma_app.core.design import TAILS, Design, Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream import memory_plan
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling import fast_ols, refit
from ibma_app.stream.resampling.resample import count_relabellings, score_resamples
from ibma_app.stream.workers.resources import Resources

NAMES = ("max-stat", "cluster-size", "cluster-mass", "tfce")
SETTINGS = InferenceSettings(cluster_p=0.02)  # small volumes have few clusters beyond 0.001
SINGLE = 2e-6  # data of norm 1 are kept in single precision: relative error of z


def intercept(n_maps, tail="two-sided"):
    return Design(np.ones((n_maps, 1)), ("Intercept",), (Test("mean", np.ones((1, 1)), tail),))


def smooth_maps(n_maps, shape=(8, 7, 6), seed=0, shift=0.0):
    """A mask and noise in it, (K, V), in single precision."""
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, dtype=bool)
    mask[0, :2] = False
    maps = [ndimage.gaussian_filter(rng.normal(size=shape), 0.8)[mask] * 4 for _ in range(n_maps)]
    values = np.stack(maps)
    values[:, :40] += shift
    return mask, values.astype(np.float32).astype(float)


@pytest.fixture
def resample_maps():
    """Return ``run(stack, estimator, design, names=NAMES, **options) -> Null`` of the design's first test."""

    def call(
        stack, estimator, design, names=NAMES, *, given=None, settings=SETTINGS, threads=1, on_progress=None, **options
    ):
        scores = {name: find_inference(name).score for name in names}
        model = Model(find_estimator(estimator), design, given or {})
        settings = replace(settings, **options)
        return score_resamples(stack, model, design.tests[0], scores, settings, Resources(threads=threads), on_progress)

    return call


def z_of_t(t, dof):
    return np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), dof))


def largest_clusters(z, mask, threshold, tail):
    """Size and mass of the largest cluster, by scipy's labels."""
    size = mass = 0.0
    for sign in {"two-sided": (1, -1), "positive": (1,), "negative": (-1,)}[tail]:
        volume = np.zeros(mask.shape)
        volume[mask] = sign * z
        labels, n = ndimage.label(volume > threshold, np.ones((3, 3, 3)))
        for k in range(1, n + 1):
            size = max(size, (labels == k).sum())
            mass = max(mass, (volume[labels == k] - threshold).sum())
    return size, mass


@pytest.mark.parametrize("tail", TAILS)
def test_exhaustive_flips_equal_enumeration(stack_of, resample_maps, tail):
    n_maps = 8
    mask, y = smooth_maps(n_maps, shift=1.5)
    null = resample_maps(stack_of(mask, effect=y), "ols", intercept(n_maps, tail))
    assert (null.resamples, null.exhaustive, null.seed) == (256, True, None)
    maps = []
    for signs in itertools.product([1, -1], repeat=n_maps):
        turned = np.array(signs)[:, None] * y
        maps.append(z_of_t(stats.ttest_1samp(turned, 0).statistic, n_maps - 1))
    heights = {"two-sided": np.abs(maps), "positive": np.array(maps), "negative": -np.array(maps)}[tail]
    peaks = heights.max(axis=1)
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)
    counts = (peaks[:, None] >= heights[0] * (1 - 1e-6)).sum(axis=0)
    found = (null.maxima["max-stat"][:, None] >= null.observed["max-stat"] * (1 - 1e-6)).sum(axis=0)
    np.testing.assert_array_equal(found, counts)
    threshold = stats.norm.isf(0.02 / (2 if tail == "two-sided" else 1))
    sizes, masses = np.array([largest_clusters(z, mask, threshold, tail) for z in maps]).T
    np.testing.assert_array_equal(np.sort(null.maxima["cluster-size"]), np.sort(sizes))
    np.testing.assert_allclose(np.sort(null.maxima["cluster-mass"]), np.sort(masses), rtol=1e-5, atol=1e-6)
    assert null.smallest_p() == (2 / 256 if tail == "two-sided" else 1 / 256)


@pytest.mark.parametrize("names", [("max-stat",), ("cluster-size",), ("max-stat", "cluster-mass"), ("tfce",)])
def test_scores_do_not_depend_on_each_other(stack_of, resample_maps, names):
    mask, y = smooth_maps(9)
    stack = stack_of(mask, effect=y)
    together = resample_maps(stack, "ols", intercept(9), permutations=80)
    alone = resample_maps(stack, "ols", intercept(9), names, permutations=80)
    for name in names:
        np.testing.assert_allclose(alone.maxima[name], together.maxima[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", ["ols", "reml", "stouffer"])
@pytest.mark.parametrize("names", [("max-stat",), NAMES[:3], NAMES])
def test_threads_and_tiles_change_nothing(stack_of, resample_maps, monkeypatch, estimator, names):
    mask, y = smooth_maps(10)
    rng = np.random.default_rng(3)
    variance = rng.uniform(0.5, 2, y.shape)
    stack = stack_of(mask, effect=y, variance=variance, z=y)
    given = {"permutations": 40, "seed": 5}
    one = resample_maps(stack, estimator, intercept(10), names, **given)
    assert (one.resamples, one.exhaustive, one.seed) == (40, False, 5)
    monkeypatch.setattr(memory_plan, "BLOCK", 64)
    monkeypatch.setattr(memory_plan, "SMALLEST_BLOCK", 64)
    monkeypatch.setattr(refit, "MAPS", 3)
    monkeypatch.setattr(refit, "PEAKS", 5)
    monkeypatch.setattr(fast_ols, "SPARSE", 7)
    monkeypatch.setattr(fast_ols, "DENSE", 3)
    counts = []
    two = resample_maps(stack, estimator, intercept(10), names, threads=3, on_progress=counts.append, **given)
    model, settings = Model(find_estimator(estimator), intercept(10)), InferenceSettings(permutations=40)
    assert sum(counts) == 40 == count_relabellings(model, intercept(10).tests[0], settings)
    for name in names:
        np.testing.assert_allclose(two.maxima[name], one.maxima[name], rtol=1e-12)
    other = resample_maps(stack, estimator, intercept(10), names, permutations=40, seed=6)
    assert not np.array_equal(other.maxima["max-stat"], one.maxima["max-stat"])


def test_many_high_voxels(stack_of, resample_maps, monkeypatch):
    mask, y = smooth_maps(10)
    stack = stack_of(mask, effect=y)
    few, settings = NAMES[:3], InferenceSettings(cluster_p=0.3)
    one = resample_maps(stack, "ols", intercept(10), few, permutations=100, settings=settings)
    monkeypatch.setattr(fast_ols, "MOST", 20)
    two = resample_maps(stack, "ols", intercept(10), few, permutations=100, settings=settings)
    for name in few:
        np.testing.assert_allclose(two.maxima[name], one.maxima[name], rtol=1e-9)


def test_threads_alone_change_no_bit(stack_of, resample_maps):
    mask, y = smooth_maps(10)
    stack = stack_of(mask, effect=y)
    one, two = (resample_maps(stack, "ols", intercept(10), permutations=150, threads=n) for n in (1, 3))
    for name in NAMES:
        np.testing.assert_array_equal(one.maxima[name], two.maxima[name])


def freedman_lane(y, matrix, weights, orders):
    """t of a contrast in each permutation, as the paper writes it, (R, V)."""
    pinv = np.linalg.pinv(matrix)
    null = matrix @ (np.eye(matrix.shape[1]) - np.linalg.pinv(weights) @ weights)  # models with contrast 0
    fitted = null @ np.linalg.pinv(null) @ y
    residual = y - fitted
    dof = matrix.shape[0] - matrix.shape[1]
    maps = []
    for order in orders:
        data = residual[list(order)] + fitted
        beta = pinv @ data
        rss = ((data - matrix @ beta) ** 2).sum(axis=0)
        along = weights @ beta
        inner = weights @ np.linalg.inv(matrix.T @ matrix) @ weights.T
        if weights.shape[0] == 1:
            maps.append(along[0] / np.sqrt(rss / dof * inner[0, 0]))
        else:
            maps.append((along * np.linalg.solve(inner, along)).sum(axis=0) / weights.shape[0] / (rss / dof))
    return np.array(maps)


def moderated(n_maps, weights, seed=7, **options):
    rng = np.random.default_rng(seed)
    columns = np.column_stack([np.ones(n_maps), rng.normal(40, 9, n_maps), rng.normal(100, 15, n_maps)])
    test = Test("test", np.atleast_2d(weights), options.pop("tail", "two-sided"))
    return Design(columns, ("Intercept", "age", "iq"), (test,), **options)


@pytest.mark.parametrize("weights", [[[0, 1, -1]], [[0, 1, 0]], [[0, 1, 0], [0, 0, 1]]])
def test_freedman_lane_equals_the_paper(stack_of, resample_maps, weights):
    mask, y = smooth_maps(6)
    design = moderated(6, np.array(weights, dtype=float))
    t_test = len(weights) == 1
    null = resample_maps(stack_of(mask, effect=y), "ols", design, permutations=720)
    assert (null.exhaustive, null.resamples) == (True, 720)
    assert null.relabelling.name == "permutations (Freedman-Lane)"
    statistics = freedman_lane(y, design.matrix, design.tests[0].weights, itertools.permutations(range(6)))
    z = np.abs(z_of_t(statistics, 3)) if t_test else stats.norm.isf(stats.f.sf(statistics, 2, 3))
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(z.max(axis=1)), rtol=1e-4)
    np.testing.assert_allclose(null.observed["max-stat"], z[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", ["ols", "stouffer-rfx", "reml"])
@pytest.mark.parametrize("weights", [[[0, 1, -1]], [[1, 0, 0]], [[0, 1, 0], [0, 0, 1]]])
@pytest.mark.parametrize("covered", ["all", "most"])
def test_what_is_observed_is_the_estimate(stack_of, resample_maps, estimator, weights, covered):
    mask, y = smooth_maps(12)
    variance = np.random.default_rng(1).uniform(0.5, 2, y.shape)
    if covered == "most":
        y[3, ::5] = np.nan
        y[7, 10:60] = np.nan
    stack = stack_of(mask, effect=y, z=y, variance=variance)
    design = moderated(12, np.array(weights, dtype=float))
    null = resample_maps(stack, estimator, design, ("max-stat",), permutations=3)
    fitted = estimate_maps(stack, Model(find_estimator(estimator), design)).tests["test"]
    expected = np.abs(fitted.z) if len(weights) == 1 else fitted.z
    np.testing.assert_allclose(null.observed["max-stat"], expected, rtol=SINGLE, atol=1e-6)


def test_two_groups_are_permuted(stack_of, resample_maps):
    mask, y = smooth_maps(8)
    group = np.repeat([0.0, 1.0], 4)
    test = Test("b", np.array([[0.0, 1.0]]))
    design = Design(np.column_stack([np.ones(8), group]), ("Intercept", "C(group)[T.b]"), (test,))
    null = resample_maps(stack_of(mask, effect=y), "ols", design)
    assert (null.exhaustive, null.resamples, null.smallest_p()) == (True, 70, 2 / 70)
    peaks = []
    for chosen in itertools.combinations(range(8), 4):
        rest = [k for k in range(8) if k not in chosen]
        t = stats.ttest_ind(y[list(chosen)], y[rest]).statistic
        peaks.append(np.abs(z_of_t(t, 6)).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)


def test_both_paths_give_the_same_numbers(stack_of, resample_maps):
    mask, y = smooth_maps(9, shift=1.0)
    design = moderated(9, [[0.0, 1.0, 0.0]])
    fast = resample_maps(stack_of(mask, effect=y), "ols", design, permutations=30)
    one_hole = y.copy()
    hole = int(np.argmin(np.abs(fast.observed["max-stat"])))
    one_hole[0, hole] = np.nan
    slow = resample_maps(stack_of(mask, effect=one_hole), "ols", design, permutations=30)
    for name in ("max-stat", "cluster-size"):  # one voxel differs
        close = np.isclose(slow.maxima[name], fast.maxima[name], rtol=1e-5)
        assert close.mean() > 0.8, name
    near = np.delete(np.arange(y.shape[1]), hole)
    np.testing.assert_allclose(slow.observed["max-stat"][near], fast.observed["max-stat"][near], rtol=SINGLE)


def test_reml_is_fitted_in_every_flip(stack_of, resample_maps):
    n_maps = 5
    mask, y = smooth_maps(n_maps, shape=(4, 3, 3))
    variance = np.random.default_rng(1).uniform(0.1, 0.5, y.shape).astype(np.float32).astype(float)
    null = resample_maps(stack_of(mask, effect=y, variance=variance), "reml", intercept(n_maps), threads=2)
    estimator, peaks = find_estimator("reml"), []
    for signs in itertools.product([1, -1], repeat=n_maps):
        turned = stack_of(mask, effect=np.array(signs)[:, None] * y, variance=variance)
        fitted = estimator.fit(turned.read(0, y.shape[1]), intercept(n_maps))
        peaks.append(np.abs(fitted.tests["mean"].z).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=1e-12)


def test_coverage_and_variance_stay_with_their_map(stack_of, resample_maps):
    mask, y = smooth_maps(6, shape=(4, 3, 3))
    variance = np.random.default_rng(2).uniform(0.1, 3, y.shape).astype(np.float32).astype(float)
    y[1, :9] = np.nan
    y[4, 5:20] = np.nan
    design = Design(
        np.column_stack([np.ones(6), [0, 0, 0, 1, 1, 1]]), ("Intercept", "b"), (Test("b", np.array([[0.0, 1.0]])),)
    )
    stack = stack_of(mask, effect=y, variance=variance)
    null = resample_maps(stack, "dl", design)
    assert (null.exhaustive, null.resamples) == (True, 20)
    assert null.relabelling.name == "permutations of the tested regressors"
    peaks, block, estimator = [], stack.read(0, y.shape[1]), find_estimator("dl")
    fitted = estimator.fit(block, design).tests["b"]
    for chosen in itertools.combinations(range(6), 3):
        group = np.isin(np.arange(6), chosen).astype(float)
        relabelled = Design(np.column_stack([np.ones(6), group]), design.columns, design.tests)
        z = estimator.fit(block, relabelled).tests["b"].z
        peaks.append(np.abs(z[fitted.estimable]).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=1e-9)


def test_repeated_measures_are_exchanged_within_subjects(stack_of, resample_maps):
    mask, y = smooth_maps(10)
    subjects = np.repeat(np.arange(5), 2)
    condition = np.tile([0.0, 1.0], 5)
    matrix = np.column_stack([condition, subjects[:, None] == np.arange(5)])
    test = Test("b", np.eye(1, 6))
    columns = ("b", *(f"C(participant_id)[{s}]" for s in range(5)))
    design = Design(matrix, columns, (test,), exchangeability=subjects, repeated=True)
    null = resample_maps(stack_of(mask, effect=y), "ols", design)
    assert null.relabelling.name == "permutations (Freedman-Lane) within blocks"
    # exchanging a pair turns the sign of its difference
    paired = resample_maps(stack_of(mask, effect=y[1::2] - y[::2]), "ols", intercept(5))
    assert null.resamples == paired.resamples == 32
    for name in NAMES:
        np.testing.assert_allclose(
            np.sort(null.maxima[name]), np.sort(paired.maxima[name]), rtol=1e-5, atol=1e-5, err_msg=name
        )
    assert null.smallest_p() == paired.smallest_p()


def test_whole_blocks_are_flipped_together(stack_of, resample_maps):
    mask, y = smooth_maps(8)
    families = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    test = Test("mean", np.ones((1, 1)), "positive")
    design = Design(np.ones((8, 1)), ("Intercept",), (test,), exchangeability=families, whole_blocks=True)
    null = resample_maps(stack_of(mask, effect=y), "ols", design, ("max-stat",))
    assert (null.resamples, null.relabelling.name) == (16, "sign flips of whole blocks")
    peaks = []
    for signs in itertools.product([1, -1], repeat=4):
        t = stats.ttest_1samp(np.array(signs)[families][:, None] * y, 0).statistic
        peaks.append(z_of_t(t, 7).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)


@pytest.mark.parametrize("estimator", ["ols", "reml", "fisher"])
def test_two_maps_and_one_voxel(stack_of, resample_maps, estimator):
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    y = np.array([[2.0], [3.0]])
    null = resample_maps(stack_of(mask, effect=y, z=y, variance=np.ones((2, 1))), estimator, intercept(2))
    assert null.resamples == 4
    assert null.smallest_p() == 0.5
    for name in NAMES:
        assert np.isfinite(null.maxima[name]).all()
        assert null.maxima[name].max() == null.observed[name][0] or name.startswith("cluster")


@pytest.mark.parametrize("estimator", ["ols", "reml"])
def test_maps_that_say_the_same(stack_of, resample_maps, estimator):
    mask, y = smooth_maps(6)
    y[:, :50] = 3.0  # identical effects: not estimable, and left out of the null
    stack = stack_of(mask, effect=y, variance=np.ones(y.shape))
    null = resample_maps(stack, estimator, intercept(6))
    rest = stack_of(mask.copy(), effect=np.where(np.arange(y.shape[1]) < 50, np.nan, y), variance=np.ones(y.shape))
    assert (null.observed["max-stat"][:50] == 0).all()
    assert np.isfinite(null.maxima["max-stat"]).all()
    again = resample_maps(rest, estimator, intercept(6))
    np.testing.assert_allclose(again.maxima["max-stat"], null.maxima["max-stat"], rtol=SINGLE)
    same = resample_maps(
        stack_of(mask, effect=np.full(y.shape, 2.0), variance=np.ones(y.shape)), estimator, intercept(6)
    )
    assert all((same.maxima[name] == 0).all() and (same.observed[name] == 0).all() for name in NAMES)


def test_all_zero_maps_are_a_null_of_zeros(stack_of, resample_maps):
    mask, y = smooth_maps(4)
    null = resample_maps(stack_of(mask, effect=y * 0), "ols", intercept(4))
    assert all((values == 0).all() for values in null.maxima.values())


@pytest.mark.parametrize("estimator", ["ols", "reml"])
def test_an_interruption_leaves_no_thread(stack_of, resample_maps, estimator):
    mask, y = smooth_maps(12)
    before = threading.active_count()

    def interrupt(count):
        if count > 1:
            raise KeyboardInterrupt

    stack = stack_of(mask, effect=y, variance=np.ones(y.shape))
    with pytest.raises(KeyboardInterrupt):
        resample_maps(stack, estimator, intercept(12), permutations=300, threads=3, on_progress=interrupt)
    assert threading.active_count() == before


def test_unsigned_p_and_odd_options_are_refused(stack_of, resample_maps):
    mask, y = smooth_maps(4)
    with pytest.raises(DataError, match="unsigned p"):
        resample_maps(stack_of(mask, z=y, signed=False), "fisher", intercept(4, "positive"))
    with pytest.raises(UsageError, match="--permutations is 0"):
        resample_maps(stack_of(mask, effect=y), "ols", intercept(4), permutations=0)
    with pytest.raises(UsageError, match="--seed is -1"):
        resample_maps(stack_of(mask, effect=y), "ols", intercept(4), seed=-1)
