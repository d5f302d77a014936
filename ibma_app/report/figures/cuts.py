"""Where axial slices are laid: through what was found."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid

Floats = NDArray[np.float64]

MOST_CUTS = 14
ROW_OF_CUTS = 7  # so many are drawn where the clusters have them, few as they may be
APART = 2  # slices between one that is added and its neighbours, at least


def find_cuts(grid: Grid, found: NDArray[np.bool_], z: Floats) -> tuple[float, ...]:
    """Choose axial slices through clusters: each one's peak, in their order, unless a slice shows the cluster already.

    Parameters
    ----------
    grid : Grid
    found : (X, Y, Z) array of bool
        What is significant.
    z : (X, Y, Z) array

    Returns
    -------
    tuple of float
        z in mm, rising: at most `MOST_CUTS`; empty where nothing was found.
    """
    from scipy.ndimage import label

    voxels = np.argwhere(found)
    if not len(voxels):
        return ()
    heights = voxels @ grid.affine[2, :3] + grid.affine[2, 3]
    step = float(np.abs(grid.affine[2, :3]).max())
    low = heights.min()
    slices = np.rint((heights - low) / step).astype(np.int64)
    clusters = label(found, np.ones((3, 3, 3)))[0][found]
    sizes = np.abs(z[found])
    chosen: list[int] = []
    shown: set[int] = set()
    for index in np.argsort(-sizes, kind="stable"):
        if len(chosen) == MOST_CUTS:
            break
        if clusters[index] not in shown:
            chosen.append(int(slices[index]))
            shown.update(clusters[slices == slices[index]].tolist())
    counts = np.bincount(slices)
    for one in np.argsort(-counts, kind="stable").tolist():
        if len(chosen) >= ROW_OF_CUTS or counts[one] == 0:
            break
        if min(abs(one - other) for other in chosen) > APART:
            chosen.append(one)
    return tuple(float(low + step * one) for one in sorted(chosen))
