"""Studies that come as SPM, FSL, AFNI and NIDM-Results make one dataset, and its meta-analysis is that of the truth."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SPACE = "MNI152NLin6Asym"
SIZES = {"spm": 19, "fsl": 24, "afni": 16, "nidm": 31}
STEM = f"space-{SPACE}_contrast-pain"


@pytest.fixture(scope="module")
def truth(maker: Any) -> dict[str, Any]:
    folders = maker("group_folders")
    rng = np.random.default_rng(8)
    common = rng.normal(0.4, 0.4, folders.SHAPE)
    found = {}
    for name, n in SIZES.items():
        variance = (0.05 + 0.05 * rng.random(folders.SHAPE)) * 20 / n
        effect = common + rng.normal(0.0, np.sqrt(0.04 + variance))
        found[name] = folders.Truth(effect, variance, n)
    return found


@pytest.fixture(scope="module")
def imported(maker: Any, ibma_import: Any, truth: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four")
    for name in SIZES:
        source = getattr(maker("group_folders"), f"write_{name}")(maker, root / name, truth[name])
        contrast = "pain" if name == "afni" else "pain > rest=pain"
        words = (name, source, root / "maps", "--study-label", f"{name}19", "--space", SPACE, "--contrast", contrast)
        ran = ibma_import(*words)
        assert ran.code == 0, ran.stderr
    return root / "maps"


@pytest.fixture(scope="module")
def plain(
    describe_dataset: Any, write_statmap: Any, maker: Any, truth: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The truth as a dataset of its own, written without any of our importers."""
    root = describe_dataset(tmp_path_factory.mktemp("truth"))
    rows = ["study_id\tsample_size"]
    affine = maker("group_folders").AFFINE
    for name, study in truth.items():
        rows.append(f"study-{name}19\t{study.n}")
        maps = {"effect": study.effect, "variance": study.variance, "t": study.effect / np.sqrt(study.variance)}
        for kind, values in maps.items():
            metadata = {"DegreesOfFreedom": study.n - 1, "SampleSize": study.n, "Units": "percent"}
            where = {"study": f"{name}19", "space": SPACE, "contrast": "pain"}
            write_statmap(root, kind, values, affine=affine, metadata=metadata, **where)
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
