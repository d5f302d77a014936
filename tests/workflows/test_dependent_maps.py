"""Several maps of one subject or study, and maps of one cluster, through the command line: who takes them, and how."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE = (3, 4, 2)
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


def read(out: Path, kind: str, name: str) -> np.ndarray:
    (path,) = (out / "group").glob(f"*_desc-{name}_stat-{kind}_statmap.nii.gz")
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
    assert "ols takes all 7 maps" not in ran.stderr
    assert "3 independent clusters" in ran.stderr
