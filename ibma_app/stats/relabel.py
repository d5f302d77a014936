"""Relabellings of maps under the null: permutations and sign flips, all distinct ones or random ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Relabellings:
    """How K maps are relabelled; the first relabelling is the identity."""

    orders: NDArray[np.int32]  # (D, K) the row of the design that each map gets
    signs: NDArray[np.int8]  # (D, K) 1 or -1, by which each map is multiplied
    exhaustive: bool
    mirrored: bool = False  # each stands for itself and its mirror image, which scores the same

    @property
    def n_drawn(self) -> int:
        """D, the relabellings to be computed."""
        return int(self.orders.shape[0])

    @property
    def size(self) -> int:
        """R, the relabellings that they stand for, mirror images included."""
        return self.n_drawn * (2 if self.mirrored else 1)


def generator(seed: int, index: int) -> np.random.Generator:
    """Return the random numbers of one relabelling: a counter keyed by seed and index (Philox)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def flip_signs(n_maps: int, blocks: Integers | None, limit: int, seed: int, *, symmetric: bool) -> Relabellings:
    """Draw sign flips.

    Parameters
    ----------
    n_maps : int
        K.
    blocks : ndarray of int, shape (K,), or None
        Maps whose signs turn together; None: each map alone.
    limit : int
        R: when there are no more flips than this, all of them; else R random ones.
    seed : int
    symmetric : bool
        The score does not change when all signs turn (two-sided): of all
        flips, half are computed and the others mirror them.
    """
    groups = np.arange(n_maps) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    exhaustive = n_groups < 63 and 2**n_groups <= limit
    if exhaustive:
        free = n_groups - 1 if symmetric else n_groups
        numbers = np.arange(2**free, dtype=np.int64)
        flipped = (numbers[:, None] >> np.arange(n_groups)[None]) & 1  # number 0 is the identity
    else:
        flipped = np.zeros((limit, n_groups), dtype=np.int64)
        for index in range(1, limit):
            flipped[index] = generator(seed, index).integers(0, 2, n_groups)
    signs = (1 - 2 * flipped[:, groups]).astype(np.int8)
    orders = np.broadcast_to(np.arange(n_maps, dtype=np.int32), signs.shape)
    return Relabellings(orders, signs, exhaustive, mirrored=exhaustive and symmetric)


def rows_within(blocks: Integers) -> list[Integers]:
    """List sets of places, (M, 1) each: rows of one block, (K,), change with each other."""
    return [np.flatnonzero(blocks == block)[:, None] for block in np.unique(blocks)]


def whole_blocks(blocks: Integers) -> list[Integers]:
    """List sets of places, (M, rows of each): blocks of one size change with each other, rows keep their order."""
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    sizes = sorted({rows.size for rows in members})
    return [np.array([rows for rows in members if rows.size == size]) for size in sizes]


def whole_clusters(clusters: Integers, places: Integers, units: Integers, inside: Integers) -> list[Integers]:
    """List sets of places, (M, rows of each): units of like clusters change with each other, row for row.

    Parameters
    ----------
    clusters : ndarray of int, shape (K,)
    places : ndarray of int, shape (K,)
        Rows of one number are the same condition of their clusters.
    units : ndarray of int, shape (K,)
        What is exchanged: the clusters themselves, or blocks of some.
    inside : ndarray of int, shape (K,)
        Units change with those of their own number alone.
    """
    alike: dict[tuple[object, ...], list[Integers]] = {}
    for unit in np.unique(units).tolist():
        rows = np.flatnonzero(units == unit)
        parts = [rows[clusters[rows] == one] for one in np.unique(clusters[rows])]
        parts = [part[np.argsort(places[part], kind="stable")] for part in parts]
        parts.sort(key=lambda part: (places[part].tolist(), int(part[0])))
        pattern = (*(tuple(places[part].tolist()) for part in parts), int(inside[rows[0]]))
        alike.setdefault(pattern, []).append(np.concatenate(parts))
    return [np.array(alike[pattern]) for pattern in sorted(alike, key=lambda pattern: int(alike[pattern][0][0]))]


def count_permutations(labels: Integers, slots: list[Integers]) -> int:
    """Count the distinct permutations that `permute` chooses from."""
    return _count(_things(labels, slots))


def permute(labels: Integers, slots: list[Integers], limit: int, seed: int) -> Relabellings:
    """Draw permutations of the design's rows.

    Parameters
    ----------
    labels : ndarray of int, shape (K,)
        Rows with one label are the same row: exchanging them changes nothing.
    slots : list of ndarray of int, shape (M, rows of each)
        Sets of places; what stands in those of one set changes with each other, rows keep their order. Each of the
        K rows is in one.
    limit : int
        R: when there are no more distinct permutations than this, all of
        them; else R random ones.
    seed : int
    """
    n_maps, things = labels.size, _things(labels, slots)
    exhaustive = _count(things) <= limit
    if exhaustive:
        orders = np.array(list(_all_orders(slots, things, n_maps)), dtype=np.int32)
        own = np.flatnonzero((labels[orders] == labels).all(axis=1))[0]
        orders = orders[np.r_[own, np.delete(np.arange(orders.shape[0]), own)]]
        orders[0] = np.arange(n_maps)
    else:
        orders = np.empty((limit, n_maps), dtype=np.int32)
        orders[0] = np.arange(n_maps)
        for index in range(1, limit):
            random = generator(seed, index)
            for slot in slots:
                orders[index, slot.reshape(-1)] = slot[random.permutation(slot.shape[0])].reshape(-1)
    signs = np.broadcast_to(np.ones(n_maps, dtype=np.int8), orders.shape)
    return Relabellings(orders, signs, exhaustive)


def _things(labels: Integers, slots: list[Integers]) -> list[Integers]:
    """Number what stands in each set of places, (M,): equal things are one number."""
    return [np.unique(labels[slot], axis=0, return_inverse=True)[1].reshape(-1) for slot in slots]


def _count(things: list[Integers]) -> int:
    """Count the distinct arrangements."""
    total = 1
    for thing in things:
        total *= math.factorial(thing.size)
        for repeats in np.bincount(thing):
            total //= math.factorial(int(repeats))
    return total


def _all_orders(slots: list[Integers], things: list[Integers], n_maps: int) -> Iterator[NDArray[np.int32]]:
    """Yield every distinct arrangement of all sets of places."""
    if not slots:
        yield np.arange(n_maps, dtype=np.int32)
        return
    slot, thing = slots[0], things[0]
    for order in _all_orders(slots[1:], things[1:], n_maps):
        for arrangement in _arrangements(np.sort(thing)):
            filled = order.copy()
            taken = np.empty(thing.size, dtype=np.int64)
            for value in np.unique(thing):  # equal things keep their order
                taken[arrangement == value] = np.flatnonzero(thing == value)
            filled[slot.reshape(-1)] = slot[taken].reshape(-1)
            yield filled


def _arrangements(values: Integers) -> Iterator[Integers]:
    """Yield the distinct arrangements of sorted values, in lexicographic order."""
    current = values.copy()
    while True:
        yield current
        rising = np.flatnonzero(current[:-1] < current[1:])
        if rising.size == 0:
            return
        pivot = rising[-1]
        larger = pivot + 1 + np.flatnonzero(current[pivot + 1 :] > current[pivot])[-1]
        current = current.copy()
        current[pivot], current[larger] = current[larger], current[pivot]
        current[pivot + 1 :] = current[pivot + 1 :][::-1]
