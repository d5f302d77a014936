"""Linear mixed models with a random intercept for each unit: repeated measures, within and between units."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, noun_of, plural_of
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate
from ibma_app.core.inference_facts import Fact, WarningFact
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting
from ibma_app.estimators.from_kernels import (
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    own_dof_estimates,
)
from ibma_app.estimators.references import BELL_2002, KENWARD_1997, PUSTEJOVSKY_2018
from ibma_app.stats.basis import Frame
from ibma_app.stats.intercept_fit import InterceptFit, count_within_and_between, fit_random_intercept
from ibma_app.stats.intercept_flips import bound_flips
from ibma_app.stats.multilevel_fit import MultilevelFit
from ibma_app.stats.multilevel_sandwich import test_robustly
from ibma_app.stats.sandwich import complete_tests

KENWARD_ROGER, SANDWICH = "kenward-roger", "sandwich"
FEW_BETWEEN = 5
FEW_UNITS = 60
"""Fewer, of which some lack maps, and Satterthwaite's dof are rough (docs/validation-dependent.md)."""
MOSTLY = 1 / 3
"""Share of voxels without variance between units from which tests are warned of; with an icc of 0 it is a half."""

_SETTINGS = {
    "dof": Setting(
        ("satterthwaite", KENWARD_ROGER),
        "satterthwaite: t and F with Satterthwaite's dof of each test, as lmerTest; kenward-roger: with Kenward and "
        "Roger's larger standard errors, their dof and scaled F, as pbkrtest, for few participants and missing visits",
        "Degrees of freedom",
        {"satterthwaite": "Satterthwaite's", KENWARD_ROGER: "Kenward and Roger's, with their standard errors"},
    ),
    "errors": Setting(
        ("model", SANDWICH),
        "model: as the two variances say; sandwich: cluster-robust (CR2) with Satterthwaite's dof, near 5 % with few "
        "participants, missing visits and maps that hardly correlate, and right where the model is not; slow",
        "Errors",
        {"model": "of the model", SANDWICH: "cluster-robust (CR2)"},
    ),
}

_FAR_TAIL = {
    "satterthwaite": (
        "p of these degrees of freedom are too small far out in the tail with few participants (something was found at "
        "0.05 in up to 31 of 100 data sets without any effect with 12 participants, 14 with 20 and 11 with 40): use an "
        'inference that resamples, dof = "kenward-roger" (up to 9), or errors = "sandwich"'
    ),
    KENWARD_ROGER: (
        "p of tests within few participants are a little too small far out in the tail (something was found at 0.05 in "
        "up to 9 of 100 data sets without any effect with 12 to 40 participants): use an inference that resamples, or "
        'errors = "sandwich" in place of this'
    ),
}
"""What was measured in 2,000 independent voxels (docs/validation-dependent.md), by the setting ``dof``."""


