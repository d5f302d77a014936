"""Seconds per resample of ours, of nilearn's `permuted_ols` and of the package `tfce`, whole brain at 2 mm, in one run.

    python benchmarks/bench_resampling.py [--maps 20] [--threads 2] [--skip-nilearn] [--mixed reml dl ...]

Each figure is the difference between a long and a short run, divided by the
difference in their resamples: start-up, reading and the identity drop out. The
best of several runs counts, since other work on the machine only ever adds.
Each side runs in a process of its own, whose peak memory is told: interpreter,
imports, the K maps in single precision and all that resampling adds. For `tfce`
(skipped when it is not installed) numpy makes maps of t in the smallest box
around the brain; the transform alone is told too.

``--mixed`` resamples mixed models of 21 maps, in one process with `ols` of the same maps: their CPU time is told as
a multiple of what a resample of `ols` with TFCE takes there.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from scipy import ndimage  # noqa: E402

SCORES = {
    "max-stat": ("max-stat",),
    "clusters": ("max-stat", "cluster-size", "cluster-mass"),
    "tfce": ("max-stat", "tfce"),
    "all four": ("max-stat", "cluster-size", "cluster-mass", "tfce"),
}
OURS = {"max-stat": (65, 2113), "clusters": (65, 1089), "tfce": (9, 137), "all four": (9, 137)}
MIXED = {"max-stat": (129, 641), "all four": (65, 193)}
MIXED_MAPS = 21
THEIRS = {"max-stat": (50, 250), "clusters": (20, 80), "tfce": (2, 8)}
PACKAGE = (16, 64)
BATCH = 8  # maps that the package tfce is given at a time


def make_data(n_maps):
    """An ellipsoid of about 228,000 voxels of 2 mm, and maps of smooth noise."""
    shape = (91, 109, 91)
    grid = np.indices(shape)
    mask = sum(((grid[i] - n / 2) / (n * 0.3925)) ** 2 for i, n in enumerate(shape)) < 1
    rng = np.random.default_rng(0)
    maps = np.empty((n_maps, int(mask.sum())), dtype=np.float32)
    for row in maps:
        row[:] = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)[mask]
    return mask, maps


def make_grid(mask):
    from ibma_app.core.grid import Grid

    return Grid(np.diag([2.0, 2, 2, 1]), mask)


def make_stack(shape, maps, variance=None):
    from ibma_app.core.results import MapSurvey
    from ibma_app.stream.row_store import RowStore
    from ibma_app.stream.stack import Stack

    store = RowStore()
    kinds = {"effect": maps} if variance is None else {"effect": maps, "variance": variance}
    for kind, values in kinds.items():
        for row, one in enumerate(values):
            store.append(kind, row, one, 0)
    n_maps, n_voxels = maps.shape
    store.select({0: np.arange(n_voxels)})
    survey = tuple(MapSurvey(f"sub-{row}", (), n_voxels) for row in range(n_maps))
    return Stack(shape, survey, (), tuple(kinds), tuple(range(n_maps)), (True,) * n_maps, None, None, store)


def timed(function, count):
    wall, cpu = time.perf_counter(), cpu_seconds()
    function(count)
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds():
    """Of this process and of those it has waited for (nilearn's workers end at times only with us)."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def per_resample(function, short, long, repeats):
    """Return wall and CPU seconds of one resample."""
    runs = {count: [timed(function, count) for _ in range(repeats)] for count in (short, long)}
    best = {count: np.min(times, axis=0) for count, times in runs.items()}
    return (best[long] - best[short]) / (long - short)


def time_ours(stack, threads, estimator="ols", counts=OURS):
    from ibma_app.core.design import Design, Test
    from ibma_app.core.methods import InferenceSettings
    from ibma_app.estimators import find_estimator
    from ibma_app.inference import find_inference
    from ibma_app.stream.estimate import Model
    from ibma_app.stream.resampling.resample import score_resamples
    from ibma_app.stream.workers.resources import Resources

    test = Test("mean", np.ones((1, 1)))
    design = Design(np.ones((stack.n_maps, 1)), ("Intercept",), (test,))
    model, found = Model(find_estimator(estimator), design), {}
    for label, (short, long) in counts.items():
        scores = {name: find_inference(name).score for name in SCORES[label]}

        def run(count, scores=scores):
            score_resamples(stack, model, test, scores, InferenceSettings(permutations=count), Resources(threads))

        run(2)  # compiles
        found[label] = per_resample(run, short, long, 3).tolist()
    return found


def time_nilearn(maps, mask, threads):
    import nibabel as nib
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    masker = NiftiMasker(nib.Nifti1Image(mask.astype(np.uint8), np.diag([2.0, 2, 2, 1]))).fit()
    options = {"max-stat": {}, "clusters": {"threshold": 0.001}, "tfce": {"tfce": True}}
    found = {}
    for label, (short, long) in THEIRS.items():

        def run(count, label=label):
            permuted_ols(
                np.ones((len(maps), 1)), maps, model_intercept=False, n_perm=count, two_sided_test=True,
                random_state=0, n_jobs=threads, masker=masker, output_type="dict", **options[label],
            )  # fmt: skip

        run(2)
        found[label] = per_resample(run, short, long, 1 if label == "tfce" else 2).tolist()
    return found


def time_package(maps, mask, threads):
    import tfce

    n_maps, rng = len(maps), np.random.default_rng(0)
    norms = (maps**2).sum(axis=0)
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(mask))
    inside = mask[box]
    t_maps = np.zeros((*inside.shape, BATCH), dtype=np.float32, order="F")

    def flip():
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), (BATCH, n_maps))
        for row, total in enumerate(signs @ maps):
            t_maps[inside, row] = total / np.sqrt(n_maps * (norms - total**2 / n_maps) / (n_maps - 1))

    def transform(count):
        for _ in range(0, count, BATCH):
            found = tfce.tfce(t_maps, connectivity=6, E=0.5, H=2.0, two_sided=True, n_jobs=threads)
            np.abs(found).max(axis=(0, 1, 2))

    def resample(count):
        for _ in range(0, count, BATCH):
            flip()
            transform(BATCH)

    resample(BATCH)
    runs = {"tfce": resample, "(transform)": transform}
    return {label: per_resample(run, *PACKAGE, 3).tolist() for label, run in runs.items()}


