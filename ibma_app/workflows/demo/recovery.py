"""Compare the results of both levels with the simulated truth.

Each check states what theory expects (the noise being known), what was found,
and whether the two agree. Tolerances are about three standard errors of the
figure at 4 mm, or wider where theory is approximate; a wrong weight, dof, sign
or mask exceeds them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ibma_app.estimators import AUTO
from ibma_app.workflows.demo.simulate import Truth

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]  # (V,)
Maps = Mapping[str, Floats]  # by kind: (V,) in the simulated brain

FOUND = "found"  # a kind beside those of the files: what is significant at a false discovery rate of ALPHA
ALPHA = 0.05
STUDIES_NEEDED = 6  # of 8: the default share of studies that must cover a voxel


@dataclass(frozen=True)
class Check:
    """One row of the table that is printed."""

    level: str
    what: str
    expected: str
    found: str
    ok: bool


def check_runs(truth: Truth, runs: Sequence[tuple[str, Maps]], expected: int, rho: float) -> Iterator[Check]:
    """Check the models of runs: their effects and standard errors, the unit, and the noise.

    Parameters
    ----------
    truth : Truth
        Of the subjects, whose effects are those of their runs.
    runs : sequence of (str, mapping)
        Each run's subject and its maps ``effect``, ``variance``, ``dof`` and ``rho`` (V,).
    expected : int
        How many runs there are.
    rho : float
        Autocorrelation of the noise from volume to volume.
    """
    level = "BOLD to runs"
    yield _count(level, "runs modelled", expected, len(runs))
    inside = [_inside_interval(maps, truth.units[label]) for label, maps in runs]
    yield _share(level, "run's effect in its 95 % interval", np.concatenate(inside), 0.935, 0.965)
    errors = [(maps["effect"] - truth.units[label]) ** 2 / maps["variance"] for label, maps in runs]
    yield _number(level, "spread of error / standard error", 1.0, float(np.sqrt(np.concatenate(errors).mean())), 0.05)
    true = np.concatenate([truth.units[label] for label, _ in runs])
    found = np.concatenate([maps["effect"] for _, maps in runs])
    yield _number(level, "effects in percent, slope on the truth", 1.0, float(true @ found / (true @ true)), 0.04)
    medians = [float(np.median(maps["rho"])) for _, maps in runs]
    yield _number(level, "autocorrelation of the noise", rho, float(np.mean(medians)), 0.03)


def check_participants(truth: Truth, subjects: Mapping[str, Maps]) -> Iterator[Check]:
    """Check the combination of runs: coverage of the subjects' own effects by the intervals.

    Parameters
    ----------
    truth : Truth
        Of the subjects.
    subjects : mapping
        Each label's maps ``effect``, ``variance`` and ``dof`` (V,).
    """
    level = "runs to subjects"
    yield _count(level, "subjects combined", len(truth.units), len(subjects))
    inside = [_inside_interval(maps, truth.units[label]) for label, maps in subjects.items()]
    yield _share(level, "subject's effect in its 95 % interval", np.concatenate(inside), 0.935, 0.965)
    errors = [(maps["effect"] - truth.units[label]) ** 2 / maps["variance"] for label, maps in subjects.items()]
    spread = float(np.sqrt(np.concatenate(errors).mean()))
    yield _number(level, "spread of error / standard error", 1.0, spread, 0.05)


def check_subjects(truth: Truth, mean: Maps, age: Maps, shared: Maps) -> Iterator[Check]:
    """Check the group of subjects: mean effect, effect of age, variance between subjects.

    Parameters
    ----------
    truth : Truth
        Of the subjects.
    mean, age : mapping
        The two tests' ``effect``, ``variance`` and ``found`` (significant: > 0) (V,).
    shared : mapping
        ``n``, ``dof`` and ``tau2`` (V,).
    """
    assert truth.slope is not None
    assert truth.slope_error is not None
    mask = shared["n"] > 0
    yield from check_mean("subjects, mean", truth, mean, shared)
    level = "subjects, age"
    core = truth.core(truth.slope)
    yield _bias(level, "slope in its region", age["effect"], truth.slope, core, truth, truth.slope_error)
    inside = _inside_interval({**age, "dof": shared["dof"]}, truth.slope)[mask]
    yield _share(level, "slope in its 95 % interval", inside, 0.93, 0.97)
    yield from _discoveries(level, truth.slope, core, age[FOUND] > 0, mask, 0.6)


def check_mean(level: str, truth: Truth, mean: Maps, shared: Maps, tau2_within: float = 0.1) -> Iterator[Check]:
    """Check a group's mean effect and the variance between subjects.

    Parameters
    ----------
    level : str
        The heading of its rows.
    truth : Truth
        Of the subjects.
    mean : mapping
        ``effect``, ``variance`` and ``found`` (significant: > 0) (V,).
    shared : mapping
        ``n``, ``dof`` and ``tau2`` (V,).
    tau2_within : float
        How far the mean estimate of tau2 may be from the truth, as a share of it.
    """
    mask = shared["n"] > 0
    yield _count(level, "voxels analysed", len(mask), int(mask.sum()))
    yield from _recovery(level, truth, {**mean, "dof": shared["dof"]}, mask)
    yield from _discoveries(level, truth.effect, truth.core(truth.effect), mean[FOUND] > 0, mask, 0.8)
    ratio = float(shared["tau2"][mask].mean() / truth.tau2[mask].mean())
    yield _number(level, "tau2, mean of estimate / truth", 1.0, ratio, tau2_within)


def check_studies(truth: Truth, mixed: Maps, pooled: Maps) -> Iterator[Check]:
    """Check the meta-analysis: mean, heterogeneity, coverage, and the discoveries of both estimators.

    Parameters
    ----------
    truth : Truth
        Of the studies.
    mixed : mapping
        Of the mixed-effects model: ``effect``, ``variance``, ``dof``, ``tau2``, ``n``,
        ``pilower``, ``piupper`` and ``found`` (V,).
    pooled : mapping
        Of the combined z: ``found`` (V,).
    """
    level = f"studies, {AUTO['effect and variance']}"
    mask = mixed["n"] > 0
    wrong = (mixed["n"] != truth.n) | (truth.n < STUDIES_NEEDED)
    yield _count(level, "voxels with a wrong number of studies", 0, int(np.count_nonzero(wrong & mask)))
    # the default mask takes away what lies outside the MNI152 brain mask: 4 % of the simulated brain
    analysed = float(mask[truth.n >= STUDIES_NEEDED].mean())
    yield _at_least(level, "analysed of what 6 studies cover", analysed, 0.9)
    yield from _recovery(level, truth, mixed, mask, upper=0.985)
    yield from _discoveries(level, truth.effect, truth.core(truth.effect) & mask, mixed[FOUND] > 0, mask, 0.6)
    apart = (truth.tau2 > 0) & mask
    ratio = float(mixed["tau2"][apart].mean() / truth.tau2[apart].mean())
    yield _number(level, "tau2 where studies disagree / truth", 1.0, ratio, 0.2)
    yield _share(level, "new study in its 95 % prediction interval", _predicted(truth, mixed, apart), 0.88, 0.99)
    quiet = apart & (truth.effect == 0)
    share = float((mixed[FOUND][quiet] > 0).mean())
    yield _at_most(level, "found where studies disagree, mean 0", share, ALPHA)
    level = f"studies, {AUTO['z and sample size']}"
    null = (truth.effect == 0) & (truth.tau2 == 0)
    found = pooled[FOUND] > 0
    yield _at_least(level, "found where studies disagree, mean 0", float(found[quiet].mean()), 0.15)
    core = truth.core(truth.effect) & mask
    yield from _discoveries(level, np.where(null, 0.0, 1.0), core, found, mask, 0.8)


def _recovery(level: str, truth: Truth, maps: Maps, mask: Mask, upper: float = 0.97) -> Iterator[Check]:
    """Compare an effect map with the truth: correlation, error, bias, intervals."""
    effect, error = truth.effect[mask], truth.error[mask]
    signal = float(effect.var())
    expected = float(np.sqrt(signal / (signal + error.mean())))
    found = float(np.corrcoef(maps["effect"][mask], effect)[0, 1])
    yield _number(level, "correlation of effect map with truth", expected, found, 0.04)
    rmse = float(np.sqrt(np.mean((maps["effect"][mask] - effect) ** 2)))
    expected = float(np.sqrt(error.mean()))
    yield _number(level, "root mean squared error", expected, rmse, 0.12 * expected, digits=4)
    for name, sign in (("activation", 1.0), ("deactivation", -1.0)):
        region = truth.core(truth.effect) & (np.sign(truth.effect) == sign) & mask
        yield _bias(level, f"effect in the {name}", maps["effect"], truth.effect, region, truth, truth.error)
    inside = _inside_interval(maps, truth.effect)[mask]
    yield _share(level, "effect in its 95 % interval", inside, 0.93, upper)


def _discoveries(level: str, true: Floats, core: Mask, found: Mask, mask: Mask, least: float) -> Iterator[Check]:
    """Compare the voxels that are significant by FDR control with those that are truly active.

    The false share is controlled on average only; in one data set with smooth
    noise it may well be twice alpha.
    """
    yield _at_least(level, "active voxels found (above half of peak)", float(found[core].mean()), least)
    discoveries = int(np.count_nonzero(found & mask))
    false = np.count_nonzero(found & mask & (true == 0)) / max(discoveries, 1)
    yield _at_most(level, "false among the discoveries (mean: 5 %)", float(false), 2 * ALPHA)


def _inside_interval(maps: Maps, true: Floats) -> NDArray[np.bool_]:
    """Return where the 95 % confidence interval holds the true value: (V,)."""
    half = stats.t.isf(0.025, np.maximum(maps["dof"], 1.0)) * np.sqrt(maps["variance"])
    inside: NDArray[np.bool_] = np.abs(maps["effect"] - true) <= half
    return inside


def _predicted(truth: Truth, maps: Maps, where: Mask) -> Floats:
    """Return the probability that a new study's true effect falls into the prediction interval."""
    tau = np.sqrt(truth.tau2[where])
    upper = (maps["piupper"][where] - truth.effect[where]) / tau
    lower = (maps["pilower"][where] - truth.effect[where]) / tau
    held: Floats = stats.norm.cdf(upper) - stats.norm.cdf(lower)
    return held


