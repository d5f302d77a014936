"""Fixed effects: inverse-variance weights."""

from collections.abc import Mapping

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate, TestEstimate
from ibma_app.core.methods import Citation, Estimator, Sentence, Setting, SignedSums
from ibma_app.estimators.from_kernels import (
    Floats,
    check_settings,
    covered_of,
    frame_of,
    kind_of,
    left_dof,
    own_dof_estimates,
    test_estimates,
)
from ibma_app.estimators.references import HEDGES_1985, KENWARD_1997
from ibma_app.stats.basis import Frame
from ibma_app.stats.contrasts import Tested
from ibma_app.stats.meier import correct_tests
from ibma_app.stats.mixed import fit_fixed
from ibma_app.stats.mixed_dependent import fit_fixed_dependent
from ibma_app.stats.tails import chi2_to_log10p, t_to_z


def default_test(design: Design) -> str:
    """Return the test of a design where none is set: how Meier's correction reads where maps depend is not known."""
    return "meier" if design.dependence is None else "z"


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse tests that take maps as independent where they are not.

    Raises
    ------
    DataError
    """
    if design.dependence is None or settings["test"] == "z":
        return ()
    raise DataError(
        f'test = "{settings["test"]}" of fixed-effects is for independent maps. With --dependence the test is "z", '
        "which takes sampling variances as known: leave test under [estimator.fixed-effects] out."
    )


_SETTINGS = {
    "test": Setting(
        ("meier", "z", "t"),
        "meier: Meier's variance and Satterthwaite's dof where the maps' dof are known; z: variances are known; "
        "t: the maps' dof are summed",
        "Test",
        {
            "meier": "Meier's variance, Satterthwaite's dof",
            "z": "z, standard errors not rescaled",
            "t": "t, standard errors not rescaled",
        },
        of_design=default_test,
    ),
    "weights": Setting(
        ("variance", "equal"),
        "inverse variances, or a plain mean with propagated variance",
        "Weights",
        {"variance": "inverse variances", "equal": "equal"},
    ),
}

_OF_THESE_ONLY = "One true effect for all is assumed: the result speaks of these {units} only, not of others like them."
_ESTIMATED = (
    "That sampling variances are estimates is taken into account where the maps' dof are known: the variance of the "
    "result is Meier's (1953; in regressions Kenward and Roger's, 1997), and its ratio to its standard error is tested "
    "as t with Satterthwaite's dof; where the dof of maps are unknown, their variances are taken as known."
)
_WORDS = (
    Sentence(
        "Maps were combined by precision-weighted fixed effects: the effect is the mean of the maps' effects weighted "
        "by the inverse of their sampling variances.",
        "participant",
        {"weights": "variance"},
    ),
    Sentence(
        "Each map was weighted by the inverse of its sampling variance, and the weighted mean (or regression) was "
        f"tested. {_OF_THESE_ONLY}",
        "group",
        {"weights": "variance"},
    ),
    Sentence(
        "The effect is the plain mean of the maps' effects; its variance is propagated from their sampling variances.",
        when={"weights": "equal"},
    ),
    Sentence(_OF_THESE_ONLY, "group", {"weights": "equal"}),
    Sentence(_ESTIMATED, when={"weights": "variance", "test": "meier"}),
    Sentence(
        "Its ratio to its standard error was tested as t with Satterthwaite's dof where the maps' dof are known.",
        when={"weights": "equal", "test": "meier"},
    ),
    Sentence("Its ratio to its standard error was tested as z.", when={"test": "z"}),
    Sentence(
        "Its ratio to its standard error was tested as t, with the sum of the dof of the maps that cover the voxel.",
        when={"test": "t"},
    ),
)


def summed_dof(block: VoxelBlock) -> Floats:
    """Return the summed dof of each voxel's maps, (B,); infinite where one is unknown."""
    covered = covered_of(block)
    if block.dof is None:
        return np.where(covered.any(axis=0), np.inf, 0.0)
    dof = np.where(covered, np.broadcast_to(block.dof, covered.shape), 0.0)
    total = np.zeros(covered.shape[1])
    for one in dof:  # map after map: the same bits for one voxel as for many
        total += one
    return total


