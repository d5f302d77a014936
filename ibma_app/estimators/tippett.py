"""Tippett's smallest p: evidence in at least one map."""

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence
from ibma_app.estimators.from_kernels import check_settings, covered_of, kind_of, one_sample_estimate, tails_of
from ibma_app.stats.combine import tippett


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Combine p at each voxel by Tippett's smallest p: 1 - (1 - min p)^n.

    Two directed tests, of P(Z > z) and of P(Z < z); the test's tail decides: z is
    isf(p_up), -isf(p_low), or that of twice the smaller p (at most 1), signed by it.
    Unsigned p come as z = isf(p) and want the positive tail. One-sample designs
    only; no effect and no variance. Settings: none.
    """
    check_settings("tippett", {}, settings)
    z, covered = kind_of(block, "z"), covered_of(block)
    wanted = {tail for test in design.tests for tail in tails_of(test)}
    return one_sample_estimate(block, design, {tail: tippett(z, covered, tail) for tail in sorted(wanted)})


ESTIMATOR = Estimator(
    name="tippett",
    title="Tippett's smallest p",
    needs=("z",),
    fit=fit,
    words=(
        Sentence(
            "The smallest p value of all maps was tested against what is expected of the smallest of as many. This "
            "asks whether there is evidence for an effect in at least one of the {units}. Two directed tests are made; "
            "a two-sided p is twice the smaller, at most 1, and z carries the sign of that direction."
        ),
    ),
    weights="equal",
    one_map_decides=True,
    fixed_null=True,
    citations=(
        Citation(
            "tippett1931",
            "Tippett LHC",
            1931,
            "The methods of statistics",
            "Williams and Norgate, London",
            "",
        ),
    ),
    takes_designs=False,
)
