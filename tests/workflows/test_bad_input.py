"""Bad input: each its exit code, and words that name the file and the remedy; never a traceback."""

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

RNG = np.random.default_rng(7)
ENTITIES = {"task": "x", "space": "MNI152NLin2009cAsym", "contrast": "ab"}


@pytest.fixture
def subjects(tmp_path: Path, describe_dataset, write_statmap) -> Path:
    """Six subjects with effect, variance and dof, one map each, fit for the group level."""
    root = describe_dataset(tmp_path / "data")
    for number in range(1, 7):
        label = {"sub": f"{number:02d}", **ENTITIES}
        write_statmap(root, "effect", RNG.normal(1, 1, (4, 4, 4)), metadata={"DegreesOfFreedom": 100}, **label)
        write_statmap(root, "variance", RNG.uniform(0.5, 1, (4, 4, 4)), **label)
    rows = ["participant_id\tage\tiq", *(f"sub-{n:02d}\t{20 + n}\t{40 + 2 * n}" for n in range(1, 7))]
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


def one(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


def refused(ran, code: int, *words: str) -> None:
    """Check a refusal: its code, its words, no traceback."""
    assert ran.code == code, ran.stderr
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in ran.stderr, f"{word!r} is not in: {ran.stderr}"


def test_missing_variance(subjects: Path, tmp_path: Path, cli) -> None:
    one(subjects, "sub-03*stat-variance*").unlink()
    refused(
        cli(subjects, tmp_path / "out", "group", "--estimator", "reml"),
        65,
        "sub-03",
        "variance",
        "stat-t",
        "ols",
    )


def test_truncated_map(subjects: Path, tmp_path: Path, cli) -> None:
    path = one(subjects, "sub-02*stat-effect*.nii.gz")
    path.write_bytes(path.read_bytes()[:-60])
    refused(cli(subjects, tmp_path / "out", "group"), 74, str(path))


def test_two_spaces(subjects: Path, tmp_path: Path, cli, write_statmap) -> None:
    write_statmap(subjects, "effect", np.ones((4, 4, 4)), sub="01", task="x", space="T1w", contrast="ab")
    refused(cli(subjects, tmp_path / "out", "group"), 16, "T1w", "MNI152NLin2009cAsym", "--space")


def test_other_grid(subjects: Path, tmp_path: Path, cli, write_statmap) -> None:
    for kind in ("effect", "variance"):
        write_statmap(subjects, kind, np.ones((5, 4, 4)), sub="04", **ENTITIES)
    refused(cli(subjects, tmp_path / "out", "group"), 16, "sub-04", "--grid")


def test_one_subject_only(subjects: Path, tmp_path: Path, cli) -> None:
    refused(cli(subjects, tmp_path / "out", "group", "--participant-label", "01"), 65, "sub-01", "one map")


def test_duplicate_key(subjects: Path, tmp_path: Path, cli) -> None:
    path = one(subjects, "sub-01*stat-effect*.nii.gz")
    twin = path.with_name(path.name.removesuffix(".gz"))
    twin.write_bytes(gzip.decompress(path.read_bytes()))
    refused(cli(subjects, tmp_path / "out", "group"), 16, str(path), str(twin))


def test_contrast_with_a_dash(subjects: Path, tmp_path: Path, cli) -> None:
    path = one(subjects, "sub-01*stat-effect*.nii.gz")
    path.rename(path.with_name(path.name.replace("contrast-ab", "contrast-a-b")))
    refused(cli(subjects, tmp_path / "out", "group"), 16, "contrast-a-b")


def test_rank_deficient_formula(subjects: Path, tmp_path: Path, cli) -> None:
    refused(cli(subjects, tmp_path / "out", "group", "--formula", "1 + age + iq"), 65, "age", "iq")


def test_covariate_missing_for_one(subjects: Path, tmp_path: Path, cli) -> None:
    table = subjects / "participants.tsv"
    table.write_text(table.read_text().replace("sub-05\t25", "sub-05\tn/a"))
    refused(
        cli(subjects, tmp_path / "out", "group", "--formula", "1 + age"),
        65,
        "sub-05",
        "age",
        "participants.tsv",
    )


def test_filter_that_selects_nothing(subjects: Path, tmp_path: Path, cli) -> None:
    ran = cli(subjects, tmp_path / "out", "group", "--contrast", "nothere")
    refused(ran, 18, "nothere", "ab")
    assert not (tmp_path / "out").exists()


def test_filter_file_that_leaves_the_effects_out(subjects: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "filter.json").write_text('{"effect": {"desc": "nothing"}}')
    words = ("group", "--bids-filter-file", tmp_path / "filter.json")
    refused(cli(subjects, tmp_path / "out", *words), 18, "filter.json", "nothing", "leave out")


def test_a_column_that_is_not_there(subjects: Path, tmp_path: Path, cli) -> None:
    words = ("group", "--formula", "1 + agge")
    refused(cli(subjects, tmp_path / "out", *words), 65, "agge", "Did you mean age?", "participants.tsv")
    (subjects / "participants.tsv").unlink()
    refused(cli(subjects, tmp_path / "out", *words), 65, "agge", "no participants.tsv", "--covariates")


def test_unknown_estimator_prints_the_menu(subjects: Path, tmp_path: Path, cli) -> None:
    for level in ("participant", "group"):
        refused(
            cli(subjects, tmp_path / "out", level, "--estimator", "rmel"),
            64,
            "reml",
            "stouffer-rfx",
            "fisher",
        )


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("--inference", "frd"), 64, "fdr"),
        (("--alpha", "2"), 64, "--alpha"),
        (("--nosuchoption",), 64, "--nosuchoption"),
        (("--covariates", "nowhere.tsv"), 66, "nowhere.tsv"),
        (("--config-file", "nowhere.toml"), 66, "nowhere.toml"),
        (("--formula", "1 + height"), 65, "height"),
        (("--test", "a=nothing"), 65, "nothing"),
        (("--mem", "lots"), 64, "lots"),
    ],
)
def test_bad_words(subjects: Path, tmp_path: Path, cli, words, code: int, named: str) -> None:
    ran = cli(subjects, tmp_path / "out", "group", *words)
    assert ran.code in (code, 64), ran.stderr
    assert named in ran.stderr
    assert "Traceback" not in ran.stderr


