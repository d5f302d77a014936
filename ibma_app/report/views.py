"""What the templates get: results as rows, facts and pictures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ibma_app.core.results import EstimatorResult, Results
from ibma_app.report.evidence import view_evidence
from ibma_app.report.figures.at_peaks.region_dots import view_regions
from ibma_app.report.figures.brains.plans import Sheet
from ibma_app.report.figures.null_distributions import draw_null
from ibma_app.report.figures.plot import Plot
from ibma_app.report.figures.quantiles import draw_quantiles, find_quantiles
from ibma_app.report.figures.viewer import PARTICIPANT_LIMITS, view_maps
from ibma_app.report.how_large import view_absence, view_least
from ibma_app.report.inputs import maps_table
from ibma_app.report.map_pictures import NO_PICTURES, TestPictures, draw_fit, draw_participant, draw_test
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import (
    FitNumbers,
    InferenceNumbers,
    Peak,
    count_significant,
    describe_fit,
    dof_range,
    effect_units,
    find_peaks,
    join_dofs,
)
from ibma_app.report.text.agreement_of_runs import tell_agreement
from ibma_app.report.text.facts import describe_settings
from ibma_app.report.text.methods_section import auto_reason, space_of
from ibma_app.report.text.tests import describe_test
from ibma_app.report.text.thresholds import Thresholds, find_thresholds, smoothness_facts
from ibma_app.report.text.what_was_found import label_test, tell_everywhere, tell_found, tell_nothing

Fact = tuple[str, Any]


def title_of(entities: Mapping[str, str]) -> str:
    """Name an analysis for a reader, its contrast first: ``contrast faces, task x``."""
    order = sorted(entities, key=lambda key: key != "contrast")
    return ", ".join(f"{key} {entities[key]}" for key in order) or "all maps"


def anchor_of(*parts: str) -> str:
    """Make a fragment identifier of letters and digits; callers number them to keep them unique."""
    return "-".join(re.sub(r"[^A-Za-z0-9]+", "", part) or "x" for part in parts)


def grid_facts(results: Results) -> list[Fact]:
    """Mask size, grid and space of an analysis."""
    if results.grid.box is None:
        return [
            ("Voxels in the mask", results.grid.n_voxels),
            ("Structures", results.grid.words),
            ("Space", space_of(results) or "not named"),
        ]
    size = results.grid.box.voxel_sizes
    voxel = " × ".join(f"{edge:.3g}" for edge in size)
    return [
        ("Voxels in the mask", results.grid.n_voxels),
        ("Volume of the mask (cm³)", results.grid.n_voxels * results.grid.box.voxel_volume / 1000.0),
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
    tests, dofs = [], {}
    for index, test in enumerate(results.design.tests):
        maps = ResultMaps(result, results.grid, results.design, test)
        dofs[test.name] = dof_range(maps)
        tests.append(_test_view(maps, results, sheet, f"{anchor}-t{index}", pictured=index < budget))
    first = ResultMaps(result, results.grid, results.design, results.design.tests[0])
    units = effect_units(first, results)
    pictures, fit = draw_fit(first, results, plan, units), describe_fit(first)
    covered = any(picture.figure.startswith("stat-n_") for picture in pictures)
    fit, why = replace(fit, dof=join_dofs(dofs) or fit.dof), auto_reason(result).rstrip(".")
    return {
        "anchor": anchor,
        "stem": _stem(first, "n"),
        "name": result.estimator.name,
        "title": result.estimator.title[:1].upper() + result.estimator.title[1:],
        "reason": f"Chosen automatically: {why}." if why else "",
        "facts": [*fit_facts(fit, units), *result.facts, *describe_settings(result.estimator, result.settings)],
        "tests": tests,
        "n_voxels": results.grid.n_voxels,
        "pictures": pictures,
        "coverage_title": "Coverage" if covered and len(pictures) == 1 else "Coverage and heterogeneity",
        "coverage": "" if covered or fit.n_max is None else f"Each voxel of the mask has all {fit.n_max} maps.",
    }


def found_matrix(estimators: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was found, one row per estimator and test and one column per inference, from the parts of a group page."""
    rows = [(part, test) for part in estimators for test in part["tests"] if test["inferences"]]
    names = tuple(dict.fromkeys(row.name for _, test in rows for row in test["inferences"]))
    return {
        "names": names,
        "clusters": any(
            table.n_clusters and not table.single
            for _, test in rows
            for row in test["inferences"]
            if (table := row.clusters) is not None
        ),
        "rows": [
            {
                "estimator": part["name"],
                "test": test,
                "cells": [next((one for one in test["found"] if one["row"].name == name), None) for name in names],
            }
            for part, test in rows
        ],
    }


