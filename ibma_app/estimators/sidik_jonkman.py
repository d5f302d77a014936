"""Mixed effects, tau2 by Sidik and Jonkman's model error variance."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation
from ibma_app.estimators.mixed import fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with Sidik and Jonkman's tau2, started from the variance of the effects.

    It is positive unless effects are identical. Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "sidik-jonkman", settings)


ESTIMATOR = record(
    "sidik-jonkman",
    "Sidik-Jonkman (SJ)",
    fit,
    Citation(
        "sidik2005",
        "Sidik K, Jonkman JN",
        2005,
        "A note on variance estimation in random effects meta-regression",
        "Journal of Biopharmaceutical Statistics 15, 823-838",
        "10.1081/BIP-200067915",
    ),
)
