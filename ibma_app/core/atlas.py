"""Regions of the brain: a volume of labels and their names."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Atlas:
    """A parcellation: each voxel belongs to one region, or to none (label 0)."""

    name: str
    labels: NDArray[np.int32]  # (X, Y, Z), 0: no region
    affine: NDArray[np.float64]  # (4, 4), voxel indices to mm, RAS+
    names: Mapping[int, str]  # label -> region; a label without a name goes by its number
