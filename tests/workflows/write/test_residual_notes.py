"""What is said of groups whose variances differ a little."""

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator
from ibma_app.stream.estimate import Model
from ibma_app.stream.residuals.checks import Spread
from ibma_app.workflows.write.residual_notes import _spread_note


def _note(values, sizes, *, errors="pooled"):
    group = np.repeat([0.0, 1.0], sizes)
    test, labels = Test("b", np.array([[0.0, 1.0]])), tuple("ab"[int(one)] for one in group)
    design = Design(np.column_stack([np.ones(group.size), group]), ("i", "b"), (test,), groupings={"x": labels})
    ratio = max(values) / min(values)
    spread = Spread("x", "residuals", dict(zip("ab", values, strict=True)), dict(zip("ab", sizes, strict=True)), ratio)
    return _spread_note(spread, Model(find_estimator("ols"), design, {"errors": errors}), ())


def test_a_smaller_group_that_varies_a_little_more_is_pointed_out():
    note = _note((1.56, 1.0), (10, 30))
    assert "a group of fewer maps varies more" in note
    assert "20 to 22 of 100" in note
    assert 'Set errors = "sandwich" under [estimator.ols]' in note


@pytest.mark.parametrize(
    ("values", "sizes", "errors"),
    [
        ((1.15, 1.0), (10, 30), "pooled"),  # hardly more
        ((1.0, 1.56), (10, 30), "pooled"),  # the larger one varies more: too little is found
        ((1.56, 1.0), (20, 20), "pooled"),
        ((1.56, 1.0), (10, 30), "sandwich"),  # allows for it
    ],
)
def test_nothing_is_said_where_errors_are_kept(values, sizes, errors):
    assert _note(values, sizes, errors=errors) == ""


def test_beyond_twofold_the_stronger_warning_takes_its_place():
    assert "residual variances differ between groups" in _note((2.5, 1.0), (10, 30))
