"""Maps on meshes: every pixel has the value of the vertex that is nearest to it on the surface that is seen.

Which vertex a pixel shows is found once for a mesh; a picture is then one look-up, as with slices, so that a page of
many maps costs little. Meshes that nilearn has inflated are drawn so; others are smoothed until sulci open.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ibma_app.core.anatomy.structures import FSAVERAGE, Mesh, Surface
from ibma_app.images.elements.gifti import open_gifti
from ibma_app.images.elements.known_meshes import PACKAGED, packaged_folder, read_mesh

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

FSAVERAGE5 = f"{FSAVERAGE[PACKAGED]},"
"""What the name of the mesh begins with that lies inside nilearn's package, and is inflated there."""

SMOOTHINGS = 60
"""Steps by which other meshes are inflated: each moves vertices to the mean of their neighbours."""

DEPTH, LIGHT = 0.35, 0.45
"""How much darker a sulcus is than a gyrus, and what turns away than what faces the reader."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A hemisphere as it is drawn."""

    points: Floats  # (N, 3) mm
    triangles: NDArray[np.int32]  # (T, 3)
    depth: Floats  # (N,) from 0 (crown of a gyrus) to 1 (bottom of a sulcus)
    inflated: bool  # by nilearn; else by `SMOOTHINGS`


@dataclass(frozen=True, eq=False)
class View:
    """The pixels of one view of a hemisphere."""

    vertex: Indices  # (H, W) that a pixel shows; -1: none
    grey: Floats  # (H, W) from 0 (black) to 1


def mesh_to_draw(surface: Surface) -> Drawn | None:
    """Return the mesh on which a surface is drawn; None where none is known."""
    if surface.mesh is None:
        return None
    return _fsaverage5(surface.name) if surface.mesh.name.startswith(FSAVERAGE5) else inflate(surface.mesh)


@functools.cache
def _fsaverage5(name: str) -> Drawn:
    """Read a hemisphere of fsaverage5 from nilearn's package."""
    side = "right" if name.endswith("RIGHT") else "left"
    folder = packaged_folder()
    mesh = read_mesh(folder / f"infl_{side}.gii.gz")
    (sulci,) = open_gifti(folder / f"sulc_{side}.gii.gz").darrays
    return Drawn(mesh.points, mesh.triangles, _to_share(np.asarray(sulci.data, dtype=np.float64)), inflated=True)


def inflate(mesh: Mesh) -> Drawn:
    """Smooth a mesh until its sulci open; the depth is how far vertices move outwards for it."""
    size = len(mesh.points)
    one, two = mesh.pairs.T
    links = sparse.csr_array(
        (np.ones(2 * one.size), (np.concatenate([one, two]), np.concatenate([two, one]))), (size,) * 2
    )
    mean = sparse.diags_array(1.0 / np.maximum(links.sum(axis=1), 1.0)) @ links
    points = mesh.points
    for _ in range(SMOOTHINGS):
        points = 0.5 * points + 0.5 * (mean @ points)
    centre = mesh.points.mean(axis=0)
    points = centre + (points - points.mean(axis=0)) * (_radius(mesh.points) / _radius(points))
    outwards = np.linalg.norm(points - centre, axis=1) - np.linalg.norm(mesh.points - centre, axis=1)
    return Drawn(points, mesh.triangles, _to_share(outwards), inflated=False)


def _radius(points: Floats) -> float:
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _to_share(values: Floats) -> Floats:
    """Bring values to 0..1, all but the outermost twentieth."""
    low, high = np.percentile(values, [2.5, 97.5])
    share: Floats = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    return share


def look_at(mesh: Drawn, axes: tuple[int, int], towards: int, frame: tuple[Floats, float, tuple[int, int]]) -> View:
    """Find what each pixel shows of a mesh, from one side.

    Parameters
    ----------
    mesh : Drawn
    axes : (int, int)
        Axes of the world, counted from 1, that run to the right and up; negative: the other way.
    towards : int
        The axis that runs towards the reader, likewise.
    frame : (ndarray (2,), float, (int, int))
        Lower left corner in mm, mm of a pixel, and height and width in pixels.

    Returns
    -------
    View
    """
    low, step, (height, width) = frame
    across, up, near = (np.sign(axis) * mesh.points[:, abs(axis) - 1] for axis in (*axes, towards))
    place = np.stack([(across - low[0]) / step - 0.5, height - 0.5 - (up - low[1]) / step], axis=1)
    triangle, pixel, weights = _cover(place, mesh.triangles, height, width)
    corners = mesh.triangles[triangle]
    order = np.argsort((near[corners] * weights).sum(axis=1), kind="stable")  # the nearest is written last
    vertex = np.full(height * width, -1, dtype=np.intp)
    vertex[pixel[order]] = corners[order, weights[order].argmax(axis=1)]
    grey = np.zeros(height * width)
    light = 1.0 - LIGHT + LIGHT * np.abs(_normals(mesh)[:, abs(towards) - 1])
    shade = light * (1.0 - DEPTH * mesh.depth)
    grey[pixel[order]] = (shade[corners[order]] * weights[order]).sum(axis=1)
    return View(vertex.reshape(height, width), grey.reshape(height, width))


