"""Files of the demonstration from BOLD: a raw dataset with its events, and derivatives laid out as fMRIPrep's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ibma_app import __version__
from ibma_app.core.anatomy.elements import require_grid
from ibma_app.dataset.description import BIDS_VERSION
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.dataset.write import save_json, save_series, save_statmap, save_text, save_tsv
from ibma_app.workflows.demo.simulate import SPACE
from ibma_app.workflows.demo.simulate_bold import DURATION, START, TR, VOLUMES, SimulatedBold, SimulatedRun

TASK = "faces"
PREPROCESSED = Path("derivatives") / "fmriprep"  # below the raw dataset
AT_ONCE = 16  # volumes that are written together

README = """# {name}

Simulated by ibma-demo of ibma-app {version}: no person was measured. Each person sees faces and houses in two runs.
Two regions of the ventral temporal cortex respond more to faces and one of the medial parietal cortex more to houses;
the back of the brain responds to both alike. Persons differ (tau2). The BOLD has noise that is smooth in space and
autocorrelated in time, slow drifts and what the head's motion leaves. {part} The truth that was put in lies beside
this dataset, in `truth/`.
"""
EVENTS = "The raw dataset holds the events alone; the BOLD lies in its derivatives."
BOLD = "The files have the names and the columns that fMRIPrep gives them."


def write_bold(folder: Path, simulation: SimulatedBold, on_run: Callable[[], None]) -> None:
    """Write both datasets, a run in memory at a time.

    Parameters
    ----------
    folder : Path
        Of the raw dataset.
    simulation : SimulatedBold
    on_run : callable
        Called after each run.
    """
    with open_output(folder) as raw, open_output(folder / PREPROCESSED) as derivatives:
        _write_dataset(raw, "Simulated task", "raw", EVENTS)
        _write_dataset(derivatives, "Simulated preprocessed BOLD", "derivative", BOLD)
        save_text(derivatives, ".bidsignore", "*_timeseries.*")  # as fMRIPrep: no BIDS release defines them
        people = [{"participant_id": f"sub-{label}"} for label in simulation.labels]
        save_tsv(raw, "participants.tsv", ["participant_id"], people)
        for run in simulation.runs():
            _write_events(raw, run)
            _write_preprocessed(derivatives, simulation, run)
            on_run()


def _write_dataset(output: Output, name: str, kind: str, part: str) -> None:
    simulated = {"Name": "ibma-demo", "Version": __version__, "Description": "Simulated, of known truth"}
    description: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": kind,
        "License": "CC0-1.0",
        "Authors": ["ibma-demo", "The ibma-app developers"],
        "GeneratedBy": [simulated],
    }
    save_json(output, "dataset_description.json", description)
    save_text(output, "README.md", README.format(name=name, version=__version__, part=part))


def _write_events(output: Output, run: SimulatedRun) -> None:
    """Write the events of a run in order of time."""
    every = sorted((float(onset), name) for name, onsets in run.events.items() for onset in onsets)
    rows = [{"onset": onset, "duration": DURATION, "trial_type": kind} for onset, kind in every]
    name = Path(f"sub-{run.subject}") / "func" / f"{_stem(run)}_events.tsv"
    save_tsv(output, name, ["onset", "duration", "trial_type"], rows)
    levels = {"faces": "A face is shown", "houses": "A house is shown"}
    save_json(output, name.with_suffix(".json"), {"trial_type": {"Description": "What is shown", "Levels": levels}})


def _write_preprocessed(output: Output, simulation: SimulatedBold, run: SimulatedRun) -> None:
    """Write BOLD, mask and confounds of a run."""
    folder = Path(f"sub-{run.subject}") / "func"
    grid = require_grid(simulation.truth.grid, "Simulated BOLD")
    stem = f"{_stem(run)}_space-{SPACE}_desc"
    blocks = (run.series[:, start : start + AT_ONCE] for start in range(0, VOLUMES, AT_ONCE))
    save_series(output, folder / f"{stem}-preproc_bold.nii.gz", blocks, grid, VOLUMES, TR, np.int16)
    timing = {"RepetitionTime": TR, "StartTime": START, "SliceTimingCorrected": True}
    common = {"SkullStripped": True, "TaskName": TASK}
    save_json(output, folder / f"{stem}-preproc_bold.json", {**timing, **common})
    inside = np.ones(grid.n_voxels, dtype=np.uint8)
    save_statmap(output, folder / f"{stem}-brain_mask.nii.gz", inside, grid, dtype=np.uint8)
    save_json(output, folder / f"{stem}-brain_mask.json", {"Type": "Brain", "RawSources": []})
    name = folder / f"{_stem(run)}_desc-confounds_timeseries.tsv"
    columns = list(run.confounds)
    rows = [dict(zip(columns, map(float, row), strict=True)) for row in zip(*run.confounds.values(), strict=True)]
    save_tsv(output, name, columns, rows)
    save_json(output, name.with_suffix(".json"), {name: {"Method": "Simulated"} for name in columns})


def _stem(run: SimulatedRun) -> str:
    return f"sub-{run.subject}_task-{TASK}_run-{run.run}"
