"""Sums over maps of changed signs, for many sets of signs at once, and which of them are beyond a bound.

Products in single precision choose; what they choose is summed again in double
precision, so that results do not depend on how a product was computed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

TILE = 4096  # voxels of one product
LOOK = 128  # products that are compared with their bounds at a time
ROUNDING = 6.0e-8  # relative error of one operation in single precision


class Terms(NamedTuple):
    """What the signs multiply, at N voxels."""

    values: Singles  # (K, N) the largest of each voxel between 1/2 and 1
    scale: Floats  # (N,) powers of two: times it are the terms themselves


class Beyond(NamedTuple):
    """The sums of M sets of signs that are beyond their bounds; filled in place."""

    counts: Integers  # (M,) how many
    voxels: Integers  # (M, L) the first L of them
    sums: Floats  # (M, L) theirs


def scale_terms(terms: Floats) -> Terms:
    """Scale terms (K, B) by powers of two, which rounds nothing, and keep them in single precision."""
    exponent = np.frexp(np.abs(terms).max(axis=0, initial=0.0))[1]
    return Terms(np.ldexp(terms, -exponent).astype(np.float32), np.ldexp(1.0, exponent))


def new_beyond(rows: int, most: int) -> Beyond:
    """Allocate for M sets of signs, and L voxels of each."""
    return Beyond(np.zeros(rows, dtype=np.int64), np.empty((rows, most), dtype=np.int64), np.empty((rows, most)))


@inner
def _sum(signs: Floats, terms: Terms, voxel: int) -> float:
    """Sum one voxel's terms in the maps' order."""
    total = 0.0
    for i in range(signs.size):
        total += signs[i] * terms.values[i, voxel]
    return total * terms.scale[voxel]


@inner
def _any_beyond(line: Singles, bounds: Singles, sides: int) -> bool:
    """Return whether any product is beyond its bound; without branches, so that it is vectorised."""
    found = 0
    if sides == 2:
        for b in range(line.size):
            found |= int(abs(line[b]) >= bounds[b])
    else:
        for b in range(line.size):
            found |= int(line[b] >= bounds[b])
    return found > 0


@compiled
def _list_beyond(
    products: Singles, first: int, signs: Floats, terms: Terms, bounds: Singles, sides: int, beyond: Beyond
) -> None:
    """Go through the products of M sets of signs with the voxels from ``first`` on."""
    width, most = products.shape[1], beyond.voxels.shape[1]
    for row in range(products.shape[0]):
        for start in range(0, width, LOOK):
            stop = min(start + LOOK, width)
            if not _any_beyond(products[row, start:stop], bounds[first + start : first + stop], sides):
                continue
            for b in range(start, stop):
                value = products[row, b]
                if value >= bounds[first + b] or (sides == 2 and -value >= bounds[first + b]):
                    at = beyond.counts[row]
                    if at < most:
                        beyond.voxels[row, at] = first + b
                        beyond.sums[row, at] = _sum(signs[row], terms, first + b)
                    beyond.counts[row] += 1


def largest_sums(terms: Terms) -> Floats:
    """Return the largest sum that any signs have, (N,)."""
    total = np.zeros(terms.scale.size)
    for row in terms.values:  # a row at a time: the terms may be most of the memory there is
        total += np.abs(row)
    return total * terms.scale


def make_bounds(least: Floats, terms: Terms) -> Singles:
    """Make the bounds of products in single precision from those of sums, (N,): no sum beyond is missed."""
    slack = ROUNDING * (terms.values.shape[0] + 4) * largest_sums(terms)
    return np.nextafter(((least - slack) / terms.scale).astype(np.float32), np.float32(-np.inf))


def list_beyond(signs: Floats, terms: Terms, bounds: Singles, *, two_sided: bool, beyond: Beyond) -> None:
    """List the sums that are beyond their bounds, and some that nearly are.

    Parameters
    ----------
    signs : ndarray, shape (M, K)
    terms : Terms
        N voxels.
    bounds : ndarray, shape (N,)
        From `make_bounds`.
    two_sided : bool
        Their size counts; False: sums above.
    beyond : Beyond
        From `new_beyond`; filled for the M sets.
    """
    rows, n_voxels = signs.shape[0], bounds.size
    beyond.counts[:rows] = 0
    single, space = signs.astype(np.float32), np.empty((rows, TILE), dtype=np.float32)
    for first in range(0, n_voxels, TILE):
        products = space[:, : min(TILE, n_voxels - first)]
        np.matmul(single, terms.values[:, first : first + TILE], out=products)
        _list_beyond(products, first, signs, terms, bounds, 2 if two_sided else 1, beyond)


@compiled
def _sum_all(signs: Floats, terms: Terms, out: Floats) -> None:
    """Loop over the maps, each at all voxels."""
    out[:] = 0.0
    for i in range(signs.size):
        for b in range(out.size):
            out[b] += signs[i] * terms.values[i, b]
    for b in range(out.size):
        out[b] *= terms.scale[b]


def sum_all(signs: Floats, terms: Terms) -> Floats:
    """Return every voxel's sum, (N,), for one set of signs (K,): the bits that `list_beyond` has of a voxel."""
    out = np.empty(terms.scale.size)
    _sum_all(np.ascontiguousarray(signs, dtype=np.float64), terms, out)
    return out
