"""Inference on an estimate: what each method needs, what it finds, and the files it gets."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.design import Test
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate, Field, Null, Significance, Smoothness
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import (
    Absence,
    CalibrationFacts,
    CaveatFacts,
    NeighbourFacts,
    ResamplingFacts,
    ThresholdFacts,
    find_fact,
    sidecar_of,
)
from ibma_app.core.methods import Inference, InferenceSettings
from ibma_app.core.results import Finding, NullShape, WrittenFile
from ibma_app.dataset.write import save_json, save_tsv
from ibma_app.inference import inferences_that
from ibma_app.inference.cluster_table import ClusterRow, table_columns, tabulate_clusters
from ibma_app.inference.clusters import apply_min_extent
from ibma_app.inference.conjunction import conjoin, conjoin_fields
from ibma_app.inference.nulls import summarise_null
from ibma_app.stats.calibration import calibrate, uncalibrate
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.resampling.calibrate import calibrate_tests
from ibma_app.stream.resampling.resample import count_relabellings, score_resamples
from ibma_app.stream.residuals.smoothness import estimate_smoothness
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import Resources
from ibma_app.workflows.command.terminal import progress
from ibma_app.workflows.plan.choose_inferences import CALIBRATE
from ibma_app.workflows.write import sidecars
from ibma_app.workflows.write.effect_bounds import Errors, Fitted, has_errors, write_bounds
from ibma_app.workflows.write.equivalence import NAME as EQUIVALENCE
from ibma_app.workflows.write.equivalence import find_absence
from ibma_app.workflows.write.maps import Target, write_conjunction
from ibma_app.workflows.write.peak_sizes import size_columns, with_sizes

log = logging.getLogger(__name__)

TEXTS = ("region", "composition")
"""Columns of text, one of each for each atlas."""
NEIGHBOURS = 26
"""Of a voxel, in the tables of inferences that say none."""


@dataclass(frozen=True)
class Inferred:
    """What the inferences of one estimator found and wrote."""

    files: tuple[WrittenFile, ...]
    findings: tuple[Finding, ...]
    clusters: dict[tuple[str, str], tuple[ClusterRow, ...]]  # (Test.name, inference) -> rows of its table
    absences: tuple[Absence, ...] = ()


def infer_all(
    target: Target,
    stack: Stack,
    estimate: Estimate,
    settings: InferenceSettings,
    atlases: Sequence[Atlas],
    resources: Resources,
) -> Inferred:
    """Make the inferences of the target's choice on every test; write corrected maps, masks and cluster tables."""
    chosen = target.choice.inferences
    smoothness = _smoothness(target, stack, estimate, target.choice.every_inference, resources)
    far_tail = target.choice.estimator.far_tail
    caveat = far_tail(target.design, target.choice.settings) if far_tail else ""
    calibrations = _calibrate(target, stack, estimate, settings, resources) if target.choice.calibrated else {}
    files: list[WrittenFile] = []
    clusters: dict[tuple[str, str], tuple[ClusterRow, ...]] = {}
    findings, absences = [], []
    decided: dict[tuple[str, str], tuple[Field, Significance]] = {}
    for test in target.design.tests:
        field = make_field(target, estimate, test, smoothness)
        inferences = chosen[test.name]
        null = _null(target, stack, test, inferences, settings, resources)
        name = test.name if target.named_tests else ""
        errors = Errors(Fitted(stack, target.model, estimate, settings, resources), test)
        for inference in inferences:
            seen, significance = _decide(inference, field, null, calibrations.get(test.name), caveat, settings)
            bounds: dict[str, Path] = {}
            if inference.bounds_effects and has_errors(estimate, test) and settings.options.get("bounds", True):
                significance, bounds = write_bounds(target, errors, inference, significance)
            rows = _tabulate(seen, inference, significance, estimate.tests[test.name].effect, atlases, settings)
            rows = with_sizes(rows, target.sizes.get(test.name))
            written = _write(target, test, inference, field, significance, estimate, rows, atlases)
            files += [WrittenFile(name, inference.name, kind, path) for kind, path in (written | bounds).items()]
            clusters[test.name, inference.name] = rows
            findings.append(_finding(name, inference, significance, null))
            if test.name in settings.conjunction:
                decided[test.name, inference.name] = seen, significance
        if (found := find_absence(target, errors)) is not None:
            absences.append(found[0])
            files += [WrittenFile(name, EQUIVALENCE, kind, path) for kind, path in found[1].items()]
    if settings.conjunction:
        more = _infer_together(target, estimate, decided, atlases, settings)
        files += more[0]
        findings += more[1]
    return Inferred(tuple(files), tuple(findings), clusters, tuple(absences))