def _test_view(maps: ResultMaps, results: Results, sheet: Sheet, anchor: str, *, pictured: bool) -> dict[str, Any]:
    """Numbers and pictures of one test."""
    row = describe_test(maps.test, results.design.columns)
    units = effect_units(maps, results)
    inferences, space, peaks = count_significant(maps, results), space_of(results), find_peaks(maps)
    pictures = draw_test(maps, results, sheet, inferences, units) if pictured else NO_PICTURES
    unpictured = "" if pictured else "No pictures: the page shows those of its first tests only; the maps are on disk."
    inference = view_inference(maps, pictured=pictured)
    return {
        "anchor": anchor,
        "stem": _stem(maps, "z"),
        "name": row.name,
        "label": label_test(maps.test, results),
        "statistic": next((name for name in ("F", "t") if maps.path(name) is not None), "z"),
        "tail": row.tail,
        "signed": maps.test.signed,
        "units": "" if maps.path("effect") is None else units,
        "peaks": peaks,
        "inferences": inferences,
        "found": _found_views(maps, inferences, peaks, pictures, inference["thresholds"], anchor),
        "nothing": tell_everywhere(inferences),
        "surface": pictures.surface,
        "whole": pictures.whole,
        "viewer": view_maps(maps, inferences, sheet.embedded, units, space) if pictured else None,
        "unpictured": unpictured,
        "absence": view_absence(maps, sheet, space, units),
        "least": view_least(maps, sheet, units, results) if pictured else None,
        "regions": view_regions(maps.result, results.design, maps.test, units, results.output_dir),
        "inference": inference,
        "evidence": view_evidence(maps.result, results, maps.test, units) if pictured else None,
    }


def _found_views(
    maps: ResultMaps,
    inferences: Sequence[InferenceNumbers],
    peaks: Sequence[Peak],
    pictures: TestPictures,
    thresholds: Thresholds | None,
    anchor: str,
) -> list[dict[str, Any]]:
    """What each inference found: a sentence, its pictures and its clusters."""
    heights = {one.inference: one for one in (thresholds.rows if thresholds else ())}
    drawn = pictures.found or (None,) * len(inferences)
    return [
        {
            "anchor": f"{anchor}-i{index}",
            "row": row,
            "sentence": (
                tell_found(row, maps.grid.n_voxels, maps.test)
                if row.n_significant
                else tell_nothing(row, peaks, heights.get(row.name), maps.test)
            ),
            "pictures": picture,
        }
        for index, (row, picture) in enumerate(zip(inferences, drawn, strict=True))
    ]


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


def _stem(maps: ResultMaps, kind: str) -> str:
    """What the file names of a test's maps begin with (with kind ``n``: of an estimator's)."""
    path = maps.path(kind)
    stem = path.name.partition("_stat-")[0] if path else ""
    # the file of a kind is the first of its hemispheres; pictures show all of them
    return re.sub("(^|_)hemi-[^_]+_", r"\1", stem) if len(maps.grid.hemispheres) > 1 else stem


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
        "agreement": tell_agreement(results),
        "peaks": find_peaks(maps),
        "units": units,
        "viewer": (
            view_maps(maps, (), sheet.embedded, units, space_of(results), PARTICIPANT_LIMITS) if pictured else None
        ),
        "pictures": draw_participant(maps, results, sheet, units) if pictured else [],
        "unpictured": (
            "" if pictured else "No pictures: the page shows those of its first contrasts only; "
            "the maps are on disk."
        ),
    }  # fmt: skip


def reference_rows(references: Iterable[str]) -> list[dict[str, str]]:
    """Separate the web address of each reference, for a link."""
    rows = []
    for reference in references:
        found = re.search(r"\s*(https?://\S+)$", reference)
        link = found.group(1) if found else ""
        rows.append({"text": reference[: found.start()] if found else reference, "link": link})
    return rows
