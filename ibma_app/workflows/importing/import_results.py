"""``ibma-import``: results of other software become a BIDS dataset of statistic maps."""

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ibma_app import __version__
from ibma_app.core.errors import DatasetError, IbmaError, InputError, NothingSelectedError, UsageError
from ibma_app.core.labels import contrast_label, is_label, make_label
from ibma_app.core.study import NATIVE, ImportedContrast, Importer, ImportRequest, Study
from ibma_app.dataset.description import write_bidsignore, write_readme
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.imported import describe_import, find_earlier, remove_stale, update_rows
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.dataset.write import save_json, save_statmap
from ibma_app.importers import IMPORTERS, find_importer
from ibma_app.workflows.importing.make_maps import (
    ReadyMaps,
    locate_source,
    make_ready,
    make_sidecar,
    plan_kinds,
)
from ibma_app.workflows.importing.settle import settle_contrast
from ibma_app.workflows.options.table import ImportOptions
from ibma_app.workflows.run.log import messages
from ibma_app.workflows.run.terminal import progress

log = logging.getLogger("ibma_app")

README = """# Statistic maps of other software

Brought into BIDS by ibma-import of ibma-app. Each map's JSON sidecar tells where it is from, in which units it
is, how they were found (`UnitsSource`, `ScalingFactor`), its degrees of freedom and its sample size. This
dataset is read by ibma-app as it is.
"""


@dataclass(frozen=True, eq=False)
class Placed:
    """One contrast, and the entities that name its maps."""

    contrast: ImportedContrast
    entities: Mapping[str, str]
    software: str
    source: str

    @property
    def folder(self) -> Path:
        """The folder of its maps, below OUTPUT_DIR."""
        if "study" in self.entities:
            return Path(f"study-{self.entities['study']}")
        session = [f"ses-{self.entities['ses']}"] if "ses" in self.entities else []
        return Path(f"sub-{self.entities['sub']}", *session, "func")

    @property
    def stem(self) -> str:
        """What the names of its maps begin with, before ``_stat-``."""
        return output_name(self.entities, "", "").removesuffix("_")


