"""Run ibma-app in this process and tell where its CPU time goes: ``python phases.py REPORT.json WORDS...``.

Work that another phase does inside its own is the other's: what is imported in the middle of reading is imports. Give
``--nprocs 1``, or work in threads is counted as that of whoever waits.
"""

import builtins
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = ("imports", "indexing", "reading", "comparing", "fitting", "inference", "writing", "drawing", "the rest")
WRAPPED = {  # phase -> module, name in it
    "indexing": [("gathering", "find_statmaps")],
    "comparing": [("group", "compare_maps")],
    "fitting": [("group", "estimate_maps"), ("participant", "estimate_maps")],
    "inference": [("group", "infer_all")],
    "drawing": [("reports", "write_group_page"), ("reports", "write_subject_page"), ("group", "gather_peaks")],
}


class Book:
    """What each phase has taken; the innermost one that is open takes all."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = defaultdict(float)
        self.open = ["the rest"]
        self.since = 0.0  # the interpreter's start is of the rest

    def turn(self) -> None:
        now = time.process_time()
        self.taken[self.open[-1]] += now - self.since
        self.since = now

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self.open.append(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()
                self.open.pop()

        return call


def main(report: Path, words: list[str]) -> int:
    book = Book()
    plain = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        known = name in sys.modules and not (len(args) > 2 and args[2])
        return plain(name, *args, **kwargs) if known else timed_import(name, *args, **kwargs)

    timed_import = book.timed("imports", plain)
    builtins.__import__ = importing
    from contextlib import _GeneratorContextManager

    from ibma_app.cli import main as run
    from ibma_app.dataset.write import MapWriter
    from ibma_app.stream import stack
    from ibma_app.workflows import group, participant
    from ibma_app.workflows.plan import find_inputs as gathering
    from ibma_app.workflows.write import reports

    rooms = {"gathering": gathering, "group": group, "participant": participant, "reports": reports}
    for phase, places in WRAPPED.items():
        for room, name in places:
            setattr(rooms[room], name, book.timed(phase, getattr(rooms[room], name)))
    MapWriter.save = book.timed("writing", MapWriter.save)

    class Opened(_GeneratorContextManager):
        def __enter__(self) -> Any:
            return book.timed("reading", super().__enter__)()

    for room in (group, participant):
        room.stack_maps = lambda *args, **kwargs: Opened(stack.stack_maps.__wrapped__, args, kwargs)
        room.analysis_grid = book.timed("reading", room.analysis_grid)
    code = run(words)
    book.turn()
    loaded = [name for name in sys.modules if not name.startswith("_") and name != "phases"]
    report.write_text(json.dumps({"taken": book.taken, "modules": loaded}))
    return int(code or 0)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
