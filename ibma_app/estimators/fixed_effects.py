"""Fixed effects: inverse-variance weights."""

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting
from ibma_app.estimators.from_kernels import (
    Floats,
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    test_estimates,
)
from ibma_app.stats.mixed import fit_fixed
from ibma_app.stats.tails import chi2_to_log10p

_SETTINGS = {
    "test": Setting(
        ("z", "t"),
        "z: variances are known; t: the maps' dof are summed (participant level)",
        "Test",
        {"z": "z, standard errors not rescaled", "t": "t, standard errors not rescaled"},
    ),
    "weights": Setting(
        ("variance", "equal"),
        "inverse variances, or a plain mean with propagated variance",
        "Weights",
        {"variance": "inverse variances", "equal": "equal"},
    ),
}

_OF_THESE_ONLY = "One true effect for all is assumed: the result speaks of these {units} only, not of others like them."
_WORDS = (
    Sentence(
        "Maps were combined by precision-weighted fixed effects: the effect is the mean of the maps' effects weighted "
        "by the inverse of their sampling variances, its variance is the inverse of the summed weights, and t, their "
        "ratio, has the sum of the dof of the maps that cover the voxel.",
        "participant",
        {"weights": "variance"},
    ),
    Sentence(
        "Each map was weighted by the inverse of its sampling variance, and the weighted mean (or regression) was "
        f"tested with a z statistic. {_OF_THESE_ONLY}",
        "group",
        {"weights": "variance", "test": "z"},
    ),
    Sentence(
        "Each map was weighted by the inverse of its sampling variance, and the weighted mean (or regression) was "
        "tested with t and F statistics, with the sum of the dof of the maps that cover the voxel. "
        f"{_OF_THESE_ONLY}",
        "group",
        {"weights": "variance", "test": "t"},
    ),
    Sentence(
        "The effect is the plain mean of the maps' effects; its variance is propagated from their sampling variances.",
        when={"weights": "equal"},
    ),
    Sentence("Its ratio to its standard error was tested as z.", when={"weights": "equal", "test": "z"}),
    Sentence(
        "Its ratio to its standard error was tested as t, with the sum of the dof of the maps that cover the voxel.",
        when={"weights": "equal", "test": "t"},
    ),
)


def summed_dof(block: VoxelBlock) -> Floats:
    """Return the summed dof of each voxel's maps, (B,); infinite where one is unknown."""
    covered = covered_of(block)
    if block.dof is None:
        return np.where(covered.any(axis=0), np.inf, 0.0)
    dof = np.where(covered, np.broadcast_to(block.dof, covered.shape), 0.0)
    total = np.zeros(covered.shape[1])
    for one in dof:  # map after map: the same bits for one voxel as for many
        total += one
    return total


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit fixed effects at each voxel (metafor's FE; Hedges & Olkin 1985, chapter 6).

    Parameters
    ----------
    block : VoxelBlock
        With effect and variance; with dof for ``test="t"``.
    design : Design
    **settings
        ``test`` "z" or "t", ``weights`` "variance" or "equal".

    Returns
    -------
    Estimate
        A single map passes through: its effect and its variance.
    """
    chosen = check_settings("fixed-effects", _SETTINGS, settings)
    frame = frame_of(design)
    equal = "yes" if chosen["weights"] == "equal" else "no"
    fitted = fit_fixed(kind_of(block, "effect"), kind_of(block, "variance"), covered_of(block), frame, equal)
    dof = summed_dof(block) if chosen["test"] == "t" else None
    if dof is not None:
        fitted.tested.estimable[:, dof <= 0] = False
        fitted.tested.values[:, :, dof <= 0] = 0.0
    _, q, i2, h2 = fitted.summary
    return Estimate(
        test_estimates(design, frame, fitted.tested, dof),
        fitted.counts[0],
        dof=dof,
        q=q,
        q_log10p=chi2_to_log10p(q, left_dof(fitted.counts)),
        i2=i2,
        h2=h2,
    )


ESTIMATOR = Estimator(
    name="fixed-effects",
    title="fixed effects with inverse-variance weights",
    needs=("effect", "variance"),
    fit=fit,
    words=_WORDS,
    caveat="fixed-effects speaks of these maps only, not of the population they come from.",
    gives=("q", "i2", "h2"),
    weights="variance",
    has_residuals=True,
    citations=(
        Citation(
            "hedges1985",
            "Hedges LV, Olkin I",
            1985,
            "Statistical methods for meta-analysis",
            "Academic Press, Orlando",
        ),
    ),
    settings=_SETTINGS,
)
