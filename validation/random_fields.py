"""Random field theory where degrees of freedom vary between voxels, and what small clusters take along with them.

``python validation/random_fields.py [--sets 400] [--processes 2] [--write FILE]`` simulates maps of smooth noise, some
of which do not cover all of the mask, fits `ols`, and counts the data sets in which `rft-voxel` and `rft-cluster` find
something. With focal effects added, it counts what is false of what `--min-extent` leaves. FILE is
docs/validation-random-fields.md. It exits with 1 when a claim of the page fails.
"""

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from familywise_cells import ALPHA, IN_CELL, POOLED  # noqa: E402
from scipy import fft, stats  # noqa: E402

from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.core.design import Design, Test  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.inference.ari import bound_discoveries  # noqa: E402
from ibma_app.inference.clusters import apply_min_extent, find_clusters  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.residuals.smoothness import estimate_smoothness  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402

SIDE, BORDER, FWHM = 24, 8, 8.0  # voxels: the cube that is the mask, the rest of the image around it, the noise
METHODS = ("rft-voxel", "rft-cluster")

FOCI_MAPS, FOCUS, STEP, EFFECT = 20, 2, 8, 2.0  # effects: cubes of 2 voxels, 8 apart, 2 standard deviations of a map
EXTENT = 10  # voxels: no effect has as many
THRESHOLDED = ("fdr", "fdr-by", "bonferroni", "ari")
LOST = 2.0  # times the level that the false discovery rate at least reaches among what is left


def nowhere(covered: np.ndarray) -> None:
    """Let every map cover the whole mask."""


def one_voxel(covered: np.ndarray) -> None:
    """Leave one voxel out of one map."""
    covered[0, 0, 0, 0] = False


