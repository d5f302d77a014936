"""Tests of a design in words."""

import numpy as np

from ibma_app.core.design import Test
from ibma_app.report.text.tests import describe_test

COLUMNS = ("Intercept", "age", "group[T.b]")


def test_rows_are_sums_of_columns():
    weights = [[1.0, -0.5, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    row = describe_test(Test("both", np.array(weights)), COLUMNS)
    assert row.weights == ("Intercept − 0.5·age", "−group[T.b]", "0")
    assert (row.name, row.kind, row.tail) == ("both", "F", "upper")


def test_a_t_test_has_its_own_tail():
    row = describe_test(Test("old", np.array([[0.0, 1.0, 0.0]]), "negative"), COLUMNS)
    assert (row.kind, row.tail, row.weights) == ("t", "negative", ("age",))
