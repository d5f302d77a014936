"""Glass brains: what a map holds along each line of sight, inside an outline, with the numbers of the clusters.

The outlines are nilearn's, read as what they are (paths) and kept once in a page; the values are ours: one pixel per
voxel. Where a space has no outline, the mask's own shadow lies behind.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.images.regrid import to_world_axes, world_axes
from ibma_app.report.figures.brains.slices import BAR_HEIGHT, GREY, LABEL_HEIGHT, voxels_at, world_steps
from ibma_app.report.figures.picture import Panel, Picture, Scale, draw_bar
from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]
Place = tuple[str, tuple[float, float, float]]

WIDTH, HEIGHT = 940.0, 252.0
GAP = 10.0  # between views, in the picture's units
APART = 16.0  # two numbers nearer than this would cover each other


@dataclass(frozen=True)
class View:
    """A line of sight: what is to the right and up (axis of the world), and which half of the brain is seen."""

    name: str
    outline: str  # file of nilearn's
    through: int
    right: int
    up: int
    mirrored: bool = False
    half: int = 0  # -1: left of the midline alone, 1: right of it alone
    transform: tuple[float, float, float, float] = (0.0,) * 4  # outline to mm: scales, shifts


VIEWS = (
    View("left", "side", 0, 1, 2, mirrored=True, half=-1, transform=(0.38, 0.38, -108.0, -70.0)),
    View("from behind", "back", 1, 0, 2, transform=(0.39, 0.39, -73.0, -73.0)),
    View("right", "side", 0, 1, 2, half=1, transform=(0.38, 0.38, -108.0, -70.0)),
    View("from above", "top", 2, 0, 1, transform=(0.36, 0.37, -71.0, -107.0)),
)
"""Left and right hemisphere from their sides, both from behind and from above: nilearn's ``lyrz``."""


@dataclass(frozen=True)
class Frame:
    """Where a view lies in the picture, and which millimetres it shows."""

    view: View
    x: float
    low: tuple[float, float]  # mm to the right and up
    high: tuple[float, float]
    unit: float  # of the picture, per mm
    bottom: float

    def at(self, right: float, up: float) -> tuple[float, float]:
        """The place of millimetres in the picture."""
        across = self.high[0] - right if self.view.mirrored else right - self.low[0]
        return self.x + self.unit * across, self.bottom - self.unit * (up - self.low[1])


@dataclass(frozen=True)
class Outline:
    """The outlines of the four views in the picture's units: what a page keeps once."""

    key: str
    paths: tuple[tuple[str, float], ...]  # d, width of the line


OUTLINE_KEY = "glass-brain"


def draw_glass(
    grid: Grid, volume: Floats, scale: Scale, caption: str, *, mni: bool, places: Sequence[Place] = ()
) -> Picture:
    """Draw maximum-intensity projections of a map, and numbers where its clusters are.

    Parameters
    ----------
    grid : Grid
    volume : (X, Y, Z) array
    scale : Scale
        Values beyond its threshold are shown.
    caption : str
    mni : bool
        The grid lies in a space that the outline fits.
    places : sequence of (str, (x, y, z))
        Text and place in mm of what is marked, the most important first.
    """
    shown = np.where(grid.mask & scale.passes(volume), volume, 0.0)
    values, seen, low, steps = _along_the_world(grid, shown)
    high = low + steps * values.shape
    frames = glass_frames() if mni else _frames_of(low, high)
    panels: list[Panel] = []
    for frame in frames:
        panels += _panels(frame, values, seen, scale, low, steps, shadow=not mni)
    bottom = max(frame.bottom for frame in frames)
    width = max(WIDTH if mni else frames[-1].at(*frames[-1].high)[0], 320.0)
    return Picture(
        width=width,
        height=bottom + BAR_HEIGHT,
        panels=tuple(panels),
        labels=_labels(frames, mni=mni),
        bar=draw_bar(scale, bottom + 10.0, width),
        alt=f"{'Glass brain' if mni else 'Projections'} of {scale.label}",
        caption=caption,
        outline=OUTLINE_KEY if mni else "",
        marks=_marks(frames, places),
    )


