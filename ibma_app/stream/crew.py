"""Jobs in threads of this process: kernels release the GIL, and results are taken as they come."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Job], Result], jobs: Iterable[Job], threads: int, done: Callable[[Job, Result], None] | None = None
) -> None:
    """Do jobs, a few waiting at a time, so that a failure or ctrl-C ends soon; no thread outlives it.

    Parameters
    ----------
    work : callable
        Called with one job.
    jobs : iterable
    threads : int
        1: in this thread, in order.
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
