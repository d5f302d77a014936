"""The numbers of a page, computed from the maps on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ibma_app.core.inference_facts import Facts
from ibma_app.core.results import Results
from ibma_app.report.cluster_tables import ClusterTable, read_clusters
from ibma_app.report.maps import ResultMaps
from ibma_app.report.text.facts import Labelled, describe_control, describe_facts

LISTED_DOFS = 4
"""Tests whose dof are listed one by one; of more, the range of all."""


@dataclass(frozen=True)
class Peak:
    """An extreme of z: where it is, and the effect there with its 95 % interval."""

    name: str  # "largest z" or "smallest z"
    z: float
    xyz: tuple[float, float, float]  # mm
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    where: str = ""  # the name of an element that is no voxel of a grid

    @property
    def placed(self) -> bool:
        """Whether it is known where it lies."""
        return bool(np.isfinite(self.xyz).all())


@dataclass(frozen=True)
class InferenceNumbers:
    """One inference on one test, counted in its mask."""

    name: str
    title: str
    n_significant: int
    n_positive: int
    n_negative: int
    z_threshold: float | None
    facts: tuple[Facts, ...]
    clusters: ClusterTable | None

    @property
    def control(self) -> str:
        """The error rate that it controls, and at which level."""
        return describe_control(self.facts)

    @property
    def facts_in_words(self) -> tuple[Labelled, ...]:
        """Labels and texts of its facts."""
        return describe_facts(self.facts)


@dataclass(frozen=True)
class FitNumbers:
    """What an estimator found over the mask, for all tests."""

    n_voxels: int
    n_min: int | None
    n_max: int | None
    dof: str
    median_tau2: float | None = None
    median_tau: float | None = None
    share_tau2: float | None = None  # percent of voxels where tau2 > 0
    median_i2: float | None = None
    median_q: float | None = None
    median_tau2_of: tuple[tuple[str, float | None], ...] = ()  # group -> median, where groups have their own tau2
    median_sigma2: float | None = None
    median_icc: float | None = None


def describe_fit(maps: ResultMaps) -> FitNumbers:
    """Count maps and dof over the mask, and take the medians of heterogeneity."""
    n = maps.values("n")
    tau2, i2, q = maps.values("tau2"), maps.values("i2"), maps.values("q")
    some = n is not None and n.size > 0
    return FitNumbers(
        n_voxels=maps.grid.n_voxels,
        n_min=int(n.min()) if some and n is not None else None,
        n_max=int(n.max()) if some and n is not None else None,
        dof=_describe_dof(maps),
        median_tau2=_median(tau2),
        median_tau=None if tau2 is None else _median(np.sqrt(np.maximum(tau2, 0.0))),
        share_tau2=None if tau2 is None or not tau2.size else float(100.0 * np.mean(tau2 > 0)),
        median_i2=_median(i2),
        median_q=_median(q),
        median_tau2_of=tuple(
            (group, _median(volume[maps.grid.mask])) for group, volume in maps.tau2_of_groups().items()
        ),
        median_sigma2=_median(maps.values("sigma2")),
        median_icc=_median(maps.values("icc")),
    )


def find_peaks(maps: ResultMaps) -> tuple[Peak, ...]:
    """Find the largest and the smallest z of the mask (F tests: the largest alone)."""
    z = maps.volume("z")
    if z is None or not maps.grid.n_voxels:
        return ()
    values = z[maps.grid.mask]
    peaks = [_peak_at(maps, "largest z", int(np.argmax(values)))]
    if maps.test.signed:
        peaks.append(_peak_at(maps, "smallest z", int(np.argmin(values))))
    return tuple(peaks)


def count_significant(maps: ResultMaps, results: Results) -> tuple[InferenceNumbers, ...]:
    """Count significant voxels by sign, for every inference made on the test."""
    z = maps.values("z")
    rows = []
    for finding in maps.findings:
        mask = maps.values("mask", finding.inference.name)
        passed = None if mask is None else mask > 0
        total = finding.n_significant if passed is None else int(np.count_nonzero(passed))
        positive, negative = total, 0
        if passed is not None and z is not None:
            positive = int(np.count_nonzero(passed & (z > 0)))
            negative = int(np.count_nonzero(passed & (z < 0)))
        path = maps.path("clusters", finding.inference.name)
        rows.append(
            InferenceNumbers(
                name=finding.inference.name,
                title=finding.inference.title,
                n_significant=total,
                n_positive=positive,
                n_negative=negative,
                z_threshold=finding.z_threshold,
                facts=finding.facts,
                clusters=None if path is None else read_clusters(path, results.output_dir, finding.inference.columns),
            )
        )
    return tuple(rows)


def effect_units(maps: ResultMaps, results: Results) -> str:
    """Units of the effect map: those of its sidecar, else those that all input maps share."""
    units = maps.sidecar("effect").get("Units")
    if isinstance(units, str) and units:
        return units
    known = {row.units for row in results.survey}
    return known.pop() if len(known) == 1 else "unknown"


def _peak_at(maps: ResultMaps, name: str, at: int) -> Peak:
    """Read z, effect and its 95 % interval at a voxel of the mask."""
    where = tuple(int(indices[at]) for indices in np.nonzero(maps.grid.mask))
    x, y, z = maps.grid.places_at(np.array([at]))[0]
    effect, variance, count = maps.volume("effect"), maps.volume("variance"), maps.volume("n")
    half = None
    if effect is not None and variance is not None and variance[where] > 0:
        half = float(np.sqrt(variance[where])) * float(critical_values(maps, where))
    value = None if effect is None else float(effect[where])
    statistic = maps.volume("z")
    assert statistic is not None  # checked by find_peaks
    return Peak(
        name=name,
        z=float(statistic[where]),
        xyz=(float(x), float(y), float(z)),
        effect=value,
        low=None if value is None or half is None else value - half,
        high=None if value is None or half is None else value + half,
        n=None if count is None else int(count[where]),
        where=maps.grid.tell(at),
    )


def critical_values(maps: ResultMaps, where: Any) -> NDArray[np.float64]:
    """Half widths of 95 % intervals in standard errors: of t where the test has dof, else normal.

    ``where`` picks voxels of a volume: an index (one value is returned, shape ()) or a mask (V,).
    """
    dof: Any = None
    if maps.path("t") is not None:
        volume = maps.volume("dof")
        dof = volume[where] if volume is not None else maps.sidecar("t").get("DegreesOfFreedom")
    known = isinstance(dof, int | float | np.ndarray) and not isinstance(dof, bool)
    numbers = np.asarray(dof if known else np.nan, dtype=np.float64)
    numbers = np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.inf)  # t of infinite dof is normal
    distinct, index = np.unique(numbers, return_inverse=True)
    values = -special.stdtrit(distinct, 0.025)[index].reshape(numbers.shape)  # scipy.stats is slow to import
    return np.broadcast_to(values, maps.grid.mask[where].shape)


def dof_range(maps: ResultMaps) -> tuple[float, float] | None:
    """Return the smallest and the largest dof of a test over the mask; None where they are no map."""
    values = maps.values("dof")
    values = None if values is None else values[values > 0]  # 0 where there is no test
    return (float(values.min()), float(values.max())) if values is not None and values.size else None


def join_dofs(ranges: Mapping[str, tuple[float, float] | None]) -> str:
    """Write the dof of tests that have their own, by the tests' names; "" where all have the same, or none is known."""
    known = {name: one for name, one in ranges.items() if one is not None}
    if len(set(known.values())) < 2:
        return ""
    if len(known) <= LISTED_DOFS:
        return "; ".join(f"{name}: {_write_range(*one)}" for name, one in known.items())
    low, high = min(one[0] for one in known.values()), max(one[1] for one in known.values())
    return f"{_write_range(low, high)}, by test"


def _write_range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _describe_dof(maps: ResultMaps) -> str:
    """Write the dof of the test: one number, a range over the mask, or that z has none."""
    found = dof_range(maps)
    if found is not None:
        return _write_range(*found)
    for kind in ("t", "F", "effect"):
        dof = maps.sidecar(kind).get("DegreesOfFreedom")
        if isinstance(dof, str) or (isinstance(dof, int | float) and not isinstance(dof, bool)):
            return dof if isinstance(dof, str) else f"{dof:g}"
    return "none (z statistic)" if maps.path("t") is None and maps.path("F") is None else "unknown"


def _median(values: NDArray[np.float64] | None) -> float | None:
    return None if values is None or not values.size else float(np.median(values))
