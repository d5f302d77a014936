"""Where effects are absent: two one-sided tests against a bound, family-wise by the largest error of any voxel."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.design import Test
from ibma_app.core.inference_facts import Absence, Bound
from ibma_app.inference import find_inference, inferences_that
from ibma_app.inference.simultaneous import corrected_p
from ibma_app.report.text.sizes import SCHUIRMANN_1987
from ibma_app.stats.noncentral import t_cdf
from ibma_app.stats.tails import t_to_z
from ibma_app.stream.effect_sizes import mean_weights, root_of_inverse_counts
from ibma_app.workflows.write import sidecars
from ibma_app.workflows.write.effect_bounds import Errors, Fitted, has_errors
from ibma_app.workflows.write.maps import Target

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

NAME = "equivalence"
"""After ``corr-`` in names of files."""

AT_ONCE = 8192  # voxels


def find_absence(target: Target, errors: Errors) -> tuple[Absence, dict[str, Path]] | None:
    """Test at each voxel whether an effect is smaller than the bound, in either direction; write p and mask.

    Both one-sided tests must reject. A voxel with an effect of the bound or
    more is called absent only if its error, in one direction, exceeds what
    the largest error of any voxel exceeds with probability alpha: the
    family-wise error rate is alpha at most, whatever the signs of the effects.

    Parameters
    ----------
    target : Target
    errors : Errors
        Of the test.

    Returns
    -------
    Absence, and the files by kind; None where no bound was given, or the test has no effect (no standardised one,
    where the bound is of one) with an error.
    """
    fitted, test = errors.fitted, errors.test
    bound = fitted.settings.equivalence
    if bound is None or not has_errors(fitted.estimate, test):
        return None
    heights = heights_below(fitted, test, bound)
    if heights is None:
        return None
    draws = errors.draws(find_inference(inferences_that(lambda one: bool(one.bounds_effects))[0]), "two-sided")
    known = fitted.estimate.tests[test.name].estimable & (_variance(fitted, test) > 0)
    p = np.where(known, corrected_p(heights, draws), 1.0)
    alpha = fitted.settings.alpha
    absent = known & (p <= alpha * (1.0 + 1e-12))
    name = test.name if target.named_tests else ""
    smallest = 1.0 / (draws.size + 1.0)
    found = Absence(name, bound, alpha, int(absent.sum()), int(known.sum()), int(draws.size), smallest)
    if smallest > alpha:
        log.warning(
            "%s: with %d relabellings no p below %.3g can be reached, above --alpha %g: equivalence cannot be shown.",
            test.name, draws.size, smallest, alpha,
        )  # fmt: skip
    words = bound.words(target.units)
    sidecar = _sidecar(target, fitted, test, found, words)
    log10_p = np.maximum(-np.log10(p), 0.0)
    written = {}
    for kind, values, dtype, text in (
        ("log10p", log10_p, np.float32, f"Corrected -log10 p of an effect that is smaller than {words}"),
        ("mask", absent, np.int16, f"1 where the effect is smaller than {words}"),
    ):
        suffix, stat = ("mask", "") if kind == "mask" else ("statmap", kind)
        path = target.map_path(suffix, test=test.name, corr=NAME, stat=stat)
        more = {"Type": "ROI"} if kind == "mask" else {}
        content = {**sidecar, "Description": f"{text}, in either direction.", **more}
        written[kind] = target.writer.save(path, np.asarray(values), target.grid, content, dtype=dtype)
    return found, written


def heights_below(fitted: Fitted, test: Test, bound: Bound) -> Floats | None:
    """Return z of the weaker of the two one-sided tests, (V,): high where the effect is surely within the bound."""
    one, dof = fitted.estimate.tests[test.name], fitted.estimate.dof_of(test.name)
    assert one.effect is not None  # bounds.has_errors
    error = np.sqrt(np.maximum(_variance(fitted, test), 0.0))
    error = np.where(error > 0, error, np.inf)
    if not bound.standardised:
        t = (bound.size - np.abs(one.effect)) / error
        return t if dof is None or one.statistic_name != "t" else t_to_z(t, np.where(dof > 0, dof, np.inf))
    weights = mean_weights(fitted.model.design, test)
    if weights is None or dof is None or one.statistic is None:
        return None
    by = root_of_inverse_counts(fitted.stack, fitted.model.design, weights)
    p = np.ones(by.size)
    noncentrality = bound.size / np.where(by > 0, by, np.inf)
    for value in np.unique(dof[dof > 0]):
        there = np.flatnonzero(dof == value)
        for start in range(0, there.size, AT_ONCE):  # the further bound is passed more easily than the nearer one
            some = there[start : start + AT_ONCE]
            p[some] = t_cdf(np.abs(one.statistic[some]), float(value), noncentrality[some])
    return -special.ndtri(np.clip(p, 1e-300, 1.0 - 2.0**-53))


def _variance(fitted: Fitted, test: Test) -> Floats:
    variance = fitted.estimate.tests[test.name].variance
    assert variance is not None  # bounds.has_errors
    return variance


def _sidecar(target: Target, fitted: Fitted, test: Test, found: Absence, words: str) -> dict[str, Any]:
    dof = sidecars.constant_dof(fitted.estimate, test)
    common = sidecars.map_sidecar(
        target.common, "z", target.units, test=test, design=target.design, dof=dof, tail="two one-sided tests"
    )
    return {
        **common,
        "Equivalence": {
            "Bound": found.bound.size,
            "BoundUnits": "Hedges' g" if found.bound.standardised else target.units,
            "NullHypothesis": f"the effect is {words} or more, in one direction or the other",
            "Alpha": found.alpha,
            "Controls": "family-wise error rate",
            "NumberOfTests": found.n_voxels,
            "Resamples": found.resamples,
            "SmallestP": found.smallest_p,
            "Citation": sidecars.citations((SCHUIRMANN_1987,)),
        },
    }
