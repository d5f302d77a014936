"""What an estimator returns, and what inference sees of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.inference_facts import Facts, Relabelling

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TestEstimate:
    """One test at B (or V) voxels. Where the test cannot be estimated every value is 0."""

    __test__ = False  # pytest: not a test class

    z: Floats  # (B,) signed; upper-tail for F tests and unsigned p
    estimable: NDArray[np.bool_]  # (B,)
    effect: Floats | None = None  # (B,) None for F tests and the Z family
    variance: Floats | None = None  # (B,) squared standard error of effect
    statistic: Floats | None = None  # (B,) t or F; None where z itself is the statistic
    statistic_name: str = "z"  # "t", "F" or "z"
    dof: Floats | None = None  # (B,) of this test; None: those of the estimate


@dataclass(frozen=True, eq=False)
class Estimate:
    """One estimator's fit at B (or V) voxels. None: the estimator has no such map."""

    tests: Mapping[str, TestEstimate]
    n: NDArray[np.int16]  # (B,) maps that cover the voxel
    dof: Floats | None = None  # (B,) denominator dof of t and F; None for z statistics, or where each test has its own
    tau2: Floats | None = None  # (B,)
    q: Floats | None = None  # (B,) Cochran's Q; its dof is n - rank
    q_log10p: Floats | None = None  # (B,) -log10 p of Q
    i2: Floats | None = None  # (B,) percent
    h2: Floats | None = None  # (B,)
    sigma2: Floats | None = None  # (B,) variance within units, where tau2 is that between them
    icc: Floats | None = None  # (B,) tau2 / (tau2 + sigma2)
    omega2: Floats | None = None  # (B,) variance of true effects within clusters, where tau2 is that between them
    i2_between: Floats | None = None  # (B,) percent: the part of tau2 in i2
    i2_within: Floats | None = None  # (B,) percent: the part of omega2
    pilower: Floats | None = None  # (B,) 95 % prediction interval (one-sample designs)
    piupper: Floats | None = None  # (B,)
    tau2_groups: Mapping[str, Floats] | None = None  # group -> (B,): in place of tau2, where each group has its own
    tau2_lower: Floats | None = None  # (B,) 95 % Q-profile interval, when asked for
    tau2_upper: Floats | None = None  # (B,)
    identical: NDArray[np.bool_] | None = None  # (B,) effects identical: not estimable

    def tau2_of(self, groups: Sequence[str] | None, where: slice) -> Floats | None:
        """Return tau2 at some voxels, (M,); of maps in groups that have their own (K,) that of each map, (K, M)."""
        if self.tau2_groups is not None and groups is not None:
            return np.stack([self.tau2_groups[group][where] for group in groups])
        return None if self.tau2 is None else self.tau2[where]

    def dof_of(self, test: str) -> Floats | None:
        """Return the denominator dof of a test by its name, (B,); None for z statistics."""
        own = self.tests[test].dof
        return self.dof if own is None else own


@dataclass(frozen=True)
class Smoothness:
    """The smoothness of the residuals of a fit, as the width of a Gaussian kernel."""

    fwhm: tuple[float, float, float]  # voxels along each axis of the grid
    n_voxels: int  # voxels whose differences to their neighbours were averaged
    n_maps: int  # residual maps that were used


@dataclass(frozen=True, eq=False)
class Field:
    """One test's statistic over the mask, as inference sees it."""

    z: Floats  # (V,)
    tail: str  # "two-sided", "positive" or "negative"
    estimable: NDArray[np.bool_]  # (V,)
    grid: Shape
    log10_p: Floats  # (V,) uncorrected -log10 p in that tail
    statistic: Floats | None = None  # (V,) t or F; None where z itself is the statistic
    statistic_name: str = "z"  # "t", "F" or "z"
    dof: tuple[float, float] | None = None  # of F (t: 1 and dof): the smallest of the estimable voxels; None: of z
    largest_dof: float | None = None  # of the estimable voxels, where they do not share one
    smoothness: Smoothness | None = None  # None: not estimated, or the estimator has no residuals


@dataclass(frozen=True, eq=False)
class Significance:
    """The result of one inference on one test: corrected p, and what is significant."""

    log10_p: Floats  # (V,) corrected -log10 p
    significant: NDArray[np.bool_]  # (V,)
    z_threshold: float | None  # smallest |z| that is significant; None when nothing can be
    facts: tuple[Facts, ...] = ()  # for sidecar and report, in the sidecar's order
    listed: NDArray[np.bool_] | None = None  # (V,) whose clusters the table lists; None: the significant


@dataclass(frozen=True, eq=False)
class Null:
    """The null distribution of one test by resampling: the largest of each score in each relabelling."""

    maxima: Mapping[str, Floats]  # inference name -> (R,) the identity first
    observed: Mapping[str, Floats]  # inference name -> (V,) scores of the identity, computed like those of the others
    exhaustive: bool  # all distinct relabellings, or random ones
    relabelling: Relabelling
    seed: int | None = None  # None when exhaustive
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Name -> number of kinds of structures, where the score is -log10 of the smallest p over kinds, each ranked in its
    own null; names that are not here are scored in one null."""
    ties: int = 1  # relabellings that score as the identity does whatever the data: itself, and its mirror image

    @property
    def resamples(self) -> int:
        """R, the identity included."""
        return int(next(iter(self.maxima.values())).size)

    def smallest_p(self, name: str = "") -> float:
        """Return the smallest p that an inference can reach; of no name, one that is scored in one null."""
        return find_reach(self.ties, self.resamples, self.kinds.get(name, 1))


def find_reach(ties: int, resamples: int, kinds: int = 1) -> float:
    """Return the smallest p that can be reached, whatever the other kinds of structures hold.

    Of kinds that are ranked each in its own null, each has relabellings of its
    own that score highest. They all have the smallest p of their kind, and so
    the same joint score.

    Parameters
    ----------
    ties : int
        Relabellings that score as the identity whatever the data, itself included.
    resamples : int
        R, the identity included.
    kinds : int
    """
    return min(ties * kinds / resamples, 1.0)
