"""Words on work that takes minutes: how much is done, and how long the rest may take."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

log = logging.getLogger(__name__)

EVERY = 60.0  # s


@contextmanager
def tell_progress(what: str, total: int | None, *, of: str = "") -> Iterator[Callable[[int], None]]:
    """Log a line each minute while work lasts: its share, the time it has taken, and what is left.

    Parameters
    ----------
    what : str
        ``Fitting reml``.
    total : int or None
        Units of work; None: not known before the end.
    of : str
        What is counted, where a count is worth a word: ``maps``.

    Yields
    ------
    callable
        Is called with the number of units that were done since the last call, from one thread.
    """
    done = 0
    began = time.monotonic()
    over = Event()

    def count(units: int = 1) -> None:
        nonlocal done
        done += units

    def tell() -> None:
        while not over.wait(EVERY):
            log.info("%s", describe_progress(what, done, total, time.monotonic() - began, of))

    teller = Thread(target=tell, daemon=True, name="progress")
    teller.start()
    try:
        yield count
    finally:
        over.set()
        teller.join()


def describe_progress(what: str, done: int, total: int | None, seconds: float, of: str = "") -> str:
    """Say how far work is after some seconds: that 40 % are done, and about 3 min are left."""
    after = f"after {_duration(seconds)}"
    if total is None:
        return f"{what}: {done:,} {of} {after}.".replace("  ", " ")
    counted = f" ({done:,} of {total:,} {of})" if of else ""
    share = f"{int(100 * done / total) if total else 100} %{counted} {after}"
    if not 0 < done < total:
        return f"{what}: {share}."
    return f"{what}: {share}, about {_duration(seconds * (total - done) / done)} left."


def _duration(seconds: float) -> str:
    """Write a duration as people do: ``40 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"
