"""Simultaneous bounds, equivalence and conjunctions: how often what they say of all voxels is wrong.

``python validation/simultaneous.py [--sets 200] [--resamples 200] [--processes 1] [--write FILE]`` simulates maps of
smooth noise with and without effects, takes the path of the command line, and counts the data sets in which any voxel
is wrong: an effect outside of its bounds, an effect of the bound's size called absent, a conjunction where a test has
no effect. FILE is docs/validation-simultaneous.md. It exits with 1 when a claim of the page fails.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from familywise_cells import ALPHA, IN_CELL  # noqa: E402
from random_fields import make_noise, share_text  # noqa: E402
from scipy import stats  # noqa: E402

from ibma_app.core.design import Design, Test  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.inference_facts import Bound  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.inference.conjunction import conjoin, conjoin_fields  # noqa: E402
from ibma_app.inference.simultaneous import corrected_p, critical_height  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402
from ibma_app.stream.workers.resources import ONE_THREAD  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402
from ibma_app.workflows.write.effect_bounds import Errors, Fitted, critical_errors  # noqa: E402
from ibma_app.workflows.write.equivalence import heights_below  # noqa: E402

SIDE, BORDER = 10, 4  # voxels: the cube that is the mask, and what lies around it
SAMPLING = (0.5, 1.5)  # between which sampling variances lie, against a tau2 of 1
EFFECTS = {"none": (0.0, 0.0), "half of the voxels": (2.0, 0.0), "both signs": (2.0, -2.0)}
"""In standard deviations between maps, by halves of the mask."""


@dataclass(frozen=True)
class Cell:
    """One kind of data and analysis."""

    sizes: tuple[int, ...]  # of the groups; one: the mean is tested
    effects: str = "none"
    noise: str = "normal"
    estimator: str = "ols"
    tail: str = "two-sided"
    settings: Mapping[str, str] = field(default_factory=dict)
    homogeneous: bool = False  # maps differ by their sampling errors alone
    repeats: int = 1  # maps of each unit, which share an error of its own
    within: bool = False  # of two maps of each unit the difference is tested, not the mean
    bound: Bound | None = None  # every effect is as large as it; None: bounds of effects are measured
    limit: float = ALPHA

    @property
    def maps(self) -> str:
        """Say what the data are."""
        alike = ", true effects alike" if self.homogeneous else ""
        units = " and ".join(map(str, self.sizes))
        what = "maps" if self.repeats == 1 else f"units of {self.repeats} maps"
        tested = ", their difference" if self.within else ""
        return f"{units} {what}{tested}, {self.noise}{alike}"

    @property
    def analysis(self) -> str:
        """Say how they are analysed."""
        words = [f"`{self.estimator}`", *(f'`{key} = "{value}"`' for key, value in self.settings.items())]
        return ", ".join([*words, *((self.tail,) if self.tail != "two-sided" else ())])


HALF, BOTH, SKEWED = "half of the voxels", "both signs", "chi-squared with 4 dof"
PLAIN, G = Bound(0.5), Bound(0.5, standardised=True)
CELLS = (
    Cell((8,)),
    Cell((8,), HALF),
    Cell((12,), BOTH),
    Cell((20,)),
    Cell((20,), HALF),
    Cell((20,), HALF, tail="positive"),
    Cell((20,), BOTH, "t with 4 dof"),
    Cell((10, 10)),
    Cell((10, 10), BOTH),
    Cell((6, 14), HALF),
    Cell((10, 10), HALF, settings={"errors": "sandwich"}),
    Cell((6,), estimator="reml"),
    Cell((8,), estimator="reml"),
    Cell((12,), BOTH, estimator="reml"),
    Cell((20,), HALF, estimator="reml"),
    Cell((8, 12), HALF, estimator="reml"),
    Cell((8,), estimator="fixed-effects", settings={"test": "z"}, homogeneous=True),
    Cell((12,), repeats=2),
    Cell((12,), HALF, repeats=2, estimator="random-intercept"),
    Cell((12,), repeats=2, within=True, estimator="random-intercept"),
    Cell((20,), repeats=2, estimator="random-intercept"),
    Cell((12,), repeats=2, estimator="multilevel"),
    Cell((20,), HALF, repeats=2, estimator="multilevel"),
)
UNCLAIMED = (
    Cell((8,), noise=SKEWED),
    Cell((20,), noise=SKEWED),
    Cell((20,), noise=SKEWED, tail="positive"),
    Cell((10, 10), noise=SKEWED),
    Cell((20,), noise=SKEWED, estimator="reml"),
)
"""Nothing is claimed of these: a run says so where residuals are skewed."""
EQUIVALENCE = (
    Cell((30,), bound=PLAIN),
    Cell((60,), bound=PLAIN),
    Cell((60,), BOTH, bound=PLAIN),
    Cell((30, 30), bound=Bound(1.0)),
    Cell((60,), BOTH, "t with 4 dof", bound=Bound(1.0)),
    Cell((40,), BOTH, estimator="reml", bound=Bound(1.0)),
    Cell((60,), bound=G),
    Cell((60,), BOTH, bound=G),
    Cell((30, 30), BOTH, bound=Bound(1.0, standardised=True)),
    Cell((60,), BOTH, bound=Bound(1.0, standardised=True)),
)
TOGETHER = (
    ("fdr", (12, 12), 3.0),
    ("max-stat", (12, 12), 3.0),
    ("max-stat", (8, 16), 3.0),
    ("max-stat", (12, 12), 0.0),
)
"""Inference, sizes of the groups, and the effect of the second; the first has none, so that no voxel has both."""


def simulate(cell: Cell, rng: np.random.Generator, everywhere: float = 0.0) -> tuple[Stack, np.ndarray]:
    """Draw maps, with a further effect everywhere; return them and the cell's true effect, (V,)."""
    mask = np.zeros((SIDE + 2 * BORDER,) * 3, dtype=bool)
    mask[(slice(BORDER, -BORDER),) * 3] = True
    n_voxels, mixed = SIDE**3, "variance" in find_estimator(cell.estimator).needs
    half = np.arange(n_voxels) < n_voxels // 2
    if cell.bound is None:
        truth = np.where(half, *EFFECTS[cell.effects])
    else:
        truth = np.where(half, 1.0, -1.0 if cell.effects == BOTH else 1.0) * cell.bound.size
    store = RowStore()
    group = np.repeat(np.arange(len(cell.sizes)), [size * cell.repeats for size in cell.sizes])
    shared = np.zeros(n_voxels)
    for row, own in enumerate(group.tolist()):
        sampling = rng.uniform(*SAMPLING) if mixed else 0.0
        if cell.repeats > 1 and row % cell.repeats == 0:
            shared = draw(cell, mask, rng)
        effect = draw(cell, mask, rng) * np.sqrt((not cell.homogeneous) + sampling) + shared
        if own == len(cell.sizes) - 1 and not (cell.within and row % cell.repeats == 0):
            effect += truth + everywhere
        store.append("effect", row, effect, 0)
        if mixed:
            store.append("variance", row, np.full(n_voxels, sampling), 0)
    store.select({0: np.arange(n_voxels)})
    kinds = ("effect", "variance") if mixed else ("effect",)
    survey = tuple(MapSurvey(f"sub-{row}", (), n_voxels) for row in range(group.size))
    grid, rows = Grid(np.diag([2.0, 2, 2, 1]), mask), tuple(range(group.size))
    return Stack(grid, survey, (), kinds, rows, (True,) * group.size, None, None, store), truth


