"""The voxels that are analysed: a grid in space and a mask on it."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def matches(self, other: "Grid") -> bool:
        """Tell whether another grid has these voxels (to 1e-4 of a voxel at its far corner), whatever its mask."""
        if other.shape != self.shape:
            return False
        size = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).min()
        far = np.append(np.asarray(self.shape, dtype=float), 1.0)
        apart = np.abs((self.affine - other.affine) @ far)[:3].max()
        return bool(max(apart, np.abs(self.affine - other.affine)[:3, 3].max()) <= 1e-4 * max(size, 1e-12))

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
