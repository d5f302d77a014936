"""Pictures of maps on elements that are listed: hemispheres on their meshes, nuclei on slices, regions as bars."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Parcels, Surface, Voxels
from ibma_app.core.grid import Grid
from ibma_app.images.spaces import has_mni152_shape, lies_in_mni152
from ibma_app.report.figures.brains.meshes import mesh_to_draw, views_of
from ibma_app.report.figures.brains.parcel_bars import draw_bars
from ibma_app.report.figures.brains.slices import BAR_HEIGHT, LABEL_HEIGHT, plan_slices
from ibma_app.report.figures.picture import Panel, Picture, Scale, draw_bar
from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]
Shown = NDArray[np.bool_]
Places = Sequence[tuple[str, tuple[float, float, float]]]

WIDTH = 940.0
VIEW_WIDTH, VIEW_HEIGHT = 376, 310  # largest size of a view, pixels
SMALL = (104, 84)
GREYS = 63
FAR = 5.0  # mm: a place that is no nearer to any element is not marked


@dataclass(frozen=True, eq=False)
class Band:
    """A row of a picture: which element each pixel shows, and what lies behind."""

    index: NDArray[np.intp]  # (H, W) among all elements; -1: none
    width: float  # in the picture's units
    height: float
    labels: tuple[tuple[float, float, str], ...]  # x, y within the band, text
    backdrop: Panel


@dataclass(frozen=True, eq=False)
class ElementPlan:
    """How maps on elements are drawn."""

    key: str
    shape: Elements
    bands: tuple[Band, ...]
    name: str
    words: str
    smooth: bool = True  # the backdrop; a mask alone has its pixels

    @property
    def backdrop(self) -> tuple[Panel, ...]:
        """What lies behind the rows, in their order."""
        return tuple(band.backdrop for band in self.bands)

    def draw(self, values: Floats, scale: Scale, text: str, shown: Shown | None = None, places: Places = ()) -> Picture:
        """Draw a map (N,), in the mask or where ``shown``, with numbers at places in mm."""
        visible = self.shape.mask if shown is None else self.shape.mask & shown
        scale = replace(scale, label=self.shape.speak(scale.label))
        caption = f"{text} {self.words}".strip()
        (first, *_), alt = self.shape.structures, f"Map of {scale.label}"
        if isinstance(first, Parcels):
            return draw_bars(first, values, visible, scale, caption)
        panels, labels, down = [], [], 0.0
        for number, band in enumerate(self.bands):
            there = band.index >= 0
            pixels = scale.index(np.where(there, values[band.index], 0.0), there & visible[band.index])
            uri, top = data_uri(encode_png(pixels, scale.palette)), down + LABEL_HEIGHT
            panels.append(Panel(uri, 0.0, top, band.width, band.height, f"{self.key}-{number}"))
            labels += [(x, down + y, words) for x, y, words in band.labels]
            down = top + band.height
        bar = draw_bar(scale, down + 10.0, WIDTH)
        marks = tuple(self._marks(places))
        return Picture(WIDTH, down + BAR_HEIGHT, tuple(panels), tuple(labels), bar, alt, caption, marks=marks)

    def _marks(self, places: Places) -> Iterator[tuple[float, float, str]]:
        """Find where places in mm are seen: x, y, text."""
        every = np.arange(self.shape.n_voxels)
        where = self.shape.places_at(every)
        for text, place in places:
            away = np.linalg.norm(where - place, axis=1)
            if not np.isfinite(away).any() or np.nanmin(away) > FAR:
                continue
            element, down = self.shape.file_order[np.nanargmin(away)], 0.0
            for band in self.bands:
                rows, columns = np.nonzero(band.index == element)
                down += LABEL_HEIGHT
                if rows.size:
                    height, width = band.index.shape
                    views = columns * len(band.labels) // width
                    best = views == np.bincount(views).argmax()  # of two views that show it, the one that shows more
                    x, y = float(columns[best].mean()) + 0.5, float(rows[best].mean()) + 0.5
                    yield x * band.width / width, down + y * band.height / height, text
                    break
                down += band.height


def plan_elements(shape: Elements, key: str, space: str | None) -> ElementPlan:
    """Plan the pictures of maps on listed elements."""
    if isinstance(shape.structures[0], Parcels):
        return ElementPlan(key, shape, (), "regions", "")
    cortex, words = _cortex_band(shape)
    slices = _slice_bands(shape, key, space)
    words += ["Nuclei on axial slices, left is left."] if slices else []
    bands = tuple(
        replace(band, backdrop=replace(band.backdrop, y=top))
        for band, top in zip((*cortex, *slices), _tops((*cortex, *slices)), strict=True)
    )
    smooth = bool(cortex) or has_mni152_shape(_space_of_nuclei(space))
    return ElementPlan(key, shape, bands, "surface" if cortex else "slices", " ".join(words), smooth)


def _space_of_nuclei(space: str | None) -> str | None:
    """Return where the voxels lie: those that go with fsLR are MNI152NLin6Asym's, by their definition."""
    return "MNI152NLin6Asym" if (space or "").startswith("fsLR") else space


