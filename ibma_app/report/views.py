"""What the templates get: results as rows, facts and pictures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import noun_of, plural_of
from ibma_app.core.labels import group_label
from ibma_app.core.results import EstimatorResult, Results
from ibma_app.images.spaces import lies_in_mni152
from ibma_app.report.absence import view_absence
from ibma_app.report.evidence import view_evidence
from ibma_app.report.figures.brain import Sheet, SlicePlan, draw_glass, draw_mosaic
from ibma_app.report.figures.cuts import find_cuts
from ibma_app.report.figures.null_distributions import draw_null
from ibma_app.report.figures.picture import Picture, positive_scale, scale_of_z, signed_scale, with_ending
from ibma_app.report.figures.plot import Plot
from ibma_app.report.figures.quantiles import draw_quantiles, find_quantiles
from ibma_app.report.figures.surface import draw_surface
from ibma_app.report.figures.viewer import PARTICIPANT_LIMITS, view_maps
from ibma_app.report.html import format_number
from ibma_app.report.inputs import maps_table
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import (
    FitNumbers,
    InferenceNumbers,
    count_significant,
    describe_fit,
    effect_units,
    find_peaks,
)
from ibma_app.report.text.facts import describe_settings
from ibma_app.report.text.methods_section import auto_reason, space_of
from ibma_app.report.text.tests import describe_test
from ibma_app.report.text.thresholds import find_thresholds, smoothness_facts

Floats = NDArray[np.float64]
Fact = tuple[str, Any]

CORTEX = (
    "Inflated cortex (fsaverage5): means between white matter and pial surface. For orientation; slices show voxels."
)
NEUROLOGICAL = "Axial slices, left is left; pixels are voxels."


def title_of(entities: Mapping[str, str]) -> str:
    """Name an analysis for a reader, its contrast first: ``contrast faces, task x``."""
    order = sorted(entities, key=lambda key: key != "contrast")
    return ", ".join(f"{key} {entities[key]}" for key in order) or "all maps"


def anchor_of(*parts: str) -> str:
    """Make a fragment identifier of letters and digits; callers number them to keep them unique."""
    return "-".join(re.sub(r"[^A-Za-z0-9]+", "", part) or "x" for part in parts)


def grid_facts(results: Results) -> list[Fact]:
    """Mask size, grid and space of an analysis."""
    size = results.grid.voxel_sizes
    voxel = " × ".join(f"{edge:.3g}" for edge in size)
    return [
        ("Voxels in the mask", results.grid.n_voxels),
        ("Volume of the mask (cm³)", results.grid.n_voxels * results.grid.voxel_volume / 1000.0),
        ("Grid", f"{' × '.join(map(str, results.grid.shape))} voxels of {voxel} mm"),
        ("Space", space_of(results) or "not named"),
    ]


def fit_facts(fit: FitNumbers, units: str) -> list[Fact]:
    """List what an estimator found over the mask."""
    facts: list[Fact] = [("Voxels in the mask", fit.n_voxels)]
    if fit.n_min is not None:
        same = fit.n_min == fit.n_max
        facts.append(("Maps at a voxel", fit.n_min if same else f"{fit.n_min} to {fit.n_max}"))
    facts.append(("dof", fit.dof))
    squared = f" ({units})²" if units not in ("", "unknown") else ""
    if fit.median_tau2 is not None:
        facts.append((f"Median tau²{squared}", fit.median_tau2))
        facts.append(("Voxels with tau² > 0 (%)", fit.share_tau2))
    facts += [(f"Median tau²{squared}, {group}", median) for group, median in fit.median_tau2_of]
    if fit.median_icc is not None:
        facts.append((f"Median sigma² (within){squared}", fit.median_sigma2))
        facts.append(("Median icc", fit.median_icc))
    if fit.median_i2 is not None:
        facts.append(("Median I² (%)", fit.median_i2))
    if fit.median_q is not None:
        facts.append(("Median Q", fit.median_q))
    return facts


def estimator_view(result: EstimatorResult, results: Results, sheet: Sheet, number: int, budget: int) -> dict[str, Any]:
    """One estimator's part of a group page; pictures for the first ``budget`` tests."""
    results = results.seen_by(result)
    plan = sheet.plan(results.grid, space_of(results))
    anchor = anchor_of(f"e{number}", result.estimator.name)
    tests = []
    for index, test in enumerate(results.design.tests):
        maps = ResultMaps(result, results.grid, results.design, test)
        tests.append(_test_view(maps, results, sheet, f"{anchor}-t{index}", pictured=index < budget))
    first = ResultMaps(result, results.grid, results.design, results.design.tests[0])
    units = effect_units(first, results)
    pictures = _fit_pictures(first, results, plan, units)
    why = auto_reason(result).rstrip(".")
    return {
        "anchor": anchor,
        "stem": _stem(first, "n"),
        "name": result.estimator.name,
        "title": result.estimator.title[:1].upper() + result.estimator.title[1:],
        "reason": f"Chosen by auto: {why}." if why else "",
        "facts": [
            *fit_facts(describe_fit(first), units),
            *result.facts,
            *describe_settings(result.estimator, result.settings),
        ],
        "tests": tests,
        "n_voxels": results.grid.n_voxels,
        "pictures": pictures,
        "coverage_title": "Coverage" if len(pictures) == 1 else "Coverage and heterogeneity",
    }


