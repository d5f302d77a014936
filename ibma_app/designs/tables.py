"""Tables of covariates: participants.tsv, studies.tsv and the like, joined to the maps."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import pandas as pd

from ibma_app.core.errors import DataError, InputError, did_you_mean
from ibma_app.core.from_files import MOST_PEOPLE, number_in, read_sample_size, read_text
from ibma_app.core.statmap import Observation
from ibma_app.designs.formulas import QUOTING
from ibma_app.designs.map_rows import ROW_KEYS, RowFinder, read_keys, refuse_twins, rows_of

PREFIXES = {"participant_id": "sub-", "study_id": "study-"}
"""Key column -> the prefix that its labels may have."""

MISSING = ("n/a", "N/A", "NA", "NaN", "nan", "")
"""Texts of a missing value; BIDS writes n/a."""

LONG_NAMES = {
    "sub": "subject",
    "ses": "session",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "rec": "reconstruction",
    "dir": "direction",
    "mod": "modality",
    "inv": "inversion",
    "mt": "mtransfer",
    "proc": "processing",
    "hemi": "hemisphere",
    "res": "resolution",
    "den": "density",
    "desc": "description",
}
"""Short key of an entity -> its long BIDS name, where they differ."""

LARGEST_TABLE, MOST_COLUMNS = 64 * 2**20, 20_000  # bytes of a table; biobanks have some thousand columns

Table = pd.DataFrame  # for packages that pass tables on and do not import pandas
TABLE_PATH, ROW_NAMES, ABSENT, LABELS, COLUMNS = "path", "names", "absent", "labels", "columns"
"""Keys of ``DataFrame.attrs``: the file that covariates come from, what rows are called, which it does not have."""


def read_table(path: Path, key: str, *, of_maps: bool = False) -> pd.DataFrame:
    """Read a tab-separated table of covariates.

    Parameters
    ----------
    path : Path
        The file.
    key : {"participant_id", "study_id"}
        The column that names the rows. Several rows of one label are
        distinguished by columns that are called as entities are: contrast, session, task, run.
    of_maps : bool
        Whether such columns say which maps a row applies to even where no label comes twice.

    Returns
    -------
    DataFrame
        Indexed by the bare label (without ``sub-`` or ``study-``); ``n/a`` is
        missing, columns of numbers are numeric. ``attrs["path"]`` is the file.

    Raises
    ------
    InputError
        When the file is missing or cannot be opened.
    DataError
        When it is not such a table, lacks the key column or has two rows of one name.
    """
    path = Path(path)
    table = read_cells(path)
    if key not in table.columns:
        hint = "" if len(table.columns) > 1 else " Columns must be separated by tabs."
        alike = [name for name in table.columns if re.sub(r"[\s_-]", "", name).lower() == key.replace("_", "")]
        hint = f" Rename {alike[0]} to {key}." if alike else hint
        msg = f"{path} has no column {key!r}; it has: {', '.join(table.columns)}.{hint}"
        raise DataError(msg)
    labels = table[key].str.removeprefix(PREFIXES.get(key, ""))
    if labels.isin(MISSING).any():
        row = int(labels.isin(MISSING).to_numpy().argmax()) + 2
        msg = f"{path} has no {key} in line {row}. Name the row or remove it."
        raise DataError(msg)
    keys = read_keys(table, MISSING)
    refuse_twins(labels.tolist(), keys, path, key)
    columns = {name: _to_values(table[name]) for name in table.columns if name != key}
    result = pd.DataFrame(columns, index=table.index)
    result.index = pd.Index(labels.to_numpy(), name=key)
    result.attrs[TABLE_PATH] = str(path)
    if keys and (of_maps or labels.duplicated().any()):
        result.attrs[ROW_KEYS] = keys
    return result


def collect_covariates(
    observations: Sequence[Observation],
    table: pd.DataFrame | None = None,
    key: str = "participant_id",
    table_path: Path | None = None,
) -> pd.DataFrame:
    """Collect the variables that a formula may use: entities, sample size and the table's columns.

    Missing values matter only where a formula uses them.

    Parameters
    ----------
    observations : sequence of Observation
        The rows of the design, K.
    table : DataFrame, optional
        From `read_table`; observations that it lacks get missing values.
    key : {"participant_id", "study_id"}
        What ``Observation.unit_label`` is.
    table_path : Path, optional
        The table's file, for messages; by default what `read_table` noted.

    Returns
    -------
    DataFrame
        One row per observation: the key, every entity under its short and its
        long BIDS name, ``sample_size`` (the map's own, else the table's), and
        the table's other columns. An entity wins over a column of its name.
    """
    units = [observation.unit_label for observation in observations]
    columns: dict[str, pd.Series] = {key: pd.Series(units, dtype=object)}
    columns |= _entity_columns(observations)
    sizes = [observation.sample_size for observation in observations]
    columns["sample_size"] = pd.Series([math.nan if n is None else float(n) for n in sizes], dtype=float)
    path = table_path
    if table is not None:
        path = path or table.attrs.get(TABLE_PATH)
        rows, there = rows_of(table, observations)
        if "sample_size" in rows and pd.api.types.is_numeric_dtype(rows["sample_size"]):
            columns["sample_size"] = columns["sample_size"].fillna(rows["sample_size"].astype(float))
        own = [name for name in rows.columns if name not in columns]
        columns |= {name: rows[name] for name in own}
    result = pd.DataFrame(columns)
    if path is not None:
        result.attrs[TABLE_PATH] = str(path)
    if table is not None:
        # maps are named where rows are, else their subjects or studies
        names = _names_of(observations, key, of_maps=ROW_KEYS in table.attrs)
        result.attrs[ROW_NAMES] = names
        result.attrs[ABSENT] = [name for name, known in zip(names, there, strict=True) if not known]
        result.attrs[LABELS] = list(map(str, table.index))
        result.attrs[COLUMNS] = own
    return result


def _names_of(observations: Sequence[Observation], key: str, *, of_maps: bool) -> list[str]:
    """Return what messages call each row."""
    prefix = PREFIXES.get(key, "")
    return [one.label if of_maps else f"{prefix}{one.unit_label}" for one in observations]


def require_complete(
    observations: Sequence[Observation], covariates: pd.DataFrame, names: Sequence[str], by: str = "The formula"
) -> None:
    """Refuse covariates that do not exist or that an observation lacks.

    Parameters
    ----------
    observations : sequence of Observation
        The rows, K.
    covariates : DataFrame
        Of the same K rows, from `collect_covariates`.
    names : sequence of str
        Those that are used.
    by : str
        What names them, for the message.

    Raises
    ------
    DataError
        Naming the columns that exist, or the column, the subjects and the file.
    """
    file = covariates.attrs.get(TABLE_PATH)
    where = str(file) if file else "the maps' names"
    unknown = [name for name in names if name not in covariates.columns]
    if unknown:
        hint = did_you_mean(unknown[:1], list(map(str, covariates.columns)))
        nowhere = "no participants.tsv or studies.tsv lies beside the maps or in BIDS_DIR; name one with --covariates"
        found = f"{where} does not have" if file else f"is not in the maps' names ({nowhere})"
        raise DataError(f"{by} names {', '.join(map(repr, unknown))}, which {found}.{hint}{_choices(covariates)}")
    called = covariates.attrs.get(ROW_NAMES) or _names_of(observations, str(covariates.columns[0]), of_maps=False)
    for name in names:
        missing = covariates[name].isna()
        if missing.any():
            lacking = list(dict.fromkeys(compress(called, missing)))
            rowless = [row for row in lacking if row in covariates.attrs.get(ABSENT, ())]
            text = f"The covariate {name!r} is missing for {_listed(lacking)} in {where}"
            text += f" ({_listed(rowless)}: no row)" if rowless else ""
            units = [one.unit_label for one, gone in zip(observations, missing, strict=True) if gone]
            flag = "study" if "study" in observations[0].entities else "participant"
            spoilt = _lost_zeros(covariates.attrs.get(LABELS, ()), units)
            remedy = spoilt or (
                f"Complete it, or leave them out: --exclude-{flag}-label {' '.join(sorted(dict.fromkeys(units)))}."
            )
            raise DataError(f"{text}. {remedy}")


def _choices(covariates: pd.DataFrame) -> str:
    """List the columns that a formula can use: what is alike in all maps cannot be estimated."""
    of_table = set(covariates.attrs.get(COLUMNS, ()))
    other = {"subject", "study"} | {short for short, long in LONG_NAMES.items() if long in covariates.columns}
    varying = [str(name) for name in covariates.columns[1:] if covariates[name].nunique() > 1]
    own = [name for name in varying if name in of_table]
    named = [name for name in varying if name not in of_table | other]
    told = [", ".join(own)] if own else []
    told += [f"{', '.join(named)} (of the maps)"] if named else []
    quoting = f" {QUOTING}" if not all(name.isidentifier() for name in (*own, *named)) else ""
    return f" Columns to choose from: {'; '.join(told)}.{quoting}" if told else ""


def _lost_zeros(labels: Sequence[str], units: Sequence[str]) -> str:
    """Say where a spreadsheet made numbers of a table's labels (1 or 1.0 of 01); "" where none did."""

    def number(label: str) -> str:
        return label.removesuffix(".0").lstrip("0")

    spoilt = [(label, unit) for unit in units for label in labels if label != unit and number(label) == number(unit)]
    if not spoilt or not all(label.removesuffix(".0").isdecimal() for label, _ in spoilt):
        return ""
    label, unit = spoilt[0]
    return f"It calls them {label} instead of {unit} and so on, as spreadsheets make numbers of labels: write {unit}."


