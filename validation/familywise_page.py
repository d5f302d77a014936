"""The page of `familywise.py`: its tables, its words, and its claims."""

from collections.abc import Iterable, Mapping

import numpy as np
from familywise_cells import (
    ALPHA,
    DEFAULTS,
    IN_CELL,
    OTHERS,
    POOLED,
    RESAMPLED,
    VOXELWISE,
    Cell,
    Finding,
)  # fmt: skip
from scipy import stats

Counts = Mapping[Cell, np.ndarray]
Found = Mapping[Finding, np.ndarray]


def hits(null: Counts, cell: Cell, method: str) -> int | None:
    """Return in how many data sets a method found something; None: it was not measured."""
    return round(null[cell][cell.methods.index(method)]) if method in cell.methods else None


def share(count: int | None, sets: int, *, claimed: bool = True) -> str:
    """Write an error with its 95 % Clopper-Pearson interval; a star where 0.05 is not claimed."""
    if count is None:
        return ""
    interval = stats.binomtest(count, sets).proportion_ci()
    return f"{count / sets:.3f}{'' if claimed else chr(92) + '*'} ({interval.low:.3f}-{interval.high:.3f})"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay a table out."""
    lines = list(rows)
    head = list(header)
    return "\n".join(["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *lines)])


def main_table(null: Counts, sets: int) -> str:
    """Tabulate the defaults, and Bonferroni."""
    shown = (*DEFAULTS, "bonferroni")
    rows = [
        [cell.name, cell.maps.title, *(share(hits(null, cell, m), sets, claimed=cell.claims(m)) for m in shown)]
        for cell in null
    ]
    return table(["estimator", "maps", *(f"`{name}`" for name in shown)], rows)


def every_table(null: Counts, sets: int) -> str:
    """Tabulate the other inferences."""
    cells = [cell for cell in null if cell.every]
    rows = [[f"`{method}`", *(share(hits(null, cell, method), sets) for cell in cells)] for method in OTHERS]
    return table(["inference", *(f"{cell.name}, {cell.maps.title}" for cell in cells)], rows)


def power_table(found: Found) -> str:
    """Tabulate what is found of active voxels."""
    rows = []
    for one, (rate, *powers) in found.items():
        shown = [f"{power:.2f}" for power in powers] + [""] * (3 - len(powers))
        rows.append([one.maps.title, one.name, f"{rate:.3f}", *shown])
    power = [f"power, `{name}`" for name in ("fdr", "bonferroni", "max-stat")]
    return table(["studies", "estimator", "false among those found, `fdr`", *power], rows)


def said_table(null: Counts, pages: Mapping[Cell, list[str]]) -> str:
    """Tabulate what pages say where a level is not claimed, a row for each sentence."""
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in null:
        if cell.says:
            rows.setdefault((cell.name, " ".join(pages[cell])), []).append(cell)
    lines = []
    for (name, words), cells in rows.items():
        methods = ", ".join(f"`{method}`" for method in cells[0].beyond)
        lines.append([name, "; ".join(cell.maps.title for cell in cells), methods, words])
    return table(["estimator", "maps", "of", "the page says"], lines)


def broken_claims(null: Counts, found: Found, pages: Mapping[Cell, list[str]], sets: int, some: int) -> list[str]:
    """Tell which claims fail: errors that 0.05 does not explain and no page confesses; more false ones than that."""
    broken, totals = [], {}
    for cell in null:
        for method in cell.methods:
            count = hits(null, cell, method) or 0
            if not cell.claims(method):
                continue
            totals.setdefault(method, []).append(count)
            if stats.binom.sf(count - 1, sets, ALPHA) < IN_CELL:
                broken.append(f"{method}, {cell.title}: {share(count, sets)}")
        if cell.says and not pages[cell]:
            broken.append(f"{cell.title}: no page says {cell.says!r}")
    for method, counts in totals.items():
        if stats.binom.sf(sum(counts) - 1, sets * len(counts), ALPHA) < POOLED:
            broken.append(f"{method}, all analyses: {sum(counts)} of {sets * len(counts)} data sets")
    for one, numbers in found.items():
        if not one.liberal and numbers[0] > ALPHA + 3 * np.sqrt(ALPHA / some / 10):
            broken.append(f"fdr, {one.name}, K = {one.n}: {numbers[0]:.3f} of what is found is false")
    return broken


def as_markdown(null: Counts, found: Found, pages: Mapping[Cell, list[str]], sets: int, some: int) -> str:
    """Write the page."""
    return PAGE.format(
        main=main_table(null, sets), every=every_table(null, sets), said=said_table(null, pages), sets=sets,
        some=some, power=power_table(found),
        resampled=" and ".join(f"`{m}`" for m in RESAMPLED), voxelwise=" and ".join(f"`{m}`" for m in VOXELWISE),
    )  # fmt: skip


PAGE = """# Inference: errors at 0.05 where there is no effect

