"""The files of an analysis: maps, sidecars, tables."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import Estimate, Field
from ibma_app.core.labels import camel_case, group_label
from ibma_app.core.results import EstimatorResult, Finding, MapSurvey, WrittenFile
from ibma_app.core.statmap import ENDINGS, GIFTI, Analysis
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import MapWriter, save_json, save_tsv
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.effect_sizes import EffectSize
from ibma_app.stream.estimate import Model
from ibma_app.workflows.plan.choose_estimators import Choice
from ibma_app.workflows.write import sidecars

log = logging.getLogger(__name__)

Vector = NDArray[np.generic]

NOTHING: Mapping[str, Vector | None] = {}

SMALLEST_P = float(np.finfo(np.float32).smallest_subnormal)
"""What the files of p can hold; a p of 0 would be taken for an empty voxel."""


@dataclass(frozen=True, eq=False)
class Target:
    """Where an estimator's files go, and what their sidecars have in common."""

    output: Output
    writer: MapWriter
    folder: Path  # of OUTPUT_DIR, relative
    analysis: Analysis
    design: Design
    grid: Shape
    choice: Choice
    common: Mapping[str, Any]
    units: str
    named_tests: bool  # whether names carry test-
    sizes: Mapping[str, EffectSize] = field(default_factory=dict)  # by Test.name, where it has a standardised effect

    @property
    def model(self) -> Model:
        """The estimator, its settings and the design: what is fitted."""
        return Model(self.choice.estimator, self.design, self.choice.settings)

    def map_path(self, suffix: str, *, test: str = "", corr: str = "", stat: str = "") -> Path:
        """Name the (first) file of a map of this estimator, relative to OUTPUT_DIR."""
        first = dict(zip(("hemi",), self.grid.hemispheres, strict=False))
        return self._name(suffix, self.grid.extension, first, test, corr, stat)

    def path(self, suffix: str, extension: str, *, test: str = "", corr: str = "") -> Path:
        """Name a table of this estimator, relative to OUTPUT_DIR."""
        return self._name(suffix, extension, {}, test, corr, "")

    def _name(self, suffix: str, extension: str, more: Mapping[str, str], test: str, corr: str, stat: str) -> Path:
        entities = {**self.analysis.entities, **more}
        if test and self.named_tests:
            entities["test"] = test
        if self.analysis.level == "group":
            entities["desc"] = camel_case(self.choice.estimator.name)
        if corr:
            entities["corr"] = camel_case(corr)
        if stat:
            entities["stat"] = stat
        return self.folder / output_name(entities, suffix, extension)


def earlier_files(target: Target) -> set[Path]:
    """Find what earlier runs wrote of this analysis and estimator (sidecars aside)."""
    stem, desc = target.analysis.name, camel_case(target.choice.estimator.name)
    pattern = re.compile(rf"{re.escape(stem)}{'_' if stem else ''}(test-[^_]+_)?desc-{desc}_.*")
    folder, found = target.output.root / target.folder, set()
    for path in folder.glob("*") if folder.is_dir() else ():
        name = re.sub("(^|_)hemi-[^_]+_", r"\1", path.name) if path.name.endswith(GIFTI) else path.name
        if pattern.fullmatch(name) and path.name.endswith(ENDINGS):
            found.add(path)
    return found


def write_maps(
    target: Target,
    estimate: Estimate,
    more: Mapping[str, Vector | None] = NOTHING,
) -> list[WrittenFile]:
    """Write every map of an estimate, with its sidecar, by the target's writer: files exist once it has finished."""
    files = _write_groups(target, estimate)
    others = ((None, kind, values, 0.0) for kind, values in more.items() if values is not None)
    listed = chain(_maps(target.design, estimate, target.analysis.level), others, _sizes(target.design, target.sizes))
    for test, kind, values, fill in listed:
        dof = sidecars.constant_dof(estimate, test)
        name = test.name if test else ""
        path = target.map_path("statmap", test=name, stat=kind)
        tail = None if test is None else test.tail
        sidecar = sidecars.map_sidecar(
            target.common, kind, target.units, test=test, design=target.design, dof=dof, tail=tail
        )
        written = target.writer.save(
            path, values, target.grid, sidecar, fill=fill, dtype=np.int16 if kind == "n" else np.float32
        )
        files.append(WrittenFile(name if target.named_tests else "", "", kind, written))
    return files


