"""The files of a run: maps, sidecars, the design's table, and the page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.labels import contrast_label
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import MapWriter, save_json, save_series, save_tsv
from ibma_app.firstlevel.design import CONSTANT
from ibma_app.firstlevel.fit import ContrastMaps
from ibma_app.importers.units import PERCENT, Scaling, percent, unknown
from ibma_app.stats.tails import z_to_log10p
from ibma_app.workflows.command.log import software_versions
from ibma_app.workflows.first_level.describe_run import results_of
from ibma_app.workflows.first_level.kept_runs import folder_of, keep_run, write_page
from ibma_app.workflows.first_level.model_run import ModelledRun
from ibma_app.workflows.first_level.plan_runs import output_entities
from ibma_app.workflows.write.sidecars import STANDARD_SPACES, kind_units

Vector = NDArray[np.float64]

AT_ONCE = 16  # volumes of residuals that are in memory together
SMALLEST_P = float(np.finfo(np.float32).smallest_subnormal)
DESCRIPTIONS = {
    "effect": "Effect (contrast of parameter estimates) of one run",
    "variance": "Sampling variance of the effect (squared standard error)",
    "t": "t statistic",
    "F": "F statistic",
    "z": "z statistic",
    "p": "Uncorrected p value",
    "mean": "Mean of the BOLD over the volumes used",
    "rsquared": "R squared: share of the variance about the mean that the design explains, by ordinary least squares",
    "rho": "Autocorrelation of the noise at a lag of one volume",
    "residsd": "Standard deviation of the residuals, by ordinary least squares",
}


def write_run(modelled: ModelledRun, output: Output, rows: NDArray[np.float32], records: Path, *, report: bool) -> None:
    """Write all files of a run.

    Parameters
    ----------
    modelled : ModelledRun
    output : Output
    rows : ndarray of float32, shape (V, T)
        The series, for residuals.
    records : Path
        Where what the page shows is kept, relative to OUTPUT_DIR.
    report : bool
        Whether a page is written.
    """
    writer, folder = MapWriter(output), folder_of(output_entities(modelled.run))
    common = common_sidecar(modelled)
    shown: dict[str, tuple[Vector, str]] = {}
    for maps in modelled.fit.contrasts:
        scaling = scaling_of(modelled, maps)
        shown[maps.contrast.name] = (maps.z, scaling.units)
        entities = {**output_entities(modelled.run), "contrast": contrast_label(maps.contrast.name)}
        for kind, values, fill in _contrast_maps(maps, scaling, modelled.fit.fitted):
            name = output_name({**entities, "stat": kind}, "statmap")
            sidecar = contrast_sidecar(common, modelled, maps, kind, scaling)
            writer.save(folder / name, values, modelled.grid, sidecar, fill=fill)
            if kind == "effect":
                shown[maps.contrast.name] = (values, scaling.units)
    for kind, values in _run_maps(modelled):
        name = output_name({**output_entities(modelled.run), "stat": kind}, "statmap")
        units = {"mean": "arbitrary", "residsd": "arbitrary"}.get(kind, "1")
        sidecar = {"Description": f"{DESCRIPTIONS[kind]}.", **common, "Units": units}
        writer.save(folder / name, values, modelled.grid, sidecar)
    write_design(modelled, output, folder, common)
    if modelled.settings.residuals:
        write_residuals(modelled, output, folder, rows)
    results = results_of(modelled, shown)
    keep_run(output, records, results)
    if report:
        write_page(output, results)


def write_residuals(modelled: ModelledRun, output: Output, folder: Path, rows: NDArray[np.float32]) -> None:
    """Write what the design leaves of the series, some volumes in memory at a time."""
    design, timing = modelled.design, modelled.design.timing
    name = folder / output_name({**output_entities(modelled.run), "desc": "residuals"}, "bold")
    blocks = (
        modelled.fit.residuals(rows[:, start : start + AT_ONCE], design.matrix[start : start + AT_ONCE])
        for start in range(0, timing.n_volumes, AT_ONCE)
    )
    save_series(output, name, blocks, modelled.grid, timing.n_volumes, timing.repetition_time)
    sidecar = {
        "Description": "Residuals of the run's model, y - X b, in the units of the BOLD, with b as the contrasts have "
        "it. Volumes that are scrubbed have what the model of the noise expects from their neighbours; voxels that are "
        "not fitted have 0.",
        "TaskName": str(modelled.run.metadata.get("TaskName") or modelled.run.entities.get("task", "")),
        "SkullStripped": True,
        **common_sidecar(modelled),
        "StartTime": float(timing.frame_times[0]),
        "Units": "arbitrary",
    }
    save_json(output, name.with_name(name.name.replace(".nii.gz", ".json")), sidecar)


def scaling_of(modelled: ModelledRun, maps: ContrastMaps) -> Scaling:
    """Find what makes a contrast's effects percent signal change; derivatives and confounds have no height."""
    if modelled.settings.units != PERCENT:
        return unknown("As the BOLD has them (units = none).")
    if maps.effect is None:
        return unknown("An F test has no effect of one dimension.")
    mean = np.where(modelled.fit.fitted, modelled.fit.mean, np.nan)
    source = f"the voxel's mean over {modelled.design.timing.n_volumes - len(modelled.design.scrubbed)} volumes"
    return percent(mean, source, maps.contrast.rows[0], modelled.design.heights)


