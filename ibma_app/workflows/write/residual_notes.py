"""What files, log and page say of residuals: groups that differ in variance, and noise that is not symmetric."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Estimate
from ibma_app.core.inference_facts import WarningFact
from ibma_app.core.methods import Inference
from ibma_app.stream.estimate import Model
from ibma_app.stream.residuals.checks import Spread, compare_groups, residual_skewness, written
from ibma_app.stream.residuals.measured import WITHIN_CHANCE, in_words, nearest
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import Resources

log = logging.getLogger(__name__)

LARGEST_RATIO = 2.0
"""Of the variances of two groups: beyond, whichever varies more, tests do not mean what they say."""

UNLIKE_RATIO, ALIKE_RATIO = 1.2, 1.5
"""From here on a group that is not the larger and varies more is pointed out: where sizes differ, and where they hardly
do. Below, no error was measured that 5 of 100 do not explain (docs/validation-unequal-groups.md)."""

UNLIKE_SIZES = 1.25  # the larger group over the smaller

LARGEST_SKEWNESS = 0.25
"""Mean over the mask: beyond, flipping signs errs in up to twice as many data sets as it says, and soon in more
(measured with 12, 20 and 40 maps: validation/unequal_groups.py)."""

FEW_MAPS = 10  # of a group
LARGEST_MEASURED = 3.0  # ratio of tau, of which is told where a group with a tau2 of its own has few maps


@dataclass(frozen=True)
class Residuals:
    """What was found, and where it is said."""

    notes: tuple[str, ...] = ()
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()  # for the page: label and text
    skewness: NDArray[np.float64] | None = None  # (V,)


def look_at_residuals(
    stack: Stack, model: Model, estimate: Estimate, inferences: Sequence[Inference], resources: Resources
) -> Residuals:
    """Compare groups that the model takes to be alike, and measure skewness where signs are flipped.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
    estimate : Estimate
        The fit of the model.
    inferences : sequence of Inference
        Those to be made: skewness matters where one resamples the mean of the maps.
    resources : Resources
    """
    spreads = compare_groups(stack, model)
    far = tuple(inference.name for inference in inferences if inference.uses_far_tail)
    notes = [note for spread in spreads if (note := _spread_note(spread, model, far))]
    facts = [(_title(spread), written(spread)) for spread in spreads]
    sidecar: dict[str, Any] = {}
    for spread in spreads:
        log.info("%s, %s: %s.", model.estimator.name, _title(spread), written(spread))
        key = "Tau2ByGroup" if spread.of == "tau2" else "ResidualVarianceByGroup"
        sidecar.setdefault(key, {})[spread.column] = {label: float(f"{v:.6g}") for label, v in spread.values.items()}
    if model.variance_groups is not None:
        labels = model.variance_groups
        sidecar["Tau2By"] = model.settings["tau2_by"]
        counts = {label: labels.count(label) for label in sorted(set(labels))}
        sidecar["MapsByGroup"] = counts
        if min(counts.values()) <= FEW_MAPS and any(inference.score for inference in inferences):
            notes.append(_few_signs_note(model, counts))
    if estimate.identical is not None and estimate.identical.any():
        count = int(estimate.identical.sum())
        notes.append(
            f"{model.estimator.name}: effects are identical in {count} voxel(s); their test is not estimable there "
            "(p 1)."
        )
    skewness = None
    if model.design.one_sample and model.estimator.weights and any(inference.score for inference in inferences):
        skewness = residual_skewness(stack, model, estimate, resources)
        sound = estimate.n > 2
        mean = float(skewness[sound].mean()) if sound.any() else 0.0
        sidecar["ResidualSkewness"] = float(f"{mean:.6g}")
        facts.append(("Skewness of residuals, mean over the mask", f"{mean:.2g}"))
        if abs(mean) > LARGEST_SKEWNESS:
            notes.append(_skewness_note(mean, model))
    for fact in model.estimator.remark(estimate, model.settings) if model.estimator.remark else ():
        if isinstance(fact, WarningFact):
            notes.append(f"{model.estimator.name}: {fact.text}")
        else:
            sidecar |= fact.sidecar()
            facts.append((fact.label, fact.words.format(fact.value)))
    return Residuals(tuple(map(stack.grid.speak, notes)), sidecar, tuple(facts), skewness)


def _title(spread: Spread) -> str:
    return "tau² of each group" if spread.of == "tau2" else "Residual variance of each group"


def _spread_note(spread: Spread, model: Model, far: tuple[str, ...]) -> str:
    """Warn of groups that differ; empty where they do not, or where all that is asked for allows for it."""
    robust, found = model.clusters is not None, _varies_more(spread)
    name, setting = model.estimator.name, model.estimator.if_groups_differ.format(column=spread.column)
    what = "tau2" if spread.of == "tau2" else "residual variances"
    if robust:
        return _robust_note(spread, name, found, far)
    if found is not None and found[2] > (UNLIKE_RATIO if found[1] >= UNLIKE_SIZES * found[0] else ALIKE_RATIO):
        smaller, larger, _, ratio = found
        cell = nearest("tau2" if spread.of == "tau2" else "pooled", smaller, larger, ratio)
        group = "a group of fewer maps" if larger > smaller else "one of two groups of one size"
        said = f"{group} varies more. {in_words(cell, 'tau' if spread.of == 'tau2' else 'the standard deviation')}"
    elif spread.ratio > LARGEST_RATIO:
        said = "a larger group varies more, so that p are too large and little is found."
    else:
        return ""
    differ = "differs" if spread.of == "tau2" else "differ"
    return (
        f"{name}: {what} {differ} between groups of {written(spread)}; the variance of a map by a factor of "
        f"{spread.ratio:.2g}. The model takes it as the same in all of them, and {said} Set {setting} under "
        f"[estimator.{name}] in --config-file."
    )


def _varies_more(spread: Spread) -> tuple[int, int, float, float] | None:
    """Find a group that varies more than one of as many maps or more: sizes, ratio of maps' variances, and of SDs."""
    pairs = [
        (spread.of_maps[one] / spread.of_maps[other], one, other)
        for one, size in spread.sizes.items()
        for other, others in spread.sizes.items()
        if one != other and size <= others and spread.of_maps[one] > spread.of_maps[other]
    ]
    if not pairs:
        return None
    over, one, other = max(pairs)
    below = max(spread.values[other], 0.01 * spread.values[one])  # tau2 may be 0
    return spread.sizes[one], spread.sizes[other], over, float(np.sqrt(spread.values[one] / below))


