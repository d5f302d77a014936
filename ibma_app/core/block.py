"""The input of an estimator: the maps' values at a block of voxels, and why a map covers a voxel or does not."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Reasons = NDArray[np.uint8]
Indices = NDArray[np.integer[Any]]

MIN_COVERAGE = {"run": 0.0, "subject": 1.0, "study": 0.75}
"""Default share of the maps that must cover a voxel, by unit; 0: any map."""

REASONS = (
    "covered",
    "NaN or infinite",
    "background (0)",
    "variance zero or negative",
    "variance absurdly small",
    "outside the field of view",
    "edge of what the map covers",
)
"""The meaning of the codes in an array of reasons; 0 is covered."""
COVERED, NOT_FINITE, BACKGROUND, VARIANCE_NOT_POSITIVE, VARIANCE_ABSURD, OUTSIDE, EDGE = range(len(REASONS))


@dataclass(frozen=True, eq=False)
class VoxelBlock:
    """K maps at B voxels. A kind of map that is not needed is None.

    Where ``covered`` is False there are no values (they are 0), and they must
    not be used.
    """

    covered: NDArray[np.bool_]  # (K, B)
    effect: Floats | None = None  # (K, B)
    variance: Floats | None = None  # (K, B) sampling variance, > 0 where covered
    z: Floats | None = None  # (K, B); of unsigned p: isf(p)
    dof: Floats | None = None  # (K, B) or (K, 1): dof of each map; inf where unknown
    sample_size: Floats | None = None  # (K,)


class Blocks(Protocol):
    """Maps that are read by blocks of voxels."""

    @property
    def n_maps(self) -> int:
        """K."""

    @property
    def n_voxels(self) -> int:
        """V."""

    def read(self, start: int, stop: int) -> VoxelBlock:
        """Read voxels ``start`` to ``stop`` of every map."""
