"""OUTPUT_DIR's lock, under which many jobs change one file.

The lock is a file made by exclusive creation, as cluster file systems lack
flock. Holding it takes milliseconds, so one that stays is a dead job's.
"""

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.errors import OutputError
from ibma_app.dataset.output_dir import is_over, name_process, translate

log = logging.getLogger(__name__)

_NAME = ".ibma-lock"
_DEAD_AFTER = 600.0  # s: an older lock is a dead job's
_DEAD_AFTER_EMPTY = 30.0  # s: one without content was made by a job that died at once
_FUTURE = 60.0  # s: clocks differ by less; a lock from further ahead says nothing of its age
_WATCHED = 10.0  # s: after which such a lock, if nobody renewed it, is a dead job's
_SAY_AFTER = 5.0  # s of waiting


@dataclass(frozen=True)
class _Waiting:
    """Since when (monotonic, s) one lock has been seen, by its content."""

    content: bytes
    since: float


@contextlib.contextmanager
def lock_shared(root: Path, timeout: float = 120.0) -> Iterator[None]:
    """Hold OUTPUT_DIR's lock while a shared file is read, changed and written.

    A lock is taken away when its process (of this host) has ended, when it is
    10 minutes old by the file system's clock, or when its time lies in the
    future and it stays for 10 s. After 5 s of waiting, a warning says what
    for.

    Raises
    ------
    OutputError
        When the lock cannot be made, or stays taken for ``timeout`` seconds.
    """
    lock = root / _NAME
    token = f"{name_process(os.getpid())}-{uuid.uuid4().hex}"
    began = time.monotonic()
    seen: _Waiting | None = None
    warned, pause = False, 0.02
    while not _take(lock, token):
        seen = _look(lock, seen)
        if seen is not None:
            _remove_dead(lock, seen)
        waited = time.monotonic() - began
        if waited > timeout:
            raise OutputError(
                f"{lock}: held by another job ({_holder(lock)}) for {timeout:.0f} s. If none is running, delete this "
                "file and run again."
            )
        if waited > _SAY_AFTER and not warned:
            log.warning(
                "Waiting for the lock of another job (%s): %s. If none is running, delete this file; this one then "
                "goes on.", _holder(lock), lock,
            )  # fmt: skip
            warned = True
        time.sleep(pause)
        pause = min(1.5 * pause, 0.25)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if lock.read_bytes() == token.encode():
                lock.unlink()


def _take(lock: Path, token: str) -> bool:
    """Make the lock file, unless it is there."""
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise translate(error, lock) from error
    try:
        os.write(descriptor, token.encode())
    except OSError as error:  # a full disk: leave no lock without an owner
        lock.unlink(missing_ok=True)
        raise translate(error, lock) from error
    finally:
        os.close(descriptor)
    return True


def _holder(lock: Path) -> str:
    """Name the process that holds a lock: host and number."""
    try:
        host, pid, *_ = lock.read_text(encoding="utf-8", errors="replace").split("-")
    except (OSError, ValueError):
        return "unknown"
    return f"process {pid} on {host.rpartition('.')[0] or host}"


def _look(lock: Path, seen: _Waiting | None) -> _Waiting | None:
    """Note whether it is still the same lock that was seen before; None when it is gone."""
    try:
        content = lock.read_bytes()
    except OSError:
        return None
    return seen if seen is not None and seen.content == content else _Waiting(content, time.monotonic())


def _remove_dead(lock: Path, seen: _Waiting) -> None:
    """Take a dead job's lock away; it is moved first, so that no other's new lock is deleted."""
    try:
        if not _is_dead(lock, seen):
            return
        aside = lock.with_name(f"{_NAME}-{uuid.uuid4().hex}")
        lock.rename(aside)
        if aside.read_bytes() != seen.content:
            aside.rename(lock)  # another job had renewed it in between
        else:
            aside.unlink()
    except OSError:
        return


def _is_dead(lock: Path, seen: _Waiting) -> bool:
    """Tell whether the lock's job is over, by its process or by the lock's age."""
    if is_over(seen.content.decode("utf-8", errors="replace")):
        return True
    made = lock.stat().st_mtime
    if abs(time.time() - made) < _DEAD_AFTER_EMPTY:  # no need to ask the file system
        return False
    age = _file_system_time(lock) - made
    if age < -_FUTURE:
        return time.monotonic() - seen.since > _WATCHED
    return age >= (_DEAD_AFTER if seen.content else _DEAD_AFTER_EMPTY)


def _file_system_time(lock: Path) -> float:
    """Return the time by the clock that stamped the lock, which need not be this host's."""
    probe = lock.with_name(f"{_NAME}-{uuid.uuid4().hex}")
    try:
        with probe.open("xb"):
            return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)