def _robust_note(spread: Spread, name: str, found: tuple[int, int, float, float] | None, far: tuple[str, ...]) -> str:
    """Warn where the sandwich does not help enough: where few maps vary most."""
    if found is None or found[2] <= LARGEST_RATIO:
        return ""
    cell = nearest("sandwich", found[0], found[1], found[3])
    if max(cell.plain if far else 0, cell.resampled) <= WITHIN_CHANCE:
        return ""
    return (
        f"{name}: residual variances differ between groups of {written(spread)}. The error allows for that, but where "
        f"few maps vary most, p are too small still. {in_words(cell, 'the standard deviation')}"
    )


def _few_signs_note(model: Model, counts: Mapping[str, int]) -> str:
    sizes = ", ".join(f"{label} {size}" for label, size in counts.items())
    fewest, most = min(counts.values()), max(counts.values())
    cell = nearest("tau2_by", fewest, most, LARGEST_MEASURED)
    return (
        f"{model.estimator.name}: resampling with a tau2 for each group flips the signs of residuals, of which a group "
        f"has few ({sizes}). {in_words(cell, 'tau')}"
    )


def _skewness_note(mean: float, model: Model) -> str:
    side, too_many = ("right", "below 0") if mean > 0 else ("left", "above 0")
    return (
        f"{model.estimator.name}: the maps' noise is skewed to the {side} (mean skewness of the residuals {mean:.2g}, "
        "stat-skewness). Flipping signs assumes that without an effect a map's values are as likely as their mirror "
        f"images. Here they are not: findings {too_many} come up more often than their p say (at a skewness of "
        "0.35 in 7 to 12 of 100 data sets without any effect instead of 5, at 0.7 in 24), and t has the same fault. So "
        "have simultaneous bounds (at 1.4 wrong somewhere in 9 to 16 of 100 data sets). "
        "See whether single maps make it; a test in the other direction (--tail) does not err, nor does a difference "
        "between groups of one size."
    )
