"""Formulas: which variables they name, and the columns that formulaic makes of them."""

import ast
import re
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, UsageError
from ibma_app.designs.expressions import INTERCEPT

if TYPE_CHECKING:  # formulaic takes a third of a second to import, and the plain mean does not need it
    from formulaic import ModelSpec, SimpleFormula
    from formulaic.parser.types import Term

MEAN = "1"

FUNCTIONS = frozenset(
    {
        *("C", "I", "Q", "Helmert", "Diff", "Poly", "Sum", "Treatment", "contr"),
        *("center", "scale", "standardize", "poly", "bs", "cr", "cs", "cc"),
        *("exp", "exp2", "exp10", "log", "log2", "log10"),
        *(f"np.{name}" for name in ("abs", "exp", "log", "log10", "log1p", "log2", "sign", "sqrt")),
        *(f"contr.{name}" for name in ("diff", "helmert", "poly", "sum", "treatment")),
    }
)
"""What a formula may call: formulas come from web forms too, and nothing in them may run as Python."""
LONGEST, DEEPEST = 2000, 20  # characters; brackets within brackets
LARGEST_POWER, LARGEST_BASE = 10.0, 1e6  # of a covariate, in I(age**2); of a number that has a power
SPLINES = frozenset({"poly", "bs", "cr", "cs", "cc"})  # functions that take a number of columns
MOST_COLUMNS = 50  # that one of them makes
MOST_TERMS = 1000
SECONDS = 10.0  # that a formula may take to be expanded


@dataclass(frozen=True, eq=False)
class FormulaTerm:
    """One term of a formula and the columns that it became."""

    text: str
    variables: frozenset[str]
    factors: tuple[str, ...]  # as formulaic writes them: "center(age)", "group"
    columns: tuple[str, ...]


QUOTING = 'Names with spaces or signs are written as Q("age at scan").'
_QUOTED = re.compile(r"""(?P<call>\b(?!Q\b)\w+\(\s*)Q\(\s*(?P<quote>['"])(?P<name>[^'"`]+)(?P=quote)\s*\)""")
"""``Q("a name")`` as the first argument of another function, which then cannot look names up: ```a name```."""


def parse_formula(formula: str) -> "SimpleFormula":
    """Parse the right-hand side of a formula.

    Raises
    ------
    UsageError
        When it is not a formula, or has a left-hand side or several parts.
    """
    from formulaic import Formula, SimpleFormula

    if len(formula) > LONGEST or _depth(formula) > DEEPEST:
        raise UsageError(f"--formula {formula[:60]!r}... is longer or deeper than a design needs.")
    try:
        with time_limit(SECONDS):
            parsed = Formula(_QUOTED.sub(r"\g<call>`\g<name>`", formula))
    except TimeoutError:
        raise UsageError(f"--formula {formula!r} expands to too many terms. Name the terms that are wanted.") from None
    except Exception as error:
        # formulaic uses Python's parser, which raises all kinds of exceptions
        msg = f"--formula {formula!r} is not a formula: {plain_text(error)}. {QUOTING}"
        raise UsageError(msg) from error
    if not isinstance(parsed, SimpleFormula):
        msg = f"--formula {formula!r} must be one right-hand side, such as '1 + age + C(group)'."
        raise UsageError(msg)
    if len(parsed) > MOST_TERMS:
        raise UsageError(f"--formula {formula!r} expands to {len(parsed)} terms. Name the terms that are wanted.")
    for term in parsed:
        for factor in term.factors:
            if factor.eval_method.value == "python":
                _refuse_code(factor.expr, formula)
    return parsed


def _depth(text: str) -> int:
    """Return how deep brackets lie within brackets."""
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End what takes longer, in the main thread of a system that has alarms; elsewhere it has all the time.

    Raises
    ------
    TimeoutError
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    waiting = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *waiting)  # an alarm of the caller's, later by what this took