def found_rows(estimators: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per estimator, test and inference, from the parts of a group page."""
    return [
        {"estimator": part["name"], "n_voxels": part["n_voxels"], "test": test, "row": row}
        for part in estimators
        for test in part["tests"]
        for row in test["inferences"]
    ]


def _test_view(maps: ResultMaps, results: Results, sheet: Sheet, anchor: str, *, pictured: bool) -> dict[str, Any]:
    """Numbers and pictures of one test."""
    row = describe_test(maps.test, results.design.columns)
    units = effect_units(maps, results)
    inferences, space = count_significant(maps, results), space_of(results)
    unpictured = "" if pictured else "No pictures: the page shows those of its first tests only; the maps are on disk."
    return {
        "anchor": anchor,
        "stem": _stem(maps, "z"),
        "name": row.name,
        "statistic": next((name for name in ("F", "t") if maps.path(name) is not None), "z"),
        "tail": row.tail,
        "two_sided": row.tail == "two-sided",
        "signed": not maps.test.is_f,
        "units": "" if maps.path("effect") is None else units,
        "peaks": find_peaks(maps),
        "inferences": inferences,
        "pictures": _test_pictures(maps, results, sheet, inferences, units) if pictured else [],
        "viewer": view_maps(maps, inferences, sheet.embedded, units, space) if pictured else None,
        "unpictured": unpictured,
        "absence": view_absence(maps, sheet, space, units),
        "inference": view_inference(maps, pictured=pictured),
        "evidence": view_evidence(maps.result, results, maps.test, units) if pictured else None,
    }


def view_inference(maps: ResultMaps, *, pictured: bool) -> dict[str, Any]:
    """Thresholds and smoothness of one test; with ``pictured``, its null distributions and the QQ plot of p too."""
    plots: list[Plot] = []
    if pictured:
        two_sided = maps.test.tail == "two-sided"
        nulls = (draw_null(finding, two_sided=two_sided) for finding in maps.findings)
        found = None if maps.test.of else find_quantiles(maps)  # the largest of several p is not uniform under the null
        plots = [plot for plot in (*nulls, draw_quantiles(found) if found else None) if plot is not None]
    resampled = any(finding.null is not None for finding in maps.findings)
    return {
        "thresholds": find_thresholds(maps),
        "smoothness": smoothness_facts(maps),
        "heading": "Null distributions and p values" if resampled else "p values",
        "plots": plots,
    }


def _test_pictures(
    maps: ResultMaps,
    results: Results,
    sheet: Sheet,
    inferences: Sequence[InferenceNumbers],
    units: str,
) -> list[Picture]:
    """Glass brain, then slices of z and effect, whole and where significant."""
    z, effect = maps.volume("z"), maps.volume("effect")
    if z is None or not results.grid.n_voxels:
        return []
    plan = sheet.plan(results.grid, space_of(results))
    first = inferences[0] if inferences else None
    passed = _passed(maps, first, z)
    found = passed is not None and bool(passed.any())
    words = f"{first.title}, {format_number(first.n_significant)} voxels" if first else ""
    least = float(np.abs(z[passed]).min()) if passed is not None and found else None
    cut = scale_of_z(z[results.grid.mask], least, signed=not maps.test.is_f)
    scale = replace(cut, threshold=None)
    through = sheet.plan(results.grid, space_of(results), _cuts(maps, inferences, z))
    seen = np.where(passed, z, 0.0) if passed is not None and found else z
    shown = f"where significant ({words})" if found else "over the whole mask, not thresholded"
    if first is not None and not found:
        shown += f": no voxel is significant by {first.title}"
    mni = lies_in_mni152(results.grid, space_of(results))
    corr = _corr_of(maps, first) if found else ""
    pictures = [
        with_ending(draw_glass(results.grid, seen, cut, f"Projections of z {shown}.", mni=mni), corr, "stat-z_glass")
    ]
    if mni and maps.test is results.design.tests[0]:  # drawing takes a second: for the first test only
        where = passed if found else None
        surface = draw_surface(results.grid, z, cut if found else scale, f"z {shown}. {CORTEX}", where)
        pictures += [with_ending(surface, corr, "stat-z_surface")] if surface else []
    if passed is not None and found:
        text = f"z where significant ({words}). {NEUROLOGICAL}"
        pictures.append(with_ending(draw_mosaic(through, z, cut, text, passed), corr, "stat-z_slices"))
    pictures.append(with_ending(draw_mosaic(plan, z, scale, f"z, not thresholded. {NEUROLOGICAL}"), "stat-z_slices"))
    if effect is not None:
        label = _with_units("effect", units)
        if passed is not None and found:
            text = f"Effect where significant ({words}). {NEUROLOGICAL}"
            drawn = draw_mosaic(through, effect, signed_scale(effect[passed], label), text, passed)
            pictures.append(with_ending(drawn, corr, "stat-effect_slices"))
        text = f"Effect, not thresholded. {NEUROLOGICAL}"
        effects = signed_scale(effect[results.grid.mask], label, outliers=True)
        pictures.append(with_ending(draw_mosaic(plan, effect, effects, text), "stat-effect_slices"))
    return pictures


def _cuts(maps: ResultMaps, inferences: Sequence[InferenceNumbers], z: Floats) -> tuple[float, ...]:
    """Choose slices through what any inference found, so that pictures of all of them show the same ones."""
    found = [passed for one in inferences if (passed := _passed(maps, one, z)) is not None]
    return find_cuts(maps.grid, np.logical_or.reduce(found), z) if found else ()


def _stem(maps: ResultMaps, kind: str) -> str:
    """What the file names of a test's maps begin with (with kind ``n``: of an estimator's)."""
    path = maps.path(kind)
    return path.name.partition("_stat-")[0] if path else ""


def _corr_of(maps: ResultMaps, inference: InferenceNumbers | None) -> str:
    """``corr-<inference>``, as in the names of files."""
    path = maps.path("mask", inference.name) if inference else None
    found = re.search(r"corr-[^_]+", path.name) if path else None
    return found[0] if found else ""


def _passed(maps: ResultMaps, first: InferenceNumbers | None, z: Floats) -> NDArray[np.bool_] | None:
    """Where the first inference is significant; None without inference."""
    if first is None:
        return None
    mask = maps.volume("mask", first.name)
    if mask is not None:
        return (mask > 0) & maps.grid.mask
    if first.z_threshold is None:
        return None
    return ((z if maps.test.is_f else np.abs(z)) >= first.z_threshold) & maps.grid.mask


def _fit_pictures(maps: ResultMaps, results: Results, plan: SlicePlan, units: str) -> list[Picture]:
    """Coverage and heterogeneity: n, tau, I2."""
    inside, pictures = results.grid.mask, []
    n, tau2, i2, icc, omega2 = (maps.volume(kind) for kind in ("n", "tau2", "i2", "icc", "omega2"))
    if n is not None and inside.any():
        total = len(results.analysis.observations)
        text = f"Number of maps (of {total}) that cover each voxel. {NEUROLOGICAL}"
        scale = positive_scale(n[inside], "maps at the voxel (n)", low=_least(n[inside]), high=float(total))
        pictures.append(with_ending(draw_mosaic(plan, n, scale, text), "stat-n_slices"))
    between = {} if tau2 is None else {"": tau2}
    between |= maps.tau2_of_groups()
    for of, values in between.items():
        if not inside.any():
            break
        tau = np.sqrt(np.maximum(values, 0.0))
        units_of = _plural(results) if icc is None else plural_of(noun_of(results.design.unit_name))
        units_of = units_of if omega2 is None else results.design.cluster_plural
        whom = f"{units_of} ({of})" if of else units_of
        text = f"tau, the standard deviation of true effects between {whom}. {NEUROLOGICAL}"
        scale = positive_scale(tau[inside], _with_units("tau", units))
        ending = f"stat-tau{group_label('', of)}_slices"
        pictures.append(with_ending(draw_mosaic(plan, tau, scale, text), ending))
    if icc is not None and inside.any():
        which = plural_of(noun_of(results.design.unit_name))
        text = f"Intraclass correlation (icc): the share of the variance that lies between {which}. {NEUROLOGICAL}"
        scale = positive_scale(icc[inside], "icc", high=1.0)
        pictures.append(with_ending(draw_mosaic(plan, icc, scale, text), "stat-icc_slices"))
    if omega2 is not None and inside.any():
        omega = np.sqrt(np.maximum(omega2, 0.0))
        text = f"omega, the standard deviation of true effects within {results.design.cluster_plural}. {NEUROLOGICAL}"
        scale = positive_scale(omega[inside], _with_units("omega", units))
        pictures.append(with_ending(draw_mosaic(plan, omega, scale, text), "stat-omega_slices"))
    if i2 is not None and inside.any():
        text = f"I², the share of the variation that sampling error does not explain. {NEUROLOGICAL}"
        scale = positive_scale(i2[inside], "I² (%)", high=100.0)
        pictures.append(with_ending(draw_mosaic(plan, i2, scale, text), "stat-i2_slices"))
    return pictures


def participant_view(results: Results, sheet: Sheet, number: int, *, pictured: bool) -> dict[str, Any]:
    """One combined contrast of a participant's page."""
    entities = {key: label for key, label in results.analysis.entities.items() if key != "sub"}
    result = results.estimators[0]
    maps = ResultMaps(result, results.grid, results.design, results.design.tests[0])
    units = effect_units(maps, results)
    table, fit = maps_table(results), describe_fit(maps)
    return {
        "anchor": f"a{number}",
        "title": title_of(entities),
        "name": results.analysis.name,
        "facts": [("Maps combined", len(table.rows)), *fit_facts(fit, units), *grid_facts(results)[1:3]],
        "maps": table,
        "peaks": find_peaks(maps),
        "units": units,
        "viewer": (
            view_maps(maps, (), sheet.embedded, units, space_of(results), PARTICIPANT_LIMITS) if pictured else None
        ),
        "pictures": _participant_pictures(maps, results, sheet, units) if pictured else [],
        "unpictured": (
            "" if pictured else "No pictures: the page shows those of its first contrasts only; "
            "the maps are on disk."
        ),
    }  # fmt: skip


