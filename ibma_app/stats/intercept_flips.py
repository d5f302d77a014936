"""How high a test of a random intercept can be when signs of whole units are flipped, at many voxels and flips at once.

Flipping units changes the sums over units by signs alone: residuals' squares stay, and Q'We = Q'e - sum k_i a_i t_i,
with k_i = r / (1 + r n_i) (see intercept_likelihood.py, here with sums, not over sqrt(n_i)), is a sum of each unit's
part with its sign. At the ratios of a grid all flips are then a matrix product, and a likelihood without derivatives.
The model's ratio lies next to the likeliest one: the statistic is, up to `SLACK`, at most the largest of three.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, folded
from ibma_app.stats.intercept_units import GRID
from ibma_app.stats.voxels import find_patterns

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SLACK = 1.15  # of squared t, and of F, between ratios of the grid, and for what small samples multiply them by
FEW = 48  # voxels of one pattern of coverage, below which it is not worth its matrices
AT_ONCE = 1024  # voxels of one product
WIDTH = 64  # voxels at a time in the kernel


class _Nodes(NamedTuple):
    """One pattern of coverage at the G ratios of the grid."""

    shrinks: Singles  # (G, S) k of units of each size
    factors: Singles  # (G, P, P) L^-1 with L L' = M
    tested: Singles  # (G, Q, P) what makes of Q'We numbers whose squares sum to Q F q / (n - p)
    heights: Singles  # (G,) exp(log det / (n - p)), over the smallest


class _Work(NamedTuple):
    """Space for some voxels in one flip."""

    parts: Singles  # (P, WIDTH)
    residual: Singles  # (G, WIDTH) q
    explained: Singles  # (G, WIDTH) Q F q / (n - p)
    sides: Singles  # (G, WIDTH) of a t test the number itself


@folded
def _lay_parts(whole: Singles, along: Singles, first: int, shrinks: Singles, width: int, work: _Work) -> None:
    """Write Q'We of some voxels at one ratio, from those of one flip, (P, B) and (S, P, B)."""
    for a in range(whole.shape[0]):
        for b in range(width):
            work.parts[a, b] = whole[a, first + b]
        for s in range(along.shape[0]):
            for b in range(width):
                work.parts[a, b] -= shrinks[s] * along[s, a, first + b]


@folded
def _add_square(row: Singles, last: int, g: int, width: int, work: _Work, out: Singles, sign: np.float32) -> None:
    """Add the square of what a row (P,) makes of Q'We in ``parts`` to a line of ``out``, with a sign."""
    for b in range(width):
        work.sides[g, b] = np.float32(0.0)
    for a in range(last):
        factor = row[a]
        for b in range(width):
            work.sides[g, b] += factor * work.parts[a, b]
    for b in range(width):
        out[g, b] += sign * work.sides[g, b] * work.sides[g, b]


@folded
def _highest(b: int, nodes: _Nodes, work: _Work) -> np.float32:
    """Return the largest at the likeliest ratio and its neighbours; infinite where there is none."""
    n_nodes, best, least = nodes.heights.size, 0, np.float32(np.inf)
    for g in range(n_nodes):
        height = nodes.heights[g] * work.residual[g, b]
        if height < least:
            best, least = g, height
    if not (least > 0.0 and least < np.inf):
        return np.float32(np.inf)
    top = np.float32(0.0)
    for g in range(max(best - 1, 0), min(best + 2, n_nodes)):
        top = max(top, work.explained[g, b] / work.residual[g, b])
    return -top if nodes.tested.shape[1] == 1 and work.sides[best, b] < 0.0 else top


@compiled
def _scan(whole: Singles, along: Singles, squares: Singles, nodes: _Nodes, work: _Work, out: Singles) -> None:
    """Bound one pattern's voxels.

    ``whole`` (P, R, B) and ``along`` (S, P, R, B) are sums of flipped units, ``squares`` (G, B) what flips leave.
    """
    for r in range(out.shape[0]):
        for first in range(0, out.shape[1], WIDTH):
            width = min(WIDTH, out.shape[1] - first)
            for g in range(nodes.heights.size):
                _lay_parts(whole[:, r], along[:, :, r], first, nodes.shrinks[g], width, work)
                for b in range(width):
                    work.residual[g, b], work.explained[g, b] = squares[g, first + b], np.float32(0.0)
                for a in range(whole.shape[0]):
                    _add_square(nodes.factors[g, a], a + 1, g, width, work, work.residual, np.float32(-1.0))
                for q in range(nodes.tested.shape[1]):
                    _add_square(nodes.tested[g, q], whole.shape[0], g, width, work, work.explained, np.float32(1.0))
            for b in range(width):
                out[r, first + b] = _highest(b, nodes, work)


class _Pattern(NamedTuple):
    """One pattern of coverage: its k maps, and its m units."""

    unit: Floats  # (k, m) 1 where a map is of a unit
    basis: Floats  # (k, P) orthonormal, of the design
    ratios: Floats  # (G,)
    nodes: _Nodes


