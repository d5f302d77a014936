"""Tests of a design: what makes one an F test."""

from dataclasses import replace

import numpy as np

from ibma_app.core.design import Test


def test_several_rows_are_an_f_test_in_the_upper_tail():
    one, two = Test("one", np.array([[1.0, 0.0]]), "negative"), Test("two", np.eye(2), "negative")
    assert (one.is_f, one.tail) == (False, "negative")
    assert (two.is_f, two.tail) == (True, "positive")
    assert replace(one, weights=np.eye(2)).tail == "positive"


def test_one_row_may_be_an_f_test():
    asked = Test("asked", np.array([[1.0, 0.0]]), is_f=True)
    assert (asked.is_f, asked.tail) == (True, "positive")
