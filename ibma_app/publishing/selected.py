"""One test of one estimator, with what packs need to know of it."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import require_grid
from ibma_app.core.design import Test
from ibma_app.core.errors import UsageError, did_you_mean
from ibma_app.core.grid import Grid
from ibma_app.core.results import EstimatorResult, Finding, Results
from ibma_app.images.read import read_image

MISSING = "n/a"
SHARED = ("n", "dof", "tau2", "q", "i2", "h2", "pilower", "piupper")
"""Kinds of map that all tests of an estimator share."""


@dataclass(frozen=True)
class Peak:
    """A row of a cluster table."""

    cluster_id: str  # "1", its sub-peaks "1a", "1b"
    xyz: tuple[float, float, float]  # mm, RAS+
    z: float
    log10p: float  # corrected
    n_voxels: int | None  # of the cluster; None: a sub-peak
    mean_z: float | None  # likewise


@dataclass(frozen=True)
class Selected:
    """A test that is published: its analysis, its estimator, and the inference that its excursion set is of."""

    results: Results
    estimator: EstimatorResult
    test: Test
    finding: Finding | None  # None: no inference was run
    one_of_several: bool = False  # estimators of one analysis: the name says which

    @property
    def name(self) -> str:
        """``<analysis>_<test>``, as its files in a pack are called."""
        middle = f"_desc-{self.estimator.estimator.name}" if self.one_of_several else ""
        return f"{self.results.analysis.name}{middle}_{self.test.name}"

    @property
    def contrast(self) -> str:
        """The contrast of the maps, in its own software's words where they are known."""
        observation = self.results.analysis.observations[0]
        named = (statmap.metadata.get("ContrastName") for statmap in observation.statmaps.values())
        label = self.results.analysis.entities.get("contrast", "contrast")
        return next((str(name) for name in named if name), label)

    @property
    def title(self) -> str:
        """A line for readers: contrast and test."""
        alone = len(self.results.design.tests) == 1 and self.results.design.one_sample
        return self.contrast if alone else f"{self.contrast}: {self.test.title or self.test.name}"

    @property
    def unit(self) -> str:
        """What one map is of: subject or study."""
        return self.results.analysis.unit

    @property
    def n_subjects(self) -> int | None:
        """How many people are behind it; None where a study's number is not known."""
        observations = self.results.analysis.observations
        if self.unit == "subject":
            return len({observation.unit_label for observation in observations})
        sizes = [observation.sample_size for observation in observations]
        return None if any(size is None for size in sizes) else round(sum(size for size in sizes if size is not None))

    @property
    def inference(self) -> str:
        """The inference's name on the menu; empty where there is none."""
        return self.finding.inference.name if self.finding else ""

    def path(self, kind: str, inference: str = "") -> Path | None:
        """Return the file of a kind of map, or None."""
        names = (self.test.name, "") if len(self.results.design.tests) == 1 or kind in SHARED else (self.test.name,)
        found = (self.estimator.path(kind, test=name, inference=inference) for name in names)
        return next((path for path in found if path is not None), None)

    def volume(self, kind: str, inference: str = "") -> NDArray[np.float64] | None:
        """Return a map's values on its grid (X, Y, Z), or None."""
        path = self.path(kind, inference)
        return None if path is None else np.asarray(read_image(path).data, dtype=np.float64)

    @property
    def grid(self) -> Grid:
        """The grid of its maps: what is published are maps of voxels."""
        return require_grid(self.results.grid, "Publishing")

    @cached_property
    def _dofs(self) -> NDArray[np.float64]:
        """The degrees of freedom of each voxel that is tested; empty: a z statistic."""
        values = self.volume("dof")
        inside = np.empty(0) if values is None else values[self.grid.mask]
        return np.asarray(inside[np.isfinite(inside) & (inside > 0)])

    @property
    def dof(self) -> float | None:
        """Degrees of freedom: one number, the median where they differ from voxel to voxel; None: a z statistic."""
        return float(np.median(self._dofs)) if self._dofs.size else None

    @property
    def dof_range(self) -> tuple[float, float] | None:
        """The smallest and the largest where they differ from voxel to voxel, else None."""
        if not self._dofs.size or self._dofs.min() == self._dofs.max():
            return None
        return float(self._dofs.min()), float(self._dofs.max())

    @property
    def numerator_dof(self) -> int:
        """Degrees of freedom of an F test's numerator."""
        return int(np.linalg.matrix_rank(np.atleast_2d(self.test.weights)))

    @cached_property
    def peaks(self) -> tuple[Peak, ...]:
        """The cluster table of its inference."""
        path = self.path("clusters", self.inference) if self.finding else None
        if path is None:
            return ()
        with path.open(newline="", encoding="utf-8") as stream:
            return tuple(_peak(row) for row in csv.DictReader(stream, delimiter="\t"))

    @property
    def statistic(self) -> str:
        """``t``, ``F`` or ``z``: the kind of its statistic's map."""
        return next((kind for kind in ("t", "F") if self.path(kind) is not None), "z")


