"""The mesh of each hemisphere: the user's, that of nilearn's package, or TemplateFlow's where it is at hand."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer.io import read_geometry
from nibabel.gifti.gifti import GiftiImage
from nibabel.nifti1 import intent_codes
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.anatomy.structures import DENSITIES, FSAVERAGE, AnyStructure, Mesh, Surface
from ibma_app.core.errors import DataError, ReadWriteError, UsageError
from ibma_app.images.contents import AGAIN
from ibma_app.images.elements.gifti import SIDES, open_gifti, side_in_content, stated_side

PACKAGED = 10242  # vertices of the meshes that come with nilearn
TEMPLATES = {"fsaverage": "tpl-fsaverage_den-{density}_hemi-{side}_{surface}.surf.gii",
             "fsLR": "tpl-fsLR_den-{density}_hemi-{side}_{surface}.surf.gii"}  # fmt: skip
CLEARLY = 5.0  # mm from the middle that a mesh of one side has at least, by the mean of its vertices
SURFACES = ("midthickness", "pial", "white")


def with_meshes(shape: Shape, given: Sequence[str] = (), space: str | None = None) -> Shape:
    """Return a shape with the meshes of its surfaces, as far as they are known.

    Parameters
    ----------
    shape : Shape
    given : sequence of str
        ``--surface``: ``L=FILE``, ``R=FILE``, or files that say their side.
    space : str, optional
        Label of ``space-``.

    Raises
    ------
    UsageError
        Meshes are given where there are no surfaces, or for a side that is none.
    InputError, ReadWriteError
        A file is missing or is no mesh.
    DataError
        A mesh has another number of vertices than the maps, or is of the other hemisphere.
    """
    files = _read_given(given)
    surfaces = [] if not isinstance(shape, Elements) else [one for one in shape.structures if isinstance(one, Surface)]
    if not isinstance(shape, Elements) or not surfaces:
        if files:
            raise UsageError(f"--surface gives meshes, but these maps lie on {shape.words}. Leave it out.")
        return shape
    return replace(shape, structures=tuple(_with_mesh(one, files, space) for one in shape.structures))


def _with_mesh(structure: AnyStructure, files: Mapping[str, Path], space: str | None) -> AnyStructure:
    """Return a surface with its mesh, and any other structure as it is."""
    if not isinstance(structure, Surface):
        return structure
    if structure.name in files:
        mesh, stated = _read(files[structure.name])
        _check_side(structure.name, mesh, stated)
        if len(mesh.points) != structure.size:
            raise DataError(
                f"{mesh.name} has {len(mesh.points)} vertices, but the maps have {structure.size} in {structure.name}. "
                "Give the mesh that they lie on with --surface."
            )
        return replace(structure, mesh=mesh)
    side = next((label for label, name in SIDES.items() if name == structure.name), "")
    return replace(structure, mesh=known_mesh(space or "", side, structure.size) if side else None)


def _read_given(given: Sequence[str]) -> dict[str, Path]:
    """Tell which structure each file of ``--surface`` is of."""
    files: dict[str, Path] = {}
    for text in given:
        label, equals, rest = text.partition("=")
        if equals and label in SIDES:
            name, path = SIDES[label], Path(rest)
        else:
            path = Path(text)
            name = stated_side(path, open_gifti(path)) if ".gii" in path.name else stated_side(path, GiftiImage())
        if not name:
            raise UsageError(f"--surface {text}: nothing says which hemisphere it is. Write L={text} or R={text}.")
        if name in files:
            raise UsageError(f"--surface gives {name} twice: {files[name]} and {path}.")
        files[name] = path
    return files


def read_mesh(path: Path) -> Mesh:
    """Read a mesh: GIFTI, gzipped or not, or FreeSurfer's (``lh.pial``).

    Raises
    ------
    InputError, ReadWriteError
        It is missing or damaged.
    DataError
        It is GIFTI, but no mesh.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Mesh, str]:
    """Read a mesh, and which structure its content says it is of; "": it does not say."""
    if ".gii" not in path.name:
        try:
            points, triangles = read_geometry(path)
        except FileNotFoundError:
            open_gifti(path)  # says that it is missing
            raise
        except Exception as error:  # noqa: BLE001  the parser fails in many ways
            raise ReadWriteError(f"{path} is no mesh (GIFTI or FreeSurfer's), or it is damaged ({error}).") from None
        return Mesh(np.asarray(points, dtype=np.float64), np.asarray(triangles, dtype=np.int32), str(path)), ""
    image = open_gifti(path)
    arrays = {intent_codes.niistring[one.intent]: one.data for one in image.darrays}
    points, triangles = (arrays.get(f"NIFTI_INTENT_{kind}") for kind in ("POINTSET", "TRIANGLE"))
    if points is None or triangles is None or points.ndim != 2 or triangles.ndim != 2:
        raise DataError(f"{path} is no mesh: it lacks vertices or triangles. Give a .surf.gii file.")
    if triangles.max() >= len(points):
        raise ReadWriteError(f"{path} is no mesh: its triangles name vertices that it lacks. {AGAIN}.")
    mesh = Mesh(np.asarray(points, dtype=np.float64), np.asarray(triangles, dtype=np.int32), str(path))
    return mesh, side_in_content(image)


