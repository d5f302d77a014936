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
TELLING = (1.0, 8.0)  # |t| that says degrees of freedom: smaller ones hardly depend on them, larger z may be cut off
FEWEST, MOST = 20, 2000  # values that are needed, and looked at
RANKED = 20_000  # values whose ranks are compared
PRECISE = 0.02  # relative: the least that t and z must say of degrees of freedom


class Contradiction(NamedTuple):
    """Two kinds of map of one contrast that do not agree."""

    kinds: str  # "effect and t"
    signs: bool  # whether signs differ, else values do
    share: float  # of the voxels that have both
    largest: float  # |t| or |z| where signs differ; the largest difference where values do

    @property
    def what(self) -> str:
        """The kind of finding in words."""
        return f"{self.kinds} have opposite signs" if self.signs else f"{self.kinds} differ"

    @property
    def extent(self) -> str:
        """How far it goes, in words."""
        return f"in {100 * self.share:.3g} % of the voxels, {'' if self.signs else 'by '}up to {self.largest:.3g}"

    @property
    def text(self) -> str:
        """The finding in words."""
        return f"{self.what} {self.extent}"

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


def rank_correlation(one: Values, other: Values) -> float:
    """Spearman's correlation of two arrays (N,), of 20,000 of their values at most; ties in any order."""
    step = max(1, one.size // RANKED)
    first, second = (np.argsort(np.argsort(values[::step], kind="stable")) for values in (one, other))
    most = first.size - 1.0
    if most < 1.0:
        return 0.0
    return float(np.mean((first - most / 2) * (second - most / 2)) * 12.0 / (most * (most + 2.0)))


def dof_of_t_and_z(t: Values, z: Values) -> float | None:
    """Find the degrees of freedom by which a t map became a z map.

    The median of z(t, dof) - z over voxels of middling |t| grows with dof; its
    root is searched on a logarithmic scale.

    Parameters
    ----------
    t, z : array, of one shape

    Returns
    -------
    float or None
        Whole where a whole number fits as well. None: no single number turns
        these t into these z (it differs by voxel, or z is t), or their
        precision does not tell it.
    """
    size, target = np.abs(t).ravel(), np.abs(z).ravel()
    told = np.flatnonzero(np.isfinite(size) & np.isfinite(target) & (size > TELLING[0]) & (size < TELLING[1]))
    if told.size < FEWEST:
        return None
    told = told[np.argsort(size[told])[-MOST:]]
    size, target = size[told].astype(np.float64), target[told].astype(np.float64)
    rounding = OF_LARGEST * max(float(np.nanmax(np.abs(z[np.isfinite(z)]))), 1.0)

    def excess(log_dof: float) -> Values:
        return np.asarray(t_to_z(size, float(np.exp(log_dof)))) - target

    low, high = 0.0, float(np.log(1e6))
    if np.median(excess(low)) > 0 or np.median(excess(high)) < 0:
        return None
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if np.median(excess(middle)) < 0 else (low, middle)
    rest = np.abs(excess(low))
    slope = float(np.median(excess(low + PRECISE) - excess(low)))
    noise = float(np.median(rest)) * 2.0 / np.sqrt(rest.size)
    if slope <= max(noise, 1e-7) or np.quantile(rest, 0.95) > rounding:
        return None
    dof = float(np.exp(low))
    whole = max(1.0, float(np.rint(dof)))
    return whole if abs(whole - dof) <= max(0.05, 0.005 * dof) else dof
