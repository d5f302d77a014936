"""The faster path of resampling for mixed models: matrix products at fixed values of tau2, and exact fits of peaks.

Maps of z are computed by `stats/relabelled.py`. Where a map may have its largest
height, and where single precision is not enough, the model itself is fitted:
largest heights are exactly those of the general path. Extents, masses and TFCE
are computed in the same way from observed and relabelled maps.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.system.threads import in_threads
from ibma_app.stats.relabelled import NEAR, SCALINGS, Plan, Scan, make_tables, scan_designs, scan_means
from ibma_app.stats.tau2_nodes import METHODS, REML, Maps, count_nodes, log_reach
from ibma_app.stats.tau2_nuisance import survey_design
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.refit import Refitter, Tile, score_maps, take_voxels
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Singles = NDArray[np.float32]

MAPS = 64  # relabellings in a job whose whole maps are held, in single precision
PEAKS = 128  # relabellings in a job where each tile gives its candidates alone
SHARE = 0.99  # of the voxels whose nodes are no further apart than `STEPS`
STEPS = {"likelihood": (0.5, 0.8), "other": (0.8, 1.0)}
"""Between nodes, in the log of tau2 plus the smallest variance: where maps are scored, and where only peaks are."""


class Candidates(NamedTuple):
    """C voxels, of all tiles and relabellings, that may be the highest of one, or whose z is not known."""

    rows: Integers  # (C,) of the M relabellings
    heights: Singles  # (C,) NaN where not known
    voxels: Integers  # (C,) of the N
    block: VoxelBlock  # of C voxels, as they are
    crowded: NDArray[np.bool_]  # (M,) whether there are more


def takes_scan(model: Model, scheme: Scheme) -> bool:
    """Return whether relabellings can be scanned: for a t test beside an intercept in a mixed model of `METHODS`."""
    known, defaults = {"test", "tau2_ci"}, model.estimator.defaults(model.design)
    usual = all(name in known or defaults[name] == choice for name, choice in model.settings.items())
    usual = usual and model.design.dependence is None
    centred = scheme.design.one_sample or not scheme.through_origin
    return model.estimator.tau2_method is not None and usual and centred and scheme.rows == 0


class FastMixed:
    """A `Resampler` of a mixed model's t test, by products at fixed values of tau2.

    Parameters
    ----------
    model : Model
        One for which `takes_scan` is true.
    refitter : Refitter
        For that model, at N voxels.
    scoring : Scoring
        For maps of these voxels.
    """

    def __init__(self, model: Model, refitter: Refitter, scoring: Scoring) -> None:
        self._refitter, self._scoring = refitter, scoring
        self.names = scoring.names
        self._places = refitter.places()
        scheme = refitter.scheme
        self._nuisance = None if scheme.design.one_sample else np.ascontiguousarray(scheme.partition.nuisance.T)
        method = METHODS[model.estimator.tau2_method or ""]
        test = {**model.estimator.defaults(model.design), **model.settings}["test"]
        sides = {"two-sided": 2, "positive": 1, "negative": -1}[scheme.tail]
        reach, dofs = self._survey(method)
        nodes = count_nodes(reach, STEPS["likelihood" if method <= REML else "other"][scoring.peaks_only])
        self._plan = Plan(method, SCALINGS[test], nodes, sides, scoring.peaks_only, make_tables(dofs))

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
        """Yield the data that are scored, and how."""
        yield from self._refitter.data()
        yield np.array([self._plan.nodes, self.size])

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: heights exactly, other scores computed like those of relabelled maps."""
        scoring, z = self._scoring, self._refitter.z
        each, largest = scoring.each(z), scoring.largest(z)
        if scoring.peaks_only:
            return each, largest
        z = self._maps(range(1))[0][0].astype(np.float64)
        scanned = scoring.largest(z)
        for i, (name, scores) in enumerate(scoring.each(z).items()):
            if name not in scoring.heights:
                each[name], largest[i] = scores, scanned[i]
        return each, largest

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        if self._scoring.peaks_only:
            heights = [self._scoring.peak(z) for _, z in self._fit_peaks(job, self._scan(job))]
            return np.tile(heights, (len(self.names), 1))
        maps, peaks = self._maps(job)
        found = score_maps(self._scoring, maps, self._refitter.threads)
        found[[name in self._scoring.heights for name in self.names]] = peaks
        return found

    def _maps(self, job: range) -> tuple[Singles, Floats]:
        """Return whole maps of z, (M, N), exact at their peaks, and the largest heights, (M,)."""
        maps, peaks = np.zeros((len(job), self._refitter.n_live), dtype=np.float32), np.zeros(len(job))
        for row, (voxels, z) in enumerate(self._fit_peaks(job, self._scan(job, maps))):
            maps[row, voxels], peaks[row] = z, self._scoring.peak(z)
        return maps, peaks

    def _scan(self, job: range, maps: Singles | None = None) -> Candidates:
        """Scan all tiles and return the candidates; whole maps go to ``maps`` (M, N)."""
        x = self._refitter.scheme.regressors(slice(job.start, job.stop))
        parts: dict[Tile, Candidates] = {}

        def work(tile: Tile) -> Candidates:
            block = self._live_block(tile)
            if self._nuisance is None:
                scan = scan_means(self._plan, _maps_of(block), x)
            else:
                scan = scan_designs(self._plan, _maps_of(block), x / np.linalg.norm(x[0]), self._nuisance)
            if maps is not None:
                maps[:, self._places[tile]] = scan.z
            return _list_candidates(scan, block, self._places[tile].start)

        in_threads(work, self._refitter.tiles, self._refitter.threads, parts.__setitem__)
        return _join([parts[tile] for tile in self._refitter.tiles])

    def _fit_peaks(self, job: range, candidates: Candidates) -> Iterator[tuple[Integers, Floats]]:
        """Fit the model where each relabelling may be highest; yield the indices of these voxels, and z there.

        These are all voxels where there are too many candidates, or where the fit is lower than the scan.
        """
        rows, heights = candidates.rows, candidates.heights
        promised = np.full(len(job), -np.inf)
        known = ~np.isnan(heights)
        np.maximum.at(promised, rows[known], heights[known])
        least = promised - NEAR * np.abs(promised)
        kept = np.flatnonzero(~(heights < least[rows]) & ~candidates.crowded[rows])
        kept = kept[np.argsort(rows[kept], kind="stable")]
        z = self._refitter.fit_each(take_voxels(candidates.block, kept), np.asarray(job)[rows[kept]])
        starts = np.searchsorted(rows[kept], np.arange(len(job) + 1))
        for row, index in enumerate(job):
            part = slice(starts[row], starts[row + 1])
            if candidates.crowded[row] or self._scoring.peak(z[part]) < least[row]:
                yield np.arange(self._refitter.n_live), self._refitter.fit_maps(range(index, index + 1))[0]
            else:
                yield candidates.voxels[kept[part]], z[part]

    def _survey(self, method: int) -> tuple[float, Integers]:
        """Find how far the nodes must reach, and which dof there are."""
        reach = np.zeros(self._refitter.n_live)
        dof = np.zeros(self._refitter.n_live, dtype=np.int64)

        def work(tile: Tile) -> None:
            block = self._live_block(tile)
            there, maps = self._places[tile], _maps_of(block)
            if self._nuisance is None:
                reach[there], dof[there] = log_reach(maps, method), np.count_nonzero(block.covered, axis=0) - 1
            else:
                reach[there], dof[there] = survey_design(maps, self._nuisance, method)

        in_threads(work, self._refitter.tiles, self._refitter.threads)
        return float(np.quantile(reach, SHARE)) if reach.size else 0.0, np.unique(dof)

    def _live_block(self, tile: Tile) -> VoxelBlock:
        """Read a tile's live voxels."""
        live = self._refitter.live[slice(*tile)]
        block = self._refitter.block(tile)
        return block if live.all() else take_voxels(block, np.flatnonzero(live))


