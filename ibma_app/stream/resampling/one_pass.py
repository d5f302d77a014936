"""One pass over all relabellings of a test, in threads or by workers, with checkpoints."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ibma_app.stream.workers.jobs import do_jobs
from ibma_app.stream.workers.resources import Resources, Workers

Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

SHARE = 0.5  # of a process's memory that the data of a pass may take


class Resampler(Protocol):
    """Computes the scores of relabellings; it can be pickled, for another process."""

    names: tuple[str, ...]  # of the S scores

    @property
    def size(self) -> int:
        """Number of relabellings in a job; the same whoever does it, so that the bytes are the same."""

    @property
    def nbytes(self) -> int:
        """Bytes that another process would be sent."""

    def side_by_side(self, threads: int) -> int:
        """Return how many jobs are done at once in so many threads."""

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored: with them a pass is recognised by a later run."""

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: return each score's map (V,), and the largest of each (S,)."""

    def score(self, job: range) -> Floats:
        """Return the largest of each score in some relabellings, (S, M)."""


def score_all(
    resampler: Resampler,
    maxima: Floats,
    resources: Resources,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Floats]:
    """Score every relabelling whose scores are missing.

    Parameters
    ----------
    resampler : Resampler
    maxima : ndarray, shape (S, D)
        The largest of each score in each relabelling, the identity first; NaN: missing. Filled in.
    resources : Resources
        Its checkpoints save ``maxima`` from time to time, and at the end, after a failure too.
    on_progress : callable, optional
        Called with the number of relabellings that have been done since the last call.

    Returns
    -------
    dict of str to ndarray (V,)
        Scores of the maps as they are.
    """
    drawn, size = maxima.shape[1], resampler.size
    jobs = [range(start, min(start + size, drawn)) for start in range(1, drawn, size)]
    missing = [job for job in jobs if np.isnan(maxima[:, job.start : job.stop]).any()]
    observed, maxima[:, 0] = resampler.identity(resources.threads)
    report = on_progress or (lambda count: None)
    report(drawn - sum(map(len, missing)))
    checkpoints, resources = resources.checkpoints, _for_jobs(resampler, resources)

    def done(job: range, found: Floats) -> None:
        maxima[:, job.start : job.stop] = found
        report(len(job))
        if checkpoints is not None:
            checkpoints.save()

    try:
        do_jobs(_score, resampler, missing, done, resources)
    finally:
        if checkpoints is not None:
            checkpoints.save(ending=True)
    return observed


def _score(resampler: Resampler, job: range) -> Floats:
    return resampler.score(job)


def _for_jobs(resampler: Resampler, resources: Resources) -> Resources:
    """Return the threads that jobs are done in, and workers only where these can hold the data."""
    workers = resources.workers
    if workers is not None and not _holds(workers, resampler.nbytes):
        workers = None
    return replace(resources, threads=resampler.side_by_side(resources.threads), workers=workers)


def _holds(workers: Workers, nbytes: int) -> bool:
    """Return whether workers can hold the data and this process can send them; log which."""
    theirs, ours, gib = workers.smallest_memory, workers.memory, 1024.0**3
    if ours is not None and nbytes > SHARE * ours:
        log.warning(
            "To be resampled by workers, the maps (%.2f GiB) have to be in memory here, of which %.2f GiB may be "
            "used: it is done here, by threads. Give more with --mem to have it done there.", nbytes / gib, ours / gib,
        )  # fmt: skip
        return False
    if theirs is not None and nbytes > SHARE * theirs:
        log.warning(
            "Resampling needs the maps (%.2f GiB) in each worker, and the smallest worker has %.2f GiB: it is done "
            "here, by threads. Give the workers more memory to have it done there.", nbytes / gib, theirs / gib,
        )  # fmt: skip
        return False
    log.info("Each worker is sent the maps once: %.1f MiB.", 1024.0 * nbytes / gib)
    return True
