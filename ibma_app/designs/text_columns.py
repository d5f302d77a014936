"""Covariates that are text: what was taken for what, and what may have been meant as numbers."""

import re
from collections.abc import Sequence

import pandas as pd

from ibma_app.core.errors import DataError
from ibma_app.designs.formulas import FormulaTerm
from ibma_app.designs.tables import TABLE_PATH

NUMBER_LIKE = re.compile(
    r"""[<>=~\u2264\u2265]*\s*[-+]?\d[\d.,' ]*      # 1,200   <18   ~5
        (\s*(-|\u2013|/|:|to)\s*\d[\d.,]*)*          # 18-25   3/4   2021-05-01   10:30
        \s*(%|[a-zA-Z\u00b5]{0,7}\.?)$               # 10 %   23 y   70 kg
    """,
    re.VERBOSE,
)
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)
MOSTLY = 0.5  # share of the values
FEW = 2  # distinct values that are always taken for categories
SHOWN = 5
LONGEST = 100  # characters of what may be a number


def describe_texts(terms: Sequence[FormulaTerm], data: pd.DataFrame, path: object) -> tuple[str, ...]:
    """Say which covariates of a formula are text, hence categories; refuse those that look like numbers.

    A covariate that the formula itself calls a category, ``C(age)``, is taken
    at its word.

    Parameters
    ----------
    terms : sequence of FormulaTerm
    data : DataFrame
        K rows, the formula's variables.
    path : object
        The table they come from, for messages.

    Returns
    -------
    tuple of str
        A warning for each column of mostly distinct texts, or of several that look like numbers.

    Raises
    ------
    DataError
        A column of texts that are mostly numbers with something beside them, or all numbers with decimal commas.
    """
    bare = {factor for term in terms for factor in term.factors}
    notes = []
    for name in data.columns:
        if pd.api.types.is_numeric_dtype(data[name]) or name not in bare:
            continue
        values = data[name].astype(str)
        distinct = list(dict.fromkeys(values))
        alike = [value for value in distinct if len(value) <= LONGEST and NUMBER_LIKE.match(value)]
        share = values.isin(alike).mean()
        some_numbers = any(_is_number(value) for value in distinct)
        commas = all(DECIMAL_COMMA.fullmatch(value) or _is_number(value) for value in distinct)
        many = len(distinct) > max(FEW, MOSTLY * len(values))
        if share >= MOSTLY and (some_numbers or commas or many):
            odd = [value for value in distinct if not _is_number(value)]
            where = path or data.attrs.get(TABLE_PATH) or "the table"
            raise DataError(
                f"The covariate {name!r} in {where} is text, though it looks like numbers: {_listed(odd)}. Write each "
                "value as a number with a point (1.5), missing ones as n/a; if they are categories, write "
                f"C({name}) in the formula."
            )
        if many or (share >= MOSTLY and len(distinct) > FEW):
            notes.append(
                f"The covariate {name!r} is text and was taken for a category with {len(distinct)} values in "
                f"{len(values)} maps: {_listed(distinct)}."
            )
    return tuple(notes)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(map(repr, values[:SHOWN]))
    return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")
