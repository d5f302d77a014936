"""The faster path of sign flips of one sample, for estimators whose z rises with a sum over maps of changed signs."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.methods import SignedSums
from ibma_app.stats.signed_sums import (
    Beyond,
    Terms,
    largest_sums,
    list_beyond,
    make_bounds,
    new_beyond,
    scale_terms,
    sum_all,
)
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.resampling.fast_ols import keep_columns
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

READ_AT_ONCE = 1024  # voxels
SPARSE, DENSE = 64, 8  # relabellings in a job: where high voxels are scored, and where whole maps are
MOST = 16_384  # high voxels of a relabelling; one that has more is scored by its whole map
FLOOR = 3.0  # of z, where no score has one: the largest of a brain is rarely lower
HALVINGS = 16  # of the range of sums, for the least that reaches a floor


class GatheredSums(NamedTuple):
    """What is flipped, of the N voxels where the test can be estimated."""

    terms: Terms
    own: Floats  # (R, N) what z depends on beside the sum
    live: Integers  # (N,) indices into the mask
    like: SignedSums  # whose ``to_z`` it is


def gather_sums(stack: Stack, model: Model, scheme: Scheme) -> GatheredSums | None:
    """Read a stack as terms; None where the faster path cannot be taken.

    It is for t and z tests of one sample, by estimators whose record has
    ``signed_sums``.
    """
    make = model.estimator.signed_sums
    if make is None or not scheme.design.one_sample or scheme.rows or model.clusters is not None:
        return None
    values = np.empty((stack.n_maps, stack.n_voxels), dtype=np.float32)
    scale, live = np.ones(stack.n_voxels), np.zeros(stack.n_voxels, dtype=np.bool_)
    own: list[Floats] = []
    like: SignedSums | None = None
    size = min(READ_AT_ONCE, block_size(stack.n_maps))
    for start in range(0, stack.n_voxels, size):
        block, there = stack.read(start, start + size), slice(start, start + size)
        live[there] = model.fit(block).tests[scheme.test.name].estimable
        like = make(block, scheme.design, model.settings)
        values[:, there], scale[there] = scale_terms(like.terms)
        own.append(like.own)
    kept = np.flatnonzero(live)
    if like is None or kept.size == 0:
        return None
    if kept.size < live.size:
        values = keep_columns(values, kept)
    return GatheredSums(Terms(values, scale[kept]), np.concatenate(own, axis=1)[:, kept], kept, like.without_terms())


class FastFlips:
    """A `Resampler` of one sample's sign flips, as matrix products.

    Parameters
    ----------
    gathered : GatheredSums
    scheme : Scheme
        D flips.
    scoring : Scoring
        For maps of the N voxels.
    """

    def __init__(self, gathered: GatheredSums, scheme: Scheme, scoring: Scoring) -> None:
        self._gathered, self._scheme, self._scoring = gathered, scheme, scoring
        self.names = scoring.names
        self._floor = scoring.lowest_floor if np.isfinite(scoring.lowest_floor) else FLOOR
        self._bounds = make_bounds(self._find_least(), gathered.terms) if scoring.sparse else None
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process all but the work arrays of this one's threads."""
        return FastFlips, (self._gathered, self._scheme, self._scoring)

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return SPARSE if self._scoring.sparse else DENSE

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""
        return sum(array.nbytes for array in self.data())

    def side_by_side(self, threads: int) -> int:
        """Return how many jobs are done at once in so many threads."""
        return threads

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""
        yield from (*self._gathered.terms, self._gathered.own, self._gathered.live)

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: return each score's map (V,), and the largest of each (S,)."""
        z = self._map(0)
        return self._scoring.each(z), self._scoring.largest(z)

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        found = np.zeros((len(self.names), len(job)))
        if self._bounds is None:
            for row, index in enumerate(job):
                found[:, row] = self._scoring.largest(self._map(index))
            return found
        if not hasattr(self._local, "beyond"):
            self._local.beyond = new_beyond(SPARSE, min(MOST, self._bounds.size))
        beyond: Beyond = self._local.beyond
        # the products are compared in the upper tail alone: for the lower one all signs are turned
        side = -1.0 if self._scheme.tail == "negative" else 1.0
        signs = side * self._scheme.regressors(slice(job.start, job.stop))
        two_sided = self._scheme.tail == "two-sided"
        list_beyond(signs, self._gathered.terms, self._bounds, two_sided=two_sided, beyond=beyond)
        for row, index in enumerate(job):
            found[:, row] = self._score_high(beyond, row, side, index)
        return found

    def _score_high(self, beyond: Beyond, row: int, side: float, index: int) -> Floats:
        """Score one relabelling by its high voxels, or by its whole map where they are too many or too low."""
        count = int(beyond.counts[row])
        if count <= beyond.voxels.shape[1]:
            voxels = beyond.voxels[row, :count]
            z = self._to_z(side * beyond.sums[row, :count], voxels)
            heights = np.abs(z) if self._scheme.tail == "two-sided" else side * z
            high = heights > self._floor
            if high.any():
                return self._scoring.largest_of_high(float(heights.max()), voxels[high], z[high])
        return self._scoring.largest(self._map(index))

    def _map(self, index: int) -> Floats:
        """Return z of every voxel, (N,), in one relabelling."""
        signs = self._scheme.regressors(slice(index, index + 1))[0]
        return self._to_z(sum_all(signs, self._gathered.terms), slice(None))

    def _to_z(self, sums: Floats, voxels: Integers | slice) -> Floats:
        """Return z of sums at some voxels."""
        return self._gathered.like.to_z(sums, self._gathered.own[:, voxels], self._scheme.tail)

    def _find_least(self) -> Floats:
        """Return sums, (N,), below which no voxel reaches the floor, in the direction that counts; by bisection."""
        terms, side = self._gathered.terms, -1.0 if self._scheme.tail == "negative" else 1.0
        high = largest_sums(terms)
        low = np.zeros_like(high) if self._scheme.tail == "two-sided" else -high
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            reached = side * self._to_z(side * middle, slice(None)) >= self._floor
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        return low
