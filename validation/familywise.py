"""Error of corrected inference at 0.05 where there is no effect, defaults first, and what is found where there is one.

``python validation/familywise.py [--cells PATTERN] [--write docs/validation-familywise.md]`` simulates data sets
without any effect and counts those in which something is found, by every kind of estimator and design that the
documentation recommends; then data sets in which a tenth of the voxels is active. What was measured is kept in
kept/familywise.tsv, and the page is written from there: what is new is measured, and what matches PATTERN (a regular
expression of titles; ``.``: all, which takes hours) is measured anew. It exits with 1 when a claim of the page fails.
"""

import argparse
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from familywise_cells import ALPHA, CELLS, FEWEST, FINDING, HEIGHT, VOXELWISE, Cell, Finding  # noqa: E402
from familywise_page import as_markdown, broken_claims  # noqa: E402
from familywise_says import sentences  # noqa: E402
from kept import KEPT, Kept  # noqa: E402
from null_maps import SIDE, TARGET, TAU2, Noise, design_of, draw_maps, make_stack, smooth, white  # noqa: E402

from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.core.design import Design  # noqa: E402
from ibma_app.core.estimate import Field, Null  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.methods import Estimator, InferenceSettings  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.stats.calibration import calibrate  # noqa: E402
from ibma_app.stats.tails import z_to_log10p  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.resampling.calibrate import calibrate_tests  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.stream.residuals.smoothness import estimate_smoothness  # noqa: E402
from ibma_app.workflows.infer import make_field  # noqa: E402

SETS, ACTIVE_SETS = 1000, 100  # data sets of a cell: without any effect, and with one
VOXELS = 2000  # of a data set whose voxels are independent
SETTINGS = InferenceSettings(alpha=ALPHA)
AT_ONCE = 10  # data sets that are fitted together
RESAMPLES, FEW = 60, 16
"""A resampled test keeps its level whatever the number of relabellings, so that 60 are enough here. The first 16 of
them tell of most data sets that p is above .05."""


def block_of(found: dict[str, np.ndarray]) -> VoxelBlock:
    """Give maps to an estimator directly."""
    covered = np.isfinite(found["effect"])
    values = {kind: np.where(covered, found[kind], 0.0) for kind in ("effect", "variance", "z") if kind in found}
    more = {kind: found[kind] for kind in ("dof", "sample_size") if kind in found}
    if not np.isfinite(more.get("dof", np.ones(1))).any():
        del more["dof"]
    return VoxelBlock(covered=covered, **values, **more)


def fields_of(found: dict[str, np.ndarray], model: Model, seed: int, *, calibrated: bool = False) -> list[Field]:
    """Fit data sets of independent voxels that lie side by side, and part them."""
    fitted, tail = model.fit(block_of(found)).tests["test"], model.design.tests[0].tail
    log10_p = np.where(fitted.estimable, z_to_log10p(fitted.z, tail), 0.0)
    if calibrated:
        line = Grid(np.eye(4), np.ones((fitted.z.size, 1, 1), dtype=bool))
        stack = make_stack(found, kinds_of(model.estimator), line)
        fact = calibrate_tests(stack, model, estimate_maps(stack, model), seed)["test"]
        log10_p = calibrate(log10_p, fact.intercept, fact.slope)
    sets = [slice(start, start + VOXELS) for start in range(0, fitted.z.size, VOXELS)]
    return [Field(fitted.z[one], tail, fitted.estimable[one], TARGET.grid, log10_p[one]) for one in sets]


def voxelwise(cell: Cell, design: Design, sets: int, first: int) -> np.ndarray:
    """Tell in which data sets of independent voxels each method that rests on p finds something, (M, sets)."""
    rng, record = np.random.default_rng([first, *cell.title.encode()]), find_estimator(cell.estimator)
    found = draw_maps(cell.maps, white(sets * VOXELS), rng, kinds_of(record))
    fields = fields_of(found, Model(record, design, cell.settings), first)
    methods = [find_inference(name) for name in VOXELWISE]
    return np.array([[method.infer(one, None, SETTINGS).significant.any() for one in fields] for method in methods])


def smoothed(cell: Cell, design: Design, number: int) -> list[bool]:
    """Tell which methods find something in one data set of smooth voxels."""
    record, test = find_estimator(cell.estimator), design.tests[0]
    rng, kinds = np.random.default_rng([number, 1, *cell.title.encode()]), kinds_of(record)
    stack = make_stack(draw_maps(cell.maps, smooth(), rng, kinds), kinds, TARGET.grid)
    model, methods = Model(record, design, cell.settings), [find_inference(name) for name in cell.smooth]
    scores = {method.name: method.score for method in methods if method.score}
    settings = replace(SETTINGS, permutations=FEW, seed=number)
    null = score_resamples(stack, model, test, scores, settings)
    done = not null.exhaustive and all(certain(null, name) for name in scores)
    if done and len(scores) == len(methods):
        return [False] * len(methods)
    if not done:
        settings = replace(settings, permutations=RESAMPLES)
        null = score_resamples(stack, model, test, scores, settings)
    estimate = estimate_maps(stack, model)
    smoothness = estimate_smoothness(stack, model, estimate) if any(m.needs_smoothness for m in methods) else None
    field = make_field(TARGET, estimate, test, smoothness)
    return [
        not (method.score and done) and bool(method.infer(field, null, settings).significant.any())
        for method in methods
    ]


