"""Standardised effects: Hedges' g and its variance from t and sample size (``--units hedges-g``)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.errors import DataError
from ibma_app.core.statmap import Observation
from ibma_app.stream.convert import Converted

Floats = NDArray[np.float64]

SMALLEST_DOF = 3.0  # one group of 4: with fewer the variance of g does not exist
ROUNDING = 0.5  # a map whose degrees of freedom are this near to n - 1 is of one sample
FEWEST_POOLED = 5
"""Studies from which on the variances use their mean g; that of fewer is hardly more precise than each one's own."""
STUDY_DESIGNS = ("one-sample", "paired", "two-sample")
"""Values of the column ``design`` of studies.tsv."""


@dataclass(frozen=True)
class Sample:
    """The people behind a t map: d is t over the square root of ``n``."""

    n: float  # of one group; of two groups n1 n2 / (n1 + n2)
    dof: float
    two_groups: bool = False


@dataclass(frozen=True)
class Stated:
    """What studies.tsv states about a study's sample."""

    n1: float | None = None  # sizes of two groups that are compared
    n2: float | None = None
    design: str | None = None  # one of STUDY_DESIGNS


NOTHING_STATED = Stated()


def find_sample(observation: Observation, stated: Stated = NOTHING_STATED) -> Sample:
    """Return the sample of a study: one group (or pairs) of its sample size, or two groups.

    The degrees of freedom are those of the map where they are known (a
    covariate costs one), else n - 1 or n1 + n2 - 2.

    Parameters
    ----------
    observation : Observation
        Its sample size is used when ``n1`` and ``n2`` are not stated.
    stated : Stated
        What studies.tsv states.

    Raises
    ------
    DataError
        The size is unknown, or too small for a variance (n < 4), or stated
        in two ways that differ; or the degrees of freedom do not fit one
        sample, and studies.tsv does not state the design.
    """
    n1, n2, design = stated.n1, stated.n2, stated.design
    if design is not None and design not in STUDY_DESIGNS:
        raise DataError(
            f"{observation.label}: the design {design!r} in studies.tsv is unknown. Choose from: "
            f"{', '.join(STUDY_DESIGNS)}."
        )
    known = observation.dof if observation.dof_source in ("sidecar", "design", "--dof") else None
    if (n1 is None) != (n2 is None):
        there, lacking = ("n1", "n2") if n2 is None else ("n2", "n1")
        raise DataError(
            f"{observation.label}: studies.tsv states {there} and not {lacking}; a comparison of two groups needs "
            f"both. Give {lacking}, or leave {there} empty where the map is of one group."
        )
    if n1 is not None and n2 is not None:
        if observation.sample_size is not None and n1 + n2 > observation.sample_size + ROUNDING:  # a third may be there
            raise DataError(
                f"{observation.label}: n1 + n2 is {n1 + n2:g} by studies.tsv, and the sample size of "
                f"{observation.path} is {observation.sample_size:g}. Correct the one that is wrong."
            )
        sample = Sample(n1 * n2 / (n1 + n2) if n1 + n2 else 0.0, known or n1 + n2 - 2.0, two_groups=True)
    elif design == "two-sample":
        raise DataError(
            f"{observation.label}: studies.tsv calls it two-sample, so --units hedges-g needs the sizes of both "
            "groups: give them as n1 and n2 in studies.tsv."
        )
    elif observation.sample_size is not None:
        size = float(observation.sample_size)
        if known is not None and design is None and abs(known - (size - 2.0)) <= ROUNDING:
            raise _no_single_sample(observation, size, known)
        sample = Sample(size, known or size - 1.0)
    else:
        raise DataError(
            f"{observation.label}: --units hedges-g needs its sample size. Give SampleSize in the sidecar of "
            f"{observation.path}, or sample_size (or n1 and n2) in studies.tsv."
        )
    if sample.dof < SMALLEST_DOF or sample.n <= 0:
        raise DataError(
            f"{observation.label}: --units hedges-g is refused for fewer than 4 people, as the variance of g does not "
            f"exist ({observation.path}). Leave it out."
        )
    return sample


