"""The null that resampling found, in a few numbers: for the page, which does not keep thousands."""

import numpy as np

from ibma_app.core.estimate import Null
from ibma_app.core.results import NullShape
from ibma_app.stats.min_p import p_of_null

BINS = 60
UPPER, STRETCH = 0.95, 3.0  # the tail is cut at three times its upper five percent


def summarise_null(null: Null, name: str, threshold: float | None = None) -> NullShape:
    """Count the relabellings' largest scores in equal bins, beside the observed one.

    The bins end where the null's tail runs on to more than three times its
    upper five percent, so that a few scores far out do not squeeze the rest
    into one bin: those scores, often the observed, are in none.

    Parameters
    ----------
    null : Null
    name : str
        The inference whose score is summarised.
    threshold : float, optional
        What a significant score exceeds; None: none can.

    Returns
    -------
    NullShape
    """
    maxima = null.maxima[name]
    observed = float(null.observed[name].max(initial=0.0))
    p = p_of_null(np.array([observed]), maxima)[0]
    least, upper = float(maxima.min()), float(np.quantile(maxima, UPPER))
    shown = maxima[maxima <= least + STRETCH * (upper - least)] if upper > least else maxima
    low, high = float(shown.min()), float(shown.max())
    counts, edges = np.histogram(shown, bins=BINS, range=(low, high) if high > low else (low - 0.5, low + 0.5))
    return NullShape(
        low=float(edges[0]),
        high=float(edges[-1]),
        counts=tuple(counts.tolist()),
        observed=observed,
        reached=int(np.rint(p * null.resamples)),
        resamples=null.resamples,
        threshold=threshold,
    )
