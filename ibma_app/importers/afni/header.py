"""AFNI's attributes, from a .HEAD file or from the header extension of its NIfTI files, and the sub-bricks.

Formats: AFNI's README.attributes, and NIfTI's header extension code 4 (an
``AFNI_attributes`` group in XML).
"""

import gzip
import math
import re
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.from_files import number_in, read_text, show, whole_number_in

Attributes = Mapping[str, Any]
"""Name -> str (string attributes), or list of finite int or float; those that are read alone."""

STATISTICS = {2: "correlation", 3: "t", 4: "F", 5: "z", 6: "chi-squared", 7: "beta", 8: "binomial", 9: "gamma",
              10: "Poisson"}  # fmt: skip
"""AFNI's codes of statistics (BRICK_STATAUX), 0 and 1 being none."""
_SYMBOLS = {"correl": 2, "ttest": 3, "ftest": 4, "zscore": 5, "chisq": 6, "beta": 7, "binom": 8, "gamma": 9,
            "poisson": 10}  # fmt: skip
_DTYPES = {0: "u1", 1: "i2", 2: "i4", 3: "f4", 4: "f8"}
EXTENSION_CODE = 4
MOST_VOXELS, MOST_BRICKS = 2**27, 10_000  # of a sub-brick: 512 x 512 x 512; of a dataset
MOST_NUMBERS = 10**6  # of an attribute that is read
FAR = 1e9  # mm: no voxel lies there
MAX_HEADER = 16 * 2**20  # bytes; histories are long, but not that long
# count is the length of the value, but in bytes or in characters: the value ends at the next "type"
_ENTRY = re.compile(
    r"^[ \t]*type[ \t]*=[ \t]*(\S+)-attribute[ \t]*\n[ \t]*name[ \t]*=[ \t]*(\S+)[ \t]*\n"
    r"[ \t]*count[ \t]*=[ \t]*(\d+)[ \t]*\n",
    re.M,
)
_WORD = re.compile(r"\S+")
_NUMBERS = frozenset({
    "BRICK_FLOAT_FACS", "BRICK_STATAUX", "BRICK_TYPES", "DATASET_DIMENSIONS", "DATASET_RANK", "DELTA", "IJK_TO_DICOM",
    "IJK_TO_DICOM_REAL", "ORIENT_SPECIFIC", "ORIGIN", "SCENE_DATA", "STAT_AUX",
})  # fmt: skip
_TEXTS = frozenset({"BRICK_LABS", "BRICK_STATSYM", "BYTEORDER_STRING", "HISTORY_NOTE", "TEMPLATE_SPACE"})


@dataclass(frozen=True)
class SubBrick:
    """One volume of a bucket: its label, and its statistic by the header."""

    index: int
    label: str
    statistic: str  # "" (a coefficient, a mean), or of STATISTICS
    parameters: tuple[float, ...] = ()  # its degrees of freedom


