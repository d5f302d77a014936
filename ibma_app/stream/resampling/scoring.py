"""Scores of maps of z, each sign by itself, with work arrays for each thread."""

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.methods import InferenceSettings, Score, Scorer
from ibma_app.stats.products import pick_high

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class _Workspace(NamedTuple):
    """The work arrays of one thread."""

    scorers: tuple[Scorer, ...]
    voxels: Integers  # (N,)
    heights: Floats  # (N,)


class Scoring:
    """The scores that are taken of each map of one test.

    Parameters
    ----------
    scores : mapping of str to Score
        By inference name.
    grid : Shape
        V voxels.
    tail : str
        The direction in which z counts; two-sided: both, each sign by itself.
    settings : InferenceSettings
    live : ndarray of int, shape (N,)
        The voxels of the mask where the test can be estimated. Maps have these voxels alone.
    """

    def __init__(
        self, scores: Mapping[str, Score], grid: Shape, tail: str, settings: InferenceSettings, live: Integers
    ) -> None:
        self._arguments = scores, grid, tail, settings, live
        self.names = tuple(scores)
        self._open = lambda: tuple(score(grid, tail, settings) for score in scores.values())
        self._live, self._n_voxels = live, grid.n_voxels
        self._signs = {"two-sided": (1.0, -1.0), "positive": (1.0,), "negative": (-1.0,)}[tail]
        self._local = threading.local()
        self.floors = tuple(scorer.floor for scorer in self._workspace().scorers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process all but the work arrays."""
        return Scoring, self._arguments

    @property
    def heights(self) -> tuple[str, ...]:
        """The scores that are the height itself."""
        return tuple(name for name, floor in zip(self.names, self.floors, strict=True) if np.isneginf(floor))

    @property
    def peaks_only(self) -> bool:
        """Whether every score is the height itself."""
        return self.heights == self.names

    @property
    def sparse(self) -> bool:
        """Whether no score looks at low voxels."""
        return all(floor > 0 or np.isneginf(floor) for floor in self.floors)

    @property
    def lowest_floor(self) -> float:
        """The smallest of the floors above 0; infinite when there is none."""
        return min((floor for floor in self.floors if floor > 0), default=np.inf)

    def peak(self, z: Floats) -> float:
        """Return the largest height of a map (N,); 0 of none."""
        if z.size == 0:
            return 0.0
        return float(max(z.max() if sign > 0 else -z.min() for sign in self._signs))

    def largest(self, z: Floats) -> Floats:
        """Return the largest of each score, (S,), of a map (N,)."""
        workspace = self._workspace()
        found = np.zeros(len(self.names))
        for i, scorer in enumerate(workspace.scorers):
            found[i] = self.peak(z) if np.isneginf(scorer.floor) else 0.0
        for sign in self._signs:
            picked = None
            for i, scorer in enumerate(workspace.scorers):
                if np.isneginf(scorer.floor):
                    continue
                if picked != scorer.floor:
                    count = pick_high(z, scorer.floor, sign, workspace.voxels, workspace.heights)
                    picked = scorer.floor
                found[i] = max(
                    found[i], scorer.largest(self._in_mask(workspace.voxels[:count]), workspace.heights[:count])
                )
        return found

    def largest_of_high(self, peak: float, voxels: Integers, z: Floats) -> Floats:
        """Return the largest of each score, (S,), from the largest height and the voxels above the lowest floor.

        Parameters
        ----------
        peak : float
        voxels : ndarray of int, shape (M,)
            Ascending, of the N.
        z : ndarray, shape (M,)
        """
        found = np.zeros(len(self.names))
        for i, scorer in enumerate(self._workspace().scorers):
            if np.isneginf(scorer.floor):
                found[i] = peak if np.isfinite(peak) else 0.0
                continue
            for sign in self._signs:
                high = sign * z > scorer.floor
                found[i] = max(found[i], scorer.largest(self._live[voxels[high]], sign * z[high]))
        return found

    def each(self, z: Floats) -> dict[str, Floats]:
        """Return each score at every voxel of the mask, (V,), for a map (N,); 0 where the test cannot be estimated."""
        workspace = self._workspace()
        maps = {}
        for name, scorer in zip(self.names, workspace.scorers, strict=True):
            scores = np.zeros(self._n_voxels)
            if np.isneginf(scorer.floor):
                scores[self._live] = np.abs(z) if len(self._signs) == 2 else self._signs[0] * z
            else:
                for sign in self._signs:
                    high = np.flatnonzero(sign * z > scorer.floor)
                    at = self._live[high]
                    scores[at] = scorer.each(at, sign * z[high])
            maps[name] = scores
        return maps

    def _in_mask(self, voxels: Integers) -> Integers:
        """Turn indices into the N voxels into indices into the mask."""
        return voxels if self._live.size == self._n_voxels else self._live[voxels]

    def _workspace(self) -> _Workspace:
        workspace: _Workspace | None = getattr(self._local, "workspace", None)
        if workspace is None:
            n = self._live.size
            workspace = self._local.workspace = _Workspace(self._open(), np.empty(n, dtype=np.int64), np.empty(n))
        return workspace