def _cover(place: Floats, triangles: NDArray[np.int32], height: int, width: int) -> tuple[Indices, Indices, Floats]:
    """List the centres of pixels that lie in each triangle: triangle, pixel (raveled), weights of the corners."""
    corners = place[triangles]  # (T, 3, 2)
    low = np.maximum(np.ceil(corners.min(axis=1)), 0).astype(np.intp)
    high = np.minimum(np.floor(corners.max(axis=1)), (width - 1, height - 1)).astype(np.intp)
    spans = np.maximum(high - low + 1, 0)
    counts = spans.prod(axis=1)
    triangle = np.repeat(np.arange(len(triangles)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    x = low[triangle, 0] + within % spans[triangle, 0]
    y = low[triangle, 1] + within // spans[triangle, 0]
    one, two, three = (corners[triangle, corner] for corner in range(3))
    first, second = two - one, three - one
    offset = np.stack([x, y], axis=1) - one
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    flat = area == 0
    area = np.where(flat, 1.0, area)
    b = (offset[:, 0] * second[:, 1] - offset[:, 1] * second[:, 0]) / area
    c = (first[:, 0] * offset[:, 1] - first[:, 1] * offset[:, 0]) / area
    weights = np.stack([1.0 - b - c, b, c], axis=1)
    inside = (weights >= -1e-9).all(axis=1) & ~flat
    return triangle[inside], (y * width + x)[inside], weights[inside]


def _normals(mesh: Drawn) -> Floats:
    """Return the normal of each vertex, (N, 3): the mean of its triangles'."""
    one, two, three = (mesh.points[mesh.triangles[:, corner]] for corner in range(3))
    faces = np.cross(two - one, three - one)
    normals = np.stack(
        [np.bincount(mesh.triangles.ravel(), np.repeat(faces[:, axis], 3), len(mesh.points)) for axis in range(3)],
        axis=1,
    )
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    unit: Floats = normals / np.maximum(lengths, 1e-12)
    return unit


SIDES = {"LEFT": (("lateral", (-2, 3), -1), ("medial", (2, 3), 1)),
         "RIGHT": (("medial", (-2, 3), -1), ("lateral", (2, 3), 1))}  # fmt: skip
"""Views of each hemisphere, in their order: name, axes to the right and up, axis towards the reader."""


@functools.lru_cache(maxsize=4)  # participants of one dataset have one mesh, of which there is a small picture, too
def views_of(meshes: tuple[tuple[str, Drawn], ...], width: int, height: int) -> list[tuple[str, View]]:
    """Draw two views of each hemisphere, all in one scale.

    Parameters
    ----------
    meshes : tuple of (str, Drawn)
        Names of the structures and their meshes.
    width, height : int
        Largest size of a view, pixels.

    Returns
    -------
    list of (str, View)
        Named as ``left, lateral``; all of one height.
    """
    planned = [
        (f"{side.lower()}, {name}", mesh, axes, towards)
        for structure, mesh in meshes
        for side, views in SIDES.items()
        if structure.endswith(side)
        for name, axes, towards in views
    ]
    boxes = []
    for _, mesh, axes, _ in planned:
        flat = np.stack([np.sign(axis) * mesh.points[:, abs(axis) - 1] for axis in axes], axis=1)
        boxes.append((flat.min(axis=0), flat.max(axis=0)))
    largest = np.max([high - low for low, high in boxes], axis=0)
    step = float(max(largest[0] / (width - 4), largest[1] / (height - 4)))
    rows, columns = (int(np.ceil(size / step)) + 4 for size in (largest[1], largest[0]))
    found = []
    for (name, mesh, axes, towards), (low, high) in zip(planned, boxes, strict=True):
        corner = (low + high) / 2.0 - step * np.array([columns, rows]) / 2.0
        found.append((name, look_at(mesh, axes, towards, (corner, step, (rows, columns)))))
    return found