def _tops(bands: Sequence[Band]) -> list[float]:
    """Return where the rows of a picture begin."""
    heights = [0.0, *(band.height + LABEL_HEIGHT for band in bands)]
    return [float(top) + LABEL_HEIGHT for top in np.cumsum(heights)[:-1]]


def _cortex_band(shape: Elements) -> tuple[tuple[Band, ...], list[str]]:
    """Plan the row of the hemispheres, and say what is seen."""
    views, words = _look_at_cortex(shape, VIEW_WIDTH, VIEW_HEIGHT)
    if not views:
        return (), words
    index, pixels = (np.concatenate(parts, axis=1) for parts in zip(*((i, p) for _, i, p in views), strict=True))
    unit = WIDTH / 4.0 / (pixels.shape[1] // len(views))
    width, height = unit * pixels.shape[1], unit * pixels.shape[0]
    labels = tuple((number * WIDTH / 4.0 + 20.0, LABEL_HEIGHT - 4.0, name) for number, (name, *_) in enumerate(views))
    backdrop = Panel(data_uri(encode_png(pixels, _greys())), 0.0, LABEL_HEIGHT, width, height)
    return (Band(index, width, height, labels, backdrop),), words


def _look_at_cortex(
    shape: Elements, width: int, height: int
) -> tuple[list[tuple[str, NDArray[np.intp], NDArray[np.uint8]]], list[str]]:
    """Return the views of the hemispheres whose mesh is known, and say what is seen.

    Each view has a name, the element that each pixel shows (-1: none) and the pixels' shades (0: none).
    """
    meshes, starts, unknown, how = [], {}, [], set()
    for structure, start in zip(shape.structures, shape.starts, strict=False):
        if isinstance(structure, Surface):
            drawn = mesh_to_draw(structure)
            if drawn is None:
                unknown.append(structure.name)
            else:
                meshes.append((structure.name, drawn))
                starts[structure.name.rpartition("_")[2].lower()] = int(start)
                how.add("inflated (fsaverage5)" if drawn.inflated else "smoothed until sulci open")
    words = [f"Not drawn, as their mesh is not known (--surface): {', '.join(unknown)}."] if unknown else []
    if not meshes:
        return [], words
    views = [
        (
            name,
            np.where(view.vertex >= 0, view.vertex + starts[name.partition(",")[0]], -1),
            np.where(view.grey > 0, 1 + np.rint((GREYS - 1) * np.clip(view.grey, 0.0, 1.0)), 0).astype(np.uint8),
        )
        for name, view in views_of(tuple(meshes), width, height)
    ]
    seen = f"The cortex, {' and '.join(sorted(how))}; each pixel has the value of its nearest vertex."
    return views, [seen, *words]


def _greys() -> NDArray[np.uint8]:
    greys = np.zeros((GREYS + 1, 4), dtype=np.uint8)
    greys[1:, :3] = np.rint(np.linspace(40, 245, GREYS))[:, None]
    greys[1:, 3] = 255
    return greys


def _slice_bands(shape: Elements, key: str, space: str | None) -> tuple[Band, ...]:
    """Plan axial slices through the structures that consist of voxels."""
    parts = [
        (one, start) for one, start in zip(shape.structures, shape.starts, strict=False) if isinstance(one, Voxels)
    ]
    if not parts:
        return ()
    box = parts[0][0].box
    element = np.full(int(np.prod(box)), -1, dtype=np.intp)
    for one, start in parts:
        element[np.ravel_multi_index(tuple(one.indices.T), one.box)] = start + np.arange(one.size)
    grid = Grid(parts[0][0].affine, (element >= 0).reshape(box))
    plan = plan_slices(grid, key, mni=lies_in_mni152(grid, _space_of_nuclei(space)))
    bands = []
    for row, panel in enumerate(plan.backdrop):
        index = np.where(plan.index[row] >= 0, element[plan.index[row]], -1)
        levels = plan.levels[row * plan.columns : (row + 1) * plan.columns]
        labels = tuple(
            (
                column * plan.tile[0] + 2.0,
                LABEL_HEIGHT - 5.0,
                f"{'z ' if not column else ''}{level:.0f}{' mm' if not column else ''}",
            )
            for column, level in enumerate(levels)
        )
        bands.append(Band(index, panel.width, panel.height, labels, panel))
    return tuple(bands)


def draw_small(shape: Elements, values: Floats, scale: Scale) -> tuple[str, ...]:
    """Draw the hemispheres from outside, small: their shades, and what of a map is shown on them, as URIs."""
    views = [view for view in _look_at_cortex(shape, *SMALL)[0] if view[0].endswith("lateral")]
    if not views:
        return ()
    index, pixels = (np.concatenate(parts, axis=1) for parts in zip(*((i, p) for _, i, p in views), strict=True))
    there = index >= 0
    found = scale.index(np.where(there, values[index], 0.0), there & (scale.passes(values) & shape.mask)[index])
    return data_uri(encode_png(pixels, _greys())), data_uri(encode_png(found, scale.palette))
