"""The faster path where an estimator bounds its statistic under flips of signs: only what may be high is fitted.

The numbers are those of the general path: what is fitted is fitted as there, and what is not lies below every floor
and below the highest voxel.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.block import VoxelBlock
from ibma_app.core.system.threads import in_threads
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.refit import Refitter, Tile
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RELABELLINGS = 64  # in a job
AT_ONCE = 4096  # voxels, each in a relabelling of its own, fitted together
SURE = 1.0  # z above which bounds hold, and the z of an F is below that of infinite dof


class _High(NamedTuple):
    """C voxels of one tile that may be high, by relabelling and voxel."""

    rows: Integers  # (C,) of the M relabellings
    voxels: Integers  # (C,) of the N
    z: Floats  # (C,)


def takes_bounds(model: Model, scheme: Scheme, scoring: Scoring) -> bool:
    """Return whether the estimator bounds what these relabellings give, and no score looks at low voxels."""
    flipped = scheme.kind == "effect" and scheme.relabelling.flips
    return model.estimator.flip_bounds is not None and flipped and scoring.sparse


class FastBounded:
    """A `Resampler` of sign flips of residuals.

    Parameters
    ----------
    model : Model
        One for which `takes_bounds` is true.
    refitter : Refitter
        For that model, at N voxels.
    scoring : Scoring
        For maps of these voxels.
    """

    def __init__(self, model: Model, refitter: Refitter, scoring: Scoring) -> None:
        self._model, self._refitter, self._scoring = model, refitter, scoring
        self.names = scoring.names
        self._places = refitter.places()

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return RELABELLINGS

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""
        return self._refitter.nbytes

    def side_by_side(self, threads: int) -> int:
        """Return 1: a job takes all threads."""
        return min(threads, 1)

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""
        return self._refitter.data()

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: return each score's map (V,), and the largest of each (S,)."""
        return self._scoring.each(self._refitter.z), self._scoring.largest(self._refitter.z)

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        found: dict[Tile, _High] = {}
        in_threads(
            lambda tile: self._find_high(tile, job), self._refitter.tiles, self._refitter.threads, found.__setitem__
        )
        parts = [found[tile] for tile in self._refitter.tiles]
        rows, voxels = (np.concatenate([part[i] for part in parts]) for i in range(2))
        z = np.concatenate([part.z for part in parts])
        order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows[order], np.arange(len(job) + 1))
        scores = np.zeros((len(self.names), len(job)))
        for row in range(len(job)):
            there = order[ends[row] : ends[row + 1]]
            scores[:, row] = self._scoring.largest_of_high(self._scoring.peak(z[there]), voxels[there], z[there])
        return scores

    def _find_high(self, tile: Tile, job: range) -> _High:
        """Fit a tile's voxels that may be its highest in a relabelling, or above a floor."""
        live, indices = np.flatnonzero(self._refitter.live[slice(*tile)]), np.asarray(job)
        if not live.size:
            return _High(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
        block, scheme = _take(self._refitter.block(tile), live), self._refitter.scheme
        bound = self._model.estimator.flip_bounds
        assert bound is not None  # see takes_bounds
        signs = scheme.relabellings.signs[job.start : job.stop].astype(np.float64)
        heights = _in_tail(bound(block, scheme.design, self._model.settings, signs), scheme)
        tops = self._fit(block, heights.argmax(axis=1), indices)
        peaks = {"two-sided": np.abs(tops), "negative": -tops}.get(scheme.tail, tops)
        least = _least_statistic(np.minimum(peaks, self._scoring.lowest_floor), scheme.rows)
        rows, voxels = np.nonzero(heights >= least[:, None])
        return _High(rows, voxels + self._places[tile].start, self._fit(block, voxels, indices[rows]))

    def _fit(self, block: VoxelBlock, voxels: Integers, indices: Integers) -> Floats:
        """Return z of some voxels, each in a relabelling of its own."""
        scheme, z = self._refitter.scheme, np.zeros(voxels.size)
        model = replace(self._model, design=scheme.design)
        for first in range(0, voxels.size, AT_ONCE):
            part = slice(first, first + AT_ONCE)
            flipped = scheme.flip_each(_take(block, voxels[part]), indices[part])
            z[part] = model.fit(flipped).tests[scheme.test.name].z
        return z


def _take(block: VoxelBlock, voxels: Integers) -> VoxelBlock:
    """Return a block of some voxels."""
    return VoxelBlock(covered=block.covered[:, voxels], effect=np.asarray(block.effect)[:, voxels])


def _in_tail(bounds: NDArray[np.float32], scheme: Scheme) -> NDArray[np.float32]:
    """Turn bounds of F (of t squared, with the sign of t) into the direction that counts; infinite stays infinite."""
    turned = {"two-sided": np.abs(bounds), "negative": -bounds}.get(scheme.tail, bounds)
    return np.where(np.isfinite(bounds), turned, np.inf)


def _least_statistic(z: Floats, rows: int) -> Floats:
    """Return the least F (``rows`` 0: t squared) that a z asks for, whatever its dof; -inf where none is known."""
    least = z * z if rows == 0 else special.chdtri(rows, special.ndtr(-z)) / rows
    return np.where(z > SURE, least, -np.inf)
