"""--dependence and same-data meta-analysis through the command line."""

import json
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

WORDS = ("--units", "assume-same", "--mask", "data", "--grid", "common", "--no-report", "--inference", "fdr")


def read(out: Path, kind: str, name: str, test: str = "") -> np.ndarray:
    stem = f"*_test-{test}_desc-{name}" if test else f"*_desc-{name}"
    (path,) = (out / "group").glob(f"{stem}_stat-{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


def sidecar(out: Path, kind: str, name: str) -> dict:
    (path,) = (out / "group").glob(f"*_desc-{name}_stat-{kind}_statmap.json")
    return json.loads(path.read_text())


@pytest.fixture
def clustered(tmp_path, describe_dataset, write_statmap):
    """Twelve studies of five samples; z of one sample's maps are correlated by .6 over voxels."""
    root, rng, shape = describe_dataset(tmp_path / "in"), np.random.default_rng(6), (8, 9, 10)
    labels = np.repeat(np.arange(5), (3, 3, 2, 2, 2))
    z = np.sqrt(0.6) * rng.normal(size=(5, *shape))[labels] + np.sqrt(0.4) * rng.normal(size=(12, *shape)) + 0.8
    for number, one in enumerate(z):
        write_statmap(root, "z", one, study=f"{number:02d}", contrast="x", space="MNI152NLin6Asym")
        write_statmap(root, "effect", one * 0.5, study=f"{number:02d}", contrast="x", space="MNI152NLin6Asym")
        write_statmap(
            root, "variance", np.full(shape, 0.25), study=f"{number:02d}", contrast="x", space="MNI152NLin6Asym"
        )
    rows = "\n".join(f"study-{number:02d}\ts{label}" for number, label in enumerate(labels))
    (root / "studies.tsv").write_text(f"study_id\tcluster\n{rows}\n")
    return root, z.astype(np.float32).astype(float), labels


def test_stouffer_with_correlations_within_clusters(clustered, tmp_path, cli):
    root, z, _ = clustered
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "stouffer", "fixed-effects", "reml",
              "--dependence", "cluster")  # fmt: skip
    assert ran.code == 0, ran.stderr
    known = sidecar(tmp_path / "1", "z", "stouffer")["Dependence"]
    assert known["Source"] == "cluster"
    assert known["LargestCorrelation"] == pytest.approx(0.6, abs=0.15)
    assert "stouffer: --dependence cluster: 12 maps are 5 independent cluster(s), " in ran.stderr
    assert f"the largest correlation is {known['LargestCorrelation']:.2f} (" in ran.stderr
    assert f"all amount to {known['EffectiveNumberOfMaps']:.1f} independent maps." in ran.stderr
    assert known["EffectiveNumberOfMaps"] == pytest.approx(144 / (12 + 0.6 * 18), rel=0.08)
    summed = z.sum(axis=0)
    scale = 12 / np.sqrt(known["EffectiveNumberOfMaps"])
    np.testing.assert_allclose(read(tmp_path / "1", "z", "stouffer"), summed / scale, rtol=2e-5, atol=1e-5)
    # one variance and one correlation for all: the weighted mean of fixed effects has the same test up to weights
    assert np.corrcoef(read(tmp_path / "1", "z", "fixedEffects").ravel(), summed.ravel())[0, 1] > 0.97
    assert sidecar(tmp_path / "1", "z", "fixedEffects")["Estimator"]["Settings"]["test"] == "z"
    plain = cli(root, tmp_path / "2", "group", *WORDS, "--estimator", "stouffer")
    assert plain.code == 0, plain.stderr
    assert "Dependence" not in sidecar(tmp_path / "2", "z", "stouffer")
    assert "look like the same people" not in plain.stderr  # the column says so
    told, known = ((tmp_path / out / "README.md").read_text() for out in "21")
    assert "The 12 maps are of 5 clusters." in told
    assert "All maps were taken as independent, those of one cluster too." in told
    assert "taken as independent" not in known
    assert "So does stouffer with --dependence cluster." in plain.stderr  # advice that works: above
    np.testing.assert_allclose(read(tmp_path / "2", "z", "stouffer"), summed / np.sqrt(12), rtol=2e-5, atol=1e-5)


