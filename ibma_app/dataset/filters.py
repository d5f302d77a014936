"""Selects maps by labels of the command line and BIDS filter files, and explains why none are left."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ibma_app.core.errors import InputError, UsageError, did_you_mean
from ibma_app.core.from_files import read_json, read_text
from ibma_app.core.labels import contrast_label, is_label
from ibma_app.core.statmap import KINDS
from ibma_app.dataset.entities import LONG_NAMES, same_label, short_name

ANY = "*"
"""In a filter file: maps that have the entity, with any label; ``null``: maps without it."""

BOLD = "bold"
"""In a filter file: the query of the run level's input."""

_NAME_PARTS = ("suffix", "extension", "stat")
_WORDS = {"Query.ANY": ANY, "Query.NONE": None, "Query.REQUIRED": ANY}
_SHOWN = 20


class Candidate(NamedTuple):
    """An image of a dataset with the parts of its name, ``stat`` included, before it is selected."""

    path: Path
    entities: dict[str, str]
    suffix: str
    extension: str
    fault: str | None


def read_filter_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file, as in fMRIPrep: ``{"effect": {entity: value, ...}, ...}``.

    Returns
    -------
    dict
        By kind, the query with entities by their short keys: ``None``
        (without), ``"*"`` (with any), or a list of labels.

    Raises
    ------
    InputError
        When the file is missing or cannot be opened.
    UsageError
        When it is not JSON, or its keys are not kinds of map.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise InputError(f"{path}: the filter file cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"{path}: the filter file is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(query, dict) for query in content.values()):
        raise UsageError(f'{path}: a filter file is an object of queries: {{"effect": {{"desc": "x"}}}}.')
    unknown = [key for key in content if key not in (*KINDS, BOLD)]
    if unknown:
        raise UsageError(f'{path}: unknown key "{unknown[0]}"; the keys are {", ".join((*KINDS, BOLD))}.')
    return {
        kind: {short_name(key): _read_value(path, key, value) for key, value in query.items()}
        for kind, query in content.items()
    }


def _read_value(path: Path, key: str, value: Any) -> Any:
    """Normalise a query's value to None, ``"*"`` or a list of labels (and None)."""
    if isinstance(value, list):
        return [_read_value(path, key, one) for one in value]
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if value is None or value == ANY:
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(f'{path}: the value of "{key}" is a label, a list of labels, null or "*".')
    key = short_name(key)
    label = str(value)
    if key == "extension":
        return label if label.startswith(".") else f".{label}"
    return label.removeprefix(f"{key}-")


def read_labels(values: Iterable[str], entity: str) -> tuple[str, ...]:
    """Read the labels of a command-line option: bare, with prefix, or in a file.

    Parameters
    ----------
    values : iterable of str
        Labels, or names of files with one label per line (or TSV files with
        a column ``participant_id``, ``study_id`` or ``session_id``).
    entity : str
        The key whose prefix (``sub-``) is removed. Contrast names become
        labels as nilearn makes them.

    Raises
    ------
    InputError
        When a value looks like a file name, and there is no such file.
    UsageError
        When a value is neither a label nor a file.
    """
    key = short_name(entity)
    found: list[str] = []
    for value in values:
        lines = [value]
        if _is_file(value):
            lines = _read_lines(Path(value))
        found += [_read_label(line, key, value) for line in lines]
    return tuple(dict.fromkeys(found))


def read_kept(kept: object) -> dict[str, tuple[str, ...]]:
    """Read ``[inputs] keep``: labels of entities that have no option of their own, such as ``run``.

    Raises
    ------
    UsageError
        It is no table of lists, or names what is no entity.
    """
    menu = sorted(set(LONG_NAMES) - {"taskcontrast", "participant"})
    if not isinstance(kept, dict) or not all(isinstance(labels, list) for labels in kept.values()):
        raise UsageError("[inputs] keep is a table of lists of labels: keep = { run = [1, 2] }.")
    for name in kept:
        if name not in menu:
            hint = did_you_mean([name], menu)
            raise UsageError(f"[inputs] keep: there is no entity {name!r}.{hint} Choose from: {', '.join(menu)}.")
    return {
        short_name(name): read_labels([str(one) for one in labels], short_name(name)) for name, labels in kept.items()
    }


def _is_file(value: str) -> bool:
    """Return whether a value is the name of a file: what is a label is one, whatever lies in the working folder."""
    if is_label(value.partition("-")[2] if "-" in value else value):
        return False
    try:
        if Path(value).is_file():
            return True
    except OSError:  # too long for a file name
        return False
    if "/" in value or value.endswith((".txt", ".tsv", ".csv")):
        raise InputError(f"{value}: no such file of labels (one label a line).")
    return False


