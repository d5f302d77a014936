"""Names of regions, whatever their spelling: which parcellation they are of, and their numbers in it.

Numbers are those of FreeSurfer's colour table (``aparc+aseg``).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DESIKAN_KILLIANY = (
    "bankssts", "caudalanteriorcingulate", "caudalmiddlefrontal", "", "cuneus", "entorhinal", "fusiform",
    "inferiorparietal", "inferiortemporal", "isthmuscingulate", "lateraloccipital", "lateralorbitofrontal", "lingual",
    "medialorbitofrontal", "middletemporal", "parahippocampal", "paracentral", "parsopercularis", "parsorbitalis",
    "parstriangularis", "pericalcarine", "postcentral", "posteriorcingulate", "precentral", "precuneus",
    "rostralanteriorcingulate", "rostralmiddlefrontal", "superiorfrontal", "superiorparietal", "superiortemporal",
    "supramarginal", "frontalpole", "temporalpole", "transversetemporal", "insula",
)  # fmt: skip
"""Regions of each hemisphere by their numbers from 1 on (4 is the corpus callosum)."""

SUBCORTICAL: Mapping[str, tuple[int, int]] = {
    "lateralventricle": (4, 43), "thalamus": (10, 49), "caudate": (11, 50), "putamen": (12, 51), "pallidum": (13, 52),
    "hippocampus": (17, 53), "amygdala": (18, 54), "accumbens": (26, 58),
}  # fmt: skip
"""Left and right number of each structure."""

_SPELLINGS = {
    "latvent": "lateralventricle", "thal": "thalamus", "thalamusproper": "thalamus", "caud": "caudate",
    "put": "putamen", "pal": "pallidum", "hippo": "hippocampus", "amyg": "amygdala", "accumb": "accumbens",
    "accumbensarea": "accumbens", "nucleusaccumbens": "accumbens",
}  # fmt: skip
_SIDE = re.compile(r"(?:ctx[-_.])?(?P<side>lh|rh|left|right|l|r)[-_. ](?P<rest>.+)", re.IGNORECASE)
_SIDE_LAST = re.compile(r"(?P<rest>.+)[-_. ](?P<side>lh|rh|left|right|l|r)", re.IGNORECASE)
_SIDE_SHORT = re.compile(r"(?P<side>[LR])(?P<rest>[A-Za-z]+)")  # Laccumb
_MEASURE = re.compile(r"_(thickavg|surfavg|thickness|area|volume)$", re.IGNORECASE)
_SCHAEFER = re.compile(r"(7|17)Networks_[LR]H_\w+")

NEARLY = 0.2
"""The share of a table's names that may be misspelt, while the others tell their parcellation."""


@dataclass(frozen=True)
class Parcellation:
    """The parcellation that names are of."""

    label: str  # as in file names: seg-<label>
    numbers: Mapping[str, int]  # name as given -> its number, in order of the numbers


def find_parcellation(names: Iterable[str]) -> Parcellation | None:
    """Return the parcellation that all names are of; None where none is known.

    Parameters
    ----------
    names : iterable of str
        All different.
    """
    names = list(names)
    for label, number_of in _KNOWN:
        numbers = {name: number for name in names if (number := number_of(*split_side(name))) is not None}
        if len(numbers) == len(names) == len(set(numbers.values())):
            return Parcellation(label, dict(sorted(numbers.items(), key=lambda item: item[1])))
    if len(names) % 100 == 0 and all(_SCHAEFER.fullmatch(name) for name in names):
        return Parcellation(f"Schaefer{len(names)}", {name: number for number, name in enumerate(names, 1)})
    return None


def find_almost(names: Iterable[str]) -> tuple[Parcellation, tuple[str, ...]] | None:
    """Return the parcellation that nearly all names are of, and the names that are not; None where there is none.

    Parameters
    ----------
    names : iterable of str
        All different, and not all of one parcellation.
    """
    names = list(names)
    for label, number_of in _KNOWN:
        numbers = {name: number for name in names if (number := number_of(*split_side(name))) is not None}
        others = tuple(name for name in names if name not in numbers)
        if others and len(others) <= NEARLY * len(names):
            return Parcellation(label, numbers), others
    return None


def known_names() -> tuple[str, ...]:
    """Return the regions of all parcellations, as they are spelt most often: ``L_insula``."""
    regions = (*filter(None, DESIKAN_KILLIANY), *SUBCORTICAL)
    return tuple(f"{side}_{region}" for region in regions for side in "LR")


def split_side(name: str) -> tuple[str, str]:
    """Take the hemisphere off a name: ``ctx-lh-insula`` is ("L", "insula"); ("", name) without one."""
    plain = _MEASURE.sub("", name.strip())
    for pattern in (_SIDE, _SIDE_LAST, _SIDE_SHORT):
        found = pattern.fullmatch(plain)
        if found:
            return found["side"][0].upper(), "".join(sign for sign in found["rest"] if sign.isalnum()).lower()
    return "", plain


def _desikan_killiany(side: str, region: str) -> int | None:
    if side not in ("L", "R") or region not in DESIKAN_KILLIANY or not region:
        return None
    return {"L": 1001, "R": 2001}[side] + DESIKAN_KILLIANY.index(region)


def _subcortical(side: str, region: str) -> int | None:
    numbers = SUBCORTICAL.get(_SPELLINGS.get(region, region))
    return None if numbers is None or side not in ("L", "R") else numbers["LR".index(side)]


def _both(side: str, region: str) -> int | None:
    return _desikan_killiany(side, region) or _subcortical(side, region)


_KNOWN = (("DesikanKilliany", _desikan_killiany), ("aseg", _subcortical), ("aparcaseg", _both))
