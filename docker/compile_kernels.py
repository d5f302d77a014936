"""Compile every kernel while the image is built.

The kernels land beside their source (``ibma_app/stats/__pycache__``), where a
container finds them under any uid and on a read-only file system. They are
compiled for the kind of CPU that IBMA_CPU_NAMES says (the Dockerfile runs this
once for each), so that they serve, with the same bits, on every machine that
the image runs on.

What runs is the command line, on small simulated data: every estimator, every
inference, t and F tests. A kernel that nothing here calls would be compiled
anew in every container; those are named at the end.
"""

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory

import ibma_app.stats
from ibma_app.cli import main
from ibma_app.estimators import ESTIMATORS, find_estimator
from ibma_app.images.mni_masks import mni_brain
from ibma_app.inference import INFERENCES
from ibma_app.workflows.demo.files import write_studies, write_subjects
from ibma_app.workflows.demo.simulate import make_brain, simulate_studies, simulate_subjects

DESIGNED = [name for name in ESTIMATORS if find_estimator(name).takes_designs]
ONE_SAMPLE = [name for name in ESTIMATORS if name not in DESIGNED]
DESIGN = ["--formula", "1 + center(age)", "--test", "mean=intercept", "any=intercept, center(age)"]
RANDOM_FIELDS = ("rft-voxel", "rft-cluster")
RESAMPLED = ["--permutations", "20", "--no-report", "-q"]


def run(*words: object) -> None:
    """Run ibma-app in this process."""
    code = main([*map(str, words), "--nprocs", "1"])
    if code != 0:
        sys.exit(f"exit code {code}: ibma-app {' '.join(map(str, words))}")


def run_everything(folder: Path) -> None:
    """Run both levels, with every method."""
    brain = make_brain(8.0)
    write_subjects(folder / "subjects", simulate_subjects(brain, 12, 0), lambda: None)
    write_studies(folder / "studies", simulate_studies(brain, 0), lambda: None)
    config = folder / "settings.toml"
    config.write_text("[output]\ntau2_ci = true\n[inference]\ntail_fit = true\n", encoding="utf-8")
    without_fields = [name for name in INFERENCES if name not in RANDOM_FIELDS]
    run(folder / "subjects", folder / "out", "participant", "--no-report", "-q")
    group = (folder / "out", folder / "group", "group", "--config-file", config)
    run(*group, "--estimator", *ONE_SAMPLE, "--inference", *without_fields, *RESAMPLED)
    run(*group, "--estimator", *DESIGNED, "--inference", *INFERENCES, *RESAMPLED)
    designed = (folder / "out", folder / "designed", "group", "--covariates", folder / "subjects" / "participants.tsv")
    run(*designed, *DESIGN, "--estimator", *DESIGNED, "--inference", *INFERENCES, *RESAMPLED)
    robust = folder / "robust.toml"
    robust.write_text('[estimator.ols]\nerrors = "sandwich"\n', encoding="utf-8")
    run(*designed, *DESIGN, "--estimator", "ols", "--inference", *INFERENCES, *RESAMPLED, "--config-file", robust)
    # peaks alone take a road of their own
    run(*group[:2], "group", "--estimator", "ols", "stouffer-rfx", "--inference", "max-stat", *RESAMPLED)
    run(folder / "studies", folder / "meta", "group", "--inference", "max-stat", *RESAMPLED)
    for resolution in (1, 2):
        mni_brain(resolution)


def kernels_left_over() -> list[str]:
    """List the kernels of ``stats`` that are not on disk, for any kind of CPU."""
    left = []
    for module in iter_modules(ibma_app.stats.__path__, "ibma_app.stats."):
        for name, item in vars(import_module(module.name)).items():
            if not hasattr(item, "py_func") or item.py_func.__module__ != module.name:
                continue
            if item._cache.cache_path is None:  # compiled into kernels
                continue
            stem = f"{module.name.rpartition('.')[2]}.{name}-"
            if not any(Path(item._cache.cache_path).glob(f"{stem}*.nbi")):
                left.append(f"{module.name}.{name}")
    return left


with TemporaryDirectory() as scratch:
    run_everything(Path(scratch))
print("kernels that a container would have to compile:", ", ".join(kernels_left_over()) or "none")
