"""Clusters of significant voxels and their peaks: one labelling pass per sign."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import LevelFacts, find_fact, with_caveat
from ibma_app.core.methods import InferenceSettings, Setting
from ibma_app.inference.decide import weakest_z
from ibma_app.inference.regions import (
    NOWHERE,
    composition_columns,
    describe_composition,
    describe_places,
    region_columns,
)
from ibma_app.stats.neighbours import AXES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SUB_PEAK_NAMES = "abcdefghijklmnopqrstuvwxyz"
MAX_SUB_PEAKS = 3  # of a cluster
MIN_DISTANCE = 8.0  # between the peaks of one cluster, mm

NOT_OF_SUBSETS = (
    "the {rate} holds for all voxels that pass, not for those that --min-extent leaves: with focal effects a quarter "
    "of these were false (fdr) where 1 of 20 was asked for. Leave --min-extent out, or use an inference whose level "
    "large clusters keep: one of the family-wise error, such as max-stat or cluster-mass, or ari"
)
"""Measured by validation/random_fields.py."""

COLUMNS = ("cluster_id", "x", "y", "z", "peak_z", "mean_z", "peak_effect", "log10p", "volume_mm3", "n_voxels")

Measure = Callable[[Integers], float]
"""Gives a cluster's value, by its voxels' indices into the mask."""


def connectivity_setting(default: int) -> Setting:
    """Make the record of the setting ``connectivity``."""
    others = tuple(number for number in AXES if number != default)
    return Setting((default, *others), "neighbours that make voxels one cluster")


def read_connectivity(settings: InferenceSettings, default: int) -> int:
    """Return the neighbours that make voxels one cluster.

    Raises
    ------
    UsageError
        When the setting is none of 6, 18 and 26.
    """
    value = settings.options.get("connectivity", default)
    if value not in AXES or isinstance(value, bool):
        msg = f"The setting connectivity of [inference] is {value!r}; choose from 6, 18 and 26 neighbours."
        raise UsageError(msg)
    return int(value)


def table_columns(atlases: Sequence[Atlas] = (), measured: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the columns of the clusters table, with those of its atlases and of its inference."""
    return (*COLUMNS, *region_columns(atlases), *composition_columns(atlases), *measured)


@dataclass(frozen=True)
class ClusterRow:
    """A row of the clusters table; None is written as ``n/a``. Positions in mm, RAS+.

    Rows of sub-peaks (``1a``) describe the peak alone.
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
    regions: tuple[tuple[str, str], ...] = (("region", NOWHERE),)  # column -> name, one per atlas
    composition: tuple[tuple[str, str], ...] = (("composition", NOWHERE),)  # column -> regions and their shares
    measured: tuple[tuple[str, float | None], ...] = ()  # the inference's own columns; None for sub-peaks

    @property
    def region(self) -> str:
        """The region by the first atlas."""
        return self.regions[0][1]

    def cells(self) -> dict[str, Any]:
        """Return column -> value in the table's order; None where there is none."""
        own = {column: getattr(self, column) for column in COLUMNS}
        return {**own, **dict(self.regions), **dict(self.composition), **dict(self.measured)}


