"""Whether an image holds the kind of map that its name says: names, ranges and distributions of what is none."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.statmap import Observation, StatMap
from ibma_app.stats.consistency import rank_correlation

Values = NDArray[Any]

TAILS = ("two-sided", "positive", "negative")
ONE_MINUS_P = re.compile(
    r"(?<![a-z0-9])(1|one)[-_ ]*(-|minus|m)[-_ ]*p(?![a-z0-9])|oneminusp(?![a-z])|(?<![a-z])corrp(?![a-z])",
    re.IGNORECASE,
)
"""Names of 1 - p in file names and sidecars; FSL's randomise calls it corrp."""
NO_STATISTIC = {
    "p or 1 - p": re.compile(
        r"(?<![a-zA-Z])(?i:corrp|uncp|fwep|fdrp|cfdrp|uncparap)(?![a-z])|(?:Corrp|Uncp|Fwep|Fdrp|Cfdrp)(?![a-z])"
    ),
    "-log10 p": re.compile(
        r"(?<![a-zA-Z0-9])(?i:(minus|neg|n)?log(10)?[-_ ]?p)(?![a-z])|(?<![A-Za-z])lP_?(FWE|FDR)?[+-]"
    ),
    "threshold-free cluster enhancement": re.compile(r"(?i)(?<![a-z])tfce[-_]?tstat"),
    "a mask": re.compile(r"(?i)(?<![a-z])(brain|binary)[-_ ]?mask(?![a-z])"),
    "clusters by number": re.compile(r"(?i)(?<![a-z])cluster[-_ ]?(index|indices|labels?|mask)(?![a-z])"),
}
"""Names of what is neither t nor z, in file names."""

SAMPLE = 20_000  # voxels that are looked at first
FEW = 100  # values: fewer do not show what whole numbers are
MANY = 1000  # values: so many of a t or z do not all lie between -1 and 1
LABELLED = 0.1  # of the voxels, at most: so many different whole numbers may number regions
NEAR_ONE = 0.95  # of p: under any hypothesis, a two-sided p lies above in a twentieth of the voxels or fewer
NEAREST, STEEP, LEAST = 0.999, 5.0, 10  # so many times its share of these above NEAREST, and so many voxels, has none
PILE, FOLD = 0.15, 4.0  # a share above NEAR_ONE, and how many times that below its complement, which no p map has
OPPOSITE = 0.2  # rank correlation of p with a statistic that a p map cannot have,
ONE_SIDED, MARGIN = 0.5, 0.1  # and that a two-sided one has with its size alone, or by that much more
MARKS = (99.0, 999.0, 9999.0, 99999.0, 32767.0, 32768.0)  # what programs write for missing values
BEYOND_STATISTICS, BEYOND_ALL = 50.0, 1e10  # |t| or |z|, and any effect, that so many voxels do not share
RARE, FAR = 0.001, 10.0  # share of the voxels that have a mark, at least; and so many times the largest other value
NEGATIVE = 0.25  # share of negative values that no variance map has, rounding or resampling included
NEAR_ZERO, SHARE_NEAR_ZERO = 0.1, 0.01  # of the median; of F with 2 and 20 dof, and of chi-squared (2), 7 % lie below


def check_kinds(observation: Observation, volumes: Mapping[str, Values]) -> None:
    """Refuse what is no map of its kind: masks, labels, clusters by number, probabilities, turned p maps.

    Parameters
    ----------
    observation : Observation
    volumes : mapping of str to ndarray
        Its maps by kind, whole.

    Raises
    ------
    DataError
        One of them is none; the message names its file.
    """
    for kind, values in volumes.items():
        refuse_marks(kind, values, str(observation.statmaps[kind].path))
        if kind == "effect" and len(observation.statmaps) > 1:
            continue  # what has an error or a statistic beside it is no mask
        statmap = observation.statmaps[kind]
        refuse_no_statistic(kind, values, str(statmap.path), [statmap.path.name])
    if "p" in volumes:
        refuse_turned_p(volumes, observation.tail, str(observation.statmaps["p"].path))


