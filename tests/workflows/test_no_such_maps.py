"""Files that are no such maps are refused by name where they are read: masks, labels, clusters by number, 1 - p."""

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE = (10, 10, 10)
N = 5


def fakes(t):
    labels = np.arange(t.size).reshape(SHAPE) // 25 + 1.0
    clusters = np.zeros(SHAPE)
    clusters[:4, :4, :4], clusters[5:8, 5:8] = 1.0, 2.0
    p = 2 * stats.t.sf(np.abs(t), 20)
    return {
        "mask": ({"z": np.ones(SHAPE)}, "whole numbers (1)"),
        "labels": ({"t": labels}, "labels of regions"),
        "clusters": ({"z": clusters}, "whole numbers (1, 2)"),
        "1-p as z": ({"z": 1 - p}, "p, 1 - p or a probability"),
        "1-p": ({"p": 1 - p}, "no two-sided p map"),
        "1-p beside effect": ({"p": 1 - p, "effect": t}, "is a map of 1 - p"),
        "one tail": ({"p": stats.t.sf(t, 20), "effect": t}, "write Tail positive"),
    }


@pytest.mark.parametrize("name", ["mask", "labels", "clusters", "1-p as z", "1-p", "1-p beside effect", "one tail"])
def test_one_among_others_is_refused_by_name(tmp_path, write_statmap, describe_dataset, cli, name):
    rng = np.random.default_rng(6)
    root = describe_dataset(tmp_path / "in")
    t = 1.7 * rng.standard_t(20, size=SHAPE) + 0.5
    maps, words = fakes(t)[name]
    good = {"z": t, "p": 2 * stats.t.sf(np.abs(t), 20), "effect": t}
    good = {kind: good[kind] for kind in ("z", "p", "effect") if kind in maps or (kind == "z" and "t" in maps)}
    for row in range(N):
        for kind, values in (maps if row == 2 else good).items():
            about = {"DegreesOfFreedom": 20, "SampleSize": 21}
            write_statmap(root, kind, values, study=f"s{row}", space="T1w", contrast="c", metadata=about)
    estimator = "fisher" if "p" in maps else "stouffer"
    words_of_run = ("--estimator", estimator, "--inference", "bonferroni", "--mask", "data", "--no-report")
    ran = cli(root, tmp_path / "out", "group", *words_of_run)
    assert ran.code == 65, ran.stderr
    assert "study-s2" in ran.stderr
    assert words in ran.stderr
    assert not list((tmp_path / "out").glob("group/*.nii.gz"))