def certain(few: Null, method: str) -> bool:
    """Return whether as many of a few relabellings reach the largest score as all together may not."""
    maxima = few.maxima[method]
    return np.count_nonzero(maxima >= maxima[0] * (1 + 1e-3)) + 1 > ALPHA * RESAMPLES


def kinds_of(record: Estimator) -> tuple[str, ...]:
    """Return the kinds of map that an estimator needs."""
    return tuple(kind for kind in record.needs if kind in ("effect", "variance", "z"))


def measure_voxelwise(cell: Cell, sets: int) -> np.ndarray:
    """Count the data sets in which each method that rests on p finds something, (M,)."""
    design = design_of(cell.maps)
    return np.sum([voxelwise(cell, design, AT_ONCE, first).sum(axis=1) for first in range(0, sets, AT_ONCE)], axis=0)


def measure_smooth(cell: Cell, sets: int) -> np.ndarray:
    """Count the data sets of smooth voxels in which each method finds something, (M,)."""
    design = design_of(cell.maps)
    return np.sum([smoothed(cell, design, number) for number in range(sets)], axis=0)


def measure_null(cell: Cell, kept: Kept) -> np.ndarray:
    """Count the data sets in which each method finds something, (M,)."""
    counts = kept.get(f"{cell.title}; voxelwise", SETS, partial(measure_voxelwise, cell))
    if not cell.smooth:
        return counts
    return np.concatenate([counts, kept.get(f"{cell.title}; smooth", SETS, partial(measure_smooth, cell))])


def activated(finding: Finding, noise: Noise, active: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw maps with an effect at the active voxels, in standard errors of a mean."""
    found = draw_maps(finding.maps, noise, rng, ("effect", "variance"))
    between = TAU2["studies"] if finding.differ else 0.0
    error = np.sqrt((between + (1.25 / found["sample_size"]).mean()) / finding.n)
    found["effect"][:, active] += HEIGHT[finding.n] * error
    return found


def find_voxelwise(finding: Finding, sets: int) -> np.ndarray:
    """Return the mean share of what `fdr` finds that is false, and of the active that it and `bonferroni` find."""
    model = Model(find_estimator(finding.estimator), design_of(finding.maps), finding.settings)
    active, rows = np.arange(VOXELS) < VOXELS // 10, []
    for first in range(0, sets, AT_ONCE):
        count = min(AT_ONCE, sets - first)
        rng = np.random.default_rng([first, finding.n])
        drawn = activated(finding, white(count * VOXELS), np.tile(active, count), rng)
        for field in fields_of(drawn, model, first, calibrated=finding.calibrated):
            hit, sure = (find_inference(m).infer(field, None, SETTINGS).significant for m in ("fdr", "bonferroni"))
            rows.append([np.mean(~active[hit]) if hit.any() else 0.0, hit[active].mean(), sure[active].mean()])
    return np.mean(rows, axis=0)


def find_smooth(finding: Finding, sets: int) -> np.ndarray:
    """Return the mean share of the active voxels that `max-stat` finds, (1,)."""
    design, method = design_of(finding.maps), find_inference("max-stat")
    model = Model(find_estimator(finding.estimator), design, finding.settings)
    block, rows = np.zeros((SIDE,) * 3, dtype=bool), []
    block[:4, :4, :3] = True
    active, settings = block.reshape(-1), replace(SETTINGS, permutations=RESAMPLES)
    for number in range(sets):
        drawn = activated(finding, smooth(), active, np.random.default_rng([number, finding.n, 1]))
        stack = make_stack(drawn, ("effect", "variance"), TARGET.grid)
        field = make_field(TARGET, estimate_maps(stack, model), design.tests[0])
        null = score_resamples(stack, model, design.tests[0], {method.name: method.score}, settings)
        rows.append(method.infer(field, null, settings).significant[active].mean())
    return np.array([np.mean(rows)])


def measure_finding(finding: Finding, kept: Kept) -> np.ndarray:
    """Return the false among those that `fdr` finds, and the power of `fdr`, `bonferroni` and `max-stat`."""
    found = kept.get(f"{finding.title}; voxelwise", ACTIVE_SETS, partial(find_voxelwise, finding))
    if finding.n < FEWEST or finding.calibrated:  # what resamples has no use for calibration
        return found
    return np.concatenate([found, kept.get(f"{finding.title}; smooth", ACTIVE_SETS, partial(find_smooth, finding))])


def main() -> int:
    """Measure, print or write the page, and check the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", metavar="PATTERN")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    kept = Kept(KEPT / "familywise.tsv", given.cells)
    null = {cell: measure_null(cell, kept) for cell in CELLS}
    found = {one: measure_finding(one, kept) for one in FINDING}
    pages = {cell: sentences(cell) for cell in CELLS if cell.says}
    text = as_markdown(null, found, pages, SETS, ACTIVE_SETS)
    if given.write:
        given.write.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    broken = broken_claims(null, found, pages, SETS, ACTIVE_SETS)
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