def run_import(options: ImportOptions) -> int:
    """Read the sources, show what was recognised, and write it; return the exit code."""
    with messages(options):
        studies, failures = _read_sources(options)
        placed = _place(studies, options)
        _log_notes(studies, placed)
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
    base = os.environ.get("IBMA_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(base) / "ibma-app"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _place(studies: Sequence[Study], options: ImportOptions) -> list[Placed]:
    """Choose the contrasts, and give each its name.

    Raises
    ------
    NothingSelectedError
        A contrast of ``--contrast`` does not exist.
    DatasetError
        Two contrasts would have one name.
    UsageError
        The subject or study is neither given nor in the source.
    """
    pairs = [(study, contrast) for study in studies for contrast in study.contrasts]
    chosen = _choose([contrast for _, contrast in pairs], options.contrast)
    placed: list[Placed] = []
    taken: dict[str, Placed] = {}
    for study, contrast in pairs:
        if id(contrast) not in chosen:
            continue
        one = _place_one(study, contrast, chosen[id(contrast)], options)
        twin = taken.setdefault(one.stem, one)
        if twin is one:
            placed.append(one)
        elif set(twin.contrast.sources) != set(contrast.sources):
            raise DatasetError(_explain_twins(twin, one))
    return placed


def _choose(contrasts: Sequence[ImportedContrast], wanted: Sequence[str]) -> dict[int, str | None]:
    """Return the contrasts that are imported, by identity, with the labels given to them."""
    if not wanted:
        return {id(contrast): contrast.label for contrast in contrasts}
    chosen: dict[int, str | None] = {}
    for text in wanted:
        name, label = _split(text, contrasts)
        found = [contrast for contrast in contrasts if _is_called(contrast, name)]
        if not found:
            there = "; ".join(dict.fromkeys(contrast.name for contrast in contrasts)) or "none"
            raise NothingSelectedError(f"--contrast {text!r}: there is no such contrast. There are: {there}.")
        if label is not None and not is_label(label):
            proposal = contrast_label(label)
            raise UsageError(f"--contrast {text!r}: a label has letters and digits only. Perhaps {proposal}?")
        chosen |= {id(contrast): label or contrast.label for contrast in found}
    return chosen


def _split(text: str, contrasts: Sequence[ImportedContrast]) -> tuple[str, str | None]:
    """Take ``NAME=LABEL`` apart; a contrast's name may hold ``=`` itself."""
    name, equals, label = text.rpartition("=")
    if not equals or any(_is_called(contrast, text) for contrast in contrasts):
        return text, None
    return name, label


def _is_called(contrast: ImportedContrast, name: str) -> bool:
    """Return whether a contrast has this name, or would get this label."""
    same = " ".join(contrast.name.split()).casefold() == " ".join(name.split()).casefold()
    return same or contrast_label(contrast.name) == name


def _place_one(study: Study, contrast: ImportedContrast, label: str | None, options: ImportOptions) -> Placed:
    """Choose the entities of one contrast."""
    own = {key: make_label(value) for key, value in contrast.entities.items() if make_label(value)}
    entities = own | options.entities
    if options.study_label is not None:
        entities.pop("sub", None)
    if options.participant_label is not None:
        entities.pop("study", None)
    if not {"sub", "study"} & set(entities) and not options.dry_run:
        flag = "--study-label" if study.level == "group" else "--participant-label"
        raise UsageError(
            f"{study.source} does not say whose maps these are: give --participant-label LABEL for a subject's, "
            f"or --study-label LABEL for a study's (this looks like {flag})."
        )
    label = label or contrast_label(contrast.name)
    if not label:
        raise DatasetError(
            f"{study.source}: the contrast {contrast.name!r} has no letter or digit to name its files by. "
            f"Give it a label: --contrast {contrast.name!r}=LABEL."
        )
    is_study = "study" in entities or ("sub" not in entities and study.level == "group")
    contrast = settle_contrast(study, contrast, options, is_study=is_study)
    if contrast.space not in ("", NATIVE):
        entities["space"] = contrast.space
    return Placed(contrast, {**entities, "contrast": label}, study.software, study.source)


def _explain_twins(one: Placed, other: Placed) -> str:
    """Write the message about two contrasts that would have one name."""
    text = f"Two contrasts would be named {one.stem}: {one.contrast.name!r} ({one.source}) and "
    text += f"{other.contrast.name!r} ({other.source}). "
    if one.source != other.source and "sub" in one.entities:
        return f"{text}Import runs and sessions one by one, each with its --run N or --session-label L."
    return f"{text}Give them labels of their own: --contrast {other.contrast.name!r}=LABEL, and import one at a time."


def _log_notes(studies: Sequence[Study], placed: Sequence[Placed]) -> None:
    """Log what is not imported, and what is odd."""
    for study in studies:
        for text in study.listed:
            log.info("%s: not imported: %s", study.source, text)
        for text in study.notes:
            log.info("%s: %s", study.source, text)
    notes: dict[str, list[str]] = {}
    for one in placed:
        for note in one.contrast.notes:
            notes.setdefault(note, []).append(one.stem)
    for note, names in notes.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("%s%s: %s", names[0], more, note)


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
    width = None if sys.stdout.isatty() else 240
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)


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
    failures: dict[str, IbmaError] = {}
    with open_output(options.output_dir) as output:
        with progress(len(placed), "contrasts") as step:
            for one in placed:
                try:
                    ready = make_ready(one.contrast)
                except IbmaError as error:
                    failures[one.stem] = error
                else:
                    if not done:
                        _describe(output, placed)
                    for note in ready.notes:
                        log.warning("%s: %s", one.stem, note)
                    _write_contrast(output, one, ready)
                    done.append(one)
                step(one.entities["contrast"])
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
        log.warning("%s: no voxel has a value; its maps are empty.", one.stem)
    written = []
    for kind, values in ready.maps.items():
        entities = {**one.entities, "stat": kind}
        name, sidecar = output_name(entities, "statmap"), output_name(entities, "statmap", ".json")
        save_statmap(output, one.folder / name, values, ready.grid, fill=ready.fill(kind))
        save_json(output, one.folder / sidecar, make_sidecar(one.contrast, kind, ready, one.software, output.root))
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
