"""Family-wise error of clusters by the resampled distribution of the largest cluster mass."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.inference.resampled_clusters import Measure, record


def excess(heights: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Take the cluster-forming z off each voxel's height."""
    return heights - floor


INFERENCE = record(
    "cluster-mass",
    "cluster mass by resampling",
    Measure(
        excess,
        units="z above the threshold, summed over voxels",
        words="their mass is the sum of |z| above that threshold",
        label="Largest cluster mass",
        units_of_sizes="z above the threshold times {}",
        words_of_sizes="their mass is the integral of |z| above that threshold over their area (on surfaces) or volume",
    ),
    "Largest cluster mass",
)
