"""The options: one table from which parser, help, docs and configuration are made.

``python -m ibma_app.workflows.options.table`` prints the table for docs/options.md.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibma_app.estimators import ESTIMATORS
from ibma_app.inference import INFERENCES

LEVELS = ("participant", "group")


@dataclass(frozen=True)
class Option:
    """One option of the command line (and, under its long name, of the configuration)."""

    flags: tuple[str, ...]
    meaning: str
    heading: str
    kind: type = str  # str, int, float, Path or bool (a switch)
    many: bool = False
    choices: tuple[str, ...] = ()
    metavar: str = ""
    default: Any = None
    default_text: str = ""

    @property
    def dest(self) -> str:
        """The field of ``Options`` that it fills."""
        return next(flag for flag in self.flags if flag.startswith("--"))[2:].replace("-", "_")


INPUTS, COMBINING, TESTING, INFERRING, RUNNING = (
    "which maps", "how they are combined", "design and tests", "inference", "running",
)  # fmt: skip

OPTIONS: tuple[Option, ...] = (
    Option(("-d", "--derivatives"), "datasets that hold the maps", INPUTS, many=True, metavar="[NAME=]PATH",
           default_text="BIDS_DIR itself if it is a derivative, else BIDS_DIR/derivatives/*"),
    Option(("--participant-label",), "keep only these participants", INPUTS, many=True, metavar="LABEL",
           default_text="all; a file with one label a line does too"),
    Option(("--session-label",), "keep only these sessions", INPUTS, many=True, metavar="LABEL", default_text="all"),
    Option(("--study-label",), "keep only these studies", INPUTS, many=True, metavar="LABEL", default_text="all"),
    Option(("-t", "--task-id"), "keep only these tasks", INPUTS, many=True, metavar="LABEL", default_text="all"),
    Option(("--contrast",), "keep only these contrasts", INPUTS, many=True, metavar="LABEL", default_text="all"),
    Option(("--space",), "keep only maps in these spaces", INPUTS, many=True, metavar="LABEL",
           default_text="the only one there is"),
    Option(("--bids-filter-file",), "JSON of PyBIDS queries by kind of map", INPUTS, Path, metavar="FILE"),
    Option(("--bids-database-dir",), "keep the PyBIDS index here", INPUTS, Path, metavar="DIR"),
    Option(("--dof",), "degrees of freedom of t maps that say none", INPUTS, float, metavar="N"),
    Option(("--combine",), "participant level: what is combined over", COMBINING, many=True,
           choices=("run", "session", "task"), default=("run",), default_text="run"),
    Option(("--pool",), "group level: entities that do not keep maps apart", COMBINING, many=True,
           metavar="ENTITY", default_text="subjects: none; studies: task, and space within MNI"),
    Option(("--compute",), "new effect maps per subject from its contrasts", COMBINING, many=True,
           metavar="LABEL=EXPR"),
    Option(("--smoothing",), "FWHM in mm, effect maps of ols only", COMBINING, float, metavar="FWHM", default=0.0,
           default_text="0"),
    Option(("--estimator",), "group level: one or more of these", COMBINING, many=True,
           choices=("auto", *ESTIMATORS), default=("auto",), default_text="auto"),
    Option(("--units",), "what to do about the units of effects", COMBINING,
           choices=("check", "assume-same", "hedges-g"), default="check", default_text="check"),
    Option(("--mask",), "analysis mask: FILE, auto, data or template", COMBINING, metavar="MASK", default="auto",
           default_text="auto"),
    Option(("--min-coverage",), "share of the maps that must cover a voxel", COMBINING, float, metavar="F",
           default_text="participant level: any map; subjects 1.0; studies 0.75"),
    Option(("--grid",), "for maps on several grids: common, mni2mm or FILE", COMBINING, metavar="GRID",
           default="common", default_text="common"),
    Option(("--formula",), "the design, e.g. '1 + age + C(group)'", TESTING, metavar="TEXT", default="1",
           default_text="1"),
    Option(("--covariates",), "another table for the formula", TESTING, Path, metavar="FILE",
           default_text="participants.tsv / studies.tsv"),
    Option(("--test",), "contrasts of the design's columns; commas make an F test", TESTING, many=True,
           metavar="NAME=EXPR", default_text="every column"),
    Option(("--contrast-file",), "the same as JSON", TESTING, Path, metavar="FILE"),
    Option(("--inference",), "one or more of these", INFERRING, many=True, choices=INFERENCES,
           default=("fdr", "bonferroni"), default_text="fdr bonferroni"),
    Option(("--alpha",), "level after correction", INFERRING, float, metavar="P", default=0.05, default_text="0.05"),
    Option(("--cluster-p",), "cluster-forming threshold", INFERRING, float, metavar="P", default=0.001,
           default_text="0.001"),
    Option(("--tail",), "direction of t tests", INFERRING, choices=("two-sided", "positive", "negative"),
           default="two-sided", default_text="two-sided"),
    Option(("--min-extent",), "voxels: smaller clusters leave tables and thresholded maps", INFERRING, int,
           metavar="N", default=0, default_text="0"),
    Option(("--permutations",), "resamples of the inferences that resample", INFERRING, int, metavar="R", default=5000,
           default_text="5000"),
    Option(("--seed",), "of the resamples", INFERRING, int, metavar="N", default=0, default_text="0"),
    Option(("--nprocs",), "cores to use", RUNNING, int, metavar="N", default_text="all we may use"),
    Option(("--mem",), "memory for all processes together, e.g. 8G", RUNNING, metavar="SIZE",
           default_text="80 %% of what is free"),
    Option(("--dask",), "workers of a Dask cluster: the scheduler's address or file, or local", RUNNING,
           metavar="ADDRESS", default_text="none: this machine's cores"),
    Option(("-w", "--work-dir"), "for temporary files", RUNNING, Path, metavar="DIR",
           default_text="under $SLURM_TMPDIR or $TMPDIR, removed at the end"),
    Option(("--config-file",), "TOML: any of these, and each method's settings", RUNNING, Path, metavar="FILE"),
    Option(("--dry-run",), "show what would be combined; write nothing", RUNNING, bool, default=False),
    Option(("--no-report",), "write no report pages", RUNNING, bool, default=False),
    Option(("--reports-only",), "make the report again from the maps in OUTPUT_DIR; BIDS_DIR is not read", RUNNING,
           bool, default=False),
    Option(("--skip-bids-validation",), "accept a dataset without a proper description", RUNNING, bool,
           default=False),
    Option(("--stop-on-first-crash",), "stop at the first failure", RUNNING, bool, default=False),
    Option(("-v", "--verbose"), "more messages; -vv: tracebacks too", RUNNING, int, default=0),
    Option(("-q", "--quiet"), "warnings and errors only", RUNNING, bool, default=False),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The options of one run, resolved; the command line wins over the configuration."""

    bids_dir: Path
    output_dir: Path
    analysis_level: str
    derivatives: tuple[str, ...] | None = None
    participant_label: tuple[str, ...] | None = None
    session_label: tuple[str, ...] | None = None
    study_label: tuple[str, ...] | None = None
    task_id: tuple[str, ...] | None = None
    contrast: tuple[str, ...] | None = None
    space: tuple[str, ...] | None = None
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    dof: float | None = None
    combine: tuple[str, ...] = ("run",)
    pool: tuple[str, ...] | None = None
    compute: tuple[str, ...] | None = None
    smoothing: float = 0.0
    estimator: tuple[str, ...] = ("auto",)
    units: str = "check"
    mask: str = "auto"
    min_coverage: float | None = None
    grid: str = "common"
    formula: str = "1"
    covariates: Path | None = None
    test: tuple[str, ...] | None = None
    contrast_file: Path | None = None
    inference: tuple[str, ...] = ("fdr", "bonferroni")
    alpha: float = 0.05
    cluster_p: float = 0.001
    tail: str = "two-sided"
    min_extent: int = 0
    permutations: int = 5000
    seed: int = 0
    nprocs: int | None = None
    mem: str | None = None
    dask: str | None = None
    work_dir: Path | None = None
    config_file: Path | None = None
    dry_run: bool = False
    no_report: bool = False
    reports_only: bool = False
    skip_bids_validation: bool = False
    stop_on_first_crash: bool = False
    verbose: int = 0
    quiet: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)  # the configuration's tables


def describe_options() -> str:
    """Write the table of options as Markdown, for docs/options.md."""
    lines = [
        "# Options of `ibma-app`",
        "",
        "Made by `python -m ibma_app.workflows.options.table`; do not edit by hand.",
        "",
        "`ibma-app BIDS_DIR OUTPUT_DIR {participant,group} [options]`",
    ]
    for heading in dict.fromkeys(option.heading for option in OPTIONS):
        lines += ["", f"## {heading.capitalize()}", "", "| option | meaning | default |", "|---|---|---|"]
        for option in (option for option in OPTIONS if option.heading == heading):
            flags = ", ".join(f"`{flag}`" for flag in option.flags)
            menu = f": {', '.join(f'`{choice}`' for choice in option.choices)}" if option.choices else ""
            default = option.default_text.replace("%%", "%").replace("|", "\\|")
            lines.append(f"| {flags} | {option.meaning}{menu} | {default} |")
    lines += [
        "| `--version` | the version | |",
        "| `--bids-exec-spec` | the [Boutiques](https://boutiques.github.io) descriptor of this command line | |",
        "| `-h`, `--help` | all options on a page | |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(describe_options())
