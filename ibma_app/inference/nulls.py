"""The null that resampling found, told in a few numbers: for the page, which does not keep thousands."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ibma_app.core.estimate import Null
from ibma_app.core.results import NullShape
from ibma_app.inference.resampled import SLACK, p_of_null

BINS = 60


def summarise_null(null: Null, name: str, facts: Mapping[str, Any]) -> NullShape:
    """Count the relabellings' largest scores in equal bins, beside the observed one.

    Where the observed score is the largest, the bins end at the largest that
    is smaller (the identity and its mirror image are then in no bin), so that
    a score far out does not squeeze the null into one bin.

    Parameters
    ----------
    null : Null
    name : str
        The inference, whose score is told.
    facts : mapping
        Of its Significance, with ``ScoreThreshold``.

    Returns
    -------
    NullShape
    """
    maxima = null.maxima[name]
    observed = float(null.observed[name].max(initial=0.0))
    p = p_of_null(np.array([observed]), maxima)[0]
    below = maxima[maxima < observed - SLACK * abs(observed)]
    tops = maxima > observed + SLACK * abs(observed)
    shown = maxima if tops.any() or not below.size else below
    low, high = float(shown.min()), float(shown.max())
    counts, edges = np.histogram(shown, bins=BINS, range=(low, high) if high > low else (low - 0.5, low + 0.5))
    return NullShape(
        low=float(edges[0]),
        high=float(edges[-1]),
        counts=tuple(counts.tolist()),
        observed=observed,
        reached=int(np.rint(p * null.resamples)),
        resamples=null.resamples,
        threshold=facts.get("ScoreThreshold"),
    )
