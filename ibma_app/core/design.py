"""A design matrix, and the tests on its columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.labels import LONGEST, shorten

TAILS = ("two-sided", "positive", "negative")


@dataclass(frozen=True, eq=False)
class Test:
    """One hypothesis about the design's columns: a t test (one row) or an F test.

    A test of several rows is always an F test, one of a single row with
    ``is_f``. The tail of F tests is "positive", whatever was given.
    """

    __test__ = False  # pytest: not a test class

    name: str
    weights: NDArray[np.float64]  # (Q, P)
    tail: str = "two-sided"
    is_f: bool = False
    title: str = ""  # what its user or the formula calls it; ``name`` is the label made of it
    of: tuple[str, ...] = ()  # a conjunction: the t tests, one a row, that are significant together where it is
    unsigned: bool = False  # its maps are p without a sign: z is that of the evidence, whatever its direction

    def __post_init__(self) -> None:
        if self.is_f or (np.atleast_2d(self.weights).shape[0] > 1 and not self.of):
            object.__setattr__(self, "is_f", True)
            object.__setattr__(self, "tail", "positive")

    @property
    def signed(self) -> bool:
        """Whether a z below 0 is an effect in the other direction: not of F tests, nor of p without a sign."""
        return not (self.is_f or self.unsigned)


def noun_of(column: str) -> str:
    """Return the word for what a column names: participant, study, cluster, or map where there is no column."""
    return column.removesuffix("_id") or "map"


def plural_of(noun: str) -> str:
    """Return the plural of that word."""
    return "studies" if noun == "study" else f"{noun}s"


@dataclass(frozen=True, eq=False)
class Cell:
    """One combination of the levels of a design's factors: its mean is a combination of the columns."""

    name: str  # "session 1, group p"
    weights: NDArray[np.float64]  # (P,), with other covariates at their means
    rows: tuple[int, ...]  # its maps


@dataclass(frozen=True, eq=False)
class Covariate:
    """A numeric variable of the formula."""

    name: str
    values: NDArray[np.float64]  # (K,)
    columns: tuple[int, ...]  # of the design, that it is part of


@dataclass(frozen=True, eq=False)
class Dependence:
    """How the sampling errors (or z) of an analysis's maps are correlated."""

    source: str  # "cluster" or "same-data" (estimated), or the name of a file
    parts: NDArray[np.int64]  # (K,) 0 to m - 1: maps of different numbers are independent
    correlation: NDArray[np.float64] | None = None  # (K, K); None: not estimated yet
    shrunk: float = 0.0  # share taken off estimated correlations, so that they are positive definite
    shared_people: bool = False  # a file states numbers of people that maps share

    @property
    def largest(self) -> float:
        """The largest correlation of two maps."""
        if self.correlation is None or len(self.correlation) < 2:
            return 0.0
        return float(self.correlation[~np.eye(len(self.correlation), dtype=bool)].max())

    @property
    def effective_maps(self) -> float:
        """The number of independent maps whose mean z has the variance of these: K² / 1'R1."""
        return 0.0 if self.correlation is None else float(len(self.correlation) ** 2 / self.correlation.sum())


@dataclass(frozen=True, eq=False)
class Design:
    """A full-rank design matrix, its tests, and which maps may be exchanged."""

    matrix: NDArray[np.float64]  # (K, P)
    columns: tuple[str, ...]
    tests: tuple[Test, ...]
    formula: str = "1"
    exchangeability: NDArray[np.int64] | None = None  # (K,) block of each row
    nuisance: tuple[str, ...] = ()  # subject columns: never tested by default
    repeated: bool = False  # several maps per subject
    notes: tuple[str, ...] = ()
    through_origin: bool | None = None  # estimates of tau2 ask for it; None: the columns do not span a constant
    whole_blocks: bool = False  # whole blocks are exchanged, not the rows within them
    clusters: NDArray[np.int64] | None = None  # (K,) 0 to m - 1: maps whose errors may be dependent; None: none are
    cluster_name: str = ""  # the column that names the clusters
    cluster_labels: tuple[str, ...] = ()  # (K,) its labels; of a map without one, its own subject's or study's
    places: NDArray[np.int64] | None = (
        None  # (K,) rows of one number are one condition of their clusters; None: all are
    )
    units: NDArray[np.int64] | None = None
    """(K,) 0 to m - 1: maps of one number have an effect in common. Participants where they have several maps, whatever
    the clusters; else the clusters. None: none have."""
    unit_name: str = ""  # the column that names them
    dependence: Dependence | None = None  # of sampling errors; None: they are independent
    groupings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # covariate -> (K,) the group of each map
    cells: tuple[Cell, ...] = ()  # empty: no factors, or too many cells to show
    covariates: tuple[Covariate, ...] = ()
    groups: tuple[str, ...] = ()  # (K,) "group p": level of the first factor that does not vary within units

    @property
    def one_sample(self) -> bool:
        """Whether the design is an intercept alone."""
        return self.matrix.shape[1] == 1 and bool(np.all(self.matrix == 1.0))

    @property
    def error_correlation(self) -> NDArray[np.float64]:
        """The correlation of the maps' sampling errors, (K, K)."""
        known = None if self.dependence is None else self.dependence.correlation
        return np.eye(len(self.matrix)) if known is None else known

    @property
    def n_clusters(self) -> int:
        """Number of clusters; the number of maps where there are none."""
        return len(self.matrix) if self.clusters is None else int(self.clusters.max(initial=-1)) + 1

    @property
    def cluster_noun(self) -> str:
        """The word for a cluster: participant, study, cluster, or map."""
        return noun_of(self.cluster_name)

    @property
    def cluster_plural(self) -> str:
        """The plural of that word."""
        return plural_of(self.cluster_noun)

    @property
    def dependent(self) -> bool:
        """Whether a cluster has several maps."""
        return self.n_clusters < len(self.matrix)

    def conjoin(self, names: Sequence[str]) -> Test:
        """Make the conjunction of some of its t tests: ``old`` and ``young`` become ``oldAndYoung``."""
        by_name = {test.name: test for test in self.tests}
        tests = [by_name[name] for name in names]
        label = shorten(names[0] + "".join(f"And{name[:1].upper()}{name[1:]}" for name in names[1:]), LONGEST)
        rows = np.concatenate([np.atleast_2d(test.weights) for test in tests])
        title = " and ".join(test.title or test.name for test in tests)
        return Test(label, rows, tests[0].tail, title=title, of=tuple(names))

    def tests_mean(self, test: Test) -> bool:
        """Whether a test is of the mean of the maps itself."""
        return self.one_sample and not test.is_f and float(np.ravel(test.weights)[0]) == 1.0
