"""Error of every corrected inference at 0.05, measured in smooth null data: does each keep what it claims?

``python validation/familywise.py [--sets 200] [--resamples 200] [--processes 2] [--write FILE]`` simulates maps of
smooth noise without any effect and counts the data sets in which a method finds something. It takes the path of the
command line: the estimate, its smoothness, one pass of resampling, every inference. FILE is
docs/validation-familywise.md. It exits with 1 when a claim of the documentation fails.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from scipy import ndimage, stats  # noqa: E402

from ibma_app.core.design import Design, Test  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import INFERENCES, find_inference  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.stream.residuals.smoothness import estimate_smoothness  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402

ALPHA = 0.05
APPROXIMATE = 0.10  # what p values of mixed models may reach without resampling: their t is an approximation
FWHM = 3.0  # voxels
BORDER = 4  # voxels between the mask and the image's edge
TAU2 = 0.05  # against a typical sampling variance of 0.05, as in mixed_models.py
IN_CELL, POOLED = 0.001, 0.01
"""A claim fails when an error as large as the one found has less than this probability under what is claimed: in one
cell (of about 60), or in all cells of a method that claim the same together."""

METHODS = tuple(name for name in INFERENCES if name != "uncorrected")
RESAMPLED = tuple(name for name in METHODS if find_inference(name).score)
PARAMETRIC = tuple(name for name in METHODS if name not in RESAMPLED)


@dataclass(frozen=True)
class Analysis:
    """One kind of analysis, and what is measured of it."""

    title: str
    estimator: str
    groups: int
    side: int  # of the cube that is the mask, in voxels
    methods: tuple[str, ...]
    limit: float = ALPHA  # what the error is claimed not to exceed
    times: int = 1  # data sets, relative to --sets


ANALYSES = (
    Analysis("one sample, ols", "ols", 1, 24, METHODS),
    Analysis("two groups, ols", "ols", 2, 24, METHODS),
    Analysis("one sample, reml", "reml", 1, 24, PARAMETRIC, APPROXIMATE, 4),
    Analysis("one sample, reml", "reml", 1, 12, RESAMPLED),  # a smaller cube: it is fitted 200 times a data set
)
MAPS = (12, 20)


@dataclass(frozen=True)
class Job:
    """One data set of one analysis."""

    analysis: Analysis
    n_maps: int
    number: int
    resamples: int


def make_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw stationary noise of mean 0 and variance 1, of the smoothness of a Gaussian kernel."""
    sigma = FWHM / np.sqrt(8 * np.log(2))
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap", truncate=6)
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma) ** 3


def simulate(job: Job, rng: np.random.Generator) -> Stack:
    """Draw maps without any effect; those with variances are of studies of 10 to 60 people whose effects differ."""
    side = job.analysis.side
    mask = np.zeros((side + 2 * BORDER,) * 3, dtype=bool)
    mask[(slice(BORDER, -BORDER),) * 3] = True
    with_variance = "variance" in find_estimator(job.analysis.estimator).needs
    store = RowStore()
    for row in range(job.n_maps):
        effect = make_noise(mask.shape, rng)[mask]
        if with_variance:
            size = int(rng.integers(10, 61))
            sampling, width = 1.25 / size, 2 / (9 * (size - 1))
            # smooth chi-square of size - 1 dof over its dof (Wilson & Hilferty 1931)
            chi = (1 - width + np.sqrt(width) * make_noise(mask.shape, rng)[mask]) ** 3
            store.append("variance", row, sampling * chi, 0)
            effect = effect * np.sqrt(sampling + TAU2)
        store.append("effect", row, effect, 0)
    n_voxels = int(mask.sum())
    store.select({0: np.arange(n_voxels)})
    kinds = ("effect", "variance") if with_variance else ("effect",)
    survey = tuple(MapSurvey(f"sub-{row}", (), n_voxels) for row in range(job.n_maps))
    rows, signed = tuple(range(job.n_maps)), (True,) * job.n_maps
    return Stack(Grid(np.diag([2.0, 2, 2, 1]), mask), survey, (), kinds, rows, signed, None, None, store)


def make_design(job: Job) -> Design:
    """Ask for the mean, or for the difference between two halves."""
    ones = np.ones((job.n_maps, 1))
    if job.analysis.groups == 1:
        return Design(ones, ("intercept",), (Test("intercept", np.ones((1, 1))),))
    group = np.arange(job.n_maps) % 2
    return Design(np.column_stack([ones, group]), ("intercept", "group"), (Test("group", np.array([[0.0, 1.0]])),))


def find(job: Job) -> list[bool]:
    """Tell which methods find something in one data set."""
    analysis = job.analysis
    stack = simulate(job, np.random.default_rng([job.number, job.n_maps, analysis.groups, analysis.side]))
    design, settings = make_design(job), InferenceSettings(alpha=ALPHA, permutations=job.resamples, seed=job.number)
    model = Model(find_estimator(analysis.estimator), design)
    estimate = estimate_maps(stack, model)
    smoothness = estimate_smoothness(stack, model, estimate)
    field = make_field(SimpleNamespace(grid=stack.grid), estimate, design.tests[0], smoothness)
    methods = [find_inference(name) for name in analysis.methods]
    scores = {method.name: method.score for method in methods if method.score}
    null = None
    if scores:
        null = score_resamples(stack, model, design.tests[0], scores, settings)
    return [bool(m.infer(field, null if m.score else None, settings).significant.any()) for m in methods]


