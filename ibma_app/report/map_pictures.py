"""Pictures of maps on a page: what an inference found, the whole maps, coverage and heterogeneity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import noun_of, plural_of
from ibma_app.core.labels import group_label
from ibma_app.core.results import Results
from ibma_app.report.figures.brains.plans import PicturePlan, Sheet, draw_beside, draw_beside_overview, draw_overview
from ibma_app.report.figures.picture import Picture, Scale, positive_scale, scale_of_z, signed_scale, with_ending
from ibma_app.report.html import format_number
from ibma_app.report.inputs import short_labels
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import InferenceNumbers
from ibma_app.report.text.methods_section import space_of

Floats = NDArray[np.float64]
Passed = NDArray[np.bool_]


@dataclass(frozen=True)
class FoundPictures:
    """The pictures of one inference that found something."""

    overview: Picture
    slices: Picture | None  # None where the overview shows every element


@dataclass(frozen=True)
class TestPictures:
    """The pictures of one test."""

    __test__ = False  # pytest: not a test class

    found: tuple[FoundPictures | None, ...] = ()  # by inference; None where it found nothing
    surface: Picture | None = None
    whole: tuple[Picture, ...] = ()  # not thresholded; none where nothing was found


NO_PICTURES = TestPictures()


def draw_test(
    maps: ResultMaps, results: Results, sheet: Sheet, inferences: Sequence[InferenceNumbers], units: str
) -> TestPictures:
    """Draw what each inference found, and the whole maps where any found something."""
    z = maps.volume("z")
    if z is None or not results.grid.n_voxels:
        return NO_PICTURES
    passed = [_passed(maps, one, z) for one in inferences]
    where = [one for one in passed if one is not None and one.any()]
    if inferences and not where:
        return NO_PICTURES  # noise in colours would only mislead
    through = sheet.plan_through(results.grid, space_of(results), np.logical_or.reduce(where) if where else None, z)
    found = tuple(
        None if one is None or not one.any() else _draw_found(maps, results, through, inference, z, one)
        for inference, one in zip(inferences, passed, strict=True)
    )
    first = next((index for index, one in enumerate(found) if one is not None), None)
    surface, seen = None, None if first is None else passed[first]
    # drawing takes a second: for the first test only
    if first is not None and seen is not None and maps.test is results.design.tests[0]:
        surface = _draw_surface(maps, results, through, inferences[first], z, seen)
    return TestPictures(found, surface, _draw_whole(maps, results, sheet, z, units))


def _draw_found(
    maps: ResultMaps, results: Results, through: PicturePlan, inference: InferenceNumbers, z: Floats, passed: Passed
) -> FoundPictures:
    """Draw all that was found with the clusters' numbers, and slices through them."""
    scale = _scale_of_found(maps, results, z, passed)
    text, corr = f"z where significant ({_words(inference)})", _corr_of(maps, inference)
    table = inference.clusters
    places = [(one.number, one.place) for one in (table.largest if table else ()) if one.place is not None]
    overview, kind = draw_overview(through, z, scale, text, passed, places)
    slices = None if kind == through.name else through.draw(z, scale, f"{text}.", passed)
    return FoundPictures(
        with_ending(overview, corr, f"stat-z_{kind}"),
        None if slices is None else with_ending(slices, corr, f"stat-z_{through.name}"),
    )


def _scale_of_found(maps: ResultMaps, results: Results, z: Floats, passed: Passed) -> Scale:
    """Return the scale of what was found: colours begin at its smallest z."""
    return scale_of_z(z[results.grid.mask], float(np.abs(z[passed]).min()), signed=maps.test.signed)


def _draw_surface(
    maps: ResultMaps, results: Results, plan: PicturePlan, inference: InferenceNumbers, z: Floats, passed: Passed
) -> Picture | None:
    """Draw what was found on the cortex too, where that is another picture."""
    scale = _scale_of_found(maps, results, z, passed)
    drawn = draw_beside_overview(plan, z, scale, f"z where significant ({_words(inference)}).", passed)
    return with_ending(drawn, _corr_of(maps, inference), "stat-z_surface") if drawn else None


def _draw_whole(maps: ResultMaps, results: Results, sheet: Sheet, z: Floats, units: str) -> tuple[Picture, ...]:
    """Draw z and effect over the whole mask."""
    plan, inside = sheet.plan(results.grid, space_of(results)), results.grid.mask
    scale = replace(scale_of_z(z[inside], signed=maps.test.signed), threshold=None)
    pictures = [with_ending(plan.draw(z, scale, "z, not thresholded."), f"stat-z_{plan.name}")]
    effect = maps.volume("effect")
    if effect is not None:
        effects = signed_scale(effect[inside], with_units("effect", units), outliers=True)
        drawn = plan.draw(effect, effects, "Effect, not thresholded.")
        pictures.append(with_ending(drawn, f"stat-effect_{plan.name}"))
    return tuple(pictures)


def _words(inference: InferenceNumbers) -> str:
    count = inference.n_significant
    return f"{inference.title}, {format_number(count)} {'voxel' if count == 1 else 'voxels'}"


