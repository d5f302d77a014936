"""The general path of resampling: a model is fitted again in every relabelling."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.system.threads import in_threads
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Tile = tuple[int, int]  # first voxel, and the one after the last

MAPS = 16  # relabellings in a job whose whole maps are held
PEAKS = 64  # relabellings in a job where each tile gives its maxima alone


class Refitter:
    """Fits a model in any relabelling, tile by tile; it can be sent to another process.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
    scheme : Scheme
        D relabellings.
    threads : int
        Tiles fitted at once in this process.

    Attributes
    ----------
    tiles : list of tuple
        First and last voxel of each tile.
    live : ndarray of bool, shape (V,)
        Where the test can be estimated: N voxels.
    z : ndarray, shape (N,)
        Of the maps as they are.
    """

    def __init__(self, stack: Stack, model: Model, scheme: Scheme, threads: int) -> None:
        self._stack, self._model = stack, model
        self.scheme, self.threads = scheme, threads
        size = block_size(stack.n_maps)
        self.tiles = [(start, min(start + size, stack.n_voxels)) for start in range(0, stack.n_voxels, size)]
        self.live = np.ones(stack.n_voxels, dtype=np.bool_)
        self.z = self._fit_identity()[self.live]

    def __getstate__(self) -> dict[str, Any]:
        """Send another process the maps themselves, and have it work in one thread."""
        return {**self.__dict__, "_stack": self._stack.in_memory(), "threads": 1, "z": self.z[:0]}

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""
        return self._stack.nbytes

    @property
    def n_live(self) -> int:
        """N."""
        return int(np.count_nonzero(self.live))

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are fitted."""
        stack = self._stack
        for kind, index, scale, values in stack.contents():
            yield from (np.frombuffer(f"{kind} {index}".encode(), np.uint8), np.array(scale), values)
        yield from (array for array in (stack.dof, stack.sample_size) if array is not None)
        yield from (np.array(stack.signed), self.live)

    def places(self) -> dict[Tile, slice]:
        """Tell where each tile's voxels are among the N."""
        ends = np.cumsum([np.count_nonzero(self.live[slice(*tile)]) for tile in self.tiles])
        return {tile: slice(start, end) for tile, start, end in zip(self.tiles, [0, *ends[:-1]], ends, strict=True)}

    def block(self, tile: Tile) -> VoxelBlock:
        """Read a tile."""
        return self.scheme.prepare(self._stack.read(*tile))

    def fit(self, block: VoxelBlock, index: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return z of a block's voxels in one relabelling, and where it can be estimated, both (B,)."""
        relabelled, design = self.scheme.relabel(block, index)
        fitted = replace(self._model, design=design).fit(relabelled).tests[self.scheme.test.name]
        return fitted.z, fitted.estimable

    def fit_each(self, block: VoxelBlock, indices: Integers) -> Floats:
        """Return z of a block's voxels, (B,), each in a relabelling of its own."""
        if self.scheme.design.one_sample:
            model = replace(self._model, design=self.scheme.design)
            return model.fit(self.scheme.flip_each(block, indices)).tests[self.scheme.test.name].z
        z = np.zeros(indices.size)
        for index in np.unique(indices):
            there = np.flatnonzero(indices == index)
            z[there] = self.fit(take_voxels(block, there), int(index))[0]
        return z

    def fit_tile(self, tile: Tile, batch: range) -> Iterator[tuple[int, Floats]]:
        """Yield z of one tile in each relabelling of a batch, where the test can be estimated in the first."""
        live = self.live[slice(*tile)]
        if not live.any():
            return
        block = self.block(tile)
        for row, index in enumerate(batch):
            yield row, self.fit(block, index)[0][live]

    def fit_maps(self, batch: range) -> Floats:
        """Return whole maps of z, (M, N), of a batch of relabellings."""
        places = self.places()
        maps = np.zeros((len(batch), self.n_live))

        def work(tile: Tile) -> None:
            for row, z in self.fit_tile(tile, batch):
                maps[row, places[tile]] = z

        in_threads(work, self.tiles, self.threads)
        return maps

    def _fit_identity(self) -> Floats:
        """Fit the maps as they are: return z (V,), and keep where the test can be estimated."""
        z = np.zeros(self._stack.n_voxels)

        def work(tile: Tile) -> None:
            z[slice(*tile)], self.live[slice(*tile)] = self.fit(self.block(tile), 0)

        in_threads(work, self.tiles, self.threads)
        return z


class Refit:
    """A `Resampler` of any model, which it fits again in every relabelling, tile by tile.

    Parameters
    ----------
    refitter : Refitter
    scoring : Scoring
        Of its N voxels.
    """

    def __init__(self, refitter: Refitter, scoring: Scoring) -> None:
        self._refitter, self._scoring = refitter, scoring
        self.names = scoring.names

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return PEAKS if self._scoring.peaks_only else MAPS

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
        if self._scoring.peaks_only:
            return self._peaks(job)
        return score_maps(self._scoring, self._refitter.fit_maps(job), self._refitter.threads)

    def _peaks(self, batch: range) -> Floats:
        """Return the largest heights in a batch, (S, M), without holding a whole map."""
        scoring, refitter = self._scoring, self._refitter

        def work(tile: Tile) -> Floats:
            heights = np.full(len(batch), -np.inf)
            for row, z in refitter.fit_tile(tile, batch):
                heights[row] = scoring.peak(z) if z.size else -np.inf
            return heights

        peaks = np.full(len(batch), -np.inf)
        in_threads(work, refitter.tiles, refitter.threads, lambda tile, heights: np.maximum(peaks, heights, out=peaks))
        return np.tile(np.where(np.isfinite(peaks), peaks, 0.0), (len(scoring.names), 1))


def score_maps(scoring: Scoring, maps: NDArray[Any], threads: int) -> Floats:
    """Return the largest of each score, (S, M), in whole maps of z, (M, N)."""
    found = np.zeros((len(scoring.names), len(maps)))

    def score(row: int) -> None:
        found[:, row] = scoring.largest(np.asarray(maps[row], dtype=np.float64))

    in_threads(score, range(len(maps)), threads)
    return found


def take_voxels(block: VoxelBlock, voxels: Integers) -> VoxelBlock:
    """Return a block of some voxels."""
    return VoxelBlock(*(np.asarray(values)[:, voxels] for values in (block.covered, block.effect, block.variance)))
