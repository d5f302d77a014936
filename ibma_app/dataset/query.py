"""Finds the statistic maps of datasets, filtered by queries like those of PyBIDS.

Entities are read from paths below the dataset's root only, so that a folder
``sub-99`` above it does not count.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DatasetError, InputError, UsageError
from ibma_app.core.statmap import ENDINGS, KINDS, Dataset, StatMap
from ibma_app.core.system.long_work import tell_progress
from ibma_app.dataset.entities import order_entities, split_name
from ibma_app.dataset.filters import ANY, Candidate, Step, check_names, explain_steps, explain_unmatched, matches
from ibma_app.dataset.index import index_in_database
from ibma_app.dataset.level_rules import is_collection, is_here, keep_level
from ibma_app.dataset.sidecars import SidecarReader
from ibma_app.dataset.walk import list_images

_log = logging.getLogger(__name__)

SPACE_SOURCE = "SpaceSource"
"""Key of the metadata of maps whose space only the command line tells."""

NOT_UNASKED = ("corr", "algorithm")
"""Entities of maps that are selected only where the filter file names them: corrected maps of group results, and
HALFpipe's tests of heterogeneity and of missing values, which are no test of the contrast."""


@dataclass(frozen=True)
class Query:
    """Which maps of the datasets are selected."""

    level: str  # "participant" or "group"
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # short key -> bare labels kept
    excluded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # short key -> bare labels left out
    filters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # kind -> query (read_filter_file)
    contrast_entity: str = "contrast"  # the entity that holds the contrast
    database_dir: Path | None = None
    space_is: str | None = None  # the space of maps whose names have none

    def of_kind(self, kind: str) -> dict[str, Any]:
        """Return the query of a kind: that of the filter file, completed by the defaults.

        Those of `NOT_UNASKED` are selected only when the filter file names
        them. Where it tells a kind by ``desc`` or another
        suffix, names need no ``stat``.
        """
        asked = self.filters.get(kind, {})
        by_name = _is_label(asked.get("desc")) or asked.get("suffix", "statmap") != "statmap"
        stat = [kind, None] if by_name else kind
        return {
            "suffix": "statmap",
            "extension": list(ENDINGS),
            "stat": stat,
            **dict.fromkeys(NOT_UNASKED),
            **asked,
        }

    @property
    def kind_keys(self) -> frozenset[str]:
        """Entities that tell the kinds apart: the filter file asks another label of each kind."""
        asked: dict[str, list[Any]] = {}
        for one in self.filters.values():
            for key, value in one.items():
                asked.setdefault(key, []).append(value)
        apart = {
            key
            for key, values in asked.items()
            if len(values) > 1 and all(map(_is_label, values)) and len({json.dumps(value) for value in values}) > 1
        }
        return frozenset(apart - {self.contrast_entity, "suffix", "extension", "stat"})


def _is_label(value: Any) -> bool:
    """Return whether a query's value is one label."""
    return isinstance(value, str) and value != ANY


def find_statmaps(datasets: Sequence[Dataset], query: Query, exclude: Sequence[Path] = ()) -> tuple[StatMap, ...]:
    """Find the maps that a query selects, with their metadata, in the order of datasets and paths.

    Parameters
    ----------
    datasets : sequence of Dataset
    query : Query
    exclude : sequence of Path
        Folders that are not searched: OUTPUT_DIR, or its ``group`` folder
        where its participant maps are the input.

    Returns
    -------
    tuple of StatMap
        Empty when nothing is selected (see `explain_nothing`). Entities are
        in BIDS order.

    Raises
    ------
    UsageError
        When the query names an entity that does not exist, or selects one file as two kinds.
    DatasetError
        When a selected file's name is not a BIDS name.
    InputError
        When none of the selected maps has its content here (git-annex).
    """
    queries = {kind: query.of_kind(kind) for kind in KINDS}
    found: list[StatMap] = []
    seen: list[Candidate] = []
    for dataset in datasets:
        others = [other.root for other in datasets if other.root != dataset.root]
        candidates = _index(dataset, query, queries, [*exclude, *others])
        seen += candidates
        found += _select(dataset, candidates, query, queries)
    faults = {one.path: one.fault for one in seen if one.fault}
    check_names([*query.labels, *(key for one in query.filters.values() for key in one)], seen)
    found = _follow_named(found, query)
    kept = keep_level(found, query.level, collection=is_collection(datasets, query.labels))
    kept = _exclude([one for one in kept if _has_labels(one.entities, query.labels)], query)
    _require_names(kept, faults)
    if kept and not any(is_here(statmap.path) for statmap in kept):
        raise InputError(
            f"{kept[0].path}: its content is not here, nor is that of any map selected. If the dataset is "
            'under DataLad or git-annex, get it first with "datalad get".'
        )
    return _read_sidecars(kept, query)


