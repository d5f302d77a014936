"""Why a map does not cover a voxel: the codes that reading, regridding and the survey share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
"""What the codes in an array of reasons mean; 0 is covered."""
COVERED, NOT_FINITE, BACKGROUND, VARIANCE_NOT_POSITIVE, VARIANCE_ABSURD, OUTSIDE, EDGE = range(len(REASONS))
