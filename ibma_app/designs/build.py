"""Build a design of observations, covariates and a formula, or say why it cannot be estimated."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.core.statmap import Observation
from ibma_app.designs.aliases import describe_aliases, has_full_rank
from ibma_app.designs.expressions import INTERCEPT
from ibma_app.designs.factors import NO_FACTORS, find_cells, find_covariates, find_factors, find_groups
from ibma_app.designs.formulas import MEAN, Evaluated, FormulaTerm, evaluate_formula, numeric_factors, used_variables
from ibma_app.designs.tables import TABLE_PATH, require_complete
from ibma_app.designs.tests import TestSpec, default_tests, resolve_tests
from ibma_app.designs.text_columns import describe_texts

Floats = NDArray[np.float64]

UNIT_NAMES = frozenset({"participant_id", "subject", "sub", "study_id", "study"})
"""Variables that name a subject or study: their columns are nuisance."""

CLUSTER = "cluster"
"""Covariate that names maps whose errors may depend on each other, in place of the subject or study."""

EXCHANGEABILITY = "exchangeability"
"""Covariate that names blocks within which maps may be exchanged; negative blocks are exchanged as wholes."""


MOST_GROUPS, LEAST_OF_GROUP = 8, 3
"""A variable of the formula with as few values at most, each of as many maps at least, tells groups of maps."""


def one_sample_design(n_maps: int) -> Design:
    """Return the design of an intercept alone, for any number of maps (one included)."""
    test = Test(INTERCEPT, np.ones((1, 1)))
    return Design(matrix=np.ones((n_maps, 1)), columns=(INTERCEPT,), tests=(test,))


def build_design(
    observations: Sequence[Observation],
    covariates: pd.DataFrame,
    formula: str = "1",
    tests: Mapping[str, TestSpec] | None = None,
    *,
    tail: str = "two-sided",
    advice: Callable[[], str] = str,
    groupings: Collection[str] = (),
) -> Design:
    """Build the design that a formula describes.

    Parameters
    ----------
    observations : sequence of Observation
        The rows, K.
    covariates : DataFrame
        Of the same K rows, from `collect_covariates`.
    formula : str
        The right-hand side, as formulaic reads it.
    tests : mapping of label to TestSpec, optional
        By default every column that is not nuisance is tested.
    tail : str
        Of t tests that have none of their own.
    advice : callable, optional
        Returns what to do where subjects have several maps, and the formula has a column for each beside what does not
        vary within them.
    groupings : collection of str
        Covariates whose groups have variances of their own (``tau2_by``).

    Returns
    -------
    Design
        Of full rank. Its notes are warnings for log and report.

    Raises
    ------
    DataError
        Covariates missing or unknown, aliased or constant columns, too few maps,
        tests that must be named.
    UsageError
        A formula or a test that cannot be read.
    """
    if len(observations) < 2:
        _refuse_lone_map(observations)
    data = _take_covariates(observations, covariates, formula)
    evaluated = evaluate_formula(formula, data)
    matrix, columns, terms, _ = evaluated
    _check_finite(matrix, columns, observations, covariates.attrs.get(TABLE_PATH))
    labels = {label for observation in observations for label in observation.entities.values()}
    own = data[[name for name in data.columns if not set(data[name].astype(str)) <= labels]]  # names' labels are labels
    texts = describe_texts(terms, own, covariates.attrs.get(TABLE_PATH))
    nuisance = _nuisance(terms)
    repeated = len({one.unit_label for one in observations}) < len(observations)
    _check_rank(evaluated, data, formula, advice if nuisance and repeated else str)
    factors = find_factors(evaluated, data, UNIT_NAMES) if formula != MEAN else NO_FACTORS
    if tests:
        asked = resolve_tests(tests, columns, tail, factors)
    else:
        asked = _default_tests(columns, nuisance, tail, formula)
    clusters, cluster_name, cluster_labels = _clusters(observations, covariates, data.columns)
    units, unit_name = _units(observations, covariates, clusters, cluster_name)
    notes = [*texts, *_notes_on_centring(matrix, columns, terms, asked, data)]
    blocks, whole = _exchangeability(observations, covariates)
    return Design(
        matrix, columns, asked, formula, blocks, nuisance,
        repeated=repeated,
        notes=tuple(notes),
        whole_blocks=whole,
        clusters=clusters,
        cluster_name=cluster_name,
        cluster_labels=cluster_labels,
        places=_places(data, clusters),
        units=units,
        unit_name=unit_name,
        groupings=_groupings(observations, covariates, groupings, data),
        cells=find_cells(factors, data),
        covariates=find_covariates(evaluated, data),
        groups=find_groups(factors, data, units),
    )  # fmt: skip


def _default_tests(columns: Sequence[str], nuisance: Sequence[str], tail: str, formula: str) -> tuple[Test, ...]:
    """Return a test for each column; with subject columns tests must be named."""
    if nuisance:
        free = [column for column in columns if column not in nuisance]
        msg = (
            f"--formula {formula!r} has a column for each subject, so the tests must be named with "
            f"--test NAME=EXPR or --contrast-file. Columns to test: {', '.join(free) or 'none'}."
        )
        raise DataError(msg)
    return default_tests(columns, nuisance, tail)


def _refuse_lone_map(observations: Sequence[Observation]) -> None:
    """Refuse to combine fewer than two maps."""
    if not observations:
        msg = "There are no maps to combine."
        raise DataError(msg)
    msg = (
        f"Only one map would be combined ({observations[0].path}): a group analysis needs at least two. "
        "Widen the filters, or pool more with --pool."
    )
    raise DataError(msg)


def _take_covariates(observations: Sequence[Observation], covariates: pd.DataFrame, formula: str) -> pd.DataFrame:
    """Return the covariates of the formula, complete and of plain types."""
    names = used_variables(formula, covariates.columns)
    require_complete(observations, covariates, names)
    # only these are given to formulaic: an unused column called 'center' must not hide the function
    data = {name: _plain_values(covariates[name]) for name in names}
    return pd.DataFrame(data, index=pd.RangeIndex(len(covariates)))


def _plain_values(column: pd.Series) -> pd.Series:
    """Return plain integers, floats or text: no nullable types beyond this point."""
    values = column.reset_index(drop=True)
    if pd.api.types.is_integer_dtype(values):
        return values.astype("int64")
    return values.astype(float) if pd.api.types.is_numeric_dtype(values) else values.astype(str)


def _check_finite(
    matrix: Floats, columns: Sequence[str], observations: Sequence[Observation], path: object = None
) -> None:
    """Refuse columns that are not finite, such as the logarithm of 0."""
    bad = ~np.isfinite(matrix)
    if bad.any():
        column = int(np.flatnonzero(bad.any(axis=0))[0])
        rows = ", ".join(observations[i].label for i in np.flatnonzero(bad[:, column])[:10])
        where = f" (covariates of {path})" if path else ""
        msg = f"The design's column {columns[column]!r} is not a finite number for {rows}{where}."
        raise DataError(msg)


def _check_rank(evaluated: Evaluated, data: pd.DataFrame, formula: str, advice: Callable[[], str]) -> None:
    """Refuse designs that cannot be estimated, and say why."""
    matrix, columns, terms, _ = evaluated
    full = has_full_rank(matrix)
    empty = [term for term in terms if not term.columns]
    constant = [name for name in data.columns if data[name].nunique() == 1]
    of_constant = [name for name in constant if any(name in term.variables for term in empty) or not full]
    if of_constant:
        values = ", ".join(f"{name!r} is {data[name].iloc[0]}" for name in of_constant)
        msg = f"--formula {formula!r} cannot be estimated: {values} for every map. Leave it out."
        raise DataError(msg)
    n_maps, n_columns = matrix.shape
    if n_maps <= n_columns:
        text = [name for name in data.columns if _mixes_text(data[name])]
        hint = f" {', '.join(map(repr, text))} is text and makes a column per value." if text else ""
        shown = ", ".join(columns[:12]) + (", ..." if n_columns > 12 else "")
        msg = (
            f"{n_maps} maps are too few for the {n_columns} columns of --formula {formula!r} ({shown}): "
            f"there must be more maps than columns.{hint}"
        )
        raise DataError(msg)
    if not full:
        msg = (
            f"--formula {formula!r} cannot be estimated, because columns follow from each other: "
            f"{'; '.join(describe_aliases(matrix, columns)[:5])}. {advice() or 'Leave one of each out of the formula.'}"
        )
        raise DataError(msg)


def _nuisance(terms: Sequence[FormulaTerm]) -> tuple[str, ...]:
    """Return the columns of terms that name subjects or studies."""
    return tuple(column for term in terms if term.variables & UNIT_NAMES for column in term.columns)


def _clusters(
    observations: Sequence[Observation], covariates: pd.DataFrame, used: Collection[str]
) -> tuple[NDArray[np.int64] | None, str, tuple[str, ...]]:
    """Return the cluster (K,) of each map, what defines them, and their labels (K,); None: all maps are independent.

    Clusters are subjects or studies, or those of a column ``cluster`` that the
    formula does not use; whose value is missing there is a cluster alone.
    """
    labels, name = [observation.unit_label for observation in observations], str(covariates.columns[0])
    if CLUSTER in covariates and CLUSTER not in used and covariates[CLUSTER].notna().any():
        alone = pd.Series([f"{name} {label}" for label in labels])
        named = covariates[CLUSTER].astype(object).map(str, na_action="ignore").fillna(alone)
        parted = [str(unit) for unit, own in named.groupby(labels, sort=False) if own.nunique() > 1]
        if parted:
            units = ", ".join(parted[:10])
            msg = f"The column {CLUSTER!r} parts the maps of {units}: give all maps of one {name} the same label."
            raise DataError(msg)
        labels, name = named.tolist(), CLUSTER
    codes = pd.factorize(np.array(labels, dtype=object))[0].astype(np.int64)
    return (codes, name, tuple(labels)) if codes.max() + 1 < codes.size else (None, "", ())


def _units(
    observations: Sequence[Observation], covariates: pd.DataFrame, clusters: NDArray[np.int64] | None, name: str
) -> tuple[NDArray[np.int64] | None, str]:
    """Return the participant (K,) of each map, and what names them, where one has several maps; else the clusters."""
    labels, key = [observation.unit_label for observation in observations], str(covariates.columns[0])
    if key != "participant_id" or len(set(labels)) == len(labels):
        return clusters, name
    return pd.factorize(np.array(labels, dtype=object))[0].astype(np.int64), key


def _groupings(
    observations: Sequence[Observation], covariates: pd.DataFrame, named: Collection[str], data: pd.DataFrame
) -> dict[str, tuple[str, ...]]:
    """Return the group of each map, (K,), by covariate: those that are named, and the formula's few-valued ones."""
    require_complete(observations, covariates, tuple(named), "tau2_by")
    of_formula = [
        name
        for name in data.columns
        if name not in UNIT_NAMES
        and 2 <= (counts := data[name].value_counts()).size <= MOST_GROUPS
        and counts.min() >= LEAST_OF_GROUP
    ]
    return {name: tuple(_plain_values(covariates[name]).astype(str)) for name in dict.fromkeys((*named, *of_formula))}


