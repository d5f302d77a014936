"""Tests as the user names them: read from the command line or a file, resolved against a design."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibma_app.core.design import TAILS, Test
from ibma_app.core.errors import DataError, InputError, UsageError, did_you_mean
from ibma_app.core.from_files import EXPRESSION, number_in, read_json, show
from ibma_app.core.labels import find_clash, make_label
from ibma_app.designs.expressions import (
    Floats,
    UnknownColumnError,
    find_column,
    parse_rows,
    split_rows,
    unknown_column,
)
from ibma_app.designs.factors import NO_FACTORS, Factors
from ibma_app.designs.formulas import formula_entities as formula_entities

Row = str | Mapping[str, float | str]
"""An expression of columns, or column -> weight."""

RANK_TOLERANCE = 1e-9
SHOWN = 12  # means named in a message


@dataclass(frozen=True)
class TestSpec:
    """A test that the user named; its columns are looked up when the design is built."""

    __test__ = False  # pytest: not a test class

    name: str
    rows: tuple[Row, ...]
    tail: str | None = None  # None: that of --tail
    is_f: bool = False  # True: an F test even of a single row
    origin: str = "--test"  # or the contrast file


def parse_tests(texts: Sequence[str]) -> Mapping[str, TestSpec]:
    """Read tests of the command line.

    Parameters
    ----------
    texts : sequence of str
        Each ``NAME=EXPR``, EXPR a linear expression of the design's columns;
        several, separated by commas, are an F test.

    Returns
    -------
    mapping of label to TestSpec
        Labels are the alphanumerics of the names.

    Raises
    ------
    UsageError
        When one is not of that form, or two have one label.
    """
    specs = []
    for text in texts:
        name, equals, expression = text.partition("=")
        if not equals or not expression.strip() or not re.fullmatch(r"[^()\[\]]+", name.strip()):
            msg = f"--test {show(text, EXPRESSION)} is not NAME=EXPR. Write, for example: --test old=age."
            raise UsageError(msg)
        specs.append(TestSpec(name.strip(), (expression.strip(),)))
    return merge_tests(specs)


def read_contrast_file(path: Path) -> Mapping[str, TestSpec]:
    """Read tests from a JSON file.

    Parameters
    ----------
    path : Path
        ``{name: test}``, a test being an expression, ``{column: weight}``, a
        list of these (an F test), or ``{"rows": [...], "tail": "positive"}``
        (one row and a tail: a t test in that tail).

    Returns
    -------
    mapping of label to TestSpec

    Raises
    ------
    InputError
        When the file is missing or cannot be opened.
    DataError
        When it is not such a file.
    UsageError
        When two tests have one label, or a tail is unknown.
    """
    path = Path(path)
    try:
        tests = read_json(path, pairs=_refuse_twins)
    except FileNotFoundError as error:
        msg = f"The contrast file {path} does not exist."
        raise InputError(msg) from error
    except OSError as error:
        msg = f"The contrast file {path} cannot be opened: {error.strerror or error}."
        raise InputError(msg) from error
    except ValueError as error:
        msg = f"The contrast file {path} is not JSON as expected: {error}."
        raise DataError(msg) from error
    if not isinstance(tests, dict) or not tests:
        msg = f'The contrast file {path} must hold {{name: test}}, such as {{"old": "age"}}.'
        raise DataError(msg)
    return merge_tests([_read_spec(name, test, path) for name, test in tests.items()])


def merge_tests(*groups: Sequence[TestSpec] | Mapping[str, TestSpec]) -> Mapping[str, TestSpec]:
    """Join tests from several places into one mapping by label.

    Raises
    ------
    UsageError
        When a name has no alphanumerics, or two names have the same ones.
    """
    specs = [spec for group in groups for spec in (group.values() if isinstance(group, Mapping) else group)]
    labelled = [(make_label(spec.name), spec) for spec in specs]
    for label, spec in labelled:
        if not label:
            msg = f"The test name {spec.name!r} ({spec.origin}) has no letter or digit to name files by."
            raise UsageError(msg)
    clash = find_clash(labelled)
    if clash:
        label, other, spec = clash
        msg = (
            f"The tests {other.name!r} ({other.origin}) and {spec.name!r} ({spec.origin}) "
            f"would both be called test-{label} (upper and lower case tell no files apart). Rename one."
        )
        raise UsageError(msg)
    return dict(labelled)


def resolve_tests(
    specs: Mapping[str, TestSpec], columns: Sequence[str], tail: str, factors: Factors = NO_FACTORS
) -> tuple[Test, ...]:
    """Turn the user's tests into weights of a design's columns.

    Parameters
    ----------
    specs : mapping of label to TestSpec
        From `parse_tests` or `read_contrast_file`.
    columns : sequence of str
        The design's columns, P.
    tail : str
        Of the tests that have none of their own; F tests are upper-tail ("positive").
    factors : Factors
        Whose means and effects tests may name beside the columns.

    Returns
    -------
    tuple of Test

    Raises
    ------
    UsageError
        When a column is unknown, a row has no weight, or the rows of an F
        test depend on each other.
    """
    return tuple(_resolve(label, spec, columns, tail, factors) for label, spec in specs.items())


def default_tests(columns: Sequence[str], nuisance: Sequence[str], tail: str) -> tuple[Test, ...]:
    """Return a t test of every column that is not nuisance, named by the column's label.

    Raises
    ------
    DataError
        When two columns have the same label.
    """
    weights = np.eye(len(columns))
    labelled = [(make_label(column), column) for column in columns if column not in nuisance]
    clash = find_clash(labelled)
    if clash:
        label, one, other = clash
        msg = f"The columns {one!r} and {other!r} would both be called test-{label} (upper and lower case are one)."
        raise DataError(f"{msg} Name the tests with --test NAME=EXPR.")
    if unnamed := [column for label, column in labelled if not label]:
        msg = f"The column {unnamed[0]!r} has no letter or digit to name its test by."
        raise DataError(f"{msg} Name the tests with --test NAME=EXPR.")
    tests = dict(labelled)
    index = {column: i for i, column in enumerate(columns)}
    return tuple(Test(label, weights[[index[column]]], tail, title=column) for label, column in tests.items())


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, refusing a key that comes twice (json keeps the last silently)."""
    twins = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    if twins:
        msg = f"it has {', '.join(map(repr, twins))} twice"
        raise ValueError(msg)
    return dict(pairs)


