"""How the maps of a page are drawn: chosen here alone, by what they lie on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.results import MapSlices
from ibma_app.images.spaces import lies_in_mni152
from ibma_app.report.figures.brains.cortex import draw_cortex
from ibma_app.report.figures.brains.element_plan import ElementPlan, draw_small, plan_elements
from ibma_app.report.figures.brains.glass import Place, draw_glass, project_from_above
from ibma_app.report.figures.brains.slices import BAR_HEIGHT, GREY, SlicePlan, choose_slices, find_cuts, plan_slices
from ibma_app.report.figures.embed import EmbeddedBlocks
from ibma_app.report.figures.picture import Panel, Picture, Scale, draw_bar, signed_scale
from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]
Shown = NDArray[np.bool_]

MOST_ROWS = 12  # of runs beside each other
NAME_HEIGHT = 20.0


class PicturePlan(Protocol):
    """How every map of one shape is drawn: made once for a page."""

    @property
    def shape(self) -> Shape:
        """What the maps lie on."""

    @property
    def key(self) -> str:
        """Of the backdrops in the page."""

    @property
    def backdrop(self) -> tuple[Panel, ...]:
        """What lies behind the maps: a page has it once."""

    @property
    def smooth(self) -> bool:
        """Whether the backdrop is drawn smoothly."""

    @property
    def name(self) -> str:
        """How the names of its pictures' files end: ``slices``."""

    @property
    def words(self) -> str:
        """What is seen, for captions."""

    def draw(self, values: Floats, scale: Scale, text: str, shown: Shown | None = None) -> Picture:
        """Draw a map, in the mask or where ``shown``; ``words`` are added to the text."""


class Sheet:
    """What the pictures of one page share: plans (one per shape), and the blocks of its viewers."""

    def __init__(self) -> None:
        self.plans: list[PicturePlan] = []
        self.embedded = EmbeddedBlocks()

    def plan(self, shape: Shape, space: str | None, cuts: Sequence[float] = ()) -> PicturePlan:
        """Return the plan for a shape, making it when it is new; ``cuts`` are the heights of a grid's slices in mm."""
        mni = not isinstance(shape, Elements) and lies_in_mni152(shape, space)
        for plan in self.plans:
            if plan.shape.matches(shape) and np.array_equal(plan.shape.mask, shape.mask):
                if not isinstance(plan, SlicePlan):
                    return plan
                if plan.mni == mni and (plan.levels == tuple(cuts) if cuts else not plan.cut):
                    return plan
        key = f"backdrop{len(self.plans)}"
        if isinstance(shape, Elements):
            self.plans.append(plan_elements(shape, key, space))
        else:
            self.plans.append(plan_slices(shape, key, mni=mni, cuts=cuts))
        return self.plans[-1]

    def plan_through(self, shape: Shape, space: str | None, found: Shown | None, z: Floats) -> PicturePlan:
        """Return a plan that shows what was found; None: nothing."""
        if found is None or isinstance(shape, Elements):
            return self.plan(shape, space)
        return self.plan(shape, space, find_cuts(shape, found, z))


def draw_thumbnail(shape: Shape, z: Floats, scale: Scale) -> tuple[str, ...]:
    """Draw a map small: pictures that lie on each other, as URIs; none where there is nothing to draw it on."""
    if not shape.n_voxels:
        return ()
    if isinstance(shape, Elements):
        return draw_small(shape, z, scale)
    values, shadow = project_from_above(shape, np.where(shape.mask & scale.passes(z), z, 0.0))
    return (
        data_uri(encode_png(shadow.astype(np.uint8), GREY)),
        data_uri(encode_png(scale.index(values, values != 0), scale.palette)),
    )


def choose_shown(shape: Shape) -> tuple[tuple[float, ...], NDArray[np.int32]]:
    """Choose what is kept of each run's map, to be drawn beside the others.

    Returns
    -------
    tuple of float
        Heights of slices in mm; empty where there are none.
    (M,) array
        Elements of the mask that are drawn, among all (raveled).
    """
    return ((), shape.file_order.astype(np.int32)) if isinstance(shape, Elements) else choose_slices(shape)


CORTEX = (
    "Inflated cortex (fsaverage5): means between white matter and pial surface. For orientation; slices show voxels."
)


def draw_overview(
    plan: PicturePlan, z: Floats, scale: Scale, text: str, passed: Shown, places: Sequence[Place]
) -> tuple[Picture, str]:
    """Draw all that was found in one picture, with the numbers of clusters; return it and the name of its kind."""
    numbers = " Numbers: the largest clusters, at their peaks." if places else ""
    if isinstance(plan, ElementPlan):  # its pictures show every element
        drawn = plan.draw(z, scale, f"{text}.", passed, places)
        return replace(drawn, caption=drawn.caption + numbers * bool(drawn.marks)), plan.name
    assert isinstance(plan, SlicePlan)
    words = f"{text}, the largest along each line of sight.{numbers}"
    return draw_glass(plan.grid, np.where(passed, z, 0.0), scale, words, mni=plan.mni, places=places), "glass"


def draw_beside_overview(plan: PicturePlan, z: Floats, scale: Scale, text: str, passed: Shown) -> Picture | None:
    """Draw what was found on the cortex, for orientation; None where that is no other picture."""
    if not isinstance(plan, SlicePlan) or not plan.mni:
        return None
    return draw_cortex(plan.grid, z, scale, f"{text} {CORTEX}", passed)


def draw_beside(
    plan: PicturePlan, slices: MapSlices, names: Sequence[str], combined: Floats, label: str, caption: str
) -> Picture:
    """Draw runs under each other, the combined map last.

    Parameters
    ----------
    plan : PicturePlan
        Of the levels of ``slices``.
    slices : MapSlices
    names : sequence of str, length K
    combined : array, of the form of the shape
    label, caption : str
        Quantity with units, and what is shown.
    """
    volumes = []
    for values in slices.values[:MOST_ROWS]:
        volume = np.zeros(plan.shape.shape)
        volume.ravel()[slices.voxels] = values
        volumes.append(volume)
    rows = [*volumes, combined]
    seen = np.concatenate([volume.ravel()[slices.voxels] for volume in rows])
    scale = signed_scale(seen, label, outliers=True)
    panels, labels, down = [], [], 0.0
    for name, volume in zip((*names[:MOST_ROWS], "combined"), rows, strict=True):
        drawn = plan.draw(volume, scale, "")
        labels.append((0.0, down + 13.0, name))
        down += NAME_HEIGHT
        panels += [replace(panel, y=panel.y + down, shift=down) for panel in drawn.panels]
        labels += [(x, y + down, text) for x, y, text in drawn.labels]
        down += drawn.height - BAR_HEIGHT
    width = drawn.width
    alt = f"{label}: {', '.join(names[:MOST_ROWS])} and combined"
    bar = draw_bar(scale, down + 10.0, width)
    return Picture(width, down + BAR_HEIGHT, tuple(panels), tuple(labels), bar, alt, caption)
