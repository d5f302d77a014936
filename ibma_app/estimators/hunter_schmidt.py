"""Mixed effects, tau2 by Hunter and Schmidt."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation
from ibma_app.estimators.mixed import VIECHTBAUER_2005, fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with tau2 = (Q - n) / sum of inverse variances, at least 0.

    metafor's HS, without the small-sample correction of HSk. Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "hunter-schmidt", settings)


ESTIMATOR = record(
    "hunter-schmidt",
    "Hunter-Schmidt (HS)",
    fit,
    Citation(
        "hunter2004",
        "Hunter JE, Schmidt FL",
        2004,
        "Methods of meta-analysis: correcting error and bias in research findings",
        "2nd edition, Sage, Thousand Oaks",
        "",
    ),
    VIECHTBAUER_2005,
)
