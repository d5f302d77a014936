"""The voxels that are analysed: a grid in space and a mask on it."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEAR = 0.05
"""Of a voxel: grids that are no further apart have the same voxels."""
_CORNERS = np.array(list(np.ndindex(2, 2, 2)))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid, its header's codes, and the mask of voxels analysed."""

    affine: NDArray[np.float64]  # (4, 4), voxel indices to mm, RAS+
    mask: NDArray[np.bool_]  # (X, Y, Z)
    sform_code: int = 2
    qform_code: int = 0
    qform: NDArray[np.float64] | None = None  # (4, 4) where it differs from affine
    xyzt_units: int = 10  # NIfTI code: mm and seconds

    @classmethod
    def whole(cls, affine: NDArray[np.float64], shape: tuple[int, ...], **header: Any) -> "Grid":
        """Return a grid whose every voxel is in its mask (read-only, and of no size in memory).

        Parameters
        ----------
        affine : ndarray, (4, 4)
        shape : tuple of int
            Voxels along each axis.
        **header
            The header's codes: fields of this record.
        """
        return cls(affine, np.broadcast_to(np.True_, shape), **header)

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
        """Whether the header says where the voxels lie: without any code readers guess, each in its way."""
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

    def apart(self, other: "Grid") -> float:
        """Return how far voxels of the same indices lie from one another at most, mm; infinite for other shapes."""
        if other.shape != self.shape:
            return math.inf
        corners = _CORNERS * (np.asarray(self.shape) - 1)  # a linear difference is largest at one of them
        moved = self.affine - other.affine
        return float(np.sqrt(((corners @ moved[:3, :3].T + moved[:3, 3]) ** 2).sum(axis=1).max()))

    def matches(self, other: "Grid") -> bool:
        """Tell whether another grid has these voxels, to a twentieth of one, whatever its mask."""
        return self.apart(other) <= NEAR * float(self.voxel_sizes.min())

    @cached_property
    def file_order(self) -> NDArray[np.int64]:
        """Where the voxels of `to_vector` lie in a file, whose first axis runs fastest: (V,) flat indices."""
        indices = np.nonzero(self.mask)
        return np.asarray(np.ravel_multi_index(indices, self.shape, order="F"), dtype=np.int64)

    def with_mask(self, mask: NDArray[np.bool_]) -> "Grid":
        """Return the same grid with another mask."""
        return replace(self, mask=mask)

    def to_vector(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Pick the mask's voxels of a volume (X, Y, Z) in C order: (V,)."""
        return volume[self.mask]

    def to_volume(self, vector: ArrayLike, fill: float = 0.0) -> NDArray[np.generic]:
        """Lay a vector (V,) into a volume (X, Y, Z), ``fill`` outside the mask."""
        values = np.asarray(vector)
        volume = np.full(self.shape, fill, dtype=values.dtype)
        volume[self.mask] = values
        return volume