@functools.cache
def glass_frames() -> tuple[Frame, ...]:
    """Lay out nilearn's four views beside each other."""
    bounds = {view.outline: json.loads(_read_outline(view.outline))["metadata"]["bounds"] for view in VIEWS}
    boxes = []
    for view in VIEWS:
        (a, b, c, d), (left, right, down, up) = view.transform, bounds[view.outline]
        boxes.append(((a * left + c - 2.0, b * down + d - 2.0), (a * right + c + 2.0, b * up + d + 2.0)))
    return _lay_out(VIEWS, boxes, WIDTH)


def _frames_of(low: Floats, high: Floats) -> tuple[Frame, ...]:
    """Lay out three views of a grid: from the right, from behind and from above."""
    views = (
        View("from the right", "", 0, 1, 2),
        View("from behind", "", 1, 0, 2),
        View("from above", "", 2, 0, 1),
    )
    boxes = [
        ((float(low[v.right]), float(low[v.up])), (float(high[v.right]), float(high[v.up])))
        for v in views
    ]  # fmt: skip
    return _lay_out(views, boxes, 0.75 * WIDTH)


def _lay_out(
    views: Sequence[View], boxes: Sequence[tuple[tuple[float, float], tuple[float, float]]], width: float
) -> tuple[Frame, ...]:
    """Place views side by side in one scale, their lower edges on one line."""
    spans = [(high[0] - low[0], high[1] - low[1]) for low, high in boxes]
    room = width - GAP * (len(views) - 1)
    unit = min(room / sum(span[0] for span in spans), (HEIGHT - LABEL_HEIGHT) / max(span[1] for span in spans))
    bottom, x, frames = LABEL_HEIGHT + unit * max(span[1] for span in spans), 0.0, []
    for view, (low, high), span in zip(views, boxes, spans, strict=True):
        frames.append(Frame(view, x, low, high, unit, bottom))
        x += max(unit * span[0], 0.0 if view.outline else 90.0) + GAP
    return tuple(frames)


def _read_outline(name: str) -> str:
    folder = files("nilearn") / "plotting" / "glass_brain_files"
    return (folder / f"brain_schematics_{name}.json").read_text(encoding="utf-8")


@functools.cache
def glass_outline() -> Outline:
    """Return nilearn's outlines as SVG paths, one for each width of line."""
    drawn: dict[float, list[str]] = {}
    for frame in glass_frames():
        scale_x, scale_y, shift_x, shift_y = frame.view.transform
        for path in json.loads(_read_outline(frame.view.outline))["paths"]:
            width = 0.9 if float(path["linewidth"]) > 1.0 else 0.5
            for item in path["items"]:
                points = [frame.at(scale_x * x + shift_x, scale_y * y + shift_y) for x, y in item["pts"]]
                letter = {2: "L", 3: "Q", 4: "C"}[len(points)]
                start, *rest = (f"{x:.1f} {y:.1f}" for x, y in points)
                drawn.setdefault(width, []).append(f"M{start}{letter}{' '.join(rest)}")
    return Outline(OUTLINE_KEY, tuple(("".join(parts), width) for width, parts in drawn.items()))


