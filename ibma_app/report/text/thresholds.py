"""What it took to be significant, in every unit: z, t or F, p, and the effect at a typical voxel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.inference_facts import (
    ClusterFacts,
    ExtentFacts,
    LevelFacts,
    RandomFieldFacts,
    ResamplingFacts,
    ThresholdFacts,
    find_fact,
)
from ibma_app.core.results import Finding
from ibma_app.report.html import format_number
from ibma_app.report.maps import ResultMaps
from ibma_app.report.text.facts import format_fwhm, format_score
from ibma_app.stats.tails import f_to_z, p_to_z, t_to_z, z_to_log10p

Floats = NDArray[np.float64]

SMALLEST, NEEDED, FORMING = "smallest that is significant", "needed; no voxel reaches it", "clusters formed beyond it"


@dataclass(frozen=True)
class Threshold:
    """The height that one inference needs."""

    inference: str
    what: str  # what happens at the height
    z: float | None
    statistic: float | None  # t or F; None where dof differ between voxels
    p: float | None  # uncorrected, in the test's tail
    effect: float | None  # of that height at a voxel of median standard error
    score: str  # what the whole cluster or voxel must exceed besides, in words

    @property
    def is_needed(self) -> bool:
        """Whether no voxel reaches the height, and one would be significant that does."""
        return self.what == NEEDED


@dataclass(frozen=True)
class Thresholds:
    """The heights of all inferences on a test."""

    statistic_name: str  # "t", "F" or "" where z itself is the statistic
    rows: tuple[Threshold, ...]

    @property
    def has_effect(self) -> bool:
        """Whether any height has an effect."""
        return any(row.effect is not None for row in self.rows)

    @property
    def has_score(self) -> bool:
        """Whether any inference needs more than a height."""
        return any(row.score for row in self.rows)

    @property
    def varies(self) -> bool:
        """Whether a height has no one statistic."""
        return any(row.z is not None and row.statistic is None for row in self.rows)


def find_thresholds(maps: ResultMaps) -> Thresholds | None:
    """List the heights of every inference on a test in all units; None without inference."""
    if not maps.findings:
        return None
    name = next((kind for kind in ("F", "t") if maps.path(kind) is not None), "")
    scale = _Scale(maps, name)
    return Thresholds(name, tuple(_threshold(finding, maps, scale) for finding in maps.findings))


class _Scale:
    """From z to the statistic and the effect of one test's maps."""

    def __init__(self, maps: ResultMaps, name: str) -> None:
        self._name = name
        self._rows = int(np.linalg.matrix_rank(maps.test.weights))
        self._dof = _dof(maps) if name else np.array([np.inf])
        variance = maps.values("variance")
        self._errors = None if variance is None or name == "F" else np.sqrt(np.maximum(variance, 0.0))

    def statistic(self, z: float) -> float | None:
        """Give t or F with the upper tail of z, where all voxels share their dof."""
        found = np.unique(self._statistics(z)) if self._name else np.empty(0)
        return float(found[0]) if found.size == 1 and np.isfinite(found[0]) else None

    def effect(self, z: float) -> float | None:
        """Give the effect that reaches z at the median voxel."""
        if self._errors is None:
            return None
        there = self._errors > 0
        sizes = np.broadcast_to(self._statistics(z), self._errors.shape)[there] * self._errors[there]
        return float(np.median(sizes)) if sizes.size and np.isfinite(sizes).all() else None

    def _statistics(self, z: float) -> Floats:
        """Statistic for each voxel's dof, (V,) or (1,)."""
        from scipy import stats

        tail = stats.norm.sf(z)
        distinct, index = np.unique(self._dof, return_inverse=True)
        if self._name == "F":
            found = stats.f.isf(tail, self._rows, distinct)
        else:
            found = stats.t.isf(tail, distinct)
        return np.asarray(found, dtype=np.float64)[index]


