"""The data of the interactive viewer: maps as blocks of the page, and their description.

All is read from the maps on disk. Where a page would become too large, a viewer
gets every second, third, ... voxel and says so.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.images.spaces import lies_in_mni152
from ibma_app.report.figures.brains.slices import load_template, world_steps
from ibma_app.report.figures.embed import (
    Codes,
    EmbeddedBlocks,
    pack_bits,
    pack_bytes,
    pack_codes,
    quantise,
    quantise_logs,
)
from ibma_app.report.figures.picture import Scale, palette_of, positive_scale, scale_of_z, signed_scale
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import InferenceNumbers, critical_values

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
class Viewer:
    """One viewer of a page."""

    config: str  # JSON
    note: str  # a remark for the reader
    interval: str  # what ± stands for; "": there is none
    height: str  # what the threshold is compared with: "|z|", or "z" where it has no direction


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
        None when there is no z map, or no room left in the page.
    """
    whole = maps.grid.box
    if whole is None or maps.path("z") is None or not whole.n_voxels:
        return None
    for stride in STRIDES:
        limit = limits.whole if stride == 1 else limits.most
        grid = thin_grid(whole, stride)
        if embedded.size + LEAST_BYTES * grid.n_voxels > limit:
            continue
        parts = _embed(maps, inferences, grid, stride, units)
        parts = replace(parts, backdrop=_pack_template() if lies_in_mni152(whole, space) else None)
        if embedded.size + embedded.weigh(*parts.contents) <= limit:
            return _place(parts, embedded, grid, stride)
    return None


def thin_grid(grid: Grid, stride: int) -> Grid:
    """Return the grid of every ``stride``-th voxel along each axis."""
    scale = np.diag([float(stride)] * 3 + [1.0])
    return Grid(affine=grid.affine @ scale, mask=grid.mask[::stride, ::stride, ::stride])


@dataclass(frozen=True, eq=False)
class _Parts:
    """The packed data of one viewer, before it is known whether they fit into the page."""

    maps: list[dict[str, Any]]  # "content" is packed data, later replaced by the id of its block
    shown: list[dict[str, Any]]
    half: dict[str, Any] | None
    top: float
    signed: bool  # z has a direction
    start: list[float]
    mask: bytes
    backdrop: bytes | None = None

    @property
    def contents(self) -> list[bytes]:
        """All packed contents."""
        parts = (*self.maps, *self.shown, *([self.half] if self.half else []))
        palettes = [_pack_palette(part["palette"]) for part in self.maps]
        found = [self.mask, *(part["content"] for part in parts), *palettes]
        return [*found, self.backdrop] if self.backdrop else found


def _embed(maps: ResultMaps, inferences: Sequence[InferenceNumbers], grid: Grid, stride: int, units: str) -> _Parts:
    """Pack z, effect, n, the intervals' half widths, and where each inference finds something."""

    def thinned(kind: str, inference: str = "") -> Floats | None:
        volume = maps.volume(kind, inference)
        return None if volume is None else volume[::stride, ::stride, ::stride][grid.mask]

    z, effect, n = thinned("z"), thinned("effect"), thinned("n")
    assert z is not None  # checked by view_maps
    unit = "" if units == "unknown" else units
    signed = not maps.test.is_f
    layers = [_pack_map("z", z, scale_of_z(z, signed=signed))]
    half = None
    if effect is not None:
        label = f"effect ({unit or 'units unknown'})"
        layers.append(_pack_map("effect", effect, signed_scale(effect, label, outliers=True), unit))
        variance = thinned("variance")
        if variance is not None:
            whole = np.zeros(maps.grid.shape)
            whole[maps.grid.mask] = critical_values(maps, maps.grid.mask)
            critical = whole[::stride, ::stride, ::stride][grid.mask]
            half = _with_codes(quantise_logs(critical * np.sqrt(np.maximum(variance, 0.0))))
    if n is not None:
        layers.append(_pack_map("n", n, positive_scale(n, "maps at the voxel (n)", high=float(n.max()))))
    shown = []
    for row in inferences:
        passed = thinned("mask", row.name)
        if passed is not None and row.n_significant and np.any(passed > 0):
            label = f"{row.name}, {row.n_significant:,} voxels"
            least = float(np.abs(z[passed > 0]).min())
            shown.append({"name": row.name, "label": label, "least": least, "content": pack_bits(passed > 0)})
    sizes = np.abs(z) if signed else z
    first = np.argwhere(grid.mask)[int(np.argmax(sizes))]
    start = (grid.affine @ np.append(first, 1.0))[:3]
    top = max(float(sizes.max()), 0.0)
    return _Parts(layers, shown, half, top, signed, start.tolist(), pack_bits(grid.mask))


def _pack_map(key: str, values: Floats, scale: Scale, units: str = "") -> dict[str, Any]:
    """Pack a map (V,) with its colours."""
    codes = quantise(values)
    if np.array_equal(values, np.rint(values)) and np.abs(values).max(initial=0.0) <= 32767:  # counts stay exact
        codes = Codes(values.astype(np.int16), 1.0)
    return {
        "key": key,
        "label": scale.label,
        "units": units,
        "low": scale.low,
        "high": scale.high,
        "palette": scale.colours,
        **_with_codes(codes),
    }


def _with_codes(codes: Codes) -> dict[str, Any]:
    return {"step": codes.step, "unit": codes.unit, "content": pack_codes(codes.codes)}


def _place(parts: _Parts, embedded: EmbeddedBlocks, grid: Grid, stride: int) -> Viewer:
    """Add the packed parts to the page, and describe them for the script."""

    def placed(part: dict[str, Any]) -> dict[str, Any]:
        return {
            **{key: value for key, value in part.items() if key != "content"},
            "block": embedded.put(part["content"]),
        }

    config = {
        "shape": grid.shape,
        "affine": grid.affine[:3].tolist(),
        **_describe_box(grid),
        "mask": embedded.put(parts.mask),
        "maps": [{**placed(part), "palette": embedded.put(_pack_palette(part["palette"]))} for part in parts.maps],
        "shown": [placed(part) for part in parts.shown],
        "half": placed(parts.half) if parts.half else None,
        "top": parts.top,
        "signed": parts.signed,
        "start": parts.start,
        "backdrop": ({**_describe_template(), "block": embedded.put(parts.backdrop)} if parts.backdrop else None),
    }
    ordinal = {1: "", 2: "second", 3: "third", 4: "fourth"}.get(stride, f"{stride}th")
    note = f"To keep the page small, the viewer has every {ordinal} voxel along each axis. " if stride > 1 else ""
    interval = "± is the 95 % interval of the effect, for one voxel named beforehand." if parts.half else ""
    height = "|z|" if parts.signed else "z"
    return Viewer(json.dumps(config, ensure_ascii=True, allow_nan=False), note, interval, height)


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
def _pack_palette(name: str) -> bytes:
    """255 colours of red, green and blue each."""
    return pack_bytes(palette_of(name)[1:, :3])


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
