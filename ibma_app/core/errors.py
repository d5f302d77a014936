"""The errors that are reported to users, each with an exit code of the BIDS execution specification."""

from collections.abc import Iterable


class IbmaError(Exception):
    """An error with a message for the user: what is wrong, in which file, and what to do.

    Parameters
    ----------
    message : str
        One or a few complete sentences in plain words.
    """

    code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type["IbmaError"], tuple[str]]:
        """Make it from its message when it comes from a worker process."""
        return type(self), (self.message,)


class DatasetError(IbmaError):
    """The dataset's structure: description, names, duplicate keys, spaces or grids that do not fit."""

    code = 16


class NothingSelectedError(IbmaError):
    """The filters select nothing."""

    code = 18


class UsageError(IbmaError):
    """The command line or configuration asks for something that does not exist."""

    code = 64


class DataError(IbmaError):
    """Values or metadata: units, missing variance, covariates, rank."""

    code = 65


class InputError(IbmaError):
    """An input that was named is missing or cannot be opened."""

    code = 66


class OutputError(IbmaError):
    """OUTPUT_DIR or the work folder cannot be made or written."""

    code = 73


class ReadWriteError(IbmaError):
    """An I/O error while running: a truncated file, a full disk."""

    code = 74


def in_words(error: Exception, remedy: str) -> IbmaError:
    """Turn any other exception into an error for the user: one of the system, or an internal one.

    Parameters
    ----------
    error : Exception
    remedy : str
        What to do when memory is too small; may be "".
    """
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return ReadWriteError(f"{error.strerror or error}{where}. Run again with -vv for details.")
    if isinstance(error, MemoryError):
        return ReadWriteError(f"out of memory. {remedy}".rstrip())
    kind = type(error).__name__
    return IbmaError(f"internal error ({kind}: {error}). Run again with -vv and report what it prints.")


def did_you_mean(wrong: Iterable[str], menu: Iterable[str]) -> str:
    """Return a sentence that proposes the closest valid name; "" where none is close."""
    from difflib import get_close_matches

    known = list(menu)
    close = [match for word in wrong for match in get_close_matches(word, known, n=1)]
    return f" Did you mean {close[0]}?" if close else ""
