"""Compile every kernel while the image is built.

The kernels land beside their source (``ibma_app/stats/__pycache__``), where a
container finds them under any uid and on a read-only file system. They are
compiled for the kind of CPU that IBMA_CPU_NAMES says (the Dockerfile runs this
once for each), so that they serve, with the same bits, on every machine that
the image runs on.

What runs is the command line, on small simulated data: runs of BOLD, every
estimator, every inference, t and F tests. A kernel that nothing here calls would be compiled
anew in every container; those are named at the end.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory

import ibma_app.stats
from ibma_app.cli import main
from ibma_app.estimators import ESTIMATORS, find_estimator
from ibma_app.images.mni_masks import mni_brain
from ibma_app.inference import INFERENCES, find_inference
from ibma_app.workflows.demo.bold_files import write_bold
from ibma_app.workflows.demo.files import write_studies, write_subjects
from ibma_app.workflows.demo.simulate import make_brain, simulate_studies, simulate_subjects
from ibma_app.workflows.demo.simulate_bold import simulate_bold

CLUSTERED = [name for name in ESTIMATORS if find_estimator(name).models_clusters]  # refuse a map of each unit
DEPENDENT = [name for name in ESTIMATORS if find_estimator(name).takes_dependence]
BY_GROUP = [name for name in ESTIMATORS if "tau2_by" in find_estimator(name).settings]
SAME_DATA = [name for name in ESTIMATORS if find_estimator(name).same_data]  # nothing there can be relabelled
DESIGNED = [name for name in ESTIMATORS if find_estimator(name).takes_designs and name not in CLUSTERED]
ONE_SAMPLE = [name for name in ESTIMATORS if name not in (*DESIGNED, *CLUSTERED, *SAME_DATA)]
DESIGN = ["--formula", "1 + center(age)", "--test", "mean=intercept", "any=intercept, center(age)"]
BETWEEN_RUNS = ["any=run", "mean=intercept"]
OF_ANY = [name for name in INFERENCES if not find_inference(name).needs_smoothness]
OF_VOXELS = [name for name in OF_ANY if not find_inference(name).score]
QUIET = ["--no-report", "-q"]
RESAMPLED = ["--permutations", "20", *QUIET]


def run(*words: object) -> None:
    """Run ibma-app in this process."""
    code = main([*map(str, words), "--nprocs", "1"])
    if code != 0:
        sys.exit(f"exit code {code}: ibma-app {' '.join(map(str, words))}")


def of_each(names: Sequence[str], setting: str, config: Path) -> Path:
    """Write a configuration that gives each of these estimators the same setting; return its path."""
    config.write_text("".join(f"[estimator.{name}]\n{setting}\n" for name in names), encoding="utf-8")
    return config


def run_bold(folder: Path) -> None:
    """Model runs, with t and F tests."""
    write_bold(folder / "bold", simulate_bold(make_brain(8.0), 2, 0), lambda: None)
    contrasts = ("difference=faces-houses", "any=faces, houses")
    run(folder / "bold", folder / "runs_of_bold", "run", "--contrasts", *contrasts, "-q")


def run_subjects(folder: Path) -> None:
    """Combine runs, then subjects: one sample, several maps of each, designs, other settings."""
    write_subjects(folder / "subjects", simulate_subjects(make_brain(8.0), 12, 0), lambda: None)
    config = folder / "settings.toml"
    config.write_text("[output]\ntau2_ci = true\n[inference]\ntail_fit = true\n", encoding="utf-8")
    run(folder / "subjects", folder / "out", "participant", *QUIET)
    group = (folder / "out", folder / "group", "group")
    run(*group, "--estimator", *ONE_SAMPLE, "--inference", *OF_ANY, *RESAMPLED, "--config-file", config)
    run(*group, "--estimator", *DESIGNED, "--inference", *INFERENCES, *RESAMPLED, "--config-file", config)
    run(*group, "--estimator", *SAME_DATA, "--inference", *OF_VOXELS, *QUIET)
    peaks_alone = ("--estimator", "ols", "stouffer", "stouffer-rfx", "--inference", "max-stat")
    run(*group, *peaks_alone, *RESAMPLED)

    runs = (folder / "subjects", folder / "runs", "group", "--formula", "1 + C(run)", "--test", *BETWEEN_RUNS)
    robust = ("--config-file", of_each(("ols", "multilevel"), 'errors = "sandwich"', folder / "robust.toml"))
    run(*runs, "--estimator", *CLUSTERED, "--inference", *OF_ANY, *RESAMPLED)
    run(*runs, "--estimator", "multilevel", "--inference", *OF_VOXELS, *QUIET, *robust)

    designed = (folder / "out", folder / "designed", "group", "--covariates", folder / "subjects" / "participants.tsv")
    run(*designed, *DESIGN, "--estimator", *DESIGNED, "--inference", *INFERENCES, *RESAMPLED)
    run(*designed, *DESIGN, "--estimator", "ols", "--inference", *INFERENCES, *RESAMPLED, *robust)
    by_group = ("--config-file", of_each(BY_GROUP, 'tau2_by = "group"', folder / "by_group.toml"))
    groups = ("--formula", "1 + C(group)", "--test", "groups=group")
    run(*designed, *groups, "--estimator", *BY_GROUP, "--inference", *OF_VOXELS, *QUIET, *by_group)


def run_studies(folder: Path) -> None:
    """Combine studies, which do not all cover the whole brain."""
    write_studies(folder / "studies", simulate_studies(make_brain(8.0), 0), lambda: None)
    studies = (folder / "studies", folder / "meta", "group")
    run(*studies, "--inference", "max-stat", *RESAMPLED)
    run(*studies, "--dependence", "same-data", "--estimator", *DEPENDENT, "--inference", *OF_VOXELS, *QUIET)
    partly = (*studies, "--min-coverage", "0.5", "--inference", "max-stat", *RESAMPLED)
    slope = ("--test", "age=center(mean_age)")
    run(*partly, "--estimator", "ols", "reml", "--formula", "1 + center(mean_age)", *slope)
    run(*partly, "--estimator", "reml", "--formula", "0 + center(mean_age)", *slope)


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
    run_bold(Path(scratch))
    run_subjects(Path(scratch))
    run_studies(Path(scratch))
    for resolution in (1, 2):
        mni_brain(resolution)
print("kernels that a container would have to compile:", ", ".join(kernels_left_over()) or "none")