def read_head(path: Path) -> Attributes:
    """Read the attributes of a .HEAD file.

    Raises
    ------
    InputError
        It is missing or cannot be opened.
    ReadWriteError
        It is truncated.
    DataError
        It is not a header of AFNI.
    """
    try:
        text = read_text(path, MAX_HEADER, errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no AFNI header: {error}.") from None
    entries = list(_ENTRY.finditer(text))
    found: dict[str, Any] = {}
    ends = [following.start() for following in entries[1:]] + [len(text)]
    for entry, end in zip(entries, ends, strict=False):
        value, count = text[entry.end() : end].strip(), whole_number_in(entry[3])
        if count is None or _is_cut(entry[1], count, value):
            raise ReadWriteError(f"{path} is truncated: its attribute {entry[2]} is not whole. Copy it again.")
        _add(found, path, entry[1], entry[2], value)
    if not entries:
        raise DataError(f"{path} is no AFNI header: it has no attributes (type, name, count).")
    return found


def _is_cut(kind: str, count: int, value: str) -> bool:
    """Return whether an attribute is truncated: too few numbers, or a short string without its final ``~``."""
    if kind == "string":
        return not value.endswith("~") and len(value) <= count
    return sum(1 for _ in _WORD.finditer(value)) < count


def _add(found: dict[str, Any], path: Path | str, kind: str, name: str, text: str) -> None:
    """Convert the text of an attribute that is read, and keep it."""
    if name in _TEXTS:
        found[name] = text.removeprefix("'").removesuffix("~") if kind == "string" else text
    if name not in _NUMBERS:
        return
    numbers: list[float] = []
    for word in _WORD.finditer(text):
        number = number_in(word[0]) if len(numbers) < MOST_NUMBERS and kind != "string" else None
        if number is None or (kind == "integer" and not number.is_integer()):
            raise DataError(f"{path} is damaged: its attribute {name} is not made of numbers ({show(word[0])}).")
        numbers.append(int(number) if kind == "integer" else number)
    found[name] = numbers


def parse_extension(content: bytes | str, source: str) -> Attributes:
    """Read the attributes in the NIfTI header extension that AFNI writes.

    It is XML from elsewhere: document types and entities are refused, and
    nothing external is loaded.

    Parameters
    ----------
    content : bytes or str
        The extension of code 4.
    source : str
        For messages.

    Raises
    ------
    DataError
        It is broken, or it declares a document type or entities.
    """
    from xml.parsers import expat

    text = content.decode("utf-8", errors="replace") if isinstance(content, bytes) else content
    text = text.strip("\x00 \t\r\n")
    if len(text) > MAX_HEADER:
        raise DataError(f"{source}: its AFNI extension has more than {MAX_HEADER // 2**20} MiB.")
    found: dict[str, Any] = {}
    current: dict[str, str] = {}
    pieces: list[str] = []

    def start(tag: str, given: dict[str, str]) -> None:
        if tag == "AFNI_atr":
            current.clear()
            current.update(given)
            pieces.clear()

    def end(tag: str) -> None:
        if tag == "AFNI_atr" and "atr_name" in current:
            kind = {"String": "string", "int": "integer"}.get(current.get("ni_type", "String"), "float")
            value = "".join(pieces).strip()
            if kind == "string":
                value = _unquoted(value)
            _add(found, source, kind, current["atr_name"], value)
            current.clear()

    def refuse(*_: Any) -> None:
        raise DataError(f"{source}: its AFNI extension declares a document type or entities, which AFNI never writes.")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = pieces.append
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise DataError(f"{source}: its AFNI extension is broken XML ({error}).") from error
    return found


def _unquoted(value: str) -> str:
    """Return a string attribute without its quotation marks (long ones come in several pieces)."""
    pieces = re.findall(r'"([^"]*)"', value)
    return "".join(pieces) if pieces else value


def list_bricks(attributes: Attributes, count: int) -> list[SubBrick]:
    """Return what each of ``count`` sub-bricks is, by BRICK_LABS and BRICK_STATAUX (else BRICK_STATSYM)."""
    labels = str(attributes.get("BRICK_LABS", "")).split("~")
    codes = _statistics(attributes, count)
    return [
        SubBrick(
            index,
            labels[index].strip() if index < len(labels) and labels[index].strip() else f"#{index}",
            STATISTICS.get(codes.get(index, (0, ()))[0], ""),
            codes.get(index, (0, ()))[1],
        )
        for index in range(count)
    ]


def _statistics(attributes: Attributes, count: int) -> dict[int, tuple[int, tuple[float, ...]]]:
    """Return code and parameters of the sub-bricks that are statistics."""
    found: dict[int, tuple[int, tuple[float, ...]]] = {}
    aux = [float(number) for number in attributes.get("BRICK_STATAUX", [])]
    at = 0
    while at + 2 < len(aux):  # index, code, number of parameters, parameters
        size = int(aux[at + 2])
        found[int(aux[at])] = (int(aux[at + 1]), tuple(aux[at + 3 : at + 3 + size]))
        at += 3 + max(size, 0)
    if not found:
        for index, word in enumerate(str(attributes.get("BRICK_STATSYM", "")).rstrip("~").split(";")[:count]):
            match = re.fullmatch(r"\s*([A-Za-z]+)\s*\(([^()]*)\)\s*", word)
            if match and match[1].lower() in _SYMBOLS:
                numbers = [number_in(number) for number in re.findall(r"[-+.\deE]+", match[2])]
                found[index] = (_SYMBOLS[match[1].lower()], tuple(math.nan if one is None else one for one in numbers))
    scene = attributes.get("SCENE_DATA", [])
    old = int(scene[1]) if len(scene) > 1 else 0
    if not found and count == 2 and old in STATISTICS and old < 11 and attributes.get("STAT_AUX"):
        found[1] = (old, tuple(float(number) for number in attributes["STAT_AUX"]))  # old types: fitt, fizt, ...
    return found


def affine_of(path: Path, attributes: Attributes) -> NDArray[np.float64]:
    """Return the affine (4, 4) of a .HEAD file, voxel indices to mm, RAS+ (AFNI's own axes are LPS+)."""
    affine = np.eye(4)
    numbers = attributes.get("IJK_TO_DICOM_REAL", attributes.get("IJK_TO_DICOM"))
    if numbers is not None and len(numbers) == 12:
        affine[:3] = np.reshape(numbers, (3, 4))
    else:
        try:
            orient = [(0, 1, 2, 3, 4, 5)[int(code)] for code in attributes["ORIENT_SPECIFIC"][:3]]
            affine[:3, :3] = 0.0
            for axis, code in enumerate(orient):  # 0, 1: R-L, L-R; 2, 3: P-A, A-P; 4, 5: I-S, S-I
                affine[code // 2, axis] = attributes["DELTA"][axis]
                affine[code // 2, 3] = attributes["ORIGIN"][axis]
        except (KeyError, IndexError) as error:
            raise DataError(f"{path} does not say where its voxels lie (IJK_TO_DICOM_REAL is missing).") from error
    if not (np.abs(affine) < FAR).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path} does not say where its voxels lie: its affine is singular.")
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, dtype=np.float64)


def brick_shape(path: Path, attributes: Attributes) -> tuple[int, int, int, int]:
    """Return voxels along each axis, and how many sub-bricks there are."""
    try:
        x, y, z = (int(number) for number in attributes["DATASET_DIMENSIONS"][:3])
        count = int(attributes["DATASET_RANK"][1])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path} is damaged: DATASET_DIMENSIONS or DATASET_RANK is missing.") from error
    if min(x, y, z, count) < 1:
        raise DataError(f"{path} is damaged: {x} x {y} x {z} voxels, {count} sub-bricks.")
    if x * y * z > MOST_VOXELS or count > MOST_BRICKS:
        raise DataError(f"{path} promises {x} x {y} x {z} voxels, {count} sub-bricks: no statistic is that large.")
    return x, y, z, count


