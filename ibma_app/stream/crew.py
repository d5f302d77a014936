"""Jobs in threads of this process: kernels release the GIL, results come as they finish."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> Iterator[tuple[Job, Result]]:
    """Do jobs a few at a time, so that a failure or ctrl-C ends soon; no thread outlives it.

    Parameters
    ----------
    work : callable
        Called with one job.
    jobs : iterable
    threads : int
        1: in this thread, in order.

    Yields
    ------
    (job, result)
        In the order in which they finish.
    """
    if threads <= 1:
        for job in jobs:
            yield job, work(job)
        return
    waiting: dict[Future[Result], Job] = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in jobs:
                waiting[pool.submit(work, job)] = job
                if len(waiting) >= 2 * threads:
                    yield from _finished(waiting)
            while waiting:
                yield from _finished(waiting)
        finally:
            for future in waiting:
                future.cancel()


def _finished(waiting: dict[Future[Result], Job]) -> Iterator[tuple[Job, Result]]:
    """Wait for the next to finish, and give what has."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), future.result()
