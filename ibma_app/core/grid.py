"""A grid in space, with a mask: the voxels that are analysed.

Where values lie otherwise, `ibma_app.core.anatomy.elements` has it, which answers to the same words.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEAR = 0.05
"""Share of a voxel's edge: grids that are no further apart have the same voxels."""
_CORNERS = np.array(list(np.ndindex(2, 2, 2)))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid, the codes of its header, and the mask of the voxels that are analysed."""

    noun = "voxels"
    units = ("mm3",)  # of the sizes of elements
    extension = ".nii.gz"
    hemispheres: ClassVar[tuple[str, ...]] = ()  # none has a file of its own

    affine: NDArray[np.float64]  # (4, 4), voxel indices to mm, RAS+
    mask: NDArray[np.bool_]  # (X, Y, Z)
    sform_code: int = 2
    qform_code: int = 0
    qform: NDArray[np.float64] | None = None  # (4, 4) where it differs from affine
    xyzt_units: int = 10  # NIfTI code: mm and seconds

    @classmethod
    def whole(cls, affine: NDArray[np.float64], shape: tuple[int, ...], **header: Any) -> "Grid":
        """Return a grid with every voxel in its mask, which is read-only and takes no memory.

        Parameters
        ----------
        affine : ndarray, (4, 4)
        shape : tuple of int
            Voxels along each axis.
        **header
            Codes of the header: other fields of this record.
        """
        return cls(affine, np.broadcast_to(np.True_, shape), **header)

    @property
    def box(self) -> "Grid":
        """The grid itself; None of shapes that are none."""
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = self.mask.shape
        return x, y, z

    @cached_property
    def n_voxels(self) -> int:
        """V, the number of voxels in the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def placed(self) -> bool:
        """Whether the header says where the voxels are; without a code, each software makes its own guess."""
        return self.sform_code > 0 or self.qform_code > 0

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def voxel_sizes(self) -> NDArray[np.float64]:
        """Edges of a voxel, mm: (3,)."""
        sizes: NDArray[np.float64] = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return sizes

    def apart(self, other: Any) -> float:
        """Return the largest distance between voxels of the same indices, mm; infinite when shapes differ."""
        if not isinstance(other, Grid) or other.shape != self.shape:
            return math.inf
        corners = _CORNERS * (np.asarray(self.shape) - 1)  # where a linear difference is largest
        moved = self.affine - other.affine
        return float(np.sqrt(((corners @ moved[:3, :3].T + moved[:3, 3]) ** 2).sum(axis=1).max()))

    def matches(self, other: Any) -> bool:
        """Return whether another grid has the same voxels, to a twentieth of one, whatever its mask."""
        return self.apart(other) <= NEAR * float(self.voxel_sizes.min())

    @cached_property
    def file_order(self) -> NDArray[np.int64]:
        """Flat indices, (V,), of the voxels of `to_vector` in a file, whose first axis runs fastest."""
        indices = np.nonzero(self.mask)
        return np.asarray(np.ravel_multi_index(indices, self.shape, order="F"), dtype=np.int64)

    def with_mask(self, mask: NDArray[np.bool_]) -> "Grid":
        """Return the same grid with another mask."""
        return replace(self, mask=mask)

    @property
    def sidecar(self) -> dict[str, Any]:
        """No keys of sidecars: an image's header says where its voxels are."""
        return {}

    def speak(self, text: str) -> str:
        """Return a text on voxels as it is: shapes with other elements return it in theirs."""
        return text

    @property
    def words(self) -> str:
        """Size, spacing and place in words."""
        rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in self.affine[:3].round(4))
        shape, spacing = " x ".join(map(str, self.shape)), " x ".join(f"{size:.4g}" for size in self.voxel_sizes)
        return f"{shape} voxels of {spacing} mm (affine {rows})"

    @property
    def named(self) -> bool:
        """Whether elements have names of their own, as regions of tables have; voxels have none."""
        return False

    def tell(self, at: int) -> str:
        """Name a voxel of the mask for readers: its place says all."""
        return ""

    def places_at(self, at: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return where N voxels of the mask lie, (N, 3), mm, RAS+; ``at`` (N,) counts voxels of the mask."""
        indices = np.array(np.unravel_index(self._flat[at], self.shape))
        places: NDArray[np.float64] = (self.affine[:3, :3] @ indices + self.affine[:3, 3:]).T
        return places

    def sizes_at(self, at: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return the volume of N voxels of the mask, mm³: (N,)."""
        return np.full(np.size(at), self.voxel_volume)

    def index_at(self, place: ArrayLike) -> int:
        """Return the voxel of the mask that is nearest to a place in mm (3,)."""
        back = np.linalg.inv(self.affine)
        i, j, k = np.rint(back[:3, :3] @ np.asarray(place, dtype=np.float64) + back[:3, 3]).astype(int).tolist()
        return int(np.searchsorted(self._flat, np.ravel_multi_index((i, j, k), self.shape)))

    @cached_property
    def _flat(self) -> NDArray[np.int64]:
        """Flat indices of the mask's voxels in C order."""
        return np.flatnonzero(self.mask)

    def to_vector(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the mask's voxels, (V,), of a volume (X, Y, Z) in C order."""
        return volume[self.mask]

    def to_volume(self, vector: ArrayLike, fill: float = 0.0) -> NDArray[np.generic]:
        """Return a vector (V,) as a volume (X, Y, Z), with ``fill`` outside the mask."""
        values = np.asarray(vector)
        volume = np.full(self.shape, fill, dtype=values.dtype)
        volume[self.mask] = values
        return volume
