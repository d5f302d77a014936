"""MATLAB files of SPM, of version 5 to 7 and 7.3 (HDF5), as plain Python values.

Only the named fields are read: objects and function handles in SPM's files
are left alone, and nothing is executed.
"""

import math
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ibma_app.core.errors import DataError, IbmaError, InputError, ReadWriteError
from ibma_app.core.from_files import number_in
from ibma_app.importers.spm.mat5 import (
    DEEPEST,
    MOST_NUMBERS,
    DamagedError,
    TooLargeError,
    dense,
    read_variable,
)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_MEMBERS = 30_000  # of an HDF5 file that are opened; the references in it may lead in circles
AGAIN = "Copy it again, or save it from MATLAB once more"


def read_struct(path: Path, name: str, keep: Collection[str]) -> dict[str, Any]:
    """Read one struct of a MATLAB file.

    Parameters
    ----------
    path : Path
    name : str
        The variable.
    keep : collection of str
        Names of fields to read, at any depth; others are left out.

    Returns
    -------
    dict
        Structs become dicts, arrays of structs and cells lists, text str (lists
        of str for several rows), numbers arrays of at least two axes, and
        empty numbers arrays without elements.

    Raises
    ------
    InputError, ReadWriteError
        The file is missing, truncated or not a MATLAB file.
    DataError
        It lacks the struct.
    """
    value = read_value(path, name, keep)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path} is a MATLAB file, but its variable {name} is not the struct that SPM writes.")
    return value


def read_value(path: Path, name: str, keep: Collection[str]) -> Any:
    """Read one variable of a MATLAB file, whatever it is; parameters and errors as of `read_struct`."""
    try:
        if not path.is_file():
            raise InputError(f"{path} is no regular file: give the SPM.mat itself.")
        with path.open("rb") as stream:
            start = stream.read(520)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}.") from None
    try:
        is_hdf = _SIGNATURE in start or b"MATLAB 7.3" in start
        return _read_hdf(path, name, keep) if is_hdf else read_variable(path, name, keep)
    except IbmaError:
        raise
    except KeyError:
        raise DataError(f"{path} does not hold the variable {name}.") from None
    except TooLargeError as error:
        raise DataError(f"{path} holds {error}; no SPM design is that large.") from None
    except (DamagedError, OSError, zlib.error, MemoryError) as error:
        raise ReadWriteError(f"{path} is no MATLAB file, or it is damaged ({error}). {AGAIN}.") from None


def _read_hdf(path: Path, name: str, keep: Collection[str]) -> Any:
    """Read a variable of a file of version 7.3."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise KeyError(name)
            return _HdfReader(file, keep).value(_inside(file, name), DEEPEST)
    except (IbmaError, DamagedError, TooLargeError, OSError):
        raise
    except KeyError as error:
        if error.args == (name,):
            raise
        raise DamagedError(error) from None
    except Exception as error:  # noqa: BLE001 - damaged files raise whatever their bytes lead to
        raise DamagedError(f"{type(error).__name__}: {error}") from None


def _inside(group: Any, name: str) -> Any:
    """Open a member of this file: links to other files are refused."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{group.file.filename}: {name} is a link; SPM writes none, and they are not followed.")
    return group[name]


class _HdfReader:
    """Converts members of an HDF5 file, as MATLAB writes it, to plain values, and counts what it has read."""

    def __init__(self, file: Any, keep: Collection[str]) -> None:
        self.file, self.keep = file, keep
        self.members, self.numbers = MOST_MEMBERS, MOST_NUMBERS

    def value(self, member: Any, deeper: int) -> Any:
        """Convert a group or a dataset."""
        import h5py

        self.members -= 1
        if self.members < 0 or not deeper:
            raise TooLargeError(f"more than {MOST_MEMBERS} members, or members more than {DEEPEST} levels deep")
        if isinstance(member, h5py.Group):
            if "MATLAB_sparse" in member.attrs:
                return self._sparse(member)
            fields = {field: _inside(member, field) for field in member if field in self.keep}
            return self._structs(fields, deeper - 1)
        if not isinstance(member, h5py.Dataset):
            raise DamagedError(f"{member.name} is neither a group nor a dataset")
        kind = member.attrs.get("MATLAB_class", b"")
        kind = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
        if int(member.attrs.get("MATLAB_empty", 0)):
            empty: dict[str, Any] = {"char": "", "cell": [], "struct": []}
            return empty.get(kind, np.empty((0, 0)))
        values = self._content(member)
        if values.dtype.kind == "O":
            cells = values.T.ravel(order="F")
            return [self.value(self.file[one], deeper - 1) if one else np.empty((0, 0)) for one in cells]
        if kind == "char":
            letters = np.atleast_2d(values.T).astype("<u2")
            rows = [row.tobytes().decode("utf-16-le", "replace") for row in letters]
            return rows[0] if len(rows) == 1 else rows
        return values.T

    def _content(self, member: Any) -> np.ndarray[Any, Any]:
        """Read numbers or references; data in other files and data that would fill memory are refused."""
        import h5py

        if member.external or member.is_virtual:
            raise DataError(f"{self.file.filename}: the data of {member.name} lie in another file; they are not read.")
        if not member.shape or (member.dtype.kind not in "fiub" and h5py.check_ref_dtype(member.dtype) is None):
            raise DamagedError(f"{member.name} holds {member.dtype} of the shape {member.shape}")
        self.numbers -= math.prod(member.shape)
        if self.numbers < 0:
            raise TooLargeError(f"more than {MOST_NUMBERS} numbers")
        return np.asarray(member[()])

    def _structs(self, fields: dict[str, Any], deeper: int) -> Any:
        """Make a dict of a struct, or a list of dicts of an array of structs (fields of references)."""
        import h5py

        def is_array(member: Any) -> bool:
            return isinstance(member, h5py.Dataset) and member.dtype.kind == "O" and "MATLAB_class" not in member.attrs

        if fields and all(is_array(member) for member in fields.values()):
            columns = {field: self._content(member).T.ravel(order="F") for field, member in fields.items()}
            length = min(column.size for column in columns.values())
            return [
                {field: self.value(self.file[column[i]], deeper) for field, column in columns.items()}
                for i in range(length)
            ]
        return {field: self.value(member, deeper) for field, member in fields.items()}

    def _sparse(self, group: Any) -> Any:
        """Make an array of a sparse matrix."""
        starts = self._content(group["jc"])
        rows, columns = int(group.attrs["MATLAB_sparse"]), starts.size - 1
        self.numbers -= max(rows, 0) * max(columns, 0)
        if self.numbers < 0 or rows < 0:
            raise TooLargeError(f"more than {MOST_NUMBERS} numbers")
        if "data" not in group:
            return np.zeros((rows, columns))
        return dense(rows, columns, self._content(group["ir"]), starts, self._content(group["data"]))


def as_list(value: Any) -> list[Any]:
    """Return a list of one element, of several, or of none (an empty array)."""
    if isinstance(value, list):
        return value
    if value is None or (isinstance(value, np.ndarray) and value.size == 0) or (isinstance(value, str) and not value):
        return []
    return [value]


def as_text(value: Any) -> str:
    """Return text on one line, without its rows, newlines and padding."""
    if isinstance(value, list):
        value = " ".join(as_text(one) for one in value)
    return " ".join(value.replace("\0", " ").split()) if isinstance(value, str) else ""


def as_number(value: Any) -> float | None:
    """Return the first number of an array; None when there is none, or when it is not finite."""
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else None
    return number_in(value)