def _listed(names: Sequence[str]) -> str:
    """List the first ten."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def read_cells(path: Path) -> pd.DataFrame:
    """Read every cell as text."""
    try:
        # the first line is read as cells: pandas would rename duplicate columns
        text = read_text(path, LARGEST_TABLE)
        if (count := text.partition("\n")[0].count("\t") + 1) > MOST_COLUMNS:
            raise ValueError(f"it has {count} columns, more than {MOST_COLUMNS}")
        cells = pd.read_csv(io.StringIO(text), sep="\t", dtype=str, keep_default_na=False, header=None)
    except FileNotFoundError as error:
        msg = f"The table {path} does not exist."
        raise InputError(msg) from error
    except OSError as error:
        msg = f"The table {path} cannot be opened: {error.strerror or error}."
        raise InputError(msg) from error
    except pd.errors.EmptyDataError as error:
        msg = f"{path} is empty; a table needs a line of column names."
        raise DataError(msg) from error
    except (ValueError, pd.errors.ParserError) as error:
        msg = f"{path} is not a tab-separated table in UTF-8: {str(error).strip()}. Save it as text (UTF-8) with tabs."
        raise DataError(msg) from error
    table = cells.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index([str(name).strip() for name in cells.iloc[0]])
    if table.columns.duplicated().any():
        twice = ", ".join(sorted(set(table.columns[table.columns.duplicated()])))
        msg = f"{path} has several columns called {twice}. Rename or remove them."
        raise DataError(msg)
    return table.apply(lambda column: column.str.strip())


def _to_values(cells: pd.Series) -> pd.Series:
    """Turn a column of text into numbers where every value that is not missing is a number."""
    cells = cells.mask(cells.isin(MISSING)).astype(object)
    present = cells.dropna()
    if present.empty:
        return cells
    try:
        numbers = pd.to_numeric(present)
    except (ValueError, TypeError):
        return cells
    if len(present) == len(cells) or not pd.api.types.is_integer_dtype(numbers):
        return numbers.reindex(cells.index)
    # whole numbers stay whole beside missing ones, so that C(group)[T.2] is not called C(group)[T.2.0]
    return numbers.astype("Int64").reindex(cells.index)


def _entity_columns(observations: Sequence[Observation]) -> Mapping[str, pd.Series]:
    """Return every entity under its short and its long name; missing where a map has none."""
    names = dict.fromkeys(name for observation in observations for name in observation.entities)
    columns: dict[str, pd.Series] = {}
    for name in names:
        labels = pd.Series([observation.entities.get(name) for observation in observations], dtype=object)
        columns[name] = labels
        columns[LONG_NAMES.get(name, name)] = labels
    return columns


def sample_sizes(table: Table | None) -> Callable[[str, Mapping[str, str]], float | None]:
    """Return a function that finds ``sample_size`` by a map's unit and entities; None where it is not stated."""
    if table is None or "sample_size" not in table.columns:
        return lambda unit_label, entities: None
    value_of = _value_finder(table)
    return lambda unit_label, entities: _size(value_of("sample_size", unit_label, entities))