def test_whole_parts_are_flipped(clustered, tmp_path, cli):
    root, _, _ = clustered
    words = ("--units", "assume-same", "--mask", "data", "--grid", "common", "--no-report", "--dependence", "cluster")
    ran = cli(root, tmp_path / "1", "group", *words, "--estimator", "stouffer", "--inference", "max-stat")
    assert ran.code == 0, ran.stderr
    (path,) = (tmp_path / "1" / "group").glob("*_corr-maxStat_stat-log10p_statmap.json")
    assert json.loads(path.read_text())["Inference"]["Resamples"] == 2**5


def test_dependence_of_a_file(clustered, tmp_path, cli):
    root, z, _ = clustered
    table = tmp_path / "pairs.tsv"
    table.write_text("map_a\tmap_b\tn_a\tn_b\tn_shared\nstudy-00\tstudy-01\t40\t90\t30\n02\tstudy-01\t20\t20\t10\n")
    words = [*(word for word in WORDS if word != "--no-report"), "--estimator", "stouffer", "--dependence"]
    ran = cli(root, tmp_path / "1", "group", *words, table)
    assert ran.code == 0, ran.stderr
    (page,) = (tmp_path / "1").glob("group_*.html")
    assert "overlapping subjects" in page.read_text()
    R = np.eye(12)
    R[0, 1] = R[1, 0] = R[1, 2] = R[2, 1] = 0.5
    np.testing.assert_allclose(
        read(tmp_path / "1", "z", "stouffer"), z.sum(axis=0) / np.sqrt(R.sum()), rtol=2e-5, atol=1e-5
    )
    known = sidecar(tmp_path / "1", "z", "stouffer")["Dependence"]
    assert known == {"Source": "pairs.tsv", "LargestCorrelation": 0.5, "EffectiveNumberOfMaps": 10.285714}


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("map_a\tmap_b\tr\n", 65, "separated by tabs. It has: map_a, map_b, r"),
        ("map_a\tmap_b\tcorrelation\n00\t01\t1.5\n", 65, "line 2: correlation is '1.5'; it is a number between"),
        ("map_a\tmap_b\tcorrelation\n00\tnone\t.5\n", 65, "no map is called 'none'"),
        ("map_a\tmap_b\tcorrelation\n00\t00\t.5\n", 65, "stands beside itself"),
        ("map_a\tmap_b\tcorrelation\n00\t01\t.5\n01\t00\t.4\n", 65, "lines 2 and 3 are of one pair"),
        ("map_a\tmap_b\tn_a\tn_b\tn_shared\n00\t01\t20\t30\t25\n", 65, "no more are shared than either map has"),
        ("map_a\tmap_b\tcorrelation\n00\t01\t.9\n01\t02\t.9\n", 65, "not positive definite (smallest eigenvalue -0.2"),
        (None, 66, "pairs.tsv"),
    ],
)
def test_files_that_do_not_say_it(clustered, tmp_path, cli, content, code, says):
    root, _, _ = clustered
    table = tmp_path / "pairs.tsv"
    if content is not None:
        table.write_text(content)
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "stouffer", "--dependence", table)
    assert ran.code == code, ran.stderr
    assert says in ran.stderr


