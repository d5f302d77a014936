"""Units: how effects of other software become percent signal change, and why some do not.

percent = effect * 100 * height / (mean * s), where ``mean`` is the session's
mean signal at the voxel, ``height`` the height of the regressor in the design
(peak to peak), and ``s`` the sum of the contrast's positive (or negative)
weights. Effects are multiplied by that factor, variances by its square, and t
stays as it is. Where something is missing, effects stay as they are, in units
``unknown`` with the reason: nothing is assumed.

References
----------
Mumford J. A guide to calculating percent change with featquery. 2007.
Poldrack RA, Mumford JA, Nichols TE. Handbook of functional MRI data analysis.
Cambridge University Press, 2011, appendix on percent signal change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENT = "percent"
UNKNOWN = "unknown"

NEGLIGIBLE = 1e-9  # relative to the largest weight: rounding errors of a design written as text
SAME_SUM = 1e-4  # relative: 0.33333 written to five digits three times still sums to 1
SAME_HEIGHT = 0.10  # relative: regressors of one contrast within this have one height, their mean

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaling:
    """The factor of a contrast's effects, ``gain / mean``, and why; a gain of None: effects stay as they are."""

    units: str
    source: str  # how the units are known, or why they are not
    height: float | None = None
    gain: float | None = None
    mean: float | Floats = 1.0  # a number or (X, Y, Z); NaN where the session has no signal

    @property
    def factor(self) -> float | Floats | None:
        """The factor of effects: a number or (X, Y, Z), NaN where there is none."""
        return None if self.gain is None else self.gain / self.mean

    @property
    def median(self) -> float | None:
        """The factor, or its median over the voxels that have one."""
        if self.gain is None:
            return None
        factor = self.gain / float(np.nanmedian(self.mean))
        return factor if np.isfinite(factor) else None

    def scale(self, kind: str, values: NDArray[Any]) -> NDArray[Any]:
        """Scale a map of this kind: effects and variances; the others stay."""
        power = {"effect": 1, "variance": 2}.get(kind)
        factor = self.factor
        return values if power is None or factor is None else np.asarray(values * factor**power)

    def apply(self, maps: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Scale a contrast's maps."""
        return {kind: self.scale(kind, values) for kind, values in maps.items()}


def unknown(reason: str, height: float | None = None) -> Scaling:
    """Leave effects as they are, with the reason why their units are not known."""
    return Scaling(UNKNOWN, reason, height=height)


def weight_sum(weights: Mapping[str, float]) -> tuple[float | None, str]:
    """Return the sum of a contrast's weights of one sign, by which its effect is divided.

    Returns
    -------
    s : float or None
        Sum of the positive weights when the negative sum to as much, or all
        weights have one sign; None otherwise.
    reason : str
        Why there is none.
    """
    values = np.array([float(value) for value in weights.values()], dtype=np.float64)
    largest = np.abs(values).max(initial=0.0)
    if not np.isfinite(values).all() or largest == 0.0:
        return None, "the contrast's weights are all zero or not finite"
    values = values[np.abs(values) > NEGLIGIBLE * largest]
    positive, negative = float(values[values > 0].sum()), float(-values[values < 0].sum())
    if positive and negative and abs(positive - negative) > SAME_SUM * max(positive, negative):
        return None, f"its positive weights sum to {positive:g} and its negative ones to {-negative:g}"
    return positive or negative, ""


def one_height(weights: Mapping[str, float], heights: Mapping[str, float]) -> tuple[float | None, str]:
    """Find the height that a contrast's regressors share (their mean, weighted by the contrast, within 10 %).

    Returns
    -------
    height : float or None
    reason : str
        Why not, or how much they differ.
    """
    largest = max((abs(value) for value in weights.values()), default=0.0)
    used = {name: abs(value) for name, value in weights.items() if abs(value) > NEGLIGIBLE * largest}
    missing = [name for name in used if not np.isfinite(heights.get(name, np.nan)) or heights[name] <= 0]
    if missing or not used:
        return None, f"the height of the regressor {missing[0] if missing else '(none)'} is not known"
    low, high = min(heights[name] for name in used), max(heights[name] for name in used)
    height = sum(heights[name] * size for name, size in used.items()) / sum(used.values())
    if high - low > SAME_HEIGHT * height:
        return None, f"the heights of its regressors differ ({low:.3g} to {high:.3g}), so no one height is theirs"
    return height, f" (regressors from {low:.4g} to {high:.4g})" if high - low > 1e-3 * height else ""


def percent(
    mean: float | NDArray[Any],
    mean_source: str,
    weights: Mapping[str, float],
    heights: Mapping[str, float],
) -> Scaling:
    """Find the factor that makes a contrast's effects percent signal change.

    Parameters
    ----------
    mean : float or ndarray, shape (X, Y, Z)
        Mean signal of the session; where it is not positive there is no factor.
    mean_source : str
        Where it is from: ``"mean_func.nii.gz"``.
    weights, heights : mapping
        Design column -> weight in the contrast, height of the regressor.

    Returns
    -------
    Scaling
        In units ``percent``, or ``unknown`` with the reason.
    """
    total, reason = weight_sum(weights)
    if total is None:
        return unknown(f"Not percent signal change: {reason}.")
    height, words = one_height(weights, heights)
    if height is None:
        return unknown(f"Not percent signal change: {words}.")
    signal = np.asarray(mean, dtype=np.float64)
    signal = np.where(np.isfinite(signal) & (signal > 0), signal, np.nan)
    if np.isnan(signal).all():
        return unknown(f"Not percent signal change: {mean_source} has no positive value.", height)
    text = f"100 × height {height:.6g}{words} / ({mean_source}"
    text += ")" if abs(total - 1) < 1e-12 else f" × {total:g}, the sum of the contrast's weights)"
    return Scaling(PERCENT, text, height, 100.0 * height / total, float(signal) if signal.ndim == 0 else signal)
