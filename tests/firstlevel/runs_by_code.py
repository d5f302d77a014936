"""Tables of runs as fMRIPrep and BIDS have them, small and seeded."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


def events_text(n: int = 12, gap: float = 14.0, conditions: tuple[str, ...] = ("go", "stop"), seed: int = 0) -> str:
    """Events of alternating conditions, jittered."""
    rng = np.random.default_rng(seed)
    lines = ["onset\tduration\ttrial_type"]
    for index in range(n):
        onset = 4 + gap * index + rng.uniform(0, 4)
        lines.append(f"{onset:.3f}\t{rng.uniform(0.5, 2):.3f}\t{conditions[index % len(conditions)]}")
    return "\n".join(lines) + "\n"


def confounds_columns(n_volumes: int, seed: int = 0, cosines: int = 3) -> dict[str, np.ndarray]:
    """The columns of fMRIPrep's confounds that strategies use; derivatives have no first value."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for name in (*MOTION, "csf", "white_matter", "global_signal"):
        values = rng.standard_normal(n_volumes).cumsum() * 0.02
        change = np.append(np.nan, np.diff(values))
        columns |= {name: values, f"{name}_derivative1": change, f"{name}_power2": values**2}
        columns[f"{name}_derivative1_power2"] = change**2
    columns["framewise_displacement"] = np.append(np.nan, rng.gamma(2, 0.05, n_volumes - 1))
    columns["std_dvars"] = np.append(np.nan, rng.gamma(20, 0.05, n_volumes - 1))
    steps = (np.arange(n_volumes) + 0.5) * np.pi / n_volumes
    for index in range(cosines):
        columns[f"cosine{index:02d}"] = np.sqrt(2 / n_volumes) * np.cos((index + 1) * steps)
    for index in range(6):
        columns[f"a_comp_cor_{index:02d}"] = rng.standard_normal(n_volumes)
    return columns


def write_confounds(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """Write a confounds table as fMRIPrep does, its JSON beside it."""
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join("n/a" if np.isnan(value) else repr(float(value)) for value in row) for row in rows]
    path.write_text("\n".join(["\t".join(columns), *lines]) + "\n")
    masks = {f"a_comp_cor_{index:02d}": {"Mask": "combined" if index < 4 else "CSF"} for index in range(6)}
    path.with_suffix(".json").write_text(json.dumps(masks))
    return path


SHAPE, TR = (6, 7, 5), 2.0
AFFINE = np.array([[-4.0, 0, 0, 12], [0, 4.0, 0, -14], [0, 0, 4.0, -8], [0, 0, 0, 1]])


def describe(root: Path, kind: str, **more) -> Path:
    """Write dataset_description.json."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": root.name, "BIDSVersion": "1.10.0", "DatasetType": kind, **more}
    (root / "dataset_description.json").write_text(json.dumps(content))
    return root


def write_bold(path: Path, series: np.ndarray, tr: float = TR, dtype=np.float32, affine=AFFINE) -> Path:
    """Write a BOLD image whose header states its TR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(series.astype(np.float32), affine)
    image.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((4, 4, 4, tr))
    image.to_filename(path)
    return path


def write_run(
    raw: Path,
    fmriprep: Path,
    sub: str = "01",
    *,
    ses: str | None = None,
    run: str | None = "1",
    task: str = "x",
    space: str | None = "MNI152NLin2009cAsym",
    n_volumes: int = 90,
    seed: int = 0,
    text: str | None = None,
    effect: float = 0.0,
    extra: str = "",
    suffix: str = "timeseries",
) -> Path:
    """Write a run of noise (and an effect of the first condition, in percent) as fMRIPrep lays it out; its BOLD."""
    rng = np.random.default_rng([seed, int(sub)])
    where = f"sub-{sub}" + (f"/ses-{ses}" if ses else "") + "/func"
    stem = f"sub-{sub}" + (f"_ses-{ses}" if ses else "") + f"_task-{task}" + (f"_run-{run}" if run else "")
    text = events_text(seed=seed) if text is None else text
    (raw / where).mkdir(parents=True, exist_ok=True)
    (fmriprep / where).mkdir(parents=True, exist_ok=True)
    if text:
        (raw / where / f"{stem}_events.tsv").write_text(text)
    series = 1000 + 10 * rng.standard_normal((*SHAPE, n_volumes))
    if effect:
        series *= 1 + effect / 100 * response(text, n_volumes)
    image = f"{stem}{extra}" + (f"_space-{space}" if space else "")
    bold = write_bold(fmriprep / where / f"{image}_desc-preproc_bold.nii.gz", series)
    sidecar = {"RepetitionTime": TR, "StartTime": 0.97, "SliceTimingCorrected": True, "TaskName": task}
    bold.with_name(bold.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    mask = np.ones(SHAPE, np.uint8)
    mask[0] = 0
    nib.Nifti1Image(mask, AFFINE).to_filename(fmriprep / where / f"{image}_desc-brain_mask.nii.gz")
    columns = confounds_columns(n_volumes, seed)
    write_confounds(fmriprep / where / f"{stem}_desc-confounds_{suffix}.tsv", columns)
    return bold


def response(text: str, n_volumes: int) -> np.ndarray:
    """The response to the first condition of an events text, of height 1 for an event alone."""
    from nilearn.glm.first_level import compute_regressor

    rows = [line.split("\t") for line in text.strip().split("\n")[1:]]
    first = sorted({row[2] for row in rows})[0]
    events = np.array([[float(row[0]), float(row[1]), 1.0] for row in rows if row[2] == first]).T
    times = 0.97 + TR * np.arange(n_volumes)
    values = compute_regressor(events, "spm", times)[0][:, 0]
    alone = np.array([[10.0], [np.median(events[1])], [1.0]])
    fine = [compute_regressor(alone, "spm", shift + TR * np.arange(30))[0][:, 0] for shift in np.arange(0, TR, 0.2)]
    return values / (np.max(fine) - np.min(fine))


def make_study(folder: Path, subjects: tuple[str, ...] = ("01",), runs: tuple[str, ...] = ("1", "2"), **more) -> Path:
    """Make a raw dataset with fMRIPrep's output in its derivatives."""
    raw = describe(folder / "raw", "raw")
    fmriprep = describe(raw / "derivatives" / "fmriprep", "derivative", GeneratedBy=[{"Name": "fMRIPrep"}])
    for sub in subjects:
        for number, run in enumerate(runs):
            write_run(raw, fmriprep, sub, run=run, seed=number, **more)
    return raw
