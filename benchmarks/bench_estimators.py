"""Estimators beside PyMARE's, in one run: a whole brain of 21 studies, CPU seconds and ratios.

``pip install pymare``, then ``python benchmarks/bench_estimators.py [--voxels 228483] [--maps 21]``. Both sides get
the same arrays; kernels are compiled before the clock starts. Ratios are PyMARE's CPU time over ours, the best of
``--repeat`` runs each. Peak memory is that of a process that does this alone (``--peak``).
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pymare import Dataset
from pymare import estimators as peers

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.methods import Estimator
from ibma_app.estimators import find_estimator
from ibma_app.stream.memory_plan import block_size

PEERS: dict[str, Callable[[], Any]] = {
    "fixed-effects": peers.WeightedLeastSquares,
    "dl": peers.DerSimonianLaird,
    "hedges": peers.Hedges,
    "ml": lambda: peers.VarianceBasedLikelihoodEstimator(method="ML"),
    "reml": lambda: peers.VarianceBasedLikelihoodEstimator(method="REML"),
    "stouffer": peers.StoufferCombinationTest,
    "fisher": peers.FisherCombinationTest,
}
Z_FAMILY = ("stouffer", "fisher")
ALONE = (
    "ols",
    "ols sandwich",
    "stouffer-rfx",
    "hunter-schmidt",
    "sidik-jonkman",
    "paule-mandel",
    "empirical-bayes",
    "tippett",
)
"""Ours that have no peer there; a second word is a choice of ``errors``."""


def simulate(n_maps: int, n_voxels: int, predictors: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw effects, variances and a design with an intercept."""
    rng = np.random.default_rng(seed)
    variance = rng.uniform(0.02, 0.2, (n_maps, n_voxels))
    tau2 = rng.uniform(0.0, 0.2, n_voxels)
    effect = 0.3 + rng.normal(size=(n_maps, n_voxels)) * np.sqrt(variance + tau2)
    design = np.column_stack([np.ones(n_maps), *(rng.normal(size=n_maps) for _ in range(predictors - 1))])
    return effect, variance, design