def refuse_no_statistic(kind: str, values: Values, what: str, texts: Sequence[str] = ()) -> None:
    """Refuse what is no t, z or effect by its name, its range or its distribution.

    Parameters
    ----------
    kind : str
        Of `ibma_app.core.statmap.KINDS`; p, variance and dof are not judged.
    values : ndarray
        The whole map; 0 and what is not finite is background.
    what : str
        What messages call the map.
    texts : sequence of str
        File names that may say what it holds.

    Raises
    ------
    DataError
        It is something else.
    """
    if kind not in ("t", "z", "effect"):
        return
    article = "an" if kind == "effect" else "a"
    if kind != "effect":
        for other, pattern in NO_STATISTIC.items():
            named = next((found[0] for text in texts if (found := pattern.search(text))), None)
            if named is not None:
                raise DataError(
                    f"{what} is called {article} {kind} map, but its name says {named!r} ({other}). Give the "
                    f"{kind} map itself; where it is one, name it otherwise."
                )
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLE)]
    if not _whole(sample) and (kind == "effect" or bool((np.abs(sample) > 1.0).any())):
        return  # as almost all maps
    inside = flat[np.isfinite(flat) & (flat != 0)]
    if inside.size < FEW:
        return
    if _whole(inside):
        if kind == "effect" and inside.size == flat.size:
            return  # neither mask nor regions: they have an outside
        _refuse_whole(kind, inside, f"{what} is no {kind} map: ")
    elif kind != "effect" and inside.size >= MANY and float(np.abs(inside).max()) <= 1.0:
        low, high = float(inside.min()), float(inside.max())
        looks = "p, 1 - p or a probability" if low > 0 else "a correlation"
        raise DataError(
            f"{what} is no {kind} map: all its {inside.size} values lie between {low:.3g} and {high:.3g}, as those of "
            f"{looks} do. Give the {kind} map itself"
            + (
                ", or name it stat-p where it is p."
                if low > 0
                else "; a correlation (or Fisher's z of one) is an effect."
            )
        )


