"""The regions of a test on a page: those of the smallest p, and what each map has in the first of them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.design import Design, Test
from ibma_app.core.results import EstimatorResult
from ibma_app.report.cluster_tables import relative_to_page
from ibma_app.report.figures.plot import Label, Plot, Shape, dots, draw_axis, line, span_axis
from ibma_app.report.html import format_number

SHOWN, DRAWN = 15, 3
"""Regions in the table of a page, and those of them that are drawn."""
MISSING, UNKNOWN = "n/a", ("", "unknown")
ROW, TOP, WIDTH, LETTER = 26.0, 30.0, 380.0, 6.7
HEADS = {
    "effect": "Effect", "lower": "95 % from", "upper": "to", "g": "g", "eta2": "η²", "z": "z", "p": "p",
    "p_holm": "p (Holm)", "p_fdr": "p (FDR)", "tau2": "τ²", "i2": "I² (%)", "n_maps": "Maps", "n_covered": "Voxels",
}  # fmt: skip


@dataclass(frozen=True)
class RegionsView:
    """The page's part on regions."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]  # region, cells
    total: int
    files: tuple[str, str]  # of tests, of values, relative to the page
    plots: tuple[Plot, ...]
    many: bool  # atlases


def view_regions(
    result: EstimatorResult, design: Design, test: Test, units: str, page_folder: Path
) -> RegionsView | None:
    """Read the tables of one test's regions; None where there are none.

    Parameters
    ----------
    result : EstimatorResult
    design : Design
        Its rows are the maps of the table of values, in order.
    test : Test
    units : str
        Of the effects, or "".
    page_folder : Path
        Where the page lies.
    """
    path = result.path("regions", test=test.name) or result.path("regions")
    values = result.path("values")
    if path is None or values is None:
        return None
    table = _read(path)
    known = sorted((row for row in table if row.get("p", MISSING) != MISSING), key=lambda row: float(row["p"]))
    heads = [name for name in HEADS if known and name in known[0]]
    many = len({row["atlas"] for row in table}) > 1
    rows = tuple(
        (
            f"{row['region']} ({row['atlas']})" if many else row["region"],
            tuple(MISSING if row[name] == MISSING else format_number(float(row[name])) for name in heads),
        )
        for row in known[:SHOWN]
    )
    listed = _read(values)
    plots = tuple(_draw(row, listed, place, design, units) for place, row in enumerate(known[:DRAWN], start=1))
    named = tuple(f"Effect ({units})" if name == "effect" and units not in UNKNOWN else HEADS[name] for name in heads)
    files = relative_to_page(path, page_folder), relative_to_page(values, page_folder)
    return RegionsView(named, rows, len(table), files, plots, many)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _draw(row: dict[str, str], values: list[dict[str, str]], place: int, design: Design, units: str) -> Plot:
    """Draw each map's value in a region as a dot, by cells of the design (conditions, groups)."""
    key = row["atlas"], row["index"]
    here = [one for one in values if (one["atlas"], one["index"]) == key]
    kind = "effect" if here and "effect" in here[0] else "z"
    unit = next(iter(here[0])) if here else ""
    cells = [(cell.name, cell.rows) for cell in design.cells] or [("all maps", tuple(range(len(here))))]
    drawn = [
        (name, [(float(here[k][kind]), here[k][unit]) for k in rows if here[k][kind] != MISSING])
        for name, rows in cells
    ]
    right = 8.0 + LETTER * max(len(name) for name, _ in drawn)
    axis = span_axis([0.0, *(value for _, dotted in drawn for value, _ in dotted)], right + 14.0, right + 14.0 + WIDTH)
    bottom = TOP + ROW * (len(drawn) + 0.2)
    said = "" if kind == "z" or units in UNKNOWN else f" ({units})"
    shapes, labels = draw_axis(axis, bottom, f"mean {kind}{said}")
    shapes.append(Shape(line(axis.at(0.0), TOP - 6, axis.at(0.0), bottom), "zero"))
    labels.append(Label(right + 14.0, 16, row["region"], "start", "head"))
    for number, (name, dotted) in enumerate(drawn):
        y = TOP + ROW * (number + 0.5)
        labels.append(Label(right, y + 4, name, "end", "name"))
        shapes += [Shape(dots([(axis.at(value), y)]), "dot small", title) for value, title in dotted]
        if dotted:
            mean = axis.at(sum(value for value, _ in dotted) / len(dotted))
            shapes.append(Shape(line(mean, y - 9, mean, y + 9), "interval"))
    alt = f"Mean {kind} of each map in {row['region']}"
    return Plot(axis.stop + 14.0, bottom + 42.0, tuple(shapes), tuple(labels), alt, f"region-{place}")
