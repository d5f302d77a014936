"""Maps that stay apart by an entity that hardly anybody meant to keep them apart: named, with what joins them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ibma_app.core.statmap import Analysis, Observation

ACQUIRED = (
    "sample",
    "acq",
    "ce",
    "trc",
    "stain",
    "rec",
    "dir",
    "run",
    "mod",
    "echo",
    "flip",
    "inv",
    "mt",
    "part",
    "proc",
)
"""Entities of how a run was acquired: maps of one question that differ in them are repetitions."""

_BY_OPTION = {"contrast": "--contrast", "task": "--task-id"}
_SHOWN = 6
_Key = tuple[tuple[str, str], ...]
_Groups = Mapping[_Key, Sequence[Observation]]


def tell_group_splits(groups: _Groups, unit: str) -> list[str]:
    """Name subjects (or studies) that are analysed apart though nothing but an entity of their names says so.

    Parameters
    ----------
    groups : mapping
        What is combined with what, by the entities that each group shares.
    unit : {"subject", "study"}

    Returns
    -------
    list of str
        A sentence with the counts and what would pool them, for every set of
        groups that differ in how they were acquired, in their session, or in
        one label (another spelling included) that no unit has both ways.
    """
    acquired = (*ACQUIRED, "ses")
    told = []
    for members in _classes(groups, acquired):
        varying = [key for key in acquired if len({label.get(key) for label, _ in members}) > 1]
        told.append(_tell_acquired(members, varying, unit))
    others = {key for group in groups for key, _ in group} - {*acquired, "space"}
    for key in sorted(others):
        for members in _classes(groups, (key,)):
            told.append(_tell_labels(members, key, unit))
    return list(dict.fromkeys(filter(None, told)))


def tell_participant_splits(analyses: Sequence[Analysis], over: Sequence[str]) -> list[str]:
    """Name entities that keep a participant's maps of one question apart, which ``--combine`` would combine."""
    keys = tuple(key for key in ACQUIRED if key not in over)
    found: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    groups = {tuple(sorted(one.entities.items())): one.observations for one in analyses}
    for members in _classes(groups, keys):
        varying = tuple(key for key in keys if len({label.get(key) for label, _ in members}) > 1)
        for label, rows in members:
            name = " ".join(f"{key}-{label[key]}" if key in label else f"no {key}-" for key in varying)
            found[varying][name].add(rows[0].entities["sub"])
    told = []
    for varying, labels in found.items():
        count = len(set().union(*labels.values()))
        names = " ".join(dict.fromkeys((*over, *varying)))
        told.append(
            f"{count} participant(s) have maps that differ only in {_dashed(varying)} ({_shorten(sorted(labels))}) and "
            f"are kept apart. If they are repetitions, --combine {names} combines them."
        )
    return told


def _classes(groups: _Groups, keys: Sequence[str]) -> list[list[tuple[dict[str, str], Sequence[Observation]]]]:
    """Collect the groups that differ in these keys alone: two at least."""
    classes: dict[_Key, list[tuple[dict[str, str], Sequence[Observation]]]] = defaultdict(list)
    for group, rows in groups.items():
        rest = tuple(pair for pair in group if pair[0] not in keys)
        classes[rest].append((dict(group), rows))
    return [members for members in classes.values() if len(members) > 1]


def _tell_acquired(
    members: Sequence[tuple[dict[str, str], Sequence[Observation]]], varying: Sequence[str], unit: str
) -> str:
    """Say that groups differ in how they were acquired, where sessions do not explain it."""
    units = [{row.unit_label for row in rows} for _, rows in members]
    alone = [not any(one & other for other in units if other is not one) for one in units]
    counts = _count(members, varying)
    if all(alone):
        return (
            f"The {sum(map(len, units))} {_plural(unit)} are split by {_dashed(varying)}: {counts}; each part is an "
            f"analysis of its own. If they belong together, --pool {' '.join(varying)} pools them."
        )
    if "ses" in varying and not any(alone):
        return ""
    combine = " ".join(dict.fromkeys(("run", *varying)))
    return (
        f"Maps of one question are kept apart by {_dashed(varying)}: {counts}. If they are repetitions, combine each "
        f"{unit}'s first: ibma-app BIDS_DIR OUTPUT_DIR participant --combine {combine}."
    )


def _tell_labels(members: Sequence[tuple[dict[str, str], Sequence[Observation]]], key: str, unit: str) -> str:
    """Say that groups differ in one label: of disjoint units, or in its spelling only."""
    alike: dict[str, list[tuple[dict[str, str], Sequence[Observation]]]] = defaultdict(list)
    for label, rows in members:
        alike[label.get(key, "").casefold().lstrip("0")].append((label, rows))
    for same in alike.values():
        if len(same) > 1:
            return _tell_disjoint(same, key, unit, "spelled in several ways")
    return _tell_disjoint(members, key, unit, "")


def _tell_disjoint(
    members: Sequence[tuple[dict[str, str], Sequence[Observation]]], key: str, unit: str, how: str
) -> str:
    """Name groups of which no unit is in two, and what pools them; "" where units are in several, unless misspelled."""
    units = [row.unit_label for _, rows in members for row in rows]
    counts = _count(members, (key,))
    if len(set(units)) < len(units):
        return f"{key}- is {how}: {counts}; each is an analysis of its own. Rename their files." if how else ""
    labels = [label[key] for label, _ in members if key in label]
    chosen = f"{_BY_OPTION[key]} {' '.join(labels)} " if key in _BY_OPTION and len(labels) == len(members) else ""
    why = f"{key}-, which is {how}" if how else f"{key}-"
    return (
        f"The {len(units)} {_plural(unit)} are split by {why}: {counts}; each part is an analysis of its own. If they "
        f"belong together, {chosen}--pool {key} pools them."
    )


def _count(members: Sequence[tuple[dict[str, str], Sequence[Observation]]], keys: Sequence[str]) -> str:
    """Write how many units each group has."""
    return _shorten([f"{len({row.unit_label for row in rows})} {_say(label, keys)}" for label, rows in members])


def _say(label: Mapping[str, str], keys: Sequence[str]) -> str:
    """Write the labels of a group, or that it has none."""
    there = [f"{key}-{label[key]}" for key in keys if key in label]
    return f"with {' '.join(there)}" if there else f"without {_dashed(keys)}"


def _shorten(texts: Sequence[str]) -> str:
    more = f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _dashed(keys: Sequence[str]) -> str:
    return ", ".join(f"{key}-" for key in keys)


def _plural(unit: str) -> str:
    return "studies" if unit == "study" else f"{unit}s"
