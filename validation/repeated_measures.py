"""Repeated measures and unequal groups where there is no effect: does a cluster-robust error keep its levels?

``python validation/repeated_measures.py [--sets 400] [--resamples 200] [--processes 2] [--write FILE]`` does two
things. Datasets on disk go through the command line (`ibma-app BIDS_DIR OUTPUT_DIR group --formula ...`), and the share
of 20,000 independent voxels with p < .05 and p < .001 is counted. Data sets of smooth noise go through the same fits,
one pass of resampling and the inferences, and those are counted in which anything is found. FILE is
docs/validation-repeated-measures.md. It exits with 1 when a claim of the documentation fails.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from familywise_cells import ALPHA, IN_CELL, POOLED  # noqa: E402
from repeated_layouts import VOXELS, Layout, make_stack, observe, write_dataset  # noqa: E402
from scipy import stats  # noqa: E402

from ibma_app.cli import main as ibma_app  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.designs.build import build_design  # noqa: E402
from ibma_app.designs.tables import collect_covariates  # noqa: E402
from ibma_app.designs.tests import parse_tests  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402

NARROW, WIDE = (0.046, 0.054), (0.045, 0.055)
"""What 5 % of 20,000 voxels may come out as: within 2.6 standard errors of the tests that are exact in theory, 3.2 of
the others."""
APPROXIMATE = (0.045, 0.060)
"""With 10 against 30 maps of unequal SD: 5.5 %, since the degrees of freedom are those of equal variances."""
RESAMPLING = ("max-stat", "cluster-mass", "tfce")
METHODS = ("bonferroni", *RESAMPLING)


NINE = {"subjects": 16, "sds": (1.0,) * 9}
THREE = {"subjects": 12, "sds": (2.0, 2.0, 0.3)}
WITHIN, ACROSS, ALONE = "0 + C(contrast) + C(participant_id)", "1 + C(contrast) + C(group)", "1 + C(group)"


def mean_of(*conditions: int) -> str:
    """Write the mean of some conditions as a test expression."""
    return " + ".join(f"1/{len(conditions)}*contrast[c{i}]" for i in conditions)


def minus(one: str, other: str) -> str:
    """Write a difference."""
    return f"{one} - ({other})"


FIRST, SECOND, THIRD = (mean_of(*range(i, i + 3)) for i in (0, 3, 6))  # the stimuli of nine conditions
OF_NINE = {"t": minus(f"0.5*({FIRST}) + 0.5*({SECOND})", THIRD), "F": f"{minus(FIRST, SECOND)}, {minus(SECOND, THIRD)}"}
OF_THREE = {"t": "contrast[c0] - contrast[c1]", "t2": f"{mean_of(0, 1)} - contrast[c2]", "F": "contrast"}
GROUPS = {"t": "C(group)[T.q]"}


@dataclass(frozen=True, eq=False)
class Run:
    """A run of the command line, whose uncorrected p are counted."""

    layout: Layout
    formula: str
    tests: dict[str, str]
    errors: str = "sandwich"
    claimed: tuple[float, float] | None = WIDE  # between which bounds the share below .05 lies


def stimuli(sd: float, **more: Any) -> Layout:
    """Lay out 16 subjects and 9 conditions, three of each stimulus."""
    return Layout(subjects=16, sds=(1.0,) * 9, stimulus=sd, **more)


RUNS = (
    *(Run(stimuli(sd), WITHIN, OF_NINE, "sandwich", NARROW) for sd in (0.0, 0.5, 1.0)),
    *(Run(stimuli(sd), WITHIN, OF_NINE, "pooled", None if sd else NARROW) for sd in (0.0, 0.5, 1.0)),
    Run(stimuli(1.0, missing=25), WITHIN, OF_NINE),
    Run(Layout(**THREE), WITHIN, OF_THREE, "sandwich", NARROW),
    Run(Layout(**THREE), WITHIN, OF_THREE, "pooled", None),
    Run(stimuli(1.0, first=8), ACROSS, GROUPS),
    Run(stimuli(1.0, first=5), ACROSS, GROUPS),
    Run(stimuli(1.0, first=6, missing=25), ACROSS, GROUPS),
    Run(Layout(40, (1.0,), first=10, first_sd=1.5), ALONE, GROUPS, "sandwich", APPROXIMATE),
    Run(Layout(40, (1.0,), first=10, first_sd=1.5), ALONE, GROUPS, "pooled", None),
    Run(Layout(20, (1.0,), first=5, first_sd=3.0), ALONE, GROUPS, "sandwich", None),
    Run(Layout(20, (1.0,), first=5, first_sd=3.0), ALONE, GROUPS, "pooled", None),
)


def count_voxels(run: Run) -> dict[str, tuple[float, float]]:
    """Run the command line, and return the shares of p below .05 and .001 by test."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_dataset(folder / "data", run.layout, seed=RUNS.index(run))
        (folder / "errors.toml").write_text(f'[estimator.ols]\nerrors = "{run.errors}"\n')
        tests = [f"{name}={expression}" for name, expression in run.tests.items()]
        words = [
            "group",
            "--estimator",
            "ols",
            "--formula",
            run.formula,
            "--test",
            *tests,
            "--config-file",
            folder / "errors.toml",
        ]
        more = ["--inference", "uncorrected", "--mask", "data", "--no-report", "--nprocs", "1", "-q"]
        code = ibma_app([str(folder / "data"), str(folder / "out"), *map(str, words), *more])
        if code != 0:
            raise RuntimeError(f"exit code {code}: {run}")
        found = {}
        for name in run.tests:
            (path,) = (folder / "out" / "group").glob(f"*_test-{name}_desc-ols_stat-p_statmap.nii.gz")
            p = nib.load(path).get_fdata()
            assert p.size == np.prod(VOXELS)
            found[name] = float((p < 0.05).mean()), float((p < 0.001).mean())
    return found


