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
METAFOR_ABLAT = {"tau2": 0.07634796396, "slope": -0.02910172501, "t": -3.54837750027}


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


def one(out: Path, estimator: str, kind: str) -> float:
    return float(
        nib.load(next((out / "group").glob(f"*_desc-{estimator}_stat-{kind}_statmap.nii.gz"))).get_fdata().flat[0]
    )


def test_settings_from_the_configuration(bcg: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "config.toml").write_text(
        '[options]\nestimator = ["reml", "paule-mandel"]\n[estimator.reml]\ntest = "z"\n[output]\ntau2_ci = true\n'
    )
    ran = cli(bcg, tmp_path / "out", "group", "--config-file", tmp_path / "config.toml", "--no-report")
    assert ran.code == 0, ran.stderr
    # metafor: rma(yi, vi, data=dat) and confint() of it; method="PM"
    assert one(tmp_path / "out", "reml", "tau2lower") == pytest.approx(0.1197183611, rel=2e-5)
    assert one(tmp_path / "out", "reml", "tau2upper") == pytest.approx(1.1114790841, rel=2e-5)
    assert one(tmp_path / "out", "reml", "z") == pytest.approx(-3.974448306, rel=2e-5)
    assert one(tmp_path / "out", "pauleMandel", "tau2") == pytest.approx(0.3180684522, rel=2e-5)
    sidecar = json.loads(next((tmp_path / "out" / "group").glob("*desc-reml_stat-z_statmap.json")).read_text())
    assert sidecar["Estimator"]["Settings"]["test"] == "z"
    assert "DegreesOfFreedom" not in sidecar, "a z test has none"


def test_moderator_equals_metafor(bcg: Path, tmp_path: Path, cli) -> None:
    latitude = [44, 55, 42, 52, 13, 44, 19, 13, 27, 42, 18, 33, 33]
    table = (bcg / "studies.tsv").read_text().splitlines()
    rows = [f"{table[0]}\tablat", *(f"{line}\t{x}" for line, x in zip(table[1:], latitude, strict=True))]
    (tmp_path / "studies.tsv").write_text("\n".join(rows) + "\n")
    config = tmp_path / "knha.toml"
    config.write_text('[estimator.reml]\ntest = "knha"\n')
    ran = cli(bcg, tmp_path / "out", "group", "--inference", "fdr", "bonferroni",
              "--formula", "1 + ablat", "--covariates", tmp_path / "studies.tsv",
              "--estimator", "reml", "--config-file", config, "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "center(ablat)" in ran.stderr, "an uncentred covariate beside a tested intercept"

    def value(test: str, kind: str) -> float:
        name = f"*_{test}desc-reml_stat-{kind}_statmap.nii.gz"
        return float(nib.load(next((tmp_path / "out" / "group").glob(name))).get_fdata().flat[0])

    # metafor: rma(yi, vi, mods = ~ ablat, data=dat, test="knha")
    assert value("", "tau2") == pytest.approx(METAFOR_ABLAT["tau2"], rel=2e-5)
    assert value("test-ablat_", "effect") == pytest.approx(METAFOR_ABLAT["slope"], rel=2e-5)
    assert value("test-ablat_", "t") == pytest.approx(METAFOR_ABLAT["t"], rel=2e-5)