@dataclass(frozen=True)
class Cell:
    """How often one method found something."""

    method: str
    analysis: str
    n_maps: int
    hits: int
    sets: int
    limit: float

    @property
    def text(self) -> str:
        """The error with its 95 % Clopper-Pearson interval; a star where 0.05 is not claimed."""
        interval = stats.binomtest(self.hits, self.sets).proportion_ci()
        star = "\\*" if self.limit > ALPHA else ""
        return f"{self.hits / self.sets:.3f}{star} ({interval.low:.3f}-{interval.high:.3f})"


def measure(sets: int, resamples: int, processes: int) -> list[Cell]:
    """Run every analysis."""
    kinds = [(analysis, n_maps) for analysis in ANALYSES for n_maps in MAPS]
    jobs = {kind: [Job(*kind, number, resamples) for number in range(sets * kind[0].times)] for kind in kinds}
    find(jobs[kinds[0]][0])  # compiles, before there are several processes
    cells = []
    with ProcessPoolExecutor(processes) as pool:
        for (analysis, n_maps), own in jobs.items():
            hits = np.sum(list(pool.map(find, own, chunksize=10)), axis=0)
            cells += [
                Cell(method, analysis.title, n_maps, int(count), len(own), analysis.limit)
                for method, count in zip(analysis.methods, hits, strict=True)
            ]
    return cells


def broken_claims(cells: list[Cell]) -> list[str]:
    """Tell which claims fail: errors that the limit does not explain."""

    def chance(hits: int, sets: int, limit: float) -> float:
        return float(stats.binom.sf(hits - 1, sets, limit))

    broken = [
        f"{c.method}, {c.analysis}, K = {c.n_maps}: {c.text}, not {c.limit}"
        for c in cells
        if chance(c.hits, c.sets, c.limit) < IN_CELL
    ]
    for method, limit in dict.fromkeys((c.method, c.limit) for c in cells):
        own = [c for c in cells if (c.method, c.limit) == (method, limit)]
        hits, sets = sum(c.hits for c in own), sum(c.sets for c in own)
        if chance(hits, sets, limit) < POOLED:
            broken.append(f"{method}, all analyses: {hits / sets:.3f} of {sets} data sets, not {limit}")
    return broken


def as_markdown(cells: list[Cell], sets: int, resamples: int) -> str:
    """Lay the cells out: a row per method, a column per analysis and number of maps."""
    columns = list(dict.fromkeys((c.analysis, c.n_maps) for c in cells))
    header = ["method", *(f"{analysis}, K = {n_maps}" for analysis, n_maps in columns)]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    found = {(c.method, c.analysis, c.n_maps): c.text for c in cells}
    for method in METHODS:
        lines.append("| " + " | ".join([f"`{method}`", *(found[method, *column] for column in columns)]) + " |")
    return PAGE.format(table="\n".join(lines), sets=sets, more=max(c.sets for c in cells), resamples=resamples)


PAGE = """# Inference: errors at 0.05 where there is no effect

Made by `python validation/familywise.py --write docs/validation-familywise.md`; do not edit by hand. Each number is the
share of {sets} simulated data sets (\\*: {more}) in which a method found anything at all, with its 95 % Clopper-Pearson
interval: the family-wise error (of `fdr` and `fdr-by` the false discovery rate, which is the same without effects; of
`ari` that any cluster's true-discovery proportion exceeds 0). Two-sided, cluster-forming p 0.001, {resamples}
resamples. Maps are Gaussian noise with a FWHM of 3 voxels in a cube of 24³ voxels off the image's edge; for `reml`,
studies of 10 to 60 people with smooth sampling variances, estimated by each study, and effects that differ (tau2 as
large as a typical variance); there the resampled methods were run in 12³ voxels, since the model is fitted anew in
every resample.

{table}

What it says: with `ols`, every method keeps 0.05 to the precision of the simulation. With `reml`, those that resample
(`max-stat`, `cluster-size`, `cluster-mass`, `tfce`) do so too. Of the others (\\*), `bonferroni`, `rft-voxel`, `fdr`
and `ari` do **not** with `reml`: they err in 0.07 to 0.09 of the data sets. They rest on Knapp and Hartung's t, which
is an approximation (tau2 and the variances are estimated), and the approximation is worse in the far tail than at 0.05
([mixed models](validation-mixed-models.md)). Where the level must hold with a mixed model, resample.

At this smoothness the threshold of `rft-voxel` is Bonferroni's, the lower one: random fields are put to the test by
`rft-cluster` alone.

The script ends with 1 when an error is larger than 0.05 explains, or 0.10 where there is a star (p < 0.001 in one cell,
or < 0.01 in all cells of a method together). The 0.10 was set after the errors were measured: it guards against their
growing, and is no claim that they are small enough.
"""


def main() -> int:
    """Measure, print or write the table, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    cells = measure(given.sets, given.resamples, given.processes)
    page = as_markdown(cells, given.sets, given.resamples)
    if given.write:
        given.write.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = broken_claims(cells)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
