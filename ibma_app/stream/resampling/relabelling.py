"""How maps are relabelled under the null of one test, for any design and estimator."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import find_reach
from ibma_app.core.inference_facts import Relabelling
from ibma_app.core.methods import InferenceSettings
from ibma_app.stats.basis import spans_constant
from ibma_app.stats.partition import (
    Partition,
    constant_within,
    partition_design,
    residuals,
    same_rows,
    spans_labels,
    unit_indicators,
)
from ibma_app.stats.relabel import (
    Relabellings,
    count_permutations,
    flip_signs,
    permute,
    rows_within,
    whole_blocks,
    whole_clusters,
)
from ibma_app.stream.estimate import Model

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EVERY = slice(None)

_Plan = tuple[Relabellings, Relabelling, Integers]
"""Relabellings, what they do, and which rows are alike."""


@dataclass(frozen=True, eq=False)
class Scheme:
    """The relabellings of one test, and how they change maps and design."""

    design: Design  # with that test alone
    partition: Partition
    relabellings: Relabellings
    kind: str | None  # "effect" or "z" whose residuals are relabelled; None: the regressors are
    relabelling: Relabelling
    tail: str  # in which scores are taken; F: positive
    alike: Integers  # (K,) only rows with the same number change places with each other

    @property
    def test(self) -> Test:
        """The test."""
        return self.design.tests[0]

    @property
    def rows(self) -> int:
        """Q of an F test; 0 of a t test."""
        return self.partition.effective.shape[1] if self.test.is_f else 0

    @property
    def through_origin(self) -> bool:
        """Whether the design is, in every relabelling: with signs turned, its columns span no constant any more."""
        return not spans_constant(self.design.matrix)

    def prepare(self, block: VoxelBlock) -> VoxelBlock:
        """Return a block with the residuals of the nuisance, where these are relabelled; once for all relabellings."""
        if self.kind is None:
            return block
        values = getattr(block, self.kind)
        left = residuals(values, block.covered, self.partition.nuisance)
        return replace(block, effect=left) if self.kind == "effect" else replace(block, z=left)

    def relabel(self, block: VoxelBlock, index: int) -> tuple[VoxelBlock, Design]:
        """Return the block and the design to fit in one relabelling, from a prepared block.

        Each map keeps its variance and its coverage; the row of the design that
        it gets changes, and the sign of its effect.
        """
        order, signs = self.relabellings.orders[index], self.relabellings.signs[index].astype(np.float64)
        if self.kind is not None or self.design.one_sample:
            turned = {
                name: values * signs[:, None]
                for name in ("effect", "z")
                if (values := getattr(block, name)) is not None
            }
            return replace(block, **turned), replace(self.design, matrix=self.design.matrix[order])
        effective = (self.partition.effective * signs[:, None])[order]
        matrix = np.column_stack([effective, self.partition.nuisance])
        weights = np.eye(effective.shape[1], matrix.shape[1])
        test = replace(self.test, weights=weights)
        return block, replace(self.design, matrix=matrix, tests=(test,), through_origin=self.through_origin)

    def regressors(self, rows: slice = EVERY) -> Floats:
        """Return the regressor of a t test in some relabellings, (M, K): of one sample what multiplies each map."""
        signs = self.relabellings.signs[rows].astype(np.float64)
        if self.design.one_sample:
            return signs * np.sign(np.ravel(self.test.weights)[0])
        return np.take_along_axis(signs * self.partition.effective[:, 0], self.relabellings.orders[rows], axis=1)

    def flip_each(self, block: VoxelBlock, indices: NDArray[np.int64]) -> VoxelBlock:
        """Return one sample's block (K, B) with each voxel in a relabelling of its own, (B,)."""
        return replace(block, effect=np.asarray(block.effect) * self.relabellings.signs[indices].T)

    def weights(self, rows: slice = EVERY) -> tuple[Floats, Floats]:
        """Return the relabelled regressors of the least-squares path.

        Parameters
        ----------
        rows : slice
            Of the D relabellings.

        Returns
        -------
        effective : ndarray, shape (D, Q, K)
            Orthonormal; for a t test with the sign of the contrast.
        nuisance : ndarray, shape (D, P, K)
            Orthonormal and orthogonal to it; without those that no relabelling
            changes, as the residuals are orthogonal to them.
        """
        orders = self.relabellings.orders[rows]
        signs = self.relabellings.signs[rows, None].astype(np.float64)
        basis, triangle = np.linalg.qr(self.partition.effective)
        basis = basis * np.where(np.diag(triangle) < 0, -1.0, 1.0)
        nuisance = self._moving_nuisance()
        effective, moving = (columns.T[:, orders].swapaxes(0, 1) * signs for columns in (basis, nuisance))
        return effective, moving

    def _moving_nuisance(self) -> Floats:
        """Return the nuisance, (K, P), without the part that is constant among rows that change places."""
        nuisance = self.partition.nuisance
        if nuisance.shape[1] == 0 or not np.all(self.relabellings.signs == 1):
            return nuisance
        turned, sizes, _ = np.linalg.svd(nuisance.T @ unit_indicators(self.alike))
        return nuisance @ turned[:, int(np.count_nonzero(sizes > 1.0 - 1e-9)) :]


