"""Mixed effects, tau2 by Paule and Mandel."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation
from ibma_app.estimators.mixed import fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with the tau2 that makes Q(tau2) its expectation, n - p.

    0 where Q(0) is smaller already. Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "paule-mandel", settings)


ESTIMATOR = record(
    "paule-mandel",
    "Paule-Mandel (PM)",
    fit,
    Citation(
        "paule1982",
        "Paule RC, Mandel J",
        1982,
        "Consensus values and weighting factors",
        "Journal of Research of the National Bureau of Standards 87, 377-385",
        "10.6028/jres.087.022",
    ),
)
