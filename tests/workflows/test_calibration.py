"""``[inference] calibrate`` through the command line: what it changes, what it tells, and where it is refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ENTITIES = {"task": "x", "space": "MNI152NLin6Asym", "contrast": "ab"}
N = 10


@pytest.fixture(scope="module")
def study(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    """Ten subjects with effects that differ, effects of 3 in a corner."""
    root, rng = describe_dataset(tmp_path_factory.mktemp("study") / "data"), np.random.default_rng(8)
    for number in range(1, N + 1):
        variance = rng.uniform(0.3, 2.0, (12, 12, 12))
        effect = rng.normal(size=variance.shape) * np.sqrt(variance + 0.5)
        effect[:3, :3, :3] += 3.0
        for kind, values in (("effect", effect), ("variance", variance)):
            write_statmap(root, kind, values, sub=f"{number:02d}", metadata={"DegreesOfFreedom": 18}, **ENTITIES)
    return root


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('[estimator.reml]\ntest = "knha"\n\n[inference]\ncalibrate = true\n')
    return path


def read_corrected(out: Path, corr: str, estimator: str = "reml") -> np.ndarray:
    """Return the corrected -log10 p."""
    return nib.load(next((out / "group").glob(f"*desc-{estimator}_corr-{corr}_stat-log10p*.nii.gz"))).get_fdata()


def test_p_are_raised_and_everybody_is_told(study, config, cli, tmp_path):
    words = ["--estimator", "reml", "--inference", "bonferroni", "fdr", "ari", "max-stat", "--permutations", "100"]
    ran = cli(study, tmp_path / "out", "group", *words, "--config-file", config, "-v")
    assert ran.code == 0, ran.stderr
    assert "Calibrating p of reml" in ran.stderr
    config.write_text('[estimator.reml]\ntest = "knha"\n')
    assert cli(study, tmp_path / "plain", "group", *words, "--config-file", config).code == 0
    sidecars = {
        corr: json.loads(next((tmp_path / "out" / "group").glob(f"*corr-{corr}_mask.json")).read_text())["Inference"]
        for corr in ("bonferroni", "fdr", "ari", "maxStat")
    }
    found = sidecars["bonferroni"]["Calibration"]
    assert found == sidecars["fdr"]["Calibration"] == sidecars["ari"]["Calibration"]
    assert found["Refits"] == 290  # 500,000 / 1,728
    assert found["SimulatedP"] == 290 * 1728
    assert "Calibration" not in sidecars["maxStat"]
    assert not any("Caveat" in sidecar for sidecar in sidecars.values())
    right, plain = read_corrected(tmp_path / "out", "bonferroni"), read_corrected(tmp_path / "plain", "bonferroni")
    raised = plain > 0.5
    assert raised.any()
    uncorrected = plain[raised] + np.log10(1728)
    expected = np.minimum((1 - found["Slope"]) * uncorrected - found["Intercept"], uncorrected) - np.log10(1728)
    np.testing.assert_allclose(right[raised], np.maximum(expected, 0.0), rtol=1e-5, atol=1e-5)
    plain_sidecar = next((tmp_path / "plain" / "group").glob("*corr-bonferroni_mask.json")).read_text()
    assert "Caveat" in json.loads(plain_sidecar)["Inference"]
    np.testing.assert_array_equal(
        read_corrected(tmp_path / "out", "maxStat"), read_corrected(tmp_path / "plain", "maxStat")
    )
    page = next((tmp_path / "out").glob("group_*.html")).read_text()
    assert "290 refits of data simulated under the null" in page
    assert "calibrated by a parametric bootstrap" in page


def test_the_threshold_is_that_of_p_before_calibration(study, config, cli, tmp_path):
    """Bonferroni's alpha / n holds for calibrated p; what p of the map itself amounts to it is told."""
    ran = cli(study, tmp_path / "out", "group", "--estimator", "reml", "--inference", "bonferroni", "--config-file",
              config, "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    inference = json.loads(next((tmp_path / "out" / "group").glob("*corr-bonferroni_mask.json")).read_text())[
        "Inference"
    ]
    found, least = inference["Calibration"], -np.log10(0.05 / 1728)
    expected = max(least, (least + found["Intercept"]) / (1 - found["Slope"]))
    assert -np.log10(inference["PThreshold"]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_the_same_bytes_from_one_and_two_processes(study, config, cli, tmp_path):
    words = ["--estimator", "reml", "--inference", "fdr", "--config-file", config, "--no-report"]
    for nprocs in ("1", "2"):
        assert cli(study, tmp_path / nprocs, "group", *words, "--nprocs", nprocs).code == 0
    for path in sorted((tmp_path / "1" / "group").glob("*corr-fdr*.nii.gz")):
        assert path.read_bytes() == (tmp_path / "2" / "group" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--estimator", "ols"), "p of ols are not calibrated: that is for mixed models"),
        (
            ("--estimator", "reml", "--inference", "max-stat"),
            "none of --inference max-stat rests on p of single voxels",
        ),
    ],
)
def test_it_is_refused_where_it_makes_no_sense(words, message, study, config, cli, tmp_path):
    ran = cli(study, tmp_path / "out", "group", *words, "--config-file", config)
    assert ran.code == 64
    assert message in ran.stderr
    assert "Leave it out" in ran.stderr
    assert not (tmp_path / "out" / "group").exists()


def test_auto_that_takes_another_estimator_says_that_nothing_is_calibrated(study, config, cli, tmp_path):
    ran = cli(study, tmp_path / "out", "group", "--smoothing", "4", "--inference", "fdr", "--config-file", config,
              "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "p of ols are not calibrated" in ran.stderr
