"""A GLM on z: a consistent standardised effect, whatever the maps' units."""

from collections.abc import Mapping
from dataclasses import replace

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, SignedSums
from ibma_app.estimators.from_kernels import (
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    sums_of_values,
    test_estimates,
)
from ibma_app.stats.ols import fit_ols


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit a linear model to the maps' z at each voxel; t and F with n - rank dof.

    Of a one-sample design: a one-sample t test on z. There is no effect and no
    variance, since z has no unit. Settings: none.
    """
    check_settings("stouffer-rfx", {}, settings)
    frame = frame_of(design)
    fitted = fit_ols(kind_of(block, "z"), covered_of(block), frame)
    dof = left_dof(fitted.counts)
    tests = test_estimates(design, frame, fitted.tested, dof)
    unitless = {name: replace(test, effect=None, variance=None) for name, test in tests.items()}
    return Estimate(unitless, fitted.counts[0], dof=dof, identical=fitted.identical)


def signed_sums(block: VoxelBlock, design: Design, settings: Mapping[str, str]) -> SignedSums:
    """Return z of the one-sample t as a function of the maps' signs."""
    return sums_of_values(block, "z")


ESTIMATOR = Estimator(
    name="stouffer-rfx",
    title="random-effects GLM on z",
    needs=("z",),
    fit=fit,
    words=(
        Sentence(
            "z values of the maps were taken as data of a general linear model and tested with a t statistic. This "
            "asks whether the standardised evidence is consistent over {units}; units of the effects cancel, and every "
            "map counts alike whatever its size."
        ),
    ),
    weights="equal",
    has_residuals=True,
    relabels="z",
    signed_sums=signed_sums,
    citations=(
        Citation(
            "maumet2016",
            "Maumet C, Nichols TE",
            2016,
            "Minimal data needed for valid and accurate image-based fMRI meta-analysis",
            "bioRxiv 048249",
            "10.1101/048249",
        ),
    ),
)
