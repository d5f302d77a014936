"""Threshold-free cluster enhancement, its family-wise error by resampling."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.inference_facts import Fact
from ibma_app.core.methods import Citation, Inference, InferenceSettings, Scorer, Setting
from ibma_app.inference.neighbourhood import (
    connectivity_setting,
    find_neighbours,
    neighbour_facts,
    read_connectivity,
)
from ibma_app.inference.resampled import TAIL_FIT, WINKLER_2014, decide_by_null
from ibma_app.stats.tfce import TfceWorkspace

CONNECTIVITY = 6
EXPONENTS = {"tfce_e": {"mm2": 1.0, "mm3": 0.5}, "tfce_h": {"mm2": 2.0, "mm3": 2.0}}
"""By the unit of extents: of areas as Connectome Workbench and PALM have it, of volumes as Smith & Nichols (2009)."""
KINDS = {"mm2": "on surfaces", "mm3": "in volumes"}


def read_exponent(settings: InferenceSettings, name: str, unit: str = "mm3") -> float:
    """Return an exponent: ``tfce_e`` of extent, ``tfce_h`` of height; by default that of an extent's unit.

    Raises
    ------
    UsageError
        When the setting is no number from 0 to 10.
    """
    usual = EXPONENTS[name].get(unit, EXPONENTS[name]["mm3"])
    value = settings.options.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 10.0:
        msg = f"The setting {name} of [inference] is {value!r}; it is a number from 0 to 10, usually {usual:g}."
        raise UsageError(msg)
    return float(value)


def describe_exponent(settings: InferenceSettings, name: str, units: Sequence[str]) -> float | str:
    """Return an exponent, or in words those of several units that differ: ``1 on surfaces and 0.5 in volumes``."""
    found = {unit: read_exponent(settings, name, unit) for unit in units}
    if len(set(found.values())) == 1:
        return found[units[0]]
    return " and ".join(f"{value:g} {KINDS.get(unit, 'elsewhere')}" for unit, value in found.items())


def score(grid: Shape, tail: str, settings: InferenceSettings) -> Scorer:
    """Score a voxel by the integral of extent^E height^H over heights up to its own, exactly.

    The extent at a height is that of the voxel's cluster there: in a grid its number of voxels, of elements the sum
    of their sizes.

    Raises
    ------
    UsageError
        When ``tfce_e``, ``tfce_h`` or ``connectivity`` cannot be, or neighbours are not known.
    """
    around = find_neighbours(grid, read_connectivity(settings, CONNECTIVITY))
    e, h = (read_exponent(settings, name, grid.units[0]) for name in EXPONENTS)
    workspace = TfceWorkspace(around, e, h)

    def largest(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> float:
        return workspace.largest(voxels, heights)

    def each(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        return workspace.each(voxels, heights)

    return Scorer(0.0, largest, each)


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Compare each voxel's enhanced value with the largest of every relabelling (Smith & Nichols 2009)."""
    own = (
        Fact("ExtentExponent", describe_exponent(settings, "tfce_e", field.grid.units), "Extent exponent E"),
        Fact("HeightExponent", describe_exponent(settings, "tfce_h", field.grid.units), "Height exponent H"),
        neighbour_facts(field.grid, read_connectivity(settings, CONNECTIVITY)),
    )
    return decide_by_null("tfce", field, null, settings, own)


INFERENCE = Inference(
    name="tfce",
    title="threshold-free cluster enhancement by resampling",
    infer=infer,
    citations=(
        Citation(
            key="smith2009",
            authors="Smith SM, Nichols TE",
            year=2009,
            title="Threshold-free cluster enhancement: addressing problems of smoothing, threshold dependence and "
            "localisation in cluster inference",
            source="NeuroImage 44(1), 83-98",
            doi="10.1016/j.neuroimage.2008.03.061",
        ),
        WINKLER_2014,
    ),
    score=score,
    score_label="Largest TFCE score",
    needs_neighbours=True,
    words=(
        "Threshold-free cluster enhancement was integrated exactly over the heights of z, each sign apart, with extent "
        "exponent E = {ExtentExponent}, height exponent H = {HeightExponent} and {Connectivity} neighbours."
    ),
    settings={
        "connectivity": connectivity_setting(CONNECTIVITY),
        "tfce_e": Setting((), "exponent of extent, 0 to 10"),
        "tfce_h": Setting((), "exponent of height, 0 to 10"),
        "tail_fit": TAIL_FIT,
    },
)