def _exclude(statmaps: Sequence[StatMap], query: Query) -> list[StatMap]:
    """Leave out the labels excluded; those that no map has are warned of."""
    kept = list(statmaps)
    for key, labels in query.excluded.items():
        lost = [label for label in labels if not any(_has_labels(one.entities, {key: (label,)}) for one in statmaps)]
        if lost:
            named = ", ".join(f"{key}-{label}" for label in lost)
            _log.warning("No map has %s, so there is nothing to exclude.", named)
        kept = [one for one in kept if not _has_labels(one.entities, {key: labels})]
    return kept


def _follow_named(found: Sequence[StatMap], query: Query) -> list[StatMap]:
    """Select kinds that the filter file does not name like those that it names.

    With the effect of ``test-age`` its z is selected, not that of
    ``test-intercept``. A kind without ``test`` (dof) belongs to all tests.
    """
    if not query.filters:
        return list(found)
    named = [one for one in found if one.kind in query.filters]
    keys = {_key(one) for one in named} | {_key(one, "test") for one in named}
    return [one for one in found if one.kind in query.filters or _key(one) in keys]


def _key(statmap: StatMap, *without: str) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in statmap.entities.items() if item[0] not in ("node", *without))


def explain_nothing(datasets: Sequence[Dataset], query: Query, exclude: Sequence[Path] = ()) -> str:
    """Explain why a query selects nothing: what each filter leaves, and the values that exist."""
    candidates = _all_images(datasets, exclude)
    check_names([*query.labels, *(key for one in query.filters.values() for key in one)], candidates)
    queries = {kind: query.of_kind(kind) for kind in query.filters or KINDS}
    steps: list[Step] = []
    keys = list(dict.fromkeys(key for one in queries.values() for key in one if key != "extension"))
    for index, key in enumerate(keys):
        by_kind = {kind: one[key] for kind, one in queries.items() if key in one}
        if key in NOT_UNASKED and not any(by_kind.values()):
            continue
        steps.append(Step(key, _describe(key, by_kind), _meets_some(queries, keys[: index + 1])))
    for key, labels in query.labels.items():
        raw = query.contrast_entity if key == "contrast" else key
        steps.append(Step(raw, f"{raw}-{', '.join(labels)}", _has_entity(raw, labels), labels))
    for key, labels in query.excluded.items():
        steps.append(Step(key, f"no {key}-{', '.join(labels)}", _has_not(key, labels)))
    rows = ("sub",) if query.level == "participant" else ("sub", "study")
    steps.append(Step(rows[0], f"a {' or '.join(f'{row}-' for row in rows)} label", _has_entity(rows, None)))
    places = ", ".join(str(dataset.root) for dataset in datasets)
    other = "" if candidates else _other_formats(datasets, exclude)
    return f"No map is selected in {places}; of\n{explain_steps(candidates, steps)}{other}"


def tell_unmatched(
    datasets: Sequence[Dataset], query: Query, statmaps: Iterable[StatMap], exclude: Sequence[Path] = ()
) -> Iterator[str]:
    """Say which labels of the query no selected map has."""

    def every() -> Iterator[Mapping[str, str]]:
        return (_name_contrast(one, query) for one in _all_images(datasets, exclude))

    return explain_unmatched(query.labels, (one.entities for one in statmaps), every, "map")


def _all_images(datasets: Sequence[Dataset], exclude: Sequence[Path]) -> list[Candidate]:
    return [
        _read_candidate(one.root, name) for one in datasets for name in list_images(one.root, exclude=exclude).images
    ]


