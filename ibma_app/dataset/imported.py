"""Files of a dataset of imported results: its description, earlier maps; and tables of participants or studies."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ibma_app.core.errors import OutputError
from ibma_app.core.from_files import read_json, read_text
from ibma_app.dataset.datasets import DESCRIPTION
from ibma_app.dataset.description import merge_description, read_own_description
from ibma_app.dataset.output_dir import Output, lock_shared
from ibma_app.dataset.write import save_json, save_tsv

KEYS = {"participants": ("participant_id", "sub-"), "studies": ("study_id", "study-")}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "participant_id": {"Description": "Participant"},
    "study_id": {"Description": "Study"},
    "sample_size": {"Description": "Number of participants of the study"},
    "n1": {"Description": "Number of participants of the study's first group"},
    "n2": {"Description": "Number of participants of the study's second group"},
}
_MISSING = ("", "n/a", None)


def describe_import(output: Output, version: str, software: Collection[str], sources: Sequence[str]) -> Path:
    """Write or extend dataset_description.json with the software and the sources that were imported.

    Parameters
    ----------
    output : Output
    version : str
        Of ibma-app.
    software : collection of str
        Names, with versions where known.
    sources : sequence of str
        URI references, relative to OUTPUT_DIR or absolute.

    Raises
    ------
    OutputError
        When OUTPUT_DIR holds another dataset's description.
    """
    with lock_shared(output.root):
        existing = read_own_description(output.root)
        content = merge_description(existing, output.root, version, (), "Statistic maps of other software")
        chain = list(content["GeneratedBy"])
        chain += [{"Name": name} for name in software if name not in {entry.get("Name") for entry in chain}]
        listed = list(content.get("SourceDatasets", ()))
        listed += [{"URL": url} for url in sources if url not in {entry.get("URL") for entry in listed}]
        content |= {"GeneratedBy": chain, "SourceDatasets": listed}
        if content == existing:
            return output.root / DESCRIPTION
        return save_json(output, DESCRIPTION, content)


def update_rows(output: Output, table: str, rows: Mapping[str, Mapping[str, Any]]) -> Path:
    """Add or update rows of ``participants.tsv`` or ``studies.tsv``; the other rows and columns stay.

    Parameters
    ----------
    output : Output
    table : {"participants", "studies"}
    rows : mapping
        Label without prefix -> values by column; None leaves a cell as it is.

    Raises
    ------
    OutputError
        When an existing table cannot be read.
    """
    key, prefix = KEYS[table]
    path = output.root / f"{table}.tsv"
    with lock_shared(output.root):
        columns, present = _read_rows(path, key)
        new = [name for row in rows.values() for name, value in row.items() if value is not None]
        columns = list(dict.fromkeys([*(columns or [key]), *new]))
        by_label = {str(row.get(key, "")).removeprefix(prefix): row for row in present}
        for label, values in rows.items():
            row = by_label.setdefault(label, {key: f"{prefix}{label}"})
            row.update({name: value for name, value in values.items() if value is not None})
        ordered = sorted(by_label.values(), key=lambda row: str(row[key]))
        _describe_columns(output, table, columns)
        return save_tsv(output, path.name, columns, ordered)


def add_participants(output: Output, labels: Collection[str], source: Path | None) -> None:
    """Add participants to OUTPUT_DIR's ``participants.tsv``, with what the input's table says of them.

    Rows and columns that are there stay as they are.

    Parameters
    ----------
    output : Output
    labels : collection of str
        Without prefix.
    source : Path or None
        The input's table.

    Raises
    ------
    OutputError
        When an existing table cannot be read, or is no table of participants.
    """
    key, prefix = KEYS["participants"]
    path = output.root / "participants.tsv"
    with lock_shared(output.root):
        columns, present = _read_rows(path, key)
        known = {str(row[key]).removeprefix(prefix) for row in present}
        if known.issuperset(labels):
            return
        theirs: list[str] = []
        rows: list[dict[str, Any]] = []
        if source is not None and source != path:
            with suppress(OutputError):  # told when it was looked for
                theirs, rows = _read_rows(source, key)
        said = {str(row[key]).removeprefix(prefix): row for row in rows}
        new = [{**said.get(label, {}), key: f"{prefix}{label}"} for label in labels if label not in known]
        columns = list(dict.fromkeys([*(columns or [key]), *theirs]))
        described = _descriptions(source.with_suffix(".json")) if source else {}
        _describe_columns(output, "participants", columns, described)
        save_tsv(output, path.name, columns, sorted([*present, *new], key=lambda row: str(row[key])))


def _descriptions(path: Path) -> Mapping[str, Any]:
    """Return what a table's .json says of its columns; nothing where it cannot be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_rows(path: Path, key: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Read a table as text; empty when there is none."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is there but cannot be read: {error}.") from error
    columns, *lines = [line.split("\t") for line in text.split("\n") if line] or [[]]
    if columns and key not in columns:
        raise OutputError(f"{path} has no column {key}: it is not a table of ours. Rename it or mend it.")
    rows: list[dict[str, Any]] = [dict(zip(columns, cells, strict=False)) for cells in lines]
    return columns, [row for row in rows if row.get(key) not in _MISSING]


def _describe_columns(
    output: Output, table: str, columns: Sequence[str], stated: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Describe the known columns in the table's .json; existing descriptions stay."""
    path = output.root / f"{table}.json"
    try:
        content = read_json(path)
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError):
        return  # a file that the user must mend; the table is complete without it
    if not isinstance(content, dict):
        return
    unknown = {"Description": "As the source has it"}
    missing = {name: stated.get(name, dict(COLUMNS.get(name, unknown))) for name in columns if name not in content}
    if missing:
        save_json(output, path.name, content | missing)


def find_earlier(output: Output, folder: Path, sources: Sequence[str]) -> list[str]:
    """Find the maps of a folder whose sidecars name the same sources.

    Parameters
    ----------
    output : Output
    folder : Path
        Below OUTPUT_DIR.
    sources : sequence of str
        As in the sidecars' ``Sources``.

    Returns
    -------
    list of str
        The parts of the names before ``_stat-``, sorted.
    """
    found = set()
    for path in (output.root / folder).glob("*_stat-*_statmap.json"):
        try:
            content = read_json(path)
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("Sources") == list(sources):
            found.add(path.name.partition("_stat-")[0])
    return sorted(found)


def remove_stale(output: Output, folder: Path, stem: str, kept: Collection[str]) -> list[str]:
    """Remove maps of an earlier import of the same contrast that this import has not written.

    Parameters
    ----------
    output : Output
    folder : Path
        Below OUTPUT_DIR.
    stem : str
        The part of the names before ``_stat-``.
    kept : collection of str
        Names of files that are not removed.

    Returns
    -------
    list of str
        Names of the files that were removed.
    """
    removed = []
    for path in sorted((output.root / folder).glob("*_statmap.*")):
        if path.name.startswith(f"{stem}_stat-") and path.name not in kept:
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed
