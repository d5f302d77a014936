"""What a process may use, and who computes for it: passed along to whatever takes time or memory."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ibma_app.stream.resampling.checkpoints import Checkpoints
from ibma_app.stream.workers.machine import default_memory


class Workers(Protocol):
    """Workers in other processes, perhaps on other machines (see `ibma_app.stream.workers.dask_pool.DaskPool`)."""

    @property
    def memory(self) -> int | None:
        """Bytes that we may use here; None: nobody said."""

    @property
    def smallest_memory(self) -> int | None:
        """Bytes that each worker may use; None: they do not say."""

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
    """What one process may use; results never depend on it."""

    threads: int = 1
    memory: int | None = None  # bytes (``--mem``); None: 80 % of what is free
    work_dir: Path | None = None  # for temporary files; None: ``$SLURM_TMPDIR`` or ``$TMPDIR`` of the process
    processes: int = 1  # how many do the same at the same time, each with as much memory
    workers: Workers | None = None  # in other processes: compute in the threads' place
    checkpoints: Checkpoints | None = None  # of resampling, for a run that is started again

    @property
    def bytes_to_use(self) -> int:
        """The memory in bytes, when it was not given too."""
        return default_memory() if self.memory is None else self.memory

    def split(self) -> "Resources":
        """Give the share of each of as many processes as there are threads: one thread, and its part of the memory."""
        return replace(self, threads=1, memory=self.bytes_to_use // self.threads, processes=self.threads)


ONE_THREAD = Resources()
"""This process alone."""
