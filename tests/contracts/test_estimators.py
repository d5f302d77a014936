"""What every estimator of the menu must hold: taken up unasked by whatever the table lists."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import TAILS, Design, Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.estimators import ESTIMATORS, find_estimator

K, B = 9, 40
ONE = Design(np.ones((K, 1)), ("Intercept",), (Test("mean", np.eye(1)),))
_X = np.column_stack([np.ones(K), np.linspace(-1, 1, K) ** 3, np.arange(K) % 2])
MANY = Design(
    _X,
    ("Intercept", "x", "g"),
    (
        Test("x", np.array([[0.0, 1.0, 0.0]])),
        Test("old", np.array([[1.0, 0.5, 1.0]]), tail="positive"),
        Test("any", np.eye(3)[1:], is_f=True),
    ),
    formula="1 + x + g",
)
MEASURES = (
    "tau2",
    "sigma2",
    "icc",
    "q",
    "q_log10p",
    "i2",
    "h2",
    "dof",
    "pilower",
    "piupper",
    "tau2_lower",
    "tau2_upper",
    "omega2",
    "i2_between",
    "i2_within",
)


def make_block(seed=0, coverage=0.8, voxels=B):
    rng = np.random.default_rng(seed)
    variance = 10.0 ** rng.uniform(-2, 0, (K, voxels))
    effect = rng.normal(0.3, np.sqrt(variance + rng.choice([0.0, 0.4], voxels)))
    covered = rng.random((K, voxels)) < coverage
    covered[:, :2], covered[:, 2] = True, False
    covered[:, 3], covered[0, 3] = False, True
    return VoxelBlock(
        covered,
        effect,
        variance,
        effect / np.sqrt(variance),
        np.full((K, 1), 30.0),
        rng.integers(10, 60, K).astype(float),
    )


UNITS = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3])


def designs_of(estimator):
    plain = (ONE, MANY) if estimator.takes_designs else (ONE,)
    names = {"cluster_name": "participant_id", "unit_name": "participant_id"}
    repeated = [replace(design, clusters=UNITS, units=UNITS, repeated=True, **names) for design in plain]
    return (*plain, *repeated) if estimator.models_clusters else plain


def take_rows(design, rows):
    """Return the design of some maps, or of maps in another order."""
    units = None if design.units is None else design.units[rows]
    return replace(design, matrix=design.matrix[rows], clusters=units, units=units)


def choices_of(estimator):
    """Return the default settings, and each other choice alone."""
    yield {}
    for name, setting in estimator.settings.items():
        for choice in setting.choices[1:]:
            yield {name: choice}


def pick(block, columns, rows=slice(None)):
    """Return some voxels, and maps in another order."""

    def cut(values):
        if values is None:
            return None
        if values.ndim == 1:
            return values[rows]
        return values[rows][:, columns] if values.shape[1] > 1 else values[rows]

    kinds = ("covered", "effect", "variance", "z", "dof", "sample_size")
    return VoxelBlock(**{kind: cut(getattr(block, kind)) for kind in kinds})


def arrays_of(estimate):
    """Return every array of an estimate by name."""
    found = {name: getattr(estimate, name) for name in ("n", "identical", *MEASURES)}
    for name, test in estimate.tests.items():
        for part in ("z", "estimable", "effect", "variance", "statistic", "dof"):
            found[f"{name}.{part}"] = getattr(test, part)
    return {name: values for name, values in found.items() if values is not None}


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return find_estimator(request.param)


def test_record(estimator):
    assert estimator.name in ESTIMATORS
    assert estimator.title
    assert not estimator.title.endswith(".")
    assert estimator.citations
    assert set(estimator.needs) <= {"effect", "variance", "z", "sample_size"}
    assert "Parameters" in estimator.fit.__doc__ or estimator.fit.__doc__.count("\n") >= 3


def test_record_can_be_sent_to_another_process(estimator):
    assert pickle.loads(pickle.dumps(estimator)).name == estimator.name


def test_shapes_and_finite(estimator):
    block = make_block()
    for design in designs_of(estimator):
        for chosen in choices_of(estimator):
            arrays = arrays_of(estimator.fit(block, design, **chosen))
            assert {f"{test.name}.z" for test in design.tests} <= set(arrays)
            for name, values in arrays.items():
                assert values.shape == (B,), name
                assert np.isfinite(values).all(), name


def test_left_out_is_zero(estimator):
    block = make_block()
    for design in designs_of(estimator):
        estimate = estimator.fit(block, design)
        np.testing.assert_array_equal(estimate.n, block.covered.sum(axis=0))
        assert estimate.n.dtype == np.int16
        for test in estimate.tests.values():
            assert not test.estimable[2]  # nothing covers it
            assert test.estimable[:2].all()
            for part in (test.z, test.effect, test.variance, test.statistic):
                if part is not None:
                    assert not part[~test.estimable].any()


def test_each_voxel_alone_is_the_same_bits(estimator):
    block = make_block()
    for design in designs_of(estimator):
        for chosen in choices_of(estimator):
            together = arrays_of(estimator.fit(block, design, **chosen))
            parts = [slice(b, b + 1) for b in range(7)] + [slice(7, 20), slice(20, B)]
            apart = [arrays_of(estimator.fit(pick(block, part), design, **chosen)) for part in parts]
            for name, values in together.items():
                np.testing.assert_array_equal(np.concatenate([one[name] for one in apart]), values, err_msg=name)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e300, 0.0, -1.0])
def test_what_is_not_covered_is_not_used(estimator, poison):
    block = make_block()
    bad = {
        kind: np.where(block.covered, np.broadcast_to(getattr(block, kind), block.covered.shape), poison)
        for kind in ("effect", "variance", "z", "dof")
    }
    for design in designs_of(estimator):
        for chosen in choices_of(estimator):
            clean = arrays_of(estimator.fit(block, design, **chosen))
            for name, values in arrays_of(estimator.fit(replace(block, **bad), design, **chosen)).items():
                np.testing.assert_array_equal(values, clean[name], err_msg=name)


def test_missing_maps_are_as_if_never_there(estimator):
    block = make_block(coverage=1.0)
    there = np.array([0, 1, 3, 4, 5, 7, 8])
    holes = block.covered.copy()
    holes[:, 4:] = np.isin(np.arange(K), there)[:, None]
    for design in designs_of(estimator):
        short = take_rows(design, there)
        full = arrays_of(estimator.fit(pick(replace(block, covered=holes), slice(4, None)), design))
        for name, values in arrays_of(estimator.fit(pick(block, slice(4, None), there), short)).items():
            # another basis of the same rows: rounding differs
            np.testing.assert_allclose(full[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


@given(order=st.permutations(range(K)), seed=st.integers(0, 1000))
@settings(max_examples=10)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_order_of_maps_does_not_matter(name, order, seed):
    estimator, block = find_estimator(name), make_block(seed)
    for design in designs_of(estimator):
        other = take_rows(design, list(order))
        shuffled = arrays_of(estimator.fit(pick(block, slice(None), list(order)), other))
        for part, values in arrays_of(estimator.fit(block, design)).items():
            # sums run in another order; tau2 near its boundary keeps 1e-9 of the data's scale
            np.testing.assert_allclose(shuffled[part], values, rtol=1e-8, atol=1e-8, err_msg=part)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_sign(name, seed):
    estimator, block = find_estimator(name), make_block(seed)
    turned = replace(block, effect=-block.effect, z=-block.z)
    for design in designs_of(estimator):
        tails = {"positive": "negative", "negative": "positive"}
        other = replace(design, tests=tuple(replace(t, tail=tails.get(t.tail, t.tail)) for t in design.tests))
        for one, two in zip(design.tests, other.tests, strict=True):
            a = estimator.fit(block, design).tests[one.name]
            b = estimator.fit(turned, other).tests[two.name]
            sign = 1.0 if one.is_f else -1.0
            np.testing.assert_allclose(b.z, sign * a.z, rtol=1e-10, atol=1e-12)
            if a.effect is not None:
                np.testing.assert_allclose(b.effect, -a.effect, rtol=1e-10)


@given(unit=st.sampled_from([1e-5, 0.37, 1e5]), seed=st.integers(0, 1000))
@settings(max_examples=6)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_units(name, unit, seed):
    """Effects in another unit: z, t and dof stay, effect and variances follow, to 1e-9."""
    estimator, block = find_estimator(name), make_block(seed)
    other = replace(block, effect=block.effect * unit, variance=block.variance * unit**2)
    for design in designs_of(estimator):
        one, two = estimator.fit(block, design), estimator.fit(other, design)
        if one.tau2 is not None:
            np.testing.assert_allclose(two.tau2 / unit**2, one.tau2, rtol=1e-9, atol=1e-10)
        for test in one.tests:
            a, b = one.tests[test], two.tests[test]
            np.testing.assert_allclose(b.z, a.z, rtol=1e-8, atol=1e-9)
            if a.effect is not None:
                np.testing.assert_allclose(b.effect / unit, a.effect, rtol=1e-8, atol=1e-10)
            if a.variance is not None:
                np.testing.assert_allclose(b.variance / unit**2, a.variance, rtol=1e-8, atol=1e-12)


def test_identical_effects_are_never_infinite(estimator):
    block = pick(make_block(coverage=1.0), slice(4, None))  # full coverage
    same = np.full(block.covered.shape, 2.5)
    arrays = arrays_of(estimator.fit(replace(block, effect=same, z=same), ONE))
    assert all(np.isfinite(values).all() for values in arrays.values())
    if "identical" in arrays:
        assert arrays["identical"].all()
        assert not arrays["mean.estimable"].any()
        assert not arrays["mean.z"].any()
        if "mean.effect" in arrays:
            np.testing.assert_allclose(arrays["mean.effect"], 2.5, rtol=1e-14)
            assert not arrays["mean.variance"].any()
            assert not arrays["mean.statistic"].any()


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e100])
def test_extreme_but_finite(estimator, scale):
    """Values near the ends of float32 (and beyond) give finite numbers."""
    block = make_block()
    wild = replace(block, effect=block.effect * scale, variance=block.variance * min(scale, 1e60) ** 2)
    for design in designs_of(estimator):
        for name, values in arrays_of(estimator.fit(wild, design)).items():
            assert np.isfinite(values).all(), name


def test_tails(estimator):
    """A directed test never has a larger p than the two-sided one in its direction halves."""
    block = make_block(coverage=1.0)
    z = {
        tail: estimator.fit(block, replace(ONE, tests=(replace(ONE.tests[0], tail=tail),))).tests["mean"].z
        for tail in TAILS
    }
    strong = np.abs(z["two-sided"]) > 0.5
    up = strong & (z["two-sided"] > 0)
    down = strong & (z["two-sided"] < 0)
    np.testing.assert_allclose(z["two-sided"][up], z["positive"][up], rtol=1e-12)
    np.testing.assert_allclose(z["two-sided"][down], z["negative"][down], rtol=1e-12)


def test_a_negative_weight_turns_the_question(estimator):
    block = make_block(coverage=1.0)
    turned = replace(ONE, tests=(Test("mean", -np.eye(1), tail="negative"),))
    straight = replace(ONE, tests=(Test("mean", np.eye(1), tail="positive"),))
    a = estimator.fit(block, straight).tests["mean"].z
    np.testing.assert_allclose(estimator.fit(block, turned).tests["mean"].z, -a, rtol=1e-12)


def test_no_voxels(estimator):
    block = pick(make_block(), slice(0, 0))
    assert estimator.fit(block, ONE).n.shape == (0,)


def test_settings_are_checked(estimator):
    with pytest.raises(UsageError, match="no setting"):
        estimator.fit(make_block(), ONE, nonsense="1")
    for name, setting in estimator.settings.items():
        # without choices it is a covariate that names groups
        error, words = (UsageError, "choose from") if setting.choices else (DataError, "no groups of that name")
        with pytest.raises(error, match=words):
            estimator.fit(make_block(), ONE, **{name: "nonsense"})


def test_designs_that_are_not_taken(estimator):
    if estimator.takes_designs:
        aliased = replace(MANY, matrix=np.column_stack([_X[:, :2], _X[:, 0] + _X[:, 1]]))
        with pytest.raises(DataError, match="dependent"):
            estimator.fit(make_block(), aliased)
    else:
        with pytest.raises(DataError, match="one-sample"):
            estimator.fit(make_block(), MANY)


def test_missing_kinds_are_named(estimator):
    for kind in estimator.needs:
        word = kind.replace("_", " ")
        with pytest.raises(DataError, match=word):
            estimator.fit(replace(make_block(), **{kind: None}), ONE)


def test_menu():
    with pytest.raises(UsageError, match="reml, ml, dl"):
        find_estimator("remll")