def _read_lines(path: Path) -> list[str]:
    """Read the labels of a file: one per line, or the key column of a TSV."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the file of labels cannot be read: {error}.") from error
    rows = [line.split("\t") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not rows:
        raise UsageError(f"{path}: the file holds no label; write one a line.")
    names = ("participant_id", "study_id", "session_id")
    column = next((index for index, name in enumerate(rows[0]) if name.strip() in names), None)
    if column is None:
        return [row[0].strip() for row in rows]
    return [row[column].strip() for row in rows[1:] if len(row) > column]


def _read_label(text: str, key: str, value: str) -> str:
    """Remove the prefix of a label, and check the label."""
    label = text.removeprefix(f"{key}-")
    if is_label(label):
        return label
    made = contrast_label(label) if key == "contrast" else ""
    if not made:
        where = f" (in {value})" if text != value else ""
        several = [part.removeprefix(f"{key}-") for part in re.split(r"[\s,;]+", label) if part]
        apart = len(several) > 1 and all(map(is_label, several))
        hint = f" Write several apart, without quotes or commas: {' '.join(several)}." if apart else ""
        raise UsageError(f'"{text}"{where} is not a {key} label: labels are letters and digits.{hint}')
    return made


def check_names(names: Iterable[str], candidates: Sequence[Candidate]) -> None:
    """Refuse entities that are neither of BIDS nor of any map of the datasets.

    Raises
    ------
    UsageError
        There is one; the message lists the known ones.
    """
    known = {*LONG_NAMES.values(), *_NAME_PARTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        known |= {key for candidate in candidates for key in candidate.entities}
    for name in unknown:
        if name not in known:
            menu = ", ".join(sorted({*known, *LONG_NAMES}))
            raise UsageError(f'The filter names an unknown entity "{name}"; there are {menu}.')


def matches(candidate: Candidate, key: str, value: Any) -> bool:
    """Return whether an image satisfies one line of a query."""
    if key in ("suffix", "extension"):
        found: str | None = getattr(candidate, key) or None
    else:
        found = candidate.entities.get(key)
    options = value if isinstance(value, list | tuple) else [value]
    return any(_matches_one(key, found, option) for option in options)


def _matches_one(key: str, found: str | None, option: Any) -> bool:
    """Compare a label with null, ``"*"`` or a label."""
    if option == "Query.OPTIONAL":
        return True
    if option is None or found is None:
        return option is None and found is None
    return bool(option == ANY) or same_label(key, found, str(option))


class Step(NamedTuple):
    """A filter: the entity, the filter as text and as a function, and the labels that it asks for by option."""

    key: str
    text: str
    test: Callable[[Candidate], bool]
    wanted: Sequence[str] = ()


def explain_steps(candidates: Sequence[Candidate], steps: Sequence[Step]) -> str:
    """Describe what is left after each filter, and which values exist where a filter leaves nothing.

    Parameters
    ----------
    candidates : sequence of Candidate
        Every image of the datasets.
    steps : sequence of Step
        The filters in order.
    """
    lines = [f"  {len(candidates)} images (.nii, .nii.gz)"]
    left = list(candidates)
    for key, text, test, wanted in steps:
        before, left = left, [candidate for candidate in left if test(candidate)]
        line = f"  {len(left)} with {text}"
        if len(left) < len(before):
            line += f" (there are: {_values(before, key)})"
        lines.append(line)
        if not left:
            lines[-1] += _nearest(wanted, {one.entities[key] for one in before if key in one.entities})
            break
    return "\n".join(lines)


def explain_unmatched(
    labels: Mapping[str, Sequence[str]],
    selected: Iterable[Mapping[str, str]],
    every: Callable[[], Iterable[Mapping[str, str]]],
    noun: str,
) -> Iterator[str]:
    """Say which labels are asked for and are of nothing that is selected, and what may have been meant.

    Parameters
    ----------
    labels : mapping
        Short key -> bare labels that are asked for.
    selected : iterable of mapping
        The entities of each map or run that is selected.
    every : callable
        Lists the entities of all images; called only where a label is lost.
    noun : str
        What is selected: ``map`` or ``run``.
    """
    rows = list(selected)
    for key, wanted in labels.items():
        there = {row[key] for row in rows if key in row}
        lost = [label for label in wanted if not any(same_label(key, label, found) for found in there)]
        if lost:
            hint = _nearest(lost, {row[key] for row in every() if key in row})
            shown = ", ".join(sorted(there))
            yield f"No selected {noun} has {key}-{f', {key}-'.join(lost)} (there are: {shown}).{hint}"


def _nearest(wanted: Iterable[str], there: Iterable[str]) -> str:
    """Return a question for the labels that were perhaps meant: 01 for 1, rest for Rest; "" where none is near."""
    by_core: dict[str, list[str]] = {}
    for label in sorted(there):
        by_core.setdefault(_core(label), []).append(label)
    lost = [label for label in wanted if label not in by_core.get(_core(label), ())]
    near = [found for label in lost for found in by_core.get(_core(label), ())]
    if near:
        return f" Did you mean {' '.join(near[:_SHOWN])}?"
    words = [label for label in lost if re.search("[a-zA-Z]", label)]  # 102 is no misspelt 103
    return did_you_mean(words, there)


def _core(label: str) -> str:
    """Return a label without leading zeros and capitals."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", label).casefold()


def _values(candidates: Sequence[Candidate], key: str) -> str:
    """List the labels of an entity, each once, cut to a readable number."""
    if key in ("suffix", "extension"):
        found = {str(getattr(candidate, key)) for candidate in candidates}
    else:
        found = {candidate.entities.get(key, "none") for candidate in candidates}
    listed = sorted(found)
    more = f", ... ({len(listed)} in all)" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
