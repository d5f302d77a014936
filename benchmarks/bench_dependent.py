"""Repeated measures: CPU seconds of `random-intercept` on a whole brain, and of cluster-robust errors (`ols`, its own).

``python benchmarks/bench_dependent.py [--voxels 228483] [--maps 144]``. The maps are read from memory tile by tile, as
the app does; fit, tests, degrees of freedom and z are in the time, files are not. Kernels are compiled
before the clock starts. Memory is what the process takes beyond the maps and the results. Then what a relabelling
takes, by the path that the app takes and by fitting every voxel.
"""

import argparse
import os
import time
import tracemalloc
from dataclasses import replace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import numpy as np  # noqa: E402

from ibma_app.core.block import VoxelBlock  # noqa: E402
from ibma_app.core.design import Design, Test  # noqa: E402
from ibma_app.core.grid import Grid  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.stream.estimate import Model  # noqa: E402
from ibma_app.stream.memory_plan import block_size  # noqa: E402
from ibma_app.stream.resampling.fast_bounds import FastBounded  # noqa: E402
from ibma_app.stream.resampling.refit import Refit, Refitter  # noqa: E402
from ibma_app.stream.resampling.relabelling import plan_scheme  # noqa: E402
from ibma_app.stream.resampling.scoring import Scoring  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402

VISITS = 3
PATTERNS = {"complete": 1, "a third of the visits missing": 1, "the same, 300 patterns of coverage": 300}


def lay_out(n_maps: int, missing: float) -> tuple[np.ndarray, Design]:
    """Return the participant of each map, and a design of three visits by two groups with seven tests."""
    people = round(n_maps / VISITS / (1.0 - missing))
    unit, visit = np.repeat(np.arange(people), VISITS), np.tile(np.arange(VISITS), people)
    kept = np.sort(np.random.default_rng(1).permutation(unit.size)[:n_maps])
    unit, visit = np.unique(unit[kept], return_inverse=True)[1], visit[kept]
    group = unit % 2
    columns = [np.ones(unit.size), visit == 1, visit == 2, group, (visit == 1) * group, (visit == 2) * group]
    matrix = np.column_stack(columns).astype(float)
    names = tuple(f"b{i}" for i in range(6))
    tests = (*(Test(name, np.eye(6)[[i]]) for i, name in enumerate(names)), Test("change", np.eye(6)[4:]))
    more = {"cluster_name": "participant_id", "unit_name": "participant_id", "repeated": True}
    return unit, Design(matrix, names, tests, clusters=unit, units=unit, **more)


WAYS = {
    "random-intercept": ("random-intercept", {}),
    "its sandwich": ("random-intercept", {"errors": "sandwich"}),
    "ols": ("ols", {"errors": "sandwich"}),
}


def fit_all(way: str, design: Design, effect: np.ndarray, covered: np.ndarray, which: np.ndarray) -> None:
    """Fit tile by tile; a voxel's coverage is one of the patterns."""
    name, settings = WAYS[way]
    estimator, size = find_estimator(name), block_size(len(effect))
    for start in range(0, effect.shape[1], size):
        there = slice(start, start + size)
        tile = np.ascontiguousarray(effect[:, there], dtype=np.float64)
        estimator.fit(VoxelBlock(np.ascontiguousarray(covered[:, which[there]]), effect=tile), design, **settings)


def time_relabellings(design: Design, effect: np.ndarray) -> None:
    """Print the CPU seconds of a relabelling of all maps, for the heights and masses of clusters of three tests."""
    n_maps, n_voxels = effect.shape
    store, edge = RowStore(), int(np.ceil(n_voxels ** (1 / 3)))
    for row, one in enumerate(effect):
        store.append("effect", row, one, 0)
    store.select({0: np.arange(n_voxels)})
    mask = (np.arange(edge**3) < n_voxels).reshape((edge,) * 3)
    survey = tuple(MapSurvey(f"sub-{row}", (), n_voxels) for row in range(n_maps))
    grid, rows = Grid(np.diag([2.0, 2, 2, 1]), mask), tuple(range(n_maps))
    stack = Stack(grid, survey, (), ("effect",), rows, (True,) * n_maps, None, None, store)
    scores, settings = {name: find_inference(name).score for name in ("max-stat", "cluster-mass")}, InferenceSettings()
    for test in (design.tests[1], design.tests[3], design.tests[-1]):
        model = Model(find_estimator("random-intercept"), replace(design, tests=(test,)))
        scheme = plan_scheme(model, test, settings)
        refitter = Refitter(stack, model, scheme, 1)
        scoring = Scoring(scores, grid, scheme.tail, settings, np.flatnonzero(refitter.live))
        spent = []
        for resampler, job in (
            (FastBounded(model, refitter, scoring), range(64)),
            (Refit(refitter, scoring), range(2)),
        ):
            resampler.score(job[:1])
            start = time.process_time()
            resampler.score(job)
            spent.append((time.process_time() - start) / len(job))
        print(f"  a relabelling of test {test.name}: {spent[0]:.2f}, of every voxel {spent[1]:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=228483)
    parser.add_argument("--maps", type=int, default=144)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    print(
        f"{given.maps} maps, {given.voxels:,} voxels, 6 columns, 6 t tests and an F test: CPU seconds (MiB of a tile)"
    )
    for title, patterns in PATTERNS.items():
        unit, design = lay_out(given.maps, 0.0 if title == "complete" else 1 / 3)
        spread = np.sqrt(rng.uniform(0.0, 3.0, given.voxels)).astype(np.float32)
        own = rng.standard_normal((unit.max() + 1, given.voxels), dtype=np.float32) * spread
        effect = rng.standard_normal((unit.size, given.voxels), dtype=np.float32) + own[unit]
        covered = rng.random((unit.size, patterns)) < (1.0 if patterns == 1 else 0.9)
        which = rng.integers(0, patterns, given.voxels)
        cells = []
        for name in WAYS:
            fit_all(name, design, effect[:, :64], covered, which[:64])
            start = time.process_time()
            fit_all(name, design, effect, covered, which)
            spent = time.process_time() - start
            tracemalloc.start()
            fit_all(name, design, effect[:, : block_size(unit.size)], covered, which[: block_size(unit.size)])
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            cells.append(f"{name} {spent:.2f} ({peak:.0f})")
        print(f"{title}: {', '.join(cells)}", flush=True)
        if patterns == 1:
            time_relabellings(design, effect)


if __name__ == "__main__":
    main()
