"""One run of BOLD from files to maps, beside nilearn: CPU, wall time and memory.

    python benchmarks/bench_first_level.py [--voxels 235375] [--repeat 3] [--data FOLDER]

146 volumes at 2 mm, a design of 31 columns (2 conditions, 24 motion parameters, 4 cosines, a constant), 3 contrasts.
Both read the same BOLD and mask and write effect, variance, t, z and p of each contrast. nilearn is given the design
matrix that ibma-app wrote, and `noise_model="ar1"`. The claim is a fifth of its CPU time and half its memory: the
script ends with 1 where it does not hold.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from clock import Taken, best, run, say

HERE = Path(__file__).parent
PATH = {"PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": ""}  # modules compiled, as those of installed ones
DRIVER = "import sys; from ibma_app.cli import main; sys.exit(main())"
SHAPE, VOXELS, VOLUMES, TR = (97, 115, 97), 235_375, 146, 2.0
AFFINE = np.array([[2.0, 0, 0, -96], [0, 2, 0, -132], [0, 0, 2, -78], [0, 0, 0, 1]])
STEM, SPACE = "sub-01_task-x_run-1", "space-MNI152NLin2009cAsym"
CONTRASTS = ("d=go-stop", "mean=(go+stop)/2", "go=go")
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


def make_run(folder: Path, voxels: int) -> Path:
    """Make a raw dataset with fMRIPrep's output of one run."""
    raw, func = folder / "raw", folder / "raw" / "derivatives" / "fmriprep" / "sub-01" / "func"
    if (func / "done").exists():
        return raw
    func.mkdir(parents=True)
    (raw / "sub-01" / "func").mkdir(parents=True)
    for root, kind in ((raw, "raw"), (func.parents[1], "derivative")):
        description = {"Name": root.name, "BIDSVersion": "1.10.0", "DatasetType": kind}
        (root / "dataset_description.json").write_text(json.dumps(description))
    rng = np.random.default_rng(0)
    onsets = np.cumsum(rng.uniform(9, 13, 25)) + 3
    rows = [f"{onset:.2f}\t2\t{('go', 'stop')[index % 2]}" for index, onset in enumerate(onsets)]
    (raw / "sub-01" / "func" / f"{STEM}_events.tsv").write_text(
        "\n".join(["onset\tduration\ttrial_type", *rows]) + "\n"
    )
    columns: dict[str, np.ndarray] = {}
    for name in MOTION:
        values = rng.standard_normal(VOLUMES).cumsum() * 0.02
        change = np.append(np.nan, np.diff(values))
        columns |= {name: values, f"{name}_derivative1": change, f"{name}_power2": values**2}
        columns[f"{name}_derivative1_power2"] = change**2
    steps = (np.arange(VOLUMES) + 0.5) * np.pi / VOLUMES
    columns |= {f"cosine{index:02d}": np.cos((index + 1) * steps) for index in range(4)}
    lines = [
        "\t".join("n/a" if np.isnan(v) else repr(float(v)) for v in row) for row in zip(*columns.values(), strict=True)
    ]
    (func / f"{STEM}_desc-confounds_timeseries.tsv").write_text("\n".join(["\t".join(columns), *lines]) + "\n")
    grids = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    mask = np.zeros(SHAPE, dtype=bool)
    mask.flat[np.argsort((grids**2).sum(axis=0), axis=None)[:voxels]] = True
    nib.Nifti1Image(mask.astype(np.uint8), AFFINE).to_filename(func / f"{STEM}_{SPACE}_desc-brain_mask.nii.gz")
    bold = np.zeros((*SHAPE, VOLUMES), dtype=np.float32)
    noise = np.zeros(voxels)
    for volume in range(VOLUMES):
        noise = 0.3 * noise + rng.standard_normal(voxels)
        bold[mask, volume] = 1000 + 10 * noise
    image = nib.Nifti1Image(bold, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2, 2, 2, TR))
    path = func / f"{STEM}_{SPACE}_desc-preproc_bold.nii.gz"
    image.to_filename(path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(
        json.dumps({"RepetitionTime": TR, "StartTime": 1.0})
    )
    (func / "done").write_text("")
    return raw


def ours(raw: Path, out: Path, repeat: int) -> Taken:
    """Clock ibma-app into an empty folder, in one process."""
    taken = []
    for _ in range(repeat):
        shutil.rmtree(out, ignore_errors=True)
        words = ["run", "--contrasts", *CONTRASTS, "--no-report", "--nprocs", "1", "-q"]
        taken.append(run([sys.executable, "-c", DRIVER, str(raw), str(out), *words], PATH))
    least = min(taken, key=lambda one: one.cpu)
    return least._replace(wall=min(one.wall for one in taken), peak=max(one.peak for one in taken))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=VOXELS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--data", type=Path, help="keep the data here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.data or Path(temporary)
        raw = make_run(folder, given.voxels)
        out, peer = folder / "out", folder / "out_nilearn"
        mine = ours(raw, out, given.repeat)
        func = raw / "derivatives" / "fmriprep" / "sub-01" / "func"
        design = out / "sub-01" / "func" / f"{STEM}_{SPACE}_design.tsv"
        stem = func / f"{STEM}_{SPACE}"
        command = [sys.executable, str(HERE / "peer_first_level.py"), f"{stem}_desc-preproc_bold.nii.gz",
                   f"{stem}_desc-brain_mask.nii.gz", str(design), str(peer)]  # fmt: skip
        theirs = best(command, given.repeat)
        effect = out / "sub-01" / "func" / f"{STEM}_{SPACE}_contrast-d_stat-z_statmap.nii.gz"
        a, b = nib.load(effect).get_fdata(), nib.load(peer / "d_z_score.nii.gz").get_fdata()
        alike = np.corrcoef(a[a != 0], b[a != 0])[0, 1]
    say(f"{VOLUMES} volumes x {given.voxels:,} voxels, 31 columns, 3 contrasts\n")
    say("| | CPU s | wall s | MiB |\n|---|---|---|---|")
    say(f"| ibma-app | {mine.cpu:.1f} | {mine.wall:.1f} | {mine.peak:.0f} |")
    say(f"| nilearn | {theirs.cpu:.1f} | {theirs.wall:.1f} | {theirs.peak:.0f} |")
    say(f"\nIts CPU time / ours: {theirs.cpu / mine.cpu:.1f}; its memory / ours: {theirs.peak / mine.peak:.1f}; "
        f"correlation of z: {alike:.4f}")  # fmt: skip
    return int(theirs.cpu < 5 * mine.cpu or theirs.peak < 2 * mine.peak)


if __name__ == "__main__":
    sys.exit(main())
