"""What an estimator is given: the maps' values at a block of voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VoxelBlock:
    """K maps at B voxels. A kind that was not asked for is None.

    Where ``covered`` is False the values mean nothing (they are 0) and must
    not be used.
    """

    covered: NDArray[np.bool_]  # (K, B)
    effect: Floats | None = None  # (K, B)
    variance: Floats | None = None  # (K, B) sampling variance, > 0 where covered
    z: Floats | None = None  # (K, B); of unsigned p: isf(p)
    dof: Floats | None = None  # (K, B) or (K, 1): dof of each map; inf where unknown
    sample_size: Floats | None = None  # (K,)
