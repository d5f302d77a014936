"""Which variables a formula names, and what becomes of its columns."""

import signal
import time

import numpy as np
import pandas as pd
import pytest

from ibma_app.core.errors import DataError, UsageError
from ibma_app.designs.formulas import evaluate_formula, formula_entities, used_variables


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("1", set()),
        ("~ 1 + age", {"age"}),
        ("0 + C(contrast) + C(participant_id)", {"contrast", "participant_id"}),
        ("1 + session*group + age:iq", {"session", "group", "age", "iq"}),
        # formulaic 1.2 itself lists no variable inside of center(), scale() and bs()
        ("1 + center(age) + scale(iq) + bs(score, df=3)", {"age", "iq", "score"}),
        ("1 + C(group, Treatment('b')) + C(site, Sum) + C(run, contr.helmert)", {"group", "site", "run"}),
        ("1 + np.log(age) + I(iq ** 2) + {score + 1}", {"age", "iq", "score"}),
        ("1 + `reaction time` + center(`reaction time`)", {"reaction time"}),
    ],
)
def test_variables(formula, names):
    assert formula_entities(formula) == names


@pytest.mark.parametrize("formula", ["1 + (", "y ~ age", "1 | age", "1 + + *"])
def test_what_is_no_formula(formula):
    with pytest.raises(UsageError, match="--formula") as caught:
        formula_entities(formula)
    assert "\x1b" not in caught.value.message


def test_columns_and_their_terms():
    data = pd.DataFrame({"age": [1.0, 2, 4], "group": ["a", "b", "b"]})
    matrix, columns, terms, _ = evaluate_formula("age + C(group)", data)
    assert columns == ("intercept", "age", "C(group)[T.b]")
    assert matrix.tolist() == [[1, 1, 0], [1, 2, 1], [1, 4, 1]]
    assert [term.columns for term in terms] == [("intercept",), ("age",), ("C(group)[T.b]",)]
    assert terms[2].variables == {"group"}


def test_the_intercept_needs_no_covariates():
    matrix, columns, _, spec = evaluate_formula("1", pd.DataFrame(index=range(4)))
    assert spec is None
    assert columns == ("intercept",)
    assert matrix.tolist() == [[1]] * 4


@pytest.mark.parametrize("formula", ["0", "1 + age.nothing"])
def test_formulas_that_give_nothing(formula):
    with pytest.raises(DataError, match="--formula"):
        evaluate_formula(formula, pd.DataFrame({"age": [1.0, 2, 3]}))


def test_a_formula_sees_no_variables_of_the_program():
    with pytest.raises(DataError):
        evaluate_formula("1 + formula", pd.DataFrame({"age": [1.0, 2, 3]}))


def test_a_variable_may_be_named_by_a_text():
    data = pd.DataFrame({"age at scan": [1.0, 2.0, 4.0]})
    assert used_variables('1 + Q("age at scan")', data.columns) == ("age at scan",)
    np.testing.assert_array_equal(evaluate_formula('1 + Q("age at scan")', data).matrix[:, 1], [1, 2, 4])


@pytest.mark.parametrize(
    "formula",
    ["1 + nonsense(age)", "1 + I(age.__class__)", "1 + I(9**9**9)", "1 + I(age**1000)", "1 + np.load('x')",
     "1 + I(((9**9)**9)**9)", "1 + I((2**9)**9 + age)", "1 + I('a' * 10**9)", "1 + I([0] * 10**9)",
     "1 + poly(age, 10**9)", "1 + bs(age, df=1000000)", "1 + cr(age, **age)",
     "1 + eval('1')", "1 + I([a for a in age])", "1 + open('x')", "1 + np.random.rand(9)"],
)  # fmt: skip
def test_nothing_but_the_formula_language_runs(formula):
    with pytest.raises(UsageError):
        used_variables(formula, ("age",))


@pytest.mark.parametrize("formula", ["1 + " + "(" * 50 + "age" + ")" * 50, "1 + " + " + ".join(["age"] * 1000)])
def test_formulas_are_bounded(formula):
    with pytest.raises(UsageError, match="longer or deeper"):
        used_variables(formula, ("age",))


def test_a_formula_that_expands_for_ever_is_ended(monkeypatch):
    monkeypatch.setattr("ibma_app.designs.formulas.SECONDS", 0.2)
    with pytest.raises(UsageError, match="too many terms"):
        used_variables("(a + b + c + d + e + f + g + h + i + j)**30", ())


@pytest.mark.parametrize(
    "formula", ["1 + np.log(age)", "1 + I(age**2)", "1 + C(g, contr.sum)", "poly(age, 2)", "bs(age, df=4)"]
)
def test_the_formula_language_stays(formula):
    assert set(used_variables(formula, ("age", "g"))) <= {"age", "g"}


def test_an_alarm_of_the_caller_stays():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        used_variables("1 + center(age)", ("age",))
        time.sleep(0.6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert rung == [1]