def write_conjunction(target: Target, test: Test, field: Field) -> list[WrittenFile]:
    """Write the minimum statistic of a conjunction, and its uncorrected p."""
    p = np.maximum(10.0**-field.log10_p, SMALLEST_P)
    files = []
    for kind, values, fill in (("z", field.z, 0.0), ("p", p, 1.0), ("log10p", field.log10_p, 0.0)):
        sidecar = sidecars.map_sidecar(
            target.common, kind, target.units, test=test, design=target.design, dof=None, tail=test.tail
        )
        words = f"{sidecars.DESCRIPTIONS[kind]} of the conjunction of {', '.join(test.of)}: the weakest of them"
        path = target.map_path("statmap", test=test.name, stat=kind)
        content = {**sidecar, "Description": f"{words}."}
        written = target.writer.save(path, values, target.grid, content, fill=fill, dtype=np.float32)
        files.append(WrittenFile(test.name, "", kind, written))
    return files


def _write_groups(target: Target, estimate: Estimate) -> list[WrittenFile]:
    """Write the tau2 of each group, where groups have their own: ``stat-tau2GroupPatient``."""
    files, column = [], target.choice.settings.get("tau2_by", "")
    for group, values in (estimate.tau2_groups or {}).items():
        kind = f"tau2{group_label(column, group)}"
        sidecar = sidecars.map_sidecar(target.common, "tau2", target.units, test=None, design=target.design,
                                       dof=None, tail=None)  # fmt: skip
        path = target.map_path("statmap", stat=kind)
        sidecar = {**sidecar, "Description": f"{sidecar['Description'][:-1]}, of group {group}.", "Group": group}
        files.append(
            WrittenFile("", "", kind, target.writer.save(path, values, target.grid, sidecar, dtype=np.float32))
        )
    return files


def _maps(design: Design, estimate: Estimate, level: str) -> Iterator[tuple[Test | None, str, Vector, float]]:
    """List the maps of an estimate: the test they belong to, kind, values, value outside the mask."""
    for test in design.tests:
        fitted = estimate.tests[test.name]
        if fitted.effect is not None:
            yield test, "effect", fitted.effect, 0.0
        if fitted.variance is not None:
            yield test, "variance", fitted.variance, 0.0
        if fitted.statistic is not None:
            yield test, fitted.statistic_name, fitted.statistic, 0.0
        yield test, "z", fitted.z, 0.0
        log10_p = np.where(fitted.estimable, z_to_log10p(fitted.z, test.tail), 0.0)
        yield test, "p", np.maximum(10.0**-log10_p, SMALLEST_P), 1.0
        if level == "group":
            yield test, "log10p", log10_p, 0.0
        if fitted.dof is not None:
            yield test, "dof", fitted.dof, 0.0
    yield None, "n", estimate.n, 0.0
    if estimate.dof is not None and (level == "group" or sidecars.constant_dof(estimate) == "voxelwise"):
        yield None, "dof", np.where(np.isfinite(estimate.dof), estimate.dof, 0.0), 0.0
    if level == "group":
        shared = {
            "tau2": estimate.tau2,
            "q": estimate.q,
            "qlog10p": estimate.q_log10p,
            "i2": estimate.i2,
            "h2": estimate.h2,
            "sigma2": estimate.sigma2,
            "icc": estimate.icc,
            "omega2": estimate.omega2,
            "i2between": estimate.i2_between,
            "i2within": estimate.i2_within,
            "tau2lower": estimate.tau2_lower,
            "tau2upper": estimate.tau2_upper,
        }
        yield from ((None, kind, values, 0.0) for kind, values in shared.items() if values is not None)
        yield from _prediction(design, estimate)


