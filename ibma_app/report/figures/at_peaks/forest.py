"""Forest plots: each map's value at a peak, the combined one, and the test without each map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.results import Combined, MapAtPeak, PeakEvidence
from ibma_app.report.figures.plot import (
    Axis,
    Label,
    Plot,
    Shape,
    Writer,
    diamond,
    draw_axis,
    line,
    span_axis,
    square,
    writer,
)

NORMAL = float(special.ndtri(0.975))

DRAWN_ALL = 60
"""Up to this many maps, all are drawn in the design's order; of more, the most influential (DRAWN_MOST)."""
DRAWN_MOST = 40

ROW, TOP = 19.0, 40.0
VALUES, WEIGHTS, LEFT = 290.0, 60.0, 220.0  # widths of the columns
LETTER = 6.4
SHORTEST, LONGEST = 12, 26  # letters of a map's name


def interval(value: float | None, variance: float | None, dof: float | None = None) -> tuple[float, float] | None:
    """Return the 95 % interval of an effect: t with its dof, else normal; None without a variance."""
    if value is None or variance is None or not variance > 0:
        return None
    half = math.sqrt(variance) * (NORMAL if dof is None else float(special.stdtrit(dof, 0.975)))
    return value - half, value + half


def interval_of(combined: Combined) -> tuple[float, float] | None:
    """Return the 95 % interval of a test's effect."""
    return interval(combined.effect, combined.variance, combined.dof)


def rows_shown(peak: PeakEvidence) -> tuple[MapAtPeak, ...]:
    """Choose the maps that are drawn: all, or of many the most influential, largest change first."""
    if len(peak.maps) <= DRAWN_ALL:
        return peak.maps
    centre = peak.combined.effect or 0.0

    def rank(row: MapAtPeak) -> tuple[float, float]:
        predicted = centre if row.fitted is None else row.fitted
        return -change(peak, row), -abs(row.value - predicted)

    return tuple(sorted(peak.maps, key=rank)[:DRAWN_MOST])


def change(peak: PeakEvidence, row: MapAtPeak) -> float:
    """Return how far the effect (without effects: z) moves when a map is left out."""
    if row.without is None:
        return 0.0
    if peak.combined.effect is not None and row.without.effect is not None:
        return abs(row.without.effect - peak.combined.effect)
    return abs(row.without.z - peak.combined.z)


@dataclass(frozen=True)
class _Layout:
    """Positions of the columns."""

    names: float
    values: Axis
    numbers: float  # right end
    weights: float | None  # right end
    left: Axis | None  # None: no map could be left out
    bottom: float
    write: Writer

    @property
    def width(self) -> float:
        return (self.left.stop if self.left else self.weights or self.numbers) + 14.0


def draw_forest(
    peak: PeakEvidence,
    names: Sequence[str],
    quantity: str,
    *,
    one_mean: bool,
    units: NDArray[np.int64] | None = None,
) -> Plot:
    """Draw the forest plot of one peak.

    Parameters
    ----------
    peak : PeakEvidence
    names : sequence of str
        Of all rows of the design.
    quantity : str
        What the maps hold, with its units: ``effect (percent)``, ``z``.
    one_mean : bool
        The test is the mean of the maps: it is drawn beneath them, on their axis.
    units : ndarray of int, optional
        (K,) The maps of one unit are drawn together, set off from the next.
    """
    rows = _by_unit(rows_shown(peak), units)
    below = one_mean and peak.combined.effect is not None
    layout = _lay_out(peak, rows, names, below=below)
    shapes, labels = _frame(peak, layout, quantity, below=below)
    heaviest = max((row.weight or 0.0 for row in rows), default=0.0)
    weigh = writer([heaviest], 2) if heaviest < 1 else "{:.1f}".format
    for index, row in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        if index and units is not None and units[row.row] != units[rows[index - 1].row]:
            shapes.append(Shape(line(8.0, y - ROW / 2, layout.width - 14.0, y - ROW / 2), "apart"))
        shapes += _map_shapes(row, layout, y, heaviest)
        shapes += _left_shapes(peak, row, layout, y)
        name, text = names[row.row], _written(row.value, interval(row.value, row.variance), layout.write)
        labels.append(Label(layout.names, y + 4, _shorten(name), "end", "name", name if len(name) > LONGEST else ""))
        labels.append(Label(layout.numbers, y + 4, text, "end"))
        if layout.weights is not None and row.weight is not None:
            labels.append(Label(layout.weights, y + 4, f"{weigh(row.weight)} %", "end"))
    if below:
        more = _combined_rows(peak, layout, TOP + ROW * (len(rows) + 0.75))
        shapes, labels = shapes + more[0], labels + more[1]
    alt = f"Forest plot: {quantity} of {len(rows)} maps at {peak.name}, and the test without each of them"
    return Plot(layout.width, layout.bottom + 42.0, tuple(shapes), tuple(labels), alt, "forest")


