"""Models with correlated sampling errors against metafor's rma.mv (tests/reference/dependent.R), and by other ways."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from ibma_app.stats.basis import frame_design
from ibma_app.stats.contrasts import EFFECTS, STATISTICS, VARIANCES
from ibma_app.stats.mixed import TAU2, Q, fit_fixed, fit_mixed
from ibma_app.stats.mixed_dependent import fit_fixed_dependent, fit_mixed_dependent

CASES = json.loads((Path(__file__).parents[1] / "reference" / "dependent.json").read_text())["cases"]
NAMES = [case["name"] for case in CASES]
METHODS = ("reml", "ml", "dl", "hedges", "hunter-schmidt", "sidik-jonkman", "paule-mandel")


def arrays_of(case):
    y, v = (np.repeat(np.asarray(case[key], dtype=float)[:, None], 2, axis=1) for key in "yv")
    X = np.asarray(case["X"], dtype=float)
    tests = [(np.eye(X.shape[1])[[j]], False) for j in range(X.shape[1])]
    if case["rows"]:
        tests.append((np.eye(X.shape[1])[case["rows"]], True))
    return y, v, np.ones(y.shape, dtype=bool), frame_design(X, tests)


@pytest.mark.parametrize("method", ["fixed", "reml", "ml"])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_as_rma_mv_with_known_v(case, method):
    """1e-8: both sides work in doubles, and R's tau2 was polished to its last digits."""
    known, R, p = case["methods"][method], np.asarray(case["R"]), len(case["X"][0])
    if method == "fixed":
        fit = fit_fixed_dependent(*arrays_of(case), R)
    else:
        fit = fit_mixed_dependent(*arrays_of(case), R, method, "z")
    np.testing.assert_allclose(fit.summary[TAU2], known["tau2"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.summary[Q], known["Q"], rtol=1e-8)
    beta = np.asarray(known["beta"]).reshape(-1)
    np.testing.assert_allclose(fit.tested.values[:p, EFFECTS, 0], beta, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.sqrt(fit.tested.values[:p, VARIANCES, 0]), known["se"], rtol=1e-8)
    if case["rows"]:
        np.testing.assert_allclose(fit.tested.values[p, STATISTICS, 0], known["F"], rtol=1e-8)
    np.testing.assert_array_equal(fit.tested.values[..., 0], fit.tested.values[..., 1])


@pytest.fixture
def maps():
    rng = np.random.default_rng(4)
    v = rng.uniform(0.05, 0.5, (9, 25))
    covered = rng.random(v.shape) > 0.25
    return rng.normal(0.2, 1, v.shape) * np.sqrt(v + 0.2), v, covered


def frame_of(matrix):
    p = matrix.shape[1]
    return frame_design(matrix, [(np.eye(p)[:1], False), (np.eye(p)[p - 1 :], True)])


@pytest.mark.parametrize("method", METHODS)
def test_independent_maps_are_those_of_the_model_without(maps, method):
    frame = frame_of(np.column_stack([np.ones(9), np.arange(9.0)]))
    for test in ("adhoc", "knha", "z"):
        found, known = fit_mixed_dependent(*maps, frame, np.eye(9), method, test), fit_mixed(*maps, frame, method, test)
        np.testing.assert_allclose(found.summary, known.summary, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.tested.values, known.tested.values, rtol=1e-8, atol=1e-10)
        np.testing.assert_array_equal(found.tested.estimable, known.tested.estimable)
    for weights in ("no", "yes"):
        found = fit_fixed_dependent(*maps, frame, np.eye(9), weights)
        np.testing.assert_allclose(
            found.tested.values, fit_fixed(*maps, frame, weights).tested.values, rtol=1e-9, atol=1e-12
        )


def project(V, x, tau2):
    """Return P and V^-1 of a covariance V + tau2."""
    W = np.linalg.inv(V + tau2 * np.eye(len(V)))
    return W - W @ x @ np.linalg.solve(x.T @ W @ x, x.T @ W), W


def tau2_of(method, y, V, x):
    """Write out the equations of an estimator with the full covariance matrix."""
    k, p = x.shape
    P, W = project(V, x, 0.0)
    q = y @ P @ y
    if method == "dl":
        return (q - (k - p)) / np.trace(P)
    if method == "hedges":
        N = np.eye(k) - x @ np.linalg.solve(x.T @ x, x.T)
        return (y @ N @ y - np.trace(N @ V)) / (k - p)
    if method == "hunter-schmidt":
        return (q - k) / np.trace(W)
    if method == "sidik-jonkman":
        return y.var() * (y @ project(V, x, y.var())[0] @ y) / (k - p)
    if q <= k - p:
        return 0.0
    return brentq(lambda tau2: y @ project(V, x, tau2)[0] @ y - (k - p), 0, 1e3, xtol=1e-14)


@pytest.mark.parametrize("method", METHODS[2:])
def test_moments_of_dependent_maps(maps, method):
    y, v, covered = maps
    R = np.eye(9)
    R[0, 1] = R[1, 0] = 0.6
    R[3:6, 3:6] += 0.5 * (1 - np.eye(3))
    X = np.column_stack([np.ones(9), np.arange(9.0)])
    fit = fit_mixed_dependent(y, v, covered, frame_of(X), R, method, "z")
    for b in range(y.shape[1]):
        rows = covered[:, b]
        V = R[np.ix_(rows, rows)] * np.sqrt(np.outer(v[rows, b], v[rows, b]))
        known = max(tau2_of(method, y[rows, b], V, X[rows]), 0.0)
        assert fit.summary[TAU2, b] == pytest.approx(known, rel=1e-8, abs=1e-10)


def test_equal_weights_propagate_the_covariance(maps):
    y, v, covered = maps
    R = np.full((9, 9), 0.4) + 0.6 * np.eye(9)
    fit = fit_fixed_dependent(y, v, covered, frame_of(np.ones((9, 1))), R, "yes")
    for b in range(y.shape[1]):
        rows = covered[:, b]
        s, n = np.sqrt(v[rows, b]), rows.sum()
        assert fit.tested.values[0, EFFECTS, b] == pytest.approx(y[rows, b].mean(), rel=1e-10)
        assert fit.tested.values[0, VARIANCES, b] == pytest.approx(s @ R[np.ix_(rows, rows)] @ s / n**2, rel=1e-10)


def test_voxels_with_fewer_maps_are_those_of_fewer_maps(maps):
    y, v, covered = maps
    R = np.eye(9)
    R[0, 1] = R[1, 0] = 0.6
    R[3:6, 3:6] += 0.5 * (1 - np.eye(3))
    whole = fit_mixed_dependent(y, v, covered, frame_of(np.ones((9, 1))), R, "reml", "adhoc")
    for b in range(y.shape[1]):
        rows = covered[:, b]
        part = [values[rows, b : b + 1].copy() for values in (y, v, covered)]
        alone = fit_mixed_dependent(*part, frame_of(np.ones((rows.sum(), 1))), R[np.ix_(rows, rows)], "reml", "adhoc")
        np.testing.assert_allclose(whole.tested.values[..., b], alone.tested.values[..., 0], rtol=1e-9, atol=1e-12)