_ALLOWED = (
    *(ast.Expression, ast.Call, ast.Name, ast.Attribute, ast.Load, ast.Constant, ast.keyword, ast.List, ast.Tuple),
    *(ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)


def _refuse_code(code: str, formula: str) -> None:
    """Refuse a factor that is more than arithmetic and the functions of the formula language."""

    def refuse(what: str) -> UsageError:
        functions = ", ".join(sorted(FUNCTIONS))
        return UsageError(f"--formula {formula!r}: {what} has no place in a formula. Functions: {functions}.")

    for node in ast.walk(_parse_code(code)[0]):
        if not isinstance(node, _ALLOWED):
            raise refuse(f"{type(node).__name__.lower()} in {code!r}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in FUNCTIONS:
            raise refuse(ast.unparse(node.func))
        if isinstance(node, ast.Attribute) and ast.unparse(node) not in FUNCTIONS:
            raise refuse(ast.unparse(node))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SPLINES and not _has_few_columns(node):
            raise refuse(f"a number of columns beyond {MOST_COLUMNS} in {code!r}")
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Pow) and not (_is_small(node.right) and _may_have_power(node.left)):
                raise refuse(f"the power {ast.unparse(node)}")
            if any(_is_no_number(side) for side in (node.left, node.right)):  # "a" * 10**9
                raise refuse(f"arithmetic with texts and lists in {code!r}")


def _is_small(power: ast.expr) -> bool:
    """Tell whether an exponent is a plain number that no computation chokes on."""
    if isinstance(power, ast.UnaryOp):
        return _is_small(power.operand)
    return isinstance(power, ast.Constant) and isinstance(power.value, int | float) and power.value <= LARGEST_POWER


def _may_have_power(base: ast.expr) -> bool:
    """Tell whether a base is a covariate's, or a small number: powers of powers of numbers have no end."""
    if isinstance(base, ast.Constant):
        return isinstance(base.value, int | float) and abs(base.value) <= LARGEST_BASE
    called = {id(node.func) for node in ast.walk(base) if isinstance(node, ast.Call)}
    return any(isinstance(node, ast.Name) and id(node) not in called for node in ast.walk(base))


def _is_no_number(node: ast.expr) -> bool:
    return isinstance(node, ast.List | ast.Tuple) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _has_few_columns(call: ast.Call) -> bool:
    """Tell whether the numbers that say how many columns a spline makes are plain and small."""
    numbers = [*call.args[1:], *(one.value for one in call.keywords if one.arg in ("df", "degree", None))]
    return all(
        isinstance(one, ast.Constant) and (not isinstance(one.value, int | float) or one.value <= MOST_COLUMNS)
        for one in numbers
    )


def _parse_code(code: str) -> tuple[ast.Expression, dict[str, str]]:
    """Parse a factor that is code; names in backquotes stand as other names, which are returned too."""
    quoted = {f"_quoted_{i}_": name for i, name in enumerate(re.findall("`([^`]+)`", code))}
    for stand_in, name in quoted.items():
        code = code.replace(f"`{name}`", stand_in)
    return ast.parse(code.strip(), mode="eval"), quoted


def formula_entities(formula: str) -> set[str]:
    """Return the names of the variables in a formula, as they are written in it.

    Functions (``C``, ``center``, ``np.log``) and contrast codings are not
    variables, whereas formulaic's own list misses those inside of ``center``.

    Raises
    ------
    UsageError
        When it is not a formula.
    """
    if formula.strip() == MEAN:
        return set()
    return set().union(*(_term_variables(term, ()) for term in parse_formula(formula)))


class Evaluated(NamedTuple):
    """A formula's columns."""

    matrix: NDArray[np.float64]  # (K, P)
    columns: tuple[str, ...]  # as formulaic names them, the intercept as ``intercept``
    terms: tuple[FormulaTerm, ...]
    spec: "ModelSpec | None"  # makes the same columns of other covariates; None: the intercept alone


def evaluate_formula(formula: str, data: pd.DataFrame) -> Evaluated:
    """Make a formula's columns from covariates that have no missing values.

    Parameters
    ----------
    formula : str
        The right-hand side.
    data : DataFrame
        K rows; what the formula names.

    Raises
    ------
    UsageError
        When it is not a formula.
    DataError
        When it cannot be evaluated, has no columns, or has two of one name.
    """
    if formula.strip() == MEAN:
        return Evaluated(
            np.ones((len(data), 1)), (INTERCEPT,), (FormulaTerm(MEAN, frozenset(), (), (INTERCEPT,)),), None
        )
    parsed = parse_formula(formula)
    try:
        # no context: a formula knows only its covariates and formulaic's own functions
        with time_limit(SECONDS), np.errstate(all="ignore"):  # what is not finite is refused later, by name
            frame = parsed.get_model_matrix(data, context={}, na_action="ignore", output="pandas")
    except TimeoutError:
        raise UsageError(f"--formula {formula!r} takes longer to be evaluated than a design does.") from None
    except Exception as error:
        # functions in the formula may raise anything
        msg = f"--formula {formula!r} cannot be evaluated: {plain_text(error)}."
        raise DataError(msg) from error
    columns = tuple(INTERCEPT if name == "Intercept" else str(name) for name in frame.columns)
    if not columns:
        msg = f"--formula {formula!r} has no columns: nothing can be estimated. The default is '1'."
        raise DataError(msg)
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        msg = f"--formula {formula!r} has several columns called {', '.join(twice)}. Rename a covariate."
        raise DataError(msg)
    terms = tuple(
        FormulaTerm(
            text=str(term),
            variables=frozenset(_term_variables(term, data.columns)),
            factors=tuple(factor.expr for factor in term.factors if factor.eval_method.value != "literal"),
            columns=tuple(columns[index] for index in indices),
        )
        for term, indices in frame.model_spec.term_indices.items()
    )
    return Evaluated(np.ascontiguousarray(frame.to_numpy(dtype=float)), columns, terms, frame.model_spec)


def used_variables(formula: str, available: Collection[str]) -> tuple[str, ...]:
    """Return the variables of a formula, sorted.

    Parameters
    ----------
    formula : str
        The right-hand side.
    available : collection of str
        Covariates; one that has a function's name (``center``) is a variable
        where it is not called as a function.
    """
    if formula.strip() == MEAN:
        return ()
    return tuple(sorted(set().union(*(_term_variables(term, available) for term in parse_formula(formula)))))


def plain_text(error: Exception) -> str:
    """Return an error's message on one line, without colours and code excerpts."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).replace("⧛", "").replace("⧚", "")
    return " ".join(text.split("\n\n")[0].split()).rstrip(".") or type(error).__name__


def _term_variables(term: "Term", available: Collection[str]) -> set[str]:
    """Return the variables of one term."""
    names: set[str] = set()
    for factor in term.factors:
        if factor.eval_method.value == "lookup":
            names.add(factor.expr)
        elif factor.eval_method.value == "python":
            names |= _code_variables(factor.expr, available)
    return names


def _code_variables(code: str, available: Collection[str]) -> set[str]:
    """Return the variables in a factor that is Python code; those in backquotes too."""
    from formulaic.transforms import TRANSFORMS

    tree, quoted = _parse_code(code)
    # Q("age at scan") names a variable by a text
    by_text = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Q" and node.args
        and isinstance(node.args[0], ast.Constant)
    }  # fmt: skip
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    called |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    plain = {quoted.get(name, name) for name in names if name in available or name not in TRANSFORMS}
    return plain | {str(name) for name in by_text}


def numeric_factors(term: FormulaTerm, data: pd.DataFrame) -> Sequence[str]:
    """Return a term's factors when all are numeric, else nothing."""
    numeric = all(pd.api.types.is_numeric_dtype(data[name]) for name in term.variables)
    categorical = any(re.match(r"(C|hashed)\s*\(", factor) for factor in term.factors)
    return term.factors if numeric and term.variables and not categorical else ()
