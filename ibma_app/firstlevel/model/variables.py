"""The variables of a run, as models speak of them: columns of the events, and confounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import number_in, show
from ibma_app.firstlevel.records import Floats, RunTables

SEPARATOR = "."


@dataclass(frozen=True, eq=False)
class EventVariable:
    """A column of the events table, or what became of it: a value for each event."""

    onsets: Floats  # (E,) s
    durations: Floats  # (E,) s; NaN: n/a
    values: NDArray[Any]  # (E,) numbers, NaN for n/a; or texts, "" for n/a

    @property
    def is_text(self) -> bool:
        """Whether values are texts."""
        return self.values.dtype.kind == "O"


@dataclass(frozen=True, eq=False)
class Variables:
    """The variables of a run, and what is convolved."""

    events: Mapping[str, EventVariable]
    confounds: Mapping[str, Floats]  # a value for each volume
    durations: Floats  # (E,) of the events table
    responses: Mapping[str, tuple[str, tuple[int, ...] | None]] = field(default_factory=dict)  # name -> HRF, delays
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # variable that is no more -> its levels here
    lost: Mapping[str, int] = field(default_factory=dict)  # "onset", or a factor -> rows that have none

    def match(self, pattern: str) -> list[str]:
        """List the variables that a name or a pattern stands for, those of events first."""
        return [name for name in (*self.events, *self.confounds) if fnmatchcase(name, pattern)]

    def is_level(self, name: str) -> bool:
        """Return whether a name would be a level of what `Factor` has replaced: runs lack levels now and then."""
        return any(name.startswith(one + SEPARATOR) for one in self.factors)


def read_variables(tables: RunTables, where: str) -> Variables:
    """Make variables of a run's tables: one for each column of the events beside onset and duration.

    Rows without an onset are no events. Columns whose cells are all numbers (or ``n/a``) are numbers.
    """
    kept = [row for row, cell in enumerate(tables.events["onset"]) if cell]
    lost = len(tables.events["onset"]) - len(kept)
    onsets = _numbers([tables.events["onset"][row] for row in kept])
    durations = _numbers([tables.events["duration"][row] for row in kept])
    wrong = np.flatnonzero(np.isnan(onsets))
    if wrong.size:
        row = kept[int(wrong[0])]
        raise DataError(f"{where}, line {row + 2}: onset is {show(tables.events['onset'][row])}; give a number.")
    texts = {
        name: np.array([cells[row] for row in kept], dtype=object)
        for name, cells in tables.events.items()
        if name not in ("onset", "duration")
    }
    events = {name: EventVariable(onsets, durations, values) for name, values in texts.items()}
    return Variables(events, tables.confounds, durations, lost={"onset": lost} if lost else {})


def _numbers(cells: Sequence[Any]) -> Floats:
    """Turn cells into numbers, NaN for what is none."""
    numbers = [cell if isinstance(cell, float) else number_in(cell) for cell in cells]
    return np.array([np.nan if one is None else one for one in numbers], dtype=np.float64)


def as_numbers(name: str, variable: EventVariable, path: str) -> EventVariable:
    """Return a variable whose values are numbers.

    Raises
    ------
    DataError
        A value is text.
    """
    if not variable.is_text:
        return variable
    values = _numbers(list(variable.values))
    words = [cell for cell, number in zip(variable.values, values, strict=True) if np.isnan(number) and cell]
    if words:
        raise DataError(f"{path}: {name} is text ({show(words[0])}). Make columns of its values first, with Factor.")
    return replace(variable, values=values)
