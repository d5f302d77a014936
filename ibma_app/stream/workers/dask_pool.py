"""Jobs by the workers of a Dask cluster, of this machine or elsewhere; the jobs of workers that die are redone."""

import contextlib
import importlib.util
import itertools
import logging
import multiprocessing
import os
import queue
import re
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ibma_app import __version__
from ibma_app.core.errors import IbmaError, ReadWriteError, UsageError
from ibma_app.stream.workers.process_pool import one_blas_thread

Job = Any
Result = Any

log = logging.getLogger(__name__)
SILENT = logging.CRITICAL + 1  # an interrupted scheduler logs each task that it cannot report as critical
HERE = "127.0.0.1"
CHECK_EVERY = 5.0  # s between two requests for the list of workers
REMIND_EVERY = 300.0  # s between two warnings that there are no workers
RESTART = 300.0  # s for workers of our own cluster to start again
GRACE = 10.0  # s for a local cluster to end
CONNECT_TIMEOUT = 15.0  # s for a scheduler to answer
RETRY_AFTER = 0.5  # s after which the client knows whether a scheduler is gone
ATTEMPTS = 3  # at a job whose workers leave with its data
MOST_AHEAD = 256  # jobs queued at a scheduler: enough for it to distribute them well


class DaskPool:
    """Runs jobs on the workers of a Dask cluster; the jobs of workers that die or leave are done by others.

    Parameters
    ----------
    client : distributed.Client
    address : str
        As the user gave it.
    memory : int or None
        Bytes that this process may use, a quarter of them for data that are queued; None: not limited.
    """

    def __init__(self, client: Any, address: str, memory: int | None = None) -> None:
        self._client, self._address, self.memory = client, address, memory
        self._limits: tuple[int, ...] = ()
        self._known: Mapping[str, int] = {}  # threads of each worker
        self._updated = 0.0

    @property
    def local(self) -> bool:
        """Whether the workers are child processes, which end with this one."""
        return self._address == "local"

    @property
    def nprocs(self) -> int:
        """Number of jobs that are done at the same time."""
        return sum(self._known.values())

    @property
    def connected(self) -> bool:
        """Whether the scheduler still answers."""
        return bool(self._client.status == "running")

    @property
    def smallest_memory(self) -> int | None:
        """Bytes that each thread of the worker with the least memory may use; None: unknown."""
        return min(self._limits, default=None)

    def check_workers(self) -> None:
        """Wait for workers, and check that they have this version of the software.

        Raises
        ------
        UsageError
            A worker has no ibma-app, or another version, which might compute other numbers.
        """
        self._await_workers()
        replies = self._client.run(_describe_worker, on_error="return")
        wrong = {worker: _find_fault(words) for worker, words in replies.items()}
        if worst := {worker: text for worker, text in wrong.items() if text}:
            worker, text = min(worst.items())
            raise UsageError(f"{len(worst)} of {len(replies)} Dask workers cannot work for us; {worker}: {text}")
        if any(words[1] != "1" for words in replies.values()):
            log.warning("OMP_NUM_THREADS is not 1 in all Dask workers: BLAS may give other last digits there.")
        self._limits = tuple(words[2] for words in replies.values() if words[2])
        self._update_workers()
        log.info("Dask: %d worker(s), %d thread(s).", len(self._known), self.nprocs)

    def run(
        self,
        function: Callable[..., Result],
        jobs: Iterable[Job],
        *,
        shared: Any = None,
        read: Callable[[Job], Any] | None = None,
        nbytes: int = 0,
    ) -> Generator[tuple[Job, Result | Exception]]:
        """Call ``function`` with each job; yield the job and its result, or what it raised, as they finish.

        Parameters
        ----------
        function : callable
            At module level of a module that workers can import.
        jobs : iterable
            Each is passed to ``function``.
        shared : object, optional
            First argument of ``function``, sent once to each worker.
        read : callable, optional
            Called with a job in this process; its result is sent instead of the job.
        nbytes : int
            Largest size of that result in bytes: fewer jobs are queued when it is large.

        If the scheduler vanishes, the jobs that are left have that as their error.
        """
        coming, finished = iter(enumerate(jobs)), queue.SimpleQueue[Any]()
        taken: dict[int, Job] = {}
        waiting: dict[str, _Sent] = {}

        def send(number: int, attempt: int = 1) -> None:
            job = taken[number]
            future = self._submit(function, *scattered, read(job) if read else job)
            waiting[future.key] = _Sent(future, number, attempt, scattered)
            future.add_done_callback(finished.put)

        try:
            scattered = self._scatter(shared)
            while True:
                for number, job in itertools.islice(coming, max(0, self._most_queued(nbytes) - len(waiting))):
                    taken[number] = job
                    send(number)
                if not waiting:
                    return
                sent = waiting.pop(self._next(finished).key)
                outcome = self._outcome(sent, taken[sent.number])
                if outcome is not _LOST:
                    yield taken.pop(sent.number), outcome
                    continue
                if sent.scattered is scattered:  # the last worker that had the shared data is gone
                    scattered = self._scatter(shared)
                send(sent.number, sent.attempt + 1)
        except _VanishedError as error:
            yield from ((job, ReadWriteError(error.message)) for job in [*taken.values(), *(job for _, job in coming)])
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self._client.cancel([sent.future for sent in waiting.values()])

    def _scatter(self, shared: Any) -> tuple[Any, ...]:
        """Send the shared data to every worker; return the first argument of the jobs, if there is one."""
        if shared is None:
            return ()
        while True:
            self._await_workers()
            with contextlib.suppress(TimeoutError):  # the last worker left before it had them
                return tuple(self._request(self._client.scatter, [shared], broadcast=True, hash=False))

    def _await_workers(self) -> None:
        """Wait until there is a worker; warn meanwhile. Nobody but Dask starts those of our own cluster again."""
        began, warned = time.monotonic(), -REMIND_EVERY
        while not self._request(self._client.nthreads):
            if self.local and time.monotonic() - began > RESTART:
                raise _VanishedError("Dask's workers here ended; none starts again. Give fewer --nprocs, or no --dask.")
            if time.monotonic() - warned > REMIND_EVERY:
                warned = time.monotonic()
                log.warning("No workers at %s: waiting for the first (ctrl-C ends the run).", self._address)
            time.sleep(RETRY_AFTER)
            self._require_scheduler()

    def _submit(self, function: Callable[..., Result], *given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)  # blocks of maps are large
            return self._request(self._client.submit, _checked, __version__, function, *given, pure=False)

    def _request(self, request: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Make a request to the scheduler; raise `_VanishedError` if it is gone."""
        try:
            return request(*given, **named)
        except TimeoutError:
            self._require_scheduler()
            raise
        except OSError as error:
            raise self._vanished() from error
        except Exception:
            self._require_scheduler()
            raise

    def _most_queued(self, nbytes: int) -> int:
        """Return how many jobs may be queued: twice as many as are done at once, or more of small ones."""
        ahead = 2 * max(1, self.nprocs)
        if not nbytes:
            return max(ahead, MOST_AHEAD)
        return ahead if self.memory is None else max(1, min(ahead, self.memory // 4 // nbytes))

    def _next(self, finished: "queue.SimpleQueue[Any]") -> Any:
        """Wait for the next finished job, and check the cluster meanwhile."""
        while True:
            if time.monotonic() - self._updated > CHECK_EVERY:
                self._update_workers()
            with contextlib.suppress(queue.Empty):
                return finished.get(timeout=CHECK_EVERY)

    def _update_workers(self) -> None:
        """Update the list of workers; warn of those that are gone."""
        self._require_scheduler()
        there = self._request(self._client.nthreads)
        gone = sorted(set(self._known) - set(there))
        if gone:
            what_next = "others do its work" if there else "waiting for new workers"
            log.warning("Lost %d Dask worker(s) (%s): %s.", len(gone), ", ".join(gone[:3]), what_next)
        if self.local and not there:
            self._await_workers()
        self._known, self._updated = there, time.monotonic()

    def _outcome(self, sent: "_Sent", job: Job) -> Any:
        """Return a job's result, or the exception it raised; `_LOST` when its workers left with its data."""
        from distributed import KilledWorker

        future, name = sent.future, getattr(job, "label", job)
        try:
            if future.status != "error":
                return future.result()
            error = future.exception()
        except Exception as lost:  # noqa: BLE001  not raised by the job: its result was lost with a worker or the scheduler
            if isinstance(lost, OSError):
                time.sleep(RETRY_AFTER)
            self._update_workers()
            if sent.attempt < ATTEMPTS:
                return _LOST
            return IbmaError(f"Dask lost {name} {ATTEMPTS} times ({lost}). Run again with workers that stay.")
        if isinstance(error, KilledWorker):
            return IbmaError(
                f"Every Dask worker that worked on {name} died, perhaps out of memory. See the workers' logs, or give "
                "them more memory."
            )
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("ibma_app"):
            return UsageError(f"A Dask worker cannot work for us: {_find_fault(error)}")
        return error

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._vanished()

    def _vanished(self) -> "_VanishedError":
        return _VanishedError(
            f"The Dask scheduler at {self._address} has vanished. What was finished stays; start the scheduler and "
            "its workers again, and run the same command."
        )


class _VanishedError(ReadWriteError):
    """The scheduler no longer answers, or the workers of our own cluster ended for good."""


class _Sent(NamedTuple):
    """A job that was sent to the scheduler."""

    future: Any
    number: int
    attempt: int
    scattered: tuple[Any, ...]


_LOST = object()


@contextmanager
def open_dask(
    address: str, *, nprocs: int = 1, memory: int | None = None, work_dir: Path | None = None
) -> Iterator[DaskPool]:
    """Open a pool of a Dask cluster's workers; jobs that are still queued at exit are cancelled.

    Parameters
    ----------
    address : str
        Address of the scheduler, its scheduler file, or ``local``: a cluster started on this machine.
    nprocs : int
        Worker processes of a local cluster.
    memory : int, optional
        Bytes that this process, with the workers of a local cluster, may use.
    work_dir : Path, optional
        For the temporary files of a local cluster.

    Raises
    ------
    UsageError
        Dask is not installed, no scheduler answers, or its workers have another version of ibma-app.
    """
    check_dask(address)
    from distributed import Client

    for name in ("distributed", "asyncio"):  # what users need to know of lost workers is logged here
        logging.getLogger(name).setLevel(SILENT)
    with contextlib.ExitStack() as opened:
        where: Any = address
        if address == "local":
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="ibma-dask-", dir=work_dir))
            where = _start_cluster(nprocs, folder)
            opened.callback(_end_cluster, where)
        try:
            given = {"scheduler_file": address} if Path(address).is_file() else {"address": where}
            client = opened.enter_context(Client(**given, timeout=CONNECT_TIMEOUT, set_as_default=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"No Dask scheduler answers at {address} ({error or type(error).__name__}). Start one (dask "
                "scheduler), give its address or its scheduler file, or say --dask local."
            ) from None
        pool = DaskPool(client, address, memory)
        pool.check_workers()
        if pool.local and memory:
            pool._limits = (memory // nprocs,)
        yield pool


def check_dask(address: str) -> None:
    """Check the form of an address, and that Dask is installed.

    Raises
    ------
    UsageError
        It is no address, or Dask is not installed.
    """
    if address != "local" and not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", address) and not Path(address).is_file():
        raise UsageError(
            f"--dask {address!r} is no address. Write tcp://host:8786, name a scheduler file that exists, or say "
            "local: worker processes on this machine."
        )
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--dask needs Dask, which is not installed: pip install distributed.")


def _start_cluster(nprocs: int, folder: str) -> Any:
    """Start a scheduler and workers of one thread each; ctrl-C is left to this process."""
    from distributed import LocalCluster

    with _ignored_interrupts(), one_blas_thread():
        return LocalCluster(
            n_workers=nprocs,
            threads_per_worker=1,
            processes=True,
            host=HERE,
            dashboard_address=f"{HERE}:0",  # Dask starts an HTTP server in any case: only this machine reaches it
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            local_directory=folder,
            silence_logs=SILENT,
        )


def _end_cluster(cluster: Any) -> None:
    """Close a local cluster; kill its workers when a dead one keeps it from closing."""
    with contextlib.suppress(TimeoutError):
        cluster.close(timeout=GRACE)
    for process in multiprocessing.active_children():
        if process.name.startswith("Dask Worker"):
            process.kill()


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Have processes that start within this context ignore ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _checked(version: str, function: Callable[..., Result], *given: Any) -> Result:
    """Do a job in a worker, which may have joined after `DaskPool.check_workers`: its version is checked again."""
    if version != __version__:
        raise UsageError(f"A Dask worker cannot work for us: it has ibma-app {__version__}, ours is {version}.")
    return function(*given)


def _describe_worker(dask_worker: Any) -> tuple[str, str | None, int]:
    """Return a worker's version of ibma-app, the threads of its BLAS, and the memory of each of its threads."""
    limit = dask_worker.memory_manager.memory_limit or 0
    return __version__, os.environ.get("OMP_NUM_THREADS"), limit // max(dask_worker.state.nthreads, 1)


def _find_fault(words: Any) -> str:
    """Word what is wrong with a worker's reply to `_describe_worker`; "" when nothing is."""
    if isinstance(words, ImportError):
        return "it has no ibma-app. Start the workers in the environment that this command runs in."
    if isinstance(words, BaseException):
        return f"{type(words).__name__}: {words}"
    return "" if words[0] == __version__ else f"it has ibma-app {words[0]}, this is {__version__}."
