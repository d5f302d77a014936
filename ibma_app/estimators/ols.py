"""Ordinary least squares: a random-effects GLM of effects alone."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting
from ibma_app.estimators.from_kernels import (
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    own_dof_estimates,
    test_estimates,
)
from ibma_app.stats.ols import fit_ols
from ibma_app.stats.sandwich import complete_dof, fit_sandwich

_SETTINGS = {
    "errors": Setting(
        ("pooled", "sandwich"),
        "pooled: one variance, n - rank dof; sandwich: cluster-robust (CR2), Satterthwaite's dof for each test",
        "Errors",
        {"pooled": "one variance for all maps", "sandwich": "cluster-robust (CR2)"},
    ),
}


def clusters_of(design: Design, settings: Mapping[str, str]) -> NDArray[np.int64] | None:
    """Return the cluster of each map, (K,), each alone where the design has none; None where errors are pooled."""
    if check_settings("ols", _SETTINGS, settings)["errors"] == "pooled":
        return None
    return np.arange(len(design.matrix)) if design.clusters is None else design.clusters


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit a linear model at each voxel.

    Every map counts the same; the residual variance holds both sampling error
    and true differences (Holmes & Friston 1998). With a sandwich, maps may
    differ in variance and those of one cluster may depend on each other: the
    covariance is CR2, t and F have Satterthwaite's dof (Bell & McCaffrey 2002;
    Pustejovsky & Tipton 2018).

    Parameters
    ----------
    block : VoxelBlock
        With effect.
    design : Design
        Without clusters each map is one of its own.
    **settings
        ``errors`` "pooled" or "sandwich".
    """
    clusters = clusters_of(design, settings)
    frame = frame_of(design)
    effect, covered = kind_of(block, "effect"), covered_of(block)
    if clusters is None:
        fitted = fit_ols(effect, covered, frame)
        dof = left_dof(fitted.counts)
        tests = test_estimates(design, frame, fitted.tested, dof)
        return Estimate(tests, fitted.counts[0], dof=dof, identical=fitted.identical)
    robust = fit_sandwich(effect, covered, frame, clusters)
    tests = own_dof_estimates(design, frame, robust.tested, robust.dof, complete_dof(frame, clusters))
    return Estimate(tests, robust.counts[0], identical=robust.identical)


ESTIMATOR = Estimator(
    name="ols",
    title="ordinary least squares (random-effects GLM)",
    needs=("effect",),
    fit=fit,
    words=(
        Sentence(
            "A random-effects general linear model was fitted to the effect maps by ordinary least squares; sampling "
            "variances were not used and the {units} are weighted alike."
        ),
        Sentence(
            "t and F have as residual dof the number of maps at the voxel minus the rank of the design.",
            when={"errors": "pooled"},
        ),
        Sentence(
            "Standard errors are cluster-robust (CR2), tested with t and F on Satterthwaite's dof of each test (Bell "
            "and McCaffrey 2002; Pustejovsky and Tipton 2018).",
            when={"errors": "sandwich"},
        ),
    ),
    takes_repeated=True,
    weights="equal",
    has_residuals=True,
    relabels="effect",
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
    settings=_SETTINGS,
    clusters=clusters_of,
)