def _by_unit(rows: Sequence[MapAtPeak], units: NDArray[np.int64] | None) -> tuple[MapAtPeak, ...]:
    """Bring the maps of one unit together, units in the order of their first map."""
    if units is None:
        return tuple(rows)
    first: dict[int, int] = {}
    for index, row in enumerate(rows):
        first.setdefault(int(units[row.row]), index)
    return tuple(sorted(rows, key=lambda row: first[int(units[row.row])]))


def _lay_out(peak: PeakEvidence, rows: Sequence[MapAtPeak], names: Sequence[str], *, below: bool) -> _Layout:
    """Choose axes that hold the values; intervals that are far wider are cut."""
    longest = max((len(_shorten(names[row.row])) for row in rows), default=0)
    right = 8.0 + 6.7 * max(SHORTEST, longest)
    values = [0.0, *(row.value for row in rows), *(row.fitted for row in rows if row.fitted is not None)]
    if below:
        values += [*(interval_of(peak.combined) or ()), peak.combined.effect or 0.0]
    low, high = min(values), max(values)
    room = high - low
    write = _choose_writer(peak, rows)
    texts = [_written(row.value, interval(row.value, row.variance), write) for row in rows]
    texts += [_written(peak.combined.effect or 0.0, interval_of(peak.combined), write)] if below else []
    ends = [end for row in rows for end in interval(row.value, row.variance) or ()]
    values += [min(max(end, low - room), high + room) for end in ends]
    axis = span_axis(values, right + 14.0, right + 14.0 + VALUES)
    weighed = any(row.weight is not None for row in rows)
    numbers = axis.stop + 30.0 + LETTER * max(map(len, texts), default=0)
    last = numbers + (WEIGHTS if weighed else 0.0)
    lefts = [row.without for row in rows if row.without is not None]
    seen = [_seen(one, peak) for one in (peak.combined, *lefts)]
    ends = [
        end for one in (peak.combined, *lefts) if peak.combined.effect is not None for end in interval_of(one) or ()
    ]
    more = 0.4 + (0.95 if below else 0.0)
    return _Layout(
        names=right,
        values=axis,
        numbers=numbers,
        weights=last if weighed else None,
        left=span_axis(_with_zero([*seen, *ends]), last + 30.0, last + 30.0 + LEFT) if lefts else None,
        bottom=TOP + ROW * (len(rows) + more),
        write=write,
    )


