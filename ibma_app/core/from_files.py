"""Text, JSON and numbers out of files from elsewhere: bounded, and what is wrong with them in words.

Whatever such a file holds (a pipe in its place, 50 MB, 5,000 digits, nesting without end, half of a surrogate pair),
the functions here return a plain value, or raise what their docstring names.
"""

import errno
import json
import math
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DataError

LARGEST_TEXT = 16 * 2**20  # bytes of a table, a header
LARGEST_JSON = 4 * 2**20  # bytes of a sidecar, a description; what it becomes takes twenty times as much
LARGEST_TOML = 2**20  # bytes
DEEPEST = 64  # levels of JSON
MOST_PARTS = 500  # of a dotted key of TOML: Python's reader takes the square of them
LONGEST_DOI = 300  # characters
LONGEST_INTEGER = 18  # digits: more are no count of anything
MOST_PEOPLE = 1e7
MOST_DOF = 1e9  # of a map; beyond it t is z to all digits
_SHOWN = 40  # characters of a value in messages
EXPRESSION = 200  # characters of an expression in messages
_DOI = re.compile(r"(?:(?:https?://)?(?:dx\.|www\.)?doi\.org/|doi:\s*)?(?P<doi>10\.\d{4,9}/[^\s<>\"]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # one way to match: linear time


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file (or what a link to one points to) of at most ``limit`` bytes.

    Raises
    ------
    OSError
        It is missing, cannot be opened, or is a folder, a pipe or a device.
    ValueError
        It is larger.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file but a pipe or a device", str(path))
    with path.open("rb") as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise ValueError(f"it has more than {_size(limit)}, which is too much for what it should be")
    return raw


def _size(limit: int) -> str:
    return f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 2**10} KiB"


def read_text(path: Path, limit: int = LARGEST_TEXT, errors: str = "strict") -> str:
    """Read a text file in UTF-8, without a byte-order mark, lines ended by a newline alone.

    Parameters
    ----------
    path : Path
    limit : int
        Bytes.
    errors : str
        ``"replace"``: what is not UTF-8 becomes U+FFFD.

    Raises
    ------
    OSError, ValueError
        As `read_bytes`; ValueError for what is no UTF-8 too.
    """
    text = read_bytes(path, limit).decode("utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, limit: int = LARGEST_JSON, *, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Read a JSON file; see `parse_json`.

    Raises
    ------
    OSError, ValueError
        As `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, limit), pairs=pairs)


def parse_json(text: str, *, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Parse JSON into values that can be written as JSON and as text again.

    NaN, infinities and numbers beyond all use stay texts, which `number_in` takes for no numbers; halves of
    surrogate pairs become question marks.

    Parameters
    ----------
    text : str
    pairs : callable
        Makes an object of its keys and values.

    Raises
    ------
    ValueError
        It is no JSON, or nested more than `DEEPEST` levels.
    """
    try:
        content = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=str, object_pairs_hook=pairs)
        return _writable(content, DEEPEST)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    OSError, ValueError
        As `read_text`; ValueError for what is no TOML too.
    """
    import tomllib

    text = read_text(path, LARGEST_TOML)
    if any(line.partition("=")[0].count(".") > MOST_PARTS for line in text.split("\n")):
        raise ValueError(f"a key has more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_INTEGER else digits


def _float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _writable(value: Any, levels: int) -> Any:
    """Replace halves of surrogate pairs in all texts, in place."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if _has_surrogates(value) else value
    if not isinstance(value, dict | list):
        return value
    if not levels:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(value, dict) and any(map(_has_surrogates, value)):
        value = {_writable(key, 0): one for key, one in value.items()}
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(one, str | dict | list):
            value[key] = _writable(one, levels - 1)
    return value


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def number_in(value: Any) -> float | None:
    """Return the finite number that a value of a file is: a number, or a text of one; None for all else."""
    if isinstance(value, bool | bytes | bytearray) or value is None:
        return None
    if isinstance(value, str):  # not whatever float takes: "1_000", "nan", digits of other scripts
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole_number_in(text: str) -> int | None:
    """Return the number that a text of at most 18 ASCII digits is; None for all else (``²`` is a digit to Python)."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_INTEGER else None


def doi_in(text: str) -> str | None:
    """Return the bare DOI that a text is, with or without ``doi:`` or an address before it; None for all else."""
    found = _DOI.fullmatch(text.strip()) if len(text) <= LONGEST_DOI else None
    return found["doi"] if found else None


def read_dof(value: Any, file: Path | str, key: str) -> float:
    """Return degrees of freedom that a file states.

    Raises
    ------
    DataError
        They are no number above 0, or beyond all samples; the message names file and key.
    """
    number = number_in(value)
    if number is None or not 0 < number <= MOST_DOF:
        raise DataError(
            f"{file}: {key} is {show(value)}; degrees of freedom are a number above 0, up to {MOST_DOF:,.0f}."
        )
    return number


def read_sample_size(value: Any, file: Path | str, key: str) -> float:
    """Return the number of people that a file states.

    Raises
    ------
    DataError
        It is no whole number from 1 on (1.024 is 1,024 in some countries), or beyond all samples; the message names
        file and key.
    """
    number = number_in(value)
    if number is None or not 1 <= number <= MOST_PEOPLE or not number.is_integer():
        raise DataError(
            f"{file}: {key} is {show(value)}; a sample has from 1 to {MOST_PEOPLE:,.0f} people, a whole number."
        )
    return number


def show(value: Any, most: int = _SHOWN) -> str:
    """Write any value for a message: on one line, not long, without characters that a terminal obeys."""
    value = value.item() if type(value).__module__ == "numpy" and not getattr(value, "ndim", 1) else value
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return "a value without end"
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text[: 4 * most])
    text = text if len(text) <= most else f"{text[:most]}..."
    return repr(text) if isinstance(value, str) else text
