"""Tests from the command line and from JSON, resolved against columns."""

import json

import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, UsageError
from ibma_app.core.labels import is_label
from ibma_app.designs.tests import (
    default_tests,
    merge_tests,
    parse_tests,
    read_contrast_file,
    resolve_tests,
)

COLUMNS = ("intercept", "age", "C(group)[T.b]")


def resolve(specs, tail="two-sided"):
    return {test.name: test for test in resolve_tests(specs, COLUMNS, tail)}


def from_json(write, content):
    text = content if isinstance(content, str) else json.dumps(content)
    return read_contrast_file(write(text, "contrasts.json"))


def test_command_line():
    tests = resolve(parse_tests(["old=age", "any = age, C(group)[T.b]"]), "negative")
    assert list(tests) == ["old", "any"]
    np.testing.assert_array_equal(tests["old"].weights, [[0, 1, 0]])
    assert (tests["old"].tail, tests["old"].is_f) == ("negative", False)
    np.testing.assert_array_equal(tests["any"].weights, [[0, 1, 0], [0, 0, 1]])
    assert (tests["any"].tail, tests["any"].is_f) == ("positive", True)


@pytest.mark.parametrize("text", ["age", "=age", "old=", "bs(age, df=3)[1]"])
def test_not_name_and_expression(text):
    with pytest.raises(UsageError):
        parse_tests([text])


def test_labels_keep_alphanumerics():
    assert list(parse_tests(["old > young=age"])) == ["oldyoung"]
    assert list(parse_tests(["größer=age"])) == ["grosser"]


def test_labels_that_collide():
    with pytest.raises(UsageError, match="test-ab") as caught:
        parse_tests(["a_b=age", "a-b=intercept"])
    assert "'a_b'" in caught.value.message
    assert "'a-b'" in caught.value.message
    with pytest.raises(UsageError, match="no letter"):
        parse_tests(["+-=age"])


def test_command_line_and_file_together(write):
    file = from_json(write, {"old": "age"})
    merged = merge_tests(parse_tests(["young=-age"]), file)
    assert list(merged) == ["young", "old"]
    with pytest.raises(UsageError, match=r"contrasts\.json"):
        merge_tests(parse_tests(["old=age"]), file)


def test_contrast_file(write):
    specs = from_json(
        write,
        {
            "expression": "age - C(group)[T.b]",
            "weights": {"age": 0.5, "C(group)[T.b]": "-1/3"},
            "f": [{"age": 1}, "C(group)[T.b]"],
            "single": ["age"],
            "tailed": {"rows": ["age"], "tail": "positive"},
            "manyTailed": {"rows": ["age", "C(group)[T.b]"], "tail": "positive"},
        },
    )
    tests = resolve(specs)
    np.testing.assert_array_equal(tests["expression"].weights, [[0, 1, -1]])
    np.testing.assert_allclose(tests["weights"].weights, [[0, 0.5, -1 / 3]], rtol=1e-15)
    np.testing.assert_array_equal(tests["f"].weights, [[0, 1, 0], [0, 0, 1]])
    assert {name for name, test in tests.items() if test.is_f} == {"f", "single", "manyTailed"}
    assert tests["tailed"].tail == "positive"
    assert tests["weights"].tail == "two-sided"
    assert {test.tail for test in tests.values() if test.is_f} == {"positive"}


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("{", DataError, "not JSON"),
        ("[]", DataError, "must hold"),
        ("{}", DataError, "must hold"),
        ('{"a": "age", "a": "age"}', DataError, "'a' twice"),
        ({"a": 3}, DataError, "not understood"),
        ({"a": []}, DataError, "not understood"),
        ({"a": [1, 0, 0]}, DataError, "not understood"),
        ({"a": {"rows": ["age"], "tail": "left"}}, UsageError, "two-sided, positive, negative"),
        ({"a": {"rows": ["age"], "sign": "left"}}, DataError, "sign"),
    ],
)
def test_contrast_files_that_are_not_understood(write, content, error, words):
    with pytest.raises(error) as caught:
        from_json(write, content)
    assert words in caught.value.message
    assert "contrasts.json" in caught.value.message or error is UsageError


def test_contrast_file_missing(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        read_contrast_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("iq", "Its columns are: intercept, age, C(group)[T.b]"),
        ({"iq": 1}, "Its columns are: intercept, age, C(group)[T.b]"),
        ({"age": 0}, "only weights of 0"),
        ("age - age", "only weights of 0"),
        (["age", "2*age"], "depend on each other"),
        (["age", "intercept", "age - intercept"], "depend on each other"),
        ({"age": "x"}, "neither a number"),
        ({"age": "1/0"}, "neither a number"),
        ({"age": 1e400}, "not finite"),
        ({"rows": ["age", "intercept"], "tail": "negative"}, "no negative tail"),
    ],
)
def test_tests_that_ask_the_impossible(write, test, words):
    specs = from_json(write, json.dumps({"a": test}))
    with pytest.raises(UsageError) as caught:
        resolve(specs)
    assert words in caught.value.message


def test_dependence_does_not_hinge_on_units():
    specs = parse_tests(["f=1e-12*age, 1e9*intercept"])
    assert resolve(specs)["f"].weights.shape == (2, 3)


def test_every_column_that_is_not_nuisance():
    tests = default_tests(COLUMNS, ("C(group)[T.b]",), "positive")
    assert [test.name for test in tests] == ["intercept", "age"]
    assert all(test.tail == "positive" and not test.is_f for test in tests)
    np.testing.assert_array_equal(tests[1].weights, [[0, 1, 0]])


def test_columns_whose_labels_collide():
    with pytest.raises(DataError, match="--test"):
        default_tests(("a_b", "ab"), (), "two-sided")


@pytest.mark.parametrize("name", ["old > young", "年齢", "a very long name " * 10])
def test_what_a_test_is_called_is_kept(name):
    (test,) = resolve_tests(parse_tests([f"{name}=age"]), ["Intercept", "age"], "two-sided")
    assert test.title == name.strip()
    assert is_label(test.name)
    assert len(test.name) <= 60
    assert test.weights.tolist() == [[0.0, 1.0]]
