"""Tables of covariates with a row for each map: the rows that apply to a map, and the entities that rows differ in."""

from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from pathlib import Path

import pandas as pd

from ibma_app.core.errors import DataError
from ibma_app.core.statmap import Observation

KEY_NAMES: Mapping[str, str] = {
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "echo": "echo",
    "contrast": "contrast",
    "ses": "ses",
    "acq": "acq",
    "rec": "rec",
    "dir": "dir",
}
"""Key columns, which distinguish the rows of one subject or study -> the entity whose labels they hold."""

INDICES = ("run", "echo")
"""Entities whose labels are numbers: run-01 is run-1."""

ROW_KEYS = "keys"
"""Key of ``DataFrame.attrs``: labels of each row by entity, where entities distinguish rows."""

Keys = Mapping[str, tuple[str, ...]]


def read_keys(cells: pd.DataFrame, missing: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each row by entity, without prefix; "" where a cell is missing."""
    return {
        KEY_NAMES[name]: tuple(
            "" if cell in missing else _plain(KEY_NAMES[name], cell.removeprefix(f"{KEY_NAMES[name]}-"))
            for cell in cells[name]
        )
        for name in cells.columns
        if name in KEY_NAMES
    }


def _plain(entity: str, label: str) -> str:
    return label.lstrip("0") or "0" if entity in INDICES and label.isdigit() else label


def refuse_twins(labels: Sequence[str], keys: Keys, path: Path, key: str) -> None:
    """Refuse two rows with the same keys.

    Raises
    ------
    DataError
    """
    seen: set[tuple[str, ...]] = set()
    for row in zip(labels, *keys.values(), strict=True):
        if row in seen:
            which = ", ".join(f"{name} {label or 'n/a'}" for name, label in zip((key, *keys), row, strict=True))
            msg = (
                f"{path} has several rows for {which}. Keep one row for each, or distinguish the maps of one by a "
                "column named contrast, session, task or run."
            )
            raise DataError(msg)
        seen.add(row)


class RowFinder:
    """Finds the rows of a table that apply to a map: those of its unit whose labels do not contradict its name.

    Parameters
    ----------
    table : DataFrame
        Indexed by label, as `read_table` returns it.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._keys: Keys = table.attrs.get(ROW_KEYS, {})
        self._rows: dict[str, list[int]] = {}
        for row, label in enumerate(table.index):
            self._rows.setdefault(str(label), []).append(row)

    def find(self, unit_label: str, entities: Mapping[str, str]) -> list[int]:
        """Return their numbers."""
        rows = self._rows.get(unit_label, [])
        for entity, labels in self._keys.items():
            if entity in entities:
                own = _plain(entity, entities[entity])
                rows = [row for row in rows if labels[row] in ("", own)]
        return rows


def rows_of(table: pd.DataFrame, observations: Sequence[Observation]) -> tuple[pd.DataFrame, list[bool]]:
    """Return a table's values for each map, K rows, and whether any row applies to it.

    Values are missing where no row applies, or several with different values.
    """
    finder = RowFinder(table)
    found = [finder.find(one.unit_label, one.entities) for one in observations]
    numbered = table.reset_index(drop=True)
    result = numbered.reindex([rows[0] if rows else -1 for rows in found]).reset_index(drop=True)
    for k, rows in enumerate(found):
        if len(rows) > 1:
            differs = numbered.iloc[rows].nunique(dropna=False) > 1
            for name in compress(numbered.columns, differs):
                result[name] = result[name].astype(object) if result[name].dtype == "int64" else result[name]
                result.loc[k, name] = pd.NA
    return result, [bool(rows) for rows in found]


def repeated_entities(table: pd.DataFrame | None, names: Collection[str]) -> set[str]:
    """Return the entities over which a formula's variables vary, by a table with a row for each map.

    A variable varies over an entity when it has several values in rows that
    differ in that entity alone; where entities change together (each contrast
    has its own run), over all that differ within a subject.

    Parameters
    ----------
    table : DataFrame or None
        From `read_table`.
    names : collection of str
        The formula's variables.
    """
    keys: Keys = {} if table is None else table.attrs.get(ROW_KEYS, {})
    if table is None or not keys:
        return set()
    used = [name for name in names if name in table.columns and name not in KEY_NAMES]
    labels = pd.DataFrame({"": table.index, **keys}).reset_index(drop=True)
    values = table[used].reset_index(drop=True)
    repeated = {
        entity for entity in keys if _varies(values, [labels[name] for name in labels.columns if name != entity])
    }
    if not repeated and _varies(values, [labels[""]]):
        repeated = {entity for entity in keys if _varies(labels[[entity]], [labels[""]])}
    return repeated


def _varies(values: pd.DataFrame, groups: list[pd.Series]) -> bool:
    """Tell whether a column takes several values within a group of rows."""
    return bool(values.shape[1] and (values.groupby(groups).nunique(dropna=False) > 1).any(axis=None))
