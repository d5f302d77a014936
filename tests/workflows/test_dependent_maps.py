"""Several maps of one subject or study, and maps of one cluster, through the command line: who takes them, and how."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE = (3, 4, 2)
REFERENCE = Path(__file__).parents[1] / "reference"
STUDIES = tuple("abcdefg")
CONTRASTS = ("x", "y")
WORDS = ("--units", "assume-same", "--mask", "data", "--grid", "common", "--no-report", "--inference", "fdr")


@pytest.fixture
def studies(tmp_path, describe_dataset, write_statmap):
    """Seven studies with an effect and a variance of two contrasts each."""
    root, rng, effects = describe_dataset(tmp_path / "in"), np.random.default_rng(5), {}
    for study in STUDIES:
        for contrast in CONTRASTS:
            effects[study, contrast] = rng.normal(1, 2, SHAPE).astype(np.float32).astype(float)
            for kind, values in (("effect", effects[study, contrast]), ("variance", np.full(SHAPE, 0.5))):
                write_statmap(root, kind, values, study=study, contrast=contrast, space="MNI152NLin6Asym")
    return root, effects


def read(out: Path, kind: str, name: str, test: str = "") -> np.ndarray:
    stem = f"*_test-{test}_desc-{name}" if test else f"*_desc-{name}"
    (path,) = (out / "group").glob(f"{stem}_stat-{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


def sidecar(out: Path, kind: str, name: str) -> dict:
    (path,) = (out / "group").glob(f"*_desc-{name}_stat-{kind}_statmap.json")
    return json.loads(path.read_text())


def test_several_maps_of_a_study_enter_what_takes_them(studies, tmp_path, cli):
    root, effects = studies
    refused = cli(root, tmp_path / "1", "group", *WORDS, "--pool", "contrast")
    assert refused.code == 16
    assert "Two maps of one study (a) meet in one analysis" in refused.stderr
    assert "All maps of one study enter an analysis with --estimator" in refused.stderr
    assert " ols" in refused.stderr
    refused = cli(root, tmp_path / "1", "group", *WORDS, "--pool", "contrast", "--estimator", "reml")
    assert refused.code == 16
    ran = cli(root, tmp_path / "2", "group", *WORDS, "--pool", "contrast", "--estimator", "ols")
    assert ran.code == 0, ran.stderr
    assert "7 independent studies" in ran.stderr
    means = np.stack([np.mean([effects[study, contrast] for contrast in CONTRASTS], axis=0) for study in STUDIES])
    expected = stats.ttest_1samp(means, 0.0)
    np.testing.assert_allclose(read(tmp_path / "2", "t", "ols"), expected.statistic, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(read(tmp_path / "2", "p", "ols"), expected.pvalue, rtol=1e-4)
    assert sidecar(tmp_path / "2", "t", "ols")["NumberOfClusters"] == 7


def test_one_map_in_two_spaces_is_not_two_measurements(studies, tmp_path, cli, write_statmap):
    root, effects = studies
    write_statmap(root, "effect", effects["a", "x"], study="a", contrast="x", space="MNI152NLin2009cAsym")
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--contrast", "x", "--estimator", "ols")
    assert ran.code == 16
    assert "Two maps of one study (a)" in ran.stderr
    assert "All maps of one study enter" not in ran.stderr


def test_what_takes_maps_of_one_cluster_as_independent_says_so(studies, tmp_path, cli):
    root, _ = studies
    rows = "\n".join(f"study-{study}\t{'pqr'[number // 3]}" for number, study in enumerate(STUDIES))
    (root / "studies.tsv").write_text(f"study_id\tcluster\n{rows}\n")
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--contrast", "x", "--estimator", "reml", "ols")
    assert ran.code == 0, ran.stderr
    assert "reml takes all 7 maps as independent, and by the column 'cluster' they are 3 clusters" in ran.stderr
    assert "--estimator multilevel, ols or random-intercept takes them as dependent" in ran.stderr
    assert "ols takes all 7 maps" not in ran.stderr
    assert "3 independent clusters" in ran.stderr


LMERTEST = {case["name"]: case for case in json.loads((REFERENCE / "lmertest.json").read_text())["cases"]}
SCALES = np.geomspace(0.01, 100, 24).reshape(SHAPE)


@pytest.fixture
def visits(tmp_path, describe_dataset, write_statmap):
    """Participants of two groups with one to three visits: a case of lmerTest's, in another unit at each voxel."""
    case, root = LMERTEST["a third missing"], describe_dataset(tmp_path / "in")
    columns, groups = np.array(case["X"]), {}
    for y, unit, row in zip(case["y"], case["unit"], columns, strict=True):
        session = 1 + int(row[1] + 2 * row[2])
        write_statmap(root, "effect", y * SCALES, sub=f"{unit:02d}", ses=str(session), task="x", contrast="c",
                      space="MNI152NLin6Asym")  # fmt: skip
        groups[f"{unit:02d}"] = "pq"[int(row[3])]
    rows = "\n".join(f"sub-{sub}\t{group}" for sub, group in groups.items())
    (root / "participants.tsv").write_text(f"participant_id\tgroup\n{rows}\n")
    return root, case


