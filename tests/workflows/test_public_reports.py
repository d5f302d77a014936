"""Situations out of public bug reports of other programs, each named by its report, with the right outcome here."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.stats.tails import z_to_log10p

MNI = "MNI152NLin6Asym"
QUICK = ("--no-report", "--nprocs", "1")


@pytest.fixture
def subjects(tmp_path, describe_dataset, write_statmap):
    """Return ``subjects(volumes, **entities) -> root``: a dataset with one effect map of each subject."""

    def make(volumes, **entities) -> Path:
        root = describe_dataset(tmp_path / "in")
        for number, values in enumerate(volumes, start=1):
            names = {"space": "T1w", "contrast": "a", **entities, "sub": f"{number:02d}"}
            write_statmap(root, "effect", values, **names)
        return root

    return make


def one(out: Path, pattern: str) -> Path:
    (path,) = out.rglob(pattern)
    return path


def volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float64)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_one_study_that_is_left_says_how_many_were_lost_and_why(tmp_path, cli, describe_dataset, write_statmap, rng):
    """neurostuff/NiMARE#1112: of 12 analyses 11 lacked a kind; the one that was left gave NaN everywhere."""
    root = describe_dataset(tmp_path / "in")
    for number in range(4):
        names = {"study": f"s{number}", "space": MNI, "contrast": "a"}
        write_statmap(root, "variance" if number else "t", rng.uniform(0.5, 1, (4, 4, 3)), **names)
    ran = cli(root, tmp_path / "out", "group", *QUICK)
    assert ran.code == 65
    assert "3 map(s) of variance or dof without an effect, t, z or p beside them are left out" in ran.stderr
    assert "Only one map would be combined" in ran.stderr
    assert not list((tmp_path / "out").glob("group/*"))


def test_studies_of_one_collection_with_samples_of_their_own(tmp_path, cli, describe_dataset, write_statmap, rng):
    """neurostuff/NiMARE#583: several sample sizes in one collection; each map is weighted by its own."""
    root = describe_dataset(tmp_path / "in")
    z, sizes = rng.normal(0.5, 1, (3, 4, 4, 3)), (12, 30, 55)
    for number, size in enumerate(sizes):
        names = {"study": f"c{number}", "space": MNI, "contrast": "a"}
        write_statmap(root, "z", z[number], metadata={"SampleSize": size}, **names)
    ran = cli(root, tmp_path / "out", "group", "--estimator", "stouffer-weighted", "--inference", "fdr", *QUICK)
    assert ran.code == 0, ran.stderr
    weights = np.sqrt(np.array(sizes, dtype=float))
    expected = np.tensordot(weights, z, axes=1) / np.sqrt((weights**2).sum())
    np.testing.assert_allclose(
        volume(one(tmp_path / "out", "*_desc-stoufferWeighted_stat-z_*.gz")), expected, atol=1e-5
    )


@pytest.mark.parametrize("cluster_p", ["0.4999", "0.3", "1e-12"])
def test_clusters_at_any_threshold_and_on_plateaus(tmp_path, cli, subjects, rng, cluster_p):
    """nilearn/nilearn#2955: a low threshold raised an AxisError, as there was no local maximum on a plateau."""
    volumes = rng.normal(0, 0.1, (6, 1, 1, 1)) + np.where(np.indices((6, 6, 5))[0] < 3, 1.0, -1.0)  # two plateaus
    root = subjects(volumes)
    words = ("--estimator", "ols", "--inference", "uncorrected", "--cluster-p", cluster_p)
    ran = cli(root, tmp_path / "out", "group", *words, *QUICK)
    assert ran.code == 0, ran.stderr
    rows = table(one(tmp_path / "out", "*_clusters.tsv"))
    sizes = [int(row["n_voxels"]) for row in rows if row["n_voxels"] != "n/a"]
    assert sizes == ([] if cluster_p == "1e-12" else [90, 90])