def draw(cell: Cell, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth noise, (V,): of variance 1 but for t's, which is 2."""
    noise = make_noise(mask.shape, rng)[mask]
    if cell.noise == SKEWED:
        return np.asarray((stats.chi2.ppf(stats.norm.cdf(noise), 4) - 4) / np.sqrt(8))
    return noise if cell.noise == "normal" else np.asarray(stats.t.ppf(stats.norm.cdf(noise), 4))


def make_model(cell: Cell) -> Model:
    """Ask for the mean, for the difference between the groups, or between the two maps of each unit."""
    n_maps = sum(cell.sizes) * cell.repeats
    columns = [np.ones(n_maps)]
    if len(cell.sizes) == 2:
        columns.append(np.repeat([0.0, 1.0], cell.sizes))
    if cell.within:
        columns.append(np.arange(n_maps) % cell.repeats)
    names, weights = ("intercept", "other")[: len(columns)], np.eye(len(columns))[[-1]]
    clusters = np.arange(n_maps) // cell.repeats if cell.repeats > 1 else None
    test = Test("effect", weights, cell.tail)
    design = Design(np.column_stack(columns), names, (test,), clusters=clusters, units=clusters)
    estimator = find_estimator(cell.estimator)
    return Model(estimator, design, {**estimator.defaults(design), **cell.settings})


def is_wrong(job: tuple[Cell, int, int]) -> bool:
    """Tell whether what is said of one data set is wrong at any voxel."""
    cell, number, resamples = job
    stack, truth = simulate(cell, np.random.default_rng([number, *cell.sizes]))
    model = make_model(cell)
    estimate, test, inference = estimate_maps(stack, model), model.design.tests[0], find_inference("max-stat")
    settings = InferenceSettings(alpha=ALPHA, permutations=resamples, seed=number)
    errors = Errors(Fitted(stack, model, estimate, settings, ONE_THREAD), test)
    if cell.bound is not None:
        heights = heights_below(errors.fitted, test, cell.bound)
        assert heights is not None
        return bool((corrected_p(heights, errors.draws(inference, "two-sided")) <= ALPHA).any())
    z = critical_height(errors.draws(inference, test.tail), ALPHA)
    if z is None:
        return False
    fitted = estimate.tests[test.name]
    assert fitted.effect is not None
    assert fitted.variance is not None
    t, limit = (fitted.effect - truth) / np.sqrt(fitted.variance), critical_errors(estimate, test, z)
    beyond = {"two-sided": np.abs(t), "positive": t, "negative": -t}[test.tail]
    return bool((beyond > limit).any())


def is_both(job: tuple[str, tuple[int, int], float, int, int]) -> bool:
    """Tell whether a conjunction of two groups' means is found anywhere, where one of them has no effect."""
    name, sizes, effect, number, resamples = job
    rng = np.random.default_rng([number, *sizes])
    stack, _ = simulate(Cell(sizes), rng, effect)
    matrix = np.column_stack([np.repeat([1.0, 0.0], sizes), np.repeat([0.0, 1.0], sizes)])
    tests = tuple(Test(label, np.eye(2)[[row]]) for row, label in enumerate("pq"))
    model = Model(find_estimator("ols"), Design(matrix, ("p", "q"), tests))
    estimate, inference = estimate_maps(stack, model), find_inference(name)
    settings, fields, parts = InferenceSettings(alpha=ALPHA, permutations=resamples, seed=number), [], []
    for test in tests:
        seen = make_field(SimpleNamespace(grid=stack.grid), estimate, test, None)  # type: ignore[arg-type]
        null = score_resamples(stack, model, test, {name: inference.score}, settings) if inference.score else None
        fields.append(seen)
        parts.append(inference.infer(seen, null, settings))
    return bool(conjoin(inference, conjoin_fields(fields), parts, settings).significant.any())


def measure(cells: tuple[Cell, ...], sets: int, resamples: int, processes: int) -> list[int]:
    """Count the data sets with a wrong voxel, by cell."""
    jobs = [[(cell, number, resamples) for number in range(sets)] for cell in cells]
    if processes <= 1:
        return [sum(map(is_wrong, one)) for one in jobs]
    with ProcessPoolExecutor(processes) as pool:
        return [sum(pool.map(is_wrong, one, chunksize=10)) for one in jobs]


def broken_claims(cells: tuple[Cell, ...], counts: list[int], sets: int) -> list[str]:
    """Tell which claims fail."""
    return [
        f"{cell.maps}, {cell.analysis}, {cell.effects}: {count} of {sets}, not {cell.limit}"
        for cell, count in zip(cells, counts, strict=True)
        if stats.binom.sf(count - 1, sets, cell.limit) < IN_CELL
    ]


def main() -> int:
    """Measure, print or write the page, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    bounds = measure(CELLS, given.sets, given.resamples, given.processes)
    skewed = measure(UNCLAIMED, given.sets, given.resamples, given.processes)
    absent = measure(EQUIVALENCE, given.sets, given.resamples, given.processes)
    both = [sum(is_both((*one, n, given.resamples)) for n in range(given.sets)) for one in TOGETHER]
    page = as_markdown([*bounds, *skewed], absent, both, given.sets, given.resamples)
    if given.write:
        given.write.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = [*broken_claims(CELLS, bounds, given.sets), *broken_claims(EQUIVALENCE, absent, given.sets)]
    broken += [
        f"conjunction by {one[0]}: {count} of {given.sets}"
        for one, count in zip(TOGETHER, both, strict=True)
        if stats.binom.sf(count - 1, given.sets, ALPHA) < IN_CELL
    ]
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


def as_markdown(bounds: list[int], absent: list[int], both: list[int], sets: int, resamples: int) -> str:
    """Lay the cells out."""
    first = ["| maps | effects | analysis | any effect outside of its bounds |", "|---|---|---|---|"]
    for cell, count in zip((*CELLS, *UNCLAIMED), bounds, strict=True):
        first.append(f"| {cell.maps} | {cell.effects} | {cell.analysis} | {share_text(count, sets)} |")
    second = ["| maps | every effect is | analysis | any called absent |", "|---|---|---|---|"]
    for cell, count in zip(EQUIVALENCE, absent, strict=True):
        assert cell.bound is not None
        sign = "± " if cell.effects == BOTH else ""
        what = f"{sign}{cell.bound.size:g}{' SD' if cell.bound.standardised else ''}"
        second.append(f"| {cell.maps} | {what} | {cell.analysis} | {share_text(count, sets)} |")
    third = ["| groups | effect of the second | inference | any voxel called active in both |", "|---|---|---|---|"]
    for (name, sizes, effect), count in zip(TOGETHER, both, strict=True):
        third.append(f"| {sizes[0]} and {sizes[1]} maps | {effect:g} | `{name}` | {share_text(count, sets)} |")
    tables = {"bounds": "\n".join(first), "absent": "\n".join(second), "both": "\n".join(third)}
    return PAGE.format(**tables, sets=sets, resamples=resamples)


PAGE = """# Simultaneous bounds, equivalence, conjunctions: how often they are wrong

Made by `python validation/simultaneous.py --write docs/validation-simultaneous.md`; do not edit by hand.

Shares of {sets} data sets of smooth noise (FWHM 2.5 voxels, 10³ voxels, {resamples} resamples) with any voxel that is
wrong, with their 95 % Clopper-Pearson intervals; 0.05 is what is claimed. Maps have a standard deviation of 1 (of
`reml`: tau2 is 1, sampling variances 0.5 to 1.5 are known); effects are of 2, in half of the voxels or with both signs.

## Bounds

{bounds}

Errors are drawn from maps less the estimated effect, so that the share is the same with effects and without. Units of
several maps share an error of their own, of the variance that maps have.

Of the mean of maps with skewed noise (the last rows; chi-squared with 4 dof has a skewness of 1.4) bounds do not hold:
flipping signs takes noise to be symmetric. A run whose residuals are skewed says so. Of differences between groups of
one size they do hold.

## Equivalence

Every effect has exactly the size of the bound, so that each voxel that is called absent is an error.

{absent}

The largest error in either direction counts, since among effects of both signs an error of either is wrong somewhere.
With few maps hardly anything is called absent: standard errors times the
critical value are wider than the bound. A bound of Hedges' g has the noncentral t of each voxel, and the
errors' dependence between voxels.

## Conjunctions

Two groups, of which the first has no effect anywhere.

{both}

The script ends with 1 when a share is larger than 0.05 (p < 0.001).
"""

if __name__ == "__main__":
    raise SystemExit(main())