Made by `python validation/familywise.py --write docs/validation-familywise.md` from `validation/kept/familywise.tsv`,
any row of which `--cells PATTERN` measures anew; do not edit by hand. Each number is the share of {sets} simulated data
sets in which a method found anything at all, with its 95 % Clopper-Pearson interval: the family-wise error (of `fdr`
and `fdr-by` the false discovery rate, which is the same without effects; of `ari` that any cluster's true-discovery
proportion exceeds 0). Two-sided; cluster-forming p 0.001.

`fdr`, `max-stat` and `cluster-mass` are the default (`--inference auto`); where fewer than 6 maps leave too few
relabellings, `bonferroni` stands in for the last two. {voxelwise} are measured in 2,000 independent voxels, where
nothing hides an error of small p; {resampled} in 512 smooth ones (FWHM 2.5 voxels), with 60 relabellings: a resampled
test keeps its level whatever their number.

Subjects have variances of .25 to 1, estimated on 200 degrees of freedom, and true effects that differ with a variance
of 1. Studies are of 10 to 60 people, with sampling variances of 1.25 over their number estimated from these, and true
effects that differ with a variance (tau2) of .05, about that of a typical sampling variance; "effects that agree":
tau2 is 0, which is the null of `fixed-effects`, `stouffer`, `stouffer-weighted` and `fisher`. "A moderator" is tested
beside the mean, "missing" values are scattered over voxels, Hedges' g is made of each study's t. The 12 subjects x 3
conditions have SD 2, 2 and 0.3, so that sphericity fails ([repeated measures](validation-repeated-measures.md) has
more).

{main}

Blank: with 5 maps there is nothing to resample. \\* not claimed. In all others an error as large as the one found is to
be expected of a true 0.05 (the script ends with 1 where its probability is below 0.001 in a cell, or below 0.01 in all
cells of a method together).

- Whatever resamples keeps its level with every estimator, for subjects and studies, with missing values, moderators,
  repeated measures and groups of one variance.
- `fdr` and `bonferroni` rest on p far out in the tail. With `ols`, `stouffer-rfx` and what combines z they are right.
  With mixed models (test `adhoc`, the default) they are careful with few maps, most of all where studies agree, and
  right with 20; with 30 maps they err in 6 to 7 of 100 data sets instead of 5 (p of 1e-5 come up twice as often as they
  say: [mixed models](validation-mixed-models.md)), which the page of a run with 25 maps or more says. `max-stat` and
  `cluster-mass`, the other two defaults, do not depend on it.
- Groups of unequal size whose variances differ break every method that takes them as alike, resampled or not. With
  `ols` the setting that the warning names (`errors = "sandwich"`) mends it; with mixed models (`tau2_by`) it mends what
  resamples, and `fdr` and `bonferroni` not, which the page of such a run says.

## Where the page of a run says that the level does not hold

Each of these analyses was written to disk and run through the command line with its report, and the sentences looked
up there. The script fails when they are missing.

{said}

Groups of other sizes and ratios: [unequal groups](validation-unequal-groups.md), whose numbers the page of a run takes
([decision 0033](decisions/0033-groups-of-unlike-sizes.md)). The variances of all groups stand in the log, on the page
and in the sidecars of every run.

## The other inferences

{every}

## Where a tenth of the voxels is active

{some} data sets of studies as above for each row. A tenth of the voxels has an effect, of a size with which `ols` and
`fdr` find about a half. "False among those found" is the false discovery rate, which `fdr` promises to keep at .05;
power is the share of the active voxels that is found: by `fdr` and `bonferroni` in independent voxels, by `max-stat`
with 60 relabellings in the smooth ones, a block of which is active.

{power}

Power was compared at 5, 8, 10, 12 and 20 studies. Where studies differ, `reml` with its default test finds with `fdr`
as much as `ols` from 8 on, and what it finds is seldom false. Where they agree, the default test costs power: nearly
all of it at 5, a third at 8, none at 20; with `bonferroni` it finds nothing with few studies. Knapp and Hartung's own
test finds more, and where studies differ more of it is false than `fdr` says; calibrated (`[inference] calibrate =
true`) it is not, and finds less. Resampled it is the other way round: `reml` with its default test finds as much as
`ols` or up to four times more, and most with few studies: below 10, ask for `max-stat` (the default has it).
"""
