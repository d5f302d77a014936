from ibma_app.core.errors import Note, merge_notes, tell

"""Notes of one kind are one text with a count."""


UNKNOWN = "dof unknown, so t is taken as z."


def test_notes_of_one_kind_are_one_text_with_a_count():
    notes = [Note(UNKNOWN, {f"sub-{n:02d}_run-{run}": ""}) for n in range(1, 13) for run in (1, 2, 3)]
    (text,) = tell([*notes, *notes])
    named = "sub-01_run-1, sub-01_run-2, sub-01_run-3, sub-02_run-1, sub-02_run-2"
    assert text == f"36 maps: {UNKNOWN} ({named} and 31 more)"


def test_one_map_is_named_first():
    assert tell([Note("p is 0.", {"study-a": "3 voxels"})]) == ("study-a (3 voxels): p is 0.",)
    assert tell([Note("Few maps: 6.")]) == ("Few maps: 6.",)


def test_what_maps_share_is_said_once_and_what_differs_beside_each():
    same = [Note("dof from n.", {label: "11"}) for label in "ab"]
    assert tell(same) == ("2 maps (11): dof from n. (a, b)",)
    other = [*same, Note("dof from n.", {"c": "19"})]
    assert tell(other) == ("3 maps: dof from n. (a (11), b (11), c (19))",)


def test_kinds_stay_apart_and_in_order():
    notes = [
        Note("one", {"a": ""}),
        Note("two", {"a": ""}),
        Note("one", {"b": ""}),
        Note("one", {"s": ""}, "participant"),
    ]
    assert [note.words for note in merge_notes(notes)] == ["2 maps: one (a, b)", "a: two", "s: one"]
