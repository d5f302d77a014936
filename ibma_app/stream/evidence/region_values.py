"""Maps as means over regions: a block whose columns are regions, which any estimator takes as it takes voxels."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ibma_app.core.anatomy.atlas import PlacedRegions
from ibma_app.core.block import Blocks, Floats, VoxelBlock
from ibma_app.stream.memory_plan import block_size

HALF = 0.5
"""Share of a region, by weight, that a map must cover: else it has no value there."""
KINDS = ("effect", "variance", "z", "dof")


@dataclass(frozen=True, eq=False)
class RegionValues:
    """K maps at R regions. A map that covers less than half of a region has no value there."""

    regions: PlacedRegions
    block: VoxelBlock  # (K, R)
    n_voxels: NDArray[np.int64]  # (K, R) voxels of the region that the map covers


@dataclass(frozen=True, eq=False)
class RegionBlock:
    """A table of maps by regions, read by blocks as a stack of voxels is."""

    block: VoxelBlock

    @property
    def n_maps(self) -> int:
        """K."""
        return int(self.block.covered.shape[0])

    @property
    def n_voxels(self) -> int:
        """R."""
        return int(self.block.covered.shape[1])

    def read(self, start: int, stop: int) -> VoxelBlock:
        """Read regions ``start`` to ``stop`` of every map."""
        return take(self.block, np.arange(start, min(stop, self.n_voxels)))


def take(block: VoxelBlock, columns: NDArray[np.intp]) -> VoxelBlock:
    """Return some columns of a block."""
    taken = {}
    for one in fields(block):
        values = getattr(block, one.name)
        whole = values is None or values.ndim < 2 or (values.shape[1] == 1 and one.name == "dof")
        taken[one.name] = values if whole else np.ascontiguousarray(values[:, columns])
    return VoxelBlock(**taken)


def average_regions(stack: Blocks, regions: PlacedRegions) -> RegionValues:
    """Average the maps of a stack over regions.

    The value of a map is the weighted mean over the voxels of the region that it covers. So is its sampling variance:
    errors of voxels are correlated to an unknown degree, and whatever it is, the variance of the mean is at most the
    mean of the variances (Jensen), which it equals where voxels err as one. z are averaged likewise: the mean z has a
    variance of at most 1 under the null.

    Parameters
    ----------
    stack : Blocks
        K maps at V voxels.
    regions : PlacedRegions
        R regions over these voxels.

    Returns
    -------
    RegionValues
    """
    weights, total = sparse.csr_array(regions.weights), len(regions.names)
    members = sparse.csr_array((np.ones(weights.nnz), weights.indices, weights.indptr), shape=weights.shape)
    columns, inside = sparse.csc_array(weights), sparse.csc_array(members)
    sums: dict[str, Floats] = {}
    covered, count = np.zeros((2, stack.n_maps, total))
    first = stack.read(0, 2)
    constant = first.dof if first.dof is not None and first.dof.shape[1] == 1 else None  # the dof of whole maps
    summed = KINDS if constant is None else KINDS[:3]
    step = block_size(stack.n_maps)
    for start in range(0, stack.n_voxels, step):
        block = stack.read(start, start + step)
        there = block.covered.astype(np.float64)
        part = columns[:, start : start + there.shape[1]]
        if not part.nnz:
            continue
        covered += (part @ there.T).T
        count += (inside[:, start : start + there.shape[1]] @ there.T).T
        for kind in summed:
            values = getattr(block, kind)
            if values is not None:
                sums[kind] = sums.get(kind, 0.0) + (part @ values.T).T
    present = (covered >= HALF * regions.whole * (1.0 - 1e-9)) & (covered > 0)
    means = {kind: np.divide(one, covered, out=np.zeros_like(one), where=present) for kind, one in sums.items()}
    empty = np.zeros(present.shape)
    kinds = {kind: means.get(kind, empty) for kind in KINDS[:3] if getattr(first, kind) is not None}
    dof = means.get("dof", constant)
    block = VoxelBlock(covered=present, dof=dof, sample_size=first.sample_size, **kinds)
    return RegionValues(regions, block, np.rint(count).astype(np.int64))
