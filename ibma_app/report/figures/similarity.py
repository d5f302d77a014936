"""Plots of how alike the maps are: their correlations, and each map's scale and agreement with the others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.results import MapFlag, Results, Similarity
from ibma_app.report.figures.picture import SIGNED, ColourBar, Panel, Scale, draw_bar
from ibma_app.report.figures.plot import Axis, Label, Plot, Shape, dots, draw_heights, line
from ibma_app.report.html import data_uri, encode_png, format_number
from ibma_app.report.inputs import short_labels

Floats = NDArray[np.float64]

WRITTEN = 12
"""Up to this many maps the correlations are written into their cells."""

NAMED_ROWS = 40
"""Up to this many maps, rows have names."""

LABELLED = 12  # dots with their name

TITLED = 300
"""Up to this many dots, each has a tooltip with its name; of more, only those that are flagged."""

EDGE = 8.0  # above the matrix
LONGEST_NAME = 22  # characters


@dataclass(frozen=True)
class Matrix:
    """Coloured cells, the names of their rows, and the colour scale."""

    width: float
    height: float
    panel: Panel
    labels: tuple[Label, ...]
    bar: ColourBar
    alt: str
    caption: str


@dataclass(frozen=True)
class SimilarityView:
    """The page's section on how alike the maps are."""

    sentence: str
    flags: tuple[MapFlag, ...]
    matrix: Matrix
    scatter: Plot | None


def similarity_view(results: Results) -> SimilarityView | None:
    """Draw how alike the maps are; None where they were not compared."""
    found = results.similarity
    if found is None:
        return None
    labels = short_labels([row.label for row in results.survey])
    return SimilarityView(
        sentence=_sentence(found, results.grid.n_voxels, len(labels)),
        flags=found.flags,
        matrix=draw_matrix(found, labels),
        scatter=draw_scatter(found, labels),
    )


def _sentence(found: Similarity, n_voxels: int, n_maps: int) -> str:
    where = (
        f"at all {format_number(n_voxels)} voxels of the mask"
        if found.n_voxels == n_voxels
        else f"at {format_number(found.n_voxels)} voxels spread over the mask"
    )
    what = "effects" if found.quantity == "effect" else "z values"
    known = sorted(value for value in found.agreement if value is not None)
    typical = ""
    if known:
        typical = f" The typical map correlates {_signed(float(np.median(known)))} with the mean of the others."
    looked = "No map looks like a duplicate, a turned sign or another scale." if not found.flags else ""
    return f"The {what} of the {format_number(n_maps)} maps, compared {where}.{typical} {looked}".strip()


