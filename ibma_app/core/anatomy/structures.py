"""Structures of the brain whose elements are listed: vertices of a mesh, voxels of a nucleus, regions of a table.

A new kind of element is a record here with what `Structure` asks, and a reader
and writer of its files in `ibma_app.images.elements`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import UsageError

DENSITIES = {2562: "3k", 10242: "10k", 32492: "32k", 40962: "41k", 59292: "59k", 163842: "164k"}
"""Vertices of a hemisphere -> the label of ``den-`` in file names; their number itself means the same."""
FSAVERAGE = {642: "fsaverage3", 2562: "fsaverage4", 10242: "fsaverage5", 40962: "fsaverage6", 163842: "fsaverage"}
"""Vertices of a hemisphere -> FreeSurfer's name of the mesh."""

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles between vertices: which are neighbours, and how large the part of each is."""

    points: Floats  # (N, 3) mm, RAS+
    triangles: NDArray[np.int32]  # (T, 3)
    name: str  # its file, or what it is known as

    @cached_property
    def areas(self) -> Floats:
        """A third of the area of each triangle at a vertex, mm²: (N,), as Connectome Workbench has it."""
        one, two, three = (self.points[self.triangles[:, corner]] for corner in range(3))
        thirds = np.linalg.norm(np.cross(two - one, three - one), axis=1) / 6.0
        areas = np.bincount(self.triangles.ravel(), weights=np.repeat(thirds, 3), minlength=len(self.points))
        return areas.astype(np.float64, copy=False)

    @cached_property
    def pairs(self) -> NDArray[np.int32]:
        """The vertices at the ends of each edge, once, the lower number first: (E, 2)."""
        corners = np.sort(self.triangles, axis=1).astype(np.int64)
        ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]])
        edges = np.unique(ends @ np.array([len(self.points), 1]))
        return np.stack(np.divmod(edges, len(self.points)), axis=1).astype(np.int32)


class Structure(Protocol):
    """A part of the brain whose elements are listed: what a new kind of element has to answer."""

    @property
    def name(self) -> str:
        """As in files and tables: ``CORTEX_LEFT``, or the name of a table of regions."""

    @property
    def noun(self) -> str:
        """What its elements are called, in the plural."""

    @property
    def unit(self) -> str:
        """Of the sizes: ``mm2``, ``mm3``, or "" where an element has none."""

    @property
    def size(self) -> int:
        """N, the number of its elements."""

    @property
    def places(self) -> Floats:
        """Where they lie, mm, RAS+: (N, 3); NaN where that is not known."""

    @property
    def sizes(self) -> Floats:
        """How large they are: (N,); 1 where that is not known."""

    @property
    def labels(self) -> tuple[str, ...] | Integers:
        """What tells them apart in tables and files: numbers of vertices, names of regions; N of them."""

    def tell(self, element: int) -> str:
        """Name one of its elements, 0..N-1, for readers."""

    def pairs(self, connectivity: int) -> NDArray[np.int32]:
        """List which elements are neighbours, each pair once: (E, 2), 0..N-1.

        Raises
        ------
        UsageError
            That is not known; the message says what to give.
        """

    def order_in(self, other: Any) -> Integers | None:
        """Return where another structure of this name has each element, (N,); None: its elements are not the same."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The vertices of a mesh of which at least the number is known; those without a value are NaN in maps."""

    name: str  # "CORTEX_LEFT", "CORTEX_RIGHT"
    size: int  # vertices of the mesh
    listed: NDArray[np.int32] | None = None  # (M,) that files have, as CIFTI leaves the medial wall out; None: all
    mesh: Mesh | None = None
    noun = "vertices"
    unit = "mm2"

    @property
    def places(self) -> Floats:
        """Where the vertices lie, mm: (N, 3)."""
        return np.full((self.size, 3), np.nan) if self.mesh is None else self.mesh.points

    @property
    def sizes(self) -> Floats:
        """Areas of the vertices, mm²: (N,); 1 without a mesh."""
        return np.ones(self.size) if self.mesh is None else self.mesh.areas

    @property
    def labels(self) -> Integers:
        """The numbers of the vertices, from 0 on."""
        return np.arange(self.size, dtype=np.int32)

    def tell(self, element: int) -> str:
        """Name a vertex."""
        return f"{self.name}, vertex {element}"

    def pairs(self, connectivity: int) -> NDArray[np.int32]:
        """List the edges of the mesh.

        Raises
        ------
        UsageError
            There is no mesh.
        """
        if self.mesh is None:
            side = "R" if self.name.endswith("RIGHT") else "L"
            raise UsageError(
                f"Clusters and TFCE need the mesh of {self.name} ({self.size} vertices), and none is known. Give "
                f"--surface {side}=FILE (.surf.gii)."
            )
        return self.mesh.pairs

    def order_in(self, other: Any) -> Integers | None:
        """Return where another surface has each vertex: numbers of vertices mean the same in meshes of one size."""
        return self.labels if isinstance(other, Surface) and other.size == self.size else None


