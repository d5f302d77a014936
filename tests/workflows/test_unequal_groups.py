"""Groups that differ in variance, and skewed noise, through the command line: numbers, warnings, advice that works."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHAPE = (10, 9, 8)
SIZES = {"patient": 6, "control": 14}
SUBJECTS = {f"{number:02d}": group for number, group in enumerate(np.repeat(list(SIZES), list(SIZES.values())))}
BETWEEN = ("--formula", "1 + C(group)", "--test", "p=C(group)[T.patient]", "--mask", "data")


@pytest.fixture(scope="module")
def data(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    root, rng = describe_dataset(tmp_path_factory.mktemp("unequal") / "data"), np.random.default_rng(5)
    for sub, group in SUBJECTS.items():
        v = rng.uniform(0.2, 0.6, SHAPE)
        y = rng.normal(size=SHAPE) * np.sqrt(v + (9.0 if group == "patient" else 1.0))
        for kind, values in (("effect", y), ("variance", v)):
            write_statmap(root, kind, values.astype(np.float32), sub=sub, space="MNI152NLin6Asym", contrast="a")
    lines = [f"sub-{sub}\t{group}\t{1 + int(sub) % 2}\t{sub}" for sub, group in SUBJECTS.items()]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tgroup\tsite\tlone", *lines]) + "\n")
    return root


def sidecar(out: Path, pattern: str) -> dict:
    (path,) = (out / "group").glob(pattern)
    return json.loads(path.read_text())


def test_groups_are_told_and_the_advice_helps(data: Path, tmp_path: Path, cli) -> None:
    wanted = (*BETWEEN, "--estimator", "ols", "reml", "--inference", "max-stat", "--permutations", "40")
    ran = cli(data, tmp_path / "one", "group", *wanted)
    assert ran.code == 0, ran.stderr
    assert re.search(r"ols, Residual variance of each group: group: control \S+ \(14 maps\), patient", ran.stderr)
    assert "warning: ols: residual variances differ between groups of group: control" in ran.stderr
    assert "warning: reml: tau2 differs between groups of group: control" in ran.stderr
    told = sidecar(tmp_path / "one", "*_test-p_desc-ols_stat-z_statmap.json")["ResidualVarianceByGroup"]["group"]
    assert told["patient"] / told["control"] == pytest.approx(9.4 / 1.4, rel=0.15)
    told = sidecar(tmp_path / "one", "*_test-p_desc-reml_stat-z_statmap.json")["Tau2ByGroup"]["group"]
    assert told == pytest.approx({"control": 1.0, "patient": 9.0}, rel=0.15)
    page = next((tmp_path / "one").glob("group_*.html")).read_text()
    assert "Residual variance of each group" in page
    assert "residual variances differ between groups of group" in page

    # the lines that the warnings give, in a configuration
    lines = re.findall(r"Set (\w+ = \"[^\"]+\") under (\[estimator\.\w+\])", ran.stderr)
    assert len(lines) == 2
    config = tmp_path / "config.toml"
    config.write_text("".join(f"{table}\n{line}\n" for line, table in lines))
    again = cli(data, tmp_path / "two", "group", *wanted, "--config-file", config)
    assert again.code == 0, again.stderr
    assert "The model takes it as the same" not in again.stderr
    assert "Set " not in again.stderr
    # six maps carry most of the variance: what is left of the error is said
    small = (*BETWEEN, "--estimator", "ols", "--inference", "bonferroni", "--config-file", config, "--no-report")
    third = cli(data, tmp_path / "three", "group", *small)
    assert third.code == 0, third.stderr
    assert "where few maps vary most, p are too small still" in third.stderr
    content = sidecar(tmp_path / "two", "*_test-p_desc-reml_corr-maxStat_mask.json")
    assert content["Inference"]["Scheme"] == "sign flips of residuals"
    assert "a group has few (control 14, patient 6)" in again.stderr
    assert (content["Tau2By"], content["MapsByGroup"]) == ("group", {"control": 14, "patient": 6})


def test_a_tau2_for_each_group(data: Path, tmp_path: Path, cli) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[estimator.dl]\ntau2_by = "group"\n')
    out = tmp_path / "out"
    ran = cli(data, out, "group", *BETWEEN, "--estimator", "dl", "--inference", "bonferroni", "rft-voxel",
              "--config-file", config)  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert (
        "dl: in bonferroni and rft-voxel, t with a tau2 for each group has the degrees of freedom of all" in ran.stderr
    )
    names = sorted(path.name.partition("_stat-")[2] for path in (out / "group").glob("*_desc-dl_stat-*tau2*.nii.gz"))
    assert names == ["tau2GroupControl_statmap.nii.gz", "tau2GroupPatient_statmap.nii.gz"]
    assert not list((out / "group").glob("*_stat-i2_*"))
    effects, variances = (
        np.stack(
            [nib.load(next(data.rglob(f"sub-{sub}_*_stat-{kind}_statmap.nii.gz"))).get_fdata() for sub in SUBJECTS]
        )
        for kind in ("effect", "variance")
    )
    for label, rows in (("Patient", slice(0, 6)), ("Control", slice(6, 20))):
        y, w = effects[rows], 1.0 / variances[rows]
        mean = (w * y).sum(axis=0) / w.sum(axis=0)
        q = (w * (y - mean) ** 2).sum(axis=0)
        tau2 = np.maximum((q - (len(y) - 1)) / (w.sum(axis=0) - (w**2).sum(axis=0) / w.sum(axis=0)), 0.0)
        (path,) = (out / "group").glob(f"*_stat-tau2Group{label}_statmap.nii.gz")
        np.testing.assert_allclose(nib.load(path).get_fdata(), tau2, rtol=2e-5, atol=1e-5)
    content = sidecar(out, "*_stat-tau2GroupPatient_statmap.json")
    assert content["Group"] == "patient"
    assert "of group patient" in content["Description"]
    page = next(out.glob("group_*.html")).read_text()
    assert "Each group of maps (by the column group) had a tau2 of its own" in page
    assert "Median tau², patient" in page or "Median tau² (unknown), patient" in page
    again = cli(data, out, "group", "--reports-only")
    assert again.code == 0, again.stderr


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("grous", r"tau2_by names 'grous'.*Did you mean group"),
        ("lone", r"group '0' has 1 map\(s\), and its tau2 needs 2 or more"),
    ],
)
def test_columns_that_tell_no_groups(data: Path, tmp_path: Path, cli, column: str, words: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[estimator.reml]\ntau2_by = "{column}"\n')
    ran = cli(data, tmp_path / "out", "group", "--estimator", "reml", "--mask", "data", "--config-file", config)
    assert ran.code == 65
    assert re.search(words, ran.stderr), ran.stderr


def test_tau2_by_is_text(data: Path, tmp_path: Path, cli) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[estimator.reml]\ntau2_by = true\n")
    ran = cli(data, tmp_path / "out", "group", "--estimator", "reml", "--config-file", config)
    assert ran.code == 64
    assert "tau2_by = True is not text: a column of the covariates" in ran.stderr


def test_equal_groups_are_told_without_a_warning(data: Path, tmp_path: Path, cli) -> None:
    ran = cli(data, tmp_path, "group", "--formula", "1 + site", "--estimator", "ols", "--mask", "data", "--no-report",
              "--inference", "bonferroni")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "ols, Residual variance of each group: site: 1" in ran.stderr
    assert "residual variances differ" not in ran.stderr


@pytest.mark.parametrize("skewed", [True, False])
def test_skewness_of_what_is_flipped(tmp_path: Path, describe_dataset, write_statmap, cli, *, skewed: bool) -> None:
    root, rng = describe_dataset(tmp_path / "data"), np.random.default_rng(6)
    values = rng.gamma(2.0, size=(16, *SHAPE)) - 2.0 if skewed else rng.standard_t(4, (16, *SHAPE))
    for number, one in enumerate(values):
        write_statmap(
            root, "effect", one.astype(np.float32), sub=f"{number:02d}", space="MNI152NLin6Asym", contrast="a"
        )
    out, wanted = tmp_path / "out", ("group", "--estimator", "ols", "--mask", "data", "--permutations", "40")
    ran = cli(root, out, *wanted, "--inference", "max-stat")
    assert ran.code == 0, ran.stderr
    (path,) = (out / "group").glob("*_stat-skewness_statmap.nii.gz")
    centred = values - values.mean(axis=0)
    known = 4.0 * (centred**3).sum(axis=0) / (centred**2).sum(axis=0) ** 1.5
    np.testing.assert_allclose(nib.load(path).get_fdata(), known, rtol=1e-4, atol=1e-5)
    content = sidecar(out, "*_stat-skewness_statmap.json")
    assert content["ResidualSkewness"] == pytest.approx(known.mean(), abs=1e-4)
    assert ("the maps' noise is skewed to the right" in ran.stderr) == skewed
    assert ("findings below 0 come up more often than their p say" in ran.stderr) == skewed
    page = next(out.glob("group_*.html")).read_text()
    assert "Skewness of residuals, mean over the mask" in page
    none = cli(root, tmp_path / "none", *wanted, "--inference", "fdr", "--no-report")
    assert none.code == 0
    assert "skewed" not in none.stderr
    assert not list((tmp_path / "none" / "group").glob("*skewness*"))
