"""What every estimator that takes dependent maps must hold with them: taken up unasked by what its record says."""

from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Dependence, Design, Test
from ibma_app.estimators import ESTIMATORS, find_estimator
from ibma_app.stats.dependence import parts_of

K, B = 9, 40
ONE = Design(np.ones((K, 1)), ("Intercept",), (Test("mean", np.eye(1)),))
MANY = Design(
    np.column_stack([np.ones(K), np.linspace(-1, 1, K) ** 3]),
    ("Intercept", "x"),
    (Test("x", np.array([[0.0, 1.0]])), Test("any", np.eye(2), is_f=True)),
    formula="1 + x",
)
R = np.eye(K)
R[:2, :2], R[3:6, 3:6], R[6:8, 6:8] = 0.6, 0.4, 0.7
np.fill_diagonal(R, 1.0)
TAKING = [name for name in ESTIMATORS if find_estimator(name).takes_dependence]


def make_block(seed=0, coverage=0.8):
    rng = np.random.default_rng(seed)
    variance = 10.0 ** rng.uniform(-2, 0, (K, B))
    effect = rng.normal(0.3, np.sqrt(variance + rng.choice([0.0, 0.4], B)))
    covered = rng.random((K, B)) < coverage
    covered[:, :2], covered[:, 2], covered[:, 3], covered[0, 3] = True, False, False, True
    return VoxelBlock(
        covered, effect, variance, effect / np.sqrt(variance), sample_size=rng.integers(10, 60, K).astype(float)
    )


def pick(block, columns, rows=slice(None)):
    kinds = {kind: getattr(block, kind)[rows][:, columns] for kind in ("covered", "effect", "variance", "z")}
    return VoxelBlock(**kinds, sample_size=block.sample_size[rows])


def arrays_of(estimate):
    """Return every array of an estimate by name."""
    found = {name: getattr(estimate, name) for name in ("n", "tau2", "q", "i2", "h2", "dof", "pilower", "piupper")}
    for name, test in estimate.tests.items():
        for part in ("z", "estimable", "effect", "variance", "statistic"):
            found[f"{name}.{part}"] = getattr(test, part)
    return {name: values for name, values in found.items() if values is not None}


def dependent(design, rows=slice(None)):
    """Return the design of some maps, which depend on each other."""
    own = R[rows][:, rows]
    return replace(design, matrix=design.matrix[rows], dependence=Dependence("file", parts_of(own), own))


@pytest.fixture(params=TAKING)
def estimator(request):
    return find_estimator(request.param)


def designs_of(estimator):
    return (ONE, MANY) if estimator.takes_designs else (ONE,)


def test_dependence_matters_and_its_absence_does_not(estimator):
    """Maps that correlate tell less of their mean; correlations of 0 are those of independent maps."""
    block = make_block(coverage=1.0)
    alone = replace(ONE, dependence=Dependence("file", np.arange(K), np.eye(K)))
    settings = {"test": "z"} if "test" in estimator.settings else {}
    plain = arrays_of(estimator.fit(block, ONE, **settings))
    for name, values in arrays_of(estimator.fit(block, alone, **settings)).items():
        np.testing.assert_allclose(values, plain[name], rtol=1e-8, atol=1e-9, err_msg=name)
    z = arrays_of(estimator.fit(block, dependent(ONE), **settings))["mean.z"]
    assert np.median(np.abs(z)) < np.median(np.abs(plain["mean.z"]))


def test_each_voxel_alone_is_the_same_bits(estimator):
    block = make_block()
    for design in map(dependent, designs_of(estimator)):
        together = arrays_of(estimator.fit(block, design))
        parts = [slice(b, b + 1) for b in range(7)] + [slice(7, 20), slice(20, B)]
        apart = [arrays_of(estimator.fit(pick(block, part), design)) for part in parts]
        for name, values in together.items():
            np.testing.assert_array_equal(np.concatenate([one[name] for one in apart]), values, err_msg=name)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 0.0, -1.0])
def test_what_is_not_covered_is_not_used(estimator, poison):
    block = make_block()
    bad = {kind: np.where(block.covered, getattr(block, kind), poison) for kind in ("effect", "variance", "z")}
    for design in map(dependent, designs_of(estimator)):
        clean = arrays_of(estimator.fit(block, design))
        for name, values in arrays_of(estimator.fit(replace(block, **bad), design)).items():
            np.testing.assert_array_equal(values, clean[name], err_msg=name)


def test_missing_maps_are_as_if_never_there(estimator):
    block, there = make_block(coverage=1.0), np.array([0, 1, 3, 4, 5, 7, 8])
    holes = block.covered.copy()
    holes[:, 4:] = np.isin(np.arange(K), there)[:, None]
    for design in designs_of(estimator):
        full = arrays_of(estimator.fit(pick(replace(block, covered=holes), slice(4, None)), dependent(design)))
        short = estimator.fit(pick(block, slice(4, None), there), dependent(design, there))
        for name, values in arrays_of(short).items():
            np.testing.assert_allclose(full[name], values, rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_maps_does_not_matter(estimator, seed):
    block, order = make_block(seed), np.random.default_rng(seed).permutation(K)
    for design in designs_of(estimator):
        shuffled = arrays_of(estimator.fit(pick(block, slice(None), order), dependent(design, order)))
        for name, values in arrays_of(estimator.fit(block, dependent(design))).items():
            np.testing.assert_allclose(shuffled[name], values, rtol=1e-8, atol=1e-8, err_msg=name)


def test_sign_and_units(estimator):
    block = make_block()
    turned = replace(block, effect=-1e5 * block.effect, variance=1e10 * block.variance, z=-block.z)
    for design in map(dependent, designs_of(estimator)):
        one, two = estimator.fit(block, design), estimator.fit(turned, design)
        for test in design.tests:
            if test.tail == "two-sided":
                np.testing.assert_allclose(two.tests[test.name].z, -one.tests[test.name].z, rtol=1e-8, atol=1e-9)
