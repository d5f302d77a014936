"""What the inferences on clusters by resampling share: they differ in what is summed over a cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import ClusterFacts
from ibma_app.core.methods import Citation, Inference, InferenceSettings, Scorer
from ibma_app.inference.neighbourhood import (
    connectivity_setting,
    find_neighbours,
    neighbour_facts,
    read_connectivity,
    size_units,
)
from ibma_app.inference.resampled import TAIL_FIT, WINKLER_2014, cluster_forming_z, decide_by_null
from ibma_app.stats.components import ClusterWorkspace

CONNECTIVITY = 26

BULLMORE_1999 = Citation(
    key="bullmore1999",
    authors="Bullmore ET, Suckling J, Overmeyer S, Rabe-Hesketh S, Taylor E, Brammer MJ",
    year=1999,
    title="Global, voxel, and cluster tests, by theory and permutation, for a difference between two groups "
    "of structural MR images of the brain",
    source="IEEE Transactions on Medical Imaging 18(1), 32-42",
    doi="10.1109/42.750253",
)


@dataclass(frozen=True)
class Measure:
    """What is summed over the voxels of a cluster."""

    summands: Callable[[NDArray[np.float64], float], NDArray[np.float64]]  # of heights (M,) and the floor -> (M,)
    units: str
    words: str  # "their size is their number of voxels"
    label: str  # the axis of its null's picture
    units_of_sizes: str  # of elements with sizes; {} stands for the unit of these
    words_of_sizes: str


def score(measure: Measure, grid: Shape, tail: str, settings: InferenceSettings) -> Scorer:
    """Score a voxel by the sum over its cluster above the cluster-forming z; elements count by their sizes.

    Raises
    ------
    UsageError
        When ``cluster_p`` or the setting ``connectivity`` cannot be, or neighbours are not known.
    """
    floor = cluster_forming_z(settings, tail)
    workspace = ClusterWorkspace(find_neighbours(grid, read_connectivity(settings, CONNECTIVITY)))

    def largest(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> float:
        return workspace.sums(voxels, measure.summands(heights, floor))[1]

    def each(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        return workspace.sums(voxels, measure.summands(heights, floor))[0].copy()

    return Scorer(floor, largest, each)


def infer(name: str, measure: Measure, field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Compare each cluster's sum with the largest of every relabelling (Bullmore et al. 1999).

    Each voxel has its cluster's corrected p; it is 1 outside clusters.
    """
    units, words, label = measure.units, measure.words, ""
    if not isinstance(field.grid, Grid):
        units, words = measure.units_of_sizes.format(size_units(field.grid)), measure.words_of_sizes
        label = f"{measure.label} ({units})"
    clusters = ClusterFacts(settings.cluster_p, cluster_forming_z(settings, field.tail), words, field.tail)
    neighbours = neighbour_facts(field.grid, read_connectivity(settings, CONNECTIVITY))
    return decide_by_null(name, field, null, settings, (clusters, neighbours), units, label)


def record(name: str, title: str, measure: Measure, score_label: str) -> Inference:
    """Make the record of an inference on clusters."""
    return Inference(
        name=name,
        title=title,
        infer=partial(infer, name, measure),
        citations=(BULLMORE_1999, WINKLER_2014),
        score=partial(score, measure),
        score_label=score_label,
        needs_neighbours=True,
        settings={"connectivity": connectivity_setting(CONNECTIVITY), "tail_fit": TAIL_FIT},
    )
