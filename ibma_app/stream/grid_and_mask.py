"""Chooses the grid that maps are brought to, and the voxels that may be analysed."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements, Shape, require_grid, tell_hemispheres
from ibma_app.core.block import COVERED, Indices, Reasons
from ibma_app.core.errors import DataError, DatasetError, IbmaError, InputError
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import CIFTI, GIFTI, TABLES, Analysis, Observation
from ibma_app.images.elements.formats import read_shape
from ibma_app.images.elements.known_meshes import with_meshes
from ibma_app.images.masks import read_mask
from ibma_app.images.mni_masks import mni_brain
from ibma_app.images.read import read_grid
from ibma_app.images.regrid import regrid_mask, same_lattice, tell_apart
from ibma_app.images.spaces import masked_to_mni152
from ibma_app.stream.convert import kinds_to_open

FINE = 1.5  # mm: grids with smaller voxels take the brain mask of 1 mm


def analysis_grid(
    analysis: Analysis,
    grid_policy: str | Path,
    mask_policy: str | Path,
    needs: Collection[str],
    surfaces: Sequence[str] = (),
) -> tuple[Shape, tuple[str, ...]]:
    """Choose where an analysis lies: `choose_grid`, `choose_mask`, `with_meshes`; return it, and notes for the user."""
    shape, notes = choose_grid(analysis.observations, grid_policy, analysis.unit, needs)
    spaces = [observation.entities.get("space") for observation in analysis.observations]
    mask, more = choose_mask(shape, mask_policy, analysis.unit, spaces)
    return with_meshes(shape.with_mask(mask), surfaces, spaces[0]), (*notes, *more)


def choose_grid(
    observations: Sequence[Observation],
    policy: str | Path = "common",
    unit: str = "subject",
    needs: Collection[str] = (),
) -> tuple[Shape, tuple[str, ...]]:
    """Choose the grid of an analysis, or the structures whose elements its maps have; every one is in its mask.

    Parameters
    ----------
    observations : sequence of Observation
        Their headers are read.
    policy : "common", "mni2mm" or Path
        ``--grid``. ``common``: the grid that all maps share (axes may run in
        opposite directions). Where they do not share one: for runs the most
        common grid, of equally common elements those of most structures (maps
        on others are left out later), for subjects an error,
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
        Subjects' maps lie on different grids, or maps have different elements.
    UsageError
        A grid is named for maps that have none.
    InputError, ReadWriteError, DataError
        A map, or the grid's file, cannot be read.
    """
    named = isinstance(policy, Path) or policy == "mni2mm"
    groups = [] if named and not _on_elements(observations) else _by_grid(observations, unit, needs)
    if named:
        for shape, _ in groups:
            require_grid(shape, f"--grid {policy}")
        return (read_grid(policy) if isinstance(policy, Path) else _mni_grid()), ()
    if len(groups) == 1:
        return groups[0][0], ()
    if unit == "run":  # where as many maps have fewer structures, these lack some: a hemisphere
        return max(groups, key=lambda group: (len(group[1]), _n_structures(group[0])))[0], ()
    if any(shape.box is None for shape, _ in groups):
        raise _other_elements(groups)
    if unit == "study":
        note = (
            f"The studies' maps lie on {len(groups)} grids ({_first_files(groups)}); all are brought to the MNI152 "
            "2 mm grid by linear interpolation. Choose another with --grid FILE."
        )
        return _mni_grid(), (note,)
    (first, (path, *_)), (second, (other, *_)) = groups[:2]
    raise DatasetError(
        f"The maps lie on different grids: {path} has {first.words}, {other} has {second.words}: "
        f"{tell_apart(first, second)}. Name the grid that all are to be interpolated to with --grid FILE (e.g. "
        f"--grid {path}) or --grid mni2mm, or leave some maps out (--exclude-participant-label)."
    )


def _on_elements(observations: Sequence[Observation]) -> bool:
    """Return whether the names of some maps say that they are no volumes."""
    files = (statmap.path.name for one in observations for statmap in one.statmaps.values())
    return any(name.endswith((*CIFTI, *GIFTI, *TABLES)) for name in files)


def _other_elements(groups: Sequence[tuple[Shape, list[Path]]]) -> DatasetError:
    """Make the error of maps whose elements are not the same ones."""
    (first, (path, *_)), (second, (other, *_)) = groups[:2]
    return DatasetError(
        f"The maps do not have the same elements: {path} has {first.words}, {other} has {second.words}. Vertices and "
        "regions are combined number by number or name by name: bring the maps to one mesh or atlas first (wb_command "
        "-metric-resample or -cifti-resample, FreeSurfer's mri_surf2surf), or leave some out "
        "(--exclude-participant-label, --exclude-study-label)."
    )


def _n_structures(shape: Shape) -> int:
    return len(shape.structures) if isinstance(shape, Elements) else 1


def tell_other_elements(path: Path, source: Shape, shape: Shape) -> str:
    """Say what a map lacks, or that it has other elements than the analysis, and what to do."""
    lacks = tell_hemispheres(_sides(shape) - _sides(source))
    if lacks:
        return f"{path} lacks {lacks}, which the other maps have. Provide the file, or leave this map out."
    more = tell_hemispheres(_sides(source) - _sides(shape))
    if more:
        return (
            f"{path} has {more}, which most of the maps lack ({shape.words} are combined). Provide the files that are "
            "missing, or leave out the maps that lack them."
        )
    return (
        f"{path} does not have the elements of the analysis ({tell_apart(shape, source)}). Bring all maps to one mesh "
        "or atlas first, or leave it out."
    )


def tell_other_kind(path: Path, source: Shape, first: Path, shape: Shape, label: str) -> str:
    """Say how two kinds of map of one observation differ in where they lie, and what to do."""
    for one, lacking in ((path, _sides(shape) - _sides(source)), (first, _sides(source) - _sides(shape))):
        if lacking:
            other = first if one is path else path
            return f"{one} lacks {tell_hemispheres(lacking)}, which {other.name} of {label} has. Provide the file."
    return (
        f"{path} lies on another grid than {first}, though both are of {label} ({tell_apart(shape, source)}). Provide "
        "both on one grid."
    )


def _sides(shape: Shape) -> set[str]:
    """Return the labels of ``hemi-`` of a map's files."""
    return set(shape.hemispheres) if isinstance(shape, Elements) else set()


