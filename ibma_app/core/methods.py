"""The records of methods: each estimator and each inference is one, with settings and citations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Design
from ibma_app.core.estimate import Estimate, Field, Null, Significance
from ibma_app.core.inference_facts import Bound, Fact, WarningFact


@dataclass(frozen=True)
class Citation:
    """The source of a method; reference lists, sidecars and BibTeX are made from it."""

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

    choices: tuple[Any, ...]  # of estimators texts; (): the method checks the value itself, and "" is the default
    meaning: str
    label: str = ""  # on pages; "": its own name
    words: Mapping[str, str] = field(default_factory=dict)  # choice -> its words on pages; "": not shown
    of_design: Callable[[Design], str] | None = None  # the default, where it depends on the design

    def default(self, design: Design | None) -> str:
        """Return the choice when none is given."""
        if self.of_design is not None and design is not None:
            return self.of_design(design)
        return self.choices[0] if self.choices else ""


@dataclass(frozen=True)
class Sentence:
    """A sentence on an estimator for the methods text, which is left out where it does not hold.

    ``{units}`` in the text stands for what is combined: runs, subjects or studies; a setting's name for its choice.
    """

    text: str
    level: str = ""  # "participant" or "group"; "": both
    when: Mapping[str, str] = field(default_factory=dict)  # setting -> the choice that it must have
    unless: Mapping[str, str] = field(default_factory=dict)  # setting -> the choice that it must not have

    def holds(self, level: str, settings: Mapping[str, str]) -> bool:
        """Return whether the sentence is true at a level with these settings, defaults included."""
        return (
            self.level in ("", level)
            and all(settings.get(name) == choice for name, choice in self.when.items())
            and not any(settings.get(name) == choice for name, choice in self.unless.items())
        )


@dataclass(frozen=True, eq=False)
class SignedSums:
    """z of a test of one sample's mean, as a function of a sum over maps that change sign.

    ``to_z(sums, own, tail) -> z``, from (M,), (R, M) and the test's tail, is z of the
    estimator's ``fit`` where ``sums`` are those of ``sign * terms``; it rises with
    them and, in two-sided tests, changes sign with them. It is a function of a module, for other processes.
    """

    terms: NDArray[np.float64]  # (K, B) 0 where a map does not cover
    own: NDArray[np.float64]  # (R, B) what else z depends on at a voxel, whatever the signs
    to_z: Callable[[NDArray[np.float64], NDArray[np.float64], str], NDArray[np.float64]]

    def without_terms(self) -> "SignedSums":
        """Return the function alone."""
        return replace(self, terms=self.terms[:, :0], own=self.own[:, :0])


@dataclass(frozen=True)
class Estimator:
    """A way to combine maps, with all that the rest of the program needs to know about it.

    ``fit(block, design, **settings) -> Estimate`` is pure, and its result at a
    voxel depends on that voxel alone. Nothing is said about an estimator but
    what stands in its record: without ``words`` the methods text has its title
    and citations only.
    """

    name: str
    title: str  # as in a sentence: "restricted maximum likelihood (REML) mixed effects"
    needs: tuple[str, ...]  # of "effect", "variance", "z", "sample_size"
    fit: Callable[..., Estimate]
    citations: tuple[Citation, ...]
    reads: tuple[str, ...] = ()  # "dof": used, too, where maps have it
    words: tuple[Sentence, ...] = ()  # what it does, and which question it asks
    caveat: str = ""  # a warning whenever it is used at group level
    takes_designs: bool = True  # False: one-sample only
    takes_repeated: bool = False  # several maps of one subject or study
    models_clusters: bool = False  # its model says how the maps of one cluster (`Design.clusters`) depend on each other
    takes_dependence: bool = False  # maps whose sampling errors are correlated (`Design.dependence`)
    same_data: bool = False  # all maps are of the same data: their correlation is needed, and estimated
    takes_unsigned: bool = False  # z made of p without a sign
    gives: tuple[str, ...] = ()
    """Maps besides those of the test: of "tau2", "q", "i2", "h2", "sigma2", "icc", "omega2", "prediction"."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    weights: str = ""  # "variance" (1/(variance + tau2)), "sample_size" (its square root), "equal"; "": others
    has_residuals: bool = False  # it fits a linear model with these weights, whose residuals have a smoothness
    relabels: str | None = None
    """"effect" or "z" whose residuals under the null are relabelled (Freedman & Lane 1983): by a fast path, as it is
    ordinary least squares of these where maps are independent. None: the tested regressors are relabelled, and it is
    fitted again each time, as is what models clusters."""
    clusters: Callable[[Design, Mapping[str, str]], NDArray[np.int64] | None] | None = None
    """Returns the cluster of each map, (K,), where with these settings maps of one may depend on each other; else None.
    Whole clusters are relabelled."""
    variance_groups: Callable[[Design, Mapping[str, str]], tuple[str, ...] | None] | None = None
    """Returns the group of each map, (K,), where settings give each group a variance between maps of its own; else
    None. Maps of different groups are not exchangeable then: residuals under the null change sign."""
    if_groups_differ: str = ""
    """The setting that lets groups of maps differ in variance, as a line of the configuration; ``{column}`` stands for
    the covariate that names the groups. "": there is none."""
    check: Callable[[Design, Mapping[str, str]], tuple[str, ...]] | None = None
    """Refuses tests that it cannot answer with these settings (DataError); returns warnings."""
    remark: Callable[[Estimate, Mapping[str, str]], tuple[Fact | WarningFact, ...]] | None = None
    """Returns what a fit shows that bears on its standard errors with these settings: values for sidecar and page, and
    warnings."""
    far_tail: Callable[[Design, Mapping[str, str]], str] | None = None
    """Returns a caveat on small p of a design with these settings, for inferences that depend on them, or ""."""
    one_variance: Callable[[Design, Mapping[str, str]], bool] | None = None
    """Returns whether, with these settings, independent maps share one variance about the design, which its t and F
    compare effects with: among subjects effects are standardised by it. None: never."""
    tau2_method: str | None = None
    """Its z are those of `stats.mixed.fit_mixed` with this method and the setting ``test``: relabelled maps take a fast
    path."""
    signed_sums: Callable[[Any, Design, Mapping[str, str]], SignedSums] | None = None
    """Returns, from a `VoxelBlock`, its one-sample t or z as a function of the maps' signs, by which flips take a fast
    path; not asked where ``clusters`` answers."""
    flip_bounds: Callable[[Any, Design, Mapping[str, str], NDArray[np.float64]], NDArray[np.float32]] | None = None
    """Returns, from a `VoxelBlock`, a design with one test and signs (R, K) of its maps, what an F above 1 does not
    exceed with these (of one row t squared, with the sign of t), (R, B); infinite where unknown. Flips are faster."""
    one_map_decides: bool = False
    """Its z is that of a single map, which half of all sign flips leave as it is: resampling finds nothing."""
    fixed_null: bool = False
    """It combines the maps' own z (or p) as standard normal under the null; flipping signs asks for their symmetry
    instead, and the methods text says so. Of what combines effects it is not true, be its test's null fixed or not."""

    @property
    def takes_smoothing(self) -> bool:
        """Whether effect maps may be smoothed: smoothing changes variances in a way that no variance map shows."""
        return "effect" in self.needs and not {"variance", "z"} & set(self.needs)

    def defaults(self, design: Design) -> dict[str, str]:
        """Return the settings where none is given."""
        return {name: setting.default(design) for name, setting in self.settings.items()}


