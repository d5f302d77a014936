"""The BCG vaccine trials as voxels: metafor's numbers through the command line."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

# Colditz 1994 (metafor's dat.bcg): vaccinated and control counts, TB positive and negative
BCG = np.array([
    [4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619], [33, 5036, 47, 5761],
    [180, 1361, 372, 1079], [8, 2537, 10, 619], [505, 87886, 499, 87892], [29, 7470, 45, 7232],
    [17, 1699, 65, 1600], [186, 50448, 141, 27197], [5, 2493, 3, 2338], [27, 16886, 29, 17825],
], dtype=float)  # fmt: skip

METAFOR = {
    "reml": {"tau2": 0.3132432581, "effect": -0.7145323422, "se": 0.1807917441, "i2": 92.221385},
    "dl": {"tau2": 0.3087602629, "effect": -0.7141172221, "se": 0.1806966283},
}


@pytest.fixture(scope="module")
def bcg(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bcg")
    a, b, c, d = BCG.T
    effects = np.log((a / (a + b)) / (c / (c + d)))
    variances = 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "bcg", "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    lines = ["study_id\tsample_size"]
    for number, (effect, variance, counts) in enumerate(zip(effects, variances, BCG, strict=True), start=1):
        folder = root / f"study-{number:02d}"
        folder.mkdir()
        stem = f"study-{number:02d}_space-MNI152NLin2009cAsym_contrast-bcg"
        for kind, value in (("effect", effect), ("variance", variance)):
            image = nib.Nifti1Image(np.full((3, 3, 3), value, dtype=np.float64), np.diag([2.0, 2.0, 2.0, 1.0]))
            image.to_filename(folder / f"{stem}_stat-{kind}_statmap.nii.gz")
        (folder / f"{stem}_statmap.json").write_text(json.dumps({"Units": "log risk ratio"}))
        lines.append(f"study-{number:02d}\t{int(counts.sum())}")
    (root / "studies.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_metafor_numbers_through_the_command_line(bcg: Path, tmp_path: Path, cli) -> None:
    code, _, err = cli(bcg, tmp_path, "group", "--estimator", "reml", "dl", "--no-report")
    assert code == 0, err
    for estimator, expected in METAFOR.items():

        def value(kind: str, estimator: str = estimator) -> float:
            path = next((tmp_path / "group").glob(f"*_desc-{estimator}_stat-{kind}_statmap.nii.gz"))
            data = nib.load(path).get_fdata()
            assert np.unique(data).size == 1, "every voxel holds the same trials"
            return float(data.flat[0])

        # float32 files carry 6e-8; the inputs are rounded to float32 on the stack
        assert value("tau2") == pytest.approx(expected["tau2"], rel=2e-5)
        assert value("effect") == pytest.approx(expected["effect"], rel=2e-5)
        assert np.sqrt(value("variance")) == pytest.approx(expected["se"], rel=2e-5)
        if "i2" in expected:
            assert value("i2") == pytest.approx(expected["i2"], rel=2e-5)
        t = expected["effect"] / expected["se"]
        assert value("t") == pytest.approx(t, rel=2e-5)
        assert value("dof") == 12