@dataclass(frozen=True, eq=False)
class Resampled:
    """An analysis of smooth noise whose corrected inferences are counted."""

    layout: Layout
    formula: str
    test: str
    errors: str = "sandwich"
    claimed: tuple[str, ...] = METHODS
    exchangeable: bool = False  # as a column says: subjects change places


TEN_AND_THIRTY = Layout(40, (1.0,), first=10, first_sd=1.5)
TEN_AND_TEN = Layout(20, (1.0,), first=10, first_sd=3.0)
FIVE_AND_FIFTEEN = Layout(20, (1.0,), first=5, first_sd=3.0)

RESAMPLED = (
    Resampled(stimuli(1.0), WITHIN, OF_NINE["t"]),
    Resampled(stimuli(1.0), WITHIN, OF_NINE["t"], "pooled", ()),
    Resampled(Layout(**THREE), WITHIN, OF_THREE["t2"]),
    Resampled(Layout(**THREE), WITHIN, OF_THREE["F"]),
    Resampled(Layout(**THREE), WITHIN, OF_THREE["t2"], "pooled", ()),
    Resampled(stimuli(1.0, missing=25), WITHIN, OF_NINE["t"]),
    Resampled(Layout(16, (1.0,) * 3, first=8), ACROSS, GROUPS["t"]),
    Resampled(Layout(16, (1.0,) * 3, first=5), ACROSS, GROUPS["t"]),
    Resampled(TEN_AND_THIRTY, ALONE, GROUPS["t"]),
    Resampled(TEN_AND_THIRTY, ALONE, GROUPS["t"], "sandwich", (), exchangeable=True),
    Resampled(TEN_AND_THIRTY, ALONE, GROUPS["t"], "pooled", ()),
    Resampled(TEN_AND_TEN, ALONE, GROUPS["t"], "sandwich", RESAMPLING),
    Resampled(TEN_AND_TEN, ALONE, GROUPS["t"], "sandwich", (), exchangeable=True),
    Resampled(FIVE_AND_FIFTEEN, ALONE, GROUPS["t"], "sandwich", ()),
    Resampled(FIVE_AND_FIFTEEN, ALONE, GROUPS["t"], "pooled", ()),
)


