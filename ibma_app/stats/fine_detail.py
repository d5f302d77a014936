"""The fine detail of maps: what is left when their own smoothing is taken off."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

LEAST_WEIGHT = 0.1  # of the smoothing kernel inside the coverage: below it a smoothed value would be noise


def fine_detail(volume: Singles, covered: NDArray[np.bool_], sigma: Floats) -> Singles:
    """Subtract a map's Gaussian smoothing within its coverage, and scale it by its root mean square.

    What two samples share is broad (the effect, the anatomy, the smoothing of
    their software); what a sample shares with itself is fine.

    Parameters
    ----------
    volume : (X, Y, Z) array of float32
        0 where not covered.
    covered : (X, Y, Z) array of bool
    sigma : (3,) array
        Standard deviation of the Gaussian along each axis, in voxels.

    Returns
    -------
    (N,) array of float32
        At the covered voxels, in C order; all 0 for a map that is 0 everywhere.
    """
    size = float(np.sqrt(np.mean(np.square(volume[covered], dtype=np.float64)))) if covered.any() else 0.0
    if size == 0.0:
        return np.zeros(int(np.count_nonzero(covered)), dtype=np.float32)
    scaled = (volume / size).astype(np.float32)
    weight = ndimage.gaussian_filter(covered.astype(np.float32), sigma, mode="constant")
    smooth = ndimage.gaussian_filter(scaled, sigma, mode="constant")
    left: Singles = (scaled - smooth / np.maximum(weight, LEAST_WEIGHT))[covered]
    return left
