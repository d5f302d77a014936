"""What is odd in a table of regions, in words, and how many people it has."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.from_files import number_in, show
from ibma_app.importers.table.region_names import split_side

Floats = NDArray[np.float64]


def describe_copies(names: Sequence[str], effect: Floats) -> tuple[str, ...]:
    """Tell where every left region has the effect of its right one: means over both hemispheres, given twice."""
    sides: dict[str, dict[str, float]] = {}
    for name, value in zip(names, effect, strict=True):
        side, region = split_side(name)
        if side and np.isfinite(value):
            sides.setdefault(region, {})[side] = float(value)
    pairs = [both for both in sides.values() if len(both) == 2]
    if len(pairs) < 2 or any(both["L"] != both["R"] for both in pairs):
        return ()
    return ("Each left region has the effect of its right one: these are means over both hemispheres, given twice, so "
            "regions are counted twice by corrections.",)  # fmt: skip


def describe_p(texts: Iterable[str]) -> tuple[str, ...]:
    """Tell of p values that are none, where none is needed."""
    wrong = [text for text in texts if not 0.0 <= (2.0 if (p := number_in(text)) is None else p) <= 1.0]
    return (
        (f"p values are numbers from 0 to 1: {', '.join(map(show, wrong))} not, but p is not needed here.",)
        if wrong
        else ()
    )


def people_in(stated: Mapping[str, Floats]) -> tuple[float | None, dict[str, float], tuple[str, ...]]:
    """Return the number of people, the columns n1 and n2 of studies.tsv, and a note where regions differ.

    Parameters
    ----------
    stated : mapping of str to (V,) ndarray
        Of ``n``, ``n1`` and ``n2`` what there is; NaN: missing.
    """
    n = stated.get("n")
    if n is None and {"n1", "n2"} <= set(stated):
        n = stated["n1"] + stated["n2"]
    if n is None or not np.isfinite(n).any():
        return None, {}, ()
    groups = {
        name: float(stated[name][0])
        for name in ("n1", "n2")
        if name in stated and np.ptp(stated[name]) == 0.0  # NaN: not the same
    }
    differs = np.nanmax(n) > np.nanmin(n)
    notes = ("The number of people differs between regions; the study's is the largest.",) if differs else ()
    return float(np.nanmax(n)), groups if len(groups) == 2 else {}, notes
