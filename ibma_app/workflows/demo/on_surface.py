"""``ibma-demo --surface``: simulated runs on the cortex of fsaverage5 through both levels, and what they recover."""

import time
from dataclasses import replace
from pathlib import Path

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Surface
from ibma_app.images.elements.gifti import SIDES
from ibma_app.images.elements.known_meshes import PACKAGED, known_mesh
from ibma_app.workflows.command.terminal import progress
from ibma_app.workflows.demo.files import read_group, read_participants, write_subjects, write_truth
from ibma_app.workflows.demo.recovery import FOUND, Check, check_participants, check_subjects
from ibma_app.workflows.demo.run_demo import MIXED, SEED, Folders, conclude, plan_subjects, run_levels
from ibma_app.workflows.demo.simulate import Simulation, simulate_subjects
from ibma_app.workflows.demo.steps import prepare_folder, step
from ibma_app.workflows.options.table import Options

SPACE = "fsaverage5"
NAME = "surface"
STEPS = 4
TITLES = ("runs into subjects", "subjects into a group")


def run_surface_demo(
    output_dir: Path, *, nprocs: int | None = None, n_subjects: int = 12, size: int = PACKAGED, seed: int = SEED
) -> int:
    """Simulate runs on both hemispheres, run both levels, and print how well they recover the truth.

    Parameters
    ----------
    output_dir : Path
        A new or empty folder, or an earlier demonstration's, which is replaced.
    nprocs : int, optional
        Cores to use; None: all that are available.
    n_subjects : int
        At least 12.
    size : int
        Vertices of a hemisphere: those of fsaverage5, or of a coarser mesh.
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
    simulation = _make_data(folders, n_subjects, size, seed)
    code = run_levels(plan_levels(folders, nprocs), TITLES, STEPS)
    if code != 0:
        return code
    with step(STEPS, STEPS, "comparing what was found with what was put in"):
        checks = compare(folders, simulation)
    return conclude(folders, (NAME,), checks, time.perf_counter() - clock)


def make_cortex(size: int = PACKAGED) -> Elements:
    """Make both hemispheres of fsaverage5, or of a coarser mesh of its family, every vertex in the mask."""
    surfaces = tuple(Surface(name, size, mesh=known_mesh(SPACE, side, size)) for side, name in SIDES.items())
    return Elements.whole(surfaces, ".gii", tuple(SIDES))


def plan_levels(folders: Folders, nprocs: int | None) -> tuple[Options, Options]:
    """Make the options of the runs: runs into subjects, subjects into a group."""
    participant, group = plan_subjects(folders, NAME, nprocs)
    return participant, group


def _make_data(folders: Folders, n_subjects: int, size: int, seed: int) -> Simulation:
    """Simulate and write the dataset and its truth."""
    cortex = make_cortex(size)
    with step(1, STEPS, f"simulating {n_subjects} subjects with 2 runs each, {cortex.n_voxels} vertices"):
        simulation = simulate_subjects(cortex, n_subjects, seed, {"hemi": cortex.hemispheres[0], "space": SPACE})
        with progress(len(simulation.maps), "maps") as count:
            write_subjects(folders.data / NAME, simulation, count)
        write_truth(folders.data / "truth", {NAME: simulation.truth})
    return simulation


def compare(folders: Folders, simulation: Simulation) -> list[Check]:
    """Read the results and check them against the truth."""
    truth, results = simulation.truth, folders.results(NAME)
    name = f"task-faces_hemi-L_space-{SPACE}_contrast-facesGtHouses"
    checks = list(check_participants(truth, read_participants(results, name, truth)))
    group = results / "group"
    shared = read_group(group, name, MIXED, ("n", "dof", "tau2"), truth.grid)
    mean = read_group(group, f"{name}_test-mean", MIXED, ("effect", "variance", FOUND), truth.grid)
    age = read_group(group, f"{name}_test-age", MIXED, ("effect", "variance", FOUND), truth.grid)
    checks += check_subjects(truth, mean, age, shared)
    return [replace(check, what=truth.grid.speak(check.what)) for check in checks]