def _of_estimated_variances(
    block: VoxelBlock, design: Design, frame: Frame, tested: Tested, *, equal: bool
) -> tuple[dict[str, TestEstimate], Floats | None]:
    """Correct the tests for weights that follow the errors of their variances; one test's dof are the estimate's."""
    parts = [(frame.rows[frame.starts[c] : frame.starts[c + 1]], bool(up)) for c, up in enumerate(frame.upper)]
    dof = np.ascontiguousarray(block.dof, dtype=np.float64)
    found = correct_tests(
        kind_of(block, "variance"), covered_of(block), dof, np.ascontiguousarray(frame.columns.T), parts, equal=equal
    )
    tested.values[:, 1] *= found.inflation
    tested.values[:, 2] /= np.sqrt(found.inflation) * found.scale
    left = np.where(tested.estimable, found.dof, 0.0)
    if len(parts) == 1:
        return test_estimates(design, frame, tested, left[0]), left[0]
    return own_dof_estimates(design, frame, tested, left, np.zeros(len(parts))), None


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Fit fixed effects at each voxel (metafor's FE with ``test="z"``; Hedges & Olkin 1985, chapter 6).

    Parameters
    ----------
    block : VoxelBlock
        With effect and variance; and dof, where they are known.
    design : Design
    **settings
        ``test`` "meier", "z" or "t", ``weights`` "variance" or "equal".

    Returns
    -------
    Estimate
        A single map passes through: its effect and its variance.
    """
    chosen = check_settings("fixed-effects", _SETTINGS, settings, design)
    frame = frame_of(design)
    equal = chosen["weights"] == "equal"
    maps = kind_of(block, "effect"), kind_of(block, "variance"), covered_of(block)
    if design.dependence is None:
        fitted = fit_fixed(*maps, frame, "yes" if equal else "no")
    else:
        check(design, chosen)
        fitted = fit_fixed_dependent(*maps, frame, design.error_correlation, "yes" if equal else "no")
    dof = summed_dof(block) if chosen["test"] == "t" else None
    if dof is not None:
        fitted.tested.estimable[:, dof <= 0] = False
        fitted.tested.values[:, :, dof <= 0] = 0.0
    if chosen["test"] == "meier" and block.dof is not None and np.isfinite(block.dof).any():
        tests, dof = _of_estimated_variances(block, design, frame, fitted.tested, equal=equal)
    else:
        tests = test_estimates(design, frame, fitted.tested, dof)
    _, q, i2, h2 = fitted.summary
    return Estimate(
        tests,
        fitted.counts[0],
        dof=dof,
        q=q,
        q_log10p=chi2_to_log10p(q, left_dof(fitted.counts)),
        i2=i2,
        h2=h2,
    )


def signed_sums(block: VoxelBlock, design: Design, settings: Mapping[str, str]) -> SignedSums:
    """Return z of one sample as a function of the maps' signs, on which neither error nor dof depend."""
    covered, variance = covered_of(block), kind_of(block, "variance")
    fitted = fit(block, design, **settings)
    name = design.tests[0].name
    squared = fitted.tests[name].variance
    error, dof = np.sqrt(np.zeros(covered.shape[1]) if squared is None else squared), fitted.dof_of(name)
    equal = check_settings("fixed-effects", _SETTINGS, settings)["weights"] == "equal"
    weights = np.where(covered, 1.0 if equal else 1.0 / np.where(covered, variance, 1.0), 0.0)
    total = weights.sum(axis=0)
    sound = (total > 0) & (error > 0)
    size = np.where(sound, total * error, 1.0)
    terms = np.where(covered & sound, weights * kind_of(block, "effect") / size, 0.0)
    return SignedSums(terms, (np.full(total.size, np.inf) if dof is None else dof)[None], _to_z)


def _to_z(sums: Floats, own: Floats, tail: str) -> Floats:
    """Return z of t from its dof."""
    return t_to_z(sums, own[0])


_FAR_TAIL = {
    "meier": (
        "where sampling variances have few dof, p far out in the tail are still too small (p of 1e-5 come up 7 times "
        "too often with 5 studies of 10 to 20 people; as often as they say with 8 runs of 30 dof)"
    ),
    "z": (
        "sampling variances are taken as known: p of 1e-5 come up 20 to 80 times too often where they were estimated "
        "in studies of 10 to 60 people"
    ),
    "t": (
        "weights are taken as known: p of 1e-5 come up 20 to 40 times too often where variances were estimated in "
        "studies of 10 to 60 people"
    ),
}
"""What was measured of the p of single voxels (validation/fixed_effects.py), by the setting ``test``."""


def far_tail(design: Design, settings: Mapping[str, str]) -> str:
    """Say what small p are worth."""
    return _FAR_TAIL[settings["test"]]


ESTIMATOR = Estimator(
    name="fixed-effects",
    title="fixed effects with inverse-variance weights",
    needs=("effect", "variance"),
    reads=("dof",),
    fit=fit,
    words=_WORDS,
    caveat="fixed-effects speaks of these maps only, not of the population they come from.",
    gives=("q", "i2", "h2"),
    weights="variance",
    has_residuals=True,
    takes_dependence=True,
    check=check,
    far_tail=far_tail,
    signed_sums=signed_sums,
    citations=(
        HEDGES_1985,
        Citation(
            "meier1953",
            "Meier P",
            1953,
            "Variance of a weighted mean",
            "Biometrics 9(1), 59-73",
            "10.2307/3001633",
        ),
        KENWARD_1997,
    ),
    settings=_SETTINGS,
)