@dataclass(frozen=True, eq=False)
class Clusters:
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
    atlases: Sequence[Atlas] = (),
    measures: Mapping[str, Measure] = MappingProxyType({}),
) -> tuple[ClusterRow, ...]:
    """List the clusters of significant voxels with their peaks and sub-peaks.

    Voxels of positive and of negative z never share a cluster. Clusters are
    numbered by their peak's |z|, strongest first whatever its sign (ties: the
    larger cluster, then the first in C order). A sub-peak is a local maximum
    of |z| among its neighbours at least 8 mm from its cluster's peak and its
    stronger sub-peaks; there are at most 3 of a cluster.

    Parameters
    ----------
    field : Field
        The test's z over the mask, V voxels.
    significance : Significance
        What is significant (or ``listed``), and the corrected p.
    effect : (V,) array, optional
        For ``peak_effect``.
    connectivity : {6, 18, 26}
        Neighbours that make voxels one cluster.
    atlases : sequence of Atlas
        Each names the region of every peak and those that a cluster consists of, in columns of its own.
    measures : mapping of str to callable
        Columns of the inference's own: what gives each cluster's value.

    Returns
    -------
    tuple of ClusterRow
        Each cluster followed by its sub-peaks.

    Raises
    ------
    UsageError
        When the connectivity is none of 6, 18 and 26.
    """
    listed = significance.significant if significance.listed is None else significance.listed
    clusters = find_clusters(field, listed, connectivity)
    if clusters.voxels.size == 0:
        return ()
    summits = clusters.voxels[clusters.starts]
    order = np.lexsort((summits, -clusters.sizes, -_height(field)[summits]))
    positions = _positions(field.grid)
    peaks = _pick_peaks(clusters, field.grid, positions, connectivity)
    chosen = [peaks.get(int(cluster), [int(summits[cluster])]) for cluster in order]
    places = field.grid.affine[:3, :3] @ positions[:, np.concatenate(chosen)] + field.grid.affine[:3, 3:]
    described = iter(zip(places.T.tolist(), _regions(places.T, atlases), strict=True))
    rows: list[ClusterRow] = []
    for number, (cluster, voxels) in enumerate(zip(order, chosen, strict=True), start=1):
        members = clusters.voxels[clusters.starts[cluster] :][: clusters.sizes[cluster]]
        for rank, voxel in enumerate(voxels):
            place, regions = next(described)
            row = _describe(field, significance, effect, f"{number}", voxel, place, members)
            found = tuple((name, None if rank else measure(members)) for name, measure in measures.items())
            parts = _composition(field.grid, positions[:, members], atlases, rank)
            row = _of_sub_peak(row, rank) if rank else row
            rows.append(replace(row, regions=regions, composition=parts, measured=found))
    return tuple(rows)


def _regions(places: Floats, atlases: Sequence[Atlas]) -> list[tuple[tuple[str, str], ...]]:
    """Name the regions of N places (N, 3) by every atlas, under the tables' columns."""
    columns = region_columns(atlases)
    names = [describe_places(atlas, places) for atlas in atlases] or [[NOWHERE] * len(places)]
    return [tuple(zip(columns, found, strict=True)) for found in zip(*names, strict=True)]


def _composition(grid: Grid, voxels: Integers, atlases: Sequence[Atlas], rank: int) -> tuple[tuple[str, str], ...]:
    """Say what a cluster's voxels (3, N) consist of by every atlas; nothing of its sub-peaks."""
    columns = composition_columns(atlases)
    if rank or not atlases:
        return tuple((column, NOWHERE) for column in columns)
    places = (grid.affine[:3, :3] @ voxels + grid.affine[:3, 3:]).T
    return tuple((column, describe_composition(one, places)) for column, one in zip(columns, atlases, strict=True))


def _describe(
    field: Field,
    significance: Significance,
    effect: Floats | None,
    number: str,
    voxel: int,
    place: Sequence[float],
    members: Integers,
) -> ClusterRow:
    """Fill a cluster's row."""
    x, y, z = place
    return ClusterRow(
        number,
        x,
        y,
        z,
        peak_z=float(field.z[voxel]),
        mean_z=float(field.z[members].mean()),
        peak_effect=None if effect is None else float(effect[voxel]),
        log10p=float(significance.log10_p[voxel]),
        volume_mm3=members.size * field.grid.voxel_volume,
        n_voxels=members.size,
    )


def _of_sub_peak(row: ClusterRow, rank: int) -> ClusterRow:
    """Take out of a sub-peak's row what describes the whole cluster."""
    name = f"{row.cluster_id}{SUB_PEAK_NAMES[rank - 1]}"
    return replace(row, cluster_id=name, mean_z=None, volume_mm3=None, n_voxels=None)


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


