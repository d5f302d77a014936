"""FSL: a ``.feat`` folder, a ``.gfeat`` or one of its ``cope<N>.feat``, or loose cope and varcope images."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError
from ibma_app.core.grid import Grid
from ibma_app.core.study import NATIVE, ImportedContrast, Importer, ImportRequest, Study
from ibma_app.images.masks import mask_grid
from ibma_app.images.read import read_grid, read_image
from ibma_app.images.spaces import MNI, says_mni
from ibma_app.importers.fsl.design import read_design
from ibma_app.importers.fsl.folder import KINDS, FeatFolder, find_image, numbered
from ibma_app.importers.fsl.scaling import find_scaling
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.units import Scaling, unknown

_LOOSE = re.compile(r"(?i)(?P<before>(?:.*[^a-z0-9])?)(?P<kind>varcope|cope|tstat|zstat)(?P<after>[^a-z].*|)")
_IMAGE = re.compile(r"\.(nii|img|hdr)(\.gz)?$")


def recognises(source: str) -> bool:
    """Return whether a source is a FEAT folder or a cope image."""
    path = Path(source)
    if path.is_dir():
        return _is_feat(path) or bool(_feats_of(path)) or bool(_loose_in(path))
    return path.is_file() and _loose_key(path) is not None


def read(source: str, request: ImportRequest) -> Study:
    """Read a FEAT folder, a folder of them at group level, or loose cope and varcope images.

    Maps in standard space (``reg_standard``) are preferred; native ones are
    refused for a study.

    Raises
    ------
    InputError, ReadWriteError, DataError
        What is missing, damaged, or lies in a subject's own space.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source} does not exist. Give a .feat or .gfeat folder, or cope images.")
    if path.is_dir() and path.name in ("stats", "reg_standard") and _is_feat(path.parent):
        path = path.parent
    if path.is_dir() and _feats_of(path):
        return _read_gfeat(path, request)
    if path.is_dir() and _is_feat(path):
        return _read_feat(path, request)
    if path.is_dir() and _loose_in(path):
        return _read_loose(path, _loose_in(path), request)
    if path.is_file() and (key := _loose_key(path)) is not None:
        return _read_loose(path.parent, [key], request)
    raise InputError(f"{source} is no FEAT folder and no cope image: give a .feat or .gfeat folder, or cope<N>.nii.gz.")


def _is_feat(path: Path) -> bool:
    return (path / "stats").is_dir() or (path / "reg_standard" / "stats").is_dir()


def _feats_of(path: Path) -> list[Path]:
    """List the ``cope<N>.feat`` of a ``.gfeat``, in order of their numbers."""
    found = [one for one in path.glob("cope*.feat") if re.fullmatch(r"cope\d+\.feat", one.name) and _is_feat(one)]
    return sorted(found, key=lambda one: int(re.sub(r"\D", "", one.name)))


def _read_gfeat(path: Path, request: ImportRequest) -> Study:
    """Read every lower-level cope of a group analysis."""
    studies = [_read_feat(one, request) for one in _feats_of(path)]
    return Study(
        software=studies[0].software,
        source=str(path),
        contrasts=tuple(contrast for study in studies for contrast in study.contrasts),
        listed=tuple(text for study in studies for text in study.listed),
        level=studies[0].level,
        notes=tuple(dict.fromkeys(note for study in studies for note in study.notes)),
    )


def _read_feat(path: Path, request: ImportRequest) -> Study:
    """Read one FEAT folder."""
    folder = FeatFolder.open(path, prefer_native=request.space in ("native", "func", "boldref"))
    _check_space(folder, request)
    copes = numbered(folder.stats)
    if not copes:
        raise DataError(f"{folder.stats} holds no cope images: the analysis did not finish, or they were left out.")
    listed = [f"F test {number}: an F has no sign; it is not imported." for number in numbered(folder.stats, "zfstat")]
    absent = sorted(set(folder.design.names) - set(copes))
    listed += [f"contrast {n}, {folder.design.names[n]}: cope{n} is not in {folder.stats}." for n in absent]
    return Study(
        software=folder.software,
        source=str(path),
        contrasts=tuple(_read_cope(folder, number) for number in copes),
        listed=tuple(listed),
        level="subject" if not folder.is_group or folder.design.is_fixed else "group",
        notes=folder.notes,
    )


def _check_space(folder: FeatFolder, request: ImportRequest) -> None:
    """Refuse maps in native space for a study; ``--space`` is believed where FEAT registered nothing."""
    if not request.for_study or folder.space != NATIVE or (request.space and not folder.was_registered):
        return
    raise DataError(
        f"{folder.root} holds maps in the subject's own (native) space ({folder.space_reason}) and has no "
        "reg_standard/stats: they cannot stand for a study. Bring them to standard space with featregapply "
        f"{folder.root.name}, give the group analysis (.gfeat), or import them as a subject's "
        "(--participant-label)" + ("." if folder.was_registered else ", or, if they do lie in a template's space, say "
        "which: --space MNI152NLin6Asym.")
    )  # fmt: skip


