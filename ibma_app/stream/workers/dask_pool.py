"""Jobs by the workers of a Dask cluster, our own or one elsewhere; of those that die, others take the jobs."""

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

HERE = "127.0.0.1"
TICK = 5.0  # s between two looks at a cluster
PATIENCE = 300.0  # s between two words on workers that are waited for
GRACE = 10.0  # s for a cluster of our own to end
ANSWER = 15.0  # s for a scheduler to answer
NOTICE = 0.5  # s until we notice that a scheduler is gone
ATTEMPTS = 3  # of a job whose workers leave with its data
MOST_AHEAD = 256  # jobs that wait at a scheduler: enough for it to see how much there is to do


class DaskPool:
    """Runs jobs on the workers of a Dask cluster; of those that die, or leave, others take the jobs.

    Parameters
    ----------
    client : distributed.Client
    address : str
        As the user gave it.
    memory : int or None
        Bytes that we may use here, a quarter of them for data that wait to be sent; None: for a few jobs' worth.
    """

    def __init__(self, client: Any, address: str, memory: int | None = None) -> None:
        self._client, self._address, self.memory = client, address, memory
        self._limits: tuple[int, ...] = ()
        self._known: Mapping[str, int] = {}  # threads of each worker
        self._looked = 0.0

    @property
    def local(self) -> bool:
        """Whether the workers are our own children, which end with us."""
        return self._address == "local"

    @property
    def nprocs(self) -> int:
        """Jobs at a time."""
        return sum(self._known.values())

    @property
    def connected(self) -> bool:
        """Whether the scheduler is still there."""
        return bool(self._client.status == "running")

    @property
    def smallest_memory(self) -> int | None:
        """Bytes that each thread of a worker may use, at least; None: they do not say."""
        return min(self._limits, default=None)

    def meet(self) -> None:
        """Wait for workers, and see that they are as we are.

        Raises
        ------
        UsageError
            A worker has no ibma-app, or another version: it would compute other numbers.
        """
        self._await_workers()
        told = self._client.run(_describe_worker, on_error="return")
        wrong = {worker: _complaint(words) for worker, words in told.items()}
        if worst := {worker: text for worker, text in wrong.items() if text}:
            worker, text = min(worst.items())
            raise UsageError(f"{len(worst)} of {len(told)} Dask workers cannot work for us; {worker}: {text}")
        if any(words[1] != "1" for words in told.values()):
            log.warning("OMP_NUM_THREADS is not 1 in all Dask workers: BLAS may give other last digits there.")
        self._limits = tuple(words[2] for words in told.values() if words[2])
        self._look_round()
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
            At module level of what workers can import.
        jobs : iterable
            What it is called with, one at a time.
        shared : object, optional
            Its first argument, sent once to each worker.
        read : callable, optional
            Turns a job, here, into what is sent in its place.
        nbytes : int
            What that takes, at most: few wait at a time.

        If the scheduler vanishes, that is the outcome of all that is left.
        """
        coming, finished = iter(enumerate(jobs)), queue.SimpleQueue[Any]()
        taken: dict[int, Job] = {}
        waiting: dict[str, _Sent] = {}

        def send(number: int, attempt: int = 1) -> None:
            job = taken[number]
            future = self._submit(function, *handed, read(job) if read else job)
            waiting[future.key] = _Sent(future, number, attempt, handed)
            future.add_done_callback(finished.put)

        try:
            handed = self._hand_out(shared)
            while True:
                for number, job in itertools.islice(coming, max(0, self._room(nbytes) - len(waiting))):
                    taken[number] = job
                    send(number)
                if not waiting:
                    return
                sent = waiting.pop(self._next(finished).key)
                outcome = self._outcome(sent, taken[sent.number])
                if outcome is not _LOST:
                    yield taken.pop(sent.number), outcome
                    continue
                if sent.handed is handed:  # the last worker that had it is gone
                    handed = self._hand_out(shared)
                send(sent.number, sent.attempt + 1)
        except _VanishedError as error:
            yield from ((job, ReadWriteError(error.message)) for job in [*taken.values(), *(job for _, job in coming)])
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self._client.cancel([sent.future for sent in waiting.values()])

    def _hand_out(self, shared: Any) -> tuple[Any, ...]:
        """Send data to every worker; returns what stands for them in a job."""
        if shared is None:
            return ()
        while True:
            self._await_workers()
            with contextlib.suppress(TimeoutError):  # the last worker left before it had them
                return tuple(self._asked(self._client.scatter, [shared], broadcast=True, hash=False))

    def _await_workers(self) -> None:
        """Wait until there is a worker, and say so."""
        said = -PATIENCE
        while not self._asked(self._client.nthreads):
            if time.monotonic() - said > PATIENCE:
                said = time.monotonic()
                log.warning("No workers at %s: waiting for the first (ctrl-C ends the run).", self._address)
            time.sleep(NOTICE)
            self._require_scheduler()

    def _submit(self, function: Callable[..., Result], *given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)  # blocks of maps are
            return self._asked(self._client.submit, _checked, __version__, function, *given, pure=False)

    def _asked(self, request: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Ask the scheduler for something; if it is gone, say so."""
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

    def _room(self, nbytes: int) -> int:
        """Tell how many jobs may wait: twice as many as work, or, when they are small, more."""
        ahead = 2 * max(1, self.nprocs)
        if not nbytes:
            return max(ahead, MOST_AHEAD)
        return ahead if self.memory is None else max(1, min(ahead, self.memory // 4 // nbytes))

    def _next(self, finished: "queue.SimpleQueue[Any]") -> Any:
        """Wait for a job's future, with an eye on the cluster."""
        while True:
            if time.monotonic() - self._looked > TICK:
                self._look_round()
            with contextlib.suppress(queue.Empty):
                return finished.get(timeout=TICK)

    def _look_round(self) -> None:
        """Learn which workers there are, and say which have gone."""
        self._require_scheduler()
        there = self._asked(self._client.nthreads)
        gone = sorted(set(self._known) - set(there))
        if gone:
            what_next = "others do its work" if there else "waiting for new workers"
            log.warning("Lost %d Dask worker(s) (%s): %s.", len(gone), ", ".join(gone[:3]), what_next)
        self._known, self._looked = there, time.monotonic()

    def _outcome(self, sent: "_Sent", job: Job) -> Any:
        """Fetch a job's result, or what it raised; `_LOST` when its workers left with its data."""
        from distributed import KilledWorker

        future, name = sent.future, getattr(job, "label", job)
        try:
            if future.status != "error":
                return future.result()
            error = future.exception()
        except Exception as lost:  # noqa: BLE001  not the job's own: it was lost on its way, with a worker or the scheduler
            if isinstance(lost, OSError):
                time.sleep(NOTICE)
            self._look_round()
            if sent.attempt < ATTEMPTS:
                return _LOST
            return IbmaError(f"Dask lost {name} {ATTEMPTS} times ({lost}). Run again with workers that stay.")
        if isinstance(error, KilledWorker):
            return IbmaError(
                f"Every Dask worker that worked on {name} died, perhaps out of memory. See the workers' logs, or give "
                "them more memory."
            )
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("ibma_app"):
            return UsageError(f"A Dask worker cannot work for us: {_complaint(error)}")
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
    """The scheduler is no longer there."""


class _Sent(NamedTuple):
    """A job at the scheduler."""

    future: Any
    number: int
    attempt: int
    handed: tuple[Any, ...]


_LOST = object()


@contextmanager
def open_dask(
    address: str, *, nprocs: int = 1, memory: int | None = None, work_dir: Path | None = None
) -> Iterator[DaskPool]:
    """Open a pool of a Dask cluster's workers; what still waits there is given up at exit.

    Parameters
    ----------
    address : str
        Of the scheduler, its scheduler file, or ``local``: a cluster of our own, on this machine.
    nprocs : int
        Worker processes of a cluster of our own.
    memory : int, optional
        Bytes that all may use here.
    work_dir : Path, optional
        For the temporary files of a cluster of our own.

    Raises
    ------
    UsageError
        Dask is not installed, no scheduler answers, or its workers have another version of us.
    """
    check_dask(address)
    from distributed import Client

    for name in ("distributed", "asyncio"):  # what there is to say of workers that go, we say in our words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as opened:
        where: Any = address
        if address == "local":
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="ibma-dask-", dir=work_dir))
            where = _start_cluster(nprocs, folder)
            opened.callback(_end_cluster, where)
        try:
            given = {"scheduler_file": address} if Path(address).is_file() else {"address": where}
            client = opened.enter_context(Client(**given, timeout=ANSWER, set_as_default=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"No Dask scheduler answers at {address} ({error or type(error).__name__}). Start one (dask "
                "scheduler), give its address or its scheduler file, or say --dask local."
            ) from None
        pool = DaskPool(client, address, memory)
        pool.meet()
        if pool.local and memory:
            pool._limits = (memory // nprocs,)
        yield pool


def check_dask(address: str) -> None:
    """Refuse what is no address, and any where Dask is not installed.

    Raises
    ------
    UsageError
    """
    if address != "local" and not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", address) and not Path(address).is_file():
        raise UsageError(
            f"--dask {address!r} is no address. Write tcp://host:8786, name a scheduler file that exists, or say "
            "local: worker processes on this machine."
        )
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--dask needs Dask, which is not installed: pip install distributed.")


def _start_cluster(nprocs: int, folder: str) -> Any:
    """Start a scheduler and workers, one thread each; ctrl-C is ours to handle."""
    from distributed import LocalCluster

    with _unheard_interrupts(), one_blas_thread():
        return LocalCluster(
            n_workers=nprocs,
            threads_per_worker=1,
            processes=True,
            host=HERE,
            dashboard_address=f"{HERE}:0",  # a server of metrics starts in any case: nobody else reaches it
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        )


def _end_cluster(cluster: Any) -> None:
    """End it; where a worker that died keeps it from ending, do it ourselves."""
    with contextlib.suppress(TimeoutError):
        cluster.close(timeout=GRACE)
    for process in multiprocessing.active_children():
        if process.name.startswith("Dask Worker"):
            process.kill()


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """Let processes that start meanwhile ignore ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _checked(version: str, function: Callable[..., Result], *given: Any) -> Result:
    """Do a job, in a worker that may have come after all others were asked for their version.

    Raises
    ------
    UsageError
        It would compute other numbers.
    """
    if version != __version__:
        raise UsageError(f"A Dask worker cannot work for us: it has ibma-app {__version__}, ours is {version}.")
    return function(*given)


def _describe_worker(dask_worker: Any) -> tuple[str, str | None, int]:
    """Tell, in a worker, its version of us, the threads of its BLAS, and the memory of each of its threads."""
    limit = dask_worker.memory_manager.memory_limit or 0
    return __version__, os.environ.get("OMP_NUM_THREADS"), limit // max(dask_worker.state.nthreads, 1)


def _complaint(words: Any) -> str:
    """Tell what is wrong with a worker; nothing when all is well."""
    if isinstance(words, ImportError):
        return "it has no ibma-app. Start the workers in the environment that this command runs in."
    if isinstance(words, BaseException):
        return f"{type(words).__name__}: {words}"
    return "" if words[0] == __version__ else f"it has ibma-app {words[0]}, this is {__version__}."
