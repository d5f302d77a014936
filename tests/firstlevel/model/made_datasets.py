"""Datasets made from a model itself: events with what the model names, confounds, and BOLD of a few voxels."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

N_VOLUMES, TR = 40, 2.0
CONFOUNDS = (*(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"), "cosine00")


def make_events(node):
    """Make the events of a run: a few of each level that the model names, and its other variables as numbers."""
    instructions = node.get("Transformations", {}).get("Instructions", [])
    named = [name for one in node.get("Contrasts", []) for name in one["ConditionList"] if name != 1]
    named += [name for name in node["Model"]["X"] if name != 1]
    factors, renamed, made = [], {}, set()
    for one in instructions:
        named += [name for key in ("Input", "Target") for name in one.get(key, [])]
        if one["Name"] == "Factor":
            factors += one["Input"]
        if one["Name"] in ("Copy", "Rename"):
            renamed |= dict(zip(one["Output"], one["Input"], strict=True))
        made |= set(one.get("Output", []))
    replaced = {key for one in instructions if one["Name"] == "Replace" for key in one["Replace"]}
    columns = {}
    for factor in factors:
        source = renamed.get(factor, factor)
        levels = {name.removeprefix(f"{factor}.") for name in named if name.startswith(f"{factor}.")} - {"*"}
        if source == factor:
            levels |= replaced
        columns.setdefault(source, set()).update(levels if factor != "rt_reg" else ())
    columns = {name: sorted(levels) or ["a", "b"] for name, levels in columns.items()}
    others = {
        name
        for name in named
        if "*" not in name and "." not in name and name not in made and name not in columns and name not in renamed
    } - set(CONFOUNDS)
    n_events = 2 * max(len(levels) for levels in columns.values())
    events = {
        "onset": [f"{1 + place * (N_VOLUMES * TR - 8) / n_events:.2f}" for place in range(n_events)],
        "duration": ["1.5"] * n_events,
    }
    events |= {name: [levels[place % len(levels)] for place in range(n_events)] for name, levels in columns.items()}
    rng = np.random.default_rng(1)
    return events | {name: [f"{value:.2f}" for value in rng.uniform(0.3, 1.2, n_events)] for name in sorted(others)}


def write_dataset(root: Path, document, *, subjects=1, runs=1):
    """Write a raw dataset and its fMRIPrep output for the first subjects and runs of a model's Input; return both."""
    raw, derived = root / "raw", root / "fmriprep"
    chosen = document["Input"]
    node = document["Nodes"][0]
    events = make_events(node)
    rng = np.random.default_rng(0)
    for folder, kind in ((raw, "raw"), (derived, "derivative")):
        folder.mkdir(parents=True)
        text = {"Name": "made", "BIDSVersion": "1.9.0", "DatasetType": kind, "GeneratedBy": [{"Name": "fMRIPrep"}]}
        (folder / "dataset_description.json").write_text(json.dumps(text), encoding="utf-8")
    sessions = chosen.get("session", [None])[:1]
    numbers = chosen.get("run", [None])[:runs]
    for subject, session, run in ((a, b, c) for a in chosen["subject"][:subjects] for b in sessions for c in numbers):
        folder = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []), "func")
        parts = [f"sub-{subject}", *([f"ses-{session}"] if session else []), f"task-{chosen['task'][0]}"]
        stem = "_".join([*parts, *([f"run-{run}"] if run else [])])
        for place in (raw, derived):
            (place / folder).mkdir(parents=True, exist_ok=True)
        write_tsv(raw / folder / f"{stem}_events.tsv", events)
        confounds = {name: [f"{value:.5f}" for value in rng.standard_normal(N_VOLUMES)] for name in CONFOUNDS}
        write_tsv(derived / folder / f"{stem}_desc-confounds_timeseries.tsv", confounds)
        image = nib.Nifti1Image(rng.normal(1000, 10, (2, 2, 2, N_VOLUMES)).astype(np.float32), np.diag([2, 2, 2, 1]))
        image.header.set_zooms((2, 2, 2, TR))
        image.header.set_xyzt_units("mm", "sec")
        bold = derived / folder / f"{stem}_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"
        image.to_filename(bold)
        sidecar = {"RepetitionTime": TR, "TaskName": chosen["task"][0], "StartTime": TR / 2}
        bold.with_name(bold.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar), encoding="utf-8")
    return raw, derived


def write_tsv(path: Path, columns):
    rows = ["\t".join(columns), *("\t".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
