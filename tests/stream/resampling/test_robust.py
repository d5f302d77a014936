"""Resampling with a cluster-robust error: against textbooks, enumerated, and the faster path against refits."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.design import Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling import fast_sandwich, resample
from ibma_app.stream.resampling.fast_sandwich import FastSandwich, gather_clusters
from ibma_app.stream.resampling.refit import Refit, Refitter
from ibma_app.stream.resampling.relabelling import plan_scheme
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.workers.resources import Resources

NAMES = ("max-stat", "cluster-size", "cluster-mass", "tfce")
SINGLE = 3e-6  # numbers of clusters are kept in single precision: relative error of z
PLACES = "permutations (Freedman-Lane) of whole clusters"
MASK = np.ones((6, 5, 4), dtype=bool)
V = MASK.size


def z_of_t(t, dof):
    return np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), dof))


def indicators(labels):
    return (np.asarray(labels)[:, None] == np.unique(labels)[None]).astype(float)


def maps(n_units, n_conditions, seed=0):
    """Maps of units x conditions, condition fastest, whose variances differ."""
    rng = np.random.default_rng(seed)
    unit, condition = np.repeat(np.arange(n_units), n_conditions), np.tile(np.arange(n_conditions), n_units)
    y = (
        rng.normal(0, 2, (n_units, V))[unit]
        + rng.normal(size=(unit.size, V)) * np.array([2.0, 2.0, 0.3, 1])[condition, None]
    )
    return y.astype(np.float32).astype(float), unit, condition


def design_of(matrix, weights, unit, places, tail="two-sided", *, is_f=False, **more):
    test = Test("test", np.atleast_2d(np.asarray(weights, dtype=float)), tail, is_f)
    columns = tuple(f"x{i}" for i in range(matrix.shape[1]))
    return Design(
        matrix, columns, (test,), clusters=unit, cluster_name="participant_id", places=places, repeated=True, **more
    )


def run(stack, design, names=NAMES, *, permutations=5000, seed=0, threads=1, cluster_p=0.02, **given):
    scores = {name: find_inference(name).score for name in names}
    settings = InferenceSettings(cluster_p=cluster_p, permutations=permutations, seed=seed)
    model = Model(find_estimator("ols"), design, given)
    return score_resamples(stack, model, design.tests[0], scores, settings, Resources(threads=threads))


@pytest.mark.parametrize("columns", ["subject columns", "none"])
@pytest.mark.parametrize("tail", ["two-sided", "positive"])
def test_within_subjects_every_sign_flip_is_one_of_the_contrasts(stack_of, columns, tail):
    y, unit, condition = maps(7, 3)
    weights = np.array([0.5, 0.5, -1.0])
    matrix, padded = indicators(condition), weights
    if columns == "subject columns":
        matrix, padded = np.column_stack([matrix, indicators(unit)[:, 1:]]), np.r_[weights, np.zeros(6)]
    null = run(stack_of(MASK, effect=y), design_of(matrix, padded, unit, condition, tail))
    assert (null.relabelling.name, null.resamples, null.exhaustive) == (
        "sign flips of residuals of whole clusters",
        128,
        True,
    )
    contrasts = (y.reshape(7, 3, V) * weights[:, None]).sum(axis=1)
    peaks = []
    for signs in itertools.product([1, -1], repeat=7):
        z = z_of_t(stats.ttest_1samp(np.array(signs)[:, None] * contrasts, 0).statistic, 6)
        peaks.append(np.abs(z).max() if tail == "two-sided" else z.max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)
    assert null.smallest_p() == (2 if tail == "two-sided" else 1) / 128


def test_several_rows_are_hotellings(stack_of):
    y, unit, condition = maps(7, 3)
    rows = np.array([[1.0, -1, 0], [0, 1, -1]])
    null = run(stack_of(MASK, effect=y), design_of(indicators(condition), rows, unit, condition), ("max-stat",))
    differences = np.einsum("qc,ucv->uqv", rows, y.reshape(7, 3, V))
    peaks = []
    for signs in itertools.product([1, -1], repeat=7):
        turned = np.array(signs)[:, None, None] * differences
        mean, left = turned.mean(axis=0), turned - turned.mean(axis=0)
        covariance = np.einsum("uqv,urv->vqr", left, left) / (7 * 6)
        squared = np.einsum("qv,vqr,rv->v", mean, np.linalg.inv(covariance), mean)
        peaks.append(stats.norm.isf(stats.f.sf(squared * 5 / 12, 2, 5)).max())
    assert null.resamples == 128
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)


def test_between_subjects_signs_of_residual_means_are_flipped(stack_of):
    y, unit, condition = maps(8, 3)
    group = (unit >= 4).astype(float)
    matrix = np.column_stack([indicators(condition), group])
    null = run(stack_of(MASK, effect=y), design_of(matrix, [0, 0, 0, 1], unit, condition), ("max-stat",))
    assert (null.relabelling.name, null.resamples) == ("sign flips of residuals of whole clusters", 256)
    means = y.reshape(8, 3, V).mean(axis=1)
    residuals, peaks = means - means.mean(axis=0), []
    for signs in itertools.product([1, -1], repeat=8):
        turned = np.array(signs)[:, None] * residuals
        peaks.append(np.abs(z_of_t(stats.ttest_ind(turned[4:], turned[:4]).statistic, 6)).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE, atol=1e-6)


def test_between_subjects_who_are_exchangeable_change_places(stack_of):
    y, unit, condition = maps(8, 3)
    group = (unit >= 4).astype(float)
    matrix = np.column_stack([indicators(condition), group])
    design = design_of(matrix, [0, 0, 0, 1], unit, condition, exchangeability=np.zeros(24, dtype=np.int64))
    null = run(stack_of(MASK, effect=y), design)
    assert (null.relabelling.name, null.resamples) == (f"{PLACES} within blocks", 70)
    assert null.smallest_p() == 2 / 70
    means = y.reshape(8, 3, V).mean(axis=1)
    peaks = []
    for chosen in itertools.combinations(range(8), 4):
        rest = [k for k in range(8) if k not in chosen]
        peaks.append(np.abs(z_of_t(stats.ttest_ind(means[list(chosen)], means[rest]).statistic, 6)).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)


def test_an_interaction_of_group_and_condition_is_one_of_differences(stack_of):
    y, unit, condition = maps(8, 2)
    group = (unit >= 4).astype(float)
    matrix = np.column_stack([condition, condition * group, indicators(unit)])
    design = design_of(matrix, np.eye(10)[1], unit, condition, exchangeability=np.zeros(16, dtype=np.int64))
    null = run(stack_of(MASK, effect=y), design, ("max-stat",))
    assert (null.relabelling.name, null.resamples) == (f"{PLACES} within blocks", 70)
    differences = y.reshape(8, 2, V)[:, 1] - y.reshape(8, 2, V)[:, 0]
    peaks = []
    for chosen in itertools.combinations(range(8), 4):
        rest = [k for k in range(8) if k not in chosen]
        t = stats.ttest_ind(differences[list(chosen)], differences[rest]).statistic
        peaks.append(np.abs(z_of_t(t, 6)).max())
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)


@pytest.mark.parametrize("exchangeable", [True, False])
def test_two_groups_of_maps_have_welchs_statistic(stack_of, exchangeable):
    rng = np.random.default_rng(2)
    y = (rng.normal(size=(9, V)) * np.repeat([3.0, 1.0], [3, 6])[:, None]).astype(np.float32).astype(float)
    group = np.repeat([0.0, 1.0], [3, 6])
    test = Test("test", np.array([[0.0, 1.0]]))
    blocks = np.zeros(9, dtype=np.int64) if exchangeable else None
    design = Design(np.column_stack([np.ones(9), group]), ("intercept", "g"), (test,), exchangeability=blocks)
    null = run(stack_of(MASK, effect=y), design, ("max-stat",), errors="sandwich")
    dof = (1 / 3 + 1 / 6) ** 2 / (1 / (9 * 2) + 1 / (36 * 5))
    relabelled = []
    if exchangeable:
        assert (null.relabelling.name, null.resamples) == ("permutations (Freedman-Lane) within blocks", 84)
        for chosen in itertools.combinations(range(9), 3):
            relabelled.append(y[[*chosen, *(k for k in range(9) if k not in chosen)]])
    else:
        assert (null.relabelling.name, null.resamples) == ("sign flips of residuals", 512)
        residuals = y - y.mean(axis=0)
        relabelled = [np.array(signs)[:, None] * residuals for signs in itertools.product([1, -1], repeat=9)]
    ts = [stats.ttest_ind(one[3:], one[:3], equal_var=False).statistic for one in relabelled]
    peaks = [np.abs(z_of_t(t, dof)).max() for t in ts]
    np.testing.assert_allclose(np.sort(null.maxima["max-stat"]), np.sort(peaks), rtol=SINGLE)


def cases():
    """Designs of every kind: balanced and not, t and F, within, between, interactions, covariates of maps."""
    y, unit, condition = maps(9, 4)
    rng, one_block = np.random.default_rng(5), np.zeros(36, dtype=np.int64)
    cells, subject = indicators(condition), indicators(unit)[:, 1:]
    group, rt, age = (unit % 3 == 0).astype(float), rng.normal(size=36), rng.normal(size=9)[unit]
    within = np.column_stack([cells, subject])
    row = np.r_[1, -1, np.zeros(10)]
    yield "within", y, design_of(within, row, unit, condition)
    yield "F", y, design_of(within, np.array([row, np.roll(row, 1)]), unit, condition)
    yield "F of one row", y, design_of(within, row, unit, condition, is_f=True)
    yield "between", y, design_of(np.column_stack([cells, group]), np.eye(5)[4], unit, condition, "negative")
    yield "age", y, design_of(np.column_stack([cells, age]), np.eye(5)[4], unit, condition)
    yield "group and age", y, design_of(np.column_stack([cells, age, group]), np.eye(6)[4:], unit, condition)
    crossed = np.column_stack([within, (cells * group[:, None])[:, 1:]])
    yield "interaction", y, design_of(crossed, np.eye(15)[12:], unit, condition)
    for name, columns, weights in (
        ("between", [cells, group], np.eye(5)[4]),
        ("age", [cells, age], np.eye(5)[4]),
        ("group and age", [cells, age, group], np.eye(6)[4:]),
        ("interaction", [crossed], np.eye(15)[12:]),
    ):
        design = design_of(np.column_stack(columns), weights, unit, condition, exchangeability=one_block)
        yield f"{name}, changing places", y, design
    yield "rt", y, design_of(np.column_stack([within, rt]), np.eye(13)[12], unit, np.arange(36))
    kept = np.flatnonzero((rng.random(36) < 0.8) | (unit > 3))

    def some(design):
        return replace(design, matrix=design.matrix[kept], clusters=unit[kept], places=design.places[kept])

    yield "missing, within", y[kept], some(design_of(within, row, unit, condition))
    yield "missing, F", y[kept], some(design_of(within, np.array([row, np.roll(row, 1)]), unit, condition))
    yield "missing, age", y[kept], some(design_of(np.column_stack([cells, age]), np.eye(5)[4], unit, condition))
    family = unit // 3
    yield "families", y, design_of(cells, np.eye(4)[0], unit, condition, exchangeability=family, whole_blocks=True)
    yield (
        "sites",
        y,
        design_of(np.column_stack([cells, age]), np.eye(5)[4], unit, condition, exchangeability=(unit % 2)),
    )


CASES = {name: (y, design) for name, y, design in cases()}


@pytest.mark.parametrize("name", CASES)
def test_both_paths_give_the_same_numbers(stack_of, name):
    y, design = CASES[name]
    stack, model = stack_of(MASK, effect=y), Model(find_estimator("ols"), design)
    settings = InferenceSettings(cluster_p=0.02, permutations=40)
    scheme = plan_scheme(model, design.tests[0], settings)
    scores = {"max-stat": find_inference("max-stat").score}
    gathered = gather_clusters(stack, model, scheme)

    def scoring(live):
        return Scoring(scores, stack.grid, scheme.tail, settings, live)

    refitter = Refitter(stack, model, scheme, 1)
    slow = Refit(refitter, scoring(np.flatnonzero(refitter.live)))
    fast = FastSandwich(gathered, scoring(gathered.live))
    drawn = scheme.relabellings.n_drawn
    one = np.concatenate([fast.score(range(s, min(s + 8, drawn))) for s in range(0, drawn, 8)], axis=1)
    two = slow.score(range(drawn))
    np.testing.assert_allclose(one, two, rtol=2e-5)
    observed = fast.identity(1)[0]["max-stat"]
    known = estimate_maps(stack, model).tests["test"].z
    known = np.abs(known) if scheme.tail == "two-sided" else -known if scheme.tail == "negative" else known
    np.testing.assert_allclose(observed, known, rtol=2e-5, atol=1e-5)
    sent = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(sent.score(range(min(drawn, 8))), fast.score(range(min(drawn, 8))))


def test_schemes():
    settings = InferenceSettings(permutations=40)

    def words(name):
        design = CASES[name][1]
        return plan_scheme(Model(find_estimator("ols"), design), design.tests[0], settings).relabelling.name

    flips = "sign flips of residuals of whole clusters"
    for name in CASES:
        if name not in ("families", "sites"):
            assert words(name) == (f"{PLACES} within blocks" if "places" in name else flips)
    assert words("families") == "sign flips of residuals of whole blocks"
    assert words("sites") == f"{PLACES} within blocks"


def test_subjects_whose_maps_differ_keep_their_places(stack_of):
    """All but two subjects have all conditions: these change places; where patterns are many, signs flip."""
    _, unit, condition = maps(9, 3)
    group = (unit % 2).astype(float)
    matrix = np.column_stack([indicators(condition), group])
    kept = ~(((unit == 1) & (condition == 0)) | ((unit == 4) & (condition == 2)))
    exchangeable = np.zeros(27, dtype=np.int64)
    design = design_of(matrix[kept], [0, 0, 0, 1], unit[kept], condition[kept], exchangeability=exchangeable[kept])
    scheme = plan_scheme(Model(find_estimator("ols"), design), design.tests[0], InferenceSettings(permutations=20))
    assert scheme.relabelling.name == f"{PLACES} within blocks"
    orders, own = scheme.relabellings.orders, np.arange(kept.sum())
    stays = np.isin(unit[kept], (1, 4))
    assert (orders[:, stays] == own[stays]).all()
    assert (condition[kept][orders] == condition[kept]).all()
    few = design_of(
        matrix[unit < 5], [0, 0, 0, 1], unit[unit < 5], np.arange(15), exchangeability=exchangeable[unit < 5]
    )
    scheme = plan_scheme(Model(find_estimator("ols"), few), few.tests[0], InferenceSettings())
    assert scheme.relabelling.name == "sign flips of residuals of whole clusters"


@pytest.mark.parametrize("most", [0.5, 0.25])
@pytest.mark.parametrize("name", ["within", "F", "between, changing places"])
def test_voxels_that_some_maps_do_not_cover(stack_of, monkeypatch, name, most):
    """They are fitted again in every relabelling, alone or with all others: the same numbers."""
    y, design = CASES[name]
    y = y.copy()
    y[5, :30], y[7, 20:50], y[0, 3:60:9] = np.nan, np.nan, np.nan
    stack, model = stack_of(MASK, effect=y), Model(find_estimator("ols"), design)
    monkeypatch.setattr(fast_sandwich, "MOST_INCOMPLETE", most)
    settings = InferenceSettings(permutations=30)
    gathered = gather_clusters(stack, model, plan_scheme(model, design.tests[0], settings))
    assert (gathered is None) == (most == 0.25)
    null = run(stack, design, ("max-stat",), permutations=30)
    fitted = estimate_maps(stack, model).tests["test"]
    assert np.unique(fitted.dof).size > 2
    known = np.abs(fitted.z) if design.tests[0].tail == "two-sided" else fitted.z
    known = -fitted.z if design.tests[0].tail == "negative" else known
    np.testing.assert_allclose(null.observed["max-stat"], known, rtol=2e-5, atol=1e-5)
    monkeypatch.setattr(fast_sandwich, "MOST_INCOMPLETE", 0.0)
    slow = run(stack, design, ("max-stat",), permutations=30)
    np.testing.assert_allclose(null.maxima["max-stat"], slow.maxima["max-stat"], rtol=2e-5)
    if gathered is not None:
        scoring = Scoring(
            {"max-stat": find_inference("max-stat").score}, stack.grid, "two-sided", settings, gathered.live
        )
        fast = FastSandwich(gathered, scoring)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(fast)).score(range(8)), fast.score(range(8)))


def test_pooled_errors_are_exchanged_within_subjects(stack_of):
    y, unit, condition = maps(5, 2)
    matrix = np.column_stack([condition, indicators(unit)])
    design = design_of(matrix, np.eye(6)[0], unit, condition)
    null = run(stack_of(MASK, effect=y), design, ("max-stat",), errors="pooled")
    assert (null.relabelling.name, null.resamples) == ("permutations (Freedman-Lane) within blocks", 32)


def test_threads_and_batches_change_no_bit(stack_of, monkeypatch):
    y, design = CASES["missing, F"]
    stack = stack_of(MASK, effect=y)
    one, two = (run(stack, design, permutations=60, threads=n) for n in (1, 3))
    monkeypatch.setattr(fast_sandwich, "BATCH", 3)
    three = run(stack, design, permutations=60)
    for name in NAMES:
        np.testing.assert_array_equal(one.maxima[name], two.maxima[name])
        np.testing.assert_allclose(three.maxima[name], one.maxima[name], rtol=1e-9)


def test_voxels_without_a_test_are_left_out(stack_of):
    y, unit, condition = maps(7, 3)
    y = y.astype(np.float32)
    y[condition == 0, :9] = y[condition == 1, :9] + np.float32(0)
    y[:, 9:12] = 3.0
    design = design_of(indicators(condition), [1, -1, 0], unit, condition)
    null = run(stack_of(MASK, effect=y), design, ("max-stat",), permutations=30)
    assert not null.observed["max-stat"][:12].any()
    assert null.observed["max-stat"][12:].all()
    rest = MASK.copy().reshape(-1)
    rest[:12] = False
    alone = run(stack_of(rest.reshape(MASK.shape), effect=y[:, 12:]), design, ("max-stat",), permutations=30)
    np.testing.assert_allclose(null.maxima["max-stat"], alone.maxima["max-stat"], rtol=1e-9)


def test_a_pass_is_known_by_its_errors(stack_of):
    """Pooled and robust passes of the same maps must not share a checkpoint."""
    y, design = CASES["within"]
    stack, settings, keys = stack_of(MASK, effect=y), InferenceSettings(permutations=20), set()
    for errors in ("pooled", "sandwich"):
        model = Model(find_estimator("ols"), design, {"errors": errors})
        scheme = plan_scheme(model, design.tests[0], settings)
        scores = {"max-stat": find_inference("max-stat").score}
        resampler = resample._choose_resampler(
            stack, model, scheme, resample._open_scoring(stack, scheme, scores, settings), Resources(threads=1)
        )
        keys.add(resample._identify(resampler, stack.grid, model, scheme, settings))
    assert len(keys) == 2