def refuse_marks(kind: str, values: Values, what: str) -> None:
    """Refuse one number that stands for missing values (-999, 1e30), and variances that are negative in many voxels.

    A mark is a value that many voxels have, far beyond all others: of effects, whose scale is not known, one that
    programs use as a mark.

    Raises
    ------
    DataError
        Naming the value and how many voxels have it.
    """
    flat = values.reshape(-1)
    if kind not in ("t", "z", "effect", "variance") or not _may_have_marks(flat[:: max(1, flat.size // SAMPLE)], kind):
        return
    inside = flat[np.isfinite(flat) & (flat != 0)]
    if inside.size < FEW:
        return
    negative = int(np.count_nonzero(inside < 0))
    if kind == "variance":
        if negative > NEGATIVE * inside.size:
            raise DataError(
                f"{what} is no variance map: {negative} of its {inside.size} values are negative. Give the squared "
                "standard error."
            )
        return
    size = np.abs(inside)
    top = float(size.max())
    marked = size == top
    count, largest = int(np.count_nonzero(marked)), float(size.max(where=~marked, initial=0.0))
    known = top in MARKS or top >= BEYOND_ALL or (kind != "effect" and top >= BEYOND_STATISTICS)
    if known and count >= max(LEAST, RARE * size.size) and size.size - count >= FEW and top > FAR * largest:
        mark = float(inside[marked][0])
        raise DataError(
            f"{what} has the value {mark:g} in {count} voxels and none beyond {largest:.3g} elsewhere: a mark of "
            "missing values? Set these voxels to NaN or 0."
        )


def _may_have_marks(sample: Values, kind: str) -> bool:
    """Tell by some voxels whether a closer look is worthwhile."""
    if kind == "variance":
        return bool((sample < 0).any())
    size = np.abs(sample[np.isfinite(sample)])
    return bool(size.size) and float(size.max()) >= BEYOND_STATISTICS


def tell_unsigned(volumes: Mapping[str, Values]) -> str:
    """Say that a t or z map has no negative value though many are near 0, as F, chi-squared or |t|; "" where not.

    A thresholded map has none near 0, and a map of one strong effect neither.
    """
    for kind in ("t", "z"):
        flat = volumes[kind].reshape(-1) if kind in volumes else np.empty(0)
        sample = flat[:: max(1, flat.size // SAMPLE)]
        if not sample.size or bool((sample < 0).any()):
            continue
        inside = flat[np.isfinite(flat) & (flat != 0)]
        if inside.size < MANY or bool((inside < 0).any()):
            continue
        if np.mean(inside < NEAR_ZERO * np.median(inside)) >= SHARE_NEAR_ZERO:
            return (
                f"the {kind} map has no negative value, though many are near 0, as a map of F, chi-squared, -log10 p "
                f"or |{kind}| has: it has no direction, and what it combines to means nothing. Give the signed {kind}."
            )
    return ""


def _refuse_whole(kind: str, inside: Values, opening: str) -> None:
    """Refuse a map of whole numbers; effects only where they are a mask or number regions."""
    different = np.unique(inside)
    if kind == "effect" and not (different[0] >= 1 and different.size <= LABELLED * inside.size):
        return
    if kind == "effect" and different.size == 1 and different[0] != 1:
        return  # any constant
    shown = ", ".join(f"{number:g}" for number in different[:4]) + (", ..." if different.size > 4 else "")
    looks = "a mask" if different.size <= 2 else "labels of regions or clusters, or a statistic that was rounded,"
    raise DataError(
        f"{opening}its values are whole numbers ({shown}), as those of {looks} are. Give the {kind} map itself, as "
        "floating-point numbers."
    )


def _whole(values: Values) -> bool:
    """Return whether all values are whole numbers; what is not finite does not count."""
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool((finite == np.rint(finite)).all())


def refuse_turned_p(volumes: Mapping[str, Values], tail: str | None, what: str) -> None:
    """Refuse a p map that is 1 - p, or of another tail than it says, as its values and the maps beside it show.

    A p map falls with the size of t (two-sided), falls with t (positive) or
    rises with it (negative). Without t, z or effect beside it, a two-sided p
    that piles up near 1 is none.

    Raises
    ------
    DataError
        It is not what it is called.
    """
    p = volumes["p"].reshape(-1)
    inside = np.isfinite(p) & (p > 0) & (p < 1)
    statistic = _statistic(volumes)
    if statistic is not None:
        inside &= np.isfinite(statistic) & (statistic != 0)
    where = np.flatnonzero(inside)
    if where.size < FEW:
        return
    if statistic is not None:
        fault = _against(p[where], statistic[where], tail)
    elif tail in ("positive", "negative"):
        fault = ""
    else:
        fault = _piled(p[where])
    if fault:
        raise DataError(f"{what} {fault}")


def _against(p: Values, statistic: Values, tail: str | None) -> str:
    """Say in what way p does not go with the statistic beside it; "" where it does."""
    with_sign, with_size = rank_correlation(p, statistic), rank_correlation(p, np.abs(statistic))
    falls = with_sign < 0
    if tail in ("positive", "negative"):
        if (with_sign if tail == "positive" else -with_sign) <= OPPOSITE:
            return ""
        return (
            f"is no p map of the {tail} tail: it {'falls' if falls else 'rises'} with the statistic beside it, as 1 - "
            "p or p of the other tail does. Save 1 minus its values as stat-p, or correct Tail."
        )
    if abs(with_sign) > max(ONE_SIDED, abs(with_size) + MARGIN):
        return (
            f"is one-sided: it {'falls' if falls else 'rises'} with the statistic beside it. Its sidecar says "
            f"{tail or 'no Tail, for which two-sided is taken'}: write Tail {'positive' if falls else 'negative'}."
        )
    if with_size > OPPOSITE:
        return (
            "is a map of 1 - p: it rises with the size of the statistic beside it, and its largest values would be "
            "taken for the weakest. Save 1 minus its values as stat-p, or leave it out."
        )
    return ""


def _piled(p: Values) -> str:
    """Say that p piles up near 1, as no two-sided p does; "" where it does not."""
    near, far = float(np.mean(p > NEAR_ONE)), float(np.mean(p < 1 - NEAR_ONE))
    # the density of p near 1 is that of the statistic at 0, and as flat
    peaked = np.count_nonzero(p > NEAREST) >= max(LEAST, STEEP * near * p.size * (1 - NEAREST) / (1 - NEAR_ONE))
    if not peaked and (near <= PILE or near <= FOLD * far):
        return ""
    return (
        f"is no two-sided p map: {100 * near:.0f} % of its values are above {NEAR_ONE}, {100 * far:.1f} % below "
        f"{1 - NEAR_ONE:.2g}, as of 1 - p, of p that were corrected for multiple tests, or of one tail. Save 1 minus "
        "its values as stat-p, or share the z or t map; where it is of one tail, say so (Tail in its sidecar: "
        "positive or negative)."
    )


def _statistic(volumes: Mapping[str, Values]) -> Values | None:
    """Return what p should go with: t, z, effect / error, or the effect; flat."""
    for kind in ("t", "z"):
        if kind in volumes:
            return volumes[kind].reshape(-1).astype(np.float64)
    if "effect" not in volumes:
        return None
    effect = volumes["effect"].reshape(-1).astype(np.float64)
    if "variance" in volumes:
        with np.errstate(all="ignore"):
            return np.asarray(effect / np.sqrt(volumes["variance"].reshape(-1).astype(np.float64)))
    return effect


def check_p(observation: Observation, values: Values) -> None:
    """Refuse a p map that is 1 - p by its name or sidecar, has values outside 0 to 1, or an unknown tail."""
    statmap = observation.statmaps["p"]
    texts = [statmap.path.name, *_strings(statmap), str(observation.tail or "")]
    if any(ONE_MINUS_P.search(text) for text in texts):
        raise DataError(
            f"{statmap.path} is a map of 1 - p, by its name or sidecar: its largest values would be taken for the "
            "weakest. Save 1 minus its values as stat-p, or share the z or t map."
        )
    if observation.tail not in (None, *TAILS):
        raise DataError(
            f"{statmap.path}: the Tail {observation.tail!r} of its sidecar is unknown. Choose from: {', '.join(TAILS)}."
        )
    refuse_no_p(values, str(statmap.path))


def refuse_no_p(values: Values, what: str) -> None:
    """Refuse a map of p with values outside 0 to 1."""
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < 0 or finite.max() > 1):
        raise DataError(
            f"{what} is no p map: its values run from {finite.min():.3g} to {finite.max():.3g}. "
            "(-log10 p? Save 10 to the power of minus its values as stat-p, or share the z or t map.)"
        )


def _strings(statmap: StatMap) -> list[str]:
    """Collect the texts that may say what a map holds."""
    keys = ("Description", "StatisticType", "Statistic", "Tail", "ContrastName", "name")
    texts = [str(statmap.metadata[key]) for key in keys if key in statmap.metadata]
    return texts + [Path(label).name for label in statmap.entities.values()]


def keep_zeros(kind: str, values: Values) -> Values:
    """Keep the exact 0 of a table (and its p of 1), which is background in images only: move it by next to nothing.

    What a table lacks is ``n/a`` there, and NaN here.
    """
    background, near = (1.0, 1.0 - 2.0**-24) if kind == "p" else (0.0, float(np.finfo(np.float32).tiny))
    return values if kind in ("variance", "dof") else np.where(values == background, near, values)
