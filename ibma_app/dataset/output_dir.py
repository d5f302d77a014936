"""OUTPUT_DIR: files that stand in it whole or not at all, written by many jobs side by side."""

import contextlib
import errno
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.errors import IbmaError, OutputError, ReadWriteError

_TEMPORARY = ".ibma-tmp-"
_LOCK = ".ibma-lock"
_LOCK_AGE = 600.0  # s: an older lock is a dead job's; holding one takes milliseconds
_EMPTY_LOCK_AGE = 30.0  # s: one without content was made by a job that died at once
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
    root = Path(os.path.abspath(root))  # noqa: PTH100  keeps the names of links
    temporary = root / f"{_TEMPORARY}{_name_process(os.getpid())}-{uuid.uuid4().hex[:8]}"
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
        if _is_dead(other.name.removeprefix(_TEMPORARY)):
            shutil.rmtree(other, ignore_errors=True)
    return Output(root, temporary)


def _name_process(pid: int) -> str:
    """Name a process so that other hosts and containers do not mistake it for theirs."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    host = "".join(letter if letter.isalnum() else "." for letter in socket.gethostname())
    return f"{host}.{namespace:x}-{pid}"


def _is_dead(name: str) -> bool:
    """Tell whether a process of this host, named as by `_name_process`, is over."""
    host, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    if not pid.isdigit() or _name_process(int(pid)).partition("-")[0] != host:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextlib.contextmanager
def lock_shared(root: Path, timeout: float = 120.0) -> Iterator[None]:
    """Hold OUTPUT_DIR's lock while a shared file is read, changed and written.

    The lock is a file made by exclusive creation, as cluster file systems
    lack flock. A dead job's lock (this host's), or one of 10 minutes, is
    taken away.

    Raises
    ------
    OutputError
        When the lock cannot be made, or stays taken for ``timeout`` seconds.
    """
    lock = root / _LOCK
    token = f"{_name_process(os.getpid())}-{uuid.uuid4().hex}"
    deadline = time.monotonic() + timeout
    while not _take(lock, token):
        _remove_stale(lock)
        if time.monotonic() > deadline:
            raise OutputError(f"{lock}: held by another job for {timeout:.0f} s. If none is running, delete this file.")
        time.sleep(0.02)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if lock.read_text() == token:
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


def _remove_stale(lock: Path) -> None:
    """Take a dead job's lock away; it is moved first, so that no other's new lock is deleted."""
    try:
        token = lock.read_text()
        age = time.time() - lock.stat().st_mtime
        if age < (_LOCK_AGE if token else _EMPTY_LOCK_AGE) and not _is_dead(token):
            return
        aside = lock.with_name(f"{_LOCK}-{uuid.uuid4().hex}")
        lock.rename(aside)
        if aside.read_text() != token:
            aside.rename(lock)  # another job had renewed it in between
        else:
            aside.unlink()
    except OSError:
        return


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
    """Turn what the system says into our words and code."""
    reason = error.strerror or str(error)
    if error.errno in _WHILE_WRITING:
        return ReadWriteError(f"{path} could not be written: {reason}. Make room and run again.")
    return OutputError(f"{path} cannot be written: {reason}.")
