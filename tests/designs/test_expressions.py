"""Linear expressions against Python's own arithmetic."""

import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from ibma_app.core.errors import UsageError
from ibma_app.designs.expressions import find_column, parse_rows

COLUMNS = (
    "intercept",
    "age",
    "age2",
    "age:C(group)[T.b]",
    "C(group)[T.b]",
    "C(group, Treatment('a, (b)'))[T.c-1]",
    "center(iq)",
    "I(age ** 2)",
    "np.log(age + 1)",
    "a b",
)


def weights(**named):
    row = np.zeros(len(COLUMNS))
    for index, weight in named.items():
        row[int(index[1:])] = weight
    return row


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("age", [weights(_1=1)]),
        ("age2", [weights(_2=1)]),
        ("Intercept", [weights(_0=1)]),
        ("intercept + 40*age", [weights(_0=1, _1=40)]),
        ("-age", [weights(_1=-1)]),
        ("age - age2", [weights(_1=1, _2=-1)]),
        ("age-age2", [weights(_1=1, _2=-1)]),
        ("0.5*age + .5*age2", [weights(_1=0.5, _2=0.5)]),
        ("(age + age2)/2 - center(iq)", [weights(_1=0.5, _2=0.5, _6=-1)]),
        ("1/6*age - 1/3*age2", [weights(_1=1 / 6, _2=-1 / 3)]),
        ("-2e-1*(age - 2*(age2 - age))", [weights(_1=-0.6, _2=0.4)]),
        ("age*3/4", [weights(_1=0.75)]),
        ("age, C(group)[T.b]", [weights(_1=1), weights(_4=1)]),
        ("age:C(group)[T.b]", [weights(_3=1)]),
        ("C( group )[ T.b ]", [weights(_4=1)]),
        ('C(group,Treatment("a, (b)"))[T.c-1]', [weights(_5=1)]),
        ("C(group, Treatment('a, (b)'))[T.c-1] - age, age", [weights(_5=1, _1=-1), weights(_1=1)]),
        ("I(age**2) - np.log(age+1)", [weights(_7=1, _8=-1)]),
        ("a b - age", [weights(_9=1, _1=-1)]),
        ("age + age", [weights(_1=2)]),
    ],
)
def test_expressions(text, rows):
    np.testing.assert_allclose(parse_rows(text, COLUMNS), rows, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iq", "no column 'iq'. Its columns are: intercept, age, age2"),
        ("C(group)[T.z]", "no column 'C(group)[T.z]'"),
        ("agee", "no column 'agee'"),
        ("age + 3", "a number stands alone"),
        ("age*age2", "not multiplied"),
        ("age/0", "divides"),
        ("1/age", "divides"),
        ("age age2", "missing"),
        ("0.5age", "missing"),
        ("age +", "missing"),
        ("age,", "missing"),
        ("", "missing"),
        ("(age", "not closed"),
        ("age)", "missing"),
        ("age = 0", "no column '='"),
    ],
)
def test_what_is_not_understood(text, words):
    with pytest.raises(UsageError) as caught:
        parse_rows(text, COLUMNS)
    assert words in caught.value.message


def test_find_column_takes_whole_names_alone():
    assert find_column("Intercept", COLUMNS) == 0
    assert find_column("C(group) [T.b]", COLUMNS) == 4
    with pytest.raises(UsageError, match="no column 'age - age2'"):
        find_column("age - age2", COLUMNS)


@st.composite
def arithmetic(draw, depth=3):
    """An expression and the same with Python names."""
    if depth == 0 or draw(st.booleans()):
        index = draw(st.integers(0, 2))
        factor = draw(st.integers(1, 9))
        return f"{factor}*{('a', 'b[x]', 'f(a, b)')[index]}", f"{factor}*{('A', 'B', 'C')[index]}"
    (left, left_python), (right, right_python) = draw(arithmetic(depth - 1)), draw(arithmetic(depth - 1))
    sign = draw(st.sampled_from(["+", "-", " - ", " + "]))
    scale = draw(st.integers(1, 8))
    return f"({left}{sign}{right})/{scale}", f"({left_python}{sign}{right_python})/{scale}"


@given(arithmetic())
def test_equals_python(pair):
    text, python = pair
    unit = np.eye(3)
    # Python evaluates the same sums with unit vectors in place of columns
    expected = eval(python, {"A": unit[0], "B": unit[1], "C": unit[2]})
    np.testing.assert_allclose(parse_rows(text, ("a", "b[x]", "f(a, b)"))[0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9**9**9", "a column or a number is missing"),
        ("1e999*a", "not finite"),
        ("a/1e-320", "not finite"),
        ("9" * 5000 + "*a", "not finite"),
        ("(" * 51 + "a" + ")" * 51, "within each other"),
        ("(" * 100_000 + "a", "more than 10000 characters"),
        ("²*a", "no column"),
        ("__import__('os')", "no column"),
        ("a.__class__", "no column"),
        ("a if b else a", "no column"),
    ],
    ids=range(10),
)
def test_what_computes_for_ever_or_runs_python_is_refused_at_once(text, words):
    start = time.process_time()
    with pytest.raises(UsageError, match=words) as refused:
        parse_rows(text, ["a", "b"])
    assert time.process_time() - start < 1
    assert len(refused.value.message) < 500


def test_signs_and_parentheses_within_reason():
    np.testing.assert_array_equal(parse_rows("-" * 9001 + "a", ["a"]), [[-1.0]])
    np.testing.assert_array_equal(parse_rows("(" * 50 + "a" + ")" * 50 + " - -a", ["a"]), [[2.0]])
