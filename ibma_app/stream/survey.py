"""What each map contributes to the mask and what is lost; maps that were thresholded are refused."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.block import BACKGROUND, COVERED, NOT_FINITE, REASONS
from ibma_app.core.errors import DataError
from ibma_app.core.results import MapSurvey
from ibma_app.core.statmap import Observation
from ibma_app.stream.row_store import RowStore

log = logging.getLogger(__name__)

GAP_Z = 1.5  # a map whose every |z| is larger was thresholded: p < 0.05 alone needs 1.64
GAP_EFFECT = 0.25  # of the median |effect|: the gap where there is no z
EDGE_Z = 0.5  # width of the bins of |z| that are compared
STRAYS = 0.01  # share of voxels that may be in the gap
EMPTY = 0.05  # share of what other maps cover: as much empty is enough with a threshold in z
MOSTLY_EMPTY = 0.9  # and with a gap in effects, whose scale is not known
REGION = 100  # voxels that other maps must cover: fewer prove nothing
SAMPLE = 20_000  # voxels that a median is estimated from
FOLD = 100.0  # variances so many times apart are in different units
COSTLY = 0.1  # share of the voxels that may be lost to single maps without a warning
NAMED = 5  # maps named in a message


class Suspect(NamedTuple):
    """A map without values around zero: where it is covered and where it is empty."""

    covered: NDArray[np.uint8]  # packed bits of (V,) of the base mask
    empty: NDArray[np.uint8]  # likewise
    share: float  # of the voxels that other maps cover: with more of them empty it was thresholded


@dataclass(frozen=True, eq=False)
class ReadMap:
    """What the survey and the stack keep of a map that was read."""

    index: int  # of the observation
    observation: Observation
    uris: tuple[str, ...]
    derived: tuple[str, ...]
    signed: bool
    covered: int  # voxels of the base mask
    suspect: Suspect | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)  # on its position: see `ibma_app.images.placement.WORDS`


def pack_suspect(values: Mapping[str, NDArray[Any]], reasons: NDArray[np.uint8]) -> Suspect | None:
    """Return where a map is covered and where it is empty, if it has no value around zero; else None.

    Parameters
    ----------
    values : mapping of str to ndarray, (N,)
        Of "effect", "variance", "z": at the voxels that it covers.
    reasons : ndarray of uint8, (V,)
        Indices into `ibma_app.core.block.REASONS`.
    """
    if not next(iter(values.values())).size or not _has_gap(values):
        return None
    share = EMPTY if _has_edge(values) else MOSTLY_EMPTY
    empty = (reasons == BACKGROUND) | (reasons == NOT_FINITE)
    return Suspect(np.packbits(reasons == COVERED), np.packbits(empty), share)


def _has_gap(values: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether a map has no values around zero, as after thresholding."""
    allowed = STRAYS * next(iter(values.values())).size
    if "z" in values:
        return bool(np.count_nonzero(np.abs(values["z"]) < GAP_Z) <= allowed)
    effect = np.abs(values["effect"])
    if "variance" in values:
        return bool(np.count_nonzero(effect < GAP_Z * np.sqrt(values["variance"])) <= allowed)  # squares may overflow
    limit = GAP_EFFECT * np.median(effect[:: max(1, effect.size // SAMPLE)])
    return bool(np.count_nonzero(effect < limit) <= allowed)


def _has_edge(values: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether the smallest |z| are the most frequent, as after thresholding, but not with a strong effect."""
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
        Those with ``suspect`` are checked.
    count : ndarray of int, (V,)
        How many maps cover each voxel of the base mask.

    Raises
    ------
    DataError
        Some are; the message names every one.
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
    """Count the voxels of the final mask that one map covers, and why it does not cover the others."""
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
    """Return the median of finite values, as ``np.median`` does in three times the time."""
    middle, uneven = values.size // 2, values.size % 2
    if values.size > 2 * SAMPLE:  # only values near the median of a sample are searched
        sample = np.sort(values[:: values.size // SAMPLE])
        low, high = sample[int(0.47 * sample.size)], sample[int(0.53 * sample.size)]
        near = values[(values >= low) & (values <= high)]
        below = int(np.count_nonzero(values < low))
        if below < middle < below + near.size:
            values, middle = near, middle - below
    values.partition(middle)
    if uneven:
        return float(values[middle])
    return float(np.mean([values[:middle].max(), values[middle]], dtype=values.dtype))


def variance_note(survey: Sequence[MapSurvey]) -> str | None:
    """Describe variances whose medians differ a hundredfold between maps; None where they do not."""
    known = sorted((s.median_variance, s.label) for s in survey if s.median_variance)
    if not known or known[-1][0] < FOLD * known[0][0]:
        return None
    (low, lowest), (high, highest) = known[0], known[-1]
    return (
        f"The maps' variances differ {high / low:.3g}-fold (median {low:.3g} in {lowest}, {high:.3g} in {highest}): "
        "are all effects in one unit?"
    )


def unique_costs(maps: Sequence[ReadMap], store: RowStore, nearly: Mapping[int, NDArray[np.bool_]]) -> dict[str, int]:
    """Count for each map the voxels that the mask would gain if it covered them: label -> voxels, largest first.

    Parameters
    ----------
    maps : sequence of ReadMap
        In the rows' order.
    store : RowStore
        With the rows of kind "reason".
    nearly : mapping of int to ndarray of bool
        For each layout of rows, the voxels that lack one map to be in the mask.
    """
    costs: dict[str, int] = {}
    if not any(voxels.any() for voxels in nearly.values()):
        return costs
    for row, read in enumerate(maps):
        reasons, layout = store.whole("reason", row)
        costs[read.observation.label] = int(np.count_nonzero((reasons != COVERED) & nearly[layout]))
    return dict(sorted(((label, n) for label, n in costs.items() if n), key=lambda item: -item[1]))


def coverage_note(
    costs: Mapping[str, int], n_voxels: int, n_any: int, allowed: tuple[int, int], shape: Shape
) -> str | None:
    """Log what the mask loses to single maps; return a warning when it is much.

    Parameters
    ----------
    costs : mapping of str to int
        Label of a map -> voxels that it alone costs.
    n_voxels, n_any : int
        Voxels of the mask, and those that any map covers.
    allowed : (int, int)
        Voxels that ``--mask`` leaves, and those of the grid.
    shape : Shape
        In whose words it is told.
    """
    message = f"The mask has {n_voxels} of the {n_any} voxels that any map covers"
    left, whole = allowed
    message += "." if left == whole else f" within the {left} (of the grid's {whole}) that --mask leaves."
    if costs:
        listed = ", ".join(f"{label} ({n})" for label, n in list(costs.items())[:NAMED])
        message += f" Maps that alone cost most voxels: {listed}."
    if sum(costs.values()) <= COSTLY * n_any:
        log.info("%s", shape.speak(message))
        return None
    message += " To keep these voxels, leave the maps out or lower --min-coverage."
    return message


def empty_mask(maps: Sequence[ReadMap], costs: Mapping[str, int], n_min: int) -> DataError:
    """Make the error of a mask without voxels."""
    worst = list(costs.items())[:NAMED] or sorted(
        ((read.observation.label, read.covered) for read in maps), key=lambda item: item[1]
    )
    what = "voxels lost to it alone" if costs else "voxels it covers"
    listed = ", ".join(f"{label} ({n} {what})" for label, n in worst[:NAMED])
    paths = {read.observation.label: read.observation.path for read in maps}
    return DataError(
        f"No voxel is covered by {n_min} of the {len(maps)} maps, as asked for. Look at {listed}; the first is "
        f"{paths[worst[0][0]]}. Leave such maps out, lower --min-coverage, or give another --mask."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
