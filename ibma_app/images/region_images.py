"""Regions that are tested as a whole (``--regions``): known atlases, label images, probabilities, binary masks."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ibma_app.core.anatomy.atlas import Atlas, AtlasSource, PlacedRegions, RegionName, Regions, RegionSet
from ibma_app.core.errors import DataError, DatasetError, InputError, UsageError, did_you_mean
from ibma_app.core.grid import NEAR, Grid
from ibma_app.images.atlas import names_for, read_atlases, read_labels, read_probabilities
from ibma_app.images.known_atlases import NAMES, find_atlases
from ibma_app.images.read import read_header, read_image
from ibma_app.images.spaces import MNI, is_mni

STATED = re.compile(r"(?:^|_)(?:space|tpl)-([A-Za-z0-9]+)")
NEAREST = 0.5 + 1e-6  # halfway between two voxels is the upper one, however the affine is rounded


def choose_regions(asked: Sequence[str] | None, tables: Mapping[str, Any], folder: Path) -> tuple[str | Regions, ...]:
    """Read what ``--regions`` names.

    Parameters
    ----------
    asked : sequence of str or None
        Names of known atlases (in any case), of the configuration's tables ``[atlas.NAME]``, or files; None: none.
    tables : mapping
        Those tables.
    folder : Path
        What their paths are relative to.

    Returns
    -------
    tuple of str or Regions
        For `find_regions`: a known atlas stays a name, as it may depend on the space.

    Raises
    ------
    UsageError
        Neither a name nor a file; two of one name.
    InputError, ReadWriteError, DataError
        A file that cannot be read, or holds no regions.
    """
    read_atlases({name: table for name, table in tables.items() if name in (asked or ())}, folder)  # checks them
    own = {name.lower(): name for name in tables}
    known = {name.lower(): name for name in NAMES}
    found: list[str | Regions] = []
    for name in asked or ():
        if name.lower() in own:
            table = tables[own[name.lower()]]
            names = table.get("names")
            labels = folder / table["labels"]
            found.append(read_regions(own[name.lower()], labels, None if names is None else folder / names))
        elif name.lower() in known:
            found.append(known[name.lower()])
        elif Path(name).is_file():
            found.append(read_regions(Path(name).name.partition(".")[0], Path(name)))
        elif "/" in name or name.endswith((".nii", ".gz")):
            raise InputError(f"--regions: there is no file {name}.")
        else:
            menu = [*NAMES, *tables]
            hint = did_you_mean([name], menu)
            raise UsageError(
                f"--regions: there is no atlas or file {name!r}.{hint} Choose from: {', '.join(menu)}, or name files."
            )
    called = Counter(one if isinstance(one, str) else one.names[0].atlas for one in found)
    twice = next((name for name, count in called.items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            f"--regions names {twice} twice, and rows of the tables are told apart by that name. Name it once, or give "
            "one of the files another name."
        )
    return tuple(found)


def read_regions(name: str, path: Path, names: Path | None = None) -> Regions:
    """Read regions from an image.

    Parameters
    ----------
    name : str
        What the tables call the atlas.
    path : Path
        One volume of labels, of which one label alone is a mask and goes by the file's name; or a volume of
        probabilities for each region, which weigh its voxels.
    names : Path, optional
        As of `ibma_app.images.atlas.read_atlas`.

    Raises
    ------
    InputError, ReadWriteError
        Files that cannot be read.
    DataError
        Values that are neither labels nor probabilities, an image without regions, one that states no place.
    """
    named = names_for(name, path, names)
    stated = STATED.search(path.name)
    space = stated.group(1) if stated else None
    count = read_header(path).n_volumes
    if count > 1:
        rows = [sparse.csr_array(one.reshape(1, -1)) for one in read_probabilities(name, path, count)]
        weights = sparse.csc_array(sparse.vstack(rows), dtype=np.float64)
        grid = read_image(path, 0).grid
        if not weights.nnz:
            raise DataError(f"--regions: the {count} volumes of {path} are empty: each has the voxels of a region.")
        return _collect(name, tuple(range(1, count + 1)), named, weights, grid.affine, grid.shape, space)
    labels, affine = read_labels(name, path)
    if not labels.any():
        raise DataError(
            f"--regions: {path} is empty: all its voxels are 0. A mask is 1 in its region, an atlas has a label there."
        )
    if not named and np.unique(labels[labels > 0]).size == 1:  # a mask
        named = {int(labels.max()): name}
    return _of_labels(name, labels, affine, named, space)


def _of_labels(
    name: str, labels: NDArray[np.int32], affine: NDArray[np.float64], named: Mapping[int, str], space: str | None
) -> Regions:
    """Make regions of a volume of labels: a row for each label, and each name without a voxel."""
    flat = labels.ravel()
    voxels = np.flatnonzero(flat)
    indices = np.union1d(np.unique(flat[voxels]), np.array(sorted(named), dtype=np.int64)).astype(np.int64)
    rows = np.searchsorted(indices, flat[voxels])
    weights = sparse.csc_array((np.ones(voxels.size), (rows, voxels)), shape=(indices.size, flat.size))
    x, y, z = labels.shape
    return _collect(name, tuple(indices.tolist()), named, weights, affine, (x, y, z), space)


def _collect(
    atlas: str,
    indices: Sequence[int],
    named: Mapping[int, str],
    weights: sparse.csc_array,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    space: str | None,
) -> Regions:
    """Name the regions; those of one name get their index too."""
    texts = [named.get(index, f"label {index}") for index in indices]
    often = {text for text, count in Counter(texts).items() if count > 1}
    unique = [f"{text} ({index})" if text in often else text for index, text in zip(indices, texts, strict=True)]
    notes = (
        (f"Regions of {atlas} have one name ({', '.join(sorted(often)[:5])}): each is followed by its label.",)
        if often
        else ()
    )
    names = tuple(RegionName(atlas, index, text) for index, text in zip(indices, unique, strict=True))
    return Regions(names, weights, affine, shape, space, notes=notes)


def find_regions(chosen: Sequence[str | Regions], space: str | None, grid: Grid) -> PlacedRegions:
    """Place regions on the grid of an analysis: each of its voxels takes the nearest one of the image.

    Parameters
    ----------
    chosen : sequence of str or Regions
        As `choose_regions` returns it.
    space : str or None
        Of the analysis.
    grid : Grid

    Raises
    ------
    InputError
        An atlas is not on this machine.
    DatasetError
        One states another space, or the maps state no place.
    """
    if not grid.placed:
        raise DatasetError(
            "--regions: the maps state no place (neither sform nor qform in their headers), so no region can be found "
            "in them. Copy the header of an image whose place is known (FSL: fslcpgeom)."
        )
    found = [_known(one, space) if isinstance(one, str) else one for one in chosen]
    placed = [_place(one, space, grid) for one in found]
    return PlacedRegions(
        names=tuple(name for one in placed for name in one.names),
        weights=sparse.csc_array(sparse.vstack([one.weights for one in placed])),
        whole=np.concatenate([one.whole for one in placed]),
        n_voxels=np.concatenate([one.n_voxels for one in placed]),
        notes=tuple(note for one in placed for note in one.notes),
        sets=tuple(_describe(one) for one in found),
    )


def _describe(regions: Regions) -> RegionSet:
    """Return what texts say of the regions of one atlas."""
    source = regions.source or AtlasSource(regions.names[0].atlas)
    return RegionSet(source, len(regions.names), weighted=bool((regions.weights.data != 1.0).any()))


def _known(name: str, space: str | None) -> Regions:
    """Return the regions of a known atlas; all of them are in an MNI space."""
    if space is not None and not is_mni(space):
        raise DatasetError(_elsewhere(name, MNI, space))
    (atlas,) = find_atlases((name,), space, "--regions")
    found = _of_atlas(atlas)
    notes = found.notes
    if space is None:
        notes = (*notes, f"The maps state no space; --regions {name} takes them to be in that of {name}, MNI's.")
    return Regions(found.names, found.weights, found.affine, found.shape, MNI, atlas.source, notes)


def _of_atlas(atlas: Atlas) -> Regions:
    there = set(np.unique(atlas.labels).tolist())  # AAL3 names four labels that it no longer has
    named = {label: name for label, name in atlas.names.items() if label in there}
    return _of_labels(atlas.name, atlas.labels, atlas.affine, named, None)


def _elsewhere(name: str, theirs: str, space: str) -> str:
    return (
        f"--regions: {name} is in the space {theirs}, the maps are in {space}. Bring its labels into that space (with "
        "the transformation of the template, nearest neighbour), or leave it out."
    )


def _place(regions: Regions, space: str | None, grid: Grid) -> PlacedRegions:
    """Place one image's regions."""
    name, theirs = regions.names[0].atlas, regions.space
    if theirs is not None and space is not None and theirs != space and not (is_mni(theirs) and is_mni(space)):
        raise DatasetError(_elsewhere(name, theirs, space))
    at, exact = _voxels_of(regions, grid)
    inside = at >= 0
    picked = regions.weights[:, at[inside]].tocoo()
    columns = np.flatnonzero(inside)[picked.col]
    weights = sparse.csc_array((picked.data, (picked.row, columns)), shape=(regions.weights.shape[0], at.size))
    notes = regions.notes
    if not exact:
        notes = (*notes, f"{name} lies on another grid than the maps: each of their voxels has its nearest label.")
    return PlacedRegions(
        names=regions.names,
        weights=weights[:, np.flatnonzero(grid.mask.ravel())],
        whole=np.asarray(weights.sum(axis=1), dtype=np.float64).ravel(),
        n_voxels=np.asarray((weights > 0).sum(axis=1), dtype=np.int64).ravel(),
        notes=notes,
    )


def _voxels_of(regions: Regions, grid: Grid) -> tuple[NDArray[np.int64], bool]:
    """Return the image's voxel of each voxel of a grid, (X * Y * Z,), -1 outside; and if they are the same ones."""
    matrix = np.linalg.inv(regions.affine) @ grid.affine
    indices = np.indices(grid.shape).reshape(3, -1)
    places = matrix[:3, :3] @ indices + matrix[:3, 3:]
    voxels = np.floor(places + NEAREST).astype(np.int64)
    exact = bool(np.abs(places - voxels).max() <= NEAR) and abs(abs(np.linalg.det(matrix)) - 1.0) <= NEAR
    inside = np.all((voxels >= 0) & (voxels < np.array(regions.shape)[:, None]), axis=0)
    at = np.full(indices.shape[1], -1, dtype=np.int64)
    at[inside] = np.ravel_multi_index(tuple(voxels[:, inside]), regions.shape)
    return at, exact
