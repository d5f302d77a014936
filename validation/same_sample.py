"""How often studies of different people are called the same people, and how often the same people are found.

``python validation/same_sample.py [--collections 300] [--write FILE]`` simulates collections of 20 studies: a common
effect, each study's own smooth difference from it, noise of its own smoothness, and sample sizes of which several are
equal. FILE is docs/validation-same-sample.md. It exits with 1 when a claim of the documentation fails.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from scipy import ndimage, stats  # noqa: E402

from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.similarity import flag_same_samples  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402

STUDIES, VOXEL = 20, 4.0  # mm
SIZES = (10, 12, 12, 12, 14, 16, 16, 18, 20, 20, 20, 22, 24, 24, 25, 28, 30, 30, 32, 40)
ALARMS = 0.01  # of collections without shared people, at most
POWER = 0.9  # of pairs that share half of their noise, at least
SHARED = (0.3, 0.5, 0.7)
CONDITIONS = {
    "sample sizes known": (SIZES, 0.0),
    "sample sizes unknown": ((None,) * STUDIES, 0.0),
    "all of one size": ((20,) * STUDIES, 0.0),
    "anatomy in common": (SIZES, 0.3),
}


def simulate(rng: np.random.Generator, shared: float, anatomy: float) -> tuple[np.ndarray, Grid]:
    """Return 20 maps (K, X, Y, Z) and their grid; maps 1 and 2 (n 12) share a part of their noise's variance."""
    shape = (36, 43, 36)
    centre = (np.array(shape) - 1) / 2
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mask = (((place - centre) / (centre - 1)) ** 2).sum(axis=-1) <= 1
    # what all brains have in common is fine too, and each study has it to another degree
    common = smooth(rng, shape, 12.0)
    fine = smooth(rng, shape, 5.0)
    maps = np.empty((STUDIES, *shape), dtype=np.float32)
    people = [smooth(rng, shape, width) for width in rng.uniform(6.0, 11.0, STUDIES)]
    people[2] = np.sqrt(shared) * people[1] + np.sqrt(1 - shared) * people[2]
    for row in range(STUDIES):
        own = smooth(rng, shape, 16.0)
        degree = np.sqrt(anatomy) * rng.uniform(0.0, 1.0)
        maps[row] = rng.lognormal(0, 1) * (common + 0.7 * own + people[row] + degree * fine)
    return maps, Grid(np.diag([VOXEL, VOXEL, VOXEL, 1.0]), mask)


def smooth(rng: np.random.Generator, shape: tuple[int, int, int], fwhm: float) -> np.ndarray:
    """Return noise of variance 1 with a FWHM in mm."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), fwhm / VOXEL / np.sqrt(8 * np.log(2)), mode="wrap")
    return noise / noise.std()


def find(
    rng: np.random.Generator, sizes: tuple[float | None, ...], shared: float, anatomy: float
) -> set[frozenset[int]]:
    """Return the groups that are named in one collection."""
    maps, grid = simulate(rng, shared, anatomy)
    store = RowStore()
    for row, values in enumerate(maps):
        store.append("effect", row, values[grid.mask].astype(np.float64), 0)
    store.select({0: np.arange(grid.n_voxels)})
    rows = range(STUDIES)
    survey = tuple(MapSurvey(f"study-{row:02d}", (f"bids::{row}",), grid.n_voxels) for row in rows)
    stack = Stack(grid, survey, (), ("effect",), tuple(rows), (True,) * STUDIES, None, None, store)
    return {frozenset(group) for flag in flag_same_samples(stack, sizes) for group in flag.groups}


def report(collections: int) -> Iterator[str]:
    """Yield the page's lines; "FAILED" in one of them is a claim that does not hold."""
    yield from HEAD.format(collections=collections).splitlines()
    for number, (name, (sizes, anatomy)) in enumerate(CONDITIONS.items()):
        rng = np.random.default_rng([20, number])
        alarms = sum(bool(find(rng, sizes, 0.0, anatomy)) for _ in range(collections))
        low = stats.binomtest(alarms, collections).proportion_ci().low
        cells = []
        for shared in SHARED:
            found = [find(rng, sizes, shared, anatomy) for _ in range(max(collections // 5, 10))]
            hit = np.mean([frozenset({1, 2}) in groups for groups in found])
            cells.append(f"{hit:.2f}" + (" FAILED" if shared == 0.5 and sizes is SIZES and hit < POWER else ""))
        failed = " FAILED" if low > ALARMS else ""
        yield f"| {name} | {alarms} of {collections}{failed} | " + " | ".join(cells) + " |"


HEAD = """# Studies of the same people: alarms and power

Made by `python validation/same_sample.py --write docs/validation-same-sample.md`; do not edit by hand. {collections}
simulated collections a row, of 20 studies in a brain of 4 mm voxels: a common effect, each study's own smooth
difference from it, noise with a FWHM of 6 to 11 mm, scales over two decades, n of 10 to 40. Without shared people an
alarm is false; then the maps of two studies of n 12 share .3, .5 or .7 of the variance of their noise (two conditions
of one sample), and are found or not. "Anatomy in common": all maps have a fine pattern in common besides, each to
another degree.

| what is known | false alarms | found, .3 shared | found, .5 shared | found, .7 shared |
|---|---|---|---|---|"""


def main() -> int:
    """Run, print and write the page; 1 when a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collections", type=int, default=300)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    lines = list(report(options.collections))
    print("\n".join(lines))
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
