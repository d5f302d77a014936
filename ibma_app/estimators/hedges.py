"""Mixed effects, tau2 by variance components (Hedges; Cochran)."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.estimators.mixed import fit_mixed_effects, record
from ibma_app.estimators.references import HEDGES_1985


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with tau2 from unweighted residuals less the mean sampling variance, at least 0.

    Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "hedges", settings)


ESTIMATOR = record(
    "hedges",
    "Hedges (HE)",
    fit,
    HEDGES_1985,
)
