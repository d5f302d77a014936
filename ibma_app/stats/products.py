"""Least squares of many relabellings at once: products of weights with data of unit norm.

The residuals of each voxel under the null are scaled to norm 1 once. A
relabelling is then a set of weights on the maps, and r of its t test a product
of the weights with the data. Where only maxima and high voxels are needed,
candidates are found in single precision and computed again in double
precision (1 - r² cancels in single precision).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.ztable import ZTable, z_of_correlations, z_of_shares

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

TILE = 4096  # voxels of one product
LOOK = 128  # products that are compared with a bound at a time
IN_CACHE = 100_000  # values of a tile of data that stay in a core's cache
ROUNDING = 6.0e-8  # relative error of one operation in single precision


class UnitResiduals(NamedTuple):
    """N voxels' residuals under the null, each scaled to norm 1."""

    values: Singles  # (K, N)
    norms: Floats  # (N,) squared norms after rounding to single precision


class High(NamedTuple):
    """The highest voxels of each of M relabellings; filled in place by a scan."""

    share: Floats  # (M,) r of the highest voxel so far
    peak: Floats  # (M,) its z
    counts: Integers  # (M,) voxels beyond the floor
    voxels: Integers  # (M, L) the first L of them
    z: Floats  # (M, L) their z, signed


def new_high(rows: int, most: int) -> High:
    """Allocate for M relabellings, and L voxels of each."""
    voxels, z = np.empty((rows, most), dtype=np.int64), np.empty((rows, most))
    return High(np.empty(rows), np.empty(rows), np.empty(rows, dtype=np.int64), voxels, z)


def scale_to_unit(residuals: Floats) -> UnitResiduals:
    """Scale residuals (K, B) to norm 1 at each voxel; 0 stays 0."""
    size = np.sqrt((residuals**2).sum(axis=0))
    values = (residuals / np.where(size > 0.0, size, 1.0)).astype(np.float32)
    return UnitResiduals(values, (values.astype(np.float64) ** 2).sum(axis=0))


@inner
def _exact(weights: Floats, values: Singles, norm: float, voxel: int, table: ZTable) -> tuple[float, float]:
    """Return r and z of one voxel in double precision; r is 0 where z cannot be estimated."""
    along = 0.0
    for i in range(weights.size):
        along += weights[i] * values[i, voxel]
    residual = 0.0
    for i in range(weights.size):
        left = values[i, voxel] - along * weights[i]
        residual += left * left
    z = z_of_shares(along * along, residual, table)
    if z == 0.0:
        return 0.0, 0.0
    return along / math.sqrt(norm), z if along > 0.0 else -z


@inner
def _any_beyond(line: Singles, bound: float, sides: int) -> bool:
    """Return whether any product is beyond a bound; without branches, so that it is vectorised."""
    found = 0
    if sides == 2:
        for b in range(line.size):
            found |= int(abs(line[b]) >= bound)
    else:
        for b in range(line.size):
            found |= int(line[b] >= bound)
    return found > 0


class _Bounds(NamedTuple):
    """Which products are computed again in double precision."""

    sides: int  # 2, or 1: the upper tail alone
    floor_share: float  # |r| of the floor
    floor_z: float
    slack: float  # largest rounding error of a product in single precision


@compiled
def _scan(
    products: Singles,
    width: int,
    first: int,
    weights: Floats,
    residuals: UnitResiduals,
    table: ZTable,
    bounds: _Bounds,
    high: High,
) -> None:
    """Go through the products of M relabellings with ``width`` voxels from ``first`` on."""
    sides, floor_share, floor_z, slack = bounds
    two_sided = sides == 2
    for row in range(products.shape[0]):
        bound = np.float32(min(high.share[row], floor_share) - slack)
        for start in range(0, width, LOOK):
            stop = min(start + LOOK, width)
            if not _any_beyond(products[row, start:stop], bound, sides):
                continue
            for b in range(start, stop):
                value = products[row, b]
                if not (value >= bound or (two_sided and value <= -bound)):
                    continue
                voxel = first + b
                share, z = _exact(weights[row], residuals.values, residuals.norms[voxel], voxel, table)
                size = abs(z) if two_sided else z
                if share != 0.0 and size > high.peak[row]:
                    high.peak[row] = size
                    high.share[row] = abs(share) if two_sided else share
                    bound = np.float32(min(high.share[row], floor_share) - slack)
                if size > floor_z:
                    if high.counts[row] < high.voxels.shape[1]:
                        high.voxels[row, high.counts[row]] = voxel
                        high.z[row, high.counts[row]] = z
                    high.counts[row] += 1


