"""What an inference reports besides its map: small records, each with its keys in the sidecar; and of equivalence."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from ibma_app.core.errors import UsageError

Record = TypeVar("Record")

_BOUND = re.compile(r"\s*(?P<size>[^\sg]+)\s*(?P<standardised>g?)\s*")


@dataclass(frozen=True)
class LevelFacts:
    """Which error rate is controlled, at which level, and over how many voxels."""

    alpha: float
    controls: str  # "false discovery rate"
    n_tests: int
    is_bound: bool = False  # alpha is one minus the confidence of a bound, not an error rate
    of_subsets: bool = True  # it still holds where some of what is significant is left out
    min_extent: int = 0  # voxels: smaller clusters were left out

    @property
    def confidence(self) -> float:
        """Percent."""
        return 100 * (1 - self.alpha)

    @property
    def holds(self) -> bool:
        """Whether the rate is that of what was kept."""
        return self.of_subsets or self.min_extent <= 1

    @property
    def not_held(self) -> str:
        """What to say where it is not; begins with a word that follows the rate and its level."""
        return "" if self.holds else f" before clusters of fewer than {self.min_extent} voxels were left out, not after"

    def sidecar(self) -> dict[str, Any]:
        """Return the keys and values."""
        extent = {"MinExtent": self.min_extent} if self.min_extent > 1 else {}
        controls = f"{self.controls}{self.not_held}"
        return {"Alpha": self.alpha, "Controls": controls, "NumberOfTests": self.n_tests, **extent}


@dataclass(frozen=True)
class ThresholdFacts:
    """The uncorrected p that a level amounts to."""

    uncorrected_p: float | None  # None: unknown, as no voxel is significant

    def sidecar(self) -> dict[str, Any]:
        """Return the key and value."""
        return {"PThreshold": self.uncorrected_p}


@dataclass(frozen=True)
class CaveatFacts:
    """Why the level is not quite controlled, as measured."""

    text: str

    def sidecar(self) -> dict[str, Any]:
        """Return the key and value."""
        return {"Caveat": self.text}


@dataclass(frozen=True)
class ClusterFacts:
    """How clusters were formed, and what their measure is."""

    forming_p: float  # uncorrected, in the test's tail
    forming_z: float | None = None  # |z|
    measure: str = ""  # for the methods text: "their size is their number of voxels"
    tail: str = "two-sided"  # of the test

    def write_height(self, z: str) -> str:
        """Write what forms clusters, of ``forming_z`` as it is written: ``|z| > 3.29``, ``z > 3.09``, ``z < −3.09``."""
        return {"positive": f"z > {z}", "negative": f"z < −{z}"}.get(self.tail, f"|z| > {z}")

    def sidecar(self) -> dict[str, Any]:
        """Return the keys and values."""
        z = {} if self.forming_z is None else {"ClusterFormingZ": self.forming_z}
        return {"ClusterFormingP": self.forming_p, **z}


@dataclass(frozen=True)
class NeighbourFacts:
    """Which elements are neighbours: in clusters, and in the inference's tables."""

    neighbours: int  # of a voxel: 6, 18 or 26
    of_voxels: bool = True
    of_meshes: bool = False  # vertices, at the other ends of edges

    @property
    def words(self) -> str:
        """What comes before "neighbours" in a sentence."""
        if not self.of_meshes:
            return str(self.neighbours)
        return f"mesh (on surfaces) and {self.neighbours} (in volumes)" if self.of_voxels else "mesh"

    def sidecar(self) -> dict[str, Any]:
        """Return the key and value."""
        return {"Connectivity": self.words if self.of_meshes else self.neighbours}


