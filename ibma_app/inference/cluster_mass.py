"""Family-wise error of clusters by the resampled distribution of the largest cluster mass."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.grid import Grid
from ibma_app.core.methods import Citation, Inference, InferenceSettings, Scorer
from ibma_app.inference.clusters import connectivity_setting, read_connectivity
from ibma_app.inference.resampled import TAIL_FIT, WINKLER_2014, cluster_forming_z, decide_by_null
from ibma_app.stats.components import ClusterWorkspace, make_lattice

CONNECTIVITY = 26


def score(grid: Grid, tail: str, settings: InferenceSettings) -> Scorer:
    """Score a voxel by its cluster's mass: the sum of |z| minus the cluster-forming z.

    Raises
    ------
    UsageError
        When ``cluster_p`` or the setting ``connectivity`` cannot be.
    """
    floor = cluster_forming_z(settings, tail)
    workspace = ClusterWorkspace(make_lattice(grid.mask, read_connectivity(settings, CONNECTIVITY)))

    def largest(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> float:
        return workspace.sums(voxels, heights - floor)[1]

    def each(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        return workspace.sums(voxels, heights - floor)[0].copy()

    return Scorer(floor, largest, each)


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Compare each cluster's mass with the largest of every relabelling (Bullmore et al. 1999).

    Parameters
    ----------
    field : Field
        One test over the mask, V voxels.
    null : Null
        With this score.
    settings : InferenceSettings
        ``alpha``, ``cluster_p``, of the options ``connectivity``.

    Returns
    -------
    Significance
        ``log10_p`` (V,): each voxel has its cluster's corrected p; 0 outside clusters.

    Raises
    ------
    UsageError
        When a level is not between 0 and 1, or the connectivity cannot be.
    """
    facts = {
        "ClusterFormingP": settings.cluster_p,
        "ClusterFormingZ": cluster_forming_z(settings, field.tail),
        "Connectivity": read_connectivity(settings, CONNECTIVITY),
        "ScoreUnits": "z above the threshold, summed over voxels",
    }
    return decide_by_null("cluster-mass", field, null, settings, facts)


INFERENCE = Inference(
    name="cluster-mass",
    title="cluster mass by resampling",
    infer=infer,
    citations=(
        Citation(
            key="bullmore1999",
            authors="Bullmore ET, Suckling J, Overmeyer S, Rabe-Hesketh S, Taylor E, Brammer MJ",
            year=1999,
            title="Global, voxel, and cluster tests, by theory and permutation, for a difference between two groups "
            "of structural MR images of the brain",
            source="IEEE Transactions on Medical Imaging 18(1), 32-42",
            doi="10.1109/42.750253",
        ),
        WINKLER_2014,
    ),
    score=score,
    score_label="Largest cluster mass",
    settings={"connectivity": connectivity_setting(CONNECTIVITY), "tail_fit": TAIL_FIT},
)
