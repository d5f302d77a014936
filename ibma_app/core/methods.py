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

    choices: tuple[Any, ...]  # of estimators texts; (): the method itself checks what it is given
    meaning: str
    label: str = ""  # what pages call it; "": its own name
    words: Mapping[str, str] = field(default_factory=dict)  # choice -> how pages tell it; "": not at all
    of_design: Callable[[Design], str] | None = None  # the default, where it depends on the design

    def default(self, design: Design | None) -> str:
        """Return the choice that is made where none is given."""
        return self.choices[0] if self.of_design is None or design is None else self.of_design(design)


@dataclass(frozen=True)
class Sentence:
    """Words of an estimator for the methods text, told where they hold.

    ``{units}`` in the text stands for what is combined: runs, subjects or studies.
    """

    text: str
    level: str = ""  # "participant" or "group"; "": both
    when: Mapping[str, str] = field(default_factory=dict)  # setting -> the choice that it must have

    def holds(self, level: str, settings: Mapping[str, str]) -> bool:
        """Tell whether the words are true at a level with these settings, defaults included."""
        return self.level in ("", level) and all(settings.get(name) == choice for name, choice in self.when.items())


@dataclass(frozen=True)
class Estimator:
    """A way to combine maps, and all that the rest of the program asks about it.

    ``fit(block, design, **settings) -> Estimate`` is pure and treats every
    voxel alone. What a record does not say is not said anywhere: without
    ``words`` the methods text has the title and the citations alone.
    """

    name: str
    title: str  # as in a sentence: "restricted maximum likelihood (REML) mixed effects"
    needs: tuple[str, ...]  # of "effect", "variance", "z", "sample_size"
    fit: Callable[..., Estimate]
    citations: tuple[Citation, ...]
    reads: tuple[str, ...] = ()  # "dof": what it uses beside where maps have it
    words: tuple[Sentence, ...] = ()  # what it does, and which question it asks
    caveat: str = ""  # a warning to all who use it at group level
    takes_designs: bool = True  # False: one-sample only
    takes_repeated: bool = False  # several maps of one subject
    takes_unsigned: bool = False  # z made of p without a sign
    gives: tuple[str, ...] = ()  # maps beyond the test's: of "tau2", "q", "i2", "h2", "prediction"
    settings: Mapping[str, Setting] = field(default_factory=dict)
    weights: str = ""  # "variance" (1/(variance + tau2)), "sample_size" (its root), "equal"; "": none that can be told
    has_residuals: bool = False  # it fits a linear model with these weights: residuals have a smoothness
    relabels: str | None = None
    """Whose ordinary least squares it tests, "effect" or "z": residuals under the null are relabelled (Freedman & Lane
    1983), by a fast path unless ``clusters`` tells of some. None: the tested regressors are, and all is fitted anew."""
    clusters: Callable[[Design, Mapping[str, str]], NDArray[np.int64] | None] | None = None
    """Whose errors may depend on each other, (K,), where settings make its error cluster-robust; else None."""
    check: Callable[[Design, Mapping[str, str]], tuple[str, ...]] | None = None
    """Refuses tests that it cannot answer with these settings (DataError); returns warnings."""
    far_tail: Callable[[Mapping[str, str]], str] | None = None
    """What small p are worth with these settings: a caveat for inferences that rest on them, or ""."""
    tau2_method: str | None = None
    """Its z are those of `stats.mixed.fit_mixed` with this method and the setting ``test``: relabelled means of one
    sample take a fast path."""
    fixed_null: bool = False  # z follows a fixed distribution under the null; flipping signs replaces it by symmetry

    @property
    def takes_smoothing(self) -> bool:
        """Whether effect maps may be smoothed: smoothing changes variances in a way that no variance map shows."""
        return "effect" in self.needs and not {"variance", "z"} & set(self.needs)

    def defaults(self, design: Design) -> dict[str, str]:
        """Return the settings where none is given."""
        return {name: setting.default(design) for name, setting in self.settings.items()}


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
class ClusterColumn:
    """A column that an inference adds to its tables of clusters."""

    name: str  # in the table
    label: str  # on pages
    description: str  # in the table's sidecar
    prepare: Callable[[Field, InferenceSettings], Callable[[NDArray[np.int64]], float]]
    """Makes a map ready: what it returns gives a cluster's value, by its voxels' indices into the mask."""
    percent: bool = False  # a share: pages show it in percent


@dataclass(frozen=True)
class Inference:
    """A way to decide what is significant, and all that the rest of the program asks about it.

    What a record does not say is not said anywhere: without ``words`` the
    methods text has the title, the citations, and what the facts tell.

    Every ``infer(field, null, settings) -> Significance`` takes

    - ``field``: one test over the mask, V voxels;
    - ``null``: of the record's ``score``, where it has one; else it ignores it;
    - ``settings``: what it uses of them is in its own docstring or its ``settings``.

    It returns ``log10_p`` (V,), corrected, which is 0 where the test cannot be
    estimated, and what is significant; what else a reader should know are
    ``facts``. It raises `UsageError` when a level is not between 0 and 1, or a
    setting cannot be.
    """

    name: str
    title: str  # as in a sentence: "maximum statistic by resampling"
    infer: Callable[[Field, Null | None, InferenceSettings], Significance]
    citations: tuple[Citation, ...]
    score: Score | None = None
    score_is_height: bool = False  # the score is z itself, in the tail's direction: its threshold is a height
    score_label: str = ""  # the axis of its null's picture: "Largest |z| of the mask"
    needs_smoothness: bool = False  # of the estimator's residuals
    uses_far_tail: bool = False  # it takes small p of single voxels at their word
    words: str = ""  # sentences for the methods text; "{Key}" stands for a fact by its key in the sidecar
    settings: Mapping[str, Setting] = field(default_factory=dict)  # keys of the configuration's table [inference]
    columns: tuple[ClusterColumn, ...] = ()
