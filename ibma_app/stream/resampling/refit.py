"""The general path of resampling: a model is fitted again in every relabelling."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.threads import in_threads
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAPS = 16  # relabellings in a job whose whole maps are held
PEAKS = 64  # relabellings in a job where each tile gives its maxima alone


class Refit:
    """A `Resampler` of any model, which it fits again in every relabelling, tile by tile.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
    scheme : Scheme
        D relabellings to compute.
    open_scoring : callable
        Returns the scoring for some voxels of the mask, given their indices: those where the test can be estimated.
    threads : int
        Tiles fitted at once in this process.
    """

    def __init__(
        self, stack: Stack, model: Model, scheme: Scheme, open_scoring: Callable[[Integers], Scoring], threads: int
    ) -> None:
        self._stack, self._model, self._scheme, self._threads = stack, model, scheme, threads
        size = block_size(stack.n_maps)
        self._tiles = [(start, min(start + size, stack.n_voxels)) for start in range(0, stack.n_voxels, size)]
        self._live = np.ones(stack.n_voxels, dtype=np.bool_)
        z = self._fit_identity()
        live = np.flatnonzero(self._live)
        self._z = z[live]
        self._scoring = open_scoring(live)
        self.names = self._scoring.names

    def __getstate__(self) -> dict[str, Any]:
        """Send another process the maps themselves, and have it work in one thread."""
        return {**self.__dict__, "_stack": self._stack.in_memory(), "_threads": 1, "_z": self._z[:0]}

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return PEAKS if self._scoring.peaks_only else MAPS

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""
        return self._stack.nbytes

    def side_by_side(self, threads: int) -> int:
        """Return 1: a job takes all threads."""
        return min(threads, 1)

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""
        stack = self._stack
        for kind, index, scale, values in stack.contents():
            yield from (np.frombuffer(f"{kind} {index}".encode(), np.uint8), np.array(scale), values)
        yield from (array for array in (stack.dof, stack.sample_size) if array is not None)
        yield from (np.array(stack.signed), self._live)

    def _fit_identity(self) -> Floats:
        """Fit the maps as they are: return z (V,), and keep where the test can be estimated."""
        z = np.zeros(self._stack.n_voxels)

        def work(tile: tuple[int, int]) -> None:
            fitted = self._fit(self._block(tile), 0)
            z[slice(*tile)], self._live[slice(*tile)] = fitted

        in_threads(work, self._tiles, self._threads)
        return z

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: return each score's map (V,), and the largest of each (S,)."""
        return self._scoring.each(self._z), self._scoring.largest(self._z)

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        return (self._peaks if self._scoring.peaks_only else self._maps)(self._scoring, job)

    def _peaks(self, scoring: Scoring, batch: range) -> Floats:
        """Return the largest heights in a batch, (S, M), without holding a whole map."""

        def work(tile: tuple[int, int]) -> Floats:
            heights = np.full(len(batch), -np.inf)
            for row, z in self._tile_maps(tile, batch):
                heights[row] = scoring.peak(z) if z.size else -np.inf
            return heights

        peaks = np.full(len(batch), -np.inf)
        in_threads(work, self._tiles, self._threads, lambda tile, heights: np.maximum(peaks, heights, out=peaks))
        return np.tile(np.where(np.isfinite(peaks), peaks, 0.0), (len(scoring.names), 1))

    def _maps(self, scoring: Scoring, batch: range) -> Floats:
        """Return the largest of each score in a batch, (S, M)."""
        starts = np.r_[0, np.cumsum([np.count_nonzero(self._live[slice(*tile)]) for tile in self._tiles])]
        first = dict(zip(self._tiles, starts[:-1], strict=True))
        maps = np.zeros((len(batch), int(starts[-1])))

        def work(tile: tuple[int, int]) -> None:
            for row, z in self._tile_maps(tile, batch):
                maps[row, first[tile] : first[tile] + z.size] = z

        in_threads(work, self._tiles, self._threads)
        found = np.zeros((len(scoring.names), len(batch)))

        def score(row: int) -> None:
            found[:, row] = scoring.largest(maps[row])

        in_threads(score, range(len(batch)), self._threads)
        return found

    def _tile_maps(self, tile: tuple[int, int], batch: range) -> Iterator[tuple[int, Floats]]:
        """Yield z of one tile in each relabelling of a batch, where the test can be estimated."""
        live = self._live[slice(*tile)]
        if not live.any():
            return
        block = self._block(tile)
        for row, index in enumerate(batch):
            yield row, self._fit(block, index)[0][live]

    def _block(self, tile: tuple[int, int]) -> VoxelBlock:
        return self._scheme.prepare(self._stack.read(*tile))

    def _fit(self, block: VoxelBlock, index: int) -> tuple[Floats, NDArray[np.bool_]]:
        relabelled, design = self._scheme.relabel(block, index)
        fitted = replace(self._model, design=design).fit(relabelled).tests[self._scheme.test.name]
        return fitted.z, fitted.estimable
