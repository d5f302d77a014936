"""Familywise error rate of voxels by random field theory."""

from dataclasses import replace

import numpy as np

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.methods import Inference, InferenceSettings
from ibma_app.inference.decide import check_level, decide
from ibma_app.inference.random_fields import KIEBEL_1999, WORSLEY_1996, prepare_search
from ibma_app.stats.rft import height_threshold, peak_log10p


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Correct each voxel's p for the smooth map that is searched (Worsley et al. 1996).

    p is the smaller one of random field theory and Bonferroni, as in SPM, and
    not below the uncorrected.
    """
    alpha = check_level(settings.alpha)
    search = prepare_search(field, "rft-voxel")
    uncorrected = field.log10_p[field.estimable]
    if uncorrected.size == 0:
        return decide(field, uncorrected, alpha, "familywise error rate")
    by_fields = peak_log10p(search.field, search.heights[field.estimable], search.resels)
    bonferroni = uncorrected - np.log10(search.n_voxels)
    found = decide(field, np.minimum(np.maximum(by_fields, bonferroni), uncorrected), alpha, "familywise error rate")
    height = height_threshold(search.field, search.resels, search.n_voxels, alpha)
    return replace(found, facts=(*found.facts, replace(search.facts, height=height)))


INFERENCE = Inference(
    name="rft-voxel",
    title="familywise error rate of voxels (random field theory)",
    infer=infer,
    uses_far_tail=True,
    needs_smoothness=True,
    citations=(WORSLEY_1996, KIEBEL_1999),
)
