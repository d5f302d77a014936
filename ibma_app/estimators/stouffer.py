"""Stouffer's z: evidence somewhere, every map counting the same."""

from collections.abc import Mapping

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import TAILS, Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Estimator, Sentence, SignedSums
from ibma_app.estimators.from_kernels import check_settings, covered_of, kind_of, one_sample_estimate, sums_of_z
from ibma_app.estimators.references import STOUFFER_1949
from ibma_app.stats.combine import stouffer, stouffer_dependent


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Combine z at each voxel as sum(z) / sqrt(n); of maps that depend on each other as sum(z) / sqrt(1'R1).

    One-sample designs only; no effect and no variance. Settings: none.
    """
    check_settings("stouffer", {}, settings)
    z = kind_of(block, "z")
    weights, covered = np.ones(z.shape[0]), covered_of(block)
    if design.dependence is None:
        combined = stouffer(z, covered, weights)
    else:
        combined = stouffer_dependent(z, covered, weights, design.error_correlation)
    return one_sample_estimate(block, design, dict.fromkeys(TAILS, combined))


def signed_sums(block: VoxelBlock, design: Design, settings: Mapping[str, str]) -> SignedSums:
    """Return z as a function of the maps' signs."""
    return sums_of_z(block, np.ones(covered_of(block).shape[0]))


ESTIMATOR = Estimator(
    name="stouffer",
    title="Stouffer's combined z",
    needs=("z",),
    fit=fit,
    words=(
        Sentence(
            "z values of all maps were summed and divided by the square root of their number. This asks whether there "
            "is evidence for an effect in at least some of the {units}, not whether the effect is consistent over "
            "them; units of the effects cancel."
        ),
    ),
    weights="equal",
    signed_sums=signed_sums,
    fixed_null=True,
    takes_dependence=True,
    citations=(STOUFFER_1949,),
    takes_designs=False,
)