FORMATS = {
    (".NII", ".NII.GZ", ".Nii", ".Nii.gz", ".nii.GZ"): "Write the ending in small letters: .nii or .nii.gz.",
    (".img", ".img.gz"): "Convert Analyze images to NIfTI (nibabel, or FSL's fslchfiletype NIFTI_GZ).",
    (".HEAD", ".BRIK", ".BRIK.gz"): "Bring AFNI's datasets in with ibma-import afni.",
    (".mgz", ".mgh"): "Convert FreeSurfer's images to NIfTI (mri_convert).",
}
"""Endings of images that are not looked for, and what helps."""


def _other_formats(datasets: Sequence[Dataset], exclude: Sequence[Path]) -> str:
    """Say which images there are in other formats; "" where there are none."""
    for endings, remedy in FORMATS.items():
        found = [name for one in datasets for name in list_images(one.root, exclude=exclude, extensions=endings).images]
        if found:
            return f"\nThere are {len(found)} files such as {found[0]}. {remedy}"
    return ""


def _meets_some(queries: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> Callable[[Candidate], bool]:
    """Return a function that tests whether an image satisfies the query of any kind, for these keys."""
    return lambda candidate: any(
        all(matches(candidate, key, one[key]) for key in keys if key in one) for one in queries.values()
    )


def _has_entity(keys: str | Sequence[str], labels: Sequence[str] | None) -> Callable[[Candidate], bool]:
    """Return a function that tests whether an image has an entity, with one of the labels."""
    names = (keys,) if isinstance(keys, str) else tuple(keys)
    allowed = "*" if labels is None else list(labels)
    return lambda candidate: any(matches(candidate, key, allowed) for key in names)


def _has_not(key: str, labels: Sequence[str]) -> Callable[[Candidate], bool]:
    """Make the test whether an image has none of the labels."""
    return lambda candidate: not matches(candidate, key, list(labels))


def _describe(key: str, by_kind: Mapping[str, Any]) -> str:
    """Write one line of the kinds' queries as text."""
    values = {json.dumps(value) for value in by_kind.values()}
    if len(values) == 1:
        return f"{key} {values.pop()}"
    return f"{key} " + ", ".join(f"{json.dumps(value)} ({kind})" for kind, value in by_kind.items())


def _select(
    dataset: Dataset,
    candidates: Iterable[Candidate],
    query: Query,
    queries: Mapping[str, Mapping[str, Any]],
) -> list[StatMap]:
    """Select the images of a dataset that are maps of some kind, and have the labels of the query."""
    early = {key: labels for key, labels in query.labels.items() if key != "study"}  # which a folder may have
    keys = sorted({key for one in queries.values() for key in one} - {"suffix", "extension"})
    known: dict[tuple[str | None, ...], list[str]] = {}  # many images have few combinations
    found = []
    for candidate in candidates:
        answers = (candidate.suffix, candidate.extension, *map(candidate.entities.get, keys))
        if answers not in known:
            known[answers] = _kinds_of(candidate, queries)
        kinds = known[answers]
        if len(kinds) > 1:
            raise UsageError(
                f"{candidate.path}: the filters select it as {' and as '.join(kinds)}; let each kind's query "
                'say "stat" or another entity that tells them apart.'
            )
        if not kinds:
            continue
        entities = _name_contrast(candidate, query)
        if _has_labels(entities, early):
            found.append(StatMap(candidate.path, kinds[0], dataset, entities))
    return found


def _kinds_of(candidate: Candidate, queries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the kinds of map that an image is selected as."""
    kinds = [kind for kind, one in queries.items() if all(matches(candidate, key, one[key]) for key in one)]
    if len(kinds) > 1 and all(isinstance(queries[kind]["stat"], list) for kind in kinds):
        return []  # nothing tells which of these kinds it is
    return kinds


def _name_contrast(candidate: Candidate, query: Query) -> dict[str, str]:
    """Return an image's entities without those that tell its kind, and with the contrast under its own key."""
    contrast_entity, left = query.contrast_entity, {"stat", *query.kind_keys}
    entities = {key: label for key, label in candidate.entities.items() if key not in left}
    if query.space_is is not None:
        entities.setdefault("space", query.space_is)
    if contrast_entity != "contrast" and contrast_entity in entities:
        if "contrast" in entities:
            raise DatasetError(
                f"{candidate.path}: the contrast is said to be in {contrast_entity}-, but the name has "
                "contrast- too; leave out [inputs] contrast, or such files by --bids-filter-file."
            )
        entities["contrast"] = entities.pop(contrast_entity)
    return order_entities(entities)


def _has_labels(entities: Mapping[str, str], labels: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether a map has one of the selected labels in each entity."""
    candidate = Candidate(Path(), dict(entities), "", "", None)
    return all(matches(candidate, key, kept) for key, kept in labels.items())


def _require_names(statmaps: Iterable[StatMap], faults: Mapping[Path, str]) -> None:
    """Refuse names that are not BIDS names, with one message for all."""
    bad = [(one.path, faults[one.path]) for one in statmaps if one.path in faults]
    if bad:
        path, fault = bad[0]
        more = f" {len(bad) - 1} more files are named in such a way." if len(bad) > 1 else ""
        raise DatasetError(f"{path}: not a BIDS name: {fault} (and its .json likewise).{more}")


def _read_sidecars(statmaps: Sequence[StatMap], query: Query) -> tuple[StatMap, ...]:
    """Add the metadata."""
    readers: dict[Path, SidecarReader] = {}
    done = []
    with tell_progress("Reading sidecars", len(statmaps), of="maps") as count:
        for one in statmaps:
            reader = readers.setdefault(one.dataset.root, SidecarReader(one.dataset.root))
            metadata, error = reader.read(one.path)
            if query.space_is is not None and "space" not in split_name(one.path.name).entities:
                metadata = {**metadata, SPACE_SOURCE: f"--space-is {query.space_is}"}
            done.append(StatMap(one.path, one.kind, one.dataset, one.entities, metadata, error))
            count(1)
    return tuple(done)


def _read_candidate(root: Path, below: str) -> Candidate:
    """Read an image's entities from its name, and missing ones from its folders."""
    *folders, name = below.split("/")
    parts = split_name(name)
    entities = dict(parts.entities)
    for folder in reversed(folders):
        key, dash, label = folder.partition("-")
        if dash and label and key in ("sub", "ses", "study", "node"):
            entities.setdefault(key, label)
    return Candidate(root / below, order_entities(entities), parts.suffix, parts.extension, parts.fault)


def _index(
    dataset: Dataset, query: Query, queries: Mapping[str, Mapping[str, Any]], exclude: Sequence[Path]
) -> list[Candidate]:
    """List a dataset's images, from its PyBIDS database where there is one."""
    labels = {"sub": query.labels["sub"]} if "sub" in query.labels else {}
    extensions, suffixes = _all_extensions(queries), _all_suffixes(queries)
    listing = list_images(dataset.root, exclude=exclude, labels=labels, extensions=extensions)
    candidates = (_read_candidate(dataset.root, name) for name in listing.images)
    images = (one for one in candidates if suffixes is None or one.suffix in suffixes)
    if query.database_dir is None:
        return list(images)
    selection = [labels, sorted(suffixes or "*"), extensions, sorted(map(str, exclude))]
    return index_in_database(dataset.root, images, query.database_dir, selection, listing.folders)


def _all_suffixes(queries: Mapping[str, Mapping[str, Any]]) -> set[str] | None:
    """Collect the suffixes of the kinds' queries; None: any."""
    suffixes: set[str] = set()
    for one in queries.values():
        values = _as_list(one["suffix"])
        if not all(isinstance(value, str) and value[:1].isalnum() and "." not in value for value in values):
            return None
        suffixes.update(values)
    return suffixes


def _all_extensions(queries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Collect the extensions of the kinds' queries."""
    values = {str(value) for one in queries.values() for value in _as_list(one["extension"])}
    return tuple(sorted(value for value in values if value.startswith("."))) or ENDINGS


def _as_list(value: Any) -> list[Any]:
    """Return a query's value as a list."""
    return value if isinstance(value, list) else [value]
