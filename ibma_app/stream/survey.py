"""What each map brought and what was lost of it; maps that do not belong are named."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.coverage import BACKGROUND, COVERED, NOT_FINITE, REASONS
from ibma_app.core.errors import DataError
from ibma_app.core.results import MapSurvey
from ibma_app.core.statmap import Observation
from ibma_app.stream.row_store import RowStore

log = logging.getLogger(__name__)

GAP_Z = 1.5  # a map whose every |z| is larger was thresholded: p < 0.05 alone asks for 1.64
GAP_EFFECT = 0.25  # of the median |effect|: where no z is at hand
EDGE_Z = 0.5  # width of the bins that are compared
STRAYS = 0.01  # share of voxels that may be in the gap
EMPTY = 0.05  # share of what other maps cover, beside a gap in z (or t): the threshold shows at any share
MOSTLY_EMPTY = 0.9  # the same beside a gap in effects, which have no scale of their own
REGION = 100  # voxels: fewer tell nothing
SAMPLE = 20_000  # voxels looked at for a median
FOLD = 100.0  # variances this far apart are of different units
COSTLY = 0.1  # share of the voxels: more lost to single maps is a warning
NAMED = 5  # maps named in a message


class Suspect(NamedTuple):
    """Where a map without values around zero is covered and empty: packed bits, (V,) of the base mask."""

    covered: NDArray[np.uint8]
    empty: NDArray[np.uint8]
    share: float  # of what other maps cover: as much of it empty shows that the map was thresholded


@dataclass(frozen=True, eq=False)
class ReadMap:
    """One map as it was stacked: what the survey and the stack keep of it."""

    index: int  # of the observation
    observation: Observation
    uris: tuple[str, ...]
    derived: tuple[str, ...]
    signed: bool
    covered: int  # voxels of the base mask
    suspect: Suspect | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)  # of its place: see `images.placement.WORDS`


def pack_suspect(values: Mapping[str, NDArray[Any]], reasons: NDArray[np.uint8]) -> Suspect | None:
    """Keep where a map is covered and where it is empty if no value lies around zero, else None.

    Parameters
    ----------
    values : mapping of str to ndarray, (N,)
        Of "effect", "variance", "z": at the voxels that it covers.
    reasons : ndarray of uint8, (V,)
        As in `coverage.REASONS`.
    """
    if not next(iter(values.values())).size or not _has_gap(values):
        return None
    share = EMPTY if _has_edge(values) else MOSTLY_EMPTY
    empty = (reasons == BACKGROUND) | (reasons == NOT_FINITE)
    return Suspect(np.packbits(reasons == COVERED), np.packbits(empty), share)


def _has_gap(values: Mapping[str, NDArray[Any]]) -> bool:
    """Tell whether a map's values leave out what lies around zero, as thresholding does."""
    allowed = STRAYS * next(iter(values.values())).size
    if "z" in values:
        return bool(np.count_nonzero(np.abs(values["z"]) < GAP_Z) <= allowed)
    effect = np.abs(values["effect"])
    if "variance" in values:
        return bool(np.count_nonzero(effect < GAP_Z * np.sqrt(values["variance"])) <= allowed)  # squares overflow
    limit = GAP_EFFECT * np.median(effect[:: max(1, effect.size // SAMPLE)])
    return bool(np.count_nonzero(effect < limit) <= allowed)


def _has_edge(values: Mapping[str, NDArray[Any]]) -> bool:
    """Tell whether |z| is most frequent where it begins, as a threshold leaves it and a strong effect does not."""
    if "z" in values:
        z = np.abs(values["z"])
    elif "variance" in values:
        z = np.abs(values["effect"]) / np.sqrt(values["variance"])
    else:
        return False
    least = np.quantile(z, STRAYS)
    return bool(np.count_nonzero(z < least + EDGE_Z) > np.count_nonzero(z < least + 2 * EDGE_Z) / 2)


def refuse_thresholded(maps: Sequence[ReadMap], count: NDArray[np.integer[Any]]) -> None:
    """Refuse maps that are empty where others are not, and have no value around zero.

    Parameters
    ----------
    maps : sequence of ReadMap
        Those with ``suspect`` are judged.
    count : ndarray of int, (V,)
        How many maps cover each voxel of the base mask.

    Raises
    ------
    DataError
        Names every thresholded map.
    """
    named = []
    for read in maps:
        if read.suspect is None:
            continue
        covered, empty = (np.unpackbits(bits, count=count.size).astype(bool) for bits in read.suspect[:2])
        others = (count - covered) > 0
        region = np.count_nonzero(others)
        if region >= REGION and np.count_nonzero(empty & others) >= read.suspect.share * region:
            named.append(str(read.observation.path))
    if named:
        raise DataError(
            f"{len(named)} map(s) were thresholded before they were shared (empty where others are not, "
            f"and without any value around zero): {_some(named)}. Only-significant voxels bias every combination: "
            "provide the unthresholded maps, or leave these out."
        )


def survey_map(read: ReadMap, row: int, store: RowStore, n_voxels: int, kinds: Collection[str]) -> MapSurvey:
    """Count what one map brought to the final mask, and why it lost the rest."""
    reasons = store.read("reason", row, 0, n_voxels)
    counts = np.zeros(len(REASONS), dtype=np.int64)
    counts[COVERED] = n_voxels
    if reasons.any():
        counts = np.bincount(reasons, minlength=len(REASONS))
    medians: dict[str, float | None] = {}
    for kind in ("effect", "variance"):
        values = store.read(kind, row, 0, n_voxels) if kind in kinds else np.empty(0)
        if values.size and counts[COVERED] < n_voxels:
            values = values[reasons == COVERED]
        medians[kind] = _median(np.abs(values)) if values.size else None
    return MapSurvey(
        label=read.observation.label,
        uris=read.uris,
        covered=int(counts[COVERED]),
        losses={REASONS[code]: int(n) for code, n in enumerate(counts) if code != COVERED and n},
        derived=read.derived,
        dof=read.observation.dof_text,
        sample_size=read.observation.sample_size,
        units=read.observation.units,
        median_abs_effect=medians["effect"],
        median_variance=medians["variance"],
    )


def _median(values: NDArray[Any]) -> float:
    """Give ``np.median`` of values that are all finite, in a third of its time."""
    middle, odd = values.size // 2, values.size % 2
    if values.size > 2 * SAMPLE:  # look among those that a sample says are near it
        sample = np.sort(values[:: values.size // SAMPLE])
        low, high = sample[int(0.47 * sample.size)], sample[int(0.53 * sample.size)]
        near = values[(values >= low) & (values <= high)]
        below = int(np.count_nonzero(values < low))
        if below < middle < below + near.size:
            values, middle = near, middle - below
    values.partition(middle)
    if odd:
        return float(values[middle])
    return float(np.mean([values[:middle].max(), values[middle]], dtype=values.dtype))


def variance_note(survey: Sequence[MapSurvey]) -> str | None:
    """Warn of variances whose medians differ a hundredfold between maps."""
    known = sorted((s.median_variance, s.label) for s in survey if s.median_variance)
    if not known or known[-1][0] < FOLD * known[0][0]:
        return None
    (low, lowest), (high, highest) = known[0], known[-1]
    return (
        f"The maps' variances differ {high / low:.3g}-fold (median {low:.3g} in {lowest}, {high:.3g} in "
        f"{highest}): "
        "are all effects in one unit?"
    )


def unique_costs(maps: Sequence[ReadMap], store: RowStore, nearly: Mapping[int, NDArray[np.bool_]]) -> dict[str, int]:
    """Count for each map the voxels that would be kept if it covered them: label -> voxels, largest first.

    Parameters
    ----------
    maps : sequence of ReadMap
        In the rows' order.
    store : RowStore
        With the rows of kind "reason".
    nearly : mapping of int to ndarray of bool
        For each layout: voxels that one map more would bring into the mask.
    """
    costs: dict[str, int] = {}
    if not any(voxels.any() for voxels in nearly.values()):
        return costs
    for row, read in enumerate(maps):
        reasons, layout = store.whole("reason", row)
        costs[read.observation.label] = int(np.count_nonzero((reasons != COVERED) & nearly[layout]))
    return dict(sorted(((label, n) for label, n in costs.items() if n), key=lambda item: -item[1]))


def coverage_note(costs: Mapping[str, int], n_voxels: int, n_any: int) -> str | None:
    """Log what the mask lost to single maps; return a warning when it is much."""
    message = f"The mask has {n_voxels} of the {n_any} voxels that any map covers."
    if costs:
        listed = ", ".join(f"{label} ({n})" for label, n in list(costs.items())[:NAMED])
        message += f" Maps that alone cost most voxels: {listed}."
    if sum(costs.values()) <= COSTLY * n_any:
        log.info("%s", message)
        return None
    message += " To keep these voxels, leave the maps out or lower --min-coverage."
    return message


def empty_mask(maps: Sequence[ReadMap], costs: Mapping[str, int], n_min: int) -> DataError:
    """Word the failure of a mask without voxels."""
    worst = list(costs.items())[:NAMED] or sorted(
        ((read.observation.label, read.covered) for read in maps), key=lambda item: item[1]
    )
    what = "voxels lost to it alone" if costs else "voxels it covers"
    listed = ", ".join(f"{label} ({n} {what})" for label, n in worst[:NAMED])
    paths = {read.observation.label: read.observation.path for read in maps}
    return DataError(
        f"No voxel is covered by {n_min} of the {len(maps)} maps, as asked for. Look at {listed}; the first "
        "is "
        f"{paths[worst[0][0]]}. Leave such maps out, lower --min-coverage, or give another --mask."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
