"""Text that was meant as numbers is refused, text that makes categories is told."""

import pandas as pd
import pytest

from ibma_app.core.errors import DataError
from ibma_app.designs.formulas import FormulaTerm
from ibma_app.designs.text_columns import describe_texts


def describe(values, formula="x"):
    term = FormulaTerm(formula, frozenset({"x"}), (formula,), ())
    return describe_texts((term,), pd.DataFrame({"x": values}), "participants.tsv")


@pytest.mark.parametrize(
    "values",
    [
        ["23,5", "31,2", "28,0", "40,1"],
        ["23 y", "31 y", "28 y", "40 y"],
        ["<18", "23", "31", "40"],
        ["18-25", "26-35", "36-45", "46-55"],
        ["2021-05-01", "2021-06-03", "2022-01-09", "2020-02-02"],
        ["1,200", "1,350", "2,001", "1,007"],
        ["10 %", "20 %", "15 %", "12 %"],
        ["23", "NULL", "31", "28"],
        ["23", "31", "unknown", "28"],
        ["0,5", "1,5"] * 6,  # few values: still no names of groups
        ["0,5", "1,5", "2"] * 6,
    ],
)
def test_what_looks_like_numbers_is_refused_with_its_cells(values):
    with pytest.raises(DataError, match=r"participants\.tsv is text, though it looks like numbers") as caught:
        describe(values)
    odd = next(value for value in values if not value.replace(".", "").isdigit())
    assert repr(odd) in caught.value.message
    assert "C(x)" in caught.value.message
    assert describe(values, "C(x)") == ()  # the advice works


@pytest.mark.parametrize(
    "values", [["a", "b", "a", "b"], ["3T", "7T", "3T", "3T"], ["patient", "control", "patient", "control"]]
)
def test_categories_are_taken_silently(values):
    assert describe(values) == ()


def test_mostly_distinct_texts_are_told():
    (note,) = describe(["anna", "bob", "carla", "dan"])
    assert "taken for a category with 4 values in 4 maps: 'anna', 'bob', 'carla', 'dan'" in note
    (note,) = describe(["10 mg", "20 mg", "40 mg"] * 4)  # a dose: its slope may have been meant
    assert "taken for a category with 3 values in 12 maps: '10 mg', '20 mg', '40 mg'" in note
