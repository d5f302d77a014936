"""``about.toml``: what only the authors know of a result, written with blanks and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibma_app.core.errors import InputError, UsageError, did_you_mean
from ibma_app.core.from_files import read_toml

FILE = "about.toml"
TEXTS = {
    "title": "of the collection, as of the paper",
    "description": "a few sentences: the question, who took part, the task",
    "doi": "of the paper, e.g. 10.1016/j.neuroimage.2024.120000",
    "licence": "of the maps, e.g. CC0 or CC-BY-4.0",
    "task": "in words, e.g. emotion regulation task",
    "cognitive_atlas_task": "its id in the Cognitive Atlas, e.g. trm_4f244f46ebf58",
    "scanner": "mri, pet, eeg or meg",
}


@dataclass(frozen=True)
class About:
    """What the authors say of a collection."""

    title: str = ""
    description: str = ""
    doi: str = ""
    licence: str = ""
    task: str = ""
    cognitive_atlas_task: str = ""
    scanner: str = "mri"
    authors: tuple[str, ...] = ()
    contrasts: Mapping[str, str] = field(default_factory=dict)  # name of a published test -> its contrast in words


def read_about(path: Path | None) -> About:
    """Read the authors' file; nothing is known where there is none.

    Raises
    ------
    InputError
        It cannot be read.
    UsageError
        It is not valid TOML, or has keys that mean nothing.
    """
    if path is None:
        return About()
    try:
        content = read_toml(path)
    except OSError as error:
        raise InputError(f"--about {path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UsageError(f"--about {path} is not valid TOML: {error}.") from None
    return About(**{key: _value(key, value, path) for key, value in content.items()})


def _value(key: str, value: Any, path: Path) -> Any:
    """Check one entry."""
    known = (*TEXTS, "authors", "contrasts")
    if key not in known:
        raise UsageError(f"{path}: there is no {key}.{did_you_mean([key], known)} It takes: {', '.join(known)}.")
    if key == "authors":
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise UsageError(f'{path}: authors is a list of names: authors = ["Ada Lovelace", "Grace Hopper"].')
        return tuple(name for name in value if name.strip())
    if key == "contrasts":
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise UsageError(f'{path}: [contrasts] has a text for each name: "faces_mean" = "faces > houses".')
        return {name: text.strip() for name, text in value.items()}
    if not isinstance(value, str):
        raise UsageError(f"{path}: {key} is a text, in quotes.")
    return value.strip()


def write_template(names: Sequence[tuple[str, str]]) -> str:
    """Write the authors' file with blanks.

    Parameters
    ----------
    names : sequence of (str, str)
        Name and title of each published test.
    """
    lines = ["# What only you know of these results. Fill in, and give the file with --about.", ""]
    for key, meaning in TEXTS.items():
        default = "mri" if key == "scanner" else ""
        lines += [f'{key} = "{default}"  # {meaning}']
    lines += ['authors = []  # ["Ada Lovelace", "Grace Hopper"]', "", "[contrasts]  # in words", ""]
    lines += [f'"{name}" = ""  # {title}' for name, title in names]
    return "\n".join(lines) + "\n"
