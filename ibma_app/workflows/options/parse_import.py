"""The command line of ``ibma-import``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ibma_app.core.errors import UsageError
from ibma_app.core.from_files import MOST_PEOPLE
from ibma_app.core.labels import contrast_label, is_label
from ibma_app.core.system.folders import absolute_path
from ibma_app.importers import IMPORTERS
from ibma_app.workflows.options.parse import Parser, add_options, with_hyphens
from ibma_app.workflows.options.table import IMPORT_OPTIONS, RUNNING, ImportOptions

EPILOG = """examples:
  ibma-import fsl sub-01_run-1.feat maps --participant-label 01 --run 1 --task-id faces
  ibma-import spm pain/spm maps --study-label pain --space MNI152NLin6Asym --contrast 'pain > warm=pain'
  ibma-import neurovault 1425 maps --dry-run
exit codes: 0 done, 1 some sources failed, 18 no such contrast, 64 usage, 65 values or metadata, 66 source missing,
  73 OUTPUT_DIR not writable, 74 I/O error
"""


def build_import_parser() -> argparse.ArgumentParser:
    """Build the parser of ``ibma-import``."""
    from ibma_app import __version__

    parser = Parser(
        prog="ibma-import",
        description="Bring results of other software into a BIDS dataset of statistic maps.",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="ibma-import {" + ",".join(IMPORTERS) + "} SOURCE... OUTPUT_DIR [options]",
    )
    parser.add_argument("software", metavar="SOFTWARE", help=", ".join(IMPORTERS))
    parser.add_argument("paths", metavar="SOURCE... OUTPUT_DIR", nargs="+", help="what to import; where to")
    groups = add_options(parser, IMPORT_OPTIONS)
    groups[RUNNING].add_argument("--version", action="version", version=f"ibma-import {__version__}")
    return parser


def parse_import(argv: Sequence[str]) -> ImportOptions:
    """Parse the command line of ``ibma-import``.

    Raises
    ------
    UsageError
        An unknown option, software or label; neither source nor OUTPUT_DIR.
    """
    given = vars(build_import_parser().parse_args([with_hyphens(word) for word in argv]))
    paths = given.pop("paths")
    if given["software"] not in IMPORTERS:
        raise UsageError(f"There is no importer {given['software']!r}; choose from: {', '.join(IMPORTERS)}.")
    if len(paths) < 2:
        raise UsageError("Give a SOURCE and an OUTPUT_DIR (both before --contrast). See ibma-import --help.")
    for dest, prefix in (("participant_label", "sub"), ("session_label", "ses"), ("run", "run"),
                         ("study_label", "study"), ("task_id", "task"), ("space", "space")):  # fmt: skip
        if dest in given:
            given[dest] = _label(f"--{dest.replace('_', '-')}", given[dest], prefix)
    options = ImportOptions(
        **given | {"contrast": tuple(given.get("contrast", ()))},
        sources=tuple(paths[:-1]),
        output_dir=absolute_path(Path(paths[-1])),
    )
    _check(options)
    return options


def _label(flag: str, text: str, prefix: str) -> str:
    """Read a label with or without its prefix; refuse what is not a label."""
    label = text.removeprefix(f"{prefix}-")
    if not is_label(label):
        proposal = contrast_label(label)
        hint = f" Perhaps {proposal}?" if proposal else ""
        raise UsageError(f"{flag} {text!r}: a label has letters and digits only.{hint}")
    return label


def _check(options: ImportOptions) -> None:
    """Refuse options that contradict each other."""
    if options.participant_label and options.study_label:
        raise UsageError("--participant-label and --study-label exclude each other: maps are a subject's or a study's.")
    if options.study_label and (options.run or options.session_label):
        raise UsageError("--run and --session-label belong to subjects, not to a --study-label.")
    if options.run is not None and not (options.run.isascii() and options.run.isdigit()):
        raise UsageError(f"--run is a number, not {options.run!r}.")
    size = options.sample_size
    if size is not None and not (1 <= size <= MOST_PEOPLE and float(size).is_integer()):
        raise UsageError(f"--sample-size is a whole number from 1 to {MOST_PEOPLE:g}, not {size:g}.")
    for source in options.sources:
        if Path(source).is_dir() and Path(source).resolve() == options.output_dir.resolve():
            raise UsageError(
                f"OUTPUT_DIR ({options.output_dir}) is the source, where nothing is written. Give another folder, e.g. "
                f"{options.output_dir.parent / 'imported'}."
            )
