"""``ibma-import``: results of other software become a BIDS dataset of statistic maps."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ibma_app import __version__
from ibma_app.core.errors import IbmaError, InputError, Note, tell
from ibma_app.core.study import Importer, ImportRequest, Study
from ibma_app.core.system.folders import home_folder
from ibma_app.dataset.description import write_bidsignore, write_readme
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.imported import describe_import, find_earlier, remove_stale, update_rows
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.dataset.write import save_json, save_statmap
from ibma_app.importers import IMPORTERS, find_importer
from ibma_app.workflows.command.log import messages
from ibma_app.workflows.command.terminal import print_table, progress
from ibma_app.workflows.importing.make_maps import (
    ReadyMaps,
    locate_source,
    make_ready,
    make_sidecar,
    plan_kinds,
)
from ibma_app.workflows.importing.place import Placed, place, refuse_other_names
from ibma_app.workflows.options.table import ImportOptions

log = logging.getLogger("ibma_app")

README = """# Statistic maps of other software

Brought into BIDS by ibma-import of ibma-app. Each map's JSON sidecar tells where it is from, in which units it
is, how they were found (`UnitsSource`, `ScalingFactor`), its degrees of freedom and its sample size. This
dataset is read by ibma-app as it is.
"""


def run_import(options: ImportOptions) -> int:
    """Read the sources, show what was recognised, and write it; return the exit code."""
    with messages(options):
        studies, failures = _read_sources(options)
        placed = place(studies, options)
        if not options.dry_run:
            refuse_other_names(placed, options)
        _log_notes(studies, placed)
        if options.dry_run or not options.quiet:
            _print_table(placed, options)
        if not options.dry_run:
            failures |= _write(placed, options)
        for source, error in failures.items():
            named = source in error.message  # the path is not said twice
            log.error("%s", error.message if named else f"{source} failed: {error.message}")
        return 1 if failures else 0


def _read_sources(options: ImportOptions) -> tuple[list[Study], dict[str, IbmaError]]:
    """Read every source; one that fails does not stop the others."""
    importer = find_importer(options.software)
    request = ImportRequest(
        for_study=options.study_label is not None,
        space=options.space,
        sample_size=options.sample_size,
        task=options.task_id,
        cache=_cache_folder(),
    )
    studies: list[Study] = []
    failures: dict[str, IbmaError] = {}
    for source in options.sources:
        try:
            _check_source(importer, source)
            studies.append(importer.read(source, request))
        except IbmaError as error:
            failures[source] = error
    if failures and not studies:
        first, *others = failures.values()
        for other in others:
            log.error("%s", other.message)
        raise first
    return studies, failures


def _check_source(importer: Importer, source: str) -> None:
    """Refuse sources that do not exist, or that belong to another importer."""
    if importer.recognises(source):
        return
    if importer.name != "neurovault" and not Path(source).exists():
        hint = f" Example: ibma-import {importer.name} {importer.example} OUTPUT_DIR." if importer.example else ""
        raise InputError(f"{source} does not exist.{hint}")
    others = [name for name in IMPORTERS if name != importer.name and _recognises(name, source)]
    if others:
        raise InputError(
            f"{source} is not what {importer.name} writes; it looks like {others[0]}: "
            f"ibma-import {others[0]} {source} OUTPUT_DIR."
        )


def _recognises(name: str, source: str) -> bool:
    try:
        return find_importer(name).recognises(source)
    except ImportError:
        return False


def _cache_folder() -> Path | None:
    """Return the folder where downloads are kept; None where none can be written."""
    home = home_folder()
    base = os.environ.get("IBMA_CACHE") or os.environ.get("XDG_CACHE_HOME") or (str(home / ".cache") if home else None)
    if base is None:
        return None
    folder = Path(base) / "ibma-app"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _log_notes(studies: Sequence[Study], placed: Sequence[Placed]) -> None:
    """Log what is not imported, and what is odd."""
    for study in studies:
        for text in study.listed:
            log.info("%s: not imported: %s", study.source, text)
        for text in study.notes:
            log.info("%s: %s", study.source, text)
    notes = [Note(note, {one.stem: ""}, "contrast") for one in placed for note in one.contrast.notes]
    for text in tell(notes):
        log.warning("%s", text)


def _print_table(placed: Sequence[Placed], options: ImportOptions) -> None:
    """Print what was recognised: a line per contrast, on stdout."""
    title = "What would be imported" if options.dry_run else "What is imported"
    table = Table("name", "contrast", "maps", "dof", "n", "units", "factor", "how it was found", title=title,
                  box=SIMPLE_HEAD, title_justify="left")  # fmt: skip
    for one in placed:
        contrast = one.contrast
        table.add_row(
            one.stem,
            contrast.name,
            " ".join(plan_kinds(contrast)),
            "voxelwise" if "dof" in contrast.maps else _text(contrast.dof),
            _text(contrast.sample_size) if "study" in one.entities else "",
            contrast.units,
            "" if contrast.scaling_factor is None else f"{contrast.scaling_factor:.6g}",
            contrast.units_source,
        )
    print_table(table, width=240)


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


def _write(placed: Sequence[Placed], options: ImportOptions) -> dict[str, IbmaError]:
    """Write maps, tables and description of the dataset; return the contrasts that failed, and why.

    Raises
    ------
    IbmaError
        No contrast could be written: nothing is written then.
    """
    done: list[Placed] = []
    notes: list[Note] = []
    failures: dict[str, IbmaError] = {}
    with open_output(options.output_dir) as output:
        with progress(len(placed), "importing", "contrasts") as step:
            for one in placed:
                try:
                    ready = make_ready(one.contrast)
                except IbmaError as error:
                    failures[one.stem] = error
                else:
                    if not done:
                        _describe(output, placed)
                    notes += [Note(text, {one.stem: ""}, "contrast") for text in ready.notes]
                    _write_contrast(output, one, ready)
                    done.append(one)
                step(one.entities["contrast"])
        for text in tell(notes):
            log.warning("%s", text)
        if failures and not done:
            raise next(iter(failures.values()))
        _write_rows(output, done)
        _warn_of_earlier(output, done)
    log.info("%d contrast(s) in %s.", len(done), options.output_dir)
    return failures


def _describe(output: Output, placed: Sequence[Placed]) -> None:
    """Write the description of the dataset, .bidsignore and README."""
    sources = dict.fromkeys(locate_source(one.source, output.root) for one in placed)
    describe_import(output, __version__, dict.fromkeys(one.software for one in placed), list(sources))
    write_bidsignore(output)
    write_readme(output, README, {})


def _warn_of_earlier(output: Output, placed: Sequence[Placed]) -> None:
    """Warn of maps of the same source under another name: they are kept, as both may be wanted."""
    ours = {one.stem for one in placed}
    for one in placed:
        sources = [locate_source(source, output.root) for source in one.contrast.sources]
        others = [stem for stem in find_earlier(output, one.folder, sources) if stem not in ours]
        if others:
            log.warning(
                "%s: an earlier import left maps of the same source under another name, which are kept: %s. "
                "Remove those that are not wanted, or ibma-app takes both.", one.stem, ", ".join(others),
            )  # fmt: skip


def _write_contrast(output: Output, one: Placed, ready: ReadyMaps) -> None:
    """Write one contrast's maps and sidecars, and remove what an earlier import of it left."""
    if not ready.n_covered:
        log.warning("%s: none of its %s has a value; its maps are empty.", one.stem, ready.grid.noun)
    written = []
    for kind, values in ready.maps.items():
        entities = {**one.entities, "stat": kind}
        name, sidecar = (
            output_name(entities, "statmap", ready.grid.extension),
            output_name(entities, "statmap", ".json"),
        )
        content = make_sidecar(one.contrast, kind, ready, one.software, output.root)
        save_statmap(output, one.folder / name, values, ready.grid, fill=ready.fill(kind), sidecar=content)
        save_json(output, one.folder / sidecar, {**content, **({"Names": dict(one.names)} if one.names else {})})
        written += [name, sidecar]
    for name in remove_stale(output, one.folder, one.stem, written):
        log.debug("%s of an earlier import is removed.", name)