def cpu(run: Callable[[], object], repeat: int) -> float:
    """Give the least CPU seconds of several runs."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def ours(
    estimator: Estimator, block: VoxelBlock, matrix: np.ndarray, clusters: np.ndarray | None = None, **settings: str
) -> Callable[[], object]:
    """Fit tile by tile, as the app does; every column is tested, or of clusters the difference of the first two."""
    tests = tuple(Test(f"b{i}", np.eye(matrix.shape[1])[i : i + 1]) for i in range(matrix.shape[1]))
    if clusters is not None and matrix.shape[1] > 1:
        tests = (Test("difference", np.r_[1.0, -1.0, np.zeros(matrix.shape[1] - 2)][None]),)
    design = Design(matrix, tuple(test.name for test in tests), tests, clusters=clusters)
    size, n_voxels = block_size(len(matrix)), block.covered.shape[1]

    def tile(kind: str, start: int) -> np.ndarray | None:  # what the app would read for this estimator
        values = getattr(block, kind) if kind in estimator.needs else None
        return None if values is None else np.ascontiguousarray(values[:, start : start + size])

    def run() -> None:
        for start in range(0, n_voxels, size):
            part = VoxelBlock(
                covered=np.ascontiguousarray(block.covered[:, start : start + size]),
                effect=tile("effect", start),
                variance=tile("variance", start),
                z=tile("z", start),
                sample_size=block.sample_size,
            )
            estimator.fit(part, design, **settings)

    return run


def theirs(name: str, effect: np.ndarray, variance: np.ndarray, matrix: np.ndarray) -> Callable[[], object]:
    """Fit with PyMARE, all voxels at once."""

    def run() -> None:
        if name in Z_FAMILY:
            PEERS[name]().fit_dataset(Dataset(y=effect / np.sqrt(variance))).summary()
        else:
            fitted = PEERS[name]().fit_dataset(Dataset(y=effect, v=variance, X=matrix, add_intercept=False))
            fitted.summary().get_fe_stats()

    return run


def block_of(effect: np.ndarray, variance: np.ndarray, covered: np.ndarray) -> VoxelBlock:
    """Make one block of everything."""
    return VoxelBlock(
        covered=covered,
        effect=np.where(covered, effect, 0.0),
        variance=np.where(covered, variance, 0.0),
        z=np.where(covered, effect / np.sqrt(variance), 0.0),
        sample_size=np.full(len(effect), 20.0),
    )


def coverage_patterns(n_maps: int, n_voxels: int, patterns: int, seed: int = 1) -> np.ndarray:
    """Draw which maps cover which voxels, in a few hundred distinct patterns."""
    rng = np.random.default_rng(seed)
    kinds = rng.random((n_maps, patterns)) > 0.15
    kinds[:6] = True
    return kinds[:, rng.integers(0, patterns, n_voxels)]


def compare(n_maps: int, n_voxels: int, predictors: int, repeat: int) -> None:
    """Print a row per estimator."""
    effect, variance, matrix = simulate(n_maps, n_voxels, predictors)
    everything = block_of(effect, variance, np.ones(effect.shape, dtype=bool))
    patchy = block_of(effect, variance, coverage_patterns(n_maps, n_voxels, 300))
    tell(f"\n{n_voxels} voxels, {n_maps} studies, {predictors} predictor(s): CPU seconds")
    tell(f"{'estimator':18} {'ours':>8} {'PyMARE':>8} {'ratio':>8} {'300 patterns':>13} {'/ complete':>10}")
    for name in (*PEERS, *ALONE):
        estimator = find_estimator(name.split()[0])
        settings = {"errors": name.split()[1]} if " " in name else {}
        if predictors > 1 and not estimator.takes_designs:
            continue
        run, patched = (ours(estimator, block, matrix, **settings) for block in (everything, patchy))
        small = block_of(effect[:, :512], variance[:, :512], patchy.covered[:, :512])
        ours(estimator, small, matrix, **settings)()  # compiles
        mine, holes = cpu(run, repeat), cpu(patched, repeat)
        peer = cpu(theirs(name, effect, variance, matrix), 1) if name in PEERS else float("nan")
        tell(f"{name:18} {mine:8.3f} {peer:8.2f} {peer / mine:8.1f} {holes:13.3f} {holes / mine:10.2f}")


def compare_errors(subjects: int, conditions: int, n_voxels: int, repeat: int) -> None:
    """Print what repeated measures take, with subject columns, by their error."""
    unit, condition = np.repeat(np.arange(subjects), conditions), np.tile(np.arange(conditions), subjects)
    matrix = np.column_stack([np.eye(conditions)[condition], np.eye(subjects)[unit][:, 1:]])
    effect, variance, _ = simulate(len(unit), n_voxels, 1)
    blocks = [block_of(effect, variance, np.ones(effect.shape, dtype=bool))]
    blocks.append(block_of(effect, variance, coverage_patterns(len(unit), n_voxels, 300)))
    tell(f"\n{n_voxels} voxels, {subjects} subjects x {conditions} conditions, {matrix.shape[1]} columns: CPU seconds")
    tell(f"{'errors':18} {'complete':>9} {'300 patterns':>13}")
    for errors in ("pooled", "sandwich"):
        runs = [ours(find_estimator("ols"), block, matrix, unit, errors=errors) for block in blocks]
        ours(
            find_estimator("ols"),
            block_of(effect[:, :8], variance[:, :8], effect[:, :8] < 9),
            matrix,
            unit,
            errors=errors,
        )()
        times = [cpu(run, repeat) for run in runs]
        tell(f"{errors:18} {times[0]:9.3f} {times[1]:13.3f}")


def compare_clusters(n_voxels: int, repeat: int) -> None:
    """Print what maps in clusters take: 21 maps in 11 clusters, beside as many that are independent."""
    clusters = np.repeat(np.arange(11), (2, 2, 3, 4, 1, 1, 1, 2, 2, 2, 1))
    effect, variance, matrix = simulate(len(clusters), n_voxels, 1)
    effect += 0.3 * np.random.default_rng(2).normal(size=(11, n_voxels))[clusters]
    block = block_of(effect, variance, np.ones(effect.shape, dtype=bool))
    small = block_of(effect[:, :512], variance[:, :512], np.ones((len(clusters), 512), dtype=bool))
    tell(f"\n{n_voxels} voxels, 21 maps in 11 clusters: CPU seconds, and times reml's")
    reference = None
    for name in ("reml", "multilevel", "multilevel sandwich"):
        estimator = find_estimator(name.split()[0])
        settings = {"errors": name.split()[1]} if " " in name else {}
        ours(estimator, small, matrix, clusters, **settings)()  # compiles
        seconds = cpu(ours(estimator, block, matrix, clusters, **settings), repeat)
        reference = seconds if reference is None else reference
        tell(f"{name:20} {seconds:8.3f} {seconds / reference:6.2f}")


def peak(side: str, name: str, n_maps: int, n_voxels: int) -> None:
    """Do one fit alone and print this process's peak memory in MiB."""
    effect, variance, matrix = simulate(n_maps, n_voxels, 1)
    if side == "ours":
        ours(find_estimator(name), block_of(effect, variance, np.ones(effect.shape, dtype=bool)), matrix)()
    else:
        theirs(name, effect, variance, matrix)()
    tell(f"{side} {name}: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def tell(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the comparison without and with moderators."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=228_483)
    parser.add_argument("--maps", type=int, default=21)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "ESTIMATOR"), help="ours or pymare, and a name")
    given = parser.parse_args()
    if given.peak:
        peak(*given.peak, given.maps, given.voxels)
        return 0
    for predictors in (1, 3):
        compare(given.maps, given.voxels, predictors, given.repeat)
    compare_errors(16, 9, given.voxels // 8, given.repeat)
    compare_clusters(given.voxels, given.repeat)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
