"""Groups voxels by pattern of coverage, and packs their maps for the kernels one by one."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, CONSTANT, EFFECT, KIND, LANES, VARIANCE, Frame, Patterns, settle_patterns
from ibma_app.stats.compiled import folded, inner

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

TILE = 64  # voxels copied at a time: the values of a voxel are far apart in a (K, B) array
_TABLE = 4_000_000  # numbers in the bases of one group of patterns, at most


class Group(NamedTuple):
    """Voxels with few patterns of coverage."""

    voxels: Ints  # (n,) ascending
    slots: Ints  # (n,) pattern of each
    patterns: Patterns


class Workspace(NamedTuple):
    """The work arrays of a loop over voxels."""

    y: Floats  # (TILE, K) effects of some voxels
    v: Floats  # (TILE, K) their variances
    maps: Floats  # (rows, G, 4) one voxel; see weighted.py
    flat: Floats  # (rows, 4 G) the same memory
    small: Floats  # (8, P, P)
    work: Floats  # (R, R + 1) for F tests


def new_workspace(frame: Frame) -> Workspace:
    """Allocate for a frame."""
    p, k = frame.columns.shape
    groups = (k + LANES - 1) // LANES
    maps = np.zeros((COLUMNS + p + p * (p + 1) // 2, groups, LANES))
    flat = maps.reshape(maps.shape[0], groups * LANES)
    rows = frame.rows.shape[0]
    return Workspace(
        np.zeros((TILE, k)), np.zeros((TILE, k)), maps, flat, np.zeros((8, p, p)), np.zeros((rows, rows + 1))
    )


def _pattern_keys(covered: Bools) -> NDArray[np.uint64]:
    """Return a number for each voxel, (B,), that identifies its pattern of coverage.

    Exact up to 64 maps; with more, a hash of 64 bits, which `find_patterns`
    checks.
    """
    keys = np.zeros(covered.shape[1], dtype=np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for i, one in enumerate(covered):
            if covered.shape[0] <= 64:
                keys |= one.astype(np.uint64) << np.uint64(i)
            else:
                keys = (keys + one.astype(np.uint64)) * factor
                keys ^= keys >> np.uint64(29)
    return keys


def find_patterns(covered: Bools) -> tuple[Ints, Ints]:
    """Return a voxel of each pattern, (N,), and the pattern of each voxel, (B,)."""
    if covered.all():
        return np.zeros(1, dtype=np.int64), np.zeros(covered.shape[1], dtype=np.int64)
    _, first, slots = np.unique(_pattern_keys(covered), return_index=True, return_inverse=True)
    if covered.shape[0] > 64 and not np.array_equal(covered, covered[:, first[slots]]):
        _, first, slots = np.unique(covered, axis=1, return_index=True, return_inverse=True)
    return first.astype(np.int64), slots.reshape(-1).astype(np.int64)


def group_voxels(covered: Bools, frame: Frame) -> Iterator[Group]:
    """Group voxels so that the bases of a group's patterns take bounded memory; most often one group.

    Parameters
    ----------
    covered : ndarray of bool, shape (K, B)
    frame : Frame
    """
    if not covered.shape[1]:
        return
    first, slots = find_patterns(covered)
    p, k = frame.columns.shape
    most = max(1, _TABLE // (p * (k + LANES) + k + frame.rows.size))
    for start in range(0, first.size, most):
        part = first[start : start + most]
        if part.size == first.size:
            voxels = np.arange(covered.shape[1], dtype=np.int64)
        else:
            voxels = np.flatnonzero((slots >= start) & (slots < start + most)).astype(np.int64)
        yield Group(voxels, slots[voxels] - start, settle_patterns(frame, covered, part))


@inner
def fill_tile(data: Floats, voxels: Ints, start: int, tile: Floats) -> int:
    """Copy voxels, from position ``start`` of the list on; return their number."""
    width = min(TILE, voxels.size - start)
    for i in range(data.shape[0]):
        for b in range(width):
            tile[b, i] = data[i, voxels[start + b]]
    return width


@inner
def lay_pattern(flat: Floats, small: Floats, columns: Floats, slot: int, k: int, rank: int) -> None:
    """Write a pattern's basis, and the products of its columns, to the voxel's array."""
    width = flat.shape[1]
    pair = COLUMNS + columns.shape[1]
    for i in range(k, width):
        flat[EFFECT, i] = 0.0
        flat[VARIANCE, i] = np.inf
    for a in range(rank):
        for i in range(width):
            flat[COLUMNS + a, i] = columns[slot, a, i]
        for b in range(a + 1):
            for i in range(width):
                flat[pair, i] = columns[slot, a, i] * columns[slot, b, i]
            pair += 1
    if rank > 0:
        same = rank == 1
        for i in range(1, k):
            same = same and columns[slot, 0, i] == columns[slot, 0, 0]
        small[KIND, 0, 0] = CONSTANT if same else 0.0


@folded
def pack_voxel(flat: Floats, y: Floats, v: Floats, which: Ints, slot: int, b: int, k: int) -> None:
    """Write one voxel's covered maps to its array; values that are not covered are not read."""
    if k == y.shape[1]:
        for i in range(k):
            flat[EFFECT, i] = y[b, i]
            flat[VARIANCE, i] = v[b, i]
    else:
        for i in range(k):
            flat[EFFECT, i] = y[b, which[slot, i]]
            flat[VARIANCE, i] = v[b, which[slot, i]]
