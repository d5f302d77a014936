"""MATLAB files of SPM, of version 5 to 7 (scipy) and 7.3 (HDF5), as plain Python values.

Only the named fields are read: objects and function handles in SPM's files
are left alone, and nothing is executed.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ibma_app.core.errors import DataError, InputError, ReadWriteError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST = 10**8  # numbers of one array: a design of 10,000 scans and 10,000 columns
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
    try:
        with path.open("rb") as stream:
            start = stream.read(520)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}.") from None
    value = _read_hdf(path, name, keep) if _SIGNATURE in start or b"MATLAB 7.3" in start else _read_v5(path, name, keep)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path} is a MATLAB file, but its variable {name} is not the struct that SPM writes.")
    return value


def _read_v5(path: Path, name: str, keep: Collection[str]) -> Any:
    """Read a variable of a file of version 4 to 7."""
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=[name], struct_as_record=True, squeeze_me=False)
    except (OSError, EOFError, ValueError, TypeError, NotImplementedError, MemoryError) as error:
        raise ReadWriteError(f"{path} is no MATLAB file, or it is damaged ({error}). {AGAIN}.") from None
    except Exception as error:  # noqa: BLE001 - damaged files raise whatever their bytes lead to (zlib, KeyError)
        raise ReadWriteError(f"{path} is damaged ({type(error).__name__}: {error}). {AGAIN}.") from None
    if name not in content:
        raise DataError(f"{path} does not hold the variable {name}.")
    return _plain(content[name], keep)


def _plain(value: Any, keep: Collection[str]) -> Any:
    """Convert scipy's values to plain Python values."""
    if isinstance(value, np.void) and value.dtype.names:
        return {field: _plain(value[field], keep) for field in value.dtype.names if field in keep}
    if not isinstance(value, np.ndarray):
        return _todense(value)
    if value.dtype.names:
        elements = [_plain(one, keep) for one in value.ravel(order="F")]
        return elements[0] if len(elements) == 1 else elements
    if value.dtype.kind in "US":
        rows = [str(one) for one in value.ravel()]
        return rows[0] if len(rows) == 1 else (rows or "")
    if value.dtype.kind == "O":
        return [_plain(one, keep) for one in value.ravel(order="F")]
    return value


def _todense(value: Any) -> Any:
    """Convert a sparse matrix to an array; return other values as they are."""
    return value.toarray() if hasattr(value, "toarray") else value


def _read_hdf(path: Path, name: str, keep: Collection[str]) -> Any:
    """Read a variable of a file of version 7.3."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise DataError(f"{path} does not hold the variable {name}.")
            return _of_hdf(_inside(file, name), file, keep)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ReadWriteError(f"{path} is damaged ({error}). {AGAIN}.") from None


def _inside(group: Any, name: str) -> Any:
    """Open a member of this file: links to other files are refused."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{group.file.filename}: {name} is a link; SPM writes none, and they are not followed.")
    return group[name]


def _refuse_elsewhere(member: Any) -> None:
    """Refuse data in other files, and data that would fill memory."""
    if member.external or member.is_virtual:
        raise DataError(f"{member.file.filename}: the data of {member.name} lie in another file; they are not read.")
    if member.size is not None and member.size > LARGEST:
        raise DataError(
            f"{member.file.filename}: {member.name} has {member.size} numbers; no SPM design is that large."
        )


def _of_hdf(member: Any, file: Any, keep: Collection[str]) -> Any:
    """Convert a member of an HDF5 file, as MATLAB writes it, to plain values."""
    import h5py

    if isinstance(member, h5py.Dataset):
        _refuse_elsewhere(member)
    kind = member.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if isinstance(member, h5py.Group):
        if "MATLAB_sparse" in member.attrs:
            return _sparse(member)
        fields = {field: _inside(member, field) for field in member if field in keep}
        return _structs(fields, file, keep)
    if int(member.attrs.get("MATLAB_empty", 0)):
        empty: dict[str, Any] = {"char": "", "cell": [], "struct": []}
        return empty.get(kind, np.empty((0, 0)))
    if member.dtype.kind == "O":
        cells = np.asarray(member[()]).T.ravel(order="F")
        return [_of_hdf(file[one], file, keep) if one else np.empty((0, 0)) for one in cells]
    values = np.asarray(member[()]).T
    if kind == "char":
        rows = ["".join(map(chr, row)) for row in np.atleast_2d(values)]
        return rows[0] if len(rows) == 1 else rows
    return values


def _structs(fields: dict[str, Any], file: Any, keep: Collection[str]) -> Any:
    """Make a dict of a struct, or a list of dicts of an array of structs (fields of references)."""
    import h5py

    def is_array(member: Any) -> bool:
        return isinstance(member, h5py.Dataset) and member.dtype.kind == "O" and "MATLAB_class" not in member.attrs

    if fields and all(is_array(member) for member in fields.values()):
        for member in fields.values():
            _refuse_elsewhere(member)
        columns = {field: np.asarray(member[()]).T.ravel(order="F") for field, member in fields.items()}
        length = min(column.size for column in columns.values())
        rows = [{field: file[column[i]] for field, column in columns.items()} for i in range(length)]
        return [{field: _of_hdf(one, file, keep) for field, one in row.items()} for row in rows]
    return {field: _of_hdf(member, file, keep) for field, member in fields.items()}


def _sparse(group: Any) -> Any:
    """Make an array of a sparse matrix (MATLAB stores it by columns)."""
    rows = int(group.attrs["MATLAB_sparse"])
    starts = np.asarray(group["jc"][()], dtype=np.int64)
    dense = np.zeros((rows, starts.size - 1))
    if "data" in group:
        column = np.repeat(np.arange(starts.size - 1), np.diff(starts))
        dense[np.asarray(group["ir"][()], dtype=np.int64), column] = group["data"][()]
    return dense


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
    """Return the first finite number of an array; None when there is none."""
    try:
        numbers = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    return float(numbers[0]) if numbers.size and np.isfinite(numbers[0]) else None
