"""What a design predicts at a peak: means of its cells over the maps themselves, and maps against a covariate."""

from collections.abc import Sequence

import numpy as np

from ibma_app.core.design import Covariate, Design, Test
from ibma_app.core.results import CellAtPeak, PeakEvidence
from ibma_app.report.figures.at_peaks.forest import interval_of
from ibma_app.report.figures.plot import (
    Axis,
    Label,
    Plot,
    Shape,
    Writer,
    diamond,
    dots,
    draw_axis,
    draw_heights,
    line,
    span_axis,
    square,
    writer,
)

ROW, TOP, WIDTH, LETTER = 26.0, 34.0, 330.0, 6.7
LEFT, RIGHT, UPPER, LOWER = 64.0, 446.0, 34.0, 292.0  # of the scatter plot
MARKS = ("dot", "dot odd", "mark", "combined")  # of groups; more of them are not told apart
NAMED = 150  # up to this many maps, points have tooltips with their names


def draw_cells(peak: PeakEvidence, names: Sequence[str], quantity: str) -> Plot | None:
    """Draw the mean of each cell with its interval over the maps of the cell.

    Parameters
    ----------
    peak : PeakEvidence
    names : sequence of str
        Of all rows of the design.
    quantity : str
        What the maps hold, with its units.

    Returns
    -------
    Plot or None
        None where there are no cells.
    """
    if not peak.cells:
        return None
    values = {row.row: row.value for row in peak.maps}
    right = 8.0 + LETTER * max(len(cell.name) for cell in peak.cells)
    ends = [end for cell in peak.cells for end in interval_of(cell.combined) or ()]
    axis = span_axis([0.0, *values.values(), *ends], right + 14.0, right + 14.0 + WIDTH)
    bottom = TOP + ROW * (len(peak.cells) + 0.3)
    write = writer([*ends, *(cell.combined.effect or 0.0 for cell in peak.cells)])
    texts = [_written(cell, write) for cell in peak.cells]
    numbers = axis.stop + 24.0 + 6.4 * max(map(len, texts))
    maps = numbers + 48.0
    shapes, labels = draw_axis(axis, bottom, quantity)
    shapes.append(Shape(line(axis.at(0.0), TOP - 6, axis.at(0.0), bottom), "zero"))
    labels += [
        Label(x, 18, text, "end", "head") for x, text in ((right, "Cell"), (numbers, "mean [95 %]"), (maps, "maps"))
    ]
    for index, (cell, text) in enumerate(zip(peak.cells, texts, strict=True)):
        y = TOP + ROW * (index + 0.5)
        inside = [(values[row], names[row]) for row in cell.rows if row in values]
        shapes += _cell_shapes(cell, inside, axis, y)
        labels.append(Label(right, y + 4, cell.name, "end", "name"))
        labels += [Label(numbers, y + 4, text, "end"), Label(maps, y + 4, str(len(inside)), "end")]
    alt = f"Means of {len(peak.cells)} cells at {peak.name}, with the maps of each"
    return Plot(maps + 14.0, bottom + 42.0, tuple(shapes), tuple(labels), alt, "cells")


def _written(cell: CellAtPeak, write: Writer) -> str:
    ends, effect = interval_of(cell.combined), cell.combined.effect or 0.0
    return write(effect) if ends is None else f"{write(effect)} [{write(ends[0])}, {write(ends[1])}]"


def _cell_shapes(cell: CellAtPeak, inside: Sequence[tuple[float, str]], axis: Axis, y: float) -> list[Shape]:
    """Draw the maps of a cell as dots, and over them its mean with its interval."""
    if len(inside) <= NAMED:
        shapes = [Shape(dots([(axis.at(value), y)]), "dot small", name) for value, name in inside]
    else:
        shapes = [Shape(dots([(axis.at(value), y) for value, _ in inside]), "dot small")]
    effect, ends = axis.at(cell.combined.effect or 0.0), interval_of(cell.combined)
    if ends is not None:
        shapes.append(Shape(line(axis.clip(ends[0]), y + 8, axis.clip(ends[1]), y + 8), "interval"))
    return [*shapes, Shape(diamond(effect - 5.0, effect, effect + 5.0, y + 8, 5.0), "combined")]


def tested_covariate(design: Design, test: Test) -> Covariate | None:
    """Return the one numeric covariate that a test is about; None where it is about none, or about several."""
    columns = set(np.flatnonzero(np.any(np.atleast_2d(test.weights) != 0, axis=0)).tolist())
    about = [one for one in design.covariates if columns & set(one.columns)]
    return about[0] if len(about) == 1 else None


def draw_scatter(peak: PeakEvidence, names: Sequence[str], quantity: str, design: Design, test: Test) -> Plot | None:
    """Draw the maps at a peak against the covariate that is tested, by groups, with the tested slope.

    Returns
    -------
    Plot or None
        None where the test is about no numeric covariate, or about several.
    """
    covariate = tested_covariate(design, test)
    if covariate is None or len(peak.maps) < 3:
        return None
    rows = [row.row for row in peak.maps]
    x, y = covariate.values[rows], np.array([row.value for row in peak.maps])
    axis, heights = span_axis(x.tolist(), LEFT, RIGHT), span_axis([*y.tolist()], LOWER, UPPER)
    shapes, labels = draw_axis(axis, LOWER, covariate.name)
    more = draw_heights(heights, LEFT, 5)
    shapes, labels = shapes + more[0], labels + more[1]
    labels.append(Label(12.0, (UPPER + LOWER) / 2, quantity, "middle", "upright"))
    groups = [design.groups[row] if design.groups else "" for row in rows]
    kinds = sorted(set(groups))
    marks = dict(zip(kinds, MARKS, strict=False)) if len(kinds) <= len(MARKS) else dict.fromkeys(kinds, MARKS[0])
    for row, at, value, group in zip(rows, x.tolist(), y.tolist(), groups, strict=True):
        place, title = (axis.at(at), heights.at(value)), names[row] if len(rows) <= NAMED else ""
        shapes.append(_mark(place, marks[group], title))
    if len(set(marks.values())) > 1:
        for number, kind in enumerate(kinds):
            across = LEFT + 10.0 + (RIGHT - LEFT) * number / len(kinds)
            shapes.append(_mark((across, 14.0), marks[kind], ""))
            labels.append(Label(across + 10.0, 18.0, kind))
    slope = _slope(peak, design, test, covariate)
    if slope is not None:
        ends = [(at, float(y.mean()) + slope * (at - float(x.mean()))) for at in (float(x.min()), float(x.max()))]
        (x1, y1), (x2, y2) = ((axis.at(at), heights.clip(value)) for at, value in ends)
        shapes.append(Shape(line(x1, y1, x2, y2), "whole"))
    alt = f"{quantity} of {len(rows)} maps at {peak.name}, against {covariate.name}"
    return Plot(RIGHT + 14.0, LOWER + 42.0, tuple(shapes), tuple(labels), alt, "scatter")


def _mark(place: tuple[float, float], style: str, title: str) -> Shape:
    path = dots([place]) if style.startswith("dot") else square(*place, 6.5)
    return Shape(path, style, title)


def _slope(peak: PeakEvidence, design: Design, test: Test, covariate: Covariate) -> float | None:
    """Return the tested effect as a slope of the covariate; None where that is not one column's, linear in it."""
    weights = np.atleast_2d(test.weights)
    columns = np.flatnonzero(weights[0])
    if test.is_f or columns.size != 1 or len(covariate.columns) != 1 or peak.combined.effect is None:
        return None
    column, values = design.matrix[:, columns[0]], covariate.values
    spread = np.ptp(values)
    scale = (column[int(np.argmax(values))] - column[int(np.argmin(values))]) / spread if spread else 0.0
    left = column - scale * values
    if scale == 0.0 or np.ptp(left) > 1e-9 * np.ptp(column):
        return None
    return float(peak.combined.effect / weights[0, columns[0]] * scale)