@dataclass(frozen=True)
class InferenceSettings:
    """The options of inference, as the user gave them."""

    alpha: float = 0.05
    cluster_p: float = 0.001
    min_extent: int = 0
    permutations: int = 5000  # R: random relabellings, or all distinct ones when there are no more
    seed: int = 0  # of random relabellings
    equivalence: Bound | None = None  # effects below it are to be shown absent
    conjunction: tuple[str, ...] = ()  # t tests that are to be significant together
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """A score prepared for one mask, with work arrays for one thread.

    It takes the voxels of one sign whose height (z in the tail's direction)
    exceeds ``floor``: their indices into the mask, ascending, and their
    heights. A floor of -inf means that the score is the height itself.
    """

    floor: float
    largest: Callable[[NDArray[np.int64], NDArray[np.float64]], float]  # (M,), (M,) -> the largest score
    each: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]  # -> (M,) scores


Score = Callable[[Shape, str, InferenceSettings], Scorer]
"""A function ``score(grid, tail, settings) -> Scorer``: makes what resampling measures of a map of z."""


@dataclass(frozen=True)
class ClusterColumn:
    """A column that an inference adds to its tables of clusters."""

    name: str  # in the table
    label: str  # on pages
    description: str  # in the table's sidecar
    prepare: Callable[[Field, InferenceSettings], Callable[[NDArray[np.int64]], float]]
    """Returns, for a map, a function of a cluster's voxels (indices into the mask) that returns the cluster's value."""
    percent: bool = False  # pages show it in percent


@dataclass(frozen=True)
class Inference:
    """A way to decide what is significant, with all that the rest of the program needs to know about it.

    Nothing is said about an inference but what stands in its record: without
    ``words`` the methods text has its title, its citations and its facts only.

    Every ``infer(field, null, settings) -> Significance`` takes

    - ``field``: one test over the mask, V voxels;
    - ``null``: the null of the record's ``score``; ignored where there is no score;
    - ``settings``: its own docstring or its ``settings`` say which it uses.

    It returns the corrected ``log10_p`` (V,), which is 0 where the test cannot
    be estimated, what is significant, and as ``facts`` what else a reader
    should know. It raises `UsageError` when a level is not between 0 and 1, or
    a setting is not valid.
    """

    name: str
    title: str  # as in a sentence: "maximum statistic by resampling"
    infer: Callable[[Field, Null | None, InferenceSettings], Significance]
    citations: tuple[Citation, ...]
    score: Score | None = None
    score_is_height: bool = False  # the score is z itself, in the tail's direction: its threshold is a height
    bounds_effects: tuple[Citation, ...] = ()
    """Where its score bounds the errors of effects, which its setting ``bounds`` asks for: sources of such bounds."""
    score_label: str = ""  # the axis of its null's picture: "Largest |z| of the mask"
    needs_smoothness: bool = False  # of the estimator's residuals
    needs_neighbours: bool = False  # it asks which elements touch which: a surface without a mesh does not say
    uses_far_tail: bool = False  # it depends on small p of single voxels
    words: str = ""  # sentences for the methods text; "{Key}" stands for a fact by its key in the sidecar
    settings: Mapping[str, Setting] = field(default_factory=dict)  # keys of the configuration's table [inference]
    columns: tuple[ClusterColumn, ...] = ()
