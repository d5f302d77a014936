"""Masks from files: images of 0 and 1, or probabilities."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError
from ibma_app.core.grid import Grid
from ibma_app.images.read import read_image

HALF = 0.5  # a probability of this, or more, is inside
HAIR = 1e-3  # how far interpolation and scale factors may move a 0 or a 1


class Mask(NamedTuple):
    """A mask, where it lies, and what the user should know of it."""

    inside: NDArray[np.bool_]  # (X, Y, Z)
    grid: Grid
    note: str = ""


def read_mask(path: Path, name: str) -> Mask:
    """Read an image of 0 and one positive value; of probabilities, what is one half and more is inside.

    What is not finite is outside.

    Parameters
    ----------
    path : Path
    name : str
        What messages call it.

    Raises
    ------
    InputError, ReadWriteError
        It cannot be read.
    DataError
        It is empty, or no mask: values below 0, several values beyond 1.
    """
    image = read_image(path)
    values = np.where(np.isfinite(image.data), image.data, 0.0)
    low, high = float(values.min()) + 0.0, float(values.max()) + 0.0  # no -0
    if low == high == 0.0:
        raise DataError(f"{name} is empty: every voxel is 0.")
    inside = values > HAIR * high
    if low >= -HAIR and high > 0 and float(values[inside].min()) >= (1 - HAIR) * high:
        return Mask(inside, image.grid)
    if low < -HAIR or high > 1 + HAIR:
        raise DataError(
            f"{name} is no mask: its values run from {low:.4g} to {high:.4g}, where a mask has 0 and 1. Save as 1 what "
            "shall be inside, and as 0 all else. (Probabilities from 0 to 1 are taken from 0.5 on.)"
        )
    inside = values >= HALF
    note = f"{name} holds values between 0 and 1: taken for probabilities, of which 0.5 and more are inside"
    if not inside.any():
        raise DataError(f"{note}, and there are none. Save as 1 what shall be inside, and as 0 all else.")
    return Mask(inside, image.grid, f"{note} ({np.count_nonzero(inside)} of its {inside.size} voxels).")


def mask_grid(grid: Grid, path: Path | None) -> Grid:
    """Put a model's mask on its grid, where it is there, can be read and fits."""
    if path is None:
        return grid
    try:
        mask = read_mask(path, str(path))
    except IbmaError:
        return grid
    return grid.with_mask(mask.inside) if grid.matches(mask.grid) else grid
