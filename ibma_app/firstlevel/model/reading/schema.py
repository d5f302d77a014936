"""The format of a model: validated with bsmschema, what is wrong put into words with its path in the JSON."""

import json
import re
import typing
from collections.abc import Mapping
from typing import Any

from ibma_app.core.errors import did_you_mean
from ibma_app.core.from_files import show
from ibma_app.firstlevel.model.faults import Faults, choose_from

SHORT = 40  # characters of a value that an example repeats
Parts = tuple[str | int, ...]

TRANSFORMER = "pybids-transforms-v1"

OLD_KEYS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("BIDSStatsModel", "Steps"): (
        "Nodes",
        "is of models before version 1.0; now there are Nodes, with GroupBy.",
    ),
    ("BIDSStatsModel", "Blocks"): (
        "Nodes",
        "is of models before version 1.0; now there are Nodes, with GroupBy.",
    ),
    ("Node", "AutoContrasts"): ("DummyContrasts", 'is called DummyContrasts now: {"Test": "t"}.'),
    ("Node", "Groupby"): ("GroupBy", "is written GroupBy."),
    ("Contrast", "Type"): ("Test", "is called Test now (in Contrasts and in DummyContrasts)."),
    ("DummyContrasts", "Type"): ("Test", "is called Test now (in Contrasts and in DummyContrasts)."),
    ("DummyContrasts", "Conditions"): ("Contrasts", "is called Contrasts now (in DummyContrasts alone)."),
    ("DummyContrasts", "ConditionList"): ("Contrasts", "is called Contrasts in DummyContrasts."),
    ("Edge", "GroupBy"): ("Filter", "is said by the node (Nodes[].GroupBy); an edge has Source, Destination, Filter."),
    ("Model", "HRFVariables"): ("HRF", 'is said by HRF now: {"Variables": [...], "Model": "spm"}.'),
}
"""Keys of earlier versions, (object, key) -> (its name now, what to do)."""

EXAMPLES: Mapping[str, str] = {
    "GroupBy": 'It says what keeps images apart: ["run", "subject"] for runs, ["subject", "contrast"] for subjects, '
    '["contrast"] for the dataset.',
    "Transformer": f'Write "{TRANSFORMER}".',
    "Test": 'Write "t" ("F", "pass").',
    "Type": 'Write "glm".',
    "X": 'It lists the columns of the design: [1] for a mean, [1, "trial_type.*"] for runs.',
    "BIDSModelVersion": 'Write "1.0.0".',
    "Name": "Give it a name.",
    "Weights": "One weight for each of ConditionList.",
    "Nodes": "A model has a list of nodes, the first of level Run.",
}
"""What to write where a key is missing."""


def write_path(parts: typing.Sequence[str | int]) -> str:
    """Write a path in JSON: ``Nodes[0].Model.X``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "the model"


def check_schema(document: Any, faults: Faults) -> None:
    """Validate a model by the schema of BIDS Stats Models, and refuse keys that the schema does not know.

    bsmschema (0.1) means to forbid unknown keys, but ignores them, so that ``Groupby`` and ``DummyContrast`` would be
    lost in silence; they are looked for here.
    """
    from bsmschema.models import BIDSStatsModel

    if not isinstance(document, dict):
        faults.add("the model", f"is {show(document)}, and must be an object {{...}}.")
        return
    renamed: set[Parts] = set()
    _check_keys(document, BIDSStatsModel, (), faults, renamed)
    try:
        BIDSStatsModel.model_validate(document)
    except ValueError as error:  # pydantic's ValidationError
        listed: Any = error
        for one in listed.errors(include_url=False):
            parts = _path_in(document, one["loc"])
            if one["type"] == "missing" and parts in renamed:
                continue
            faults.add(write_path(parts), _in_words(dict(one), parts))


def _check_keys(
    value: Any,
    kind: Any,
    path: tuple[str | int, ...],
    faults: Faults,
    renamed: set[Parts],
) -> None:
    """Refuse the keys of an object that its kind does not have, and look into the objects below."""
    if not isinstance(value, dict):
        return
    fields = kind.model_fields
    for key, one in value.items():
        if key in fields:
            below = _kind_in(fields[key].annotation)
            for place, item in enumerate(one) if isinstance(one, list) else [(None, one)]:
                if below is not None:
                    _check_keys(item, below, (*path, key) if place is None else (*path, key, place), faults, renamed)
            continue
        now, advice = OLD_KEYS.get((kind.__name__, key), ("", ""))
        if now:
            renamed.add((*path, now))
        faults.add(write_path((*path, key)), advice or f"there is no such key.{choose_from(fields, [key])}")
        close = did_you_mean([key], fields).removeprefix(" Did you mean ").removesuffix("?")
        exact = [name for name in fields if name.casefold() == key.casefold()]
        renamed.update((*path, name) for name in (close, *exact) if name)


def _kind_in(annotation: Any) -> Any:
    """Return the kind of object that a field has, alone or in a list."""
    origin = typing.get_origin(annotation)
    if origin is None:
        return annotation if hasattr(annotation, "model_fields") else None
    if origin in (dict, typing.Literal):
        return None
    return next((found for one in typing.get_args(annotation) if (found := _kind_in(one)) is not None), None)


def _path_in(document: Any, location: typing.Sequence[str | int]) -> Parts:
    """Return the part of pydantic's location that is a path in the document: it names types of unions too."""
    parts: list[str | int] = []
    here = document
    for place, part in enumerate(location):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(here, dict) and (part in here or place == len(location) - 1):
            here = here.get(part)
        else:
            continue
        parts.append(part)
    return tuple(parts)


def _in_words(error: Mapping[str, Any], parts: typing.Sequence[str | int]) -> str:
    """Put an error of pydantic into words."""
    kind, value = error["type"], error.get("input")
    if kind == "missing":
        return f"is missing. {EXAMPLES.get(str(parts[-1]), '')}".rstrip()
    if "Weights" in parts:
        return f'is {show(value)}, which is no weight. Write numbers, or fractions as texts: [1, -1], ["1/3", -1].'
    if parts[-2:-1] == ("X",) or parts[-2:-1] == ("ConditionList",):
        return f"is {show(value)}. Write names of variables, and the number 1 for the intercept."
    if kind == "literal_error":
        menu = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"is {show(value)}.{choose_from(menu, [str(value)])}"
    if kind == "list_type":
        plain = isinstance(value, str | int | float) and not isinstance(value, bool) and len(str(value)) < SHORT
        return f"is {show(value)}, and must be a list" + (f": [{json.dumps(value)}]." if plain else ".")
    if kind == "string_type":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return f"is {show(value)}, and must be text" + (f': "{value}".' if number else ".")
    if kind in ("model_type", "dict_type"):
        return f"is {show(value)}, and must be an object{_example_object(str(parts[-1]))}."
    return f"is {show(value)}: {error['msg'].lower()}."


def _example_object(key: str) -> str:
    return {
        "Transformations": f': {{"Transformer": "{TRANSFORMER}", "Instructions": [...]}}',
        "DummyContrasts": ': {"Test": "t"}',
        "Input": ': {"task": ["..."]}',
    }.get(key, " {...}")
