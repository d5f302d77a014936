"""A table of maps (TSV or CSV), one row per map: for sources that no other importer reads."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError, InputError
from ibma_app.core.from_files import doi_in, number_in, read_dof, read_sample_size, read_text
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import Publication
from ibma_app.core.study import NATIVE, ImportedContrast, Importer, ImportRequest, Study
from ibma_app.images.spaces import MNI, says_mni, template_label
from ibma_app.importers.lazy import LazyMaps

KINDS = {
    **dict.fromkeys(("effect", "beta", "cope", "con", "b"), "effect"),
    **dict.fromkeys(("variance", "varcope", "var"), "variance"),
    **dict.fromkeys(("se", "stderr", "standard_error", "std_error"), "se"),
    **dict.fromkeys(("t", "tstat", "t_map"), "t"),
    **dict.fromkeys(("z", "zstat", "z_map"), "z"),
    **dict.fromkeys(("p", "p_value"), "p"),
    "dof": "dof",
}
MENU = "effect, variance, se (squared to variance), t, z, p, dof"
_UNITS = ("study_id", "participant_id")
_ENTITIES = {"study_id": "study", "participant_id": "sub", "session": "ses", "session_id": "ses", "task": "task",
             "run": "run", "desc": "desc"}  # fmt: skip
_CITED = ("doi", "authors", "title")
_OURS = {*_ENTITIES, *_CITED, "path", "kind", "contrast", "sample_size", "dof", "units", "space", "tail"}
_TAILS = ("two-sided", "positive", "negative")
MAX_TABLE = 16 * 2**20  # bytes
MOST_ROWS = 20_000
_MISSING = ("", "n/a", "na", "nan")


@dataclass(frozen=True)
class _Row:
    """One row, without missing values."""

    line: int
    path: Path
    kind: str  # a value of KINDS
    entities: Mapping[str, str]
    contrast: str
    space: str
    facts: Mapping[str, str]


def recognises(source: str) -> bool:
    """Return whether a source is a table with the columns path and kind."""
    try:
        if not Path(source).is_file():  # a pipe would be waited for
            return False
        with Path(source).open(encoding="utf-8-sig") as stream:
            first = stream.readline(100_000)
    except (OSError, UnicodeDecodeError, ValueError):
        return False
    names = {name.strip().lower() for name in re.split(r"[\t,]", first)}
    return Path(source).suffix.lower() in (".tsv", ".csv", ".txt") and {"path", "kind"} <= names


def read(source: str, request: ImportRequest) -> Study:
    """Read a table: ``study_id`` (or ``participant_id``), ``path``, ``kind``, ``contrast``, and what else is known.

    Parameters
    ----------
    source : str
        TSV, or CSV by its name. ``path`` is relative to the table. Known
        columns: ``sample_size``, ``dof``, ``units``, ``space``, ``tail``,
        ``session``, ``task``, ``run``, ``desc``, ``doi``, ``authors``, ``title``; others become columns of
        studies.tsv where they are the same in all rows of a study.
    request : ImportRequest

    Raises
    ------
    InputError
        The table or a map is missing.
    DataError
        Columns, kinds or values that are not valid; two rows for one map.
    """
    table = Path(source)
    rows = _read_rows(table, request)
    extra = _extra_columns(rows)
    contrasts: dict[tuple[Any, ...], list[_Row]] = {}
    for row in rows:
        contrasts.setdefault((tuple(sorted(row.entities.items())), row.contrast, row.space), []).append(row)
    of_studies = {"study" in row.entities for row in rows}
    level = None if len(of_studies) > 1 else "group" if True in of_studies else "subject"
    return Study(
        "a table of maps",
        source,
        tuple(_contrast(table, same, extra.get(same[0].entities.get("study", ""), {})) for same in contrasts.values()),
        level=level,
    )


def _read_rows(table: Path, request: ImportRequest) -> list[_Row]:
    """Read and check every row."""
    try:
        text = read_text(table, MAX_TABLE)
    except FileNotFoundError:
        raise InputError(f"{table} does not exist.") from None
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise DataError(f"{table} is no text in UTF-8: save it as TSV (tab-separated text, UTF-8).") from None
    except ValueError as error:
        raise DataError(f"{table} is no table of maps: {error}.") from None
    try:
        comma = "," if table.suffix.lower() == ".csv" else "\t"
        lines = list(csv.reader(io.StringIO(text), delimiter=comma, strict=True))
    except csv.Error as error:
        raise DataError(f"{table} is damaged: {error}.") from error
    if len(lines) > MOST_ROWS:
        raise DataError(f"{table} has {len(lines)} lines; a table of maps has at most {MOST_ROWS}: cut it.")
    header = [name.strip().lower() for name in lines[0]] if lines else []
    missing = [name for name in ("path", "kind", "contrast") if name not in header]
    missing += [] if set(_UNITS) & set(header) or not lines else ["study_id"]
    if missing or not lines:
        cells = "commas" if comma == "," else "tabs"
        hint = f" Cells must be separated by {cells}." if len(header) == 1 else ""
        raise DataError(
            f"{table} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing) or 'path'} (it has "
            f"{', '.join(header) or 'none'}). Needed: study_id or participant_id, path, kind ({MENU}), contrast.{hint}"
        )
    if len(set(header)) != len(header):
        raise DataError(f"{table} has two columns of one name ({', '.join(header)}).")
    rows = [
        _read_row(table, number, dict(zip(header, cells, strict=True)), request)
        for number, cells in enumerate(lines[1:], 2)
        if any(cell.strip() for cell in cells) and _has_all(table, number, cells, header)
    ]
    if not rows:
        raise DataError(f"{table} has no rows below its header.")
    return rows


def _has_all(table: Path, number: int, cells: list[str], header: list[str]) -> bool:
    """Refuse a row of another length than the header."""
    if len(cells) != len(header):
        raise DataError(f"{table}, line {number}: {len(cells)} cells under {len(header)} columns.")
    return True


def _read_row(table: Path, line: int, cells: Mapping[str, str], request: ImportRequest) -> _Row:
    """Check one row."""
    facts = {name: cell.strip() for name, cell in cells.items() if cell.strip().lower() not in _MISSING}
    where = f"{table}, line {line}"
    kind = KINDS.get(facts.get("kind", "").lower())
    if kind is None:
        raise DataError(f"{where}: the kind {cells['kind']!r} is none of {MENU}.")
    entities = {
        entity: facts[column].removeprefix(f"{entity}-") for column, entity in _ENTITIES.items() if column in facts
    }
    if not {"study", "sub"} & set(entities):
        raise DataError(f"{where}: no study_id and no participant_id.")
    missing = [name for name in ("path", "contrast") if name not in facts]
    if missing:
        raise DataError(f"{where}: no {missing[0]}.")
    if facts.get("tail", _TAILS[0]) not in _TAILS:
        raise DataError(f"{where}: the tail {facts['tail']!r} is none of {', '.join(_TAILS)}.")
    space = template_label(facts.get("space", ""))
    if space == NATIVE and request.for_study and "study" in entities:
        raise DataError(f"{where}: the map lies in a subject's own space, so it cannot be combined with other studies.")
    return _Row(line, _path_of(table, facts["path"], where), kind, entities, facts["contrast"], space, facts)


def _path_of(table: Path, text: str, where: str) -> Path:
    """Return a map's file, relative to the table's folder."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise DataError(f"{where}: {text} is an address; download the map and name the file.")
    path = table.parent / text
    try:
        is_there = path.exists()
    except OSError:  # a name that is longer than a file system takes
        is_there = False
    if not is_there:
        raise InputError(f"{where}: the map {path} does not exist (paths are relative to the table's folder).")
    return path


