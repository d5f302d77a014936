"""OUTPUT_DIR: files that stand in it whole or not at all, written by many jobs side by side."""

import contextlib
import errno
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.errors import IbmaError, OutputError, ReadWriteError
from ibma_app.core.folders import absolute_path

_TEMPORARY = ".ibma-tmp-"
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
        raise translate(error, final) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return final


def translate(error: OSError, path: Path) -> IbmaError:
    """Turn what the system says about writing a file into our words and code."""
    reason = error.strerror or str(error)
    if error.errno in _WHILE_WRITING:
        return ReadWriteError(f"{path} could not be written: {reason}. Make room and run again.")
    return OutputError(f"{path} cannot be written: {reason}.")
