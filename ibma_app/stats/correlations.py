"""Correlations of many maps with each other, tile by tile: high ones are listed, all others only averaged."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

TILE = 256  # maps whose correlations with all others are held at a time
FEWEST = 100  # voxels that both maps of a pair must cover
CONSTANT = 1e-6  # ratio of standard deviation and largest value below which a map is constant in single precision


class Correlations(NamedTuple):
    """How K maps correlate. NaN: not defined (a constant map, or too few shared voxels)."""

    means: Floats  # (D, D) over the pairs of two groups of maps; of the maps themselves where D is K
    agreement: Floats  # (K,) correlation of each map with the mean of the others
    alike: Integers  # (N, 2) pairs of maps, first < second
    alike_r: Floats  # (N,) their correlations


def correlate_maps(values: Singles, groups: Integers, limit: float) -> Correlations:
    """Correlate maps with each other, each pair over the voxels that both cover.

    The mean of the others is that of the standardised maps: with R the
    correlations of complete maps, map i has the correlation
    sum_j R_ij / sqrt(sum_jk R_jk) with it, j and k running over the others.
    Where coverage differs this is an approximation.

    Parameters
    ----------
    values : (K, S) array of float32
        NaN where a map does not cover a voxel.
    groups : (K,) array of int
        The group of each map, 0 to D - 1; none is empty.
    limit : float
        Pairs with ``|r|`` at or above it are listed.

    Returns
    -------
    Correlations
        Single precision: to about 1e-6.
    """
    n_maps, n_groups = len(values), int(groups.max()) + 1
    covered = ~np.isnan(values)
    standard, varies = _standardise(values, covered)
    masks = None if covered.all() else covered.astype(np.float32)
    member = np.zeros((n_maps, n_groups))
    member[np.arange(n_maps), groups] = 1.0
    sums, totals, counts = np.zeros(n_maps), np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups))
    alike, alike_r = [], []
    for start in range(0, n_maps, TILE):
        rows = np.arange(start, min(start + TILE, n_maps))
        r = _tile(standard, masks, slice(start, start + rows.size))
        r[~varies[rows]] = np.nan
        r[:, ~varies] = np.nan
        r[rows - start, rows] = np.nan
        known = np.isfinite(r)
        filled = np.where(known, r, 0.0)
        sums[rows] = filled.sum(axis=1)
        totals += member[rows].T @ (filled @ member)
        counts += member[rows].T @ (known @ member)
        found = np.argwhere(np.abs(filled) >= limit)
        found = found[found[:, 1] > found[:, 0] + start]
        alike.append(found + np.array([start, 0]))
        alike_r.append(filled[found[:, 0], found[:, 1]])
    with np.errstate(invalid="ignore"):
        means = totals / np.where(counts > 0, counts, np.nan)
    agreement = np.where(varies, _agreement(sums, int(varies.sum())), np.nan)
    return Correlations(means, agreement, np.concatenate(alike), np.concatenate(alike_r))


def _standardise(values: Singles, covered: NDArray[np.bool_]) -> tuple[Singles, NDArray[np.bool_]]:
    """Scale each map to mean 0 and variance 1 over its own voxels, 0 elsewhere; return which maps vary, too."""
    standard = np.zeros(values.shape, dtype=np.float32)
    varies = np.zeros(len(values), dtype=bool)
    for row, (line, seen) in enumerate(zip(values, covered, strict=True)):
        complete = bool(seen.all())
        there = (line if complete else line[seen]).astype(np.float64)
        if there.size < FEWEST:
            continue
        largest = max(there.max(), -there.min())
        there -= there.mean()
        spread = math.sqrt(float(there @ there) / there.size)
        varies[row] = spread > CONSTANT * largest
        if varies[row]:
            standard[row, slice(None) if complete else seen] = there / spread
    return standard, varies


def _tile(standard: Singles, masks: Singles | None, rows: slice) -> Floats:
    """Correlate some maps with all, (T, K): over all voxels, or those that both cover."""
    mine = standard[rows]
    products = (mine @ standard.T).astype(np.float64)
    if masks is None:
        return np.clip(products / standard.shape[1], -1.0, 1.0)
    seen = masks[rows]
    shared = (seen @ masks.T).astype(np.float64)
    mean, others = ((a @ b.T).astype(np.float64) for a, b in ((mine, masks), (seen, standard)))
    square, of_others = ((a @ b.T).astype(np.float64) for a, b in ((mine**2, masks), (seen, standard**2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        spreads = (square - mean**2 / shared) * (of_others - others**2 / shared)
        r = (products - mean * others / shared) / np.sqrt(spreads)
    r[~(shared >= FEWEST) | ~(spreads > 0)] = np.nan
    return np.clip(r, -1.0, 1.0)


def _agreement(sums: Floats, n_maps: int) -> Floats:
    """Correlate each map with the mean of the others, from its summed correlations with them."""
    rest = sums.sum() + n_maps - 2.0 * sums - 1.0  # sum of all correlations among the others, with themselves included
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(rest > 0, np.clip(sums / np.sqrt(rest), -1.0, 1.0), np.nan)
    return found
