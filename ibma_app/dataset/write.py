"""What we write: texts, tables, sidecars and maps; the same content gives the same bytes."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.grid import Grid
from ibma_app.core.system.threads import WorkQueue, open_queue
from ibma_app.dataset.output_dir import Output, replace_file
from ibma_app.images.elements.formats import encode_files, files_of
from ibma_app.images.series import write_series
from ibma_app.images.write import Meaning

WAITING = 2  # maps for each thread: what has not been written yet stays in memory


def save_text(output: Output, below: str | Path, text: str) -> Path:
    """Write a text (UTF-8, a newline at its end)."""
    # halves of surrogate pairs, from names of files that are no UTF-8, become the escapes that JSON has for them
    content = (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace")
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
    grid: Shape,
    *,
    fill: float = 0.0,
    dtype: DTypeLike = np.float32,
    sidecar: Mapping[str, Any] | None = None,
) -> Path:
    """Write a map in the format of its name, the same bytes each time; return its (first) file.

    Parameters
    ----------
    output : Output
    below : str or Path
    sidecar : mapping, optional
        What its sidecar says: description and degrees of freedom stand in the header, too.
    vector, grid, fill, dtype
        As for `ibma_app.images.elements.formats.encode_files`.

    Raises
    ------
    ValueError
        When a value is not finite, or is not of the type: a programming error.
    DataError
        When values are beyond what the type holds: too large, or all too small.
    """
    meaning = _meaning(Path(below).name, sidecar or {})
    files = encode_files(vector, grid, Path(below), fill=fill, dtype=dtype, meaning=meaning)
    written = [replace_file(output, name, partial(_write_bytes, content=content)) for name, content in files.items()]
    return written[0]


def save_series(
    output: Output,
    below: str | Path,
    blocks: Iterable[NDArray[Any]],
    grid: Grid,
    n_volumes: int,
    repetition_time: float,
    dtype: DTypeLike = np.float32,
) -> Path:
    """Write a time series (``.nii.gz``); the other parameters are those of `ibma_app.images.series.write_series`."""
    return replace_file(output, below, lambda path: write_series(path, blocks, grid, n_volumes, repetition_time, dtype))


def _meaning(name: str, sidecar: Mapping[str, Any]) -> Meaning:
    """Say what a map's header says of its values: its kind by its name, the rest by its sidecar."""
    found = re.search(r"_stat-([A-Za-z0-9]+)_", name)
    kind, dof = found[1] if found else "", sidecar.get("DegreesOfFreedom")
    known: tuple[float, ...] = ()
    if isinstance(dof, int | float) and kind == "t":
        known = (float(dof),)
    elif isinstance(dof, int | float) and kind == "F" and sidecar.get("TestWeights"):
        rows = sidecar["TestWeights"]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        rank = np.linalg.matrix_rank([[row.get(column, 0.0) for column in columns] for row in rows])
        known = (float(rank), float(dof))
    words = str(sidecar.get("Description", ""))
    return Meaning(kind, known, f"ibma-app: {words}" if words else "ibma-app")


def _write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a new file."""
    with path.open("xb") as file:
        file.write(content)


class MapWriter:
    """Writes maps with their sidecars, the sidecar second: it never stands alone.

    Parameters
    ----------
    output : Output
    queue : WorkQueue, optional
        Writes while the next maps are computed; without one a map is on disk
        when `save` returns.
    """

    def __init__(self, output: Output, queue: WorkQueue[None] | None = None) -> None:
        self._output, self._queue = output, queue

    def save(
        self,
        below: Path,
        vector: NDArray[Any],
        grid: Shape,
        sidecar: Mapping[str, Any],
        *,
        fill: float = 0.0,
        dtype: DTypeLike = np.float32,
    ) -> Path:
        """Write a map and its sidecar (of each of its files), soon; see `save_statmap`.

        Neither ``vector`` nor ``sidecar`` may change until they are written.

        Returns
        -------
        Path
            Where the map will be.

        Raises
        ------
        ReadWriteError, OutputError
            This map or one before it could not be written.
        """
        spoken = {key: grid.speak(value) if key == "Description" else value for key, value in sidecar.items()}

        def write() -> None:
            save_statmap(self._output, below, vector, grid, fill=fill, dtype=dtype, sidecar=spoken)
            for file in files_of(below, grid):
                save_json(self._output, file.with_name(f"{file.name.removesuffix(grid.extension)}.json"), spoken)

        if self._queue is None:
            write()
        else:
            self._queue.put(write)
        return self._output.root / below

    def finish(self) -> None:
        """Wait until all is written.

        Raises
        ------
        ReadWriteError, OutputError
            A map could not be written.
        """
        for _ in self._queue.finish() if self._queue else ():
            pass


@contextmanager
def open_writer(output: Output, threads: int = 1) -> Iterator[MapWriter]:
    """Open a writer; all is written at exit, or, after an error, no map is begun any more.

    Parameters
    ----------
    output : Output
    threads : int
        With one, maps are written at once, by the caller's.
    """
    if threads <= 1:
        yield MapWriter(output)
        return
    with open_queue(threads, WAITING * threads) as queue:
        writer = MapWriter(output, queue)
        yield writer
        writer.finish()
