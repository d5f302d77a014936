"""Going through voxels: their maps side by side, packed and padded, and their pattern of coverage."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import (
    COLUMNS,
    EFFECT,
    LANES,
    VARIANCE,
    Frame,
    Pattern,
    new_pattern,
    same_pattern,
    settle_pattern,
)
from ibma_app.stats.compiled import compiled

Floats = NDArray[np.float64]

TILE = 64  # voxels copied at a time: a column of a (K, B) array is far apart in memory


class Bench(NamedTuple):
    """What a loop over voxels works on."""

    y: Floats  # (TILE, K) effects of some voxels
    v: Floats  # (TILE, K) their variances
    covered: NDArray[np.bool_]  # (TILE, K)
    pattern: Pattern
    maps: Floats  # one voxel; see weighted.py
    small: Floats
    state: NDArray[np.int64]  # (3,) maps k, rank, and whether a pattern was settled


@compiled
def new_bench(frame: Frame) -> Bench:
    """Allocate for a frame."""
    p, k = frame.columns.shape
    padded = (k + LANES - 1) // LANES * LANES
    return Bench(
        np.empty((TILE, k)),
        np.empty((TILE, k)),
        np.empty((TILE, k), np.bool_),
        new_pattern(frame),
        np.zeros((COLUMNS + p + p * (p + 1) // 2, padded)),
        np.zeros((7, p, p)),
        np.zeros(3, np.int64),
    )


@compiled
def fill_tile(effect: Floats, variance: Floats, covered: NDArray[np.bool_], start: int, bench: Bench) -> int:
    """Copy voxels from ``start`` on; return how many."""
    width = min(TILE, effect.shape[1] - start)
    y, v, c = bench.y, bench.v, bench.covered
    for i in range(effect.shape[0]):
        for b in range(width):
            y[b, i] = effect[i, start + b]
            v[b, i] = variance[i, start + b]
            c[b, i] = covered[i, start + b]
    return width


@compiled
def _lay_columns(frame: Frame, bench: Bench) -> None:
    """Settle the pattern and lay its basis and products beside the voxel's maps."""
    k, rank = settle_pattern(frame, bench.pattern)
    bench.state[0], bench.state[1], bench.state[2] = k, rank, 1
    maps, columns = bench.maps, bench.pattern.columns
    p = columns.shape[0]
    pair = COLUMNS + p
    for a in range(rank):
        for i in range(maps.shape[1]):
            maps[COLUMNS + a, i] = columns[a, i] if i < k else 0.0
        for b in range(a + 1):
            for i in range(maps.shape[1]):
                maps[pair, i] = maps[COLUMNS + a, i] * maps[COLUMNS + b, i]
            pair += 1


@compiled
def load_voxel(frame: Frame, bench: Bench, b: int) -> tuple[int, int]:
    """Pack one voxel of the tile; return its maps k and the rank of their rows.

    What is not covered is not read into the fit, whatever it holds.
    """
    pattern = bench.pattern
    if bench.state[2] == 0 or not same_pattern(bench.covered, b, pattern):
        for i in range(pattern.covered.size):
            pattern.covered[i] = bench.covered[b, i]
        _lay_columns(frame, bench)
    k = bench.state[0]
    maps, y, v, index = bench.maps, bench.y, bench.v, pattern.index
    for i in range(k):
        maps[EFFECT, i] = y[b, index[i]]
        maps[VARIANCE, i] = v[b, index[i]]
    for i in range(k, maps.shape[1]):
        maps[EFFECT, i] = 0.0
        maps[VARIANCE, i] = np.inf
    return k, bench.state[1]
