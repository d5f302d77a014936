"""Family-wise error of voxels by the resampled distribution of the largest statistic."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.methods import Inference, InferenceSettings, Scorer
from ibma_app.inference.resampled import NICHOLS_2002, TAIL_FIT, WINKLER_2014, decide_by_null
from ibma_app.inference.simultaneous import BOUNDS, BOWRING_2021, TELSCHOW_2022


def score(grid: Shape, tail: str, settings: InferenceSettings) -> Scorer:
    """Score a voxel by its height: z in the tail's direction, |z| when two-sided."""

    def largest(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> float:
        return float(heights.max(initial=0.0))

    def each(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        return heights

    return Scorer(-np.inf, largest, each)


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Compare each voxel's z with the largest z of every relabelling (Nichols & Holmes 2002)."""
    return decide_by_null("max-stat", field, null, settings)


INFERENCE = Inference(
    name="max-stat",
    title="maximum statistic by resampling",
    infer=infer,
    citations=(NICHOLS_2002, WINKLER_2014),
    score=score,
    score_is_height=True,
    score_label="Largest |z| of the mask",
    bounds_effects=(TELSCHOW_2022, BOWRING_2021),
    settings={"tail_fit": TAIL_FIT, "bounds": BOUNDS},
)
