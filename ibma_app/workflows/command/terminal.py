"""What the terminal shows: progress on stderr, the plan on stdout."""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ibma_app.core.statmap import Analysis, Observation
from ibma_app.core.system.long_work import tell_progress
from ibma_app.core.system.standard_streams import write_out


@contextmanager
def progress(total: int, what: str, of: str = "") -> Iterator[Callable[..., None]]:
    """Show a bar on stderr where it is a terminal, else log a line each minute; give the function that moves it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with tell_progress(what[:1].upper() + what[1:], total, of=of) as count:
            yield lambda note="", advance=1: count(advance)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)

        def step(note: str = "", advance: int = 1) -> None:
            bar.update(task, advance=advance, description=f"{what} {note}".strip())

        yield step


def print_plan(analyses: Sequence[Analysis], estimators: str | Sequence[str]) -> None:
    """Print what would be combined and by what: one line per map, on stdout."""
    table = Table("analysis", "map", "kinds", "n", "dof", "units", "by", title="What would be combined")
    names = [estimators] * len(analyses) if isinstance(estimators, str) else estimators
    for analysis, name in zip(analyses, names, strict=True):
        for index, row in enumerate(analysis.observations):
            table.add_row(
                analysis.name if index == 0 else "",
                row.label,
                " ".join(sorted(row.statmaps)),
                _people(row, analysis.unit),
                row.dof_text,
                row.units,
                name if index == 0 else "",
            )
        table.add_section()
    print_table(table, width=200)


def _people(row: Observation, unit: str) -> str:
    """Say how many people a map is of: one, unless it is a study's."""
    if row.sample_size is None:
        return "unknown" if unit == "study" else "1"
    return f"{row.sample_size:g}"


def print_table(table: RenderableType, *, width: int) -> None:
    """Print on stdout, as wide as the terminal, or ``width`` characters where that is none."""
    write_out(render(table, sys.stdout, width=width))


def render(what: RenderableType, stream: TextIO, *, width: int | None = None, style: str | None = None) -> str:
    """Make the text that shows something on a stream: colours at a terminal, else lines of ``width`` (None: any).

    Rich itself ends the program when nobody reads the stream any more.
    """
    encoding = stream.encoding or "utf-8"  # lines of boxes are drawn with the characters that there are
    text = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="\n")
    at_terminal = stream.isatty()
    console = Console(
        file=text, width=Console().width if at_terminal else width, force_terminal=at_terminal, markup=False,
        highlight=False, soft_wrap=width is None,
    )  # fmt: skip
    console.print(what, style=style)
    text.seek(0)
    return text.read()
