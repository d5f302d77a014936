"""Funnel plots: whether the effects of imprecise maps differ from those of precise ones."""

import math

from ibma_app.core.results import PeakEvidence
from ibma_app.report.figures.at_peaks.forest import NORMAL
from ibma_app.report.figures.plot import (
    Axis,
    Label,
    Plot,
    Shape,
    dots,
    draw_axis,
    draw_heights,
    line,
    polyline,
    span_axis,
)

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460.0, 320.0, 64.0, 14.0, 446.0, 272.0
FARTHEST = 6.0  # in median standard errors: maps beyond are drawn on the edge
NAMED = 60  # up to this many maps, points have tooltips with their names


def draw_funnel(peak: PeakEvidence, names: tuple[str, ...], quantity: str) -> Plot | None:
    """Draw effects, or residuals where the design predicts each map, against their standard errors.

    The straight lines hold 95 % of the maps when sampling error alone makes
    them differ (Sterne & Egger 2001), the curved ones with tau2 added.

    Returns
    -------
    Plot or None
        None where maps have no sampling variance, or are fewer than 3.
    """
    points = [
        (row.value - (row.fitted or 0.0), math.sqrt(row.variance), names[row.row])
        for row in peak.maps
        if row.variance is not None
    ]
    if len(points) < 3:
        return None
    residual = any(row.fitted is not None for row in peak.maps)
    centre = 0.0 if residual else peak.combined.effect or 0.0
    middle = sorted(error for _, error, _ in points)[len(points) // 2]
    highest = min(max(error for _, error, _ in points), FARTHEST * middle)
    errors = Axis(0.0, 1.06 * highest, TOP, BOTTOM)
    beyond = sum(error > errors.high for _, error, _ in points)
    widest = NORMAL * errors.high
    far = 1.04 * max(abs(value - centre) for value, _, _ in points)
    reach = max(min(widest, 4.0 * far), far)
    axis = span_axis([centre - reach, centre + reach], LEFT, RIGHT, 0.0)
    shapes, labels = draw_axis(axis, BOTTOM, f"residual {quantity}" if residual else quantity)
    more = draw_heights(errors, LEFT, 5)
    shapes, labels = [*_region(centre, axis, errors), *shapes, *more[0]], labels + more[1]
    if peak.tau2:
        shapes += [Shape(_contour(centre, axis, errors, peak.tau2, sign), "wider") for sign in (-1.0, 1.0)]
    shapes.append(Shape(line(axis.at(centre), TOP, axis.at(centre), BOTTOM), "whole"))
    labels.append(Label(12.0, (TOP + BOTTOM) / 2, "standard error", "middle", "upright"))
    places = [(axis.at(value), errors.clip(error)) for value, error, _ in points]
    if len(points) <= NAMED:
        shapes += [Shape(dots([place]), "dot", point[2]) for place, point in zip(places, points, strict=True)]
    else:
        shapes.append(Shape(dots(places), "dot small"))
    if beyond:
        words = f"{beyond} {'map' if beyond == 1 else 'maps'} beyond, on the lower edge"
        labels.append(Label(RIGHT, BOTTOM - 8, words, "end"))
    alt = f"Funnel plot of {len(points)} maps at {peak.name}"
    return Plot(WIDTH, HEIGHT, tuple(shapes), tuple(labels), alt, "funnel")


def _region(centre: float, axis: Axis, errors: Axis) -> list[Shape]:
    """Where 95 % of the maps are when sampling error alone makes them differ."""
    # where the triangle leaves the axis, it continues along the edge
    edge = min(errors.high, (axis.high - centre) / NORMAL)
    half = NORMAL * edge
    corners = [(centre, 0.0), (centre + half, edge), (centre + half, errors.high)]
    corners += [(centre - half, errors.high), (centre - half, edge)]
    return [Shape(polyline([(axis.at(x), errors.at(y)) for x, y in corners], closed=True), "region")]


def _contour(centre: float, axis: Axis, errors: Axis, tau2: float, sign: float) -> str:
    """One side of the same region with tau2 added."""
    steps = [errors.high * step / 24 for step in range(25)]
    points = [(centre + sign * NORMAL * math.sqrt(error**2 + tau2), error) for error in steps]
    return polyline([(axis.at(x), errors.at(y)) for x, y in points if axis.holds(x)] or [(LEFT, TOP)])
