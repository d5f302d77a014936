"""Finds runs of preprocessed BOLD, with their masks, confounds, events and sidecars, as fMRIPrep lays them out."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ibma_app.core.bold_run import BoldRun
from ibma_app.core.errors import DatasetError
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.entities import NameParts, order_entities, output_name, same_label, split_name
from ibma_app.dataset.filters import Candidate, Step, check_names, explain_steps, explain_unmatched, matches
from ibma_app.dataset.sidecars import SidecarReader
from ibma_app.dataset.walk import list_images

BOLD: Mapping[str, Any] = {
    "suffix": "bold",
    "extension": [".nii", ".nii.gz"],
    "desc": ["preproc", None],
    "part": ["mag", None],
}
"""The query of preprocessed BOLD: phase images are none."""

OF_THE_IMAGE = ("space", "cohort", "res", "den", "desc", "part", "echo")  # which events do not have
CONFOUNDS = ("timeseries", "regressors")  # since fMRIPrep 20.2, and before


class Folders:
    """Lists the files of folders, each folder once."""

    def __init__(self) -> None:
        self._known: dict[Path, list[tuple[Path, NameParts]]] = {}

    def list(self, folder: Path) -> list[tuple[Path, NameParts]]:
        """List the files of a folder with the parts of their names; none where it cannot be read."""
        if folder not in self._known:
            try:
                paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
            except OSError:
                paths = []
            self._known[folder] = [(path, split_name(path.name)) for path in paths]
        return self._known[folder]


def find_runs(
    datasets: Sequence[Dataset],
    raw: Sequence[Dataset],
    labels: Mapping[str, Sequence[str]],
    excluded: Mapping[str, Sequence[str]],
    asked: Mapping[str, Any],
    exclude: Sequence[Path] = (),
) -> tuple[BoldRun, ...]:
    """Find the runs that are selected.

    Parameters
    ----------
    datasets : sequence of Dataset
        That hold preprocessed BOLD.
    raw : sequence of Dataset
        Where events, and sidecars of the raw BOLD, are looked for, in order.
    labels, excluded : mapping
        Short key -> bare labels that are kept, or left out.
    asked : mapping
        The query ``bold`` of the filter file, by short keys.
    exclude : sequence of Path
        Folders that are not searched.

    Returns
    -------
    tuple of BoldRun
        In the order of datasets and paths; empty when nothing is selected (see `explain_no_runs`).

    Raises
    ------
    DatasetError
        Names are not BIDS names, or files contradict each other.
    """
    query = {**BOLD, **asked}
    readers = {one.root: SidecarReader(one.root) for one in (*datasets, *raw)}
    folders, runs = Folders(), list[BoldRun]()
    for dataset in datasets:
        others = [one.root for one in datasets if one.root != dataset.root]
        listed = list_images(dataset.root, exclude=[*exclude, *others], labels=_folders_of(labels)).images
        candidates = [_candidate(dataset.root, name) for name in listed]
        check_names(asked, candidates)
        kept = [one for one in candidates if all(matches(one, key, value) for key, value in query.items())]
        kept = [one for one in kept if all(matches(one, key, value) for key, value in labels.items())]
        kept = [one for one in kept if not any(matches(one, key, value) for key, value in excluded.items())]
        _require_names(kept)
        for one in _without_single_echoes(kept, asked):
            runs.append(_describe_run(one, dataset, raw, readers, folders))
    return tuple(runs)


def explain_no_runs(
    datasets: Sequence[Dataset],
    labels: Mapping[str, Sequence[str]],
    excluded: Mapping[str, Sequence[str]],
    asked: Mapping[str, Any],
    exclude: Sequence[Path] = (),
) -> str:
    """Explain why no run is selected: what each filter leaves, and the values that exist."""
    candidates = _all_images(datasets, exclude)
    steps: list[Step] = []
    for key, value in {**BOLD, **asked}.items():
        steps.append(Step(key, f"{key} {json.dumps(value)}", _meets(key, value)))
    for key, wanted in labels.items():
        steps.append(Step(key, f"{key}-{', '.join(wanted)}", _meets(key, list(wanted)), wanted))
    for key, wanted in excluded.items():
        steps.append(Step(key, f"no {key}-{', '.join(wanted)}", _misses(key, list(wanted))))
    where = ", ".join(str(one.root) for one in datasets)
    return f"No run of preprocessed BOLD is selected in {where}; of\n{explain_steps(candidates, steps)}"


def tell_unmatched(
    datasets: Sequence[Dataset],
    labels: Mapping[str, Sequence[str]],
    runs: Iterable[BoldRun],
    exclude: Sequence[Path] = (),
) -> Iterator[str]:
    """Say which labels that are asked for no selected run has."""

    def every() -> Iterator[Mapping[str, str]]:
        return (one.entities for one in _all_images(datasets, exclude) if one.suffix == BOLD["suffix"])

    return explain_unmatched(labels, (run.entities for run in runs), every, "run")


def _all_images(datasets: Sequence[Dataset], exclude: Sequence[Path]) -> list[Candidate]:
    return [_candidate(one.root, name) for one in datasets for name in list_images(one.root, exclude=exclude).images]


def spaces_of(runs: Iterable[BoldRun]) -> list[str]:
    """List the spaces of runs, sorted; ``native`` stands for names without ``space-``."""
    return sorted({run.entities.get("space", "native") for run in runs})


def _meets(key: str, value: Any) -> Callable[[Candidate], bool]:
    return lambda candidate: matches(candidate, key, value)


def _misses(key: str, value: Any) -> Callable[[Candidate], bool]:
    return lambda candidate: not matches(candidate, key, value)


def _folders_of(labels: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {key: labels[key] for key in ("sub", "ses") if key in labels}


def _candidate(root: Path, name: str) -> Candidate:
    parts = split_name(name)
    return Candidate(root / name, order_entities(parts.entities), parts.suffix, parts.extension, parts.fault)


def _require_names(kept: Sequence[Candidate]) -> None:
    bad = [one for one in kept if one.fault or "sub" not in one.entities]
    if bad:
        fault = bad[0].fault or "it has no sub- label"
        raise DatasetError(f"{bad[0].path}: not a BIDS name: {fault}.")


def _without_single_echoes(kept: Sequence[Candidate], asked: Mapping[str, Any]) -> list[Candidate]:
    """Leave out echoes that are combined in another image; refuse those that are not."""
    echoes = [one for one in kept if "echo" in one.entities]
    if not echoes or "echo" in asked:
        return list(kept)
    whole = {_key(one.entities, "echo") for one in kept if "echo" not in one.entities}
    lonely = [one for one in echoes if not any(_is_part(_key(one.entities, "echo"), other) for other in whole)]
    if lonely:
        raise DatasetError(
            f"{lonely[0].path}: a single echo, and no image of the echoes combined is beside it. Let fMRIPrep combine "
            'them, or choose one by --bids-filter-file: {"bold": {"echo": "2"}}.'
        )
    return [one for one in kept if "echo" not in one.entities]


def _key(entities: Mapping[str, str], *without: str) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in entities.items() if item[0] not in without)


def _is_part(echo: frozenset[tuple[str, str]], whole: frozenset[tuple[str, str]]) -> bool:
    """Return whether a combined image is of an echo's run: fMRIPrep's echoes lie in native space alone."""
    of_image = ("space", "cohort", "res", "desc")
    return {item for item in echo if item[0] not in of_image} == {item for item in whole if item[0] not in of_image}


def _describe_run(
    one: Candidate,
    dataset: Dataset,
    raw: Sequence[Dataset],
    readers: Mapping[Path, SidecarReader],
    folders: Folders,
) -> BoldRun:
    """Find what belongs to a BOLD image."""
    entities = {key: label for key, label in one.entities.items() if key not in ("desc", "part")}
    beside = folders.list(one.path.parent)
    beside = [(path, parts) for path, parts in beside if _of_part(parts.entities, one.entities)]
    mask = _best(beside, entities, ("mask",), (".nii.gz", ".nii"), ("brain", None), exactly=("space", "cohort", "res"))
    confounds = _best(beside, entities, CONFOUNDS, (".tsv",), ("confounds",))
    events, home = None, dataset
    for home in (*raw, dataset):
        events = _find_events(home, entities, folders)
        if events is not None:
            break
    metadata: dict[str, Any] = {}
    notes = []
    for source in raw:
        metadata |= _raw_metadata(source, entities, readers[source.root])
    own, error = readers[dataset.root].read(one.path)
    metadata |= own
    if error:
        notes.append(f"a sidecar of the BOLD is not used: {error}")
    files = [(one.path, dataset), (mask, dataset), (confounds, dataset), (events, home)]
    sources = tuple(f"bids:{of.name}:{path.relative_to(of.root).as_posix()}" for path, of in files if path is not None)
    return BoldRun(one.path, dataset, entities, metadata, mask, confounds, events, sources, tuple(notes))


def _of_part(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    """Return whether a file is of a run's part: of its magnitude, unless its phase is asked for."""
    return theirs.get("part") in (None, ours.get("part", "mag"))


