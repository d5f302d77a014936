"""The data of the interactive viewer: maps as blocks of the page, and their description.

All is read from the maps on disk. Where a page would become too large, a viewer
gets every second, third, ... voxel and says so.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.grid import Grid
from ibma_app.images.spaces import lies_in_mni152
from ibma_app.report.figures.brains.slices import load_template, world_steps
from ibma_app.report.figures.embed import (
    EmbeddedBlocks,
    pack_bytes,
)
from ibma_app.report.figures.layers import Parts, Viewer, embed_layers, interval_words, place_layers
from ibma_app.report.figures.mesh_viewer import view_meshes
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import InferenceNumbers

Floats = NDArray[np.float64]

WHOLE_BYTES = 6_000_000
"""Of a group page: viewers get every voxel as long as all fit into this size."""

MOST_BYTES = 8_000_000
"""Of a group page, for all viewers together."""

PARTICIPANT_BYTES = 2_000_000
"""Of a participant's page: there may be thousands."""

STRIDES = (1, 2, 3, 4, 6)

LEAST_BYTES = 1.2
"""Characters that a voxel takes at least, for all maps together: grids that cannot fit are skipped."""

MARGIN = 6.0
"""Millimetres shown around the mask."""

BACKDROP_STEP = 2
"""Voxels of the 1 mm template that become one voxel of the backdrop, along each axis."""

BACKDROP_LEVELS = 48


@dataclass(frozen=True)
class Limits:
    """Characters of a page that viewers may take: with every voxel, and thinned."""

    whole: int = WHOLE_BYTES
    most: int = MOST_BYTES


GROUP_LIMITS = Limits()
PARTICIPANT_LIMITS = Limits(PARTICIPANT_BYTES, PARTICIPANT_BYTES)


def view_maps(
    maps: ResultMaps,
    inferences: Sequence[InferenceNumbers],
    embedded: EmbeddedBlocks,
    units: str,
    space: str | None,
    limits: Limits = GROUP_LIMITS,
) -> Viewer | None:
    """Embed one test's maps into the page.

    Parameters
    ----------
    maps : ResultMaps
    inferences : sequence of InferenceNumbers
        Each that found something can be chosen as what is shown.
    embedded : EmbeddedBlocks
        The page's blocks, which this adds to.
    units : str
        Of the effect.
    space : str or None
        Where the MNI152 brain fits the space, it is drawn behind the maps.
    limits : Limits

    Returns
    -------
    Viewer or None
        None when there is no z map, nothing to draw it on, or no room left in the page.
    """
    if isinstance(maps.grid, Elements):
        return view_meshes(maps, inferences, embedded, units, maps.grid, limits.whole)
    whole = maps.grid.box
    if maps.path("z") is None or not whole.n_voxels:
        return None
    for stride in STRIDES:
        limit = limits.whole if stride == 1 else limits.most
        grid = thin_grid(whole, stride)
        if embedded.size + LEAST_BYTES * grid.n_voxels > limit:
            continue
        parts = embed_layers(maps, inferences, partial(_thin, stride=stride, mask=grid.mask), grid.mask, units)
        parts = replace(parts, backdrop=_pack_template() if lies_in_mni152(whole, space) else None)
        if embedded.size + embedded.weigh(*parts.contents) <= limit:
            return _place(parts, embedded, grid, stride)
    return None


def thin_grid(grid: Grid, stride: int) -> Grid:
    """Return the grid of every ``stride``-th voxel along each axis."""
    scale = np.diag([float(stride)] * 3 + [1.0])
    return Grid(affine=grid.affine @ scale, mask=grid.mask[::stride, ::stride, ::stride])


def _thin(volume: Floats, stride: int, mask: NDArray[np.bool_]) -> Floats:
    return volume[::stride, ::stride, ::stride][mask]


def _place(parts: Parts, embedded: EmbeddedBlocks, grid: Grid, stride: int) -> Viewer:
    """Add the packed parts to the page, and describe them for the script."""
    config = {
        "shape": grid.shape,
        "affine": grid.affine[:3].tolist(),
        **_describe_box(grid),
        **place_layers(parts, embedded),
        "start": (grid.affine @ np.append(np.argwhere(grid.mask)[parts.first], 1.0))[:3].tolist(),
        "backdrop": ({**_describe_template(), "block": embedded.put(parts.backdrop)} if parts.backdrop else None),
    }
    ordinal = {1: "", 2: "second", 3: "third", 4: "fourth"}.get(stride, f"{stride}th")
    note = f"To keep the page small, the viewer has every {ordinal} voxel along each axis. " if stride > 1 else ""
    height = "|z|" if parts.signed else "z"
    return Viewer(json.dumps(config, ensure_ascii=True, allow_nan=False), note, interval_words(parts), height)


def _describe_box(grid: Grid) -> dict[str, Any]:
    """What the slices show: the mask's box in mm (its edges), about 6 mm more on each side, and the pixels' size."""
    mm = np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    steps = world_steps(grid.affine)
    margin = (np.maximum(1, np.rint(MARGIN / steps)) + 0.5) * steps
    return {
        "low": (mm.min(axis=0) - margin).tolist(),
        "high": (mm.max(axis=0) + margin).tolist(),
        "steps": steps.tolist(),
    }


@functools.cache
def _thin_template() -> NDArray[np.uint8]:
    """The MNI152 brain as grey levels, 0 outside of it: means of blocks."""
    volume, _ = load_template()
    step = BACKDROP_STEP
    x, y, z = (size // step for size in volume.shape)
    blocks = volume[: x * step, : y * step, : z * step].reshape(x, step, y, step, z, step).mean(axis=(1, 3, 5))
    return np.where(blocks > 0.05, 1 + np.rint(blocks * (BACKDROP_LEVELS - 2)), 0).astype(np.uint8)


@functools.cache
def _pack_template() -> bytes:
    return pack_bytes(_thin_template())


def _describe_template() -> dict[str, Any]:
    """Shape, affine and levels of the backdrop; a block's centre is the mean of its voxels'."""
    _, inverse = load_template()
    step = float(BACKDROP_STEP)
    scale = np.diag([step, step, step, 1.0])
    scale[:3, 3] = (step - 1) / 2
    return {
        "shape": _thin_template().shape,
        "affine": (np.linalg.inv(inverse) @ scale)[:3].tolist(),
        "levels": BACKDROP_LEVELS,
    }
