"""What we write: whole or not at all, the same bytes each time, many jobs side by side."""

import contextlib
import errno
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ibma_app.core.errors import DataError, IbmaError, OutputError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.images import gzipped

_TEMPORARY = ".ibma-tmp-"
_LOCK = ".ibma-lock"
_LOCK_AGE = 600.0  # s: an older lock is a dead job's; holding one takes milliseconds
_EMPTY_LOCK_AGE = 30.0  # s: one without content was made by a job that died at once
_WHILE_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ESTALE})


@dataclass(frozen=True)
class Output:
    """OUTPUT_DIR, and our folder of unfinished files in it (see `open_output`)."""

    root: Path
    temporary: Path


@contextlib.contextmanager
def open_output(root: Path) -> Iterator[Output]:
    """Make OUTPUT_DIR ready (see `prepare_output`), and remove our temporary folder at the end."""
    output = prepare_output(root)
    try:
        yield output
    finally:
        shutil.rmtree(output.temporary, ignore_errors=True)


def prepare_output(root: Path) -> Output:
    """Make OUTPUT_DIR, make sure that it can be written, and clear away what dead jobs left.

    Raises
    ------
    OutputError
        When it cannot be made or written, whatever the system calls it.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100  keeps the names of links
    temporary = root / f"{_TEMPORARY}{_name_process(os.getpid())}-{uuid.uuid4().hex[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        probe = temporary / "probe"
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"OUTPUT_DIR {root} cannot be made or written: {error.strerror or error}. Name a folder where "
            "you may write, or ask for the permission (in a container: bind it writable)."
        ) from error
    for other in root.glob(f"{_TEMPORARY}*"):
        if _is_dead(other.name.removeprefix(_TEMPORARY)):
            shutil.rmtree(other, ignore_errors=True)
    return Output(root, temporary)


def _name_process(pid: int) -> str:
    """Name a process so that other hosts and containers do not mistake it for theirs."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    host = "".join(letter if letter.isalnum() else "." for letter in socket.gethostname())
    return f"{host}.{namespace:x}-{pid}"


def _is_dead(name: str) -> bool:
    """Tell whether a process of this host, named as by `_name_process`, is over."""
    host, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    if not pid.isdigit() or _name_process(int(pid)).partition("-")[0] != host:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextlib.contextmanager
def lock_shared(root: Path, timeout: float = 120.0) -> Iterator[None]:
    """Hold OUTPUT_DIR's lock while a shared file is read, changed and written.

    The lock is a file made by exclusive creation, as cluster file systems
    lack flock. A dead job's lock (this host's), or one of 10 minutes, is
    taken away.

    Raises
    ------
    OutputError
        When the lock cannot be made, or stays taken for ``timeout`` seconds.
    """
    lock = root / _LOCK
    token = f"{_name_process(os.getpid())}-{uuid.uuid4().hex}"
    deadline = time.monotonic() + timeout
    while not _take(lock, token):
        _remove_stale(lock)
        if time.monotonic() > deadline:
            raise OutputError(f"{lock}: held by another job for {timeout:.0f} s. If none is running, delete this file.")
        time.sleep(0.02)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if lock.read_text() == token:
                lock.unlink()


def _take(lock: Path, token: str) -> bool:
    """Make the lock file, unless it is there."""
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise _translate(error, lock) from error
    try:
        os.write(descriptor, token.encode())
    except OSError as error:  # a full disk: leave no lock without an owner
        lock.unlink(missing_ok=True)
        raise _translate(error, lock) from error
    finally:
        os.close(descriptor)
    return True


def _remove_stale(lock: Path) -> None:
    """Take a dead job's lock away; it is moved first, so that no other's new lock is deleted."""
    try:
        token = lock.read_text()
        age = time.time() - lock.stat().st_mtime
        if age < (_LOCK_AGE if token else _EMPTY_LOCK_AGE) and not _is_dead(token):
            return
        aside = lock.with_name(f"{_LOCK}-{uuid.uuid4().hex}")
        lock.rename(aside)
        if aside.read_text() != token:
            aside.rename(lock)  # another job had renewed it in between
        else:
            aside.unlink()
    except OSError:
        return


