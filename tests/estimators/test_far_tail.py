"""What the records of mixed models and fixed effects say of small p."""

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator


def caveat(name: str, n_maps: int, **settings: str) -> str:
    design = Design(np.ones((n_maps, 1)), ("intercept",), (Test("intercept", np.ones((1, 1))),))
    record = find_estimator(name)
    assert record.far_tail is not None
    return record.far_tail(design, {**record.defaults(design), **settings})


@pytest.mark.parametrize("name", ["reml", "dl", "paule-mandel"])
def test_the_default_test_has_a_caveat_with_many_maps(name: str) -> None:
    assert caveat(name, 5) == caveat(name, 20) == ""
    assert "6 to 7 of 100" in caveat(name, 30)


@pytest.mark.parametrize("test", ["knha", "t", "z"])
def test_other_tests_have_one_with_any_number(test: str) -> None:
    assert caveat("reml", 5, test=test) == caveat("reml", 30, test=test) != ""


def test_fixed_effects_have_one() -> None:
    assert "few dof" in caveat("fixed-effects", 12)
