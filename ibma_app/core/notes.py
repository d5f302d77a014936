"""Warnings and notes, of which those of one kind are one text with a count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NAMED = 5  # named in a text; the others are counted


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