def two_edges(covered: np.ndarray) -> None:
    """Let two maps end early, as fields of view do."""
    covered[0, :, :, : SIDE // 5] = False
    covered[1, :, :, : SIDE // 3] = False


def halves(covered: np.ndarray) -> None:
    """Let a quarter of the maps have one half of the mask alone."""
    covered[: len(covered) // 4, :, : SIDE // 2] = False


MISSING: dict[Callable[[np.ndarray], None], str] = {
    nowhere: "all maps cover all voxels",
    one_voxel: "one voxel of one map is missing",
    two_edges: "two maps end at a fifth and a third",
    halves: "a quarter of the maps have one half",
}


@dataclass(frozen=True)
class Analysis:
    """A number of maps, what is missing of them, and the test."""

    n_maps: int
    missing: Callable[[np.ndarray], None]
    is_f: bool = False
    """Whether it asks if three groups differ."""

    def design(self) -> Design:
        """Ask for the mean, or for any difference between the groups."""
        ones = np.ones((self.n_maps, 1))
        if not self.is_f:
            return Design(ones, ("intercept",), (Test("intercept", np.ones((1, 1))),))
        group = np.arange(self.n_maps) % 3
        columns = np.column_stack([ones, group == 1, group == 2]).astype(float)
        return Design(columns, ("intercept", "b", "c"), (Test("groups", np.eye(3)[1:]),))


ANALYSES = tuple(
    Analysis(n_maps, missing, is_f) for n_maps, is_f in ((8, False), (20, False), (15, True)) for missing in MISSING
)


def make_noise(shape: tuple[int, ...], rng: np.random.Generator, fwhm: float = FWHM) -> np.ndarray:
    """Draw stationary noise of variance 1, smoothed by a Gaussian kernel."""
    sigma = fwhm / np.sqrt(8 * np.log(2))
    squares = sum(
        np.meshgrid(*(fft.fftfreq(n) ** 2 for n in shape[:2]), fft.rfftfreq(shape[2]) ** 2, indexing="ij", sparse=True)
    )
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * squares)
    noise = fft.irfftn(fft.rfftn(rng.standard_normal(shape)) * gain, shape)
    return np.asarray(noise * np.sqrt(2 * np.sqrt(np.pi) * sigma) ** 3)


def make_mask() -> np.ndarray:
    """Make a cube off the image's edge."""
    mask = np.zeros((SIDE + 2 * BORDER,) * 3, dtype=bool)
    mask[(slice(BORDER, -BORDER),) * 3] = True
    return mask


def simulate(analysis: Analysis, rng: np.random.Generator) -> Stack:
    """Draw maps without any effect."""
    mask = make_mask()
    covered = np.ones((analysis.n_maps, SIDE, SIDE, SIDE), dtype=bool)
    analysis.missing(covered)
    store, n_voxels = RowStore(), SIDE**3
    for row, there in enumerate(covered):
        store.append("effect", row, np.where(there.ravel(), make_noise(mask.shape, rng)[mask], np.nan), 0)
    store.select({0: np.arange(n_voxels)})
    survey = tuple(MapSurvey(f"sub-{row}", (), int(there.sum())) for row, there in enumerate(covered))
    rows, signed = tuple(range(analysis.n_maps)), (True,) * analysis.n_maps
    return Stack(Grid(np.diag([2.0, 2, 2, 1]), mask), survey, (), ("effect",), rows, signed, None, None, store)


def find(job: tuple[Analysis, int]) -> list[bool]:
    """Tell in one data set which methods find something, and whether the Gaussian field of z would."""
    analysis, number = job
    stack = simulate(analysis, np.random.default_rng([number, ANALYSES.index(analysis)]))
    model = Model(find_estimator("ols"), analysis.design())
    estimate = estimate_maps(stack, model)
    smoothness = estimate_smoothness(stack, model, estimate)
    field = make_field(SimpleNamespace(grid=stack.grid), estimate, model.design.tests[0], smoothness)
    normal = replace(field, statistic=None, dof=None) if field.largest_dof else field
    asked = [(field, name) for name in METHODS] + [(normal, "rft-voxel")]
    settings = InferenceSettings(alpha=ALPHA)
    return [bool(find_inference(name).infer(seen, None, settings).significant.any()) for seen, name in asked]


def threshold(number: int) -> list[tuple[float, float]]:
    """Return for each method what is wrong in one data set with focal effects: before and after small clusters go.

    It is the share of false discoveries of `fdr` and `fdr-by`, whether there is one of `bonferroni`, and of `ari`
    whether it bounds a cluster's true discoveries too highly.
    """
    mask, rng = make_mask(), np.random.default_rng([number, 77])
    active = np.zeros((SIDE,) * 3, dtype=bool)
    for x, y, z in np.ndindex((SIDE // STEP,) * 3):
        active[tuple(slice(at * STEP + 2, at * STEP + 2 + FOCUS) for at in (x, y, z))] = True
    true = active.ravel()
    effect = np.array([make_noise(mask.shape, rng, FWHM / 2)[mask] + EFFECT * true for _ in range(FOCI_MAPS)])
    design = Analysis(FOCI_MAPS, nowhere).design()
    estimate = find_estimator("ols").fit(VoxelBlock(np.ones(effect.shape, dtype=bool), effect), design)
    field = make_field(SimpleNamespace(grid=Grid(np.diag([2.0, 2, 2, 1]), mask)), estimate, design.tests[0], None)
    bound = bound_discoveries(field, ALPHA)

    def wrong(name: str, kept: np.ndarray) -> float:
        if name == "ari":
            clusters = find_clusters(field, kept)
            own = [clusters.voxels[clusters.labels == label] for label in range(clusters.sizes.size)]
            return float(any(bound(voxels) > true[voxels].mean() for voxels in own))
        false = np.count_nonzero(kept & ~true)
        return float(false > 0) if name == "bonferroni" else false / max(np.count_nonzero(kept), 1)

    found = []
    for name in THRESHOLDED:
        before = find_inference(name).infer(field, None, InferenceSettings(alpha=ALPHA))
        after = apply_min_extent(field, before, EXTENT)
        found.append((wrong(name, before.significant), wrong(name, after.significant)))
    return found


def measure(sets: int, processes: int) -> tuple[dict[Analysis, np.ndarray], np.ndarray]:
    """Return the data sets in which something is found, (3,) by analysis; and what is wrong, (sets, 4, 2)."""
    find((ANALYSES[1], 0))  # compiles, before there are several processes
    with ProcessPoolExecutor(processes) as pool:
        hits = {
            analysis: np.sum(list(pool.map(find, [(analysis, n) for n in range(sets)], chunksize=10)), axis=0)
            for analysis in ANALYSES
        }
        wrong = np.array(list(pool.map(threshold, range(sets), chunksize=10)))
    return hits, wrong


def broken_claims(hits: dict[Analysis, np.ndarray], wrong: np.ndarray, sets: int) -> list[str]:
    """Tell which claims fail."""
    broken = []
    for method, counts in zip(METHODS, np.array(list(hits.values())).T, strict=False):
        for analysis, count in zip(hits, counts.tolist(), strict=True):
            if stats.binom.sf(count - 1, sets, ALPHA) < IN_CELL:
                broken.append(f"{method}, {analysis.n_maps} maps, {MISSING[analysis.missing]}: {count} of {sets}")
        if stats.binom.sf(counts.sum() - 1, sets * len(hits), ALPHA) < POOLED:
            broken.append(f"{method}, all analyses: {counts.sum()} of {sets * len(hits)}")
    error = 3.1 * wrong.std(axis=0) / np.sqrt(sets)  # p of .001
    before, after = wrong.mean(axis=0).T
    for row, name in enumerate(THRESHOLDED):
        if before[row] - error[row, 0] > ALPHA:
            broken.append(f"{name}: {before[row]:.3f} is wrong")
        if not name.startswith("fdr") and after[row] - error[row, 1] > ALPHA:
            broken.append(f"{name} after --min-extent: {after[row]:.3f} is wrong")
    if after[0] + error[0, 1] < LOST * ALPHA:
        broken.append(f"fdr after --min-extent: {after[0]:.3f} is wrong, less than its caveat says")
    return broken


def share_text(count: int, sets: int) -> str:
    """Write an error with its 95 % Clopper-Pearson interval."""
    interval = stats.binomtest(int(count), sets).proportion_ci()
    return f"{count / sets:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def as_markdown(hits: dict[Analysis, np.ndarray], wrong: np.ndarray, sets: int) -> str:
    """Lay both tables out."""
    fields = ["| test | coverage | `rft-voxel` | `rft-cluster` | Gaussian field of z |", "|---|---|---|---|---|"]
    for analysis, counts in hits.items():
        kind = f"{'F, 3 groups' if analysis.is_f else 't'}, {analysis.n_maps} maps"
        voxel, cluster, normal = (share_text(count, sets) for count in counts.tolist())
        last = normal if analysis.missing is not nowhere else ""
        fields.append(f"| {kind} | {MISSING[analysis.missing]} | {voxel} | {cluster} | {last} |")
    named = {
        "fdr": "share of false voxels",
        "fdr-by": "share of false voxels",
        "bonferroni": "data sets with a false voxel",
        "ari": "data sets with a bound that is too high",
    }
    extents = ["| inference | what is wrong | all that is significant | clusters of 10 voxels and more |"]
    extents.append("|---|---|---|---|")
    for name, (before, after) in zip(THRESHOLDED, wrong.mean(axis=0), strict=True):
        extents.append(f"| `{name}` | {named[name]} | {before:.3f} | {after:.3f} |")
    return PAGE.format(fields="\n".join(fields), extents="\n".join(extents), sets=sets)


PAGE = """# Random fields and extents

Made by `python validation/random_fields.py --write docs/validation-random-fields.md`; do not edit by hand.

## Where degrees of freedom vary between voxels

The share of {sets} data sets of smooth noise (FWHM 8 voxels, a cube of 24³ voxels off the image's edge; `ols`,
two-sided, cluster-forming p 0.001) in which anything is found at 0.05, with its 95 % Clopper-Pearson interval.

{fields}

A voxel that a map does not cover has one degree of freedom less. `rft-voxel` then searches the t (or F) field of the
smallest degrees of freedom in the mask, and gives each voxel the t that has its p there: peaks of that field are the
most frequent. `rft-cluster` takes the field of the largest: clusters of that field are the largest. The last column is
what versions before did wherever degrees of freedom varied, in one voxel of one map even: `rft-voxel` with the Gaussian
field of z, whose peaks are too rare.

## After `--min-extent`

{sets} data sets of 20 maps of smooth noise (FWHM 4 voxels) with 27 effects of 8 voxels each, two standard deviations
high; then clusters of fewer than 10 voxels are left out.

{extents}

Taking clusters out takes true discoveries out with the false ones, and here more of them: a false discovery rate of
0.05 among all voxels that pass says nothing of those that are left. Of a family-wise error, and of the bounds of
`ari`, any subset is as good as the whole. Page, terminal and sidecar say so where `--min-extent` follows `fdr` or
`fdr-by`.

The script ends with 1 when an error of the first table (but for the last column) is larger than 0.05 explains (p <
0.001 in one cell, or < 0.01 in all cells of a method together), when one of the second is (but for `fdr` and `fdr-by`
after clusters were left out), or when `fdr` keeps twice its level there after all.
"""


def main() -> int:
    """Measure, print or write the page, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    hits, wrong = measure(given.sets, given.processes)
    page = as_markdown(hits, wrong, given.sets)
    if given.write:
        given.write.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = broken_claims(hits, wrong, given.sets)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
