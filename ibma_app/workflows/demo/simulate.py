"""Simulate the demonstration's two collections of statistic maps, whose truth is known.

Everything is drawn from one seed, voxel by voxel from the models that the
levels assume, so that the expected value of each result is known:

- subjects: ``y = effect + slope * (age - mean age) + u + e`` for each run, with
  between-subject variance tau2 and a sampling variance that differs by run and
  place; the maps hold that variance as estimated with their dof;
- studies: ``y = effect + u + e``, where studies disagree (tau2 > 0) in one
  region only, and do not all cover the whole brain.

Noise is Gaussian and smooth. Active regions end sharply (the profile is exactly
0 beyond its radius), so that "truly active" is a definite set of voxels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.grid import Grid
from ibma_app.workflows.demo.smooth_noise import correlations, smooth_noise

Floats = NDArray[np.float64]

SPACE = "MNI152NLin2009cAsym"
RUN_DOF = (146, 152)  # of the two runs of each subject
PARTIAL_RUN = (2, 1)  # the third subject's second run lacks what lies below the plane
PARTIAL_BELOW = -24.0  # mm

# The brain's shape: ellipsoids (centre, semi-axes, in mm; mirrored left to right) fitted to the MNI152
# brain mask (Dice 0.94; 4 % lie outside it). Analytic, so that the demonstration needs no template.
ELLIPSOIDS = (
    ((15, -23, 17), (55, 77, 61)),
    ((0, -61, -31), (58, 33, 36)),
    ((37, -1, -18), (26, 28, 33)),
    ((0, -35, -38), (19, 22, 15)),
    ((5, 34, 5), (52, 40, 37)),
)


@dataclass(frozen=True)
class Blob:
    """A region of activity: ``peak * (1 - (r / radius)²)²`` within the radius, exactly 0 beyond."""

    centre: tuple[float, float, float]  # mm
    radius: float  # mm
    peak: float

    def profile(self, places: Floats) -> Floats:
        """Return its value at places (V, 3) in mm."""
        squared = ((places - np.array(self.centre)) ** 2).sum(axis=1) / self.radius**2
        values: Floats = self.peak * np.clip(1.0 - squared, 0.0, None) ** 2
        return values


SUBJECT_BLOBS = (
    Blob((-40, -54, -16), 28, 0.8),
    Blob((40, -54, -16), 28, 0.8),
    Blob((4, -60, 34), 28, -0.6),
)
AGE_BLOB = Blob((-38, 32, 26), 28, 0.06)  # percent per year
STUDY_BLOBS = (
    Blob((-38, 6, 4), 28, 0.8),
    Blob((38, 6, 4), 28, 0.8),
    Blob((2, 14, 40), 26, 0.8),
    Blob((0, 52, -4), 26, -0.8),
)
DISAGREEMENT = Blob((30, -58, 28), 36, 0.4)  # peak: tau, in percent, the same everywhere inside
STUDY_SIZES = (12, 64, 18, 25, 40, 15, 32, 21)
STUDY_SHARES_T = 4  # the fifth study shares t instead of the variance
# What each study's field of view leaves out: (axis, mm, side).
STUDY_MISSES = {2: (2, -36.0, "below"), 4: (2, -40.0, "below"), 5: (2, -44.0, "below"), 6: (2, 62.0, "above")}


@dataclass(frozen=True, eq=False)
class SimulatedMap:
    """One map as it will lie on disk: its entities, values in the brain and sidecar."""

    entities: Mapping[str, str]
    kind: str
    values: Floats  # (V,); 0 where the map does not cover
    metadata: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Truth:
    """What was simulated. V: voxels (or vertices) of the simulated brain."""

    grid: Shape
    effect: Floats  # (V,) mean effect (at the mean age), percent
    tau2: Floats  # (V,) variance between units
    n: NDArray[np.int16]  # (V,) maps that cover the voxel at the group level
    error: Floats  # (V,) sampling variance of the best estimate of effect
    units: Mapping[str, Floats]  # (V,) true effect of each subject or study
    slope: Floats | None = None  # (V,) effect of a year of age
    slope_error: Floats | None = None  # (V,) sampling variance of its best estimate

    def core(self, values: Floats) -> NDArray[np.bool_]:
        """Where a true map exceeds half of its largest absolute value: (V,)."""
        magnitude = np.abs(values)
        inside: NDArray[np.bool_] = magnitude >= magnitude.max() / 2
        return inside

    def error_of_mean(self, error: Floats, region: NDArray[np.bool_]) -> float:
        """Return the standard error of the mean over a region, given that the noise is smooth."""
        correlation, scale = correlations(self.grid, region), np.sqrt(error[region])
        return float(np.sqrt(scale @ correlation @ scale) / len(scale))


@dataclass(frozen=True, eq=False)
class Simulation:
    """A collection of maps, the table that goes with it, and its truth."""

    maps: tuple[SimulatedMap, ...]
    table: Mapping[str, tuple[Any, ...]]  # column -> one value per unit
    truth: Truth


def make_brain(voxel_mm: float) -> Grid:
    """Make the brain-shaped mask on a grid of the MNI152NLin2009cAsym box.

    Parameters
    ----------
    voxel_mm : float
        Edge of a voxel in mm.
    """
    low, size = np.array([-96.0, -132.0, -78.0]), np.array([192.0, 228.0, 192.0])
    shape = tuple(int(n) + 1 for n in size // voxel_mm)
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = low
    grid = Grid.whole(affine, shape, sform_code=4)
    places = places_of(grid)
    places[:, 0] = np.abs(places[:, 0])
    inside = np.zeros(len(places), dtype=bool)
    for centre, axes in ELLIPSOIDS:
        inside |= (((places - np.array(centre)) / np.array(axes)) ** 2).sum(axis=1) <= 1.0
    return grid.with_mask(inside.reshape(shape))


def simulate_subjects(
    grid: Shape, n_subjects: int, seed: int, named: Mapping[str, str] = MappingProxyType({"space": SPACE})
) -> Simulation:
    """Simulate two runs of each subject.

    Parameters
    ----------
    grid : Shape
        The brain.
    n_subjects : int
        At least 12; their ages are spread evenly over 20 to 70 years.
    seed : int
        Same seed, same maps; a subject's maps do not depend on how many follow.
    named : mapping
        Entities that say what the maps lie on.
    """
    places = places_of(grid)
    effect, slope = _total(SUBJECT_BLOBS, places), AGE_BLOB.profile(places)
    ages = np.round(np.linspace(20.0, 70.0, n_subjects))
    ages = np.random.default_rng([seed, 1]).permutation(ages)
    tau = 0.25 + 0.1 * places[:, 1] / 100.0  # percent; more at the front
    maps, units, combined = [], {}, []
    for number, age in enumerate(ages):
        rng = np.random.default_rng([seed, 2, number])
        label = f"{number + 1:02d}"
        units[label] = effect + slope * (age - ages.mean()) + tau * smooth_noise(rng, grid)
        variances = []
        for run, dof in enumerate(RUN_DOF):
            covered = (places[:, 2] >= PARTIAL_BELOW) | ((number, run) != PARTIAL_RUN)
            variance = (rng.uniform(0.15, 0.35) * np.exp(0.3 * smooth_noise(rng, grid, fwhm=50.0))) ** 2
            values = units[label] + np.sqrt(variance) * smooth_noise(rng, grid)
            entities = {"sub": label, "task": "faces", "run": str(run + 1), "contrast": "facesGtHouses", **named}
            shared = {"effect": values, "variance": variance * rng.chisquare(dof, len(places)) / dof}
            maps += _shared_maps(entities, shared, covered, {"DegreesOfFreedom": dof, "Units": "percent"})
            variances.append(np.where(covered, variance, np.inf))
        combined.append(1.0 / (1.0 / np.array(variances)).sum(axis=0))
    error, slope_error = _precision(tau**2 + np.array(combined), ages - ages.mean())
    table = {
        "participant_id": tuple(f"sub-{label}" for label in units),
        "age": tuple(int(age) for age in ages),
        "group": tuple("control" if number % 2 == 0 else "patient" for number in range(n_subjects)),
    }
    n = np.full(len(places), n_subjects, dtype=np.int16)
    truth = Truth(grid, effect, tau**2, n, error, units, slope, slope_error)
    return Simulation(tuple(maps), table, truth)


def simulate_studies(grid: Grid, seed: int) -> Simulation:
    """Simulate the group maps of eight studies of different size.

    Parameters
    ----------
    grid : Grid
        The brain.
    seed : int
        Same seed, same maps.
    """
    places = places_of(grid)
    effect = _total(STUDY_BLOBS, places)
    tau = np.where(DISAGREEMENT.profile(places) != 0, DISAGREEMENT.peak, 0.0)
    # the standard deviation between persons differs by place
    spread = 0.9 * np.exp(0.2 * smooth_noise(np.random.default_rng([seed, 3]), grid, fwhm=50.0))
    maps, units, variances = [], {}, []
    for number, size in enumerate(STUDY_SIZES):
        rng = np.random.default_rng([seed, 4, number])
        label = f"{number + 1:02d}"
        units[label] = effect + tau * smooth_noise(rng, grid)
        variance = spread**2 / size
        values = units[label] + np.sqrt(variance) * smooth_noise(rng, grid)
        estimated = variance * rng.chisquare(size - 1, len(places)) / (size - 1)
        shared = {"effect": values, "variance": estimated}
        if number == STUDY_SHARES_T:
            shared = {"effect": values, "t": values / np.sqrt(estimated)}
        covered = _field_of_view(places, number)
        entities = {"study": label, "task": "pain", "contrast": "painGtWarm", "space": SPACE}
        metadata = {"SampleSize": size, "DegreesOfFreedom": size - 1, "Units": "percent"}
        maps += _shared_maps(entities, shared, covered, metadata)
        variances.append(np.where(covered, tau**2 + variance, np.inf))
    ages = np.random.default_rng([seed, 5]).integers(22, 60, len(STUDY_SIZES))
    table = {
        "study_id": tuple(f"study-{label}" for label in units),
        "sample_size": STUDY_SIZES,
        "mean_age": tuple(int(age) for age in ages),
    }
    n = np.isfinite(variances).sum(axis=0).astype(np.int16)
    error, _ = _precision(np.array(variances), None)
    return Simulation(tuple(maps), table, Truth(grid, effect, tau**2, n, error, units))


def _shared_maps(
    entities: Mapping[str, str],
    shared: Mapping[str, Floats],
    covered: NDArray[np.bool_],
    metadata: Mapping[str, Any],
) -> list[SimulatedMap]:
    """Make the maps of one run or study; voxels that are not covered are 0, as GLM software writes them."""
    return [
        SimulatedMap(entities, kind, np.where(covered, values, 0.0), {**metadata, **_unit_of(kind, metadata)})
        for kind, values in shared.items()
    ]


def _unit_of(kind: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Name the unit of a kind of map; test statistics have none."""
    return {"Units": metadata["Units"] if kind in ("effect", "variance") else "arbitrary"}


