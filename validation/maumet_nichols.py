"""The simulation of Maumet & Nichols (doi:10.1101/048249) for every estimator: does p mean what it says?

``python validation/maumet_nichols.py [--voxels 50000] [--write docs/validation-maumet-nichols.md]`` simulates K studies
of 20 people in which nothing is there, with equal and unequal variances, effects that agree or differ, in one unit
or in several, and counts how often each estimator's p falls below some levels. ``--write`` writes the page and its
pictures beside it; ``--cache FILE`` keeps what is done, so that a run that was stopped goes on; ``--quick`` does a
tenth. It exits with 1 when a claim of the page fails.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from maumet_nichols_page import PAGE, Shares, claims, draw_figures, figure_names, tables  # noqa: E402
from scipy import stats  # noqa: E402

from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.core.design import Design, Test  # noqa: E402
from ibma_app.estimators import ESTIMATORS, find_estimator  # noqa: E402
from ibma_app.stats.tails import t_to_z  # noqa: E402

PEOPLE = 20  # in each study
STUDIES = (5, 10, 25, 50)
DESIGNS = {"one sample": 0.0, "two samples 1:1": 0.5, "two samples 1:4": 0.2}  # -> share of the first sample
TAU2 = (0.0, 1.0)
EQUAL, FOLD = (0.25, 0.5, 1.0, 2.0, 4.0), (2, 4, 8, 16)
VARIANCES = (*(f"{v:g}" for v in EQUAL), *(f"{f}-fold" for f in FOLD))
UNITS = ("nominal", "data, a fifth", "data, half", "contrast")
MIXED = ("0.25", "1", "4", "16-fold")  # variances where units are mixed
LEVELS = (*(10.0**-x for x in np.arange(1.0, 4.01, 0.25)), 0.05)
OF_ONE_MAP_EACH = tuple(name for name in ESTIMATORS if not find_estimator(name).models_clusters)
EXTRA = {"reml, knha": ("reml", {"test": "knha"}), "ols, sandwich": ("ols", {"errors": "sandwich"})}
"""What is no default, but stands in messages and recipes."""


@dataclass(frozen=True)
class Cell:
    """One condition."""

    design: str
    studies: int
    tau2: float
    variance: str  # within-study variance of the contrast: of all studies, or how many-fold it varies around 1
    units: str

    @property
    def first(self) -> int:
        """Studies of the first sample."""
        return round(self.studies * DESIGNS[self.design])


def cells() -> Iterator[Cell]:
    """List all conditions."""
    for units in UNITS:
        for design in DESIGNS:
            for studies in STUDIES:
                for tau2 in TAU2:
                    variances = VARIANCES if units == "nominal" else MIXED
                    yield from (Cell(design, studies, tau2, variance, units) for variance in variances)


def methods() -> dict[str, tuple[str, dict[str, str]]]:
    """Return every estimator of independent studies with its defaults, and what else is measured."""
    return {**{name: (name, {}) for name in OF_ONE_MAP_EACH}, **EXTRA}


def true_variances(cell: Cell) -> np.ndarray:
    """Return each study's variance, (K,); unequal ones in an order that has nothing to do with sample or unit."""
    if cell.variance in VARIANCES[: len(EQUAL)]:
        return np.full(cell.studies, float(cell.variance))
    root = np.sqrt(float(cell.variance.removesuffix("-fold")))
    return np.random.default_rng(cell.studies).permutation(np.geomspace(1 / root, root, cell.studies))


def scales(cell: Cell) -> np.ndarray:
    """Return what multiplies each study's effects, (K,): data scaled twofold begin with the first sample's studies."""
    scale = np.ones(cell.studies)
    if cell.units == "contrast":
        return np.random.default_rng([cell.studies, 1]).permutation(np.linspace(0.4, 1.6, cell.studies))
    if cell.units != "nominal":
        scale[: round(cell.studies * {"data, a fifth": 0.2, "data, half": 0.5}[cell.units])] = 2.0
    return scale


def simulate(cell: Cell, mean: float, n_voxels: int, seed: int) -> VoxelBlock:
    """Draw studies whose true effects scatter around a mean with tau2."""
    rng = np.random.default_rng([seed, cell.studies, *cell.design.encode(), *cell.variance.encode(), int(cell.tau2)])
    variance, scale = true_variances(cell)[:, None], scales(cell)[:, None]
    shape, dof = (cell.studies, n_voxels), PEOPLE - 1
    effect = rng.normal(mean, np.sqrt(variance + cell.tau2), shape) * scale
    estimated = variance * rng.chisquare(dof, shape) / dof * scale**2
    return VoxelBlock(
        covered=np.ones(shape, dtype=bool),
        effect=effect,
        variance=estimated,
        z=t_to_z(effect / np.sqrt(estimated), float(dof)),
        dof=np.full((cell.studies, 1), float(dof)),
        sample_size=np.full(cell.studies, float(PEOPLE)),
    )