def test_same_data(clustered, tmp_path, cli):
    """Twelve analyses of one data set: as numpy's corrcoef and the formulas have it."""
    root, z, _ = clustered
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "sdma-stouffer", "sdma-gls")
    assert ran.code == 0, ran.stderr
    assert "sdma-gls: the maps are taken as analyses of one data set" in ran.stderr
    flat, ones = z.reshape(12, -1), np.ones(12)
    R = np.corrcoef(flat)
    known = flat.mean(axis=0) * 12 / np.sqrt(R.sum())
    np.testing.assert_allclose(read(tmp_path / "1", "z", "sdmaStouffer").ravel(), known, rtol=2e-5, atol=1e-5)
    inverse = np.linalg.inv(R)
    assert (inverse @ ones > 0).all()
    known = ones @ inverse @ flat / np.sqrt(ones @ inverse @ ones)
    np.testing.assert_allclose(read(tmp_path / "1", "z", "sdmaGls").ravel(), known, rtol=2e-5, atol=1e-5)
    stated = sidecar(tmp_path / "1", "z", "sdmaGls")["Dependence"]
    assert stated["Source"] == "same-data"
    assert stated["EffectiveNumberOfMaps"] == pytest.approx(144 / R.sum(), rel=1e-5)
    same = cli(root, tmp_path / "2", "group", *WORDS, "--estimator", "stouffer", "--dependence", "same-data")
    assert same.code == 0, same.stderr
    np.testing.assert_array_equal(read(tmp_path / "2", "z", "stouffer"), read(tmp_path / "1", "z", "sdmaStouffer"))


def test_what_depends_as_a_whole_is_not_relabelled(clustered, tmp_path, cli):
    root, _, _ = clustered
    words = (
        "--units",
        "assume-same",
        "--mask",
        "data",
        "--grid",
        "common",
        "--no-report",
        "--estimator",
        "sdma-stouffer",
    )
    ran = cli(root, tmp_path / "1", "group", *words, "--inference", "max-stat")
    assert ran.code == 64
    assert "all maps of sdma-stouffer depend on each other here" in ran.stderr
    ran = cli(root, tmp_path / "1", "group", *words)
    assert ran.code == 0, ran.stderr
    assert "takes bonferroni" in ran.stderr


def test_one_map_twice_has_no_inverse(clustered, tmp_path, cli, write_statmap):
    root, z, _ = clustered
    write_statmap(root, "z", z[0], study="99", contrast="x", space="MNI152NLin6Asym")
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "sdma-gls")
    assert ran.code == 65
    assert "some of the 13 maps follow from others" in ran.stderr
    ran = cli(root, tmp_path / "2", "group", *WORDS, "--estimator", "sdma-stouffer")
    assert ran.code == 0, ran.stderr


def test_one_map_twice_is_shrunken_where_models_are_fitted(clustered, tmp_path, cli, write_statmap):
    root, z, _ = clustered
    write_statmap(root, "effect", 0.5 * z[0], study="99", contrast="x", space="MNI152NLin6Asym")
    write_statmap(root, "variance", np.full(z[0].shape, 0.25), study="99", contrast="x", space="MNI152NLin6Asym")
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "fixed-effects", "--dependence", "same-data")
    assert ran.code == 0, ran.stderr
    assert "some maps follow from others (the same map twice?), so that correlations are shrunken by 0.1%" in ran.stderr
    assert sidecar(tmp_path / "1", "z", "fixedEffects")["Dependence"]["Shrinkage"] == pytest.approx(0.001, abs=2e-4)
    assert np.isfinite(read(tmp_path / "1", "z", "fixedEffects")).all()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--estimator", "multilevel", "--dependence", "cluster"), 64, "multilevel takes care of clusters on its own"),
        (("--estimator", "stouffer-rfx", "--dependence", "cluster"), 64, "stouffer-rfx takes maps as independent"),
        (("--estimator", "sdma-gls", "--dependence", "cluster"), 64, "not by clusters: leave --dependence out"),
    ],
)
def test_what_takes_no_dependence_says_so(clustered, tmp_path, cli, words, code, says):
    root, _, _ = clustered
    ran = cli(root, tmp_path / "1", "group", *WORDS, *words)
    assert ran.code == code, ran.stderr
    assert says in ran.stderr


def test_dependence_of_independent_maps_is_answered(clustered, tmp_path, cli):
    root, _, _ = clustered
    (root / "studies.tsv").unlink()
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "stouffer", "--dependence", "cluster")
    assert ran.code == 65
    assert "Name maps that depend on each other by one label in a column cluster of studies.tsv" in ran.stderr
    rows = "\n".join(f"study-{number:02d}\ts{number // 6}" for number in range(12))
    (root / "studies.tsv").write_text(f"study_id\tcluster\n{rows}\n")
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "stouffer", "--dependence", "cluster")
    assert ran.code == 65
    assert "2 clusters of 12 maps are too few" in ran.stderr


