"""From the null that resampling found to corrected p: what the four resampling inferences share."""

import logging
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.inference_facts import Facts, ResamplingFacts, WarningFact
from ibma_app.core.methods import Citation, InferenceSettings, Setting
from ibma_app.inference.decide import check_level, decide, level_facts
from ibma_app.stats.min_p import p_of_null
from ibma_app.stats.pareto import pareto_tail
from ibma_app.stats.tails import p_to_z

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

CONTROLS = "family-wise error rate"
JOINT = "-log10 of the smallest p over kinds"
"""What the score is where structures have sizes of different units: each kind is ranked in its own null."""

TAIL_FIT = Setting((False, True), "p below 1 / R from a generalised Pareto tail fitted to the null")

WINKLER_2014 = Citation(
    key="winkler2014",
    authors="Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE",
    year=2014,
    title="Permutation inference for the general linear model",
    source="NeuroImage 92, 381-397",
    doi="10.1016/j.neuroimage.2014.01.060",
)

NICHOLS_2002 = Citation(
    key="nichols2002",
    authors="Nichols TE, Holmes AP",
    year=2002,
    title="Nonparametric permutation tests for functional neuroimaging: a primer with examples",
    source="Human Brain Mapping 15(1), 1-25",
    doi="10.1002/hbm.1058",
)


def cluster_forming_z(settings: InferenceSettings, tail: str) -> float:
    """Return the z of ``--cluster-p``, half of it in each tail when two-sided.

    Raises
    ------
    UsageError
        When it is not between 0 and 1, or so large that every voxel of a sign would pass.
    """
    level = check_level(settings.cluster_p, "--cluster-p")
    z = float(p_to_z(level / 2 if tail == "two-sided" else level))
    if z <= 0.0:
        msg = f"--cluster-p is {level:g}, but clusters are of voxels with p below 0.5. The usual is 0.001."
        raise UsageError(msg)
    return z


def decide_by_null(
    name: str,
    field: Field,
    null: Null | None,
    settings: InferenceSettings,
    own: tuple[Facts, ...] = (),
    score_units: str = "",
    score_label: str = "",
) -> Significance:
    """Correct p by the null of one score, and decide.

    Parameters
    ----------
    name : str
        The inference.
    field : Field
        One test over the mask, V voxels.
    null : Null
    settings : InferenceSettings
        ``alpha``; of its options ``tail_fit``.
    own : tuple
        What the inference states of its score.
    score_units : str
    score_label : str
        The axis of the null's picture, where it is not that of the inference's record.

    Returns
    -------
    Significance

    Raises
    ------
    UsageError
        When ``alpha`` is not between 0 and 1.
    """
    alpha = check_level(settings.alpha)
    if null is None:
        raise ValueError(f"The inference {name} needs the null of resampling.")
    observed, maxima = null.observed[name], null.maxima[name]
    p = p_of_null(observed, maxima)
    joint, smallest_p = name in null.kinds, null.smallest_p(name)
    # joint scores are of ranks, which have no tail
    fitted = bool(settings.options.get("tail_fit", False)) and not null.exhaustive and not joint
    if fitted:
        # only where counting ends: elsewhere the counts are exact
        beyond = p <= smallest_p
        p[beyond] = np.minimum(p[beyond], pareto_tail(observed[beyond], maxima[1:]))
    found = decide(field, -np.log10(p[field.estimable]), alpha, CONTROLS)
    resampling = ResamplingFacts(
        resamples=null.resamples,
        exhaustive=null.exhaustive,
        relabelling=null.relabelling,
        smallest_p=smallest_p,
        score_threshold=_threshold(maxima, alpha),
        score_units=JOINT if joint else score_units,
        score_label=f"Joint score of {name}: {JOINT}" if joint else score_label,
        seed=null.seed,
        joint=joint,
        tail_fitted=fitted,
    )
    facts = (level_facts(field, alpha, CONTROLS), resampling, *own)
    if smallest_p > alpha and not fitted:
        warning = WarningFact(_too_few(null, name, alpha))
        facts = (*facts, warning)
        log.warning("%s: %s", name, warning.text)
    return replace(found, facts=facts)


def _threshold(maxima: Floats, alpha: float) -> float | None:
    """Return the score that a significant one exceeds; None when none can."""
    allowed = math.floor(alpha * maxima.size * (1.0 + 1e-12))
    if allowed < 1:
        return None
    falling = np.sort(maxima)[::-1]
    return float(falling[allowed]) if allowed < maxima.size else 0.0


def _too_few(null: Null, name: str, alpha: float) -> str:
    """Explain why nothing can be significant, or next to nothing."""
    remedy = "more maps are needed" if null.exhaustive else "--permutations must be larger"
    kinds = "all distinct relabellings" if null.exhaustive else "relabellings"
    apart = null.kinds.get(name, 1)
    if apart > 1:
        kinds += f" and {apart} kinds of structures, each ranked in its own null,"
    # with kinds, p is smaller where the same relabelling has the largest score of each
    lost = "nothing" if null.smallest_p() > alpha else "an effect in one kind alone seldom"
    return (
        f"with {null.resamples} {kinds} the smallest p that can be reached is {null.smallest_p(name):.3g}, above "
        f"--alpha {alpha:g}: {lost} can be significant, {remedy}."
    )