NAMED = {
    "mean": "intercept",
    "second": "C(session)[T.2]",
    "groups": "C(group)[T.q]",
    "changes": "C(session)[T.2]:C(group)[T.q]",
    "visits": "C(session)[T.2], C(session)[T.3]",
    "profiles": "C(session)[T.2]:C(group)[T.q], C(session)[T.3]:C(group)[T.q]",
}
PLACES = {"mean": 0, "second": 1, "groups": 3, "changes": 4, "visits": 5, "profiles": 6}  # in the case's tests


def test_random_intercept_is_lmertests(visits, tmp_path, cli):
    root, case = visits
    tests = [f"{name}={expression}" for name, expression in NAMED.items()]
    ran = cli(root, tmp_path / "1", "group", "--estimator", "random-intercept", "--formula", "1 + C(session)*C(group)",
              "--test", *tests, "--inference", "fdr")  # fmt: skip
    assert ran.code == 0, ran.stderr
    for name, place in PLACES.items():
        one = case["tests"][place]
        kind = "t" if "t" in one else "F"
        np.testing.assert_allclose(read(tmp_path / "1", kind, "randomIntercept", name), one[kind], rtol=2e-5)
        np.testing.assert_allclose(read(tmp_path / "1", "dof", "randomIntercept", name), one["dof"], rtol=2e-5)
        if kind == "t":
            effects = read(tmp_path / "1", "effect", "randomIntercept", name)
            np.testing.assert_allclose(effects, one["effect"] * SCALES, rtol=2e-5)
            p = 2 * stats.t.sf(abs(one["t"]), one["dof"])
        else:
            p = stats.f.sf(one["F"], one["dof1"], one["dof"])
        np.testing.assert_allclose(read(tmp_path / "1", "p", "randomIntercept", name), p, rtol=1e-4)
    sigma2, tau2 = case["sigma2"] * SCALES**2, case["ratio"] * case["sigma2"] * SCALES**2
    np.testing.assert_allclose(read(tmp_path / "1", "sigma2", "randomIntercept"), sigma2, rtol=2e-5)
    np.testing.assert_allclose(read(tmp_path / "1", "tau2", "randomIntercept"), tau2, rtol=2e-5)
    icc = case["ratio"] / (1 + case["ratio"])
    np.testing.assert_allclose(read(tmp_path / "1", "icc", "randomIntercept"), icc, rtol=2e-5)
    page = next((tmp_path / "1").glob("group_*.html")).read_text()
    assert "random intercept" in page
    assert "lmerTest package" in (tmp_path / "1" / "CITATION.md").read_text()
    content = sidecar(tmp_path / "1", "icc", "randomIntercept")
    assert (content["Clusters"], content["NumberOfClusters"]) == ("participant_id", 18)
    assert "Mixed model of 18 independent participants; degrees of freedom" in ran.stderr


