"""Fisher's combined p: evidence somewhere."""

from collections.abc import Mapping

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence, SignedSums
from ibma_app.estimators.from_kernels import (
    Floats,
    check_settings,
    covered_of,
    kind_of,
    one_sample_estimate,
    tails_of,
)
from ibma_app.stats.combine import fisher, fisher_sums, fisher_z


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Combine p at each voxel by Fisher's -2 sum(log p), chi-square with 2n dof.

    Two directed tests, of P(Z > z) and of P(Z < z); the test's tail decides: z is
    isf(p_up), -isf(p_low), or that of twice the smaller p (at most 1), signed by it.
    Unsigned p come as z = isf(p) and want the positive tail. One-sample designs
    only; no effect and no variance. Settings: none.
    """
    check_settings("fisher", {}, settings)
    z, covered = kind_of(block, "z"), covered_of(block)
    wanted = {tail for test in design.tests for tail in tails_of(test)}
    return one_sample_estimate(block, design, {tail: fisher(z, covered, tail) for tail in sorted(wanted)})


def signed_sums(block: VoxelBlock, design: Design, settings: Mapping[str, str]) -> SignedSums:
    """Return z as a function of the maps' signs, each of which exchanges the two tails of a map's p."""
    covered = covered_of(block)
    terms, constant = fisher_sums(kind_of(block, "z"), covered)
    return SignedSums(terms, np.stack([covered.sum(axis=0).astype(np.float64), constant]), _to_z)


def _to_z(sums: Floats, own: Floats, tail: str) -> Floats:
    """Return z of Fisher's sums of both tails, from n and half of what they sum to."""
    return fisher_z(own[1] + sums, own[1] - sums, own[0], tail)


ESTIMATOR = Estimator(
    name="fisher",
    title="Fisher's combined p",
    needs=("z",),
    fit=fit,
    words=(
        Sentence(
            "p values were combined as minus twice the sum of their logarithms, which is chi-squared with twice as "
            "many dof as there are maps. This asks whether there is evidence for an effect in at least one of the "
            "{units}. Two directed tests are made; a two-sided p is twice the smaller, at most 1, and z carries the "
            "sign of that direction."
        ),
    ),
    takes_unsigned=True,
    weights="equal",
    signed_sums=signed_sums,
    fixed_null=True,
    citations=(
        Citation(
            "fisher1932",
            "Fisher RA",
            1932,
            "Statistical methods for research workers",
            "4th edition, Oliver and Boyd, Edinburgh",
            "",
        ),
    ),
    takes_designs=False,
)