def _places(data: pd.DataFrame, clusters: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Number the conditions of maps, (K,), by the formula's variables that vary within clusters; None: none does."""
    if clusters is None:
        return None
    varying = [
        name for name in data.columns if name not in UNIT_NAMES and data[name].groupby(clusters).nunique().max() > 1
    ]
    return data.groupby(varying, sort=True).ngroup().to_numpy().astype(np.int64) if varying else None


def _exchangeability(
    observations: Sequence[Observation], covariates: pd.DataFrame
) -> tuple[NDArray[np.int64] | None, bool]:
    """Return the block (K,) of each map, and whether blocks are exchanged as wholes; None: there is no such column.

    The signs of the labels decide, as in PALM (Winkler et al. 2015): maps of one
    positive (or text) label are exchanged with each other; of negative labels,
    whole blocks are, and maps keep their order within them.
    """
    if EXCHANGEABILITY not in covariates:
        return None, False
    require_complete(observations, covariates, (EXCHANGEABILITY,))
    labels = covariates[EXCHANGEABILITY]
    negative = labels < 0 if pd.api.types.is_numeric_dtype(labels) else pd.Series([False])
    if negative.any() and not negative.all():
        msg = (
            f"The column {EXCHANGEABILITY!r} has labels below 0 and others. Blocks are exchanged as wholes when "
            "all labels are negative, and maps within their blocks when none is: blocks in blocks are not "
            "supported. Give all labels one sign."
        )
        raise DataError(msg)
    return pd.factorize(labels)[0].astype(np.int64), bool(negative.all())


def _mixes_text(column: pd.Series) -> bool:
    """Return whether a column of text is mostly numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return False
    share = float(pd.to_numeric(column, errors="coerce").notna().mean())
    return 0.5 <= share < 1.0


def _notes_on_centring(
    matrix: Floats,
    columns: Sequence[str],
    terms: Sequence[FormulaTerm],
    tests: Sequence[Test],
    data: pd.DataFrame,
) -> list[str]:
    """Propose ``center(x)`` where the intercept is tested beside an uncentred numeric covariate."""
    if INTERCEPT not in columns:
        return []
    intercept = columns.index(INTERCEPT)
    notes = []
    for term in terms:
        factors = numeric_factors(term, data)
        for column in term.columns if factors else ():
            j = columns.index(column)
            values = matrix[:, j]
            mean = float(values.mean())
            centred = abs(mean) <= 1e-8 * float(np.sqrt(np.mean(values**2)))
            rows = np.concatenate([test.weights for test in tests])
            alone = bool(np.any((rows[:, intercept] != 0) & (rows[:, j] == 0)))
            if alone and not centred:
                written = [f"`{one}`" if one in data.columns and not one.isidentifier() else one for one in factors]
                remedy = " and ".join(f"center({factor})" for factor in written)
                notes.append(
                    f"The intercept is tested where {column} is 0, and not at its mean ({mean:.4g}). "
                    f"Use {remedy} in --formula to test it at the mean."
                )
    return notes