def _decide(
    inference: Inference,
    field: Field,
    null: Null | None,
    calibration: CalibrationFacts | None,
    caveat: str,
    settings: InferenceSettings,
) -> tuple[Field, Significance]:
    """Make one inference on one test, with calibrated p where there are such; return what it saw, and the result."""
    calibration = calibration if CALIBRATE in inference.settings else None
    seen = field if calibration is None else _calibrated(field, calibration)
    significance = inference.infer(seen, null if inference.score else None, settings)
    if calibration is not None:
        significance = _as_calibrated(significance, calibration)
    elif caveat and inference.uses_far_tail:
        significance = replace(significance, facts=(*significance.facts, CaveatFacts(caveat)))
    if settings.min_extent > 0:
        neighbours = _connectivity(significance, settings)
        significance = apply_min_extent(field, significance, settings.min_extent, connectivity=neighbours)
    return seen, significance


def _infer_together(
    target: Target,
    estimate: Estimate,
    decided: Mapping[tuple[str, str], tuple[Field, Significance]],
    atlases: Sequence[Atlas],
    settings: InferenceSettings,
) -> tuple[list[WrittenFile], list[Finding]]:
    """Infer where several tests are significant together, by every inference that was made on each of them."""
    together = target.design.conjoin(settings.conjunction)
    fields = [make_field(target, estimate, test) for test in target.design.tests if test.name in together.of]
    files, findings = write_conjunction(target, together, conjoin_fields(fields)), []
    for inference in target.choice.inferences[together.of[0]]:
        if any((name, inference.name) not in decided for name in together.of):
            continue  # resampled for some of the tests alone
        pairs = [decided[name, inference.name] for name in together.of]
        seen = conjoin_fields([field for field, _ in pairs])
        significance = conjoin(inference, seen, [one for _, one in pairs], settings)
        neighbours = _connectivity(pairs[0][1], settings)
        significance = apply_min_extent(seen, significance, settings.min_extent, connectivity=neighbours)
        rows = _tabulate(seen, inference, significance, None, atlases, settings)
        written = _write(target, together, inference, seen, significance, estimate, rows, atlases)
        files += [WrittenFile(together.name, inference.name, kind, path) for kind, path in written.items()]
        findings.append(_finding(together.name, inference, significance, None))
    return files, findings


def _calibrate(
    target: Target, stack: Stack, estimate: Estimate, settings: InferenceSettings, resources: Resources
) -> dict[str, CalibrationFacts]:
    """Measure how often the p of each test come up under the null."""
    log.info("Calibrating p of %s.", target.choice.estimator.name)
    with progress(stack.n_voxels, "calibrating", "voxels") as step:
        found = calibrate_tests(
            stack, target.model, estimate, settings.seed, resources, lambda voxels: step("", voxels)
        )
    for name, one in found.items():
        log.info("Test %s: p come up 10^(%.3f %+.3f * -log10 p) times as often.", name, one.intercept, one.slope)
    return found


def _calibrated(field: Field, calibration: CalibrationFacts) -> Field:
    """Return a field with calibrated p; z stay."""
    return replace(field, log10_p=calibrate(field.log10_p, calibration.intercept, calibration.slope))


def _as_calibrated(significance: Significance, calibration: CalibrationFacts) -> Significance:
    """State the calibration, and thresholds of p before it."""
    intercept, slope = calibration.intercept, calibration.slope
    facts = tuple(
        ThresholdFacts(10.0 ** -uncalibrate(-math.log10(one.uncorrected_p), intercept, slope))
        if isinstance(one, ThresholdFacts) and one.uncorrected_p
        else one
        for one in significance.facts
    )
    return replace(significance, facts=(*facts, calibration))


