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
from scipy.linalg import solve_triangular, toeplitz

from ibma_app.stats.autoregression import (
    correct_autocorrelations,
    extend_autocorrelations,
    lag_products,
    partial_autocorrelations,
)
from ibma_app.stats.gls import Factorised, project
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
    basis: Floats,
    weights: Sequence[Floats],
    expected: Floats,
    autocorrelations: Floats,
    steps: Sequence[float],
) -> Calibration:
    """Simulate noise, and compare reported and true variances of the contrasts.

    Parameters
    ----------
    matrix, basis : ndarray, shape (T, P)
        The design, and an orthonormal basis of it.
    weights : sequence of ndarray, shape (Q, P)
        Contrasts; of several rows, the mean factor and the fewest degrees of freedom count.
    expected : ndarray, shape (p + 1, J)
        By `expected_products`, for the order p of the fit.
    autocorrelations : ndarray, shape (K + 1,)
        Of the simulated noise, K >= p; lags beyond follow the process of order K.
    steps : sequence of float
        By which partial autocorrelations are rounded, p.
    """
    length = matrix.shape[0]
    covariance = toeplitz(extend_autocorrelations(autocorrelations[None, :], length)[0])
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(length))
    series = np.random.default_rng(SEED).standard_normal((SERIES, length)) @ root.T
    residuals, _ = project(series, basis)
    rho = correct_autocorrelations(lag_products(residuals, len(steps)), expected)
    rounded = round_partials(partial_autocorrelations(rho), steps)
    known = Factorised(solve_triangular(root, matrix, lower=True), weights, np.zeros(0))
    ideal = known.fit(solve_triangular(root, series.T, lower=True).T)
    estimates = [np.empty((SERIES, one.shape[0])) for one in weights]
    reported = [np.empty((SERIES, one.shape[0])) for one in weights]
    for rows, fit in fit_by_group(series, np.zeros(SERIES), rounded, steps, matrix, weights):
        for index, contrast in enumerate(fit.contrasts):
            estimates[index][rows] = contrast.effect
            reported[index][rows] = contrast.variance(fit.noise)
    factors, dofs = [], []
    for index, found in enumerate(ideal.contrasts):
        true = np.diag(found.unscaled) + ((estimates[index] - found.effect) ** 2).mean(axis=0)
        means, spreads = reported[index].mean(axis=0), reported[index].var(axis=0)
        factors.append(float((true / means).mean()))
        dofs.append(float((2.0 * means**2 / spreads).min()))
    most = length - matrix.shape[1]
    return Calibration(np.array(factors), np.minimum(np.array(dofs), most))