@dataclass(frozen=True)
class Job:
    """One data set of one analysis."""

    analysis: Resampled
    number: int
    resamples: int


def find(job: Job) -> list[bool]:
    """Tell which methods find something in one data set."""
    analysis, layout = job.analysis, job.analysis.layout
    rows = observe(layout)
    covariates = collect_covariates(rows)
    covariates["group"] = ["p" if int(row.unit_label[1:]) < layout.first else "q" for row in rows]
    if analysis.exchangeable:
        covariates["exchangeability"] = 1
    design = build_design(rows, covariates, analysis.formula, parse_tests([f"test={analysis.test}"]))
    seed = [job.number, len(rows), layout.subjects, layout.first, int(10 * layout.first_sd)]
    stack, model = (
        make_stack(layout, np.random.default_rng(seed)),
        Model(find_estimator("ols"), design, {"errors": analysis.errors}),
    )
    settings = InferenceSettings(alpha=ALPHA, permutations=job.resamples, seed=job.number)
    field = make_field(SimpleNamespace(grid=stack.grid), estimate_maps(stack, model), design.tests[0], None)
    methods = [find_inference(name) for name in METHODS]
    scores = {method.name: method.score for method in methods if method.score}
    null = score_resamples(stack, model, design.tests[0], scores, settings)
    return [bool(m.infer(field, null if m.score else None, settings).significant.any()) for m in methods]


def measure(sets: int, resamples: int, processes: int) -> dict[Resampled, np.ndarray]:
    """Count the data sets in which each method finds something."""
    find(Job(RESAMPLED[0], 0, 4))  # compiles, before there are several processes
    hits = {}
    with ProcessPoolExecutor(processes) as pool:
        for analysis in RESAMPLED:
            jobs = [Job(analysis, number, resamples) for number in range(sets)]
            hits[analysis] = np.sum(list(pool.map(find, jobs, chunksize=10)), axis=0)
    return hits


def broken_claims(
    shares: dict[Run, dict[str, tuple[float, float]]], hits: dict[Resampled, np.ndarray], sets: int
) -> list[str]:
    """Tell which claims fail."""
    broken = [
        f"{run.layout.title}, {run.errors}, {test}: {low:.4f} of the voxels below .05"
        for run, found in shares.items()
        for test, (low, _) in found.items()
        if run.claimed and not run.claimed[0] <= low <= run.claimed[1]
    ]
    totals = dict.fromkeys(METHODS, (0, 0))
    for analysis, counts in hits.items():
        for method, count in zip(METHODS, counts.tolist(), strict=True):
            if method not in analysis.claimed:
                continue
            totals[method] = totals[method][0] + count, totals[method][1] + sets
            if stats.binom.sf(count - 1, sets, ALPHA) < IN_CELL:
                broken.append(f"{method}, {analysis.layout.title}: {count} of {sets} data sets")
    for method, (count, total) in totals.items():
        if stats.binom.sf(count - 1, total, ALPHA) < POOLED:
            broken.append(f"{method}, all analyses: {count} of {total} data sets")
    return broken


