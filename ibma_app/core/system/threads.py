"""Jobs in threads of this process: compiled kernels, compression and reading of files release the GIL.

It is here because reading, fitting and writing all need it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Job], Result], jobs: Iterable[Job], threads: int, done: Callable[[Job, Result], None] | None = None
) -> None:
    """Do jobs in threads, few of them queued, so that an error or ctrl-C ends it soon; no thread outlives the call.

    Parameters
    ----------
    work : callable
        Called with one job.
    jobs : iterable
    threads : int
        1: the jobs are done in this thread, in order.
    done : callable, optional
        Called in this thread with a job and its result, in the order in which they finish.
    """
    take = done or (lambda job, result: None)
    if threads <= 1:
        for job in jobs:
            take(job, work(job))
        return
    waiting: dict[Future[Result], Job] = {}

    def take_finished() -> None:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            take(waiting.pop(future), future.result())

    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in jobs:
                waiting[pool.submit(work, job)] = job
                if len(waiting) >= 2 * threads:
                    take_finished()
            while waiting:
                take_finished()
        finally:
            for future in waiting:
                future.cancel()


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> Iterator[Result]:
    """Do jobs in threads and yield the results in the order of the jobs; at most ``threads`` + 1 jobs are ahead.

    Parameters
    ----------
    work : callable
        Called with one job.
    jobs : iterable
    threads : int
        1: the jobs are done in this thread, each when its result is asked for.
    """
    if threads <= 1:
        yield from map(work, jobs)
        return
    with open_queue(threads, threads) as queue:
        for job in jobs:
            yield from queue.put(work, job)
        yield from queue.finish()


class WorkQueue(Generic[Result]):
    """Calls made in threads, with a limit to how many are queued; results in the order of the calls.

    Parameters
    ----------
    pool : Executor
    most : int
        How many calls may be queued: their arguments stay in memory.
    """

    def __init__(self, pool: Executor, most: int) -> None:
        self._pool, self._most = pool, most
        self._waiting: deque[Future[Result]] = deque()

    def put(self, work: Callable[..., Result], *arguments: Any) -> list[Result]:
        """Queue a call; where too many are queued, wait for the oldest and return its result (or raise its error)."""
        self._waiting.append(self._pool.submit(work, *arguments))
        return [self._waiting.popleft().result()] if len(self._waiting) > self._most else []

    def finish(self) -> Iterator[Result]:
        """Yield the results of all queued calls."""
        while self._waiting:
            yield self._waiting.popleft().result()


@contextmanager
def open_queue(threads: int, most: int) -> Iterator[WorkQueue[Any]]:
    """Open a queue of calls for some threads; calls that have not begun when the context ends are dropped."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield WorkQueue(pool, most)
    finally:
        pool.shutdown(cancel_futures=True)
