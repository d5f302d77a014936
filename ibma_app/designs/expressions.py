"""Linear expressions of a design's columns: ``0.5*a - (b + c)/2``, ``age, C(group)[T.b]``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import UsageError
from ibma_app.core.from_files import EXPRESSION, show

Floats = NDArray[np.float64]

INTERCEPT = "intercept"

LONGEST, DEEPEST = 10_000, 50  # characters of an expression; parentheses within each other
NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class _Token:
    """A piece of an expression: a column's index, a number, or a sign."""

    kind: str  # "column", "number" or "sign"
    value: float | str


def parse_rows(text: str, columns: Sequence[str]) -> Floats:
    """Turn comma-separated linear expressions into rows of weights.

    Column names may hold brackets, quotes, commas and signs, as formulaic
    writes them: known names are recognised first, the longest first, whatever
    spaces stand between their parts. ``Intercept`` is ``intercept``.

    Parameters
    ----------
    text : str
        One expression or several; numbers, ``+ - * /`` and parentheses.
    columns : sequence of str
        The design's columns, P.

    Returns
    -------
    (Q, P) array

    Raises
    ------
    UsageError
        When it is not linear in the columns, or names one that does not
        exist; the message lists the columns.
    """
    if len(text) > LONGEST:
        raise UsageError(_complaint(text, f"it has more than {LONGEST} characters"))
    parser = _Parser(text, _tokenise(text, columns), len(columns))
    with np.errstate(all="ignore"):  # what is not finite is refused below
        rows = [parser.sum()]
        while parser.accept(","):
            rows.append(parser.sum())
    if not parser.finished:
        raise UsageError(_complaint(text, "an operator or a comma is missing"))
    weights = np.array(rows)
    if not np.isfinite(weights).all():
        raise UsageError(_complaint(text, "its numbers are not finite"))
    if np.any(weights[:, -1] != 0):
        raise UsageError(_complaint(text, "a number stands alone; numbers multiply columns"))
    return weights[:, :-1]


def split_rows(text: str) -> list[str]:
    """Cut comma-separated expressions apart; commas within brackets belong to names."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


class UnknownColumnError(UsageError):
    """An expression names a column that the design does not have."""

    column = ""


def unknown_column(name: str, columns: Sequence[str]) -> UnknownColumnError:
    """Return the error that names an unknown column and lists those that exist."""
    error = UnknownColumnError(
        f"The design has no column {show(name, EXPRESSION)}. Its columns are: {', '.join(columns)}."
    )
    error.column = name
    return error


def find_column(name: str, columns: Sequence[str]) -> int:
    """Return the index of a column; spaces do not count.

    Raises
    ------
    UsageError
        When there is none of this name; the message lists the columns.
    """
    match = _column_pattern(columns).fullmatch(name.strip())
    if match is None or match.lastindex is None:
        raise unknown_column(name, columns)
    return _index(match, columns)


def _complaint(text: str, problem: str) -> str:
    """Make the error that says what is wrong with an expression."""
    return f"The test {show(text, EXPRESSION)} is not understood: {problem}. Write it like 'age' or '0.5*a - 0.5*b'."


def _column_pattern(columns: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern with a group per column, the longest name first."""
    spellings = sorted(columns, key=len, reverse=True)
    return re.compile("|".join(f"({_spelling(name)})" for name in spellings))


def _index(match: re.Match[str], columns: Sequence[str]) -> int:
    """Return which column a match of `_column_pattern` is."""
    name = sorted(columns, key=len, reverse=True)[(match.lastindex or 1) - 1]
    return list(columns).index(name)


def _spelling(name: str) -> str:
    """Return a pattern for one name: any spaces between its parts, either kind of quote."""
    parts = re.findall(r"\w+|[^\w\s]", name)
    patterns = ["['\"]" if part in "'\"" else re.escape(part) for part in parts]
    if name == INTERCEPT:
        patterns = ["[iI]ntercept"]
    body = r"\s*".join(patterns)
    # a name ends where the word ends: 'age' is not found in 'age2'
    return body + (r"(?!\w)" if re.match(r"\w", parts[-1]) else "")


def _tokenise(text: str, columns: Sequence[str]) -> list[_Token]:
    """Cut an expression into columns, numbers and signs."""
    column, number = _column_pattern(columns), re.compile(NUMBER)
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif match := column.match(text, at):
            tokens.append(_Token("column", float(_index(match, columns))))
            at = match.end()
        elif match := number.match(text, at):
            tokens.append(_Token("number", float(match.group())))
            at = match.end()
        elif text[at] in "+-*/(),":
            tokens.append(_Token("sign", text[at]))
            at += 1
        else:
            # what looks like one name: a word with its brackets
            name = re.compile(r"[^\s()\[\],+\-*/]*(\([^)]*\))*(\[[^\]]*\])?").match(text, at)
            raise unknown_column((name and name.group()) or text[at:], columns)
    return tokens


class _Parser:
    """Recursive descent over tokens; a value is (P + 1,): weights and a constant."""

    def __init__(self, text: str, tokens: list[_Token], n_columns: int) -> None:
        self.text = text
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.n_columns = n_columns

    @property
    def finished(self) -> bool:
        """Whether every token was read."""
        return self.at == len(self.tokens)

    def accept(self, signs: str) -> str:
        """Read one of these signs if it comes next; return it, else ''."""
        if not self.finished:
            token = self.tokens[self.at]
            if token.kind == "sign" and str(token.value) in signs:
                self.at += 1
                return str(token.value)
        return ""

    def sum(self) -> Floats:
        """Read terms joined by + and -."""
        value = self.product()
        while sign := self.accept("+-"):
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> Floats:
        """Read factors joined by * and /; at most one holds columns."""
        value = self.factor()
        while sign := self.accept("*/"):
            other = self.factor()
            if sign == "*" and not other[:-1].any():
                value = value * other[-1]
            elif sign == "*" and not value[:-1].any():
                value = other * value[-1]
            elif sign == "/" and not other[:-1].any() and other[-1] != 0:
                value = value / other[-1]
            else:
                problem = "columns are not multiplied" if sign == "*" else "it divides by a column or by 0"
                raise UsageError(_complaint(self.text, problem))
        return value

    def factor(self) -> Floats:
        """Read a column, a number, a parenthesis, or one of these with a sign before it."""
        signs = ""
        while sign := self.accept("+-"):
            signs += sign
        return -self.atom() if signs.count("-") % 2 else self.atom()

    def atom(self) -> Floats:
        """Read a column, a number or a parenthesis."""
        if self.accept("("):
            self.depth += 1
            if self.depth > DEEPEST:
                raise UsageError(_complaint(self.text, f"more than {DEEPEST} parentheses lie within each other"))
            value = self.sum()
            self.depth -= 1
            if not self.accept(")"):
                raise UsageError(_complaint(self.text, "a parenthesis is not closed"))
            return value
        if self.finished or self.tokens[self.at].kind == "sign":
            raise UsageError(_complaint(self.text, "a column or a number is missing"))
        token = self.tokens[self.at]
        self.at += 1
        value = np.zeros(self.n_columns + 1)
        if token.kind == "column":
            value[int(token.value)] = 1.0
        else:
            value[-1] = float(token.value)
        return value