def _best(
    listed: Iterable[tuple[Path, NameParts]],
    entities: Mapping[str, str],
    suffixes: Sequence[str],
    extensions: Sequence[str],
    descs: Sequence[str | None],
    exactly: Sequence[str] = (),
) -> Path | None:
    """Return the file whose entities are all the run's, the one with most of them.

    Raises
    ------
    DatasetError
        Two fit as well.
    """
    found: list[tuple[int, int, Path]] = []
    for path, parts in listed:
        if parts.suffix not in suffixes or parts.extension not in extensions or parts.fault:
            continue
        desc = parts.entities.get("desc")
        theirs = {key: label for key, label in parts.entities.items() if key not in ("desc", "part")}
        if desc not in descs or not _belongs(theirs, entities):
            continue
        if any(theirs.get(key) != entities.get(key) for key in exactly):
            continue
        found.append((len(theirs), -descs.index(desc), path))
    if not found:
        return None
    best = max(rank[:2] for rank in found)
    paths = [path for *rank, path in found if tuple(rank) == best]
    if len(paths) > 1:
        raise DatasetError(f"{paths[0]} and {paths[1].name} are both of one run: remove or rename one of them.")
    return paths[0]


def _belongs(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    """Return whether all entities of a file are a run's; run-01 is run-1."""
    return all(key in ours and same_label(key, label, ours[key]) for key, label in theirs.items())


def _find_events(dataset: Dataset, entities: Mapping[str, str], folders: Folders) -> Path | None:
    """Find a run's events, from its folder upwards: the nearest counts (BIDS's inheritance of tables)."""
    ours = {key: label for key, label in entities.items() if key not in OF_THE_IMAGE}
    subject = dataset.root / f"sub-{entities['sub']}"
    session = subject / f"ses-{entities['ses']}" if "ses" in entities else subject
    for folder in dict.fromkeys((session / "func", session, subject / "func", subject, dataset.root)):
        found = _best(folders.list(folder), ours, ("events",), (".tsv",), (None,))
        if found is not None:
            return found
    return None


def _raw_metadata(dataset: Dataset, entities: Mapping[str, str], reader: SidecarReader) -> dict[str, Any]:
    """Read the sidecars of the raw BOLD, which preprocessed ones need not repeat."""
    ours = {key: label for key, label in entities.items() if key not in OF_THE_IMAGE}
    folder = dataset.root / f"sub-{entities['sub']}"
    folder = folder / f"ses-{entities['ses']}" / "func" if "ses" in entities else folder / "func"
    metadata, _ = reader.read(folder / output_name(ours, "bold"))
    return {key: metadata[key] for key in ("RepetitionTime", "VolumeTiming", "TaskName") if key in metadata}
