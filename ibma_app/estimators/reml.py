"""Mixed effects, tau2 by restricted maximum likelihood."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.estimators.mixed import VIECHTBAUER_2005, fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with the tau2 of the largest restricted likelihood.

    The optimum is the global one, also when the likelihood has two (see stats/likelihood.py).
    Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "reml", settings)


ESTIMATOR = record(
    "reml",
    "restricted maximum likelihood (REML)",
    fit,
    VIECHTBAUER_2005,
)
