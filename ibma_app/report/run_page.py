"""The page of one run: design and events, motion, correlations, what the noise is like, effect maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ibma_app.core.bold_run import RunContrastResult, RunResults
from ibma_app.core.labels import contrast_label
from ibma_app.report.figures.brains.plans import PicturePlan, Sheet
from ibma_app.report.figures.picture import Picture, positive_scale, signed_scale, with_ending
from ibma_app.report.figures.plot import Plot
from ibma_app.report.figures.svg_files import Figure, save_figures
from ibma_app.report.figures.time_courses import draw_column_correlations, draw_motion, draw_regressors
from ibma_app.report.html import format_number, render
from ibma_app.report.pages import Save
from ibma_app.report.text.notes import PageNote
from ibma_app.report.views import reference_rows, title_of

PICTURED = 12  # contrasts
HIGH_VIF = 5.0  # from which a regressor is said to be hard to tell from others

MAPS = (
    ("mean", "Mean image", "The mean of the BOLD over the volumes used."),
    ("rsquared", "R²", "Share of the variance about the mean that the design explains (ordinary least squares)."),
    ("rho", "Autocorrelation", "Autocorrelation of the noise at a lag of one volume, corrected for the design."),
)


def write_run_page(results: RunResults, folder: Path, save: Save, version: str, software: Mapping[str, str]) -> Path:
    """Write ``run_<name>.html``.

    Parameters
    ----------
    results : RunResults
    folder : Path
        OUTPUT_DIR.
    save : callable
        ``save(path, text)`` writes a text file atomically.
    version : str
        Of ibma-app.
    software : mapping
        Names and versions.
    """
    sheet = Sheet()
    plan = sheet.plan(results.grid, results.entities.get("space"))
    plots = [plot for plot in (draw_regressors(results), draw_motion(results)) if plot is not None]
    matrix = draw_column_correlations(results)
    quality = [_map_picture(plan, results, *one) for one in MAPS]
    effects = [_contrast_picture(plan, results, one) for one in results.contrasts[:PICTURED]]
    path = folder / f"run_{results.name}.html"
    content = render(
        "run.html.j2",
        kicker="Run level",
        title=title_of(results.entities),
        description=_describe(results),
        contents=_contents(),
        version=version,
        plans=sheet.plans,
        blocks=sheet.embedded.blocks,
        summary=results.facts,
        notes=tuple(PageNote("", text) for text in _notes(results)),
        plots=plots,
        matrix=matrix,
        regressors=[(name, results.inflation[name]) for name in results.conditions],
        contrasts=results.contrasts,
        missing=tuple(results.missing.items()),
        quality=quality,
        effects=effects,
        unpictured=max(0, len(results.contrasts) - PICTURED),
        methods=results.methods,
        references=reference_rows(results.references),
        software=tuple(software.items()),
    )
    save(path, content)
    drawings: tuple[Plot | Picture, ...] = (*plots, *quality, *effects)
    save_figures((Figure(results.name, one.figure, one) for one in drawings), sheet.plans, folder, save)
    return path


def _describe(results: RunResults) -> str:
    volumes = len(results.frame_times) - len(results.scrubbed)
    return (
        f"{format_number(volumes)} volumes, {len(results.conditions)} regressors of events and "
        f"{len(results.confounds)} confounds at {format_number(results.grid.n_voxels)} voxels."
    )


def _notes(results: RunResults) -> list[str]:
    """List the notes, with what the numbers of the page suggest."""
    high = [name for name in results.conditions if results.inflation[name] > HIGH_VIF]
    notes = [f"Contrast {name} is missing: {why}." for name, why in results.missing.items()]
    if high:
        notes.append(f"Hard to tell from other columns (VIF above {HIGH_VIF:g}), with large errors: {', '.join(high)}.")
    return [*notes, *results.notes]


def _map_picture(plan: PicturePlan, results: RunResults, kind: str, title: str, caption: str) -> Picture:
    values = results.maps[kind]
    volume = np.asarray(results.grid.to_volume(values), dtype=np.float64)
    scale = signed_scale(values, title, outliers=True) if kind == "rho" else positive_scale(values, title)
    return with_ending(plan.draw(volume, scale, caption), f"stat-{kind}")


def _contrast_picture(plan: PicturePlan, results: RunResults, contrast: RunContrastResult) -> Picture:
    volume = np.asarray(results.grid.to_volume(contrast.values), dtype=np.float64)
    make = signed_scale if contrast.signed else positive_scale
    scale = (
        signed_scale(contrast.values, contrast.quantity, outliers=True)
        if make is signed_scale
        else positive_scale(contrast.values, contrast.quantity)
    )
    label = contrast_label(contrast.name)  # as in the names of its maps
    return with_ending(
        plan.draw(volume, scale, f"{contrast.name}: {contrast.weights}."), f"contrast-{label}", "stat-effect"
    )


def _contents() -> list[dict[str, Any]]:
    titles = {
        "notes": "Warnings and notes",
        "design": "Design and events",
        "regressors": "Regressors and contrasts",
        "noise": "Image and noise",
        "effects": "Effects",
        "methods": "Methods",
        "references": "References",
        "software": "Software",
    }
    return [{"anchor": anchor, "title": title, "children": []} for anchor, title in titles.items()]