def _along_the_world(grid: Grid, volume: Floats) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
    """Turn a map so that its axes run to the right, forward and up: values, mask, lowest edge and steps in mm."""
    steps = world_steps(grid.affine)
    turned = np.zeros((3, 3))
    turned[world_axes(grid.affine), np.arange(3)] = 1.0
    if np.allclose(np.abs(grid.affine[:3, :3]), turned * steps[:, None], atol=1e-3 * float(steps.min())):
        corners = np.array([[0, 0, 0], np.array(grid.shape) - 1]) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        low = corners.min(axis=0) - steps / 2
        return to_world_axes(volume, grid.affine), to_world_axes(grid.mask, grid.affine), low, steps
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in grid.shape])).reshape(3, -1).T
    mm = corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    low = mm.min(axis=0) - steps / 2
    axes = [np.arange(a, b, step) + step / 2 for a, b, step in zip(low, mm.max(axis=0) + steps / 2, steps, strict=True)]
    index = voxels_at(grid, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    values = np.where(index >= 0, volume.ravel()[index], 0.0)
    return values, (index >= 0) & grid.mask.ravel()[index], low, steps


def _panels(
    frame: Frame, values: Floats, seen: NDArray[np.bool_], scale: Scale, low: Floats, steps: Floats, *, shadow: bool
) -> list[Panel]:
    """Project one view: the value farthest from 0 (of one direction: the largest) along each line of sight."""
    view = frame.view
    if view.half:
        middle = low[0] + steps[0] * (np.arange(values.shape[0]) + 0.5)
        values = np.where((view.half * middle > -steps[0] / 4)[:, None, None], values, 0.0)
    sizes = np.abs(values) if scale.signed else values
    farthest = np.expand_dims(sizes.argmax(axis=view.through), view.through)
    flat = np.take_along_axis(values, farthest, axis=view.through).squeeze(view.through).T[::-1]
    behind = np.asarray(seen.any(axis=view.through)).T[::-1]
    pixels = scale.index(flat, flat != 0)
    if view.mirrored:
        pixels, behind = pixels[:, ::-1], behind[:, ::-1]
    left, right = low[view.right], low[view.right] + steps[view.right] * values.shape[view.right]
    x, y = frame.at(right if view.mirrored else left, low[view.up] + steps[view.up] * values.shape[view.up])
    width, height = frame.unit * (right - left), frame.unit * steps[view.up] * values.shape[view.up]
    drawn = [data_uri(encode_png(pixels, scale.palette))]
    if shadow:
        drawn.insert(0, data_uri(encode_png(behind.astype(np.uint8), GREY)))
    return [Panel(uri, x, y, width, height) for uri in drawn]


def project_from_above(grid: Grid, volume: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Project a map from above: the value farthest from 0 along each line of sight, and the mask's shadow; (H, W)."""
    values, seen, _, _ = _along_the_world(grid, volume)
    farthest = np.expand_dims(np.abs(values).argmax(axis=2), 2)
    flat = np.take_along_axis(values, farthest, axis=2).squeeze(2)
    return flat.T[::-1], np.asarray(seen.any(axis=2)).T[::-1]


def _labels(frames: Sequence[Frame], *, mni: bool) -> tuple[tuple[float, float, str], ...]:
    """Name the views, and left and right where both can be seen."""
    labels = []
    for frame in frames:
        left, right = frame.at(frame.low[0], frame.low[1])[0], frame.at(frame.high[0], frame.low[1])[0]
        labels.append((min(left, right), LABEL_HEIGHT - 5.0, frame.view.name))
        if mni and frame.view.right == 0:
            labels += [(left, frame.bottom - 2.0, "L"), (right - 8.0, frame.bottom - 2.0, "R")]
    return tuple(labels)


def _marks(frames: Sequence[Frame], places: Sequence[Place]) -> tuple[tuple[float, float, str], ...]:
    """Place numbers in every view that shows their cluster, unless another number stands there."""
    marks: list[tuple[float, float, str]] = []
    for frame in frames:
        own: list[tuple[float, float]] = []
        for text, xyz in places:
            x, y = frame.at(xyz[frame.view.right], xyz[frame.view.up])
            if frame.view.half * xyz[0] < 0 or any(abs(x - a) + abs(y - b) < APART for a, b in own):
                continue
            own.append((x, y))
            marks.append((x, y, text))
    return tuple(marks)
