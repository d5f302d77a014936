"""A table of regions: one row per study (or subject) and region, with an effect and its error, or a statistic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Parcels
from ibma_app.core.errors import DataError
from ibma_app.core.from_files import MOST_DOF, number_in, show
from ibma_app.core.labels import make_label
from ibma_app.core.study import ImportedContrast, ImportRequest, Study
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.table.enigma import EnigmaName, read_name
from ibma_app.importers.table.lines import (
    CITED,
    Cells,
    columns_of_studies,
    lacks_columns,
    no_rows,
    read_lines,
    read_publication,
)
from ibma_app.importers.table.odd_regions import describe_copies, describe_names, describe_p, people_in
from ibma_app.importers.table.region_names import find_parcellation
from ibma_app.importers.table.variances import find_variances

Floats = NDArray[np.float64]

REGION = ("region", "structure", "roi", "parcel")
"""What the column of regions may be called."""

WHAT = "a table of regions"
_ENTITIES = {"study_id": "study", "participant_id": "sub", "session": "ses", "session_id": "ses", "task": "task",
             "run": "run", "desc": "desc"}  # fmt: skip
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "effect": ("effect", "beta", "b", "estimate"),
    "d": ("d", "cohens_d", "smd", "d_icv"),
    "g": ("g", "hedges_g"),
    "variance": ("variance", "var", "varcope"),
    "se": ("se", "stderr", "standard_error", "std_error", "se_icv"),
    "lower": ("ci_lower", "lower", "low_ci", "ci_low", "low_ci_icv"),
    "upper": ("ci_upper", "upper", "up_ci", "ci_up", "ci_high", "up_ci_icv"),
    "t": ("t", "tstat"),
    "z": ("z", "zstat"),
    "p": ("p", "p_value", "pval", "pobs"),
    "dof": ("dof", "df"),
    "n": ("sample_size", "n"),
    "n1": ("n1", "n_patients", "n_cases"),
    "n2": ("n2", "n_controls"),
}
"""Columns of numbers, and how they may be called."""

EFFECTS = {"effect": "", "d": "cohens-d", "g": "hedges-g"}
"""Columns of effects, and the units that their names tell."""

_COUNTS = ("n", "n1", "n2")
_UNUSED = ("fdr_p",)
NEEDED = (
    "study_id or participant_id, contrast, region, and effect (or d or g) with se, variance, ci_lower and ci_upper, "
    "or n1 and n2; or t, z or p"
)


@dataclass(frozen=True)
class _Row:
    """One row, without missing values."""

    line: int
    entities: Mapping[str, str]
    contrast: str
    parcellation: str  # what the table calls it; "": nothing
    region: str
    facts: Cells


def read(source: str, request: ImportRequest) -> Study:
    """Read a table of regions.

    Parameters
    ----------
    source : str
        TSV, or CSV by its name. Needed are ``region`` and ``contrast``, and an effect with what tells its error, or
        t, z or p; see `NUMBERS` for their names. Known beside: ``study_id`` (or ``participant_id``), ``session``,
        ``task``, ``run``, ``desc``, ``seg`` (the parcellation), ``units``, ``tail``, ``doi``, ``authors``, ``title``;
        others become columns of studies.tsv where they are the same in all rows of a study. A table of the ENIGMA
        toolbox says study and contrast in the name of its file.
    request : ImportRequest

    Raises
    ------
    InputError
        The table is missing.
    DataError
        Columns or values that are not valid; two rows for one region.
    """
    table = Path(source)
    header, lines = read_lines(table, WHAT)
    columns = _columns_of(table, header)
    named = read_name(table, header)
    region_column = next((name for name in REGION if name in header), "")
    missing = [] if region_column else ["region"]
    missing += [] if "contrast" in header or named else ["contrast"]
    missing += [] if set(columns) & {*EFFECTS, "t", "z", "p"} else ["effect"]
    if missing:
        raise lacks_columns(table, header, missing, NEEDED)
    if not lines:
        raise no_rows(table)
    rows = [_row(line, cells, region_column, named) for line, cells in lines]
    _check(table, rows)
    known = {*_ENTITIES, *CITED, *REGION, *columns.values(), *_UNUSED, "contrast", "seg", "index", "units", "tail"}
    known |= {named.column} if named else set()
    extra = columns_of_studies(((row.entities["study"], row.facts) for row in rows if "study" in row.entities), known)
    odd = _names_by_parcellation(rows)
    level = "group" if all("study" in row.entities for row in rows) else None
    return Study(
        WHAT,
        source,
        tuple(
            replace(one, notes=(*_odd_names(same, odd), *one.notes))
            for same, shape in _group(rows)
            for one in [_contrast(table, same, shape, columns, extra.get(same[0].entities.get("study", ""), {}))]
        ),
        level=level or ("subject" if all("sub" in row.entities for row in rows) else None),
        notes=named.notes(lines) if named else (),
    )


def _row(line: int, cells: Cells, region_column: str, named: EnigmaName | None) -> _Row:
    """Name what a line is of."""
    entities = {entity: cells[name].removeprefix(f"{entity}-") for name, entity in _ENTITIES.items() if name in cells}
    own = {"study": named.study} if named else {}
    contrast = cells.get("contrast", named.contrast if named else "")
    return _Row(line, own | entities, contrast, cells.get("seg", ""), cells.get(region_column, ""), cells)


def _columns_of(table: Path, header: Sequence[str]) -> dict[str, str]:
    """Return the name in the table of each known column of numbers."""
    found = {meaning: [name for name in names if name in header] for meaning, names in NUMBERS.items()}
    for meaning, there in found.items():
        if len(there) > 1:
            raise DataError(f"{table} has two columns that mean {meaning}: {' and '.join(there)}. Leave one out.")
    effects = [there[0] for meaning, there in found.items() if meaning in EFFECTS and there]
    if len(effects) > 1:
        raise DataError(
            f"{table} has several columns of effects ({', '.join(effects)}): keep the one that is to be combined."
        )
    return {meaning: there[0] for meaning, there in found.items() if there}


def _check(table: Path, rows: Sequence[_Row]) -> None:
    """Refuse rows without contrast or region, and two for one region."""
    seen: dict[tuple[Any, ...], _Row] = {}
    for row in rows:
        for what, text in (("contrast", row.contrast), ("region", row.region)):
            if not text:
                raise DataError(f"{table}, line {row.line}: no {what}.")
        twin = seen.setdefault((*_key(row), row.region.casefold()), row)
        if twin is not row:
            raise DataError(
                f"{table}: lines {twin.line} and {row.line} both give {row.region} of {row.contrast} of one study."
            )


def _key(row: _Row) -> tuple[Any, ...]:
    return (tuple(sorted(row.entities.items())), row.contrast, row.parcellation)


def _group(rows: Sequence[_Row]) -> list[tuple[list[_Row], Elements]]:
    """Return the rows of each contrast, and its regions: all that the table has of the parcellation."""
    contrasts: dict[tuple[Any, ...], list[_Row]] = {}
    regions: dict[str, dict[str, None]] = {}
    for row in rows:
        contrasts.setdefault(_key(row), []).append(row)
        regions.setdefault(row.parcellation, {})[row.region] = None
    shapes = {}
    for called, names in regions.items():
        known = find_parcellation(names)
        numbers = known.numbers if known else {name: number for number, name in enumerate(names, 1)}
        label = make_label(called) or (known.label if known else "regions")
        parcels = Parcels(label, tuple(numbers), np.array(list(numbers.values())))
        shapes[called] = Elements.whole((parcels,), ".tsv")
    return [(same, shapes[called]) for (_, _, called), same in contrasts.items()]


def _names_by_parcellation(rows: Sequence[_Row]) -> dict[str, dict[str, str]]:
    """Tell which names of regions are odd: parcellation as the table calls it -> region -> words."""
    regions: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        whose = row.entities.get("study") or row.entities.get("sub", "")
        regions.setdefault(row.parcellation, {}).setdefault(whose, {})[row.region] = None
    return {called: describe_names(of_studies, called) for called, of_studies in regions.items()}


def _odd_names(rows: Sequence[_Row], odd: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(odd[row.parcellation][row.region] for row in rows if row.region in odd[row.parcellation])


def _contrast(
    table: Path, rows: Sequence[_Row], shape: Elements, columns: Mapping[str, str], extra: Mapping[str, Any]
) -> ImportedContrast:
    """Describe the values of one contrast."""
    names = [str(name) for name in shape.structures[0].labels]
    stated, notes = _numbers(table, rows, names, columns)
    effect = next((name for name in EFFECTS if name in stated), None)
    maps: dict[str, Floats] = {}
    derived: dict[str, str] = {}
    if effect is not None:
        maps["effect"] = stated["effect"] = stated.pop(effect)
        found = find_variances(stated, names, standardised=effect != "effect")
        notes += found.notes
        if np.isfinite(found.values).any():
            maps["variance"] = found.values
            derived = {"variance": found.derived} if found.derived else {}
        notes += describe_copies(names, maps["effect"])
    for kind in ("t", "z"):
        if kind in stated and "variance" not in maps:
            maps[kind] = stated[kind]
    if "p" in stated and not {"variance", "t", "z"} & set(maps):
        maps["p"] = stated["p"]
    else:
        notes += describe_p([row.facts[columns["p"]] for row in rows if columns.get("p") in row.facts])
    first = next(iter(maps.values()))
    dof, of_regions = _dof(stated, np.isfinite(first))
    if of_regions is not None:
        maps["dof"] = of_regions
    size, columns_of_groups, size_notes = people_in(stated)
    units = {row.facts["units"] for row in rows if "units" in row.facts}
    if len(units) > 1:
        raise DataError(f"{table}, line {rows[0].line}: one contrast in several units ({', '.join(sorted(units))}).")
    told = EFFECTS.get(effect or "", "")
    publication, doi, doi_notes = read_publication(table, [(row.line, row.facts) for row in rows])
    return ImportedContrast(
        name=rows[0].contrast,
        maps=LazyMaps({kind: partial(np.copy, values) for kind, values in maps.items()}),
        grid=shape,
        dof=dof,
        sample_size=size,
        units=next(iter(units), told or "unknown"),
        units_source=(
            f"the column units of {table.name}" if units
            else f"the column {columns[effect or '']} of {table.name}" if told
            else "The table does not tell the units."
        ),
        tail=next((row.facts["tail"] for row in rows if "tail" in row.facts), None) if "p" in maps else None,
        entities={**rows[0].entities, "seg": shape.structures[0].name},
        columns={**extra, **columns_of_groups, **({"doi": doi} if doi else {})},
        publication=publication,
        notes=(*notes, *size_notes, *doi_notes),
        derived=derived,
        sources=(str(table),),
    )  # fmt: skip


def _numbers(
    table: Path, rows: Sequence[_Row], names: Sequence[str], columns: Mapping[str, str]
) -> tuple[dict[str, Floats], tuple[str, ...]]:
    """Return each column of numbers that has any, (V,), NaN where there is none; and notes on how they are written."""
    place = {name: number for number, name in enumerate(names)}
    found, thousands = {}, False
    for meaning, column in columns.items():
        values = np.full(len(names), np.nan)
        needed = meaning != "p" or set(columns) <= {"p", *_COUNTS}
        for row in rows:
            if column in row.facts and (needed or number_in(row.facts[column]) is not None):
                text = row.facts[column]
                grouped = meaning in _COUNTS and _is_grouped(text)
                thousands |= grouped
                values[place[row.region]] = _number(
                    text.replace(",", "") if grouped else text, meaning, f"{table}, line {row.line}", column
                )
        if np.isfinite(values).any():
            found[meaning] = values
    if not {*EFFECTS, "t", "z", "p"} & set(found):
        raise DataError(f"{table}, line {rows[0].line}: {rows[0].contrast} has no effect, t, z or p in any region.")
    return found, ("Numbers of people are written with commas between thousands (1,446), and read so.",) * thousands


def _is_grouped(text: str) -> bool:
    """Return whether a count has commas between its thousands: ``1,446``."""
    head, *rest = text.split(",")
    return bool(rest) and head.isdigit() and len(head) <= 3 and all(len(one) == 3 and one.isdigit() for one in rest)


def _number(text: str, meaning: str, where: str, column: str) -> float:
    """Read one number."""
    number = number_in(text)
    if number is None:
        hint = " Write decimals with a point." if "," in text else " Leave the cell empty where there is none."
        raise DataError(f"{where}: {column} is {show(text)}, which is no number.{hint}")
    if meaning in _COUNTS and (number < 1 or not number.is_integer()):
        raise DataError(f"{where}: {column} is {show(text)}; people are counted in whole numbers from 1 on.")
    if meaning == "dof" and not 0 < number <= MOST_DOF:
        raise DataError(f"{where}: {column} is {show(text)}; degrees of freedom are a number above 0.")
    return number


def _dof(stated: Mapping[str, Floats], there: NDArray[np.bool_]) -> tuple[float | None, Floats | None]:
    """Return the dof as one number, else by region; neither where a region that has a value lacks them."""
    dof = stated.get("dof")
    if dof is None and {"n1", "n2"} <= set(stated):
        dof = stated["n1"] + stated["n2"] - 2.0
    if dof is None or not np.isfinite(dof[there]).all() or not there.any() or (dof[there] <= 0).any():
        return None, None
    if np.ptp(dof[there]) == 0.0:
        return float(dof[there][0]), None
    return None, np.where(there, dof, 0.0)
