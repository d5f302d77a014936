"""MATLAB files of version 5 to 7: one variable, the named fields of it, and no more than these unpacked.

scipy reads whole variables, compressed ones of any size too, and what its
compiled code does with damaged ones is not ours to say; SPM's files hold
objects and function handles besides. Everything is bounded here by the length
that the part around it states.

References
----------
The MathWorks. MAT-File Format. 2024 (level 5).
"""

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR, SPARSE = 1, 2, 4, 5
NUMERIC = range(6, 16)  # double, single, int8, ..., uint64
COMPLEX = 0x800  # a flag of an array
PASSED_OVER = (3, 16, 17)  # objects, function handles, opaque ones
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
HEADER = 128  # bytes
MOST_UNPACKED = 2**31  # bytes: MATLAB saves no larger variable in these versions
MOST_NUMBERS = 4 * 10**7  # of all arrays that are kept
MOST_PARTS = 10**6  # cells and fields
MOST_AXES = 32
DEEPEST = 32  # structs and cells within each other
LONGEST_NAME = 2**16  # bytes of a variable's name and of a struct's field names
_CHUNK = 2**18


class DamagedError(ValueError):
    """A file that is no MATLAB file of these versions, or a damaged one; the message says where."""


class TooLargeError(ValueError):
    """A file that holds more than any design; the message says of what."""