def units_of(design: Design, settings: Mapping[str, str]) -> NDArray[np.int64]:
    """Return the unit of each map, (K,); each its own where the design has none."""
    check_settings("random-intercept", _SETTINGS, settings)
    return np.arange(len(design.matrix), dtype=np.int64) if design.units is None else design.units


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse designs whose variances cannot be told apart; warn of few units.

    Raises
    ------
    DataError
        One map for each unit; a design that has a column for each unit, or that takes up all that varies within
        them; a column of exchangeability that parts units; a test without a cluster-robust error, or settings that
        exclude each other.
    """
    units, noun = units_of(design, settings), noun_of(design.unit_name)
    if np.unique(units).size == units.size:
        raise DataError(
            "random-intercept is for several maps of one participant, study or cluster, and here each has one. Leave "
            "--estimator out, or bring more maps of each into one analysis: name what varies within them in --formula "
            "(session, task, contrast), or pool it with --pool."
        )
    within, between = count_within_and_between(design.matrix, units)
    if between == 0:
        raise DataError(
            f"--formula {design.formula!r} has a column for each {noun}, which is what the random intercept stands "
            f"for. Leave C({design.unit_name}) out of it."
        )
    if within == 0:
        raise DataError(
            f"--formula {design.formula!r} takes up all that varies within {plural_of(noun)}: too few of them have "
            "several maps to estimate an error from. Take columns out of it that vary within them, or leave "
            "--estimator out."
        )
    _check_exchangeability(design, units)
    if settings.get("errors") == SANDWICH:
        _check_sandwich(design, units, settings)
    return (*_words_on_units(design, units, between, settings),)


def _check_sandwich(design: Design, units: NDArray[np.int64], settings: Mapping[str, str]) -> None:
    if settings.get("dof") == KENWARD_ROGER:
        raise DataError(
            'dof = "kenward-roger" corrects the errors of the model, and errors = "sandwich" takes others, with dof of '
            "their own. Leave one of them out under [estimator.random-intercept]."
        )
    robust = complete_tests(frame_of(design), units)[0]
    for test, estimable in zip(design.tests, robust.estimable, strict=True):
        if not estimable:
            noun = noun_of(design.unit_name)
            raise DataError(
                f"The test {test.name!r} has no cluster-robust error: it rests on what one {noun} alone has, or has "
                'too many rows for so few. Leave errors under [estimator.random-intercept] at "model", or take columns '
                "out of --formula."
            )


def _check_exchangeability(design: Design, units: NDArray[np.int64]) -> None:
    if design.exchangeability is None:
        return
    pairs = np.unique(np.column_stack([units, design.exchangeability]), axis=0)
    if len(pairs) > np.unique(units).size:
        noun = noun_of(design.unit_name)
        raise DataError(
            f"The column exchangeability parts the maps of one {noun}. With random-intercept all maps of one {noun} go "
            "together when maps are relabelled: give them one label, or leave the column out."
        )


def _words_on_units(design: Design, units: NDArray[np.int64], between: int, settings: Mapping[str, str]) -> list[str]:
    """Warn of what a random intercept of these units leaves out or hardly knows."""
    noun, notes = noun_of(design.unit_name), []
    if design.cluster_name != design.unit_name and design.clusters is not None:
        notes.append(
            f"random-intercept takes maps of one {noun} to depend on each other, and {plural_of(noun)} of one "
            f"{design.cluster_noun} (column {design.cluster_name!r}) to be independent."
        )
    sizes = np.bincount(units)
    count = int(np.count_nonzero(sizes))
    plain = settings.get("dof") != KENWARD_ROGER and settings.get("errors") != SANDWICH
    rough = plain and count < FEW_UNITS and np.unique(sizes[sizes > 0]).size > 1
    if between >= FEW_BETWEEN and rough:
        notes.append(
            f"random-intercept with {count} {plural_of(noun)}, not all with the same number of maps: Satterthwaite's "
            "degrees of freedom are an approximation, and p of tests within them is a little too small. With a third "
            "of three visits missing and nothing there, up to 7.5 of 100 voxels had p < .05 with 12 participants, 6.4 "
            'with 20, 6.1 with 40; with dof = "kenward-roger" under [estimator.random-intercept] 5.4 (6.1 where maps '
            'of one participant do not correlate), with errors = "sandwich" there 4.1 to 5.8. Inferences that resample '
            "do not rest on them."
        )
    if between < FEW_BETWEEN:
        notes.append(
            f"random-intercept estimates the variance between {count} {plural_of(noun)}, {between} more than the "
            "formula takes up: it is hardly known, and tests between them rest on few degrees of freedom."
        )
    return notes


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit a linear model whose maps of one unit share a random intercept, by REML.

    y = X b + u + e, with u of variance tau2 for each unit and e of variance
    sigma2 for each map: lme4's ``y ~ ... + (1 | unit)``. The restricted
    likelihood is maximised to rounding error, 0 included (Patterson & Thompson
    1971). t and F have Satterthwaite's dof of each test and voxel (Satterthwaite
    1946; Fai & Cornelius 1996; Kuznetsova, Brockhoff & Christensen 2017), or
    Kenward & Roger's covariance, dof and scaled F.

    Parameters
    ----------
    block : VoxelBlock
        With effect.
    design : Design
        Its ``units`` share an intercept; without units each map is one of its own, and the fit is that of least
        squares.
    **settings
        ``dof`` "satterthwaite" or "kenward-roger"; ``errors`` "model", or "sandwich": cluster-robust (CR2) with
        Satterthwaite's dof under the fitted model (Pustejovsky & Tipton 2018).
    """
    chosen = check_settings("random-intercept", _SETTINGS, settings)
    units, frame = units_of(design, chosen), frame_of(design)
    effect, covered = kind_of(block, "effect"), covered_of(block)
    fitted = fit_random_intercept(effect, covered, frame, units, corrected=chosen["dof"] == KENWARD_ROGER)
    if chosen["errors"] == SANDWICH:
        _test_robustly(effect, covered, frame, units, fitted)
    tests = own_dof_estimates(design, frame, fitted.tested, fitted.dof, np.zeros(len(design.tests)))
    total = fitted.sigma2 + fitted.tau2
    icc = np.where(total > 0.0, fitted.tau2 / np.where(total > 0.0, total, 1.0), 0.0)
    return Estimate(
        tests, fitted.counts[0], tau2=fitted.tau2, sigma2=fitted.sigma2, icc=icc, identical=fitted.identical
    )


