"""Loose images of FSL: cope and varcope taken out of their folder, and what randomise and PALM leave."""

import re
from pathlib import Path

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import whole_number_in
from ibma_app.core.study import NATIVE, ImportedContrast, ImportRequest, Study
from ibma_app.images.read import read_grid
from ibma_app.images.spaces import MNI, says_mni
from ibma_app.importers.fsl.design import read_design
from ibma_app.importers.fsl.folder import KINDS, FeatFolder, find_image
from ibma_app.importers.fsl.scaling import scale_lazily
from ibma_app.importers.units import unknown

_LOOSE = re.compile(r"(?i)(?P<before>(?:.*[^a-z0-9])?)(?P<kind>varcope|cope|tstat|zstat)(?P<after>[^a-z].*|)")
_IMAGE = re.compile(r"\.(nii|img|hdr)(\.gz)?$")
_NO_T = {
    "1 - p": re.compile(r"(?i)(^|_)(corrp|p)_$"),
    "p (as p, 1 - p or -log10 p)": re.compile(r"(?i)_(uncp|fwep|fdrp|cfdrp|uncparap|fdrparap)(_|$)"),
    "threshold-free cluster enhancement": re.compile(r"(?i)(^|_)tfce(2d)?_$"),
    "a cluster statistic": re.compile(r"(?i)(^|_)cluster[em]?_$"),
    "a combination of modalities": re.compile(r"(?i)(^|_)npc_"),
}
"""What randomise and PALM write beside t, by what stands before or after ``tstat`` in its name."""
_GLM = re.compile(r"(?i)glm_(var)?cope_$")  # effect and variance of randomise --glm_output


def loose_key(path: Path) -> tuple[str, str] | None:
    """Return what is before and after ``cope`` in a loose image's name; None for other files."""
    if not _IMAGE.search(path.name):
        return None
    found = _LOOSE.fullmatch(_IMAGE.sub("", path.name))
    return (found["before"], found["after"]) if found else None


def loose_in(folder: Path) -> list[tuple[str, str]]:
    """List the loose cope images of a folder."""
    keys = {key: None for path in sorted(folder.iterdir()) if path.is_file() and (key := loose_key(path))}
    return sorted(keys, key=lambda key: [whole_number_in(part) or 0 for part in re.split(r"(\d+)", key[1])])


def no_statistic(before: str, after: str) -> str:
    """Tell what an image of randomise or PALM is that is no t; empty for others."""
    for what, pattern in _NO_T.items():
        if pattern.search(before) or pattern.search(after):
            return what
    return ""


def _files(folder: Path, before: str, after: str) -> dict[str, Path]:
    """Find the kinds of one contrast, those of ``randomise --glm_output`` too."""
    files = {kind: one for kind, stem in KINDS.items() if (one := find_image(folder, f"{before}{stem}{after}"))}
    for kind, stem in (("effect", "glm_cope_tstat"), ("variance", "glm_varcope_tstat")):
        if kind not in files and "t" in files and (one := find_image(folder, f"{before}{stem}{after}")):
            files[kind] = one
    return files


def read_loose(folder: Path, keys: list[tuple[str, str]], request: ImportRequest) -> Study:
    """Read cope and varcope (tstat, zstat) images that were taken out of their folder; what is no statistic is listed.

    Raises
    ------
    DataError
        There is nothing but 1 - p, TFCE and the like.
    """
    contrasts = []
    design = read_design(folder)
    left_out = {f"{before}tstat{after}": what for before, after in keys if (what := no_statistic(before, after))}
    used = [(before, after) for before, after in keys if not no_statistic(before, after) and not _GLM.search(before)]
    if not used:
        found = ", ".join(f"{name} ({what})" for name, what in left_out.items())
        raise DataError(f"{folder} has no t, z or effect to import: {found or 'only copes of a model without its t'}.")
    for before, after in used:
        files = _files(folder, before, after)
        if not set(files) & {"effect", "t", "z"}:
            raise DataError(f"{files['variance']} has no cope beside it: a variance alone says nothing.")
        path = next(iter(files.values()))
        grid = read_grid(path)
        if request.for_study and grid.sform_code == 1 and not request.space:
            raise DataError(f"{path} lies in native (scanner) space; for a study, say which template: --space LABEL.")
        number = whole_number_in(after) or 0
        dof = FeatFolder.dof_of(folder, folder.parent)
        contrasts.append(
            ImportedContrast(
                name=design.names.get(number) or f"{before}cope{after}",
                maps=scale_lazily(files, unknown("")),
                grid=grid,
                dof=dof,
                units_source="Not percent signal change: without its FEAT folder neither mean nor design are known.",
                contrast_weights=design.named_weights(number) or None,
                space=NATIVE if grid.sform_code == 1 else MNI if says_mni(grid) else "",
                sources=tuple(str(one) for one in files.values()),
            )
        )
    listed = tuple(f"{name}: {what}, no statistic to combine" for name, what in left_out.items())
    return Study("FSL", str(folder), tuple(contrasts), listed=listed)
