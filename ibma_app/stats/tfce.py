"""Threshold-free cluster enhancement, exactly: the integral over heights by a component tree.

Voxels are taken from the highest down. Between the heights of two voxels no
cluster changes, so that each cluster's part of the integral is known in closed
form. Every local maximum starts a cluster; clusters are joined by union-find,
and what a cluster has gathered is kept at its root (for those that were joined
to it, as a difference), so that a small table of clusters is enough.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, folded, inner
from ibma_app.stats.neighbours import Neighbours

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Nodes = NDArray[np.int32]
Keys = NDArray[np.uint64]

RADIX = 11  # bits sorted in a pass


class _Tree(NamedTuple):
    """Clusters by the order of their local maxima; filled in place."""

    label: Nodes  # (room,) the cluster that each voxel joined, 0: none yet
    parent: Nodes
    size: Floats
    last: Floats  # the height, as an integral, down to which `gathered` is complete
    gathered: Floats


@compiled
def _pack(voxels: Integers, values: Floats, places: Nodes, keys: Keys, counts: NDArray[np.int64]) -> None:
    """Write height and place of each voxel into one number, and count the digits.

    Heights are single precision, whose bits order as they do. ``counts`` is
    (3, 2**RADIX); the digits are those of the complement, as the sort is falling.
    """
    mask = (1 << RADIX) - 1
    counts[:] = 0
    single = np.empty(1, np.float32)
    bits = single.view(np.uint32)
    for i in range(voxels.size):
        single[0] = values[i]
        key = bits[0] ^ np.uint32(0xFFFFFFFF)
        keys[i] = (np.uint64(key) << np.uint64(32)) | np.uint64(places[voxels[i]])
        counts[0, key & mask] += 1
        counts[1, (key >> RADIX) & mask] += 1
        counts[2, (key >> (2 * RADIX)) & mask] += 1


@compiled
def _sort(keys: Keys, spare: Keys, m: int, counts: NDArray[np.int64]) -> None:
    """Sort the first m keys by their upper half, three stable passes; the result is in ``spare``."""
    mask = np.uint64((1 << RADIX) - 1)
    for step in range(3):
        total = 0
        for digit in range(counts.shape[1]):
            here = int(counts[step, digit])
            counts[step, digit] = total
            total += here
        shift = np.uint64(32 + step * RADIX)
        for i in range(m):
            place = np.int64((keys[i] >> shift) & mask)
            spare[counts[step, place]] = keys[i]
            counts[step, place] += 1
        keys, spare = spare, keys


@folded
def _power(base: float, exponent: float) -> float:
    """Raise to a power; the usual exponents without pow."""
    if exponent == 0.5:
        return np.sqrt(base)
    if exponent == 1.0:
        return base
    if exponent == 2.0:
        return base * base
    if exponent == 3.0:
        return base * base * base
    return base**exponent


@folded
def _root(tree: _Tree, cluster: int) -> int:
    """Find a cluster's root, halving the path and carrying the differences along."""
    parent = tree.parent
    while True:
        above = parent[cluster]
        further = parent[above]
        if further == above:
            return above
        tree.gathered[cluster] += tree.gathered[above]
        parent[cluster] = further
        cluster = further


@folded
def _join(tree: _Tree, one: int, other: int) -> int:
    """Join two roots that are complete down to the same height, the smaller to the larger."""
    if tree.size[other] > tree.size[one]:
        one, other = other, one
    tree.parent[other] = one
    tree.size[one] += tree.size[other]
    tree.gathered[other] -= tree.gathered[one]
    return one


@folded
def _settle(tree: _Tree, root: int, here: float, e: float) -> None:
    """Complete what a root has gathered down to a height."""
    tree.gathered[root] += _power(tree.size[root], e) * (tree.last[root] - here)
    tree.last[root] = here


@inner
def _join_all(tree: _Tree, near: Nodes, here: float, e: float) -> int:
    """Join the clusters of some neighbours (0: none) and return the root."""
    mine = 0
    for cluster in near:
        if cluster == 0 or tree.parent[cluster] == mine:
            continue
        root = _root(tree, cluster)
        if root != mine:
            _settle(tree, root, here, e)
            mine = root if mine == 0 else _join(tree, mine, root)
    return mine


