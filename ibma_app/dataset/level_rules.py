"""Selects the maps of a level: runs for the participants, subjects or studies for the group."""

import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ibma_app.core.errors import DatasetError, InputError
from ibma_app.core.statmap import Dataset, StatMap

_POINTER = b"/annex/objects/"


def is_collection(datasets: Sequence[Dataset], labels: Collection[str]) -> bool:
    """Return whether the rows are studies: with several ``study-<label>`` datasets, or where studies are selected."""
    return "study" in labels or sum(dataset.root.name.startswith("study-") for dataset in datasets) > 1


def keep_level(statmaps: Sequence[StatMap], level: str, *, collection: bool) -> list[StatMap]:
    """Keep the maps that a level combines.

    Parameters
    ----------
    statmaps : sequence of StatMap
    level : {"participant", "group"}
        Participant: maps of a subject; under FitLins' ``node-`` folders those
        with ``run``, when any has it. Group: maps of a subject or a study;
        under ``node-`` folders those without ``run``.
    collection : bool
        Group level: the rows are the ``study-<label>`` datasets, not their subjects.

    Notes
    -----
    Group results of a dataset (without subject and study) are left out.
    """
    statmaps = _keep_own(statmaps, runs=level == "participant")
    if level == "participant":
        kept = [statmap for statmap in statmaps if "sub" in statmap.entities]
        if any("run" in one.entities and "node" in one.entities for one in kept):
            kept = [one for one in kept if "run" in one.entities or "node" not in one.entities]
        return kept
    kept = [one for one in statmaps if not ("run" in one.entities and "node" in one.entities)]
    if not collection and any("sub" in one.entities for one in kept):
        studies = {one.dataset.root for one in kept if "sub" in one.entities}
        kept = [one for one in kept if "sub" in one.entities or one.dataset.root not in studies]
    kept = [_name_study(one) for one in kept]
    if collection:
        kept = [one for one in kept if "study" in one.entities]
    return settle_group_maps([one for one in kept if "sub" in one.entities or "study" in one.entities])


def _keep_own(statmaps: Sequence[StatMap], *, runs: bool) -> list[StatMap]:
    """Of OUTPUT_DIR's own maps, keep those of runs, or those of participants where there are any."""
    own = [one for one in statmaps if not one.dataset.name]
    level = [one for one in own if ("run" in one.entities) == runs]
    return list(statmaps) if not level else [one for one in statmaps if one.dataset.name or one in level]


def _name_study(statmap: StatMap) -> StatMap:
    """Add the study's label to a group map, where the dataset's folder has it."""
    folder = statmap.dataset.root.name
    if not folder.startswith("study-") or {"sub", "study"} & set(statmap.entities):
        return statmap
    return replace(statmap, entities={"study": folder.removeprefix("study-"), **statmap.entities})


def settle_group_maps(statmaps: Sequence[StatMap]) -> list[StatMap]:
    """Choose one map per study of group results: that of the intercept, or of the only test.

    ``test`` is then removed from the entities, and ``desc`` (the estimator)
    when no study has two. Other maps stay as they are.

    Raises
    ------
    DatasetError
        When a study has several tests and none is the intercept.
    """
    studies = [one for one in statmaps if "study" in one.entities and "sub" not in one.entities]
    others = [one for one in statmaps if not ("study" in one.entities and "sub" not in one.entities)]
    by_analysis = _group(studies, lambda one: _without(one.entities, "test", "node"))
    settled: list[StatMap] = []
    for maps in by_analysis.values():
        settled += _settle_tests(maps)
    made = [one for one in settled if "desc" in one.entities and "group" in one.path.parts]
    by_result = _group(made, lambda one: _without(one.entities, "desc", "node"))
    if all(len({one.entities["desc"] for one in maps}) == 1 for maps in by_result.values()):
        drop = {id(one) for one in made}
        settled = [
            replace(one, entities=dict(_without(one.entities, "desc"))) if id(one) in drop else one for one in settled
        ]
    return others + settled


def _settle_tests(maps: Sequence[StatMap]) -> list[StatMap]:
    """Choose the test of one study's analysis."""
    tests = sorted({one.entities["test"] for one in maps if "test" in one.entities})
    if not tests:
        return list(maps)
    intercept = [test for test in tests if test.lower() == "intercept"]
    if len(tests) > 1 and not intercept:
        raise DatasetError(
            f"{maps[0].path.parent}: this study has maps of several tests ({', '.join(tests)}); choose one "
            f'with --bids-filter-file, e.g. {{"effect": {{"test": "{tests[0]}"}}, ...}} for each kind.'
        )
    chosen = (intercept or tests)[0]
    kept = [one for one in maps if one.entities.get("test", chosen) == chosen]
    return [replace(one, entities=dict(_without(one.entities, "test"))) for one in kept]


def _group(
    statmaps: Iterable[StatMap], key: Callable[[StatMap], tuple[tuple[str, str], ...]]
) -> dict[tuple[tuple[str, str], ...], list[StatMap]]:
    """Collect maps by a key of entities."""
    groups: dict[tuple[tuple[str, str], ...], list[StatMap]] = defaultdict(list)
    for statmap in statmaps:
        groups[key(statmap)].append(statmap)
    return groups


def _without(entities: Mapping[str, str], *keys: str) -> tuple[tuple[str, str], ...]:
    """Return entities without some, hashable."""
    return tuple((key, label) for key, label in entities.items() if key not in keys)


def is_here(path: Path) -> bool:
    """Return whether a file's content is here: it is no dangling link, and no git-annex pointer file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size >= 32768:  # git-annex: pointer files are smaller
            return True  # a pipe is there, and refused where maps are read
        with path.open("rb") as file:
            return not file.read(len(_POINTER)).startswith(_POINTER)
    except OSError:
        return False


def require_content(statmaps: Iterable[StatMap]) -> None:
    """Refuse maps whose content is not here.

    Raises
    ------
    InputError
        There are some; the message says how to get the content.
    """
    missing = [path for statmap in statmaps for path in statmap.files if not is_here(path)]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{missing[0]}{more}: the file's content is not here or cannot be read. If the dataset is under "
            f'DataLad or git-annex, get it first: "datalad get {missing[0].name}" in its folder.'
        )
