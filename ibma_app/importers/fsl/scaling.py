"""Percent signal change of FEAT's copes: mean_func, the regressors' heights and the contrast's weights."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import IbmaError
from ibma_app.core.grid import Grid
from ibma_app.images.read import read_image
from ibma_app.importers.fsl.design import FeatDesign, lower_contrast
from ibma_app.importers.fsl.folder import FeatFolder, is_there
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.units import PERCENT, SAME_HEIGHT, Scaling, percent, unknown, weight_sum

Floats = NDArray[np.float64]

DEEPEST = 3  # levels of a group analysis below one another


def find_scaling(folder: FeatFolder, number: int, grid: Grid) -> Scaling:
    """Find the factor from a contrast's cope to percent signal change, or why there is none.

    At the first level the height is that of the regressors (``/PPheights`` of
    design.mat, peak to peak). A group analysis takes it from its inputs, all of
    which must still be there.
    """
    mean = _read_mean(folder, grid)
    if isinstance(mean, str):
        return unknown(f"Not percent signal change: {mean}")
    source = f"session mean {folder.mean.name if folder.mean else ''}"
    if folder.is_group:
        return _group_scaling(folder, number, mean, source)
    return _first_level(folder.design, number, mean, source)


def _read_mean(folder: FeatFolder, grid: Grid) -> Floats | str:
    """Read the session's mean, NaN outside the mask; or say why it is not known."""
    if folder.mean is None:
        return f"mean_func, the session's mean, is not in {folder.base.name}."
    try:
        volume = read_image(folder.mean)
    except IbmaError as error:
        return error.message
    if not grid.matches(volume.grid):
        return f"{folder.mean.name} lies on another grid than the copes."
    return np.where(grid.mask, volume.data, np.nan).astype(np.float64)


def _first_level(design: FeatDesign, number: int, mean: Floats, source: str) -> Scaling:
    """Scale a first-level contrast."""
    weights = design.named_weights(number)
    if not weights:
        return unknown("Not percent signal change: design.con does not tell the contrast's weights.")
    shape = next((name for name in weights if name in design.shapes), None)
    if shape:
        return unknown(f"Not percent signal change: it weighs {shape}, which is a response's shape, not its height.")
    heights = design.named_heights()
    if not heights:
        return unknown("Not percent signal change: design.mat, which holds the regressors' heights, is not there.")
    return percent(mean, source, weights, heights)


def _group_scaling(folder: FeatFolder, number: int, mean: Floats, source: str, deeper: int = DEEPEST) -> Scaling:
    """Scale a group contrast: the lower level's factor, and the group contrast's own weights."""
    weights = folder.design.named_weights(number)
    reason = "design.con does not tell the group contrast's weights" if not weights else ""
    reason = reason or _covariate(folder.design, number)
    total, words = weight_sum(weights) if not reason else (None, "")
    if total is None:
        return unknown(f"Not percent signal change: {reason or words}.")
    lower = _lower_scaling(folder, mean, source, deeper)
    if lower.units != PERCENT or lower.gain is None:
        return lower
    if abs(total - 1) < 1e-12:
        return lower
    text = f"{lower.source} / {total:g}, the sum of the group contrast's weights"
    return replace(lower, source=text, gain=lower.gain / total)


def _covariate(design: FeatDesign, number: int) -> str:
    """Return a group regressor of the contrast that is not an indicator of subjects; "" when all are."""
    weights = design.weights.get(number)
    for column in np.flatnonzero(weights) if weights is not None else ():
        if column < design.matrix.shape[1] and not np.isin(design.matrix[:, column], (0.0, 1.0)).all():
            name = design.columns[column] if column < len(design.columns) else f"EV{column + 1}"
            return f"it weighs {name}, a covariate, in units of its own"
    return ""


def _lower_scaling(folder: FeatFolder, mean: Floats, source: str, deeper: int = DEEPEST) -> Scaling:
    """Find the lower level's factor from the designs of all its folders.

    Where one is gone there is none: ``design.lcon``, which FEAT keeps for
    featquery, has the height of the contrast's effective regressor, which is
    another where regressors overlap.
    """
    contrast, _ = lower_contrast(folder.root, folder.design.inputs)
    places = folder.lower_folders()
    gone = [place for place in places if not is_there(place / "design.con")]
    if gone or not places or contrast is None or not deeper:
        where = f"{len(gone)} of {len(places)} folders that design.fsf names are gone, e.g. {gone[0]}" if gone else ""
        return unknown(
            "Not percent signal change: the height of the lower level's regressors is not known "
            f"({where or 'design.fsf does not name the folders'}; design.lcon has another height, "
            "that of the effective regressor). Import the group where its first levels still lie."
        )
    found = []
    for place in places:
        below = FeatFolder.open(place)
        if below.is_group:
            found.append(_group_scaling(below, contrast, mean, source, deeper - 1))
        else:
            found.append(_first_level(below.design, contrast, mean, source))
    odd = next((one for one in found if one.gain is None), None)
    if odd is not None:
        return odd
    gains = [one.gain for one in found if one.gain is not None]
    gain = sum(gains) / len(gains)
    if max(gains) - min(gains) > SAME_HEIGHT * gain:
        return unknown(
            f"Not percent signal change: the factors of the lower level's folders differ ({min(gains):.4g} to "
            f"{max(gains):.4g}), so no one height is theirs."
        )
    heights = [one.height for one in found if one.height is not None]
    words = f"lower level: {places[0].name}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")
    return replace(
        found[0],
        source=f"{found[0].source}; {words}",
        gain=gain,
        height=sum(heights) / len(heights) if heights else None,
    )


def scale_lazily(files: Mapping[str, Path], scaling: Scaling) -> LazyMaps:
    """Return maps by kind that are read and scaled when they are asked for."""
    return LazyMaps({kind: partial(_read_scaled, kind, path, scaling) for kind, path in files.items()})


def _read_scaled(kind: str, path: Path, scaling: Scaling) -> NDArray[Any]:
    return scaling.scale(kind, read_image(path).data)
