"""Gaussian random field theory: how often a smooth null field exceeds a height, and in how large clusters.

Formulas: Worsley et al. 1996, Human Brain Mapping 4, 58-73 (EC densities and
the unified p of a peak); Friston et al. 1994, Human Brain Mapping 1, 210-220
(extent of clusters). Rules are those of SPM12 (spm_P_RF, spm_uc), so that
numbers agree: each EC density is at least 2.2e-16, and the voxelwise threshold
is the smaller one of random field theory and Bonferroni.

Two-sided: |t| exceeds u where t or -t does, so expected counts double; for t
this is the F field with 1 and dof degrees of freedom at u².
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

EPS = 2.0**-52
FOUR_LOG_2 = 4.0 * math.log(2.0)
HIGHEST = 10.0  # z, far above the height from which on expected counts fall
_GRID = np.linspace(0.01, HIGHEST, 1000)


class RandomField(NamedTuple):
    """A stationary null field."""

    kind: str  # "z", "t" or "F"
    dof: tuple[float, float] = (1.0, math.inf)  # of F; t has the second
    two_sided: bool = False  # z and t: either sign may exceed the height


class ClusterLevel(NamedTuple):
    """The expected clusters above a height, and p of those found."""

    expected: float  # number of clusters
    expected_resels: float  # extent of a cluster
    p: Floats  # (G,) probability that a cluster is as large or larger
    log10_p: Floats  # (G,) corrected -log10 p: that any cluster is


def _z_densities(height: Floats) -> list[Floats]:
    """Return the densities of a Gaussian field in 0 to 3 dimensions."""
    gauss = np.exp(-0.5 * height**2)
    return [
        special.ndtr(-height),
        FOUR_LOG_2**0.5 / (2 * np.pi) * gauss,
        FOUR_LOG_2 / (2 * np.pi) ** 1.5 * gauss * height,
        FOUR_LOG_2**1.5 / (2 * np.pi) ** 2 * gauss * (height**2 - 1.0),
    ]


def _t_densities(height: Floats, dof: float) -> list[Floats]:
    """Return the densities of a t field."""
    power = np.exp(0.5 * (1.0 - dof) * np.log1p(height**2 / dof))
    ratio = math.exp(math.lgamma(0.5 * (dof + 1.0)) - math.lgamma(0.5 * dof)) / math.sqrt(0.5 * dof)
    return [
        special.stdtr(dof, -height),
        FOUR_LOG_2**0.5 / (2 * np.pi) * power,
        FOUR_LOG_2 / (2 * np.pi) ** 1.5 * power * height * ratio,
        FOUR_LOG_2**1.5 / (2 * np.pi) ** 2 * power * ((dof - 1.0) * height**2 / dof - 1.0),
    ]


def _f_densities(height: Floats, rows: float, dof: float) -> list[Floats]:
    """Return the densities of an F field; of one row: of t and -t, whose square it is."""
    if rows == 1.0:
        return [2.0 * density for density in _t_densities(np.sqrt(height), dof)]
    k, v = rows, dof
    x = k * height / v
    log_x, falling = np.log(x), np.exp(-0.5 * (v + k - 2.0) * np.log1p(x))
    beta = special.gammaln(0.5 * v) + special.gammaln(0.5 * k)
    a = FOUR_LOG_2 / (2 * np.pi)

    def part(dimension: int) -> Floats:
        at_zero = special.gammaln(0.5 * (v + k - dimension)) - beta
        return np.asarray(np.exp(at_zero + 0.5 * (k - dimension) * log_x) * falling)

    square = (v - 1) * (v - 2) * x**2 - (2 * v * k - v - k - 1) * x + (k - 1) * (k - 2)
    return [
        special.betainc(0.5 * v, 0.5 * k, 1.0 / (1.0 + x)),
        a**0.5 * math.sqrt(2.0) * part(1),
        a * part(2) * ((v - 1.0) * x - (k - 1.0)),
        a**1.5 / math.sqrt(2.0) * part(3) * square,
    ]


def ec_densities(field: RandomField, height: ArrayLike) -> Floats:
    """Return the Euler characteristic densities per resel, each at least 2.2e-16.

    Parameters
    ----------
    field : RandomField
    height : array_like, shape (N,)
        > 0 for F fields.

    Returns
    -------
    ndarray, shape (4, N)
        In 0 (the tail probability) to 3 dimensions.
    """
    at = np.atleast_1d(np.asarray(height, dtype=np.float64))
    if field.kind == "F":
        densities = _f_densities(at, *field.dof)
    elif field.kind == "t" and math.isfinite(field.dof[1]):
        densities = _t_densities(at, field.dof[1])
    else:
        densities = _z_densities(at)
    both = 2.0 if field.two_sided and field.kind != "F" else 1.0
    found = both * np.array(densities)
    # not defined with fewer dof than dimensions: as if exceeded with certainty
    return np.maximum(np.where(np.isnan(found), np.inf, found), EPS)


def _dimensions(resels: Floats) -> int:
    """Return the highest dimension in which a mask has resels."""
    return int(np.flatnonzero(resels)[-1]) if np.any(resels) else 0


def expected_maxima(field: RandomField, height: ArrayLike, resels: ArrayLike) -> Floats:
    """Return how many clusters a null field is expected to have above a height: (N,)."""
    counts = np.asarray(resels, dtype=np.float64)
    up_to = _dimensions(counts) + 1
    return np.asarray(counts[:up_to] @ ec_densities(field, height)[:up_to])


def height_of_p(field: RandomField, p: float) -> float:
    """Return the height that a voxel of the null field exceeds with probability p."""
    if field.kind == "F":
        rows, dof = field.dof
        share = special.betaincinv(0.5 * dof, 0.5 * rows, p)
        return float(dof / rows * (1.0 / share - 1.0))
    tail = 0.5 * p if field.two_sided else p
    if field.kind == "t" and math.isfinite(field.dof[1]):
        return float(-special.stdtrit(field.dof[1], tail))
    return float(-special.ndtri(tail))


def _last_mode(field: RandomField, resels: Floats) -> tuple[float, float]:
    """Return the height from which on expected counts fall, and the count there.

    Below it the approximation counts holes and handles, and would make lower
    heights seem rarer than they are.
    """
    heights = _GRID**2 if field.kind == "F" else _GRID
    expected = expected_maxima(field, heights, resels)
    rises = np.flatnonzero((np.diff(expected) > 0.0) & (expected[1:] > 1e-6))
    top = int(rises[-1]) + 1 if rises.size else 0
    return float(heights[top]), float(expected[top])


def _log10_any(expected: Floats, log_share: ArrayLike = 0.0) -> Floats:
    """Return -log10(1 - exp(-expected · share)), without underflow."""
    log_mean = np.log(expected) + np.asarray(log_share, dtype=np.float64)
    mean = np.exp(log_mean)
    with np.errstate(divide="ignore"):
        log_p = np.where(mean < 1e-9, log_mean, np.log(-np.expm1(-mean)))
    return np.asarray(-log_p / math.log(10.0))


def peak_log10p(field: RandomField, height: ArrayLike, resels: ArrayLike) -> Floats:
    """Return the corrected -log10 p of heights: that a null field exceeds them anywhere.

    Parameters
    ----------
    field : RandomField
    height : array_like, shape (N,)
        Signed values of one-sided fields, |values| of two-sided ones.
    resels : array_like, shape (4,)
        From `resels.count_resels`.

    Returns
    -------
    ndarray, shape (N,)
        1 - exp(-expected), as SPM has it. Below the height from which on the
        expected number falls, the approximation fails: p is the one there.
    """
    counts = np.asarray(resels, dtype=np.float64)
    lowest, most = _last_mode(field, counts)
    high = np.maximum(np.asarray(height, dtype=np.float64), lowest)
    # capped, as the count at a height between two of the grid may be slightly larger
    return _log10_any(np.clip(expected_maxima(field, high, counts), 0.0, most) + EPS)


def height_threshold(field: RandomField, resels: ArrayLike, n_voxels: int, alpha: float) -> float:
    """Return the height that controls the familywise error rate.

    The smaller one of random field theory's and Bonferroni's (SPM's spm_uc).

    Parameters
    ----------
    field : RandomField
    resels : array_like, shape (4,)
    n_voxels : int
        Of the mask.
    alpha : float
    """
    counts = np.asarray(resels, dtype=np.float64)
    bonferroni = height_of_p(field, alpha / n_voxels)
    target = -math.log10(alpha)

    def short(height: float) -> float:
        return float(peak_log10p(field, [height], counts)[0]) - target

    lowest, _ = _last_mode(field, counts)
    if lowest >= bonferroni or short(bonferroni) <= 0.0:
        return bonferroni
    return lowest if short(lowest) >= 0.0 else _solve(short, lowest, bonferroni)


def _solve(short: Callable[[float], float], lowest: float, highest: float) -> float:
    """Find where a function that rises from below 0 to above is 0."""
    from scipy.optimize import brentq  # slow to import

    return float(brentq(short, lowest, highest, xtol=1e-12, rtol=1e-14))


def cluster_level(field: RandomField, height: float, resels: ArrayLike, extents: ArrayLike) -> ClusterLevel:
    """Return the p of clusters above a height, by their extent.

    A cluster's extent k has P(extent >= k) = exp(-beta k^(2/D)), beta such that
    its mean is the expected one (Friston et al. 1994; SPM's spm_P_RF).

    Parameters
    ----------
    field : RandomField
    height : float
        The cluster-forming threshold.
    resels : array_like, shape (4,)
    extents : array_like, shape (G,)
        Of clusters, in resels: voxels over the product of FWHM in voxels.
    """
    counts = np.asarray(resels, dtype=np.float64)
    dimension = _dimensions(counts)
    densities = ec_densities(field, height)[: dimension + 1, 0]
    expected = max(float(counts[: dimension + 1] @ densities), 0.0)
    size = float(densities[0] / densities[dimension])
    sizes = np.asarray(extents, dtype=np.float64)
    if dimension == 0:
        log_p = np.zeros(sizes.shape)
    else:
        beta = (math.gamma(0.5 * dimension + 1.0) / size) ** (2.0 / dimension)
        log_p = -beta * sizes ** (2.0 / dimension)
    corrected = _log10_any(np.full(sizes.shape, expected + EPS), log_p)
    return ClusterLevel(expected, size, np.exp(log_p), corrected)


def extent_threshold(field: RandomField, height: float, resels: ArrayLike, alpha: float) -> float:
    """Return the extent in resels from which on a cluster's corrected p is at most alpha."""
    level = cluster_level(field, height, resels, [1.0])
    target = -math.log1p(-alpha)  # expected number of clusters as large
    dimension = _dimensions(np.asarray(resels, dtype=np.float64))
    expected = level.expected + EPS
    if expected <= target or dimension == 0:
        return 0.0 if expected <= target else math.inf
    beta = -math.log(level.p[0]) if level.p[0] > 0.0 else math.inf
    return float((math.log(expected / target) / beta) ** (0.5 * dimension))
