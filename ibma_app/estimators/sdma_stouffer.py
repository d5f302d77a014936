"""Same-data meta-analysis by Stouffer: many analyses of one data set, every one counting the same."""

from collections.abc import Mapping

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import TAILS, Design
from ibma_app.core.estimate import Estimate
from ibma_app.core.methods import Citation, Estimator, Sentence
from ibma_app.estimators.from_kernels import check_settings, covered_of, kind_of, one_sample_estimate
from ibma_app.stats.combine import stouffer_dependent

CAVEAT = (
    "{name}: the maps are taken as analyses of one data set. That many of them agree says that the result does not "
    "hang on one way to analyse these data; they are not as many samples, and nothing is said of other people."
)
CITATION = Citation(
    "lefortbesnard2025",
    "Lefort-Besnard J, Nichols TE, Maumet C",
    2025,
    "Statistical inference for same data meta-analysis in neuroimaging multiverse analyses",
    "Imaging Neuroscience 3",
    "10.1162/imag_a_00513",
)
SAMPLE = Sentence(
    "The maps are analyses of one data set, not as many samples: the result speaks of these data, and agreement "
    "between analyses is no evidence from other people."
)


def check(design: Design, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Say what the maps are taken for."""
    return (CAVEAT.format(name="sdma-stouffer"),)


def fit(block: VoxelBlock, design: Design, **settings: str) -> Estimate:
    """Combine z at each voxel as sum(z) / sqrt(1'R1), R the correlation of the maps over voxels.

    That is the mean z over its standard deviation (Lefort-Besnard, Nichols & Maumet 2025). One-sample designs only; R
    is that of ``design.dependence``, without it that of independent maps. Settings: none.
    """
    check_settings("sdma-stouffer", {}, settings)
    z, covered = kind_of(block, "z"), covered_of(block)
    combined = stouffer_dependent(z, covered, np.ones(z.shape[0]), design.error_correlation)
    return one_sample_estimate(block, design, dict.fromkeys(TAILS, combined))


ESTIMATOR = Estimator(
    name="sdma-stouffer",
    title="same-data meta-analysis, Stouffer's combined z",
    needs=("z",),
    fit=fit,
    words=(
        Sentence(
            "z values of all maps were summed and divided by the standard deviation of that sum, in which the maps are "
            "as correlated as they are over voxels (Lefort-Besnard et al. 2025)."
        ),
        SAMPLE,
    ),
    weights="equal",
    fixed_null=True,
    takes_designs=False,
    takes_repeated=True,
    takes_dependence=True,
    same_data=True,
    check=check,
    citations=(CITATION,),
)