def choose_mask(
    grid: Shape, policy: str | Path, unit: str, spaces: Sequence[str | None]
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
    mask : ndarray of bool, of the grid's shape
    notes : tuple of str
        What the user should know.

    Raises
    ------
    UsageError
        A mask of voxels is named for maps that have none.
    DataError
        The file is no mask, or has no voxel on the grid; or the position of
        the maps is unknown, so that no mask can be brought to their grid.
    InputError
        The file is missing, or TemplateFlow has no mask.
    """
    if isinstance(policy, Path):
        return _file_mask(policy, require_grid(grid, f"--mask {policy}"), "--mask")
    if policy == "template":
        return _template_mask(require_grid(grid, "--mask template"), spaces)
    if policy == "auto" and grid.box is not None and masked_to_mni152(unit, spaces):
        return grid.mask & _mni_brain(grid.box), ()
    return grid.mask.copy(), ()


def _by_grid(observations: Sequence[Observation], unit: str, needs: Collection[str]) -> list[tuple[Shape, list[Path]]]:
    """Group the files that would be read by their grid, in the order of the observations."""
    groups: list[tuple[Shape, list[Path]]] = []
    failures: list[IbmaError] = []
    for observation in observations:
        try:
            kinds = kinds_to_open(observation, needs) if needs else tuple(observation.statmaps)
            maps = [observation.statmaps[kind] for kind in kinds]
            found = [(one.path, read_shape(one.files)) for one in maps]
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


def _join(groups: list[tuple[Shape, list[Path]]], path: Path, grid: Shape) -> None:
    for other, paths in groups:
        if other.matches(grid) or same_lattice(other, grid):
            paths.append(path)
            return
    groups.append((grid, [path]))


def _first_files(groups: Sequence[tuple[Shape, list[Path]]]) -> str:
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
