"""Jobs in threads of this process (kernels release the GIL), or by workers elsewhere; results as they come."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, TypeVar

from ibma_app.stream.workers.resources import ONE_THREAD, Resources

Job = TypeVar("Job")
Result = TypeVar("Result")
Shared = TypeVar("Shared")


def do_jobs(
    function: Callable[[Shared, Any], Result],
    shared: Shared,
    jobs: Iterable[Job],
    done: Callable[[Job, Result], None],
    resources: Resources = ONE_THREAD,
    *,
    read: Callable[[Job], Any] | None = None,
    nbytes: int = 0,
) -> None:
    """Call ``function(shared, job)`` with each job, here or by workers; the first failure ends it.

    Parameters
    ----------
    function : callable
        At module level, as workers import it.
    shared : object
        Sent once to each worker.
    jobs : iterable
    done : callable
        Called in this thread with a job and its result, in the order in which they finish.
    resources : Resources
        Its workers do the jobs, or, when it has none, its threads.
    read : callable, optional
        Turns a job into what ``function`` is given in its place: in the
        threads that work here, and here before it is sent to a worker.
    nbytes : int
        What it then takes, at most.
    """
    if resources.workers is None:
        in_threads(lambda job: function(shared, read(job) if read else job), jobs, resources.threads, done)
        return
    with closing(resources.workers.run(function, jobs, shared=shared, read=read, nbytes=nbytes)) as finished:
        for job, outcome in finished:
            if isinstance(outcome, Exception):
                raise outcome
            done(job, outcome)


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


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], threads: int) -> Iterator[Result]:
    """Do jobs in threads, one more than these ahead, and yield their results in the jobs' order.

    Parameters
    ----------
    work : callable
        Called with one job.
    jobs : iterable
    threads : int
        1: in this thread, each when it is asked for.
    """
    if threads <= 1:
        yield from map(work, jobs)
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in jobs:
                ahead.append(pool.submit(work, job))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
