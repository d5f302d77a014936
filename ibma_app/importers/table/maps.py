"""A table of maps (TSV or CSV), one row per map: for sources that no other importer reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError, InputError
from ibma_app.core.from_files import read_dof, read_sample_size
from ibma_app.core.grid import Grid
from ibma_app.core.study import NATIVE, ImportedContrast, ImportRequest, Study
from ibma_app.images.spaces import MNI, says_mni, template_label
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.table.lines import (
    CITED,
    columns_of_studies,
    lacks_columns,
    no_rows,
    read_lines,
    read_publication,
)

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
_OURS = {*_ENTITIES, *CITED, "path", "kind", "contrast", "sample_size", "dof", "units", "space", "tail"}
_TAILS = ("two-sided", "positive", "negative")
WHAT = "a table of maps"


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
    extra = columns_of_studies(((row.entities["study"], row.facts) for row in rows if "study" in row.entities), _OURS)
    contrasts: dict[tuple[Any, ...], list[_Row]] = {}
    for row in rows:
        contrasts.setdefault((tuple(sorted(row.entities.items())), row.contrast, row.space), []).append(row)
    of_studies = {"study" in row.entities for row in rows}
    level = None if len(of_studies) > 1 else "group" if True in of_studies else "subject"
    return Study(
        WHAT,
        source,
        tuple(_contrast(table, same, extra.get(same[0].entities.get("study", ""), {})) for same in contrasts.values()),
        level=level,
    )


def _read_rows(table: Path, request: ImportRequest) -> list[_Row]:
    """Read and check every row."""
    header, lines = read_lines(table, WHAT)
    missing = [name for name in ("path", "kind", "contrast") if name not in header]
    missing += [] if set(_UNITS) & set(header) else ["study_id"]
    if missing:
        raise lacks_columns(table, header, missing, f"study_id or participant_id, path, kind ({MENU}), contrast")
    if not lines:
        raise no_rows(table)
    return [_read_row(table, line, cells, request) for line, cells in lines]


def _read_row(table: Path, line: int, facts: Mapping[str, str], request: ImportRequest) -> _Row:
    """Check one row."""
    where = f"{table}, line {line}"
    kind = KINDS.get(facts.get("kind", "").lower())
    if kind is None:
        raise DataError(f"{where}: the kind {facts.get('kind', '')!r} is none of {MENU}.")
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
    publication, doi, notes = read_publication(table, [(row.line, row.facts) for row in rows])
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
