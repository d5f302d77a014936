"""Simultaneous bounds of effects, by the largest error of any voxel in relabelled maps that are centred."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import Test
from ibma_app.core.estimate import Estimate, Significance
from ibma_app.core.inference_facts import Fact
from ibma_app.core.methods import Inference, InferenceSettings
from ibma_app.inference.simultaneous import critical_height, draws_of
from ibma_app.stats.partition import partition_design
from ibma_app.stats.tails import z_to_t
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.resample import count_relabellings, score_resamples
from ibma_app.stream.residuals.centred import Centring
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import Resources
from ibma_app.workflows.command.terminal import progress
from ibma_app.workflows.write import sidecars
from ibma_app.workflows.write.maps import Target

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What was fitted, of which maps, and how it is resampled."""

    stack: Stack
    model: Model
    estimate: Estimate
    settings: InferenceSettings
    resources: Resources


def has_errors(estimate: Estimate, test: Test) -> bool:
    """Return whether a test has an effect with a standard error."""
    fitted = estimate.tests[test.name]
    return not test.is_f and fitted.effect is not None and fitted.variance is not None


def draw_errors(fitted: Fitted, test: Test, inference: Inference) -> Floats:
    """Relabel the maps less the effect that was estimated: return the largest standardised error of each draw, (D,).

    Relabelled as they are, maps with an effect would have the effect in their
    null too: its standard errors are larger, and of few maps those that keep
    most signs still show it. Less c'b at each voxel, in the measure of the
    regressor that c'b is the coefficient of, the estimate is 0, and residuals
    and weights are what they were. Residuals are then enlarged, as errors
    are larger (`ibma_app.stream.residuals.centred`).

    Parameters
    ----------
    fitted : Fitted
    test : Test
        Of its design, or with another tail: errors count in its direction.
    inference : Inference
        By whose score they are measured.
    """
    assert inference.score is not None  # its record says that it bounds effects
    effect = fitted.estimate.tests[test.name].effect
    assert effect is not None  # has_errors
    design = replace(fitted.model.design, tests=(test,))
    model = replace(fitted.model, design=design)
    regressor = partition_design(design.matrix, test.weights).effective[:, 0]
    centred = fitted.stack.centred(Centring(regressor, effect, np.linalg.qr(design.matrix)[0]))
    scores = {inference.name: inference.score}
    total = count_relabellings(model, test, fitted.settings)
    log.info("Resampling errors of %s, test %s.", model.estimator.name, test.name)
    with progress(total, f"resampling errors of {test.name}", "relabellings") as step:
        null = score_resamples(
            centred, model, test, scores, fitted.settings, fitted.resources, lambda done: step("", done)
        )
    return draws_of(null, inference.name)


def critical_errors(estimate: Estimate, test: Test, z: float) -> Floats:
    """Return the critical value of a z in standard errors, (V,): of t where the test has dof."""
    dof = estimate.dof_of(test.name)
    if dof is None or estimate.tests[test.name].statistic_name != "t":
        return np.full(estimate.n.shape, z)
    distinct, index = np.unique(np.where(dof > 0, dof, np.inf), return_inverse=True)
    return np.asarray(z_to_t(z, distinct), dtype=np.float64)[index]


class Errors:
    """The errors of one test, drawn when they are asked for and kept, in each tail."""

    def __init__(self, fitted: Fitted, test: Test) -> None:
        self.fitted, self.test = fitted, test
        self._draws: dict[tuple[str, str], Floats] = {}

    def draws(self, inference: Inference, tail: str) -> Floats:
        """Return the largest error of each draw, (D,), by an inference's score."""
        key = inference.name, tail
        if key not in self._draws:
            self._draws[key] = draw_errors(self.fitted, replace(self.test, tail=tail), inference)
        return self._draws[key]


def write_bounds(
    target: Target, errors: Errors, inference: Inference, significance: Significance
) -> tuple[Significance, dict[str, Path]]:
    """Write simultaneous bounds of a test's effect: both, or the one of a one-sided test.

    Returns
    -------
    Significance
        Which states the bounds' width.
    dict of str to Path
        ``lower``, ``upper``; empty where relabellings are too few for the level.
    """
    fitted, test = errors.fitted, errors.test
    draws = errors.draws(inference, test.tail)
    level, z = 1.0 - fitted.settings.alpha, critical_height(draws, fitted.settings.alpha)
    if z is None:
        log.info("No simultaneous bounds of %s: too few relabellings.", test.name)
        return significance, {}
    estimate = fitted.estimate
    one = estimate.tests[test.name]
    assert one.effect is not None  # has_errors
    assert one.variance is not None
    known = one.estimable & (one.variance > 0)
    half = critical_errors(estimate, test, z) * np.sqrt(np.maximum(one.variance, 0.0))
    sign = {"two-sided": "±", "positive": "−", "negative": "+"}[test.tail]
    fact = Fact(
        "BoundsCriticalZ", z, f"Simultaneous {100 * level:g} % bounds",
        f"effect {sign} {{}} standard errors (on the scale of z)",
    )  # fmt: skip
    significance = replace(significance, facts=(*significance.facts, fact))
    dof = sidecars.constant_dof(estimate, test)
    written = {}
    for kind, direction, tails in (("lower", -1.0, "two-sided positive"), ("upper", 1.0, "two-sided negative")):
        if test.tail not in tails.split():
            continue
        sidecar = sidecars.map_sidecar(
            target.common, kind, target.units, test=test, design=target.design, dof=dof, tail=test.tail
        )
        content = {
            **sidecar,
            "Description": f"{kind.capitalize()} bound of the effect: all bounds of the mask hold at once with "
            f"{100 * level:g} % confidence.",
            **sidecars.inference_sidecar(inference, significance),
            "BoundsCitation": sidecars.citations(inference.bounds_effects),
        }
        path = target.map_path("statmap", test=test.name, corr=inference.name, stat=kind)
        values = np.where(known, one.effect + direction * half, 0.0)
        written[kind] = target.writer.save(path, values, target.grid, content, dtype=np.float32)
    return significance, written
