"""What is told to users: errors, each with an exit code of the BIDS execution specification, and notes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NAMED = 5  # labels named in a note; the others are counted


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


@dataclass(frozen=True)
class Note:
    """A warning or note, and what it concerns."""

    text: str  # the same for all that it concerns
    about: Mapping[str, str] = field(default_factory=dict)  # label of a map -> what is its own: a number, a file, or ""
    noun: str = "map"  # what the labels are of

    @property
    def words(self) -> str:
        """The note as the user reads it; without labels it concerns the whole."""
        if not self.about:
            return self.text
        details = set(self.about.values())
        shared = f" ({next(iter(details))})" if len(details) == 1 and "" not in details else ""
        if len(self.about) == 1:
            return f"{next(iter(self.about))}{shared}: {self.text}"
        named = [
            f"{label} ({detail})" if detail and not shared else label
            for label, detail in list(self.about.items())[:NAMED]
        ]
        more = f" and {len(self.about) - NAMED} more" if len(self.about) > NAMED else ""
        return f"{len(self.about)} {self.noun}s{shared}: {self.text} ({', '.join(named)}{more})"


def merge_notes(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Make one note of those of one text, in the order of the first of each."""
    merged: dict[tuple[str, str], dict[str, str]] = {}
    for note in notes:
        concerned = merged.setdefault((note.text, note.noun), {})
        for label, detail in note.about.items():
            concerned.setdefault(label, detail)
    return tuple(Note(text, concerned, noun) for (text, noun), concerned in merged.items())


def tell(notes: Iterable[Note]) -> tuple[str, ...]:
    """Put notes into words, one text for those of one kind."""
    return tuple(dict.fromkeys(note.words for note in merge_notes(notes)))