def _finding(test: str, inference: Inference, significance: Significance, null: Null | None) -> Finding:
    return Finding(
        test=test,
        inference=inference,
        n_significant=int(np.count_nonzero(significance.significant)),
        z_threshold=significance.z_threshold,
        facts=significance.facts,
        null=_null_shape(null, inference, significance) if null and inference.score else None,
    )


def _null_shape(null: Null, inference: Inference, significance: Significance) -> NullShape:
    """Describe the null of an inference, and the score from which it is significant."""
    resampling = find_fact(significance.facts, ResamplingFacts)
    return summarise_null(null, inference.name, resampling.score_threshold if resampling else None)


def make_field(target: Target, estimate: Estimate, test: Test, smoothness: Smoothness | None = None) -> Field:
    """Collect what inference sees of one test."""
    fitted = estimate.tests[test.name]
    smallest, largest = None, None
    known = estimate.dof_of(test.name)
    if fitted.statistic is not None and known is not None and fitted.estimable.any():
        there = known[fitted.estimable]
        if np.isfinite(there.min()):
            rows = float(np.linalg.matrix_rank(test.weights)) if fitted.statistic_name == "F" else 1.0
            smallest = (rows, float(there.min()))
            largest = float(there.max()) if there.max() > there.min() else None
    return Field(
        z=fitted.z,
        tail=test.tail,
        estimable=fitted.estimable,
        grid=target.grid,
        log10_p=np.where(fitted.estimable, z_to_log10p(fitted.z, test.tail), 0.0),
        statistic=fitted.statistic,
        statistic_name=fitted.statistic_name,
        dof=smallest,
        largest_dof=largest,
        smoothness=smoothness,
    )


def _smoothness(
    target: Target, stack: Stack, estimate: Estimate, inferences: Sequence[Inference], resources: Resources
) -> Smoothness | None:
    """Estimate the smoothness of the noise, when random field theory asks for it."""
    if not any(inference.needs_smoothness for inference in inferences):
        return None
    log.info("Estimating smoothness for random field theory.")
    return estimate_smoothness(stack, target.model, estimate, resources)


def _null(
    target: Target,
    stack: Stack,
    test: Test,
    inferences: Sequence[Inference],
    settings: InferenceSettings,
    resources: Resources,
) -> Null | None:
    """Resample one test once for all inferences that need it."""
    scores = {i.name: i.score for i in inferences if i.score is not None}
    if not scores:
        return None
    if not all(stack.signed):
        able = inferences_that(lambda record: record.score is None and not record.needs_smoothness)
        raise DataError(
            "Resampling relabels the direction of the maps' effects, and maps of unsigned p values have none. "
            f"Use --inference {', '.join(able[:-1])} or {able[-1]} with them."
        )
    total = count_relabellings(target.model, test, settings)
    log.info("Resampling %s, test %s, for %s.", target.choice.estimator.name, test.name, ", ".join(scores))
    with progress(total, f"resampling {test.name}", "relabellings") as step:
        return score_resamples(stack, target.model, test, scores, settings, resources, lambda done: step("", done))


def _connectivity(significance: Significance, settings: InferenceSettings) -> int:
    """Look up how many neighbours a method's clusters were formed with."""
    fact = find_fact(significance.facts, NeighbourFacts)
    return fact.neighbours if fact else int(settings.options.get("connectivity", NEIGHBOURS))


def _tabulate(
    field: Field,
    inference: Inference,
    significance: Significance,
    effect: NDArray[np.float64] | None,
    atlases: Sequence[Atlas],
    settings: InferenceSettings,
) -> tuple[ClusterRow, ...]:
    """List the clusters that one inference found."""
    measures = {column.name: column.prepare(field, settings) for column in inference.columns}
    neighbours = _connectivity(significance, settings)
    return tabulate_clusters(field, significance, effect, connectivity=neighbours, atlases=atlases, measures=measures)


