"""One run of preprocessed BOLD: its files, and what its sidecars say of its time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.core.statmap import Dataset

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BoldRun:
    """The files of one run in one space; nothing but names and sidecars is read yet."""

    bold: Path
    dataset: Dataset  # that the BOLD is from
    entities: Mapping[str, str]  # of the BOLD's name by short keys, in BIDS order, without desc
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the BOLD's sidecars merged, the raw ones first
    mask: Path | None = None
    confounds: Path | None = None
    events: Path | None = None
    sources: tuple[str, ...] = ()  # BIDS URIs of the files above
    notes: tuple[str, ...] = ()  # what the user should know of how they were found

    @property
    def name(self) -> str:
        """The run's name without suffix: ``sub-01_task-x_run-1_space-S``."""
        return "_".join(f"{key}-{label}" for key, label in self.entities.items())


@dataclass(frozen=True, eq=False)
class RunContrastResult:
    """One contrast of a run, for its page."""

    name: str
    values: Floats  # (V,): effects; of F tests z
    quantity: str  # "Effect (percent)", "z of F"
    signed: bool
    dof: float
    efficiency: float
    weights: str  # in words: "+1 go; -1 stop"


@dataclass(frozen=True, eq=False)
class RunResults:
    """What the page of a run shows."""

    name: str  # of the output, without suffix
    entities: Mapping[str, str]
    grid: Grid  # with the mask, V voxels
    columns: tuple[str, ...]  # P
    matrix: Floats  # (T, P)
    conditions: tuple[str, ...]  # columns of events
    confounds: tuple[str, ...]
    frame_times: Floats  # (T,) s
    events: Mapping[str, Floats]  # condition -> (E, 2): onsets and durations, s
    motion: Mapping[str, Floats]  # framewise displacement or motion parameters -> (T,)
    scrubbed: tuple[int, ...]
    inflation: Mapping[str, float]
    contrasts: tuple[RunContrastResult, ...]
    missing: Mapping[str, str]
    maps: Mapping[str, Floats]  # "mean", "rsquared", "rho" -> (V,)
    facts: tuple[tuple[str, Any], ...]
    notes: tuple[str, ...]
    methods: tuple[str, ...]  # paragraphs
    references: tuple[str, ...]