def part(name, options):
    """Run one side in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--part", name, "--maps", str(options.maps), "--threads", str(options.threads)]
    command += ["--mixed", *options.mixed]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def measure(options):
    n_maps = MIXED_MAPS if options.part == "mixed" else options.maps
    mask, maps = make_data(n_maps)
    if options.part == "ours":
        stack = make_stack(make_grid(mask), maps)
        del maps  # the stack has its own
        found = time_ours(stack, options.threads)
    elif options.part == "mixed":
        variance = np.random.default_rng(1).uniform(0.5, 2.0, maps.shape).astype(np.float32) * maps.var()
        stack = make_stack(make_grid(mask), maps, variance)
        del maps, variance
        found = {"ols": time_ours(stack, options.threads, "ols", {"tfce": OURS["tfce"]})}
        found |= {name: time_ours(stack, options.threads, name, MIXED) for name in options.mixed}
    elif options.part == "tfce":
        found = time_package(maps, mask, options.threads)
    else:
        found = time_nilearn(maps, mask, options.threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(json.dumps({"times": found, "peak_gib": peak}))


def choose_parts(options):
    names = ["ours"]
    if not options.skip_nilearn:
        names.append("nilearn")
    if importlib.util.find_spec("tfce"):
        names.append("tfce")
    else:
        print("tfce is skipped: it is not installed (pip install tfce)")
    return names


def tell_mixed(options):
    """Print what mixed models take, beside least squares of the same maps."""
    found = part("mixed", options)
    tfce = found["times"]["ols"]["tfce"][1]
    print(f"{MIXED_MAPS} maps, {options.threads} threads; CPU milliseconds per resample (over that of ols with TFCE)")
    print(f"{'ols':>16}  tfce {1e3 * tfce:7.2f}")
    for name in options.mixed:
        cells = [f"{label} {1e3 * cpu:7.2f} ({cpu / tfce:4.2f})" for label, (_, cpu) in found["times"][name].items()]
        print(f"{name:>16}  " + "  ".join(cells))
    print(f"peak {found['peak_gib']:.2f} GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-nilearn", action="store_true")
    parser.add_argument("--mixed", nargs="*", default=[])
    parser.add_argument("--part", choices=["ours", "nilearn", "tfce", "mixed"])
    options = parser.parse_args()
    if options.part:
        measure(options)
        return
    parts = {name: part(name, options) for name in choose_parts(options)}
    print(f"{options.maps} maps, {options.threads} threads; milliseconds per resample, wall (CPU)")
    for label in (*OURS, "(transform)"):
        cells = []
        for name, found in parts.items():
            if label in found["times"]:
                wall, cpu = found["times"][label]
                cells.append(f"{name} {1e3 * wall:9.2f} ({1e3 * cpu:9.2f})")
                if name in ("nilearn", "tfce"):
                    ours = parts["ours"]["times"].get(label, parts["ours"]["times"]["tfce"])
                    cells.append(f"{wall / ours[0]:6.1f} times ours")
        print(f"{label:>10}  " + "  ".join(cells))
    print("  ".join(f"{name}: peak {found['peak_gib']:.2f} GiB" for name, found in parts.items()))
    if options.mixed:
        tell_mixed(options)


if __name__ == "__main__":
    main()
