"""Mixed effects, tau2 by Morris' empirical Bayes."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation
from ibma_app.estimators.mixed import fit_mixed_effects, record


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit mixed effects with Morris' empirical Bayes tau2.

    Its equation has the root of Paule and Mandel's; both names are in use.
    Settings: ``test``, ``tau2_ci``.
    """
    return fit_mixed_effects(block, design, "empirical-bayes", settings)


ESTIMATOR = record(
    "empirical-bayes",
    "empirical Bayes (EB)",
    fit,
    Citation(
        "morris1983",
        "Morris CN",
        1983,
        "Parametric empirical Bayes inference: theory and applications",
        "Journal of the American Statistical Association 78, 47-55",
        "10.1080/01621459.1983.10477920",
    ),
)
