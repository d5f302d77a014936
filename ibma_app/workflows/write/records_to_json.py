"""Records to JSON and back, by the annotations of their fields.

New fields and records need no change here. Dataclasses and named tuples
become objects, tuples lists; types that JSON lacks are marked:
``{"!path": ...}``, ``{"!array": ...}``, ``{"!float": ...}``. Paths below a root
are kept relative to it, so that the folder may move.
"""

import base64
import dataclasses
import functools
import math
import os
import types
import typing
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import InputError
from ibma_app.core.methods import Estimator, Inference
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference

PLAIN = frozenset({str, int, bool, type(None)})

BY_NAME: Mapping[type, Callable[[str], Any]] = {Estimator: find_estimator, Inference: find_inference}
"""Records that are code: kept by their name on the menu."""


def encode(value: Any, hint: Any, root: Path) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
    hint : type
        Its annotation.
    root : Path
        Paths below it become relative.

    Raises
    ------
    TypeError
        A value of a type that is not handled: a programming error.
    """
    kind: Any = type(value)
    if kind in PLAIN:
        return value
    if kind in BY_NAME:
        return value.name
    if _is_record(kind):
        return {name: encode(getattr(value, name), field, root) for name, field in _fields(kind).items()}
    if isinstance(value, Mapping):
        return _encode_mapping(value, hint, root)
    if isinstance(value, list | tuple):
        items = [encode(item, one, root) for item, one in zip(value, _item_hints(hint, len(value)), strict=True)]
        return {"!tuple": items} if hint is Any and isinstance(value, tuple) else items
    return _encode_leaf(value, root)


def _encode_mapping(value: Mapping[Any, Any], hint: Any, root: Path) -> Any:
    """Turn a mapping whose keys are strings into an object, any other into pairs."""
    key_hint, item_hint = _mapping_hints(hint)
    if all(isinstance(key, str) and not key.startswith("!") for key in value):
        return {key: encode(item, item_hint, root) for key, item in value.items()}
    return {"!pairs": [[encode(key, key_hint, root), encode(item, item_hint, root)] for key, item in value.items()]}


def _encode_leaf(value: Any, root: Path) -> Any:
    if isinstance(value, Path):
        return {"!path": _relative(value, root)}
    if isinstance(value, np.ndarray | np.generic):
        return {"!array": _pack(np.asarray(value)), "scalar": isinstance(value, np.generic)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"!float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} in a record: workflows/write/records_to_json.py knows no JSON for it")


def decode(content: Any, hint: Any, root: Path) -> Any:
    """Turn JSON back into the value that `encode` was given.

    Raises
    ------
    InputError
        The JSON lacks something that a record needs: another version wrote it.
    """
    hint = _one_of(hint, content)
    if hint in BY_NAME:
        return BY_NAME[hint](content)
    if isinstance(content, dict):
        return _decode_object(content, hint, root)
    if isinstance(content, list):
        items = [decode(item, kind, root) for item, kind in zip(content, _item_hints(hint, len(content)), strict=True)]
        return items if (typing.get_origin(hint) or hint) in (list, Any) else tuple(items)
    return content


def _decode_object(content: dict[str, Any], hint: Any, root: Path) -> Any:
    mark = next(iter(content), "")
    if mark == "!path":
        return Path(os.path.normpath(root / content[mark]))
    if mark == "!array":
        array = _unpack(content[mark])
        return array[()] if content["scalar"] else array
    if mark == "!float":
        return float(content[mark])
    if mark == "!tuple":
        return tuple(decode(item, Any, root) for item in content[mark])
    if _is_record(hint):
        return _decode_record(content, hint, root)
    key_hint, item_hint = _mapping_hints(hint)
    if mark == "!pairs":
        return {decode(key, key_hint, root): decode(item, item_hint, root) for key, item in content[mark]}
    return {key: decode(item, item_hint, root) for key, item in content.items()}


def _decode_record(content: dict[str, Any], kind: type, root: Path) -> Any:
    """Make a record; unknown fields (of another version) are ignored, missing ones take their default."""
    hints = _fields(kind)
    try:
        return kind(**{name: decode(content[name], hint, root) for name, hint in hints.items() if name in content})
    except TypeError as error:
        missing = ", ".join(name for name in hints if name not in content)
        raise InputError(f"its {kind.__name__} lacks {missing or 'something'} ({error})") from None


def _relative(path: Path, root: Path) -> str:
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    """Compress an array without loss; masks as bits."""
    flat = np.ascontiguousarray(array)
    content = np.packbits(flat).tobytes() if flat.dtype.kind == "b" else flat.tobytes()
    coded = base64.b64encode(zlib.compress(content)).decode("ascii")
    return {"dtype": flat.dtype.str, "shape": list(array.shape), "zlib": coded}


def _unpack(packed: Mapping[str, Any]) -> NDArray[Any]:
    content = zlib.decompress(base64.b64decode(packed["zlib"]))
    dtype, shape = np.dtype(packed["dtype"]), tuple(packed["shape"])
    if dtype.kind == "b":
        bits = np.frombuffer(content, dtype=np.uint8)
        return np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)
    return np.frombuffer(content, dtype=dtype).reshape(shape).copy()


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Name and annotation of a record's fields."""
    hints = typing.get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}
    return hints


def _one_of(hint: Any, content: Any) -> Any:
    """Choose the member of a union that the JSON fits, by its type or its fields."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    if isinstance(content, dict):
        records = [member for member in members if _is_record(member) and content.keys() <= _fields(member).keys()]
        mappings = [member for member in members if (typing.get_origin(member) or member) in (Mapping, dict)]
        return next(iter((*records, *mappings, *members)))
    if isinstance(content, list):
        rows = [member for member in members if typing.get_origin(member) in (tuple, list, Sequence)]
        return next(iter((*rows, *members)))
    named = [member for member in members if member in BY_NAME] if isinstance(content, str) else []
    return next(iter((*named, *members)))


def _mapping_hints(hint: Any) -> tuple[Any, Any]:
    """Annotations of a mapping's keys and values."""
    for member in (hint, *typing.get_args(hint)):
        if typing.get_origin(member) in (Mapping, dict):
            key, item = typing.get_args(member)
            return key, item
    return Any, Any


def _item_hints(hint: Any, count: int) -> Sequence[Any]:
    """Annotations of the items of a tuple or list."""
    for member in (hint, *typing.get_args(hint)):
        if typing.get_origin(member) in (tuple, list, Sequence):
            args = typing.get_args(member)
            return [args[0]] * count if len(args) == 1 or args[-1] is Ellipsis else args
    return [Any] * count
