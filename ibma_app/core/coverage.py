"""How many maps must cover a voxel, and the reasons why a map does not."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_COVERAGE = {"run": 0.0, "subject": 1.0, "study": 0.75}
"""Default share of the maps that must cover a voxel, by unit; 0: any map."""

Reasons = NDArray[np.uint8]
Indices = NDArray[np.integer[Any]]

REASONS = (
    "covered",
    "NaN or infinite",
    "background (0)",
    "variance zero or negative",
    "variance absurdly small",
    "outside the field of view",
    "edge of what the map covers",
)
"""The meaning of the codes in an array of reasons; 0 is covered."""
COVERED, NOT_FINITE, BACKGROUND, VARIANCE_NOT_POSITIVE, VARIANCE_ABSURD, OUTSIDE, EDGE = range(len(REASONS))
