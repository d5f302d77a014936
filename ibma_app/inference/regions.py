"""Names of regions for places in mm, from labelled volumes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibma_app.core.anatomy.atlas import Atlas

NOWHERE = "n/a"
NEAR = (6.0, 20.0)  # mm: where the nearest region is looked for; a place farther away is near none
LEAST_SHARE = 5  # percent: smaller parts of a cluster are not listed

Integers = NDArray[np.int64]


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
    return [_name(atlas, label) for label in _labels_at(atlas, _voxels_at(atlas, _as_places(places)))]


def describe_places(atlas: Atlas, places: ArrayLike) -> list[str]:
    """Name the regions of peaks, as `name_regions`: with their probability, or the nearest region.

    Parameters
    ----------
    atlas : Atlas
    places : array_like, shape (N, 3)
        mm, RAS+.

    Returns
    -------
    list of str
        ``Insula_L``; ``Insula_L (0.62)`` of an atlas of probabilities; ``near
        Insula_L, 4 mm`` outside of every region; ``n/a`` where none is within
        20 mm.
    """
    mm = _as_places(places)
    voxels = _voxels_at(atlas, mm)
    found = []
    for place, voxel, label in zip(mm, voxels, _labels_at(atlas, voxels), strict=True):
        if label == 0:
            found.append(_nearest(atlas, place))
        elif atlas.probability is None:
            found.append(_name(atlas, label))
        else:
            found.append(f"{_name(atlas, label)} ({atlas.probability[tuple(voxel)]:.2f})")
    return found


def describe_composition(atlas: Atlas, places: ArrayLike) -> str:
    """Say which regions a cluster consists of: ``61 % Hippocampus_L, 35 % Amygdala_L``.

    Parameters
    ----------
    atlas : Atlas
    places : array_like, shape (N, 3)
        The cluster's voxels, mm, RAS+.

    Returns
    -------
    str
        Parts of at least 5 %, the largest first; ``n/a`` where there is none.
    """
    labels, counts = np.unique(_labels_at(atlas, _voxels_at(atlas, _as_places(places))), return_counts=True)
    shares = 100.0 * counts / counts.sum()
    order = np.lexsort((labels, -shares))
    listed = [(int(labels[k]), shares[k]) for k in order if shares[k] >= LEAST_SHARE]
    parts = [f"{share:.0f} % {_name(atlas, label) if label else 'outside'}" for label, share in listed]
    return ", ".join(parts) if any(label for label, _ in listed) else NOWHERE


def _as_places(places: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(places, dtype=np.float64).reshape(-1, 3)


def _voxels_at(atlas: Atlas, places: NDArray[np.float64]) -> Integers:
    """Return the atlas' voxel (N, 3) that each place (N, 3) lies in."""
    back = np.linalg.inv(atlas.affine)
    # a hair of slack: halfway between two voxels is the upper one, however the affine is rounded
    return np.floor(places @ back[:3, :3].T + back[:3, 3] + 0.5 + 1e-6).astype(np.int64)


def _labels_at(atlas: Atlas, voxels: Integers) -> Integers:
    """Return the label (N,) of each voxel (N, 3); 0 outside the atlas."""
    inside = np.all((voxels >= 0) & (voxels < atlas.labels.shape), axis=1)
    labels = np.zeros(len(voxels), dtype=np.int64)
    labels[inside] = atlas.labels[tuple(voxels[inside].T)]
    return labels


def _name(atlas: Atlas, label: int) -> str:
    return atlas.names.get(int(label), f"label {label}") if label else NOWHERE


def _nearest(atlas: Atlas, place: NDArray[np.float64]) -> str:
    """Name the region whose voxel lies nearest, and its distance."""
    sizes = np.linalg.norm(atlas.affine[:3, :3], axis=0)
    (centre,) = _voxels_at(atlas, place[None])
    for reach in NEAR:
        steps = np.ceil(reach / sizes).astype(np.int64)
        first = np.clip(centre - steps, 0, atlas.labels.shape)
        last = np.clip(centre + steps + 1, 0, atlas.labels.shape)
        box = atlas.labels[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        there = np.argwhere(box > 0)
        if not len(there):
            continue
        mm = (there + first) @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
        distances = np.linalg.norm(mm - place, axis=1)
        least = int(distances.argmin())
        if distances[least] <= reach:
            return f"near {_name(atlas, box[tuple(there[least])])}, {max(distances[least], 1.0):.0f} mm"
    return NOWHERE


def region_columns(atlases: Sequence[Atlas]) -> tuple[str, ...]:
    """Return the tables' columns of regions: ``region`` for none or one atlas, else one named after each."""
    if len(atlases) < 2:
        return ("region",)
    return tuple(f"region_{atlas.name}" for atlas in atlases)


def composition_columns(atlases: Sequence[Atlas]) -> tuple[str, ...]:
    """Return the tables' columns of what clusters consist of, named as those of regions."""
    return tuple(column.replace("region", "composition", 1) for column in region_columns(atlases))
