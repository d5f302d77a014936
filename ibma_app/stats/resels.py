"""The smoothness of residuals, and the resolution elements (resels) of a mask.

The roughness of a field is the covariance of its spatial derivatives; that of
a Gaussian kernel with the same roughness gives the FWHM. Rules are those of
SPM12 (spm_est_smoothness), so that numbers agree: forward differences of
standardised residuals at voxels whose cube of forward neighbours lies in the
mask, difference 0 beyond the last plane of the image.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibma_app.stats.compiled import compiled, inner

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

FOUR_LOG_2 = 4.0 * math.log(2.0)
RESELS, AXES, COUNT = 0, 1, 4  # columns of a plane's sums


class Width(NamedTuple):
    """The result of `fwhm_of`."""

    fwhm: tuple[float, float, float]  # voxels; 1 along an axis on which the mask has one voxel
    n_voxels: int  # voxels averaged over


def count_resels(mask: Bools, fwhm: ArrayLike) -> Floats:
    """Count the resolution elements of a mask in 0 to 3 dimensions.

    From its vertices, edges, faces and cubes (Worsley et al. 1996, Human Brain
    Mapping 4, 58-73; SPM's spm_resels_vol).

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    fwhm : array_like, shape (3,)
        Voxels.

    Returns
    -------
    ndarray, shape (4,)
        Euler characteristic, diameter, half the surface, volume, in resels.
    """
    m = np.asarray(mask, dtype=bool)
    ex, ey, ez = m[1:] & m[:-1], m[:, 1:] & m[:, :-1], m[:, :, 1:] & m[:, :, :-1]
    fxy, fxz, fyz = ex[:, 1:] & ex[:, :-1], ex[:, :, 1:] & ex[:, :, :-1], ey[:, :, 1:] & ey[:, :, :-1]
    cubes = fxy[:, :, 1:] & fxy[:, :, :-1]
    p, c = int(np.count_nonzero(m)), int(np.count_nonzero(cubes))
    x, y, z = (int(np.count_nonzero(edges)) for edges in (ex, ey, ez))
    xy, xz, yz = (int(np.count_nonzero(faces)) for faces in (fxy, fxz, fyz))
    rx, ry, rz = 1.0 / np.asarray(fwhm, dtype=np.float64)
    return np.array(
        [
            float(p - (x + y + z) + (xy + xz + yz) - c),
            (x - xy - xz + c) * rx + (y - xy - yz + c) * ry + (z - xz - yz + c) * rz,
            (xy - c) * rx * ry + (xz - c) * rx * rz + (yz - c) * ry * rz,
            c * rx * ry * rz,
        ]
    )


def extended_axes(mask: Bools) -> Bools:
    """Return along which axes a mask (X, Y, Z) has more than one plane: (3,)."""
    planes = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([found.size > 1 and found[-1] > found[0] for found in planes])


@inner
def _same_maps(covered: Bools, counts: Integers, a: int, b: int) -> bool:
    """Whether two voxels are covered by the same maps; ``covered`` is (N, K)."""
    if counts[a] != counts[b]:
        return False
    return counts[a] == covered.shape[1] or bool(np.all(covered[a] == covered[b]))


@inner
def _cube_is_whole(places: Integers, i: int, j: int, k: int, step: Integers, covered: Bools, counts: Integers) -> bool:
    """Whether a voxel's forward cube lies in the mask and the same maps cover its corners."""
    here = places[i, j, k]
    for a in range(step[0] + 1):
        for b in range(step[1] + 1):
            for c in range(step[2] + 1):
                there = places[i + a, j + b, k + c]
                if there < 0 or not _same_maps(covered, counts, here, there):
                    return False
    return True


@inner
def _roughness(residuals: Floats, here: int, there: Integers, out: Floats) -> None:
    """Sum the products of forward differences over maps: (3, 3), upper triangle."""
    for a in range(3):
        for b in range(a, 3):
            out[a, b] = 0.0
    for k in range(residuals.shape[1]):
        value = residuals[here, k]
        x = residuals[there[0], k] - value
        y = residuals[there[1], k] - value
        z = residuals[there[2], k] - value
        out[0, 0] += x * x
        out[0, 1] += x * y
        out[0, 2] += x * z
        out[1, 1] += y * y
        out[1, 2] += y * z
        out[2, 2] += z * z


@inner
def _determinant(rough: Floats, axes: Bools) -> float:
    """Return the determinant of a symmetric (3, 3) matrix over some axes, at least 0."""
    a, b, c = 1.0, 1.0, 1.0
    if axes[0]:
        a = rough[0, 0]
    if axes[1]:
        b = rough[1, 1]
    if axes[2]:
        c = rough[2, 2]
    # differences along an axis of one plane are 0, and so are their products
    xy, xz, yz = rough[0, 1], rough[0, 2], rough[1, 2]
    return max(a * b * c + 2.0 * xy * yz * xz - a * yz * yz - xy * xy * c - xz * xz * b, 0.0)


@inner
def _count_maps(covered: Bools, sound: Bools) -> Integers:
    """Count the maps of each voxel; a negative number, unlike any other's, where residuals are not defined."""
    counts = np.zeros(covered.shape[0], np.int64)
    for i in range(covered.shape[0]):
        counts[i] = np.sum(covered[i]) if sound[i] else -1 - i
    return counts


@inner
def _add_voxel(rough: Floats, axes: Bools, scale: float, sums: Floats) -> None:
    """Add one voxel's resels to its plane's sums (5,)."""
    dimensions = 0
    for a in range(3):
        dimensions += 1 if axes[a] else 0
        for b in range(a, 3):
            rough[a, b] *= scale
    sums[RESELS] += np.sqrt(_determinant(rough, axes) / FOUR_LOG_2**dimensions)
    for axis in range(3):
        sums[AXES + axis] += np.sqrt(rough[axis, axis] / FOUR_LOG_2)
    sums[COUNT] += 1.0


@compiled
def _sum_planes(
    residuals: Floats, covered: Bools, sound: Bools, places: Integers, axes: Bools, scale: float, sums: Floats
) -> None:
    """Add up the resels of each voxel of the first planes; see `sum_roughness`."""
    counts = _count_maps(covered, sound)
    rough = np.zeros((3, 3))
    step = np.zeros(3, np.int64)
    there = np.zeros(3, np.int64)
    nx, ny, nz = places.shape
    for i in range(sums.shape[0]):
        step[0] = 1 if axes[0] and i + 1 < nx else 0
        for j in range(ny):
            step[1] = 1 if axes[1] and j + 1 < ny else 0
            for k in range(nz):
                step[2] = 1 if axes[2] and k + 1 < nz else 0
                here = places[i, j, k]
                if here >= 0 and counts[here] >= 0 and _cube_is_whole(places, i, j, k, step, covered, counts):
                    there[0] = places[i + step[0], j, k]
                    there[1] = places[i, j + step[1], k]
                    there[2] = places[i, j, k + step[2]]
                    _roughness(residuals, here, there, rough)
                    _add_voxel(rough, axes, scale, sums[i])


def sum_roughness(
    residuals: Floats,
    covered: Bools,
    sound: Bools,
    places: Integers,
    axes: Bools,
    n_planes: int,
    scale: float = 1.0,
) -> Floats:
    """Add up the resels per voxel over some planes of a mask.

    Parameters
    ----------
    residuals : ndarray, shape (N, K)
        Of N voxels, each over the root of its residual sum of squares over all
        maps; 0 where a map does not cover a voxel.
    covered : ndarray of bool, shape (N, K')
        By which maps; differences are taken between voxels with the same ones.
    sound : ndarray of bool, shape (N,)
        False: the residuals of a voxel are not defined (all are 0).
    places : ndarray of int64, shape (planes, Y, Z)
        Rows of ``residuals``, -1 outside the mask. One plane more than
        ``n_planes``, except at the end of the image.
    axes : ndarray of bool, shape (3,)
        From `extended_axes`.
    n_planes : int
        Number of planes to add up.
    scale : float
        Number of all maps over that of the maps in ``residuals``.

    Returns
    -------
    ndarray, shape (n_planes, 5)
        For `fwhm_of`, which takes the rows of all planes of the image.
    """
    sums = np.zeros((n_planes, 5))
    _sum_planes(
        np.ascontiguousarray(residuals, dtype=np.float64),
        np.ascontiguousarray(covered, dtype=np.bool_),
        np.ascontiguousarray(sound, dtype=np.bool_),
        np.ascontiguousarray(places, dtype=np.int64),
        np.ascontiguousarray(axes, dtype=np.bool_),
        float(scale),
        sums,
    )
    return sums


def fwhm_of(sums: Floats, axes: Bools) -> Width:
    """Turn the planes' sums into a FWHM.

    The axes' widths keep their proportions; their product is that of the
    unbiased mean of resels per voxel (Worsley 1996; Kiebel et al. 1999,
    NeuroImage 10, 756-766; Hayasaka et al. 2004, NeuroImage 22, 676-687).

    Parameters
    ----------
    sums : ndarray, shape (X, 5)
        From `sum_roughness`.
    axes : ndarray of bool, shape (3,)

    Raises
    ------
    ValueError
        When no voxel has its neighbours in the mask, or nothing varies.
    """
    if not axes.any():
        return Width((1.0, 1.0, 1.0), 0)
    total = sums.sum(axis=0)
    if not total[COUNT] > 0.0:
        raise ValueError("no voxel has all its neighbours in the mask, covered by the same maps")
    resels = total[RESELS] / total[COUNT]
    along = total[AXES : AXES + 3][axes] / total[COUNT]
    if not (resels > 0.0 and np.all(along > 0.0)):
        raise ValueError("the residuals do not vary in space")
    power = 1.0 / along.size
    fwhm = np.ones(3)
    fwhm[axes] = np.prod(along) ** power / (resels**power * along)
    x, y, z = fwhm
    return Width((float(x), float(y), float(z)), int(total[COUNT]))
