"""Chooses the grid that maps are brought to, and the voxels that may be analysed."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import COVERED, Indices, Reasons
from ibma_app.core.errors import DataError, DatasetError, IbmaError, InputError
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import Analysis, Observation
from ibma_app.images.masks import read_mask
from ibma_app.images.mni_masks import mni_brain
from ibma_app.images.read import read_grid
from ibma_app.images.regrid import regrid_mask, same_lattice, tell_apart
from ibma_app.images.spaces import masked_to_mni152
from ibma_app.stream.convert import kinds_to_open

FINE = 1.5  # mm: grids with smaller voxels take the brain mask of 1 mm


def analysis_grid(
    analysis: Analysis, grid_policy: str | Path, mask_policy: str | Path, needs: Collection[str]
) -> tuple[Grid, tuple[str, ...]]:
    """Choose the grid (`choose_grid`) and mask (`choose_mask`) of an analysis; return both, and notes for the user."""
    grid, notes = choose_grid(analysis.observations, grid_policy, analysis.unit, needs)
    spaces = [observation.entities.get("space") for observation in analysis.observations]
    mask, more = choose_mask(grid, mask_policy, analysis.unit, spaces)
    return grid.with_mask(mask), (*notes, *more)


def choose_grid(
    observations: Sequence[Observation],
    policy: str | Path = "common",
    unit: str = "subject",
    needs: Collection[str] = (),
) -> tuple[Grid, tuple[str, ...]]:
    """Choose the grid of an analysis; every voxel is in its mask.

    Parameters
    ----------
    observations : sequence of Observation
        Their headers are read.
    policy : "common", "mni2mm" or Path
        ``--grid``. ``common``: the grid that all maps share (axes may run in
        opposite directions). Where they do not share one: for runs the most
        common grid (maps on others are left out later), for subjects an error,
        for studies nilearn's MNI152 2 mm grid.
    unit : "run", "subject" or "study"
        What one observation is.
    needs : collection of str
        What estimators need: only the kinds read for it count. Empty: all.

    Returns
    -------
    grid : Grid
        With the header codes of the first map on it.
    notes : tuple of str
        What the user should know.

    Raises
    ------
    DatasetError
        Subjects' maps lie on different grids.
    InputError, ReadWriteError, DataError
        A map, or the grid's file, cannot be read.
    """
    if isinstance(policy, Path):
        return read_grid(policy), ()
    if policy == "mni2mm":
        return _mni_grid(), ()
    groups = _by_grid(observations, unit, needs)
    if len(groups) == 1:
        return groups[0][0], ()
    if unit == "study":
        note = (
            f"The studies' maps lie on {len(groups)} grids ({_first_files(groups)}); all are brought to the MNI152 "
            "2 mm grid by linear interpolation. Choose another with --grid FILE."
        )
        return _mni_grid(), (note,)
    if unit == "run":
        return max(groups, key=lambda group: len(group[1]))[0], ()
    (first, (path, *_)), (second, (other, *_)) = groups[:2]
    raise DatasetError(
        f"The maps lie on different grids: {path} has {_describe(first)}, {other} has {_describe(second)}: "
        f"{tell_apart(first, second)}. Name the grid that all are to be interpolated to with --grid FILE (e.g. "
        f"--grid {path}) or --grid mni2mm, or leave some maps out."
    )


def choose_mask(
    grid: Grid, policy: str | Path, unit: str, spaces: Sequence[str | None]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Find the voxels that may be analysed, before the coverage of the maps is known.

    Parameters
    ----------
    grid : Grid
        Only voxels of its mask may be analysed.
    policy : "auto", "data", "template" or Path
        ``--mask``.
    unit : "run", "subject" or "study"
        What one observation is.
    spaces : sequence of str or None
        The observations' space labels.

    Returns
    -------
    mask : ndarray of bool, (X, Y, Z)
    notes : tuple of str
        What the user should know.

    Raises
    ------
    DataError
        The file is no mask, or has no voxel on the grid; or the position of
        the maps is unknown, so that no mask can be brought to their grid.
    InputError
        The file is missing, or TemplateFlow has no mask.
    """
    if isinstance(policy, Path):
        return _file_mask(policy, grid, "--mask")
    if policy == "template":
        return _template_mask(grid, spaces)
    if policy == "auto" and masked_to_mni152(unit, spaces):
        return grid.mask & _mni_brain(grid), ()
    return grid.mask.copy(), ()


def _by_grid(observations: Sequence[Observation], unit: str, needs: Collection[str]) -> list[tuple[Grid, list[Path]]]:
    """Group the files that would be read by their grid, in the order of the observations."""
    groups: list[tuple[Grid, list[Path]]] = []
    failures: list[IbmaError] = []
    for observation in observations:
        try:
            kinds = kinds_to_open(observation, needs) if needs else tuple(observation.statmaps)
            found = [(observation.statmaps[kind].path, read_grid(observation.statmaps[kind].path)) for kind in kinds]
        except IbmaError as error:
            if unit != "run":
                raise
            failures.append(error)  # the run is left out, and named, when the maps are read
            continue
        for path, grid in found:
            _join(groups, path, grid)
    if not groups:
        raise failures[0] if failures else DatasetError("There are no maps to choose a grid from.")
    return groups


