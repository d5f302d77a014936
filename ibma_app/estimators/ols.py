"""Ordinary least squares: a random-effects GLM of effects alone."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator
from ibma_app.estimators.from_kernels import check_settings, covered_of, frame_of, kind_of, left_dof, test_estimates
from ibma_app.stats.ols import fit_ols


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit a linear model at each voxel; t and F with n - rank dof.

    Every map counts the same; the residual variance holds both sampling error
    and true differences (Holmes & Friston 1998).

    Parameters
    ----------
    block : VoxelBlock
        With effect.
    design : Design
    **settings
        None.
    """
    check_settings("ols", {}, settings)
    frame = frame_of(design)
    fitted = fit_ols(kind_of(block, "effect"), covered_of(block), frame)
    dof = left_dof(fitted.counts)
    tests = test_estimates(design, frame, fitted.tested, dof)
    return Estimate(tests, fitted.counts[0], dof=dof, identical=fitted.identical)


ESTIMATOR = Estimator(
    name="ols",
    title="ordinary least squares (random-effects GLM)",
    needs=("effect",),
    fit=fit,
    citations=(
        Citation(
            "holmes1998",
            "Holmes AP, Friston KJ",
            1998,
            "Generalisability, random effects and population inference",
            "NeuroImage 7, S754",
            "10.1016/S1053-8119(18)31587-8",
        ),
    ),
)