def _number(table: Path, row: _Row, name: str) -> float | None:
    """Read a positive number of a row, None when it is missing."""
    if name not in row.facts:
        return None
    check = read_dof if name == "dof" else read_sample_size
    return check(row.facts[name], f"{table}, line {row.line}", f"the {name}")


def _agreed(table: Path, rows: list[_Row], name: str) -> float | None:
    """Return the number that the rows of a contrast share."""
    values = {value for row in rows if (value := _number(table, row, name)) is not None}
    if len(values) > 1:
        raise DataError(f"{table}, lines {', '.join(str(row.line) for row in rows)}: one contrast, but several "
                        f"values of {name} ({', '.join(f'{value:g}' for value in sorted(values))}).")  # fmt: skip
    return values.pop() if values else None


def _extra_columns(rows: list[_Row]) -> dict[str, dict[str, Any]]:
    """Return, for each study, the further columns that are the same in all its rows (numbers as numbers)."""
    found: dict[str, dict[str, Any]] = {}
    by_study: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if "study" in row.entities:
            by_study.setdefault(row.entities["study"], []).append(row.facts)
    for study, own in by_study.items():
        for name in {name for facts in own for name in facts} - _OURS:
            values = {facts[name] for facts in own if name in facts}
            if len(values) == 1:
                text = values.pop()
                number = number_in(text)
                found.setdefault(study, {})[name] = text if number is None else number
    return found


