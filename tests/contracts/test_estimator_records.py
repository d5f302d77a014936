"""What the record of every estimator says of it: true, and complete."""

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.estimators import (
    AUTO,
    ESTIMATORS,
    PARTICIPANT,
    PARTICIPANT_SETTINGS,
    estimators_that,
    find_estimator,
)

K, B = 9, 40
ONE = Design(np.ones((K, 1)), ("Intercept",), (Test("mean", np.eye(1)),))
MANY = Design(
    np.column_stack([np.ones(K), np.linspace(-1, 1, K) ** 3, np.arange(K) % 2]),
    ("Intercept", "x", "g"),
    (Test("x", np.array([[0.0, 1.0, 0.0]])),),
    formula="1 + x + g",
)


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return find_estimator(request.param)


@pytest.fixture
def block():
    """K maps that cover all voxels."""
    rng = np.random.default_rng(0)
    variance = 10.0 ** rng.uniform(-2, 0, (K, B))
    effect = rng.normal(0.3, np.sqrt(variance + 0.2))
    return VoxelBlock(
        covered=np.ones((K, B), dtype=bool),
        effect=effect,
        variance=variance,
        z=effect / np.sqrt(variance),
        dof=np.full((K, 1), 30.0),
        sample_size=rng.integers(10, 60, K).astype(float),
    )


def turned_around(block):
    """Return the maps in the opposite order."""
    kinds = ("covered", "effect", "variance", "z", "dof", "sample_size")
    return VoxelBlock(**{kind: np.ascontiguousarray(getattr(block, kind)[::-1]) for kind in kinds})


def choices_of(estimator):
    """Return the default settings, and each other choice alone."""
    yield {}
    for name, setting in estimator.settings.items():
        for choice in setting.choices or ("site",):
            yield {name: choice}


def test_words_and_labels_of_every_choice(estimator):
    for level in ("participant", "group"):
        for chosen in choices_of(estimator):
            settings = {**estimator.defaults(ONE), **chosen}
            held = [words.text for words in estimator.words if words.holds(level, settings)]
            text = " ".join(held).format(units="studies", **settings)
            assert text.endswith("."), chosen
            assert "{" not in text
    for name, setting in estimator.settings.items():
        assert setting.label, name
        assert set(setting.words) == set(setting.choices or ("",)), name
        assert any(name in words.when or name in words.unless for words in estimator.words), name
    conditions = [condition for words in estimator.words for condition in words.when.items()]
    assert all(choice in estimator.settings[name].choices for name, choice in conditions)


def test_what_is_relabelled_is_least_squares(estimator, block):
    # the fast path of resampling computes it so, and fits nothing anew
    if estimator.relabels is None:
        return
    values = getattr(block, estimator.relabels)
    for design in (ONE, MANY):
        test = design.tests[0]
        weights, k, p = np.ravel(test.weights), K, design.matrix.shape[1]
        coefficients, rss, *_ = np.linalg.lstsq(design.matrix, values, rcond=None)
        spread = weights @ np.linalg.inv(design.matrix.T @ design.matrix) @ weights
        t = weights @ coefficients / np.sqrt(spread * rss / (k - p))
        z = -np.sign(t) * norm.ppf(student.sf(np.abs(t), k - p))
        # scipy's own tails keep 9 digits here
        np.testing.assert_allclose(estimator.fit(block, design).tests[test.name].z, z, rtol=1e-8)


def test_the_weights_are_those_that_the_record_tells(estimator, block):
    estimate = estimator.fit(block, ONE)
    found = estimate.tests["mean"]
    if estimator.weights == "variance":
        weights = 1.0 / (block.variance + (0.0 if estimate.tau2 is None else estimate.tau2))
        np.testing.assert_allclose(found.effect, (weights * block.effect).sum(0) / weights.sum(0), rtol=1e-9)
    elif estimator.weights == "sample_size":
        weights = np.sqrt(block.sample_size)
        np.testing.assert_allclose(found.z, weights @ block.z / np.sqrt(weights @ weights), rtol=1e-9)
    elif estimator.weights == "equal":
        if found.effect is not None:
            np.testing.assert_allclose(found.effect, block.effect.mean(0), rtol=1e-9)
        turned = estimator.fit(turned_around(block), ONE)
        np.testing.assert_allclose(turned.tests["mean"].z, found.z, rtol=1e-9)


def test_auto_takes_what_can_do_it(block):
    records = {shared: find_estimator(name) for shared, name in AUTO.items()}
    assert set(records["effect and variance"].needs) == {"effect", "variance"}
    assert records["effect"].needs == ("effect",)
    assert records["effect"].takes_repeated
    assert records["effect"].takes_smoothing
    assert records["z and sample size"].needs == ("z", "sample_size")
    assert records["z"].needs == records["z alone"].needs == records["p"].needs == ("z",)
    assert records["p"].takes_unsigned
    assert all(records[shared].takes_designs for shared in ("effect and variance", "effect", "z"))
    participant = find_estimator(PARTICIPANT)
    assert {participant.fit(block, ONE, **PARTICIPANT_SETTINGS).tests["mean"].statistic_name} == {"t"}


def test_estimators_by_what_they_can_do():
    assert "ols" in estimators_that(lambda record: record.takes_repeated)
    assert "ols" in estimators_that(lambda record: record.takes_smoothing)
    fixed = {"stouffer", "stouffer-weighted", "fisher", "tippett"}
    assert set(estimators_that(lambda record: record.fixed_null)) >= fixed
    assert not fixed & set(estimators_that(lambda record: record.has_residuals))
    assert not estimators_that(lambda record: record.fixed_null and "z" not in record.needs)  # its sentence speaks of z
