"""``ibma-demo``: a small dataset of known truth, both levels run on it, and how well they recover it."""

import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ibma_app.estimators import AUTO
from ibma_app.workflows.any_level import run_level
from ibma_app.workflows.command.terminal import progress
from ibma_app.workflows.demo.files import read_group, read_participants, write_studies, write_subjects, write_truth
from ibma_app.workflows.demo.recovery import FOUND, Check, check_participants, check_studies, check_subjects
from ibma_app.workflows.demo.simulate import SPACE, Simulation, make_brain, simulate_studies, simulate_subjects
from ibma_app.workflows.demo.steps import prepare_folder, print_checks, print_end, step
from ibma_app.workflows.options.table import Options

log = logging.getLogger(__name__)

SEED = 20
STEPS = 6
RESAMPLES = 500  # instead of 5000: a demonstration is waited for
TITLES = ("runs into subjects", "subjects into a group", "studies into a meta-analysis")
MIXED, POOLED = AUTO["effect and variance"], AUTO["z and sample size"]  # auto takes MIXED of the subjects, too


@dataclass(frozen=True)
class Folders:
    """Where the demonstration's parts lie."""

    root: Path

    @property
    def data(self) -> Path:
        """The simulated datasets, and the truth."""
        return self.root / "data"

    def results(self, name: str) -> Path:
        """The output folder of the dataset of this name."""
        return self.root / "results" / name


def run_demo(
    output_dir: Path,
    *,
    nprocs: int | None = None,
    voxel_mm: float = 4.0,
    n_subjects: int = 16,
    seed: int = SEED,
) -> int:
    """Simulate data, run both levels, and print how well they recover the truth.

    Parameters
    ----------
    output_dir : Path
        A new or empty folder, or an earlier demonstration's, which is replaced.
    nprocs : int, optional
        Cores to use; None: all that are available.
    voxel_mm : float
        Edge of a voxel.
    n_subjects : int
        At least 12.
    seed : int
        Same seed, same data.

    Returns
    -------
    int
        0 when every check holds; 1 when the recovery is wrong; a level's own
        exit code when it failed.

    Raises
    ------
    OutputError
        OUTPUT_DIR holds something else, or cannot be written.
    """
    clock = time.perf_counter()
    folders = Folders(output_dir)
    prepare_folder(folders.root, seed)
    subjects, studies = _make_data(folders, voxel_mm, n_subjects, seed)
    code = run_levels(_plan_levels(folders, nprocs), TITLES, STEPS)
    if code != 0:
        return code
    with step(STEPS, STEPS, "comparing what was found with what was put in"):
        checks = compare(folders, subjects, studies)
    return conclude(folders, ("subjects", "studies"), checks, time.perf_counter() - clock)


def run_levels(levels: Sequence[Options], titles: Sequence[str], of: int) -> int:
    """Run levels as the steps before the last one of ``of``; return 0, or the exit code of the first that failed."""
    for number, (options, title) in enumerate(zip(levels, titles, strict=True), start=of - len(titles)):
        with step(number, of, title, command_of(options)):
            code = run_level(options, shlex.split(command_of(options))[1:])
        if code != 0:
            return code
    return 0


def conclude(folders: Folders, names: Sequence[str], checks: list[Check], seconds: float) -> int:
    """Print the checks, and where pages and datasets of these names are; return 0 when every check holds, else 1."""
    print_checks(checks)
    reports = [folders.results(name) / "report.html" for name in names]
    print_end(folders.root, checks, seconds, reports, [folders.data / name for name in names])
    return 0 if all(check.ok for check in checks) else 1


def _make_data(folders: Folders, voxel_mm: float, n_subjects: int, seed: int) -> tuple[Simulation, Simulation]:
    """Simulate both datasets, and write them and their truth."""
    grid = make_brain(voxel_mm)
    with step(1, STEPS, f"simulating {n_subjects} subjects with 2 runs each, {grid.n_voxels} voxels"):
        subjects = simulate_subjects(grid, n_subjects, seed)
        with progress(len(subjects.maps), "maps") as count:
            write_subjects(folders.data / "subjects", subjects, count)
    studies = simulate_studies(grid, seed)
    with step(2, STEPS, f"simulating {len(studies.truth.units)} studies"):
        with progress(len(studies.maps), "maps") as count:
            write_studies(folders.data / "studies", studies, count)
        write_truth(folders.data / "truth", {"subjects": subjects.truth, "studies": studies.truth})
    return subjects, studies


def _plan_levels(folders: Folders, nprocs: int | None) -> tuple[Options, ...]:
    """Make the options of the runs: runs into subjects, subjects into a group, studies into a meta-analysis."""
    participant, group = plan_subjects(folders, "subjects", nprocs)
    studies = Options(
        folders.data / "studies",
        folders.results("studies"),
        "group",
        estimator=(MIXED, POOLED),
        nprocs=nprocs,
        quiet=True,
    )
    return participant, group, studies


def plan_subjects(folders: Folders, name: str, nprocs: int | None) -> tuple[Options, Options]:
    """Make the options of both levels of a dataset of subjects: runs into subjects, subjects into a group."""
    participant = Options(folders.data / name, folders.results(name), "participant", nprocs=nprocs, quiet=True)
    group = replace(
        participant,
        analysis_level="group",
        formula="1 + center(age)",
        test=("mean=intercept", "age=center(age)"),
        permutations=RESAMPLES,
    )
    return participant, group


def command_of(options: Options) -> str:
    """Write a level as the command line that runs it."""
    words = ["ibma-app", str(options.bids_dir), str(options.output_dir), options.analysis_level]
    if options.contrasts:
        words += ["--contrasts", *options.contrasts]
    if options.formula != "1":
        words += ["--formula", options.formula]
    if options.test:
        words += ["--test", *options.test]
    if options.estimator != ("auto",):
        words += ["--estimator", *options.estimator]
    if options.permutations == RESAMPLES:
        words += ["--permutations", str(RESAMPLES)]
    return shlex.join(words)


def compare(folders: Folders, subjects: Simulation, studies: Simulation) -> list[Check]:
    """Read the results and check them against both truths."""
    truth = subjects.truth
    results = folders.results("subjects")
    name = f"task-faces_space-{SPACE}_contrast-facesGtHouses"
    checks = list(check_participants(truth, read_participants(results, name, truth)))
    group = results / "group"
    shared = read_group(group, name, MIXED, ("n", "dof", "tau2"), truth.grid)
    mean = read_group(group, f"{name}_test-mean", MIXED, ("effect", "variance", FOUND), truth.grid)
    age = read_group(group, f"{name}_test-age", MIXED, ("effect", "variance", FOUND), truth.grid)
    checks += check_subjects(truth, mean, age, shared)
    group = folders.results("studies") / "group"
    name = f"space-{SPACE}_contrast-painGtWarm"
    kinds = ("effect", "variance", "dof", "tau2", "n", "pilower", "piupper", FOUND)
    mixed = read_group(group, name, MIXED, kinds, studies.truth.grid)
    pooled = read_group(group, name, POOLED, (FOUND,), studies.truth.grid)
    return [*checks, *check_studies(studies.truth, mixed, pooled)]