def _write_rows(output: Output, placed: Iterable[Placed]) -> None:
    """Write the rows of participants.tsv and studies.tsv."""
    subjects: dict[str, dict[str, object]] = {}
    studies: dict[str, dict[str, object]] = {}
    for one in placed:
        if "study" in one.entities:
            row = studies.setdefault(one.entities["study"], {})
            size = one.contrast.sample_size
            values = {"sample_size": int(size) if size is not None and size == int(size) else size}
            _warn_of_groups(one, row)
            row |= {name: value for name, value in {**values, **one.contrast.columns}.items() if value is not None}
        else:
            subjects.setdefault(one.entities["sub"], {})
    if subjects:
        update_rows(output, "participants", subjects)
    if studies:
        update_rows(output, "studies", studies)


def _warn_of_groups(one: Placed, row: Mapping[str, object]) -> None:
    """Warn where contrasts of one study compare other groups: studies.tsv has one row for each study."""
    ours, theirs = one.contrast.columns.get("n1"), row.get("n1")
    if row and ours != theirs:
        log.warning(
            "%s: studies.tsv has one row a study, and its n1 and n2 are not those of all its contrasts, which "
            "--units hedges-g takes for granted. Import what compares two groups under a --study-label of its own "
            "(with --contrast).", one.stem,
        )  # fmt: skip