@compiled
def _grow(keys: Keys, m: int, around: Neighbours, most: int, e: float, h1: float, tree: _Tree, before: Floats) -> int:
    """Take voxels from the highest down; return the number of clusters begun, which count from 1.

    ``before`` (m,) becomes what the cluster had gathered when the voxel joined;
    ``most`` is the largest number of neighbours. Most voxels have neighbours in
    one cluster only, whose root is found at once: this case is found without a
    branch for each neighbour, which would be mispredicted. Where no neighbour
    has a cluster yet, 0 less 1 is the largest number without a sign.
    """
    label, parent, size, last, gathered = tree.label, tree.parent, tree.size, tree.last, tree.gathered
    single = np.empty(1, np.float32)
    bits = single.view(np.uint32)
    near = np.empty(most, np.int32)
    steps, starts, members = around.steps, around.starts, around.members
    by_steps = steps.size > 0
    share = 1.0 / h1
    begun = 0
    parent[0] = 0
    for i in range(m):
        place = np.int64(keys[i] & np.uint64(0xFFFFFFFF))
        bits[0] = np.uint32(keys[i] >> np.uint64(32)) ^ np.uint32(0xFFFFFFFF)
        here = _power(np.float64(single[0]), h1) * share
        mine, least = np.int32(0), np.uint32(0xFFFFFFFF)
        first = 0 if by_steps else starts[place]
        count = steps.size if by_steps else starts[place + 1] - first
        for n in range(count):
            near[n] = parent[label[place + steps[n] if by_steps else members[first + n]]]
            mine = max(mine, near[n])
            least = min(least, np.uint32(near[n] - np.int32(1)))
        alike = (parent[mine] == mine) & (np.uint32(mine - np.int32(1)) == least)
        if mine == 0:
            begun += 1
            mine = np.int32(begun)
            parent[mine], size[mine], last[mine], gathered[mine] = mine, 0.0, here, 0.0
        elif alike:
            _settle(tree, mine, here, e)
        else:
            mine = np.int32(_join_all(tree, near[:count], here, e))
        size[mine] += around.sizes[place] if around.sizes.size else 1.0
        label[place] = mine
        before[i] = gathered[mine]
    for cluster in range(1, begun + 1):
        if parent[cluster] == cluster:
            gathered[cluster] += _power(size[cluster], e) * last[cluster]
    return begun


@inner
def _total(tree: _Tree, cluster: int) -> float:
    """Return what a cluster has gathered, its own and its ancestors'."""
    total = tree.gathered[cluster]
    while tree.parent[cluster] != cluster:
        cluster = tree.parent[cluster]
        total += tree.gathered[cluster]
    return total


@compiled
def _largest(tree: _Tree, begun: int) -> float:
    """Return the largest value, which the first voxel of a cluster has: it was in it from the start."""
    largest = 0.0
    for cluster in range(1, begun + 1):
        largest = max(largest, _total(tree, cluster))
    return largest


@compiled
def _spread(keys: Keys, m: int, tree: _Tree, before: Floats, out: Floats) -> None:
    """Write every voxel's value by its place."""
    for i in range(m):
        place = np.int64(keys[i] & np.uint64(0xFFFFFFFF))
        out[place] = _total(tree, tree.label[place]) - before[i]


class TfceWorkspace:
    """Work arrays of one thread, for TFCE in one mask (Smith & Nichols 2009).

    Parameters
    ----------
    neighbours : Neighbours
        Of the mask's voxels. An extent is a sum of their sizes, and of voxels in a box their number.
    e, h : float
        Exponents of extent and of height.
    """

    def __init__(self, neighbours: Neighbours, e: float = 0.5, h: float = 2.0) -> None:
        n = neighbours.places.size
        self._around, self._e, self._h1 = neighbours, float(e), float(h) + 1.0
        self._most = max(neighbours.steps.size, int(np.diff(neighbours.starts).max(initial=0)))
        self._keys, self._sorted = np.empty(n, dtype=np.uint64), np.empty(n, dtype=np.uint64)
        self._counts = np.empty((3, 1 << RADIX), dtype=np.int64)
        self._before = np.empty(n)
        label, parent = np.empty(neighbours.room, dtype=np.int32), np.empty(n + 1, dtype=np.int32)
        self._tree = _Tree(label, parent, np.empty(n + 1), np.empty(n + 1), np.empty(n + 1))

    def largest(self, voxels: Integers, values: Floats) -> float:
        """Return the largest enhanced value; 0 without voxels.

        Parameters
        ----------
        voxels : ndarray of int64, shape (M,)
            Indices into the mask: all voxels above 0.
        values : ndarray, shape (M,)
            Their heights, > 0; rounded to single precision (6e-8 relative).
        """
        return float(_largest(self._tree, self._grow(voxels, values)))

    def each(self, voxels: Integers, values: Floats) -> Floats:
        """Return the enhanced value of each voxel, (M,); parameters as in `largest`."""
        self._grow(voxels, values)
        out = np.zeros(self._around.room)
        _spread(self._sorted, voxels.size, self._tree, self._before, out)
        return out[self._around.places[voxels]]

    def _grow(self, voxels: Integers, values: Floats) -> int:
        """Sort, and build the tree."""
        m = voxels.size
        _pack(voxels, values, self._around.places, self._keys, self._counts)
        _sort(self._keys, self._sorted, m, self._counts)
        self._tree.label.fill(0)
        begun: int = _grow(self._sorted, m, self._around, self._most, self._e, self._h1, self._tree, self._before)
        return begun
