"""The faster path of resampling a cluster-robust test: whole clusters and complete coverage, as matrix products."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.system.threads import in_threads
from ibma_app.stats.basis import frame_design
from ibma_app.stats.robust_products import Forms, make_forms, robust_z, to_features
from ibma_app.stats.sandwich import complete_tests
from ibma_app.stats.ztable import ZTable, make_ztable
from ibma_app.stream.estimate import Model
from ibma_app.stream.memory_plan import block_size
from ibma_app.stream.resampling.fast_ols import keep_columns
from ibma_app.stream.resampling.relabelling import Scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

READ_AT_ONCE = 1024  # voxels
MOST_INCOMPLETE = 0.25  # of the voxels: with more, all are fitted again
BATCH = 8  # relabellings in a job, whose whole maps are held


class Incomplete(NamedTuple):
    """Voxels that some maps do not cover: the model is fitted to them again in every relabelling."""

    block: VoxelBlock  # of these voxels, without the nuisance
    at: Integers  # (N2,) which of the N they are
    model: Model
    scheme: Scheme


class GatheredClusters(NamedTuple):
    """What is resampled: N voxels of m clusters, of which N1 are covered by every map."""

    features: NDArray[np.float32]  # (m, F, N1)
    at: Integers  # (N1,) which of the N they are
    live: Integers  # (N,) indices into the voxels of the mask
    forms: Forms
    sources: Integers  # (D, m) the cluster that each place holds
    signs: Floats  # (D, m) by which it is multiplied there
    dof: float  # of t, or of the Wishart matrix below T², where every map covers
    rows: int  # Q of an F test; 0 of a t test
    incomplete: Incomplete | None = None


def gather_clusters(stack: Stack, model: Model, scheme: Scheme) -> GatheredClusters | None:
    """Read a stack as a few numbers for each cluster; None where the faster path cannot be taken.

    It is for cluster-robust errors, and for stacks most of whose voxels every
    map covers. Voxels where the test cannot be estimated are left out.
    """
    clusters = model.clusters
    if clusters is None or model.estimator.models_clusters:
        return None
    design, test = scheme.design, scheme.test
    complete, basis = complete_tests(frame_design(design.matrix, [(test.weights, test.is_f)]), clusters)
    if not complete.estimable[0]:
        return None
    places = _places_of(clusters, design.places)
    sources, signs = _by_cluster(scheme, clusters, places)
    groups = (places >= 0).sum(axis=1) if np.any(sources != sources[0]) else np.arange(len(places))
    forms, templates = make_forms(basis, complete, slice(0, len(complete.rows)), places, groups)
    features = np.empty((*forms.effect.shape[1:], stack.n_voxels), dtype=np.float32)
    live, whole = np.zeros(stack.n_voxels, dtype=np.bool_), np.zeros(stack.n_voxels, dtype=np.bool_)
    holes: list[VoxelBlock] = []
    size = min(READ_AT_ONCE, block_size(stack.n_maps))
    for start in range(0, stack.n_voxels, size):
        block, there = stack.read(start, start + size), slice(start, start + size)
        live[there] = model.fit(block).tests[test.name].estimable
        whole[there] = block.covered.all(axis=0)
        prepared = scheme.prepare(block)
        holes.append(_pick(prepared, live[there] & ~whole[there]))
        if sum(one.covered.shape[1] for one in holes) > MOST_INCOMPLETE * stack.n_voxels:
            return None
        left = to_features(getattr(prepared, str(scheme.kind)), templates)
        norm = np.sqrt((left**2).sum(axis=(0, 1)))
        features[:, :, there] = left / np.where(norm > 0.0, norm, 1.0)
    kept, used = np.flatnonzero(live), np.flatnonzero(live & whole)
    if used.size < live.size:
        shape = features.shape[:2]
        features = keep_columns(features.reshape(-1, live.size), used).reshape(*shape, used.size)
    incomplete = None
    if used.size < kept.size:
        at = np.flatnonzero(~whole[kept])
        incomplete = Incomplete(_join(holes), at, replace(model, design=design), scheme)
    rows = len(complete.rows) if test.is_f else 0
    dof = float(complete.dof[0]) + max(rows - 1, 0)
    at = np.flatnonzero(whole[kept])
    return GatheredClusters(features, at, kept, forms, sources, signs, dof, rows, incomplete)


def _pick(block: VoxelBlock, columns: NDArray[np.bool_]) -> VoxelBlock:
    """Take some voxels of a block with effects."""
    effect = None if block.effect is None else block.effect[:, columns]
    return VoxelBlock(covered=block.covered[:, columns], effect=effect)


def _join(blocks: list[VoxelBlock]) -> VoxelBlock:
    """Put blocks of effects side by side."""
    effects = [block.effect for block in blocks if block.effect is not None]
    covered = np.concatenate([block.covered for block in blocks], axis=1)
    return VoxelBlock(covered=covered, effect=np.concatenate(effects, axis=1))


def _places_of(clusters: Integers, places: Integers | None) -> Integers:
    """List the maps of each cluster in the order of their conditions, (m, L); -1 where it has fewer."""
    order = np.lexsort((np.zeros(clusters.size) if places is None else places, clusters))
    counts = np.bincount(clusters)
    listed = np.full((counts.size, counts.max()), -1, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    for one, (start, count) in enumerate(zip(starts, counts, strict=True)):
        listed[one, :count] = order[start : start + count]
    return listed


def _by_cluster(scheme: Scheme, clusters: Integers, places: Integers) -> tuple[Integers, Floats]:
    """Return which cluster each place holds in each relabelling, and with which sign, both (D, m)."""
    first = places[:, 0]
    targets = clusters[scheme.relabellings.orders[:, first]]  # (D, m) the place of each cluster
    sources = np.argsort(targets, axis=1)
    signs = np.take_along_axis(scheme.relabellings.signs[:, first], sources, axis=1)
    return sources, signs.astype(np.float64)


class FastSandwich:
    """A `Resampler` of cluster-robust tests with complete coverage.

    Parameters
    ----------
    gathered : GatheredClusters
    scoring : Scoring
        For maps of these N voxels.
    """

    def __init__(self, gathered: GatheredClusters, scoring: Scoring) -> None:
        self._gathered, self._scoring = gathered, scoring
        self._table: ZTable = make_ztable(gathered.dof - max(gathered.rows - 1, 0), gathered.rows)
        self.names = scoring.names
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process all but the work arrays of this one's threads."""
        return FastSandwich, (self._gathered, self._scoring)

    @property
    def size(self) -> int:
        """Number of relabellings in a job."""
        return BATCH

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""
        rest = self._gathered.incomplete
        return self._gathered.features.nbytes + (0 if rest is None else 9 * rest.block.covered.size)

    def side_by_side(self, threads: int) -> int:
        """Return how many jobs are done at once in so many threads."""
        return threads

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""
        gathered, rest = self._gathered, self._gathered.incomplete
        yield from (gathered.features, gathered.live, *gathered.forms)
        if rest is not None and rest.block.effect is not None:
            yield from (rest.block.covered, rest.block.effect)

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: return each score's map (V,), and the largest of each (S,)."""
        found: list[tuple[dict[str, Floats], Floats]] = []

        def work(_: int) -> tuple[dict[str, Floats], Floats]:
            z = self._maps(range(1))[0]
            return self._scoring.each(z), self._scoring.largest(z)

        # in a thread of its own where there are several: the work arrays are freed with it
        in_threads(work, range(1), threads, lambda _, scored: found.append(scored))
        return found[0]

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""
        return np.stack([self._scoring.largest(z) for z in self._maps(job)], axis=1)

    def _maps(self, job: range) -> Floats:
        """Compute z maps, (M, N)."""
        gathered, there = self._gathered, slice(job.start, job.stop)
        if not hasattr(self._local, "z"):
            self._local.whole = np.empty((BATCH, gathered.at.size))
            self._local.z = np.empty((BATCH, gathered.live.size)) if gathered.incomplete else self._local.whole
        whole: Floats = self._local.whole[: len(job)]
        z: Floats = self._local.z[: len(job)]
        sources, signs = gathered.sources[there], gathered.signs[there]
        robust_z(gathered.forms, gathered.features, sources, signs, gathered.dof, self._table, whole)
        if gathered.incomplete is not None:
            z[:, gathered.at] = whole
            for row, index in enumerate(job):
                z[row, gathered.incomplete.at] = _refit(gathered.incomplete, index)
        return z


def _refit(rest: Incomplete, index: int) -> Floats:
    """Fit the model to the voxels that some maps do not cover, in one relabelling: z, (N2,)."""
    relabelled, design = rest.scheme.relabel(rest.block, index)
    return replace(rest.model, design=design).fit(relabelled).tests[rest.scheme.test.name].z
