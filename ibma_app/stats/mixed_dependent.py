"""Fixed- and mixed-effects models of maps whose sampling errors are correlated.

V = S R S, with S the standard errors and R the correlation of the maps' errors.
R falls into blocks of maps that depend on each other. Rotated to the
eigenvectors of its block of V, each block's maps are independent, and tau2, which
adds a multiple of I, stays as it is: everything else is the model of mixed.py on
rotated effects, columns and variances (metafor's ``rma.mv`` with V known).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import COLUMNS, EFFECT, KIND, VARIANCE, Frame
from ibma_app.stats.clustered import order_maps
from ibma_app.stats.compiled import compiled, folded, inner
from ibma_app.stats.contrasts import Hypotheses, test_voxel
from ibma_app.stats.dependence import parts_of
from ibma_app.stats.jacobi import diagonalise
from ibma_app.stats.mixed import SCALES, TAU2, UNSCALED, Choices, MixedFit, judge, new_fit, plain_mean
from ibma_app.stats.tau2 import (
    LIKELY,
    MOMENTS,
    SIDIK_JONKMAN,
    likely_fit,
    moment_of_voxel,
    solve_q,
    variance_of_effects,
)
from ibma_app.stats.voxels import TILE, Group, Workspace, fill_tile, group_voxels, new_workspace
from ibma_app.stats.weighted import ONCE, TWICE, moments

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_ROOT = -1  # of Q(tau2): neither a likelihood nor a moment


class _Blocks(NamedTuple):
    """The maps of N patterns of coverage, those that depend on each other together, and their correlation."""

    which: Ints  # (N, K) as in `Patterns`
    columns: Floats  # (N, P, K4) likewise
    counts: Ints  # (N,) blocks
    starts: Ints  # (N, K + 1) first map of each
    correlation: Floats  # (K, K)
    matrix: Floats  # (K, K) for work
    vectors: Floats  # (K, K)
    work: Floats  # (K,)


@folded
def _rotate_row(flat: Floats, row: int, first: int, n: int, blocks: _Blocks) -> None:
    """Rotate one row of a voxel's array to the eigenvectors of a block."""
    for j in range(n):
        total = 0.0
        for i in range(n):
            total += blocks.vectors[i, j] * flat[row, first + i]
        blocks.work[j] = total
    for j in range(n):
        flat[row, first + j] = blocks.work[j]


@folded
def _rotate_block(flat: Floats, rank: int, first: int, n: int, slot: int, blocks: _Blocks) -> None:
    """Make the maps of one block independent."""
    for i in range(n):
        for j in range(i + 1):
            one, other = blocks.which[slot, first + i], blocks.which[slot, first + j]
            product = (
                flat[VARIANCE, first + i]
                if i == j
                else (
                    blocks.correlation[one, other]
                    * np.sqrt(flat[VARIANCE, first + i])
                    * np.sqrt(flat[VARIANCE, first + j])
                )
            )
            blocks.matrix[i, j], blocks.matrix[j, i] = product, product
    diagonalise(blocks.matrix, blocks.vectors, n)
    for i in range(n):
        flat[VARIANCE, first + i] = blocks.matrix[i, i]
    _rotate_row(flat, EFFECT, first, n, blocks)
    for a in range(rank):
        _rotate_row(flat, COLUMNS + a, first, n, blocks)


@folded
def _pack(flat: Floats, y: Floats, v: Floats, slot: int, b: int, k: int, rank: int, blocks: _Blocks) -> float:
    """Lay out one voxel, rotated; return the variance of its effects about their mean."""
    width, n_columns = flat.shape[1], blocks.columns.shape[1]
    for i in range(width):
        flat[EFFECT, i] = y[b, blocks.which[slot, i]] if i < k else 0.0
        flat[VARIANCE, i] = v[b, blocks.which[slot, i]] if i < k else np.inf
        for a in range(rank):
            flat[COLUMNS + a, i] = blocks.columns[slot, a, i] if i < k else 0.0
    spread = variance_of_effects(flat, k)
    for c in range(blocks.counts[slot]):
        first = blocks.starts[slot, c]
        n = blocks.starts[slot, c + 1] - first
        if n > 1:
            _rotate_block(flat, rank, first, n, slot, blocks)
    pair = COLUMNS + n_columns
    for a in range(rank):
        for other in range(a + 1):
            for i in range(width):
                flat[pair, i] = flat[COLUMNS + a, i] * flat[COLUMNS + other, i]
            pair += 1
    return spread


