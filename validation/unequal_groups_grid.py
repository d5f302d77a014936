"""Two groups of unlike sizes and variances: errors by size and ratio, warnings, and what Welch's test costs.

A part of ``unequal_groups.py``, which see.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from familywise import AT_ONCE, RESAMPLES, SETTINGS, VOXELS, fields_of, kinds_of, smoothed, voxelwise
from familywise_cells import ALPHA, IN_CELL, Cell
from kept import Kept
from null_maps import SIDE, TARGET, Maps, Noise, design_of, draw_maps, make_stack, smooth, white
from scipy import stats

from ibma_app.core.grid import Grid
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.workers.resources import ONE_THREAD
from ibma_app.workflows.infer import make_field
from ibma_app.workflows.write.residual_notes import look_at_residuals

SIZES = ((12, 12), (15, 25), (8, 16), (10, 30), (5, 15))
RATIOS = (1.0, 1.2, 1.5, 2.0, 3.0)  # of the standard deviations: the first group's over the second's
ANALYSES = (
    ("ols", "subjects", {}),
    ("reml", "studies", {}),
    ("ols", "subjects", {"errors": "sandwich"}),
    ("reml", "studies", {"tau2_by": "x"}),
)
METHODS = ("bonferroni", "fdr", "max-stat")
ALWAYS, SELDOM = 0.8, 0.15  # shares of data sets that are warned of where something is amiss, and where nothing is
SETS, LOOKED_AT = 1000, 20  # data sets of independent voxels, and those in which a run would have been warned


@dataclass(frozen=True, eq=False)
class Pair(Cell):
    """Two groups, and how they are compared."""

    @property
    def smooth(self) -> tuple[str, ...]:
        """What resamples."""
        return ("max-stat",)

    @property
    def smooth_sets(self) -> int:
        """How many data sets of smooth voxels are drawn: fewer where each relabelling is a fit."""
        return 100 if "tau2_by" in self.settings else {"ols": 400, "reml": 300}[self.estimator]

    @property
    def sizes(self) -> tuple[int, int]:
        """The maps of both groups."""
        return self.maps.first, self.maps.n - self.maps.first


FEWER = (8, 10, 5), (1.0, 2.0, 3.0)
"""First groups and ratios that are measured with a tau2 for each group, where each relabelling is a fit."""

GRID = tuple(
    Pair(name, Maps(kind, sum(sizes), "groups", first=sizes[0], spread=ratio), settings)
    for name, kind, settings in ANALYSES
    for sizes in SIZES
    for ratio in RATIOS
    if "tau2_by" not in settings or (sizes[0] in FEWER[0] and ratio in FEWER[1])
)


def count_voxelwise(cell: Pair, sets: int) -> np.ndarray:
    """Count the data sets in which `bonferroni` and `fdr` find something, (2,)."""
    design = design_of(cell.maps)
    return np.sum([voxelwise(cell, design, AT_ONCE, first).sum(axis=1) for first in range(0, sets, AT_ONCE)], axis=0)


def count_smooth(cell: Pair, sets: int) -> np.ndarray:
    """Count the data sets in which `max-stat` finds something, (1,)."""
    design = design_of(cell.maps)
    return np.sum([smoothed(cell, design, number) for number in range(sets)], axis=0)


def notes(cell: Pair, number: int) -> tuple[str, ...]:
    """Return what a run would say of the residuals of one data set, of as many independent voxels as a brain has."""
    record, kinds = find_estimator(cell.estimator), kinds_of(find_estimator(cell.estimator))
    rng, line = np.random.default_rng([number, 2, *cell.title.encode()]), Grid(np.eye(4), np.ones((VOXELS, 1, 1), bool))
    stack = make_stack(draw_maps(cell.maps, white(VOXELS), rng, kinds), kinds, line)
    design = design_of(cell.maps)
    model = Model(record, design, {**record.defaults(design), **cell.settings})
    methods = [find_inference(name) for name in METHODS]
    return look_at_residuals(stack, model, estimate_maps(stack, model), methods, ONE_THREAD).notes


def count_warned(cell: Pair, sets: int) -> list[int]:
    """Count the data sets that are warned of groups that differ, (1,)."""
    said = [" ".join(notes(cell, number)) for number in range(sets)]
    return [sum("between groups of" in words or "of which a group has few" in words for words in said)]


def measure_grid(kept: Kept) -> dict[Pair, np.ndarray]:
    """Return the shares of data sets in which each method finds something, and of those warned of, (4,) by cell."""
    parts: tuple[tuple[str, Callable[[Pair], int], Callable[[Pair, int], object]], ...] = (
        ("voxelwise", lambda _: SETS, count_voxelwise),
        ("warned", lambda _: LOOKED_AT, count_warned),
        ("smooth", lambda cell: cell.smooth_sets, count_smooth),
    )
    found: dict[Pair, list[np.ndarray]] = {cell: [] for cell in GRID}
    for what, sets_of, count in parts:
        for cell in GRID:
            sets = sets_of(cell)
            found[cell].append(kept.get(f"{cell.title}; {what}", sets, partial(count, cell)) / sets)
    return {cell: np.concatenate([rates[0], rates[2], rates[1]]) for cell, rates in found.items()}


HEIGHT = {(12, 12): 3.4, (15, 25): 3.3, (8, 16): 3.5, (10, 30): 3.3, (5, 15): 3.8}
"""The active voxels' difference in standard errors, with which the pooled test and `fdr` find about a half."""


