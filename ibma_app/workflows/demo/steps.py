"""What a demonstration shows while it runs and at its end, and the folder that it may replace."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ibma_app import __version__
from ibma_app.core.errors import OutputError
from ibma_app.core.system.standard_streams import write_error, write_out
from ibma_app.workflows.command.terminal import print_table, render
from ibma_app.workflows.demo.recovery import Check

MARKER = ".ibma-demo"  # marks a folder as an earlier demonstration's, which may be replaced
OURS = ("data", "results")  # what a rerun replaces


def prepare_folder(root: Path, seed: int) -> None:
    """Use a new or empty folder, or remove an earlier demonstration.

    Raises
    ------
    OutputError
        It holds something else, or cannot be made or written.
    """
    marker = root / MARKER
    try:
        if root.exists() and not root.is_dir():
            raise OutputError(f"{root} is a file. Give ibma-demo a new folder.")
        if root.is_dir() and not marker.is_file() and any(root.iterdir()):
            raise OutputError(
                f"{root} holds something else than an earlier demonstration (there is no {MARKER} in it); "
                "nothing in it is touched. Give ibma-demo a new or empty folder."
            )
        root.mkdir(parents=True, exist_ok=True)
        about = {"MadeBy": "ibma-demo", "Version": __version__, "Seed": seed}
        marker.write_text(json.dumps(about) + "\n", encoding="utf-8")
        for name in OURS:
            if (root / name).exists():
                shutil.rmtree(root / name)
    except OSError as error:
        raise OutputError(
            f"{root} cannot be made or written: {error.strerror or error}. Name another folder."
        ) from error


@contextmanager
def step(number: int, of: int, what: str, command: str = "") -> Iterator[None]:
    """Show on stderr which step runs, of how many, and how long it took.

    A line, not a live display: the levels show their own progress bars meanwhile.
    """

    def say(text: str, style: str) -> None:
        write_error(render(text, sys.stderr, style=style))

    bar = "━" * (4 * (number - 1)) + "╺" + "─" * (4 * (of - number + 1) - 1)
    say(f"{bar} {number}/{of} {what}", "cyan")
    if command:
        say(f"{' ' * (4 * of)} $ {command}", "dim")
    start = time.perf_counter()
    yield
    say(f"{' ' * (4 * of)} done in {time.perf_counter() - start:.1f} s", "dim")


def print_checks(checks: list[Check]) -> None:
    """Print the table of checks."""
    table = Table(title="How well the truth was recovered", title_justify="left", box=SIMPLE_HEAD)
    for column in ("what", "expected", "found", "verdict"):
        table.add_column(column)
    level = ""
    for check in checks:
        if check.level != level:
            level = check.level
            table.add_row(level, style="bold")
        verdict, style = ("ok", None) if check.ok else ("LOOK", "bold red")
        table.add_row(f"  {check.what}", check.expected, check.found, verdict, style=style)
    print_table(table, width=140)


def print_end(root: Path, checks: list[Check], seconds: float, reports: Sequence[Path], data: Sequence[Path]) -> None:
    """Print the outcome, and where the files are.

    Parameters
    ----------
    root : Path
        The demonstration's folder.
    checks : list of Check
    seconds : float
        That it took.
    reports, data : sequence of Path
        Pages, and datasets; the truth lies in ``data/truth``.
    """
    wrong = sum(not check.ok for check in checks)
    verdict = (
        f"{wrong} of {len(checks)} checks do not hold (LOOK): something is wrong."
        if wrong
        else f"All {len(checks)} checks hold."
    )
    lines = [
        f"{verdict} {seconds:.0f} s.",
        "Reports, to be opened in a browser:",
        *(f"  {path.resolve()}" for path in reports),
        f"Data: {' and '.join(str(path.resolve()) for path in data)}",
        f"What was put in: {root.resolve() / 'data' / 'truth'}",
    ]
    write_out("\n".join(lines) + "\n")
