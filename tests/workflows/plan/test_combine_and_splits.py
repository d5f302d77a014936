"""What is combined over (any entity), and maps that stay apart by a label: named, with advice that works."""

import re

import nibabel as nib
import numpy as np
import pytest

SHAPE = (3, 4, 2)


@pytest.fixture
def dataset(tmp_path, describe_dataset):
    return describe_dataset(tmp_path / "in")


def one_map(root, pattern):
    (path,) = root.rglob(pattern)
    return nib.load(path).get_fdata()


def write_runs(root, write_statmap, rng, labels, subjects=("01", "02", "03")):
    """Write effect and variance of each subject for each set of labels; return both (subjects, labels, X, Y, Z)."""
    effect = rng.normal(1.0, 1.0, (len(subjects), len(labels), *SHAPE))
    variance = rng.uniform(0.2, 0.9, effect.shape)
    for row, sub in enumerate(subjects):
        for column, entities in enumerate(labels):
            for kind, values in (("effect", effect), ("variance", variance)):
                write_statmap(root, kind, values[row, column], sub=sub, task="x", contrast="a", **entities)
    return effect, variance


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("direction",), ({"dir": "LR"}, {"dir": "RL"})),
        (("dir",), ({"dir": "LR"}, {"dir": "RL"})),
        (("acquisition",), ({"acq": "mb4"}, {"acq": "mb8"}, {})),
        (("echo",), ({"echo": "1"}, {"echo": "2"})),
        (("run", "dir"), tuple({"run": run, "dir": way} for run in "12" for way in ("LR", "RL"))),
    ],
)
def test_any_entity_is_combined_over(dataset, tmp_path, cli, write_statmap, rng, words, labels):
    effect, variance = write_runs(dataset, write_statmap, rng, labels)
    ran = cli(dataset, tmp_path / "out", "participant", "--dof", 50, "--combine", *words, "--no-report")
    assert ran.code == 0, ran.stderr
    assert "kept apart" not in ran.stderr
    expected = (effect / variance).sum(axis=1) / (1 / variance).sum(axis=1)
    for row, sub in enumerate(("01", "02", "03")):
        found = one_map(tmp_path / "out" / f"sub-{sub}", "*stat-effect_statmap.nii.gz")
        np.testing.assert_allclose(found, expected[row], rtol=1e-5)


@pytest.mark.parametrize(
    ("word", "message"), [("contrast", "not repetitions"), ("space", "not repetitions"), ("foo", "no map carries")]
)
def test_what_cannot_be_combined_over(dataset, tmp_path, cli, write_statmap, rng, word, message):
    write_runs(dataset, write_statmap, rng, ({"dir": "LR"}, {"dir": "RL"}))
    ran = cli(dataset, tmp_path / "out", "participant", "--combine", word)
    assert ran.code == 64
    assert message in ran.stderr
    assert "dir, run, ses, task" in ran.stderr


def advised(text, level):
    """Return the options that a message advises for a level, e.g. of ``participant --combine run dir``."""
    return re.search(rf"{level} (--combine [a-z ]+?)[.)]", text)[1].split()


@pytest.mark.parametrize(
    ("key", "one", "other"), [("dir", "LR", "RL"), ("rec", "a", "b"), ("part", "mag", "phase"), ("echo", "1", "2")]
)
def test_the_advice_about_repetitions_works_at_both_levels(dataset, tmp_path, cli, rng, key, one, other):
    effect, variance = rng.normal(1, 1, (3, 2, *SHAPE)), rng.uniform(0.2, 0.9, (3, 2, *SHAPE))
    for row in range(3):
        for column, label in enumerate((one, other)):
            for kind, values in (("effect", effect), ("variance", variance)):
                name = f"sub-0{row}_task-x_{key}-{label}_contrast-a_stat-{kind}_statmap.nii.gz"
                path = dataset / f"sub-0{row}" / "func" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                affine = np.diag([4.0, 4, 4, 1])
                nib.Nifti1Image(values[row, column].astype(np.float32), affine).to_filename(path)
    common = ("--no-report", "--dof", 50)
    apart = cli(dataset, tmp_path / "apart", "participant", *common)
    assert f"3 participant(s) have maps that differ only in {key}- ({key}-{one}, {key}-{other})" in apart.stderr
    assert f"--combine run {key} combines them" in apart.stderr
    refused = cli(dataset, tmp_path / "refused", "group", "--no-report", "--pool", key)
    assert refused.code == 16
    warned = cli(dataset, tmp_path / "warned", "group", "--no-report", "--estimator", "ols")
    assert f"kept apart by {key}-: 3 with {key}-{one}, 3 with {key}-{other}" in warned.stderr
    for text in (refused.stderr, warned.stderr):
        out = tmp_path / f"out-{len(text)}"
        assert cli(dataset, out, "participant", *common, *advised(text, "participant")).code == 0
        ran = cli(dataset, out, "group", "--no-report", "--estimator", "ols")
        assert ran.code == 0, ran.stderr
        assert "apart" not in ran.stderr
        expected = ((effect / variance).sum(axis=1) / (1 / variance).sum(axis=1)).mean(axis=0)
        np.testing.assert_allclose(one_map(out / "group", "*stat-effect_statmap.nii.gz"), expected, rtol=1e-4)


