"""Jobs in processes of this machine; when a process dies its job fails, not the run."""

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, util
from typing import Any

from ibma_app.core.errors import IbmaError, OutputError

Job = Any
Result = Any

log = logging.getLogger(__name__)

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
LONGEST_FOLDER = 60  # bytes: a socket's path has room for 107, of which multiprocessing's own names take some 40
GRACE = 5.0  # s for a process to end before it is killed


class Pool:
    """Runs jobs in worker processes, or in this process.

    Parameters
    ----------
    nprocs : int
        Number of worker processes; 1: jobs run in this process.
    preload : sequence of str
        Modules that are imported before worker processes are forked.
    initializer : callable, optional
        Called first in each worker process.
    """

    def __init__(self, nprocs: int, preload: Sequence[str] = (), initializer: Callable[[], None] | None = None) -> None:
        self.nprocs = max(1, nprocs)
        self._preload = tuple(preload)
        self._initializer = initializer
        self._executor: ProcessPoolExecutor | None = None

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result | Exception]]:
        """Call ``function`` with each job; yield the job and its result, or what it raised, as they finish.

        A job whose process dies (killed, out of memory) is run again in a
        process of its own; when that dies too, the job's result is an IbmaError.

        Parameters
        ----------
        function : callable
            At module level, so that worker processes can import it.
        jobs : iterable
            Each is passed to ``function``.
        """
        if self.nprocs == 1:
            for job in jobs:
                yield job, _here(function, job)
            return
        waiting: dict[Future[Result], Job] = {}
        coming = iter(jobs)
        more = True
        while more or waiting:
            while more and len(waiting) < self.nprocs:
                try:
                    job = next(coming)
                except StopIteration:
                    more = False
                    break
                waiting[self._submit(function, job)] = job
            if not waiting:
                return
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            outcomes = [(waiting.pop(future), _outcome(future)) for future in finished]
            suspects = [job for job, outcome in outcomes if isinstance(outcome, BrokenProcessPool)]
            yield from ((job, outcome) for job, outcome in outcomes if not isinstance(outcome, BrokenProcessPool))
            if suspects:
                yield from self._after_a_death(function, suspects, waiting)
                waiting = {}

    def close(self, *, at_once: bool = False) -> None:
        """End the worker processes; with ``at_once`` before their jobs are done."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        processes = list((executor._processes or {}).values())  # the executor has no public method that ends them
        results: Any = executor._result_queue
        executor.shutdown(wait=not at_once, cancel_futures=True)
        if at_once:
            for process in processes:
                process.terminate()
            for process in processes:  # so that nothing is written after this method returns
                process.join(GRACE)
                process.kill()
            # one that was ended while it sent a result leaves half of it, and its reader would wait for the rest
            results._writer.close()

    def _submit(self, function: Callable[[Job], Result], job: Job) -> Future[Result]:
        if self._executor is None:
            self._executor = self._start(self.nprocs)
        try:
            return self._executor.submit(function, job)
        except BrokenProcessPool as error:  # a process died between two jobs
            future: Future[Result] = Future()
            future.set_exception(error)
            return future

    def _start(self, nprocs: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self._preload))
        _place_sockets()
        with one_blas_thread():
            forkserver.ensure_running()  # workers inherit its environment
        return ProcessPoolExecutor(nprocs, mp_context=context, initializer=_begin, initargs=(self._initializer,))

    def _after_a_death(
        self, function: Callable[[Job], Result], suspects: list[Job], waiting: dict[Future[Result], Job]
    ) -> Iterator[tuple[Job, Result | Exception]]:
        """Run the jobs that were under way when a process died again, each in a process of its own."""
        for future, job in waiting.items():
            outcome = _outcome(future)
            if isinstance(outcome, BrokenProcessPool):
                suspects.append(job)
            else:
                yield job, outcome
        self.close(at_once=True)
        log.warning("A worker process died (killed, or out of memory); its jobs run again, one at a time.")
        for job in suspects:
            yield job, self._alone(function, job)

    def _alone(self, function: Callable[[Job], Result], job: Job) -> Result | Exception:
        """Run a job in a process of its own; a second time when that dies, as memory may be free by then."""
        for _ in range(2):
            with self._start(1) as executor:
                outcome = _outcome(executor.submit(function, job))
            if not isinstance(outcome, BrokenProcessPool):
                return outcome
        name = getattr(job, "label", job)
        return IbmaError(
            f"The process that worked on {name} died twice, perhaps out of memory. Run again with fewer --nprocs, or "
            "on a machine with more memory."
        )


@contextmanager
def open_pool(
    nprocs: int, preload: Sequence[str] = (), initializer: Callable[[], None] | None = None
) -> Iterator[Pool]:
    """Open a pool of worker processes, closed at exit (at once after an error or ctrl-C).

    Parameters
    ----------
    nprocs, preload, initializer
        As for `Pool`.
    """
    pool = Pool(nprocs, preload, initializer)
    try:
        yield pool
    except BaseException:
        pool.close(at_once=True)
        raise
    pool.close()


def _place_sockets() -> None:
    """Let multiprocessing's sockets lie where their paths are short enough; a TMPDIR may have a long name.

    Raises
    ------
    OutputError
        There is no such folder.
    """
    named = tempfile.gettempdir()
    if len(os.fsencode(named)) <= LONGEST_FOLDER:
        return
    short = next((folder for folder in ("/tmp", "/var/tmp") if os.access(folder, os.W_OK | os.X_OK)), None)
    if short is None:
        raise OutputError(
            f"The name of the folder for temporary files is too long for worker processes ({named}), and /tmp cannot "
            "be written. Set TMPDIR to a folder with a shorter name, or give --nprocs 1."
        )
    tempfile.tempdir = short
    try:
        util.get_temp_dir()  # made now, and kept for all sockets of this process
    finally:
        tempfile.tempdir = named


def _here(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    try:
        return function(job)
    except Exception as error:  # noqa: BLE001  returned to the caller, who reports it
        return error


def _outcome(future: Future[Result]) -> Result | Exception:
    """Wait for a job's result, or the exception it raised."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  returned to the caller, who reports it
        return error


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Set BLAS to one thread in processes that start within this context."""
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(initializer: Callable[[], None] | None) -> None:
    """Start a worker process: ctrl-C is handled by the parent, and the worker ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
