"""Regions of the brain: a volume of labels and their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.methods import Citation

if TYPE_CHECKING:  # slow to import, and few runs have regions
    from scipy import sparse


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


@dataclass(frozen=True)
class RegionName:
    """One region that is tested as a whole."""

    atlas: str
    index: int  # its label, or the number of its volume from 1 on
    name: str


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an image, which may overlap: each is a set of voxels with weights."""

    names: tuple[RegionName, ...]  # (R,)
    weights: "sparse.csc_array"  # (R, N) over the voxels of the image in C order; 1 of labels and masks
    affine: NDArray[np.float64]  # (4, 4), voxel indices to mm, RAS+
    shape: tuple[int, int, int]
    space: str | None = None  # that it states; None: none
    source: AtlasSource | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegionSet:
    """The regions of one atlas or file that were tested as a whole, for texts."""

    source: AtlasSource
    n_regions: int
    weighted: bool = False  # by probabilities


@dataclass(frozen=True)
class RegionTests:
    """The regions of an analysis that were tested as a whole, and what their corrected p come from."""

    sets: tuple[RegionSet, ...]
    citations: tuple[Citation, ...]


@dataclass(frozen=True, eq=False)
class PlacedRegions:
    """Regions on the grid of an analysis."""

    names: tuple[RegionName, ...]  # (R,)
    weights: "sparse.csc_array"  # (R, V) in the mask
    whole: NDArray[np.float64]  # (R,) sum of the weights on the grid, in the mask or not
    n_voxels: NDArray[np.int64]  # (R,) on the grid
    notes: tuple[str, ...] = ()
    sets: tuple[RegionSet, ...] = ()  # what is said of them

    @property
    def n_covered(self) -> NDArray[np.int64]:
        """Voxels of each region in the mask, (R,)."""
        return np.asarray((self.weights > 0).sum(axis=1), dtype=np.int64).ravel()