def _no_single_sample(observation: Observation, size: float, dof: float) -> DataError:
    """Word the failure of a map whose degrees of freedom are those of two groups, or of one with a covariate."""
    return DataError(
        f"{observation.label}: {dof:g} degrees of freedom of {size:g} people are those of two groups, or of one with "
        f"a covariate ({observation.path}), and --units hedges-g needs to know: a difference of two groups taken for "
        "one sample has half the g and four times the weight. In studies.tsv, give n1 and n2 for two groups; or a "
        "column design that says one-sample or paired."
    )


def describe_dof(observations: Sequence[Observation], samples: Sequence[Sample]) -> str | None:
    """Name the studies whose t has more dof than people allow: it is not of the variance between people."""
    odd = [
        one.label
        for one, sample in zip(observations, samples, strict=True)
        if not sample.two_groups and sample.dof > sample.n - 1.0 + ROUNDING
    ]
    if not odd:
        return None
    return (
        f"t of {', '.join(odd)} has more degrees of freedom than people less one: was it tested against the variance "
        "within people (fixed effects)? Then g is too large."
    )


def describe_mixture(samples: Sequence[Sample]) -> str | None:
    """Describe a mixture of differences between groups and effects within people; None where there is none."""
    two = sum(sample.two_groups for sample in samples)
    if not 0 < two < len(samples):
        return None
    return (
        f"Hedges' g of {two} of {len(samples)} studies is of a difference between two groups (in units of people's "
        "standard deviation), of the others within people (in units of the standard deviation of their contrast): they "
        "are not on one scale unless those two are alike."
    )


def hedges_g(t: Floats, sample: Sample) -> tuple[Floats, Floats]:
    """Turn t into Hedges' g and its sampling variance.

    With m the dof, n the (effective) sample size and the exact factor
    J = gamma(m/2) / (sqrt(m/2) gamma((m-1)/2)): g = J t / sqrt(n), and
    variance J² m/(m-2) (1/n + g²) - g², which is the variance of J t / sqrt(n)
    for a noncentral t, with g in place of the true effect.

    Parameters
    ----------
    t : ndarray
        Any shape.
    sample : Sample

    References
    ----------
    Hedges LV (1981). Distribution theory for Glass's estimator of effect size
    and related estimators. Journal of Educational Statistics 6, 107-128.
    """
    g = _factor(sample.dof) * t / np.sqrt(sample.n)
    constant, slope = _variance_terms(sample)
    return g, constant + slope * g**2


def standardise(converted: Converted, sample: Sample) -> Converted:
    """Turn the t of a converted map into Hedges' g and its variance."""
    values = dict(converted.values)
    values["effect"], values["variance"] = hedges_g(values.pop("t").astype(np.float64), sample)
    derived = (*converted.derived, "effect and variance as Hedges' g from t and sample size")
    return replace(converted, values=values, derived=derived)


def pool_variances(g: Floats, covered: NDArray[np.bool_], samples: Sequence[Sample]) -> Floats:
    """Return the sampling variances of g, with the voxel's mean g in place of the true effect.

    With each study's own g, its weight 1/variance depends on its error: the
    weighted mean is then biased towards 0, and Q too small. The mean over the
    studies, weighted by n, is the same for all (as metafor's ``vtype="AV"``).

    Parameters
    ----------
    g : (K, B) array
        0 where not covered.
    covered : (K, B) array of bool
    samples : sequence of Sample, length K

    Returns
    -------
    (K, B) array
        0 where not covered. With fewer than 5 studies, each one's own g is used.
    """
    constant, slope = np.array([_variance_terms(sample) for sample in samples]).T
    if len(samples) < FEWEST_POOLED:
        own: Floats = np.where(covered, constant[:, None] + slope[:, None] * g**2, 0.0)
        return own
    n = np.array([sample.n for sample in samples])
    total = n @ covered
    mean = np.divide(n @ g, total, out=np.zeros(g.shape[1]), where=total > 0)
    variance: Floats = np.where(covered, constant[:, None] + slope[:, None] * mean**2, 0.0)
    return variance


def _factor(m: float) -> float:
    """Return the exact factor that makes g unbiased."""
    return float(np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2))


def _variance_terms(sample: Sample) -> tuple[float, float]:
    """Return a and b of the variance a + b g²."""
    m = sample.dof
    inflated = _factor(m) ** 2 * m / (m - 2)
    return inflated / sample.n, inflated - 1.0