def replace_file(output: Output, below: str | Path, write: Callable[[Path], None]) -> Path:
    """Write a file aside, then put it in its place in one step.

    Parameters
    ----------
    output : Output
    below : str or Path
        Where, below OUTPUT_DIR; folders are made.
    write : callable
        Writes the file at the path that it is given.

    Returns
    -------
    Path
        The finished file.

    Raises
    ------
    ReadWriteError
        When the disk is full or fails.
    OutputError
        When the system refuses for another reason.
    """
    final = output.root / below
    aside = output.temporary / f"{os.getpid()}-{uuid.uuid4().hex}-{final.name}"
    if len(aside.name) > 200:
        aside = aside.with_name(f"{os.getpid()}-{uuid.uuid4().hex}{''.join(final.suffixes[-2:])}")
    try:
        aside.parent.mkdir(exist_ok=True)
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(final)
    except OSError as error:
        raise _translate(error, final) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return final


def _translate(error: OSError, path: Path) -> IbmaError:
    """Turn what the system says into our words and code."""
    reason = error.strerror or str(error)
    if error.errno in _WHILE_WRITING:
        return ReadWriteError(f"{path} could not be written: {reason}. Make room and run again.")
    return OutputError(f"{path} cannot be written: {reason}.")


def save_text(output: Output, below: str | Path, text: str) -> Path:
    """Write a text (UTF-8, a newline at its end)."""
    content = (text.rstrip("\n") + "\n").encode("utf-8")
    return replace_file(output, below, lambda path: _write_bytes(path, content))


def save_json(output: Output, below: str | Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON object, its keys in the order given; NaN is a programming error (ValueError)."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_to_json)
    return save_text(output, below, text)


def _to_json(value: Any) -> Any:
    """Make JSON of numpy's numbers and arrays, paths and mappings."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


def save_tsv(output: Output, below: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a table; what a row lacks, None and NaN become ``n/a``."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(_to_cell(row.get(column)) for column in columns) for row in rows]
    return save_text(output, below, "\n".join(lines))


def _to_cell(value: Any) -> str:
    """Print one cell; floats by their shortest exact form."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "n/a"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, float) else str(value)
    return " ".join(text.split()) or "n/a"


def save_statmap(
    output: Output,
    below: str | Path,
    vector: ArrayLike,
    grid: Grid,
    *,
    fill: float = 0.0,
    dtype: DTypeLike = np.float32,
) -> Path:
    """Write a map as NIfTI (gzip where the name says so), the same bytes each time.

    Parameters
    ----------
    output : Output
    below : str or Path
    vector : array_like, shape (V,)
        Values in the grid's mask.
    grid : Grid
        Its affine, sform and qform codes and units are kept.
    fill : float
        The value outside the mask (1 for p maps).
    dtype : {float32, int16, uint8}

    Raises
    ------
    ValueError
        When a value is not finite, or is not of the type: a programming error.
    DataError
        When a value is beyond what the type holds.
    """
    values = np.asarray(vector)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        if not np.isfinite(values).all():
            raise ValueError(f"{below}: values that are not finite")
        raise DataError(
            f"{below} cannot be written: {np.count_nonzero(~np.isfinite(cast))} of its values are beyond what single "
            "precision holds (3e38). Do the inputs mark missing voxels by huge numbers? Set those to NaN or 0."
        )
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, values):
        raise ValueError(f"{below}: values that are no {np.dtype(dtype)}")
    image = _make_nifti(cast, grid, fill)
    content = gzipped.compress(image) if str(below).endswith(".gz") else image
    return replace_file(output, below, lambda path: _write_bytes(path, content))


def _make_nifti(vector: np.ndarray[Any, Any], grid: Grid, fill: float) -> memoryview:
    """Make the bytes of a NIfTI-1 image on a grid, whose voxels lie in the file's order from the start."""
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype(vector.dtype)
    header.set_slope_inter(1.0, 0.0)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    qform = grid.affine if grid.qform is None else grid.qform
    header.set_qform(qform, code=grid.qform_code, strip_shears=True)
    header.set_sform(grid.affine, code=grid.sform_code)
    # Without any code a reader derives the affine from the voxel sizes: kept only where that is right.
    if not np.allclose(header.get_best_affine(), grid.affine, rtol=1e-5, atol=1e-4):
        header.set_sform(grid.affine, code=2)
    header["xyzt_units"] = grid.xyzt_units
    start = int(header.single_vox_offset)
    content = np.zeros(start + grid.mask.size * vector.dtype.itemsize, dtype=np.uint8)
    content[: len(header.binaryblock)] = np.frombuffer(header.binaryblock, dtype=np.uint8)
    voxels = content[start:].view(vector.dtype)
    voxels.fill(fill)
    voxels[grid.file_order] = vector
    return content.data


def _write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a new file."""
    with path.open("xb") as file:
        file.write(content)
