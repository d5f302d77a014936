"""What to cite for each study: the columns doi, authors and title of studies.tsv, else the maps' sidecars."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ibma_app.core.errors import Note
from ibma_app.core.from_files import doi_in
from ibma_app.core.statmap import Observation, Publication
from ibma_app.designs.map_rows import RowFinder
from ibma_app.designs.tables import TABLE_PATH, Table

KEYS = {"doi": "DOI", "authors": "Authors", "title": "Title"}
"""Column of studies.tsv -> key of a sidecar."""
DATASET_DOI = "DatasetDOI"


def cite_studies(
    observations: Sequence[Observation], table: Table | None
) -> tuple[tuple[Observation, ...], tuple[Note, ...]]:
    """Add to each study's maps what to cite for it.

    Returns
    -------
    tuple of Observation
        Those of studies with their publication; the others as they are.
    tuple of Note
        Texts that should be a DOI and are none, with their rows.
    """
    cited, notes = [], []
    finder = RowFinder(table) if table is not None and set(KEYS) & set(table.columns) else None
    for one in observations:
        if "study" not in one.entities:
            cited.append(one)
            continue
        stated = _of_sidecars(one)
        if table is not None and finder is not None:
            rows = finder.find(one.unit_label, one.entities)
            for name in set(KEYS) & set(table.columns):
                texts = {str(cell).strip() for cell in table[name].iloc[rows].dropna()}
                if len(texts) == 1:
                    stated[name] = texts.pop(), f"{table.attrs.get(TABLE_PATH)}, line {int(rows[0]) + 2}"
        doi = doi_in(stated["doi"][0]) if "doi" in stated else None
        if "doi" in stated and doi is None:
            text, where = stated["doi"]
            words = "what should be its DOI is none (a DOI begins with 10. and has a slash), and is not cited."
            notes.append(Note(words, {f"study-{one.unit_label}": f"{text!r} in {where}"}, "study"))
        authors, title = (stated[key][0] if key in stated else "" for key in ("authors", "title"))
        known = Publication(authors, title, doi or "")
        cited.append(replace(one, publication=known) if known.text else one)
    return tuple(cited), tuple(notes)


def _of_sidecars(observation: Observation) -> dict[str, tuple[str, str]]:
    """Return what sidecars, else the study's own dataset, say: column -> text and where."""
    stated: dict[str, tuple[str, str]] = {}
    for statmap in observation.statmaps.values():
        for name, key in KEYS.items():
            text = _text(statmap.metadata, key)
            if text and name not in stated:
                stated[name] = text, f"the sidecar of {statmap.path.name}"
        root = statmap.dataset.root
        dataset_doi = _text(statmap.dataset.description, DATASET_DOI)
        if dataset_doi and root.name == f"study-{observation.unit_label}":
            stated.setdefault("doi", (dataset_doi, f"{root}/dataset_description.json"))
    return stated


def _text(content: Mapping[str, Any], key: str) -> str:
    """Return a text, or a list of texts as one; "" for all else."""
    value = content.get(key)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    return " ".join(value.split()) if isinstance(value, str) else ""