def _participant_pictures(maps: ResultMaps, results: Results, sheet: Sheet, units: str) -> list[Picture]:
    """Slices of effect and z, and how many maps cover each voxel."""
    plan = sheet.plan(results.grid, space_of(results))
    pictures, inside = [], results.grid.mask
    for kind, label, words in (("effect", _with_units("effect", units), "Effect"), ("z", "z", "z")):
        volume = maps.volume(kind)
        if volume is not None and inside.any():
            text = f"{words}, not thresholded. {NEUROLOGICAL}"
            drawn = draw_mosaic(plan, volume, signed_scale(volume[inside], label, outliers=kind == "effect"), text)
            pictures.append(with_ending(drawn, f"stat-{kind}_slices"))
    return [*pictures, *_fit_pictures(maps, results, plan, units)]


def reference_rows(references: Iterable[str]) -> list[dict[str, str]]:
    """Separate the web address of each reference, for a link."""
    rows = []
    for reference in references:
        found = re.search(r"\s*(https?://\S+)$", reference)
        link = found.group(1) if found else ""
        rows.append({"text": reference[: found.start()] if found else reference, "link": link})
    return rows


def _with_units(quantity: str, units: str) -> str:
    return f"{quantity} (units unknown)" if units in ("", "unknown") else f"{quantity} ({units})"


def _least(values: Floats) -> float:
    """Where the scale of n begins: the smallest count, or 0 where all are alike."""
    least = float(values.min())
    return least if least < float(values.max()) else 0.0


def _plural(results: Results) -> str:
    unit = results.analysis.unit
    return "studies" if unit == "study" else f"{unit}s"
