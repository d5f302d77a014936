"""Results of other software, as an importer found them: nothing is written yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.statmap import Publication

NATIVE = "native"
"""The space of maps that were not brought to a template."""


@dataclass(frozen=True, eq=False)
class ImportedContrast:
    """One contrast of a subject's run, a subject or a study.

    The maps are as the user will get them: effects and variances are already
    scaled by ``scaling_factor``, as ``units_source`` describes.
    """

    name: str  # as the software calls it
    maps: Mapping[
        str, NDArray[Any]
    ]  # by kind of core.statmap.KINDS -> values in the form of grid; may be read when asked for
    grid: Shape  # its mask: every voxel, or the software's own mask
    dof: float | None = None  # None: unknown, or voxelwise in a "dof" map
    sample_size: float | None = None  # subjects; None at the first level
    units: str = "unknown"  # "percent", "unknown", or another string, compared as is
    units_source: str = ""  # how the units are known, or why they are not: one or a few sentences
    scaling_factor: float | None = None  # what effects were multiplied by (voxelwise: its median); None: nothing
    regressor_height: float | None = None
    contrast_weights: Mapping[str, float] | None = None  # design column -> weight, as the software had it
    space: str = ""  # BIDS label of the template, NATIVE, or "" (unknown)
    tail: str | None = None  # of p maps: "two-sided", "positive" or "negative"
    entities: Mapping[str, str] = field(default_factory=dict)  # what the source says: study, sub, ses, task, run, desc
    columns: Mapping[str, Any] = field(default_factory=dict)  # more columns of studies.tsv (n1, n2, moderators)
    derived: Mapping[str, str] = field(default_factory=dict)  # kind -> what it was computed from
    sources: tuple[str, ...] = ()  # files (or addresses) that were read
    notes: tuple[str, ...] = ()  # what the user should know about this contrast
    label: str | None = None  # the contrast's label in file names; None: made of the name
    publication: Publication | None = None  # of the study
    number: int | None = None  # in its software (SPM\'s xCon, a cope); None: its place in the source


@dataclass(frozen=True, eq=False)
class Study:
    """The contents of one source."""

    software: str  # with its version where known: "SPM12", "FSL 5.0.9"
    source: str  # the path, or the collection's address
    contrasts: tuple[ImportedContrast, ...]
    listed: tuple[str, ...] = ()  # what is not imported, and why: one sentence each
    level: str | None = None  # "subject" (first level), "group", or None where it is unknown
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportRequest:
    """The user's options that change what an importer reads."""

    for_study: bool = False  # maps of a study (else of a subject): must lie in a template's space
    space: str | None = None  # --space
    sample_size: float | None = None  # --sample-size
    task: str | None = None  # --task-id
    cache: Path | None = None  # where downloads are kept; None: nowhere


@dataclass(frozen=True)
class Importer:
    """The record of an importer, at the end of its file."""

    name: str  # as on the command line
    title: str  # for the menu
    recognises: Callable[[str], bool]  # takes a path (or collection number); fast, never raises
    read: Callable[[str, ImportRequest], Study]
    example: str = ""  # a source, for messages: "sub-01.feat"
