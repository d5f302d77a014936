"""FSL: a ``.feat`` folder, a ``.gfeat`` or one of its ``cope<N>.feat``, or loose cope and varcope images."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError
from ibma_app.core.from_files import read_dof
from ibma_app.core.grid import Grid
from ibma_app.core.study import NATIVE, ImportedContrast, Importer, ImportRequest, Study
from ibma_app.images.masks import mask_grid
from ibma_app.images.read import read_image
from ibma_app.importers.fsl.folder import KINDS, FeatFolder, find_image, numbered
from ibma_app.importers.fsl.loose import loose_in, loose_key, read_loose
from ibma_app.importers.fsl.scaling import find_scaling, scale_lazily


def recognises(source: str) -> bool:
    """Return whether a source is a FEAT folder or a cope image."""
    path = Path(source)
    if path.is_dir():
        return _is_feat(path) or bool(_feats_of(path)) or bool(loose_in(path))
    return path.is_file() and loose_key(path) is not None


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
    if path.is_dir() and loose_in(path):
        return read_loose(path, loose_in(path), request)
    if path.is_file() and (key := loose_key(path)) is not None:
        return read_loose(path.parent, [key], request)
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
        maps=scale_lazily(files, scaling),
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
            return read_dof(float(np.round(np.median(values), 4)), path, "its value"), None, ""
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


IMPORTER = Importer(
    name="fsl",
    title="FSL: a .feat folder, a .gfeat or one of its cope<N>.feat, or cope and varcope images",
    recognises=recognises,
    read=read,
    example="sub-01.feat",
)