def _bias(
    level: str,
    what: str,
    estimate: Floats,
    true: Floats,
    region: Mask,
    truth: Truth,
    error: Floats,
) -> Check:
    """Compare a region's mean with the truth, within three standard errors of that mean."""
    tolerance = 3.0 * truth.error_of_mean(error, region)
    found, expected = float(estimate[region].mean()), float(true[region].mean())
    ok = bool(abs(found - expected) <= tolerance)
    return Check(level, f"mean {what}", f"{expected:.4f} ± {tolerance:.4f}", f"{found:.4f}", ok)


def _count(level: str, what: str, expected: int, found: int) -> Check:
    return Check(level, what, f"{expected}", f"{found}", found == expected)


def _number(level: str, what: str, expected: float, found: float, tolerance: float, digits: int = 2) -> Check:
    text = f"{expected:.{digits}f} ± {tolerance:.{digits}f}"
    return Check(level, what, text, f"{found:.{digits}f}", bool(abs(found - expected) <= tolerance))


def _share(level: str, what: str, inside: Mask | Floats, low: float, high: float) -> Check:
    found = float(np.mean(inside))
    return Check(level, what, f"{100 * low:.1f} to {100 * high:.1f} %", f"{100 * found:.1f} %", low <= found <= high)


def _at_least(level: str, what: str, found: float, least: float) -> Check:
    return Check(level, what, f"at least {100 * least:.0f} %", f"{100 * found:.1f} %", found >= least)


def _at_most(level: str, what: str, found: float, most: float) -> Check:
    return Check(level, what, f"at most {100 * most:.0f} %", f"{100 * found:.1f} %", found <= most)
