"""A dataset of known truth, written as four kinds of software would, comes back in one unit."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import scipy.io

SHAPE = (4, 5, 3)
AFFINE = np.array([[-4.0, 0, 0, 6], [0, -4, 0, 8], [0, 0, 4, -4], [0, 0, 0, 1]])  # that of the AFNI header
DOF = 37
SPACE = "MNI152NLin6Asym"
FORMATS = ("spm", "fsl", "afni", "table")
HISTORY = (
    "[me@host: Mon Jan 1 10:00:00 2024] {AFNI_23.1.00:linux} 3dcalc -a run+tlrc -b mean+tlrc "
    "-expr 'min(200, a/b*100)*step(a)*step(b)' -prefix scaled\\n"
    "[me@host: Mon Jan 1 11:00:00 2024] 3dDeconvolve -input scaled+tlrc -polort 2 -num_stimts 2 "
    "-stim_times 1 a.txt 'BLOCK(20,1)' -stim_label 1 A -stim_times 2 b.txt 'BLOCK(20,1)' -stim_label 2 B "
    "-gltsym 'SYM: 0.5*A -0.5*B' -glt_label 1 AgtB -fout -tout -bucket stats"
)


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Effect in percent and its variance, by format: as many subjects, different noise."""
    rng = np.random.default_rng(5)
    common = rng.normal(0.5, 0.5, SHAPE)
    return {
        name: (common + 0.3 * rng.normal(size=SHAPE), (0.05 + 0.05 * rng.random(SHAPE)) * (i + 1))
        for i, name in enumerate(FORMATS)
    }


def _write_spm(maker: Any, folder: Path, effect: np.ndarray, variance: np.ndarray) -> Path:
    """Weights 1 and -1, blocks of height 0.8, a mean around 800."""
    make = maker("spm_folder")
    folder.mkdir()
    mean = 700 + 200 * np.random.default_rng(6).random(SHAPE)
    design = np.column_stack([make.boxcar(0), make.boxcar(2), np.ones(make.SCANS)])
    covariance, weights = np.linalg.inv(design.T @ design), np.array([1.0, -1.0, 0.0])
    factor = mean / (100 * make.HEIGHT)
    residual = variance * factor**2 / (weights @ covariance @ weights)
    images = {"con_0001": effect * factor, "ResMS": residual, "beta_0003": mean, "mask": np.ones(SHAPE)}
    for name, values in images.items():
        make.save_image(folder / f"{name}.nii", values, AFFINE)
    entry = {"name": "A > B", "STAT": "T", "c": weights[:, None], "eidf": 1.0,
             "Vcon": make.struct(fname="con_0001.nii"), "Vspm": make.struct(fname="spmT_0001.nii")}  # fmt: skip
    scipy.io.savemat(folder / "SPM.mat", {"SPM": make.make_struct(design, covariance, float(DOF), [entry], ".nii")})
    return folder


def _write_fsl(maker: Any, folder: Path, effect: np.ndarray, variance: np.ndarray) -> Path:
    """Weights 2 and -2, height 1.25, a mean around 10,000."""
    make = maker("feat_folder")
    mean = 9000 + 2000 * np.random.default_rng(7).random(SHAPE)
    factor = 2 * mean / (100 * make.HEIGHT)
    maps = {"A > B": (effect * factor, variance * factor**2)}
    return make.make_feat(folder, {"A > B": [2.0, -2.0]}, maps, mean=mean, dof=DOF, affine=AFFINE)


def _write_afni(maker: Any, folder: Path, effect: np.ndarray, variance: np.ndarray) -> Path:
    """Data scaled to 100, weights 0.5 and -0.5, BLOCK(20,1); a bucket has no variance, but t."""
    make = maker("afni_folder")
    folder.mkdir()
    t = effect / np.sqrt(variance)
    bricks = [("AgtB_GLT#0_Coef", None, 0.5 * effect, "f4", 0), ("AgtB_GLT#0_Tstat", (3, DOF), t, "f4", 0)]
    return make.write_head(folder, "stats+tlrc", bricks, history=HISTORY)


def _write_table(maker: Any, folder: Path, effect: np.ndarray, variance: np.ndarray) -> Path:
    """Effect and standard error, already in percent."""
    folder.mkdir()
    nib.Nifti1Image(effect.astype(np.float32), AFFINE).to_filename(folder / "beta.nii")
    nib.Nifti1Image(np.sqrt(variance).astype(np.float32), AFFINE).to_filename(folder / "se.nii.gz")
    lines = ["participant_id\tpath\tkind\tcontrast\tdof\tunits"]
    lines += [
        f"x\t{name}\t{kind}\tA > B\t{DOF}\tpercent" for name, kind in (("beta.nii", "effect"), ("se.nii.gz", "se"))
    ]
    (folder / "maps.tsv").write_text("\n".join(lines) + "\n")
    return folder / "maps.tsv"


@pytest.fixture(scope="module")
def imported(maker: Any, ibma_import: Any, truth: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("round")
    writers = {"spm": _write_spm, "fsl": _write_fsl, "afni": _write_afni, "table": _write_table}
    for name, write in writers.items():
        source = write(maker, root / name, *truth[name])
        words = ("--participant-label", name, "--space", SPACE)
        contrast = () if name != "afni" else ("--contrast", "AgtB=aGtB")
        ran = ibma_import(name, source, root / "maps", *words, *contrast)
        assert ran.code == 0, ran.stderr
    return root / "maps"


@pytest.mark.parametrize("name", FORMATS)
def test_percent_signal_change_is_equal_across_formats(imported: Path, truth: Any, name: str):
    stem = f"sub-{name}_space-{SPACE}_contrast-aGtB_stat-"
    for kind, expected in zip(("effect", "variance"), truth[name], strict=True):
        path = imported / f"sub-{name}" / "func" / f"{stem}{kind}_statmap.nii.gz"
        np.testing.assert_allclose(np.asarray(nib.load(path).dataobj), expected, rtol=1e-5)
        sidecar = json.loads(path.with_name(f"{stem}{kind}_statmap.json").read_text())
        assert sidecar["DegreesOfFreedom"] == DOF
        assert sidecar["Units"] == {"effect": "percent", "variance": "(percent)^2"}[kind]


def test_a_meta_analysis_over_the_formats_is_that_of_the_truth(
    imported: Path, truth: Any, cli: Any, describe_dataset: Any, write_statmap: Any, tmp_path: Path
):
    plain = describe_dataset(tmp_path / "plain")
    for name, maps in truth.items():
        for kind, values in zip(("effect", "variance"), maps, strict=True):
            where = {"sub": name, "space": SPACE, "contrast": "aGtB"}
            write_statmap(plain, kind, values, affine=AFFINE, metadata={"DegreesOfFreedom": DOF}, **where)
    for root, out in ((imported, "ours"), (plain, "reference")):
        ran = cli(
            root, tmp_path / out, "group", "--estimator", "reml", "--no-report", "--nprocs", "1", "--mask", "data"
        )
        assert ran.code == 0, ran.stderr
    for kind in ("effect", "variance", "z", "tau2"):
        name = f"space-{SPACE}_contrast-aGtB_desc-reml_stat-{kind}_statmap.nii.gz"
        ours, reference = (
            np.asarray(nib.load(tmp_path / out / "group" / name).dataobj) for out in ("ours", "reference")
        )
        # inputs are float32 (1e-7) and tau2 is a small difference of large numbers
        np.testing.assert_allclose(ours, reference, rtol=2e-5, atol=1e-6 * np.abs(reference).max())
