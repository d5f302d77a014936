"""The sampling variances of a table's effects, from what it states of their errors.

What is stated is checked first: published tables have negative standard errors, intervals that lack a minus sign,
and standard errors of another unit than the effect's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.group_differences import variance_of_difference

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Z95 = 1.959963984540054
UNLIKE = 0.1
"""Share of an interval's length that its middle may lie away from the effect: more is no rounding."""
TOO_SMALL = 0.5
"""Share of the standard error that d has by the sizes of its groups: below it, a standard error is not of d.

Covariates, and a random-effects model over samples, make it larger; correlated covariates smaller by a few percent.
"""
NAMED = 3
FROM_SIZES = "1/n1 + 1/n2 + d^2/(2 (n1 + n2)), with n1 and n2 the sizes of the two groups"
FROM_INTERVAL = "the length of the 95 % interval: (length / 3.92)^2"


@dataclass(frozen=True, eq=False)
class Variances:
    """The variances of one contrast's regions."""

    values: Floats  # (V,) NaN where there is none
    derived: str  # what they were computed from; "": as stated
    notes: tuple[str, ...]


def find_variances(stated: Mapping[str, Floats], regions: Sequence[str], *, standardised: bool) -> Variances:
    """Find the variance of each region's effect.

    In this order: the variance or the standard error stated; the 95 % interval; for standardised differences of two
    groups, their sizes. What cannot be (an error of 0 or less, an interval that is not about the effect, an error far
    below what groups of these sizes have) is told and passed over.

    Parameters
    ----------
    stated : mapping of str to (V,) ndarray
        ``effect``, and of ``variance``, ``se``, ``lower``, ``upper``, ``n1`` and ``n2`` what there is; NaN: missing.
    regions : sequence of str, length V
    standardised : bool
        The effect is Cohen's d or Hedges' g.
    """
    effect = stated["effect"]
    none = np.full(effect.shape, np.nan)
    known = np.isfinite(effect)
    notes: list[str] = []

    def note(where: Bools, text: str) -> None:
        if where.any():
            notes.append(f"{text} ({_name(regions, where)}).")

    with np.errstate(all="ignore"):
        by_sizes = none
        if standardised:
            by_sizes = variance_of_difference(effect, stated.get("n1", none), stated.get("n2", none))
        said = stated.get("variance", none)
        if "se" in stated:
            said = np.where(np.isfinite(said), said, np.sign(stated["se"]) * stated["se"] ** 2)
        impossible = known & (said <= 0)
        small = known & (said > 0) & (said < TOO_SMALL**2 * by_sizes)
        interval, odd = _from_interval(effect, stated.get("lower", none), stated.get("upper", none))
    note(impossible, "An error of 0 or less is none, and is passed over")
    note(small, "The error is less than half of what d between groups of these sizes has: it is of another unit, and "
         "is passed over")  # fmt: skip
    note(odd & known, "The interval does not lie about its effect, and is not used")
    variance = np.where((said > 0) & ~small, said, np.nan)
    sources: list[str] = []
    for values, source in ((interval, FROM_INTERVAL), (by_sizes, FROM_SIZES)):
        if standardised and source is FROM_INTERVAL:
            values = np.where(values < TOO_SMALL**2 * by_sizes, np.nan, values)
        taken = known & ~np.isfinite(variance) & np.isfinite(values)
        note(taken, f"The variance is computed from {source}")
        sources += [source] if taken.any() else []
        variance = np.where(taken, values, variance)
    note(known & ~np.isfinite(variance), "An effect without an error is left out")
    if np.isfinite(variance[known & (said > 0)]).any() and "variance" not in stated:
        sources.insert(0, "the square of the standard error")
    return Variances(np.where(known, variance, np.nan), "; ".join(sources), tuple(notes))


def _from_interval(effect: Floats, lower: Floats, upper: Floats) -> tuple[Floats, Bools]:
    """Return variances from 95 % intervals, NaN where there is none, and where one is not about its effect."""
    length = upper - lower
    there = np.isfinite(length)
    about = there & (length > 0) & (np.abs((lower + upper) / 2.0 - effect) <= UNLIKE * length)
    return np.where(about, (length / (2.0 * Z95)) ** 2, np.nan), there & ~about


def _name(regions: Sequence[str], where: Bools) -> str:
    """Name the regions of a note: ``12 of 68 regions: L_insula, R_insula, ...``."""
    names = [name for name, there in zip(regions, where, strict=True) if there]
    if len(names) == len(regions):
        return f"all {len(names)} regions"
    more = ", ..." if len(names) > NAMED else ""
    return f"{len(names)} of {len(regions)} regions: {', '.join(names[:NAMED])}{more}"