def test_maps_of_runs_are_told_what_else_tells_them_apart(dataset, tmp_path, cli, write_statmap, rng):
    write_runs(dataset, write_statmap, rng, tuple({"run": run, "dir": way} for run in "12" for way in ("LR", "RL")))
    ran = cli(dataset, tmp_path / "out", "group")
    assert ran.code == 16
    assert "participant --combine run dir)" in ran.stderr


SPLITS = {
    "acq": (({"acq": "mb4"}, {}), "split by acq-: 7 with acq-mb4, 5 without acq-", "--pool acq"),
    "res": (({"res": "2"}, {}), "split by res-: 7 with res-2, 5 without res-", "--pool res"),
    "ses": (({"ses": "1"}, {}), "split by ses-: 7 with ses-1, 5 without ses-", "--pool ses"),
    "dir": (({"dir": "LR"}, {"dir": "RL"}), "split by dir-: 7 with dir-LR, 5 with dir-RL", "--pool dir"),
    "both": (({"ses": "1", "acq": "b"}, {}), "split by acq-, ses-: 7 with acq-b ses-1, 5 without", "--pool acq ses"),
    "contrast": (
        ({"contrast": "FacesGtShapes"}, {"contrast": "facesGtShapes"}),
        "contrast-, which is spelled in several ways: 7 with contrast-FacesGtShapes, 5 with contrast-facesGtShapes",
        "--contrast FacesGtShapes facesGtShapes --pool contrast",
    ),
    "task": (
        ({"task": "nback"}, {"task": "Nback"}),
        "task-, which is spelled in several ways: 5 with task-Nback, 7 with task-nback",
        "--task-id Nback nback --pool task",
    ),
    "words": (
        ({"contrast": "faces"}, {"contrast": "facesMinusShapes"}),
        "split by contrast-: 7 with contrast-faces, 5 with contrast-facesMinusShapes",
        "--contrast faces facesMinusShapes --pool contrast",
    ),
}


@pytest.mark.parametrize("case", SPLITS)
def test_subjects_that_are_split_are_counted_and_pooled_as_advised(dataset, tmp_path, cli, write_statmap, rng, case):
    (first, second), counts, pool = SPLITS[case]
    effects = rng.normal(1, 1, (12, *SHAPE))
    for row, values in enumerate(effects):
        labels = {"task": "x", "contrast": "a", **(first if row < 7 else second)}
        write_statmap(dataset, "effect", values, sub=f"{row:02d}", **labels)
        if case == "contrast":  # another contrast, which all have, is not pooled with them
            write_statmap(dataset, "effect", -values, sub=f"{row:02d}", task="x", contrast="other")
    ran = cli(dataset, tmp_path / "apart", "group", "--estimator", "ols", "--no-report")
    (line,) = [line for line in ran.stderr.splitlines() if "split by" in line]
    assert line.startswith("warning: The 12 subjects")
    assert counts in line
    assert f"{pool} pools them" in line
    ran = cli(dataset, tmp_path / "pooled", "group", "--estimator", "ols", "--no-report", *pool.split())
    assert ran.code == 0, ran.stderr
    assert "split by" not in ran.stderr
    found = one_map(tmp_path / "pooled" / "group", "*stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(found, effects.mean(axis=0), rtol=1e-4)


def test_sessions_and_contrasts_that_all_have_are_no_split(dataset, tmp_path, cli, write_statmap, rng):
    for sub in ("01", "02", "03"):
        for ses, contrast in (("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")):
            write_statmap(dataset, "effect", rng.normal(size=SHAPE), sub=sub, ses=ses, contrast=contrast)
    ran = cli(dataset, tmp_path / "out", "group", "--dry-run")
    assert ran.code == 0
    assert "split" not in ran.stderr
    assert "apart" not in ran.stderr
