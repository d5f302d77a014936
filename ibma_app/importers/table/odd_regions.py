"""What is odd in a table of regions, in words, and how many people it has."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import did_you_mean
from ibma_app.core.from_files import number_in, show
from ibma_app.importers.table.region_names import find_almost, find_parcellation, known_names, split_side

Floats = NDArray[np.float64]

FEWEST = 3
"""Studies from which on it is odd that one alone has a region."""


def describe_names(of_studies: Mapping[str, Collection[str]], label: str) -> dict[str, str]:
    """Tell which names of regions may be misspelt: region -> what is odd about its name.

    Parameters
    ----------
    of_studies : mapping of str to collection of str
        Study (or subject) -> its regions.
    label : str
        What the table calls the parcellation; "": nothing, so that names tell it.
    """
    names = list(dict.fromkeys(name for regions in of_studies.values() for name in regions))
    almost = None if label or find_parcellation(names) else find_almost(names)
    told = {}
    for name in names:
        having = [study for study, regions in of_studies.items() if name in regions]
        words = []
        if len(having) == 1 and len(of_studies) >= FEWEST:
            words.append(f"{having[0]} alone of {len(of_studies)} has it")
        if almost and name in almost[1]:
            words.append(f"it is none of {almost[0].label}, as the others are, so that the parcellation is not known")
        if words:
            near = [*(one for one in names if one not in of_studies[having[0]]), *(known_names() if almost else ())]
            side = split_side(name)[0]
            same_side = [one for one in near if one != name and split_side(one)[0] == side]
            told[name] = f"Region {name}: {'; '.join(words)}.{did_you_mean([name], same_side)}"
    return told


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
