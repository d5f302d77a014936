"""Ordinary least squares at every voxel, each with the maps that cover it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame, new_pattern, same_pattern, settle_pattern
from ibma_app.stats.compiled import compiled
from ibma_app.stats.contrasts import Tested, new_tested, test_voxel
from ibma_app.stats.voxels import TILE
from ibma_app.stats.weighted import IDENTICAL, INVERSE, VECTORS

Floats = NDArray[np.float64]



class OlsFit(NamedTuple):
    """A fit of B voxels."""

    tested: Tested
    n: NDArray[np.int16]  # (B,)
    rank: NDArray[np.int16]  # (B,)
    identical: NDArray[np.bool_]  # (B,)


@compiled
def _residual_sum(y: Floats, columns: Floats, k: int, rank: int, small: Floats) -> tuple[float, float]:
    """Fit one voxel on an orthonormal basis; return residual and total sums of squares.

    ``y`` becomes the residuals. Twice, since the second pass takes out what
    rounding left of the first.
    """
    total = 0.0
    for i in range(k):
        total += y[i] * y[i]
    for a in range(rank):
        small[VECTORS, 0, a] = 0.0
    for _ in range(2):
        for a in range(rank):
            along = 0.0
            for i in range(k):
                along += columns[a, i] * y[i]
            small[VECTORS, 0, a] += along
            for i in range(k):
                y[i] -= along * columns[a, i]
    rss = 0.0
    for i in range(k):
        rss += y[i] * y[i]
    return rss, total


@compiled
def _fit(values: Floats, covered: NDArray[np.bool_], frame: Frame, out: OlsFit) -> None:
    """Loop over voxels; the pattern is settled anew where coverage changes."""
    n_maps, n_voxels = values.shape
    n_columns = frame.columns.shape[0]
    pattern = new_pattern(frame)
    y_tile = np.empty((TILE, n_maps))
    covered_tile = np.empty((TILE, n_maps), np.bool_)
    y = np.empty(n_maps)
    small = np.zeros((7, n_columns, n_columns))
    for a in range(n_columns):
        small[INVERSE, a, a] = 1.0
    work = np.empty((frame.rows.shape[0], frame.rows.shape[0] + 1))
    k, rank = 0, 0
    settled = False
    for start in range(0, n_voxels, TILE):
        width = min(TILE, n_voxels - start)
        for i in range(n_maps):
            for b in range(width):
                y_tile[b, i] = values[i, start + b]
                covered_tile[b, i] = covered[i, start + b]
        for b in range(width):
            if not settled or not same_pattern(covered_tile, b, pattern):
                for i in range(n_maps):
                    pattern.covered[i] = covered_tile[b, i]
                k, rank = settle_pattern(frame, pattern)
                settled = True
            voxel = start + b
            out.n[voxel] = k
            out.rank[voxel] = rank
            if k <= rank or rank == 0:
                continue
            for i in range(k):
                y[i] = y_tile[b, pattern.index[i]]
            rss, total = _residual_sum(y, pattern.columns, k, rank, small)
            scale = rss / (k - rank)
            if rss <= IDENTICAL * total:
                out.identical[voxel] = True
                scale = 0.0
            test_voxel(frame, pattern, small, rank, scale, out.tested, voxel, work)


def fit_ols(values: Floats, covered: NDArray[np.bool_], frame: Frame) -> OlsFit:
    """Fit a linear model at each voxel.

    Parameters
    ----------
    values : ndarray, shape (K, B)
    covered : ndarray of bool, shape (K, B)
        Values elsewhere are not used, whatever they are.
    frame : Frame
        From `frame_design`.

    Returns
    -------
    OlsFit
        t and F with n - rank dof. Nothing is estimable where n <= rank, nor
        where the residual sum of squares is at most 1e-14 of the total.
    """
    voxels = values.shape[1]
    out = OlsFit(
        new_tested(frame.upper.size, voxels),
        np.zeros(voxels, dtype=np.int16),
        np.zeros(voxels, dtype=np.int16),
        np.zeros(voxels, dtype=np.bool_),
    )
    _fit(
        np.ascontiguousarray(values, dtype=np.float64),
        np.ascontiguousarray(covered, dtype=np.bool_),
        frame,
        out,
    )
    return out
