"""Tables of regions: a row each, with ``index``, ``name`` and ``value``."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Parcels
from ibma_app.core.errors import DataError
from ibma_app.core.from_files import whole_number_in
from ibma_app.images.contents import read_contents
from ibma_app.images.write import Meaning

COLUMNS = ("index", "name", "value")
MISSING = ("", "n/a", "na", "nan")
LARGEST = 2**24  # bytes


def read(paths: Sequence[Path]) -> tuple[NDArray[Any], Elements]:
    """Read the table of a map; regions without a value are NaN.

    Raises
    ------
    InputError, ReadWriteError
        It is missing or cannot be opened.
    DataError
        It lacks a column, a region stands twice, or a cell is no number.
    """
    path = paths[0]
    try:
        text = bytes(read_contents(path, LARGEST)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no table: it is not text (UTF-8).") from None
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    head = tuple(rows[0]) if rows else ()
    lacking = [name for name in COLUMNS if name not in head]
    if lacking:
        there = ", ".join(str(name) for name in head) or "no row"
        raise DataError(
            f"{path} is no table of regions: it needs the columns index, name and value, separated by tabs, and lacks "
            f"{', '.join(lacking)} (there are: {there})."
        )
    names = tuple(str(row["name"]).strip() for row in rows)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the region {twice[0]} stands in several rows. Name each region once.")
    numbers = np.array([_index(row["index"], path) for row in rows], dtype=np.int64)
    values = np.array([_value(row["value"], name, path) for row, name in zip(rows, names, strict=True)])
    return values, Elements.whole((Parcels(atlas_of(path), names, numbers),), ".tsv")


def atlas_of(path: Path) -> str:
    """Return the name of the regions: the label of ``seg-`` in a file's name."""
    found = re.search(r"(?:^|_)seg-([a-zA-Z0-9]+)", path.name)
    return found[1] if found else "parcels"


def _index(cell: Any, path: Path) -> int:
    """Read an index."""
    number = whole_number_in(str(cell))
    if number is None:
        raise DataError(f"{path}: the index {str(cell)!r} is no whole number.")
    return number


def _value(cell: Any, name: str, path: Path) -> float:
    """Read a value."""
    text = str(cell if cell is not None else "").strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{path}: the value of {name} is {text!r}, which is no number (n/a where there is none)."
        ) from None


def encode(vector: NDArray[Any], shape: Elements, fill: float, meaning: Meaning) -> tuple[bytes, ...]:
    """Make the table, with the rows of the inputs; ``n/a`` where a region was not analysed."""
    (table,) = shape.structures
    cells = np.full(shape.shape, "n/a", dtype=object)
    cells[shape.mask] = [str(value) for value in vector]  # the shortest text of its precision
    lines = ["\t".join(COLUMNS)]
    numbers = table.numbers if isinstance(table, Parcels) else range(table.size)
    lines += [f"{number}\t{name}\t{cell}" for number, name, cell in zip(numbers, table.labels, cells, strict=True)]
    return (("\n".join(lines) + "\n").encode(),)
