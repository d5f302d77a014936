"""From p to a decision: the level alpha, in logarithms, and what passes it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.inference_facts import LevelFacts, ThresholdFacts
from ibma_app.core.methods import Setting

Floats = NDArray[np.float64]

CALIBRATE = Setting(
    (False, True),
    "whether a mixed model's p are calibrated first: raised by how much too often they come up under the null",
)
"""Of what depends on p of single voxels and on nothing else; who calls `infer` gives it calibrated p."""

SLACK = 1e-12
"""Relative slack of ``-log10 p >= -log10 alpha``: a p of exactly alpha passes despite rounding."""


def check_level(alpha: float, option: str = "--alpha") -> float:
    """Return a level of significance, or refuse one that is none.

    Parameters
    ----------
    alpha : float
        The level.
    option : str
        The option that set it, for the message.

    Returns
    -------
    float

    Raises
    ------
    UsageError
        When it does not lie between 0 and 1.
    """
    if not 0.0 < alpha < 1.0:
        msg = f"{option} is {alpha:g}, but a level of significance lies between 0 and 1, such as 0.05."
        raise UsageError(msg)
    return float(alpha)


def passes(log10_p: Floats, alpha: float) -> NDArray[np.bool_]:
    """Find where p <= alpha, by -log10 p (V,)."""
    passed: NDArray[np.bool_] = log10_p >= -np.log10(alpha) * (1.0 - SLACK)
    return passed


def decide(
    field: Field,
    log10_p: Floats,
    level: float,
    control: str,
    p_threshold: float | None = None,
    *,
    of_subsets: bool = True,
) -> Significance:
    """Lay corrected p over the mask and mark what passes the level.

    Parameters
    ----------
    field : Field
        One test over the mask, V voxels, of which N are estimable.
    log10_p : (N,) array
        Corrected -log10 p of the estimable voxels; below 0 stands for p = 1.
    level : float
        p at or below it is significant.
    control : str
        What stays below the level, for sidecar and report.
    p_threshold : float, optional
        The uncorrected p to which the level corresponds; by default that of the
        weakest significant voxel, None when no voxel is significant.
    of_subsets : bool
        Whether what stays below the level does so, too, where some of what is
        significant is left out.

    Returns
    -------
    Significance
        p is 1 and nothing is significant where the test is not estimable.
        ``z_threshold`` is the smallest significant |z|, None when there is none.
    """
    everywhere = np.zeros(field.z.shape)
    everywhere[field.estimable] = np.maximum(log10_p, 0.0)
    significant = passes(everywhere, level) & field.estimable
    if significant.any() and p_threshold is None:
        p_threshold = float(10.0 ** -field.log10_p[significant].min())
    facts = (replace(level_facts(field, level, control), of_subsets=of_subsets), ThresholdFacts(p_threshold))
    return Significance(everywhere, significant, weakest_z(field, significant), facts)


def weakest_z(field: Field, significant: NDArray[np.bool_]) -> float | None:
    """Return the smallest |z| that is significant, (V,); None where none is."""
    return float(np.abs(field.z[significant]).min()) if significant.any() else None


def level_facts(field: Field, level: float, control: str, *, is_bound: bool = False) -> LevelFacts:
    """State what stays below the level, and of how many voxels."""
    return LevelFacts(level, control, int(np.count_nonzero(field.estimable)), is_bound)
