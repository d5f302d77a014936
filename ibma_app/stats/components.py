"""Clusters of voxels by union-find: labels, sizes and sums, on the voxels above a threshold alone."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.neighbours import Neighbours

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Nodes = NDArray[np.int32]


@inner
def _root(parent: Nodes, node: int) -> int:
    """Find a node's root, halving the path."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@inner
def _join(voxels: Integers, around: Neighbours, numbers: Nodes, parent: Nodes) -> None:
    """Join neighbours; ``numbers`` (room,) is all 0 before and after, and counts the voxels passed from 1."""
    steps, starts, members = around.steps, around.starts, around.members
    by_steps = steps.size > 0
    for i in range(voxels.size):
        parent[i] = i
        place = around.places[voxels[i]]
        mine = i
        first = 0 if by_steps else starts[place]
        count = steps.size // 2 if by_steps else starts[place + 1] - first
        for n in range(count):
            there = numbers[place + steps[n] if by_steps else members[first + n]]
            if there > 0:
                other = _root(parent, there - 1)
                if other != mine:
                    if other < mine:
                        parent[mine] = other
                        mine = other
                    else:
                        parent[other] = mine
        numbers[place] = i + 1
    for voxel in voxels:
        numbers[around.places[voxel]] = 0


@compiled
def _sums(voxels: Integers, values: Floats, around: Neighbours, numbers: Nodes, parent: Nodes, out: Floats) -> float:
    """Write to ``out`` (M,) the sum of values times sizes over each voxel's cluster; return the largest.

    ``parent`` becomes the first voxel of each voxel's cluster, as a place among the M.
    """
    _join(voxels, around, numbers, parent)
    m = voxels.size
    for i in range(m):
        out[i] = 0.0
    for i in range(m):
        out[_root(parent, i)] += values[i] * around.sizes[voxels[i]] if around.sizes.size else values[i]
    largest = 0.0
    for i in range(m):
        parent[i] = _root(parent, i)
        out[i] = out[parent[i]]
        largest = max(largest, out[i])
    return largest


class ClusterWorkspace:
    """Work arrays of one thread, for clusters in one mask.

    Parameters
    ----------
    neighbours : Neighbours
        Of the mask's voxels.
    """

    def __init__(self, neighbours: Neighbours) -> None:
        self._around = neighbours
        self._numbers = np.zeros(neighbours.room, dtype=np.int32)
        self._parent = np.empty(neighbours.places.size, dtype=np.int32)
        self._out = np.empty(neighbours.places.size)

    def sums(self, voxels: Integers, values: Floats) -> tuple[Floats, float]:
        """Sum values over clusters, each times its voxel's size.

        Parameters
        ----------
        voxels : ndarray of int64, shape (M,)
            Indices into the mask, ascending: the voxels above the threshold.
        values : ndarray, shape (M,)
            1 for sizes; heights above the threshold for masses.

        Returns
        -------
        ndarray, shape (M,)
            The sum over each voxel's cluster; a view that the next call overwrites.
        float
            The largest, 0 without voxels.
        """
        largest = _sums(voxels, values, self._around, self._numbers, self._parent, self._out)
        return self._out[: voxels.size], float(largest)

    def labels(self, voxels: Integers) -> Integers:
        """Number the clusters of some voxels, (M,), from 1 on in the order of their first voxels.

        Parameters
        ----------
        voxels : ndarray of int64, shape (M,)
            As in `sums`.
        """
        self.sums(voxels, np.zeros(voxels.size))
        labels = np.unique(self._parent[: voxels.size], return_inverse=True)[1]
        return labels.astype(np.int64) + 1
