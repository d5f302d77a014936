"""Scores of structures whose sizes have different units: each kind has its own null, and they are joined by rank.

An extent in mm² and one in mm³ cannot be compared, nor what TFCE makes of them:
with the largest of both, the kind whose numbers run higher would decide alone.
The score of a kind is that of its structures; of the kinds the smallest p is
the joint score, from the same relabellings. Heights can be compared as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.methods import InferenceSettings, Score, Scorer
from ibma_app.stats.min_p import join_nulls

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScoreOfKind:
    """A score of the elements of one unit."""

    score: Score
    part: Elements  # with these alone in its mask
    numbers: Integers  # (V,) of the whole mask's elements in the part's; -1: of another kind

    def __call__(self, shape: Shape, tail: str, settings: InferenceSettings) -> Scorer:
        """Prepare the score; elements are counted in the whole mask."""
        scorer = self.score(self.part, tail, settings)

        def own(voxels: Integers, heights: Floats) -> tuple[NDArray[np.bool_], Integers, Floats]:
            numbers = self.numbers[voxels]
            of_kind = numbers >= 0
            return of_kind, numbers[of_kind], heights[of_kind]

        def largest(voxels: Integers, heights: Floats) -> float:
            _, numbers, kept = own(voxels, heights)
            return scorer.largest(numbers, kept)

        def each(voxels: Integers, heights: Floats) -> Floats:
            of_kind, numbers, kept = own(voxels, heights)
            scores = np.zeros(voxels.size)
            scores[of_kind] = scorer.each(numbers, kept)
            return scores

        return Scorer(scorer.floor, largest, each)


def split_by_kind(
    scores: Mapping[str, Score], shape: Shape, tail: str, settings: InferenceSettings
) -> dict[str, dict[str, Score]]:
    """Give each score a part for every unit of sizes, where it depends on them.

    Returns
    -------
    dict of str to dict
        Name of a score -> name of its part -> score. A score that is the height
        itself, and every score where sizes have one unit, is its own only part.
    """
    parts = {}
    if isinstance(shape, Elements):
        parts = {unit: shape.of_unit(unit) for unit in shape.units}
    if len(parts) < 2:
        return {name: {name: score} for name, score in scores.items()}
    numbers = {unit: _numbers(shape, part) for unit, part in parts.items()}
    return {
        name: {name: score}
        if np.isneginf(score(shape, tail, settings).floor)
        else {f"{name}/{unit}": ScoreOfKind(score, part, numbers[unit]) for unit, part in parts.items()}
        for name, score in scores.items()
    }


def join_kinds(
    parts: Mapping[str, Mapping[str, Score]], observed: Mapping[str, Floats], maxima: Mapping[str, Floats]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Join the parts of each score: return observed scores (V,) and maxima (R,) by its name."""
    joined = {
        name: (observed[name], maxima[name])
        if name in of
        else join_nulls([observed[one] for one in of], [maxima[one] for one in of])
        for name, of in parts.items()
    }
    return {name: one for name, (one, _) in joined.items()}, {name: one for name, (_, one) in joined.items()}


def _numbers(shape: Shape, part: Elements) -> Integers:
    """Number the elements of the whole mask in a part's, (V,); -1: it does not have them."""
    inside = shape.to_vector(part.mask)
    return np.where(inside, np.cumsum(inside) - 1, -1).astype(np.int64)
