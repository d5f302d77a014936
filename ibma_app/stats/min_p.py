"""Ranks within a null by resampling: corrected p, and the smallest p of several scores that cannot be compared."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SLACK = 1e-6
"""Relative slack of null >= observed: equal scores stay equal whatever the order of their sums."""


def p_of_null(observed: Floats, maxima: Floats) -> Floats:
    """Return corrected p: the share of the null's maxima that reach each score, the identity's included.

    Parameters
    ----------
    observed : (V,) array
        Scores of the maps as they are.
    maxima : (R,) array
        The largest score of each relabelling.
    """
    rising = np.sort(maxima)
    reached = maxima.size - np.searchsorted(rising, observed - SLACK * np.abs(observed), side="left")
    return np.maximum(reached, 1) / maxima.size


def join_nulls(observed: Sequence[Floats], maxima: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Make one score of several: -log10 of the smallest p, each score ranked within its own null.

    The same relabellings make all nulls, so that the smallest p of each
    relabelling has the null distribution of the smallest p of the maps as they
    are, whatever the dependence of the scores (Tippett's combination; Pesarin
    & Salmaso 2010).

    Parameters
    ----------
    observed : sequence of (V,) arrays
        Each score at every element, not negative; 0 at elements that are not of its kind.
    maxima : sequence of (R,) arrays
        Its largest value in each relabelling, in the same order.

    Returns
    -------
    (V,) array
        The joint score of the maps as they are.
    (R,) array
        Its largest value in each relabelling.
    """
    each = [-np.log10(p_of_null(one, null)) for one, null in zip(observed, maxima, strict=True)]
    most = [-np.log10(p_of_null(null, null)) for null in maxima]
    return np.max(each, axis=0) + 0.0, np.max(most, axis=0) + 0.0  # 0.0: no score of -0
