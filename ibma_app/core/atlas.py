"""Regions of the brain: a volume of labels and their names."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.methods import Citation


@dataclass(frozen=True)
class AtlasSource:
    """What is said of an atlas that named regions."""

    name: str
    citation: Citation | None = None  # None: the user's own
    licence: str = ""  # in words


@dataclass(frozen=True, eq=False)
class Atlas:
    """A parcellation: each voxel belongs to one region, or to none (label 0)."""

    name: str
    labels: NDArray[np.int32]  # (X, Y, Z), 0: no region
    affine: NDArray[np.float64]  # (4, 4), voxel indices to mm, RAS+
    names: Mapping[int, str]  # label -> region; a label without a name goes by its number
    probability: NDArray[np.float32] | None = None  # (X, Y, Z), of the label; None: not an atlas of probabilities
    citation: Citation | None = None  # as of `AtlasSource`
    licence: str = ""

    @property
    def source(self) -> AtlasSource:
        """What is said of it."""
        return AtlasSource(self.name, self.citation, self.licence)
