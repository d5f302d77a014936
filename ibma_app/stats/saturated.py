"""Values at the end of their scale, which are the strongest ones, not empty ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LARGEST_Z = 38.4
"""z of the smallest p in double precision: an infinite z or t says that its p was below that."""

MOSTLY_ZERO = 0.1  # share of a p map's voxels: fewer zeros are no background


def hold_saturated(
    maps: Mapping[str, NDArray[Any]], smallest_p: float
) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """Replace saturated values by the limit of their scale, so that the strongest voxels are not left out.

    An infinite t or z becomes the largest finite one of its map, 38.4 at
    least. A p of 0 becomes the smallest p that its file can hold, unless it is
    background: where its effect, t or z is 0 or missing; or, without these, in
    a region of zeros that reaches the edge of the volume, if more than a tenth
    of it are zeros.

    Parameters
    ----------
    maps : mapping of str to (X, Y, Z) array
        By kind of map, all of one shape.
    smallest_p : float
        The smallest positive number that the p map's file can hold.

    Returns
    -------
    maps : dict
        The same arrays where nothing was saturated, changed copies elsewhere.
    counts : dict
        By kind, how many values were taken at the limit; no kind without any.
    """
    held, counts = dict(maps), {}
    for kind in ("t", "z"):
        if kind in maps and (infinite := np.isinf(maps[kind])).any():
            values = maps[kind]
            finite = np.abs(values[np.isfinite(values)])
            limit = max(LARGEST_Z, float(finite.max(initial=0.0)))
            held[kind] = np.where(infinite, np.copysign(limit, values), values)
            counts[kind] = int(np.count_nonzero(infinite))
    if "p" in maps:
        zero = maps["p"] == 0
        if zero.any():
            zero &= ~_background(maps, zero)
        if zero.any():
            held["p"] = np.where(zero, smallest_p, maps["p"].astype(np.float64))
            counts["p"] = int(np.count_nonzero(zero))
    return held, counts


def _background(maps: Mapping[str, NDArray[Any]], zero: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the zeros of a p map that are background."""
    others = [maps[kind] for kind in ("effect", "t", "z") if kind in maps]
    if others:
        empty: NDArray[np.bool_] = np.logical_and.reduce([~(np.abs(other) > 0) for other in others])
        return empty
    if np.count_nonzero(zero) <= MOSTLY_ZERO * zero.size:
        return np.zeros_like(zero)
    labels, _ = ndimage.label(zero)
    edge = np.ones(zero.shape, dtype=bool)
    edge[tuple(slice(1, -1) for _ in zero.shape)] = False
    outside = np.unique(labels[edge & zero])
    return np.isin(labels, outside[outside > 0])
