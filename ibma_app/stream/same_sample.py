"""Studies that look like the same people: a meta-analysis that takes them to be independent overstates its evidence.

The criterion is the correlation of the fine detail of residual maps (maps
less the mean of all), pairs of equal sample size against pairs of unequal
sample size, which cannot be the very same people. It is silent where it
cannot tell (`validation/same_sample.py` measures how often it errs).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.results import MapFlag
from ibma_app.stats.correlations import FEWEST, correlate_maps
from ibma_app.stats.fine_detail import fine_detail
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

SIGMA = 4.0  # mm: of the smoothing that is subtracted
VALUES = 5_000_000  # compared in all (20 MB), as in stream/similarity.py
FLOOR = 0.15
"""Correlation of fine detail up to which nothing is said; pain studies of unequal n reach .16."""
SPREADS = 6.0
"""Robust standard deviations above the median that a pair must lie where sample sizes tell nothing."""
RESEL = 8.0**3  # mm3: of fine detail, at most; 5 standard deviations of chance raise the floor in small masks
SAME_MAP = 0.85
"""One map on two grids keeps .90 to .96 of its fine detail (2 mm against 3 and 4 mm); two contrasts of one sample
reach .61."""
REFERENCE = 10  # pairs of unequal n that it takes to learn from them
FEWEST_MAPS = 4  # with three, the residuals of two maps are each other's mirror image already


class Suspects(NamedTuple):
    """What the comparison found."""

    groups: tuple[tuple[int, ...], ...]  # rows that look like one sample; none is in two groups
    copies: tuple[tuple[int, ...], ...]  # rows that look like one map, perhaps on other grids
    limit: float  # the correlation that a pair had to exceed


def flag_same_samples(stack: Stack, sample_size: Sequence[float | None]) -> tuple[MapFlag, ...]:
    """Name the studies that look like the same people, and those that look like one map on several grids.

    Parameters
    ----------
    stack : Stack
        K maps of studies; their effects are compared, or z where there are none.
    sample_size : sequence of float or None, length K

    Returns
    -------
    tuple of MapFlag
        Of the kinds "sample" and "duplicate"; at most one of each.
    """
    if stack.n_maps < FEWEST_MAPS or stack.n_voxels < FEWEST:
        return ()
    chance = 5.0 / np.sqrt(stack.n_voxels * stack.grid.voxel_volume / RESEL)
    found = find_suspects(_correlate(stack), sample_size, max(FLOOR, chance))
    labels = [survey.label for survey in stack.survey]
    flags = []
    if found.copies:
        text = (
            "The same map seems to be there more than once, perhaps on another grid (correlation of fine detail "
            f"beyond {SAME_MAP:g}): {_name(found.copies, labels, ' = ')}. Leave one out."
        )
        flags.append(MapFlag("duplicate", _rows(found.copies), text, found.copies))
    if found.groups:
        text = (
            "Studies look like the same people (correlation of the fine detail of their maps beyond "
            f"{found.limit:.2f}): {_name(found.groups, labels, ', ')}. Taken as independent they overstate the "
            "evidence: leave all but one of each out, or tell that they are one sample by a column cluster of "
            "studies.tsv."
        )
        flags.append(MapFlag("sample", _rows(found.groups), text, found.groups))
    return tuple(flags)


def find_suspects(r: Floats, sample_size: Sequence[float | None], floor: float = FLOOR) -> Suspects:
    """Group the maps whose fine detail correlates as that of one sample does.

    Parameters
    ----------
    r : (K, K) array
        Correlations of fine detail; NaN where a pair cannot be compared.
    sample_size : sequence of float or None, length K
        None: unknown, and then equal to none. Where none is known, or there
        are fewer than 10 pairs of unequal n, every pair is judged against
        the median and spread of all.
    floor : float
        Correlations at or below it are not looked at.

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
    same = eligible & (values > limit)
    return Suspects(_connect(first[same], second[same], len(n)), _connect(first[copies], second[copies], len(n)), limit)


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


def _correlate(stack: Stack) -> Floats:
    """Correlate the fine detail of residual maps, (K, K), over what each pair covers."""
    quantity = "effect" if "effect" in stack.kinds else "z"
    grid = stack.grid
    sigma = SIGMA / np.sqrt((grid.affine[:3, :3] ** 2).sum(axis=0))
    step = -(-stack.n_maps * stack.n_voxels // VALUES)
    rows = np.full((stack.n_maps, len(range(0, stack.n_voxels, step))), np.nan, dtype=np.float32)
    for row in range(stack.n_maps):
        values = stack.read_map(quantity, row)
        there = ~np.isnan(values)
        volume = np.asarray(grid.to_volume(np.where(there, values, np.float32(0.0))), dtype=np.float32)
        detail = np.full(stack.n_voxels, np.nan, dtype=np.float32)
        detail[there] = fine_detail(volume, np.asarray(grid.to_volume(there, fill=False), dtype=bool), sigma)
        rows[row] = detail[::step]
    counted = np.maximum(np.count_nonzero(~np.isnan(rows), axis=0), 1)
    rows -= (np.nansum(rows, axis=0) / counted).astype(np.float32)
    return correlate_maps(rows, np.arange(stack.n_maps), 2.0).means


def _name(groups: Sequence[Sequence[int]], labels: Sequence[str], between: str) -> str:
    return "; ".join(between.join(labels[row] for row in group) for group in groups)


def _rows(groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted(row for group in groups for row in group))
