"""QQ plot of p: the p values of a test against those expected under the null hypothesis."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.report.figures.plot import Axis, Label, Plot, Shape, draw_axis, draw_heights, line, polyline
from ibma_app.report.html import format_number
from ibma_app.report.maps import ResultMaps

Floats = NDArray[np.float64]

POINTS = 300
"""Number of quantiles drawn, dense where p is small."""

LEVEL = 0.95
LEFT, RIGHT, TOP, BOTTOM = 62.0, 330.0, 14.0, 282.0


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Observed p of N voxels against uniform ones, at some of their ranks."""

    n_voxels: int
    expected: Floats  # -log10, falling
    observed: Floats  # -log10, falling
    low: Floats  # pointwise band of independent voxels, -log10
    high: Floats
    below_05: float  # share of the voxels with p < 0.05


def find_quantiles(maps: ResultMaps) -> Quantiles | None:
    """Sort the uncorrected p of a test's map; None where there is none.

    Voxels whose z is exactly 0 were not tested. The i-th smallest of N
    uniform p is expected at (i - 0.5) / N and follows Beta(i, N - i + 1).
    """
    from scipy.special import betaincinv

    log10p, z = maps.values("log10p"), maps.values("z")
    if log10p is None or z is None:
        return None
    observed = np.sort(log10p[z != 0])[::-1]
    count = observed.size
    if count < 2:
        return None
    ranks = np.unique(np.rint(np.geomspace(1, count, POINTS)).astype(np.int64))
    edges = [betaincinv(ranks, count - ranks + 1, (1 + side * LEVEL) / 2) for side in (1, -1)]
    low, high = (-np.log10(np.maximum(edge, 1e-300)) for edge in edges)
    return Quantiles(
        n_voxels=count,
        expected=-np.log10((ranks - 0.5) / count),
        observed=observed[ranks - 1],
        low=low,
        high=high,
        below_05=float(np.mean(observed > -np.log10(0.05))),
    )


def draw_quantiles(found: Quantiles) -> Plot:
    """Draw observed against expected -log10 p, with the band of independent voxels."""
    x = Axis(0.0, 1.05 * float(found.expected.max()), LEFT, RIGHT)
    y = Axis(0.0, 1.05 * max(float(found.observed.max()), float(found.high.max())), BOTTOM, TOP)
    below, names = draw_axis(x, BOTTOM, "Expected −log10 p")
    beside, heights = draw_heights(y, LEFT)
    places = [x.at(value) for value in found.expected]
    low, high, curve = (
        [(place, y.at(value)) for place, value in zip(places, side, strict=True)]
        for side in (found.low, found.high, found.observed)
    )
    end = min(x.high, y.high)
    share = format_number(100 * found.below_05)
    caption = (
        f"Uncorrected p of {format_number(found.n_voxels)} voxels against uniform ones: {share} % are below "
        "0.05, where 5 % are expected if nothing is there. The band holds 95 % at each point if voxels were "
        "independent; they are smooth, so that excursions along the whole line are common and the band is too narrow."
    )
    return Plot(
        width=RIGHT + 12.0,
        height=BOTTOM + 46.0,
        alt="Observed against expected p values",
        figure="qq",
        caption=caption,
        shapes=(
            Shape(polyline([*low, *high[::-1]], closed=True), "band"),
            *below,
            *beside,
            Shape(line(x.at(0), y.at(0), x.at(end), y.at(end)), "expected"),
            Shape(polyline(curve), "curve"),
        ),
        labels=(*names, *heights, Label(LEFT - 42.0, (TOP + BOTTOM) / 2, "Observed −log10 p", "middle", "upright")),
    )
