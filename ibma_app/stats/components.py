"""Clusters of voxels by union-find: labels, sizes and sums, on the voxels above a threshold alone."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.neighbours import AXES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Lattice(NamedTuple):
    """The positions of the mask's voxels in a volume with a border of one voxel."""

    places: NDArray[np.int32]  # (V,) index into the flat volume
    earlier: NDArray[np.int32]  # (N / 2,) steps to the neighbours that come before
    size: int  # of the flat volume


def make_lattice(mask: NDArray[np.bool_], connectivity: int) -> Lattice:
    """Find the positions of a mask's voxels, (X, Y, Z).

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
        raise ValueError(f"The connectivity of clusters is {connectivity}; choose from 6, 18 and 26 neighbours.")
    shape = np.array(mask.shape) + 2
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    places = (np.argwhere(mask) + 1) @ strides
    steps = np.argwhere(np.ones((3, 3, 3), dtype=bool)) - 1
    steps = steps[np.abs(steps).sum(axis=1) <= AXES[connectivity]] @ strides
    return Lattice(places.astype(np.int32), np.sort(steps[steps < 0]).astype(np.int32), int(shape.prod()))


@inner
def _root(parent: NDArray[np.int32], node: int) -> int:
    """Find a node's root, halving the path."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@inner
def _join(voxels: Integers, lattice: Lattice, volume: NDArray[np.int32], parent: NDArray[np.int32]) -> None:
    """Join neighbours; ``volume`` is all 0 before and after."""
    m = voxels.size
    for i in range(m):
        parent[i] = i
        place = lattice.places[voxels[i]]
        mine = i
        for step in lattice.earlier:
            there = volume[place + step]
            if there > 0:
                other = _root(parent, there - 1)
                if other != mine:
                    if other < mine:
                        parent[mine] = other
                        mine = other
                    else:
                        parent[other] = mine
        volume[place] = i + 1
    for i in range(m):
        volume[lattice.places[voxels[i]]] = 0


@compiled
def _sums(
    voxels: Integers,
    values: Floats,
    lattice: Lattice,
    volume: NDArray[np.int32],
    parent: NDArray[np.int32],
    out: Floats,
) -> float:
    """Write to ``out`` (M,) the sum of values over each voxel's cluster; return the largest."""
    _join(voxels, lattice, volume, parent)
    m = voxels.size
    for i in range(m):
        out[i] = 0.0
    for i in range(m):
        out[_root(parent, i)] += values[i]
    largest = 0.0
    for i in range(m):
        out[i] = out[_root(parent, i)]
        largest = max(largest, out[i])
    return largest


class ClusterWorkspace:
    """Work arrays of one thread, for clusters in one mask.

    Parameters
    ----------
    lattice : Lattice
        From `make_lattice`.
    """

    def __init__(self, lattice: Lattice) -> None:
        self._lattice = lattice
        self._volume = np.zeros(lattice.size, dtype=np.int32)
        self._parent = np.empty(lattice.places.size, dtype=np.int32)
        self._out = np.empty(lattice.places.size)

    def sums(self, voxels: Integers, values: Floats) -> tuple[Floats, float]:
        """Sum values over clusters.

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
        largest = _sums(voxels, values, self._lattice, self._volume, self._parent, self._out)
        return self._out[: voxels.size], float(largest)