def test_missing_dataset(tmp_path: Path, cli) -> None:
    refused(cli(tmp_path / "nowhere", tmp_path / "out", "participant"), 66, "nowhere")


def test_dataset_without_description(subjects: Path, tmp_path: Path, cli) -> None:
    (subjects / "dataset_description.json").unlink()
    refused(cli(subjects, tmp_path / "out", "group"), 16, "dataset_description.json")


def test_output_is_input(subjects: Path, cli) -> None:
    refused(cli(subjects, subjects, "group"), 64, "BIDS_DIR")


def test_output_in_a_file(subjects: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "file").write_text("mine")
    refused(cli(subjects, tmp_path / "file", "group"), 73, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: /proc serves instead, below")
def test_read_only_output(subjects: Path, tmp_path: Path, cli) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    refused(cli(subjects, locked / "out", "group"), 73, str(locked))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write, as /proc on Linux")
def test_output_that_nobody_can_make(subjects: Path, cli) -> None:
    refused(cli(subjects, "/proc/ibma-out", "group"), 73, "/proc/ibma-out")


def test_values_beyond_single_precision_stop_one_analysis(subjects: Path, tmp_path: Path, cli, write_statmap) -> None:
    """Missing voxels marked by huge numbers: the square of the effect is no number that a map can hold."""
    for path in sorted(subjects.rglob("*stat-effect*.nii.gz")):
        sub = path.name[4:6]
        write_statmap(
            subjects, "effect", np.full((4, 4, 4), float(sub) * 1e30), sub=sub, **{**ENTITIES, "contrast": "z"}
        )
    ran = cli(subjects, tmp_path / "out", "group", "--estimator", "ols")
    assert ran.code == 1
    assert "single precision" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list((tmp_path / "out" / "group").glob("*desc-ols_stat-effect_statmap.nii.gz"))


def test_runs_at_the_group_level(tmp_path: Path, cli, describe_dataset, write_statmap) -> None:
    root = describe_dataset(tmp_path / "runs")
    for sub in ("01", "02"):
        for run in ("1", "2"):
            write_statmap(root, "effect", np.ones((3, 3, 3)), sub=sub, run=run, **ENTITIES)
    refused(cli(root, tmp_path / "out", "group"), 16, "run-1", "participant level first")


def test_one_bad_participant_does_not_stop_the_others(subjects: Path, tmp_path: Path, cli) -> None:
    path = one(subjects, "sub-02*stat-effect*.nii.gz")
    path.write_bytes(b"")
    ran = cli(subjects, tmp_path / "out", "participant", "--no-report", "--nprocs", "2")
    refused(ran, 1, str(path))
    assert "sub-02" in ran.stderr.strip().splitlines()[-1]
    assert len(list((tmp_path / "out").glob("sub-*/func/*stat-effect*.nii.gz"))) == 5
    alone = cli(subjects, tmp_path / "alone", "participant", "--no-report", "--participant-label", "sub-02")
    refused(alone, 74, str(path))


def test_units_that_differ_between_studies(tmp_path: Path, cli, describe_dataset, write_statmap) -> None:
    root = describe_dataset(tmp_path / "studies")
    (root / "studies.tsv").write_text("study_id\tsample_size\n" + "".join(f"study-{s}\t20\n" for s in "abcde"))
    for study in "abcde":
        units = "percent" if study != "c" else "unknown"
        for kind, values in (("effect", RNG.normal(size=(3, 3, 3))), ("variance", np.full((3, 3, 3), 0.2))):
            write_statmap(root, kind, values, study=study, space="MNI152NLin6Asym", contrast="pain",
                          metadata={"Units": units, "DegreesOfFreedom": 19})  # fmt: skip
    mask = ("--mask", "data", "--no-report")
    refused(cli(root, tmp_path / "out", "group", "--estimator", "reml", *mask), 65, "study-c", "assume-same")
    ran = cli(root, tmp_path / "auto", "group", *mask)
    assert ran.code == 0, ran.stderr
    assert "units" in ran.stderr
    found = {path.name.split("_desc-")[1].split("_")[0] for path in (tmp_path / "auto" / "group").glob("*stat-z*.gz")}
    assert found == {"stoufferRfx", "stoufferWeighted"}
    sidecar = json.loads(next((tmp_path / "auto" / "group").glob("*desc-stoufferRfx_stat-z_statmap.json")).read_text())
    assert "study-c" in sidecar["Estimator"]["Reason"]


def test_swapped_folders(subjects: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in subjects.rglob("*"))
    refused(cli(tmp_path / "empty", subjects, "group", "--skip-bids-validation"), 73, "another dataset", "swapped")
    assert sorted(path.name for path in subjects.rglob("*")) == before
    (subjects / "dataset_description.json").unlink()
    ran = cli(tmp_path / "empty", subjects, "group", "--skip-bids-validation")
    assert ran.code == 73, ran.stderr
    assert "swapped" in ran.stderr
    assert sorted(path.name for path in subjects.rglob("*")) == [n for n in before if n != "dataset_description.json"]


def test_output_among_the_maps(subjects: Path, cli) -> None:
    refused(cli(subjects, subjects / "sub-01", "group"), 64, "sub-01", "derivatives")


def test_a_label_that_no_map_has_is_named(subjects: Path, tmp_path: Path, cli) -> None:
    ran = cli(subjects, tmp_path / "out", "group", "--participant-label", "01", "02", "03", "99", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "99" in ran.stderr
    assert "fewer than 5" in ran.stderr, "tau2 from three maps is hardly known"
    sidecar = json.loads(next((tmp_path / "out" / "group").glob("*stat-tau2_statmap.json")).read_text())
    assert any("fewer than 5" in warning for warning in sidecar["Warnings"])


def test_unreadable_sidecar_is_told(subjects: Path, tmp_path: Path, cli) -> None:
    path = one(subjects, "sub-04*stat-effect*.json")
    path.write_text("{bad")
    ran = cli(subjects, tmp_path / "out", "group", "--no-report")
    assert ran.code == 0, ran.stderr
    assert str(path) in ran.stderr


def test_earlier_files_are_named(subjects: Path, tmp_path: Path, cli) -> None:
    assert cli(subjects, tmp_path / "out", "group", "--formula", "1 + center(age)", "--no-report").code == 0
    ran = cli(subjects, tmp_path / "out", "group", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "earlier run" in ran.stderr
    assert "test-centerage" in ran.stderr


def test_an_estimator_does_not_depend_on_its_neighbours(subjects: Path, tmp_path: Path, cli) -> None:
    path = one(subjects, "sub-01*stat-variance*.nii.gz")
    image = nib.load(path)
    values = image.get_fdata(dtype=np.float32)
    values[:2] = 0
    nib.Nifti1Image(values, image.affine).to_filename(path)
    for name, estimators in (("alone", ["ols"]), ("beside", ["reml", "ols"])):
        ran = cli(subjects, tmp_path / name, "group", "--estimator", *estimators, "--no-report")
        assert ran.code == 0, ran.stderr
    alone, beside = (sorted((tmp_path / name / "group").glob("*desc-ols*.nii.gz")) for name in ("alone", "beside"))
    assert [path.name for path in alone] == [path.name for path in beside]
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in beside]
    n = nib.load(next((tmp_path / "beside" / "group").glob("*desc-reml_stat-n_statmap.nii.gz"))).get_fdata()
    assert not n[:2].any()
    assert (n[2:] == 6).all()


def test_dry_run_tells_what_would_fail(subjects: Path, tmp_path: Path, cli) -> None:
    refused(cli(subjects, tmp_path / "out", "group", "--formula", "1 + height", "--dry-run"), 65, "height")
    assert not (tmp_path / "out").exists()
