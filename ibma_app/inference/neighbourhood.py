"""Which elements of a map are neighbours, whatever its shape, and what is said of it."""

from functools import lru_cache

import numpy as np

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.errors import UsageError
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import NeighbourFacts
from ibma_app.core.methods import InferenceSettings, Setting
from ibma_app.stats.neighbours import AXES, Neighbours, in_box, listed

WRITTEN = {"mm2": "mm²", "mm3": "mm³"}
"""Unit of sizes -> how texts write it."""


def connectivity_setting(default: int) -> Setting:
    """Make the record of the setting ``connectivity``."""
    others = tuple(number for number in AXES if number != default)
    return Setting((default, *others), "neighbours that make voxels one cluster")


def read_connectivity(settings: InferenceSettings, default: int) -> int:
    """Return the neighbours that make voxels one cluster.

    Raises
    ------
    UsageError
        When the setting is none of 6, 18 and 26.
    """
    value = settings.options.get("connectivity", default)
    if value not in AXES or isinstance(value, bool):
        msg = f"The setting connectivity of [inference] is {value!r}; choose from 6, 18 and 26 neighbours."
        raise UsageError(msg)
    return int(value)


@lru_cache(maxsize=8)
def find_neighbours(shape: Shape, connectivity: int) -> Neighbours:
    """Find which elements of a shape's mask touch which; the threads of a process share what was found.

    Parameters
    ----------
    shape : Grid or Elements
        V elements. Voxels of a grid count as 1 each; elements have their sizes.
    connectivity : {6, 18, 26}
        Neighbours of a voxel; those of a vertex are at the other ends of its edges.

    Raises
    ------
    UsageError
        The neighbours are not known: a surface has no mesh.
    """
    if isinstance(shape, Grid):
        return in_box(shape.mask, connectivity)
    return listed(shape.pairs(connectivity), shape.sizes_at(np.arange(shape.n_voxels)))


def why_unknown(shape: Shape) -> str:
    """Say why it is not known which elements of a shape are neighbours, and what to do; "" where it is."""
    try:
        find_neighbours(shape, next(iter(AXES)))
    except UsageError as error:
        return str(error)
    return ""


def neighbour_facts(shape: Shape, connectivity: int) -> NeighbourFacts:
    """State which elements of a shape are neighbours."""
    return NeighbourFacts(connectivity, of_voxels="mm3" in shape.units, of_meshes="mm2" in shape.units)


def size_units(shape: Shape) -> str:
    """Write the unit of the extents of clusters; "" where a grid's voxels are counted, or there are several."""
    return WRITTEN.get(shape.units[0], "") if len(shape.units) == 1 and not isinstance(shape, Grid) else ""