def places_of(grid: Shape) -> Floats:
    """Return where the mask's voxels or vertices lie, in mm: (V, 3)."""
    if isinstance(grid, Elements):
        return grid.places_at(np.arange(grid.n_voxels))
    places: Floats = np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return places


def _total(blobs: tuple[Blob, ...], places: Floats) -> Floats:
    total: Floats = np.sum([blob.profile(places) for blob in blobs], axis=0)
    return total


def _field_of_view(places: Floats, number: int) -> NDArray[np.bool_]:
    """Return which voxels a study covers."""
    if number not in STUDY_MISSES:
        return np.ones(len(places), dtype=bool)
    axis, limit, side = STUDY_MISSES[number]
    inside: NDArray[np.bool_] = places[:, axis] >= limit if side == "below" else places[:, axis] <= limit
    return inside


def _precision(variances: Floats, covariate: Floats | None) -> tuple[Floats, Floats]:
    """Return the sampling variance of intercept and slope under true weights.

    Parameters
    ----------
    variances : (K, V)
        Each row's total variance; inf where it does not cover.
    covariate : (K,) or None
        None: an intercept alone, and the slope's variance is inf.
    """
    weights = 1.0 / variances
    total = weights.sum(axis=0)
    if covariate is None:
        return 1.0 / total, np.full_like(total, np.inf)
    first, second = covariate @ weights, covariate**2 @ weights
    determinant = total * second - first**2
    return second / determinant, total / determinant