def _join(groups: list[tuple[Grid, list[Path]]], path: Path, grid: Grid) -> None:
    for other, paths in groups:
        if other.matches(grid) or same_lattice(other, grid):
            paths.append(path)
            return
    groups.append((grid, [path]))


def _describe(grid: Grid) -> str:
    sizes = grid.voxel_sizes
    rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in grid.affine[:3].round(4))
    shape, spacing = " x ".join(map(str, grid.shape)), " x ".join(f"{size:.4g}" for size in sizes)
    return f"{shape} voxels of {spacing} mm (affine {rows})"


def _first_files(groups: Sequence[tuple[Grid, list[Path]]]) -> str:
    shown = [f"{' x '.join(map(str, grid.shape))}, e.g. {paths[0].name}" for grid, paths in groups[:3]]
    return "; ".join(shown) + ("; ..." if len(groups) > 3 else "")


def _mni_grid() -> Grid:
    """Return nilearn's MNI152 2 mm grid, 99 x 117 x 95 voxels."""
    mask, affine = mni_brain(2)
    return Grid.whole(affine, mask.shape, sform_code=4)


def _mni_brain(grid: Grid) -> NDArray[np.bool_]:
    """Return nilearn's MNI152 brain mask on a grid."""
    if not grid.placed:
        raise DataError(
            "The maps state no place (their headers have neither sform nor qform), so the MNI152 brain mask cannot be "
            "put on them. Copy the header of an image whose place is known (FSL: fslcpgeom), or analyse them as they "
            "are with --mask data."
        )
    finest = grid.voxel_sizes.min()
    mask, affine = mni_brain(1 if finest < FINE else 2)
    brain = regrid_mask(mask, Grid(affine, mask), grid)
    if not brain.any():
        raise DataError(
            "No voxel of the maps lies in the MNI152 brain, though their names say an MNI space: their affines do not "
            "fit their space. Correct them, or analyse them as they are with --mask data."
        )
    return brain


def _file_mask(path: Path, grid: Grid, option: str) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read a mask and bring it to the grid."""
    name = f"The mask {path} ({option})"
    read = read_mask(path, name)
    if not (same_lattice(grid, read.grid) or (grid.placed and read.grid.placed)):
        whose = "the maps state" if read.grid.placed else "it states"
        raise DataError(
            f"{name} cannot be brought to the maps' grid: {whose} no place (neither sform nor qform in the header). "
            "Give a mask on the grid of the maps."
        )
    mask = grid.mask & regrid_mask(read.inside, read.grid, grid)
    if not mask.any():
        raise DataError(f"{name} covers no voxel of the maps' grid: is it in another space?")
    return mask, tuple(filter(None, [read.note]))


def _template_mask(grid: Grid, spaces: Sequence[str | None]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Get TemplateFlow's brain mask of the one space that the maps are in."""
    labels = sorted({str(space) for space in spaces})
    if len(labels) != 1 or not spaces or spaces[0] is None:
        raise DataError(
            f"--mask template needs maps of one known space; these are in: {', '.join(labels)}. Choose one with "
            "--space, or give --mask FILE."
        )
    space, remedy = labels[0], "Give a mask with --mask FILE, or use --mask data."
    try:
        from templateflow import api

        found = api.get(space, desc="brain", suffix="mask", extension=[".nii.gz"])
    except ImportError:
        raise InputError(
            "--mask template needs the package templateflow, which is not installed (pip install templateflow). "
            f"{remedy}"
        ) from None
    except Exception as error:  # noqa: BLE001  its network and cache fail in many ways
        raise InputError(f"TemplateFlow could not give a brain mask of {space} ({error}). {remedy}") from None
    paths = [Path(path) for path in (found if isinstance(found, list) else [found])]
    usable = sorted((path for path in paths if path.is_file() and path.stat().st_size), key=lambda path: path.name)
    if not usable:
        raise InputError(f"TemplateFlow has no brain mask of {space} here (no network, no cache?). {remedy}")
    return _file_mask(usable[0], grid, "--mask template")


class VoxelSelection:
    """Picks voxels of flat volumes; keeps which of them the last map covered, as the next one often covers the same.

    Parameters
    ----------
    at : ndarray of int, (V,)
        Flat indices of the voxels to pick, in the order of the result.
    """

    def __init__(self, at: Indices) -> None:
        self._at = at
        self._last: tuple[Reasons, tuple[Reasons, Indices, Indices]] | None = None

    def __call__(self, reasons: Reasons) -> tuple[Reasons, Indices, Indices]:
        """Return the picked voxels' reasons (V,), which of them are covered (N,), and where in the volumes those are.

        Maps that cover the same voxels get the same arrays: do not write to them.
        """
        last = self._last
        if last is not None and np.array_equal(last[0], reasons):
            return last[1]
        picked = reasons.take(self._at)
        inside = np.flatnonzero(picked == COVERED)
        found = picked, inside, self._at.take(inside)
        self._last = reasons, found
        return found
