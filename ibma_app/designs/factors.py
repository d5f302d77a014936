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

from ibma_app.designs.formulas import Evaluated, FormulaTerm

Floats = NDArray[np.float64]
Named = dict[str, Floats]

MOST_ROWS = 20_000
"""Rows of the grid of all levels; a larger one is not made."""


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
