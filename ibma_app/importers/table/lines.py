"""The lines of a table (TSV, or CSV by its name) and their cells, without missing values."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DataError, InputError
from ibma_app.core.from_files import doi_in, number_in, read_text
from ibma_app.core.statmap import Publication

Cells = Mapping[str, str]  # name of a column, lowercase -> text; what is missing is left out

LARGEST = 16 * 2**20  # bytes
MOST_LINES = 20_000
CITED = ("doi", "authors", "title")
_MISSING = ("", "n/a", "na", "nan")


def read_lines(table: Path, what: str) -> tuple[list[str], list[tuple[int, Cells]]]:
    """Read a table's header and lines.

    Parameters
    ----------
    table : Path
        Cells are separated by commas in ``.csv``, else by tabs.
    what : str
        Of what it is a table, for messages: ``"a table of maps"``.

    Returns
    -------
    list of str
        Names of the columns, lowercase.
    list of (int, mapping)
        The number of each line that is not blank, and its cells.

    Raises
    ------
    InputError
        The table is missing or cannot be read.
    DataError
        It is no text, damaged or too long; two columns have one name; a line has other cells than the header.
    """
    comma = "," if table.suffix.lower() == ".csv" else "\t"
    try:
        lines = list(csv.reader(io.StringIO(_read(table, what)), delimiter=comma, strict=True))
    except csv.Error as error:
        raise DataError(f"{table} is damaged: {error}.") from error
    if len(lines) > MOST_LINES:
        raise DataError(f"{table} has {len(lines)} lines; {what} has at most {MOST_LINES}: cut it.")
    header = [name.strip().lower() for name in lines[0]] if lines else []
    kept = [place for place in range(len(header)) if header[place] or _has_cells(lines[1:], place)]
    names = [header[place] for place in kept]
    if len(set(names)) != len(names):
        raise DataError(f"{table} has two columns of one name ({', '.join(names)}).")
    rows = [(number, cells) for number, cells in enumerate(lines[1:], 2) if any(cell.strip() for cell in cells)]
    return names, [(number, _cells(table, number, cells, header)) for number, cells in rows]


def _read(table: Path, what: str) -> str:
    """Read the text."""
    try:
        return read_text(table, LARGEST)
    except FileNotFoundError:
        raise InputError(f"{table} does not exist.") from None
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise DataError(f"{table} is no text in UTF-8: save it as TSV (tab-separated text, UTF-8).") from None
    except ValueError as error:
        raise DataError(f"{table} is not {what}: {error}.") from None


def _has_cells(lines: Iterable[Sequence[str]], place: int) -> bool:
    """Return whether a column without a name has any cell: spreadsheets write empty ones at the end."""
    return any(len(cells) > place and cells[place].strip() for cells in lines)


def _cells(table: Path, number: int, cells: Sequence[str], header: Sequence[str]) -> Cells:
    """Name the cells of a line."""
    if len(cells) != len(header):
        raise DataError(f"{table}, line {number}: {len(cells)} cells under {len(header)} columns.")
    texts = zip(header, (cell.strip() for cell in cells), strict=True)
    return {name: text for name, text in texts if text.lower() not in _MISSING}


def no_rows(table: Path) -> DataError:
    """Return the error of a table that ends with its header."""
    return DataError(f"{table} has no rows below its header.")


def lacks_columns(table: Path, header: Sequence[str], missing: Sequence[str], needed: str) -> DataError:
    """Return the error of a table without columns that it needs."""
    separator = "commas" if table.suffix.lower() == ".csv" else "tabs"
    hint = f" Cells must be separated by {separator}." if len(header) == 1 else ""
    return DataError(
        f"{table} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)} (it has "
        f"{', '.join(header) or 'none'}). Needed: {needed}.{hint}"
    )


def columns_of_studies(rows: Iterable[tuple[str, Cells]], known: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return, for each study, the further columns that are the same in all its lines (numbers as numbers).

    Parameters
    ----------
    rows : iterable of (str, mapping)
        The study and the cells of each line.
    known : iterable of str
        Columns that mean something to the importer: not of these.
    """
    found: dict[str, dict[str, Any]] = {}
    by_study: dict[str, list[Cells]] = {}
    for study, cells in rows:
        by_study.setdefault(study, []).append(cells)
    for study, own in by_study.items():
        for name in {name for cells in own for name in cells}.difference(known):
            values = {cells[name] for cells in own if name in cells}
            if len(values) == 1:
                text = values.pop()
                number = number_in(text)
                found.setdefault(study, {})[name] = text if number is None else number
    return found


def read_publication(
    table: Path, lines: Sequence[tuple[int, Cells]]
) -> tuple[Publication | None, str, tuple[str, ...]]:
    """Return what to cite for a study, its cell of doi, and a note where that is none."""
    said = {name: next(((line, cells[name]) for line, cells in lines if name in cells), (0, "")) for name in CITED}
    line, text = said["doi"]
    doi = doi_in(text)
    notes: tuple[str, ...] = ()
    if text and doi is None:
        notes = (f"{table}, line {line}: {text!r} is no DOI (it begins with 10. and has a slash), and is not cited.",)
    known = Publication(said["authors"][1], said["title"][1], doi or "")
    return (known if known.text else None), doi or text, notes
