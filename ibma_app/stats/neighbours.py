"""Lists of neighbours: which elements touch which, and how large each is, where no box of voxels says so.

The corners of a mesh, some voxels of a box, and several of both side by side
have one form, in which clusters and TFCE walk over all of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

AXES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel -> axes along which they may differ."""


class Neighbours(NamedTuple):
    """The neighbours of N elements, row after row: those of element i are ``members[starts[i] : starts[i + 1]]``."""

    starts: Integers  # (N + 1,)
    members: NDArray[np.int32]  # (M,) ascending in each row; an element is no neighbour of its own
    sizes: Floats  # (N,) mm² of a vertex, mm³ of a voxel, 1 of what has no size


def vertex_areas(coordinates: Floats, triangles: NDArray[np.integer]) -> Floats:
    """Return the area that belongs to each vertex of a mesh: a third of each of its triangles.

    Parameters
    ----------
    coordinates : ndarray, shape (N, 3)
        In mm.
    triangles : ndarray of int, shape (T, 3)
        The vertices of each.

    Returns
    -------
    ndarray, shape (N,)
        In mm²; 0 of a vertex without triangles.
    """
    first, second, third = (np.asarray(coordinates, dtype=np.float64)[corner] for corner in np.asarray(triangles).T)
    areas = np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2.0
    of_vertices: Floats = np.bincount(np.ravel(triangles), np.repeat(areas / 3.0, 3), len(coordinates))
    return of_vertices


def of_triangles(coordinates: Floats, triangles: NDArray[np.integer]) -> Neighbours:
    """List the neighbours of a mesh's vertices: those at the other end of an edge.

    Parameters
    ----------
    coordinates : ndarray, shape (N, 3)
        In mm.
    triangles : ndarray of int, shape (T, 3)
        The vertices of each, from 0 to N - 1.

    Returns
    -------
    Neighbours
        With the areas of `vertex_areas`.

    Raises
    ------
    ValueError
        For triangles of vertices that are not there.
    """
    n, corners = len(coordinates), np.asarray(triangles, dtype=np.int64)
    if corners.size and (corners.min() < 0 or corners.max() >= n):
        raise ValueError(f"The triangles have vertices {corners.min()} to {corners.max()}, of {n} that count from 0.")
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    ends = ends[ends[:, 0] != ends[:, 1]]
    pairs = np.unique(np.concatenate([ends @ [n, 1], ends @ [1, n]]))  # row * n + member, once
    return _of_rows(pairs // max(n, 1), pairs % max(n, 1), vertex_areas(coordinates, corners))


def of_voxels(indices: NDArray[np.integer], connectivity: int, volume: float = 1.0) -> Neighbours:
    """List the neighbours of some voxels of a box.

    Parameters
    ----------
    indices : ndarray of int, shape (N, 3)
        In any order, each voxel once.
    connectivity : {6, 18, 26}
        Neighbours of a voxel.
    volume : float
        Of a voxel, mm³.

    Raises
    ------
    ValueError
        For another connectivity, and for a voxel that stands twice.
    """
    if connectivity not in AXES:
        raise ValueError(f"The connectivity is {connectivity}; choose from 6, 18 and 26 neighbours.")
    at = np.asarray(indices, dtype=np.int64).reshape(-1, 3)
    sizes = np.full(len(at), float(volume))
    if at.size:
        at = at - at.min(axis=0) + 1
    shape = at.max(axis=0, initial=0) + 2
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    places, box = at @ strides, np.full(int(shape.prod()), -1, dtype=np.int32)
    box[places] = np.arange(len(at))
    if np.count_nonzero(box >= 0) != len(at):
        raise ValueError("A voxel stands twice among the indices.")
    steps = np.argwhere(np.ones((3, 3, 3), dtype=bool)) - 1
    near = np.abs(steps).sum(axis=1)
    steps = steps[(near > 0) & (near <= AXES[connectivity])] @ strides
    found = box[places[:, None] + steps]
    rows, columns = np.nonzero(found >= 0)
    return _of_rows(rows, found[rows, columns], sizes)


def side_by_side(parts: Sequence[Neighbours]) -> Neighbours:
    """Join parts whose elements follow each other; no element has a neighbour in another part."""
    firsts = np.cumsum([0, *(part.sizes.size for part in parts)])
    rows = [_rows(part) + first for part, first in zip(parts, firsts, strict=False)]
    members = [part.members + np.int64(first) for part, first in zip(parts, firsts, strict=False)]
    empty = np.empty(0, dtype=np.int64)
    sizes = np.concatenate([np.empty(0), *(part.sizes for part in parts)])
    return _of_rows(np.concatenate([empty, *rows]), np.concatenate([empty, *members]), sizes)


def restrict(neighbours: Neighbours, kept: NDArray[np.integer] | NDArray[np.bool_]) -> Neighbours:
    """Leave some elements out; those kept keep their sizes, and are counted anew.

    Parameters
    ----------
    neighbours : Neighbours
        Of N elements.
    kept : ndarray
        A mask (N,), or the indices of the elements that stay, in their new order.
    """
    kept = np.asarray(kept)
    indices = np.flatnonzero(kept) if kept.dtype == np.bool_ else kept.astype(np.int64)
    new = np.full(neighbours.sizes.size, -1, dtype=np.int64)
    new[indices] = np.arange(indices.size)
    rows, members = new[_rows(neighbours)], new[neighbours.members]
    stays = (rows >= 0) & (members >= 0)
    return _of_rows(rows[stays], members[stays], neighbours.sizes[indices])


def _rows(neighbours: Neighbours) -> Integers:
    """Return the element to whose row each member belongs, (M,)."""
    return np.repeat(np.arange(neighbours.sizes.size), np.diff(neighbours.starts))


def _of_rows(rows: Integers, members: NDArray[np.integer], sizes: Floats) -> Neighbours:
    """Make the record of pairs of neighbours in any order."""
    order = np.lexsort((members, rows))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=sizes.size))]).astype(np.int64)
    return Neighbours(starts, members[order].astype(np.int32), np.ascontiguousarray(sizes, dtype=np.float64))
