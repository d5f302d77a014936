"""The records that methods are: what a table's line points to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate, Field, Null, Significance
from ibma_app.core.grid import Grid


@dataclass(frozen=True)
class Citation:
    """Where a method comes from; text, sidecars and BibTeX are made from it."""

    key: str
    authors: str  # "Knapp G, Hartung J"
    year: int
    title: str
    source: str  # journal, volume, pages; or book and publisher
    doi: str = ""

    @property
    def text(self) -> str:
        """One line for sidecars and reference lists."""
        doi = f" https://doi.org/{self.doi}" if self.doi else ""
        return f"{self.authors} ({self.year}). {self.title}. {self.source}.{doi}"


@dataclass(frozen=True)
class Setting:
    """One setting of a method: its valid choices, the first being the default."""

    choices: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Estimator:
    """A way to combine maps.

    ``fit(block, design, **settings) -> Estimate`` is pure and treats every
    voxel alone.
    """

    name: str
    title: str  # as in a sentence: "restricted maximum likelihood (REML) mixed effects"
    needs: tuple[str, ...]  # of "effect", "variance", "z", "sample_size"
    fit: Callable[..., Estimate]
    citations: tuple[Citation, ...]
    takes_designs: bool = True  # False: one-sample only
    gives: tuple[str, ...] = ()  # maps beyond the test's: of "tau2", "q", "i2", "h2", "prediction"
    settings: Mapping[str, Setting] = field(default_factory=dict)
    clusters: Callable[[Design, Mapping[str, str]], NDArray[np.int64] | None] | None = None
    """Whose errors may depend on each other, (K,), where settings make its error cluster-robust; else None."""


@dataclass(frozen=True)
class InferenceSettings:
    """What every inference may want to know."""

    alpha: float = 0.05
    cluster_p: float = 0.001
    min_extent: int = 0
    permutations: int = 5000  # R: all distinct relabellings when there are no more
    seed: int = 0  # of random relabellings
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """A score made ready for one mask; its work space serves one thread.

    It is given the voxels of one sign whose height (z in the tail's direction)
    exceeds ``floor``: their indices into the mask, ascending, and their
    heights. A floor of -inf says that the score is the height itself.
    """

    floor: float
    largest: Callable[[NDArray[np.int64], NDArray[np.float64]], float]  # (M,), (M,) -> the largest score
    each: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]  # -> (M,) scores


Score = Callable[[Grid, str, InferenceSettings], Scorer]
"""What resampling measures of a map of z: ``score(grid, tail, settings) -> Scorer``."""


@dataclass(frozen=True)
class Inference:
    """A way to decide what is significant: ``infer(field, null, settings) -> Significance``.

    One that resamples has a ``score``, and is given the null of it; the others
    ignore the null.
    """

    name: str
    title: str
    infer: Callable[[Field, Null | None, InferenceSettings], Significance]
    citations: tuple[Citation, ...]
    score: Score | None = None
