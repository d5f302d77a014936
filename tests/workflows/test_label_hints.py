"""Labels that are spelled another way than the data's: the message asks for the right one, which then works."""

import re

import numpy as np
import pytest

MNI = "MNI152NLin6Asym"


@pytest.fixture(scope="module")
def maps(tmp_path_factory, describe_dataset, write_statmap):
    """A dataset of subjects with sessions, and one of studies."""
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("labels")
    subjects, studies = describe_dataset(folder / "subjects"), describe_dataset(folder / "studies")
    for number in range(1, 5):
        for session in ("01", "02"):
            names = {"sub": f"{number:03d}", "ses": session, "task": "rest", "space": MNI, "contrast": "goGtStop"}
            write_statmap(subjects, "effect", rng.normal(size=(3, 3, 2)), **names)
        names = {"study": f"Smith200{number}", "task": "rest", "space": MNI, "contrast": "goGtStop"}
        write_statmap(studies, "z", rng.normal(size=(3, 3, 2)), **names)
    return folder


@pytest.mark.parametrize(
    ("data", "words", "wrong", "right"),
    [
        ("subjects", "--session-label 01 --participant-label {}", "1 2 4", "001 002 004"),
        ("subjects", "--session-label 01 --participant-label {}", "01 0002", "001 002"),
        ("subjects", "--session-label {}", "1", "01"),
        ("subjects", "--session-label 01 --task-id {}", "Rest", "rest"),
        ("subjects", "--session-label 01 --task-id {}", "restt", "rest"),
        ("subjects", "--session-label 01 --contrast {}", "gogtstop", "goGtStop"),
        ("subjects", "--session-label 01 --space {}", "MNI152nlin6asym", MNI),
        ("studies", "--study-label {}", "smith2001 smith2003", "Smith2001 Smith2003"),
    ],
)
def test_a_label_spelled_another_way_is_asked_for(data, words, wrong, right, maps, tmp_path, cli):
    how = ("--dry-run", "--inference", "fdr")
    ran = cli(maps / data, tmp_path / "out", "group", *words.format(wrong).split(), *how)
    assert ran.code == 18, ran.stderr
    said = re.search(r"Did you mean (.*)\?", ran.stderr)
    assert said, ran.stderr
    assert said[1] == right
    then = cli(maps / data, tmp_path / "out", "group", *words.format(said[1]).split(), *how)
    assert then.code == 0, then.stderr


def test_some_labels_are_there_and_some_spelled_another_way(maps, tmp_path, cli):
    words = ("--session-label", "01", "--dry-run", "--participant-label", "001", "002", "3", "9", "sub-17")
    ran = cli(maps / "subjects", tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    assert "No selected map has sub-3, sub-9, sub-17 (there are: 001, 002). Did you mean 003?" in ran.stderr


@pytest.mark.parametrize("wrong", ["103", "9", "xy"])
def test_no_other_subject_is_proposed(wrong, maps, tmp_path, cli):
    ran = cli(maps / "subjects", tmp_path / "out", "group", "--participant-label", wrong, "--dry-run")
    assert ran.code == 18
    assert "(there are: 001, 002, 003, 004)" in ran.stderr
    assert "Did you mean" not in ran.stderr