def scan_products(
    weights: Floats,
    residuals: UnitResiduals,
    table: ZTable,
    high: High,
    *,
    two_sided: bool,
    floor_share: float,
    floor_z: float,
) -> None:
    """Find each relabelling's highest voxel and the voxels beyond a floor.

    Parameters
    ----------
    weights : ndarray, shape (M, K)
        Of norm 1 each, orthogonal to the nuisance however relabelled.
    residuals : UnitResiduals
        N voxels.
    table : ZTable
        Of a t test.
    high : High
        From `new_high`; filled for the M relabellings. ``peak`` is the largest
        z (two-sided: |z|), -inf where nothing can be estimated.
    two_sided : bool
        False: the upper tail alone.
    floor_share, floor_z : float
        |r| and |z| of the floor; infinite when only the highest voxel is needed.
    """
    rows = weights.shape[0]
    part = High(high.share[:rows], high.peak[:rows], high.counts[:rows], high.voxels, high.z)
    part.share[:] = -math.inf
    part.peak[:] = -math.inf
    part.counts[:] = 0
    single = weights.astype(np.float32)
    bounds = _Bounds(2 if two_sided else 1, floor_share, floor_z, ROUNDING * (weights.shape[1] + 4))
    space = np.empty((rows, TILE), dtype=np.float32)
    for first in range(0, residuals.norms.size, TILE):
        stop = min(first + TILE, residuals.norms.size)
        np.matmul(single, residuals.values[:, first:stop], out=space[:, : stop - first])
        _scan(space, stop - first, first, weights, residuals, table, bounds, part)


@compiled
def _z_rows(products: Floats, norms: Floats, table: ZTable, effective: int, out: Floats) -> None:
    """Write z, (M, B), from products (M, Q + P, B) with effective and nuisance weights."""
    is_t = table.dof1 == 0.0
    if is_t and products.shape[1] == 1:
        scale = np.empty(norms.size)
        for b in range(norms.size):
            scale[b] = 1.0 / math.sqrt(norms[b]) if norms[b] > 0.0 else 0.0
        for row in range(products.shape[0]):
            z_of_correlations(products[row, 0], scale, table, out[row])
        return
    for row in range(products.shape[0]):
        for b in range(products.shape[2]):
            explained = 0.0
            for q in range(effective):
                explained += products[row, q, b] ** 2
            residual = norms[b] - explained
            for q in range(effective, products.shape[1]):
                residual -= products[row, q, b] ** 2
            z = z_of_shares(explained, residual, table)
            out[row, b] = -z if is_t and products[row, 0, b] < 0.0 else z


def z_maps(weights: Floats, effective: int, residuals: UnitResiduals, table: ZTable, out: Floats) -> None:
    """Compute z maps of M relabellings in double precision.

    Parameters
    ----------
    weights : ndarray, shape (M, Q + P, K)
        Orthonormal in each relabelling: first the effective, then the nuisance ones.
    effective : int
        Q; 1 for t tests.
    residuals : UnitResiduals
        N voxels.
    table : ZTable
    out : ndarray, shape (M, N)
        Filled; 0 where a test cannot be estimated.
    """
    rows, each, n_maps = weights.shape
    tile = min(TILE, max(256, IN_CACHE // n_maps))
    flat = weights.reshape(rows * each, n_maps)
    for first in range(0, residuals.norms.size, tile):
        values = residuals.values[:, first : first + tile].astype(np.float64)
        products = (flat @ values).reshape(rows, each, values.shape[1])
        _z_rows(
            products,
            residuals.norms[first : first + tile],
            table,
            effective,
            out[:rows, first : first + values.shape[1]],
        )


@compiled
def _pick(z: Floats, floor: float, sign: float, voxels: Integers, heights: Floats) -> int:
    """Write the voxels whose signed z exceeds a floor; return how many."""
    count = 0
    for i in range(z.size):
        height = sign * z[i]
        voxels[count] = i  # always, and kept by counting it: no branch to foresee
        heights[count] = height
        count += height > floor
    return count


def pick_high(z: Floats, floor: float, sign: float, voxels: Integers, heights: Floats) -> int:
    """List the voxels of z (N,) with ``sign * z > floor``.

    Parameters
    ----------
    z : ndarray, shape (N,)
    floor, sign : float
    voxels, heights : ndarray, shape (N,)
        Filled from the start: where, and ``sign * z`` there.

    Returns
    -------
    int
        How many.
    """
    return int(_pick(z, floor, sign, voxels, heights))