def draw_matrix(found: Similarity, labels: Sequence[str]) -> Matrix:
    """Draw the correlations of maps with each other, or of runs of maps where there are many."""
    values = _array(found.correlations)
    n_maps, size = len(labels), len(values)
    cell = 36.0 if size <= WRITTEN else max(4.0, min(18.0, 480.0 / size))
    known = values[np.isfinite(values)]
    top = max(0.1, np.ceil(10 * float(np.abs(known).max(initial=0.0))) / 10)
    scale = Scale(-top, top, SIGNED, "correlation")
    if size == n_maps <= NAMED_ROWS:
        odd = {row for flag in found.flags for row in flag.rows}
        names = [(row, _shorten(label), "tick odd" if row in odd else "tick") for row, label in enumerate(labels)]
    else:
        names = [(row, f"map {found.starts[row] + 1:,}", "tick") for row in range(0, size, max(1, -(-size // 8)))]
    left = 14.0 + 6.6 * max(len(name) for _, name, _ in names)
    shown = [Label(left - 7.0, EDGE + (row + 0.5) * cell + 4.0, name, "end", style) for row, name, style in names]
    if size <= WRITTEN:
        shown += _cell_labels(values, top, left, cell)
    pixels = scale.index(np.nan_to_num(values), np.isfinite(values))
    run = round(n_maps / size)
    grouped = "" if size == n_maps else f" Each cell is the mean of about {run} × {run} pairs."
    width = max(left + cell * size + 12.0, 320.0)
    return Matrix(
        width=width,
        height=cell * size + 62.0,
        panel=Panel(data_uri(encode_png(pixels, scale.palette)), left, EDGE, cell * size, cell * size),
        labels=tuple(shown),
        bar=draw_bar(scale, cell * size + 22.0, width),
        alt=f"Correlations of {n_maps} maps with each other",
        caption=f"Correlation of the maps with each other, in the order of the design.{grouped}",
    )


def _cell_labels(values: Floats, top: float, left: float, cell: float) -> list[Label]:
    """Write the correlations into their cells."""
    return [
        Label(
            left + (column + 0.5) * cell,
            EDGE + (row + 0.5) * cell + 4.0,
            _signed(value),
            "middle",
            "cell on-dark" if abs(value) > 0.65 * top else "cell",
        )
        for row, cells in enumerate(values.tolist())
        for column, value in enumerate(cells)
        if np.isfinite(value)
    ]


def draw_scatter(found: Similarity, labels: Sequence[str]) -> Plot | None:
    """Draw each map's scale beside its correlation with the mean of the others."""
    agreement, size = _array([found.agreement])[0], _array([found.scale])[0]
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(np.isfinite(agreement) & (size > 0))
    if rows.size < 2:
        return None
    fold = np.full(size.shape, np.nan)
    fold[rows] = size[rows] / np.median(size[rows])
    low, high = float(fold[rows].min()), float(fold[rows].max())
    x = Axis(math.log10(min(0.5, low / 1.15)), math.log10(max(2.0, high * 1.15)), 56.0, 500.0)
    bottom, top = float(agreement[rows].min()), float(agreement[rows].max())
    pad = 0.06 * max(top - bottom, 0.2)
    y = Axis(min(-0.05, bottom - pad), min(max(0.3, top + pad), 1.02), 316.0, 12.0)
    places = {row: (x.at(math.log10(fold[row])), y.at(agreement[row])) for row in rows.tolist()}
    odd = {row for flag in found.flags for row in flag.rows} & set(places)
    quantity = "|effect|" if found.quantity == "effect" else "|z|"
    titles = {
        row: f"{labels[row]}: correlation {_signed(agreement[row])}, median {quantity} {format_number(size[row])}"
        for row in places
    }
    beside, heights = draw_heights(y, x.start)
    below, numbers = _fold_axis(x, y.start, f"Median {quantity}, times that of the median map")
    caption = (
        "One dot a map: how large its values are, and how well it agrees with the mean of the other maps. "
        f"Below 0: turned the other way than most.{' Point at a dot for its name.' * (len(places) <= TITLED)}"
    )
    return Plot(
        width=524.0,
        height=360.0,
        shapes=(Shape(line(x.start, y.at(0), x.stop, y.at(0)), "zero"), *below, *beside, *_dots(places, titles, odd)),
        labels=(
            *numbers,
            *heights,
            Label(
                x.start - 42.0, (y.start + y.stop) / 2, "Correlation with the mean of the others", "middle", "upright"
            ),
            *_names_of_extremes(places, agreement, fold, labels, odd),
        ),
        alt="Scale of each map and its agreement with the others",
        figure="scales",
        caption=caption,
    )


def _dots(places: Mapping[int, tuple[float, float]], titles: Mapping[int, str], odd: set[int]) -> list[Shape]:
    """Draw a dot for each map, those that are flagged on top."""
    plain = [row for row in places if row not in odd]
    if len(plain) > TITLED:
        shapes = [Shape(dots(places[row] for row in plain), "dot small")]
    else:
        shapes = [Shape(dots([places[row]]), "dot", titles[row]) for row in plain]
    return shapes + [Shape(dots([places[row]]), "dot odd", titles[row]) for row in sorted(odd)]


def _fold_axis(x: Axis, bottom: float, name: str) -> tuple[list[Shape], list[Label]]:
    """Draw a logarithmic axis: its positions are log10 of the numbers written."""
    values = [factor * 10.0**power for power in range(math.floor(x.low), math.ceil(x.high) + 1) for factor in (1, 2, 5)]
    if x.high - x.low > 2:
        values = values[::3]
    shown = [(x.at(math.log10(value)), value) for value in values if x.low <= math.log10(value) <= x.high]
    shown = shown[:: max(1, -(-len(shown) // 7))]
    path = line(x.start, bottom, x.stop, bottom) + "".join(line(at, bottom, at, bottom + 4) for at, _ in shown)
    labels = [Label(at, bottom + 16, f"{value:g}", "middle") for at, value in shown]
    return [Shape(path, "axis")], [*labels, Label((x.start + x.stop) / 2, bottom + 33, name, "middle")]


def _names_of_extremes(
    places: Mapping[int, tuple[float, float]], agreement: Floats, fold: Floats, labels: Sequence[str], odd: set[int]
) -> list[Label]:
    """Name the flagged maps, and the most extreme others where there is room."""
    by_agreement, by_fold = sorted(places, key=lambda row: agreement[row]), sorted(places, key=lambda row: fold[row])
    words: list[Label] = []
    for row in dict.fromkeys((*sorted(odd), *by_agreement[:2], *by_fold[:1], *by_fold[:-3:-1])):
        x, y = places[row]
        crowded = any(abs(y + 4 - word.y) < 13 and abs(x - word.x) < 110 for word in words)
        if crowded or len(words) == LABELLED:
            continue
        style = "tick odd" if row in odd else "tick"
        side, anchor = (8, "start") if x < 380 else (-8, "end")
        words.append(Label(x + side, y + 4, _shorten(labels[row]), anchor, style))
    return words


def _array(rows: Sequence[Sequence[float | None]]) -> Floats:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
