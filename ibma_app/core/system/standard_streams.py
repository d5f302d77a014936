"""Standard input, output and error: they may be closed, full, or without a reader."""

import contextlib
import io
import os
import sys
from typing import TextIO

from ibma_app.core.errors import ReadWriteError


def open_closed_streams() -> None:
    """Open the null device in place of standard streams that were closed (``>&-``).

    The next file that is opened would get their numbers, and what libraries
    print would go into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters that its encoding lacks are printed as escapes
        sys.stdout.reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """Write a text to standard output; that nobody reads it (any more) is no error.

    Raises
    ------
    ReadWriteError
        It cannot be written, say on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        raise ReadWriteError(f"Standard output cannot be written: {error.strerror or error}.") from error


def write_error(text: str) -> None:
    """Write a text to standard error, if that is possible."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def flush_streams() -> None:
    """Write what waits in standard output and error, before Python does so with an exit code of its own.

    Raises
    ------
    ReadWriteError
        As `write_out`.
    """
    write_error("")
    write_out("")


def silence(stream: TextIO) -> None:
    """Let a stream lead nowhere, with all that waits in it."""
    with contextlib.suppress(OSError, ValueError):
        _to_null(stream.fileno())


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, number)  # programs that are started have it, too
    if null != number:
        os.close(null)
    else:
        os.set_inheritable(number, True)