@dataclass(frozen=True)
class RandomFieldFacts:
    """The random field of the null, and the size of the search."""

    kind: str  # "z", "t" or "F"
    dof: tuple[float, float]  # of F; of t 1 and its dof
    two_sided: bool
    dof_of: str  # which of the mask's dof these are, "smallest" or "largest"; "": all voxels share them
    fwhm: tuple[float, ...]  # (3,) mm
    resels: tuple[float, ...]  # (4,)
    n_maps: int  # maps whose residuals the smoothness was estimated from
    n_voxels: int  # voxels whose differences to their neighbours were used
    height: float | None = None  # that is significant, in the field's statistic

    @property
    def name(self) -> str:
        """The field in words."""
        rows, dof = (f"{value:g}" for value in self.dof)
        of = f" (the {self.dof_of} of the mask)" if self.dof_of else ""
        if self.kind == "F":
            return f"F field with {rows} and {dof} degrees of freedom{of}"
        sides = ", both signs" if self.two_sided else ""
        if self.kind == "t" and math.isfinite(self.dof[1]):
            return f"t field with {dof} degrees of freedom{of}{sides}"
        return f"Gaussian field of z{sides}"

    @property
    def origin(self) -> str:
        """What the smoothness was estimated from."""
        return f"standardised residuals of {self.n_maps} map(s), forward differences at {self.n_voxels} voxels"

    def sidecar(self) -> dict[str, Any]:
        """Return the keys and values."""
        return {
            "RandomField": self.name,
            "FWHM": list(self.fwhm),
            "FWHMUnits": "mm",
            "Resels": list(self.resels),
            "SmoothnessFrom": self.origin,
            **({} if self.height is None else {"HeightThreshold": self.height}),
        }


@dataclass(frozen=True)
class ExtentFacts:
    """The clusters that random field theory expects."""

    forming_height: float  # in the field's statistic
    expected_clusters: float
    expected_voxels: float  # of each
    smallest_extent: int | None  # voxels: that is significant; None: none is

    def sidecar(self) -> dict[str, Any]:
        """Return the keys and values."""
        return {
            "ClusterFormingHeight": self.forming_height,
            "ExpectedClusters": self.expected_clusters,
            "ExpectedVoxelsPerCluster": self.expected_voxels,
            "ExtentThreshold": self.smallest_extent,
        }


@dataclass(frozen=True)
class Relabelling:
    """What is done to maps and design under the null of one test."""

    flips: bool  # signs are flipped; else rows change places
    of: str  # "maps", "residuals" (Freedman & Lane 1983) or "regressors", those that are tested
    whole: str = ""  # "blocks" or "clusters": all maps of one are relabelled alike; "": each map by itself
    within: bool = False  # within exchangeability blocks alone

    @property
    def name(self) -> str:
        """What the sidecar calls it."""
        if self.flips:
            name = "sign flips of residuals" if self.of == "residuals" else "sign flips"
        else:
            name = f"permutations {'(Freedman-Lane)' if self.of == 'residuals' else 'of the tested regressors'}"
        return name + (f" of whole {self.whole}" if self.whole else "") + (" within blocks" if self.within else "")

    @property
    def null_hypothesis(self) -> str:
        """What it assumes under the null."""
        if self.flips:
            apart = f" from one of the {self.whole} to another" if self.whole else ""
            return f"effects (residuals, in designs) are independent{apart} and symmetric about zero"
        return "residuals can be exchanged for each other"


@dataclass(frozen=True)
class ResamplingFacts:
    """How a null was resampled, and what its scores must exceed."""

    resamples: int  # R, the identity included
    exhaustive: bool  # all distinct relabellings, or random ones
    relabelling: Relabelling
    smallest_p: float  # that can be reached
    score_threshold: float | None  # a significant score exceeds it; None: none can
    score_units: str = ""
    seed: int | None = None  # None when exhaustive
    tail_fitted: bool = False  # p below 1 / R are of a generalised Pareto tail
    score_label: str = ""  # the axis of the null's picture, where it is not that of the inference's record
    joint: bool = False  # the score is made of ranks, of each kind of structures in its own null

    def sidecar(self) -> dict[str, Any]:
        """Return the keys and values."""
        content: dict[str, Any] = {
            "Resamples": self.resamples,
            "Exhaustive": self.exhaustive,
            "Scheme": self.relabelling.name,
            "NullHypothesis": self.relabelling.null_hypothesis,
            "SmallestP": self.smallest_p,
            "ScoreThreshold": self.score_threshold,
        }
        if self.score_units:
            content["ScoreUnits"] = self.score_units
        if self.seed is not None:
            content["Seed"] = self.seed
        if self.tail_fitted:
            content["TailFit"] = (
                "p below 1 / Resamples are those of a generalised Pareto tail fitted to the null's maxima"
            )
        return content