LIKE_SAMPLE_SIZE = re.compile(r"(n|nsubj\w*|n_?subjects?|subjects|sample[ _-]?size|samplesize|n_?participants?)$", re.I)


def check_sample_sizes(table: Table, observations: Sequence[Observation]) -> tuple[str, ...]:
    """Say what of studies.tsv should be a sample size and is none, for studies that have no other.

    Returns
    -------
    tuple of str
        Warnings: a column of another name, studies without a row, rows of no study.

    Raises
    ------
    DataError
        A cell of ``sample_size`` that is no number of people.
    """
    path = table.attrs.get(TABLE_PATH)
    lacking = [one for one in observations if one.sample_size is None]
    if not lacking:
        return ()
    labels = list(dict.fromkeys(one.unit_label for one in lacking))
    if "sample_size" not in table.columns:
        like = [str(name) for name in table.columns if LIKE_SAMPLE_SIZE.match(str(name))]
        if not like:
            return ()
        return (f"{path} has no column sample_size. Is it {like[0]!r}? Call it sample_size, and it will be used.",)
    finder, notes = RowFinder(table), []
    cells = {one.unit_label: table["sample_size"].iloc[finder.find(one.unit_label, one.entities)] for one in lacking}
    bad = {label: cell for label, found in cells.items() for cell in found if not pd.isna(cell) and _size(cell) is None}
    if bad:
        label, cell = next(iter(bad.items()))
        raise DataError(
            f"{path}: the sample_size {str(cell)!r} of {label} is no number of people"
            f"{f' (and {len(bad) - 1} more)' if len(bad) > 1 else ''}. Write a whole number alone, or n/a."
        )
    rowless = [label for label in labels if cells[label].empty]
    if rowless:
        there = {one.unit_label for one in observations}
        unused = [str(label) for label in dict.fromkeys(table.index) if label not in there]
        spare = f"; rows of no selected study: {_listed(unused)}" if unused else ""
        notes.append(f"{path} has no row of {_listed(rowless)}, whose sample size is unknown{spare}.")
    return tuple(notes)