def _activated(sizes: tuple[int, int], noise: Noise, active: np.ndarray, rng: np.random.Generator) -> dict:
    """Draw subjects of equal variance, with a difference between the groups at the active voxels."""
    maps = Maps("subjects", sum(sizes), "groups", first=sizes[0])
    found = draw_maps(maps, noise, rng, ("effect",))
    error = np.sqrt((1.0 + 0.625) * (1 / sizes[0] + 1 / sizes[1]))  # tau2 is 1, sampling variances .25 to 1
    found["effect"][sizes[0] :, active] += HEIGHT[sizes] * error
    return found


def _models(sizes: tuple[int, int]) -> Iterator[Model]:
    design = design_of(Maps("subjects", sum(sizes), "groups", first=sizes[0]))
    for settings in ({}, {"errors": "sandwich"}):
        yield Model(find_estimator("ols"), design, settings)


def power_voxelwise(sizes: tuple[int, int], sets: int) -> list[float]:
    """Return the shares of active voxels that `fdr` and `bonferroni` find: pooled, then sandwich, (4,)."""
    active, found = np.arange(VOXELS) < VOXELS // 10, np.zeros((2, 2))
    for first in range(0, sets, AT_ONCE):
        rng = np.random.default_rng([first, *sizes])
        drawn = _activated(sizes, white(AT_ONCE * VOXELS), np.tile(active, AT_ONCE), rng)
        for row, model in enumerate(_models(sizes)):
            for field in fields_of(drawn, model, first):
                for column, name in enumerate(("fdr", "bonferroni")):
                    hit = find_inference(name).infer(field, None, SETTINGS).significant
                    found[row, column] += hit[active].mean() / sets
    return found.ravel().tolist()


def power_smooth(sizes: tuple[int, int], sets: int) -> list[float]:
    """Return the share of active voxels that `max-stat` finds: pooled, then sandwich, (2,)."""
    method, block, found = find_inference("max-stat"), np.zeros((SIDE,) * 3, dtype=bool), np.zeros(2)
    block[:4, :4, :3] = True
    for number in range(sets):
        drawn = _activated(sizes, smooth(), block.reshape(-1), np.random.default_rng([number, 1, *sizes]))
        stack = make_stack(drawn, ("effect",), TARGET.grid)
        for row, model in enumerate(_models(sizes)):
            test = model.design.tests[0]
            field = make_field(TARGET, estimate_maps(stack, model), test)
            settings = InferenceSettings(alpha=SETTINGS.alpha, permutations=RESAMPLES, seed=number)
            null = score_resamples(stack, model, test, {method.name: method.score}, settings)
            found[row] += method.infer(field, null, settings).significant[block.reshape(-1)].mean() / sets
    return found.tolist()


