"""All-resolutions inference: how many voxels of a cluster, or of any set, are truly active."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.inference_facts import ClusterFacts, Fact
from ibma_app.core.methods import Citation, ClusterColumn, Inference, InferenceSettings
from ibma_app.inference.clusters import find_clusters
from ibma_app.inference.decide import CALIBRATE, check_level, decide, level_facts, passes, weakest_z
from ibma_app.inference.neighbourhood import connectivity_setting, neighbour_facts, read_connectivity
from ibma_app.stats.hommel import adjust_hommel, hommel_value, true_discoveries

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CONNECTIVITY = 26
CONTROLS = "true-discovery proportion of every set of voxels"


@dataclass(frozen=True, eq=False)
class DiscoveryBound:
    """Lower bounds of the true-discovery proportion, for all sets of voxels at once.

    They hold together with confidence 1 - alpha, whatever the sets are and
    however they were chosen.
    """

    log10_p: Floats  # (V,) uncorrected
    hommel: int
    alpha: float

    def __call__(self, voxels: Integers) -> float:
        """Return the bound of one set, given as indices into the mask; 0 for an empty one."""
        if voxels.size == 0:
            return 0.0
        owner = np.zeros(voxels.size, dtype=np.int64)
        found = true_discoveries(self.log10_p[voxels], owner, 1, self.hommel, self.alpha)
        return float(found[0] / voxels.size)


def bound_discoveries(field: Field, alpha: float) -> DiscoveryBound:
    """Prepare the bounds of a map: Hommel's value over its estimable voxels.

    Valid where Simes' test is: independent or positively dependent voxels
    (Rosenblatt et al. 2018).

    Parameters
    ----------
    field : Field
        One test over the mask, V voxels.
    alpha : float
        One minus the confidence.

    Raises
    ------
    UsageError
        When ``alpha`` is not between 0 and 1.
    """
    level = check_level(alpha)
    log10_p = np.where(field.estimable, field.log10_p, 0.0)
    return DiscoveryBound(log10_p, hommel_value(field.log10_p[field.estimable], level), level)


def _prepare_bound(field: Field, settings: InferenceSettings) -> DiscoveryBound:
    return bound_discoveries(field, settings.alpha)


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Bound the true discoveries of clusters formed at ``cluster_p``, and adjust p by Hommel's method.

    Significant are the voxels of clusters in which at least one discovery is
    true; all clusters are ``listed``.
    """
    alpha = check_level(settings.alpha)
    cluster_p = check_level(settings.cluster_p, "--cluster-p")
    connectivity = read_connectivity(settings, CONNECTIVITY)
    bound = bound_discoveries(field, alpha)
    formed = passes(bound.log10_p, cluster_p) & field.estimable
    clusters = find_clusters(field, formed, connectivity)
    discoveries = true_discoveries(
        bound.log10_p[clusters.voxels], clusters.labels, clusters.sizes.size, bound.hommel, alpha
    )
    adjusted = adjust_hommel(field.log10_p[field.estimable])
    found = decide(field, adjusted, alpha, CONTROLS)
    significant = np.zeros_like(formed)
    significant[clusters.voxels] = (discoveries > 0)[clusters.labels]
    everywhere = true_discoveries(
        bound.log10_p[field.estimable], np.zeros(adjusted.size, dtype=np.int64), 1, bound.hommel, alpha
    )
    facts = (
        level_facts(field, alpha, CONTROLS, is_bound=True),
        ClusterFacts(cluster_p),
        neighbour_facts(field.grid, connectivity),
        Fact("HommelValue", bound.hommel, "Hommel's value"),
        Fact("TrueDiscoveries", int(everywhere[0]), "Truly active in the whole mask", "at least {} voxels"),
        Fact("NumberOfClusters", int(clusters.sizes.size), "Clusters formed"),
        Fact(
            "NumberOfVoxelsWithAdjustedP", int(np.count_nonzero(found.significant)), "Voxels significant by Hommel's p"
        ),
    )
    return Significance(found.log10_p, significant, weakest_z(field, significant), facts, listed=formed)


INFERENCE = Inference(
    name="ari",
    title="all-resolutions inference (true-discovery proportion)",
    infer=infer,
    needs_neighbours=True,
    uses_far_tail=True,
    words=(
        "All-resolutions inference bounds the proportion of truly active voxels of each cluster from below, for all "
        "clusters together with confidence {Confidence} %, where Simes' inequality holds; voxels of clusters with a "
        "bound above 0 are called significant."
    ),
    settings={"calibrate": CALIBRATE, "connectivity": connectivity_setting(CONNECTIVITY)},
    columns=(
        ClusterColumn(
            "tdp",
            "Truly active, at least (%)",
            "Lower bound of the cluster's true-discovery proportion (all-resolutions inference)",
            _prepare_bound,
            percent=True,
        ),
    ),
    citations=(
        Citation(
            key="rosenblatt2018",
            authors="Rosenblatt JD, Finos L, Weeda WD, Solari A, Goeman JJ",
            year=2018,
            title="All-Resolutions Inference for brain imaging",
            source="NeuroImage 181, 786-796",
            doi="10.1016/j.neuroimage.2018.07.060",
        ),
        Citation(
            key="meijer2019",
            authors="Meijer RJ, Krebs TJP, Goeman JJ",
            year=2019,
            title="Hommel's procedure in linear time",
            source="Biometrical Journal 61(1), 73-82",
            doi="10.1002/bimj.201700316",
        ),
    ),
)
