"""Tables of what was measured, kept beside the scripts: a page is written from them, and any part measured anew."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

KEPT = Path(__file__).parent / "kept"


class Kept:
    """Numbers of what was measured before, in a file of a line each: title, data sets, numbers.

    ``cells`` is a pattern: what matches is measured anew, and replaces the line.
    """

    def __init__(self, path: Path | None, cells: str | None) -> None:
        self.path, self._cells = path, re.compile(cells) if cells is not None else None
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self._known = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
        self._told: set[str] = set()

    def get(self, title: str, sets: int, measure: Callable[[int], Sequence[float] | np.ndarray]) -> np.ndarray:
        """Return what is known of as many data sets, or measure it."""
        before = self._known.get(title)
        anew = self._cells is not None and self._cells.search(title) is not None and title not in self._told
        if before is None or int(before[0]) != sets or anew:
            began = time.process_time()
            self._known[title] = [str(sets), *(f"{float(value):.6g}" for value in measure(sets))]
            spent, now = time.process_time() - began, " ".join(self._known[title][1:])
            was = "" if before is None else " as kept" if before == self._known[title] else f" kept: {before}"
            print(f"{title}: {now} ({sets} data sets, {spent:.0f} CPU s){was}", file=sys.stderr, flush=True)
            self._told.add(title)
            self._write()
        return np.array(self._known[title][1:], dtype=float)

    def _write(self) -> None:
        if self.path is not None:
            lines = ["\t".join([title, *numbers]) for title, numbers in sorted(self._known.items())]
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