def test_large_clusters_are_the_same_whatever_the_smallest_size(tmp_path, cli, subjects, rng):
    """nilearn/nilearn#3200: peaks of large clusters changed with the threshold of size."""
    root = subjects(rng.normal(0.45, 1, (8, 12, 12, 10)))
    rows = {}
    for extent in ("0", "5"):
        words = ("--estimator", "ols", "--inference", "uncorrected", "--cluster-p", "0.05", "--min-extent", extent)
        assert cli(root, tmp_path / extent, "group", *words, *QUICK).code == 0
        found = table(one(tmp_path / extent, "*_clusters.tsv"))
        sizes = {row["cluster_id"]: int(row["n_voxels"]) for row in found if row["n_voxels"] != "n/a"}
        kept = [row for row in found if sizes[re.match(r"\d+", row["cluster_id"])[0]] >= 5]
        rows[extent] = [{key: value for key, value in row.items() if key != "cluster_id"} for row in kept]
        if extent == "5":
            assert len(kept) == len(found)
    assert len(rows["5"]) > 3
    assert rows["0"] == rows["5"]


def test_tests_written_as_sums_are_resampled_like_fitted(tmp_path, cli, subjects, rng):
    """nilearn/nilearn#3807 and #4140: 'female-male' worked in the model and failed in its permutation test."""
    values = rng.normal(0.5, 1, (10, 5, 4, 3))
    root = subjects(values)
    sex = ["female" if number % 2 else "male" for number in range(10)]
    rows = [f"sub-{number + 1:02d}\t{label}" for number, label in enumerate(sex)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tsex", *rows]) + "\n")
    words = (
        "--formula",
        "0 + C(sex)",
        "--test",
        "d=C(sex)[female]-C(sex)[male]",
        "m=0.5*C(sex)[female]+0.5*C(sex)[male]",
    )
    words = (*words, "--estimator", "ols", "--inference", "max-stat", "--permutations", "200", *QUICK)
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    female = np.array([label == "female" for label in sex])
    difference = values[female].mean(axis=0) - values[~female].mean(axis=0)
    np.testing.assert_allclose(volume(one(tmp_path / "out", "*_test-d_*_stat-effect_*.gz")), difference, atol=1e-6)
    corrected = volume(one(tmp_path / "out", "*_test-d_*_corr-maxStat_stat-log10p_*.gz"))
    assert corrected.max() <= np.log10(200) + 1e-6
    t = np.abs(volume(one(tmp_path / "out", "*_test-d_*_stat-t_*.gz")))
    assert (np.diff(corrected.ravel()[np.argsort(t.ravel())]) >= 0).all()  # of the same statistic


def test_runs_numbered_with_and_without_zeros_are_runs_of_one_subject(
    tmp_path, cli, describe_dataset, write_statmap, rng
):
    """bids-standard/pybids#381, nipreps/fmriprep#2666: run-01 became run-1 on the way, and no longer matched."""
    root = describe_dataset(tmp_path / "in")
    effects = rng.normal(1, 1, (2, 4, 4, 3))
    for run, effect in zip(("01", "2"), effects, strict=True):
        names = {"sub": "01", "task": "x", "space": "T1w", "contrast": "a", "run": run}
        write_statmap(root, "effect", effect, metadata={"DegreesOfFreedom": 50}, **names)
        write_statmap(root, "variance", np.full((4, 4, 3), 0.5), **names)
    ran = cli(root, tmp_path / "out", "participant", *QUICK)
    assert ran.code == 0, ran.stderr
    np.testing.assert_allclose(
        volume(one(tmp_path / "out", "sub-01*_stat-effect_*.gz")), effects.mean(axis=0), atol=1e-6
    )


def test_one_run_under_two_spellings_is_no_second_run(tmp_path, cli, describe_dataset, write_statmap, rng):
    """poldracklab/fitlins#408: some outputs are padded and some are not; the same run must not count twice."""
    root = describe_dataset(tmp_path / "in")
    effect = rng.normal(1, 1, (4, 4, 3))
    for run in ("1", "01"):
        names = {"sub": "01", "task": "x", "space": "T1w", "contrast": "a", "run": run}
        write_statmap(root, "effect", effect, metadata={"DegreesOfFreedom": 50}, **names)
        write_statmap(root, "variance", np.full((4, 4, 3), 0.5), **names)
    ran = cli(root, tmp_path / "out", "participant", *QUICK)
    assert ran.code == 16, ran.stderr
    assert "run-1" in ran.stderr
    assert "run-01" in ran.stderr


@pytest.mark.parametrize("slope", [1.0, 0.9999847, 1.0000153])
def test_masks_whose_ones_are_not_quite_one(tmp_path, cli, subjects, rng, slope):
    """nipy/nibabel#1001: after some saving as scaled integers, a mask's 1 is 0.99998, and == 1 empties it."""
    values = rng.normal(1, 1, (6, 4, 4, 3))
    root, inside = subjects(values), np.zeros((4, 4, 3), np.int16)
    inside[1:3] = 1
    affine = nib.load(min(root.rglob("*.nii.gz"))).affine
    image = nib.Nifti1Image(inside, affine)
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / "mask.nii.gz")
    words = ("--estimator", "ols", "--inference", "fdr", "--mask", tmp_path / "mask.nii.gz")
    ran = cli(root, tmp_path / "out", "group", *words, *QUICK)
    assert ran.code == 0, ran.stderr
    effect = volume(one(tmp_path / "out", "*_stat-effect_*.gz"))
    np.testing.assert_allclose(effect, np.where(inside > 0, values.mean(axis=0), 0), atol=1e-6)