def _choose_writer(peak: PeakEvidence, rows: Sequence[MapAtPeak]) -> Writer:
    """Choose the format of effects and intervals: one absurd variance must not cost all others their digits."""
    ends = sorted(abs(end) for row in rows for end in interval(row.value, row.variance) or ())
    return writer(
        [*(row.value for row in rows), peak.combined.effect or 0.0, *ends[len(ends) // 2 : len(ends) // 2 + 1]]
    )


def _with_zero(values: list[float]) -> list[float]:
    """Add 0 to the range, unless all values are far from it."""
    low, high = min(values), max(values)
    return [0.0, *values] if min(abs(low), abs(high)) <= 2.0 * (high - low) else values


def _seen(one: Combined, peak: PeakEvidence) -> float:
    """The number that leaving a map out changes: the effect, or z where there is none."""
    return one.effect if one.effect is not None and peak.combined.effect is not None else one.z


def _frame(peak: PeakEvidence, layout: _Layout, quantity: str, *, below: bool) -> tuple[list[Shape], list[Label]]:
    """Draw axes, headings, and the lines at 0 and at the combined effect."""
    effects = peak.combined.effect is not None
    shapes, labels = draw_axis(layout.values, layout.bottom, quantity)
    lines = [(layout.values, peak.combined.effect if below else None)]
    if layout.left is not None:
        name = quantity if effects and below else "tested effect" if effects else "z"
        more = draw_axis(layout.left, layout.bottom, name, 5)
        shapes, labels = shapes + more[0], labels + more[1]
        lines.append((layout.left, _seen(peak.combined, peak)))
        title = f"{'Effect' if effects else 'z'} of the test without the map"
        labels.append(Label(layout.left.start, 22, title, "start", "head"))
    for axis, value in lines:
        if axis.holds(0.0):
            shapes.append(Shape(line(axis.at(0.0), TOP - 6, axis.at(0.0), layout.bottom), "zero"))
        if value is not None:
            shapes.append(Shape(line(axis.at(value), TOP - 6, axis.at(value), layout.bottom), "whole"))
    has_interval = any(row.variance is not None for row in peak.maps)
    what = "effect" if effects or has_interval else quantity.split(" ")[0]
    labels += [
        Label(layout.names, 22, "Map", "end", "head"),
        Label(layout.numbers, 22, f"{what} [95 %]" if has_interval else what, "end", "head"),
    ]
    if layout.weights is not None:
        labels.append(Label(layout.weights, 22, "weight", "end", "head"))
    return shapes, labels


def _whisker(axis: Axis, ends: tuple[float, float], y: float, style: str) -> list[Shape]:
    """Draw an interval, with arrowheads where it leaves the axis."""
    low, high = axis.clip(ends[0]), axis.clip(ends[1])
    path = line(low, y, high, y)
    if not axis.holds(ends[0]):
        path += f"M{low + 5:.1f} {y - 3:.1f}L{low:.1f} {y:.1f}L{low + 5:.1f} {y + 3:.1f}"
    if not axis.holds(ends[1]):
        path += f"M{high - 5:.1f} {y - 3:.1f}L{high:.1f} {y:.1f}L{high - 5:.1f} {y + 3:.1f}"
    return [Shape(path, style)]


def _map_shapes(row: MapAtPeak, layout: _Layout, y: float, heaviest: float) -> list[Shape]:
    """Draw one map: its interval, its fitted value, its effect by its weight."""
    ends = interval(row.value, row.variance)
    shapes = _whisker(layout.values, ends, y, "whisker") if ends else []
    if row.fitted is not None:
        x = layout.values.at(row.fitted)
        shapes.append(Shape(line(x, y - 6, x, y + 6), "fitted"))
    size = (
        7.0 if row.weight is None else 2.5 + 8.5 * math.sqrt(row.weight / heaviest)
    )  # the area is proportional to the weight
    return [*shapes, Shape(square(layout.values.at(row.value), y, size), "mark")]


def _left_shapes(peak: PeakEvidence, row: MapAtPeak, layout: _Layout, y: float) -> list[Shape]:
    """Draw the test without one map."""
    if row.without is None or layout.left is None:
        return []
    ends = interval_of(row.without) if peak.combined.effect is not None else None
    shapes = _whisker(layout.left, ends, y, "whisker") if ends else []
    return [*shapes, Shape(square(layout.left.at(_seen(row.without, peak)), y, 5.5), "mark")]


def _combined_rows(peak: PeakEvidence, layout: _Layout, y: float) -> tuple[list[Shape], list[Label]]:
    """Draw the combined effect as a diamond."""
    effect, ends = peak.combined.effect, interval_of(peak.combined)
    axis, write = layout.values, layout.write
    assert effect is not None
    low, high = ends or (effect, effect)
    shapes = [Shape(diamond(axis.clip(low), axis.at(effect), axis.clip(high), y, 6.5), "combined")]
    labels = [
        Label(layout.names, y + 4, "Combined", "end", "strong"),
        Label(layout.numbers, y + 4, _written(effect, ends, write), "end", "strong"),
    ]
    return shapes, labels


def _written(value: float, ends: tuple[float, float] | None, write: Writer) -> str:
    return write(value) if ends is None else f"{write(value)} [{write(ends[0])}, {write(ends[1])}]"


def _shorten(name: str) -> str:
    """Shorten a label in its middle: labels of studies often begin alike."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}…{name[-8:]}"
