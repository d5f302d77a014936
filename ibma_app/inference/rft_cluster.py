"""Familywise error rate of clusters by their extent, by random field theory."""

import logging
from dataclasses import replace

import numpy as np
from scipy import special

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.inference_facts import ClusterFacts, ExtentFacts, Fact, WarningFact
from ibma_app.core.methods import Citation, Inference, InferenceSettings
from ibma_app.inference.clusters import find_clusters
from ibma_app.inference.decide import check_level, decide, level_facts, passes
from ibma_app.inference.neighbourhood import connectivity_setting, neighbour_facts, read_connectivity
from ibma_app.inference.random_fields import KIEBEL_1999, Search, prepare_search
from ibma_app.stats.rft import cluster_level, extent_threshold, height_of_p

log = logging.getLogger(__name__)

CONTROLS = "familywise error rate of clusters"
NEIGHBOURS = 18
"""As SPM."""

STRICTEST = 0.001
"""The largest cluster-forming p at which the theory holds its level (Woo et al. 2014; Eklund et al. 2016)."""


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Correct the p of each cluster's extent (Friston et al. 1994, as SPM has it).

    Clusters are formed per sign where the uncorrected p, in the field's tail,
    is at most ``cluster_p``.
    """
    alpha = check_level(settings.alpha)
    cluster_p = check_level(settings.cluster_p, "--cluster-p")
    search = prepare_search(field, "rft-cluster", extents=True)
    connectivity = read_connectivity(settings, NEIGHBOURS)
    note = _note(cluster_p)
    if note:
        log.warning("%s", note)
    log10_p = np.zeros(field.z.shape)
    if not field.estimable.any():
        return decide(field, log10_p[field.estimable], alpha, CONTROLS)
    height = height_of_p(search.field, cluster_p)
    formed = passes(field.log10_p, cluster_p) & field.estimable
    clusters = find_clusters(field, formed, connectivity)
    level = cluster_level(search.field, height, search.resels, clusters.sizes / search.voxels_per_resel)
    log10_p[clusters.voxels] = np.maximum(level.log10_p, 0.0)[clusters.labels]
    found = decide(field, log10_p[field.estimable], alpha, CONTROLS)
    facts = (
        level_facts(field, alpha, CONTROLS),
        Fact("NumberOfClusters", int(clusters.sizes.size), "Clusters formed"),
        ClusterFacts(cluster_p, _z_of(field, cluster_p), tail=field.tail),
        neighbour_facts(field.grid, connectivity),
        search.facts,
        _expectations(search, height, alpha),
        *((WarningFact(note, is_note=True),) if note else ()),
    )
    return replace(found, facts=facts)


def _expectations(search: Search, height: float, alpha: float) -> ExtentFacts:
    """Compute what the theory expects of clusters, in voxels."""
    level = cluster_level(search.field, height, search.resels, [])
    extent = extent_threshold(search.field, height, search.resels, alpha) * search.voxels_per_resel
    return ExtentFacts(
        forming_height=height,
        expected_clusters=level.expected,
        expected_voxels=level.expected_resels * search.voxels_per_resel,
        smallest_extent=max(int(np.ceil(extent * (1.0 - 1e-12))), 1) if np.isfinite(extent) else None,
    )


def _z_of(field: Field, p: float) -> float:
    """Return the |z| of a p in the field's tail."""
    return float(-special.ndtri(0.5 * p if field.tail == "two-sided" else p))


def _note(cluster_p: float) -> str:
    """Warn of a lenient threshold; empty where there is nothing to say."""
    if cluster_p <= STRICTEST:
        return ""
    return (
        f"rft-cluster: the cluster-forming p is {cluster_p:g}; above {STRICTEST:g}, random field theory finds too "
        f"many clusters. Use --cluster-p {STRICTEST:g}, or cluster-size."
    )


INFERENCE = Inference(
    name="rft-cluster",
    title="familywise error rate of cluster extent (random field theory)",
    infer=infer,
    needs_smoothness=True,
    needs_neighbours=True,
    settings={"connectivity": connectivity_setting(NEIGHBOURS)},
    citations=(
        Citation(
            key="friston1994",
            authors="Friston KJ, Worsley KJ, Frackowiak RSJ, Mazziotta JC, Evans AC",
            year=1994,
            title="Assessing the significance of focal activations using their spatial extent",
            source="Human Brain Mapping 1(3), 210-220",
            doi="10.1002/hbm.460010306",
        ),
        KIEBEL_1999,
    ),
)