def _size(cell: object) -> float | None:
    """Return a cell that is a number of people; None for all else (1.024 may be meant as 1,024)."""
    number = number_in(cell)
    return number if number is not None and 1 <= number <= MOST_PEOPLE and number.is_integer() else None


def stated_sample(table: Table | None, observation: Observation) -> tuple[float | None, float | None, str | None]:
    """Return a study's ``n1``, ``n2`` (sizes of two groups that are compared) and ``design``; None where not stated.

    Raises
    ------
    DataError
        One of the sizes is no number of people.
    """
    if table is None:
        return None, None, None
    value_of, of = _value_finder(table), (observation.unit_label, observation.entities)
    file, stated = table.attrs.get(TABLE_PATH, "the table"), {name: value_of(name, *of) for name in ("n1", "n2")}
    n1, n2 = (
        None if value is None or pd.isna(value) else read_sample_size(value, file, f"{name} of {observation.label}")
        for name, value in stated.items()
    )
    design = value_of("design", *of)
    return (n1, n2, design.strip().lower() if isinstance(design, str) else None)


def _value_finder(table: Table) -> Callable[[str, str, Mapping[str, str]], Any]:
    """Return a function that finds a column's value for a map; None where there is none, or several that differ."""
    finder = RowFinder(table)

    def value_of(name: str, unit_label: str, entities: Mapping[str, str]) -> Any:
        if name not in table.columns:
            return None
        values = table[name].iloc[finder.find(unit_label, entities)].unique()
        return values[0] if len(values) == 1 else None

    return value_of
