"""Same-data meta-analysis by generalised least squares: many analyses of one data set, those unlike others more."""

from collections.abc import Mapping

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import TAILS, Design
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Estimator, Sentence
from ibma_app.estimators.from_kernels import check_settings, covered_of, kind_of, one_sample_estimate
from ibma_app.estimators.sdma_stouffer import CAVEAT, CITATION, SAMPLE
from ibma_app.stats.combine import stouffer_generalised
from ibma_app.stats.dependence import SINGULAR, generalised_weights, smallest_eigenvalue


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Say what the maps are taken for; refuse correlations without an inverse, and say where they were shrunken.

    Raises
    ------
    DataError
        Maps that follow from each other.
    """
    notes = [CAVEAT.format(name="sdma-gls")]
    if design.dependence is None or design.dependence.correlation is None:
        return tuple(notes)
    correlation = design.error_correlation
    if smallest_eigenvalue(correlation) < SINGULAR:
        raise DataError(
            f"sdma-gls weights maps by the inverse of their correlations, which does not exist: some of the "
            f"{len(correlation)} maps follow from others (the same map twice, or more maps than the data tell apart). "
            "Leave those out, or use --estimator sdma-stouffer, which needs no inverse."
        )
    weights, share = generalised_weights(correlation)
    if share > 0.0:
        notes.append(
            f"sdma-gls: some maps would count against what they show (negative weights), as they are most like the "
            f"others: correlations are shrunken by {share:.1%} for the weights, as little as leaves none negative "
            f"({int((weights <= 0).sum())} of {len(weights)} maps have weight 0). sdma-stouffer weights all alike."
        )
    return tuple(notes)


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Combine z at each voxel as 1'R^-1 z / sqrt(1'R^-1 1), R the correlation of the maps over voxels.

    A map counts the more the less it is like the others (Lefort-Besnard, Nichols & Maumet 2025); where weights would
    be negative, R is shrunken for them (`generalised_weights`). One-sample designs only; R is that of
    ``design.dependence``, without it that of independent maps. Settings: none.
    """
    check_settings("sdma-gls", {}, settings)
    combined = stouffer_generalised(kind_of(block, "z"), covered_of(block), design.error_correlation)
    return one_sample_estimate(block, design, dict.fromkeys(TAILS, combined))


ESTIMATOR = Estimator(
    name="sdma-gls",
    title="same-data meta-analysis, generalised least squares of z",
    needs=("z",),
    fit=fit,
    words=(
        Sentence(
            "z values were combined by generalised least squares: weighted by the inverse of the maps' correlations "
            "over voxels, so that a map counts the more the less it is like the others, and divided by the standard "
            "deviation of that sum (Lefort-Besnard et al. 2025)."
        ),
        SAMPLE,
    ),
    fixed_null=True,
    takes_designs=False,
    takes_repeated=True,
    takes_dependence=True,
    same_data=True,
    check=check,
    citations=(CITATION,),
)
