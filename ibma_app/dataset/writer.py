"""Maps that are compressed and written in threads, while the next ones are computed."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ibma_app.core.grid import Grid
from ibma_app.dataset.write import Output, save_json, save_statmap

WAITING = 2  # maps for each thread: what has not been written yet stays in memory


class MapWriter:
    """Writes maps with their sidecars, the sidecar second: it never stands alone.

    Parameters
    ----------
    output : Output
    pool : ThreadPoolExecutor, optional
        Writes; without one a map is on disk when `save` returns.
    threads : int
        Of the pool.
    """

    def __init__(self, output: Output, pool: ThreadPoolExecutor | None = None, threads: int = 1) -> None:
        self._output, self._pool, self._most = output, pool, WAITING * threads
        self._waiting: deque[Future[None]] = deque()

    def save(
        self,
        below: Path,
        vector: NDArray[Any],
        grid: Grid,
        sidecar: Mapping[str, Any],
        *,
        fill: float = 0.0,
        dtype: DTypeLike = np.float32,
    ) -> Path:
        """Write a map (``.nii.gz``) and its sidecar, soon; see `save_statmap`.

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

        def write() -> None:
            save_statmap(self._output, below, vector, grid, fill=fill, dtype=dtype)
            save_json(self._output, below.with_name(below.name.replace(".nii.gz", ".json")), sidecar)

        if self._pool is None:
            write()
        else:
            while len(self._waiting) >= self._most:
                self._waiting.popleft().result()
            self._waiting.append(self._pool.submit(write))
        return self._output.root / below

    def finish(self) -> None:
        """Wait until all is written.

        Raises
        ------
        ReadWriteError, OutputError
            A map could not be written.
        """
        while self._waiting:
            self._waiting.popleft().result()


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
    pool = ThreadPoolExecutor(threads)
    try:
        writer = MapWriter(output, pool, threads)
        yield writer
        writer.finish()
    finally:
        pool.shutdown(cancel_futures=True)
