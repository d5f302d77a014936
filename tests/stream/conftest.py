"""Stacks made of arrays."""

from collections.abc import Callable

import numpy as np
import pytest

from ibma_app.core.grid import Grid
from ibma_app.core.results import MapSurvey
from ibma_app.stream.row_store import RowStore
from ibma_app.stream.stack import Stack

AFFINE = np.array([[-4.0, 0, 0, 10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])


@pytest.fixture
def stack_of() -> Callable[..., Stack]:
    """Return ``stack_of(mask, effect=(K, V), variance=..., z=..., signed=True) -> Stack``; NaN: not covered.

    Values are kept in single precision, as those of maps on disk are.
    """

    def make(mask, *, signed=True, **kinds):
        mask = np.asarray(mask, dtype=bool)
        n_maps, n_voxels = next(iter(kinds.values())).shape
        store = RowStore()
        for kind, values in kinds.items():
            for row, one in enumerate(values):
                store.append(kind, row, np.asarray(one, dtype=float), 0)
        store.select({0: np.arange(n_voxels)})
        survey = tuple(MapSurvey(f"sub-{row}", (f"bids::{row}",), n_voxels) for row in range(n_maps))
        signs = (signed,) * n_maps
        grid = Grid(np.diag([2.0, 2, 2, 1]), mask)
        return Stack(grid, survey, (), tuple(kinds), tuple(range(n_maps)), signs, None, None, store)

    return make
