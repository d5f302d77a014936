"""Stouffer's z with weights sqrt(sample size)."""

from collections.abc import Mapping

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import TAILS, Design
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, SignedSums
from ibma_app.estimators.from_kernels import check_settings, covered_of, kind_of, one_sample_estimate, sums_of_z
from ibma_app.estimators.references import STOUFFER_1949
from ibma_app.stats.combine import stouffer, stouffer_dependent


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Combine z at each voxel as sum(w z) / sqrt(sum(w²)), w the root of the sample size.

    Of dependent maps it is divided by sqrt(w'Rw), R their correlation.

    One-sample designs only; no effect and no variance. Settings: none.

    Raises
    ------
    DataError
        When a sample size is missing or not positive.
    """
    check_settings("stouffer-weighted", {}, settings)
    sizes = None if block.sample_size is None else np.asarray(block.sample_size, dtype=np.float64)
    if sizes is None or not np.all(np.isfinite(sizes) & (sizes > 0)):
        raise DataError("Estimator stouffer-weighted needs the sample size of every map; use stouffer without.")
    z, covered, weights = kind_of(block, "z"), covered_of(block), np.sqrt(sizes)
    if design.dependence is None:
        combined = stouffer(z, covered, weights)
    else:
        combined = stouffer_dependent(z, covered, weights, design.error_correlation)
    return one_sample_estimate(block, design, dict.fromkeys(TAILS, combined))


def signed_sums(block: VoxelBlock, design: Design, settings: Mapping[str, str]) -> SignedSums:
    """Return z as a function of the maps' signs."""
    return sums_of_z(block, np.sqrt(np.asarray(block.sample_size, dtype=np.float64)))


ESTIMATOR = Estimator(
    name="stouffer-weighted",
    title="Stouffer's combined z weighted by the root of the sample size",
    needs=("z", "sample_size"),
    fit=fit,
    words=(
        Sentence(
            "z values were combined with weights equal to the square root of each sample size. This asks whether there "
            "is evidence for an effect in at least some of the {units}, larger ones counting more, not whether the "
            "effect is consistent over them; units of the effects cancel."
        ),
    ),
    weights="sample_size",
    signed_sums=signed_sums,
    fixed_null=True,
    takes_dependence=True,
    citations=(
        STOUFFER_1949,
        Citation(
            "zaykin2011",
            "Zaykin DV",
            2011,
            "Optimally weighted Z-test is a powerful method for combining probabilities in meta-analysis",
            "Journal of Evolutionary Biology 24, 1836-1841",
            "10.1111/j.1420-9101.2011.02297.x",
        ),
    ),
    takes_designs=False,
)