def _corr_of(maps: ResultMaps, inference: InferenceNumbers) -> str:
    """``corr-<inference>``, as in the names of files."""
    path = maps.path("mask", inference.name)
    found = re.search(r"corr-[^_]+", path.name) if path else None
    return found[0] if found else ""


def _passed(maps: ResultMaps, inference: InferenceNumbers, z: Floats) -> Passed | None:
    """Where an inference is significant; None where nobody knows."""
    mask = maps.volume("mask", inference.name)
    if mask is not None:
        return (mask > 0) & maps.grid.mask
    if inference.z_threshold is None:
        return None
    return ((np.abs(z) if maps.test.signed else z) >= inference.z_threshold) & maps.grid.mask


def draw_fit(maps: ResultMaps, results: Results, plan: PicturePlan, units: str) -> list[Picture]:
    """Draw coverage, where it differs between voxels, and heterogeneity: n, tau, icc, omega, I2."""
    inside, pictures = results.grid.mask, []
    if not inside.any():
        return []
    n, i2, icc, omega2 = (maps.volume(kind) for kind in ("n", "i2", "icc", "omega2"))
    if n is not None and n[inside].min() < n[inside].max():
        total = len(results.analysis.observations)
        text = f"Number of maps (of {total}) that cover each voxel."
        scale = positive_scale(n[inside], "maps at the voxel (n)", low=float(n[inside].min()), high=float(total))
        pictures.append(with_ending(plan.draw(n, scale, text), f"stat-n_{plan.name}"))
    pictures += _draw_tau(maps, results, plan, units)
    if icc is not None:
        which = plural_of(noun_of(results.design.unit_name))
        text = f"Intraclass correlation (icc): the share of the variance that lies between {which}."
        scale = positive_scale(icc[inside], "icc", high=1.0)
        pictures.append(with_ending(plan.draw(icc, scale, text), f"stat-icc_{plan.name}"))
    if omega2 is not None:
        omega = np.sqrt(np.maximum(omega2, 0.0))
        text = f"omega, the standard deviation of true effects within {results.design.cluster_plural}."
        scale = positive_scale(omega[inside], with_units("omega", units))
        pictures.append(with_ending(plan.draw(omega, scale, text), f"stat-omega_{plan.name}"))
    if i2 is not None:
        text = "I², the share of the variation that sampling error does not explain."
        scale = positive_scale(i2[inside], "I² (%)", high=100.0)
        pictures.append(with_ending(plan.draw(i2, scale, text), f"stat-i2_{plan.name}"))
    return pictures


def _draw_tau(maps: ResultMaps, results: Results, plan: PicturePlan, units: str) -> list[Picture]:
    """Draw tau, of each group where groups have their own."""
    inside, pictures = results.grid.mask, []
    tau2 = maps.volume("tau2")
    between = {} if tau2 is None else {"": tau2}
    between |= maps.tau2_of_groups()
    of_units = plural_of(results.analysis.unit)
    if maps.volume("icc") is not None:
        of_units = plural_of(noun_of(results.design.unit_name))
    if maps.volume("omega2") is not None:
        of_units = results.design.cluster_plural
    for of, values in between.items():
        tau = np.sqrt(np.maximum(values, 0.0))
        whom = f"{of_units} ({of})" if of else of_units
        text = f"tau, the standard deviation of true effects between {whom}."
        scale = positive_scale(tau[inside], with_units("tau", units))
        ending = f"stat-tau{group_label('', of)}_{plan.name}"
        pictures.append(with_ending(plan.draw(tau, scale, text), ending))
    return pictures


def with_units(quantity: str, units: str) -> str:
    """Write a quantity with its units."""
    return f"{quantity} (units unknown)" if units in ("", "unknown") else f"{quantity} ({units})"


def draw_participant(maps: ResultMaps, results: Results, sheet: Sheet, units: str) -> list[Picture]:
    """Draw slices of effect and z, and what of coverage and heterogeneity differs between voxels."""
    plan = sheet.plan(results.grid, space_of(results))
    pictures, inside = [], results.grid.mask
    effect = maps.volume("effect")
    if results.slices is not None and effect is not None and len(results.slices.values) > 1:
        row = sheet.plan(results.grid, space_of(results), results.slices.levels)
        names = short_labels([one.label for one in results.survey])
        text = f"The effects of the runs and of what they were combined to, on one scale. {row.words}"
        beside = draw_beside(row, results.slices, names, effect, with_units("effect", units), text)
        pictures.append(with_ending(beside, "stat-effect_runs"))
    for kind, label, words in (("effect", with_units("effect", units), "Effect"), ("z", "z", "z")):
        volume = maps.volume(kind)
        if volume is not None and inside.any():
            text = f"{words}, not thresholded."
            drawn = plan.draw(volume, signed_scale(volume[inside], label, outliers=kind == "effect"), text)
            pictures.append(with_ending(drawn, f"stat-{kind}_{plan.name}"))
    return [*pictures, *draw_fit(maps, results, plan, units)]
