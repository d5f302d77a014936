"""Least squares of many relabellings at once: products of weights with data of unit norm.

The residuals of each voxel under the null are scaled to norm 1 once. A
relabelling is then a set of weights on the maps, and r of its t test a product
of the weights with the data. Where only maxima and high voxels are wanted,
single precision finds them and double precision decides (1 - r² cancels in
single precision, so that nothing is concluded from it alone).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled
from ibma_app.stats.ztable import ZTable, z_of_correlations, z_of_shares

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

TILE = 4096  # voxels of one product
LOOK = 128  # products that are compared with a bound at a time
IN_CACHE = 100_000  # numbers that a tile of data holds
ROUNDING = 6.0e-8  # of one single-precision operation


class Units(NamedTuple):
    """N voxels' residuals under the null, each scaled to norm 1."""

    values: Singles  # (K, N)
    norms: Floats  # (N,) squared norms of what single precision made of them


class High(NamedTuple):
    """What a scan finds of each of M relabellings; filled in place."""

    share: Floats  # (M,) r of the highest voxel so far
    peak: Floats  # (M,) its z
    counts: Integers  # (M,) voxels beyond the floor
    voxels: Integers  # (M, L) the first L of them
    z: Floats  # (M, L) their z, signed


def new_high(rows: int, most: int) -> High:
    """Allocate for M relabellings, and L voxels of each."""
    voxels, z = np.empty((rows, most), dtype=np.int64), np.empty((rows, most))
    return High(np.empty(rows), np.empty(rows), np.empty(rows, dtype=np.int64), voxels, z)


def to_units(residuals: Floats) -> Units:
    """Scale residuals (K, B) to norm 1 at each voxel; 0 stays 0."""
    size = np.sqrt((residuals**2).sum(axis=0))
    values = (residuals / np.where(size > 0.0, size, 1.0)).astype(np.float32)
    return Units(values, (values.astype(np.float64) ** 2).sum(axis=0))


@compiled
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


@compiled
def _any_beyond(line: Singles, bound: float, sides: int) -> bool:
    """Tell whether any product is beyond a bound: without a branch, so that many are compared at a time."""
    found = 0
    if sides == 2:
        for b in range(line.size):
            found |= int(abs(line[b]) >= bound)
    else:
        for b in range(line.size):
            found |= int(line[b] >= bound)
    return found > 0


class _Bounds(NamedTuple):
    """What makes a product worth a closer look."""

    sides: int  # 1: the upper one
    floor_share: float
    floor_z: float
    slack: float  # rounding error of a product in single precision, at most


@compiled
def _scan(
    products: Singles,
    width: int,
    first: int,
    weights: Floats,
    units: Units,
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
                share, z = _exact(weights[row], units.values, units.norms[voxel], voxel, table)
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
    units: Units,
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
    units : Units
        N voxels.
    table : ZTable
        Of a t test.
    high : High
        From `new_high`; filled for the M relabellings. ``peak`` is the largest
        z (two-sided: |z|), -inf where nothing can be estimated.
    two_sided : bool
        Else the upper tail alone.
    floor_share, floor_z : float
        |r| and |z| of the floor; infinite when no voxels are asked for.
    """
    rows = weights.shape[0]
    part = High(high.share[:rows], high.peak[:rows], high.counts[:rows], high.voxels, high.z)
    part.share[:] = -math.inf
    part.peak[:] = -math.inf
    part.counts[:] = 0
    single = weights.astype(np.float32)
    bounds = _Bounds(2 if two_sided else 1, floor_share, floor_z, ROUNDING * (weights.shape[1] + 4))
    space = np.empty((rows, TILE), dtype=np.float32)
    for first in range(0, units.norms.size, TILE):
        stop = min(first + TILE, units.norms.size)
        np.matmul(single, units.values[:, first:stop], out=space[:, : stop - first])
        _scan(space, stop - first, first, weights, units, table, bounds, part)


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


def z_maps(weights: Floats, effective: int, units: Units, table: ZTable, out: Floats) -> None:
    """Compute z maps of M relabellings in double precision.

    Parameters
    ----------
    weights : ndarray, shape (M, Q + P, K)
        Orthonormal in each relabelling: first the effective, then the nuisance ones.
    effective : int
        Q; 1 for t tests.
    units : Units
        N voxels.
    table : ZTable
    out : ndarray, shape (M, N)
        Filled; 0 where a test cannot be estimated.
    """
    rows, each, n_maps = weights.shape
    tile = min(TILE, max(256, IN_CACHE // n_maps))
    flat = weights.reshape(rows * each, n_maps)
    for first in range(0, units.norms.size, tile):
        values = units.values[:, first : first + tile].astype(np.float64)
        products = (flat @ values).reshape(rows, each, values.shape[1])
        _z_rows(
            products, units.norms[first : first + tile], table, effective, out[:rows, first : first + values.shape[1]]
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
