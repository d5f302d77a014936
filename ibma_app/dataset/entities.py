"""Splits BIDS file names into entities, and makes names of entities."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from ibma_app.core.from_files import whole_number_in
from ibma_app.core.labels import contrast_label, is_label, shorten
from ibma_app.core.statmap import ENDINGS

LONG_NAMES: Mapping[str, str] = {
    "subject": "sub",
    "participant": "sub",
    "session": "ses",
    "sample": "sample",
    "task": "task",
    "tracksys": "tracksys",
    "acquisition": "acq",
    "ceagent": "ce",
    "tracer": "trc",
    "stain": "stain",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "modality": "mod",
    "echo": "echo",
    "flip": "flip",
    "inversion": "inv",
    "mtransfer": "mt",
    "part": "part",
    "processing": "proc",
    "hemisphere": "hemi",
    "feature": "feature",
    "space": "space",
    "segmentation": "seg",
    "resolution": "res",
    "density": "den",
    "label": "label",
    "contrast": "contrast",
    "taskcontrast": "contrast",
    "test": "test",
    "description": "desc",
    "correction": "corr",
    "statistic": "stat",
    "study": "study",
    "node": "node",
}
"""Long names of entities -> short ones as in file names (``node`` is FitLins' folder)."""

_FIRST = (
    *("sub", "study", "ses", "sample", "task", "tracksys", "acq", "ce", "trc", "stain", "rec", "dir"),
    *("run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi"),
)
_LAST = ("space", "cohort", "res", "den", "contrast", "test", "desc", "corr", "stat")
INDICES = frozenset({"run", "echo", "flip", "inv"})
_EXTENSIONS = (*ENDINGS, ".tsv.gz", ".json")
_KEY = re.compile(r"[a-zA-Z0-9]+")


class NameParts(NamedTuple):
    """The parts of a file name; ``fault`` says why it is not a BIDS name (None: it is)."""

    entities: dict[str, str]
    suffix: str
    extension: str
    fault: str | None


def short_name(entity: str) -> str:
    """Return the key of an entity in file names: ``subject`` -> ``sub``; others are returned as they are."""
    return LONG_NAMES.get(entity, entity)


def long_name(key: str) -> str:
    """Return the word for the key of an entity: ``dir`` -> ``direction``; others as they are."""
    return next((word for word, short in LONG_NAMES.items() if short == key), key)


def split_name(filename: str) -> NameParts:
    """Split a file name, valid or not.

    Long keys (``direction-``, HALFpipe's ``taskcontrast-``) are replaced by the short ones. Beside ``taskcontrast-``,
    HALFpipe's ``contrast-`` is that of the group model: a ``test``. Invalid labels are kept as they are, so that
    filters can still exclude the file.
    """
    name = filename.rpartition("/")[2]
    extension = next((end for end in _EXTENSIONS if name.endswith(end)), "")
    if not extension:
        extension = "".join(name.rpartition(".")[1:]) if "." in name else ""
    stem = name.removesuffix(extension)
    *pairs, suffix = stem.split("_")
    if "-" in suffix:
        pairs, suffix = [*pairs, suffix], ""
    entities: dict[str, str] = {}
    fault: str | None = None
    of_group = any(pair.startswith("taskcontrast-") for pair in pairs)
    for pair in pairs:
        key, dash, label = pair.partition("-")
        if not dash:
            fault = fault or _lonely_piece(entities, pair)
            continue
        key = "test" if of_group and key == "contrast" else short_name(key)
        if key in entities:
            fault = fault or f'it has two labels for "{key}"'
        elif not _is_sound(key, label):
            fault = fault or _bad_label(key, label)
        entities.setdefault(key, label)
    if not suffix:
        fault = fault or "it has no suffix after its last key-value pair"
    return NameParts(entities, suffix, extension, fault)


@lru_cache(maxsize=65536)  # the labels of a large dataset repeat
def _is_sound(key: str, label: str) -> bool:
    """Return whether both are alphanumeric."""
    return bool(_KEY.fullmatch(key) and is_label(label))


def _lonely_piece(entities: Mapping[str, str], piece: str) -> str:
    """Describe what is wrong with a piece that is not a key-value pair."""
    if not entities:
        return f'its piece "{piece}" is not a key-value pair like "sub-01"'
    key, label = list(entities.items())[-1]
    proposal = contrast_label(f"{label}_{piece}")
    return f'its piece "{piece}" has no key; if it belongs to {key}, rename to "{key}-{proposal}"'


def _bad_label(key: str, label: str) -> str:
    """Describe what is wrong with a label, and the label that nilearn would make of it."""
    proposal = contrast_label(label)
    cure = f'rename to "{key}-{proposal}"' if proposal else f'give "{key}" a label'
    return f'"{key}-{label}" is not a key and an alphanumeric label; {cure}'


def same_label(key: str, one: str, other: str) -> bool:
    """Return whether two labels are the same; indices such as ``run`` compare as numbers (1 is 01)."""
    numbers = (whole_number_in(one), whole_number_in(other)) if key in INDICES else (None, None)
    return one == other if None in numbers else numbers[0] == numbers[1]


def order_entities(entities: Mapping[str, str]) -> dict[str, str]:
    """Sort entities into the order of output names; unknown ones go before ``space``."""
    others = [key for key in entities if key not in _FIRST and key not in _LAST]
    return {key: entities[key] for key in (*_FIRST, *others, *_LAST) if key in entities}


def output_name(entities: Mapping[str, str], suffix: str, extension: str = ".nii.gz") -> str:
    """Make a file name, with entities in BIDS order."""
    pairs = [f"{key}-{label}" for key, label in order_entities(entities).items()]
    return "_".join([*pairs, suffix]) + extension


def fit_labels(entities: Mapping[str, str], room: int) -> dict[str, str]:
    """Shorten the longest labels until the entities of a file name take no more than ``room`` characters.

    The same labels are shortened in the same way everywhere; see `core.labels.shorten`.
    """
    fitted = dict(entities)
    limit = max(map(len, fitted.values()), default=0)
    while limit > 12 and len(output_name(fitted, "", "")) > room + 1:
        limit -= 1
        fitted = {key: shorten(label, limit) for key, label in entities.items()}
    return fitted
