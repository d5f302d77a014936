"""Tests of a design in words: what each asks of the columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import Test


@dataclass(frozen=True)
class TestRow:
    """A test in words."""

    __test__ = False  # pytest: not a test class

    name: str
    kind: str  # of contrast: "t", "F" or "conjunction"; its statistic is the estimator's business
    tail: str
    weights: tuple[str, ...]  # one expression per row


def describe_test(test: Test, columns: tuple[str, ...]) -> TestRow:
    """Write a test's rows as sums of columns: ``group[T.b] − group[T.a]``."""
    return TestRow(
        name=test.name,
        kind="conjunction" if test.of else "F" if test.is_f else "t",
        tail=test.tail if test.signed else "upper",
        weights=tuple(_expression(row, columns) for row in np.atleast_2d(test.weights)),
    )


def _expression(weights: NDArray[np.float64], columns: tuple[str, ...]) -> str:
    """Write ``0.5·a − 0.5·b`` for weights on columns."""
    terms: list[str] = []
    for weight, column in zip(weights.tolist(), columns, strict=True):
        if weight == 0:
            continue
        sign = "−" if weight < 0 else "+" if terms else ""
        size = "" if abs(weight) == 1 else f"{abs(weight):.4g}·"
        terms.append(f"{sign} {size}{column}" if terms else f"{sign}{size}{column}")
    return " ".join(terms) or "0"
