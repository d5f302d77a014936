"""One run of preprocessed BOLD: its files, and what its sidecars say of its time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibma_app.core.statmap import Dataset


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
