"""What holds at all voxels at once, by the largest standardised error of any: bounds of effects, and equivalence."""

import math

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Null
from ibma_app.core.methods import Citation, Setting

Floats = NDArray[np.float64]

BOUNDS = Setting((True, False), "whether effects get simultaneous bounds, which takes another pass of relabelling")

BOWRING_2021 = Citation(
    key="bowring2021",
    authors="Bowring A, Telschow FJE, Schwartzman A, Nichols TE",
    year=2021,
    title="Confidence sets for Cohen's d effect size images",
    source="NeuroImage 226, 117477",
    doi="10.1016/j.neuroimage.2020.117477",
)
TELSCHOW_2022 = Citation(
    key="telschow2022",
    authors="Telschow FJE, Schwartzman A",
    year=2022,
    title="Simultaneous confidence bands for functional data using the Gaussian kinematic formula",
    source="Journal of Statistical Planning and Inference 216, 70-94",
    doi="10.1016/j.jspi.2021.05.008",
)


def draws_of(null: Null, name: str) -> Floats:
    """Return the largest errors of random relabellings, without the identity, in which estimated errors cancel."""
    maxima = null.maxima[name]
    return maxima if null.exhaustive else maxima[1:]


def critical_height(draws: Floats, alpha: float) -> float | None:
    """Return the z that the largest error exceeds with probability alpha at most; None where draws are too few.

    Of D draws it is the one of rank (1 - alpha)(D + 1), rounded up, so that a
    further one exceeds it in no more than alpha of all cases.
    """
    rank = math.ceil((1.0 - alpha) * (draws.size + 1) * (1.0 - 1e-12))
    return float(np.sort(draws)[rank - 1]) if rank <= draws.size else None


def corrected_p(heights: Floats, draws: Floats) -> Floats:
    """Return the share of draws, the data's own counted with them, whose largest error reaches each height, (V,)."""
    rising = np.sort(draws)
    reached = draws.size - np.searchsorted(rising, heights, side="left")
    return np.asarray((reached + 1.0) / (draws.size + 1.0), dtype=np.float64)
