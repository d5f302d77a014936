"""Family-wise error of clusters by the resampled distribution of the largest cluster size."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.inference.resampled_clusters import Measure, record


def count(heights: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Count each voxel as one."""
    return np.ones(heights.size)


INFERENCE = record(
    "cluster-size",
    "cluster size by resampling",
    Measure(
        count,
        units="voxels",
        words="their size is their number of voxels",
        label="Largest cluster",
        units_of_sizes="{}",
        words_of_sizes="their size is their area on surfaces, their volume elsewhere",
    ),
    "Largest cluster (voxels)",
)
