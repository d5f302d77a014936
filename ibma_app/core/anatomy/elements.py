"""The shape of data that is no box of voxels: the elements of structures side by side.

`Elements` and `Grid` answer to the same words, by which all other rooms ask where values lie (`Shape`). A map's values
are an array of the form ``shape.shape``, and a vector (V,) of those in the mask.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibma_app.core.anatomy.structures import AnyStructure, Parcels, Surface
from ibma_app.core.errors import UsageError
from ibma_app.core.grid import Grid

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]


VOXEL = re.compile(r"(?<![\w-])(voxels?|voxelwise)(?![\w-])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of structures side by side, and the mask of those that are analysed."""

    structures: tuple[AnyStructure, ...]
    mask: NDArray[np.bool_]  # (N,) over the elements of all structures, in their order
    extension: str  # of the files that it came from, and goes to
    hemispheres: tuple[str, ...] = ()  # labels of hemi- in names, where each structure has a file of its own

    @classmethod
    def whole(cls, structures: tuple[AnyStructure, ...], extension: str, hemispheres: tuple[str, ...] = ()) -> Self:
        """Return these structures with every element in the mask."""
        mask = np.ones(sum(one.size for one in structures), dtype=bool)
        return cls(structures, mask, extension, hemispheres)

    @property
    def box(self) -> None:
        """No grid of voxels: what needs one asks for this, and does without."""

    @property
    def shape(self) -> tuple[int]:
        """Form of an array with a value for each element."""
        return (self.mask.size,)

    @property
    def placed(self) -> bool:
        """Whether it is known where the elements are."""
        return bool(np.isfinite(self._places[self.mask]).all())

    @cached_property
    def n_voxels(self) -> int:
        """V, the number of elements in the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def noun(self) -> str:
        """What elements are called; those of surfaces and volumes together are grayordinates."""
        nouns = {one.noun for one in self.structures}
        return nouns.pop() if len(nouns) == 1 else "grayordinates"

    def speak(self, text: str) -> str:
        """Return a text on voxels in the words of these elements; names with a hyphen stay."""
        one = {"vertices": "vertex"}.get(self.noun, self.noun.removesuffix("s"))
        forms = {"voxels": self.noun, "voxel": one, "voxelwise": f"by {one}"}
        return VOXEL.sub(lambda found: _like(found[0], forms[found[0].lower()]), text)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the sizes of the mask's elements: what is summed over sizes compares within one unit alone."""
        parts = zip(self.structures, self.starts[:-1], self.starts[1:], strict=True)
        return tuple(dict.fromkeys(one.unit for one, first, end in parts if self.mask[first:end].any()))

    def of_unit(self, unit: str) -> "Elements":
        """Return the same elements with those in the mask alone whose sizes have a unit."""
        has_unit = np.repeat([one.unit == unit for one in self.structures], [one.size for one in self.structures])
        return self.with_mask(self.mask & has_unit)

    @property
    def words(self) -> str:
        """The structures and their sizes in words."""
        shown = [f"{one.name} ({one.size} {one.noun})" for one in self.structures[:3]]
        more = f" and {len(self.structures) - 3} more" if len(self.structures) > 3 else ""
        return ", ".join(shown) + more

    @property
    def sidecar(self) -> dict[str, Any]:
        """Keys that say in sidecars what maps lie on: structures, and of surfaces vertices, meshes and areas."""
        surfaces = [one for one in self.structures if isinstance(one, Surface)]
        meshes = {one.name: one.mesh.name for one in surfaces if one.mesh is not None}
        described: dict[str, Any] = {"Structures": [one.name for one in self.structures]}
        if surfaces:
            described["Density"] = ", ".join(f"{one.size} vertices in {one.name}" for one in surfaces)
        if meshes:
            described |= {"Surface": meshes, "VertexAreas": "mm2, a third of the area of each triangle at a vertex"}
        return described

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each structure begins among the elements, and their number: (S + 1,)."""
        return np.cumsum([0, *(one.size for one in self.structures)])

    def structures_at(self, at: Integers) -> Integers:
        """Return the number of the structure of each of some elements of the mask, (N,)."""
        return np.searchsorted(self.starts, self.file_order[at], side="right") - 1

    def labels_at(self, at: Integers) -> list[str | int]:
        """Return what tells some elements of the mask from others of their structures."""
        flat, structures = self.file_order[at], self.structures_at(at)
        return [self.structures[s].labels[int(i - self.starts[s])] for s, i in zip(structures, flat, strict=True)]

    @property
    def named(self) -> bool:
        """Whether elements have names of their own: the regions of tables, whose 0 is a value and no background."""
        return all(isinstance(one, Parcels) for one in self.structures)

    def tell(self, at: int) -> str:
        """Name an element of the mask for readers."""
        number = int(self.structures_at(np.array([at]))[0])
        return self.structures[number].tell(int(self.file_order[at] - self.starts[number]))

    def places_at(self, at: Integers) -> Floats:
        """Return where N elements of the mask lie, (N, 3), mm; NaN where that is not known."""
        places: Floats = self._places[self.file_order[at]]
        return places

    def sizes_at(self, at: Integers) -> Floats:
        """Return the sizes of N elements of the mask: mm² on surfaces, mm³ in volumes, else 1."""
        sizes: Floats = self._sizes[self.file_order[at]]
        return sizes

    @cached_property
    def _places(self) -> Floats:
        return np.concatenate([one.places for one in self.structures])

    @cached_property
    def _sizes(self) -> Floats:
        return np.concatenate([one.sizes for one in self.structures])

    def pairs(self, connectivity: int) -> NDArray[np.int32]:
        """List which elements of the mask are neighbours, each pair once: (E, 2), 0..V-1, never across structures.

        Parameters
        ----------
        connectivity : {6, 18, 26}
            Of voxels.

        Raises
        ------
        UsageError
            A structure's neighbours are not known.
        """
        every = [one.pairs(connectivity) + start for one, start in zip(self.structures, self.starts, strict=False)]
        pairs = np.concatenate(every)
        number = np.cumsum(self.mask) - 1
        kept: NDArray[np.int32] = number[pairs[self.mask[pairs].all(axis=1)]].astype(np.int32)
        return kept

    def order_in(self, other: "Shape") -> Integers | None:
        """Return where another shape has each element, (N,); None where its elements are not the same."""
        if not isinstance(other, Elements) or len(other.structures) != len(self.structures):
            return None
        theirs = {one.name: (one, start) for one, start in zip(other.structures, other.starts, strict=False)}
        parts = []
        for one in self.structures:
            there, start = theirs.get(one.name, (None, 0))
            order = None if there is None else one.order_in(there)
            if order is None:
                return None
            parts.append(order + start)
        return np.concatenate(parts)

    def matches(self, other: "Shape") -> bool:
        """Return whether another shape has the same elements in the same order, whatever its mask."""
        order = self.order_in(other)
        return order is not None and np.array_equal(order, np.arange(order.size))

    @cached_property
    def file_order(self) -> NDArray[np.int64]:
        """Indices, (V,), of the mask's elements among all."""
        return np.flatnonzero(self.mask)

    def with_mask(self, mask: NDArray[np.bool_]) -> "Elements":
        """Return the same elements with another mask."""
        return replace(self, mask=mask)

    def to_vector(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the mask's values, (V,), of those of all elements (N,)."""
        return values[self.mask]

    def to_volume(self, vector: ArrayLike, fill: float = 0.0) -> NDArray[np.generic]:
        """Return a vector (V,) with ``fill`` at the elements outside the mask, (N,)."""
        values = np.asarray(vector)
        whole = np.full(self.shape, fill, dtype=values.dtype)
        whole[self.mask] = values
        return whole


def _like(model: str, word: str) -> str:
    """Begin a word with a capital where another does."""
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


Shape = Grid | Elements
"""Where a map's values lie."""


def require_grid(shape: Shape, what: str, remedy: str = "Leave it out.") -> Grid:
    """Return a shape that must be a grid of voxels.

    Parameters
    ----------
    shape : Shape
    what : str
        What needs one, as a sentence begins: "--smoothing", "--inference x".
    remedy : str

    Raises
    ------
    UsageError
        It is none.
    """
    if shape.box is None:
        raise UsageError(f"{what} works on a grid of voxels, and these maps lie on {shape.words}. {remedy}")
    return shape.box


_SIDES = {"L": "left", "R": "right"}


def tell_hemispheres(labels: Iterable[str]) -> str:
    """Write hemispheres by their labels of ``hemi-``: "the right hemisphere (hemi-R)"; "" for none."""
    return " and ".join(f"the {_SIDES.get(one, one)} hemisphere (hemi-{one})" for one in sorted(set(labels)))
