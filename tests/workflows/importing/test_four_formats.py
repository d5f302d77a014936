"""Studies that come as SPM, FSL, AFNI and NIDM-Results make one dataset, and its meta-analysis is that of the truth."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import scipy.io

SHAPE = (4, 5, 3)
AFFINE = np.array([[-4.0, 0, 0, 6], [0, -4, 0, 8], [0, 0, 4, -4], [0, 0, 0, 1]])  # that of the AFNI header
SPACE = "MNI152NLin6Asym"
SIZES = {"spm": 19, "fsl": 24, "afni": 16, "nidm": 31}
STEM = f"space-{SPACE}_contrast-pain"


class Truth(NamedTuple):
    """One study: mean effect of its subjects and its sampling variance, (X, Y, Z)."""

    effect: np.ndarray
    variance: np.ndarray
    n: int


@pytest.fixture(scope="module")
def truth() -> dict[str, Truth]:
    rng = np.random.default_rng(8)
    common = rng.normal(0.4, 0.4, SHAPE)
    found = {}
    for name, n in SIZES.items():
        variance = (0.05 + 0.05 * rng.random(SHAPE)) * 20 / n
        effect = common + rng.normal(0.0, np.sqrt(0.04 + variance))
        found[name] = Truth(effect, variance, n)
    return found


def _write_spm(maker: Any, folder: Path, truth: Truth) -> Path:
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


def _write_fsl(maker: Any, folder: Path, truth: Truth) -> Path:
    """A .gfeat of FLAME 1 with one lower-level contrast, dof as a map."""
    make = maker("feat_folder")
    feat = folder / "pain.gfeat" / "cope1.feat"
    maps = {"mean": (truth.effect, truth.variance)}
    make.make_feat(feat, {"mean": [1.0]}, maps, heights=(1.0,), dof=None, affine=AFFINE, level=2, mixed_yn=2, code=4)
    (feat / "design.mat").write_text(make.vest({}, [1.0], np.ones((truth.n, 1)), "NumPoints"))
    (feat / "design.lev").write_text("Lower-level contrast 1 (pain > rest)\n")
    make.save_image(feat / "stats" / "tdof_t1.nii.gz", np.full(SHAPE, truth.n - 1.0), 4, AFFINE)
    return feat.parent


def _write_afni(maker: Any, folder: Path, truth: Truth) -> Path:
    """What 3dttest++ writes of one set: mean and t."""
    make = maker("afni_folder")
    folder.mkdir()
    history = "[me@host: Mon Jan 1 10:00:00 2024] {AFNI_23.1.00:linux} 3dttest++ -setA pain a.nii b.nii -prefix out"
    t = truth.effect / np.sqrt(truth.variance)
    bricks = [("pain_mean", None, truth.effect, "f4", 0), ("pain_Tstat", (3, truth.n - 1), t, "f4", 0)]
    return make.write_head(folder, "ttest+tlrc", bricks, space="MNI", history=history)


def _write_nidm(maker: Any, folder: Path, truth: Truth) -> Path:
    """A zipped pack: contrast, standard error and t."""
    make = maker("test_nidm")
    folder.mkdir()
    error = np.sqrt(truth.variance)
    maps = {"Contrast": truth.effect, "ContrastStandardError": error, "TStatistic": truth.effect / error}
    text = make.turtle(contrasts=("pain > rest",), groups=(truth.n,), dof=f"{truth.n - 1}.0")
    files = {f"{name}_001.nii.gz": make.image_bytes(values, AFFINE) for name, values in maps.items()}
    return Path(make.write_zip(folder / "pain.nidm.zip", {"nidm.ttl": text.encode(), **files}))


@pytest.fixture(scope="module")
def imported(maker: Any, ibma_import: Any, truth: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four")
    writers = {"spm": _write_spm, "fsl": _write_fsl, "afni": _write_afni, "nidm": _write_nidm}
    for name, write in writers.items():
        source = write(maker, root / name, truth[name])
        contrast = "pain" if name == "afni" else "pain > rest=pain"
        words = (name, source, root / "maps", "--study-label", f"{name}19", "--space", SPACE, "--contrast", contrast)
        ran = ibma_import(*words)
        assert ran.code == 0, ran.stderr
    return root / "maps"


@pytest.fixture(scope="module")
def plain(describe_dataset: Any, write_statmap: Any, truth: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth as a dataset of its own, written without any of our importers."""
    root = describe_dataset(tmp_path_factory.mktemp("truth"))
    rows = ["study_id\tsample_size"]
    for name, study in truth.items():
        rows.append(f"study-{name}19\t{study.n}")
        maps = {"effect": study.effect, "variance": study.variance, "t": study.effect / np.sqrt(study.variance)}
        for kind, values in maps.items():
            metadata = {"DegreesOfFreedom": study.n - 1, "SampleSize": study.n, "Units": "percent"}
            where = {"study": f"{name}19", "space": SPACE, "contrast": "pain"}
            write_statmap(root, kind, values, affine=AFFINE, metadata=metadata, **where)
    (root / "studies.tsv").write_text("\n".join(rows) + "\n")
    return root


