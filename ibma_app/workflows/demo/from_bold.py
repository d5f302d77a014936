"""``ibma-demo --from-bold``: simulated BOLD through all three levels, and how well they recover its truth."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ibma_app.workflows.command.terminal import progress
from ibma_app.workflows.demo.bold_files import TASK, write_bold
from ibma_app.workflows.demo.files import read_group, read_maps, read_participants, write_truth
from ibma_app.workflows.demo.recovery import FOUND, Check, Maps, check_mean, check_participants, check_runs
from ibma_app.workflows.demo.run_demo import MIXED, SEED, Folders, conclude, run_levels
from ibma_app.workflows.demo.simulate import SPACE, Truth, make_brain
from ibma_app.workflows.demo.simulate_bold import RHO, RUNS, SimulatedBold, simulate_bold
from ibma_app.workflows.demo.steps import prepare_folder, step
from ibma_app.workflows.options.table import Options

NAME = "bold"  # of the dataset and of its results
CONTRAST = "facesGtHouses"
STEPS = 5
TITLES = ("BOLD into maps of runs", "runs into subjects", "subjects into a group")


def run_bold_demo(
    output_dir: Path,
    *,
    nprocs: int | None = None,
    voxel_mm: float = 6.0,
    n_subjects: int = 8,
    seed: int = SEED,
) -> int:
    """Simulate BOLD, run the three levels, and print how well they recover the truth.

    Parameters
    ----------
    output_dir : Path
        A new or empty folder, or an earlier demonstration's, which is replaced.
    nprocs : int, optional
        Cores to use; None: all that are available.
    voxel_mm : float
        Edge of a voxel.
    n_subjects : int
        With two runs each.
    seed : int
        Same seed, same data.

    Returns
    -------
    int
        0 when every check holds; 1 when the recovery is wrong; a level's own exit code when it failed.

    Raises
    ------
    OutputError
        OUTPUT_DIR holds something else, or cannot be written.
    """
    clock = time.perf_counter()
    folders = Folders(output_dir)
    prepare_folder(folders.root, seed)
    simulation = _make_data(folders, voxel_mm, n_subjects, seed)
    code = run_levels(plan_levels(folders, nprocs), TITLES, STEPS)
    if code != 0:
        return code
    with step(STEPS, STEPS, "comparing what was found with what was put in"):
        checks = compare(folders, simulation)
    return conclude(folders, (NAME,), checks, time.perf_counter() - clock)


def _make_data(folders: Folders, voxel_mm: float, n_subjects: int, seed: int) -> SimulatedBold:
    """Simulate and write the datasets and the truth."""
    grid = make_brain(voxel_mm)
    simulation = simulate_bold(grid, n_subjects, seed)
    runs = n_subjects * len(RUNS)
    with step(1, STEPS, f"simulating BOLD: {n_subjects} subjects with {len(RUNS)} runs each, {grid.n_voxels} voxels"):
        with progress(runs, "simulating", "runs") as count:
            write_bold(folders.data / NAME, simulation, count)
        write_truth(folders.data / "truth", {NAME: simulation.truth})
    return simulation


def plan_levels(folders: Folders, nprocs: int | None) -> tuple[Options, ...]:
    """Make the options of the three levels."""
    run = Options(
        folders.data / NAME,
        folders.results(NAME),
        "run",
        contrasts=(f"{CONTRAST}=faces-houses",),
        nprocs=nprocs,
        quiet=True,
    )
    participant = replace(run, analysis_level="participant", contrasts=None)
    return run, participant, replace(participant, analysis_level="group")


def compare(folders: Folders, simulation: SimulatedBold) -> list[Check]:
    """Read the results of the three levels and check them against the truth."""
    truth, results = simulation.truth, folders.results(NAME)
    name = f"task-{TASK}_space-{SPACE}_contrast-{CONTRAST}"
    runs = list(_read_runs(results, truth))
    checks = list(check_runs(truth, runs, len(RUNS) * len(truth.units), RHO))
    participants = read_participants(results, name, truth)
    checks += check_participants(truth, participants)
    # the noise of runs is known by their maps alone, whose standard errors the checks above hold to the truth
    within = np.mean([maps["variance"] for maps in participants.values()], axis=0)
    truth = replace(truth, error=(truth.tau2 + within) / len(truth.units))
    kinds = ("effect", "variance", "n", "dof", "tau2", FOUND)
    group = read_group(results / "group", name, MIXED, kinds, truth.grid)
    return [*checks, *check_mean("subjects to group", truth, group, group, tau2_within=0.2)]


def _read_runs(results: Path, truth: Truth) -> Iterator[tuple[str, Maps]]:
    """Read the maps of each run that has them."""
    for label in truth.units:
        folder = results / f"sub-{label}" / "func"
        for run in RUNS:
            stem = f"sub-{label}_task-{TASK}_run-{run}_space-{SPACE}"
            sidecar = folder / f"{stem}_contrast-{CONTRAST}_stat-t_statmap.json"
            if not sidecar.is_file():
                continue
            dof = json.loads(sidecar.read_text(encoding="utf-8"))["DegreesOfFreedom"]
            pattern = f"{stem}_contrast-{CONTRAST}_stat-{{kind}}_statmap"
            maps = read_maps(folder, pattern, ("effect", "variance"), truth.grid)
            maps |= read_maps(folder, f"{stem}_stat-{{kind}}_statmap", ("rho",), truth.grid)
            yield label, {**maps, "dof": np.full(truth.grid.n_voxels, float(dof))}
