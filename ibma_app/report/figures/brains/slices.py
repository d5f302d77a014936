"""Pictures of maps: slice mosaics.

Slices are our own rather than nilearn.plotting's: one nearest-voxel look-up per
picture (50 ms instead of seconds), any affine, and grids of ten voxels a side as
well as whole brains. The template is stored once per page, and lies behind the
transparent voxels of the pictures.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.images.mni_masks import mni_template
from ibma_app.images.regrid import world_axes
from ibma_app.report.figures.picture import Panel, Picture, Scale, draw_bar
from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]

N_TILES = 14
TILES_PER_ROW = 7
TILE_WIDTH, TILE_HEIGHT = 138.0, 190.0  # largest size of a tile, in the picture's own units
LABEL_HEIGHT, BAR_HEIGHT, GAP = 18.0, 46.0, 4.0
MOST_CUTS = 14
ROW_OF_CUTS = 7  # so many are drawn where the clusters have them, few as they may be
APART = 2  # slices between one that is added and its neighbours, at least
MOST_PIXELS = 160  # of a tile's side: finer grids are thinned

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SlicePlan:
    """The axial slices of a grid: chosen once, used for every map on it."""

    key: str
    grid: Grid
    index: NDArray[np.intp]  # (rows, H, columns * W) raveled voxel, -1 outside of the grid
    levels: tuple[float, ...]  # z in mm of each tile
    columns: int
    tile: tuple[float, float]  # width, height in the picture's units
    backdrop: tuple[Panel, ...]
    mni: bool
    cut: bool = False  # the slices were chosen by what they show
    name = "slices"
    words = "Axial slices, left is left; pixels are voxels."

    @property
    def shape(self) -> Grid:
        """What the maps lie on."""
        return self.grid

    @property
    def smooth(self) -> bool:
        """Whether the backdrop is drawn smoothly."""
        return self.mni

    def draw(self, values: Floats, scale: Scale, text: str, shown: NDArray[np.bool_] | None = None) -> Picture:
        """Draw a map (X, Y, Z); what the slices are is added to the text."""
        return draw_mosaic(self, values, scale, f"{text} {self.words}", shown)


@functools.cache
def load_template() -> tuple[Floats, Floats]:
    """Load nilearn's MNI152 brain at 1 mm: volume (X, Y, Z) from 0 to 1, inverse affine (4, 4)."""
    template = mni_template()
    return template.volume.astype(np.float64), np.asarray(np.linalg.inv(template.affine), dtype=np.float64)


