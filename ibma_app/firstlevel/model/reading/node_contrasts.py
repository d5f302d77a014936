"""Contrasts of a node: read, and checked against the columns of its design."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ibma_app.core.from_files import number_in, show
from ibma_app.core.labels import contrast_label
from ibma_app.firstlevel.model.faults import Faults, choose_from
from ibma_app.firstlevel.model.stats_model import INTERCEPT, Contrast, DummyContrasts


def read_names(listed: Sequence[Any]) -> tuple[str, ...]:
    """Read names of columns; the number 1 is the intercept."""
    return tuple(INTERCEPT if one == 1 else str(one) for one in listed)


def write_name(name: str) -> str:
    """Write the name of a column as models do."""
    return "1" if name == INTERCEPT else name


def in_x(name: str, x: Sequence[str]) -> bool:
    """Return whether the columns of a design include a name: X may have wildcards."""
    return any(name == one or fnmatchcase(name, one) for one in x if one != INTERCEPT or name == INTERCEPT)


def read_contrasts(
    listed: Sequence[Mapping[str, Any]] | None, x: Sequence[str] | None, path: str, faults: Faults
) -> tuple[Contrast, ...]:
    """Read ``Contrasts``; X None: the columns are not known yet (``Formula``)."""
    found: list[Contrast] = []
    labels: dict[str, str] = {}
    for place, one in enumerate(listed or ()):
        where = f"{path}.Contrasts[{place}]"
        conditions = read_names(one["ConditionList"])
        faulty = len(faults.of_contrasts)
        if not conditions:
            faults.add_contrast(f"{where}.ConditionList", "is empty. Name the columns that are weighted.")
        for index, name in enumerate(conditions):
            if x is not None and not in_x(name, x):
                faults.add_contrast(f"{where}.ConditionList[{index}]", _not_in_x(name, x))
        twice = sorted({name for name in conditions if conditions.count(name) > 1})
        if twice:
            faults.add_contrast(f"{where}.ConditionList", f"has {', '.join(twice)} twice. Add up its weights.")
        weights = _read_weights(one["Weights"], conditions, one["Test"], where, faults)
        label = contrast_label(one["Name"])
        if not label:
            faults.add(f"{where}.Name", f"is {show(one['Name'])}: it has no letter or digit to name files by.")
        elif label.casefold() in labels:
            faults.add(f"{where}.Name", _twice(one["Name"], labels[label.casefold()], label))
        labels.setdefault(label.casefold(), one["Name"])
        if len(faults.of_contrasts) == faulty:
            found.append(Contrast(one["Name"], conditions, weights, one["Test"], where))
    return tuple(found)


def _twice(name: str, other: str, label: str) -> str:
    if name == other:
        return f"is {show(name)}, as that of another contrast. Give each a name of its own."
    return f"is {show(name)}, and {show(other)} would be called contrast-{label} too in file names. Rename one."


def _not_in_x(name: str, x: Sequence[str]) -> str:
    """Say that a condition is no column; names of ``trial_type`` often lack their first part."""
    shown = [write_name(one) for one in x]
    if "*" in name or "?" in name:
        return f"is {show(name)}: contrasts name columns one by one, without wildcards."
    full = [one for one in x if one.endswith(f".{name}")]
    stems = [one.rpartition(".")[0] for one in x if one.endswith(".*")]
    if not full and stems and "." not in name:
        full = [f"{stems[0]}.{name}"]
    hint = f" Did you mean {full[0]}?" if full else choose_from(shown, [name]).partition(" Choose from")[0]
    return f"{show(name)} is not in Model.X of this node.{hint} X is: {', '.join(shown)}."


def _read_weights(
    listed: Sequence[Any], conditions: Sequence[str], test: str, where: str, faults: Faults
) -> tuple[tuple[float, ...], ...]:
    """Read the weights of a contrast: rows of numbers and fractions."""
    rows = listed if listed and isinstance(listed[0], list) else [listed]
    if len(rows) > 1 and test != "F":
        faults.add_contrast(
            f"{where}.Weights", f'has {len(rows)} rows: these are an F test. Write "Test": "F", or one row.'
        )
    read = []
    for index, row in enumerate(rows):
        place = f"{where}.Weights" + (f"[{index}]" if rows is listed else "")
        if len(row) != len(conditions):
            faults.add_contrast(place, f"has {len(row)} weights for {len(conditions)} conditions of ConditionList.")
            continue
        numbers = [read_weight(one) for one in row]
        for column, (one, number) in enumerate(zip(row, numbers, strict=True)):
            if number is None:
                faults.add_contrast(
                    f"{place}[{column}]", f'is {show(one)}: neither a number nor a fraction such as "-1/3".'
                )
        if all(number == 0 for number in numbers):
            faults.add_contrast(place, "has only weights of 0.")
        read.append(tuple(number or 0.0 for number in numbers))
    if len(read) > 1 and len({len(row) for row in read}) == 1 and np.linalg.matrix_rank(np.array(read)) < len(read):
        faults.add_contrast(f"{where}.Weights", "has rows that depend on each other. Leave out those that follow.")
    return tuple(read)


def read_weight(value: Any) -> float | None:
    """Read a number, or a fraction as text (``"-1/3"``); None: it is neither."""
    top, slash, bottom = str(value).partition("/")
    over, under = number_in(top), number_in(bottom) if slash else 1.0
    return over / under if over is not None and under else None


def read_dummies(
    given: Mapping[str, Any] | None, x: Sequence[str] | None, names: Sequence[str], path: str, faults: Faults
) -> DummyContrasts | None:
    """Read ``DummyContrasts``; ``names`` are those of the contrasts beside it."""
    if given is None:
        return None
    where = f"{path}.DummyContrasts"
    listed = given.get("Contrasts")
    conditions = None if listed is None else read_names(listed)
    for index, name in enumerate(conditions or ()):
        if x is not None and not in_x(name, x):
            faults.add(f"{where}.Contrasts[{index}]", _not_in_x(name, x))
        if name in names:
            faults.add(f"{where}.Contrasts[{index}]", f"{show(name)} is the name of one of Contrasts too. Rename it.")
    if given["Test"] == "F":
        faults.add(f"{where}.Test", 'is "F": of one column that is a two-sided t test. Write "t".')
    return DummyContrasts(conditions, given["Test"], where)