def _read_spec(name: str, test: Any, path: Path) -> TestSpec:
    """Read one test of a contrast file."""
    tail = None
    if isinstance(test, dict) and isinstance(test.get("rows"), list | str | dict):
        tail = test.get("tail")
        extra = sorted(set(test) - {"rows", "tail"})
        if extra:
            msg = f"{path}: test {name!r} has {', '.join(extra)} beside rows and tail."
            raise DataError(msg)
        if tail is not None and tail not in TAILS:
            msg = f"{path}: test {name!r} has the tail {tail!r}. Choose from: {', '.join(TAILS)}."
            raise UsageError(msg)
        test = test["rows"]
    rows = test if isinstance(test, list) else [test]
    if not rows or not all(_is_row(row) for row in rows):
        msg = (
            f"{path}: test {name!r} is not understood. It may be an expression like 'age - iq', "
            '{column: weight}, a list of these (an F test), or {"rows": [...], "tail": "positive"}.'
        )
        raise DataError(msg)
    # one row with a tail of its own is a t test: an F test has no tail to choose
    return TestSpec(name, tuple(rows), tail, isinstance(test, list) and tail is None, str(path))


def _is_row(row: Any) -> bool:
    """Return whether a value of a contrast file can be a row."""
    if isinstance(row, str):
        return bool(row.strip())
    if not isinstance(row, dict) or not row:
        return False
    weights = row.values()
    return all(isinstance(weight, int | float | str) and not isinstance(weight, bool) for weight in weights)


