"""Factors by name: means of their levels and effects of whole factors, whatever coding the formula gave them.

``stimulus[face]`` is the mean at that level, averaged with equal weights over
the levels of all other factors, subjects among them, with numeric covariates
at their means; ``stimulus[face]:repetition[1]`` that of a cell. ``stimulus``
and ``stimulus:repetition`` are the factor's effect and the interaction, as
rows of an F test (estimated marginal means; Searle, Speed & Milliken 1980).
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ibma_app.core.design import Cell, Covariate
from ibma_app.designs.formulas import Evaluated, FormulaTerm

Floats = NDArray[np.float64]
Named = dict[str, Floats]

MOST_ROWS = 20_000
"""Rows of the grid of all levels; a larger one is not made."""
MOST_CELLS = 24
"""Cells that a page shows."""


class Factors(NamedTuple):
    """What a design's factors are called in tests."""

    means: Named  # name -> (P,) weights of a mean on the design's columns
    effects: Named  # name -> (Q, P) rows
    levels: dict[str, tuple[str, ...]]


NO_FACTORS = Factors({}, {}, {})


def find_factors(evaluated: Evaluated, data: pd.DataFrame, nuisance: frozenset[str]) -> Factors:
    """Return the means of a design's factors, and their effects.

    Parameters
    ----------
    evaluated : Evaluated
        The design's P columns.
    data : DataFrame
        K rows; what the formula names.
    nuisance : frozenset of str
        Variables that are averaged over and never named: subjects, studies.
    """
    levels = {name: _levels(data[name]) for name in data.columns if _is_factor(name, data[name], evaluated.terms)}
    named = [name for name in levels if name not in nuisance]
    size = np.prod([len(values) for values in levels.values()], dtype=float)
    if evaluated.spec is None or not named or size > MOST_ROWS:
        return NO_FACTORS
    cells = list(itertools.product(*levels.values()))
    grid = pd.DataFrame(cells, columns=list(levels))
    for name in data.columns:
        if name not in levels:
            grid[name] = float(data[name].mean())
    rows = evaluated.spec.get_model_matrix(grid, context={}, na_action="ignore", output="numpy")
    matrix = np.asarray(rows, dtype=np.float64)
    shape = tuple(len(values) for values in levels.values())
    means, effects = _name_all(matrix.reshape(*shape, matrix.shape[1]), levels, named)
    return Factors(means, effects, {name: tuple(map(str, levels[name])) for name in named})


def find_cells(factors: Factors, data: pd.DataFrame) -> tuple[Cell, ...]:
    """Return the cells of a design's factors that have maps; none where they are fewer than 2 or more than 24.

    Parameters
    ----------
    factors : Factors
        From `find_factors`.
    data : DataFrame
        K rows; what the formula names.
    """
    order = list(factors.levels)
    if not 2 <= np.prod([len(levels) for levels in factors.levels.values()], dtype=float) <= MOST_CELLS:
        return ()
    cells = []
    for levels in itertools.product(*factors.levels.values()):
        inside = np.all([data[name].astype(str) == level for name, level in zip(order, levels, strict=True)], axis=0)
        if inside.any():
            pairs = list(zip(order, levels, strict=True))
            weights = factors.means[":".join(f"{name}[{level}]" for name, level in pairs)]
            rows = tuple(np.flatnonzero(inside).tolist())
            cells.append(Cell(", ".join(f"{name} {level}" for name, level in pairs), weights, rows))
    return tuple(cells) if len(cells) > 1 else ()


def find_groups(factors: Factors, data: pd.DataFrame, units: NDArray[np.int64] | None) -> tuple[str, ...]:
    """Return each map's level, (K,), of the first factor with one level in each unit; empty where there is none."""
    for name, levels in factors.levels.items():
        values = data[name].astype(str)
        if len(levels) > 1 and (units is None or values.groupby(units).nunique().max() == 1):
            return tuple(f"{name} {value}" for value in values)
    return ()


def find_covariates(evaluated: Evaluated, data: pd.DataFrame) -> tuple[Covariate, ...]:
    """Return the numeric variables of a design that are no factors."""
    found = []
    for name in data.columns:
        if not _is_factor(name, data[name], evaluated.terms):
            names = [column for term in evaluated.terms if name in term.variables for column in term.columns]
            columns = tuple(evaluated.columns.index(column) for column in names)
            found.append(Covariate(str(name), data[name].to_numpy(dtype=np.float64), columns))
    return tuple(found)


def _is_factor(name: str, values: pd.Series, terms: Sequence[FormulaTerm]) -> bool:
    """Tell whether a variable has levels: it is text, or stands within C()."""
    coded = any(re.search(rf"\bC\s*\(\s*`?{re.escape(name)}\b", factor) for term in terms for factor in term.factors)
    return coded or not pd.api.types.is_numeric_dtype(values)


def _levels(values: pd.Series) -> list[object]:
    return sorted(values.unique().tolist())


def _name_all(cube: Floats, levels: dict[str, list[object]], named: Sequence[str]) -> tuple[Named, Named]:
    """Average over the factors that a name leaves out, for every set of factors."""
    order = list(levels)
    means: Named = {}
    effects: Named = {}
    for count in range(1, len(named) + 1):
        for chosen in itertools.combinations(named, count):
            over = tuple(i for i, name in enumerate(order) if name not in chosen)
            marginal = cube.mean(axis=over)
            for index in itertools.product(*(range(len(levels[name])) for name in chosen)):
                labels = [f"{name}[{levels[name][i]}]" for name, i in zip(chosen, index, strict=True)]
                for spelled in itertools.permutations(labels):
                    means[":".join(spelled)] = marginal[index]
            effect = marginal
            for axis in range(count):  # each level against the last
                last = np.take(effect, [-1], axis=axis)
                effect = np.delete(effect, -1, axis=axis) - last
            for names in itertools.permutations(chosen):
                effects[":".join(names)] = effect.reshape(-1, cube.shape[-1])
    return means, effects
