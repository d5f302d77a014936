"""How alike the maps of a stack are, and which stand out: the same map twice, a turned sign, or another unit.

Flags are warnings to users, who know their data: no map is left out for one.
The criteria are chosen to be silent on sound data (subjects whose effects
differ, studies in units of their own, noise) rather than to find every fault.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import require_grid
from ibma_app.core.results import MapFlag, Similarity
from ibma_app.stats.correlations import FEWEST, Correlations, correlate_maps
from ibma_app.stats.same_sample import (
    FLOOR,
    SAME_MAP,
    Suspects,
    find_suspects,
    fine_detail,
    join_suspects,
    smoothing_weight,
)
from ibma_app.stream.prepare import GIVEN
from ibma_app.stream.stack import Stack

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

VALUES = 5_000_000  # compared in all (20 MB): every voxel of 21 whole brains, or 2,500 voxels of 2,000 maps
RUN = 128  # neighbouring voxels that are read at once, where not all voxels are compared
DRAWN = 120  # maps whose correlations are kept one by one; of more, means over neighbouring rows

SAME = 0.999
"""Least correlation of a map with itself after rounding, conversion to int16 or a change of units. Different
runs of one subject stay below 0.99, studies of one question below 0.97 (21 pain studies)."""

JUDGED = 5
"""Fewest maps among which one can be said to stand out."""

OUTLYING = 5.0
"""Robust standard deviations (1.48 times the median absolute deviation) from the median: by chance 1 in 2 million."""

AGREE = 0.15
"""Least typical correlation with the mean of the others at which a turned map can be distinguished from noise; and
how negative that of a turned map must be. Smooth noise of some 100 resels reaches 0.1."""

TURNED = 0.5
"""Share of the typical agreement, with the other sign, that a turned map must reach."""

FOLDS = {"effect": 5.0, "z": 10.0}
"""Ratio to the median scale that a flagged map must exceed as well. A subject with noisy effects reaches 3 (30
subjects of Wager 2008); studies in different units all differ; z grows with the sample size, too."""

LEAST_SPREADS = {"agreement": 0.03, "scale": 0.1}
"""Least spread that is assumed (of correlations, of log scale), for maps that happen to be very much alike."""

NAMED = 5  # maps named in a message

REMEDY = "ask for --dependence cluster"
"""What works with maps whose samples are named, whatever they hold."""

SIGMA = 4.0  # mm, of the smoothing that is subtracted from a map to leave its fine detail
RESEL = 8.0**3  # mm3, of fine detail at most; in small masks the limit is 5 standard deviations of chance
FEWEST_MAPS = 4  # with three, the residuals of two maps are nearly each other's opposite


def compare_maps(
    stack: Stack,
    sample_size: Sequence[float | None] | None = None,
    clusters: NDArray[np.int64] | None = None,
    remedy: str = REMEDY,
) -> Similarity | None:
    """Correlate the maps of a stack, and flag those that stand out.

    Parameters
    ----------
    stack : Stack
        Its effects are compared, or its z where it has none: at all voxels,
        or at evenly spaced ones where there are many maps.
    sample_size : sequence of float or None, length K, optional
        Of studies: with it, studies that look like the same people are flagged, too.
    clusters : ndarray of int, shape (K,), optional
        Maps that are known to be of one sample.
    remedy : str
        What to do with studies of the same people.

    Returns
    -------
    Similarity or None
        None for a single map, and for masks of too few voxels.
    """
    if stack.n_maps < 2 or stack.n_voxels < FEWEST:
        return None
    quantity = "effect" if "effect" in stack.kinds else "z"
    values = _read(stack, quantity)
    starts = np.unique(np.linspace(0, stack.n_maps, min(DRAWN, stack.n_maps), endpoint=False).astype(np.int64))
    groups = np.searchsorted(starts, np.arange(stack.n_maps), side="right") - 1
    found = correlate_maps(values, groups, SAME)
    if quantity == "effect":
        scale = [survey.median_abs_effect for survey in stack.survey]
    else:
        scale = [_median_size(line) for line in values]
    labels = [survey.label for survey in stack.survey]
    flags = list(_flags(found, scale, stack, quantity, labels))
    if sample_size is not None:
        same_map = {row for flag in flags if flag.kind == "duplicate" for row in flag.rows}
        flags += [
            flag
            for flag in flag_same_samples(stack, sample_size, clusters, remedy)
            if not same_map.issuperset(flag.rows)
        ]
    return Similarity(
        quantity=quantity,
        n_voxels=values.shape[1],
        correlations=tuple(tuple(map(_rounded, line)) for line in found.means),
        starts=tuple(starts.tolist()),
        agreement=tuple(map(_rounded, found.agreement)),
        scale=tuple(scale),
        flags=tuple(flags),
    )


def _read(stack: Stack, quantity: str) -> Singles:
    """Read one kind of all maps (K, S), NaN where not covered: all voxels, or evenly spaced runs of them."""
    most = max(VALUES // stack.n_maps, FEWEST)
    if stack.n_voxels <= most:
        step = max(RUN, VALUES // (4 * stack.n_maps))
        runs = [(start, min(start + step, stack.n_voxels)) for start in range(0, stack.n_voxels, step)]
    else:
        size = min(RUN, most)
        starts = np.linspace(0, stack.n_voxels - size, most // size).astype(np.int64)
        runs = [(start, start + size) for start in starts.tolist()]
    values = np.empty((stack.n_maps, sum(stop - start for start, stop in runs)), dtype=np.float32)
    filled = 0
    for start, stop in runs:
        values[:, filled : filled + stop - start] = stack.read_plain(quantity, start, stop)
        filled += stop - start
    return values


def _flags(
    found: Correlations, scale: Sequence[float | None], stack: Stack, quantity: str, labels: Sequence[str]
) -> Iterable[MapFlag]:
    """Yield the flags of maps that stand out, one of each kind."""
    yield from _duplicates(found, labels)
    if all(stack.signed):
        yield from _turned(found.agreement, labels)
    what = "effects" if quantity == "effect" else "z values"
    yield from _far_out("scale", scale, FOLDS[quantity], what, labels)
    errors = [None if s.median_variance is None else math.sqrt(s.median_variance) for s in stack.survey]
    yield from _far_out("variance", errors, FOLDS["effect"], "standard errors", labels)


def _duplicates(found: Correlations, labels: Sequence[str]) -> Iterable[MapFlag]:
    """Flag maps that are the same, or the same with the sign turned."""
    if not len(found.alike):
        return
    first, second = found.alike.T
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(labels), len(labels)))
    _, component = connected_components(graph, directed=False)
    rows = np.unique(found.alike)
    sets = [np.flatnonzero(component == one) for one in np.unique(component[rows])]
    names = [" = ".join(labels[row] for row in members[:NAMED].tolist()) + _more(members.size) for members in sets]
    mirrored = " with the sign turned" if (found.alike_r < 0).all() else ""
    text = (
        f"The same map{mirrored} seems to be there more than once (correlation beyond {SAME:g}): "
        f"{_listed(names)}. Is one subject's or study's map there under several labels?"
    )
    yield MapFlag("duplicate", tuple(rows.tolist()), text)


def _turned(agreement: Floats, labels: Sequence[str]) -> Iterable[MapFlag]:
    """Flag maps that correlate negatively with the mean of the others."""
    known = agreement[np.isfinite(agreement)]
    typical = float(np.median(known)) if known.size >= JUDGED else 0.0
    if typical < AGREE:
        return
    distance = (typical - agreement) / _spread(known, LEAST_SPREADS["agreement"])
    with np.errstate(invalid="ignore"):
        outlying = (agreement <= -max(AGREE, TURNED * typical)) & (distance >= OUTLYING)
    rows = np.flatnonzero(outlying)
    if not rows.size:
        return
    rows = rows[np.argsort(agreement[rows], kind="stable")]
    names = [f"{labels[row]} ({agreement[row]:.2f})".replace("(-", "(−") for row in rows.tolist()]
    text = (
        f"Possible sign flip: {_listed(names)} correlate{'s' if rows.size == 1 else ''} negatively with the mean of "
        f"the other maps, which agree with each other (typically {typical:.2f}). Is the contrast's direction turned?"
    )
    yield MapFlag("sign", tuple(sorted(rows.tolist())), text)


def _far_out(
    kind: str, sizes: Sequence[float | None], fold: float, what: str, labels: Sequence[str]
) -> Iterable[MapFlag]:
    """Flag maps whose scale is far from that of the others, in logarithms."""
    known = np.array([size if size else np.nan for size in sizes], dtype=np.float64)
    logs = np.log(known)
    there = logs[np.isfinite(logs)]
    if there.size < JUDGED:
        return
    middle = float(np.median(there))
    distance = np.abs(logs - middle)
    with np.errstate(invalid="ignore"):
        outlying = (distance >= math.log(fold)) & (distance >= OUTLYING * _spread(there, LEAST_SPREADS["scale"]))
    rows = np.flatnonzero(outlying)
    if not rows.size:
        return
    rows = rows[np.argsort(-distance[rows], kind="stable")]
    names = [f"{labels[row]} ({math.exp(logs[row] - middle):.3g} times)" for row in rows.tolist()]
    text = (
        f"Scale far out: {what} of another size than the median map's in {_listed(names)}, far beyond how the maps "
        "differ otherwise. Another unit or scaling, or a failed model?"
    )
    yield MapFlag(kind, tuple(sorted(rows.tolist())), text)


def _spread(values: Floats, least: float) -> float:
    """Return the robust standard deviation, or ``least`` if that is more."""
    return max(1.4826 * float(np.median(np.abs(values - np.median(values)))), least)


def _median_size(line: Singles) -> float | None:
    there = np.abs(line[~np.isnan(line)])
    return float(np.median(there)) if there.size else None


def _rounded(value: float) -> float | None:
    """Round to four digits: more may depend on the order in which threads add up."""
    return round(float(value), 4) if math.isfinite(value) else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _more(count: int) -> str:
    return f" (and {count - NAMED} more)" if count > NAMED else ""


def flag_same_samples(
    stack: Stack,
    sample_size: Sequence[float | None],
    clusters: NDArray[np.int64] | None = None,
    remedy: str = REMEDY,
) -> tuple[MapFlag, ...]:
    """Flag studies that look like the same people, and maps that look like one map on several grids.

    Parameters
    ----------
    stack : Stack
        K maps of studies. Those that have effects as they were given are compared by these, others by what is combined.
    sample_size : sequence of float or None, length K
    clusters : ndarray of int, shape (K,), optional
        Maps of one number are known to be one sample, and are not flagged.
    remedy : str
        What to do with samples that are named: "ask for ...".

    Returns
    -------
    tuple of MapFlag
        At most one of the kind "sample" and one of the kind "duplicate".
    """
    grid = stack.grid.box  # fine detail is told from what is smooth along axes
    if grid is None or stack.n_maps < FEWEST_MAPS or stack.n_voxels < FEWEST:
        return ()
    chance = 5.0 / np.sqrt(stack.n_voxels * grid.voxel_volume / RESEL)
    found = _find_suspects(stack, sample_size, max(FLOOR, chance))
    known = np.arange(stack.n_maps) if clusters is None else clusters
    groups = tuple(group for group in found.groups if np.unique(known[list(group)]).size > 1)
    labels = [survey.label for survey in stack.survey]
    flags = []
    if found.copies:
        text = (
            "The same map seems to be there more than once, perhaps on another grid (correlation of fine detail "
            f"beyond {SAME_MAP:g}): {_name(found.copies, labels, ' = ')}. Leave one out."
        )
        flags.append(MapFlag("duplicate", _rows(found.copies), text, found.copies))
    if groups:
        text = (
            "Studies look like the same people (correlation of the fine detail of their maps beyond "
            f"{found.limit:.2f}): {_name(groups, labels, ', ')}. Taken as independent they overstate the "
            "evidence: leave all but one of each out, or give each set one label in a column cluster of studies.tsv "
            f"and {remedy}."
        )
        flags.append(MapFlag("sample", _rows(groups), text, groups))
    return tuple(flags)


def _find_suspects(stack: Stack, sample_size: Sequence[float | None], floor: float) -> Suspects:
    """Compare studies by their own effects where both have them, whatever is combined; else by what is combined.

    What a sample shares with itself stands out less in z and in standardised effects.
    """
    combined, given, every = "effect" if "effect" in stack.kinds else "z", stack.given, range(stack.n_maps)
    if len(given) < FEWEST_MAPS:
        return find_suspects(_correlate_detail(stack, combined, every), sample_size, floor)
    r = np.full((stack.n_maps, stack.n_maps), np.nan)
    r[np.ix_(given, given)] = _correlate_detail(stack, GIVEN, given)
    own = find_suspects(r, sample_size, floor)
    if len(given) == stack.n_maps:
        return own
    others = find_suspects(_correlate_detail(stack, combined, every), sample_size, floor, settled=given)
    return join_suspects(own, others, stack.n_maps)


def _correlate_detail(stack: Stack, quantity: str, which: Sequence[int]) -> Floats:
    """Correlate the fine detail of K residual maps of a kind, (K, K), over what each pair covers."""
    grid = require_grid(stack.grid, "The comparison of fine detail")
    mask = grid.mask
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask))
    inside = mask[box]
    sigma = SIGMA / np.sqrt((grid.affine[:3, :3] ** 2).sum(axis=0))
    step = -(-len(which) * stack.n_voxels // VALUES)
    rows = np.full((len(which), len(range(0, stack.n_voxels, step))), np.nan, dtype=np.float32)
    last: tuple[NDArray[np.bool_], Singles] | None = None  # maps often cover alike
    for place, row in enumerate(which):
        values = stack.read_map(quantity, row)
        there = ~np.isnan(values)
        volume, covered = np.zeros(inside.shape, dtype=np.float32), np.zeros(inside.shape, dtype=bool)
        volume[inside], covered[inside] = np.where(there, values, np.float32(0.0)), there
        if last is None or not np.array_equal(last[0], covered):
            last = covered, smoothing_weight(covered, sigma)
        detail = np.full(stack.n_voxels, np.nan, dtype=np.float32)
        detail[there] = fine_detail(volume, covered, sigma, last[1])
        rows[place] = detail[::step]
    counted = np.maximum(np.count_nonzero(~np.isnan(rows), axis=0), 1)
    rows -= (np.nansum(rows, axis=0) / counted).astype(np.float32)
    return correlate_maps(rows, np.arange(len(which)), 2.0).means


def _name(groups: Sequence[Sequence[int]], labels: Sequence[str], between: str) -> str:
    return "; ".join(between.join(labels[row] for row in group) for group in groups)


def _rows(groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted(row for group in groups for row in group))
