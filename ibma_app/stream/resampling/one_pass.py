"""One pass over all relabellings of a test, by threads or workers, kept in checkpoints as it goes."""

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

SHARE = 0.5  # of a worker's memory, which what it is sent may take


class Resampler(Protocol):
    """A way to the scores of relabellings; it can be sent to another process."""

    names: tuple[str, ...]  # of the S scores

    @property
    def size(self) -> int:
        """How many relabellings a job has; never depends on who does it (same bytes whoever it is)."""

    @property
    def nbytes(self) -> int:
        """What another process would be sent."""

    def side_by_side(self, threads: int) -> int:
        """Tell how many jobs may be done at once in threads."""

    def data(self) -> Iterator[NDArray[Any]]:
        """Yield the data that are scored."""

    def identity(self, threads: int) -> tuple[dict[str, Floats], Floats]:
        """Score the maps as they are: each score's map (V,), and the largest (S,)."""

    def score(self, job: range) -> Floats:
        """Return the largest scores of some relabellings, (S, M)."""


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
        The largest scores of each relabelling, the identity first; NaN: missing. Filled in.
    resources : Resources
        Its checkpoints save ``maxima`` when that is due, and at the end, a failure included.
    on_progress : callable, optional
        Called with how many relabellings were done.

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
    """Take as many threads as there may be jobs at once, and workers only where they can hold the data."""
    workers = resources.workers
    if workers is not None and not _holds(workers, resampler.nbytes):
        workers = None
    return replace(resources, threads=resampler.side_by_side(resources.threads), workers=workers)


def _holds(workers: Workers, nbytes: int) -> bool:
    """Tell, and say, whether workers can hold what they would be sent, and we can send it."""
    limit, ours, gib = workers.smallest_memory, workers.memory, 1024.0**3
    if ours is not None and nbytes > SHARE * ours:
        log.warning(
            "To be resampled by workers, the maps (%.2f GiB) have to be in memory here, of which %.2f GiB may be "
            "used: it is done here, by threads. Give more with --mem to have it done there.", nbytes / gib, ours / gib,
        )  # fmt: skip
        return False
    if limit is not None and nbytes > SHARE * limit:
        log.warning(
            "Resampling needs the maps (%.2f GiB) in each worker, and the smallest worker has %.2f GiB: it is done "
            "here, by threads. Give the workers more memory to have it done there.", nbytes / gib, limit / gib,
        )  # fmt: skip
        return False
    log.info("Each worker is sent the maps once: %.1f MiB.", 1024.0 * nbytes / gib)
    return True
