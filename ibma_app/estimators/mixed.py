"""What all mixed-effects estimators share: weights 1/(variance + tau2), tests and heterogeneity."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import special

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.estimate import Estimate
from ibma_app.core.inference_facts import Fact, WarningFact
from ibma_app.core.labels import find_clash, group_label
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting
from ibma_app.estimators.from_kernels import (
    Floats,
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    test_estimates,
)
from ibma_app.stats.mixed import fit_mixed
from ibma_app.stats.mixed_dependent import fit_mixed_dependent
from ibma_app.stats.tails import chi2_to_log10p, t_to_z
from ibma_app.stats.tau2 import tau2_interval
from ibma_app.stats.tau2_by_group import fit_by_group, group_rank

SETTINGS = {
    "test": Setting(
        ("adhoc", "knha", "t", "z"),
        "Knapp-Hartung, never shrinking the standard error; Knapp-Hartung; t without scaling; normal",
        "Test",
        {
            "adhoc": "Knapp-Hartung, standard errors never reduced",
            "knha": "Knapp-Hartung",
            "t": "t, standard errors not rescaled",
            "z": "z, standard errors not rescaled",
        },
    ),
    "tau2_ci": Setting(
        ("no", "yes"),
        "95 % interval of tau2 by Q profile",
        "95 % interval of tau²",
        {"no": "", "yes": "by Q profile"},
    ),
    "tau2_by": Setting(
        (),
        "a column of the covariates: each of its groups has a tau2 of its own, as where effects differ more among "
        "patients than among controls",
        "Groups with a tau² of their own",
        {"": ""},
    ),
}

WORDS = (
    Sentence(
        "Each map was weighted by 1/(variance + tau2), where variance is the map's own sampling variance and tau2 the "
        "variance of true effects between {units}, estimated at each voxel; inference is on the population that the "
        "{units} stand for."
    ),
    Sentence(
        "Standard errors follow Knapp and Hartung: they are scaled by the weighted residuals and tested with t and F "
        "on as many residual dof as the number of maps at the voxel minus the rank of the design.",
        when={"test": "knha"},
    ),
    Sentence(
        "Standard errors follow Knapp and Hartung with a scale factor of at least one (Röver et al. 2015), tested "
        "with t and F on as many residual dof as the number of maps at the voxel minus the rank of the design.",
        when={"test": "adhoc"},
    ),
    Sentence("Wald standard errors were tested with t and F on the residual dof.", when={"test": "t"}),
    Sentence("Wald standard errors were tested with the normal distribution.", when={"test": "z"}),
    Sentence("The 95 % interval of tau2 is by the Q profile.", when={"tau2_ci": "yes"}),
    Sentence(
        "Each group of maps (by the column {tau2_by}) had a tau2 of its own, estimated from its own maps by their rows "
        "of the design.",
        unless={"tau2_by": ""},
    ),
)

FEW_MAPS = 10
STRONG_Z = 3.2905  # two-sided p of 0.001
FEW_STRONG = 20  # voxels: of fewer no share is told
MOSTLY = 0.8  # of the voxels; without any heterogeneity it is six in ten
FEW_OF_GROUP = 15
MOST_DOF = 1e10  # SciPy's t has no infinite dof
MANY_MAPS = 25  # with 20 and fewer, small p of the default test hold
_FAR_TAIL = {
    "adhoc": (
        "with many maps p of the default test are a little too small far out in the tail where effects differ (p of "
        "1e-5 come up up to twice as often as they say with 30 maps), so that this errs in 6 to 7 of 100 data sets "
        "without any effect instead of 5: use an inference that resamples, or calibrate = true under [inference]"
    ),
    "knha": (
        "p of Knapp and Hartung's test are too small far out in the tail (p of 1e-5 come up 1.5 to 2.8 times too "
        "often), so that this errs in 6.5 to 9 of 100 data sets without any effect instead of 5: use test adhoc, or "
        "an inference that resamples"
    ),
    "t": (
        "p of a t test without Knapp and Hartung's scale are slightly too small far out in the tail (p of 1e-4 come "
        "up to 1.4 times too often with 12 maps): use test adhoc, or an inference that resamples"
    ),
    "z": (
        "p of a z test take tau2 as known and are far too small (p of 1e-5 come up 15 to 300 times too often where "
        "effects differ): use test adhoc, or an inference that resamples"
    ),
}
"""What was measured (validation/mixed_models.py, validation/familywise.py), by the setting ``test``."""


_FAR_TAIL_BY_GROUP = (
    "t with a tau2 for each group has the degrees of freedom of all maps, where fewer tell the variance of the group "
    "that varies most, so that small p are far too small (something was found at 0.05 in 63 to 99 of 100 data sets "
    "without any effect where tau2 differed nine-fold, in up to 17 where it did not differ): use an inference that "
    "resamples"
)


def far_tail(design: Design, settings: Mapping[str, str]) -> str:
    """Say what small p are worth; empty where they hold."""
    if settings.get("tau2_by"):
        return _FAR_TAIL_BY_GROUP
    if settings["test"] == "adhoc" and len(design.matrix) < MANY_MAPS:
        return ""
    return _FAR_TAIL[settings["test"]]


def variance_groups(design: Design, settings: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the group of each map, (K,), whose tau2 is its own; None: there is one tau2.

    Raises
    ------
    DataError
        The design was built without that column.
    """
    column = settings.get("tau2_by", "")
    if not column:
        return None
    if column not in design.groupings:
        raise DataError(f"tau2_by names {column!r}, and the design has no groups of that name.")
    return design.groupings[column]


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Warn of few maps, with which the default test may find less; refuse groups whose tau2 cannot be estimated.

    Raises
    ------
    DataError
        One group alone, or a group with too few maps; what is for independent maps, of dependent ones.
    UsageError
        An interval of tau2 together with groups.
    """
    n_maps, groups = len(design.matrix), variance_groups(design, settings)
    notes = () if groups is None else _check_groups(design, settings, groups)
    for name, none in (("tau2_ci", "no"), ("tau2_by", "")):
        if design.dependence is not None and settings.get(name, none) != none:
            raise DataError(f"{name} of mixed models is for independent maps: leave it or --dependence out.")
    if settings["test"] != "adhoc" or n_maps >= FEW_MAPS:
        return notes
    return (
        *notes,
        f"With {n_maps} maps the default test of mixed models (adhoc: standard errors are never made smaller) keeps "
        "its level. With 5 or 8 maps it finds as many effects as Knapp and Hartung's test would at the same error "
        "where the maps' true effects differ, and about half as many, or fewer, where they do not. "
        'test = "knha" errs more often than it says; ols, or an inference that resamples, keeps the level.',
    )


def _check_groups(design: Design, settings: Mapping[str, str], groups: tuple[str, ...]) -> tuple[str, ...]:
    column, found = settings["tau2_by"], {label: np.array(groups) == label for label in sorted(set(groups))}
    if len(found) == 1:
        raise DataError(f"tau2_by = {column!r}: all maps are of one group, {groups[0]!r}. Leave tau2_by out.")
    clash = find_clash((group_label(column, label), label) for label in found)
    if clash is not None:
        raise DataError(f"tau2_by = {column!r}: the names of groups {clash[1]!r} and {clash[2]!r} are alike.")
    if settings["tau2_ci"] == "yes":
        raise UsageError("There is no interval of tau2 for groups: leave tau2_ci or tau2_by out.")
    for label, rows in found.items():
        least = group_rank(design.matrix[rows]) + 1
        if rows.sum() < least:
            raise DataError(
                f"tau2_by = {column!r}: group {label!r} has {rows.sum()} map(s), and its tau2 needs {least} or more "
                f"(--formula {design.formula!r}). Leave its maps out, or name a column with fewer groups."
            )
    few = [f"{label} ({rows.sum()})" for label, rows in found.items() if rows.sum() < FEW_OF_GROUP]
    if not few:
        return ()
    return (
        f"tau2_by = {column!r}: groups with few maps: {', '.join(few)}. With 5 and 10 maps in the group that "
        "varies most, an inference that resamples erred in up to 10 of 100 data sets without any effect instead of 5 "
        "where tau2 differed nine-fold (with one tau2 for all in 80).",
    )


KNAPP_HARTUNG = Citation(
    "knapp2003",
    "Knapp G, Hartung J",
    2003,
    "Improved tests for a random effects meta-regression with a single covariate",
    "Statistics in Medicine 22, 2693-2710",
    "10.1002/sim.1482",
)

ROEVER_2015 = Citation(
    "roever2015",
    "Röver C, Knapp G, Friede T",
    2015,
    "Hartung-Knapp-Sidik-Jonkman approach and its modification for random-effects meta-analysis with few studies",
    "BMC Medical Research Methodology 15, 99",
    "10.1186/s12874-015-0091-1",
)

VIECHTBAUER_2005 = Citation(
    "viechtbauer2005",
    "Viechtbauer W",
    2005,
    "Bias and efficiency of meta-analytic variance estimators in the random-effects model",
    "Journal of Educational and Behavioral Statistics 30, 261-293",
    "10.3102/10769986030003261",
)


def remark(estimate: Estimate, settings: Mapping[str, str]) -> tuple[Fact | WarningFact, ...]:
    """Tell where maps differ less than their own variances allow: Knapp and Hartung's scale is below 1 there.

    Without tau2 the scale is Q over its degrees of freedom: it makes standard
    errors smaller than those of fixed effects, unless the test is ``adhoc``.
    """
    q, tau2, dof = estimate.q, estimate.tau2, estimate.dof
    if settings["test"] not in ("knha", "adhoc") or q is None or tau2 is None or dof is None:
        return ()
    fitted = dof > 0
    below = fitted & (tau2 <= 0) & (q < dof)
    scale = np.where(below, q / np.where(fitted, dof, 1.0), 1.0)
    tests = [test for test in estimate.tests.values() if test.statistic_name == "t" and test.statistic is not None]
    strong = [fitted & test.estimable & (np.abs(test.z) > STRONG_Z) for test in tests]
    share, where, words = float(below.sum() / max(1, fitted.sum())), below, "the voxels"
    fact = Fact("ShareOfVoxelsWithQBelowDof", round(share, 6), "Voxels where Q is below its dof", "{:.1%}")
    significant = np.logical_or.reduce([np.zeros(fitted.shape, dtype=bool), *strong])
    if np.count_nonzero(significant) >= FEW_STRONG and float(below[significant].mean()) > share:
        share, where, words = float(below[significant].mean()), below & significant, "the voxels with p below 0.001"
    if share < MOSTLY:
        return (fact,)
    narrow = float(np.median(np.sqrt(scale[where])))
    text = (
        f"in {100 * share:.0f} % of {words} maps differ less than their own variances allow (Q below its degrees of "
        "freedom, tau2 0). Are the variances too large, or the maps not independent?"
    )
    if settings["test"] == "adhoc":
        more = (
            f" Standard errors there are those of fixed effects (with knha they would be {narrow:.2f} times as large)."
        )
        return fact, WarningFact(text + more)
    kept = sum(
        int(np.count_nonzero(np.abs(t_to_z(test.statistic[at] * np.sqrt(scale[at]), dof[at])) > STRONG_Z))
        for test, at in zip(tests, strong, strict=True)
        if test.statistic is not None
    )
    found = sum(int(at.sum()) for at in strong)
    more = (
        f" Knapp and Hartung's scale makes standard errors and intervals there {narrow:.2f} times (median) those of "
        f'fixed effects. test = "adhoc" never goes below them: of {found} voxels with p below '
        f"0.001, {kept} would keep it."
    )
    return fact, WarningFact(text + more)


def prediction_interval(effect: Floats, variance: Floats, tau2: Floats, dof: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of a new study's true effect (Higgins et al. 2009): t with ``dof``, z with inf.

    All arguments are (B,); both ends are 0 where dof are.
    """
    known = np.unique(dof[dof > 0])  # few: a quantile each
    half = np.zeros(dof.shape)
    if known.size:
        quantile = np.where(np.isinf(known), special.ndtri(0.975), special.stdtrit(np.minimum(known, MOST_DOF), 0.975))
        at = np.searchsorted(known, dof).clip(0, known.size - 1)
        half = np.where(dof > 0, quantile[at], 0.0) * np.sqrt(variance + tau2)
    return effect - half, effect + half


