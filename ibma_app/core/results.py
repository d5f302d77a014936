"""The results of a finished analysis, from which reports, sidecars and methods text are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.atlas import AtlasSource, RegionTests
from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Dependence, Design
from ibma_app.core.errors import Note
from ibma_app.core.inference_facts import Absence, Facts
from ibma_app.core.methods import Estimator, Inference
from ibma_app.core.statmap import Analysis

INTERPOLATED = "interpolated to the analysis grid"
"""Among what was derived of a map: it lies on another grid."""


@dataclass(frozen=True)
class RunFacts:
    """How, when and how long an analysis ran: for its page, and for no map, table or sidecar."""

    command: str
    began: str  # in UTC, to the minute
    seconds: float | None = None

    @property
    def duration(self) -> str:
        """The duration in words."""
        if self.seconds is None:
            return ""
        whole = max(1, round(self.seconds))
        hours, minutes = divmod(whole // 60, 60)
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


NO_FACTS = RunFacts("", "")


@dataclass(frozen=True)
class MapSurvey:
    """The coverage of one map, and the values it was made of: one row of the design."""

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
class MapFlag:
    """A warning about maps that stand out from the others; no map is left out for it."""

    kind: str  # "duplicate", "sample", "sign", "scale" or "variance"
    rows: tuple[int, ...]  # of the survey
    text: str
    groups: tuple[tuple[int, ...], ...] = ()  # rows that belong together, of the kinds "duplicate" and "sample"


@dataclass(frozen=True)
class Similarity:
    """How alike the K maps of an analysis are."""

    quantity: str  # what is compared: "effect" or "z"
    n_voxels: int  # of the mask, that were compared
    correlations: tuple[tuple[float | None, ...], ...]  # (D, D): of maps, or means over neighbouring maps where D < K
    starts: tuple[int, ...]  # (D,) first row of each group of neighbouring maps
    agreement: tuple[float | None, ...]  # (K,) correlation of each map with the mean of the others
    scale: tuple[float | None, ...]  # (K,) median |quantity| of each map
    flags: tuple[MapFlag, ...] = ()


@dataclass(frozen=True, eq=False)
class MapSlices:
    """The effects of K maps on a few axial slices, for pictures of them beside each other."""

    levels: tuple[float, ...]  # mm
    voxels: NDArray[np.int32]  # (N,) of the grid, raveled
    values: NDArray[np.float32]  # (K, N)


@dataclass(frozen=True)
class NullShape:
    """The null distribution of one test's largest score as a histogram, short enough for a page."""

    low: float
    high: float
    counts: tuple[int, ...]  # relabellings in equal bins from low to high; the others lie above
    observed: float  # the largest score of the maps as they are
    reached: int  # relabellings whose largest score reaches the observed, itself included
    resamples: int
    threshold: float | None  # a significant score exceeds it; None: none can


@dataclass(frozen=True)
class Finding:
    """One inference on one test of one estimator."""

    test: str
    inference: Inference
    n_significant: int
    z_threshold: float | None
    facts: tuple[Facts, ...]
    null: NullShape | None = None  # where it resampled


@dataclass(frozen=True)
class Combined:
    """One test at one voxel."""

    z: float
    effect: float | None = None  # None: F tests and the Z family
    variance: float | None = None  # squared standard error of the effect
    dof: float | None = None  # of t and F; None: the statistic is z


@dataclass(frozen=True)
class MapAtPeak:
    """The value of one map at a voxel, and the test there without the map."""

    row: int  # of the design and of the survey
    value: float  # its effect; its z where the estimator needs z
    variance: float | None = None  # sampling variance of the effect
    weight: float | None = None  # percent of all weights; None: the estimator has no weights
    fitted: float | None = None  # fitted value; None where the design is one mean
    without: Combined | None = None  # None: not estimable without it, or not computed (many maps)


@dataclass(frozen=True)
class CellAtPeak:
    """The mean of a cell of the design at a voxel, as the model estimates it."""

    name: str  # Cell.name
    combined: Combined
    rows: tuple[int, ...]  # of the design: its maps


@dataclass(frozen=True)
class PeakEvidence:
    """A voxel that the page shows in detail: the maps there, and the test that combines them."""

    test: str  # Test.name
    name: str  # "largest z", "cluster 1 (fdr)"
    voxel: tuple[int, ...]  # of the grid, or the number of an element
    xyz: tuple[float, float, float]  # mm; NaN where that is not known
    combined: Combined
    maps: tuple[MapAtPeak, ...]  # those that cover the voxel, in the design's order
    tau2: float | None = None
    q: float | None = None
    q_dof: int | None = None
    q_log10p: float | None = None
    i2: float | None = None  # percent
    sigma2: float | None = None  # variance within units, where tau2 is that between them
    where: str = ""  # the name of an element that is no voxel of a grid
    cells: tuple[CellAtPeak, ...] = ()  # those whose mean can be estimated


@dataclass(frozen=True)
class WrittenFile:
    """One file that was written for an estimator, and what it contains."""

    test: str  # Test.name; "" for what all tests share (tau2, n, design), and where the intercept is the only test
    inference: str  # menu name; "" for uncorrected maps
    kind: str  # as in ``stat-<kind>``, or "mask", "clusters", "design"
    path: Path


@dataclass(frozen=True)
class EstimatorResult:
    """One estimator's part of an analysis."""

    estimator: Estimator
    settings: Mapping[str, str]
    reason: str  # why it was used: "asked for", or auto's reason
    files: tuple[WrittenFile, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    grid: Shape | None = None  # where its voxels are not those of the analysis's first estimator
    survey: tuple[MapSurvey, ...] = ()  # likewise
    peaks: tuple[PeakEvidence, ...] = ()  # for the page; empty where no page is made
    facts: tuple[tuple[str, str], ...] = ()  # more on the fit, for the page: label and text
    dependence: Dependence | None = None  # of its maps' sampling errors
    absences: tuple[Absence, ...] = ()  # where effects are smaller than a bound, when asked for

    def path(self, kind: str, *, test: str = "", inference: str = "") -> Path | None:
        """The file of a kind; None when there is none."""
        key = (test, inference, kind)
        return next((file.path for file in self.files if (file.test, file.inference, file.kind) == key), None)


@dataclass(frozen=True)
class Results:
    """A finished analysis, for its report; the report reads the numbers from the files."""

    analysis: Analysis
    grid: Shape
    design: Design
    survey: tuple[MapSurvey, ...]
    estimators: tuple[EstimatorResult, ...]
    output_dir: Path
    settings: Mapping[str, Any]  # alpha, tail, cluster_p, min_extent, mask, min_coverage, grid, units
    notes: tuple[Note, ...] = ()  # every warning of the run that concerns it
    similarity: Similarity | None = None  # of the maps of its first estimator; None: nothing to compare
    atlases: tuple[AtlasSource, ...] = ()  # that named regions
    regions: RegionTests | None = None  # that were tested as a whole
    slices: MapSlices | None = None  # of a participant's runs

    def seen_by(self, result: EstimatorResult) -> "Results":
        """Return the analysis with the grid and the survey of one of its estimators."""
        if result.grid is None:
            return self
        return replace(self, grid=result.grid, survey=result.survey)
