"""What the terminal shows: progress on stderr, the plan on stdout."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ibma_app.core.statmap import Analysis


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr while it is a terminal; give the function that moves it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
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
                "" if row.sample_size is None else f"{row.sample_size:g}",
                "" if row.dof is None else f"{row.dof:g}",
                row.units,
                name if index == 0 else "",
            )
        table.add_section()
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)
