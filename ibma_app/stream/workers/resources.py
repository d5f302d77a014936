"""The threads, memory and workers that a computation may use."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ibma_app.stream.resampling.checkpoints import Checkpoints
from ibma_app.stream.workers.machine import default_memory


class Workers(Protocol):
    """Worker processes, perhaps on other machines (`ibma_app.stream.workers.dask_pool.DaskPool` is one)."""

    @property
    def memory(self) -> int | None:
        """Bytes that this process may use; None: not limited."""

    @property
    def smallest_memory(self) -> int | None:
        """Bytes that the worker with the least memory may use; None: unknown."""

    def run(
        self,
        function: Callable[..., Any],
        jobs: Iterable[Any],
        *,
        shared: Any = None,
        read: Callable[[Any], Any] | None = None,
        nbytes: int = 0,
    ) -> Generator[tuple[Any, Any | Exception]]:
        """Call ``function`` with each job; yield the job and its result, or what it raised, as they finish."""


@dataclass(frozen=True)
class Resources:
    """What one process may use; results do not depend on it."""

    threads: int = 1
    memory: int | None = None  # bytes (``--mem``); None: 80 % of what is free
    work_dir: Path | None = None  # for temporary files; None: ``$SLURM_TMPDIR`` or ``$TMPDIR`` of the process
    processes: int = 1  # processes that run at the same time, each with as much memory
    workers: Workers | None = None  # compute instead of the threads
    checkpoints: Checkpoints | None = None  # of resampling

    @property
    def bytes_to_use(self) -> int:
        """The memory in bytes, also when it was not given."""
        return default_memory() if self.memory is None else self.memory

    def split(self) -> "Resources":
        """Return the share of one of as many processes as there are threads: one thread, and its part of the memory."""
        return replace(self, threads=1, memory=self.bytes_to_use // self.threads, processes=self.threads)


ONE_THREAD = Resources()
"""This process alone."""
