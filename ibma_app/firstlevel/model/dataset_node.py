"""A Dataset node as a formula and tests: what X, Transformations and Contrasts mean for the group level."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import number_in, show
from ibma_app.firstlevel.model.faults import choose_from
from ibma_app.firstlevel.model.reading.node_contrasts import write_name
from ibma_app.firstlevel.model.stats_model import INTERCEPT, Contrast, Instruction, Node

Factors = dict[str, tuple[str, str]]

FUNCTIONS = {"Demean": "center", "Scale": "scale"}


@dataclass(frozen=True)
class Term:
    """A column of X: how a formula writes it, and what its column is called then."""

    text: str
    column: str


def formula_of(node: Node, where: str) -> str:
    """Return the formula of a Dataset node: ``1 + age``.

    Raises
    ------
    DataError
        A column of X is a transformation that formulas do not have; the message has its path.
    """
    if node.formula is not None:
        return node.formula
    terms = _terms(node, where)
    listed = [terms[name].text for name in node.x if name != INTERCEPT]
    return " + ".join(["1" if INTERCEPT in node.x else "0", *listed]) if listed else "1"


def tests_of(node: Node, where: str) -> tuple[str, ...] | None:
    """Return the tests of a Dataset node as ``--test`` takes them; None: every column, by its own name.

    Raises
    ------
    DataError
        As `formula_of`; or a name is none of a test.
    """
    terms = {} if node.formula is not None else _terms(node, where)
    plain = all(term.text in (name, f"`{name}`") for name, term in terms.items() if name != INTERCEPT)
    dummies = _listed(node)
    if not node.contrasts and dummies == node.x and (plain or node.formula is not None):
        return None
    tests = [f"{_test_name(name, node.path, where)}={_column(name, terms)}" for name in dummies]
    for contrast in node.contrasts:
        rows = ", ".join(_expression(contrast, row, terms) for row in contrast.weights)
        tests.append(f"{_test_name(contrast.name, f'{contrast.path}.Name', where)}={rows}")
    return tuple(tests)


def _listed(node: Node) -> tuple[str, ...]:
    """Return the columns that dummy contrasts test."""
    if node.dummies is None:
        return ()
    return node.x if node.dummies.conditions is None else node.dummies.conditions


def _test_name(name: str, path: str, where: str) -> str:
    if re.search(r"[=()\[\]]", name):
        raise DataError(f"{where}: {path}: is {show(name)}: the name of a test has no signs such as = ( ) [ ].")
    return name


def _column(name: str, terms: dict[str, Term]) -> str:
    return terms[name].column if name in terms else name


def _expression(contrast: Contrast, row: Sequence[float], terms: dict[str, Term]) -> str:
    """Write a row of weights as an expression: ``0.5*a - b``."""
    pieces = []
    for name, weight in zip(contrast.conditions, row, strict=True):
        if not weight:
            continue
        sign = "-" if weight < 0 else "+"
        size = "" if abs(weight) == 1 else f"{abs(weight)!r}*"
        pieces.append(f"{sign} {size}{_column(name, terms)}")
    text = " ".join(pieces)
    return text.removeprefix("+ ") if text.startswith("+") else f"-{text.removeprefix('- ')}"


def _terms(node: Node, where: str) -> dict[str, Term]:
    """Return the terms of the columns of X: plain columns of participants.tsv, or what transformations make."""
    made: dict[str, Term] = {}
    factors: Factors = {}  # "sex." -> the column, quoted
    for one in node.instructions:
        _transform(one, made, factors, where)
    terms = {INTERCEPT: Term("1", INTERCEPT)}
    for place, name in enumerate(node.x):
        if name == INTERCEPT:
            continue
        parts = [_term(part, made, factors) for part in name.split(":")]
        unknown = [part for part, term in zip(name.split(":"), parts, strict=True) if term is None]
        if unknown:
            text = f"{show(write_name(unknown[0]))} is no column after Factor. Write one of its levels, as in sex.F."
            raise DataError(f"{where}: {node.path}.Model.X[{place}]: {text}")
        known = [part for part in parts if part is not None]
        terms[name] = Term(":".join(part.text for part in known), ":".join(part.column for part in known))
    return terms


def _term(name: str, made: dict[str, Term], factors: Factors) -> Term | None:
    """Return the term of one name; None: a factor itself, which is no column."""
    if name in made:
        return made[name]
    for stem, (column, quoted) in factors.items():
        if name == column:
            return None
        if name.startswith(stem):
            level = name.removeprefix(stem)
            number = number_in(level)
            text = f"I({quoted} == {level if number is not None else repr(level)})"
            return Term(text, text)
    return Term(quote(name), name)


def _transform(
    instruction: Instruction, made: dict[str, Term], factors: dict[str, tuple[str, str]], where: str
) -> None:
    """Follow one transformation of the columns of participants.tsv."""
    extra = [key for key in instruction.arguments if key not in ("Output", "Sep")]
    if extra:
        text = f"{instruction.name} of the dataset has no {extra[0]} here.{choose_from(('Output', 'Sep'))}"
        raise DataError(f"{where}: {instruction.path}.{extra[0]}: {text}")
    outputs = instruction.arguments.get("Output", instruction.inputs)
    for name, output in zip(instruction.inputs, outputs, strict=True):
        term = _term(name, made, factors) or Term(quote(name), name)
        if instruction.name == "Factor":
            factors[name + instruction.arguments.get("Sep", ".")] = (name, term.text)
        elif instruction.name in FUNCTIONS:
            text = f"{FUNCTIONS[instruction.name]}({term.text})"
            made[output] = Term(text, text)
        else:
            made[output] = term


def quote(name: str) -> str:
    """Write the name of a column for a formula."""
    return name if name.isidentifier() else f"`{name}`"
