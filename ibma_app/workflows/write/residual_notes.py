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
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import Resources

log = logging.getLogger(__name__)

LARGEST_RATIO = 2.0
"""Of the variances of two groups: beyond, with 10 against 30 maps, errors are six to eight times what they say."""

SLIGHT_RATIO = 1.2
"""From here on a smaller group that varies more is pointed out where sizes differ: 1.25 times the standard deviation in
10 of 40 maps, a ratio of 1.6, makes errors three to four times what they say (validation/familywise.py)."""

UNLIKE_SIZES = 1.5  # the larger group over the smaller

LARGEST_SKEWNESS = 0.25
"""Mean over the mask: beyond, flipping signs errs in up to twice as many data sets as it says, and soon in more
(measured with 12, 20 and 40 maps: validation/unequal_groups.py)."""

FEW_MAPS = 10  # of a group


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
    return Residuals(tuple(notes), sidecar, tuple(facts), skewness)


def _title(spread: Spread) -> str:
    return "tau² of each group" if spread.of == "tau2" else "Residual variance of each group"


def _spread_note(spread: Spread, model: Model, far: tuple[str, ...]) -> str:
    """Warn of groups that differ; empty where they do not, or where all that is asked for allows for it."""
    robust, few = model.clusters is not None, min(spread.sizes.values()) < FEW_MAPS
    if spread.ratio <= LARGEST_RATIO or (robust and not far and not few):
        return "" if robust else _slight_note(spread, model)
    if robust:
        return (
            f"{model.estimator.name}: residual variances differ between groups of {written(spread)}. The error allows "
            "for that, but where few maps vary most, p are too small still: with 5 against 15 maps and nine times the "
            "variance, 18 of 100 data sets without any effect had a voxel below Bonferroni's p of 0.05, and 10 of 100 "
            "by resampling."
        )
    name, setting = model.estimator.name, model.estimator.if_groups_differ.format(column=spread.column)
    what = "tau2 differs" if spread.of == "tau2" else "residual variances differ"
    return (
        f"{name}: {what} between groups of {written(spread)}; the variance of a map by a factor of "
        f"{spread.ratio:.2g}. The model takes it as the same in all of them. Where a group of fewer maps (or of as "
        "many) varies more, p are too small, those of resampling too; where a larger group does, little is found. Set "
        f"{setting} under [estimator.{name}] in --config-file."
    )


def _slight_note(spread: Spread, model: Model) -> str:
    """Point out a smaller group of residuals that varies a little more than the largest; empty where none does."""
    largest = max(spread.sizes, key=lambda label: spread.sizes[label])
    smaller = [label for label, size in spread.sizes.items() if UNLIKE_SIZES * size <= spread.sizes[largest]]
    over = max((spread.values[label] / spread.values[largest] for label in smaller), default=0.0)
    if spread.of != "residuals" or over <= SLIGHT_RATIO:
        return ""
    name, setting = model.estimator.name, model.estimator.if_groups_differ.format(column=spread.column)
    return (
        f"{name}: a group of fewer maps varies more ({written(spread)}), and the error is pooled over all. With 10 "
        "against 30 maps and 1.25 times the standard deviation in the 10, 20 to 22 of 100 data sets without any effect "
        f"had something below 0.05 corrected without resampling, and 13 to 15 with it. Set {setting} under "
        f"[estimator.{name}] in --config-file."
    )


def _few_signs_note(model: Model, counts: Mapping[str, int]) -> str:
    sizes = ", ".join(f"{label} {size}" for label, size in counts.items())
    return (
        f"{model.estimator.name}: resampling with a tau2 for each group flips the signs of residuals, of which a group "
        f"has few ({sizes}). With tau2 nine times larger in the smaller group, corrected p were below 0.05 in 8 of 100 "
        "data sets without any effect with 10 against 30 maps, and in 10 with 5 against 15."
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
