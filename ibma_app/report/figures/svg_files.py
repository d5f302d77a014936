"""The pictures of a page as files of their own: what the page shows, on white, for slides and papers.

Page and file are drawn from the same records by the same templates.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ibma_app.report.figures.brains.glass import glass_outline
from ibma_app.report.figures.brains.plans import PicturePlan
from ibma_app.report.figures.charts import DesignPicture
from ibma_app.report.figures.picture import Picture
from ibma_app.report.figures.plot import Plot
from ibma_app.report.figures.similarity import Matrix
from ibma_app.report.html import LIGHT, render

FOLDER = "figures"
MARGIN, LINE, LETTER = 8, 18.0, 6.6  # around the picture, of text below it, and of a letter, in its own units
APART = " \N{EN SPACE} "

Drawing = Picture | Plot | Matrix | DesignPicture

_TEMPLATES = {  # kind of record -> macro that draws it, classes of the stylesheet
    Picture: ("picture", "picture"),
    Plot: ("plot", "picture plot"),
    Matrix: ("matrix", "picture"),
    DesignPicture: ("design", "picture"),
}


@dataclass(frozen=True)
class Figure:
    """A picture of a page, and what its file is called: ``<stem>_<ending>.svg``."""

    stem: str  # entities, as of the maps drawn
    ending: str  # "stat-z_glass", "qq", ...
    drawing: Drawing
    legend: tuple[str, ...] = ()  # what the numbers in the picture stand for: the page has it in a table


def save_figures(
    figures: Iterable[Figure], plans: Sequence[PicturePlan], folder: Path, save: Callable[[Path, str], object]
) -> list[Path]:
    """Write every picture of a page as a standalone SVG file.

    Parameters
    ----------
    figures : iterable of Figure
        In the order of the page. Of several with one name, all but the first get a number.
    plans : sequence of PicturePlan
        Of the page: they hold what lies behind the slices.
    folder : Path
        OUTPUT_DIR; files lie in its ``figures``.
    save : callable
        ``save(path, text)`` writes a text file atomically.

    Returns
    -------
    list of Path
        The files, named like maps: ``<entities>_stat-z_glass.svg``.
    """
    paths, taken = [], Counter[str]()
    for figure in figures:
        name = "_".join(part for part in (figure.stem, figure.ending) if part)
        taken[name] += 1
        path = folder / FOLDER / f"{name}{taken[name] if taken[name] > 1 else ''}.svg"
        save(path, draw_file(figure.drawing, plans, figure.legend))
        paths.append(path)
    return paths


def draw_file(drawing: Drawing, plans: Sequence[PicturePlan] = (), legend: Sequence[str] = ()) -> str:
    """Make a whole SVG document of a picture: on white, in the colours that the page has in the light."""
    macro, style = _TEMPLATES[type(drawing)]
    lines = _lay_out(legend, drawing.width)
    sizes = drawing.width, drawing.height + LINE * len(lines)
    width, height = (f"{round(size, 1) + 2 * MARGIN:g}" for size in sizes)
    return render(
        "figure.svg.j2",
        drawing=drawing,
        macro=macro,
        legend=[(round(drawing.height + LINE * (row + 0.7), 1), line) for row, line in enumerate(lines)],
        style=style,
        backdrops={
            f"{plan.key}-{row}": (panel, plan.smooth) for plan in plans for row, panel in enumerate(plan.backdrop)
        },
        outline=glass_outline() if getattr(drawing, "outline", "") else None,
        colour=LIGHT,
        edge=-MARGIN,
        width=width,
        height=height,
        box=f"{-MARGIN} {-MARGIN} {width} {height}",
    ) + "\n"  # fmt: skip


def _lay_out(entries: Sequence[str], width: float) -> list[str]:
    """Set the entries of a legend into lines of a width."""
    lines: list[str] = []
    for entry in entries:
        longer = APART.join([*lines[-1:], entry])
        if lines and len(longer) * LETTER <= width:
            lines[-1] = longer
        else:
            lines.append(entry)
    return lines