def _structure(connectivity: int) -> NDArray[np.bool_]:
    """Return the neighbourhood (3, 3, 3) of a connectivity."""
    if connectivity not in AXES:
        menu = ", ".join(map(str, AXES))
        msg = f"The connectivity of clusters is {connectivity}. Choose from: {menu} neighbours."
        raise UsageError(msg)
    structure: NDArray[np.bool_] = ndimage.generate_binary_structure(3, AXES[connectivity])
    return structure


def find_clusters(field: Field, marked: NDArray[np.bool_], connectivity: int = 26, min_extent: int = 0) -> Clusters:
    """Label marked voxels (V,) of each sign, and sort them by cluster and |z|.

    Raises
    ------
    UsageError
        When the connectivity is none of 6, 18 and 26.
    """
    structure = _structure(connectivity)
    labels = np.zeros(marked.shape, dtype=np.int64)
    # in one tail there is one sign, even where a lenient level lets z of the other through
    signs = [field.z > 0, field.z <= 0] if field.tail == "two-sided" else [np.ones_like(marked)]
    n_found = 0
    for sign in signs:
        there = marked & sign
        if not there.any():
            continue
        volume, found = ndimage.label(field.grid.to_volume(there), structure)
        of_sign = field.grid.to_vector(volume)
        labels[there] = of_sign[there] + n_found
        n_found += found
    voxels = np.flatnonzero(labels)
    large = np.bincount(labels, minlength=n_found + 1) >= max(min_extent, 1)
    voxels = voxels[large[labels[voxels]]]
    # ties in |z| go to the first voxel in C order, so that tables are deterministic
    voxels = voxels[np.lexsort((voxels, -_height(field)[voxels], labels[voxels]))]
    _, starts, dense, sizes = np.unique(labels[voxels], return_index=True, return_inverse=True, return_counts=True)
    return Clusters(voxels, dense.astype(np.int64), starts.astype(np.int64), sizes.astype(np.int64))


def _pick_peaks(clusters: Clusters, grid: Grid, positions: Integers, connectivity: int) -> dict[int, list[int]]:
    """Choose the peaks of the clusters that have several: cluster -> voxels, strongest first."""
    is_summit = _local_maxima(clusters, grid.shape, positions, connectivity)
    summits, labels = clusters.voxels[is_summit], clusters.labels[is_summit]
    counts = np.bincount(labels, minlength=clusters.sizes.size)
    ends = np.cumsum(counts)
    chosen: dict[int, list[int]] = {}
    for cluster in np.flatnonzero(counts > 1):
        candidates = summits[ends[cluster] - counts[cluster] : ends[cluster]]
        mm = grid.affine[:3, :3] @ positions[:, candidates]
        chosen[int(cluster)] = [int(candidates[i]) for i in _spaced(mm)]
    return chosen


def _spaced(mm: Floats) -> Sequence[int]:
    """Keep points (3, N) in their order that are far enough from all kept before."""
    kept = [0]
    far = np.ones(mm.shape[1], dtype=bool)
    while len(kept) <= MAX_SUB_PEAKS:
        distance = np.sqrt(((mm - mm[:, kept[-1] : kept[-1] + 1]) ** 2).sum(axis=0))
        # a hair of slack: 8 mm is 8 mm however the affine is rounded; a peak is never 0 mm from itself
        far &= (distance >= MIN_DISTANCE * (1.0 - 1e-9)) & (distance > 0)
        rest = np.flatnonzero(far)
        if rest.size == 0:
            break
        kept.append(int(rest[0]))
    return kept


def _local_maxima(
    clusters: Clusters, shape: tuple[int, int, int], positions: Integers, connectivity: int
) -> NDArray[np.bool_]:
    """Find which of the M voxels no neighbour in its cluster exceeds (of equals the first counts)."""
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
