"""Resampling: the largest score of a test's map in each relabelling of the maps, for any estimator."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.estimate import Null
from ibma_app.core.grid import Grid
from ibma_app.core.methods import Estimator, InferenceSettings, Score
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.resampling.checkpoints import Checkpoints, digest
from ibma_app.stream.resampling.fast_ols import FastLeastSquares, gather_units
from ibma_app.stream.resampling.one_pass import Resampler, score_all
from ibma_app.stream.resampling.relabelling import Scheme, count_ties, plan_scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.threads import Workers, in_threads

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAPS = 16  # relabellings whose whole maps are held at a time
PEAKS = 64  # relabellings of which a tile gives the maxima before the next tile


def score_resamples(
    stack: Stack,
    estimator: Estimator,
    design: Design,
    test: Test,
    scores: Mapping[str, Score],
    *,
    estimator_settings: Mapping[str, str],
    settings: InferenceSettings,
    permutations: int = 5000,
    seed: int = 0,
    threads: int = 1,
    on_progress: Callable[[int], None] | None = None,
    workers: Workers | None = None,
    checkpoints: Checkpoints | None = None,
) -> Null:
    """Relabel the maps of one test and keep the largest of each score, all scores in one pass.

    The estimator is fitted anew in every relabelling (tau2 included). Least
    squares with complete coverage takes a faster path to the same numbers.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    estimator : Estimator
    design : Design
        One row per row of the stack.
    test : Test
        One of the design's; its tail decides (F tests: upper tail).
    scores : mapping of str to Score
        By inference name; at least one.
    estimator_settings : mapping of str to str
        Passed to the estimator's ``fit``.
    settings : InferenceSettings
        Passed to the scores.
    permutations : int
        R: all distinct relabellings when there are no more, else R random
        ones, the identity among them.
    seed : int
        Of the random ones; the same numbers whoever computes them.
    threads : int
    on_progress : callable, optional
        Called with how many relabellings were done; `count_relabellings` tells of how many.
    workers : Workers, optional
        Are sent the maps, and score relabellings in the threads' place.
    checkpoints : Checkpoints, optional
        Keep the scores of a long pass, for a run that goes on from there.

    Returns
    -------
    Null

    Raises
    ------
    DataError
        Maps of unsigned p: relabelling them changes nothing.
    UsageError
        Fewer than 1 permutation, or a negative seed.
    """
    if not scores:
        raise ValueError("There is nothing to score.")
    _check(stack, permutations, seed)
    scheme = plan_scheme(design, test, estimator, permutations, seed)
    fit_settings = {**estimator_settings, **({"tau2_ci": "no"} if "tau2_ci" in estimator_settings else {})}
    resampler = _choose_resampler(stack, estimator, scheme, fit_settings, scores, settings, threads)
    maxima = np.full((len(resampler.names), scheme.relabellings.n_drawn), np.nan)
    if checkpoints is not None:
        key = _identify(resampler, stack.grid, estimator, scheme, fit_settings, settings)
        maxima = checkpoints.begin(key, maxima, f"Test {test.name}")
    told = on_progress or (lambda count: None)
    observed = score_all(resampler, maxima, told, threads=threads, workers=workers, checkpoints=checkpoints)
    return _to_null(scheme, observed, dict(zip(resampler.names, maxima, strict=True)), seed)


def _choose_resampler(
    stack: Stack,
    estimator: Estimator,
    scheme: Scheme,
    fit_settings: Mapping[str, str],
    scores: Mapping[str, Score],
    settings: InferenceSettings,
    threads: int,
) -> Resampler:
    def open_scoring(live: Integers) -> Scoring:
        return Scoring(scores, stack.grid, scheme.tail, settings, live)

    gathered = gather_units(stack, scheme)
    if gathered is not None:
        return FastLeastSquares(gathered, scheme, open_scoring(gathered.live))
    return _Refit(stack, estimator, scheme, fit_settings, open_scoring, threads)


def _identify(
    resampler: Resampler,
    grid: Grid,
    estimator: Estimator,
    scheme: Scheme,
    fit_settings: Mapping[str, str],
    settings: InferenceSettings,
) -> str:
    """Hash all that a pass's numbers come from."""
    partition, relabellings, design = scheme.partition, scheme.relabellings, scheme.design
    asked = (resampler.names, scheme.kind, scheme.tail, scheme.rows, estimator.name, sorted(fit_settings.items()))
    arrays = (partition.effective, partition.nuisance, relabellings.orders, relabellings.signs, design.matrix)
    given = (asked, settings.cluster_p, sorted(settings.options.items()), grid.mask, grid.affine)
    return digest(itertools.chain(given, arrays, resampler.data()))


def count_relabellings(design: Design, test: Test, estimator: Estimator, permutations: int, seed: int = 0) -> int:
    """Tell how many relabellings `score_resamples` will compute (mirror images are not)."""
    return plan_scheme(design, test, estimator, permutations, seed).relabellings.n_drawn