def make_design(cell: Cell) -> Design:
    """Ask for the mean, or for the difference between two samples."""
    ones = np.ones((cell.studies, 1))
    if not cell.first:
        return Design(ones, ("intercept",), (Test("test", np.ones((1, 1))),))
    second = (np.arange(cell.studies) >= cell.first).astype(float)
    return Design(np.column_stack([ones, second]), ("intercept", "second"), (Test("test", np.array([[0.0, 1.0]])),))


def shares_of(cell: Cell, n_voxels: int, seed: int = 1) -> Iterator[tuple[str, np.ndarray]]:
    """Yield how often each method's p falls below the levels: those that take the design, and can estimate the test."""
    block, design = simulate(cell, 0.0, n_voxels, seed), make_design(cell)
    for method, (name, settings) in methods().items():
        record = find_estimator(name)
        if not (record.takes_designs or design.one_sample) or (method == "ols, sandwich" and min_sample(cell) < 2):
            continue
        fitted = record.fit(block, design, **settings).tests["test"]
        p = 2 * stats.norm.sf(np.abs(fitted.z[fitted.estimable]))
        yield method, np.searchsorted(np.sort(p), LEVELS, side="right") / p.size


def min_sample(cell: Cell) -> int:
    """Return the size of the smaller sample."""
    return min(cell.first, cell.studies - cell.first) if cell.first else cell.studies


def measure(n_voxels: int, cache: Path | None) -> Shares:
    """Measure every condition; what the cache has is not measured again."""
    found: Shares = {}
    if cache is not None and cache.exists():
        for line in cache.read_text(encoding="utf-8").splitlines():
            voxels, method, *words = line.split("\t")
            cell = Cell(words[0], int(words[1]), float(words[2]), words[3], words[4])
            if int(voxels) == n_voxels:
                found[cell, method] = np.array(words[5:], dtype=float)
    done = {cell for cell, _ in found}
    for cell in cells():
        if cell in done:
            continue
        own = dict(shares_of(cell, n_voxels))
        found.update({(cell, method): shares for method, shares in own.items()})
        if cache is not None:
            with cache.open("a", encoding="utf-8") as file:
                for method, shares in own.items():
                    file.write("\t".join(map(str, [n_voxels, method, *astuple(cell), *shares])) + "\n")
    return found


def measure_units(n_voxels: int, studies: int = 25) -> list[str]:
    """Tabulate what units do where all studies have one true effect of 1: the mean, and a difference that is not."""
    means, differences = [], []
    for name in (name for name in OF_ONE_MAP_EACH if "sample_size" not in find_estimator(name).needs):
        record = find_estimator(name)
        row, other = [f"`{name}`"], [f"`{name}`"]
        for units in UNITS:
            cell = Cell("one sample", studies, 0.0, "1", units)
            fitted = record.fit(simulate(cell, 1.0, n_voxels, 2), make_design(cell)).tests["test"]
            row.append("" if fitted.effect is None else f"{fitted.effect.mean():.2f}")
            if record.takes_designs:
                cell = Cell("two samples 1:1", studies, 0.0, "1", units)
                z = record.fit(simulate(cell, 1.0, n_voxels, 2), make_design(cell)).tests["test"].z
                other.append(f"{np.mean(np.abs(z) > stats.norm.isf(0.025)):.3f}")
        means += ["| " + " | ".join(row) + " |"] if row[1] else []
        differences += ["| " + " | ".join(other) + " |"] if record.takes_designs else []
    head = ["| estimator | " + " | ".join(UNITS) + " |", "|---|" + "---|" * len(UNITS)]
    return ["\n".join(head + means), "\n".join(head + differences)]


def main() -> int:
    """Measure, write the page and its pictures, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=50_000)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    n_voxels = given.voxels // 10 if given.quick else given.voxels
    found = measure(n_voxels, given.cache)
    units = measure_units(min(n_voxels, 5_000))
    page = PAGE.format(voxels=n_voxels, units=units, tables=tables(found, n_voxels), figures=figure_names())
    if given.write:
        given.write.write_text(page, encoding="utf-8")
        draw_figures(found, n_voxels, given.write.parent)
    else:
        sys.stdout.write(page)
    broken = claims(found, n_voxels)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
