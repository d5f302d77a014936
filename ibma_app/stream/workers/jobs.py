"""Jobs in threads of this process, or by workers in other processes; results in the order in which they finish."""

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, TypeVar

from ibma_app.core.system.threads import in_threads
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
    """Call ``function(shared, job)`` with each job, in threads or by workers; the first error ends it.

    Parameters
    ----------
    function : callable
        At module level, so that workers can import it.
    shared : object
        Sent once to each worker.
    jobs : iterable
    done : callable
        Called in this thread with a job and its result, in the order in which they finish.
    resources : Resources
        Its workers do the jobs, or its threads when it has no workers.
    read : callable, optional
        Called with a job; ``function`` is given its result instead of the job.
        It is called in this process: by the threads, or before a job is sent.
    nbytes : int
        Largest size of that result in bytes.
    """
    if resources.workers is None:
        in_threads(lambda job: function(shared, read(job) if read else job), jobs, resources.threads, done)
        return
    with closing(resources.workers.run(function, jobs, shared=shared, read=read, nbytes=nbytes)) as finished:
        for job, outcome in finished:
            if isinstance(outcome, Exception):
                raise outcome
            done(job, outcome)