def test_sizes_and_degrees_of_freedom_come_from_each_format(imported: Path):
    rows = list(csv.DictReader((imported / "studies.tsv").open(), delimiter="\t"))
    assert {row["study_id"]: row["sample_size"] for row in rows} == {f"study-{k}19": str(n) for k, n in SIZES.items()}
    for name, n in SIZES.items():
        sidecar = imported / f"study-{name}19" / f"study-{name}19_{STEM}_stat-t_statmap.json"
        assert json.loads(sidecar.read_text())["DegreesOfFreedom"] == n - 1


@pytest.mark.parametrize(
    ("options", "desc", "kinds"),
    [
        (("--estimator", "auto"), "stoufferRfx", ("z",)),  # the effects' units are not told: z
        (("--units", "hedges-g", "--estimator", "reml"), "reml", ("effect", "variance", "z", "tau2")),
        (("--units", "assume-same", "--estimator", "reml"), "reml", ("effect", "variance", "z", "tau2")),
    ],
    ids=["auto", "hedges-g", "assume-same"],
)
def test_the_meta_analysis_is_that_of_the_truth(
    imported: Path, plain: Path, cli: Any, tmp_path: Path, options: tuple[str, ...], desc: str, kinds: tuple[str, ...]
):
    theirs = options if "--units" in options else ("--estimator", "stouffer-rfx")
    for root, out, words in ((imported, "ours", options), (plain, "reference", theirs)):
        ran = cli(root, tmp_path / out, "group", *words, "--no-report", "--nprocs", "1", "--mask", "data")
        assert ran.code == 0, ran.stderr
    for kind in kinds:
        name = f"{STEM}_desc-{desc}_stat-{kind}_statmap.nii.gz"
        one, other = (np.asarray(nib.load(tmp_path / out / "group" / name).dataobj) for out in ("ours", "reference"))
        assert np.count_nonzero(other)
        # float32 files on the way (1e-7), and tau2 is a small difference of large numbers
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6 * np.abs(other).max())


def test_the_report_tells_each_maps_scaling(imported: Path, cli: Any, tmp_path: Path):
    ran = cli(imported, tmp_path, "group", "--estimator", "stouffer", "--nprocs", "1", "--mask", "data")
    assert ran.code == 0, ran.stderr
    (page,) = tmp_path.glob("group_*.html")
    text = page.read_text()
    assert "Scaled by" in text
    for reason in (
        "a second-level SPM.mat does not tell the scaling",
        "mean_func, the session&#39;s mean, is not in",
        "does not say that the data were scaled to percent",
        "NIDM-Results do not tell the units",
    ):
        assert reason in text
