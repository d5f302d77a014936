"""How often tests between two groups that differ in variance find something where nothing is: what was measured.

The numbers are those of docs/validation-unequal-groups.md (`validation/unequal_groups.py`), which a test compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log


@dataclass(frozen=True)
class Cell:
    """Two groups without any effect, of which the smaller (or one of equal size) varies more."""

    smaller: int  # maps of the group that varies more
    larger: int
    ratio: float  # of the standard deviations; of mixed models, of tau
    plain: int  # of 100 data sets, those with something below 0.05 corrected without resampling (bonferroni or fdr)
    resampled: int  # and with it (max-stat)


MEASURED: Mapping[str, tuple[Cell, ...]] = {
    "pooled": (
        Cell(12, 12, 1.2, 5, 6),
        Cell(12, 12, 1.5, 6, 4),
        Cell(12, 12, 2, 11, 12),
        Cell(12, 12, 3, 20, 24),
        Cell(15, 25, 1.2, 9, 8),
        Cell(15, 25, 1.5, 22, 19),
        Cell(15, 25, 2, 55, 30),
        Cell(15, 25, 3, 90, 61),
        Cell(8, 16, 1.2, 12, 10),
        Cell(8, 16, 1.5, 28, 18),
        Cell(8, 16, 2, 73, 44),
        Cell(8, 16, 3, 100, 80),
        Cell(10, 30, 1.2, 19, 12),
        Cell(10, 30, 1.5, 64, 28),
        Cell(10, 30, 2, 99, 61),
        Cell(10, 30, 3, 100, 96),
        Cell(5, 15, 1.2, 15, 12),
        Cell(5, 15, 1.5, 51, 32),
        Cell(5, 15, 2, 98, 64),
        Cell(5, 15, 3, 100, 94),
    ),
    "tau2": (
        Cell(12, 12, 1.2, 5, 5),
        Cell(12, 12, 1.5, 7, 6),
        Cell(12, 12, 2, 8, 7),
        Cell(12, 12, 3, 12, 16),
        Cell(15, 25, 1.2, 8, 6),
        Cell(15, 25, 1.5, 15, 16),
        Cell(15, 25, 2, 32, 21),
        Cell(15, 25, 3, 70, 43),
        Cell(8, 16, 1.2, 12, 5),
        Cell(8, 16, 1.5, 18, 15),
        Cell(8, 16, 2, 42, 29),
        Cell(8, 16, 3, 92, 59),
        Cell(10, 30, 1.2, 12, 9),
        Cell(10, 30, 1.5, 31, 21),
        Cell(10, 30, 2, 84, 41),
        Cell(10, 30, 3, 100, 83),
        Cell(5, 15, 1.2, 8, 7),
        Cell(5, 15, 1.5, 24, 15),
        Cell(5, 15, 2, 74, 41),
        Cell(5, 15, 3, 100, 78),
    ),
    "sandwich": (
        Cell(12, 12, 1.2, 6, 4),
        Cell(12, 12, 1.5, 7, 6),
        Cell(12, 12, 2, 10, 6),
        Cell(12, 12, 3, 18, 6),
        Cell(15, 25, 1.2, 5, 6),
        Cell(15, 25, 1.5, 8, 4),
        Cell(15, 25, 2, 13, 4),
        Cell(15, 25, 3, 22, 5),
        Cell(8, 16, 1.2, 3, 6),
        Cell(8, 16, 1.5, 9, 4),
        Cell(8, 16, 2, 15, 6),
        Cell(8, 16, 3, 34, 7),
        Cell(10, 30, 1.2, 5, 7),
        Cell(10, 30, 1.5, 6, 3),
        Cell(10, 30, 2, 12, 4),
        Cell(10, 30, 3, 23, 5),
        Cell(5, 15, 1.2, 0, 6),
        Cell(5, 15, 1.5, 2, 6),
        Cell(5, 15, 2, 5, 5),
        Cell(5, 15, 3, 19, 8),
    ),
    "tau2_by": (
        Cell(8, 16, 2, 40, 6),
        Cell(8, 16, 3, 63, 8),
        Cell(10, 30, 2, 59, 8),
        Cell(10, 30, 3, 73, 5),
        Cell(5, 15, 2, 82, 12),
        Cell(5, 15, 3, 99, 13),
    ),
}
"""By what the test takes: one variance (`ols`), one tau2 (mixed models), a sandwich, a tau2 for each group."""

WITHIN_CHANCE = 7
"""Of 100 data sets: up to here an error is not told from 5 (1,000 data sets without resampling, 100 to 400 with)."""


def nearest(taken: str, smaller: int, larger: int, ratio: float) -> Cell:
    """Return the measured cell whose sizes, and then ratio, are nearest to those given, by logarithms.

    Parameters
    ----------
    taken : str
        A key of `MEASURED`.
    smaller, larger : int
        Maps of the group that varies more, and of the other.
    ratio : float
        Of the standard deviations (of mixed models: of tau).
    """

    def far(cell: Cell) -> tuple[float, float]:
        share, total = smaller / larger, smaller + larger
        of_sizes = abs(log(cell.smaller / cell.larger / share)) + 0.1 * abs(log((cell.smaller + cell.larger) / total))
        return round(of_sizes, 9), abs(log(cell.ratio / ratio))

    return min(MEASURED[taken], key=far)


def in_words(cell: Cell, what: str) -> str:
    """Return the sentence: ``With 10 against 30 maps and 1.5 times ...``; ``what`` varies."""
    return (
        f"With {cell.smaller} against {cell.larger} maps and {cell.ratio:g} times {what} in "
        f"{'one group' if cell.smaller == cell.larger else f'the {cell.smaller}'} (the nearest that was measured), "
        f"{cell.plain} of 100 data sets without any effect had something below 0.05 corrected without resampling, and "
        f"{cell.resampled} with it."
    )
