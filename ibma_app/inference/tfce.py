"""Threshold-free cluster enhancement, its family-wise error by resampling."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import Fact, NeighbourFacts
from ibma_app.core.methods import Citation, Inference, InferenceSettings, Scorer, Setting
from ibma_app.inference.clusters import connectivity_setting, read_connectivity
from ibma_app.inference.resampled import TAIL_FIT, WINKLER_2014, decide_by_null
from ibma_app.stats.neighbours import in_box
from ibma_app.stats.tfce import TfceWorkspace

CONNECTIVITY = 6
EXPONENTS = {"tfce_e": 0.5, "tfce_h": 2.0}


def read_exponent(settings: InferenceSettings, name: str) -> float:
    """Return an exponent: ``tfce_e`` of extent, ``tfce_h`` of height.

    Raises
    ------
    UsageError
        When the setting is no number from 0 to 10.
    """
    value = settings.options.get(name, EXPONENTS[name])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 10.0:
        msg = (
            f"The setting {name} of [inference] is {value!r}; it is a number from 0 to 10, usually {EXPONENTS[name]:g}."
        )
        raise UsageError(msg)
    return float(value)


def score(grid: Grid, tail: str, settings: InferenceSettings) -> Scorer:
    """Score a voxel by the integral of extent^E height^H over heights up to its own, exactly.

    The extent at a height is the number of voxels of the voxel's cluster there.

    Raises
    ------
    UsageError
        When ``tfce_e``, ``tfce_h`` or ``connectivity`` cannot be.
    """
    around = in_box(grid.mask, read_connectivity(settings, CONNECTIVITY))
    workspace = TfceWorkspace(around, read_exponent(settings, "tfce_e"), read_exponent(settings, "tfce_h"))

    def largest(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> float:
        return workspace.largest(voxels, heights)

    def each(voxels: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        return workspace.each(voxels, heights)

    return Scorer(0.0, largest, each)


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Compare each voxel's enhanced value with the largest of every relabelling (Smith & Nichols 2009)."""
    own = (
        Fact("ExtentExponent", read_exponent(settings, "tfce_e"), "Extent exponent E"),
        Fact("HeightExponent", read_exponent(settings, "tfce_h"), "Height exponent H"),
        NeighbourFacts(read_connectivity(settings, CONNECTIVITY)),
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
