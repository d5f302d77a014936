"""Clusters of significant voxels and their peaks: one labelling pass per sign."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.inference_facts import LevelFacts, find_fact, with_caveat
from ibma_app.inference.decide import weakest_z
from ibma_app.inference.neighbourhood import find_neighbours
from ibma_app.stats.components import ClusterWorkspace
from ibma_app.stats.neighbours import AXES, touching

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_SUB_PEAKS = 3  # of a cluster
MIN_DISTANCE = 8.0  # between the peaks of one cluster, mm

NOT_OF_SUBSETS = (
    "the {rate} holds for all voxels that pass, not for those that --min-extent leaves: with focal effects a quarter "
    "of these were false (fdr) where 1 of 20 was asked for. Leave --min-extent out, or use an inference whose level "
    "large clusters keep: one of the family-wise error, such as max-stat or cluster-mass, or ari"
)
"""Measured by validation/random_fields.py."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Labelled voxels: M significant voxels in G clusters, sorted by cluster, strongest first."""

    voxels: Integers  # (M,) index into the mask
    labels: Integers  # (M,) 0..G-1, ascending
    starts: Integers  # (G,) where each cluster's voxels begin: its peak
    sizes: Integers  # (G,)


def apply_min_extent(field: Field, significance: Significance, min_extent: int, connectivity: int = 26) -> Significance:
    """Take clusters of fewer than ``min_extent`` voxels out of what is significant.

    Parameters
    ----------
    field : Field
        The test's z over the mask, V voxels.
    significance : Significance
        Its corrected p stay as they are. Error rates of which any subset is as good (family-wise ones, bounds on
        every set) hold for what is kept; a false discovery rate does not.
    min_extent : int
        Voxels; 0 and 1 change nothing.
    connectivity : {6, 18, 26}
        Neighbours that make voxels one cluster.

    Returns
    -------
    Significance
        With the extent in its level's facts, the weakest z of what was kept, and a caveat where the level is lost.

    Raises
    ------
    UsageError
        When ``min_extent`` is negative or the connectivity none of 6, 18 and 26.
    """
    if min_extent < 0:
        msg = f"--min-extent is {min_extent}, but a number of voxels is not negative."
        raise UsageError(msg)
    if min_extent <= 1:
        return significance

    def large(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        kept = np.zeros_like(marked)
        kept[find_clusters(field, marked, connectivity, min_extent).voxels] = True
        return kept

    facts = tuple(
        replace(one, min_extent=min_extent) if isinstance(one, LevelFacts) else one for one in significance.facts
    )
    level = find_fact(facts, LevelFacts)
    if level is not None and not level.holds:
        facts = with_caveat(facts, NOT_OF_SUBSETS.format(rate=level.controls))
    kept, listed = large(significance.significant), significance.listed
    return replace(
        significance,
        significant=kept,
        z_threshold=weakest_z(field, kept),
        facts=facts,
        listed=None if listed is None else large(listed),
    )


def find_clusters(field: Field, marked: NDArray[np.bool_], connectivity: int = 26, min_extent: int = 0) -> Clusters:
    """Label marked voxels (V,) of each sign, and sort them by cluster and |z|.

    Raises
    ------
    UsageError
        When the connectivity is none of 6, 18 and 26, or neighbours are not known.
    """
    if connectivity not in AXES:
        menu = ", ".join(map(str, AXES))
        raise UsageError(f"The connectivity of clusters is {connectivity}. Choose from: {menu} neighbours.")
    labels = np.zeros(marked.shape, dtype=np.int64)
    if marked.any():
        workspace, n_found = ClusterWorkspace(find_neighbours(field.grid, connectivity)), 0
        # in one tail there is one sign, even where a lenient level lets z of the other through
        for sign in [field.z > 0, field.z <= 0] if field.tail == "two-sided" else [np.ones_like(marked)]:
            there = np.flatnonzero(marked & sign)
            labels[there] = workspace.labels(there) + n_found
            n_found = int(labels[there].max(initial=n_found))
    voxels = np.flatnonzero(labels)
    large = np.bincount(labels) >= max(min_extent, 1)
    voxels = voxels[large[labels[voxels]]]
    # ties in |z| go to the first voxel in C order, so that tables are deterministic
    voxels = voxels[np.lexsort((voxels, -find_height(field)[voxels], labels[voxels]))]
    _, starts, dense, sizes = np.unique(labels[voxels], return_index=True, return_inverse=True, return_counts=True)
    return Clusters(voxels, dense.astype(np.int64), starts.astype(np.int64), sizes.astype(np.int64))


def pick_peaks(clusters: Clusters, shape: Shape, connectivity: int) -> dict[int, list[int]]:
    """Choose the peaks of the clusters that have several: cluster -> voxels, strongest first."""
    is_summit = _local_maxima(clusters, shape, connectivity)
    summits, labels = clusters.voxels[is_summit], clusters.labels[is_summit]
    counts = np.bincount(labels, minlength=clusters.sizes.size)
    ends = np.cumsum(counts)
    chosen: dict[int, list[int]] = {}
    for cluster in np.flatnonzero(counts > 1):
        candidates = summits[ends[cluster] - counts[cluster] : ends[cluster]]
        chosen[int(cluster)] = [int(candidates[i]) for i in _spaced(shape.places_at(candidates))]
    return chosen


def _spaced(mm: Floats) -> Sequence[int]:
    """Keep points (N, 3) in their order that are far enough from all kept before."""
    kept = [0]
    far = np.ones(len(mm), dtype=bool)
    while len(kept) <= MAX_SUB_PEAKS:
        distance = np.sqrt(((mm - mm[kept[-1]]) ** 2).sum(axis=1))
        # a hair of slack: 8 mm is 8 mm however the affine is rounded; a peak is never 0 mm from itself
        far &= (distance >= MIN_DISTANCE * (1.0 - 1e-9)) & (distance > 0)
        rest = np.flatnonzero(far)
        if rest.size == 0:
            break
        kept.append(int(rest[0]))
    return kept


def _local_maxima(clusters: Clusters, shape: Shape, connectivity: int) -> NDArray[np.bool_]:
    """Find which of the M voxels no neighbour in its cluster exceeds (of equals the first counts)."""
    highest = np.ones(clusters.voxels.size, dtype=bool)
    for own, other in touching(find_neighbours(shape, connectivity), clusters.voxels):
        # sorted by cluster and falling height: an earlier place in the same cluster is higher
        exceeded = (other < own) & (clusters.labels[other] == clusters.labels[own])
        highest[own[exceeded]] = False
    return highest


def find_height(field: Field) -> Floats:
    """Return (V,) how far z lies in the field's tail: |z| when two-sided."""
    if field.tail == "two-sided":
        return np.abs(field.z)
    return field.z if field.tail == "positive" else -field.z
