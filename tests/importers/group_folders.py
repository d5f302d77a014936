"""Group results of one contrast, ``pain > rest``, as SPM, FSL, AFNI and NIDM-Results hold them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

SHAPE = (6, 5, 4)  # correlations of maps need 100 voxels
AFFINE = np.array([[-4.0, 0, 0, 6], [0, -4, 0, 8], [0, 0, 4, -4], [0, 0, 0, 1]])  # that of the AFNI header


class Truth(NamedTuple):
    """One study: mean effect of its subjects and its sampling variance, (X, Y, Z)."""

    effect: np.ndarray
    variance: np.ndarray
    n: int


def write_spm(maker: Any, folder: Path, truth: Truth) -> Path:
    """A one-sample test of SPM's second level: con, spmT and ResMS, no session."""
    make = maker("spm_folder")
    folder.mkdir()
    design = np.ones((truth.n, 1))
    images = {
        "con_0001": truth.effect,
        "ResMS": truth.variance * truth.n,
        "spmT_0001": truth.effect / np.sqrt(truth.variance),
        "mask": np.ones(SHAPE),
    }
    for name, values in images.items():
        make.save_image(folder / f"{name}.nii", values, AFFINE)
    entry = {"name": "pain > rest", "STAT": "T", "c": np.ones((1, 1)), "eidf": 1.0,
             "Vcon": make.struct(fname="con_0001.nii"), "Vspm": make.struct(fname="spmT_0001.nii")}  # fmt: skip
    content = make.make_struct(design, np.ones((1, 1)) / truth.n, truth.n - 1.0, [entry], ".nii")
    content[0, 0]["Sess"] = np.empty((0, 0))
    content[0, 0]["xX"][0, 0]["name"] = make.cells(["mean"])
    content[0, 0]["xX"][0, 0]["iB"] = np.empty((0, 0))
    scipy.io.savemat(folder / "SPM.mat", {"SPM": content})
    return folder


def write_fsl(maker: Any, folder: Path, truth: Truth) -> Path:
    """A .gfeat of FLAME 1 with one lower-level contrast, dof as a map."""
    make = maker("feat_folder")
    feat = folder / "pain.gfeat" / "cope1.feat"
    maps = {"mean": (truth.effect, truth.variance)}
    make.make_feat(feat, {"mean": [1.0]}, maps, heights=(1.0,), dof=None, affine=AFFINE, level=2, mixed_yn=2, code=4)
    (feat / "design.mat").write_text(make.vest({}, [1.0], np.ones((truth.n, 1)), "NumPoints"))
    (feat / "design.lev").write_text("Lower-level contrast 1 (pain > rest)\n")
    make.save_image(feat / "stats" / "tdof_t1.nii.gz", np.full(SHAPE, truth.n - 1.0), 4, AFFINE)
    return feat.parent


def write_afni(maker: Any, folder: Path, truth: Truth) -> Path:
    """What 3dttest++ writes of one set: mean and t."""
    make = maker("afni_folder")
    folder.mkdir()
    history = "[me@host: Mon Jan 1 10:00:00 2024] {AFNI_23.1.00:linux} 3dttest++ -setA pain a.nii b.nii -prefix out"
    t = truth.effect / np.sqrt(truth.variance)
    bricks = [("pain_mean", None, truth.effect, "f4", 0), ("pain_Tstat", (3, truth.n - 1), t, "f4", 0)]
    return make.write_head(folder, "ttest+tlrc", bricks, space="MNI", history=history)


def write_nidm(maker: Any, folder: Path, truth: Truth) -> Path:
    """A zipped pack: contrast, standard error and t."""
    make = maker("test_nidm")
    folder.mkdir()
    error = np.sqrt(truth.variance)
    maps = {"Contrast": truth.effect, "ContrastStandardError": error, "TStatistic": truth.effect / error}
    text = make.turtle(contrasts=("pain > rest",), groups=(truth.n,), dof=f"{truth.n - 1}.0")
    files = {f"{name}_001.nii.gz": make.image_bytes(values, AFFINE) for name, values in maps.items()}
    return Path(make.write_zip(folder / "pain.nidm.zip", {"nidm.ttl": text.encode(), **files}))
