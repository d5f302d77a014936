"""What all mixed-effects estimators share: weights 1/(variance + tau2), tests and heterogeneity."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import special

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
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
from ibma_app.stats.tails import chi2_to_log10p
from ibma_app.stats.tau2 import tau2_interval

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
)

FEW_MAPS = 10
_FAR_TAIL = {
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
"""What was measured of the p of single voxels (validation/mixed_models.py), by the setting ``test``."""


def far_tail(settings: Mapping[str, str]) -> str:
    """Say what small p are worth; empty where they hold."""
    return _FAR_TAIL.get(settings["test"], "")


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Warn of few maps, with which the default test costs power."""
    n_maps = len(design.matrix)
    if settings["test"] != "adhoc" or n_maps >= FEW_MAPS:
        return ()
    power = "is nearly powerless" if n_maps <= 5 else "costs power"
    return (
        f"With {n_maps} maps the default test of mixed models (adhoc: standard errors are never made smaller) keeps "
        "its "
        f'level but {power}. test = "knha" finds more and errs more often than it says; ols, or an inference that '
        "resamples keeps the level whatever the number of maps.",
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


def prediction_interval(effect: Floats, variance: Floats, tau2: Floats, dof: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of a new study's true effect (Higgins et al. 2009): t with ``dof``.

    All arguments are (B,); both ends are 0 where dof are.
    """
    known = np.unique(dof[dof > 0])  # few: a quantile each
    quantile = special.stdtrit(known, 0.975)
    half = np.zeros(dof.shape)
    if known.size:
        at = np.searchsorted(known, dof).clip(0, known.size - 1)
        half = np.where(dof > 0, quantile[at], 0.0) * np.sqrt(variance + tau2)
    return effect - half, effect + half


def fit_mixed_effects(block: VoxelBlock, design: Design, method: str, settings: dict[str, str]) -> Estimate:
    """Fit a mixed-effects model at each voxel, as metafor's ``rma.uni``.

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
    frame = frame_of(design)
    maps = kind_of(block, "effect"), kind_of(block, "variance"), covered_of(block)
    fitted = fit_mixed(*maps, frame, method, chosen["test"])
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
            np.where(sound, left, 0.0),
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
        far_tail=far_tail,
        check=check,
        gives=("tau2", "q", "i2", "h2", "prediction"),
        settings=SETTINGS,
        tau2_method=name,
    )
