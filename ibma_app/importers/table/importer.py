"""A table (TSV or CSV), for sources that no other importer reads: one row per map, or one row per region of a study."""

import re
from pathlib import Path

from ibma_app.core.study import Importer, ImportRequest, Study
from ibma_app.importers.table import maps, study_regions

LONGEST_HEADER = 100_000  # characters


def recognises(source: str) -> bool:
    """Return whether a source is a table with the columns path and kind, or with a column of regions."""
    if Path(source).suffix.lower() not in (".tsv", ".csv", ".txt"):
        return False
    names = _names(source)
    return {"path", "kind"} <= names or _is_of_regions(names)


def read(source: str, request: ImportRequest) -> Study:
    """Read a table of maps or of regions: see `maps.read` and `study_regions.read`."""
    return (study_regions if _is_of_regions(_names(source)) else maps).read(source, request)


def _names(source: str) -> set[str]:
    """Return the names in the first line, lowercase; none where there is no text."""
    try:
        if not Path(source).is_file():  # a pipe would be waited for
            return set()
        with Path(source).open(encoding="utf-8-sig") as stream:
            first = stream.readline(LONGEST_HEADER)
    except (OSError, UnicodeDecodeError, ValueError):
        return set()
    return {name.strip().strip('"').lower() for name in re.split(r"[\t,]", first)}


def _is_of_regions(names: set[str]) -> bool:
    return bool(names & set(study_regions.REGION)) and "path" not in names


IMPORTER = Importer(
    name="table",
    title="a table (TSV) of maps (study_id, path, kind, contrast, ...) or of regions (study_id, contrast, region, ...)",
    recognises=recognises,
    read=read,
    example="maps.tsv",
)
