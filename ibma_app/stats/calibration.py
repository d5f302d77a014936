"""How often p come up under the null, as a line in their logarithm."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVELS = np.arange(1.0, 12.01, 0.25)
"""-log10 p at which simulated p are counted."""
FEWEST = 100
"""Simulated p that a level needs for its share to be used: it is then known to a tenth."""


def count_beyond(log10_p: Floats) -> Integers:
    """Count the -log10 p (N,) that reach each of `LEVELS`."""
    below = np.searchsorted(np.sort(log10_p), LEVELS, side="left")
    return (log10_p.size - below).astype(np.int64)


def fit_line(counts: Integers, total: int) -> tuple[float, float]:
    """Fit log10(measured / p) = intercept + slope * -log10 p, by least squares over the levels that are known.

    Parameters
    ----------
    counts : ndarray of int
        Of ``total`` simulated p, those that reach each of `LEVELS`.
    total : int

    Returns
    -------
    intercept, slope : float
        Without two levels that are known: the level of the first, and 0; without any: 0 and 0.
    """
    known = counts >= FEWEST
    if not known.any():
        return 0.0, 0.0
    levels, excess = LEVELS[known], np.log10(counts[known] / total) + LEVELS[known]
    if levels.size == 1:
        return float(excess[0]), 0.0
    centred = levels - levels.mean()
    slope = float((centred * excess).sum() / (centred**2).sum())
    return float(excess.mean() - slope * levels.mean()), slope


def calibrate(log10_p: Floats, intercept: float, slope: float) -> Floats:
    """Return calibrated -log10 p: p times what they come up more often than they say, never less than they were."""
    return np.clip((1.0 - slope) * log10_p - intercept, 0.0, np.maximum(log10_p, 0.0))


def uncalibrate(log10_p: float, intercept: float, slope: float) -> float:
    """Return the smallest -log10 p whose calibrated one reaches this one, above 0; the inverse of `calibrate`."""
    return max(log10_p, (log10_p + intercept) / (1.0 - slope)) if slope < 1.0 else math.inf
