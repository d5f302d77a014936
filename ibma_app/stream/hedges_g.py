"""Standardised effects: Hedges' g and its variance from t and sample size (``--units hedges-g``)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.errors import DataError
from ibma_app.core.statmap import Observation

Floats = NDArray[np.float64]

SMALLEST_DOF = 3.0  # one group of 4: with fewer the variance of g does not exist


@dataclass(frozen=True)
class Sample:
    """The people behind a t map: d is t over the root of ``n``."""

    n: float  # of one group; of two groups n1 n2 / (n1 + n2)
    dof: float


def find_sample(observation: Observation, n1: float | None = None, n2: float | None = None) -> Sample:
    """Tell the sample of a study: one group of its sample size, or two groups.

    Parameters
    ----------
    observation : Observation
        Its sample size counts when there is no ``n1``.
    n1, n2 : float, optional
        The sizes of two groups that are compared.

    Raises
    ------
    DataError
        The size is unknown, or too small for a variance (n < 4).
    """
    if n1 is not None and n2 is not None and np.isfinite(n1) and np.isfinite(n2):
        sample = Sample(n1 * n2 / (n1 + n2) if n1 + n2 else 0.0, n1 + n2 - 2.0)
    elif observation.sample_size is not None:
        sample = Sample(float(observation.sample_size), float(observation.sample_size) - 1.0)
    else:
        raise DataError(
            f"{observation.label}: --units hedges-g needs its sample size. Give SampleSize in the sidecar of "
            f"{observation.path}, or sample_size (or n1 and n2) in studies.tsv."
        )
    if sample.dof < SMALLEST_DOF or sample.n <= 0:
        raise DataError(
            f"{observation.label}: --units hedges-g is refused for fewer than 4 people, as the variance of "
            "g does not "
            f"exist ({observation.path}). Leave it out."
        )
    return sample


def hedges_g(t: Floats, sample: Sample) -> tuple[Floats, Floats]:
    """Turn t into Hedges' g and its sampling variance.

    With m the dof, n the (effective) sample size and the exact factor
    J = gamma(m/2) / (sqrt(m/2) gamma((m-1)/2)): g = J t / sqrt(n), and
    variance J² m/(m-2) (1/n + g²) - g², the variance of a noncentral t's
    multiple with g for the true effect.

    Parameters
    ----------
    t : ndarray
        Any shape.
    sample : Sample
        Whom it speaks of.

    References
    ----------
    Hedges LV (1981). Distribution theory for Glass's estimator of effect size
    and related estimators. Journal of Educational Statistics 6, 107-128.
    """
    m, n = sample.dof, sample.n
    factor = float(np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2))
    g = factor * t / np.sqrt(n)
    return g, factor**2 * m / (m - 2) * (1 / n + g**2) - g**2
