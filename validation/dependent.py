"""Longitudinal data where there is no effect: does a random intercept keep its levels?

``python validation/dependent.py [--voxels 20000] [--sets 1000] [--resamples 100] [--write FILE]`` fits
`random-intercept` to maps without any effect, complete and with a third of the visits missing, and counts the voxels
with p < .05 and p < .001 for tests of the mean, within and between participants, and of their interaction, with
Satterthwaite's degrees of freedom and with Kenward and Roger's. Data sets of smooth noise are relabelled and fitted
again, and those are counted in which anything is found. FILE is docs/validation-dependent.md, of which it writes the
part before the heading of dependent_studies.py. It exits with 1 when a claim of the page fails.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from dependent_studies import HEADING  # noqa: E402
from familywise_cells import ALPHA, IN_CELL, POOLED  # noqa: E402
from repeated_layouts import BORDER, Noise, make_noise  # noqa: E402
from repeated_measures import share_text  # noqa: E402
from scipy import stats  # noqa: E402

from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.core.design import Design  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.core.statmap import Dataset, Observation, StatMap  # noqa: E402
from ibma_app.designs.build import build_design  # noqa: E402
from ibma_app.designs.tables import collect_covariates  # noqa: E402
from ibma_app.designs.tests import parse_tests  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402

FORMULA = "1 + C(session, contr.sum)*C(group, contr.sum)"
TESTS = {
    "mean": "intercept",
    "within": "session[2] - session[1]",
    "within, F": "session",
    "between": "group[q] - group[p]",
    "interaction, F": "session:group",
}
EXACT = (0.045, 0.055)
"""What 5 % of 20,000 voxels may come out as: within 3.2 standard errors."""
PLAIN, CORRECTED_DOF = DOF = ("satterthwaite", "kenward-roger")
UPPER = {40: 0.065, 20: 0.065, 12: 0.080}  # participants -> what no share exceeds, whatever the correlation
KENWARD_ROGER = {0.0: 0.063, 0.2: EXACT[1]}  # icc -> what no share exceeds, however many participants
METHODS = (("bonferroni", PLAIN), ("bonferroni", CORRECTED_DOF), ("max-stat", PLAIN), ("cluster-mass", PLAIN))
RESAMPLING = ("max-stat", "cluster-mass")
SIDE = 5  # of the cube of smooth noise, in voxels
SHAPE, INSIDE = (SIDE + 2 * BORDER,) * 3, (slice(BORDER, -BORDER),) * 3
CORRECTED = ("mean", "within, F", "between", "interaction, F")  # tests whose corrected inference is counted


@dataclass(frozen=True)
class Visits:
    """Participants of two groups with three visits, a share of which are missing."""

    participants: int
    icc: float
    missing: float = 0.0

    @property
    def title(self) -> str:
        """Return it in words."""
        return f"{self.participants} participants x 3 visits" + (", a third missing" if self.missing else "")

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return participant and visit of each map."""
        participant, visit = np.repeat(np.arange(self.participants), 3), np.tile([1, 2, 3], self.participants)
        kept = np.ones(visit.size, dtype=bool)
        gone = np.random.default_rng(5).choice(visit.size, round(self.missing * visit.size), replace=False)
        kept[gone] = False
        return participant[kept], visit[kept]

    def draw(self, noise: Noise, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield each map, of variance 1; ``noise(rng)`` draws one of standard noise."""
        own: dict[int, np.ndarray] = {}
        for participant in self.rows()[0].tolist():
            if participant not in own:
                own[participant] = np.sqrt(self.icc) * noise(rng)
            yield own[participant] + np.sqrt(1.0 - self.icc) * noise(rng)

    def design(self) -> Design:
        """Build the design of these rows, with all tests."""
        observations, dataset = [], Dataset("null", Path("null"))
        for participant, visit in zip(*self.rows(), strict=True):
            entities = {"sub": f"s{participant:02d}", "ses": f"{visit}"}
            one = StatMap(dataset.root / f"{participant}-{visit}", "effect", dataset, entities)
            observations.append(Observation(entities["sub"], entities, {"effect": one}))
        covariates = collect_covariates(observations)
        covariates["group"] = ["pq"[int(row.unit_label[1:]) % 2] for row in observations]
        return build_design(observations, covariates, FORMULA, parse_tests([f"{k}={v}" for k, v in TESTS.items()]))


CELLS = tuple(
    Visits(participants, icc, missing)
    for participants in (40, 20, 12)
    for missing in (0.0, 1 / 3)
    for icc in (0.0, 0.2, 0.5, 0.8)
)
RESAMPLED = (Visits(20, 0.5), Visits(20, 0.5, 1 / 3))
Shares = dict[tuple[str, Visits], list[tuple[float, float]]]


def claimed(dof: str, cell: Visits) -> bool:
    """Tell whether 5 % are claimed to be 5 %."""
    if dof == CORRECTED_DOF:
        return cell.icc >= {40: 0.2, 20: 0.5, 12: 0.8 if cell.missing else 0.5}[cell.participants]
    least = 0.5 if cell.missing or cell.participants < 40 else 0.2
    return cell.participants >= (40 if cell.missing else 20) and cell.icc >= least


def bounds(dof: str, cell: Visits) -> tuple[float, float]:
    """Return between which shares the page promises all tests of a cell."""
    if claimed(dof, cell):
        return EXACT
    return 0.0, KENWARD_ROGER[min(cell.icc, 0.2)] if dof == CORRECTED_DOF else UPPER[cell.participants]


def count_voxels(dof: str, cell: Visits, voxels: int) -> list[tuple[float, float]]:
    """Return the shares of voxels with p below .05 and .001, by test."""
    rng, design = np.random.default_rng(CELLS.index(cell)), cell.design()
    effect = np.stack(list(cell.draw(lambda drawn: drawn.standard_normal(voxels), rng)))
    model = Model(find_estimator("random-intercept"), design, {"dof": dof})
    fitted = model.fit(VoxelBlock(np.ones(effect.shape, dtype=bool), effect=effect))
    shares = []
    for test in design.tests:
        z = fitted.tests[test.name].z
        p = stats.norm.sf(z) if test.is_f else 2.0 * stats.norm.sf(np.abs(z))
        shares.append((float((p < 0.05).mean()), float((p < 0.001).mean())))
    return shares


def make_stack(cell: Visits, number: int) -> Stack:
    """Draw a data set of smooth noise."""
    rng, store = np.random.default_rng([number, RESAMPLED.index(cell)]), RowStore()
    mask = np.zeros(SHAPE, dtype=bool)
    mask[INSIDE] = True
    for row, values in enumerate(cell.draw(lambda drawn: make_noise(SHAPE, drawn)[mask], rng)):
        store.append("effect", row, values, 0)
    n_maps = len(cell.rows()[0])
    store.select({0: np.arange(SIDE**3)})
    survey = tuple(MapSurvey(f"row-{row}", (), SIDE**3) for row in range(n_maps))
    rows, grid = tuple(range(n_maps)), Grid(np.diag([2.0, 2, 2, 1]), mask)
    return Stack(grid, survey, (), ("effect",), rows, (True,) * n_maps, None, None, store)


def find(cell: Visits, number: int, resamples: int) -> np.ndarray:
    """Tell which methods find something in one data set, by test: (tests, methods)."""
    design, stack = cell.design(), make_stack(cell, number)
    found = np.zeros((len(CORRECTED), len(METHODS)), dtype=np.int64)
    settings = InferenceSettings(alpha=ALPHA, permutations=resamples, seed=number)
    for row, name in enumerate(CORRECTED):
        test = design.tests[list(TESTS).index(name)]
        for dof in DOF:
            model = Model(find_estimator("random-intercept"), replace(design, tests=(test,)), {"dof": dof})
            field = make_field(SimpleNamespace(grid=stack.grid), estimate_maps(stack, model), test, None)
            methods = [(m, find_inference(m)) for m, of in METHODS if of == dof]
            scores = {m: one.score for m, one in methods if one.score}
            null = score_resamples(stack, model, test, scores, settings) if scores else None
            for method, one in methods:
                inferred = one.infer(field, null if one.score else None, settings)
                found[row, METHODS.index((method, dof))] = inferred.significant.any()
    return found


def broken_claims(shares: Shares, hits: dict[Visits, np.ndarray], sets: int) -> list[str]:
    """Tell which claims fail."""
    broken = []
    for (dof, cell), found in shares.items():
        low, high = bounds(dof, cell)
        broken += [
            f"{dof}, {cell.title}, icc {cell.icc:g}, {test}: {share:.4f} of the voxels below .05"
            for test, (share, _) in zip(TESTS, found, strict=True)
            if not low <= share <= high
        ]
    for column, (method, dof) in enumerate(METHODS):
        if method not in RESAMPLING:
            continue
        for cell, counts in hits.items():
            broken += [
                f"{method}, {dof}, {cell.title}, {test}: {count} of {sets} data sets"
                for test, count in zip(CORRECTED, counts[:, column].tolist(), strict=True)
                if stats.binom.sf(count - 1, sets, ALPHA) < IN_CELL
            ]
        count = int(sum(counts[:, column].sum() for counts in hits.values()))
        total = sets * len(hits) * len(CORRECTED)
        if stats.binom.sf(count - 1, total, ALPHA) < POOLED:
            broken.append(f"{method}, all: {count} of {total} data sets")
    return broken


def as_markdown(shares: Shares, hits: dict[Visits, np.ndarray], given: argparse.Namespace) -> str:
    """Lay both tables out."""
    voxelwise = {}
    for dof in DOF:
        lines = ["| maps | icc | " + " | ".join(TESTS) + " |", "|" + "---|" * (len(TESTS) + 2)]
        for cell in CELLS:
            star = "" if claimed(dof, cell) else "\\*"
            shown = " | ".join(f"{100 * low:.2f} %{star} ({100 * lower:.3f} %)" for low, lower in shares[dof, cell])
            lines.append(f"| {cell.title} | {cell.icc:g} | {shown} |")
        voxelwise[dof] = "\n".join(lines)
    heads = (f"`{method}`" + (", Kenward-Roger" if dof == CORRECTED_DOF else "") for method, dof in METHODS)
    familywise = ["| maps | test | " + " | ".join(heads) + " |", "|" + "---|" * (len(METHODS) + 2)]
    for cell, counts in hits.items():
        for test, row in zip(CORRECTED, counts.tolist(), strict=True):
            shown = " | ".join(share_text(count, given.sets, claimed=True) for count in row)
            familywise.append(f"| {cell.title}, icc {cell.icc:g} | {test} | {shown} |")
    return PAGE.format(
        satterthwaite=voxelwise[PLAIN], kenward_roger=voxelwise[CORRECTED_DOF], familywise="\n".join(familywise),
        sets=given.sets, resamples=given.resamples,
        voxels=f"{given.voxels:,}",
    )  # fmt: skip


PAGE = """# Longitudinal data: errors where there is no effect

Made by `python validation/dependent.py --write docs/validation-dependent.md`; do not edit by hand.

## Each voxel's test

`random-intercept` on {voxels} independent voxels of two groups of participants, each with three visits, complete or
with a third of the visits missing at random. Maps of one participant correlate by `icc`; nothing differs between
visits or groups. Tests: the mean, the second visit against the first, all visits (F), the groups, and whether they
change differently (F). Shares of voxels with p < .05 (p < .001). 5 % of so many voxels come out as 4.5 to 5.5 %; a
star marks where that is not claimed.

### Satterthwaite's degrees of freedom (default, as lmerTest)

{satterthwaite}

Where visits are complete and maps of one participant correlate, 5 % are 5 % with 20 participants and more. With visits
missing that takes 40 participants and a correlation of 0.5; with fewer of either, these degrees of freedom are an
approximation, and tests within participants find 5.5 to 6.5 % (12 participants: up to 7 %). lme4 and lmerTest give the
same numbers. Tests between participants and of the mean never find more than 5.5 %. Below 60 participants, not all with
the same number of maps, a warning says so and names the setting below.

### Kenward and Roger's (`dof = "kenward-roger"`, as pbkrtest)

{kenward_roger}

Where maps of one participant correlate by 0.2 and more, no test finds more than 5.5 %, with 12 participants and a third
of the visits missing too. Tests of the mean and between participants err on the safe side where these are few: 3 to
5 %.

### Maps of one participant that do not correlate

Where the truth is an icc of 0, half of the voxels have an estimated variance between participants of 0, and no
approximation knows of that: tests between participants err on the safe side (2 to 4.5 %), tests within them find 5.2 to
6 % where visits are complete, and with a third missing up to 7.5 % (Satterthwaite, 12 participants) or 6.2 %
(Kenward-Roger). A warning says so where tau2 is 0 in more than a third of the voxels.

## Corrected inference

The share of {sets:,} data sets of smooth noise (FWHM 3 voxels, 5³ voxels) in which a method finds anything at all, with
its 95 % Clopper-Pearson interval; {resamples} resamples, two-sided, cluster-forming p 0.001. Signs of each
participant's residuals under the null are flipped together, and the model is fitted anew each time.

{familywise}

The script ends with 1 when a voxelwise share without a star leaves 4.5 to 5.5 %, when one with a star exceeds 6.5 % (12
participants: 8 %; Kenward-Roger: 5.5 %, with an icc of 0 6.3 %), or when an error of `max-stat` or `cluster-mass` is
larger than 0.05 explains (p < 0.001 in one cell, or < 0.01 in all cells of a method together).
"""


def main() -> int:
    """Measure, print or write the page, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20000)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    shares = {(dof, cell): count_voxels(dof, cell, given.voxels) for dof in DOF for cell in CELLS}
    hits = {}
    for cell in RESAMPLED:
        hits[cell] = np.sum([find(cell, number, given.resamples) for number in range(given.sets)], axis=0)
    page = as_markdown(shares, hits, given)
    if given.write:
        before = given.write.read_text(encoding="utf-8") if given.write.exists() else ""
        _, heading, others = before.partition(HEADING)  # written by dependent_studies.py
        given.write.write_text(page + (f"\n{heading}{others}" if heading else ""), encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = broken_claims(shares, hits, given.sets)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