def test_a_column_for_each_participant_is_answered_with_random_intercept(visits, tmp_path, cli):
    root, case = visits
    ran = cli(root, tmp_path / "1", "group", "--formula", "1 + C(session) + C(group) + C(participant_id)", "--test",
              "groups=C(group)[T.q]", "--no-report")  # fmt: skip
    assert ran.code == 65
    assert "Leave C(participant_id) out of --formula and ask for --estimator random-intercept" in ran.stderr
    ran = cli(root, tmp_path / "1", "group", "--formula", "1 + C(session) + C(participant_id)", "--test",
              "second=C(session)[T.2]", "--estimator", "random-intercept", "--no-report")  # fmt: skip
    assert ran.code == 65
    assert ran.stderr.count("Leave C(participant_id) out") == 1
    ran = cli(root, tmp_path / "2", "group", "--formula", "1 + C(session)*C(group)", "--test", "groups=C(group)[T.q]",
              "--estimator", "random-intercept", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    np.testing.assert_allclose(read(tmp_path / "2", "t", "randomIntercept", "groups"), case["tests"][3]["t"], rtol=2e-5)


def test_auto_says_what_models_the_dependence(visits, tmp_path, cli):
    root, _ = visits
    ran = cli(root, tmp_path / "1", "group", "--formula", "1 + C(session)", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "auto took ols. How the maps of one participant depend on each other is modelled by" in ran.stderr
    assert "--estimator random-intercept" in ran.stderr


def test_sessions_that_are_pooled(visits, tmp_path, cli):
    """The mean over visits, however many each participant has: sessions are pooled, not named in the formula."""
    root, case = visits
    ran = cli(root, tmp_path / "1", "group", "--pool", "session", "--estimator", "random-intercept", "--no-report")
    assert ran.code == 0, ran.stderr
    y, unit = np.array(case["y"]), np.array(case["unit"])
    v = np.eye(len(y)) * 1.0
    effect, tau2, sigma2 = (read(tmp_path / "1", kind, "randomIntercept") for kind in ("effect", "tau2", "sigma2"))
    ratio = float((tau2 / sigma2)[0, 0, 0])
    w = np.linalg.inv(v + ratio * (unit[:, None] == unit[None]))
    np.testing.assert_allclose(effect, SCALES * (w.sum(axis=0) @ y) / w.sum(), rtol=2e-5)


def test_one_map_each_is_refused(visits, tmp_path, cli):
    root, _ = visits
    ran = cli(root, tmp_path / "1", "group", "--session-label", "1", "--estimator", "random-intercept", "--no-report")
    assert ran.code == 65
    assert "here each has one" in ran.stderr
    ran = cli(root, tmp_path / "2", "group", "--session-label", "1", "--no-report")
    assert ran.code == 0, ran.stderr


def test_multilevel_models_the_maps_of_one_study(studies, tmp_path, cli):
    """Balanced, with one variance for all: the mean is that of study means, its error that of their spread."""
    root, effects = studies
    words = [*WORDS, "--pool", "contrast", "--estimator", "multilevel"]
    ran = cli(root, tmp_path / "1", "group", *words)
    assert ran.code == 0, ran.stderr
    assert "Mixed model of 7 independent studies" in ran.stderr
    means = np.stack([np.mean([effects[study, contrast] for contrast in CONTRASTS], axis=0) for study in STUDIES])
    np.testing.assert_allclose(read(tmp_path / "1", "effect", "multilevel"), means.mean(axis=0), rtol=2e-5, atol=1e-6)
    tau2, omega2 = (read(tmp_path / "1", kind, "multilevel") for kind in ("tau2", "omega2"))
    free = (tau2 > 0) & (omega2 > 0)
    assert free.any()
    expected = stats.ttest_1samp(means, 0.0).statistic
    np.testing.assert_allclose(read(tmp_path / "1", "t", "multilevel")[free], expected[free], rtol=2e-5)
    for kind in ("i2", "i2between", "i2within", "n"):
        assert read(tmp_path / "1", kind, "multilevel").max() > 0
    known = sidecar(tmp_path / "1", "tau2", "multilevel")
    assert (known["Errors"], known["NumberOfClusters"]) == ("model", 7)
    (table,) = (tmp_path / "1" / "group").glob("*_design.tsv")
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0][:2] == ["study_id", "cluster"]
    assert {tuple(row[:2]) for row in rows[1:]} == {(f"study-{study}", study) for study in STUDIES}
    config = tmp_path / "c.toml"
    config.write_text('[estimator.multilevel]\nerrors = "sandwich"\n')
    ran = cli(root, tmp_path / "2", "group", *words, "--config-file", config)
    assert ran.code == 0, ran.stderr
    np.testing.assert_allclose(read(tmp_path / "2", "t", "multilevel")[free], expected[free], rtol=2e-5)
    assert sidecar(tmp_path / "2", "t", "multilevel")["Errors"] == "sandwich"


def test_whole_clusters_are_flipped(studies, tmp_path, cli):
    """Seven studies of two maps: 2^7 flips, and the largest |t| of all is that of 2 in 128 at least."""
    root, _ = studies
    words = ["--units", "assume-same", "--mask", "data", "--grid", "common", "--no-report", "--pool", "contrast"]
    ran = cli(root, tmp_path / "1", "group", *words, "--estimator", "multilevel", "--inference", "max-stat")
    assert ran.code == 0, ran.stderr
    (path,) = (tmp_path / "1" / "group").glob("*_corr-maxStat_stat-log10p_statmap.json")
    known = json.loads(path.read_text())["Inference"]
    assert known["Resamples"] == 128
    assert "clusters" in json.dumps(known)


def test_studies_of_one_cluster_share_an_intercept(studies, tmp_path, cli):
    """By the column cluster where studies have one map each; by study where they have several."""
    root, effects = studies
    named = dict(zip(STUDIES, "ppqqqrs", strict=True))
    rows = "\n".join(f"study-{study}\t{label}" for study, label in named.items())
    (root / "studies.tsv").write_text(f"study_id\tcluster\n{rows}\n")
    asked = (*WORDS, "--estimator", "random-intercept")
    ran = cli(root, tmp_path / "1", "group", *asked, "--contrast", "x")
    assert ran.code == 0, ran.stderr
    assert "Mixed model of 4 independent clusters" in ran.stderr
    (root / "studies.tsv").unlink()
    ran = cli(root, tmp_path / "2", "group", *asked, "--pool", "contrast")
    assert ran.code == 0, ran.stderr
    assert "Mixed model of 7 independent studies" in ran.stderr
    for out, labels, y in (
        (tmp_path / "1", [named[study] for study in STUDIES], [effects[study, "x"] for study in STUDIES]),
        (tmp_path / "2", [s for s in STUDIES for _ in CONTRASTS], [effects[s, c] for s in STUDIES for c in CONTRASTS]),
    ):
        same = np.array(labels)[:, None] == np.array(labels)[None]
        tau2, sigma2, effect, variance = (
            read(out, kind, "randomIntercept") for kind in ("tau2", "sigma2", "effect", "variance")
        )
        for place in np.ndindex(SHAPE):
            weights = np.linalg.inv(sigma2[place] * np.eye(len(labels)) + tau2[place] * same)
            values = np.array([one[place] for one in y])
            expected = weights.sum(axis=0) @ values / weights.sum()
            np.testing.assert_allclose(effect[place], expected, rtol=2e-5, atol=1e-6)
            np.testing.assert_allclose(variance[place], 1 / weights.sum(), rtol=2e-5)
        assert (tau2 > 0).any()


def test_random_field_theory_is_refused(visits, tmp_path, cli):
    root, _ = visits
    ran = cli(root, tmp_path / "1", "group", "--estimator", "random-intercept", "--formula", "1 + C(session)",
              "--inference", "rft-voxel", "--no-report")  # fmt: skip
    assert ran.code == 64
    assert "random-intercept leaves no residuals that are independent from map to map" in ran.stderr
