"""What files and messages say of an error that is robust to maps that depend on each other."""

import logging
from typing import Any

import numpy as np

from ibma_app.core.estimate import Estimate
from ibma_app.stream.estimate import Model

log = logging.getLogger(__name__)

FEW_DOF = 4.0
"""Below, Satterthwaite's approximation is rough, and p only roughly what it says (Pustejovsky & Tipton 2018)."""


def smallest_dof(estimate: Estimate) -> dict[str, float]:
    """Return the fewest degrees of freedom of each test that has its own, over the voxels where it can be estimated."""
    fewest = {}
    for name, fitted in estimate.tests.items():
        if fitted.dof is not None and fitted.estimable.any():
            fewest[name] = float(np.min(fitted.dof[fitted.estimable]))
    return fewest


def error_sidecar(model: Model, estimate: Estimate) -> dict[str, Any]:
    """Return the keys ``Errors``, and of a cluster-robust error ``Clusters``, their number and the fewest dof."""
    if "errors" not in model.settings:
        return {}
    sidecar: dict[str, Any] = {"Errors": model.settings["errors"]}
    if model.clusters is not None:
        sidecar["Clusters"] = model.design.cluster_name or "each map"
        sidecar["NumberOfClusters"] = int(np.unique(model.clusters).size)
        fewest = smallest_dof(estimate)
        if fewest:
            sidecar["SmallestDegreesOfFreedom"] = round(min(fewest.values()), 6)
    return sidecar


def log_dof(model: Model, estimate: Estimate) -> None:
    """Log the fewest degrees of freedom of each test of a cluster-robust error."""
    if model.clusters is None:
        return
    design = model.design
    fewest = ", ".join(f"{name} {dof:.4g}" for name, dof in smallest_dof(estimate).items())
    log.info(
        "Cluster-robust error of %d independent %s; degrees of freedom (the fewest of any voxel): %s.",
        int(np.unique(model.clusters).size), design.cluster_plural, fewest or "none",
    )  # fmt: skip


def dof_notes(model: Model, estimate: Estimate) -> tuple[str, ...]:
    """Warn of tests of a cluster-robust error whose degrees of freedom are few."""
    if model.clusters is None:
        return ()
    few = [f"{name} ({dof:.3g})" for name, dof in smallest_dof(estimate).items() if dof < FEW_DOF]
    if not few:
        return ()
    design = model.design
    return (
        f"{model.estimator.name}: degrees of freedom below {FEW_DOF:g}: {', '.join(few)}. The cluster-robust error "
        f"rests on {design.n_clusters} independent {design.cluster_plural}, and not on all of them alike: p is only "
        "roughly what it says.",
    )