@dataclass(frozen=True)
class CalibrationFacts:
    """How often a test's p come up under the null: log10(measured / p) = intercept + slope * -log10 p."""

    slope: float
    intercept: float
    refits: int
    n_values: int  # p of all voxels and refits

    def sidecar(self) -> dict[str, Any]:
        """Return the key and value."""
        return {
            "Calibration": {
                "Method": "parametric bootstrap under the null, pooled over voxels: "
                "log10(measured p / p) = Intercept + Slope * -log10(p); p are raised by it, never lowered",
                "Slope": self.slope,
                "Intercept": self.intercept,
                "Refits": self.refits,
                "SimulatedP": self.n_values,
            }
        }


@dataclass(frozen=True)
class Fact:
    """A value that one method alone reports."""

    key: str  # in the sidecar: "HommelValue"
    value: Any
    label: str = ""  # on pages; "": the words of the key
    words: str = "{}"  # on pages, {} standing for the value: "at least {} voxels"

    def sidecar(self) -> dict[str, Any]:
        """Return the key and value."""
        return {self.key: self.value}


@dataclass(frozen=True)
class WarningFact:
    """A warning that stands at the top of the page."""

    text: str
    is_note: bool = False  # the sidecar calls it a note

    def sidecar(self) -> dict[str, Any]:
        """Return the key and value."""
        return {"Note" if self.is_note else "Warning": self.text}


Facts = (
    LevelFacts
    | ThresholdFacts
    | CaveatFacts
    | ClusterFacts
    | NeighbourFacts
    | RandomFieldFacts
    | ExtentFacts
    | ResamplingFacts
    | CalibrationFacts
    | Fact
    | WarningFact
)


def find_fact(facts: Iterable[object], kind: type[Record]) -> Record | None:
    """Return the facts of one kind; None where there are none."""
    return next((one for one in facts if isinstance(one, kind)), None)


def with_caveat(facts: tuple[Facts, ...], text: str) -> tuple[Facts, ...]:
    """Add to the reasons why a level is not quite controlled, which are one fact."""
    before = find_fact(facts, CaveatFacts)
    if before is None:
        return (*facts, CaveatFacts(text))
    return tuple(CaveatFacts(f"{before.text}; {text}") if one is before else one for one in facts)


def sidecar_of(facts: Iterable[Facts]) -> dict[str, Any]:
    """Return the keys and values of all facts, in their order."""
    return {key: value for one in facts for key, value in one.sidecar().items()}


@dataclass(frozen=True)
class Bound:
    """A size of effects, in their units or as Hedges' g."""

    size: float
    standardised: bool = False  # of the standard deviation between subjects

    def words(self, units: str) -> str:
        """Return it with its unit."""
        if self.standardised:
            return f"{self.size:g} standard deviations (g)"
        return f"{self.size:g}" if units in ("", "unknown", "1") else f"{self.size:g} {units}"


@dataclass(frozen=True)
class Absence:
    """Where the effect of one test is smaller than a bound."""

    test: str  # as in the names of files; "" where the intercept is the only test
    bound: Bound
    alpha: float
    n_absent: int
    n_voxels: int  # where the test can be estimated
    resamples: int
    smallest_p: float  # that so many resamples can reach


def parse_bound(text: str) -> Bound:
    """Read ``0.2`` (in the effects' units) or ``0.3g`` (Hedges' g).

    Raises
    ------
    UsageError
        It is no such number, or not above 0.
    """
    found = _BOUND.fullmatch(text)
    try:
        size = float(found["size"]) if found else math.nan
    except ValueError:
        size = math.nan
    if found is None or not 0.0 < size < math.inf:
        raise UsageError(
            f"--equivalence is {text!r}, but it is the size of effect below which there is none to speak of: a number "
            "above 0 in the units of the effects (0.2), or of Hedges' g (0.3g)."
        )
    return Bound(size, found["standardised"] == "g")
