"""What files and messages say of errors of maps that depend on each other: cluster-robust ones, mixed models."""

import logging
from typing import Any

import numpy as np

from ibma_app.core.design import noun_of, plural_of
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
    """Return the key ``Errors``, and where maps depend on each other ``Clusters``, their number and the fewest dof."""
    sidecar: dict[str, Any] = {"Errors": model.settings["errors"]} if "errors" in model.settings else {}
    if model.clusters is not None:
        sidecar["Clusters"] = _name(model) or "each map"
        sidecar["NumberOfClusters"] = _count(model)
        fewest = smallest_dof(estimate)
        if fewest:
            sidecar["SmallestDegreesOfFreedom"] = round(min(fewest.values()), 6)
    return sidecar


def log_dof(model: Model, estimate: Estimate) -> None:
    """Log the fewest degrees of freedom of each test where maps depend on each other."""
    if model.clusters is None:
        return
    fewest = ", ".join(f"{name} {dof:.4g}" for name, dof in smallest_dof(estimate).items())
    log.info(
        "%s of %d independent %s; degrees of freedom (the fewest of any voxel): %s.",
        _error(model), _count(model), plural_of(noun_of(_name(model))), fewest or "none",
    )  # fmt: skip


def dof_notes(model: Model, estimate: Estimate) -> tuple[str, ...]:
    """Warn of tests with few degrees of freedom, where maps depend on each other."""
    if model.clusters is None:
        return ()
    few = [f"{name} ({dof:.3g})" for name, dof in smallest_dof(estimate).items() if dof < FEW_DOF]
    if not few:
        return ()
    error = _error(model)
    return (
        f"{model.estimator.name}: degrees of freedom below {FEW_DOF:g}: {', '.join(few)}. The {error[0].lower()}"
        f"{error[1:]} rests on {_count(model)} independent {plural_of(noun_of(_name(model)))}, and not on all of them "
        "alike: p is only roughly what it says.",
    )


def _name(model: Model) -> str:
    """Return the column that names the clusters; "": each map is one."""
    design = model.design
    units = design.units is not None and model.clusters is not None and np.array_equal(model.clusters, design.units)
    return design.unit_name if units and model.estimator.models_clusters else design.cluster_name


def _count(model: Model) -> int:
    return 0 if model.clusters is None else int(np.unique(model.clusters).size)


def _error(model: Model) -> str:
    robust = model.settings.get("errors", "sandwich") == "sandwich" and "errors" in model.estimator.settings
    return "Cluster-robust error" if robust else "Mixed model"
