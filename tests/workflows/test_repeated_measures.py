"""Repeated measures through the command line: textbook tests, factors and covariates of maps, refusals and words."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE = (4, 4, 3)
SUBJECTS = tuple(f"{number:02d}" for number in range(1, 13))
CONDITIONS = ("a", "b", "c")
GROUPS = {sub: "pq"[int(sub) % 2] for sub in SUBJECTS}
SDS = {"a": 2.0, "b": 2.0, "c": 0.3}


def effects() -> dict[tuple[str, str], np.ndarray]:
    rng = np.random.default_rng(21)
    subject = {sub: rng.normal(0, 3, SHAPE) for sub in SUBJECTS}
    return {
        (sub, name): (subject[sub] + rng.normal(0, SDS[name], SHAPE)).astype(np.float32)
        for sub in SUBJECTS
        for name in CONDITIONS
    }


VALUES = {key: values.astype(float) for key, values in effects().items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    root = describe_dataset(tmp_path_factory.mktemp("repeated") / "data")
    for (sub, name), values in effects().items():
        write_statmap(root, "effect", values, sub=sub, task="x", space="MNI152NLin6Asym", contrast=name)
    lines = [f"sub-{sub}\t{GROUPS[sub]}\t{20 + 3 * int(sub)}" for sub in SUBJECTS]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tgroup\tage", *lines]) + "\n")
    return root


def read(out: Path, test: str, kind: str) -> tuple[np.ndarray, dict]:
    (path,) = (out / "group").glob(f"*_test-{test}_desc-ols_stat-{kind}_statmap.nii.gz")
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    return nib.load(path).get_fdata(), sidecar


def stacked(weights: dict[str, float], subjects=SUBJECTS) -> np.ndarray:
    return np.stack([sum(w * VALUES[sub, name] for name, w in weights.items()) for sub in subjects])


@pytest.mark.parametrize("formula", ["0 + C(contrast) + C(participant_id)", "0 + C(contrast)"])
def test_within_subjects(data: Path, tmp_path: Path, cli, formula: str) -> None:
    ran = cli(data, tmp_path, "group", "--formula", formula, "--test", "ab=C(contrast)[a] - C(contrast)[b]",
              "any=C(contrast)[a] - C(contrast)[b], C(contrast)[b] - C(contrast)[c]", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "sphericity" not in ran.stderr
    found, sidecar = read(tmp_path, "ab", "t")
    expected = stats.ttest_1samp(stacked({"a": 1, "b": -1}), 0.0)
    np.testing.assert_allclose(found, expected.statistic, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(read(tmp_path, "ab", "p")[0], expected.pvalue, rtol=1e-4)
    assert sidecar["DegreesOfFreedom"] == 11
    assert {key: sidecar[key] for key in ("Errors", "Clusters", "NumberOfClusters")} == {
        "Errors": "sandwich", "Clusters": "participant_id", "NumberOfClusters": 12,
    }  # fmt: skip
    assert sidecar["SmallestDegreesOfFreedom"] == 10.0
    assert sidecar["Estimator"]["Settings"]["errors"] == "sandwich"
    assert (read(tmp_path, "ab", "dof")[0] == 11).all()
    assert (read(tmp_path, "any", "dof")[0] == 10).all()
    assert not list((tmp_path / "group").glob("*MNI152NLin6Asym_desc-ols_stat-dof*"))
    both = np.stack([stacked({"a": 1, "b": -1}), stacked({"b": 1, "c": -1})])
    mean, left = both.mean(axis=1), both - both.mean(axis=1, keepdims=True)
    covariance = np.einsum("qsxyz,rsxyz->xyzqr", left, left) / (12 * 11)
    squared = np.einsum("qxyz,xyzqr,rxyz->xyz", mean, np.linalg.inv(covariance), mean)
    np.testing.assert_allclose(read(tmp_path, "any", "F")[0], squared * 10 / 22, rtol=2e-5)


def test_between_subjects(data: Path, tmp_path: Path, cli) -> None:
    ran = cli(data, tmp_path, "group", "--formula", "1 + C(contrast, contr.sum) + C(group)", "--test",
              "groups=C(group)[T.q]", "mean=intercept + 0.5*C(group)[T.q]", "--inference", "fdr", "max-stat",
              "--permutations", "300")  # fmt: skip
    assert ran.code == 0, ran.stderr
    mean = dict.fromkeys(CONDITIONS, 1 / 3)
    one, two = (stacked(mean, [sub for sub in SUBJECTS if GROUPS[sub] == group]) for group in "qp")
    expected = stats.ttest_ind(one, two)
    np.testing.assert_allclose(read(tmp_path, "groups", "t")[0], expected.statistic, rtol=2e-5, atol=1e-5)
    assert read(tmp_path, "groups", "t")[1]["DegreesOfFreedom"] == 10
    (told,) = (tmp_path / "group").glob("*_test-groups_desc-ols_corr-maxStat_stat-log10p_statmap.json")
    scheme = json.loads(told.read_text())["Inference"]["Scheme"]
    assert scheme == "permutations (Freedman-Lane) of whole clusters"
    (told,) = (tmp_path / "group").glob("*_test-mean_desc-ols_corr-maxStat_stat-log10p_statmap.json")
    assert json.loads(told.read_text())["Inference"]["Scheme"] == "sign flips of residuals of whole clusters"
    page = next(tmp_path.glob("group_*.html")).read_text()
    assert "cluster-robust (CR2)" in page
    assert "12 participants" in page


def test_voxelwise_dof_where_coverage_differs(data: Path, tmp_path: Path, cli, describe_dataset, write_statmap) -> None:
    root = describe_dataset(tmp_path / "data")
    for (sub, name), values in effects().items():
        holes = values.copy()
        if sub == "03":
            holes[0] = 0
        if (sub, name) in (("05", "a"), ("07", "b")):
            holes[:, 1] = 0
        write_statmap(root, "effect", holes, sub=sub, task="x", space="MNI152NLin6Asym", contrast=name)
    ran = cli(root, tmp_path / "out", "group", "--formula", "0 + C(contrast)", "--test",
              "ab=C(contrast)[a] - C(contrast)[b]", "--min-coverage", "0.5", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    dof, sidecar = read(tmp_path / "out", "ab", "dof")
    assert sidecar["DegreesOfFreedom"] == "voxelwise"
    assert sidecar["SmallestDegreesOfFreedom"] == pytest.approx(dof.min(), abs=1e-4)
    np.testing.assert_allclose(dof[2, 0], 11)
    np.testing.assert_allclose(dof[0, 0], 10)
    t = read(tmp_path / "out", "ab", "t")[0]
    alone = stats.ttest_1samp(stacked({"a": 1, "b": -1}, [s for s in SUBJECTS if s != "03"]), 0.0).statistic
    np.testing.assert_allclose(t[0, 0], alone[0, 0], rtol=2e-5)


def test_what_subject_columns_take_up_is_refused_with_advice_that_works(data: Path, tmp_path: Path, cli) -> None:
    asked = ("--test", "mean=C(contrast)[a]", "--no-report")
    ran = cli(data, tmp_path / "1", "group", "--formula", "0 + C(contrast) + C(participant_id)", *asked)
    assert ran.code == 65
    assert "Leave C(participant_id) out of the formula" in ran.stderr
    ran = cli(data, tmp_path / "2", "group", "--formula", "0 + C(contrast)", *asked)
    assert ran.code == 0, ran.stderr
    expected = stats.ttest_1samp(stacked({"a": 1}), 0.0).statistic
    np.testing.assert_allclose(read(tmp_path / "2", "mean", "t")[0], expected, rtol=2e-5, atol=1e-5)


def test_few_degrees_of_freedom_are_told(data: Path, tmp_path: Path, cli) -> None:
    ran = cli(data, tmp_path, "group", "--participant-label", "01", "02", "03", "04", "--formula", "0 + C(contrast)",
              "--test", "ab=C(contrast)[a] - C(contrast)[b]", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "degrees of freedom below 4: ab (3)" in ran.stderr
    assert "4 independent participants" in ran.stderr
    sidecar = read(tmp_path, "ab", "t")[1]
    assert sidecar["SmallestDegreesOfFreedom"] == 3.0


def test_each_map_alone_is_welchs_t(data: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "config.toml").write_text('[estimator.ols]\nerrors = "sandwich"\n')
    ran = cli(data, tmp_path / "out", "group", "--contrast", "a", "--participant-label", *SUBJECTS[:9], "--formula",
              "1 + C(group)", "--test", "groups=C(group)[T.q]", "--config-file", tmp_path / "config.toml",
              "--estimator", "ols", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    one, two = (stacked({"a": 1}, [sub for sub in SUBJECTS[:9] if GROUPS[sub] == group]) for group in "qp")
    found, sidecar = read(tmp_path / "out", "groups", "t")
    np.testing.assert_allclose(found, stats.ttest_ind(one, two, equal_var=False).statistic, rtol=2e-5, atol=1e-5)
    assert (sidecar["Clusters"], sidecar["NumberOfClusters"]) == ("each map", 9)
