"""False discovery rate by Benjamini and Hochberg's step-up procedure."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.methods import Citation, Inference, InferenceSettings
from ibma_app.inference.decide import CALIBRATE, check_level, decide


def step_up(log10_p: NDArray[np.float64], log10_penalty: float = 0.0) -> NDArray[np.float64]:
    """Adjust p for the false discovery rate, in logarithms so that tiny p keep their order.

    The adjusted p of the i-th smallest is the minimum over j >= i of
    p_(j)·N·penalty / j (Benjamini and Hochberg 1995; Yekutieli and Benjamini 1999).

    Parameters
    ----------
    log10_p : (N,) array
        -log10 p, uncorrected.
    log10_penalty : float
        log10 of a factor on every p; 0 for Benjamini-Hochberg.

    Returns
    -------
    (N,) array
        -log10 of the adjusted p; below 0 stands for p = 1.
    """
    n_tests = log10_p.size
    order = np.argsort(-log10_p, kind="stable")
    ranks = np.arange(1, n_tests + 1)
    bounds = log10_p[order] + np.log10(ranks) - np.log10(max(n_tests, 1)) - log10_penalty
    adjusted = np.empty(n_tests)
    adjusted[order] = np.maximum.accumulate(bounds[::-1])[::-1]
    return adjusted


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Control the false discovery rate at alpha (Benjamini and Hochberg 1995).

    Valid for independent and positively dependent tests; maps are taken to be the latter.
    """
    alpha = check_level(settings.alpha)
    return decide(field, step_up(field.log10_p[field.estimable]), alpha, "false discovery rate", of_subsets=False)


INFERENCE = Inference(
    name="fdr",
    title="false discovery rate (Benjamini-Hochberg)",
    infer=infer,
    uses_far_tail=True,
    settings={"calibrate": CALIBRATE},
    citations=(
        Citation(
            key="benjamini1995",
            authors="Benjamini Y, Hochberg Y",
            year=1995,
            title="Controlling the false discovery rate: a practical and powerful approach to multiple testing",
            source="Journal of the Royal Statistical Society B 57(1), 289-300",
            doi="10.1111/j.2517-6161.1995.tb02031.x",
        ),
    ),
)