def _contrast_maps(
    maps: ContrastMaps, scaling: Scaling, fitted: NDArray[np.bool_]
) -> Iterator[tuple[str, NDArray[Any], float]]:
    """List the maps of a contrast: kind, values, value outside of the mask."""
    if maps.effect is not None and maps.variance is not None:
        for kind, values in (("effect", maps.effect), ("variance", maps.variance)):
            with np.errstate(invalid="ignore"):
                scaled = scaling.scale(kind, values)
            yield kind, np.where(fitted & np.isfinite(scaled), scaled, 0.0), 0.0
    yield maps.contrast.stat, maps.statistic, 0.0
    yield "z", maps.z, 0.0
    tail = "two-sided" if maps.contrast.stat == "t" else "positive"
    p = np.maximum(10.0 ** -z_to_log10p(maps.z, tail), SMALLEST_P)
    yield "p", np.where(fitted, p, 1.0), 1.0


def _run_maps(modelled: ModelledRun) -> Iterator[tuple[str, Vector]]:
    """List the maps of a run that belong to no contrast."""
    fit = modelled.fit
    yield "mean", np.where(np.isfinite(fit.mean), fit.mean, 0.0)
    yield "rsquared", fit.rsquared
    yield "rho", fit.rho
    yield "residsd", fit.residual_sd


def common_sidecar(modelled: ModelledRun) -> dict[str, Any]:
    """Make the part of the sidecar that all files of a run share."""
    design, timing, run = modelled.design, modelled.design.timing, modelled.run
    sidecar: dict[str, Any] = {
        "Sources": list(run.sources),
        "RepetitionTime": timing.repetition_time,
        "StartTime": timing.start_time,
        "StartTimeSource": timing.source,
        "NumberOfVolumes": timing.n_volumes - len(design.scrubbed),
        "DroppedVolumes": timing.dropped,
        "ScrubbedVolumes": [volume + timing.dropped for volume in design.scrubbed],
        "HRF": design.hrf,
        "NoiseModel": modelled.noise.words,
        "HighPass": design.high_pass,
        "Confounds": list(design.confounds),
        "LargestVIF": round(max(design.inflation.values(), default=1.0), 4),
        "Model": {"Type": "glm", "X": [1 if name == CONSTANT else name for name in design.columns]},
        "SmoothingFWHM": modelled.settings.smoothing,
        "Software": software_versions(),
    }
    space = run.entities.get("space")
    if space is not None and not space.startswith(STANDARD_SPACES):
        sidecar["SpatialReference"] = str(run.metadata.get("SpatialReference") or run.sources[0])
    if modelled.notes:
        sidecar["Warnings"] = list(dict.fromkeys(modelled.notes))
    return sidecar


def contrast_sidecar(
    common: Mapping[str, Any], modelled: ModelledRun, maps: ContrastMaps, kind: str, scaling: Scaling
) -> dict[str, Any]:
    """Make the sidecar of a contrast's map."""
    rows = [dict(row) for row in maps.contrast.rows]
    calibration = modelled.fit.calibration
    sidecar: dict[str, Any] = {
        "Description": f"{DESCRIPTIONS[kind]}.",
        "ContrastName": maps.contrast.name,
        "Units": kind_units(kind, scaling.units),
        "UnitsSource": scaling.source,
        "DegreesOfFreedom": round(maps.dof, 4),
        "ResidualDegreesOfFreedom": modelled.design.dof,
        "ContrastWeights": rows[0] if len(rows) == 1 else rows,
        "Efficiency": modelled.design.efficiency.get(maps.contrast.name),
        **common,
    }
    if scaling.height is not None:
        sidecar["RegressorHeight"] = scaling.height
    if calibration is not None:
        index = modelled.fit.contrasts.index(maps)
        sidecar["VarianceFactor"] = round(float(calibration.factors[index]), 6)
    if kind == "F":
        sidecar["TestWeights"] = rows
    return sidecar


def write_design(modelled: ModelledRun, output: Output, folder: Path, common: Mapping[str, Any]) -> None:
    """Write the design matrix, a row for each volume used, and what its columns are."""
    design = modelled.design
    name = folder / output_name(output_entities(modelled.run), "design", ".tsv")
    rows = (dict(zip(design.columns, map(float, row), strict=True)) for row in design.matrix)
    save_tsv(output, name, design.columns, rows)
    content: dict[str, Any] = {
        "Description": "The design matrix: a row for each volume that is used.",
        **{column: _describe_column(design, column) for column in design.columns},
        "Contrasts": {
            one.name: {"Weights": [dict(row) for row in one.rows], "Test": one.stat,
                       "Efficiency": design.efficiency.get(one.name)}
            for one in design.contrasts
        },
        "MissingContrasts": dict(design.missing),
        **common,
    }  # fmt: skip
    save_json(output, name.with_suffix(".json"), content)


def _describe_column(design: Any, column: str) -> dict[str, Any]:
    """Describe a column of the design."""
    if column in design.conditions:
        words: dict[str, Any] = {"Description": f"Regressor of events, convolved with {design.hrf}"}
        if column in design.heights:
            words["RegressorHeight"] = design.heights[column]
        return {**words, "VIF": round(design.inflation[column], 4)}
    if column in design.confounds:
        return {"Description": "Confound"}
    if column.startswith("scrubbed_"):
        return {"Description": "1 in one volume that is left out"}
    return {"Description": "Constant" if column == "constant" else "High-pass"}
