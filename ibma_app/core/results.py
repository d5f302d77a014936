"""What a finished analysis amounts to: what report, sidecars and methods text tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ibma_app.core.design import Design
from ibma_app.core.grid import Grid
from ibma_app.core.methods import Citation, Estimator
from ibma_app.core.statmap import Analysis


@dataclass(frozen=True)
class MapSurvey:
    """What one row of the design brought, and what was lost of it."""

    label: str  # Observation.label
    uris: tuple[str, ...]  # BIDS URIs of the files read
    covered: int  # voxels of the mask that it covers
    losses: Mapping[str, int] = field(default_factory=dict)  # reason -> voxels of the mask
    cost: int | None = None  # voxels that the mask would gain if the map covered them; None: not counted
    derived: tuple[str, ...] = ()  # "variance from effect and t", ...
    dof: str = "unknown"  # a number, "voxelwise" or "unknown"
    sample_size: float | None = None
    units: str = "unknown"
    median_abs_effect: float | None = None  # over the covered voxels of the mask
    median_variance: float | None = None


@dataclass(frozen=True)
class Finding:
    """One inference on one test of one estimator."""

    test: str
    inference: str  # menu name
    title: str
    n_significant: int
    z_threshold: float | None
    facts: Mapping[str, Any]
    citations: tuple[Citation, ...]


@dataclass(frozen=True)
class EstimatorResult:
    """One estimator's part of an analysis.

    ``files`` maps (test, inference, kind) to the file written: test "" for
    what no test owns (tau2, n, design) and for designs whose only test is
    the intercept; inference "" for uncorrected maps; kind is that of
    the output, or "mask", "clusters", "design".
    """

    estimator: Estimator
    settings: Mapping[str, str]
    reason: str  # why it was used: "asked for", or auto's reason
    files: Mapping[tuple[str, str, str], Path]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    grid: Grid | None = None  # where its voxels are not those of the analysis's first estimator
    survey: tuple[MapSurvey, ...] = ()  # likewise


@dataclass(frozen=True)
class Results:
    """A finished analysis, as the report tells it; numbers are read from its files."""

    analysis: Analysis
    grid: Grid
    design: Design
    survey: tuple[MapSurvey, ...]
    estimators: tuple[EstimatorResult, ...]
    output_dir: Path
    settings: Mapping[str, Any]  # alpha, tail, cluster_p, min_extent, mask, min_coverage, grid, units
    notes: tuple[str, ...] = ()  # every warning of the run that concerns it

    def seen_by(self, result: EstimatorResult) -> "Results":
        """Give the analysis as one estimator saw it: the voxels and files that its needs left."""
        if result.grid is None:
            return self
        return replace(self, grid=result.grid, survey=result.survey)
