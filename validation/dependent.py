"""Longitudinal data where there is no effect: does a random intercept keep its levels?

``python validation/dependent.py [--cells PATTERN] [--write FILE]`` fits `random-intercept` to maps without any effect,
complete and with a third of the visits missing, and counts the voxels with p < .05 and p < .001 for tests of the mean,
within and between participants, and of their interaction, with Satterthwaite's degrees of freedom, with Kenward and
Roger's, and with a cluster-robust error. Data sets of smooth noise are relabelled and fitted again, and those are
counted in which anything is found. What was measured is kept in kept/dependent.tsv; what matches PATTERN (``.``: all)
is measured anew. FILE is docs/validation-dependent.md, of which it writes the part before the heading of
dependent_studies.py. It exits with 1 when a claim of the page fails.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from dependent_studies import HEADING  # noqa: E402
from familywise_cells import ALPHA, IN_CELL, POOLED  # noqa: E402
from far_tail import count_far  # noqa: E402
from kept import KEPT, Kept  # noqa: E402
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
PLAIN, CORRECTED_DOF, ROBUST = ("satterthwaite", "kenward-roger", "sandwich")
WAYS = {PLAIN: {}, CORRECTED_DOF: {"dof": CORRECTED_DOF}, ROBUST: {"errors": ROBUST}}
"""Kinds of tests, and their settings."""
MOST_FAR = {PLAIN: 0.32, CORRECTED_DOF: 0.09, ROBUST: 0.06}  # what `fdr` may err by
MOST_ROBUST = 0.058  # what no share exceeds, whatever the correlation and the number of participants
UPPER = {40: 0.065, 20: 0.065, 12: 0.080}  # participants -> what no share exceeds, whatever the correlation
KENWARD_ROGER = {0.0: 0.063, 0.2: EXACT[1]}  # icc -> what no share exceeds, however many participants
METHODS = (
    ("bonferroni", PLAIN), ("max-stat", PLAIN), ("cluster-mass", PLAIN), ("bonferroni", CORRECTED_DOF),
    ("bonferroni", ROBUST),
)  # fmt: skip
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
FAR = tuple(cell for cell in CELLS if cell.icc in (0.0, 0.5) and (cell.missing or cell.participants < 40))
FAR_SETS = {PLAIN: 200, CORRECTED_DOF: 200, ROBUST: 100}  # data sets of 2,000 independent voxels
RESAMPLED = (Visits(20, 0.5), Visits(20, 0.5, 1 / 3))
VOXELS, SETS, RESAMPLES = 20_000, 1000, 100
Shares = dict[tuple[str, Visits], list[tuple[float, float]]]


def claimed(dof: str, cell: Visits) -> bool:
    """Tell whether 5 % are claimed to be 5 %."""
    if dof == ROBUST:
        return False
    if dof == CORRECTED_DOF:
        return cell.icc >= {40: 0.2, 20: 0.5, 12: 0.8 if cell.missing else 0.5}[cell.participants]
    least = 0.5 if cell.missing or cell.participants < 40 else 0.2
    return cell.participants >= (40 if cell.missing else 20) and cell.icc >= least


def bounds(dof: str, cell: Visits) -> tuple[float, float]:
    """Return between which shares the page promises all tests of a cell."""
    if claimed(dof, cell):
        return EXACT
    if dof == ROBUST:
        return 0.0, MOST_ROBUST
    return 0.0, KENWARD_ROGER[min(cell.icc, 0.2)] if dof == CORRECTED_DOF else UPPER[cell.participants]


def count_voxels(way: str, cell: Visits, voxels: int) -> list[float]:
    """Return the shares of voxels with p below .05, then below .001, by test."""
    rng, design = np.random.default_rng(CELLS.index(cell)), cell.design()
    effect = np.stack(list(cell.draw(lambda drawn: drawn.standard_normal(voxels), rng)))
    estimator = find_estimator("random-intercept")
    model = Model(estimator, design, {**estimator.defaults(design), **WAYS[way]})
    fitted = model.fit(VoxelBlock(np.ones(effect.shape, dtype=bool), effect=effect))
    shares = []
    for test in design.tests:
        z = fitted.tests[test.name].z
        p = stats.norm.sf(z) if test.is_f else 2.0 * stats.norm.sf(np.abs(z))
        shares.append((float((p < 0.05).mean()), float((p < 0.001).mean())))
    return [share for bound in zip(*shares, strict=True) for share in bound]


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


def find(way: str, cell: Visits, number: int) -> np.ndarray:
    """Tell which methods find something in one data set, by test: (tests, methods)."""
    design, stack, estimator = cell.design(), make_stack(cell, number), find_estimator("random-intercept")
    methods = [find_inference(name) for name, of in METHODS if of == way]
    found = np.zeros((len(CORRECTED), len(methods)), dtype=np.int64)
    settings = InferenceSettings(alpha=ALPHA, permutations=RESAMPLES, seed=number)
    for row, name in enumerate(CORRECTED):
        test = design.tests[list(TESTS).index(name)]
        model = Model(estimator, replace(design, tests=(test,)), {**estimator.defaults(design), **WAYS[way]})
        field = make_field(SimpleNamespace(grid=stack.grid), estimate_maps(stack, model), test, None)
        scores = {method.name: method.score for method in methods if method.score}
        null = score_resamples(stack, model, test, scores, settings) if scores else None
        for column, method in enumerate(methods):
            inferred = method.infer(field, null if method.score else None, settings)
            found[row, column] = inferred.significant.any()
    return found


def count_sets(way: str, cell: Visits, sets: int) -> np.ndarray:
    """Count the data sets in which each method finds something, (tests * methods,)."""
    return np.sum([find(way, cell, number) for number in range(sets)], axis=0).ravel()


def count_far_tail(way: str, cell: Visits, sets: int) -> np.ndarray:
    """Count the data sets of independent voxels in which `bonferroni` and `fdr` find something, by test."""
    design, estimator = cell.design(), find_estimator("random-intercept")
    model = Model(estimator, design, {**estimator.defaults(design), **WAYS[way]})

    def draw(rng: np.random.Generator, voxels: int) -> np.ndarray:
        return np.stack(list(cell.draw(lambda drawn: drawn.standard_normal(voxels), rng)))

    return count_far(model, draw, CELLS.index(cell), sets)


def far_table(kept: Kept) -> tuple[str, list[str]]:
    """Tabulate what `fdr` finds in independent voxels, from the least to the most of the tests; and failed claims."""
    lines, broken = ["| maps | icc | " + " | ".join(WAYS) + " |", "|" + "---|" * (len(WAYS) + 2)], []
    for cell in FAR:
        shown = []
        for way in WAYS:
            title = f"{way}: {cell.title}, icc {cell.icc:g}; far tail"
            sets = FAR_SETS[way]
            fdr = kept.get(title, sets, partial(count_far_tail, way, cell)).reshape(-1, 2)[:, 1]
            shown.append(f"{fdr.min() / sets:.3f} to {fdr.max() / sets:.3f}")
            if stats.binom.sf(fdr.max() - 1, sets, MOST_FAR[way]) < IN_CELL:
                broken.append(f"fdr, {title}: {fdr.max():.0f} of {sets} data sets")
        lines.append(f"| {cell.title} | {cell.icc:g} | {' | '.join(shown)} |")
    return "\n".join(lines), broken


def measure(kept: Kept) -> tuple[Shares, dict[Visits, np.ndarray]]:
    """Return the shares of voxels by test, and the counts of data sets, (tests, methods)."""
    shares, hits = {}, {}
    for way in WAYS:
        for cell in CELLS:
            title = f"{way}: {cell.title}, icc {cell.icc:g}; voxelwise"
            found = kept.get(title, VOXELS, partial(count_voxels, way, cell)).reshape(2, -1)
            shares[way, cell] = [(float(one), float(other)) for one, other in found.T]
    for cell in RESAMPLED:
        counts = [
            kept.get(f"{way}: {cell.title}, icc {cell.icc:g}; corrected", SETS, partial(count_sets, way, cell))
            for way in WAYS
        ]
        hits[cell] = np.hstack([one.reshape(len(CORRECTED), -1) for one in counts]).astype(int)
    return shares, hits


def broken_claims(shares: Shares, hits: dict[Visits, np.ndarray]) -> list[str]:
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
                f"{method}, {dof}, {cell.title}, {test}: {count} of {SETS} data sets"
                for test, count in zip(CORRECTED, counts[:, column].tolist(), strict=True)
                if stats.binom.sf(count - 1, SETS, ALPHA) < IN_CELL
            ]
        count = int(sum(counts[:, column].sum() for counts in hits.values()))
        total = SETS * len(hits) * len(CORRECTED)
        if stats.binom.sf(count - 1, total, ALPHA) < POOLED:
            broken.append(f"{method}, all: {count} of {total} data sets")
    return broken


def as_markdown(shares: Shares, hits: dict[Visits, np.ndarray], far: str) -> str:
    """Lay both tables out."""
    voxelwise = {}
    for dof in WAYS:
        lines = ["| maps | icc | " + " | ".join(TESTS) + " |", "|" + "---|" * (len(TESTS) + 2)]
        for cell in CELLS:
            star = "" if dof == ROBUST or claimed(dof, cell) else "\\*"
            shown = " | ".join(f"{100 * low:.2f} %{star} ({100 * lower:.3f} %)" for low, lower in shares[dof, cell])
            lines.append(f"| {cell.title} | {cell.icc:g} | {shown} |")
        voxelwise[dof] = "\n".join(lines)
    heads = (
        f"`{method}`" + {PLAIN: "", CORRECTED_DOF: ", Kenward-Roger", ROBUST: ", sandwich"}[dof]
        for method, dof in METHODS
    )
    familywise = ["| maps | test | " + " | ".join(heads) + " |", "|" + "---|" * (len(METHODS) + 2)]
    for cell, counts in hits.items():
        for test, row in zip(CORRECTED, counts.tolist(), strict=True):
            shown = " | ".join(share_text(count, SETS, claimed=True) for count in row)
            familywise.append(f"| {cell.title}, icc {cell.icc:g} | {test} | {shown} |")
    return PAGE.format(
        satterthwaite=voxelwise[PLAIN], kenward_roger=voxelwise[CORRECTED_DOF], robust=voxelwise[ROBUST],
        familywise="\n".join(familywise), sets=SETS, resamples=RESAMPLES, voxels=f"{VOXELS:,}",
        far=far, far_sets=FAR_SETS[PLAIN], robust_sets=FAR_SETS[ROBUST],
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
the same number of maps, a warning says so and names the settings below.

### Kenward and Roger's (`dof = "kenward-roger"`, as pbkrtest)

{kenward_roger}

Where maps of one participant correlate by 0.2 and more, no test finds more than 5.5 %, with 12 participants and a third
of the visits missing too. Tests of the mean and between participants err on the safe side where these are few: 3 to
5 %.

### Cluster-robust errors (`errors = "sandwich"`, as clubSandwich on lme4's fit)

{robust}

The fitted model is the working model, weights are its weights, and the error comes from the residuals of participants
(CR2), with Satterthwaite's degrees of freedom. Every test of every row finds at most 5.8 %: the tables above need
participants, complete visits or maps that correlate for that. With 12 participants, visits missing and maps that
correlate by 0.5 and more, F tests err on the safe side (4.1 to 5.3 %). Nor does it need the model's assumptions: that
maps of one participant all correlate alike, and all vary alike. It is no setting for resampling, which holds with the
model's error: each relabelling of a whole brain takes half a minute.

### Maps of one participant that do not correlate

Where the truth is an icc of 0, half of the voxels have an estimated variance between participants of 0, and no
approximation knows of that: tests between participants err on the safe side (2 to 4.5 %), tests within them find 5.2 to
6 % where visits are complete, and with a third missing up to 7.5 % (Satterthwaite, 12 participants) or 6.2 %
(Kenward-Roger). A warning says so where tau2 is 0 in more than a third of the voxels, and names the sandwich, which
finds 4.6 to 5.8 % there.

## Corrected inference

The share of {sets:,} data sets of smooth noise (FWHM 3 voxels, 5³ voxels) in which a method finds anything at all, with
its 95 % Clopper-Pearson interval; {resamples} resamples, two-sided, cluster-forming p 0.001. Signs of each
participant's residuals under the null are flipped together, and the model is fitted anew each time.

{familywise}

`fdr` in {far_sets} data sets of 2,000 independent voxels (sandwich: {robust_sets}), where nothing hides errors of small
p: the share in which it finds anything, from the test that does so least to the one that does so most. `bonferroni`
does in as many or a little fewer.

{far}

Satterthwaite's degrees of freedom are too many far out in the tail, where a voxel's own estimates of the variances say
little about their true ratio: most with 12 participants and tests between them or of the mean. Kenward and Roger's are
near what they say. The page of a run with fewer than 60 participants says so of every inference that rests on small p,
with these numbers; what resamples needs no p of single voxels.

The script ends with 1 when a voxelwise share without a star leaves 4.5 to 5.5 %, when one with a star exceeds 6.5 % (12
participants: 8 %; Kenward-Roger: 5.5 %, with an icc of 0 6.3 %), when one of the sandwich exceeds 5.8 %, or when an
error of `max-stat` or `cluster-mass` is larger than 0.05 explains (p < 0.001 in one cell, or < 0.01 in all cells of a
method together).
"""


def main() -> int:
    """Measure, print or write the page, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", metavar="PATTERN")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    kept = Kept(KEPT / "dependent.tsv", given.cells)
    shares, hits = measure(kept)
    far, broken_far = far_table(kept)
    page = as_markdown(shares, hits, far)
    if given.write:
        before = given.write.read_text(encoding="utf-8") if given.write.exists() else ""
        _, heading, others = before.partition(HEADING)  # written by dependent_studies.py
        given.write.write_text(page + (f"\n{heading}{others}" if heading else ""), encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = broken_claims(shares, hits) + broken_far
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
