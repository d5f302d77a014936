"""Reads what lies beside maps: JSON sidecars, with BIDS inheritance, and design matrices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ibma_app.core.from_files import read_json, read_text
from ibma_app.dataset.entities import INDICES, split_name

DESIGNS = "_design.tsv"  # of the names of design matrices (nilearn, FitLins)
LARGEST_DESIGN = 50_000_000  # bytes: a longer table is none of scans

_Pairs = tuple[tuple[str, str], ...]


class _Folder(NamedTuple):
    """The JSON files of one folder, by suffix and entities, and the sets of keys that occur."""

    files: Mapping[tuple[str, _Pairs], list[Path]]
    keys: Mapping[str, list[tuple[str, ...]]]  # by suffix, smaller sets first


class _Design(NamedTuple):
    path: Path
    entities: Mapping[str, str]


class SidecarReader:
    """Reads the sidecars of a dataset's maps; folders and files are read once.

    Parameters
    ----------
    root : Path
        The dataset: sidecars above it do not apply.

    Notes
    -----
    A sidecar applies to a map when its suffix is the map's, its entities are a
    subset of the map's, and it is in the map's folder or above; a more specific
    one takes precedence. nilearn's ``contrast-x_statmap.json`` therefore applies
    to every ``stat-``. Searching by sets of keys, not file by file, keeps this
    linear in the number of maps even where all are in one folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, _Folder] = {}
        self._chains: dict[Path, list[_Folder]] = {}
        self._contents: dict[Path, dict[str, Any] | str] = {}

    def read(self, path: Path) -> tuple[dict[str, Any], str | None]:
        """Return a map's merged metadata, and why a sidecar is not used (file and reason; None: all are)."""
        parts = split_name(path.name)
        metadata: dict[str, Any] = {}
        errors: list[str] = []
        for sidecar in self.find(path, parts.entities, parts.suffix):
            content = self._load(sidecar)
            if isinstance(content, str):
                errors.append(content)
            else:
                metadata.update(content)
        return metadata, "; ".join(errors) or None

    def where(self, path: Path, key: str) -> Path:
        """Return the sidecar that states a key of a map's metadata; the map itself where none does."""
        parts = split_name(path.name)
        contents = {one: self._load(one) for one in self.find(path, parts.entities, parts.suffix)}
        return next((one for one in reversed(contents) if key in contents[one]), path)

    def find(self, path: Path, entities: Mapping[str, str], suffix: str) -> list[Path]:
        """List the sidecars that apply to a map, the most specific last."""
        found: list[Path] = []
        for folder in self._above(path.parent):
            for keys in folder.keys.get(suffix, ()):
                if all(key in entities for key in keys):
                    pairs = tuple((key, entities[key]) for key in keys)
                    found += folder.files.get((suffix, pairs), [])
        return found

    def _above(self, directory: Path) -> list[_Folder]:
        """List the folders from the dataset's root down to one, each once."""
        if directory not in self._chains:
            above = [self.root]
            for name in directory.relative_to(self.root).parts:
                above.append(above[-1] / name)
            self._chains[directory] = [self._list(one) for one in above]
        return self._chains[directory]

    def _list(self, directory: Path) -> _Folder:
        """List the JSON files of a folder."""
        if directory in self._folders:
            return self._folders[directory]
        files: dict[tuple[str, _Pairs], list[Path]] = {}
        keys: dict[str, set[tuple[str, ...]]] = {}
        try:
            listing = sorted(path for path in directory.iterdir() if path.suffix == ".json")
        except OSError:
            listing = []
        for path in listing:
            parts = split_name(path.name)
            pairs = tuple(sorted(parts.entities.items()))
            files.setdefault((parts.suffix, pairs), []).append(path)
            keys.setdefault(parts.suffix, set()).add(tuple(key for key, _ in pairs))
        ordered = {suffix: sorted(sets, key=lambda one: (len(one), one)) for suffix, sets in keys.items()}
        self._folders[directory] = _Folder(files, ordered)
        return self._folders[directory]

    def _load(self, path: Path) -> dict[str, Any] | str:
        """Read a JSON object once; return the reason where it cannot be read."""
        if path not in self._contents:
            self._contents[path] = _load_object(path)
        return self._contents[path]


def _load_object(path: Path) -> dict[str, Any] | str:
    """Read a JSON object, or return why it cannot be read."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return f"{path}: its content is not here (get it with datalad get or git annex get)"
    except OSError as error:
        return f"{path}: {error.strerror or 'unreadable'}"
    except ValueError as error:
        return f"{path}: not valid JSON ({error})"
    return content if isinstance(content, dict) else f"{path}: not a JSON object"


class DesignReader:
    """Finds the design matrices of maps; folders and files are read once.

    Notes
    -----
    A design is a map's when it is in the map's folder and all entities of its
    name are the map's; the one with most of them counts. A map without ``run``
    beside the designs of several runs is nilearn's sum of their contrasts: its
    degrees of freedom are the sum of theirs.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[_Design, ...]] = {}
        self._dof: dict[Path, int | None] = {}

    def dof(self, path: Path) -> float | None:
        """Return rows less rank of a map's design matrix (the sum of its runs); None where there is none."""
        own = _indexed(split_name(path.name).entities)
        fitting = [
            (len(one.entities), "run" in one.entities and "run" not in own, one.path)
            for one in self._list(path.parent)
            if all(own.get(key, label if key == "run" else None) == label for key, label in one.entities.items())
        ]
        exact = [(count, found) for count, summed, found in fitting if not summed]
        if exact:
            return self._read(max(exact)[1])
        most = max((count for count, _, _ in fitting), default=0)
        parts = [self._read(found) for count, _, found in fitting if count == most]
        known = [part for part in parts if part is not None]
        return sum(known) if known and len(known) == len(parts) else None

    def _list(self, folder: Path) -> tuple[_Design, ...]:
        if folder not in self._folders:
            try:
                paths = sorted(path for path in folder.iterdir() if f"_{path.name}".endswith(DESIGNS))
            except OSError:
                paths = []
            self._folders[folder] = tuple(_Design(path, _indexed(split_name(path.name).entities)) for path in paths)
        return self._folders[folder]

    def _read(self, path: Path) -> int | None:
        if path not in self._dof:
            self._dof[path] = _rows_less_rank(path)
        return self._dof[path]


def _indexed(entities: Mapping[str, str]) -> dict[str, str]:
    """Return entities with their indices as numbers: run-01 is run-1."""
    return {
        key: label.lstrip("0") or "0" if key in INDICES and label.isdigit() else label
        for key, label in entities.items()
    }


def _rows_less_rank(path: Path) -> int | None:
    """Return what a design matrix leaves; None where the table is no matrix of numbers."""
    try:
        rows = read_text(path, LARGEST_DESIGN).split("\n")[1:]
        matrix = np.array([row.split("\t") for row in rows if row.strip()], dtype=np.float64, ndmin=2)
    except (OSError, ValueError):
        return None
    if not matrix.size or not np.isfinite(matrix).all():
        return None
    largest = np.abs(matrix).max(axis=0)
    left = matrix.shape[0] - int(np.linalg.matrix_rank(matrix / np.where(largest > 0, largest, 1.0)))
    return left if left > 0 else None
