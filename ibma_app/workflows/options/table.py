"""The options of ``ibma-app`` and ``ibma-import``: parser, help, docs and configuration are made from these fields.

``python -m ibma_app.workflows.options.table`` prints docs/options.md.
"""

import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ibma_app.estimators import ESTIMATORS
from ibma_app.inference import AUTO, AUTO_FEW, INFERENCES

LEVELS = ("run", "participant", "group")
INPUTS, COMBINING, TESTING, INFERRING, RUNNING = (
    "which maps", "how they are combined", "design and tests", "inference", "running",
)  # fmt: skip
WHOSE = "whose maps they are"
MODELLING = "run level: how BOLD is modelled"

Value = TypeVar("Value")
Texts = tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """One option of a command line (and, under its long name, of the configuration)."""

    dest: str  # the field's name
    flags: Texts
    kind: type  # str, int, float, Path or bool (a switch)
    many: bool
    default: Any
    meaning: str
    heading: str
    choices: Texts = ()
    metavar: str = ""
    default_text: str = ""
    counted: bool = False  # -vv says more than -v


def _option(
    default: Value, heading: str, meaning: str, *, short: str = "", stated: str | None = None, **more: Any
) -> Value:
    """Make an option of a field: its flag is the field's name, its type the annotation.

    Parameters
    ----------
    default : object
    heading, meaning : str
    short : str
        A flag of one letter beside the long one.
    stated : str, optional
        The default in words; None: as it is.
    **more
        ``choices``, ``metavar``, ``counted`` of `Option`.
    """
    words = {"heading": heading, "meaning": meaning, "default_text": _state(default) if stated is None else stated}
    return field(default=default, metadata={**words, "short": short, **more})


def _state(default: object) -> str:
    """Write a default for a reader; nothing where there is none."""
    if default is None or isinstance(default, bool):
        return ""
    if isinstance(default, tuple):
        return " ".join(default)
    return default if isinstance(default, str) else f"{default:g}"


