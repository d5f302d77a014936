"""Degrees of freedom of the design matrices that lie beside maps (nilearn, FitLins)."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ibma_app.dataset.entities import INDICES, split_name

ENDING = "_design.tsv"
LARGEST = 50_000_000  # bytes; a longer table is no design of scans


class _Design(NamedTuple):
    path: Path
    entities: Mapping[str, str]


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
                paths = sorted(path for path in folder.iterdir() if f"_{path.name}".endswith(ENDING))
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
        if path.stat().st_size > LARGEST:
            return None
        rows = path.read_text(encoding="utf-8-sig").split("\n")[1:]
        matrix = np.array([row.split("\t") for row in rows if row.strip()], dtype=np.float64, ndmin=2)
    except (OSError, ValueError):
        return None
    if not matrix.size or not np.isfinite(matrix).all():
        return None
    largest = np.abs(matrix).max(axis=0)
    left = matrix.shape[0] - int(np.linalg.matrix_rank(matrix / np.where(largest > 0, largest, 1.0)))
    return left if left > 0 else None
