"""The likelihood's optimum is the global one, also where there are two."""

import numpy as np
import pytest

from ibma_app.stats.basis import frame_design
from ibma_app.stats.mixed import TAU2, fit_mixed


def log_likelihoods(y, v, x, tau2, restricted):
    """Profile (restricted) log likelihoods of one data set on a grid of tau2, by plain linear algebra."""
    w = 1 / (v + tau2[:, None])  # (T, K)
    a = np.einsum("tk,kp,kq->tpq", w, x, x)
    b = np.linalg.solve(a, np.einsum("tk,kp,k->tp", w, x, y)[..., None])[..., 0]
    q = (w * (y - b @ x.T) ** 2).sum(axis=1)
    total = 0.5 * np.log(w).sum(axis=1) - 0.5 * q
    return total - 0.5 * np.linalg.slogdet(a)[1] if restricted else total


def grid_of(y, v):
    top = 100 * (np.var(y) + v.max())
    return np.concatenate([[0.0], np.geomspace(1e-4 * v.min(), top, 3000)])


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize("predictors", [1, 2])
def test_global_optimum(method, predictors):
    """No point of a fine grid is better, on sets made to have two optima often."""
    rng = np.random.default_rng(predictors)
    k, sets = 6, 400
    x = np.column_stack([np.ones(k), np.arange(k) - 2.5])[:, :predictors]
    precise = 2 + predictors  # maps that agree closely, beside some that do not
    v = 10.0 ** rng.uniform(-0.5, 1, (k, sets))
    v[:precise] = 10.0 ** rng.uniform(-4, -1, (precise, sets))
    y = rng.normal(0, 5, (k, sets))
    y[:precise] = rng.normal(0, np.sqrt(0.5 * v[:precise]))
    frame = frame_design(x, [(np.eye(predictors)[:1], False)])
    found = fit_mixed(y, v, np.ones(y.shape, dtype=bool), frame, method, "z").summary[TAU2]
    two = 0
    for b in range(sets):
        grid = grid_of(y[:, b], v[:, b])
        values = log_likelihoods(y[:, b], v[:, b], x, grid, method == "reml")
        ours = log_likelihoods(y[:, b], v[:, b], x, found[[b]], method == "reml")[0]
        assert ours >= values.max() - 1e-9, b
        inner = np.diff(np.sign(np.diff(values)))
        two += np.count_nonzero(inner < 0) + (values[1] < values[0]) > 1
    assert two > 20  # the sets are what they are made for


def test_known_pair_of_optima():
    """Two precise studies that differ little, and wild ones: tau2 = 0 and tau2 > 0 both are optima."""
    y = np.array([0.0, 0.0, 6.0, -6.0, 5.0])
    v = np.array([0.001, 0.001, 4.0, 4.0, 4.0])
    grid = grid_of(y, v)
    values = log_likelihoods(y, v, np.ones((5, 1)), grid, True)
    maxima = np.count_nonzero(np.diff(np.sign(np.diff(values))) < 0) + (values[1] < values[0])
    assert maxima == 2
    frame = frame_design(np.ones((5, 1)), [(np.eye(1), False)])
    fit = fit_mixed(y[:, None], v[:, None], np.ones((5, 1), dtype=bool), frame, "reml", "z")
    best = grid[values.argmax()]
    assert fit.summary[TAU2, 0] == pytest.approx(best, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("method", ["reml", "ml", "paule-mandel", "dl", "sidik-jonkman", "hedges"])
@pytest.mark.parametrize("unit", [1e-12, 1e-5, 1e5, 1e12])
def test_equivariant_to_units(method, unit):
    rng = np.random.default_rng(5)
    v = 10.0 ** rng.uniform(-2, 1, (5, 300))
    y = rng.normal(0, np.sqrt(v + 0.5))
    frame = frame_design(np.ones((5, 1)), [(np.eye(1), False)])
    covered = np.ones(y.shape, dtype=bool)
    one = fit_mixed(y, v, covered, frame, method, "knha").summary[TAU2]
    other = fit_mixed(y * unit, v * unit**2, covered, frame, method, "knha").summary[TAU2]
    np.testing.assert_allclose(other / unit**2, one, rtol=1e-9, atol=1e-12)
    assert np.count_nonzero(one) > 30
