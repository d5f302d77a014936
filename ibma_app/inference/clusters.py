"""Clusters of significant voxels and their peaks: one labelling pass per sign."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.grid import Grid

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel -> axes along which they may differ: faces, edges, corners."""

SUB_PEAK_NAMES = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class ClusterRow:
    """A row of the clusters table; None is written as ``n/a``. Positions in mm, RAS+.

    Rows of sub-peaks (``1a``) tell of the peak alone.
    """

    cluster_id: str  # "1", its sub-peaks "1a", "1b"
    x: float
    y: float
    z: float
    peak_z: float
    mean_z: float | None
    peak_effect: float | None
    log10p: float  # corrected, at the peak
    volume_mm3: float | None
    n_voxels: int | None
    region: str = "n/a"

    def cells(self) -> dict[str, Any]:
        """Return column -> value in the table's order; None where there is none."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class _Clusters:
    """Labelled voxels: M significant voxels in G clusters, sorted by cluster, strongest first."""

    voxels: Integers  # (M,) index into the mask
    labels: Integers  # (M,) 0..G-1, ascending
    starts: Integers  # (G,) where each cluster's voxels begin: its peak
    sizes: Integers  # (G,)


def tabulate_clusters(
    field: Field,
    significance: Significance,
    effect: Floats | None = None,
    *,
    connectivity: int = 26,
    min_extent: int = 0,
    min_distance: float = 8.0,
    max_sub_peaks: int = 3,
) -> tuple[ClusterRow, ...]:
    """List the clusters of significant voxels with their peaks and sub-peaks.

    Voxels of positive and of negative z never share a cluster. Clusters are
    numbered by their peak's |z|, strongest first whatever its sign (ties: the
    larger cluster, then the first in C order). A sub-peak is a local maximum
    of |z| among its neighbours at least ``min_distance`` from its cluster's
    peak and its stronger sub-peaks.

    Parameters
    ----------
    field : Field
        The test's z over the mask, V voxels.
    significance : Significance
        What is significant, and the corrected p.
    effect : (V,) array, optional
        For ``peak_effect``.
    connectivity : {6, 18, 26}
        Neighbours that make voxels one cluster.
    min_extent : int
        Smaller clusters are left out (voxels).
    min_distance : float
        Between the peaks of one cluster, mm.
    max_sub_peaks : int
        Of each cluster, at most 26.

    Returns
    -------
    tuple of ClusterRow
        Each cluster followed by its sub-peaks.

    Raises
    ------
    UsageError
        When the connectivity is none of 6, 18 and 26.
    """
    clusters = _find_clusters(field, significance.significant, connectivity, min_extent)
    if clusters.voxels.size == 0:
        return ()
    summits = clusters.voxels[clusters.starts]
    order = np.lexsort((summits, -clusters.sizes, -_height(field)[summits]))
    positions = _positions(field.grid)
    peaks = _pick_peaks(clusters, field.grid, positions, connectivity, min_distance, max_sub_peaks)
    rows: list[ClusterRow] = []
    for number, cluster in enumerate(order, start=1):
        chosen = peaks.get(int(cluster), [int(summits[cluster])])
        members = clusters.voxels[clusters.starts[cluster] :][: clusters.sizes[cluster]]
        for rank, voxel in enumerate(chosen):
            place = _to_mm(positions[:, voxel], field.grid)
            rows.append(_describe(field, significance, effect, number, rank, voxel, place, members))
    return tuple(rows)


def _describe(
    field: Field,
    significance: Significance,
    effect: Floats | None,
    number: int,
    rank: int,
    voxel: int,
    place: tuple[float, float, float],
    members: Integers,
) -> ClusterRow:
    """Fill a cluster's row (rank 0) or a sub-peak's, which tells of the peak alone."""
    main = rank == 0
    return ClusterRow(
        f"{number}" if main else f"{number}{SUB_PEAK_NAMES[rank - 1]}",
        *place,
        peak_z=float(field.z[voxel]),
        mean_z=float(field.z[members].mean()) if main else None,
        peak_effect=None if effect is None else float(effect[voxel]),
        log10p=float(significance.log10_p[voxel]),
        volume_mm3=members.size * field.grid.voxel_volume if main else None,
        n_voxels=members.size if main else None,
    )


def apply_min_extent(
    field: Field, significance: Significance, min_extent: int, connectivity: int = 26
) -> Significance:
    """Take clusters of fewer than ``min_extent`` voxels out of what is significant.

    Parameters
    ----------
    field : Field
        The test's z over the mask, V voxels.
    significance : Significance
        Its corrected p stay as they are.
    min_extent : int
        Voxels; 0 and 1 change nothing.
    connectivity : {6, 18, 26}
        Neighbours that make voxels one cluster.

    Returns
    -------
    Significance
        With ``MinExtent`` among its facts.

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
    kept = np.zeros_like(significance.significant)
    kept[_find_clusters(field, significance.significant, connectivity, min_extent).voxels] = True
    facts = {**significance.facts, "MinExtent": min_extent}
    return replace(significance, significant=kept, facts=facts)


