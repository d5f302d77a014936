"""Finds the datasets that hold the maps: BIDS_DIR, its derivatives, named ones, folders of studies."""

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ibma_app.core.errors import DatasetError, InputError
from ibma_app.core.from_files import read_json
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.walk import has_maps

_log = logging.getLogger(__name__)

DESCRIPTION = "dataset_description.json"
_EXAMPLE = '{"Name": "my maps", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}'


def find_datasets(
    bids_dir: Path,
    derivatives: Sequence[str] | None,
    output_dir: Path,
    level: str,
    *,
    skip_validation: bool = False,
) -> tuple[Dataset, ...]:
    """Find the datasets that maps come from, by ``--derivatives`` or its default.

    Parameters
    ----------
    bids_dir : Path
        The dataset of the command line.
    derivatives : sequence of str, optional
        ``[NAME=]PATH`` of each dataset; None: BIDS_DIR itself when it is a
        derivative (or a study, or a folder of studies), else every dataset in
        its ``derivatives`` folder except OUTPUT_DIR.
    output_dir : Path
        At group level its own participant maps come first, and at participant level its own maps of runs,
        when there are any and no dataset was named; the name of that dataset is "" (``bids::`` URIs).
    level : {"participant", "group"}
    skip_validation : bool
        Accept datasets without dataset_description.json.

    Raises
    ------
    InputError
        When BIDS_DIR or a named dataset is missing.
    DatasetError
        When a dataset_description.json is missing or unreadable, or there is no dataset.
    """
    bids_dir, output_dir = _absolute(bids_dir), _absolute(output_dir)
    _require_folder(bids_dir, "BIDS_DIR")
    if derivatives is not None:
        if not skip_validation and not find_studies(bids_dir):
            read_description(bids_dir)
        named = [_split_name(text) for text in derivatives]
        found = [
            dataset for name, path in named for dataset in _open_named(name, path, skip_validation=skip_validation)
        ]
        return _unique_names(found, output_dir, stated={name for name, _ in named})
    own = find_own_maps(output_dir) if level == "group" else find_own_runs(output_dir)
    try:
        found = _find_default(bids_dir, output_dir, skip_validation=skip_validation)
    except DatasetError:
        if own is None:
            raise
        found = []
    found = [dataset for dataset in found if not _same(dataset.root, output_dir)]
    return (*([own] if own else []), *_unique_names(found, output_dir))


def find_own_maps(output_dir: Path) -> Dataset | None:
    """Return OUTPUT_DIR as a dataset when it holds participant maps, under the name "" (``bids::``)."""
    root = _absolute(output_dir)
    if not root.is_dir() or not has_maps(root, "sub-*/**/*"):
        return None
    return Dataset("", root, read_description(root, required=False))


def find_own_runs(output_dir: Path) -> Dataset | None:
    """Return OUTPUT_DIR as a dataset when the run level wrote maps into it, under the name "" (``bids::``)."""
    root = _absolute(output_dir)
    if not root.is_dir() or not has_maps(root, "sub-*/**/*_run-*_stat-effect"):
        return None
    return Dataset("", root, read_description(root, required=False))


def find_studies(root: Path) -> list[Path]:
    """Return the folders ``study-<label>/`` of a folder that are datasets of their own."""
    return sorted(path for path in root.glob("study-*") if (path / DESCRIPTION).is_file())


def read_description(root: Path, *, required: bool = True) -> dict[str, Any]:
    """Read a dataset's dataset_description.json; {} when it is missing and not required.

    Raises
    ------
    DatasetError
        When it is required, and missing or not a JSON object.
    """
    path = root / DESCRIPTION
    cure = f"A derivative dataset needs at least {_EXAMPLE} in it (or use --skip-bids-validation)."
    try:
        content = read_json(path)
    except OSError as error:
        if not required:
            return {}
        raise DatasetError(f"{path}: {(error.strerror or 'unreadable').lower()}. {cure}") from error
    except ValueError as error:
        if not required:
            return {}
        raise DatasetError(f"{path}: not valid JSON: {error}. {cure}") from error
    if isinstance(content, dict):
        return content
    if not required:
        return {}
    raise DatasetError(f"{path}: not a JSON object. {cure}")


def find_table(datasets: Sequence[Dataset], bids_dir: Path, name: str) -> Path | None:
    """Find ``participants.tsv``, ``studies.tsv`` or their ``.json``.

    BIDS_DIR comes first, then each dataset, then the folder that holds ``study-<label>`` datasets, then
    the datasets that these were made from (their DatasetLinks), then OUTPUT_DIR: its table is a copy.
    """
    places = [_absolute(bids_dir), *(dataset.root for dataset in datasets if dataset.name)]
    places += [dataset.root.parent for dataset in datasets if dataset.root.name.startswith("study-")]
    places += [linked for dataset in datasets for linked in _linked(dataset)]
    places += [dataset.root for dataset in datasets if not dataset.name]
    return next((place / name for place in places if (place / name).is_file()), None)


