"""Studies that look like the same people: a meta-analysis that takes them to be independent overstates its evidence.

The criterion is the correlation of the fine detail of residual maps (maps
less the mean of all), pairs of equal sample size against pairs of unequal
sample size, which cannot be exactly the same people. Where that does not
decide, no pair is reported (`validation/same_sample.py` measures its errors).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

LEAST_WEIGHT = 0.1  # of the smoothing kernel inside the coverage: below it a smoothed value would be noise
FLOOR = 0.15
"""Correlation of fine detail up to which no pair is reported; pain studies of unequal n reach .16."""
SPREADS = 6.0
"""Robust standard deviations that a pair must lie above the median where sample sizes do not help."""
SAME_MAP = 0.85
"""One map on two grids keeps .90 to .96 of its fine detail (2 mm against 3 and 4 mm); two contrasts of one sample
reach .61."""
REFERENCE = 10  # fewest pairs of unequal n from which a limit is taken


class Suspects(NamedTuple):
    """What the comparison found."""

    groups: tuple[tuple[int, ...], ...]  # rows that look like one sample; none is in two groups
    copies: tuple[tuple[int, ...], ...]  # rows that look like one map, perhaps on other grids
    limit: float  # the correlation that a pair had to exceed


def smoothing_weight(covered: NDArray[np.bool_], sigma: Floats) -> Singles:
    """Return how much of the smoothing kernel lies within the coverage at each voxel, (X, Y, Z)."""
    weight = ndimage.gaussian_filter(covered.astype(np.float32), sigma, mode="constant")
    return np.maximum(weight, np.float32(LEAST_WEIGHT))


def fine_detail(volume: Singles, covered: NDArray[np.bool_], sigma: Floats, weight: Singles) -> Singles:
    """Subtract a map's Gaussian smoothing within its coverage, and scale it by its root mean square.

    What two samples share is broad (the effect, the anatomy, the smoothing of
    their software); what a sample shares with itself is fine.

    Parameters
    ----------
    volume : (X, Y, Z) array of float32
        0 where not covered.
    covered : (X, Y, Z) array of bool
    sigma : (3,) array
        Standard deviation of the Gaussian along each axis, in voxels.
    weight : (X, Y, Z) array
        From `smoothing_weight`, of the same coverage.

    Returns
    -------
    (N,) array of float32
        At the covered voxels, in C order; all 0 for a map that is 0 everywhere.
    """
    size = float(np.sqrt(np.mean(np.square(volume[covered], dtype=np.float64)))) if covered.any() else 0.0
    if size == 0.0:
        return np.zeros(int(np.count_nonzero(covered)), dtype=np.float32)
    scaled = (volume / size).astype(np.float32)
    smooth = ndimage.gaussian_filter(scaled, sigma, mode="constant")
    left: Singles = (scaled - smooth / weight)[covered]
    return left


def find_suspects(
    r: Floats, sample_size: Sequence[float | None], floor: float = FLOOR, settled: Sequence[int] = ()
) -> Suspects:
    """Group the maps whose fine detail correlates as that of one sample does.

    Parameters
    ----------
    r : (K, K) array
        Correlations of fine detail; NaN where a pair cannot be compared.
    sample_size : sequence of float or None, length K
        None: unknown, and then unequal to any. Where none is known, or there
        are fewer than 10 pairs of unequal n, every pair is compared with the
        median and spread of all.
    floor : float
        Correlations at or below it are never reported.
    settled : sequence of int
        Rows among which no pair is reported, as these were compared by something better.

    Returns
    -------
    Suspects
    """
    n = np.array([np.nan if size is None else size for size in sample_size])
    first, second = np.triu_indices(len(n), 1)
    values = r[first, second]
    known = np.isfinite(values)
    copies = known & (values >= SAME_MAP)
    eligible = known & ~copies
    unequal = eligible & (n[first] != n[second]) & np.isfinite(n[first] + n[second])
    limit = floor
    if np.count_nonzero(unequal) >= REFERENCE:
        limit = max(floor, float(values[unequal].max()))
        eligible &= n[first] == n[second]
    elif eligible.any():
        median = float(np.median(values[eligible]))
        spread = 1.4826 * float(np.median(np.abs(values[eligible] - median)))
        limit = max(floor, median + SPREADS * spread)
    judged = ~(np.isin(first, settled) & np.isin(second, settled))
    same, copies = eligible & (values > limit) & judged, copies & judged
    return Suspects(_connect(first[same], second[same], len(n)), _connect(first[copies], second[copies], len(n)), limit)


def join_suspects(one: Suspects, other: Suspects, count: int) -> Suspects:
    """Join what two comparisons of ``count`` maps found; groups that share a map become one."""

    def joined(*groups: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        pairs = np.array([(group[0], row) for group in groups for row in group[1:]], dtype=np.int64).reshape(-1, 2)
        return _connect(pairs[:, 0], pairs[:, 1], count)

    groups, copies = joined(*one.groups, *other.groups), joined(*one.copies, *other.copies)
    return Suspects(groups, copies, max(one.limit, other.limit))


def _connect(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> tuple[tuple[int, ...], ...]:
    """Return the connected components of more than one member."""
    if not first.size:
        return ()
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(first.size), (first, second)), shape=(count, count))
    number, component = connected_components(graph, directed=False)
    members = [tuple(np.flatnonzero(component == one).tolist()) for one in range(number)]
    return tuple(rows for rows in members if len(rows) > 1)
