"""A table of pairs of maps and how their sampling errors are correlated: ``--dependence FILE``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import number_in, show
from ibma_app.core.statmap import Observation
from ibma_app.designs.tables import read_cells

Floats = NDArray[np.float64]

PAIR = ("map_a", "map_b")
SHARED = ("n_a", "n_b", "n_shared")
UNITS = ("study-", "sub-")


@dataclass(frozen=True)
class MapPair:
    """Two maps by the names that a file gives them, and the correlation of their errors."""

    a: str
    b: str
    correlation: float
    shared_people: bool = False  # made of numbers of people


def read_map_pairs(path: Path) -> tuple[MapPair, ...]:
    """Read a table with ``map_a``, ``map_b`` and ``correlation``, or ``n_a``, ``n_b`` and ``n_shared``.

    Studies that measure one mean in samples of n_a and n_b people, n_shared of
    them in both, have errors that correlate by n_shared / sqrt(n_a n_b) (Lin &
    Sullivan 2009).

    Raises
    ------
    InputError
        The file is missing or cannot be opened.
    DataError
        It is no such table: columns, numbers, a map with itself, a pair twice.
    """
    cells = read_cells(path)
    known = [name for name in (*PAIR, "correlation", *SHARED) if name in cells.columns]
    if not set(PAIR) <= set(known) or not ("correlation" in known or set(SHARED) <= set(known)):
        raise DataError(
            f"{path}: --dependence takes a table with the columns map_a, map_b and correlation, or map_a, map_b, n_a, "
            f"n_b and n_shared, separated by tabs. It has: {', '.join(map(str, cells.columns))}."
        )
    seen: dict[frozenset[str], int] = {}
    pairs = []
    for line, row in enumerate(cells.to_dict("records"), start=2):
        a, b = (str(row[name]).strip() for name in PAIR)
        if a == b:
            raise DataError(f"{path}, line {line}: {show(a)} stands beside itself. Name two maps.")
        earlier = seen.setdefault(frozenset((a, b)), line)
        if earlier != line:
            raise DataError(f"{path}: lines {earlier} and {line} are of one pair, {show(a)} and {show(b)}. Keep one.")
        pairs.append(MapPair(a, b, _correlation(row, path, line), "correlation" not in row))
    return tuple(pairs)


def _correlation(row: Mapping[Any, Any], path: Path, line: int) -> float:
    """Read a row's correlation, or make it of numbers of people."""
    if "correlation" in row:
        value = number_in(row["correlation"])
        if value is None or not -1 < value < 1:
            raise DataError(
                f"{path}, line {line}: correlation is {show(row['correlation'])}; it is a number between -1 and 1."
            )
        return value
    numbers = [number_in(row[name]) for name in SHARED]
    n_a, n_b, n_shared = (-1.0 if number is None else number for number in numbers)
    if n_a < 1 or n_b < 1 or not 0 <= n_shared <= min(n_a, n_b) or n_a == n_b == n_shared:
        raise DataError(
            f"{path}, line {line}: n_a, n_b and n_shared are {', '.join(show(row[name]) for name in SHARED)}; they are "
            "numbers of people, and no more are shared than either map has (nor all of both: errors of the same people "
            "are not the same; state their correlation)."
        )
    return n_shared / float(np.sqrt(n_a * n_b))


def names_of(observation: Observation) -> set[str]:
    """Return the names by which a file may mean a map: its label or its study's, with or without prefix; its file."""
    unit, label = observation.unit_label, observation.label
    names = {label, unit, *(f"{prefix}{unit}" for prefix in UNITS), observation.path.name}
    return names | {label.removeprefix(prefix) for prefix in UNITS}


def correlate_pairs(
    pairs: Sequence[MapPair], rows: Sequence[Observation], everything: Sequence[Observation], path: Path
) -> Floats:
    """Return the correlation matrix (K, K) of an analysis's maps; pairs that are not in the file are independent.

    Parameters
    ----------
    pairs : sequence of MapPair
    rows : sequence of Observation
        Of the analysis, K.
    everything : sequence of Observation
        Of all analyses: names of these that are not in this one are passed over.
    path : Path
        For messages.

    Raises
    ------
    DataError
        A name that no map has, or several maps of the analysis; no pair of these maps; correlations that contradict
        each other.
    """
    named: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        for name in names_of(row):
            named.setdefault(name, []).append(number)
    elsewhere = {name for row in everything for name in names_of(row)}
    matrix, found = np.eye(len(rows)), 0
    for pair in pairs:
        a, b = (_find(name, named, elsewhere, rows, path) for name in (pair.a, pair.b))
        if a is not None and b is not None:
            matrix[a, b] = matrix[b, a] = pair.correlation
            found += 1
    if not found:
        raise DataError(f"{path} has no pair of the maps of this analysis: {_some(row.label for row in rows)}.")
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    if smallest <= 1e-8:
        raise DataError(
            f"{path}: these correlations contradict each other: together they are not positive definite (smallest "
            f"eigenvalue {smallest:.3g}), so that no maps can have them. Two maps that correlate much with a third "
            "correlate with each other: add pairs that are missing, or correct those that are too large."
        )
    return matrix


def _find(
    name: str, named: dict[str, list[int]], elsewhere: set[str], rows: Sequence[Observation], path: Path
) -> int | None:
    """Return the row of a name; None where it is a map of another analysis."""
    found = named.get(name, [])
    if len(found) > 1:
        raise DataError(
            f"{path}: {show(name)} is the name of {len(found)} maps ({_some(rows[row].label for row in found)}). Write "
            "these names."
        )
    if not found and name not in elsewhere:
        raise DataError(f"{path}: no map is called {show(name)}. The maps: {_some(row.label for row in rows)}.")
    return found[0] if found else None


def _some(labels: Iterable[str]) -> str:
    every = list(labels)
    return ", ".join(every[:20]) + (f" and {len(every) - 20} more" if len(every) > 20 else "")
