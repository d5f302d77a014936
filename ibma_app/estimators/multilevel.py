"""Multilevel meta-analysis: sampling variances, a variance between clusters and one between their maps."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting
from ibma_app.estimators.from_kernels import (
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    own_dof_estimates,
)
from ibma_app.estimators.mixed import prediction_interval
from ibma_app.estimators.references import BELL_2002, PUSTEJOVSKY_2018
from ibma_app.stats.multilevel_fit import I2_BETWEEN, I2_WITHIN, OMEGA2, TAU2, Q, complete_dof, fit_multilevel
from ibma_app.stats.multilevel_sandwich import test_robustly
from ibma_app.stats.sandwich import complete_tests
from ibma_app.stats.tails import chi2_to_log10p

FEW_CLUSTERS, SOME_CLUSTERS = 20, 40
"""Below, tests find a little more than they say; in between, those of covariates (docs/validation-dependent.md)."""

_SETTINGS = {
    "errors": Setting(
        ("model", "sandwich"),
        "model: as the two variances say, t and F with as many dof as there are clusters more than columns; sandwich: "
        "cluster-robust (CR2), right too where the correlation within clusters is another, Satterthwaite's dof",
        "Errors",
        {"model": "of the model, cluster dof", "sandwich": "cluster-robust (CR2)"},
    ),
}


def clusters_of(design: Design, settings: Mapping[str, str]) -> NDArray[np.int64]:
    """Return the cluster of each map, (K,); each its own where the design has none."""
    check_settings("multilevel", _SETTINGS, settings)
    return np.arange(len(design.matrix), dtype=np.int64) if design.clusters is None else design.clusters


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse tests that rest on too few clusters; say where there is nothing for two levels.

    Raises
    ------
    DataError
        A test without degrees of freedom, or without a cluster-robust error; a column of exchangeability that parts
        clusters.
    """
    clusters, frame = clusters_of(design, settings), frame_of(design)
    count, plural = np.unique(clusters).size, design.cluster_plural
    if design.exchangeability is not None:
        pairs = np.unique(np.column_stack([clusters, design.exchangeability]), axis=0)
        if len(pairs) > count:
            raise DataError(
                f"The column exchangeability parts the maps of one {design.cluster_noun}. With multilevel all maps of "
                f"one {design.cluster_noun} go together when maps are relabelled: give them one label, or leave the "
                "column out."
            )
    robust = complete_tests(frame, clusters)[0]
    for c, (test, dof) in enumerate(zip(design.tests, complete_dof(frame, clusters), strict=True)):
        if settings["errors"] == "sandwich" and not robust.estimable[c]:
            raise DataError(
                f"The test {test.name!r} has no cluster-robust error with {count} independent {plural}: it rests on "
                "what one of them alone has, or has too many rows. Leave errors under [estimator.multilevel] at "
                '"model", or take columns out of --formula.'
            )
        if settings["errors"] == "model" and dof <= 0:
            raise DataError(
                f"The test {test.name!r} has no degrees of freedom: {count} independent {plural} are not more than the "
                f"{design.matrix.shape[1]} column(s) of --formula {design.formula!r}. Take columns out of it, or bring "
                f"more {plural}."
            )
    if count < len(clusters):
        return (*_words_on_one(clusters, design), *_words_on_few(design, settings, count))
    return (
        "multilevel: every cluster has one map, so that omega2 cannot be told from tau2 (it is 0, and tau2 has both); "
        "clusters of several maps are named by a column cluster of participants.tsv or studies.tsv.",
    )


def _words_on_one(clusters: NDArray[np.int64], design: Design) -> tuple[str, ...]:
    """Warn where a single cluster has several maps: what varies within clusters is known from it alone."""
    sizes = np.bincount(clusters)
    if np.count_nonzero(sizes > 1) != 1:
        return ()
    largest = int(sizes.argmax())
    named = f" ({design.cluster_labels[int(np.argmax(clusters == largest))]})" if design.cluster_labels else ""
    return (
        f"multilevel: one {design.cluster_noun} alone{named} has several maps, {int(sizes.max())}. How the variance is "
        "split into omega2 (within) and tau2 (between) rests on these maps, and so do weights and standard errors.",
    )