def as_markdown(
    shares: dict[Run, dict[str, tuple[float, float]]], hits: dict[Resampled, np.ndarray], sets: int, resamples: int
) -> str:
    """Lay both tables out."""
    voxelwise = ["| maps | errors | test | p < .05 | p < .001 |", "|---|---|---|---|---|"]
    for run, found in shares.items():
        star = "" if run.claimed else "\\*"
        for test, (low, lower) in found.items():
            kind = f"{'F' if test == 'F' else 't'}, {'between' if run.tests is GROUPS else 'within'}"
            voxelwise.append(
                f"| {run.layout.title} | {run.errors} | {kind} | {100 * low:.2f} %{star} | {100 * lower:.3f} % |"
            )
    header = ["maps", "errors", "test", *(f"`{method}`" for method in METHODS)]
    familywise = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for analysis, counts in hits.items():
        kind = "between" if analysis.test == GROUPS["t"] else "within"
        name = f"{'F' if analysis.test == OF_THREE['F'] else 't'}, {kind}"
        cells = [
            share_text(count, sets, claimed=m in analysis.claimed)
            for m, count in zip(METHODS, counts.tolist(), strict=True)
        ]
        errors = analysis.errors + (", places" if analysis.exchangeable else "")
        familywise.append("| " + " | ".join([analysis.layout.title, errors, name, *cells]) + " |")
    return PAGE.format(voxelwise="\n".join(voxelwise), familywise="\n".join(familywise), sets=sets, resamples=resamples)


def share_text(count: int, sets: int, *, claimed: bool) -> str:
    """Write an error with its 95 % Clopper-Pearson interval; a star where 0.05 is not claimed."""
    interval = stats.binomtest(int(count), sets).proportion_ci()
    return f"{count / sets:.3f}{'' if claimed else chr(92) + '*'} ({interval.low:.3f}-{interval.high:.3f})"


PAGE = """# Repeated measures and unequal groups: errors where there is no effect

Made by `python validation/repeated_measures.py --write docs/validation-repeated-measures.md`; do not edit by hand.

## Each voxel's test

Datasets on disk through the command line, 20,000 independent voxels. A map is its subject's level (SD 2), noise (SD
1, or as stated) and, with nine conditions, the subject's response to one of three stimuli (three conditions each):
these responses are what sphericity excludes. Nothing differs between conditions or groups. "t, within" compares two
stimuli with the third (of three conditions: the first with the second, and both with the third), "F, within" all of
them, "t, between" two groups. 5 % of so many voxels come out as 4.6 to 5.4 %; a star marks what is not claimed.

{voxelwise}

With `errors = "sandwich"`, the default of repeated measures, 5 % are 5 % whatever the subjects' responses. With
`errors = "pooled"`, the classical model, they are up to 27 %; it can also be far too strict (12 subjects, the second
test). Where maps are missing or groups differ in size, Satterthwaite's degrees of freedom are an approximation, and a
good one here.

Two groups with one map each are no repeated measures, and their default is `pooled`. `errors = "sandwich"` is Welch's
t there, with degrees of freedom that take variances to be equal (Bell & McCaffrey): 5 % are 5.5 % with 10 against 30
and one and a half times the SD in the ten, and 7 % with 5 against 15 and three times the SD in the five.

## Corrected inference

The share of {sets} data sets of smooth noise (FWHM 3 voxels, 12³ voxels) in which a method finds anything at all,
with its 95 % Clopper-Pearson interval; {resamples} resamples, two-sided, cluster-forming p 0.001.

{familywise}

With a cluster-robust error, resampling flips the signs of whole subjects and estimates the error anew each time. To
exchange subjects instead would err between groups whose variances differ: measured with 300 data sets, `max-stat`
found something in 37 of 100 with 10 against 10 subjects and three times the SD, and in 15 with 10 against 30 and one
and a half times. It is done only where a column `exchangeability` says that subjects are exchangeable.

The script ends with 1 when a voxelwise share without a star leaves 4.6 to 5.4 % (4.5 to 5.5 % with missing maps or
groups, 6 % where these vary unequally), or when an error without a star is larger than 0.05 explains (p < 0.001 in one
cell, or < 0.01 in all cells of a method together).
"""


def main() -> int:
    """Measure, print or write the page, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    shares = {run: count_voxels(run) for run in RUNS}
    hits = measure(given.sets, given.resamples, given.processes)
    page = as_markdown(shares, hits, given.sets, given.resamples)
    if given.write:
        given.write.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = broken_claims(shares, hits, given.sets)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