def test_a_run_that_is_a_mask_is_left_out(tmp_path, write_statmap, describe_dataset, cli):
    rng = np.random.default_rng(6)
    root = describe_dataset(tmp_path / "in")
    for run in ("1", "2", "3"):
        effect = rng.normal(size=SHAPE)
        t = np.ones(SHAPE) if run == "3" else effect / 0.7
        for kind, values in (("effect", effect), ("t", t)):
            write_statmap(root, kind, values, sub="01", run=run, contrast="c", metadata={"DegreesOfFreedom": 50})
    ran = cli(root, tmp_path / "out", "participant", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "sub-01_run-3_contrast-c_stat-t_statmap.nii.gz: left out: " in ran.stderr
    assert "as those of a mask are" in ran.stderr


def test_an_imported_mask_and_a_turned_p_fail_alone(tmp_path, write_statmap, ibma_import):
    rng = np.random.default_rng(6)
    t = 1.7 * rng.standard_t(20, size=SHAPE) + 0.5
    p = 2 * stats.t.sf(np.abs(t), 20)
    rows = ["study_id\tpath\tkind\tcontrast\tspace\tsample_size"]
    for study, kind, values in (("a", "t", t), ("b", "t", np.ones(SHAPE)), ("c", "p", 1 - p), ("d", "p", p)):
        path = write_statmap(tmp_path / "maps", kind, values, sub=study, contrast="x")
        rows.append(f"{study}\t{path}\t{kind}\tx\tT1w\t21")
    (tmp_path / "maps.tsv").write_text("\n".join(rows))
    ran = ibma_import("table", tmp_path / "maps.tsv", tmp_path / "out")
    assert ran.code in (1, 65), ran.stderr
    assert "as those of a mask are" in ran.stderr
    assert "no two-sided p map" in ran.stderr
    written = sorted(path.name[:7] for path in (tmp_path / "out").rglob("*_statmap.nii.gz"))
    assert written == ["study-a", "study-d"]


UNSIGNED = {
    "F": lambda rng, shape: rng.f(2, 20, shape),
    "chi-squared": lambda rng, shape: rng.chisquare(1, shape),
    "absolute t": lambda rng, shape: np.abs(rng.standard_t(20, shape)),
}


@pytest.mark.parametrize("draw", UNSIGNED.values(), ids=UNSIGNED)
def test_a_statistic_without_a_sign_is_told(draw, tmp_path, write_statmap, describe_dataset, cli, ibma_import):
    rng, shape = np.random.default_rng(6), (14, 12, 10)
    root = describe_dataset(tmp_path / "in")
    for study in ("s1", "s2", "s3"):
        values = draw(rng, shape) if study == "s2" else rng.normal(0.5, 1, shape)
        write_statmap(root, "z", values, study=study, space="MNI152NLin6Asym", contrast="c")
    words = ("--estimator", "stouffer", "--inference", "fdr", "--mask", "data", "--no-report")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    assert "study-s2_contrast-c: the z map has no negative value, though many are near 0" in ran.stderr
    odd = next(root.rglob("study-s2*_statmap.nii.gz")).rename(tmp_path / "m.nii.gz")
    (tmp_path / "t.tsv").write_text(f"study_id\tpath\tkind\tcontrast\ns2\t{odd}\tt\tc\n")
    ran = ibma_import("table", tmp_path / "t.tsv", tmp_path / "maps", "--space", "MNI152NLin6Asym")
    assert ran.code == 0, ran.stderr
    assert "The t map has no negative value" in ran.stderr


@pytest.mark.parametrize("low", [-0.2, 0.0])
def test_a_strong_effect_everywhere_has_a_sign(low, tmp_path, write_statmap, describe_dataset, cli):
    rng, root = np.random.default_rng(6), describe_dataset(tmp_path / "in")
    for study in ("s1", "s2"):
        values = low + np.abs(rng.normal(4, 1, (14, 12, 10)))
        write_statmap(root, "z", values, study=study, space="MNI152NLin6Asym", contrast="c")
    words = ("--estimator", "stouffer", "--inference", "fdr", "--mask", "data", "--no-report")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    assert "no negative value" not in ran.stderr


@pytest.mark.parametrize(("low", "high"), [(-0.7, 0.7), (0.0, 6.0)])
def test_what_is_no_p_is_refused_on_import(low, high, tmp_path, write_statmap, ibma_import):
    values = np.random.default_rng(6).uniform(low, high, SHAPE)
    path = write_statmap(tmp_path, "p", values, study="s2", contrast="c").rename(tmp_path / "m.nii.gz")
    (tmp_path / "t.tsv").write_text(f"study_id\tpath\tkind\tcontrast\ns2\t{path}\tp\tc\n")
    ran = ibma_import("table", tmp_path / "t.tsv", tmp_path / "maps", "--space", "MNI152NLin6Asym")
    assert ran.code == 65
    assert "is no p map: its values run from" in ran.stderr
    assert "Save 10 to the power of minus its values" in ran.stderr


@pytest.mark.parametrize(("kind", "mark"), [("t", -999.0), ("z", 1e30), ("effect", 9999.0), ("effect", -3.4e38)])
def test_a_mark_of_missing_values_is_no_value(kind, mark, tmp_path, write_statmap, describe_dataset, cli):
    rng, shape = np.random.default_rng(6), (10, 8, 6)
    root = describe_dataset(tmp_path / "in")
    for study in ("s1", "s2", "s3"):
        values = rng.normal(0.5, 1, shape)
        if study == "s2":
            values[0] = mark
        odd = write_statmap(root, kind, values, study=study, space="MNI152NLin6Asym", contrast="c")
        if study == "s2":
            marked = odd, values
    words = ("--estimator", "ols" if kind == "effect" else "stouffer", "--inference", "fdr", "--mask", "data")
    words = (*words, "--no-report", "--units", "assume-same")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 65, ran.stderr
    assert f"has the value {mark:g} in 48 voxels and none beyond" in ran.stderr
    assert "Set these voxels to NaN or 0." in ran.stderr
    values = np.where(marked[1] == mark, np.nan, marked[1])  # the advice
    write_statmap(root, kind, values, study="s2", space="MNI152NLin6Asym", contrast="c")
    ran = cli(root, tmp_path / "out", "group", *words, "--min-coverage", "0.6")
    assert ran.code == 0, ran.stderr
    (n,) = (tmp_path / "out").rglob("*_stat-n_statmap.nii.gz")
    counts = nib.load(n).get_fdata()
    assert (counts[0] == 2).all()
    assert (counts[1:] == 3).all()


def test_large_values_that_are_no_marks_are_taken(tmp_path, write_statmap, describe_dataset, cli):
    rng, shape = np.random.default_rng(6), (10, 8, 6)
    root = describe_dataset(tmp_path / "in")
    for study in ("s1", "s2", "s3"):  # a scale that ends, as of integers; a strong region of one value
        values = np.minimum(rng.normal(20, 20, shape), 60.0)
        write_statmap(root, "t", values, study=study, space="MNI152NLin6Asym", contrast="c")
    words = ("--estimator", "stouffer", "--inference", "fdr", "--mask", "data", "--no-report")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr


def test_a_variance_that_is_negative_in_many_voxels_is_none(tmp_path, write_statmap, describe_dataset, cli):
    rng, shape = np.random.default_rng(6), (10, 8, 6)
    root = describe_dataset(tmp_path / "in")
    for study in ("s1", "s2", "s3"):
        names = {"study": study, "space": "MNI152NLin6Asym", "contrast": "c"}
        write_statmap(root, "effect", rng.normal(size=shape), metadata={"Units": "percent"}, **names)
        variance = rng.normal(size=shape) if study == "s2" else rng.uniform(0.5, 1, shape)
        write_statmap(root, "variance", variance, **names)
    words = ("--estimator", "reml", "--inference", "fdr", "--mask", "data", "--no-report")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 65, ran.stderr
    assert "study-s2_space-MNI152NLin6Asym_contrast-c_stat-variance_statmap.nii.gz is no variance map" in ran.stderr