def _check_side(name: str, mesh: Mesh, stated: str) -> None:
    """Refuse a mesh of the other hemisphere, by what its content says, or else by where its vertices lie.

    Left is negative x in every space of surfaces. Inflated meshes may be centred at 0, so that only those are judged
    that lie `CLEARLY` on one side.
    """
    if name not in SIDES.values():
        return
    middle = float(mesh.points[:, 0].mean())
    if stated:
        looks, why = stated, f"its content (AnatomicalStructurePrimary) says {stated}"
    else:
        looks = SIDES["R" if middle > 0.0 else "L"] if abs(middle) > CLEARLY else name
        side = "right" if middle > 0.0 else "left"
        why = f"its vertices lie on the {side} (mean x {middle:.0f} mm), so that it looks like {looks}"
    if looks != name:
        raise DataError(
            f"--surface gives {mesh.name} for {name}, but {why}. Are the two sides swapped? Give each its own: "
            "--surface L=FILE R=FILE."
        )


@lru_cache(maxsize=16)
def known_mesh(space: str, side: str, size: int) -> Mesh | None:
    """Find the mesh of a hemisphere by its space and number of vertices, without a network; None: there is none.

    Parameters
    ----------
    space : str
        Label of ``space-``: fsaverage5, fsaverage, fsLR, ...
    side : {"L", "R"}
    size : int
        Vertices of the hemisphere.
    """
    family = next((name for name in TEMPLATES if space.startswith(name)), "")
    if family == "fsaverage" and size <= PACKAGED and size in FSAVERAGE:
        return _packaged(side, size)
    if not family or size not in DENSITIES:
        return None
    name = TEMPLATES[family].format(density=DENSITIES[size], side=side, surface="{surface}")
    for surface in SURFACES:
        path = template_folder() / f"tpl-{family}" / name.format(surface=surface)
        if path.is_file() and path.stat().st_size:
            return replace(read_mesh(path), name=f"{path.name} (TemplateFlow)")
    return None


def template_folder() -> Path:
    """Return where TemplateFlow keeps its files, without asking it: it writes there when it is imported."""
    return Path(os.environ.get("TEMPLATEFLOW_HOME", Path.home() / ".cache" / "templateflow"))


def packaged_folder() -> Path:
    """Return the folder of fsaverage5 in nilearn's package, whose datasets take seconds to import."""
    return Path(str(resources.files("nilearn"))) / "datasets" / "data" / "fsaverage5"


def _packaged(side: str, size: int) -> Mesh:
    """Make fsaverage5's surface in the middle of the cortex, or a coarser one, of the meshes in nilearn's package.

    A vertex of fsaverage5 has the mean place of the white and the pial surface.
    """
    folder = packaged_folder()
    word = {"L": "left", "R": "right"}[side]
    white, pial = (read_mesh(folder / f"{surface}_{word}.gii.gz") for surface in ("white", "pial"))
    points, triangles = (white.points + pial.points) / 2.0, white.triangles
    while len(points) > size:
        triangles = coarser_triangles(triangles)
        points = points[: int(triangles.max()) + 1]
    name = FSAVERAGE[size]
    of = "" if size == PACKAGED else ", the first vertices of fsaverage5"
    return Mesh(points, triangles, f"{name}, middle of its white and pial surfaces (nilearn{of})")


def coarser_triangles(triangles: NDArray[Any]) -> NDArray[np.int32]:
    """Undo one division of a mesh's triangles into four, whose new vertices come after the old ones.

    Parameters
    ----------
    triangles : ndarray of int, (4 T, 3)

    Returns
    -------
    ndarray of int32, (T, 3)
        Between old vertices: each new one lies between two of them, and each old triangle around three new ones.
    """
    n_new = 3 * len(triangles) // 8  # edges of the old mesh: 3 T / 2
    first_new = int(triangles.max()) + 1 - n_new
    old = triangles < first_new
    ends: list[set[int]] = [set() for _ in range(n_new)]
    for row, is_old in zip(triangles[old.any(axis=1)], old[old.any(axis=1)], strict=True):
        (corner,) = row[is_old]
        for vertex in row[~is_old]:
            ends[vertex - first_new].add(int(corner))
    middles = triangles[~old.any(axis=1)] - first_new
    corners = []
    for one, two, three in middles:  # each old corner is between two of the three new vertices, in turn
        corners.append([*(ends[three] & ends[one]), *(ends[one] & ends[two]), *(ends[two] & ends[three])])
    return np.array(corners, dtype=np.int32)