def _peak(row: Mapping[str, str]) -> Peak:
    """Read a row of a cluster table."""
    size, mean = row["n_voxels"], row["mean_z"]
    return Peak(
        row["cluster_id"],
        (float(row["x"]), float(row["y"]), float(row["z"])),
        float(row["peak_z"]),
        float(row["log10p"]),
        None if size == MISSING else int(size),
        None if mean == MISSING else float(mean),
    )


def select(
    found: Sequence[Results], analyses: Sequence[str], tests: Sequence[str], estimators: Sequence[str]
) -> tuple[Selected, ...]:
    """Choose what is published; everything where nothing is named, of the estimators the first.

    Raises
    ------
    UsageError
        A name that does not exist, with those that do; maps that are not of voxels.
    """
    _check("--analysis", analyses, [results.analysis.name for results in found])
    _check("--test", tests, [test.name for results in found for test in results.design.tests if not test.of])
    _check("--estimator", estimators, [one.estimator.name for results in found for one in results.estimators])
    chosen = tuple(_select(found, analyses, tests, estimators))
    volumes = any(results.grid.box is not None for results in found)
    remedy = "Name analyses of volumes with --analysis, not {}." if volumes else "Only volumes can be published as yet."
    for one in chosen:
        require_grid(one.results.grid, "Publishing", remedy.format(one.name))
    return chosen


def _select(
    found: Sequence[Results], analyses: Sequence[str], tests: Sequence[str], estimators: Sequence[str]
) -> Iterator[Selected]:
    for results in found:
        if analyses and results.analysis.name not in analyses:
            continue
        chosen = [one for one in results.estimators if one.estimator.name in estimators] or (
            [] if estimators else list(results.estimators[:1])
        )
        for one in chosen:
            for test in results.design.tests:
                if not test.of and (not tests or test.name in tests):
                    yield Selected(results, one, test, _finding(one, test, results), len(chosen) > 1)


def _finding(one: EstimatorResult, test: Test, results: Results) -> Finding | None:
    """Return the first inference on a test: the one that the page draws."""
    names = (test.name, "") if len(results.design.tests) == 1 else (test.name,)
    return next((finding for finding in one.findings if finding.test in names), None)


def _check(flag: str, asked: Sequence[str], there: Sequence[str]) -> None:
    """Refuse names that do not exist."""
    known = list(dict.fromkeys(there))
    for name in asked:
        if name not in known:
            raise UsageError(
                f"{flag}: there is no {name!r}.{did_you_mean([name], known)} There are: {', '.join(known)}."
            )


def weights_of(test: Test, columns: Sequence[str]) -> Mapping[str, float]:
    """Return the weights of a t test by column of the design."""
    return dict(zip(columns, np.atleast_2d(test.weights)[0].tolist(), strict=True))