def _check(stack: Stack, permutations: int, seed: int) -> None:
    if permutations < 1:
        raise UsageError(f"--permutations is {permutations}; it must be 1 or more, such as 5000.")
    if not 0 <= seed < 2**64:
        raise UsageError(f"--seed is {seed}; it must be 0 or a positive integer.")
    if not all(stack.signed):
        raise DataError(
            "Resampling relabels the direction of the maps' effects, and maps of unsigned p values have none. "
            "Use --inference bonferroni or fdr with them."
        )


def _to_null(scheme: Scheme, observed: Mapping[str, Floats], maxima: Mapping[str, Floats], seed: int) -> Null:
    """Count each drawn relabelling for its mirror image too."""
    relabellings = scheme.relabellings
    times = 2 if relabellings.mirrored else 1
    return Null(
        maxima={name: np.tile(values, times) for name, values in maxima.items()},
        observed=observed,
        exhaustive=relabellings.exhaustive,
        scheme=scheme.words,
        seed=None if relabellings.exhaustive else seed,
        ties=count_ties(scheme),
    )


class _Refit:
    """Fits an estimator again in every relabelling, tile by tile; it can be sent to another process."""

    def __init__(
        self,
        stack: Stack,
        estimator: Estimator,
        scheme: Scheme,
        settings: Mapping[str, str],
        open_scoring: Callable[[Integers], Scoring],
        threads: int,
    ) -> None:
        self._stack, self._estimator, self._scheme = stack, estimator, scheme
        self._settings, self._threads = dict(settings), threads
        size = block_size(stack.n_maps)
        self._tiles = [(start, min(start + size, stack.n_voxels)) for start in range(0, stack.n_voxels, size)]
        self._live = np.ones(stack.n_voxels, dtype=np.bool_)
        z = self._fit_identity()
        live = np.flatnonzero(self._live)
        self._z = z[live]
        self._scoring = open_scoring(live)
        self.names = self._scoring.names

    def __getstate__(self) -> dict[str, Any]:
        """Send the maps themselves, and one thread's worth of work."""
        return {**self.__dict__, "_stack": self._stack.in_memory(), "_threads": 1, "_z": self._z[:0]}

    @property
    def size(self) -> int:
        """How many relabellings a job has."""
        return PEAKS if self._scoring.peaks_only else MAPS

    @property
    def nbytes(self) -> int:
        """What another process would be sent."""
        return self._stack.nbytes

    def side_by_side(self, threads: int) -> int:
        """Tell that one job is done at once: it takes all threads."""
        return min(threads, 1)

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""
        stack = self._stack
        for kind, index, scale, values in stack.contents():
            yield from (np.frombuffer(f"{kind} {index}".encode(), np.uint8), np.array(scale), values)
        yield from (array for array in (stack.dof, stack.sample_size) if array is not None)
        yield from (np.array(stack.signed), self._live)

    def _fit_identity(self) -> Floats:
        """Fit the maps as they are; return z (V,), and learn where the test can be estimated."""
        z = np.zeros(self._stack.n_voxels)

        def work(tile: tuple[int, int]) -> None:
            fitted = self._fit(self._block(tile), 0)
            z[slice(*tile)], self._live[slice(*tile)] = fitted

        in_threads(work, self._tiles, self._threads)
        return z

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are."""
        return self._scoring.each(self._z), self._scoring.largest(self._z)

    def score(self, job: range) -> Floats:
        """Return the largest scores of some relabellings, (S, M)."""
        return (self._peaks if self._scoring.peaks_only else self._maps)(self._scoring, job)

    def _peaks(self, scoring: Scoring, batch: range) -> Floats:
        """Return the largest heights of a batch, (S, M), without ever holding a whole map."""

        def work(tile: tuple[int, int]) -> Floats:
            heights = np.full(len(batch), -np.inf)
            for row, z in self._tile_maps(tile, batch):
                heights[row] = scoring.peak(z) if z.size else -np.inf
            return heights

        peaks = np.full(len(batch), -np.inf)
        in_threads(work, self._tiles, self._threads, lambda tile, heights: np.maximum(peaks, heights, out=peaks))
        return np.tile(np.where(np.isfinite(peaks), peaks, 0.0), (len(scoring.names), 1))

    def _maps(self, scoring: Scoring, batch: range) -> Floats:
        """Return the largest scores of a batch, (S, M)."""
        starts = np.r_[0, np.cumsum([np.count_nonzero(self._live[slice(*tile)]) for tile in self._tiles])]
        place = dict(zip(self._tiles, starts[:-1], strict=True))
        maps = np.zeros((len(batch), int(starts[-1])))

        def work(tile: tuple[int, int]) -> None:
            for row, z in self._tile_maps(tile, batch):
                maps[row, place[tile] : place[tile] + z.size] = z

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
        fitted = self._estimator.fit(relabelled, design, **self._settings).tests[self._scheme.test.name]
        return fitted.z, fitted.estimable