def _sizes(design: Design, sizes: Mapping[str, EffectSize]) -> Iterator[tuple[Test | None, str, Vector, float]]:
    """List the standardised effects of the tests that have one, and their intervals."""
    for test in design.tests:
        if (size := sizes.get(test.name)) is not None:
            yield test, size.kind, size.value, 0.0
            yield test, f"{size.kind}lower", size.lower, 0.0
            yield test, f"{size.kind}upper", size.upper, 0.0


def _prediction(design: Design, estimate: Estimate) -> Iterator[tuple[Test | None, str, Vector, float]]:
    """List the limits of the prediction interval, with the test that is the mean itself."""
    mean = next((test for test in design.tests if test.weights.tolist() == [[1.0]]), None)
    if design.one_sample and mean and estimate.pilower is not None and estimate.piupper is not None:
        yield mean, "pilower", estimate.pilower, 0.0
        yield mean, "piupper", estimate.piupper, 0.0


def write_design(target: Target, survey: Sequence[MapSurvey]) -> Path:
    """Write the design table: one row per map, with its file and its weight's inputs."""
    analysis, design = target.analysis, target.design
    unit = "study_id" if analysis.unit == "study" else "participant_id"
    prefix = "study-" if analysis.unit == "study" else "sub-"
    kept = [key for key in analysis.combined if any(key in o.entities for o in analysis.observations)]
    clustered = bool(design.cluster_labels) and (design.cluster_name != unit or target.choice.estimator.models_clusters)
    cluster = ["cluster"] if clustered else []
    header = [unit, *cluster, *kept, *design.columns, "file", "sample_size", "dof", "n_voxels", "median_variance"]
    rows: list[dict[str, Any]] = []
    for index, (observation, row) in enumerate(zip(analysis.observations, survey, strict=True)):
        values = (
            f"{prefix}{observation.unit_label}",
            *(design.cluster_labels[index : index + 1] if clustered else ()),
            *(observation.entities.get(key) for key in kept),
            *(_number(value) for value in design.matrix[index]),
            row.uris[0],
            row.sample_size,
            row.dof,
            row.covered,
            row.median_variance,
        )
        rows.append(dict(zip(header, values, strict=True)))
    inputs = " and its weight's inputs" if target.choice.estimator.weights else ""
    path = target.path("design", ".tsv")
    written = save_tsv(target.output, path, header, rows)
    description = {
        **target.common,
        "Description": f"The design matrix: one row per map, with its file{inputs}.",
        unit: {"Description": f"The {analysis.unit} that the row's map belongs to"},
        **{name: {"Description": f"Maps of one may depend on each other ({design.cluster_name})"} for name in cluster},
        **{column: {"Description": "Column of the design matrix"} for column in design.columns},
        "file": {"Description": "The map (its first file), as BIDS URI"},
        "sample_size": {"Description": "People behind the map"},
        "dof": {"Description": "Degrees of freedom of the map"},
        "n_voxels": {"Description": "Voxels of the mask that the map covers"},
        "median_variance": {"Description": "Median sampling variance over those voxels"},
        "Formula": design.formula,
    }
    save_json(target.output, path.with_suffix(".json"), sidecars.in_words_of(target.grid, description))
    return written


def _number(value: float) -> float | int:
    return int(value) if math.isfinite(value) and float(value).is_integer() else float(value)


def estimator_result(
    choice: Choice, files: Sequence[WrittenFile], findings: tuple[Finding, ...] = (), notes: tuple[str, ...] = ()
) -> EstimatorResult:
    """Collect what the report needs of one estimator."""
    return EstimatorResult(choice.estimator, choice.settings, choice.reason, tuple(files), findings, notes)