def read_brick(head: Path, attributes: Attributes, index: int) -> NDArray[np.floating[Any]]:
    """Read one sub-brick of a .BRIK file (.gz too): (X, Y, Z), its scale factor applied.

    Returns
    -------
    ndarray
        float32 where the file has that type and no factor, else float64.

    Raises
    ------
    InputError, ReadWriteError, DataError
        The file is missing; truncated; of a type that statistics never have.
    """
    x, y, z, count = brick_shape(head, attributes)
    types = [int(code) for code in attributes.get("BRICK_TYPES", [])]
    if len(types) < count or any(code not in _DTYPES for code in types[:count]):
        raise DataError(f"{head}: sub-bricks of the types {types} cannot be read as statistic maps.")
    order = ">" if str(attributes.get("BYTEORDER_STRING", "LSB_FIRST")).startswith("MSB") else "<"
    dtypes = [np.dtype(order + _DTYPES[code]) for code in types]
    skip = sum(dtype.itemsize for dtype in dtypes[:index]) * x * y * z
    size = dtypes[index].itemsize * x * y * z
    raw = _bytes_of(brik_file(head), skip, size)
    values = np.frombuffer(raw, dtype=dtypes[index]).reshape((x, y, z), order="F")
    factors = [float(number) for number in attributes.get("BRICK_FLOAT_FACS", [])]
    factor = factors[index] if index < len(factors) else 0.0
    if factor and factor != 1.0:  # 0: none
        return np.asarray(values * np.float64(factor), order="C")
    wide = np.float32 if dtypes[index].kind == "f" and dtypes[index].itemsize == 4 else np.float64
    return np.asarray(values, dtype=wide, order="C")


def brik_file(head: Path) -> Path:
    """Return the file with the voxels of a .HEAD file.

    Raises
    ------
    InputError
        There is none.
    """
    stem = head.name[: -len(".HEAD")]
    choices = [head.with_name(f"{stem}.BRIK{end}") for end in ("", ".gz")]
    for choice in choices:
        if choice.exists():
            return choice
    raise InputError(f"{head} is half of a dataset: {choices[0].name} (or .gz) is missing beside it.")


def _bytes_of(path: Path, skip: int, size: int) -> bytes:
    """Read ``size`` bytes after ``skip``, decompressed if they are gzip."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no regular file: it cannot be read.")
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        if not packed and path.stat().st_size < skip + size:
            raise EOFError("it is shorter than its .HEAD says")
        with gzip.open(path) if packed else path.open("rb") as stream:
            stream.seek(skip)
            raw: bytes = stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReadWriteError(f"{path} is truncated or damaged: {error}. Copy or download it again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(raw) < size:
        raise ReadWriteError(f"{path} is truncated: its .HEAD promises more voxels. Copy or download it again.")
    return raw
