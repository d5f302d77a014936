"""Names of regions for places in mm, from labelled volumes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ibma_app.core.atlas import Atlas

NOWHERE = "n/a"


def name_regions(atlas: Atlas, places: ArrayLike) -> list[str]:
    """Return the region of each place: that of the atlas' nearest voxel.

    Parameters
    ----------
    atlas : Atlas
        On any grid of the same space.
    places : array_like, shape (N, 3)
        mm, RAS+.

    Returns
    -------
    list of str
        ``n/a`` outside the atlas and where it has no label; a label without a
        name as ``label 17``.
    """
    mm = np.asarray(places, dtype=np.float64).reshape(-1, 3)
    back = np.linalg.inv(atlas.affine)
    # a hair of slack: halfway between two voxels is the upper one, however the affine is rounded
    voxels = np.floor(mm @ back[:3, :3].T + back[:3, 3] + 0.5 + 1e-6).astype(np.int64)
    inside = np.all((voxels >= 0) & (voxels < atlas.labels.shape), axis=1)
    labels = np.zeros(len(mm), dtype=np.int64)
    labels[inside] = atlas.labels[tuple(voxels[inside].T)]
    return [atlas.names.get(int(label), f"label {label}") if label else NOWHERE for label in labels]


def region_columns(atlases: Sequence[Atlas]) -> tuple[str, ...]:
    """Return the tables' columns: ``region`` for none or one atlas, else one named after each."""
    if len(atlases) < 2:
        return ("region",)
    return tuple(f"region_{atlas.name}" for atlas in atlases)
