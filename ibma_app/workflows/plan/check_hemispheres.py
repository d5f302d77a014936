"""Refuses groups in which some maps lack a hemisphere that the others have; names of files say so."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ibma_app.core.anatomy.elements import tell_hemispheres
from ibma_app.core.errors import DatasetError, IbmaError
from ibma_app.core.statmap import GIFTI, Analysis, Observation, StatMap
from ibma_app.stream.convert import kinds_to_open

SHOWN = 3
"""Units that a message names."""
_WORDS = {
    "subject": ("sub", "subjects", "--exclude-participant-label"),
    "study": ("study", "studies", "--exclude-study-label"),
}
_SIDE = re.compile(r"(?<=hemi-)([LR])(?=_)")


class _Lack(NamedTuple):
    """A hemisphere that a map lacks."""

    unit: str  # label
    kind: str
    side: str
    path: Path  # where its file is expected


def check_hemispheres(analysis: Analysis, needs: Collection[str]) -> None:
    """Refuse maps without a hemisphere that others have, before any is read.

    Parameters
    ----------
    analysis : Analysis
    needs : collection of str
        What estimators need: only the kinds read for it count.

    Raises
    ------
    DatasetError
        The message names those that lack one, the file, and the option that leaves them out.
    """
    maps = [(row.unit_label, one) for row in analysis.observations for one in _opened(row, needs)]
    sides = [_sides(one) for _, one in maps]
    every = set().union(*sides)
    lacks = [
        _Lack(unit, one.kind, side, one.path.with_name(_SIDE.sub(side, one.path.name, count=1)))
        for (unit, one), there in zip(maps, sides, strict=True)
        if there
        for side in sorted(every - there)
    ]
    if lacks:
        raise DatasetError(_explain(lacks, analysis))


def _opened(row: Observation, needs: Collection[str]) -> list[StatMap]:
    """List the maps that are read of one row, and those that they are computed from."""
    try:
        kinds = kinds_to_open(row, needs)
    except IbmaError:
        return []  # told where it is read
    maps = [row.statmaps[kind] for kind in kinds]
    return [term for one in maps for term in ([term for _, term in one.terms] or [one])]


def _sides(statmap: StatMap) -> set[str]:
    """Return the labels of ``hemi-`` of a map's files; empty where its format has no file for each."""
    names = [path.name for path in statmap.files if path.name.endswith(GIFTI)]
    return {found[1] for name in names if (found := _SIDE.search(name))}


def _explain(lacks: Sequence[_Lack], analysis: Analysis) -> str:
    """Say who lacks what, and what to do."""
    prefix, noun, option = _WORDS[analysis.unit]
    kinds: dict[tuple[str, str], dict[str, None]] = {}  # of each unit and side, in order
    for one in lacks:
        kinds.setdefault((one.unit, one.side), {})[one.kind] = None
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (unit, side), lacking in kinds.items():
        alike.setdefault((side, tuple(lacking)), []).append(unit)
    sentences = []
    for (side, lacking_kinds), labels in alike.items():
        named = ", ".join(f"{prefix}-{label}" for label in labels[:SHOWN])
        named += f" and {len(labels) - SHOWN} more {noun}" if len(labels) > SHOWN else ""
        verb = "lacks" if len(labels) == 1 else "lack"
        maps = f"{' and '.join(lacking_kinds)} map{'s' if len(lacking_kinds) > 1 else ''}"
        sentences.append(f"{named} {verb} {tell_hemispheres(side)} of the {maps}, which the other maps have.")
    units = list(dict.fromkeys(one.unit for one in lacks))
    provide = f"Provide the file {lacks[0].path}" if len(lacks) == 1 else f"Provide the files (e.g. {lacks[0].path})"
    if len(units) + 1 >= len({row.unit_label for row in analysis.observations}):
        return f"{' '.join(sentences)} {provide}."  # too few would be left
    which = "this one" if len(units) == 1 else "these"
    return f"{' '.join(sentences)} {provide}, or leave {which} out: {option} {' '.join(units)}."