def fit_mixed_effects(block: VoxelBlock, design: Design, method: str, settings: dict[str, str]) -> Estimate:
    """Fit a mixed-effects model at each voxel, as metafor's ``rma.uni``; of dependent maps as ``rma.mv`` with V known.

    Parameters
    ----------
    block : VoxelBlock
        With effect and variance.
    design : Design
    method : str
        How tau2 is estimated: the estimator's name.
    settings : dict
        As given by the user.
    """
    chosen = check_settings(method, SETTINGS, settings)
    if chosen["tau2_by"]:
        return _fit_groups(block, design, method, chosen)
    frame = frame_of(design)
    maps = kind_of(block, "effect"), kind_of(block, "variance"), covered_of(block)
    if design.dependence is None:
        fitted = fit_mixed(*maps, frame, method, chosen["test"])
    else:
        fitted = fit_mixed_dependent(*maps, frame, design.error_correlation, method, chosen["test"])
    tau2, q, i2, h2 = fitted.summary
    left = left_dof(fitted.counts)
    tests = test_estimates(design, frame, fitted.tested, None if chosen["test"] == "z" else left)
    lower, upper = tau2_interval(*maps, frame) if chosen["tau2_ci"] == "yes" else (None, None)
    pilower, piupper = None, None
    if design.one_sample and tests:
        effect, variance, _ = fitted.tested.values[0]
        sound = fitted.tested.estimable[0] & (not bool(frame.upper[0]))
        sign = float(np.atleast_2d(design.tests[0].weights)[0, 0])
        pilower, piupper = prediction_interval(
            np.where(sound, effect / sign, 0.0),
            np.where(sound, variance / sign**2, 0.0),
            np.where(sound, tau2, 0.0),
            np.where(sound, left if chosen["test"] != "z" else np.where(left > 0, np.inf, 0.0), 0.0),
        )
    return Estimate(
        tests,
        fitted.counts[0],
        dof=None if chosen["test"] == "z" else left,
        tau2=tau2,
        q=q,
        q_log10p=chi2_to_log10p(q, left),
        i2=i2,
        h2=h2,
        pilower=pilower,
        piupper=piupper,
        tau2_lower=lower,
        tau2_upper=upper,
        identical=fitted.identical,
    )


