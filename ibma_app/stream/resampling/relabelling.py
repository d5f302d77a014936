"""How maps are relabelled under the null of one test, for any design and estimator."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.methods import Estimator
from ibma_app.stats.partition import Partition, constant_within, partition_design, residuals, same_rows
from ibma_app.stats.relabel import Relabellings, flip_signs, permute

Floats = NDArray[np.float64]

EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class Scheme:
    """One test's relabellings, and what they do to maps and design."""

    design: Design  # with that test alone
    partition: Partition
    relabellings: Relabellings
    kind: str | None  # "effect" or "z" whose residuals are relabelled; None: the regressors are
    words: str
    tail: str  # in which scores are taken; F: positive

    @property
    def test(self) -> Test:
        """The test."""
        return self.design.tests[0]

    @property
    def rows(self) -> int:
        """Q of an F test; 0 of a t test."""
        return self.partition.effective.shape[1] if self.test.is_f else 0

    def prepare(self, block: VoxelBlock) -> VoxelBlock:
        """Take the nuisance out of a block's least-squares data, once for all relabellings."""
        if self.kind is None:
            return block
        values = getattr(block, self.kind)
        left = residuals(values, block.covered, self.partition.nuisance)
        return replace(block, effect=left) if self.kind == "effect" else replace(block, z=left)

    def relabel(self, block: VoxelBlock, index: int) -> tuple[VoxelBlock, Design]:
        """Return what is fitted in one relabelling, of a prepared block.

        Each map keeps its variance and its coverage: what changes is the row
        of the design that it gets, and the sign of its effect.
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
        return block, replace(self.design, matrix=matrix, tests=(test,))

    def weights(self, rows: slice = EVERY) -> tuple[Floats, Floats]:
        """Return the relabelled regressors of the least-squares path.

        Parameters
        ----------
        rows : slice
            Of the D relabellings.

        Returns
        -------
        effective : ndarray, shape (D, Q, K)
            Orthonormal; of a t test with the sign of the contrast.
        nuisance : ndarray, shape (D, P, K)
            Orthonormal and orthogonal to it; without those that every
            relabelling leaves as they are, to which the residuals are orthogonal.
        """
        orders = self.relabellings.orders[rows]
        signs = self.relabellings.signs[rows, None].astype(np.float64)
        basis, triangle = np.linalg.qr(self.partition.effective)
        basis = basis * np.where(np.diag(triangle) < 0, -1.0, 1.0)
        nuisance = self._moving_nuisance()
        effective, moving = (columns.T[:, orders].swapaxes(0, 1) * signs for columns in (basis, nuisance))
        return effective, moving

    def _moving_nuisance(self) -> Floats:
        """Return the nuisance, (K, P), without what is constant wherever rows change places."""
        nuisance = self.partition.nuisance
        if nuisance.shape[1] == 0 or not np.all(self.relabellings.signs == 1):
            return nuisance
        blocks = np.zeros(nuisance.shape[0], dtype=np.int64)
        if self.design.exchangeability is not None and not self.design.whole_blocks:
            blocks = self.design.exchangeability
        indicators = (blocks[:, None] == np.unique(blocks)[None]).astype(np.float64)
        indicators /= np.sqrt((indicators**2).sum(axis=0))
        turned, sizes, _ = np.linalg.svd(nuisance.T @ indicators)
        return nuisance @ turned[:, int(np.count_nonzero(sizes > 1.0 - 1e-9)) :]


def plan_scheme(design: Design, test: Test, estimator: Estimator, permutations: int, seed: int) -> Scheme:
    """Choose the relabellings of one test.

    Where what is tested is constant within the exchangeability blocks
    (nuisance allowed for), signs are flipped: errors are taken to be
    independent and symmetric. Elsewhere rows are permuted within blocks:
    errors are taken to be exchangeable there (Winkler et al. 2014). With
    ``design.whole_blocks``, blocks are flipped or permuted as wholes.

    Parameters
    ----------
    design : Design
        K rows.
    test : Test
        One of its tests.
    estimator : Estimator
        Least squares: residuals under the null are relabelled (Freedman & Lane
        1983); others: the tested regressors, orthogonal to the nuisance.
    permutations : int
        R, at most; all distinct relabellings when there are no more.
    seed : int
    """
    partition = partition_design(design.matrix, test.weights)
    blocks, whole = design.exchangeability, design.whole_blocks and design.exchangeability is not None
    kind = estimator.relabels
    symmetric = test.is_f or test.tail == "two-sided"
    everywhere = np.zeros(design.matrix.shape[0], dtype=np.int64)
    flips = constant_within(partition, everywhere if blocks is None else blocks)
    if flips:
        groups = blocks if whole else None
        relabellings = flip_signs(design.matrix.shape[0], groups, permutations, seed, symmetric=symmetric)
        words = "sign flips of residuals" if kind and partition.nuisance.shape[1] else "sign flips"
    else:
        moved = design.matrix if kind else partition.effective
        relabellings = permute(same_rows(moved), blocks, permutations, seed, whole=whole)
        words = "permutations (Freedman-Lane)" if kind else "permutations of the tested regressors"
    words += " of whole blocks" if whole else " within blocks" if blocks is not None and not flips else ""
    alone = replace(design, tests=(test,))
    return Scheme(alone, partition, relabellings, kind, words, test.tail)


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
