"""Events and confounds tables as they are found."""

import pytest

from ibma_app.core.errors import DataError, InputError
from ibma_app.firstlevel.conditions import condition_regressors, list_conditions
from ibma_app.firstlevel.run_tables import read_events


def _events(tmp_path, text: str):
    path = tmp_path / "events.tsv"
    path.write_text(text)
    return read_events(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("onset\tduration\ttrial_type\n", "no events, only a header"),
        ("onset\ttrial_type\n1\tgo\n", "no column duration"),
        ("onset\tduration\ttrial_type\n1\t2\n", "line 2: 2 cells, and the header has 3"),
        ("onset\tonset\tduration\n1\t1\t1\n", "two columns are called 'onset'"),
    ],
)
def test_tables_that_are_none(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        _events(tmp_path, text)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_events(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("5\tn/a\tgo", "line 3: duration is 'n/a'"),
        ("soon\t1\tgo", "line 3: onset is 'soon'"),
        ("5\t-1\tgo", "an event of go has a negative duration"),
    ],
)
def test_events_without_numbers_are_named(tmp_path, row, words):
    events = _events(tmp_path, f"onset\tduration\ttrial_type\n1\t2\tgo\n{row}\n")
    with pytest.raises(DataError, match=words):
        condition_regressors(events, "events.tsv")


def test_without_trial_type_all_events_are_one_condition(tmp_path):
    events = _events(tmp_path, "onset\tduration\n1\t2\n20\t2\n")
    regressors, notes = condition_regressors(events, "events.tsv")
    assert list_conditions(events) == ("event",)
    assert [one.onsets.tolist() for one in regressors] == [[1.0, 20.0]]
    assert "all events are one condition" in notes[0]