def _write(
    target: Target,
    test: Test,
    inference: Inference,
    field: Field,
    significance: Significance,
    estimate: Estimate,
    rows: Sequence[ClusterRow],
    atlases: Sequence[Atlas],
) -> dict[str, Path]:
    """Write one inference's maps, mask and table."""
    title = inference.title
    sidecar = _sidecar(target, test, inference, significance, field.tail, sidecars.constant_dof(estimate, test))
    save = _saver(target, test, inference, sidecar)
    written = {
        "log10p": save("log10p", significance.log10_p, np.float32, f"Corrected -log10 p: {title}."),
        "z": save("z", np.where(significance.significant, field.z, 0.0), np.float32,
                  f"z where significant, else 0: {title}."),
        "mask": save("mask", significance.significant, np.int16, f"1 where significant: {title}."),
    }  # fmt: skip
    own = {column.name: {"Description": column.description} for column in inference.columns}
    own |= size_columns(target.sizes.get(test.name))
    columns = table_columns(atlases, own, structures=not isinstance(target.grid, Grid))
    path = target.path("clusters", ".tsv", test=test.name, corr=inference.name)
    written["clusters"] = save_tsv(target.output, path, columns, [_rounded(row.cells()) for row in rows])
    named = {**CLUSTER_COLUMNS, **own}
    described = {column: named[column.partition("_")[0] if column.startswith(TEXTS) else column] for column in columns}
    content = {**sidecar, "Description": f"Clusters and their peaks: {title}.", **described}
    content = sidecars.in_words_of(target.grid, {**content, "Atlas": [atlas.name for atlas in atlases]})
    save_json(target.output, path.with_suffix(".json"), content)
    return written


def _sidecar(
    target: Target,
    test: Test,
    inference: Inference,
    significance: Significance,
    tail: str,
    dof: float | str | None,
) -> dict[str, Any]:
    """Make the sidecar that all files of one inference on one test share."""
    extra = sidecars.inference_sidecar(inference, significance)
    common = sidecars.map_sidecar(target.common, "z", target.units, test=test, design=target.design, dof=dof, tail=tail)
    drawn = {key: value for key, value in sidecar_of(significance.facts).items() if key in ("Resamples", "Seed")}
    return {**common, **drawn, **extra}


def _saver(
    target: Target, test: Test, inference: Inference, sidecar: Mapping[str, Any]
) -> Callable[[str, NDArray[np.generic], type, str], Path]:
    """Return the function that writes one map of an inference with its sidecar."""

    def save(kind: str, values: NDArray[np.generic], dtype: type, description: str) -> Path:
        suffix, stat = ("mask", "") if kind == "mask" else ("statmap", kind)
        path = target.map_path(suffix, test=test.name, corr=inference.name, stat=stat)
        content = {**sidecar, "Description": description, **({"Type": "ROI"} if kind == "mask" else {})}
        return target.writer.save(path, values, target.grid, content, dtype=dtype)

    return save


def _rounded(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Round the positions and sizes of clusters for readers; statistics keep their digits."""
    places = {"x": 4, "y": 4, "z": 4, "area_mm2": 3, "volume_mm3": 3}
    return {
        key: round(value, places[key]) if key in places and value is not None else value for key, value in cells.items()
    }


CLUSTER_COLUMNS: Mapping[str, Any] = {
    "cluster_id": {"Description": "Clusters by number, their further peaks (at least 8 mm apart) by letter."},
    "x": {"Description": "Peak, RAS+", "Units": "mm"},
    "y": {"Description": "Peak, RAS+", "Units": "mm"},
    "z": {"Description": "Peak, RAS+", "Units": "mm"},
    "structure": {"Description": "Part of the brain, by its name in CIFTI files, or the atlas of a table of regions"},
    "vertex": {"Description": "Peak: number of the vertex in the structure's mesh, from 0 on; n/a in volumes"},
    "area_mm2": {"Description": "Area of the cluster: a third of each triangle at its vertices", "Units": "mm2"},
    "peak_z": {"Description": "z statistic at the peak"},
    "mean_z": {"Description": "Mean z statistic of the cluster"},
    "peak_effect": {"Description": "Effect at the peak, in the effect map's units"},
    "log10p": {"Description": "Corrected -log10 p at the peak"},
    "volume_mm3": {"Description": "Volume of the cluster", "Units": "mm3"},
    "n_voxels": {"Description": "Voxels of the cluster"},
    "region": {
        "Description": "Region of the peak (with its probability, of an atlas of probabilities), or the nearest "
        "one within 20 mm; n/a where there is none, or no atlas"
    },
    "composition": {
        "Description": "Regions that the cluster consists of, and their shares: parts of at least 5 percent"
    },
}
