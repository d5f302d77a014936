"""The tables beside a run's BOLD: events and confounds, as they are found in the wild."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.from_files import number_in, read_json, read_text, show
from ibma_app.firstlevel.records import Floats

OLD_NAMES = {
    **{"X": "trans_x", "Y": "trans_y", "Z": "trans_z", "RotX": "rot_x", "RotY": "rot_y", "RotZ": "rot_z"},
    **{"CSF": "csf", "WhiteMatter": "white_matter", "GlobalSignal": "global_signal", "stdDVARS": "std_dvars"},
    **{"FramewiseDisplacement": "framewise_displacement", "non-stdDVARS": "dvars"},
}
"""Columns of fMRIPrep before 1.2, and what they are called since."""
OLD_NUMBERED = {
    **{"aCompCor": "a_comp_cor_", "tCompCor": "t_comp_cor_", "Cosine": "cosine"},
    **{"NonSteadyStateOutlier": "non_steady_state_outlier", "AROMAAggrComp": "aroma_motion_"},
}
"""The same of columns that a number follows."""

LARGEST = 256 * 2**20  # bytes of a table: confounds of an hour with all of fMRIPrep's columns have a tenth
MISSING = ("", "n/a", "N/A", "na", "NA", "NaN", "nan", "null")


def read_events(path: Path) -> dict[str, tuple[str, ...]]:
    """Read an events table as texts, "" where a cell says ``n/a``.

    Texts, and not what a reader of numbers makes of them: of trial types ``1``, ``2`` and ``n/a`` such
    a reader makes 1.0, 2.0 and NaN.

    Raises
    ------
    InputError, ReadWriteError
        It cannot be opened or read.
    DataError
        It is no table with onset and duration, or has no rows.
    """
    columns = _read_columns(path)
    for name in ("onset", "duration"):
        if name not in columns:
            alike = next((one for one in columns if one.casefold() == name), "")
            hint = f"Rename {alike} to {name}." if alike else "" if len(columns) > 1 else "Tabs separate cells."
            raise DataError(f"{path}: there is no column {name} (columns: {', '.join(columns)}). {hint}".rstrip())
    if not columns["onset"]:
        raise DataError(f"{path}: it has no events, only a header.")
    return columns


def read_confounds(path: Path, n_volumes: int, dropped: int = 0) -> dict[str, Floats]:
    """Read a confounds table: a row for each volume, NaN where a cell is no number.

    Columns of fMRIPrep before 1.2 (``RotX``, ``aCompCor00``) get the names that it gives them since.

    Parameters
    ----------
    path : Path
    n_volumes : int
        That are used.
    dropped : int
        Volumes at the start of the run that are not.

    Returns
    -------
    dict of str to ndarray, shape (n_volumes,)

    Raises
    ------
    InputError, ReadWriteError, DataError
        As `read_events`; or the number of rows is not that of volumes.
    """
    columns = _read_columns(path)
    rows = len(next(iter(columns.values()), ()))
    if rows != n_volumes + dropped:
        raise DataError(
            f"{path} has {rows} rows, and the BOLD {n_volumes + dropped} volumes: they are not of the same run. Take "
            "both of one output of fMRIPrep, or remove the table and say --confounds none."
        )
    return {_name_since(name, columns): _numbers(cells[dropped:]) for name, cells in columns.items()}


def _name_since(name: str, others: Collection[str]) -> str:
    """Return what fMRIPrep calls a column since 1.2."""
    stem = name.rstrip("0123456789")
    since = OLD_NAMES.get(name, name)
    if stem != name and stem in OLD_NUMBERED:
        since = OLD_NUMBERED[stem] + name.removeprefix(stem)
    return name if since in others else since


def read_confounds_metadata(path: Path) -> dict[str, Any]:
    """Read the JSON beside a confounds table; {} where there is none that can be read."""
    try:
        content = read_json(path.with_suffix(".json"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def event_numbers(events: Mapping[str, Sequence[str]], column: str, rows: Sequence[int], where: str) -> Floats:
    """Return a column of events as numbers.

    Raises
    ------
    DataError
        A cell is no number; the message names the row as an editor counts it.
    """
    values = []
    for row in rows:
        value = number_in(events[column][row])
        if value is None:
            cell = show(events[column][row] or "n/a")
            hint = " (0 for events without duration)" if column == "duration" else ""
            raise DataError(
                f"{where}, line {row + 2}: {column} is {cell}; give a number{hint}, or leave the event out."
            )
        values.append(value)
    return np.array(values, dtype=np.float64)


def _read_columns(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a TSV file by column."""
    try:
        text = read_text(path, LARGEST)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist (or its content is not here: datalad get).") from None
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}.") from None
    except ValueError as error:
        raise ReadWriteError(f"{path} is not a table in UTF-8 ({error}).") from None
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty.")
    header = [name.strip() for name in lines[0].split("\t")]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: two columns are called {show(twice)}.")
    rows = [line.split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(row)} cells, and the header has {len(header)}. Tabs separate cells."
            )
    cells = [["" if (cell := raw.strip()) in MISSING else cell for raw in row] for row in rows]
    return {name: tuple(row[index] for row in cells) for index, name in enumerate(header)}


def _numbers(cells: Sequence[str]) -> Floats:
    """Turn cells into numbers, NaN for what is none."""
    try:
        values = np.array([cell or "nan" for cell in cells], dtype=np.float64)
    except ValueError:
        values = np.array([np.nan if (number := number_in(cell)) is None else number for cell in cells])
    return np.where(np.isfinite(values), values, np.nan)