def _fit_groups(block: VoxelBlock, design: Design, method: str, chosen: Mapping[str, str]) -> Estimate:
    """Fit with a tau2 for each group; Knapp and Hartung's scale is of all maps, as in metafor's scale models."""
    frame, labels = frame_of(design), variance_groups(design, chosen)
    assert labels is not None
    names, codes = np.unique(np.array(labels, dtype=object), return_inverse=True)
    maps = kind_of(block, "effect"), kind_of(block, "variance"), covered_of(block)
    fitted = fit_by_group(*maps, design.matrix, frame, codes.astype(np.int64), method, chosen["test"])
    left = left_dof(fitted.counts)
    dof = None if chosen["test"] == "z" else left
    return Estimate(
        test_estimates(design, frame, fitted.tested, dof),
        fitted.counts[0],
        dof=dof,
        tau2_groups=dict(zip(names.tolist(), fitted.tau2, strict=True)),
        q=fitted.q,
        q_log10p=chi2_to_log10p(fitted.q, left),
        identical=fitted.identical,
    )


def record(name: str, title: str, fit: Callable[..., Estimate], *citations: Citation) -> Estimator:
    """Make the record of a mixed-effects estimator."""
    return Estimator(
        name=name,
        title=f"{title} mixed effects",
        needs=("effect", "variance"),
        fit=fit,
        citations=(*citations, KNAPP_HARTUNG, ROEVER_2015),
        words=WORDS,
        weights="variance",
        has_residuals=True,
        takes_dependence=True,
        far_tail=far_tail,
        variance_groups=variance_groups,
        if_groups_differ='tau2_by = "{column}"',
        check=check,
        remark=remark,
        gives=("tau2", "q", "i2", "h2", "prediction"),
        settings=SETTINGS,
        tau2_method=name,
    )