def test_maps_saved_in_an_integer_header_by_mistake(tmp_path, cli, subjects, rng):
    """nipy/nibabel#1003: floats in an image whose header says uint8 are scaled; used as the file has them."""
    values = rng.normal(1, 1, (6, 4, 4, 3))
    root = subjects(values)
    path = min(root.rglob("*.nii.gz"))
    image = nib.load(path, mmap=False)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.set_data_dtype(np.uint8)
    image.to_filename(path)
    stored = volume(path)
    assert np.abs(stored - values[0]).max() > 1e-3
    ran = cli(root, tmp_path / "out", "group", "--estimator", "ols", "--inference", "fdr", *QUICK)
    assert ran.code == 0, ran.stderr
    expected = (values[1:].sum(axis=0) + stored) / 6
    np.testing.assert_allclose(volume(one(tmp_path / "out", "*_stat-effect_*.gz")), expected, atol=1e-6)


def test_subjects_without_a_value_are_named_and_the_advice_leaves_them_out(tmp_path, cli, subjects, rng):
    """HALFpipe/HALFpipe#736: missing covariates; who is left out is the user's choice, and is said."""
    values = rng.normal(1, 1, (8, 4, 4, 3))
    root = subjects(values)
    ages = ["21", "n/a", "35", "44", "", "52", "29", "60"]
    rows = [f"sub-{number + 1:02d}\t{age}" for number, age in enumerate(ages)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tage", *rows]) + "\n")
    words = ("group", "--formula", "1 + age", "--test", "age=age", "--estimator", "ols", "--inference", "fdr", *QUICK)
    ran = cli(root, tmp_path / "out", *words)
    assert ran.code == 65
    assert "02" in ran.stderr
    assert "05" in ran.stderr
    advised = re.search(r"--exclude-participant-label ([\d ]+)", ran.stderr)
    assert advised, ran.stderr
    ran = cli(root, tmp_path / "out", *words, "--exclude-participant-label", *advised[1].split())
    assert ran.code == 0, ran.stderr
    kept = [index for index, age in enumerate(ages) if age not in ("n/a", "")]
    x = np.array([float(ages[index]) for index in kept])
    slope = np.tensordot((x - x.mean()) / ((x - x.mean()) ** 2).sum(), values[kept], axes=1)
    np.testing.assert_allclose(volume(one(tmp_path / "out", "*_test-age_*_stat-effect_*.gz")), slope, atol=1e-6)


def test_labels_that_mix_numbers_and_letters(tmp_path, cli, describe_dataset, write_statmap, rng):
    """cpp-lln-lab/bidspm#1017: subjects 001, 002, pil004: chosen by label, with or without sub-."""
    root = describe_dataset(tmp_path / "in")
    labels = ("001", "002", "017", "pil004", "pil005")
    values = rng.normal(1, 1, (5, 4, 4, 3))
    for label, effect in zip(labels, values, strict=True):
        write_statmap(root, "effect", effect, sub=label, space="T1w", contrast="a")
    chosen = ("--participant-label", "001", "sub-017", "pil004", "sub-pil005")
    ran = cli(root, tmp_path / "out", "group", *chosen, "--estimator", "ols", "--inference", "fdr", *QUICK)
    assert ran.code == 0, ran.stderr
    expected = values[[0, 2, 3, 4]].mean(axis=0)
    np.testing.assert_allclose(volume(one(tmp_path / "out", "*_stat-effect_*.gz")), expected, atol=1e-6)
    rows = table(one(tmp_path / "out", "*_design.tsv"))
    assert [row["participant_id"] for row in rows] == ["sub-001", "sub-017", "sub-pil004", "sub-pil005"]


def test_peaks_have_their_p(tmp_path, cli, subjects, rng):
    """nilearn/nilearn#2392: a table of peaks without p; ours is that of the inference, and the map's own."""
    root = subjects(rng.normal(1.2, 1, (9, 5, 5, 4)))
    ran = cli(root, tmp_path / "out", "group", "--estimator", "ols", "--inference", "bonferroni", *QUICK)
    assert ran.code == 0, ran.stderr
    rows = table(one(tmp_path / "out", "*_clusters.tsv"))
    assert rows
    for row in rows:
        expected = max(z_to_log10p(np.array([float(row["peak_z"])]), "two-sided")[0] - np.log10(100), 0)
        assert float(row["log10p"]) == pytest.approx(expected, abs=1e-6)
    sidecar = json.loads(one(tmp_path / "out", "*_clusters.json").read_text())
    assert "log10p" in sidecar


@pytest.mark.parametrize(("written", "shown"), [("{}", "1"), ("{}.0", "1.0"), ("sub-{}", "1")])
def test_labels_that_a_spreadsheet_made_numbers_of_are_recognised(tmp_path, cli, subjects, rng, written, shown):
    """bids-standard/pybids#2 and its kin: sub-01 beside a table with 1 or 1.0: nothing matches, and why?"""
    root = subjects(rng.normal(1, 1, (6, 4, 4, 3)))
    rows = [f"{written.format(number)}\t{20 + number**2}" for number in range(1, 7)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tage", *rows]) + "\n")
    words = ("group", "--formula", "1 + age", "--test", "age=age", "--estimator", "ols", "--inference", "fdr", *QUICK)
    ran = cli(root, tmp_path / "out", *words)
    assert ran.code == 65
    assert f"It calls them {shown} instead of 01 and so on" in ran.stderr
    rows = [f"{number:02d}\t{20 + number**2}" for number in range(1, 7)]  # the advice
    (root / "participants.tsv").write_text("\n".join(["participant_id\tage", *rows]) + "\n")
    assert cli(root, tmp_path / "out", *words).code == 0


@pytest.mark.parametrize(
    ("ending", "advice"),
    [(".NII.GZ", "small letters"), (".img", "fslchfiletype"), (".BRIK", "ibma-import afni"), (".mgz", "mri_convert")],
)
def test_images_in_other_formats_are_said_to_be_there(tmp_path, cli, subjects, rng, ending, advice):
    """Of no report but of their kind: a folder that looks full, and nothing is found in it."""
    root = subjects(rng.normal(1, 1, (6, 4, 4, 3)))
    for path in list(root.rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.replace(".nii.gz", ending)))
    ran = cli(root, tmp_path / "out", "group", *QUICK)
    assert ran.code == 18
    assert "There are 6 files such as sub-01/func/sub-01_space-T1w_contrast-a_stat-effect_statmap" in ran.stderr
    assert advice in ran.stderr
    if ending == ".NII.GZ":  # the advice
        for path in list(root.rglob("*.NII.GZ")):
            path.rename(path.with_name(path.name.replace(".NII.GZ", ".nii.gz")))
        assert cli(root, tmp_path / "out", "group", "--inference", "fdr", *QUICK).code == 0
