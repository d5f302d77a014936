"""Least squares of many relabelled designs at voxels that not every map covers, from products of matrices.

What a relabelling's normal equations consist of, at every voxel, are sums over the
covered maps of products of two columns, and of a column with the data: one
product of matrices for all relabellings of a batch and all voxels of a tile.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.ztable import ZTable, make_ztable, z_of_shares

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SURE = 1e-7
"""Share of a column's sum of squares below which what the columns before leave of it may be rounding."""


class Tables(NamedTuple):
    """z of a test at each number of degrees of freedom that occurs; D of them."""

    z: Floats  # (D, STEPS + 1)
    slope: Floats  # (D, STEPS + 1)
    first: Floats  # (D,)
    steps_per_one: Floats  # (D,)
    rows: float  # of an F test; 0 of a t test
    dof: Floats  # (D,) ascending


class Data(NamedTuple):
    """B voxels of K maps."""

    values: Floats  # (K, B) 0 where not covered
    covered: Floats  # (K, B) 1 or 0
    squares: Floats  # (B,) sum of values²
    slots: NDArray[np.int64]  # (B,) which table


def make_tables(dofs: Floats, rows: int) -> Tables:
    """Tabulate z for some degrees of freedom, each > 0."""
    dofs = np.unique(dofs)
    found = [make_ztable(float(dof), rows) for dof in dofs]
    z, slope = np.array([table.z for table in found]), np.array([table.slope for table in found])
    first, steps = np.array([table.first for table in found]), np.array([table.steps_per_one for table in found])
    return Tables(z, slope, first, steps, float(rows), dofs)


def take_data(values: Floats, covered: Bools, columns: int, tables: Tables) -> Data:
    """Prepare voxels, each covered by more maps than there are columns."""
    there = np.where(covered, values, 0.0)
    left = covered.sum(axis=0) - columns
    slots = np.searchsorted(tables.dof, left).clip(0, tables.dof.size - 1)
    return Data(there, covered.astype(np.float64), (there**2).sum(axis=0), slots)


@inner
def _solve(products: Floats, size: int, row: int, voxel: int, work: Floats) -> bool:
    """Write the data along the orthonormalised columns into the last row of ``work``; False where rank may be lost."""
    count = size * (size + 1) // 2
    entry = 0
    for a in range(size):
        for b in range(a + 1):  # row a of the triangle: columns before it first
            value = products[row, entry, voxel]
            entry += 1
            whole = value
            for c in range(b):
                value -= work[a, c] * work[b, c]
            if a == b:
                if not value > SURE * whole:
                    return False
                work[a, a] = math.sqrt(value)
            else:
                work[a, b] = value / work[b, b]
    for a in range(size):
        value = products[row, count + a, voxel]
        for c in range(a):
            value -= work[a, c] * work[size, c]
        work[size, a] = value / work[a, a]
    return True


@compiled
def _z_of_products(products: Floats, nuisance: int, size: int, data: Data, tables: Tables, out: Floats) -> None:
    """Loop over relabellings and voxels; NaN where the exact fit has to decide."""
    work = np.zeros((size + 1, size))
    for row in range(products.shape[0]):
        for voxel in range(products.shape[2]):
            if not _solve(products, size, row, voxel, work):
                out[row, voxel] = np.nan
                continue
            residual, explained = data.squares[voxel], 0.0
            for a in range(nuisance):
                residual -= work[size, a] ** 2
            for a in range(nuisance, size):
                explained += work[size, a] ** 2
            d = data.slots[voxel]
            table = ZTable(
                tables.z[d], tables.slope[d], tables.first[d], tables.steps_per_one[d], tables.rows, tables.dof[d]
            )
            z = z_of_shares(explained, residual - explained, table)
            out[row, voxel] = -z if tables.rows == 0.0 and work[size, size - 1] < 0.0 else z


def relabelled_z(columns: Floats, nuisance: int, data: Data, tables: Tables, out: Floats) -> None:
    """Compute z of a test in some relabellings.

    Parameters
    ----------
    columns : ndarray, shape (M, S, K)
        Of each relabelling's design: first those that are not tested, then those that are.
    nuisance : int
        How many are not.
    data : Data
        B voxels.
    tables : Tables
    out : ndarray, shape (M, B)
        Filled; NaN where the covered rows may not be of full rank.
    """
    rows, size, n_maps = columns.shape
    pairs = np.concatenate([columns[:, a, None] * columns[:, : a + 1] for a in range(size)], axis=1)
    count = pairs.shape[1]
    products = np.empty((rows, count + size, data.squares.size))
    flat = pairs.reshape(rows * count, n_maps) @ data.covered
    products[:, :count] = flat.reshape(rows, count, -1)
    products[:, count:] = (columns.reshape(rows * size, n_maps) @ data.values).reshape(rows, size, -1)
    _z_of_products(products, nuisance, size, data, tables, out)
