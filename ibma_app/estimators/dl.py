"""Mixed effects, tau2 by DerSimonian and Laird's moments."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation
from ibma_app.estimators.mixed import fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with tau2 = (Q - (n - p)) / tr P, at least 0.

    Q and P are those of inverse-variance weights. Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "dl", settings)


ESTIMATOR = record(
    "dl",
    "DerSimonian-Laird (DL)",
    fit,
    Citation(
        "dersimonian1986",
        "DerSimonian R, Laird N",
        1986,
        "Meta-analysis in clinical trials",
        "Controlled Clinical Trials 7, 177-188",
        "10.1016/0197-2456(86)90046-2",
    ),
)