def _read_cope(folder: FeatFolder, number: int) -> ImportedContrast:
    """Read one contrast: its grid and scaling now, its maps on access."""
    files = {kind: path for kind, stem in KINDS.items() if (path := find_image(folder.stats, f"{stem}{number}"))}
    path = files["effect"]
    grid = mask_grid(read_image(path).grid, folder.mask)
    scaling = find_scaling(folder, number, grid)
    dof, dof_map, note = _find_dof(folder, number, grid)
    if dof_map is not None:
        files["dof"] = dof_map
    named = folder.design.named_weights(number)
    subjects, groups = folder.subjects(number)
    notes = [note]
    if "variance" not in files:
        notes.append(f"varcope{number} is missing; the variance follows from cope and tstat, when that is there.")
    if number not in folder.design.names:
        notes.append(f"design.con does not name contrast {number}.")
    return ImportedContrast(
        name=folder.contrast_name(number),
        maps=_lazily(files, scaling),
        grid=grid,
        dof=dof,
        sample_size=subjects,
        units=scaling.units,
        units_source=scaling.source,
        scaling_factor=scaling.median,
        regressor_height=scaling.height,
        contrast_weights=named or None,
        space=folder.space,
        columns=groups,
        sources=tuple(str(one) for one in files.values()),
        notes=tuple(filter(None, notes)),
        number=None if folder.is_group else number,
    )


def _lazily(files: Mapping[str, Path], scaling: Scaling) -> LazyMaps:
    return LazyMaps({kind: partial(_scaled, kind, path, scaling) for kind, path in files.items()})


def _scaled(kind: str, path: Path, scaling: Scaling) -> NDArray[Any]:
    return scaling.scale(kind, read_image(path).data)


def _find_dof(folder: FeatFolder, number: int, grid: Grid) -> tuple[float | None, Path | None, str]:
    """Find the degrees of freedom: FLAME's map, the file ``dof`` (text or image), points less rank.

    Returns
    -------
    dof : float or None
    dof_map : Path or None
        Where they differ by voxel.
    note : str
    """
    for stem in (f"tdof_t{number}", f"FEtdof_t{number}", "tdof_filtered_func_data", "dof"):
        path = find_image(folder.stats, stem)
        if path is None:
            continue
        volume = read_image(path)
        values = volume.data[np.isfinite(volume.data) & (volume.data > 0) & _fits(grid, volume.data)]
        if values.size and np.ptp(values) <= 1e-4 * values.max():
            return float(np.round(np.median(values), 4)), None, ""
        if values.size:
            return None, path, ""
    text = folder.dof
    if text is not None:
        return text, None, ""
    counted = folder.design.residual_dof()
    if counted is not None and counted > 0:
        return counted, None, "No file dof is there: it is the design's points less its rank."
    return None, None, "Neither a file dof nor design.mat is there: the degrees of freedom are not known."


def _fits(grid: Grid, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask where it has the map's shape."""
    return grid.mask if grid.shape == values.shape else np.ones(values.shape, dtype=bool)


def _loose_key(path: Path) -> tuple[str, str] | None:
    """Return what is before and after ``cope`` in a loose image's name; None for other files."""
    if not _IMAGE.search(path.name):
        return None
    found = _LOOSE.fullmatch(_IMAGE.sub("", path.name))
    return (found["before"], found["after"]) if found else None


def _loose_in(folder: Path) -> list[tuple[str, str]]:
    """List the loose cope images of a folder."""
    keys = {key: None for path in sorted(folder.iterdir()) if path.is_file() and (key := _loose_key(path))}
    return sorted(keys, key=lambda key: [int(part) if part.isdigit() else 0 for part in re.split(r"(\d+)", key[1])])


def _read_loose(folder: Path, keys: list[tuple[str, str]], request: ImportRequest) -> Study:
    """Read cope and varcope (tstat, zstat) images that were taken out of their FEAT folder."""
    contrasts = []
    design = read_design(folder)
    for before, after in keys:
        files = {kind: one for kind, stem in KINDS.items() if (one := find_image(folder, f"{before}{stem}{after}"))}
        if not set(files) & {"effect", "t", "z"}:
            raise DataError(f"{files['variance']} has no cope beside it: a variance alone says nothing.")
        path = next(iter(files.values()))
        grid = read_grid(path)
        if request.for_study and grid.sform_code == 1 and not request.space:
            raise DataError(f"{path} lies in native (scanner) space; for a study, say which template: --space LABEL.")
        number = int(after) if after.isdigit() else 0
        dof = FeatFolder.dof_of(folder, folder.parent)
        contrasts.append(
            ImportedContrast(
                name=design.names.get(number) or f"{before}cope{after}",
                maps=_lazily(files, unknown("")),
                grid=grid,
                dof=dof,
                units_source="Not percent signal change: without its FEAT folder neither mean nor design are known.",
                contrast_weights=design.named_weights(number) or None,
                space=NATIVE if grid.sform_code == 1 else MNI if says_mni(grid) else "",
                sources=tuple(str(one) for one in files.values()),
            )
        )
    return Study("FSL", str(folder), tuple(contrasts))


IMPORTER = Importer(
    name="fsl",
    title="FSL: a .feat folder, a .gfeat or one of its cope<N>.feat, or cope and varcope images",
    recognises=recognises,
    read=read,
    example="sub-01.feat",
)