def _lay_pattern(matrix: Floats, weights: Floats, unit: Floats) -> _Pattern | None:
    """Lay out a pattern; None where its rows have not full rank, or leave nothing to estimate a variance from."""
    k, p = matrix.shape
    if k <= p:
        return None
    basis, triangle = np.linalg.qr(matrix)
    sizes, sums = unit.sum(axis=0), unit.T @ basis
    ratios = GRID * (sizes.size / k)
    shrinks = ratios[:, None] / (1.0 + np.outer(ratios, sizes))  # (G, m)
    inner = np.eye(p) - np.einsum("gm,ma,mb->gab", shrinks, sums, sums)
    try:
        lower = np.linalg.inv(np.linalg.cholesky(inner))
        inverse = lower.swapaxes(1, 2) @ lower
        rows = np.linalg.solve(triangle.T, weights.T).T  # (Q, P) on the basis
        spread = np.linalg.inv(np.linalg.cholesky(rows @ inverse @ rows.T))
    except np.linalg.LinAlgError:
        return None
    logs = np.log1p(np.outer(ratios, sizes)).sum(axis=1) - 2.0 * np.log(np.diagonal(lower, 0, 1, 2)).sum(axis=1)
    there = np.unique(sizes)
    laid = (
        ratios[:, None] / (1.0 + np.outer(ratios, there)),
        lower,
        spread @ rows @ inverse,
        np.exp((logs - logs.min()) / (k - p)),
    )
    if np.abs(triangle).max() * 1e-9 >= np.abs(np.diag(triangle)).min() or not all(np.isfinite(a).all() for a in laid):
        return None
    return _Pattern(unit, basis, ratios, _Nodes(*(np.ascontiguousarray(a, dtype=np.float32) for a in laid)))


def _bound(y: Floats, pattern: _Pattern, turned: Singles) -> Singles:
    """Bound voxels of one pattern, (R, B), from its maps (k, B) and the signs of its units (R, m), without `SLACK`."""
    unit, basis, ratios, nodes = pattern
    scale = np.sqrt((y**2).mean(axis=0))
    y = y / np.where(scale > 0.0, scale, 1.0)
    sums, of_basis, sizes = unit.T @ y, unit.T @ basis, unit.sum(axis=0)
    there = [sizes == size for size in np.unique(sizes)]
    shape = basis.shape[1], len(turned), y.shape[1]
    whole, along = np.empty(shape, dtype=np.float32), np.empty((len(there), *shape), dtype=np.float32)
    for a in range(basis.shape[1]):
        whole[a] = turned @ (unit.T @ (basis[:, a, None] * y)).astype(np.float32)
        for s, same in enumerate(there):
            along[s, a] = turned[:, same] @ (of_basis[same, a, None] * sums[same]).astype(np.float32)
    shrinks = ratios[:, None] / (1.0 + np.outer(ratios, sizes))
    squares = ((y**2).sum(axis=0) - shrinks @ sums**2).astype(np.float32)
    work = _Work(*(np.zeros((size, WIDTH), dtype=np.float32) for size in (shape[0], *[ratios.size] * 3)))
    out = np.empty(shape[1:], dtype=np.float32)
    _scan(whole, along, squares, nodes, work, out)
    return out


def bound_flips(values: Floats, covered: Bools, matrix: Floats, weights: Floats, units: Ints, signs: Floats) -> Singles:
    """Bound the F of a test of a random intercept, at each voxel and in each flip of signs of whole units.

    Parameters
    ----------
    values : ndarray, shape (K, B)
    covered : ndarray of bool, shape (K, B)
    matrix : ndarray, shape (K, P)
    weights : ndarray, shape (Q, P)
        The test's rows.
    units : ndarray of int, shape (K,)
        The unit of each map.
    signs : ndarray, shape (R, K)
        1 or -1, the same for all maps of a unit.

    Returns
    -------
    ndarray, shape (R, B)
        What F (of one row t squared, with the sign of t) does not exceed where it is above 1; infinite where no bound
        is known: there the pattern of coverage is rare, or the model cannot be fitted.
    """
    out = np.full((len(signs), values.shape[1]), np.inf, dtype=np.float32)
    firsts, slots = find_patterns(covered)
    for slot, voxel in enumerate(firsts):
        there, rows = np.flatnonzero(slots == slot), covered[:, voxel]
        if there.size < FEW and there.size < values.shape[1]:
            continue
        _, first, of = np.unique(units[rows], return_index=True, return_inverse=True)
        pattern = _lay_pattern(matrix[rows], weights, np.eye(first.size)[of])
        if pattern is None:
            continue
        turned = np.ascontiguousarray(signs[:, rows][:, first], dtype=np.float32)
        factor = np.float32(SLACK * (rows.sum() - matrix.shape[1]) / len(weights))
        for start in range(0, there.size, AT_ONCE):
            part = there[start : start + AT_ONCE]
            out[:, part] = factor * _bound(values[np.ix_(rows, part)], pattern, turned)
    return out
