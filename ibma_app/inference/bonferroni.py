"""Bonferroni's correction for the number of voxels tested: family-wise error."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.methods import Citation, Inference, InferenceSettings
from ibma_app.inference.decide import CALIBRATE, check_level, decide


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Multiply p by the number of estimable voxels (Dunn 1961)."""
    alpha = check_level(settings.alpha)
    n_tests = max(int(np.count_nonzero(field.estimable)), 1)
    log10_p = field.log10_p[field.estimable] - np.log10(n_tests)
    return decide(field, log10_p, alpha, "family-wise error rate", alpha / n_tests)


def step_down(log10_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p for the family-wise error rate by Holm's step-down procedure, whatever the dependence of the tests.

    The adjusted p of the i-th smallest is the maximum over j <= i of (N - j + 1)·p_(j) (Holm 1979): never
    larger than Bonferroni's.

    Parameters
    ----------
    log10_p : (N,) array
        -log10 p, uncorrected.

    Returns
    -------
    (N,) array
        -log10 of the adjusted p; below 0 stands for p = 1.
    """
    order = np.argsort(-log10_p, kind="stable")
    bounds = log10_p[order] - np.log10(log10_p.size - np.arange(log10_p.size))
    adjusted = np.empty(log10_p.size)
    adjusted[order] = np.minimum.accumulate(bounds)
    return adjusted


HOLM = Citation(
    key="holm1979",
    authors="Holm S",
    year=1979,
    title="A simple sequentially rejective multiple test procedure",
    source="Scandinavian Journal of Statistics 6(2), 65-70",
)
"""The source of `step_down`."""

INFERENCE = Inference(
    name="bonferroni",
    title="Bonferroni correction of the family-wise error rate",
    infer=infer,
    uses_far_tail=True,
    settings={"calibrate": CALIBRATE},
    citations=(
        Citation(
            key="dunn1961",
            authors="Dunn OJ",
            year=1961,
            title="Multiple comparisons among means",
            source="Journal of the American Statistical Association 56(293), 52-64",
            doi="10.1080/01621459.1961.10482090",
        ),
    ),
)