def measure_power(kept: Kept) -> dict[tuple[int, int], np.ndarray]:
    """Return what pooled and sandwich find of differences, with equal variances: (pooled, sandwich; methods)."""
    found = {}
    for sizes in SIZES:
        name = f"power, {sizes[0]} against {sizes[1]}"
        voxels = kept.get(f"{name}; voxelwise", 200, partial(power_voxelwise, sizes)).reshape(2, 2)
        block = kept.get(f"{name}; smooth", 200, partial(power_smooth, sizes)).reshape(2, 1)
        found[sizes] = np.hstack([voxels, block])
    return found


def above_chance(cell: Pair, rates: np.ndarray) -> dict[str, bool]:
    """Return of which methods the error is larger than 0.05 explains (in 999 of 1,000 cells)."""
    sets = {"bonferroni": SETS, "fdr": SETS, "max-stat": cell.smooth_sets}
    return {
        name: bool(stats.binom.sf(round(rate * sets[name]) - 1, sets[name], ALPHA) < IN_CELL)
        for name, rate in zip(METHODS, rates, strict=False)
    }


def broken_claims(grid: dict[Pair, np.ndarray], power: dict[tuple[int, int], np.ndarray]) -> list[str]:
    """Tell which claims fail: errors that no run tells of, alarms without one, and a sandwich that costs nothing."""
    broken = []
    for cell, rates in grid.items():
        above, warned = above_chance(cell, rates), rates[-1]
        if any(above.values()) and warned < ALWAYS:
            broken.append(f"{cell.title}: errors {rates[:-1].tolist()}, and {warned:.0%} are warned of")
        if cell.maps.spread == 1 and "tau2_by" not in cell.settings and (any(above.values()) or warned > SELDOM):
            broken.append(f"{cell.title}: errors {rates[:-1].tolist()}, {warned:.0%} warned of, with equal variances")
        if cell.settings.get("errors") == "sandwich" and above["max-stat"]:
            broken.append(f"{cell.title}: max-stat errs in {rates[2]:.3f}")
    if power[10, 30][1, 0] > power[10, 30][0, 0] - 0.1:
        broken.append(f"Welch's test with 10 against 30 subjects finds {power[10, 30][1, 0]:.2f} of the active voxels")
    return broken


def grid_tables(grid: dict[Pair, np.ndarray]) -> dict[str, str]:
    """Lay out a table for each analysis, by what the page calls it."""
    tables = {}
    for (name, _, settings), what in zip(ANALYSES, ("pooled", "tau2", "sandwich", "tau2_by"), strict=True):
        lines = ["| groups | " + " | ".join(f"{ratio:g} times" for ratio in RATIOS) + " |", "|---" * 6 + "|"]
        for sizes in SIZES:
            row = {c.maps.spread: c for c in grid if (c.estimator, c.settings, c.sizes) == (name, settings, sizes)}
            shown = [_entry(row[ratio], grid[row[ratio]]) if ratio in row else "" for ratio in RATIOS]
            lines += [f"| {sizes[0]} and {sizes[1]} | {' | '.join(shown)} |"] if row else []
        tables[what] = "\n".join(lines)
    return tables


def _entry(cell: Pair, rates: np.ndarray) -> str:
    above = above_chance(cell, rates)
    shown = ", ".join(
        f"{rates[METHODS.index(name)]:.3f}" + ("\\*" if above[name] else "") for name in ("fdr", "max-stat")
    )
    return f"{shown} ({100 * rates[-1]:.0f} %)"


def power_table(power: dict[tuple[int, int], np.ndarray]) -> str:
    """Lay out what is found with equal variances."""
    lines = [
        "| groups | " + " | ".join(f"`{name}`: pooled, sandwich" for name in ("fdr", "bonferroni", "max-stat")) + " |"
    ]
    lines.append("|---" * 4 + "|")
    for sizes, found in power.items():
        cells = " | ".join(f"{pooled:.2f}, {robust:.2f}" for pooled, robust in found.T)
        lines.append(f"| {sizes[0]} and {sizes[1]} | {cells} |")
    return "\n".join(lines)
