"""The page's parts on how large effects are: at least, by simultaneous bounds, and where they are smaller than one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.inference_facts import Absence
from ibma_app.core.labels import camel_case
from ibma_app.core.results import Results
from ibma_app.report.figures.brains.plans import Sheet
from ibma_app.report.figures.picture import SIGNED, Picture, Scale, with_ending
from ibma_app.report.html import format_number
from ibma_app.report.maps import ResultMaps
from ibma_app.report.text.methods_section import space_of

NAME = "equivalence"


def view_least(maps: ResultMaps, sheet: Sheet, units: str, results: Results) -> dict[str, Any] | None:
    """Say how large the effect of one test is at least, by its simultaneous bounds, and draw that.

    Parameters
    ----------
    maps : ResultMaps
    sheet : Sheet
    units : str
        Of the effects, or "".
    results : Results
        Whose settings have the level.

    Returns
    -------
    dict or None
        ``words`` and ``pictures``; None where there are no bounds.
    """
    kinds, level = ("lower", "upper"), 100.0 * (1.0 - float(results.settings["alpha"]))
    bounded = next((f.inference.name for f in maps.findings for kind in kinds if maps.path(kind, f.inference.name)), "")
    if not bounded:
        return None
    lower, upper = (maps.volume(kind, bounded) for kind in kinds)
    above = np.zeros(maps.grid.shape) if lower is None else np.maximum(lower, 0.0)
    below = np.zeros(maps.grid.shape) if upper is None else np.minimum(upper, 0.0)
    least = above + below  # one of them is 0
    said = "" if units in ("", "unknown") else f" {units}"
    parts = []
    for word, sign, bound in (("above", 1.0, lower), ("below", -1.0, upper)):
        if bound is not None:
            there = np.where(sign * least > 0, least, 0.0)
            surest = f" (by {format_number(np.abs(there).max())}{said} or more at the surest)" if there.any() else ""
            parts.append(f"{word} 0 at {format_number(np.count_nonzero(there))} voxels{surest}")
    words = (
        f"With {format_number(level)} % confidence in all voxels at once, the effect is {' and '.join(parts)} of "
        f"{format_number(maps.grid.n_voxels)}. Elsewhere 0 lies within the bounds, which is no evidence of absence."
    )
    if not least.any():
        return {"words": words, "pictures": []}
    size = float(np.abs(least).max())
    scale = Scale(-size, size, SIGNED, f"effect, at least{f' ({units})' if said else ''}")
    plan = sheet.plan_through(maps.grid, space_of(results), least != 0, least)
    text = f"The simultaneous {format_number(level)} % bound that is nearer to 0, where both have one sign."
    picture = plan.draw(least, scale, text, least != 0)
    named = with_ending(picture, f"corr-{camel_case(bounded)}", f"stat-least_{plan.name}")
    return {"words": words, "pictures": [named]}


def view_absence(maps: ResultMaps, sheet: Sheet, space: str | None, units: str) -> dict[str, Any] | None:
    """Say where the effect of one test is smaller than the bound that was given, and draw it there.

    Returns
    -------
    dict or None
        ``words`` and ``pictures``; None where no bound was given, or the test has none.
    """
    found = next((one for one in maps.result.absences if maps.has(one.test)), None)
    if found is None:
        return None
    bound = found.bound.words(units)
    words = (
        f"The effect is smaller than {bound}, in either direction, at {format_number(found.n_absent)} of "
        f"{format_number(found.n_voxels)} voxels ({100 * found.n_absent / max(found.n_voxels, 1):.1f} %): two "
        f"one-sided tests, family-wise error rate at most {found.alpha:g}, by {format_number(found.resamples)} "
        "relabellings of the maps less their estimated effect. Elsewhere it may be smaller too: that was not shown."
    )
    mask, kind = maps.volume("mask", NAME), "g" if found.bound.standardised else "effect"
    values = maps.volume(kind)
    pictures = []
    if mask is not None and values is not None and found.n_absent:
        pictures.append(_draw(maps, mask > 0, values, found, sheet, space, bound))
    return {"words": words, "pictures": pictures}


def _draw(
    maps: ResultMaps,
    absent: NDArray[np.bool_],
    values: NDArray[np.float64],
    found: Absence,
    sheet: Sheet,
    space: str | None,
    bound: str,
) -> Picture:
    """Draw the estimate where it is smaller than the bound, which is where the colours end."""
    kind = "g" if found.bound.standardised else "effect"
    scale = Scale(-found.bound.size, found.bound.size, SIGNED, f"{kind}, colours to the bound")
    plan = sheet.plan(maps.grid, space)
    picture = plan.draw(values, scale, f"The estimate where the effect is smaller than {bound}.", absent)
    return with_ending(picture, f"corr-{NAME}", f"stat-{kind}_{plan.name}")
