"""Family-wise error of mixed models whose p are calibrated, and whose p are not: what the option is worth.

``python validation/calibration.py [--sets 130] [--write docs/validation-mixed-models.md]`` simulates data sets without
any effect: studies of 10 to 60 people, estimated variances, tau2 that differs over the voxels. Each is fitted with
`reml` and the test knha, and p are calibrated as `[inference] calibrate = true` does. It exits with 1 when an
inference on calibrated p errs in more sets than its level says. With ``--write``, the section of the page is replaced.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import Estimate, Field
from ibma_app.core.grid import Grid
from ibma_app.core.methods import InferenceSettings
from ibma_app.core.results import MapSurvey
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stats.calibration import calibrate
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling.calibrate import calibrate_tests
from ibma_app.stream.row_store import RowStore
from ibma_app.stream.stack import Stack

ALPHA = 0.05
STUDIES = (8, 12, 20)
INFERENCES = ("bonferroni", "fdr", "ari")
SHAPE = (20, 25, 40)  # voxels, independent of each other: as many tests as there can be
TAU2 = (0.0, 0.05, 0.5)  # a third of the voxels each, against a typical sampling variance of 0.05
TITLE = "## Calibrated p"


def simulate(n_maps: int, rng: np.random.Generator) -> Stack:
    """Draw studies of 10 to 60 people whose true mean effect is 0."""
    n_voxels = int(np.prod(SHAPE))
    sizes = rng.integers(10, 61, n_maps)
    true = 1.25 / sizes
    tau2 = np.resize(TAU2, n_voxels)
    effect = rng.normal(size=(n_maps, n_voxels)) * np.sqrt(true[:, None] + tau2)
    dof = (sizes - 1.0)[:, None]
    variance = true[:, None] * rng.chisquare(dof, effect.shape) / dof
    store = RowStore()
    for kind, values in (("effect", effect), ("variance", variance)):
        for row, one in enumerate(values):
            store.append(kind, row, one, 0)
    store.select({0: np.arange(n_voxels)})
    survey = tuple(MapSurvey(f"study-{row}", (), n_voxels) for row in range(n_maps))
    grid = Grid(np.diag([2.0, 2, 2, 1]), np.ones(SHAPE, dtype=bool))
    kept, signed = tuple(range(n_maps)), (True,) * n_maps
    return Stack(grid, survey, (), ("effect", "variance"), kept, signed, sizes.astype(float), dof, store)


def field_of(stack: Stack, model: Model, estimate: Estimate, line: tuple[float, float]) -> Field:
    """Return what inference sees, its p calibrated by a line."""
    (test,) = model.design.tests
    fitted = estimate.tests[test.name]
    log10_p = np.where(fitted.estimable, z_to_log10p(fitted.z, test.tail), 0.0)
    return Field(
        z=fitted.z, tail=test.tail, estimable=fitted.estimable, grid=stack.grid, log10_p=calibrate(log10_p, *line)
    )


def err(stack: Stack, model: Model, seed: int) -> dict[tuple[str, bool], bool]:
    """Tell which inferences find something in one set, on p as they are and calibrated."""
    estimate = estimate_maps(stack, model)
    (found,) = calibrate_tests(stack, model, estimate, seed).values()
    errs = {}
    for calibrated, line in ((False, (0.0, 0.0)), (True, (found.intercept, found.slope))):
        field = field_of(stack, model, estimate, line)
        for name in INFERENCES:
            significance = find_inference(name).infer(field, None, InferenceSettings(alpha=ALPHA))
            errs[name, calibrated] = bool(significance.significant.any())
    return errs


def measure(n_sets: int, seed: int = 5) -> dict[tuple[int, str, bool], int]:
    """Count the sets in which something is found, by number of studies, inference, and whether p are calibrated."""
    counts = {(k, name, calibrated): 0 for k in STUDIES for calibrated in (False, True) for name in INFERENCES}
    for k in STUDIES:
        design = Design(np.ones((k, 1)), ("intercept",), (Test("intercept", np.ones((1, 1))),))
        estimator = find_estimator("reml")
        model = Model(estimator, design, {**estimator.defaults(design), "test": "knha"})
        for number in range(n_sets):
            stack = simulate(k, np.random.default_rng([seed, k, number]))
            for (name, calibrated), wrong in err(stack, model, number).items():
                counts[k, name, calibrated] += wrong
    return counts


def as_markdown(counts: dict[tuple[int, str, bool], int], n_sets: int) -> str:
    """Lay the counts out: a row per number of studies, and one for all."""
    columns = [(name, calibrated) for name in INFERENCES for calibrated in (False, True)]
    lines = ["| K | " + " | ".join(f"`{name}`{' calibrated' * calibrated}" for name, calibrated in columns) + " |"]
    lines.append("|" + "---|" * (1 + len(columns)))
    for k in (*STUDIES, "all"):
        cells = []
        for column in columns:
            hits = sum(counts[n, *column] for n in STUDIES if k in (n, "all"))
            total = n_sets * (len(STUDIES) if k == "all" else 1)
            low, high = stats.binomtest(hits, total).proportion_ci()
            cells.append(f"{hits / total:.3f} ({low:.3f}-{high:.3f})")
        lines.append(f"| {k} | " + " | ".join(cells) + " |")
    return PAGE.format(title=TITLE, table="\n".join(lines), n_sets=n_sets, n_voxels=int(np.prod(SHAPE)), alpha=ALPHA)


PAGE = """{title}

Made by `python validation/calibration.py --write docs/validation-mixed-models.md`. `[inference] calibrate = true` with
`reml` and `test = "knha"`: {n_sets} data sets of {n_voxels} independent voxels for each number of studies K, studies
as above, a third of the
voxels each without, with moderate and with large tau2. The share of sets in which something is found at {alpha}
where nothing is, and its 95 % interval.

{table}
"""


def broken(counts: dict[tuple[int, str, bool], int], n_sets: int) -> list[str]:
    """Name inferences on calibrated p whose error is above the level beyond doubt."""
    found = []
    for name in INFERENCES:
        hits = sum(counts[k, name, True] for k in STUDIES)
        low = stats.binomtest(hits, n_sets * len(STUDIES)).proportion_ci().low
        if low > ALPHA:
            found.append(f"{name} on calibrated p errs in {hits} of {n_sets * len(STUDIES)} sets")
    return found


def main() -> int:
    """Measure, print or write the section, and check its claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=130)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    counts = measure(given.sets)
    section = as_markdown(counts, given.sets)
    if given.write:
        before = given.write.read_text(encoding="utf-8").partition(f"\n{TITLE}")[0].rstrip("\n")
        given.write.write_text(f"{before}\n\n{section}", encoding="utf-8")
    else:
        sys.stdout.write(section)
    failed = broken(counts, given.sets)
    for claim in failed:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