@dataclass(frozen=True)
class Options:
    """The options of one run, resolved; the command line wins over the configuration."""

    bids_dir: Path
    output_dir: Path
    analysis_level: str
    derivatives: Texts | None = _option(
        None, INPUTS, "datasets that hold the maps", short="-d", metavar="[NAME=]PATH",
        stated="BIDS_DIR itself if it is a derivative, else BIDS_DIR/derivatives/*",
    )  # fmt: skip
    participant_label: Texts | None = _option(
        None, INPUTS, "keep only these participants", metavar="LABEL",
        stated="all; a file with one label a line does too",
    )  # fmt: skip
    exclude_participant_label: Texts | None = _option(
        None,
        INPUTS,
        "leave out these participants; a file with one label a line does too",
        metavar="LABEL",
        stated="none",
    )
    session_label: Texts | None = _option(None, INPUTS, "keep only these sessions", metavar="LABEL", stated="all")
    study_label: Texts | None = _option(None, INPUTS, "keep only these studies", metavar="LABEL", stated="all")
    exclude_study_label: Texts | None = _option(
        None, INPUTS, "leave out these studies; a file does too", metavar="LABEL", stated="none"
    )
    task_id: Texts | None = _option(None, INPUTS, "keep only these tasks", short="-t", metavar="LABEL", stated="all")
    contrast: Texts | None = _option(None, INPUTS, "keep only these contrasts", metavar="LABEL", stated="all")
    space: Texts | None = _option(
        None, INPUTS, "keep only maps in these spaces", metavar="LABEL", stated="the only one there is"
    )
    space_is: str | None = _option(
        None, INPUTS, "the space of maps whose names have no space-", metavar="LABEL", stated="not stated"
    )
    bids_filter_file: Path | None = _option(None, INPUTS, "JSON of PyBIDS queries by kind of map", metavar="FILE")
    bids_database_dir: Path | None = _option(None, INPUTS, "keep the PyBIDS index here", metavar="DIR")
    dof: float | None = _option(None, INPUTS, "degrees of freedom of t maps that say none", metavar="N")

    contrasts: Texts | None = _option(
        None, MODELLING, "contrasts of conditions (trial_type): a=go-stop, all='(go+stop)/2'; commas make an F test",
        metavar="NAME=EXPR", stated="each condition",
    )  # fmt: skip
    confounds: Texts | None = _option(
        None, MODELLING, "motion6, motion24, simple, scrubbing, compcor, none, or columns (wildcards)",
        metavar="NAME|COLUMN", stated="motion24; fMRIPrep's cosines are the high-pass where they are there",
    )  # fmt: skip

    combine: Texts = _option(
        ("run",), COMBINING, "participant level: entities that are combined over", metavar="ENTITY"
    )
    pool: Texts | None = _option(
        None, COMBINING, "group level: entities that do not keep maps apart", metavar="ENTITY",
        stated="subjects: none; studies: task, and space within MNI",
    )  # fmt: skip
    compute: Texts | None = _option(
        None, COMBINING, "new effect maps per subject from its contrasts", metavar="LABEL=EXPR"
    )
    smoothing: float = _option(
        0.0,
        COMBINING,
        "FWHM in mm; run level: of the BOLD; group level: for estimators that read no variances",
        metavar="FWHM",
    )
    estimator: Texts = _option(("auto",), COMBINING, "group level: one or more of these", choices=("auto", *ESTIMATORS))
    dependence: str = _option(
        "none", COMBINING,
        "how sampling errors of maps are correlated: none, cluster, same-data or FILE (map_a, map_b, correlation)",
        metavar="none|cluster|same-data|FILE",
    )  # fmt: skip
    units: str = _option(
        "check", COMBINING, "what to do about the units of effects", choices=("check", "assume-same", "hedges-g")
    )
    mask: str = _option("auto", COMBINING, "analysis mask: FILE, auto, data or template", metavar="MASK")
    min_coverage: float | None = _option(
        None, COMBINING, "share of the maps that must cover a voxel", metavar="F",
        stated="participant level: any map; subjects 1.0; studies 0.75",
    )  # fmt: skip
    grid: str = _option("common", COMBINING, "for maps on several grids: common, mni2mm or FILE", metavar="GRID")
    surface: Texts | None = _option(
        None, COMBINING, "the mesh of each hemisphere, for clusters, areas and pictures of maps on surfaces",
        metavar="[L|R=]FILE", stated="that of nilearn's fsaverage meshes, or TemplateFlow's where it is at hand",
    )  # fmt: skip

    model: str | None = _option(
        None, TESTING, "BIDS Stats Model, for all levels; default: print the model that the options mean",
        short="-m", metavar="FILE|default", stated="none",
    )  # fmt: skip
    node: str | None = _option(
        None, TESTING, "the model's node, where it has several of this level", metavar="NAME", stated="the only one"
    )
    formula: str = _option("1", TESTING, "the design, e.g. '1 + age + C(group)'", metavar="TEXT")
    covariates: Path | None = _option(
        None, TESTING, "another table for the formula", metavar="FILE", stated="participants.tsv / studies.tsv"
    )
    test: Texts | None = _option(
        None, TESTING, "contrasts of the design's columns; commas make an F test", metavar="NAME=EXPR",
        stated="every column",
    )  # fmt: skip
    contrast_file: Path | None = _option(None, TESTING, "the same as JSON", metavar="FILE")

    inference: Texts = _option(
        ("auto",), INFERRING, "one or more of these", choices=("auto", *INFERENCES),
        stated=f"auto: {' '.join(AUTO)}; with too few relabellings {' '.join(AUTO_FEW)}",
    )  # fmt: skip
    alpha: float = _option(0.05, INFERRING, "level after correction", metavar="P")
    cluster_p: float = _option(0.001, INFERRING, "cluster-forming threshold", metavar="P")
    tail: str = _option("two-sided", INFERRING, "direction of t tests", choices=("two-sided", "positive", "negative"))
    min_extent: int = _option(0, INFERRING, "voxels: smaller clusters leave tables and thresholded maps", metavar="N")
    equivalence: str | None = _option(
        None, INFERRING, "say where effects are smaller than this: in their units (0.2) or as Hedges' g (0.3g)",
        metavar="BOUND",
    )  # fmt: skip
    conjunction: Texts | None = _option(
        None, INFERRING, "say where these t tests are significant together, in one direction", metavar="TEST"
    )
    atlas: Texts | None = _option(
        None, INFERRING, "atlases that name regions: AAL3, HCPex, Schaefer2018, files (labels or probabilities), none",
        metavar="NAME|FILE", stated="[atlas] of the configuration; in MNI spaces AAL3",
    )  # fmt: skip
    regions: Texts | None = _option(
        None, INFERRING, "group level: test the means of these regions: known atlases, or files (labels, "
        "probabilities, binary masks)", metavar="NAME|FILE", stated="none",
    )  # fmt: skip
    permutations: int = _option(5000, INFERRING, "resamples of the inferences that resample", metavar="R")
    seed: int = _option(0, INFERRING, "of the resamples", metavar="N")

    nprocs: int | None = _option(None, RUNNING, "cores to use", metavar="N", stated="all we may use")
    mem: str | None = _option(
        None, RUNNING, "memory for all processes together, e.g. 8G", metavar="SIZE", stated="80 % of what is free"
    )
    dask: str | None = _option(
        None, RUNNING, "workers of a Dask cluster: the scheduler's address or file, or local", metavar="ADDRESS",
        stated="none: this machine's cores",
    )  # fmt: skip
    work_dir: Path | None = _option(
        None, RUNNING, "for temporary files", short="-w", metavar="DIR",
        stated="under $SLURM_TMPDIR or $TMPDIR, removed at the end",
    )  # fmt: skip
    config_file: Path | None = _option(None, RUNNING, "TOML: any of these, and each method's settings", metavar="FILE")
    dry_run: bool = _option(False, RUNNING, "show what would be combined; write nothing")
    no_report: bool = _option(False, RUNNING, "write no report pages")
    reports_only: bool = _option(
        False, RUNNING, "make the report again from the maps in OUTPUT_DIR; BIDS_DIR is not read"
    )
    skip_bids_validation: bool = _option(False, RUNNING, "accept a dataset without a proper description")
    stop_on_first_crash: bool = _option(False, RUNNING, "stop at the first failure")
    verbose: int = _option(0, RUNNING, "more messages; -vv: tracebacks too", short="-v", stated="", counted=True)
    quiet: bool = _option(False, RUNNING, "warnings and errors only", short="-q")
    settings: Mapping[str, Any] = field(default_factory=dict)  # the configuration's tables


