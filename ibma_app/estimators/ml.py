"""Mixed effects, tau2 by maximum likelihood."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation
from ibma_app.estimators.mixed import fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with the tau2 of the largest likelihood.

    tau2 is biased downwards with few maps; REML is not. The optimum is the global one.
    Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "ml", settings)


ESTIMATOR = record(
    "ml",
    "maximum likelihood (ML)",
    fit,
    Citation(
        "hardy1996",
        "Hardy RJ, Thompson SG",
        1996,
        "A likelihood approach to meta-analysis with random effects",
        "Statistics in Medicine 15, 619-629",
        "10.1002/(SICI)1097-0258(19960330)15:6<619::AID-SIM188>3.0.CO;2-A",
    ),
)
