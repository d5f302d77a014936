"""Keeps stacked maps, in memory or in files, until blocks of voxels are read from all of them."""

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import OutputError, ReadWriteError
from ibma_app.core.system.folders import temporary_folder

log = logging.getLogger(__name__)

STORED = np.float32  # in memory as on disk, so that --mem does not change a result
LARGEST, SMALLEST = 1e37, 1e-25  # a row beyond these is scaled by a power of two into the range of single precision
SPARE = 64 * 1024**2  # bytes left free on the disk
SCATTERED = 200  # fewer voxels read at a time are not neighbours in order


@dataclass
class _Row:
    """One kind of one map: its values, or their place in the file of that kind."""

    layout: int
    length: int
    dtype: np.dtype[Any]
    scale: float = 1.0
    values: NDArray[Any] | None = None
    offset: int = 0


class RowStore:
    """Rows of voxels, one for each kind of each map, appended once and read by slices.

    A row holds the voxels of its layout, which is a mask that the caller knows.
    Once the final mask is known, `select` is given the places of its voxels in
    each layout; `read` then counts voxels of the final mask.

    Files are read by ``pread`` rather than mapped: mapped pages count as memory
    of the process.

    Parameters
    ----------
    folder : Path or None
        For the files; None: rows are kept in memory.
    window : int
        Bytes that may be read from the files at once: neighbouring blocks come
        from one window, which is read once.
    """

    def __init__(self, folder: Path | None = None, window: int = 0) -> None:
        self._folder, self._window_bytes = folder, window
        self._windows: dict[str, tuple[int, NDArray[Any]]] = {}
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, int], _Row] = {}
        self._files: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._positions: Mapping[int, NDArray[np.int64]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Send another process all but the lock and the windows."""
        return {**self.__dict__, "_lock": None, "_windows": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a lock for this process."""
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def on_disk(self) -> bool:
        """Whether the rows are in files."""
        return self._folder is not None

    def append(self, kind: str, index: int, values: NDArray[Any], layout: int) -> None:
        """Store one kind of one map: floats (in single precision) or bytes.

        Raises
        ------
        ReadWriteError
            The disk is full, or cannot be written.
        """
        scale = 1.0
        if values.dtype.kind == "f" and values.dtype != STORED:
            scale = _scale(values)
            values = (values / scale if scale != 1.0 else values).astype(STORED)
        row = _Row(layout, values.size, values.dtype, scale)
        if self._folder is None:
            row.values = values
        else:
            row.offset = self._ends.get(kind, 0)
            self._write(kind, np.ascontiguousarray(values), row.offset)
            self._ends[kind] = row.offset + values.nbytes
        self._rows[kind, index] = row

    def has(self, kind: str, index: int) -> bool:
        """Return whether a map has a row of this kind."""
        return (kind, index) in self._rows

    def whole(self, kind: str, index: int) -> tuple[NDArray[Any], int]:
        """Return a row as it was stored, and its layout."""
        row = self._rows[kind, index]
        return self._slice(kind, row, 0, row.length), row.layout

    def select(self, positions: Mapping[int, NDArray[np.int64]]) -> None:
        """Set the places of the final mask's voxels in each layout (ascending); in memory, others are dropped."""
        self._positions = positions
        if self.on_disk:
            return
        for row in self._rows.values():
            chosen = positions[row.layout]
            if row.values is not None and chosen.size != row.length:
                row.values = row.values[chosen]
        sizes = {layout: np.arange(chosen.size) for layout, chosen in positions.items()}
        for row in self._rows.values():
            row.length = sizes[row.layout].size
        self._positions = sizes

    def drop(self, kind: str) -> None:
        """Remove every row of a kind."""
        for key in [key for key in self._rows if key[0] == kind]:
            del self._rows[key]
        if kind in self._files:
            os.close(self._files.pop(kind))

    def read(self, kind: str, index: int, start: int, stop: int) -> NDArray[Any]:
        """Read the final mask's voxels ``start`` to ``stop`` of one row, in its original scale."""
        row = self._rows[kind, index]
        values = self._chosen(kind, row, start, stop)
        return values if row.scale == 1.0 else values.astype(np.float64) * row.scale

    def read_all(
        self, kind: str, n_rows: int, start: int, stop: int, dtype: type[np.floating[Any]] = np.float64
    ) -> NDArray[Any]:
        """Read the final mask's voxels ``start`` to ``stop`` of the first ``n_rows`` rows; safe in threads."""
        block = np.empty((n_rows, stop - start), dtype=dtype)
        width = self._window_width(n_rows, stop - start)
        if not width:
            for row in range(n_rows):
                block[row] = self.read(kind, row, start, stop)
            return block
        for number in range(start // width, (stop - 1) // width + 1):
            window, first = self._window(kind, n_rows, number, width), number * width
            low, high = max(start, first), min(stop, first + width)
            block[:, low - start : high - start] = window[:, low - first : high - first]
        for row in range(n_rows):
            if self._rows[kind, row].scale != 1.0:  # in double precision, as `read` does
                block[row] = block[row].astype(np.float64) * self._rows[kind, row].scale
        return block

    def _window_width(self, n_rows: int, n_voxels: int) -> int:
        """Return the voxels of a window, a power of two; 0 where blocks are read without one."""
        if not self.on_disk or n_voxels < SCATTERED:
            return 0
        # each kind has a window, and the next is read while it is still held
        most = self._window_bytes // (n_rows * np.dtype(STORED).itemsize * len(self._files) * 2)
        width = 1 << most.bit_length() >> 1
        return width if width > n_voxels else 0

    def _window(self, kind: str, n_rows: int, number: int, width: int) -> NDArray[Any]:
        """Return one window of all rows, read unless it is the last one of its kind."""
        with self._lock:
            held = self._windows.get(kind)
            if held is not None and held[0] == number:
                return held[1]
            row = self._rows[kind, 0]
            stop = min((number + 1) * width, self._positions[row.layout].size)
            window = np.empty((n_rows, stop - number * width), dtype=STORED)
            for index in range(n_rows):
                window[index] = self._chosen(kind, self._rows[kind, index], number * width, stop)
            self._windows[kind] = number, window
            return window

    def contents(self) -> Iterator[tuple[str, int, float, NDArray[Any]]]:
        """Yield every row: kind, map, scale, and the final mask's voxels as stored."""
        for (kind, index), row in self._rows.items():
            yield kind, index, row.scale, self._chosen(kind, row, 0, row.length)

    def in_memory(self) -> "RowStore":
        """Return a store of the final mask's voxels that can be sent to another process."""
        if not self.on_disk:
            return self
        copy = RowStore()
        n_voxels = 0
        for kind, index, scale, values in self.contents():
            n_voxels = values.size
            copy._rows[kind, index] = _Row(0, n_voxels, values.dtype, scale, values)
        copy._positions = {0: np.arange(n_voxels)}
        return copy

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])
        self._rows.clear()
        self._windows.clear()

    def _chosen(self, kind: str, row: _Row, start: int, stop: int) -> NDArray[Any]:
        if row.values is not None:  # after `select` only the final mask's voxels
            return row.values[start:stop]
        chosen = self._positions[row.layout][start:stop]
        if not chosen.size:
            return np.empty(0, dtype=row.dtype)
        first, last = int(chosen[0]), int(chosen[-1]) + 1
        values = self._slice(kind, row, first, last)
        return values if values.size == chosen.size else values[chosen - first]

    def _slice(self, kind: str, row: _Row, start: int, stop: int) -> NDArray[Any]:
        if row.values is not None:
            return row.values[start:stop]
        size = row.dtype.itemsize
        left, offset, parts = (stop - start) * size, row.offset + start * size, []
        while left > 0:
            part = os.pread(self._files[kind], left, offset)
            if not part:
                raise ReadWriteError(
                    f"The rows in the work folder {self._folder} were cut short while they were in use."
                )
            parts.append(part)
            left, offset = left - len(part), offset + len(part)
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), dtype=row.dtype)

    def _write(self, kind: str, values: NDArray[Any], offset: int) -> None:
        try:
            if kind not in self._files:
                self._files[kind] = os.open(self._path(kind), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                self._path(kind).unlink()  # so that the space is freed however the process ends
            view = memoryview(values.tobytes())
            while view:
                written = os.pwrite(self._files[kind], view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
            raise ReadWriteError(
                f"The work folder {self._folder} cannot be written: {full}. Choose another with --work-dir, or give "
                "more memory with --mem."
            ) from None

    def _path(self, kind: str) -> Path:
        return (self._folder or Path()) / f"{kind}.rows"


@contextlib.contextmanager
def open_store(work_dir: Path | None, *, on_disk: bool, size: int, window: int = 0) -> Iterator[RowStore]:
    """Open a store in memory, or in a private folder that is removed at the end, also after an error.

    Parameters
    ----------
    work_dir : Path or None
        Parent of that folder; None: ``$SLURM_TMPDIR`` or ``$TMPDIR``.
    on_disk : bool
        Whether rows go to files.
    size : int
        Bytes that the rows may take.
    window : int
        As for `RowStore`.

    Raises
    ------
    OutputError
        The folder cannot be made, or too little of its disk is free.
    """
    folder = _make_folder(work_dir, size) if on_disk else None
    store = RowStore(folder, window)
    try:
        yield store
    finally:
        store.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _make_folder(work_dir: Path | None, size: int) -> Path:
    parent = temporary_folder(work_dir)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        log.info(
            "The maps are more than memory should hold: up to %.1f GiB go to files in the work folder %s, which has "
            "%.1f GiB left.", size / 1024**3, parent, free / 1024**3,
        )  # fmt: skip
        if free < size + SPARE:
            raise OutputError(
                f"The work folder {parent} has {free / 1024**3:.1f} GiB left; the maps need up to "
                f"{size / 1024**3:.1f} GiB. Choose another with --work-dir, or give more memory with --mem."
            )
        return Path(tempfile.mkdtemp(prefix="ibma-stack-", dir=parent))
    except OSError as error:
        raise OutputError(
            f"The work folder {parent} cannot be used: {error.strerror or error}. Choose another with --work-dir."
        ) from None


def _scale(values: NDArray[Any]) -> float:
    """Return the power of two that brings a row into the range of single precision; 1 for nearly all rows."""
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    if largest == 0.0 or SMALLEST <= largest <= LARGEST:
        return 1.0
    return float(2.0 ** np.clip(np.round(np.log2(largest)), -1021, 1022))