def plan_scheme(model: Model, test: Test, settings: InferenceSettings) -> Scheme:
    """Choose the relabellings of one test.

    Where what is tested is constant within the exchangeability blocks (up to
    nuisance), signs are flipped, which assumes independent and symmetric
    errors. Elsewhere rows are permuted within blocks, which assumes errors that
    are exchangeable there (Winkler et al. 2014). With ``design.whole_blocks``,
    whole blocks are flipped or permuted.

    Where errors are cluster-robust, or of a model of clusters, signs of whole
    clusters are flipped, so that their variances may differ, as the error allows. Only clusters that a
    column of exchangeability declares exchangeable change places, within their
    block and with clusters that have the same conditions; not where the tested
    effect is the same in all of them (within clusters, means), nor where so
    few are alike that flips give more relabellings.

    Where groups of maps have variances of their own, signs of residuals are
    flipped whatever is tested: maps of different groups are not exchangeable.

    Parameters
    ----------
    model : Model
        For least squares, residuals under the null are relabelled (Freedman & Lane
        1983); for other estimators the tested regressors, orthogonal to the nuisance.
    test : Test
        One of its design's tests.
    settings : InferenceSettings
        The number of relabellings (all distinct ones when there are no more), and the seed.
    """
    partition = partition_design(model.design.matrix, test.weights)
    plan = _plan_rows if model.relabelled_together is None else _plan_clusters
    if model.variance_groups is not None:
        plan = _plan_signs
    relabellings, described, alike = plan(model, test, partition, settings)
    alone = replace(model.design, tests=(test,))
    return Scheme(alone, partition, relabellings, model.relabels, described, test.tail, alike)


def _plan_rows(model: Model, test: Test, partition: Partition, settings: InferenceSettings) -> _Plan:
    """Plan relabellings of single maps, within exchangeability blocks, or of whole blocks."""
    design, kind = model.design, model.estimator.relabels
    n_maps = design.matrix.shape[0]
    blocks, whole = design.exchangeability, design.whole_blocks and design.exchangeability is not None
    if blocks is None and design.repeated:
        blocks = design.clusters
    everywhere = np.zeros(n_maps, dtype=np.int64)
    inside = everywhere if blocks is None else blocks
    alike = everywhere if whole else inside
    if constant_within(partition, inside):
        of = "residuals" if kind and partition.nuisance.shape[1] else "maps" if design.one_sample else "regressors"
        relabellings = _flips(test, inside if whole else np.arange(n_maps), settings)
        return relabellings, Relabelling(True, of, "blocks" if whole else ""), alike
    moved = design.matrix if kind else partition.effective
    slots = whole_blocks(inside) if whole else rows_within(inside)
    described = Relabelling(
        False, "residuals" if kind else "regressors", "blocks" if whole else "", within=blocks is not None and not whole
    )
    return permute(same_rows(moved), slots, settings.permutations, settings.seed), described, alike