@dataclass(frozen=True, eq=False)
class Voxels:
    """Some voxels of a grid, such as those of a nucleus."""

    name: str  # "THALAMUS_LEFT"
    indices: NDArray[np.int32]  # (N, 3) on the grid
    affine: Floats  # (4, 4), voxel indices to mm, RAS+
    box: tuple[int, int, int]  # of the grid
    noun = "voxels"
    unit = "mm3"

    @property
    def size(self) -> int:
        """N, the number of voxels."""
        return len(self.indices)

    @property
    def places(self) -> Floats:
        """Centres of the voxels, mm: (N, 3)."""
        places: Floats = self.indices @ self.affine[:3, :3].T + self.affine[:3, 3]
        return places

    @property
    def sizes(self) -> Floats:
        """Volumes of the voxels, mm³: (N,)."""
        return np.full(self.size, float(abs(np.linalg.det(self.affine[:3, :3]))))

    @property
    def labels(self) -> Integers:
        """Flat indices of the voxels on the grid."""
        flat: Integers = np.ravel_multi_index(tuple(self.indices.T), self.box)
        return flat

    def tell(self, element: int) -> str:
        """Name the structure of a voxel, whose place says the rest."""
        return self.name

    def pairs(self, connectivity: int) -> NDArray[np.int32]:
        """List the voxels that share a face (6), an edge (18) or a corner (26)."""
        axes = {6: 1, 18: 2, 26: 3}[connectivity]
        steps = np.argwhere(np.ones((3, 3, 3), dtype=bool)) - 1
        steps = steps[len(steps) // 2 + 1 :]  # one of each two that are opposite
        at = self.indices - self.indices.min(axis=0, initial=np.iinfo(np.int32).max) + 1
        whole = np.full(at.max(axis=0, initial=0) + 2, -1, dtype=np.int32)
        whole[tuple(at.T)] = np.arange(self.size)
        found = []
        for step in steps[np.abs(steps).sum(axis=1) <= axes]:
            there = whole[tuple((at + step).T)]
            own = np.flatnonzero(there >= 0)
            found.append(np.stack([own, there[own]], axis=1))
        return np.concatenate(found).astype(np.int32)

    def order_in(self, other: Any) -> Integers | None:
        """Return where the same voxels of the same grid stand in another structure."""
        if other is self:  # as maps with one description of their elements have it
            return np.arange(self.size)
        same = isinstance(other, Voxels) and other.box == self.box and np.allclose(other.affine, self.affine, atol=1e-3)
        return _order(self.labels, other.labels) if same else None


@dataclass(frozen=True, eq=False)
class Parcels:
    """The regions of a table: each has one value, and none is another's neighbour."""

    name: str  # the atlas: "Schaefer100"
    labels: tuple[str, ...]  # (N,) names
    numbers: Integers  # (N,) their index in the table
    extents: Mapping[str, Any] = field(default_factory=dict)  # of CIFTI: what each consists of, to be written again
    noun = "parcels"
    unit = ""

    @property
    def size(self) -> int:
        """N, the number of regions."""
        return len(self.labels)

    @property
    def places(self) -> Floats:
        """Not known: NaN, (N, 3)."""
        return np.full((self.size, 3), np.nan)

    @property
    def sizes(self) -> Floats:
        """Regions count as one each: (N,)."""
        return np.ones(self.size)

    def tell(self, element: int) -> str:
        """Name a region."""
        return self.labels[element]

    def pairs(self, connectivity: int) -> NDArray[np.int32]:
        """List no pairs: a region is a cluster of its own."""
        return np.empty((0, 2), dtype=np.int32)

    def order_in(self, other: Any) -> Integers | None:
        """Return where another table of the same regions has each of them, by name."""
        return _order(np.array(self.labels), np.array(other.labels)) if isinstance(other, Parcels) else None


AnyStructure = Surface | Voxels | Parcels
"""The kinds of structure that there are."""
_ANSWERING: tuple[type[Structure], ...] = (Surface, Voxels, Parcels)  # mypy sees whether each answers all


def _order(wanted: NDArray[Any], there: NDArray[Any]) -> Integers | None:
    """Return where each wanted label stands among others; None where they are not the same ones."""
    ours, theirs = np.argsort(wanted, kind="stable"), np.argsort(there, kind="stable")
    if not np.array_equal(wanted[ours], there[theirs]):
        return None
    order = np.empty(wanted.size, dtype=np.int64)
    order[ours] = theirs
    return order
