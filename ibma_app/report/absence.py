"""The page's part on where effects are absent: smaller than a bound."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.inference_facts import Absence
from ibma_app.report.figures.brains.plans import Sheet
from ibma_app.report.figures.picture import SIGNED, Picture, Scale, with_ending
from ibma_app.report.html import format_number
from ibma_app.report.maps import ResultMaps

NAME = "equivalence"


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
