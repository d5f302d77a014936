"""Checks whether the kinds of map that were shared of one contrast agree."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibma_app.stats.tails import t_to_z

Values = NDArray[Any]

NEAR_ZERO = 0.05  # |t| or |z| below which a sign may be lost to rounding
RELATIVE = 0.01  # largest difference of two values that agree: relative to the larger one,
OF_LARGEST = 2.0 / 2**15  # and to the map's largest value (rounding of scaled 16-bit integers)
LEAST_SHARE = 0.001  # of the voxels that must differ for a contradiction
MAJORITY = 0.5


class Contradiction(NamedTuple):
    """Two kinds of map of one contrast that do not agree."""

    kinds: str  # "effect and t"
    signs: bool  # whether signs differ, else values do
    share: float  # of the voxels that have both
    largest: float  # |t| or |z| where signs differ; the largest difference where values do

    @property
    def text(self) -> str:
        """The finding in words."""
        percent = f"{100 * self.share:.3g} % of the voxels"
        if self.signs:
            return f"{self.kinds} have opposite signs in {percent} (up to {self.largest:.3g})"
        return f"{self.kinds} differ in {percent} (by up to {self.largest:.3g})"

    @property
    def hopeless(self) -> bool:
        """Whether most signs are opposite: one of the maps is turned round, or of another contrast."""
        return self.signs and self.share > MAJORITY


def find_contradictions(maps: Mapping[str, Values], dof: ArrayLike = np.inf) -> Iterator[Contradiction]:
    """Compare the kinds of map of one contrast with each other.

    Signs of the effect with those of t and z; t with effect / sqrt(variance);
    z with t and its degrees of freedom.

    Parameters
    ----------
    maps : mapping of str to array
        By kind, all of one shape; values that are 0 or not finite are not compared.
    dof : float or array
        Of t; infinite where unknown, and then z is not compared with t.

    Yields
    ------
    Contradiction
        Where at least 0.1 % of the voxels differ.
    """
    statistic = next((kind for kind in ("t", "z") if kind in maps), None)
    if "effect" in maps and statistic is not None:
        yield from _compare_signs(maps["effect"], maps[statistic], f"effect and {statistic}")
    with np.errstate(all="ignore"):
        if {"effect", "variance", "t"} <= set(maps):
            ratio = maps["effect"].astype(np.float64) / np.sqrt(maps["variance"].astype(np.float64))
            yield from _compare_values(np.abs(ratio), np.abs(maps["t"]), "t and effect / sqrt(variance)")
        if {"t", "z"} <= set(maps) and np.isfinite(dof).any():
            z = maps["z"]
            yield from _compare_signs(maps["t"], z, "t and z")
            yield from _compare_values(np.abs(t_to_z(maps["t"].astype(np.float64), dof)), np.abs(z), "z and t")


def _compare_signs(one: Values, statistic: Values, kinds: str) -> Iterator[Contradiction]:
    both = np.isfinite(one) & np.isfinite(statistic) & (one != 0) & (np.abs(statistic) > NEAR_ZERO)
    opposite = both & ((one > 0) != (statistic > 0))
    count = np.count_nonzero(opposite)
    if count and count >= LEAST_SHARE * np.count_nonzero(both):
        yield Contradiction(kinds, True, count / np.count_nonzero(both), float(np.abs(statistic[opposite]).max()))


def _compare_values(expected: Values, given: Values, kinds: str) -> Iterator[Contradiction]:
    both = np.isfinite(expected) & np.isfinite(given) & (expected != 0) & (given != 0)
    if not both.any():
        return
    expected, given = expected[both], given[both]
    difference = np.abs(expected - given)
    apart = difference > RELATIVE * np.maximum(expected, given) + OF_LARGEST * float(given.max())
    count = np.count_nonzero(apart)
    if count and count >= LEAST_SHARE * apart.size:
        yield Contradiction(kinds, False, count / apart.size, float(difference[apart].max()))