def _linked(dataset: Dataset) -> list[Path]:
    """Return the folders on this machine that a dataset's DatasetLinks point to."""
    links = dataset.description.get("DatasetLinks")
    texts = [text for text in links.values() if isinstance(text, str)] if isinstance(links, Mapping) else []
    return [_absolute(dataset.root / unquote(text.removeprefix("file://"))) for text in texts if "://" not in text[4:]]


def _find_default(bids_dir: Path, output_dir: Path, *, skip_validation: bool) -> list[Dataset]:
    """Find the datasets when none were named."""
    studies = find_studies(bids_dir)
    required = not skip_validation and not studies
    description = read_description(bids_dir, required=required)
    if studies:
        loose = [path for path in bids_dir.glob("study-*") if path.is_dir() and path not in studies]
        own = [_open(bids_dir, description)] if loose else []
        return own + [_open(path, read_description(path, required=not skip_validation)) for path in studies]
    kind = description.get("DatasetType")
    if kind in ("derivative", "study"):
        return [_open(bids_dir, description)]
    found = _find_derivatives(bids_dir / "derivatives", output_dir, skip_validation=skip_validation)
    if found:
        return found
    if has_maps(bids_dir, "sub-*/**/*") or not description:
        if description:
            _log.warning(
                '%s: taken for a derivative dataset, as maps lie in it; write "DatasetType": "derivative".',
                bids_dir / DESCRIPTION,
            )
        return [_open(bids_dir, description)]
    raise DatasetError(
        f"{bids_dir} is a raw dataset (its DatasetType is not derivative) and its derivatives folder holds "
        "no dataset: name those that hold the maps with --derivatives PATH."
    )


def _find_derivatives(folder: Path, output_dir: Path, *, skip_validation: bool) -> list[Dataset]:
    """Find the datasets in a ``derivatives`` folder; those without a description are skipped."""
    found: list[Dataset] = []
    bare: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.is_dir() or _same(path, output_dir):
            continue
        if skip_validation or (path / DESCRIPTION).is_file():
            found.append(_open(path, read_description(path, required=not skip_validation)))
        else:
            bare.append(path)
    if bare and not found:
        read_description(bare[0])  # raises an error that says what is missing
    for path in bare:
        _log.info("%s has no %s and is not searched.", path, DESCRIPTION)
    return found


def _open_named(name: str, path: Path, *, skip_validation: bool) -> list[Dataset]:
    """Open a dataset that was named, or the studies of a folder of studies."""
    _require_folder(path, "The dataset of --derivatives")
    studies = find_studies(path)
    if studies:
        return _find_default(path, path, skip_validation=skip_validation)
    dataset = _open(path, read_description(path, required=not skip_validation))
    return [replace(dataset, name=name)] if name else [dataset]


def _split_name(text: str) -> tuple[str, Path]:
    """Split ``[NAME=]PATH``; a path that exists may contain ``=`` itself."""
    name, equals, path = text.partition("=")
    if equals and re.fullmatch(r"[a-zA-Z0-9_.-]+", name) and not Path(text).exists():
        return name, _absolute(Path(path))
    return "", _absolute(Path(text))


def _open(root: Path, description: dict[str, Any]) -> Dataset:
    """Make the record, named like the folder."""
    return Dataset(re.sub(r"[^a-zA-Z0-9_.-]+", "-", root.name) or "input", root, description)


def _unique_names(datasets: Sequence[Dataset], output_dir: Path, stated: Collection[str] = ()) -> tuple[Dataset, ...]:
    """Number names that occur twice, or that OUTPUT_DIR has for another dataset; the same dataset is kept once.

    Names that the command line states are kept.
    """
    links = read_description(output_dir, required=False).get("DatasetLinks")
    links = links if isinstance(links, dict) else {}
    kept: dict[Path, Dataset] = {}
    names: set[str] = set()
    for dataset in datasets:
        if dataset.root in kept:
            continue
        name, count = dataset.name, 1
        while name in names or (dataset.name not in stated and _is_taken(links.get(name), output_dir, dataset)):
            count += 1
            name = f"{dataset.name}-{count}"
        names.add(name)
        kept[dataset.root] = replace(dataset, name=name)
    return tuple(kept.values())


def _is_taken(link: Any, output_dir: Path, dataset: Dataset) -> bool:
    """Return whether OUTPUT_DIR's link of a name leads to another dataset."""
    if not isinstance(link, str):
        return False
    earlier = Path(os.path.realpath(output_dir)) / unquote(link)
    return not _same(earlier, dataset.root) and is_another(earlier, dataset)


def is_another(earlier: Path, dataset: Dataset) -> bool:
    """Return whether a link points to another dataset than this one; one that was moved or copied is the same."""
    return earlier.is_dir() and read_description(earlier, required=False) != dict(dataset.description)


def _require_folder(path: Path, what: str) -> None:
    """Refuse a folder that is missing or cannot be entered."""
    if not path.is_dir():
        raise InputError(f"{what} {path} {'is not a folder' if path.exists() else 'does not exist'}.")
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror}.") from error


def _absolute(path: Path) -> Path:
    """Make a path absolute without following symbolic links."""
    return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps "..", resolve follows links


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths are the same folder, links followed."""
    return os.path.realpath(one) == os.path.realpath(other)
