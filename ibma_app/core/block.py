"""The input of an estimator: the maps' values at a block of voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