def test_flips_of_dependent_maps_are_those_of_whole_parts(clustered, tmp_path, cli):
    """Every flip of five parts by hand: the largest |sum| over the mask, over one standard deviation."""
    root, z, labels = clustered
    words = ("--units", "assume-same", "--mask", "data", "--grid", "common", "--no-report", "--dependence", "cluster")
    ran = cli(root, tmp_path / "1", "group", *words, "--estimator", "stouffer", "--inference", "max-stat")
    assert ran.code == 0, ran.stderr
    (path,) = (tmp_path / "1" / "group").glob("*_corr-maxStat_stat-log10p_statmap.nii.gz")
    known = np.array(
        [np.abs(np.tensordot(np.array(signs)[labels], z, 1)).max() for signs in product((-1, 1), repeat=5)]
    )
    observed = np.abs(z.sum(axis=0))
    p = (known[:, None, None, None] >= observed * (1 - 1e-6)).mean(axis=0)
    np.testing.assert_allclose(10.0 ** -nib.load(path).get_fdata(), p, rtol=1e-4)


def test_people_of_one_sample_are_counted_once(clustered, tmp_path, cli):
    root, _, labels = clustered
    rows = "\n".join(f"study-{number:02d}\ts{label}\t{20 + label}" for number, label in enumerate(labels))
    (root / "studies.tsv").write_text(f"study_id\tcluster\tsample_size\n{rows}\n")
    ran = cli(root, tmp_path / "1", "group", *WORDS, "--estimator", "stouffer", "--dependence", "cluster")
    assert ran.code == 0, ran.stderr
    assert sidecar(tmp_path / "1", "z", "stouffer")["SampleSize"] == 20 + 21 + 22 + 23 + 24


def test_pages_say_how_maps_depend(clustered, tmp_path, cli):
    root, _, _ = clustered
    words = ("--units", "assume-same", "--mask", "data", "--grid", "common", "--inference", "fdr", "--atlas", "none")
    ran = cli(root, tmp_path / "1", "group", *words, "--estimator", "stouffer", "--dependence", "cluster")
    assert ran.code == 0, ran.stderr
    (page,) = (tmp_path / "1").glob("group_*.html")
    first = page.read_text()
    assert "Sampling errors of maps of one cluster were taken as correlated" in first
    assert "Independent maps they amount to" in first
    page.unlink()
    again = cli(root, tmp_path / "1", "group", "--reports-only")
    assert again.code == 0, again.stderr
    assert "maps amount to" in page.read_text()


@pytest.mark.parametrize("units", [(), ("--units", "assume-same")])
def test_advice_on_one_sample_works(clustered, tmp_path, cli, units):
    """What the warning of studies that look like the same people says is done, word by word, and it is silent then."""
    root, _, labels = clustered
    (root / "studies.tsv").write_text(
        "study_id\tsample_size\n" + "\n".join(f"study-{n:02d}\t{20 + label}" for n, label in enumerate(labels)) + "\n"
    )
    words = (*units, "--mask", "data", "--grid", "common", "--no-report", "--inference", "fdr")
    first = cli(root, tmp_path / "1", "group", *words, "--estimator", "stouffer")
    assert first.code == 0, first.stderr
    assert "Studies look like the same people" in first.stderr
    model = "--estimator multilevel" + ("" if units else " with --units hedges-g")
    remedy = f"column cluster of studies.tsv and ask for {model}, or for --estimator stouffer --dependence cluster."
    assert remedy in first.stderr
    rows = "\n".join(f"study-{n:02d}\t{20 + label}\ts{label}" for n, label in enumerate(labels))
    (root / "studies.tsv").write_text(f"study_id\tsample_size\tcluster\n{rows}\n")
    for number, advice in enumerate((model.replace(" with", ""), "--estimator stouffer --dependence cluster")):
        ran = cli(root, tmp_path / f"cured{number}", "group", *words, *advice.split())
        assert ran.code == 0, ran.stderr
        assert "look like the same people" not in ran.stderr
        assert "as independent" not in ran.stderr
