"""The design as a picture: its matrix, and the weights of its tests."""

from dataclasses import dataclass

import numpy as np

from ibma_app.core.design import Design
from ibma_app.report.figures.picture import palette_of
from ibma_app.report.html import data_uri, encode_png, format_number

WRITTEN_ROWS, WRITTEN_COLUMNS = 40, 12
"""Up to this size numbers and row names of a design are written; larger ones are only coloured."""
LONGEST_NAME = 28  # characters


@dataclass(frozen=True)
class Cell:
    """A number written into a cell."""

    x: float
    y: float
    text: str
    dark: bool  # the cell is dark: write in white


@dataclass(frozen=True)
class Block:
    """Coloured cells with the names of their rows: the matrix, or one test."""

    uri: str
    y: float
    height: float
    rows: tuple[tuple[float, str], ...]  # y, name
    cells: tuple[Cell, ...]
    title: str


@dataclass(frozen=True)
class DesignPicture:
    """A design matrix and, under it, the weights of its tests."""

    width: float
    height: float
    left: float  # where the cells begin
    span: float  # width of the cells
    columns: tuple[tuple[float, float, str, str], ...]  # x, y, shown name, whole name
    blocks: tuple[Block, ...]
    alt: str


def draw_design(design: Design, labels: tuple[str, ...]) -> DesignPicture:
    """Draw the matrix (each column by its own largest value) and the tests' weights."""
    n_rows, n_columns = design.matrix.shape
    written = n_rows <= WRITTEN_ROWS and n_columns <= WRITTEN_COLUMNS
    cell = 62.0 if n_columns <= WRITTEN_COLUMNS else max(3.0, 744.0 / n_columns)
    row = 19.0 if n_rows <= WRITTEN_ROWS else max(0.25, 480.0 / n_rows)
    names = [_shorten(name) for name in design.columns]
    written_names = n_columns <= 60
    top = 14.0 + 4.4 * max((len(name) for name in names), default=0) if written_names else 14.0
    shown_rows = [_shorten(label) for label in labels] if n_rows <= WRITTEN_ROWS else []
    test_names = [_shorten(test.name) for test in design.tests]
    left = 16.0 + 6.6 * max((len(text) for text in (*shown_rows, *test_names, "000 rows")), default=0)
    if not shown_rows:
        shown_rows = [f"{n_rows} rows"]
    blocks = [_block(design.matrix, "Design matrix", top, row, cell, left, shown_rows, written=written)]
    for test in design.tests[:30]:
        y = blocks[-1].y + blocks[-1].height + (16.0 if len(blocks) == 1 else 6.0)
        names_of_rows = [_shorten(test.name)] + [""] * (test.weights.shape[0] - 1)
        blocks.append(
            _block(test.weights, f"Test {test.name}", y, 19.0, cell, left, names_of_rows,
                   written=n_columns <= WRITTEN_COLUMNS)
        )  # fmt: skip
    span = cell * n_columns
    heads = tuple(
        (left + (column + 0.5) * cell, top - 6.0, names[column], name)
        for column, name in enumerate(design.columns)
        if written_names
    )
    overhang = 4.4 * max((len(name) for name in names), default=0)
    return DesignPicture(
        width=left + span + max(24.0, overhang - cell / 2),
        height=blocks[-1].y + blocks[-1].height + 4.0,
        left=left,
        span=span,
        columns=heads,
        blocks=tuple(blocks),
        alt=f"Design matrix of {n_rows} rows and {n_columns} columns with {len(design.tests)} tests",
    )


def _block(
    matrix: np.ndarray,
    title: str,
    y: float,
    height: float,
    cell: float,
    left: float,
    names: list[str],
    *,
    written: bool,
) -> Block:
    """Colour a matrix by column and write its numbers where they fit."""
    # tests are coloured by their own largest weight, the matrix column by column
    largest = np.abs(matrix).max(axis=None if title.startswith("Test") else 0, keepdims=True)
    share = matrix / np.where(largest > 0, largest, 1.0)
    pixels = (1 + np.rint(254 * (share + 1) / 2)).astype(np.uint8)
    step = height if len(names) == matrix.shape[0] else height * matrix.shape[0]
    cells = (
        Cell(
            left + (column + 0.5) * cell,
            y + (line + 0.5) * height,
            _cell_text(float(matrix[line, column])),
            abs(float(share[line, column])) > 0.65,
        )
        for line in range(matrix.shape[0] if written else 0)
        for column in range(matrix.shape[1])
    )
    return Block(
        uri=data_uri(encode_png(pixels, palette_of("RdBu_r"))),
        y=y,
        height=height * matrix.shape[0],
        rows=tuple((y + (line + 0.5) * step, name) for line, name in enumerate(names) if name),
        cells=tuple(cells),
        title=title,
    )


def _cell_text(value: float) -> str:
    text = format_number(round(value, 2)) if abs(value) < 1e4 else f"{value:.1e}"
    return text.replace("-", "−")


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