def _files_of(table: Path, rows: list[_Row]) -> dict[str, _Row]:
    """Return the rows of one contrast by kind."""
    files: dict[str, _Row] = {}
    for row in rows:
        kind = "variance" if row.kind == "se" else row.kind
        if kind in files:
            whose = "_".join(f"{key}-{label}" for key, label in row.entities.items())
            raise DataError(
                f"{table}: lines {files[kind].line} and {row.line} both give the {kind} of {row.contrast} of {whose}."
            )
        files[kind] = row
    if not {"effect", "t", "z", "p"} & set(files):
        have = " and a ".join(files)
        raise DataError(f"{table}, line {rows[0].line}: {rows[0].contrast} has a {have} map, but no effect, t, z or p.")
    return files


def _grid_of(table: Path, files: Mapping[str, _Row]) -> Grid:
    """Return the one grid on which the maps of a contrast lie."""
    from ibma_app.images.read import read_image

    grid: Grid | None = None
    for row in files.values():
        try:
            own = read_image(row.path).grid
        except IbmaError as error:
            raise type(error)(f"{table}, line {row.line}: {error.message}") from error
        if grid is not None and not grid.matches(own):
            raise DataError(
                f"{table}, line {row.line}: {row.path} lies on another grid than the contrast's other maps."
            )
        grid = grid or own
    if grid is None:
        raise DataError(f"{table} has a contrast without maps.")
    return grid


def _publication(table: Path, rows: list[_Row]) -> tuple[Publication | None, str, tuple[str, ...]]:
    """Return what to cite for a study, its cell of doi, and a note where that is none."""
    said = {name: next((row for row in rows if name in row.facts), None) for name in _CITED}
    texts = {name: row.facts[name] if row else "" for name, row in said.items()}
    doi = doi_in(texts["doi"])
    notes: tuple[str, ...] = ()
    if texts["doi"] and doi is None:
        where = f"{table}, line {said['doi'].line if said['doi'] else ''}"
        notes = (f"{where}: {texts['doi']!r} is no DOI (it begins with 10. and has a slash), and is not cited.",)
    known = Publication(texts["authors"], texts["title"], doi or "")
    return (known if known.text else None), doi or texts["doi"], notes


def _contrast(table: Path, rows: list[_Row], extra: Mapping[str, Any]) -> ImportedContrast:
    """Describe the maps of one contrast."""
    from ibma_app.images.read import read_image

    files = _files_of(table, rows)
    grid = _grid_of(table, files)

    def map_of(row: _Row) -> NDArray[Any]:
        values: NDArray[Any] = read_image(row.path).data
        return values.astype(np.float64) ** 2 if row.kind == "se" else values

    units = {row.facts["units"] for row in rows if "units" in row.facts and row.kind in ("effect", "variance", "se")}
    if len(units) > 1:
        raise DataError(f"{table}, lines {', '.join(str(row.line) for row in rows)}: one contrast in several units "
                        f"({', '.join(sorted(units))}).")  # fmt: skip
    known = units.pop() if units else ""
    publication, doi, notes = _publication(table, rows)
    return ImportedContrast(
        name=rows[0].contrast,
        maps=LazyMaps({kind: partial(map_of, row) for kind, row in files.items()}),
        grid=grid,
        dof=None if "dof" in files else _agreed(table, rows, "dof"),
        sample_size=_agreed(table, rows, "sample_size"),
        units=known or "unknown",
        units_source=f"the column units of {table.name}" if known else "The table does not tell the units.",
        space=rows[0].space or (MNI if says_mni(grid) else ""),
        tail=files["p"].facts.get("tail") if "p" in files else None,
        entities=rows[0].entities,
        columns={**extra, **({"doi": doi} if doi else {})},
        publication=publication,
        notes=notes,
        derived={"variance": "the square of the standard error"} if any(row.kind == "se" for row in rows) else {},
        sources=tuple(str(row.path) for row in files.values()),
    )


IMPORTER = Importer(
    name="table",
    title="a table of maps (TSV): study_id, path, kind, contrast, sample_size, dof, units, ...",
    recognises=recognises,
    read=read,
    example="maps.tsv",
)