def read_variable(path: Path, name: str, keep: Collection[str]) -> Any:
    """Read one variable.

    Parameters
    ----------
    path : Path
    name : str
    keep : collection of str
        Names of struct fields to read, at any depth.

    Returns
    -------
    object
        As `ibma_app.importers.spm.matlab.read_struct`.

    Raises
    ------
    KeyError
        The file does not hold the variable.
    DamagedError, TooLargeError
    OSError
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
        if len(head) < HEADER or head[126:128] not in (b"IM", b"MI"):
            raise DamagedError("it does not begin as a MATLAB file of version 5 to 7 does")
        order = "<" if head[126:128] == b"IM" else ">"
        while True:
            start = file.tell()
            tag = file.read(8)
            if not tag.strip(b"\0"):
                raise KeyError(name)
            if len(tag) < 8:
                raise DamagedError("it ends early")
            kind, size = (int(number) for number in np.frombuffer(tag, f"{order}u4"))
            if kind == COMPRESSED:
                stream: _Stream = _Stream(file, zlib.decompressobj())
            elif kind == MATRIX:
                file.seek(start)
                stream = _Stream(file)
            else:
                raise DamagedError(f"byte {start} begins a part of the unknown type {kind}")
            reader = _Reader(stream, order, frozenset(keep))
            found, value = reader.variable(name)
            if found:
                return value
            file.seek(start + 8 + size)


class _Stream:
    """Bytes of a file, unpacked if they are compressed, with their position."""

    def __init__(self, file: IO[bytes], packed: Any = None) -> None:
        self._file, self._packed, self._buffer = file, packed, b""
        self.position = 0

    def read(self, size: int) -> bytearray:
        found = bytearray()
        while len(found) < size:
            found += self._some(size - len(found))
        self.position += size
        return found

    def skip(self, size: int) -> None:
        if self._packed is None:
            self._file.seek(size, 1)
            self.position += size
            return
        while size:
            step = min(size, _CHUNK)
            self.read(step)
            size -= step

    def _some(self, size: int) -> bytes:
        """Return from one byte to ``size`` of them."""
        if self._packed is None:
            found = self._file.read(min(size, _CHUNK))
        else:
            found = b""
            while not found and not self._packed.eof:
                raw = self._packed.unconsumed_tail or self._file.read(_CHUNK)
                found = self._packed.decompress(raw, min(size, _CHUNK))
                if not raw and not found:
                    break
        if not found:
            raise DamagedError("it ends early")
        if self.position > MOST_UNPACKED:
            raise TooLargeError(f"a variable of more than {MOST_UNPACKED // 2**30} GiB")
        return found


@dataclass
class _Array:
    """What stands before an array's content."""

    kind: int
    shape: tuple[int, ...]
    name: str
    end: int  # where it ends in the stream

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class _Reader:
    """Reads arrays of one variable, and counts what it has read."""

    def __init__(self, stream: _Stream, order: str, keep: frozenset[str]) -> None:
        self.stream, self.order, self.keep = stream, order, keep
        self.numbers, self.parts = MOST_NUMBERS, MOST_PARTS

    def variable(self, name: str) -> tuple[bool, Any]:
        """Return whether this is the variable of a name, and its value."""
        array = self._open(MOST_UNPACKED)
        if array is None or array.name != name:
            return False, None
        return True, self._content(array, DEEPEST)

    def _tag(self) -> tuple[int, int, bytearray | None]:
        """Read a tag: type, length, and the data where they are so few that they stand in the tag."""
        raw = self.stream.read(8)
        kind, size = (int(number) for number in np.frombuffer(raw, f"{self.order}u4"))
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise DamagedError(f"{size} bytes stand where 4 find room")
            return kind, size, raw[4 : 4 + size]
        return kind, size, None

    def _data(self, limit: int, most: int) -> tuple[int, bytearray]:
        """Read a part that is no array: its type and its bytes, ``most`` of them, which end before ``limit``."""
        kind, size, data = self._tag()
        if data is None:
            if self.stream.position + size > limit:
                raise DamagedError("a part is longer than the whole")
            if size > most:
                raise DamagedError(f"{size} bytes stand where {most} are the most")
            data = self.stream.read(size)
            self.stream.skip(min(-size % 8, limit - self.stream.position))
        return kind, data

    def _values(self, limit: int, most: int) -> NDArray[Any]:
        """Read ``most`` numbers or fewer."""
        kind, data = self._data(limit, 8 * most)
        if kind not in _DTYPES:
            raise DamagedError(f"numbers of the unknown type {kind}")
        dtype = np.dtype(self.order + _DTYPES[kind])
        if len(data) % dtype.itemsize:
            raise DamagedError("a number is cut")
        return np.frombuffer(data, dtype)

    def _open(self, limit: int) -> _Array | None:
        """Read what stands before an array's content; None for an empty one."""
        kind, size, data = self._tag()
        if kind != MATRIX or data is not None:
            raise DamagedError(f"a part of type {kind} stands where an array belongs")
        if not size:
            return None
        end = self.stream.position + size
        if end > limit:
            raise DamagedError("a part is longer than the whole")
        flags, shape = self._values(end, 2), self._values(end, MOST_AXES)
        name = self._data(end, LONGEST_NAME)[1]
        if not flags.size or shape.size < 2 or (shape < 0).any():
            raise DamagedError("an array has no shape")
        if int(flags[0]) & COMPLEX:
            raise DamagedError("complex numbers, which no design has")
        return _Array(int(flags[0]) & 0xFF, tuple(map(int, shape)), name.decode("latin-1"), end)

    def _array(self, limit: int, deeper: int) -> Any:
        """Read an array within another."""
        array = self._open(limit)
        return np.empty((0, 0)) if array is None else self._content(array, deeper)

    def _content(self, array: _Array, deeper: int) -> Any:
        """Read an array's content, and pass over what is left of it."""
        if array.kind in (CELL, STRUCT):
            if not deeper:
                raise TooLargeError(f"structs and cells more than {DEEPEST} levels deep")
            value = self._cells(array, deeper - 1) if array.kind == CELL else self._structs(array, deeper - 1)
        elif array.kind in NUMERIC:
            value = self._numbers(array)
        elif array.kind == CHAR:
            value = self._text(array)
        elif array.kind == SPARSE:
            value = self._sparse(array)
        elif array.kind in PASSED_OVER:
            value = np.empty((0, 0))
        else:
            raise DamagedError(f"an array of the unknown class {array.kind}")
        self.stream.skip(array.end - self.stream.position)
        return value

    def _count(self, parts: int = 0, numbers: int = 0) -> None:
        """Keep the sums of parts and numbers within bounds."""
        self.parts -= parts
        self.numbers -= numbers
        if self.parts < 0:
            raise TooLargeError(f"more than {MOST_PARTS} cells and fields")
        if self.numbers < 0:
            raise TooLargeError(f"more than {MOST_NUMBERS} numbers")

    def _cells(self, array: _Array, deeper: int) -> list[Any]:
        self._count(parts=array.count)
        return [self._array(array.end, deeper) for _ in range(array.count)]

    def _structs(self, array: _Array, deeper: int) -> Any:
        length, names = self._values(array.end, 1), self._data(array.end, LONGEST_NAME)[1]
        size = int(length[0]) if length.size else 0
        if size < 1 or len(names) % size:
            raise DamagedError("a struct has no names of fields")
        fields = [names[at : at + size].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), size)]
        self._count(parts=array.count * max(len(fields), 1))
        elements = [
            {field: value for field in fields for value in self._field(field, array.end, deeper)}
            for _ in range(array.count)
        ]
        return elements[0] if len(elements) == 1 else elements

    def _field(self, name: str, limit: int, deeper: int) -> list[Any]:
        """Read a field's value; [] for one that is not kept."""
        if name in self.keep:
            return [self._array(limit, deeper)]
        kind, size, data = self._tag()
        if kind != MATRIX or data is not None or self.stream.position + size > limit:
            raise DamagedError(f"the field {name[:40]!r} is no array within its struct")
        self.stream.skip(size)
        return []

    def _numbers(self, array: _Array) -> NDArray[Any]:
        self._count(numbers=array.count)
        values = self._values(array.end, array.count)
        if values.size != array.count:
            raise DamagedError(f"an array of {array.count} numbers holds {values.size}")
        return values.reshape(array.shape, order="F")

    def _text(self, array: _Array) -> str | list[str]:
        self._count(numbers=array.count)
        kind, data = self._data(array.end, 4 * array.count)
        if kind in _TEXTS:
            ending = "" if kind == 16 else {"<": "-le", ">": "-be"}[self.order]
            text = data.decode(_TEXTS[kind] + ending, "replace")
        elif kind in (1, 2):
            text = data.decode("latin-1")
        elif kind in (3, 4):
            text = data.decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        else:
            raise DamagedError(f"text of the unknown type {kind}")
        rows = array.shape[0]
        if not array.count or not text:
            return ""
        return text if rows == 1 else [text[row::rows] for row in range(rows)]

    def _sparse(self, array: _Array) -> NDArray[np.float64]:
        rows, columns = array.shape[:2]
        self._count(numbers=rows * columns)
        most = max(rows * columns, columns + 1)
        places, starts, values = (self._values(array.end, most) for _ in range(3))
        return dense(rows, columns, places, starts, values)


def dense(
    rows: int, columns: int, places: NDArray[Any], starts: NDArray[Any], values: NDArray[Any]
) -> NDArray[np.float64]:
    """Make an array of a sparse matrix, which MATLAB stores by columns.

    Parameters
    ----------
    rows, columns : int
    places : ndarray
        Row of each value.
    starts : ndarray, shape (columns + 1,)
        Where each column's values begin.
    values : ndarray

    Raises
    ------
    DamagedError
        They do not fit together.
    """
    found = np.zeros((rows, columns))
    starts = starts.astype(np.int64).ravel()
    if starts.size != columns + 1 or starts[0] != 0 or (np.diff(starts) < 0).any():
        raise DamagedError("the columns of a sparse matrix do not fit together")
    places, values = places.astype(np.int64).ravel()[: starts[-1]], values.ravel()[: starts[-1]]
    fits = places.size == values.size == starts[-1] and (not places.size or 0 <= places.min() <= places.max() < rows)
    if not fits:
        raise DamagedError("the values of a sparse matrix do not fit together")
    found[places, np.repeat(np.arange(columns), np.diff(starts))] = values
    return found
