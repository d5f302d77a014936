"""Ordinary least squares: a random-effects GLM of effects alone."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting, SignedSums
from ibma_app.estimators.from_kernels import (
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    own_dof_estimates,
    sums_of_values,
    test_estimates,
)
from ibma_app.estimators.references import BELL_2002, PUSTEJOVSKY_2018
from ibma_app.stats.ols import fit_ols
from ibma_app.stats.partition import spans_labels, unit_indicators
from ibma_app.stats.sandwich import complete_tests, fit_sandwich


def default_errors(design: Design) -> str:
    """Return the errors of a design where none are set: robust where clusters have several maps."""
    return "sandwich" if design.dependent else "pooled"


_SETTINGS = {
    "errors": Setting(
        ("sandwich", "pooled"),
        "sandwich: cluster-robust (CR2), Satterthwaite's dof for each test, the default of repeated measures; pooled: "
        "one variance for all maps, n - rank dof, the default elsewhere",
        "Errors",
        {"pooled": "one variance for all maps", "sandwich": "cluster-robust (CR2)"},
        of_design=default_errors,
    ),
}


def clusters_of(design: Design, settings: Mapping[str, str]) -> NDArray[np.int64] | None:
    """Return the cluster of each map, (K,), each alone where the design has none; None where errors are pooled."""
    if check_settings("ols", _SETTINGS, settings, design)["errors"] == "pooled":
        return None
    return np.arange(len(design.matrix)) if design.clusters is None else design.clusters


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse tests that have no error under these settings; warn of what pooling takes for granted.

    Raises
    ------
    DataError
        Repeated measures with a pooled error, and a test that is not within
        clusters; a cluster-robust error, and a test of what the design takes
        up whole of a cluster, or of more rows than clusters can tell; a
        column of exchangeability that parts clusters.
    """
    clusters = clusters_of(design, settings)
    if clusters is None:
        return _check_pooled(design) if design.dependent else ()
    _check_exchangeability(design, clusters)
    complete, _ = complete_tests(frame_of(design), clusters)
    for test, taken, estimable in zip(design.tests, complete.taken, complete.estimable, strict=True):
        if taken:
            raise DataError(_taken_words(design, test))
        if not estimable:
            raise DataError(
                f"The F test {test.name!r} has {len(test.weights)} rows, too many for an error that is estimated from "
                f"{design.n_clusters} independent {design.cluster_plural}. Test fewer rows at once."
            )
    if design.repeated or not design.dependent:
        return ()
    return (
        f"Maps of one {design.cluster_noun} are taken to depend on each other: there are {design.n_clusters} "
        f"{design.cluster_plural}, by the column {design.cluster_name!r}.",
    )


def _check_exchangeability(design: Design, clusters: NDArray[np.int64]) -> None:
    if design.exchangeability is None or not design.dependent:
        return
    pairs = np.unique(np.column_stack([clusters, design.exchangeability]), axis=0)
    if len(pairs) > design.n_clusters:
        noun = design.cluster_noun
        raise DataError(
            f"The column exchangeability parts the maps of one {noun}. With the cluster-robust error of repeated "
            f"measures all maps of one {noun} go together when maps are relabelled: give them one label, or set "
            'errors = "pooled" under [estimator.ols].'
        )


def _taken_words(design: Design, test: Test) -> str:
    """Say why a test has no cluster-robust error."""
    noun = design.cluster_noun
    if design.dependent and design.clusters is not None and spans_labels(design.matrix, design.clusters):
        return (
            f"The test {test.name!r} compares one {noun} with another or with 0, and --formula {design.formula!r} has "
            f"a column for each {noun}, which leaves nothing to estimate the error of that from. Leave "
            f"C({design.cluster_name}) out of the formula: the error is cluster-robust without it."
        )
    return (
        f"The test {test.name!r} rests on what one {noun} alone has in --formula {design.formula!r}: nothing is left "
        "to estimate its error from. Leave that column out, or test another one."
    )


def _check_pooled(design: Design) -> tuple[str, ...]:
    """Refuse tests whose error term the residuals of repeated measures are not.

    A test's estimate is a sum over maps, with weights ``a = X (X'X)^-1 c``.
    What all maps of a cluster share cancels when ``a`` sums to zero over each
    cluster's maps: the test is within clusters. The residuals hold no
    variance between clusters when the design spans their indicators.
    """
    assert design.clusters is not None
    name, noun = design.cluster_name, design.cluster_noun
    leave = 'leave errors under [estimator.ols] at "sandwich", the default of repeated measures'
    if not spans_labels(design.matrix, design.clusters):
        raise DataError(
            f'There are several maps of one {noun}: with errors = "pooled", --formula {design.formula!r} needs a '
            f"column for each {noun}. Add '+ C({name})', or {leave}."
        )
    basis, triangle = np.linalg.qr(design.matrix)
    indicators = unit_indicators(design.clusters)
    for test in design.tests:
        weights = basis @ np.linalg.solve(triangle.T, np.atleast_2d(test.weights).T)
        if np.abs(indicators.T @ weights).max() > 1e-8 * np.abs(weights).max():
            raise DataError(
                f'The test {test.name!r} compares one {noun} with another or with 0. With errors = "pooled" and '
                f"several maps of one {noun}, only tests within each {noun} are possible. Name another test; or "
                f"{leave}, and C({name}) out of the formula."
            )
    return (
        f'errors = "pooled" with several maps of one {noun} assumes sphericity: that all differences between '
        "conditions vary alike. Where they do not, p values are too small (19 % below .05 were measured where nothing "
        'was there). errors = "sandwich", the default of repeated measures, does not assume it.',
    )


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
        ``errors`` "sandwich" or "pooled"; by default the first where clusters have several maps.
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
    tests = own_dof_estimates(design, frame, robust.tested, robust.dof, complete_tests(frame, clusters)[0].dof)
    return Estimate(tests, robust.counts[0], identical=robust.identical)


def one_variance(design: Design, settings: Mapping[str, str]) -> bool:
    """Return whether errors are pooled."""
    return clusters_of(design, settings) is None


def signed_sums(block: VoxelBlock, design: Design, settings: Mapping[str, str]) -> SignedSums:
    """Return z of the one-sample t as a function of the maps' signs."""
    return sums_of_values(block, "effect")


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
    signed_sums=signed_sums,
    one_variance=one_variance,
    citations=(
        Citation(
            "holmes1998",
            "Holmes AP, Friston KJ",
            1998,
            "Generalisability, random effects and population inference",
            "NeuroImage 7, S754",
            "10.1016/S1053-8119(18)31587-8",
        ),
        BELL_2002,
        PUSTEJOVSKY_2018,
    ),
    settings=_SETTINGS,
    check=check,
    clusters=clusters_of,
    if_groups_differ='errors = "sandwich"',
)
