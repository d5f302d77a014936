"""The levels from Python: the same bytes as the command line, and no file unless asked."""

import gc
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import ibma_app
from ibma_app.core.errors import DataError, IbmaError, UsageError

SHAPE = (8, 8, 8)
QUICK = {"inference": ["fdr", "max-stat"], "permutations": 100, "report": False}


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(7)
    return pd.DataFrame({"participant_id": [f"{n:02}" for n in range(1, 11)], "age": rng.normal(40, 8, 10).round(1)})


@pytest.fixture(scope="module")
def subjects(tmp_path_factory, describe_dataset, write_statmap, people):
    """Ten subjects' effects, active in one half."""
    root = describe_dataset(tmp_path_factory.mktemp("subjects"))
    people.to_csv(root / "participants.tsv", sep="\t", index=False)
    rng = np.random.default_rng(8)
    active = np.indices(SHAPE)[0] > 3
    paths = [
        write_statmap(root, "effect", rng.normal(size=SHAPE) + 2.0 * active, sub=label, contrast="faces")
        for label in people["participant_id"]
    ]
    return root, paths


def _files(folder: Path) -> dict[str, bytes]:
    """Read all that is no log, by the path within the dataset."""
    kept = [path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


def test_same_bytes_as_the_command_line(cli, subjects, tmp_path):
    root, _ = subjects
    design = ("--formula", "1 + center(age)", "--test", "mean=intercept", "old=center(age)", "--estimator", "ols")
    words = (*design, "--inference", "fdr", "max-stat", "--permutations", "100", "--no-report")
    ran = cli(root, tmp_path / "shell", "group", *words)
    assert ran.code == 0, ran.stderr
    tests = ["mean=intercept", "old=center(age)"]
    results = ibma_app.group(root, tmp_path / "python", formula="1 + center(age)", test=tests, estimator="ols", **QUICK)
    ours, theirs = _files(tmp_path / "python"), _files(tmp_path / "shell")
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert sum(name.endswith(".nii.gz") for name in ours) > 10
    (result,) = results.values()
    assert list(result.tests) == ["mean", "old"]
    table = pd.read_csv(tmp_path / "shell/group/contrast-faces_test-mean_desc-ols_corr-fdr_clusters.tsv", sep="\t")
    assert result.tests["mean"].clusters["peak_z"].tolist() == table["peak_z"].tolist()


def test_images_and_a_table(subjects, people):
    """Images in memory give what their files give, to the bit."""
    _, paths = subjects
    design = {"formula": "1 + center(age)", "test": ["old=center(age)"], "estimator": "ols"}
    of_files = ibma_app.group(maps=paths, table=people, **design, **QUICK)
    of_images = ibma_app.group(maps=[nib.load(path) for path in paths], table=people[["age"]], **design, **QUICK)
    one, other = (np.asanyarray(result.tests["old"].z.dataobj) for result in (of_files, of_images))
    assert np.array_equal(one, other)
    effects = np.array([nib.load(path).get_fdata() for path in paths])
    age = people["age"] - people["age"].mean()
    expected = np.tensordot(age, effects, 1) / (age**2).sum()
    assert np.allclose(of_images.tests["old"].effect.get_fdata(), expected, atol=1e-6)


def test_bounds_and_absence(subjects):
    _, paths = subjects
    given = {**QUICK, "inference": ["max-stat"], "permutations": 60, "estimator": "ols", "equivalence": "50"}
    test = ibma_app.group(maps=paths, **given).tests["intercept"]
    lower, upper = (test.inferences["max-stat"].map(kind).get_fdata() for kind in ("lower", "upper"))
    assert (lower <= test.effect.get_fdata()).all()
    absent = test.absent.get_fdata()
    assert np.array_equal(absent > 0, (np.abs(lower) < 50) & (np.abs(upper) < 50) & (lower < upper))
    with pytest.raises(UsageError, match=r"max-stat has no map middle. There are: .*lower, upper"):
        test.inferences["max-stat"].map("middle")


def test_runs_of_one_subject(subjects):
    _, paths = subjects
    effects = [nib.load(path) for path in paths[:3]]
    variances = [nib.Nifti1Image(np.full(SHAPE, value), effects[0].affine) for value in (0.5, 1.0, 2.0)]
    result = ibma_app.combine_runs(maps={"effect": effects, "variance": variances}, dof=500, report=False)
    weights = np.array([2.0, 1.0, 0.5])
    expected = np.tensordot(weights, [effect.get_fdata() for effect in effects], 1) / weights.sum()
    assert np.allclose(result.tests["intercept"].effect.get_fdata(), expected, atol=1e-6)
    assert "precision-weighted fixed effects" in result.methods


def test_studies_and_the_page(subjects):
    _, paths = subjects
    studies = pd.DataFrame({"study_id": [f"S{n}" for n in range(10)], "sample_size": 25})
    result = ibma_app.group(
        maps={"t": paths}, table=studies, space="MNI152NLin6Asym", mask="data", estimator="stouffer", inference="fdr"
    )
    assert result.name == "space-MNI152NLin6Asym_contrast-maps"
    found = result.tests["intercept"].inferences["fdr"]
    assert found.n_significant == np.count_nonzero(found.mask.get_fdata()) > 100
    assert f"<td>{found.n_significant}</td>" in result._repr_html_()
    assert "&lt;!DOCTYPE html&gt;" in result.show()._repr_html_()


def test_no_file_is_left(subjects):
    _, paths = subjects
    result = ibma_app.group(maps=paths, estimator="ols", **QUICK)
    test = result.tests["intercept"]
    folder = test.files["z"].parents[1]
    del result
    gc.collect()
    assert folder.is_dir()  # a part of the result keeps what it may still read
    image = test.z
    del test
    gc.collect()
    assert not folder.exists()
    assert image.get_fdata().shape == SHAPE  # an image is whole


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Give a dataset, or maps"),
        ({"maps": {"beta": [1]}}, "no kind 'beta'. Kinds: effect, variance"),
        ({"maps": {"effect": [1, 2], "variance": [1]}}, "2 of effect, 1 of variance"),
        ({"maps": [1, 2], "table": pd.DataFrame({"age": [1]})}, "2 of effect, 1 of table"),
        ({"maps": ["map.img"]}, "is no NIfTI or CIFTI file"),
        ({"maps": [], "formla": "1"}, "Did you mean formula?"),
    ],
)
def test_wrong_calls(given, words):
    with pytest.raises(UsageError) as raised:
        ibma_app.group(**given)
    assert words in str(raised.value)