def _maps_of(block: VoxelBlock) -> Maps:
    """Convert a block for the scan; maps that do not cover a voxel get weight 0."""
    effect, variance = np.asarray(block.effect), np.asarray(block.variance)
    if block.covered.all():
        return Maps(effect, variance)
    return Maps(np.where(block.covered, effect, 0.0), np.where(block.covered, variance, np.inf))


def _list_candidates(scan: Scan, block: VoxelBlock, start: int) -> Candidates:
    """List the candidates of one tile, the first of whose voxels is the ``start``-th of all."""
    most = scan.voxels.shape[1]
    rows, order = np.nonzero(np.arange(most)[None] < scan.counts[:, None])
    voxels = scan.voxels[rows, order].astype(np.int64)
    return Candidates(rows, scan.heights[rows, order], start + voxels, take_voxels(block, voxels), scan.counts > most)


def _join(parts: list[Candidates]) -> Candidates:
    """Join the candidates of all tiles."""
    rows, heights, voxels = (np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[:3])
    data = (
        np.concatenate([np.asarray(getattr(part.block, kind)) for part in parts], axis=1)
        for kind in ("covered", "effect", "variance")
    )
    crowded = np.logical_or.reduce([part.crowded for part in parts])
    return Candidates(rows, heights, voxels, VoxelBlock(*data), crowded)