def plan_slices(grid: Grid, key: str = "backdrop", *, mni: bool = False, cuts: Sequence[float] = ()) -> SlicePlan:
    """Choose axial slices through the mask, and draw the background of the maps.

    With ``cuts`` (mm, rising) the slices are those. Pixels are voxels (nearest
    neighbour) unless the grid is rotated: no shown value is interpolated.
    """
    voxels = np.argwhere(grid.mask if grid.mask.any() else np.ones(grid.shape, dtype=bool))
    mm = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    low, high, step = mm.min(axis=0), mm.max(axis=0), world_steps(grid.affine)
    n_levels = int(round((high[2] - low[2]) / step[2])) + 1
    margin = 0.06 if n_levels > N_TILES else 0.0  # the outermost slices hold little
    chosen = np.linspace(margin, 1 - margin, min(N_TILES, n_levels)) * (n_levels - 1)
    levels = np.asarray(cuts) if cuts else low[2] + step[2] * np.unique(np.rint(chosen))
    n_rows = -(-len(levels) // TILES_PER_ROW)
    columns = -(-len(levels) // n_rows)

    step = np.maximum(step, (high - low + step) / MOST_PIXELS)
    xs, ys = (_axis_with_margin(low[axis], high[axis], step[axis]) for axis in (0, 1))
    width, height = len(xs) * step[0], len(ys) * step[1]
    scale = min(TILE_WIDTH / width, TILE_HEIGHT / height)
    plan = SlicePlan(
        key=key,
        grid=grid,
        index=voxels_at(grid, _tile_points(xs, ys, levels, n_rows, columns)),
        levels=tuple(float(level) for level in levels),
        columns=columns,
        tile=(scale * width, scale * height),
        backdrop=(),
        mni=mni,
        cut=bool(cuts),
    )
    edges = (xs[0] - step[0] / 2, xs[-1] + step[0] / 2, ys[0] - step[1] / 2, ys[-1] + step[1] / 2)
    backdrop = _template_rows(plan, edges) if mni else _mask_rows(plan)
    return SlicePlan(**{**plan.__dict__, "backdrop": backdrop})


def draw_mosaic(
    plan: SlicePlan,
    volume: Floats,
    scale: Scale,
    caption: str,
    shown: NDArray[np.bool_] | None = None,
) -> Picture:
    """Draw a map (X, Y, Z) on the plan's slices, where ``shown`` (default: in the mask)."""
    visible = plan.grid.mask if shown is None else plan.grid.mask & shown
    inside = plan.index >= 0
    values = np.where(inside, volume.ravel()[plan.index], 0.0)
    seen = inside & visible.ravel()[plan.index]
    panels = _row_panels(plan, scale.index(values, seen), scale.palette, with_backdrop=True)
    width, height = plan.columns * plan.tile[0], panels[-1].y + panels[-1].height
    return Picture(
        width=max(width, 320.0),
        height=height + BAR_HEIGHT,
        panels=panels,
        labels=_tile_labels(plan),
        bar=draw_bar(scale, height + 10.0, max(width, 320.0)),
        alt=f"Axial slices of {scale.label}",
        caption=caption,
    )


GREY = np.array([[0, 0, 0, 0], [128, 135, 144, 70]], dtype=np.uint8)
"""Colours of a mask without a template behind it."""


def world_steps(affine: Floats) -> Floats:
    """Voxel size along the world axis that each grid axis is nearest to: (3,) mm."""
    steps = np.empty(3)
    steps[world_axes(affine)] = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return steps


def _axis_with_margin(low: float, high: float, step: float) -> Floats:
    """Pixel centres from low to high, and about 6 mm (at least one, at most a tenth) beyond."""
    count = int(round((high - low) / step)) + 1
    margin = max(1, min(int(6.0 / step), count // 10))
    return np.asarray(low + step * np.arange(-margin, count + margin), dtype=np.float64)


def _tile_points(xs: Floats, ys: Floats, levels: Floats, n_rows: int, columns: int) -> Floats:
    """World coordinates of every pixel: (rows, H, columns * W, 3); NaN where there is no tile."""
    points = np.full((n_rows, len(ys), columns * len(xs), 3), np.nan)
    for tile, level in enumerate(levels):
        row, column = divmod(tile, columns)
        part = points[row, :, column * len(xs) : (column + 1) * len(xs)]
        part[..., 0], part[..., 1], part[..., 2] = xs[None, :], ys[::-1, None], level
    return points


def voxels_at(grid: Grid, points: Floats) -> NDArray[np.intp]:
    """Nearest voxel of world points (..., 3), raveled; -1 outside of the grid."""
    inverse = np.linalg.inv(grid.affine)
    known = np.isfinite(points[..., 0])
    found = np.rint(np.nan_to_num(points) @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.intp)
    inside = known & np.all((found >= 0) & (found < grid.shape), axis=-1)
    held = np.where(inside[..., None], found, 0)
    return np.where(inside, np.ravel_multi_index(tuple(np.moveaxis(held, -1, 0)), grid.shape), -1)


def _row_panels(
    plan: SlicePlan, pixels: NDArray[np.uint8], palette: NDArray[np.uint8], *, with_backdrop: bool
) -> tuple[Panel, ...]:
    """Encode rows of tiles (rows, H, columns * W), one under the other."""
    height = plan.tile[1] + LABEL_HEIGHT + GAP
    return tuple(
        Panel(
            uri=data_uri(encode_png(line, palette)),
            x=0.0,
            y=row * height + LABEL_HEIGHT,
            width=plan.columns * plan.tile[0],
            height=plan.tile[1],
            backdrop=f"{plan.key}-{row}" if with_backdrop else "",
        )
        for row, line in enumerate(pixels)
    )


def _mask_rows(plan: SlicePlan) -> tuple[Panel, ...]:
    """The mask as a grey shape, where no template fits the space."""
    seen = (plan.index >= 0) & plan.grid.mask.ravel()[plan.index]
    return _row_panels(plan, seen.astype(np.uint8), GREY, with_backdrop=False)


def _template_rows(plan: SlicePlan, edges: Sequence[float]) -> tuple[Panel, ...]:
    """The MNI152 template on the plan's slices, at about 1.25 mm."""
    from scipy.ndimage import map_coordinates

    volume, inverse = load_template()
    left, right, back, front = edges
    counts = [max(2, int(round(min(span / 1.25, MOST_PIXELS)))) for span in (right - left, front - back)]
    xs = left + (right - left) * (np.arange(counts[0]) + 0.5) / counts[0]
    ys = back + (front - back) * (np.arange(counts[1]) + 0.5) / counts[1]
    n_rows = plan.index.shape[0]
    points = _tile_points(xs, ys, np.asarray(plan.levels), n_rows, plan.columns)
    where = np.nan_to_num(points, nan=1e6) @ inverse[:3, :3].T + inverse[:3, 3]
    light = map_coordinates(volume, np.moveaxis(where, -1, 0), order=1, mode="constant", cval=0.0)
    pixels = np.where(light > 0.05, 1 + np.rint(62 * np.clip(light, 0, 1)), 0).astype(np.uint8)
    greys = np.zeros((64, 4), dtype=np.uint8)
    greys[1:, :3] = np.rint(np.linspace(70, 235, 63))[:, None]
    greys[1:, 3] = 255
    return _row_panels(plan, pixels, greys, with_backdrop=False)


def _tile_labels(plan: SlicePlan) -> tuple[tuple[float, float, str], ...]:
    """Heights of the slices; the first says too which side is left."""
    whole = all(abs(level - round(level)) < 0.05 for level in plan.levels)
    labels = []
    for tile, level in enumerate(plan.levels):
        row, column = divmod(tile, plan.columns)
        y = row * (plan.tile[1] + LABEL_HEIGHT + GAP) + LABEL_HEIGHT - 5.0
        text = (f"{round(level):d}" if whole else f"{level:.1f}").replace("-", "−")
        labels.append((column * plan.tile[0] + 2.0, y, f"z {text} mm" if tile == 0 else text))
    return tuple(labels)


def find_cuts(grid: Grid, found: NDArray[np.bool_], z: Floats) -> tuple[float, ...]:
    """Choose axial slices through clusters: each one's peak, in their order, unless a slice shows the cluster already.

    Parameters
    ----------
    grid : Grid
    found : (X, Y, Z) array of bool
        What is significant.
    z : (X, Y, Z) array

    Returns
    -------
    tuple of float
        z in mm, rising: at most `MOST_CUTS`; empty where nothing was found.
    """
    from scipy.ndimage import label

    voxels = np.argwhere(found)
    if not len(voxels):
        return ()
    heights = voxels @ grid.affine[2, :3] + grid.affine[2, 3]
    step = float(np.abs(grid.affine[2, :3]).max())
    low = heights.min()
    slices = np.rint((heights - low) / step).astype(np.int64)
    clusters = label(found, np.ones((3, 3, 3)))[0][found]
    sizes = np.abs(z[found])
    chosen: list[int] = []
    shown: set[int] = set()
    for index in np.argsort(-sizes, kind="stable"):
        if len(chosen) == MOST_CUTS:
            break
        if clusters[index] not in shown:
            chosen.append(int(slices[index]))
            shown.update(clusters[slices == slices[index]].tolist())
    counts = np.bincount(slices)
    for one in np.argsort(-counts, kind="stable").tolist():
        if len(chosen) >= ROW_OF_CUTS or counts[one] == 0:
            break
        if min(abs(one - other) for other in chosen) > APART:
            chosen.append(one)
    return tuple(float(low + step * one) for one in sorted(chosen))


def choose_slices(grid: Grid) -> tuple[tuple[float, ...], NDArray[np.int32]]:
    """Choose a row of axial slices: their heights in mm, and the voxels of the mask that they show (raveled)."""
    every = plan_slices(grid).levels
    picked = np.unique(np.rint(np.linspace(0, len(every) - 1, min(TILES_PER_ROW + 2, len(every)))).astype(np.int64))
    inner = picked[1:-1] if len(picked) > TILES_PER_ROW else picked
    levels = tuple(every[index] for index in inner)
    plan = plan_slices(grid, cuts=levels)
    shown = np.unique(plan.index[plan.index >= 0])
    return levels, shown[grid.mask.ravel()[shown]].astype(np.int32)
