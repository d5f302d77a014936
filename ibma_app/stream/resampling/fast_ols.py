"""The faster path of resampling: least squares with complete coverage, as matrix products."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.system.threads import in_threads
from ibma_app.stats.products import High, UnitResiduals, new_high, scale_to_unit, scan_products, z_maps
from ibma_app.stats.ztable import IDENTICAL, ZTable, make_ztable, share_of_z
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

READ_AT_ONCE = 1024  # voxels
SPARSE, DENSE = 64, 8  # relabellings in a job: where high voxels are scored, and where whole maps are
MOST = 16_384  # high voxels of a relabelling; one that has more is scored by its whole map


class ResampledData(NamedTuple):
    """The residuals that are relabelled, of the voxels where the test can be estimated."""

    residuals: UnitResiduals  # N voxels
    live: Integers  # (N,) their indices in the mask


def gather_residuals(stack: Stack, scheme: Scheme) -> ResampledData | None:
    """Read a stack's residuals under the null, scaled to norm 1.

    None where the faster path cannot be taken: it is for estimators whose
    residuals are relabelled, and maps that all cover every voxel. Voxels where
    all maps have the same value are left out: they have no test.
    """
    if scheme.kind is None:
        return None
    values = np.empty((stack.n_maps, stack.n_voxels), dtype=np.float32)
    norms = np.zeros(stack.n_voxels)
    sound = np.zeros(stack.n_voxels, dtype=np.bool_)
    effective, _ = np.linalg.qr(scheme.partition.effective)
    size = min(READ_AT_ONCE, block_size(stack.n_maps))
    for start in range(0, stack.n_voxels, size):
        block = stack.read(start, start + size)
        if not block.covered.all():
            return None
        there = slice(start, start + size)
        left = getattr(scheme.prepare(block), scheme.kind)
        whole = left - effective @ (effective.T @ left)
        sound[there] = (whole**2).sum(axis=0) > IDENTICAL * (getattr(block, scheme.kind) ** 2).sum(axis=0)
        part = scale_to_unit(left)
        values[:, there], norms[there] = part.values, part.norms
    live = np.flatnonzero(sound)
    if live.size < stack.n_voxels:
        values, norms = keep_columns(values, live), norms[live]
    return ResampledData(UnitResiduals(values, norms), live)


def keep_columns(values: NDArray[np.float32], kept: Integers) -> NDArray[np.float32]:
    """Move some columns of an array (K, V) together, within its own memory."""
    flat = values.reshape(-1)
    for row, whole in enumerate(values):  # no row moves up, so none is overwritten before it is read
        flat[row * kept.size : (row + 1) * kept.size] = whole[kept]
    return flat[: len(values) * kept.size].reshape(len(values), kept.size)


class FastLeastSquares:
    """A `Resampler` of least squares with complete coverage.

    Parameters
    ----------
    data : ResampledData
        N voxels.
    scheme : Scheme
        D relabellings to compute.
    scoring : Scoring
        For maps of these N voxels.
    """

    def __init__(self, data: ResampledData, scheme: Scheme, scoring: Scoring) -> None:
        self._data, self._residuals, self._scoring, self._scheme = data, data.residuals, scoring, scheme
        n_maps, p = scheme.design.matrix.shape
        self._table: ZTable = make_ztable(max(n_maps - p, 1), scheme.rows)
        self._two_sided = scheme.tail == "two-sided"
        self._sign = -1.0 if scheme.tail == "negative" else 1.0
        self.names = scoring.names
        self.sparse = scoring.sparse and scheme.rows == 0 and scheme.weights(slice(0, 1))[1].shape[1] == 0
        self._floor = scoring.lowest_floor
        self._floor_share = share_of_z(self._floor, self._table) if np.isfinite(self._floor) else np.inf
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process all but the work arrays of this one's threads."""
        return FastLeastSquares, (self._data, self._scheme, self._scoring)

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return SPARSE if self.sparse else DENSE

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""
        return self._residuals.values.nbytes + self._residuals.norms.nbytes

    def side_by_side(self, threads: int) -> int:
        """Return how many jobs are done at once in so many threads."""
        return threads

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""
        yield from (*self._residuals, self._data.live)

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: return each score's map (V,), and the largest of each (S,)."""
        found: list[tuple[dict[str, Floats], Floats]] = []

        def work(_: int) -> tuple[dict[str, Floats], Floats]:
            z = np.zeros((1, self._residuals.norms.size))
            self._fill(range(1), z)
            return self._scoring.each(z[0]), self._scoring.largest(z[0])

        # in a thread of its own where there are several: the work arrays are freed with it
        in_threads(work, range(1), threads, lambda _, scored: found.append(scored))
        return found[0]

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        return self._score_high(job) if self.sparse else self._score_maps(job)

    def _score_maps(self, job: range) -> Floats:
        """Score whole maps."""
        found = np.zeros((len(self._scoring.names), len(job)))
        if not hasattr(self._local, "z"):
            self._local.z = np.empty((DENSE, self._residuals.norms.size))
        z: Floats = self._local.z
        self._fill(job, z)
        for row in range(len(job)):
            found[:, row] = self._scoring.largest(z[row])
        return found

    def _score_high(self, job: range) -> Floats:
        """Score the voxels above the lowest floor, without making whole maps."""
        found = np.zeros((len(self._scoring.names), len(job)))
        if not hasattr(self._local, "high"):
            self._local.high = new_high(SPARSE, min(MOST, self._residuals.norms.size))
        high: High = self._local.high
        # the scan looks in the upper tail alone: for the lower one all signs are turned
        effective, _ = self._scheme.weights(slice(job.start, job.stop))
        weights = np.ascontiguousarray(self._sign * effective[:, 0])
        scan_products(
            weights, self._residuals, self._table, high, two_sided=self._two_sided,
            floor_share=self._floor_share, floor_z=self._floor,
        )  # fmt: skip
        for row, index in enumerate(job):
            if high.counts[row] > high.voxels.shape[1]:
                found[:, row] = self._score_maps(range(index, index + 1))[:, 0]
                continue
            beyond = slice(0, high.counts[row])
            z_high = self._sign * high.z[row, beyond]
            found[:, row] = self._scoring.largest_of_high(high.peak[row], high.voxels[row, beyond], z_high)
        return found

    def _fill(self, job: range, out: Floats) -> None:
        """Compute the z maps of M relabellings, (M, N)."""
        effective, nuisance = self._scheme.weights(slice(job.start, job.stop))
        weights = np.ascontiguousarray(np.concatenate([effective, nuisance], axis=1))
        z_maps(weights, effective.shape[1], self._residuals, self._table, out)
