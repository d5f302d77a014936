"""Statistic maps on disk, and which are combined with each other; no image is read yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibma_app.core.errors import Note

KINDS = ("effect", "variance", "t", "z", "p", "dof")
"""The kinds of map that can be read."""

VOLUMES = (".nii.gz", ".nii")
GIFTI = (".func.gii", ".shape.gii", ".gii")
CIFTI = (".dscalar.nii", ".pscalar.nii")
TABLES = (".tsv",)
ENDINGS = (*CIFTI, *GIFTI, *TABLES, *VOLUMES)
"""What the names of maps end in; of two that fit the first counts."""


@dataclass(frozen=True)
class Dataset:
    """A BIDS dataset that maps come from.

    ``name`` is its key in DatasetLinks and in BIDS URIs; ``description`` its
    dataset_description.json ({} when it has none).
    """

    name: str
    root: Path
    description: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StatMap:
    """One statistic map, as its name, its folder and its sidecars describe it.

    ``entities`` holds the name's key-value pairs by their short keys, in the
    name's order (``sub``, ``ses``, ``task``, ``run``, ``space``, ``contrast``,
    ...), plus ``study`` and ``node`` where a folder gives them; never ``stat``.
    The contrast is always under ``contrast``, whatever its key in the name.
    """

    path: Path
    kind: str
    dataset: Dataset
    entities: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sidecar_error: str | None = None  # why a sidecar of this map is not used
    terms: tuple[tuple[float, "StatMap"], ...] = ()  # of a computed effect: weights and maps; path is the first's
    hemispheres: tuple[Path, ...] = ()  # files of a map that has one for each, left first; path is the first

    @property
    def files(self) -> tuple[Path, ...]:
        """Its file, or those of its hemispheres."""
        return self.hemispheres or (self.path,)

    @property
    def uris(self) -> tuple[str, ...]:
        """The map's file, or those it is computed from, as BIDS URIs, ``bids:<dataset>:<path>``."""
        if self.terms:
            return tuple(uri for _, term in self.terms for uri in term.uris)
        below = (path.relative_to(self.dataset.root).as_posix() for path in self.files)
        return tuple(f"bids:{self.dataset.name}:{path}" for path in below)


@dataclass(frozen=True)
class Publication:
    """What to cite for a study, as far as its source says; "" where it does not."""

    authors: str = ""
    title: str = ""
    doi: str = ""  # bare: 10.1000/xyz

    @property
    def text(self) -> str:
        """One line for reference lists; "" where nothing is known."""
        parts = [f"{part.rstrip('.')}." for part in (self.authors, self.title) if part]
        return " ".join([*parts, *([f"https://doi.org/{self.doi}"] if self.doi else [])])


@dataclass(frozen=True)
class Observation:
    """One row of a design: all kinds of map of one contrast of a run, subject or study.

    ``tail`` is that of a p map.
    """

    unit_label: str  # of the participant or study, without prefix
    entities: Mapping[str, str]
    statmaps: Mapping[str, StatMap]  # by kind
    dof: float | None = None  # of every voxel; None: unknown, or voxelwise in a ``dof`` map
    dof_source: str = "unknown"  # "map", "sidecar", "design", "--dof", "t and z", "SampleSize - 1", "unknown"
    sample_size: float | None = None
    units: str = "unknown"
    tail: str | None = None
    publication: Publication | None = None  # of a study
    refused: str = ""  # why none of its maps is used: a sidecar states what cannot be

    @property
    def label(self) -> str:
        """A short name for messages and tables, of the entities that distinguish rows."""
        keys = ("sub", "study", "ses", "task", "run", "contrast", "desc")
        return "_".join(f"{key}-{self.entities[key]}" for key in keys if key in self.entities)

    @property
    def dof_text(self) -> str:
        """The degrees of freedom as tables have them: a number, ``voxelwise`` or ``unknown``."""
        if "dof" in self.statmaps:
            return "voxelwise"
        return "unknown" if self.dof is None else f"{self.dof:g}"

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is wrong with its sidecars."""
        errors = dict.fromkeys(one.sidecar_error for one in self.statmaps.values() if one.sidecar_error)
        return (Note("A sidecar is not used.", {self.label: "; ".join(errors)}),) if errors else ()

    @property
    def path(self) -> Path:
        """The file to name in messages: the effect map, or else the first."""
        first = next(iter(self.statmaps.values()))
        return self.statmaps.get("effect", first).path


@dataclass(frozen=True)
class Analysis:
    """The observations that are combined into one result, and its name."""

    level: str  # "participant" or "group"
    unit: str  # what one row is: "run" (participant level), "subject" or "study"
    entities: Mapping[str, str]  # of the output's name, in order, without desc and stat
    observations: tuple[Observation, ...]
    combined: tuple[str, ...] = ()  # entities combined over or pooled
    notes: tuple[Note, ...] = ()
    full_labels: Mapping[str, str] = field(default_factory=dict)  # of entities that are shortened for file names

    @property
    def name(self) -> str:
        """The output's name without suffix, e.g. ``sub-01_task-x_contrast-c``."""
        return "_".join(f"{key}-{label}" for key, label in self.entities.items())
