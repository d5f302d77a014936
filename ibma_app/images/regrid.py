"""Bring a map onto another grid, and smooth it, without letting what is not covered bleed in."""

import math
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.block import COVERED, EDGE, OUTSIDE
from ibma_app.core.grid import NEAR, Grid

Floats = NDArray[np.float64]

LATTICE = 1e-3  # of a voxel: where maps are interpolated, voxels that are nearer than this are taken as they are
HALF = 0.5  # a voxel is covered when at least half of what it is made of was
SIGMA_PER_FWHM = 1.0 / np.sqrt(8.0 * np.log(2.0))


def voxels_apart(grid: Grid, source: Grid) -> float:
    """Return how far an image's voxels lie from a grid's at most, mm, whatever the order of its axes (LAS, RAS, ...).

    Infinite where they are not the same voxels, to a twentieth of one.
    """
    axes = _lattice_axes(source, grid, NEAR)
    if axes is None:
        return math.inf
    order = np.zeros((4, 4))
    order[3, 3] = 1.0
    for target, (axis, sign, shift) in enumerate(axes):
        length = grid.shape[target]
        first = shift if sign > 0 else shift - length + 1
        if first != 0 or source.shape[axis] != length:
            return math.inf
        order[axis, target], order[axis, 3] = sign, shift
    return grid.apart(Grid.whole(source.affine @ order, grid.shape))


def same_lattice(grid: Shape, source: Shape) -> bool:
    """Tell whether a map has the very voxels of a grid (to a twentieth) or elements of a shape, in whatever order."""
    if isinstance(grid, Elements):
        return grid.order_in(source) is not None
    return source.box is not None and math.isfinite(voxels_apart(grid, source.box))


def tell_apart(grid: Shape, source: Shape) -> str:
    """Say in what places differ: in the number of voxels, how far away they lie, or in their elements."""
    if grid.box is None or source.box is None:
        return f"{source.words}, not {grid.words}"
    mine, other = _in_world_order(grid.box), _in_world_order(source.box)
    if mine.shape != other.shape:
        return f"{' x '.join(map(str, source.shape))} voxels, not {' x '.join(map(str, grid.shape))}"
    apart = mine.apart(other)
    size = float(grid.box.voxel_sizes.min())
    return f"its voxels lie up to {apart:.3g} mm from there, {apart / size:.2g} of a voxel"


def _in_world_order(grid: Grid) -> Grid:
    """Return a grid with its axes in the world's order and directions; of the mask, the shape alone."""
    order = nib.orientations.io_orientation(grid.affine)
    shape = [grid.shape[axis] for axis in np.argsort(order[:, 0])]
    return Grid.whole(grid.affine @ nib.orientations.inv_ornt_aff(order, grid.shape), tuple(shape))


def reorient(volume: NDArray[Any], source: Shape, grid: Shape) -> NDArray[Any]:
    """Turn a map of the same voxels or elements into the order of a grid or shape; every value stays what it was."""
    if isinstance(grid, Elements):
        order = grid.order_in(source)
        if order is None:
            raise ValueError("The map has other elements.")
        return volume[order]
    axes = None if source.box is None else _lattice_axes(source.box, grid, NEAR)
    if axes is None:
        raise ValueError("The image is not on the grid's lattice.")
    return _pick(volume, axes, grid.shape, 0)


def regrid(
    arrays: Mapping[str, NDArray[Any]], reasons: NDArray[np.uint8], source: Grid, grid: Grid
) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
    """Bring one observation's arrays onto a grid.

    On a shared lattice (flipped, permuted, cropped) voxels are picked, not
    interpolated. Else linear interpolation of value x coverage is divided by
    the interpolated coverage, and a voxel is covered where that is at least
    one half: an edge neither halves an effect nor doubles a weight.

    Parameters
    ----------
    arrays : mapping of str to ndarray, (X', Y', Z')
        Values, 0 where not covered.
    reasons : ndarray of uint8, (X', Y', Z')
        Why a voxel is not covered (`coverage.REASONS`); 0 is covered.
    source : Grid
        Where the arrays lie.
    grid : Grid
        Where they are wanted.

    Returns
    -------
    arrays, reasons
        On the grid's shape.
    """
    axes = _lattice_axes(source, grid, LATTICE)
    if axes is not None:
        moved = {kind: _pick(volume, axes, grid.shape, 0.0) for kind, volume in arrays.items()}
        return moved, _pick(reasons, axes, grid.shape, OUTSIDE)
    matrix = np.linalg.inv(source.affine) @ grid.affine
    covered = reasons == COVERED
    share = _interpolate(covered.astype(np.float64), matrix, grid.shape, order=1)
    inside = share >= HALF
    why = _interpolate(reasons, matrix, grid.shape, order=0, outside=OUTSIDE)
    why[why == COVERED] = EDGE
    why[inside] = COVERED
    result = {}
    for kind, volume in arrays.items():
        value = _interpolate(np.where(covered, volume.astype(np.float64), 0.0), matrix, grid.shape, order=1)
        result[kind] = np.divide(value, share, out=np.zeros(grid.shape), where=inside)
    return result, why