def _words_on_few(design: Design, settings: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Warn of few clusters, with what was measured with 12 and with 30 (docs/validation-dependent.md)."""
    robust, covariates = settings["errors"] == "sandwich", design.matrix.shape[1] > 1
    if FEW_CLUSTERS <= count < SOME_CLUSTERS and covariates and not robust:
        return (
            f"multilevel estimates its two variances from {count} {design.cluster_plural}: with 30 clusters, whose "
            "maps share half of their sampling errors, and nothing there, 5.6 of 100 voxels had p < .05 in the test of "
            "a covariate of maps (other tests: up to 5.4).",
        )
    if count >= FEW_CLUSTERS:
        return ()
    measured = f"up to {'5.7' if robust else '5.6'} of 100 voxels had p < .05 in the test of the mean"
    if covariates and not robust:
        measured += (
            ', 6.4 in tests of covariates. With errors = "sandwich" under [estimator.multilevel] those err on the safe '
            "side (3.4)"
        )
    return (
        f"multilevel estimates its two variances from {count} {design.cluster_plural}: they are hardly known, and p "
        f"come out a little too small. With 12 clusters and nothing there, {measured}.",
    )


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit a multilevel model at each voxel, as metafor's ``rma.mv(yi, vi, random = ~ 1 | cluster/map)`` by REML.

    An effect is the sum of the design's, one of its cluster (variance tau2), one of
    its own (omega2) and a sampling error whose variance is known (Konstantopoulos 2011).

    Parameters
    ----------
    block : VoxelBlock
        With effect and variance.
    design : Design
        Its ``clusters`` share an effect; without clusters each map is one of its own.
    **settings
        ``errors`` "model" or "sandwich".
    """
    chosen = check_settings("multilevel", _SETTINGS, settings)
    clusters, frame = clusters_of(design, chosen), frame_of(design)
    maps = kind_of(block, "effect"), kind_of(block, "variance"), covered_of(block)
    fitted = fit_multilevel(*maps, frame, clusters)
    robust = chosen["errors"] == "sandwich"
    if robust:
        test_robustly(*maps, frame, clusters, fitted)
    frequent = complete_dof(frame, clusters) if not robust else np.zeros(len(design.tests))
    tests = own_dof_estimates(design, frame, fitted.tested, fitted.dof, frequent)
    tau2, omega2, left = fitted.summary[TAU2], fitted.summary[OMEGA2], left_dof(fitted.counts)
    pilower, piupper = None, None
    if design.one_sample and design.tests and not bool(frame.upper[0]):
        weight = float(np.atleast_2d(design.tests[0].weights)[0, 0])
        effect, variance, _ = fitted.tested.values[0]
        pilower, piupper = prediction_interval(
            effect / weight, variance / weight**2, np.where(fitted.dof[0] > 0.0, tau2 + omega2, 0.0), fitted.dof[0]
        )
    return Estimate(
        tests,
        fitted.counts[0],
        tau2=tau2,
        omega2=omega2,
        q=fitted.summary[Q],
        q_log10p=chi2_to_log10p(fitted.summary[Q], left),
        i2=fitted.summary[I2_BETWEEN] + fitted.summary[I2_WITHIN],
        i2_between=fitted.summary[I2_BETWEEN],
        i2_within=fitted.summary[I2_WITHIN],
        pilower=pilower,
        piupper=piupper,
    )


ESTIMATOR = Estimator(
    name="multilevel",
    title="multilevel mixed effects (REML), maps within clusters",
    needs=("effect", "variance"),
    fit=fit,
    words=(
        Sentence(
            "A multilevel meta-analysis was fitted to effects and their sampling variances by restricted maximum "
            "likelihood: beside its sampling error each map has a deviation of its own (variance omega2), and maps of "
            "one cluster share another (variance tau2; Konstantopoulos 2011). The sampling errors of maps of one "
            "cluster are taken as independent; that they are not goes into tau2."
        ),
        Sentence(
            "t and F have as dof the number of clusters at the voxel minus the rank of the design; of tests within "
            "clusters, the number of maps minus that of clusters and of columns that vary within them.",
            when={"errors": "model"},
        ),
        Sentence(
            "Standard errors are cluster-robust (CR2, the fitted model being the working model), tested with t and F "
            "on Satterthwaite's dof of each test and voxel (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018).",
            when={"errors": "sandwich"},
        ),
    ),
    takes_repeated=True,
    models_clusters=True,
    gives=("tau2", "omega2", "q", "i2", "prediction"),
    clusters=clusters_of,
    check=check,
    settings=_SETTINGS,
    citations=(
        Citation(
            "konstantopoulos2011",
            "Konstantopoulos S",
            2011,
            "Fixed effects and variance components estimation in three-level meta-analysis",
            "Research Synthesis Methods 2(1), 61-76",
            "10.1002/jrsm.35",
        ),
        BELL_2002,
        PUSTEJOVSKY_2018,
    ),
)
