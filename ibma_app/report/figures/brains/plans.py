"""How the maps of a page are drawn: chosen here alone, by what they lie on."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.images.spaces import lies_in_mni152
from ibma_app.report.figures.brains.cortex import draw_cortex
from ibma_app.report.figures.brains.glass import Place, draw_glass
from ibma_app.report.figures.brains.slices import SlicePlan, find_cuts, plan_slices
from ibma_app.report.figures.embed import EmbeddedBlocks
from ibma_app.report.figures.picture import Panel, Picture, Scale

Floats = NDArray[np.float64]
Shown = NDArray[np.bool_]


class PicturePlan(Protocol):
    """How every map of one shape is drawn: made once for a page."""

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
        self.plans: list[SlicePlan] = []
        self.embedded = EmbeddedBlocks()

    def plan(self, grid: Grid, space: str | None, cuts: Sequence[float] = ()) -> SlicePlan:
        """Return the plan for a grid, making it when it is new; ``cuts`` are the heights of its slices in mm."""
        mni = lies_in_mni152(grid, space)
        for plan in self.plans:
            same = plan.mni == mni and plan.grid.matches(grid)
            cut = plan.levels == tuple(cuts) if cuts else not plan.cut
            if same and cut and np.array_equal(plan.grid.mask, grid.mask):
                return plan
        self.plans.append(plan_slices(grid, f"backdrop{len(self.plans)}", mni=mni, cuts=cuts))
        return self.plans[-1]

    def plan_through(self, grid: Grid, space: str | None, found: Shown | None, z: Floats) -> SlicePlan:
        """Return a plan that shows what was found; None: nothing."""
        return self.plan(grid, space, () if found is None else find_cuts(grid, found, z))


CORTEX = (
    "Inflated cortex (fsaverage5): means between white matter and pial surface. For orientation; slices show voxels."
)


def draw_overview(
    plan: PicturePlan, z: Floats, scale: Scale, text: str, passed: Shown, places: Sequence[Place]
) -> tuple[Picture, str]:
    """Draw all that was found in one picture, with the numbers of clusters; return it and the name of its kind."""
    if not isinstance(plan, SlicePlan):  # its pictures show every element
        return plan.draw(z, scale, f"{text}.", passed), plan.name
    numbers = " Numbers: the largest clusters, at their peaks." if places else ""
    words = f"{text}, the largest along each line of sight.{numbers}"
    return draw_glass(plan.grid, np.where(passed, z, 0.0), scale, words, mni=plan.mni, places=places), "glass"


def draw_beside_overview(plan: PicturePlan, z: Floats, scale: Scale, text: str, passed: Shown) -> Picture | None:
    """Draw what was found on the cortex, for orientation; None where that is no other picture."""
    if not isinstance(plan, SlicePlan) or not plan.mni:
        return None
    return draw_cortex(plan.grid, z, scale, f"{text} {CORTEX}", passed)