def test_errors_are_those_of_the_command_line(subjects):
    _, paths = subjects
    with pytest.raises(IbmaError, match="has no variance") as raised:
        ibma_app.group(maps=paths, estimator="reml", report=False)
    assert raised.value.code == DataError.code


def test_outputs_are_found_by_pybids(subjects, tmp_path):
    from bids.layout import BIDSLayout

    root, _ = subjects
    ibma_app.group(root, tmp_path / "out", estimator="ols", **QUICK)
    layout = BIDSLayout(tmp_path / "out", validate=False, config=[str(ibma_app.pybids_config)])
    (image,) = layout.get(contrast="faces", desc="ols", corr="fdr", stat="z", extension=".nii.gz")
    assert Path(image.path).name == "contrast-faces_desc-ols_corr-fdr_stat-z_statmap.nii.gz"
    assert image.get_metadata()["Estimator"]["Name"] == "ols"


def test_pybids_config_knows_our_entities():
    import json

    from ibma_app.dataset.entities import _FIRST, _LAST, LONG_NAMES

    patterns = " ".join(entry["pattern"] for entry in json.loads(ibma_app.pybids_config.read_text())["entities"])
    rare = {"sample", "tracksys", "ce", "trc", "stain", "flip", "inv", "mt", "mod", "proc"}
    assert {key for key in (*_FIRST, *_LAST) if f"]{key}-(" not in patterns} <= rare
    assert set(LONG_NAMES.values()) >= {"contrast", "test", "corr", "stat"}