@dataclass(frozen=True)
class ImportOptions:
    """The options of ``ibma-import``."""

    software: str
    sources: Texts
    output_dir: Path
    participant_label: str | None = _option(None, WHOSE, "a subject's", metavar="LABEL")
    session_label: str | None = _option(None, WHOSE, "of this session", metavar="LABEL")
    run: str | None = _option(None, WHOSE, "of this run", metavar="N")
    study_label: str | None = _option(None, WHOSE, "a study's (a group result)", metavar="LABEL")
    task_id: str | None = _option(None, WHOSE, "of this task", short="-t", metavar="LABEL")
    space: str | None = _option(None, WHOSE, "the template they lie in", metavar="LABEL", stated="what the source says")
    sample_size: float | None = _option(
        None, WHOSE, "subjects of the study", metavar="N", stated="what the source says"
    )
    contrast: Texts = _option(
        (), WHOSE, "only these, and what they are called in file names", metavar="NAME[=LABEL]", stated="all"
    )
    dry_run: bool = _option(False, RUNNING, "show what was recognised; write nothing")
    verbose: int = _option(0, RUNNING, "more messages; -vv: tracebacks too", short="-v", stated="", counted=True)
    quiet: bool = _option(False, RUNNING, "warnings and errors only", short="-q")

    @property
    def entities(self) -> dict[str, str]:
        """The entities that the command line gives, by their short keys."""
        given = {
            "sub": self.participant_label,
            "study": self.study_label,
            "ses": self.session_label,
            "task": self.task_id,
            "run": self.run,
        }
        return {key: label for key, label in given.items() if label is not None}


def list_options(record: type) -> tuple[Option, ...]:
    """List the options that a record's fields stand for."""
    return tuple(_read_option(entry) for entry in fields(record) if "meaning" in entry.metadata)


def _read_option(entry: Field[Any]) -> Option:
    """Read an option from its field."""
    more = dict(entry.metadata)
    members = typing.get_args(entry.type) if isinstance(entry.type, types.UnionType) else (entry.type,)
    kind: Any = next(member for member in members if member is not types.NoneType)
    many = typing.get_origin(kind) is tuple
    flags = (more.pop("short"), f"--{entry.name.replace('_', '-')}")
    return Option(
        dest=entry.name,
        flags=tuple(flag for flag in flags if flag),
        kind=typing.get_args(kind)[0] if many else kind,
        many=many,
        default=entry.default,
        **more,
    )


OPTIONS = list_options(Options)
IMPORT_OPTIONS = list_options(ImportOptions)


def file_or_word(text: str) -> str | Path:
    """Take a value of ``--grid`` or ``--mask`` for one of their words, else for a file."""
    return text if text in ("common", "mni2mm", "auto", "data", "template") else Path(text)


def describe_options() -> str:
    """Write the table of options as Markdown, for docs/options.md."""
    lines = [
        "# Options of `ibma-app`",
        "",
        "Made by `python -m ibma_app.workflows.options.table`; do not edit by hand.",
        "",
        "`ibma-app BIDS_DIR OUTPUT_DIR {run,participant,group} [options]`",
    ]
    for heading in dict.fromkeys(option.heading for option in OPTIONS):
        lines += ["", f"## {heading.capitalize()}", "", "| option | meaning | default |", "|---|---|---|"]
        for option in (option for option in OPTIONS if option.heading == heading):
            flags = ", ".join(f"`{flag}`" for flag in option.flags)
            menu = f": {', '.join(f'`{choice}`' for choice in option.choices)}" if option.choices else ""
            default = option.default_text.replace("|", "\\|")
            lines.append(f"| {flags} | {option.meaning}{menu} | {default} |")
    lines += [
        "| `--version` | the version | |",
        "| `--bids-exec-spec` | the [Boutiques](https://boutiques.github.io) descriptor of this command line | |",
        "| `-h`, `--help` | all options on a page | |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(describe_options())
