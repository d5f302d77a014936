"""Datasets of whole brains for the benchmarks: smooth noise with some signal, made from a seed.

Every map has FSL's 2 mm grid of the MNI space (91 x 109 x 91) and 228,483 voxels, in float32 and gzip, 0 outside
the brain, as FSL, nilearn and fMRIPrep users have them. Large datasets are links to a few distinct files: the reader
cannot tell, and the disk is spared.
"""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE = (91, 109, 91)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
VOXELS = 228_483
SPACE = "MNI152NLin6Asym"
COLUMNS = 9  # covariates of each subject: with the mean, ten contrasts


@functools.lru_cache(maxsize=2)
def brain(step: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Give a brain's mask and affine; at 2 mm it has exactly 228,483 voxels."""
    from nilearn.datasets import load_mni152_brain_mask
    from nilearn.image import resample_img

    affine = AFFINE.copy()
    affine[:3, :3] *= step / 2.0
    shape = tuple(int(np.ceil(length * 2.0 / step)) for length in SHAPE)
    loaded = load_mni152_brain_mask(resolution=2)
    image = resample_img(loaded, affine, shape, interpolation="continuous", force_resample=True, copy_header=True)
    inside = image.get_fdata() > 0.5
    if step == 2.0:
        deep = ndimage.distance_transform_edt(np.pad(inside | ndimage.binary_dilation(inside), 1))[1:-1, 1:-1, 1:-1]
        order = np.argsort(-deep.reshape(-1), kind="stable")[:VOXELS]
        inside = np.zeros(inside.size, dtype=bool)
        inside[order] = True
        inside = inside.reshape(shape)
    return inside, affine


def save(path: Path, volume: np.ndarray, affine: np.ndarray, level: int = 6) -> None:
    """Write a map as most software does: float32, zlib's level 6 (nibabel's own is 1)."""
    from nibabel.openers import Opener

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume.astype(np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 4)
    image.set_qform(affine, 4)
    with Opener(str(path), "wb", compresslevel=level) as file:
        file.write(image.to_bytes())


def draw(rng: np.random.Generator, inside: np.ndarray) -> dict[str, np.ndarray]:
    """Draw one effect with its variance and z, 0 outside the brain."""
    noise = ndimage.gaussian_filter(rng.standard_normal(inside.shape, dtype=np.float32), 1.5)
    noise /= noise[inside].std()
    spread = ndimage.gaussian_filter(rng.standard_normal(inside.shape, dtype=np.float32), 1.5)
    spread /= spread[inside].std()
    variance = np.exp(0.4 * spread) * 0.05
    x = np.linspace(-1, 1, inside.shape[0])[:, None, None] + np.zeros(inside.shape)
    effect = noise * np.sqrt(variance + 0.03) + 0.3 * (np.abs(x - 0.4) < 0.2)
    maps = {"effect": effect, "variance": variance, "z": effect / np.sqrt(variance)}
    return {kind: np.where(inside, volume, 0).astype(np.float32) for kind, volume in maps.items()}


def make_mask(path: Path) -> Path:
    """Write the brain's mask."""
    if not path.exists():
        inside, affine = brain()
        save(path, inside, affine)
    return path


def describe(root: Path, kind: str) -> None:
    """Write dataset_description.json."""
    root.mkdir(parents=True, exist_ok=True)
    text = {"Name": "benchmark", "BIDSVersion": "1.10.0", "DatasetType": kind, "GeneratedBy": [{"Name": "benchmark"}]}
    (root / "dataset_description.json").write_text(json.dumps(text))


def make_studies(root: Path, n: int = 21, step: float = 2.0) -> Path:
    """Make a collection of studies, each with effect, variance and z."""
    if (root / "done").exists():
        return root
    describe(root, "derivative")
    inside, affine = brain(step)
    rng = np.random.default_rng(1)
    rows = ["study_id\tsample_size"]
    for k in range(n):
        label = f"study-{k:02d}"
        rows.append(f"{label}\t20")
        for kind, volume in draw(rng, inside).items():
            save(root / label / f"{label}_space-{SPACE}_contrast-pain_stat-{kind}_statmap.nii.gz", volume, affine)
    (root / "studies.tsv").write_text("\n".join(rows) + "\n")
    (root / "done").touch()
    return root


def make_subjects(
    root: Path, n: int, distinct: int = 30, contrasts: Sequence[str] = ("a",), kinds: Sequence[str] = ("effect",)
) -> Path:
    """Make a dataset of subjects' maps: links to ``distinct`` drawn ones (each with its own kinds)."""
    if (root / "done").exists():
        return root
    describe(root, "derivative")
    pool = root.parent / "pool"
    inside, affine = brain()
    for k in range(min(n * len(contrasts), distinct)):
        if not all((pool / f"{k}_{kind}.nii.gz").exists() for kind in ("effect", "variance")):
            drawn = draw(np.random.default_rng(100 + k), inside)
            for kind in ("effect", "variance"):
                save(pool / f"{k}_{kind}.nii.gz", drawn[kind], affine)
    columns = np.random.default_rng(3).normal(size=(n, COLUMNS))
    rows = ["\t".join(["participant_id", *(f"x{c}" for c in range(1, COLUMNS + 1))])]
    for k in range(n):
        label = f"sub-{k:04d}"
        rows.append("\t".join([label, *(f"{value:.4f}" for value in columns[k])]))
        (root / label).mkdir()
        for c, contrast in enumerate(contrasts):
            for kind in kinds:
                name = f"{label}_task-x_space-{SPACE}_contrast-{contrast}_stat-{kind}_statmap.nii.gz"
                os.link(pool / f"{(k * len(contrasts) + c) % distinct}_{kind}.nii.gz", root / label / name)
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    (root / "done").touch()
    return root


def make_many(root: Path, n: int, distinct: int = 30) -> Path:
    """Make a large dataset with variances: each effect is another sum of two drawn ones, variances are links."""
    if (root / "done").exists():
        return root
    describe(root, "derivative")
    inside, affine = brain()
    drawn = [draw(np.random.default_rng(100 + k), inside) for k in range(distinct)]
    pairs = [
        (a, b, sign) for sign in (0.7, -0.7, 0.4, -0.4) for a in range(distinct) for b in range(distinct) if a != b
    ]
    for k, maps in enumerate(drawn):
        save(root / "sourcedata" / f"{k}.nii.gz", maps["variance"], affine)
    for k, (a, b, weight) in enumerate(pairs[:: max(1, len(pairs) // n)][:n]):
        label = f"sub-{k:04d}"
        stem = f"{label}_task-x_space-{SPACE}_contrast-a_stat"
        total = drawn[a]["effect"] + weight * drawn[b]["effect"]
        save(root / label / f"{stem}-effect_statmap.nii.gz", total, affine, level=1)
        os.link(root / "sourcedata" / f"{a}.nii.gz", root / label / f"{stem}-variance_statmap.nii.gz")
    (root / "done").touch()
    return root


def make_part(root: Path, whole: Path, n: int) -> Path:
    """Make the first ``n`` subjects of a dataset another dataset, of links."""
    if (root / "done").exists():
        return root
    describe(root, "derivative")
    for folder in sorted(whole.glob("sub-*"))[:n]:
        (root / folder.name).mkdir()
        for path in folder.iterdir():
            os.link(path, root / folder.name / path.name)
    (root / "done").touch()
    return root


def make_runs(root: Path, n: int) -> Path:
    """Make one subject with ``n`` runs."""
    if (root / "done").exists():
        return root
    describe(root, "derivative")
    inside, affine = brain()
    for run in range(1, n + 1):
        for kind, volume in draw(np.random.default_rng(200 + run), inside).items():
            if kind == "z":
                continue
            stem = f"sub-01_task-x_run-{run}_space-{SPACE}_contrast-a_stat-{kind}_statmap"
            save(root / "sub-01" / "func" / f"{stem}.nii.gz", volume, affine)
            (root / "sub-01" / "func" / f"{stem}.json").write_text(json.dumps({"DegreesOfFreedom": 180}))
    (root / "done").touch()
    return root
