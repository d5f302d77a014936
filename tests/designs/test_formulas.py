"""Which variables a formula names, and what becomes of its columns."""

import pandas as pd
import pytest

from ibma_app.core.errors import DataError, UsageError
from ibma_app.designs.formulas import evaluate_formula, formula_entities


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


@pytest.mark.parametrize("formula", ["0", "1 + nonsense(age)", "1 + age.nothing"])
def test_formulas_that_give_nothing(formula):
    with pytest.raises(DataError, match="--formula"):
        evaluate_formula(formula, pd.DataFrame({"age": [1.0, 2, 3]}))


def test_a_formula_sees_no_variables_of_the_program():
    with pytest.raises(DataError):
        evaluate_formula("1 + formula", pd.DataFrame({"age": [1.0, 2, 3]}))
