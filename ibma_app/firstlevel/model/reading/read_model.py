"""A BIDS Stats Model: from its file to records, or what is wrong with it."""

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DataError, InputError
from ibma_app.core.from_files import read_json, show
from ibma_app.core.labels import is_label
from ibma_app.firstlevel.model.edges import check_filters, read_edges
from ibma_app.firstlevel.model.faults import Faults, as_error, choose_from
from ibma_app.firstlevel.model.reading.levels import ENTITIES
from ibma_app.firstlevel.model.reading.nodes import read_nodes
from ibma_app.firstlevel.model.reading.schema import check_schema
from ibma_app.firstlevel.model.stats_model import StatsModel

OLD_TESTS: Mapping[str, str] = {"fema": "t", "skip": "pass", "pass": "pass", "t": "t", "f": "F"}
"""Spellings of ``Test``; FEMA was FitLins' fixed effects, skip a contrast without a test."""


def read_model(path: Path, *, to_show: bool = False) -> StatsModel:
    """Read a model from a JSON file.

    Parameters
    ----------
    path : Path
    to_show : bool
        Contrasts that are wrong in themselves are left out, and stand in the model's ``faults``.

    Raises
    ------
    InputError
        The file cannot be read.
    DataError
        It is no JSON, does not fit the schema, or says what is not understood; the message has the paths in the JSON.
    """
    try:
        document = read_json(path, pairs=_refuse_twins)
    except OSError as error:
        raise InputError(f"The model {path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise DataError(f"The model {path} is not valid JSON: {error}.") from None
    return make_model(document, path, to_show=to_show)


def make_model(document: Any, file: Path | None, *, to_show: bool = False) -> StatsModel:
    """Make a model of parsed JSON; see `read_model`.

    Raises
    ------
    DataError
        As `read_model`.
    """
    faults = Faults(file or "The model")
    document, notes = _modernise(copy.deepcopy(document))
    check_schema(document, faults)
    faults.raise_any()
    inputs = _read_input(document.get("Input") or {}, faults)
    nodes = read_nodes(document["Nodes"], faults)
    edges = read_edges(document.get("Edges"), nodes, faults)
    faults.raise_any()
    model = StatsModel(
        document["Name"], file, inputs, nodes, edges, notes, document.get("Description") or "", faults.of_contrasts
    )
    check_filters(model, faults)
    faults.raise_any()
    if model.faults and not to_show:
        raise as_error(faults.file, model.faults)
    return model


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    if twins:
        raise ValueError(f"an object has {', '.join(map(repr, twins))} twice")
    return dict(pairs)


def _modernise(document: Any) -> tuple[Any, tuple[str, ...]]:
    """Replace old spellings of ``Test``, and say so."""
    notes = []
    nodes = document.get("Nodes") if isinstance(document, dict) else None
    for place, node in enumerate(nodes if isinstance(nodes, list) else ()):
        contrasts = node.get("Contrasts") if isinstance(node, dict) else None
        dummies = node.get("DummyContrasts") if isinstance(node, dict) else None
        listed = contrasts if isinstance(contrasts, list) else []
        named = [(f"Nodes[{place}].Contrasts[{index}].Test", one) for index, one in enumerate(listed)]
        for path, one in [*named, (f"Nodes[{place}].DummyContrasts.Test", dummies)]:
            stated = one.get("Test") if isinstance(one, dict) else None
            now = OLD_TESTS.get(stated.casefold()) if isinstance(stated, str) else None
            if isinstance(one, dict) and now is not None and now != stated:
                one["Test"] = now
                notes.append(f"{path}: {show(stated)} is read as {now!r}.")
    return document, tuple(notes)


def _names_one(text: str) -> bool:
    """Return whether a text is a label, with or without its key before it: 01 or sub-01."""
    key, dash, label = text.partition("-")
    return is_label(text) or (key.isalpha() and is_label(label) and bool(dash))


def _read_input(given: Mapping[str, Any], faults: Faults) -> dict[str, tuple[str, ...]]:
    """Read ``Input``: labels of entities, by their long names."""
    read = {}
    for key, values in given.items():
        if key not in ENTITIES:
            faults.add(f"Input.{key}", f"is no entity of images.{choose_from(ENTITIES, [key])}")
        for index, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, str | int) or not _names_one(str(value)):
                faults.add(f"Input.{key}[{index}]", f"is {show(value)}, and must be a label: letters and digits.")
        if not values:
            faults.add(f"Input.{key}", "is empty: it would select nothing. Leave it out for all.")
        read[key] = tuple(str(value) for value in values)
    return read
