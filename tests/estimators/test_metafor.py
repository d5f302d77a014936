"""Fixed- and mixed-effects estimators against R's metafor (tests/reference/metafor.R).

1e-8 relative, and 1e-9 of the data's scale for tau2: both sides work in
doubles, and metafor was run with tolerances of 1e-14 of that scale.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator

CASES = json.loads((Path(__file__).parents[1] / "reference" / "metafor.json").read_text())["cases"]
NAMES = [case["name"] for case in CASES]
MIXED = ("reml", "ml", "dl", "hedges", "hunter_schmidt", "sidik_jonkman", "paule_mandel", "empirical_bayes")


def maps_of(case):
    """Return the case as a block of two voxels, so that nothing hangs on B = 1."""
    y, v = (np.repeat(np.asarray(case[key], dtype=float)[:, None], 2, axis=1) for key in "yv")
    return VoxelBlock(np.ones(y.shape, dtype=bool), effect=y, variance=v)


def design_of(case, rows):
    matrix = np.asarray(case["X"], dtype=float)
    p = matrix.shape[1]
    tests = [Test(f"b{j}", np.eye(p)[[j]]) for j in range(p)]
    tests.append(Test("F", np.eye(p)[np.asarray(rows) - 1], is_f=True))
    return Design(matrix, tuple(f"b{j}" for j in range(p)), tuple(tests))


def check_tests(estimate, known, p, rows):
    found = [estimate.tests[f"b{j}"] for j in range(p)]
    np.testing.assert_allclose([t.effect[0] for t in found], np.atleast_1d(known["beta"]), rtol=1e-8)
    np.testing.assert_allclose([np.sqrt(t.variance[0]) for t in found], np.atleast_1d(known["se"]), rtol=1e-8)
    if known["F"] == "NA":
        return
    np.testing.assert_allclose(estimate.tests["F"].statistic[0], known["F"], rtol=1e-8)
    z = estimate.tests["F"].z[0]
    assert z == estimate.tests["F"].z[1]
    if estimate.dof is None:
        p_value = special.chdtrc(len(rows), known["F"] * len(rows))
    else:
        p_value = special.fdtrc(len(rows), estimate.dof[0], known["F"])
    if 1e-250 < p_value < 0.99:  # where scipy has all digits of both tails
        np.testing.assert_allclose(z, -special.ndtri(p_value), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_fixed_effects(case):
    known = case["methods"]["fixed_effects"]
    rows = known["btt"]
    p = len(case["X"][0])
    estimator = find_estimator("fixed-effects")
    estimate = estimator.fit(maps_of(case), design_of(case, rows))
    check_tests(estimate, known["tests"]["z"], p, rows)
    np.testing.assert_allclose(estimate.q[0], known["Q"], rtol=1e-8)
    np.testing.assert_allclose(estimate.i2[0], known["I2"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(estimate.h2[0], known["H2"], rtol=1e-8)
    np.testing.assert_allclose(estimate.q_log10p[0], -known["logp"] / np.log(10), rtol=1e-8)
    equal = estimator.fit(maps_of(case), design_of(case, rows), weights="equal")
    check_tests(equal, known["equal"], p, rows)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("method", MIXED)
def test_mixed_effects(case, method):
    known = case["methods"][method]
    rows = known["btt"]
    p = len(case["X"][0])
    scale = np.mean(case["v"]) + np.var(case["y"], ddof=1)
    estimator = find_estimator(method.replace("_", "-"))
    for test, numbers in known["tests"].items():
        estimate = estimator.fit(maps_of(case), design_of(case, rows), test=test)
        np.testing.assert_allclose(estimate.tau2[0], known["tau2"], rtol=1e-8, atol=1e-9 * scale)
        np.testing.assert_allclose(estimate.q[0], known["Q"], rtol=1e-8)
        np.testing.assert_allclose(estimate.i2[0], known["I2"], rtol=1e-8, atol=1e-6)
        np.testing.assert_allclose(estimate.h2[0], known["H2"], rtol=1e-8)
        np.testing.assert_allclose(estimate.q_log10p[0], -known["logp"] / np.log(10), rtol=1e-8)
        check_tests(estimate, numbers, p, rows)
        if "pi" in numbers:
            np.testing.assert_allclose(
                [estimate.pilower[0], estimate.piupper[0]], numbers["pi"], rtol=1e-8, atol=1e-9 * np.sqrt(scale)
            )


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_interval_of_tau2(case):
    known = case["methods"]["dl"]
    scale = np.mean(case["v"]) + np.var(case["y"], ddof=1)
    estimate = find_estimator("dl").fit(maps_of(case), design_of(case, known["btt"]), tau2_ci="yes")
    found = [estimate.tau2_lower[0], estimate.tau2_upper[0]]
    # metafor searches up to 1e4 of the scale: with 2 maps the interval goes beyond
    capped = np.minimum(found, 1e4 * scale)
    np.testing.assert_allclose(capped, known["interval"], rtol=1e-7, atol=1e-9 * scale)


def test_bcg_anchors():
    """Numbers of the textbook set, typed in: they do not come from our own script."""
    case = CASES[NAMES.index("bcg intercept")]
    design = design_of(case, [1])
    reml = find_estimator("reml").fit(maps_of(case), design)
    assert reml.tau2[0] == pytest.approx(0.3132432581, abs=1e-10)
    assert reml.tests["b0"].effect[0] == pytest.approx(-0.7145323422, abs=1e-10)
    assert np.sqrt(reml.tests["b0"].variance[0]) == pytest.approx(0.1807917441, abs=1e-10)
    assert reml.i2[0] == pytest.approx(92.221385, abs=1e-6)
    dl = find_estimator("dl").fit(maps_of(case), design)
    assert dl.tau2[0] == pytest.approx(0.3087602629, abs=1e-10)
    assert dl.tests["b0"].effect[0] == pytest.approx(-0.7141172221, abs=1e-10)
    assert np.sqrt(dl.tests["b0"].variance[0]) == pytest.approx(0.1806966283, abs=1e-10)
