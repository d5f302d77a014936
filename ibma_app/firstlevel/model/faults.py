"""What is wrong with a model: each fault with its path in the JSON, told together."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ibma_app.core.errors import DataError, did_you_mean

SHOWN, LONGEST = 10, 800  # faults in one message, characters of one


@dataclass
class Faults:
    """Collects faults of one file."""

    file: Path | str
    found: dict[str, str] = field(default_factory=dict)  # path -> what is wrong; the first of each path
    of_contrasts: dict[str, str] = field(default_factory=dict)  # the same, of contrasts that are wrong in themselves

    def add(self, path: str, text: str) -> None:
        """Add one; a path is told once."""
        self.found.setdefault(path, text)

    def add_contrast(self, path: str, text: str) -> None:
        """Add a fault of one contrast, beside which all else has its meaning: a plan can be shown."""
        self.of_contrasts.setdefault(path, text)

    def raise_any(self) -> None:
        """Raise them together.

        Raises
        ------
        DataError
            There are some.
        """
        if self.found:
            raise as_error(self.file, {**self.found, **self.of_contrasts})


def as_error(file: Path | str, faults: Mapping[str, str]) -> DataError:
    """Make one error of the faults of a model."""
    lines = [_cut(f"{path}: {text}") for path, text in list(faults.items())[:SHOWN]]
    if len(lines) == 1:
        return DataError(f"{file}: {lines[0]}")
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return DataError(f"{file}: the model has {len(faults)} faults:\n  " + "\n  ".join(lines) + more)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def choose_from(menu: Iterable[str], wrong: Collection[str] = ()) -> str:
    """Write a menu for a message, with the closest to what was written first."""
    known: Sequence[str] = list(menu)
    lower = {name.casefold(): name for name in known}
    exact = [lower[name.casefold()] for name in wrong if name.casefold() in lower and name not in known]
    hint = f" Did you mean {exact[0]}?" if exact else did_you_mean(wrong, known)
    return f"{hint} Choose from: {', '.join(known) or 'nothing'}."
