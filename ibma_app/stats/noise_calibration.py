"""How much variances are reported too small because the noise's autocorrelation is estimated, and their dof.

Series of noise without effects, with the mean autocorrelation of the mask, go through the same estimation and the same
fit as the data. The true variance of a contrast is that with the noise known, plus the mean squared difference of the
two estimates (the estimation of the noise is even and does not depend on the coefficients, so that the two parts are
uncorrelated: Kackar & Harville 1984). Its ratio to the mean reported variance is the factor; the degrees of freedom
are those of the chi-squared that varies as the reported variance does (Satterthwaite), as Kenward & Roger (1997) have
them by expansion.

References
----------
Kackar RN, Harville DA. Approximations for standard errors of estimators of fixed and random effects in mixed linear
models. Journal of the American Statistical Association 1984; 79: 853-862.
Kenward MG, Roger JH. Small sample inference for fixed effects from restricted maximum likelihood. Biometrics 1997;
53: 983-997.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.autoregression import (
    correct_autocorrelations,
    extend_autocorrelations,
    partial_autocorrelations,
)
from ibma_app.stats.gls import fit_ordinary, orthonormalise
from ibma_app.stats.gls_by_group import fit_by_group, round_partials

Floats = NDArray[np.float64]

SERIES = 2000  # simulated: the factor is known to 0.3 %, as only its small part is simulated
SEED = 20020115


@dataclass(frozen=True, eq=False)
class Calibration:
    """Factors of reported variances and degrees of freedom, one for each contrast."""

    factors: Floats  # (C,)
    dof: Floats  # (C,)


def calibrate_noise(
    matrix: Floats,
    weights: Sequence[Floats],
    expected: Floats,
    autocorrelations: Floats,
    steps: Sequence[float],
) -> Calibration:
    """Simulate noise, and compare reported and true variances of the contrasts.

    Parameters
    ----------
    matrix : ndarray, shape (T, P)
        The design.
    weights : sequence of ndarray, shape (Q, P)
        Contrasts; of several rows, the mean factor and the fewest degrees of freedom count.
    expected : ndarray, shape (p + 1, J)
        By `expected_products`, for the order p of the fit.
    autocorrelations : ndarray, shape (K + 1,)
        Of the simulated noise, K >= p; lags beyond follow the process of order K.
    steps : sequence of float
        By which partial autocorrelations are rounded, p.
    """
    length, order = matrix.shape[0], len(steps)
    rho = extend_autocorrelations(autocorrelations[None, :], length)[0]
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    root = np.linalg.cholesky(rho[lags] + 1e-9 * np.eye(length))
    white = np.random.default_rng(SEED).standard_normal((SERIES, length))
    series, design = white @ root.T, orthonormalise(matrix, weights)
    ordinary = fit_ordinary(series, design, order)
    rounded = round_partials(partial_autocorrelations(correct_autocorrelations(ordinary.products, expected)), steps)
    known = orthonormalise(np.linalg.solve(root, matrix).astype(np.float64), weights)
    ideal = fit_ordinary(white, known, 0).estimates
    squares = np.zeros(ideal.shape)
    reported = np.zeros(ideal.shape)
    for rows, fit in fit_by_group(series, ordinary, rounded, steps, design):
        effects = np.concatenate([one.effect for one in fit.contrasts], axis=1)
        squares[rows] = (effects - ideal[rows]) ** 2
        reported[rows] = np.concatenate([one.variance(fit.noise) for one in fit.contrasts], axis=1)
    true = np.einsum("rp,rp->r", known.rows, known.rows) + squares.mean(axis=0)
    means, spreads = reported.mean(axis=0), reported.var(axis=0)
    contrasts = np.split(np.arange(len(true)), np.cumsum([len(one) for one in weights])[:-1])
    factors = np.array([(true / means)[rows].mean() for rows in contrasts])
    dofs = np.array([(2.0 * means**2 / spreads)[rows].min() for rows in contrasts])
    return Calibration(factors, np.minimum(dofs, length - matrix.shape[1]))
