"""Names taken apart and put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibma_app.dataset.entities import order_entities, output_name, same_label, split_name

LABELS = st.text("abcXYZ0189", min_size=1, max_size=6)
KEYS = st.sampled_from(["sub", "ses", "task", "run", "space", "res", "feature", "foo", "contrast", "desc"])


def test_parse_any_pair():
    name = "sub-01_task-x_feature-y_foo-7_taskcontrast-a+b_stat-t_statmap.nii.gz"
    entities, suffix, extension, fault = split_name(name)
    assert list(entities.items()) == [
        ("sub", "01"),
        ("task", "x"),
        ("feature", "y"),
        ("foo", "7"),
        ("contrast", "a+b"),
        ("stat", "t"),
    ]
    assert (suffix, extension, fault) == ("statmap", ".nii.gz", None)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("sub-01_contrast-face-house_stat-effect_statmap.nii.gz", 'rename to "contrast-faceMinusHouse"'),
        ("sub-01_contrast-face_house_stat-effect_statmap.nii", 'rename to "contrast-faceHouse"'),
        ("sub-01_contrast-a.b_stat-t_statmap.nii.gz", 'rename to "contrast-ab"'),
        ("sub-01_desc-a_desc-b_statmap.nii.gz", 'two labels for "desc"'),
        ("sub-01_contrast-_statmap.nii.gz", 'give "contrast" a label'),
        ("sub-01_contrast-a.nii.gz", "no suffix"),
        ("face_statmap.nii.gz", 'piece "face"'),
    ],
)
def test_faults_come_with_a_cure(name, cure):
    fault = split_name(name).fault
    assert fault is not None
    assert cure in fault


def test_faulty_labels_can_still_be_filtered():
    assert split_name("sub-01_contrast-face-house_statmap.nii").entities["contrast"] == "face-house"


@given(st.dictionaries(KEYS, LABELS, min_size=1))
def test_names_survive_the_round_trip(entities):
    name = output_name(entities, "statmap")
    parsed, suffix, extension, fault = split_name(name)
    assert parsed == entities
    assert list(parsed) == list(order_entities(entities))
    assert (suffix, extension, fault) == ("statmap", ".nii.gz", None)


def test_output_order():
    entities = dict.fromkeys(
        ("stat", "corr", "desc", "test", "contrast", "res", "space", "foo", "run", "task", "ses", "sub"), "a"
    )
    assert output_name(entities, "statmap") == (
        "sub-a_ses-a_task-a_run-a_foo-a_space-a_res-a_contrast-a_test-a_desc-a_corr-a_stat-a_statmap.nii.gz"
    )


def test_indices_are_numbers():
    assert same_label("run", "1", "01")
    assert not same_label("sub", "1", "01")