@inner
def _estimate(maps: Floats, flat: Floats, small: Floats, k: int, rank: int, method: int, spread: float) -> float:
    """Return one voxel's tau2 by moments, or as the root of Q."""
    if method == _ROOT:
        tau2 = solve_q(maps, small, rank, float(k - rank))
    elif method != SIDIK_JONKMAN:
        tau2 = moment_of_voxel(maps, flat, small, k, rank, method)
    elif spread <= 0.0:
        tau2 = 0.0
    else:
        tau2 = spread * moments(maps, small, rank, spread, ONCE).q / (k - rank)
    return max(tau2, 0.0) if np.isfinite(tau2) else 0.0


@compiled
def _fit(
    effect: Floats,
    variance: Floats,
    group: Group,
    blocks: _Blocks,
    frame: Frame,
    workspace: Workspace,
    chosen: tuple[Choices, int],
    out: MixedFit,
) -> None:
    """Loop over voxels."""
    choices, method = chosen
    maps, flat, small, y, v = workspace.maps, workspace.flat, workspace.small, workspace.y, workspace.v
    table = group.patterns
    tests = Hypotheses(table.rows, table.estimable, frame.starts, frame.upper, workspace.work)
    small[KIND, 0, 0] = 0.0
    for start in range(0, group.voxels.size, TILE):
        fill_tile(effect, group.voxels, start, y)
        for b in range(fill_tile(variance, group.voxels, start, v)):
            voxel, slot = group.voxels[start + b], group.slots[start + b]
            k, rank = table.maps[slot], table.rank[slot]
            out.counts[0, voxel], out.counts[1, voxel] = k, rank
            if rank == 0:
                continue
            spread = _pack(flat, y, v, slot, b, k, rank, blocks)
            fixed = moments(maps, small, rank, 0.0, TWICE)
            q = fixed.q
            if choices.random and k > rank and fixed.sound:
                if choices.likely >= 0:
                    out.summary[TAU2, voxel], q = likely_fit(maps, small, k, rank, choices.likely, fixed)
                else:
                    tau2 = _estimate(maps, flat, small, k, rank, method, spread)
                    out.summary[TAU2, voxel] = tau2
                    q = moments(maps, small, rank, tau2, TWICE).q
            scale, same = judge(maps, fixed, k - rank, choices, q, out.summary, voxel)
            out.identical[voxel] = same
            if scale < 0.0:
                continue
            if choices.equal_weights:
                plain_mean(flat, small, k, rank)
            test_voxel(tests, slot, small, rank, scale, out.tested, voxel)


def _fit_all(
    maps: tuple[Floats, Floats, Bools], frame: Frame, correlation: Floats, choices: Choices, method: int
) -> MixedFit:
    """Allocate and fit, group after group."""
    effect, variance, covered = maps
    out, workspace, n_maps = new_fit(frame, effect.shape[1]), new_workspace(frame), len(correlation)
    parts = parts_of(correlation)
    for group in group_voxels(covered, frame):
        blocks = _Blocks(
            *order_maps(group.patterns, parts),
            np.ascontiguousarray(correlation, dtype=np.float64),
            np.zeros((n_maps, n_maps)),
            np.zeros((n_maps, n_maps)),
            np.zeros(n_maps),
        )
        _fit(effect, variance, group, blocks, frame, workspace, (choices, method), out)
    return out


def fit_fixed_dependent(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, correlation: Floats, equal_weights: str = "no"
) -> MixedFit:
    """Fit a fixed-effects model at each voxel to maps whose errors are correlated.

    Parameters
    ----------
    effect, variance, covered, frame, equal_weights
        As for `mixed.fit_fixed`.
    correlation : ndarray, shape (K, K)
        Of the sampling errors of maps; positive definite.
    """
    choices = Choices(False, UNSCALED, equal_weights == "yes", -1)
    return _fit_all((effect, variance, covered), frame, correlation, choices, _ROOT)


def fit_mixed_dependent(
    effect: Floats, variance: Floats, covered: Bools, frame: Frame, correlation: Floats, method: str, test: str
) -> MixedFit:
    """Fit a mixed-effects model at each voxel to maps whose sampling errors are correlated.

    Through the origin tau2 and Q are of the effects themselves, as in ``rma.mv``, not of centred ones.

    Parameters
    ----------
    effect, variance, covered, frame, method, test
        As for `mixed.fit_mixed`.
    correlation : ndarray, shape (K, K)
        Of the sampling errors of maps; positive definite.
    """
    choices = Choices(True, SCALES[test], False, LIKELY.get(method, -1))
    return _fit_all((effect, variance, covered), frame, correlation, choices, MOMENTS.get(method, _ROOT))