def _dof(maps: ResultMaps) -> Floats:
    """Degrees of freedom of the tested voxels: one number, or a map's (V,); inf where unknown."""
    volume = maps.values("dof")
    if volume is None:
        number: Any = maps.sidecar("F" if maps.path("F") is not None else "t").get("DegreesOfFreedom")
        known = isinstance(number, int | float) and not isinstance(number, bool) and number > 0
        return np.array([float(number) if known else np.inf])
    return np.where(volume > 0, volume, np.inf) if (volume > 0).any() else np.array([np.inf])


def _threshold(finding: Finding, maps: ResultMaps, scale: _Scale) -> Threshold:
    """Find the height of one inference, in all units."""
    tail = maps.test.tail
    what, z = _height(finding, tail)
    if z is None:
        return Threshold(finding.inference.name, what, None, None, None, None, _score(finding))
    return Threshold(
        inference=finding.inference.name,
        what=what,
        z=z,
        statistic=scale.statistic(z),
        p=float(10.0 ** -z_to_log10p(-z if tail == "negative" else z, tail)),
        effect=scale.effect(z),
        score=_score(finding),
    )


def _height(finding: Finding, tail: str) -> tuple[str, float | None]:
    """Give the |z| that counts: cluster-forming, of the weakest significant voxel, or needed where none is."""
    clusters = find_fact(finding.facts, ClusterFacts)
    if clusters is not None:
        return FORMING, clusters.forming_z if clusters.forming_z is not None else _z_of(clusters.forming_p, tail)
    if finding.z_threshold is not None:
        return SMALLEST, abs(float(finding.z_threshold))
    needed, level = _needed(finding, tail), find_fact(finding.facts, LevelFacts)
    if level is not None and level.min_extent > 1:
        return f"no cluster of {level.min_extent} voxels is significant", needed
    return ("no voxel is significant" if needed is None else NEEDED), needed


def _needed(finding: Finding, tail: str) -> float | None:
    """Give the |z| that would be significant; None where nobody knows."""
    field = find_fact(finding.facts, RandomFieldFacts)
    if field is not None and field.height is not None:
        return _z_of_height(field, field.height)
    threshold = find_fact(finding.facts, ThresholdFacts)
    if threshold is not None and threshold.uncorrected_p is not None:
        return _z_of(threshold.uncorrected_p, tail)
    resampling = find_fact(finding.facts, ResamplingFacts)
    return resampling.score_threshold if resampling is not None and finding.inference.score_is_height else None


def _z_of(p: float, tail: str) -> float:
    return float(p_to_z(0.5 * p if tail == "two-sided" else p))


def _z_of_height(field: RandomFieldFacts, height: float) -> float:
    """Give z of a random field's height."""
    if field.kind == "F":
        return float(f_to_z(height, *field.dof))
    return float(t_to_z(height, field.dof[1])) if field.kind == "t" else height


def _score(finding: Finding) -> str:
    """Say what must be exceeded besides the height."""
    extent = find_fact(finding.facts, ExtentFacts)
    if extent is not None and extent.smallest_extent is not None:
        return f"at least {format_number(extent.smallest_extent)} voxels"
    resampling = find_fact(finding.facts, ResamplingFacts)
    if finding.inference.score_is_height or resampling is None or resampling.score_threshold is None:
        return ""
    return f"above {format_score(resampling)}"


def smoothness_facts(maps: ResultMaps) -> list[tuple[str, Any]]:
    """How smooth the noise is and how many resels were searched, where random field theory was used."""
    field = find_fact((fact for finding in maps.findings for fact in finding.facts), RandomFieldFacts)
    if field is None or maps.grid.box is None:
        return []
    sizes = maps.grid.box.voxel_sizes
    voxels = np.asarray(field.fwhm, dtype=np.float64) / sizes
    rows: list[tuple[str, Any]] = [
        ("Smoothness (FWHM)", format_fwhm(field)),
        ("in voxels", " × ".join(f"{width:.3g}" for width in voxels)),
        ("Voxels per resel", float(np.prod(voxels))),
    ]
    names = ("Euler characteristic", "Resels: length", "Resels: surface", "Resels: volume")
    return rows + [(name, float(count)) for name, count in zip(names, field.resels, strict=False)][1:]
