"""Files of the demonstration: two BIDS derivative datasets are written, results are read."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app import __version__
from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.errors import InputError
from ibma_app.core.labels import camel_case
from ibma_app.dataset.description import BIDS_VERSION, IGNORED
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.dataset.write import save_json, save_statmap, save_text, save_tsv
from ibma_app.images.elements.formats import files_of, read_map
from ibma_app.inference import AUTO as AUTO_INFERENCE
from ibma_app.workflows.demo.recovery import FOUND, Maps
from ibma_app.workflows.demo.simulate import SimulatedMap, Simulation, Truth

Floats = NDArray[np.float64]

COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "participant_id": {"Description": "Simulated participant"},
    "age": {"Description": "Age; the effect in the left frontal region grows with it", "Units": "years"},
    "group": {
        "Description": "Group; it has no effect",
        "Levels": {"control": "Every other participant", "patient": "The others"},
    },
    "study_id": {"Description": "Simulated study"},
    "sample_size": {"Description": "Number of participants of the study"},
    "mean_age": {"Description": "Mean age of the study's participants; it has no effect", "Units": "years"},
}

README = """# {name}

Statistic maps simulated by ibma-demo of ibma-app {version}: no person was measured. They are what
first-level software (or other studies) would share: for each {unit} an effect map in percent signal change
and its sampling variance, with degrees of freedom in the sidecars. The truth that was put in lies beside this
dataset, in `truth/`.

{story}
"""

STORY_OF_SUBJECTS = """Two regions of the ventral temporal cortex are active and one of the medial parietal
cortex is deactivated. In one left frontal region the effect grows with age. Persons differ (tau2), runs
differ in noise, and the third person's second run does not cover the lower part of the brain."""

STORY_OF_STUDIES = """Both insulae and the anterior midcingulate cortex are active, a medial frontal region
is deactivated. In a right parietal region studies disagree: on average there is no effect, in each of them
there is one. The studies have 12 to 64 participants; four of them do not cover the whole brain, and one
shares t instead of the variance."""


def write_subjects(folder: Path, simulation: Simulation, on_map: Callable[[], None]) -> None:
    """Write the first-level dataset: maps of runs below ``sub-<label>/func``, participants.tsv."""
    with open_output(folder) as output:
        _write_dataset(output, "Simulated runs of subjects", "run", STORY_OF_SUBJECTS)
        _write_table(output, "participants", simulation)
        for one in simulation.maps:
            _write_map(output, Path(f"sub-{one.entities['sub']}") / "func", one, simulation.truth.grid)
            on_map()


def write_studies(folder: Path, simulation: Simulation, on_map: Callable[[], None]) -> None:
    """Write the collection of studies: maps below ``study-<label>``, studies.tsv."""
    with open_output(folder) as output:
        _write_dataset(output, "Simulated maps of studies", "study", STORY_OF_STUDIES)
        _write_table(output, "studies", simulation)
        for one in simulation.maps:
            _write_map(output, Path(f"study-{one.entities['study']}"), one, simulation.truth.grid)
            on_map()


def write_truth(folder: Path, truths: Mapping[str, Truth]) -> None:
    """Write the truth as maps, to compare with the results: ``<collection>_<quantity>``, of the shape's extension."""
    with open_output(folder) as output:
        for name, truth in truths.items():
            quantities = {"effect": truth.effect, "tau2": truth.tau2, "slope": truth.slope}
            for quantity, values in quantities.items():
                if values is not None:
                    sides = truth.grid.hemispheres[:1]
                    stem = "_".join([name, *(f"hemi-{side}" for side in sides), quantity])
                    save_statmap(output, f"{stem}{truth.grid.extension}", values, truth.grid)


def read_maps(folder: Path, pattern: str, kinds: Iterable[str], grid: Shape) -> dict[str, Floats]:
    """Read result maps into the simulated brain.

    Parameters
    ----------
    folder : Path
        Where the maps lie.
    pattern : str
        File name with ``{kind}`` in the place of each kind, without what files of the shape end in.
    kinds : iterable of str
        Of `pattern`.
    grid : Shape
        Of the simulation.

    Returns
    -------
    dict
        Kind -> (V,).

    Raises
    ------
    InputError
        A map is missing, or lies on another grid.
    """
    maps = {}
    for kind in kinds:
        path = folder / f"{pattern.format(kind=kind)}{grid.extension}"
        found = read_map(files_of(path, grid))
        if not grid.matches(found.shape):
            raise InputError(f"{path} does not lie on the demonstration's {grid.noun}. Run ibma-demo again.")
        maps[kind] = grid.to_vector(found.data).astype(np.float64)
    return maps


def read_participants(results: Path, name: str, truth: Truth) -> dict[str, Maps]:
    """Read each subject's maps; dof from the sidecar, or from a map where they differ by voxel."""
    found: dict[str, Maps] = {}
    grid = truth.grid
    for label in truth.units:
        folder = results / f"sub-{label}" / "func"
        pattern = f"sub-{label}_{name}_stat-{{kind}}_statmap"
        sidecar = folder / f"{pattern.format(kind='t')}.json"
        dof = json.loads(sidecar.read_text(encoding="utf-8"))["DegreesOfFreedom"]
        kinds = ("effect", "variance", "dof") if dof == "voxelwise" else ("effect", "variance")
        maps = read_maps(folder, pattern, kinds, grid)
        found[label] = maps if "dof" in maps else {**maps, "dof": 0.0 * maps["effect"] + float(dof)}
    return found


def read_group(group: Path, name: str, estimator: str, kinds: tuple[str, ...], grid: Shape) -> Maps:
    """Read maps of a group analysis; ``found`` is the mask of what the first inference of ``auto`` finds."""
    stem = f"{name}_desc-{camel_case(estimator)}"
    statmaps = tuple(kind for kind in kinds if kind != FOUND)
    maps = read_maps(group, f"{stem}_stat-{{kind}}_statmap", statmaps, grid)
    if FOUND in kinds:
        mask = f"corr-{camel_case(AUTO_INFERENCE[0])}"
        maps[FOUND] = read_maps(group, f"{stem}_{{kind}}_mask", (mask,), grid)[mask]
    return maps


def _write_dataset(output: Output, name: str, unit: str, story: str) -> None:
    simulated = {"Name": "ibma-demo", "Version": __version__, "Description": "Simulated, of known truth"}
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "CC0-1.0",
        "Authors": ["ibma-demo", "The ibma-app developers"],
        "GeneratedBy": [simulated],
    }
    save_json(output, "dataset_description.json", description)
    save_text(output, "README.md", README.format(name=name, version=__version__, unit=unit, story=story))
    save_text(output, ".bidsignore", "\n".join(IGNORED))


def _write_table(output: Output, name: str, simulation: Simulation) -> None:
    """Write participants.tsv or studies.tsv, and the .json that explains its columns."""
    columns = list(simulation.table)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*simulation.table.values(), strict=True)]
    save_tsv(output, f"{name}.tsv", columns, rows)
    save_json(output, f"{name}.json", {column: COLUMNS[column] for column in columns})


def _write_map(output: Output, folder: Path, one: SimulatedMap, grid: Shape) -> None:
    entities = {**one.entities, "stat": one.kind}
    name = folder / output_name(entities, "statmap", grid.extension)
    save_statmap(output, name, one.values, grid)
    for path in files_of(name, grid):
        save_json(output, path.with_name(path.name.removesuffix(grid.extension) + ".json"), one.metadata)
