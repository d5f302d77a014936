"""Maps of regions as bars: left and right hemisphere beside each other where the names tell them apart."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.structures import Parcels
from ibma_app.report.figures.brains.slices import BAR_HEIGHT, LABEL_HEIGHT
from ibma_app.report.figures.picture import Panel, Picture, Scale, draw_bar
from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]

MOST_ROWS = 80
"""Regions (pairs of left and right count once) that a picture shows: the most extreme where there are more."""

ROW, BAR, NAMES = 15.0, 11.0, 180.0  # heights of a row and of its bar, width of the names, in the picture's units
COLUMN, GAP = 150.0, 16.0
_SIDE = re.compile(
    r"(?P<before>(?:ctx[-_.]|\d+Networks_)?)(?P<side>lh|rh|left|right|l|r)[-_. ](?P<after>.+)", re.IGNORECASE
)  # fmt: skip
_SHORT = re.compile(r"(?P<before>)(?P<side>[LR])(?P<after>[A-Za-z]\w*)")  # Laccumb


def split_hemisphere(name: str) -> tuple[str, str]:
    """Take the hemisphere off a region's name: ``L_insula`` is ("L", "insula"); ("", name) where it tells none."""
    for pattern in (_SIDE, _SHORT):
        found = pattern.fullmatch(name)
        if found:
            return found["side"][0].upper(), found["after"]
    return "", name


def arrange(names: Sequence[str]) -> tuple[list[str], list[tuple[str, dict[str, int]]]]:
    """Arrange regions in columns and rows.

    Returns
    -------
    list of str
        Columns: ``["L", "R"]``, or ``[""]`` where the names do not pair.
    list of (str, mapping)
        Each row's name, and the region in each column.
    """
    rows: dict[str, dict[str, int]] = {}
    for index, name in enumerate(names):
        side, rest = split_hemisphere(name)
        rows.setdefault(rest, {})[side] = index
    sides = {side for row in rows.values() for side in row}
    if sides != {"L", "R"} or sum(map(len, rows.values())) != len(names) or len(rows) == len(names):
        return [""], [(name, {"": index}) for index, name in enumerate(names)]
    return ["L", "R"], list(rows.items())


def draw_bars(parcels: Parcels, values: Floats, visible: NDArray[np.bool_], scale: Scale, caption: str) -> Picture:
    """Draw the values of regions as bars from 0, in the colours of the scale."""
    columns, rows = arrange([str(label) for label in parcels.labels])
    rows = [row for row in rows if visible[list(row[1].values())].any()]
    there = len(rows)
    if there > MOST_ROWS:
        sizes = [max(abs(values[index]) for index in row[1].values() if visible[index]) for row in rows]
        kept = np.sort(np.argsort(sizes, kind="stable")[-MOST_ROWS:])
        rows = [rows[index] for index in kept]
    panels: list[Panel] = []
    labels = [(0.0, LABEL_HEIGHT + row * ROW + BAR, _shorten(name)) for row, (name, _) in enumerate(rows)]
    low, high = min(scale.low, 0.0), max(scale.high, 0.0)
    for number, column in enumerate(columns):
        left = NAMES + number * (COLUMN + GAP)
        if column:
            labels.append((left, LABEL_HEIGHT - 5.0, {"L": "left", "R": "right"}[column]))
        for row, (_, members) in enumerate(rows):
            index = members.get(column)
            if index is not None and visible[index]:
                panels.append(_bar(float(values[index]), scale, (low, high), left, LABEL_HEIGHT + row * ROW))
    height = LABEL_HEIGHT + max(len(rows), 1) * ROW
    width = NAMES + len(columns) * (COLUMN + GAP)
    which = "" if len(rows) == there else f" The {MOST_ROWS} of {there} rows with the largest values."
    words = f"{caption} A bar for each region of {parcels.name}, from 0.{which}"
    alt = f"Bars of {scale.label} by region"
    return Picture(width, height + BAR_HEIGHT, tuple(panels), tuple(labels), draw_bar(scale, height + 10.0, width),
                   alt, words)  # fmt: skip


def _bar(value: float, scale: Scale, span: tuple[float, float], left: float, top: float) -> Panel:
    """Draw one bar: a strip of one colour."""
    low, high = span
    start, end = sorted((0.0, float(np.clip(value, low, high))))
    x = left + COLUMN * (start - low) / (high - low)
    width = max(COLUMN * (end - start) / (high - low), 0.7)
    colour = scale.palette[scale.index(np.array([value]), np.array([True]))]
    return Panel(data_uri(encode_png(np.zeros((1, 1), dtype=np.uint8), colour)), x, top, width, BAR)


def _shorten(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:25]}..."
