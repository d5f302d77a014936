"""Ordinary least squares at every voxel, each with the maps that cover it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame
from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.contrasts import Hypotheses, Tested, new_tested, test_voxel
from ibma_app.stats.voxels import TILE, Group, Workspace, fill_tile, group_voxels, new_workspace
from ibma_app.stats.weighted import IDENTICAL, INVERSE, VECTORS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class OlsFit(NamedTuple):
    """A fit of B voxels."""

    tested: Tested
    counts: NDArray[np.int16]  # (2, B) maps n, and rank of their rows
    identical: Bools  # (B,)


@inner
def residual_sum(
    y: Floats, b: int, columns: Floats, slot: int, k: int, rank: int, small: Floats
) -> tuple[float, float]:
    """Fit one voxel on an orthonormal basis; return residual and total sums of squares.

    Row b of ``y`` becomes the residuals. A second pass removes rounding error.
    """
    total = 0.0
    for i in range(k):
        total += y[b, i] * y[b, i]
    for a in range(rank):
        small[VECTORS, 0, a] = 0.0
    for _ in range(2):
        for a in range(rank):
            along = 0.0
            for i in range(k):
                along += columns[slot, a, i] * y[b, i]
            small[VECTORS, 0, a] += along
            for i in range(k):
                y[b, i] -= along * columns[slot, a, i]
    rss = 0.0
    for i in range(k):
        rss += y[b, i] * y[b, i]
    return rss, total


@compiled
def _fit(data: Floats, group: Group, frame: Frame, workspace: Workspace, out: OlsFit) -> None:
    """Loop over voxels."""
    tested, counts, identical = out
    small, y = workspace.small, workspace.y
    table, voxels, slots = group.patterns, group.voxels, group.slots
    ns, ranks, index, columns = table.maps, table.rank, table.which, table.columns
    tests = Hypotheses(table.rows, table.estimable, frame.starts, frame.upper, workspace.work)
    for start in range(0, voxels.size, TILE):
        for b in range(fill_tile(data, voxels, start, y)):
            voxel, slot = voxels[start + b], slots[start + b]
            k, rank = ns[slot], ranks[slot]
            counts[0, voxel], counts[1, voxel] = k, rank
            if k <= rank or rank == 0:
                continue
            for i in range(k):
                y[b, i] = y[b, index[slot, i]]  # index[i] >= i
            rss, total = residual_sum(y, b, columns, slot, k, rank, small)
            scale = rss / (k - rank)
            if rss <= IDENTICAL * total:
                identical[voxel] = True
                scale = 0.0
            test_voxel(tests, slot, small, rank, scale, tested, voxel)


def fit_ols(values: Floats, covered: Bools, frame: Frame) -> OlsFit:
    """Fit a linear model at each voxel.

    Parameters
    ----------
    values : ndarray, shape (K, B), C order
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
    counts, identical = np.zeros((2, voxels), dtype=np.int16), np.zeros(voxels, dtype=np.bool_)
    out = OlsFit(new_tested(frame.upper.size, voxels), counts, identical)
    workspace = new_workspace(frame)
    workspace.small[INVERSE] = np.eye(frame.columns.shape[0])
    for group in group_voxels(covered, frame):
        _fit(values, group, frame, workspace, out)
    return out
