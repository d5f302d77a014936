"""Means of regions under the null: error rates of each region, and Holm's family-wise error, in smooth noise.

``python validation/regions.py [--data-sets 1000] [--write FILE]`` simulates maps of smooth noise with known sampling
variances, averages them over regions and tests as ``--regions`` does. FILE is docs/validation-regions.md. It exits
with 1 when a claim fails.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from scipy import ndimage, sparse  # noqa: E402

from ibma_app.core.anatomy.atlas import PlacedRegions, RegionName  # noqa: E402
from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.designs.build import one_sample_design  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference.bonferroni import step_down  # noqa: E402
from ibma_app.stats.tails import z_to_log10p  # noqa: E402
from ibma_app.stream.evidence.region_values import RegionBlock, average_regions  # noqa: E402

EDGE, PARTS, MAPS, LEVEL = 16, 2, 15, 0.05
EXACT, MOST, FAMILY = (0.04, 0.06), 0.06, 0.072
"""What is claimed: rates of exact tests, the largest of conservative ones, and of Holm's family-wise error."""


class Cell(NamedTuple):
    """One kind of noise."""

    fwhm: float  # voxels, of sampling errors and of true differences
    tau2: float


CELLS = tuple(Cell(fwhm, tau2) for fwhm in (2.0, 8.0) for tau2 in (0.0, 1.0))
ESTIMATORS = {"ols": True, "reml": False, "fixed-effects": False, "stouffer-rfx": True, "stouffer": False}
"""Estimator -> whether its error rate is claimed to be nominal (else: at most that)."""


def regions() -> PlacedRegions:
    """Cut the cube into eight."""
    half = EDGE // PARTS
    axis = np.arange(EDGE) // half
    labels = (axis[:, None, None] * PARTS + axis[None, :, None]) * PARTS + axis[None, None, :]
    count = PARTS**3
    weights = sparse.csc_array((np.ones(EDGE**3), (labels.ravel(), np.arange(EDGE**3))), shape=(count, EDGE**3))
    size = np.full(count, half**3)
    return PlacedRegions(tuple(RegionName("cube", k, str(k)) for k in range(count)), weights, size.astype(float), size)


def noise(rng: np.random.Generator, fwhm: float) -> np.ndarray:
    """Return smooth noise of variance 1 in K maps, (K, V)."""
    sigma = fwhm / np.sqrt(8 * np.log(2))
    white = rng.standard_normal((MAPS, EDGE, EDGE, EDGE))
    smooth = ndimage.gaussian_filter(white, (0, sigma, sigma, sigma), mode="wrap")
    impulse = np.zeros((EDGE, EDGE, EDGE))
    impulse[0, 0, 0] = 1.0
    scale = np.sqrt((ndimage.gaussian_filter(impulse, sigma, mode="wrap") ** 2).sum())
    return smooth.reshape(MAPS, -1) / scale


def measure(rng: np.random.Generator, cell: Cell, data_sets: int) -> dict[str, tuple[float, float]]:
    """Return of each estimator the error rate of a region and the family-wise one."""
    placed, design = regions(), one_sample_design(MAPS)
    single, family = dict.fromkeys(ESTIMATORS, 0.0), dict.fromkeys(ESTIMATORS, 0.0)
    sizes = np.linspace(0.5, 2.0, MAPS)[:, None]  # sampling variances
    for _ in range(data_sets):
        error = noise(rng, cell.fwhm) * np.sqrt(sizes)
        effect = error + (np.sqrt(cell.tau2) * noise(rng, cell.fwhm) if cell.tau2 else 0.0)
        variance = np.broadcast_to(sizes, effect.shape)
        covered = np.ones(effect.shape, dtype=bool)
        voxels = VoxelBlock(covered, effect, variance.copy(), effect / np.sqrt(variance))
        block = average_regions(RegionBlock(voxels), placed).block
        for name in ESTIMATORS:
            (test,) = find_estimator(name).fit(block, design).tests.values()
            log10_p = np.asarray(z_to_log10p(test.z, "two-sided"))
            single[name] += float((log10_p >= -np.log10(LEVEL)).mean()) / data_sets
            family[name] += float((step_down(log10_p) >= -np.log10(LEVEL)).any()) / data_sets
    return {name: (single[name], family[name]) for name in ESTIMATORS}


def claims(cell: Cell, found: dict[str, tuple[float, float]]) -> list[str]:
    """List what is not as claimed; those that take tau2 for 0 are held to nothing where it is not."""
    wrong = []
    for name, exact in ESTIMATORS.items():
        if cell.tau2 and name in ("fixed-effects", "stouffer"):
            continue
        rate, family = found[name]
        if rate > MOST or family > FAMILY or (exact and not EXACT[0] <= rate <= EXACT[1]):
            wrong.append(f"{cell}: {name} {rate:.4f}, family-wise {family:.4f}")
    return wrong


def main() -> int:
    """Measure all cells; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=1000)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    rng, wrong = np.random.default_rng(18), []
    lines = [f"| noise | {' | '.join(ESTIMATORS)} |", f"|---|{'---|' * len(ESTIMATORS)}"]
    for cell in CELLS:
        found = measure(rng, cell, given.data_sets)
        wrong += claims(cell, found)
        cells = " | ".join(f"{rate:.3f} / {family:.3f}" for rate, family in found.values())
        lines.append(f"| FWHM {cell.fwhm:g} voxels, tau2 {cell.tau2:g} | {cells} |")
    text = PAGE.format(table="\n".join(lines), data_sets=given.data_sets, maps=MAPS)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    sys.stderr.write("".join(f"not as claimed: {one}\n" for one in wrong))
    return 1 if wrong else 0


PAGE = """# Regions: error rates under the null

Made by `python validation/regions.py --write docs/validation-regions.md`; do not edit by hand. {maps} maps of smooth
noise in a cube of 16 voxels a side, cut into eight regions; sampling variances from 0.5 to 2 are known ({data_sets}
data sets a row). In each cell: how often a region has p < .05 where there is no effect, and how often any of the
eight has by Holm's correction.

The variance of a mean is taken to be the mean of the voxels' variances, the most that it can be: `fixed-effects` and
`stouffer` are conservative, the more so the larger a region is for its smoothness, and so is `reml` where that exceeds
all variance between maps. `ols` and `stouffer-rfx` are nominal. (Where tau2 is not 0, `fixed-effects` and `stouffer`
test another hypothesis: that no map has an effect.)

{table}
"""

if __name__ == "__main__":
    sys.exit(main())
