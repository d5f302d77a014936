"""OUTPUT_DIR: files that stand in it whole or not at all, written by many jobs side by side."""

import contextlib
import errno
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.errors import IbmaError, OutputError, ReadWriteError
from ibma_app.core.system.folders import absolute_path

log = logging.getLogger(__name__)

_TEMPORARY = ".ibma-tmp-"
_LOCK = ".ibma-lock"
_DEAD_AFTER = 60.0  # s: a lock is held for milliseconds; an older one is a dead job's
_DEAD_AFTER_EMPTY = 30.0  # s: one without content was made by a job that died at once
_FUTURE = 60.0  # s: clocks differ by less; a lock from further ahead says nothing of its age
_WATCHED = 10.0  # s: after which such a lock, if nobody renewed it, is a dead job's
_SAY_AFTER = 1.0  # s of waiting
_WHILE_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ESTALE})


@dataclass(frozen=True)
class Output:
    """OUTPUT_DIR, and our folder of unfinished files in it (see `open_output`)."""

    root: Path
    temporary: Path


@contextlib.contextmanager
def open_output(root: Path) -> Iterator[Output]:
    """Make OUTPUT_DIR ready (see `prepare_output`), and remove our temporary folder at the end."""
    output = prepare_output(root)
    try:
        yield output
    finally:
        shutil.rmtree(output.temporary, ignore_errors=True)


def prepare_output(root: Path) -> Output:
    """Make OUTPUT_DIR, make sure that it can be written, and clear away what dead jobs left.

    Raises
    ------
    OutputError
        When it cannot be made or written, whatever the system calls it.
    """
    root = absolute_path(root)
    temporary = root / f"{_TEMPORARY}{name_process(os.getpid())}-{uuid.uuid4().hex[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        probe = temporary / "probe"
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"OUTPUT_DIR {root} cannot be made or written: {error.strerror or error}. Name a folder where "
            "you may write, or ask for the permission (in a container: bind it writable)."
        ) from error
    for other in root.glob(f"{_TEMPORARY}*"):
        if is_over(other.name.removeprefix(_TEMPORARY)):
            shutil.rmtree(other, ignore_errors=True)
    return Output(root, temporary)


def name_process(pid: int) -> str:
    """Name a process so that other hosts and containers, and later processes of its number, are not mistaken for it."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    host = "".join(letter if letter.isalnum() else "." for letter in socket.gethostname())
    return f"{host}.{namespace:x}-{pid}-s{_start_of(pid)}"


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks since boot; "" where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def is_over(name: str) -> bool:
    """Tell whether a process of this host, named as by `name_process`, has ended."""
    host, pid, start = [*name.split("-"), "", ""][:3]
    if not (pid.isascii() and pid.isdigit()) or len(pid) > 9:
        return False
    now = name_process(int(pid)).split("-")
    if host != now[0]:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return start[:1] == "s" and "s" not in (start, now[2]) and start != now[2]  # another process got its number


@dataclass(frozen=True)
class _Waiting:
    """Since when (monotonic, s) one lock has been seen, by its content."""

    content: bytes
    since: float


@contextlib.contextmanager
def lock_shared(root: Path, timeout: float = 120.0) -> Iterator[None]:
    """Hold OUTPUT_DIR's lock while a shared file is read, changed and written.

    The lock is a file made by exclusive creation, as cluster file systems
    lack flock. Holding it takes milliseconds, so one that stays is a dead
    job's. It is taken away when its process (of this host) has ended, when it is
    a minute old by the file system's clock, or when its time lies in the
    future and it stays for 10 s. After a second of waiting, a warning says what
    for.

    Raises
    ------
    OutputError
        When the lock cannot be made, or stays taken for ``timeout`` seconds.
    """
    lock = root / _LOCK
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
                "Waiting for the lock of another job (%s, %.0f s old): %s. If that job is not running any more, delete "
                "this file, and this one goes on at once; else when the lock is free or %.0f s old.",
                _holder(lock), _age(lock), lock, _DEAD_AFTER,
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
        raise _translate(error, lock) from error
    try:
        os.write(descriptor, token.encode())
    except OSError as error:  # a full disk: leave no lock without an owner
        lock.unlink(missing_ok=True)
        raise _translate(error, lock) from error
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


def _age(lock: Path) -> float:
    """Return how long ago a lock was made, s, by the clock of its file system; 0 where it is gone."""
    try:
        return max(_file_system_time(lock) - lock.stat().st_mtime, 0.0)
    except OSError:
        return 0.0


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
        aside = lock.with_name(f"{_LOCK}-{uuid.uuid4().hex}")
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
    probe = lock.with_name(f"{_LOCK}-{uuid.uuid4().hex}")
    try:
        with probe.open("xb"):
            return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def replace_file(output: Output, below: str | Path, write: Callable[[Path], None]) -> Path:
    """Write a file aside, then put it in its place in one step.

    Parameters
    ----------
    output : Output
    below : str or Path
        Where, below OUTPUT_DIR; folders are made.
    write : callable
        Writes the file at the path that it is given.

    Returns
    -------
    Path
        The finished file.

    Raises
    ------
    ReadWriteError
        When the disk is full or fails.
    OutputError
        When the system refuses for another reason.
    """
    final = output.root / below
    aside = output.temporary / f"{os.getpid()}-{uuid.uuid4().hex}-{final.name}"
    if len(aside.name) > 200:
        aside = aside.with_name(f"{os.getpid()}-{uuid.uuid4().hex}{''.join(final.suffixes[-2:])}")
    try:
        aside.parent.mkdir(exist_ok=True)
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(final)
    except OSError as error:
        raise _translate(error, final) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return final


def _translate(error: OSError, path: Path) -> IbmaError:
    """Turn what the system says about writing a file into our words and code."""
    reason = error.strerror or str(error)
    if error.errno in _WHILE_WRITING:
        return ReadWriteError(f"{path} could not be written: {reason}. Make room and run again.")
    return OutputError(f"{path} cannot be written: {reason}.")
