"""The tail of a null by a generalised Pareto distribution, for p that are too small to be counted."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIRST = 0.75  # quantile of the null where the tail begins, at first
FEWEST = 20  # exceedances that a tail is fitted to
LEAST_FIT = 0.05  # p of the test of fit (Kolmogorov-Smirnov)


def pareto_tail(observed: Floats, null: Floats) -> Floats:
    """Return upper-tail p by a generalised Pareto tail fitted to a null (Knijnenburg et al. 2009).

    The tail begins at the null's upper quartile; as long as the fit is poor,
    its lowest tenth is left out.

    Parameters
    ----------
    observed : ndarray, shape (N,)
        Scores above most of the null.
    null : ndarray, shape (R,)
        Without the identity.

    Returns
    -------
    ndarray, shape (N,)
        1 where no tail could be fitted, or the score lies below it; never 0.
    """
    from scipy import stats  # takes half a second to import, and few runs need it

    falling = np.sort(null)[::-1]
    n_tail = int((1.0 - FIRST) * falling.size)
    while n_tail >= FEWEST and n_tail < falling.size:
        start = 0.5 * (falling[n_tail - 1] + falling[n_tail])
        excess = falling[:n_tail] - start
        if excess[0] > 0 and excess.std() > 0:
            shape, scale = _by_moments(excess)
            if stats.kstest(excess, "genpareto", args=(shape, 0.0, scale)).pvalue > LEAST_FIT:
                # with a negative shape the tail is bounded; scores beyond get the smallest p of a float32 map
                p = n_tail / falling.size * stats.genpareto.sf(observed - start, shape, 0.0, scale)
                return np.where(observed > start, np.maximum(p, 1e-30), 1.0)
        n_tail = int(0.9 * n_tail)
    return np.ones(observed.shape)


def _by_moments(excess: Floats) -> tuple[float, float]:
    """Return shape (scipy's sign) and scale from mean and variance (Hosking & Wallis 1987)."""
    ratio = float(excess.mean() ** 2 / excess.var())
    return 0.5 * (1.0 - ratio), 0.5 * float(excess.mean()) * (ratio + 1.0)
