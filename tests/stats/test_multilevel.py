"""Multilevel models against R's metafor and clubSandwich (tests/reference/multilevel.R)."""

import json
from pathlib import Path

import numpy as np
import pytest

from ibma_app.stats.basis import frame_design
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.multilevel_fit import I2_BETWEEN, I2_WITHIN, OMEGA2, TAU2, Q, fit_multilevel
from ibma_app.stats.multilevel_sandwich import test_robustly as replace_tests

CASES = json.loads((Path(__file__).parents[1] / "reference" / "multilevel.json").read_text())["cases"]
NAMES = [case["name"] for case in CASES]


def arrays_of(case, voxels=2):
    y, v = (np.repeat(np.asarray(case[key], dtype=float)[:, None], voxels, axis=1) for key in "yv")
    X = np.asarray(case["X"], dtype=float)
    tests = [(np.eye(X.shape[1])[[j]], False) for j in range(X.shape[1])]
    if "rows" in case:
        tests.append((np.eye(X.shape[1])[case["rows"]], True))
    return y, v, np.ones(y.shape, dtype=bool), frame_design(X, tests), np.asarray(case["cluster"])


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_model_is_that_of_rma_mv(case):
    """1e-8: both sides work in doubles, and R's variances were polished to their last digits."""
    arrays = arrays_of(case)
    fit = fit_multilevel(*arrays)
    scale = np.mean(case["v"])
    p = len(case["X"][0])
    np.testing.assert_allclose(fit.summary[TAU2], case["tau2"], rtol=1e-8, atol=1e-9 * scale)
    np.testing.assert_allclose(fit.summary[OMEGA2], case["omega2"], rtol=1e-8, atol=1e-9 * scale)
    np.testing.assert_allclose(fit.summary[Q], case["Q"], rtol=1e-8)
    np.testing.assert_allclose(fit.summary[[I2_BETWEEN, I2_WITHIN], 0], case["i2"], rtol=1e-8, atol=1e-7)
    spread = np.std(case["y"])
    beta = np.asarray(case["beta"]).reshape(-1)
    np.testing.assert_allclose(fit.tested.values[:p, EFFECTS, 0], beta, rtol=1e-8, atol=1e-9 * spread)
    np.testing.assert_allclose(np.sqrt(fit.tested.values[:p, VARIANCES, 0]), case["se"], rtol=1e-8)
    np.testing.assert_array_equal(fit.tested.values[:, :, 0], fit.tested.values[:, :, 1])
    if "rows" in case:
        np.testing.assert_allclose(fit.tested.values[p, STATISTICS, 0], case["F"], rtol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_robust_errors_are_those_of_clubsandwich(case):
    arrays = arrays_of(case)
    fit = fit_multilevel(*arrays)
    replace_tests(*arrays, fit)
    p = len(case["X"][0])
    for j, known in enumerate(case["robust"]):
        assert fit.tested.estimable[j].all()
        np.testing.assert_allclose(np.sqrt(fit.tested.values[j, VARIANCES, 0]), known["se"], rtol=1e-8)
        np.testing.assert_allclose(fit.dof[j, 0], known["dof"], rtol=1e-8)
    if "rows" in case:
        np.testing.assert_allclose(fit.tested.values[p, STATISTICS, 0], case["robust_F"], rtol=1e-8)
        np.testing.assert_allclose(fit.dof[p, 0], case["robust_F_dof"], rtol=1e-8)
