"""Which elements of a map touch which: by the strides of a box of voxels, or by a list for each element.

Clusters and TFCE walk over either. Every voxel of a box has its neighbours the
same few steps away, which is quick and takes no memory; the vertices of a mesh,
and the elements of several structures side by side, have lists.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Nodes = NDArray[np.int32]

AXES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel -> axes along which they may differ."""


class Neighbours(NamedTuple):
    """The neighbours of V elements; where ``steps`` is empty, those of element i are a part of ``members``."""

    places: Nodes  # (V,) of each element in an array with room for all
    room: int
    steps: Nodes  # (S,) from a place to those of its neighbours, ascending: half of them negative
    starts: Integers  # (V + 1,) members[starts[i] : starts[i + 1]]
    members: Nodes  # (M,) places, ascending for each element
    sizes: Floats  # (V,) mm², mm³, or 1 where none is known; in a box there are none: each voxel counts as 1


def in_box(mask: NDArray[np.bool_], connectivity: int) -> Neighbours:
    """Find the neighbours of a mask's voxels, (X, Y, Z), in the smallest box around them, with a border of one voxel.

    Parameters
    ----------
    mask : ndarray of bool
    connectivity : {6, 18, 26}
        Neighbours of a voxel.

    Raises
    ------
    ValueError
        For another connectivity.
    """
    if connectivity not in AXES:
        raise ValueError(f"The connectivity is {connectivity}; choose from 6, 18 and 26 neighbours.")
    at = np.argwhere(mask)
    if at.size:
        at = at - at.min(axis=0) + 1
    shape = at.max(axis=0, initial=0) + 2
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    steps = np.argwhere(np.ones((3, 3, 3), dtype=bool)) - 1
    near = np.abs(steps).sum(axis=1)
    steps = np.sort(steps[(near > 0) & (near <= AXES[connectivity])] @ strides)
    places, none = (at @ strides).astype(np.int32), np.empty(0, dtype=np.int32)
    return Neighbours(places, int(shape.prod()), steps.astype(np.int32), none.astype(np.int64), none, np.empty(0))


def listed(pairs: NDArray[np.integer], sizes: Floats) -> Neighbours:
    """List the neighbours of elements by the pairs that touch.

    Parameters
    ----------
    pairs : ndarray of int, shape (E, 2)
        Elements, from 0 to V - 1, in any order, each pair once.
    sizes : ndarray, shape (V,)
        Of the elements.

    Raises
    ------
    ValueError
        For pairs of elements that are not there.
    """
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    n = len(sizes)
    if ends.size and (ends.min() < 0 or ends.max() >= n):
        raise ValueError(f"There are pairs of the elements {ends.min()} to {ends.max()}, of {n} that count from 0.")
    rows, members = np.concatenate([ends, ends[:, ::-1]]).T
    order = np.lexsort((members, rows))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
    places, steps = np.arange(n, dtype=np.int32), np.empty(0, dtype=np.int32)
    return Neighbours(places, n, steps, starts, members[order].astype(np.int32), np.array(sizes, dtype=np.float64))


def touching(neighbours: Neighbours, elements: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield which of some elements touch which, a part at a time, each pair in both directions.

    Parameters
    ----------
    neighbours : Neighbours
        Of V elements.
    elements : ndarray of int, shape (M,)
        From 0 to V - 1, in any order.

    Yields
    ------
    own, other : ndarray of int, shape (N,)
        Places among the M.
    """
    numbers = np.full(neighbours.room, -1, dtype=np.int64)
    places, every = neighbours.places[elements], np.arange(elements.size)
    numbers[places] = every
    for step in neighbours.steps:
        other = numbers[places + step]
        yield every[other >= 0], other[other >= 0]
    if not neighbours.steps.size:
        counts = np.diff(neighbours.starts)[elements]
        own = np.repeat(every, counts)
        within = np.arange(own.size) - np.repeat(np.cumsum(counts) - counts, counts)
        other = numbers[neighbours.members[neighbours.starts[elements][own] + within]]
        yield own[other >= 0], other[other >= 0]
