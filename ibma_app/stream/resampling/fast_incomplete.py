"""The faster path of least squares where not every map covers every voxel: relabelled designs as matrix products."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.system.threads import in_threads
from ibma_app.stats.normal_equations import Tables, make_tables, relabelled_z, take_data
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.refit import Refitter, Tile, score_maps
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAPS = 16  # relabellings in a job, whose whole maps are held
AT_ONCE = 8, 512  # relabellings and voxels of one product: what it makes stays in a core's cache
MOST_COLUMNS = 12  # of a design; with more, its normal equations cost more than fits


def takes_products(model: Model, scheme: Scheme) -> bool:
    """Return whether relabellings can be computed so: of least squares on independent maps, a design of few columns."""
    usual = model.estimator.relabels is not None and not model.estimator.models_clusters and model.clusters is None
    return usual and scheme.kind is not None and scheme.design.matrix.shape[1] <= MOST_COLUMNS


class FastIncomplete:
    """A `Resampler` of a least-squares test at voxels of any coverage.

    Parameters
    ----------
    refitter : Refitter
        For a model for which `takes_products` is true, at N voxels.
    scoring : Scoring
        For maps of these voxels.
    """

    def __init__(self, refitter: Refitter, scoring: Scoring) -> None:
        self._refitter, self._scoring = refitter, scoring
        self.names = scoring.names
        self._places = refitter.places()
        scheme = refitter.scheme
        partition = scheme.partition
        self._columns = np.ascontiguousarray(np.column_stack([partition.nuisance, partition.effective]).T)
        self._tables = self._make_tables()

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return MAPS

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
        (z,) = self._maps(range(1))
        return self._scoring.each(z), self._scoring.largest(z)

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        return score_maps(self._scoring, self._maps(job), self._refitter.threads)

    def _maps(self, job: range) -> Floats:
        """Return whole maps of z, (M, N)."""
        relabellings = self._refitter.scheme.relabellings
        rows = slice(job.start, job.stop)
        signs = relabellings.signs[rows].astype(np.float64)
        columns = np.ascontiguousarray(self._columns[:, relabellings.orders[rows]].swapaxes(0, 1) * signs[:, None])
        maps = np.zeros((len(job), self._refitter.n_live))

        def work(tile: Tile) -> None:
            live = np.flatnonzero(self._refitter.live[slice(*tile)])
            if live.size:
                self._fill(job, columns, self._refitter.block(tile), live, maps[:, self._places[tile]])

        in_threads(work, self._refitter.tiles, self._refitter.threads)
        return maps

    def _fill(self, job: range, columns: Floats, block: VoxelBlock, live: Integers, out: Floats) -> None:
        """Compute a tile's z; where rank may be lost the model is fitted."""
        scheme = self._refitter.scheme
        values = np.asarray(getattr(block, str(scheme.kind)))
        nuisance = scheme.partition.nuisance.shape[1]
        at_once, voxels = AT_ONCE
        for first in range(0, live.size, voxels):
            there = live[first : first + voxels]
            data = take_data(values[:, there], block.covered[:, there], columns.shape[1], self._tables)
            part = np.empty((len(job), there.size))
            for row in range(0, len(job), at_once):
                relabelled_z(columns[row : row + at_once], nuisance, data, self._tables, part[row : row + at_once])
            for row, index in enumerate(job):
                unsure = np.flatnonzero(np.isnan(part[row]))
                if unsure.size:
                    part[row, unsure] = self._refitter.fit(_take(block, there[unsure]), index)[0]
            out[:, first : first + there.size] = part

    def _make_tables(self) -> Tables:
        """Tabulate z for the degrees of freedom that there are."""
        refitter, rank = self._refitter, self._columns.shape[0]
        found: set[int] = {1}
        for tile in refitter.tiles:
            found.update(np.unique(refitter.block(tile).covered.sum(axis=0) - rank).tolist())
        return make_tables(np.array(sorted(dof for dof in found if dof > 0), dtype=np.float64), refitter.scheme.rows)


def _take(block: VoxelBlock, voxels: Integers) -> VoxelBlock:
    """Return a block of some voxels with the kinds that there are."""
    kinds = {kind: values[:, voxels] for kind in ("effect", "z") if (values := getattr(block, kind)) is not None}
    return VoxelBlock(covered=block.covered[:, voxels], **kinds)
