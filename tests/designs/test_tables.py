"""Tables of covariates: what is read, what is refused, and what a formula may name."""

import numpy as np
import pandas as pd
import pytest

from ibma_app.core.errors import DataError, InputError
from ibma_app.designs.build import build_design
from ibma_app.designs.tables import check_sample_sizes, collect_covariates, read_table, require_complete

TABLE = "participant_id\tage\tgroup\tscore\nsub-01\t20\ta\t1\n02\t30.5\tb\tn/a\nsub-03\tn/a\ta\t3\n"


def test_labels_are_bare_and_numbers_numeric(write):
    table = read_table(write(TABLE), "participant_id")
    assert list(table.index) == ["01", "02", "03"]
    np.testing.assert_array_equal(table["age"].to_numpy(dtype=float), [20, 30.5, np.nan])
    assert list(table["group"]) == ["a", "b", "a"]
    assert table["score"].isna().tolist() == [False, True, False]
    assert pd.api.types.is_integer_dtype(table["score"])


def test_studies(write):
    table = read_table(write("study_id\tn\nstudy-a\t12\nb\t14\n", "studies.tsv"), "study_id")
    assert list(table.index) == ["a", "b"]


def test_byte_order_mark_quotes_and_spaces(tmp_path):
    path = tmp_path / "p.tsv"
    path.write_bytes("\ufeffparticipant_id\tage \n sub-01 \t 7\n".encode())
    table = read_table(path, "participant_id")
    assert table.loc["01", "age"] == 7


def test_a_key_alone_is_a_table(write):
    assert list(read_table(write("participant_id\nsub-01\n"), "participant_id").index) == ["01"]


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.tsv does not exist"):
        read_table(tmp_path / "nowhere.tsv", "participant_id")


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        read_table(tmp_path, "participant_id")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject\tage\n01\t3\n", "no column 'participant_id'; it has: subject, age"),
        ("participant_id,age\n01,3\n", "separated by tabs"),
        ("participant_id\tage\n01\t3\nsub-01\t4\n", "several rows for participant_id 01"),
        ("participant_id\tage\tage\n01\t3\t4\n", "several columns called age"),
        ("participant_id\tage\n01\t3\nn/a\t4\n", "no participant_id in line 3"),
        ("", "is empty"),
        ("participant_id\tage\n01\t3\n02\t3\t4\t5\n", "not a tab-separated table"),
    ],
)
def test_what_is_no_table_names_the_file(write, text, words):
    path = write(text)
    with pytest.raises(DataError) as caught:
        read_table(path, "participant_id")
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_not_utf_8(tmp_path):
    path = tmp_path / "latin.tsv"
    path.write_bytes(b"participant_id\tcity\n01\tK\xf6ln\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_table(path, "participant_id")


def test_covariates_have_entities_sizes_and_columns(observe, write):
    rows = [observe("02", 12, ses="1", contrast="FF"), observe("01", ses="2", contrast="SF")]
    table = read_table(write(TABLE), "participant_id")
    data = collect_covariates(rows, table, "participant_id")
    assert len(data) == 2
    assert list(data["participant_id"]) == ["02", "01"]
    assert list(data["session"]) == list(data["ses"]) == ["1", "2"]
    assert list(data["contrast"]) == ["FF", "SF"]
    assert list(data["subject"]) == ["02", "01"]
    np.testing.assert_array_equal(data["sample_size"], [12, np.nan])
    assert list(data["age"]) == [30.5, 20]
    assert str(data.attrs["path"]).endswith("participants.tsv")


def test_absent_subjects_and_absent_entities_are_missing(observe, write):
    rows = [observe("01", ses="1"), observe("09")]
    data = collect_covariates(rows, read_table(write(TABLE), "participant_id"), "participant_id")
    assert data["age"].isna().tolist() == [False, True]
    assert data["session"].isna().tolist() == [False, True]
    assert data.attrs["absent"] == ["sub-09"]


def test_what_a_formula_uses_is_required(observe, write):
    rows = [observe("01"), observe("03"), observe("09")]
    table = read_table(write(TABLE), "participant_id")
    with pytest.raises(DataError) as caught:
        build_design(rows, collect_covariates(rows, table, "participant_id"), "1 + center(age)")
    for word in ("'age'", "sub-03, sub-09", "sub-09: no row", "participants.tsv"):
        assert word in caught.value.message
    require_complete(rows[:2], collect_covariates(rows[:2], table, "participant_id"), ["group"])
    rows = [observe(unit, ses=ses) for unit in ("01", "03") for ses in "12"]
    with pytest.raises(DataError, match=r"--covariates\)\. Columns to choose from: session \(of the maps\)\."):
        build_design(rows, collect_covariates(rows, None, "participant_id"), "1 + age")
    with pytest.raises(DataError, match=r"Columns to choose from: score; session \(of the maps\)\."):
        build_design(rows, collect_covariates(rows, table, "participant_id"), "1 + iq")


def test_sample_size_of_the_table_fills_what_the_maps_leave_open(observe, write):
    table = read_table(write("study_id\tsample_size\na\t11\nb\t22\n"), "study_id")
    rows = [observe("a", 5, key="study"), observe("b", key="study")]
    data = collect_covariates(rows, table, "study_id")
    assert list(data["sample_size"]) == [5, 22]


def test_without_a_table(observe):
    data = collect_covariates([observe("01"), observe("02")], None, "participant_id")
    assert list(data["participant_id"]) == ["01", "02"]
    assert "path" not in data.attrs


def _studies(tmp_path, text, observe):
    path = tmp_path / "studies.tsv"
    path.write_text(text)
    rows = [observe(label, study=label) for label in ("a", "b")]
    return check_sample_sizes(read_table(path, "study_id"), rows)


@pytest.mark.parametrize("cell", ["9 (4 f)", "1,024", "twelve", "0", "-12", "1e300"])
def test_a_sample_size_that_is_no_number_of_people_is_refused(tmp_path, observe, cell):
    with pytest.raises(DataError, match=r"studies\.tsv: the sample_size") as caught:
        _studies(tmp_path, f"study_id\tsample_size\na\t20\nb\t{cell}\n", observe)
    assert cell.split("e")[0].lstrip("-") in caught.value.message
    assert "of b" in caught.value.message


@pytest.mark.parametrize("name", ["n", "N", "nsubjects", "n_subjects", "sample size", "SampleSize"])
def test_a_sample_size_of_another_name_is_told(tmp_path, observe, name):
    (note,) = _studies(tmp_path, f"study_id\t{name}\na\t20\nb\t12\n", observe)
    assert repr(name) in note
    assert "sample_size" in note


def test_studies_without_a_row_are_told(tmp_path, observe):
    (note,) = _studies(tmp_path, "study_id\tsample_size\na\t20\nB2\t12\n", observe)
    assert "has no row of b" in note
    assert "no selected study: B2" in note
    assert _studies(tmp_path, "study_id\tsample_size\na\t20\nb\tn/a\n", observe) == ()
