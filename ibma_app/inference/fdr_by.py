"""False discovery rate under any dependence, by Benjamini and Yekutieli's procedure."""

import numpy as np

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.methods import Citation, Inference, InferenceSettings
from ibma_app.inference.decide import CALIBRATE, check_level, decide
from ibma_app.inference.fdr import step_up


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Control the false discovery rate at alpha whatever the dependence (Benjamini and Yekutieli 2001)."""
    alpha = check_level(settings.alpha)
    log10_p = field.log10_p[field.estimable]
    # the price of arbitrary dependence: the harmonic number 1 + 1/2 + ... + 1/N
    harmonic = np.sum(1.0 / np.arange(1, max(log10_p.size, 1) + 1))
    adjusted = step_up(log10_p, float(np.log10(harmonic)))
    return decide(field, adjusted, alpha, "false discovery rate under any dependence", of_subsets=False)


INFERENCE = Inference(
    name="fdr-by",
    title="false discovery rate under any dependence (Benjamini-Yekutieli)",
    infer=infer,
    uses_far_tail=True,
    settings={"calibrate": CALIBRATE},
    citations=(
        Citation(
            key="benjamini2001",
            authors="Benjamini Y, Yekutieli D",
            year=2001,
            title="The control of the false discovery rate in multiple testing under dependency",
            source="Annals of Statistics 29(4), 1165-1188",
            doi="10.1214/aos/1013699998",
        ),
    ),
)