def _test_robustly(
    effect: NDArray[np.float64], covered: NDArray[np.bool_], frame: Frame, units: NDArray[np.int64], fit: InterceptFit
) -> None:
    """Replace a fit's tests by cluster-robust ones, the fitted covariance being the working model."""
    known = fit.tested.estimable & (fit.sigma2 > 0.0) & ~fit.identical
    plain = fit.tested.values.copy()
    summary = np.zeros((5, fit.tau2.size))
    summary[0] = fit.tau2
    # a multilevel model whose maps all have the sampling variance sigma2, and nothing else of their own
    variance = np.where(covered, np.where(fit.sigma2 > 0.0, fit.sigma2, 1.0), 1.0)
    test_robustly(effect, variance, covered, frame, units, MultilevelFit(fit.tested, fit.dof, fit.counts, summary))
    fit.tested.values[:] = np.where(known[:, None], fit.tested.values, plain)
    fit.dof[~known], fit.tested.estimable[~known] = 0.0, False


def flip_bounds(
    block: VoxelBlock, design: Design, settings: Mapping[str, str], signs: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Bound F of the design's only test where whole units change their signs, (R, B); see `bound_flips`.

    With a sandwich there is no bound, and every voxel is fitted.
    """
    if settings.get("errors") == SANDWICH:
        return np.full((len(signs), kind_of(block, "effect").shape[1]), np.inf, dtype=np.float32)
    weights = np.atleast_2d(design.tests[0].weights)
    return bound_flips(
        kind_of(block, "effect"), covered_of(block), design.matrix, weights, units_of(design, settings), signs
    )


def remark(estimate: Estimate, settings: Mapping[str, str]) -> tuple[Fact | WarningFact, ...]:
    """Tell where the variance between units is estimated as 0: with an icc near 0 p are not quite uniform."""
    assert estimate.sigma2 is not None
    assert estimate.tau2 is not None
    fitted = estimate.sigma2 > 0.0
    share = float((fitted & (estimate.tau2 == 0.0)).sum() / max(1, fitted.sum()))
    fact = Fact("ShareOfVoxelsWithTau2Zero", round(share, 6), "Voxels where tau2 is estimated as 0", "{:.1%}")
    if share < MOSTLY or settings.get("errors") == SANDWICH:
        return (fact,)
    most = "6.1" if settings["dof"] == KENWARD_ROGER else "7.5"
    return fact, WarningFact(
        f"in {100 * share:.0f} % of the voxels maps of one unit do not correlate (tau2 is estimated as 0). With an icc "
        "of 0 and nothing there, 5.2 to 6 of 100 voxels had p < .05 in tests within participants where visits were "
        f"complete, up to {most} with 12 participants and a third of the visits missing, and 2 to 4.7 in tests between "
        'them; with errors = "sandwich" under [estimator.random-intercept] 4.6 to 5.8 of all. Inferences that resample '
        "do not rest on it."
    )


def far_tail(design: Design, settings: Mapping[str, str]) -> str:
    """Say what small p are worth; empty where they hold, or where nothing was measured."""
    if settings.get("errors") == SANDWICH or design.units is None or np.unique(design.units).size >= FEW_UNITS:
        return ""
    return _FAR_TAIL[settings.get("dof", "satterthwaite")]


ESTIMATOR = Estimator(
    name="random-intercept",
    title="linear mixed model with a random intercept (REML)",
    needs=("effect",),
    fit=fit,
    words=(
        Sentence(
            "A linear model with a random intercept for each participant, study or cluster was fitted to the effect "
            "maps by restricted maximum likelihood (Patterson and Thompson 1971; Laird and Ware 1982): maps of one of "
            "them share a deviation of variance tau2, and each map has an error of variance sigma2. Sampling variances "
            "were not used."
        ),
        Sentence(
            "t and F have Satterthwaite's degrees of freedom of each test and voxel (Satterthwaite 1946; Fai and "
            "Cornelius 1996; Kuznetsova et al. 2017).",
            when={"dof": "satterthwaite", "errors": "model"},
        ),
        Sentence(
            "Standard errors, degrees of freedom and F are Kenward and Roger's, for small samples, at each test and "
            "voxel (Kenward and Roger 1997; Halekoh and Hojsgaard 2014).",
            when={"dof": KENWARD_ROGER},
        ),
        Sentence(
            "Standard errors are cluster-robust (CR2, the fitted model being the working model), tested with t and F "
            "on Satterthwaite's dof of each test and voxel (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018).",
            when={"errors": SANDWICH},
        ),
        Sentence(
            "The model takes all maps of one of them to be correlated alike (the intraclass correlation, icc), "
            "however far they lie apart, and all errors to have one variance."
        ),
    ),
    settings=_SETTINGS,
    takes_repeated=True,
    models_clusters=True,
    gives=("tau2", "sigma2", "icc"),
    relabels="effect",
    clusters=units_of,
    check=check,
    remark=remark,
    far_tail=far_tail,
    flip_bounds=flip_bounds,
    citations=(
        Citation(
            "patterson1971",
            "Patterson HD, Thompson R",
            1971,
            "Recovery of inter-block information when block sizes are unequal",
            "Biometrika 58(3), 545-554",
            "10.1093/biomet/58.3.545",
        ),
        Citation(
            "laird1982",
            "Laird NM, Ware JH",
            1982,
            "Random-effects models for longitudinal data",
            "Biometrics 38(4), 963-974",
            "10.2307/2529876",
        ),
        Citation(
            "satterthwaite1946",
            "Satterthwaite FE",
            1946,
            "An approximate distribution of estimates of variance components",
            "Biometrics Bulletin 2(6), 110-114",
            "10.2307/3002019",
        ),
        Citation(
            "fai1996",
            "Fai AHT, Cornelius PL",
            1996,
            "Approximate F-tests of multiple degree of freedom hypotheses in generalized least squares analyses of "
            "unbalanced split-plot experiments",
            "Journal of Statistical Computation and Simulation 54(4), 363-378",
            "10.1080/00949659608811740",
        ),
        Citation(
            "kuznetsova2017",
            "Kuznetsova A, Brockhoff PB, Christensen RHB",
            2017,
            "lmerTest package: tests in linear mixed effects models",
            "Journal of Statistical Software 82(13), 1-26",
            "10.18637/jss.v082.i13",
        ),
        KENWARD_1997,
        Citation(
            "halekoh2014",
            "Halekoh U, Hojsgaard S",
            2014,
            "A Kenward-Roger approximation and parametric bootstrap methods for tests in linear mixed models - the R "
            "package pbkrtest",
            "Journal of Statistical Software 59(9), 1-32",
            "10.18637/jss.v059.i09",
        ),
        BELL_2002,
        PUSTEJOVSKY_2018,
    ),
)