def _resolve(label: str, spec: TestSpec, columns: Sequence[str], tail: str, factors: Factors) -> Test:
    """Look up one test's columns."""
    where = f"The test {spec.name!r} ({spec.origin})"
    pieces = [piece for row in spec.rows for piece in (split_rows(row) if isinstance(row, str) else [row])]
    effects = [factors.effects.get(_plain(piece)) if isinstance(piece, str) else None for piece in pieces]
    weights = np.concatenate([
        _row_weights(piece, columns, where, factors) if rows is None else rows
        for piece, rows in zip(pieces, effects, strict=True)
    ])  # fmt: skip
    if not np.all(np.isfinite(weights)):
        msg = f"{where} has weights that are not finite."
        raise UsageError(msg)
    norms = np.sqrt((weights**2).sum(axis=1, keepdims=True))
    if np.any(norms == 0):
        msg = f"{where} has only weights of 0. The design's columns are: {', '.join(columns)}."
        raise UsageError(msg)
    if np.linalg.matrix_rank(weights / norms, tol=RANK_TOLERANCE) < len(weights):
        msg = f"{where} has rows that depend on each other. Leave out those that follow from the others."
        raise UsageError(msg)
    is_f = spec.is_f or len(weights) > 1 or effects[0] is not None
    if is_f and spec.tail == "negative":
        msg = f"{where} is an F test, which has no negative tail."
        raise UsageError(msg)
    return Test(label, weights, spec.tail or tail, is_f, spec.name)


def _row_weights(row: Row, columns: Sequence[str], where: str, factors: Factors) -> Floats:
    """Return the weights (1, P) of an expression or of column -> weight; means of factors are names too."""
    text = _bare(row if isinstance(row, str) else " ".join(row))
    means = [name for name in factors.means if name not in columns and _bare(name) in text]
    names = [*columns, *means]
    try:
        if isinstance(row, str):
            weights = parse_rows(row, names)
        else:
            weights = np.zeros((1, len(names)))
            for name, weight in row.items():
                weights[0, find_column(name, names)] += _number(weight, where)
    except UnknownColumnError as error:
        why = unknown_column(error.column, columns).message + _hint(error.column, columns, factors)
        raise UsageError(f"{where}: {why}{_name_factors(factors)}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}{_name_factors(factors)}") from error
    of_means: Floats = np.array([factors.means[name] for name in means]).reshape(len(means), len(columns))
    summed: Floats = weights[:, : len(columns)] + weights[:, len(columns) :] @ of_means
    return summed


def _hint(name: str, columns: Sequence[str], factors: Factors) -> str:
    """Say what a name that is no column may have meant."""
    if effect := _plain(name) if _plain(name) in factors.effects else "":
        return f" {effect} is the effect of a whole factor (an F test) and stands alone: NAME={effect}."
    return did_you_mean([_plain(name)], [*factors.means, *factors.effects, *columns])


def _name_factors(factors: Factors) -> str:
    """List what tests may name beside columns: means of levels and cells, and effects of factors."""
    if not factors.levels:
        return ""
    names = list(factors.levels)
    means = [f"{name}[{level}]" for name, levels in factors.levels.items() for level in levels]
    more = f" and {len(means) - SHOWN} more" if len(means) > SHOWN else ""
    cell = ":".join(f"{name}[{levels[0]}]" for name, levels in factors.levels.items())
    cells = f", of cells with a colon ({cell})" if len(names) > 1 else ""
    effects = [*names, ":".join(names)] if len(names) > 1 else names
    return (
        f" Means may be named, too: {', '.join(means[:SHOWN])}{more}{cells}; and, alone, the effect of a whole factor"
        f"{' or of an interaction' if len(names) > 1 else ''}: {', '.join(effects)}."
    )


def _plain(name: str) -> str:
    """Name a factor as tests do, without the C() of formulas: ``C(session):C(group)`` -> ``session:group``."""
    return re.sub(r"\bC\((\w+)(?:,[^()]*(?:\([^()]*\))?)?\)", r"\1", _bare(name))


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _number(weight: float | str, where: str) -> float:
    """Read a weight: a number, or a fraction as text ("1/6")."""
    text, slash, under = weight.partition("/") if isinstance(weight, str) else (weight, "", "")
    top, bottom = number_in(text), number_in(under) if slash else 1.0
    if top is None or not bottom:
        raise UsageError(
            f"{where} has the weight {show(weight)}, which is neither a number nor a fraction, or not finite."
        )
    return top / bottom