def regrid_mask(mask: NDArray[np.bool_], source: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Bring a mask onto a grid: each voxel takes its nearest neighbour."""
    axes = _lattice_axes(source, grid, LATTICE)
    if axes is not None:
        return _pick(mask, axes, grid.shape, False)
    matrix = np.linalg.inv(source.affine) @ grid.affine
    return _interpolate(mask.astype(np.uint8), matrix, grid.shape, order=0).astype(bool)


def smooth(volume: NDArray[Any], covered: NDArray[np.bool_], fwhm: float, grid: Grid) -> Floats:
    """Smooth a map within what it covers: smoothed value x coverage over smoothed coverage.

    Parameters
    ----------
    volume : ndarray, (X, Y, Z)
        The map.
    covered : ndarray of bool, (X, Y, Z)
        Where it has values; elsewhere the result is 0.
    fwhm : float
        Full width at half maximum of the Gaussian kernel, in mm.
    grid : Grid
        Its voxel sizes are used.
    """
    from scipy.ndimage import gaussian_filter

    sigma = fwhm * SIGMA_PER_FWHM / grid.voxel_sizes
    share = gaussian_filter(covered.astype(np.float64), sigma, mode="constant")
    value = gaussian_filter(np.where(covered, volume.astype(np.float64), 0.0), sigma, mode="constant")
    return np.divide(value, share, out=np.zeros(volume.shape), where=covered)


def world_axes(affine: Floats) -> NDArray[np.int64]:
    """Tell for each axis of an image which axis of the world (0: x, 1: y, 2: z) it is nearest to: (3,)."""
    return np.asarray(nib.orientations.io_orientation(affine)[:, 0], dtype=np.int64)


def to_world_axes(volume: NDArray[Any], affine: Floats) -> NDArray[Any]:
    """Turn a volume's axes into the order and directions of the world's that they are nearest to (RAS+)."""
    turned: NDArray[Any] = nib.orientations.apply_orientation(volume, nib.orientations.io_orientation(affine))
    return turned


def _lattice_axes(source: Grid, grid: Grid, tolerance: float) -> tuple[tuple[int, int, int], ...] | None:
    """For each axis of the grid: which axis of the image it is, its direction and its offset.

    None when the image's voxel centres are further than ``tolerance`` (of a voxel) from the grid's.
    """
    matrix = np.linalg.inv(source.affine) @ grid.affine
    rounded = np.rint(matrix)
    far = np.append(np.asarray(grid.shape, dtype=float), 1.0)
    apart = max(np.abs((matrix - rounded) @ far).max(), np.abs(matrix - rounded)[:3, 3].max())
    turn = np.abs(rounded[:3, :3])
    if apart > tolerance or not ((turn.sum(axis=0) == 1).all() and (turn.sum(axis=1) == 1).all()):
        return None
    axes = []
    for target in range(3):
        axis = int(np.argmax(turn[:, target]))
        axes.append((axis, int(rounded[axis, target]), int(rounded[axis, 3])))
    return tuple(axes)


def _pick(
    volume: NDArray[Any], axes: tuple[tuple[int, int, int], ...], shape: tuple[int, int, int], outside: float
) -> NDArray[Any]:
    """Take an image's voxels in the grid's order; ``outside`` where the image does not reach."""
    result = np.full(shape, outside, dtype=volume.dtype)
    turned = volume.transpose([axis for axis, _, _ in axes])
    wanted, taken = [], []
    for target, (_, sign, shift) in enumerate(axes):
        index = sign * np.arange(shape[target]) + shift
        there = (index >= 0) & (index < turned.shape[target])
        wanted.append(np.flatnonzero(there))
        taken.append(index[there])
    result[np.ix_(*wanted)] = turned[np.ix_(*taken)]
    return result


def _interpolate(
    volume: NDArray[Any], matrix: Floats, shape: tuple[int, int, int], *, order: int, outside: float = 0
) -> NDArray[Any]:
    """Interpolate as nilearn.image.resample_img does (linear or nearest, a constant outside)."""
    from scipy import ndimage  # slow to import, and maps that are on one grid need none of it

    return ndimage.affine_transform(
        volume, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=order, mode="constant", cval=outside
    )