def _structure(connectivity: int) -> NDArray[np.bool_]:
    """Return the neighbourhood (3, 3, 3) of a connectivity."""
    if connectivity not in CONNECTIVITIES:
        menu = ", ".join(map(str, CONNECTIVITIES))
        msg = f"The connectivity of clusters is {connectivity}. Choose from: {menu} neighbours."
        raise UsageError(msg)
    structure: NDArray[np.bool_] = ndimage.generate_binary_structure(3, CONNECTIVITIES[connectivity])
    return structure


def _find_clusters(
    field: Field, significant: NDArray[np.bool_], connectivity: int, min_extent: int
) -> _Clusters:
    """Label the significant voxels of each sign, and sort them by cluster and |z|."""
    structure = _structure(connectivity)
    labels = np.zeros(significant.shape, dtype=np.int64)
    # in one tail there is one sign, even where a lenient level lets z of the other through
    signs = [field.z > 0, field.z <= 0] if field.tail == "two-sided" else [np.ones_like(significant)]
    n_found = 0
    for sign in signs:
        marked = significant & sign
        if not marked.any():
            continue
        volume, found = ndimage.label(field.grid.to_volume(marked), structure)
        of_sign = field.grid.to_vector(volume)
        labels[marked] = of_sign[marked] + n_found
        n_found += found
    voxels = np.flatnonzero(labels)
    large = np.bincount(labels, minlength=n_found + 1) >= max(min_extent, 1)
    voxels = voxels[large[labels[voxels]]]
    # ties in |z| go to the first voxel in C order, so that tables are deterministic
    voxels = voxels[np.lexsort((voxels, -_height(field)[voxels], labels[voxels]))]
    _, starts, dense, sizes = np.unique(
        labels[voxels], return_index=True, return_inverse=True, return_counts=True
    )
    return _Clusters(voxels, dense.astype(np.int64), starts.astype(np.int64), sizes.astype(np.int64))


def _pick_peaks(
    clusters: _Clusters,
    grid: Grid,
    positions: Integers,
    connectivity: int,
    min_distance: float,
    max_sub_peaks: int,
) -> dict[int, list[int]]:
    """Choose the peaks of the clusters that have several: cluster -> voxels, strongest first."""
    is_summit = _local_maxima(clusters, grid.shape, positions, connectivity)
    summits, labels = clusters.voxels[is_summit], clusters.labels[is_summit]
    counts = np.bincount(labels, minlength=clusters.sizes.size)
    ends = np.cumsum(counts)
    chosen: dict[int, list[int]] = {}
    for cluster in np.flatnonzero(counts > 1):
        candidates = summits[ends[cluster] - counts[cluster] : ends[cluster]]
        mm = grid.affine[:3, :3] @ positions[:, candidates]
        chosen[int(cluster)] = [int(candidates[i]) for i in _spaced(mm, min_distance, max_sub_peaks)]
    return chosen


def _spaced(mm: Floats, min_distance: float, max_sub_peaks: int) -> Sequence[int]:
    """Keep points (3, N) in their order that are far enough from all kept before."""
    kept = [0]
    far = np.ones(mm.shape[1], dtype=bool)
    while len(kept) <= min(max_sub_peaks, len(SUB_PEAK_NAMES)):
        distance = np.sqrt(((mm - mm[:, kept[-1] : kept[-1] + 1]) ** 2).sum(axis=0))
        # a hair of slack: 8 mm is 8 mm however the affine is rounded; a peak is never 0 mm from itself
        far &= (distance >= min_distance * (1.0 - 1e-9)) & (distance > 0)
        rest = np.flatnonzero(far)
        if rest.size == 0:
            break
        kept.append(int(rest[0]))
    return kept


def _local_maxima(
    clusters: _Clusters, shape: tuple[int, int, int], positions: Integers, connectivity: int
) -> NDArray[np.bool_]:
    """Tell which of the M voxels no neighbour in its cluster exceeds (of equals the first counts)."""
    neighbours = np.argwhere(_structure(connectivity)) - 1
    neighbours = neighbours[np.any(neighbours != 0, axis=1)]
    # each voxel's place in the sorted list, in a volume with a border of -1 around it
    places = np.full([n + 2 for n in shape], -1, dtype=np.int64)
    flat = np.ravel_multi_index(tuple(positions[:, clusters.voxels] + 1), places.shape)
    own = np.arange(flat.size)
    places.ravel()[flat] = own
    highest = np.ones(flat.size, dtype=bool)
    for step in neighbours @ (np.array(places.strides) // places.itemsize):
        there = places.ravel()[flat + step]
        # sorted by cluster and falling height: an earlier place in the same cluster is higher
        exceeded = (there >= 0) & (there < own)
        exceeded &= clusters.labels[there] == clusters.labels
        highest &= ~exceeded
    return highest


def _height(field: Field) -> Floats:
    """Return (V,) how far z lies in the field's tail: |z| when two-sided."""
    if field.tail == "two-sided":
        return np.abs(field.z)
    return field.z if field.tail == "positive" else -field.z


def _positions(grid: Grid) -> Integers:
    """Return the voxel indices (3, V) of the mask in C order."""
    return np.array(np.nonzero(grid.mask), dtype=np.int64)


def _to_mm(index: Integers, grid: Grid) -> tuple[float, float, float]:
    """Turn one voxel's indices into mm by the affine."""
    x, y, z = grid.affine[:3, :3] @ index + grid.affine[:3, 3]
    return float(x), float(y), float(z)