def _plan_signs(model: Model, test: Test, partition: Partition, settings: InferenceSettings) -> _Plan:
    """Plan flips of single maps' residuals, or of whole blocks'."""
    design, n_maps = model.design, len(model.design.matrix)
    blocks = design.exchangeability if design.whole_blocks else None
    of = "residuals" if partition.nuisance.shape[1] else "maps"
    flips = _flips(test, np.arange(n_maps) if blocks is None else blocks, settings)
    return flips, Relabelling(True, of, "" if blocks is None else "blocks"), np.zeros(n_maps, dtype=np.int64)


def _plan_clusters(model: Model, test: Test, partition: Partition, settings: InferenceSettings) -> _Plan:
    """Plan relabellings of whole clusters, or of blocks of clusters."""
    design, clusters, kind = model.design, model.relabelled_together, model.estimator.relabels
    assert clusters is not None
    everywhere = np.zeros(clusters.size, dtype=np.int64)
    blocks, whole = design.exchangeability, design.whole_blocks and design.exchangeability is not None
    units = blocks if blocks is not None and whole else clusters
    inside = blocks if blocks is not None and not whole else everywhere
    which = "blocks" if whole else "clusters" if np.unique(units).size < clusters.size else ""
    of = "residuals" if kind and partition.nuisance.shape[1] else "maps" if design.one_sample else "regressors"
    flips = Relabelling(True, of, which)
    if blocks is None:
        return _flips(test, units, settings), flips, everywhere
    slots = whole_clusters(clusters, everywhere if design.places is None else design.places, units, inside)
    alike, n_units = everywhere.copy(), int(np.unique(units).size)
    for number, slot in enumerate(slots):
        alike[slot] = number * clusters.size + np.arange(slot.shape[1])
    labels = same_rows(_without_columns_of(clusters, design.matrix))
    reach = 0.0 if len(slots) == np.unique(inside).size else min(float(settings.permutations), 2.0**n_units)
    if constant_within(partition, alike) or count_permutations(labels, slots) < reach:
        return _flips(test, units, settings), flips, alike
    described = Relabelling(False, "residuals" if kind else "regressors", which, within=not whole)
    return permute(labels, slots, settings.permutations, settings.seed), described, alike


def _flips(test: Test, units: Integers, settings: InferenceSettings) -> Relabellings:
    """Draw sign flips of units, (K,)."""
    symmetric = test.is_f or test.tail == "two-sided"
    return flip_signs(units.size, units, settings.permutations, settings.seed, symmetric=symmetric)


def _without_columns_of(clusters: Integers, matrix: Floats) -> Floats:
    """Subtract cluster means from a design with a column for each cluster: equal rows are then equal conditions."""
    if not spans_labels(matrix, clusters):
        return matrix
    indicators = unit_indicators(clusters)
    left = matrix - indicators @ (indicators.T @ matrix)
    kept: Floats = left[:, (left**2).sum(axis=0) > 1e-18 * (matrix**2).sum(axis=0)]
    return kept


def count_ties(scheme: Scheme) -> int:
    """Count the relabellings that score as the identity whatever the data: itself and its mirror images."""
    relabellings = scheme.relabellings
    if not relabellings.exhaustive:
        return 1
    if relabellings.mirrored:
        return 2
    effective, nuisance = scheme.weights()
    along = effective[:, :, None, :] @ effective[0].T[None, None]  # (D, Q, 1, Q)
    inner = along[:, :, 0, :]
    same = (inner**2).sum(axis=(1, 2)) > effective.shape[1] * (1 - 1e-9)
    if scheme.tail != "two-sided" and scheme.rows == 0:
        same &= inner[:, 0, 0] > 0
    if nuisance.shape[1] and scheme.kind is not None:
        kept = ((nuisance @ nuisance[0].T) ** 2).sum(axis=(1, 2))
        same &= kept > nuisance.shape[1] * (1 - 1e-9)
    return max(int(np.count_nonzero(same)), 1)


def find_smallest_p(model: Model, test: Test, settings: InferenceSettings, kinds: int = 1) -> float:
    """Find the smallest p that the relabellings of a test can reach, whatever its maps, in one null or in several."""
    scheme = plan_scheme(model, test, settings)
    return find_reach(count_ties(scheme), scheme.relabellings.size, kinds)
