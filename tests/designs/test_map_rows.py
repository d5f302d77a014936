"""Tables with a row for each map."""

import numpy as np
import pandas as pd
import pytest

from ibma_app.core.errors import DataError
from ibma_app.designs.map_rows import repeated_entities
from ibma_app.designs.tables import collect_covariates, read_table, require_complete, sample_sizes, stated_sample

TABLE = """participant_id\tcontrast\tses\tstimulus\trt\tage
sub-01\tcontrast-faces\tses-1\tface\t0.5\t30
sub-01\thouses\t1\thouse\t0.6\t30
sub-01\tfaces\tses-2\tface\t0.7\t30
sub-02\tfaces\tses-1\tface\t0.8\t40
sub-02\thouses\tses-1\thouse\t0.9\t40
sub-02\tfaces\tses-2\tface\tn/a\t40
"""


@pytest.fixture
def table(write):
    return read_table(write(TABLE), "participant_id")


def test_each_map_has_its_row(table, observe):
    rows = [
        observe("02", contrast="houses", ses="1"),
        observe("01", contrast="faces", ses="2"),
        observe("01", contrast="faces", ses="1"),
        observe("02", contrast="faces", ses="2"),
    ]
    data = collect_covariates(rows, table)
    assert data["stimulus"].tolist() == ["house", "face", "face", "face"]
    np.testing.assert_array_equal(data["rt"], [0.9, 0.7, 0.5, np.nan])
    assert data["age"].tolist() == [40, 30, 30, 40]
    assert data["session"].tolist() == ["1", "2", "1", "2"]  # the maps' own
    with pytest.raises(DataError, match=r"'rt' is missing for sub-02_ses-2_contrast-faces in .*\.tsv\. Complete"):
        require_complete(rows, data, ("rt",))


def test_maps_without_a_row(table, observe):
    rows = [observe("01", contrast="faces", ses="3"), observe("03", contrast="faces", ses="1")]
    data = collect_covariates(rows, table)
    assert data["stimulus"].isna().all()
    with pytest.raises(DataError, match=r"\(sub-01_ses-3_contrast-faces, sub-03_ses-1_contrast-faces: no row\)"):
        require_complete(rows, data, ("stimulus",))


def test_what_the_rows_of_a_map_agree_in_is_known(table, observe):
    rows = [observe("01"), observe("02", contrast="faces")]  # without a session
    data = collect_covariates(rows, table)
    assert data["age"].tolist() == [30, 40]
    assert data["stimulus"].tolist()[1] == "face"
    assert pd.isna(data["stimulus"][0])
    assert data["rt"].isna().all()


def test_runs_are_numbers(write, observe):
    table = read_table(write("participant_id\trun\trt\n1\t01\t5\n1\trun-2\t6\n"), "participant_id")
    data = collect_covariates([observe("1", run="2"), observe("1", run="1")], table)
    assert data["rt"].tolist() == [6, 5]


def test_rows_that_nothing_tells_apart(write):
    with pytest.raises(DataError, match="several rows for participant_id 01"):
        read_table(write("participant_id\tage\n01\t3\n01\t4\n"), "participant_id")
    twice = "participant_id\tsession\tage\n01\t1\t3\n01\tses-1\t4\n"
    with pytest.raises(DataError, match="several rows for participant_id 01, ses 1"):
        read_table(write(twice), "participant_id")


def test_columns_called_as_entities_are_keys_where_rows_need_them(write, observe):
    text = "participant_id\tsession\tage\n01\t1\t30\n02\t1\t40\n"
    rows = [observe("01", ses="1"), observe("01", ses="2")]
    of_subjects = collect_covariates(rows, read_table(write(text), "participant_id"))
    assert of_subjects["age"].tolist() == [30, 30]
    of_maps = collect_covariates(rows, read_table(write(text), "participant_id", of_maps=True))
    assert of_maps["age"].isna().tolist() == [False, True]


def test_sample_sizes_of_maps(write, observe):
    text = "study_id\tcontrast\tsample_size\tn1\tn2\nsmith\ta\t20\t8\t12\nsmith\tb\t18\tn/a\tn/a\nlee\ta\t30\t9\t9\n"
    table = read_table(write(text), "study_id")
    tell = sample_sizes(table)
    assert tell("smith", {"contrast": "b"}) == 18
    assert tell("smith", {}) is None
    assert tell("lee", {}) == 30
    assert tell("none", {}) is None
    assert stated_sample(table, observe("smith", study=True, contrast="a")) == (8, 12, None)
    assert stated_sample(table, observe("smith", study=True, contrast="b")) == (None, None, None)


def test_entities_that_columns_tell_apart(table, write):
    assert repeated_entities(table, {"stimulus"}) == {"contrast"}
    assert repeated_entities(table, {"rt"}) == {"contrast", "ses"}
    assert repeated_entities(table, {"age"}) == set()
    assert repeated_entities(table, {"contrast"}) == set()  # the formula itself names it
    assert repeated_entities(None, {"rt"}) == set()
    together = "participant_id\tcontrast\trun\tstimulus\n1\ta\t1\tface\n1\tb\t2\thouse\n2\ta\t1\tface\n2\tb\t2\thouse\n"
    assert repeated_entities(read_table(write(together), "participant_id"), {"stimulus"}) == {"contrast", "run"}
