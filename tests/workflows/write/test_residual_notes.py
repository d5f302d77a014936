"""What is said of groups whose variances differ a little."""

from pathlib import Path

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.estimators import find_estimator
from ibma_app.stream.estimate import Model
from ibma_app.stream.residuals.checks import Spread
from ibma_app.stream.residuals.measured import MEASURED, nearest
from ibma_app.workflows.write.residual_notes import _spread_note

KEPT = Path(__file__).parents[3] / "validation" / "kept" / "unequal_groups.tsv"


def _note(values, sizes, *, errors="pooled", far=()):
    group = np.repeat([0.0, 1.0], sizes)
    test, labels = Test("b", np.array([[0.0, 1.0]])), tuple("ab"[int(one)] for one in group)
    design = Design(np.column_stack([np.ones(group.size), group]), ("i", "b"), (test,), groupings={"x": labels})
    values = dict(zip("ab", values, strict=True))
    spread = Spread("x", "residuals", values, dict(zip("ab", sizes, strict=True)), values)
    return _spread_note(spread, Model(find_estimator("ols"), design, {"errors": errors}), far)


@pytest.mark.parametrize(
    ("values", "sizes", "numbers"),
    [
        ((1.5, 1.0), (10, 30), ("pooled", 10, 30, 1.2)),
        ((2.1, 1.0), (9, 25), ("pooled", 10, 30, 1.5)),
        ((8.0, 1.0), (5, 14), ("pooled", 5, 15, 3.0)),
        ((1.0, 1.3), (26, 15), ("pooled", 15, 25, 1.2)),
        ((1.6, 1.0), (13, 13), ("pooled", 12, 12, 1.2)),
    ],
)
def test_a_group_of_no_more_maps_that_varies_more_is_told_with_what_was_measured(values, sizes, numbers):
    note, cell = _note(values, sizes), nearest(*numbers)
    assert (cell.smaller, cell.larger, cell.ratio) == numbers[1:]
    assert "residual variances differ between groups of x: a" in note
    assert f"With {cell.smaller} against {cell.larger} maps and {cell.ratio:g} times the standard deviation in" in note
    assert f"{cell.plain} of 100 data sets without any effect" in note
    assert f'and {cell.resampled} with it. Set errors = "sandwich" under [estimator.ols]' in note


@pytest.mark.parametrize(
    ("values", "sizes", "errors"),
    [
        ((1.15, 1.0), (10, 30), "pooled"),  # hardly more
        ((1.0, 1.56), (10, 30), "pooled"),  # the larger one varies more: too little is found
        ((1.45, 1.0), (20, 20), "pooled"),
        ((1.56, 1.0), (10, 30), "sandwich"),  # allows for it
        ((1.0, 9.0), (10, 30), "sandwich"),
    ],
)
def test_nothing_is_said_where_errors_are_kept(values, sizes, errors):
    assert _note(values, sizes, errors=errors, far=("bonferroni",)) == ""


def test_a_larger_group_that_varies_more_is_told_beyond_twofold():
    assert "a larger group varies more, so that p are too large and little is found" in _note((1.0, 2.5), (10, 30))


def test_a_sandwich_of_few_maps_has_its_own_numbers():
    note = _note((9.0, 1.0), (5, 15), errors="sandwich", far=("bonferroni",))
    cell = nearest("sandwich", 5, 15, 3.0)
    assert f"{cell.plain} of 100 data sets without any effect" in note
    assert "The error allows for that" in note


@pytest.mark.parametrize("taken", sorted(MEASURED))
def test_what_is_said_is_what_was_measured(taken):
    """The numbers in the notes are those that the validation page is written from."""
    estimator, kind, what = {
        "pooled": ("`ols`", "subjects", "SD"),
        "sandwich": ('`ols`, errors "sandwich"', "subjects", "SD"),
        "tau2": ("`reml`", "studies", "tau"),
        "tau2_by": ('`reml`, tau2_by "x"', "studies", "tau"),
    }[taken]
    lines = [line.split("\t") for line in KEPT.read_text(encoding="utf-8").splitlines()]
    shares = {title: [100 * float(count) / int(sets) for count in counts] for title, sets, *counts in lines}
    assert len(MEASURED[taken]) >= 6
    for cell in MEASURED[taken]:
        title = (
            f"{estimator}: {cell.smaller + cell.larger} {kind}, {cell.smaller} against {cell.larger}, {what} "
            f"{cell.ratio:g} times in the first"
        )
        assert cell.plain == pytest.approx(max(shares[f"{title}; voxelwise"]), abs=0.51)
        assert cell.resampled == pytest.approx(shares[f"{title}; smooth"][0], abs=0.51)
