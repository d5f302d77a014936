"""Studies in clusters where there is no effect: do multilevel models and stated dependence keep their levels?

``python validation/dependent_studies.py [--cells PATTERN] [--write FILE]`` simulates effects and variances of studies
of which several share a sample, counts the voxels with p < .05, and the data sets of smooth noise in which a corrected
method finds anything. What was measured is kept in kept/dependent_studies.tsv; what matches PATTERN (``.``: all) is
measured anew. FILE is docs/validation-dependent.md, of which it writes the part from its own heading on. It exits with
1 when a claim of the page fails.
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
from familywise_cells import ALPHA, IN_CELL  # noqa: E402
from kept import KEPT, Kept  # noqa: E402
from null_maps import chi_square_over_dof  # noqa: E402
from repeated_layouts import BORDER, Noise, make_noise  # noqa: E402
from scipy import stats  # noqa: E402

from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.core.design import Dependence, Design, Test  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.hedges_g import Sample, hedges_g, pool_variances  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402
from ibma_app.workflows.plan.measure_dependence import measure_dependence  # noqa: E402

HEADING = "## Studies of one sample\n"
EXACT = (0.044, 0.056)  # what 5 % of 20,000 voxels may come out as where the test is exact
METHODS = ("fdr", "bonferroni", "max-stat", "cluster-mass")
VOXELS, SETS, FAMILY_SETS, RESAMPLES = 20_000, 100, 500, 100
SIDE = 5  # of the cube of smooth noise, in voxels


@dataclass(frozen=True)
class Truth:
    """Clusters of studies, how their true effects vary, and how much of their sampling errors they share."""

    sizes: tuple[int, ...]
    tau2: float = 0.0  # between clusters; sampling variances are .05 to .5
    omega2: float = 0.0  # within
    shared: float = 0.0  # correlation of the sampling errors of one cluster's maps
    standardised: bool = False  # effects are Hedges' g of 10 to 40 people

    @property
    def title(self) -> str:
        """Return it in words."""
        words = f"{sum(self.sizes)} maps, {len(self.sizes)} clusters; tau2 {self.tau2:g}, omega2 {self.omega2:g}"
        words += ", Hedges' g" if self.standardised else ""
        return words + (f", errors share {self.shared:g}" if self.shared else "")

    @property
    def clusters(self) -> np.ndarray:
        """The cluster of each map."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def variances(self) -> np.ndarray:
        """The sampling variance of each map."""
        return 1.0 / self.people if self.standardised else self._permuted(0.05, 0.5)

    @property
    def people(self) -> np.ndarray:
        """The sample size behind each map."""
        return np.round(self._permuted(10, 40))

    def _permuted(self, least: float, most: float) -> np.ndarray:
        return np.random.default_rng(1).permutation(np.geomspace(least, most, sum(self.sizes)))

    def rows(self) -> tuple[np.ndarray]:
        """Return the cluster of each map."""
        return (self.clusters,)

    def draw(self, noise: Noise, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the effects of each map; ``noise(rng)`` draws one of standard noise."""
        common = [(noise(rng), noise(rng)) for _ in self.sizes]
        for cluster, variance in zip(self.clusters, self.variances, strict=True):
            error = np.sqrt(self.shared) * common[cluster][1] + np.sqrt(1 - self.shared) * noise(rng)
            yield (
                np.sqrt(self.tau2) * common[cluster][0] + np.sqrt(self.omega2) * noise(rng) + np.sqrt(variance) * error
            )

    def maps(self, noise: Noise, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw effects and variances, (K, V) each."""
        effect = np.stack(list(self.draw(noise, rng)))
        if not self.standardised:
            return effect, np.repeat(self.variances[:, None], effect.shape[1], axis=1)
        samples = [Sample(n, n - 1.0) for n in self.people.tolist()]
        t = [
            row * np.sqrt(sample.n / chi_square_over_dof(noise(rng), np.array(sample.dof)))
            for row, sample in zip(effect, samples, strict=True)
        ]
        g = np.array([hedges_g(row, sample)[0] for row, sample in zip(t, samples, strict=True)])
        return g, pool_variances(g, np.isfinite(g), samples)


PAIN = (2, 2, 3, 4, 1, 1, 1, 2, 1, 1, 1, 2)  # the samples of 21 pain studies
MANY, MORE = (1, 2, 3) * 10, (1, 2, 3) * 20
VARIANCES = ((0.0, 0.0), (0.2, 0.0), (0.2, 0.2), (0.0, 0.2), (0.1, 0.1, 0.5))
TRUTHS = tuple(
    Truth(sizes, *more)
    for sizes, which in ((PAIN, VARIANCES), (MANY, VARIANCES), (MORE, VARIANCES[2::2]))
    for more in which
)
KNOWN = tuple(Truth(sizes, 0.0, 0.0, shared) for sizes in (PAIN, MANY) for shared in (0.3, 0.7))
"""One true effect: what fixed effects and Stouffer's z take for granted."""


def designs_of(truth: Truth) -> dict[str, Design]:
    """Return designs of the mean, of a covariate of clusters and of one of maps."""
    clusters, rng = truth.clusters, np.random.default_rng(2)
    ones, between = np.ones(clusters.size), rng.normal(size=len(truth.sizes))[clusters]
    within = rng.normal(size=clusters.size)
    common = {"clusters": clusters, "cluster_name": "cluster", "units": clusters, "unit_name": "cluster"}
    of_one = {"columns": ("1", "x"), "tests": (Test("x", np.array([[0.0, 1.0]])),), "formula": "1 + x", **common}
    return {
        "mean": Design(ones[:, None], ("Intercept",), (Test("mean", np.eye(1)),), **common),
        "covariate of clusters": Design(np.column_stack([ones, between]), **of_one),
        "covariate of maps": Design(np.column_stack([ones, within]), **of_one),
    }  # fmt: skip


def block_of(truth: Truth, voxels: int, seed: int) -> VoxelBlock:
    """Draw independent voxels."""
    effect, variance = truth.maps(lambda rng: rng.standard_normal(voxels), np.random.default_rng([5, seed]))
    return VoxelBlock(np.ones(effect.shape, bool), effect, variance, z=effect / np.sqrt(variance))


def stack_of(truth: Truth, shape: tuple[int, ...], seed: int, *, smooth: bool) -> Stack:
    """Draw maps in memory: smooth noise in a cube, or independent voxels."""
    mask = np.zeros(tuple(side + 2 * BORDER for side in shape), dtype=bool)
    mask[(slice(BORDER, -BORDER),) * 3] = True
    store, n_voxels, rng = RowStore(), int(mask.sum()), np.random.default_rng([6, seed])
    noise = (lambda drawn: make_noise(mask.shape, drawn)[mask]) if smooth else (lambda r: r.standard_normal(n_voxels))
    for row, (values, variance) in enumerate(zip(*truth.maps(noise, rng), strict=True)):
        for kind, numbers in (("effect", values), ("variance", variance), ("z", values / np.sqrt(variance))):
            store.append(kind, row, numbers, 0)
    n_maps = truth.clusters.size
    store.select(dict.fromkeys(range(n_maps), np.arange(n_voxels)))
    survey = tuple(MapSurvey(f"row-{row}", (), n_voxels) for row in range(n_maps))
    kinds = ("effect", "variance", "z")
    grid = Grid(np.diag([2.0, 2, 2, 1]), mask)
    return Stack(grid, survey, (), kinds, tuple(range(n_maps)), (True,) * n_maps, None, None, store)


def share(name: str, block: VoxelBlock, design: Design, **settings: str) -> float:
    """Return the share of voxels with p below .05."""
    (found,) = find_estimator(name).fit(block, design, **settings).tests.values()
    return float(np.mean(np.abs(found.z) > stats.norm.isf(0.025)))


def shares_of(truth: Truth, what: str, voxels: int) -> list[float]:
    """Return the shares of voxels with p below .05: multilevel, by a sandwich, and as if maps were independent."""
    block, design = block_of(truth, voxels, TRUTHS.index(truth)), designs_of(truth)[what]
    robust = share("multilevel", block, design, errors="sandwich")
    return [share("multilevel", block, design), robust, share("reml", block, design)]


def voxelwise(kept: Kept) -> tuple[list[str], list[str]]:
    """Tabulate the tests of single voxels; return the claims that fail, too."""
    lines, broken = ["| truth | test | `multilevel` | sandwich | `reml` |", "|---|---|---|---|---|"], []
    for truth in TRUTHS:
        for what in ("mean", "covariate of clusters", "covariate of maps"):
            found = kept.get(f"{truth.title}; {what}; voxelwise", VOXELS, partial(shares_of, truth, what)).tolist()
            model, robust, alone = found
            lines.append(f"| {truth.title} | {what} | {model:.2%} | {robust:.2%} | {alone:.2%} |".replace("%", " %"))
            broken += [
                f"{name}, {truth.title}, {what}: {value:.4f}"
                for name, value, most in (("model", model, MOST_MODEL), ("sandwich", robust, MOST_ROBUST))
                if value > most[truth.sizes]
            ]
    return lines, broken


MOST_MODEL = {PAIN: 0.075, MANY: 0.062, MORE: 0.057}
MOST_ROBUST = {PAIN: 0.065, MANY: 0.060, MORE: 0.057}
MOST_ESTIMATED = 0.058
"""What no share may exceed."""


def shares_with_dependence(truth: Truth, name: str, sets: int) -> list[float]:
    """Return the shares of voxels with p below .05: independent, with true, and with estimated correlations."""
    seed = KNOWN.index(truth)
    block, design = block_of(truth, VOXELS, 50 + seed), designs_of(truth)["mean"]
    own = truth.clusters[:, None] == truth.clusters
    R = np.where(own, truth.shared, 0.0) + (1 - truth.shared) * np.eye(truth.clusters.size)
    stated = replace(design, dependence=Dependence("cluster", truth.clusters, R))
    asked = replace(design, dependence=Dependence("cluster", truth.clusters))
    settings = {"test": "z"} if name == "fixed-effects" else {}
    estimated = []
    for number in range(sets):  # as many independent voxels as a smooth brain has resels
        stack = stack_of(truth, (8, 8, 8), 1000 * seed + number, smooth=False)
        measured, _ = measure_dependence(stack, asked)
        part = stack.read(0, stack.n_voxels)
        estimated.append(share(name, part, replace(design, dependence=measured), **settings))
    plain, exact = share(name, block, design, **settings), share(name, block, stated, **settings)
    return [plain, exact, float(np.mean(estimated))]


def dependence(kept: Kept) -> tuple[list[str], list[str]]:
    """Tabulate fixed effects and Stouffer's z: independent, with the true correlations, and with those estimated."""
    lines = ["| truth | estimator | independent | true correlations | estimated |", "|---|---|---|---|---|"]
    broken = []
    for truth in KNOWN:
        for name in ("stouffer", "fixed-effects"):
            title = f"{truth.title}; {name}; correlations"
            plain, exact, mean = kept.get(title, SETS, partial(shares_with_dependence, truth, name)).tolist()
            lines.append(f"| {truth.title} | `{name}` | {plain:.2%} | {exact:.2%} | {mean:.2%} |".replace("%", " %"))
            if not EXACT[0] <= exact <= EXACT[1] or not EXACT[0] <= mean <= MOST_ESTIMATED:
                broken.append(
                    f"{name}, {truth.title}: {exact:.4f} with the true, {mean:.4f} with estimated correlations"
                )
    return lines, broken


FAMILIES = (
    ("multilevel", {}, Truth(PAIN, 0.2, 0.1), "mean"),
    ("multilevel", {}, Truth(PAIN, 0.2, 0.1), "covariate of clusters"),
    ("multilevel", {"errors": "sandwich"}, Truth(PAIN, 0.2, 0.1), "mean"),
    ("stouffer", {}, Truth(PAIN, 0.0, 0.0, 0.6), "mean"),
    ("fixed-effects", {"test": "z"}, Truth(PAIN, 0.0, 0.0, 0.6), "mean"),
    ("multilevel", {}, Truth(PAIN, 0.05, 0.05, standardised=True), "mean"),
    ("multilevel", {}, Truth(PAIN, standardised=True), "mean"),
)


def find(family: int, names: tuple[str, ...], number: int) -> list[bool]:
    """Tell which methods find something in one data set."""
    name, settings, truth, what = FAMILIES[family]
    stack, design = stack_of(truth, (SIDE,) * 3, 10_000 * (family + 1) + number, smooth=True), designs_of(truth)[what]
    if find_estimator(name).takes_dependence:
        asked = replace(design, dependence=Dependence("cluster", truth.clusters))
        design = replace(design, dependence=measure_dependence(stack, asked)[0])
    model = Model(find_estimator(name), design, settings)
    asked_for = InferenceSettings(alpha=ALPHA, permutations=RESAMPLES, seed=number)
    field = make_field(SimpleNamespace(grid=stack.grid), estimate_maps(stack, model), design.tests[0], None)
    methods = [find_inference(one) for one in names]
    scores = {one.name: one.score for one in methods if one.score}
    null = score_resamples(stack, model, design.tests[0], scores, asked_for) if scores else None
    return [bool(one.infer(field, null if one.score else None, asked_for).significant.any()) for one in methods]


def count_families(family: int, names: tuple[str, ...], sets: int) -> np.ndarray:
    """Count the data sets in which each method finds something."""
    return np.sum([find(family, names, number) for number in range(sets)], axis=0)


def familywise(kept: Kept) -> tuple[list[str], list[str]]:
    """Tabulate corrected inference."""
    lines = ["| estimator | truth | test | " + " | ".join(f"`{one}`" for one in METHODS) + " |", "|---" * 7 + "|"]
    broken = []
    for family, (name, settings, truth, what) in enumerate(FAMILIES):
        words = f"`{name}`" + "".join(f", {value}" for key, value in settings.items() if key == "errors")
        cells = []
        counts = np.concatenate([
            kept.get(f"{words}; {truth.title}; {what}; {label}", FAMILY_SETS, partial(count_families, family, names))
            for label, names in (("fdr", METHODS[:1]), ("corrected", METHODS[1:]))
        ])  # fmt: skip
        for method, count in zip(METHODS, counts.astype(int).tolist(), strict=True):
            interval = stats.binomtest(count, FAMILY_SETS).proportion_ci()
            cells.append(f"{count / FAMILY_SETS:.3f} ({interval.low:.3f}-{interval.high:.3f})")
            if stats.binom.sf(count - 1, FAMILY_SETS, ALPHA) < IN_CELL:
                broken.append(f"{method}, {name}, {truth.title}, {what}: {count} of {FAMILY_SETS} data sets")
        lines.append(f"| {words} | {truth.title} | {what} | {' | '.join(cells)} |")
    return lines, broken


TEXT = """
Made by `python validation/dependent_studies.py --write docs/validation-dependent.md` from this heading on; do not edit
by hand.

Effects of studies, several of which share a sample (clusters as those of the 21 pain studies, and 30 of one, two or
three maps), with sampling variances from .05 to .5, and no effect on average. True effects vary between clusters
(tau2) and within (omega2); in some, sampling errors of one cluster's maps correlate, which no estimator here is told.
The share of {voxels:,} independent voxels with p < .05, two-sided:

{voxelwise}

`reml` takes all maps as independent. `multilevel` (t with as many dof as clusters less columns) is near 5 %, below it
where there is no heterogeneity, and up to {worst} with 12 clusters, where the two variances are hardly known: its t
does not know that they are estimates. With `errors = "sandwich"` Satterthwaite's dof do, and for covariates of few
clusters err on the safe side; the mean has up to 5.7 % with 12 clusters. Below 20 clusters a warning says so. With 30
clusters covariates have up to 5.6 %, which a warning says below 40, and with 60 5 % are 5 %. Errors that are shared in
a cluster go into tau2, as far as the model is concerned.

### Correlations that are stated or estimated

One true effect, sampling errors of one cluster's maps correlated. `stouffer` and `fixed-effects` as if maps were
independent, with the true correlations, and with those that `--dependence cluster` estimates from {sets} data sets of
512 independent voxels each:

{dependence}

What is estimated is as good as the truth from a few hundred independent voxels (a smooth brain has about a thousand)
on. Where true effects differ between studies, neither estimator asks for their mean, and its p are no longer 5 %.

### Corrected inference

The share of {families} data sets of smooth noise in which a method finds anything at all, with its 95 % Clopper-Pearson
interval; {resamples} resamples, two-sided, cluster-forming p 0.001. Resampling flips the signs of whole clusters, and
fits the model anew.

{familywise}
"""


def main() -> int:
    """Measure, print or write the section, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", metavar="PATTERN")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    kept, tables, broken = Kept(KEPT / "dependent_studies.tsv", given.cells), {}, []
    for make in (voxelwise, dependence, familywise):
        lines, failed = make(kept)
        tables[make.__name__] = "\n".join(lines)
        broken += failed
    worst = max(float(line.split("|")[3].split()[0]) for line in tables["voxelwise"].splitlines()[2:])
    words = {"voxels": VOXELS, "sets": SETS, "families": FAMILY_SETS, "resamples": RESAMPLES, "worst": f"{worst:.1f} %"}
    section = HEADING + TEXT.format(**words, **tables)
    if given.write:
        before = (
            given.write.read_text(encoding="utf-8") if given.write.exists() else "# Maps that depend on each other\n"
        )
        given.write.write_text(before.split(HEADING)[0].rstrip() + "\n\n" + section, encoding="utf-8")
    else:
        sys.stdout.write(section)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
