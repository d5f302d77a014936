"""Repeated measures through the command line: textbook tests, factors and covariates of maps, refusals and words."""

import json
import shlex
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
    assert "12 independent participants; degrees of freedom (the fewest of any voxel): ab 11, any 10" in ran.stderr
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
    assert json.loads(told.read_text())["Inference"]["Scheme"] == "sign flips of residuals of whole clusters"
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


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_factors_of_conditions_are_columns(data: Path, tmp_path: Path, cli) -> None:
    stimulus = {"a": "face", "b": "house", "c": "scrambled"}
    rng = np.random.default_rng(4)
    rows = [
        {"participant_id": f"sub-{sub}", "contrast": name, "stimulus": stimulus[name], "rt": round(rng.normal(), 3)}
        for name in CONDITIONS
        for sub in SUBJECTS
    ]
    table = write_rows(tmp_path / "conditions.tsv", rows)
    ran = cli(data, tmp_path / "out", "group", "--covariates", table, "--formula", "1 + C(stimulus)", "--test",
              "any=stimulus", "faces=0.5*stimulus[face] + 0.5*stimulus[house] - stimulus[scrambled]",
              "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    expected = stats.ttest_1samp(stacked({"a": 0.5, "b": 0.5, "c": -1}), 0.0).statistic
    np.testing.assert_allclose(read(tmp_path / "out", "faces", "t")[0], expected, rtol=2e-5, atol=1e-5)
    assert read(tmp_path / "out", "any", "F")[1]["DegreesOfFreedom"] == 10
    (design,) = (tmp_path / "out" / "group").glob("*_design.tsv")
    header, *lines = design.read_text().splitlines()
    assert header.split("\t")[:2] == ["participant_id", "contrast"]
    assert len(lines) == 36
    ran = cli(data, tmp_path / "rt", "group", "--covariates", table, "--formula", "1 + rt + C(participant_id)",
              "--test", "rt=rt", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    rt = np.array([[row["rt"] for row in rows if row["participant_id"] == f"sub-{sub}"] for sub in SUBJECTS])
    centred = rt - rt.mean(axis=1, keepdims=True)
    values = np.stack([[VALUES[sub, name] for name in CONDITIONS] for sub in SUBJECTS])
    slope = np.einsum("uc,ucxyz->xyz", centred, values) / (centred**2).sum()
    (path,) = (tmp_path / "rt" / "group").glob("*_test-rt_desc-ols_stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), slope, rtol=2e-5, atol=1e-5)
    assert read(tmp_path / "rt", "rt", "t")[1]["SmallestDegreesOfFreedom"] < 11
    # a map without its row is named
    few = write_rows(tmp_path / "few.tsv", rows[1:])
    ran = cli(data, tmp_path / "few", "group", "--covariates", few, "--formula", "1 + C(stimulus)", "--no-report")
    assert ran.code == 65
    assert "sub-01_task-x_contrast-a: no row" in ran.stderr


def test_the_example_of_the_docs(tmp_path: Path, cli, describe_dataset, write_statmap) -> None:
    page = (Path(__file__).parents[2] / "docs" / "usage.md").read_text(encoding="utf-8")
    block = next(part for part in page.split("```bash\n") if "conditions.tsv" in part).split("```")[0]
    words = shlex.split(block.replace("\\\n", " "))
    assert words[:4] == ["ibma-app", "BIDS_DIR", "OUTPUT_DIR", "group"]
    root, rng, rows = describe_dataset(tmp_path / "data"), np.random.default_rng(8), []
    values = {}
    for sub in SUBJECTS:
        for when, repetition in (("ini", 1), ("im", 2)):
            for short, stimulus in (("ff", "famous"), ("uf", "unfamiliar")):
                values[sub, stimulus, repetition] = rng.normal(size=SHAPE).astype(np.float32)
                write_statmap(root, "effect", values[sub, stimulus, repetition], sub=sub, task="x",
                              contrast=when + short, space="MNI152NLin6Asym")  # fmt: skip
                rows.append({"participant_id": f"sub-{sub}", "contrast": when + short, "stimulus": stimulus,
                             "repetition": repetition, "rt": 0.6})  # fmt: skip
    write_rows(tmp_path / "conditions.tsv", rows)
    given = [str(tmp_path / word) if word == "conditions.tsv" else word for word in words[4:]]
    ran = cli(root, tmp_path / "out", "group", *given, "--no-report")
    assert ran.code == 0, ran.stderr
    signs = {("famous", 1): 1, ("famous", 2): -1, ("unfamiliar", 1): -1, ("unfamiliar", 2): 1}
    both = np.stack([sum(sign * values[sub, *cell].astype(float) for cell, sign in signs.items()) for sub in SUBJECTS])
    t = stats.ttest_1samp(both, 0.0).statistic
    np.testing.assert_allclose(read(tmp_path / "out", "both", "F")[0], t**2, rtol=5e-5, atol=1e-5)
    assert {path.name.split("_test-")[1].split("_")[0] for path in (tmp_path / "out" / "group").glob("*_test-*")} == {
        "stimulus", "repetition", "both", "fame",
    }  # fmt: skip


def test_runs_that_a_table_tells_apart(tmp_path: Path, cli, describe_dataset, write_statmap) -> None:
    """A covariate of runs makes them repeated measures; without one they are refused, as ever."""
    root, rng, rows = describe_dataset(tmp_path / "data"), np.random.default_rng(3), []
    for sub in SUBJECTS[:6]:
        for run in "123":
            write_statmap(root, "effect", rng.normal(size=SHAPE), sub=sub, task="x", run=run, space="MNI152NLin6Asym",
                          contrast="a")  # fmt: skip
            rows.append({"participant_id": sub, "run": run, "motion": round(rng.normal(), 3)})
    asked = ("--covariates", write_rows(tmp_path / "runs.tsv", rows), "--no-report")
    ran = cli(root, tmp_path / "1", "group", *asked, "--formula", "1 + center(motion)", "--test", "mean=intercept")
    assert ran.code == 0, ran.stderr
    assert "18 maps" in ran.stderr
    ran = cli(root, tmp_path / "2", "group", *asked)
    assert ran.code == 16
    assert "is the map of one run" in ran.stderr
