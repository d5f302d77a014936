"""The table of clusters: a row for each, and for its further peaks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.grid import Grid
from ibma_app.inference.clusters import find_clusters, find_height, pick_peaks
from ibma_app.inference.neighbourhood import why_unknown
from ibma_app.inference.regions import (
    NOWHERE,
    composition_columns,
    describe_composition,
    describe_places,
    region_columns,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SUB_PEAK_NAMES = "abcdefghijklmnopqrstuvwxyz"
COLUMNS = ("cluster_id", "x", "y", "z", "peak_z", "mean_z", "peak_effect", "log10p", "volume_mm3", "n_voxels")
OF_STRUCTURES = {"cluster_id": ("structure", "vertex"), "log10p": ("area_mm2",)}
"""Column -> those that follow it where the elements of structures are listed."""
SIZES = {"mm2": "area_mm2", "mm3": "volume_mm3"}
"""Unit of sizes -> the column of their sum."""

Measure = Callable[[Integers], float]
"""Gives a cluster's value, by its voxels' indices into the mask."""


def table_columns(
    atlases: Sequence[Atlas] = (), measured: Iterable[str] = (), *, structures: bool = False
) -> tuple[str, ...]:
    """Return the columns of the clusters table, with those of its atlases, of its inference, and of structures."""
    columns = _columns_of_structures() if structures else COLUMNS
    return (*columns, *region_columns(atlases), *composition_columns(atlases), *measured)


def _columns_of_structures() -> tuple[str, ...]:
    return tuple(name for column in COLUMNS for name in (column, *OF_STRUCTURES.get(column, ())))


@dataclass(frozen=True)
class ClusterRow:
    """A row of the clusters table; None is written as ``n/a``. Positions in mm, RAS+.

    Rows of sub-peaks (``1a``) describe the peak alone.
    """

    cluster_id: str  # "1", its sub-peaks "1a", "1b"
    x: float | None  # None: it is not known where its elements lie
    y: float | None
    z: float | None
    peak_z: float
    mean_z: float | None
    peak_effect: float | None
    log10p: float  # corrected, at the peak
    n_voxels: int | None
    peak: int  # voxel of the mask
    volume_mm3: float | None = None
    structure: str | None = None  # of elements: CORTEX_LEFT
    vertex: int | None = None  # of the structure's mesh
    area_mm2: float | None = None
    regions: tuple[tuple[str, str], ...] = (("region", NOWHERE),)  # column -> name, one per atlas
    composition: tuple[tuple[str, str], ...] = (("composition", NOWHERE),)  # column -> regions and their shares
    measured: tuple[tuple[str, float | None], ...] = ()  # the inference's own columns; None for sub-peaks

    @property
    def region(self) -> str:
        """The region by the first atlas."""
        return self.regions[0][1]

    def cells(self) -> dict[str, Any]:
        """Return column -> value in the table's order; None where there is none."""
        columns = COLUMNS if self.structure is None else _columns_of_structures()
        own = {column: getattr(self, column) for column in columns}
        return {**own, **dict(self.regions), **dict(self.composition), **dict(self.measured)}


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
        Each cluster followed by its sub-peaks; none where it is not known which elements are neighbours.

    Raises
    ------
    UsageError
        When the connectivity is none of 6, 18 and 26.
    """
    listed = significance.significant if significance.listed is None else significance.listed
    if not listed.any() or why_unknown(field.grid):
        return ()
    clusters = find_clusters(field, listed, connectivity)
    summits = clusters.voxels[clusters.starts]
    order = np.lexsort((summits, -clusters.sizes, -find_height(field)[summits]))
    peaks = pick_peaks(clusters, field.grid, connectivity)
    chosen = [peaks.get(int(cluster), [int(summits[cluster])]) for cluster in order]
    located = iter(_locate(field.grid, np.concatenate(chosen), atlases))
    rows: list[ClusterRow] = []
    for number, (cluster, voxels) in enumerate(zip(order, chosen, strict=True), start=1):
        members = clusters.voxels[clusters.starts[cluster] :][: clusters.sizes[cluster]]
        for rank, voxel in enumerate(voxels):
            row = ClusterRow(
                cluster_id=f"{number}",
                peak=voxel,
                peak_z=float(field.z[voxel]),
                mean_z=float(field.z[members].mean()),
                peak_effect=None if effect is None else float(effect[voxel]),
                log10p=float(significance.log10_p[voxel]),
                n_voxels=members.size,
                composition=_composition(field.grid, members, atlases, rank),
                measured=tuple((name, None if rank else measure(members)) for name, measure in measures.items()),
                **next(located),
                **_extent(field.grid, members),
            )
            rows.append(_of_sub_peak(row, rank) if rank else row)
    return tuple(rows)


def _locate(shape: Shape, peaks: Integers, atlases: Sequence[Atlas]) -> list[dict[str, Any]]:
    """Say where each of N peaks lies: in mm, in which structure, in which region by every atlas."""
    places = shape.places_at(peaks)
    known: list[dict[str, Any]] = [
        dict(zip("xyz", place if np.isfinite(place).all() else (None,) * 3, strict=True)) for place in places.tolist()
    ]
    columns = region_columns(atlases)
    named = atlases if np.isfinite(places).all() else ()
    names = [describe_places(atlas, places) for atlas in named] or [[NOWHERE] * len(places)] * len(columns)
    for one, found in zip(known, zip(*names, strict=True), strict=True):
        one["regions"] = tuple(zip(columns, found, strict=True))
    if isinstance(shape, Elements):
        structures = [shape.structures[number] for number in shape.structures_at(peaks)]
        for one, structure, label in zip(known, structures, shape.labels_at(peaks), strict=True):
            one["structure"] = structure.name
            if structure.unit == "mm2":
                one["vertex"] = int(label)
            elif isinstance(label, str):  # a region of a table, which names itself
                one["regions"] = tuple((column, label) for column in columns)
    return known


def _extent(shape: Shape, members: Integers) -> dict[str, Any]:
    """Measure a cluster's area or volume."""
    if isinstance(shape, Grid):
        return {"volume_mm3": members.size * shape.voxel_volume}
    column = SIZES.get(shape.structures[shape.structures_at(members[:1])[0]].unit)
    return {column: float(shape.sizes_at(members).sum())} if column else {}


def _composition(shape: Shape, members: Integers, atlases: Sequence[Atlas], rank: int) -> tuple[tuple[str, str], ...]:
    """Say what a cluster consists of by every atlas; nothing of sub-peaks, and of unknown places."""
    columns = composition_columns(atlases)
    if rank or not atlases or not np.isfinite(places := shape.places_at(members)).all():
        return tuple((column, NOWHERE) for column in columns)
    return tuple((column, describe_composition(one, places)) for column, one in zip(columns, atlases, strict=True))


def _of_sub_peak(row: ClusterRow, rank: int) -> ClusterRow:
    """Take out of a sub-peak's row what describes the whole cluster."""
    name = f"{row.cluster_id}{SUB_PEAK_NAMES[rank - 1]}"
    return replace(row, cluster_id=name, mean_z=None, volume_mm3=None, area_mm2=None, n_voxels=None)
