"""Mixed-effects models whose variance between maps differs between groups of maps: a tau2 for each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Frame, frame_design
from ibma_app.stats.contrasts import Tested
from ibma_app.stats.mixed import TAU2, Q, fit_fixed, fit_mixed, fit_totals

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class GroupedFit(NamedTuple):
    """A fit of B voxels with a tau2 for each of G groups; 0 where nothing could be estimated."""

    tested: Tested
    counts: NDArray[np.int16]  # (2, B) maps n, and rank of their rows
    tau2: Floats  # (G, B)
    q: Floats  # (B,) Cochran's
    identical: Bools  # (B,)


def group_rank(matrix: Floats) -> int:
    """Return the rank of a group's rows of a design, (n, P)."""
    return _span(matrix).shape[1]


def _span(matrix: Floats) -> Floats:
    """Return an orthonormal basis of the columns of some rows of a design, (n, R)."""
    basis, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.ascontiguousarray(basis[:, sizes > 1e-9 * max(sizes[0], 1e-300)])


def fit_by_group(
    effect: Floats,
    variance: Floats,
    covered: Bools,
    matrix: Floats,
    frame: Frame,
    groups: NDArray[np.int64],
    method: str,
    test: str,
) -> GroupedFit:
    """Fit a mixed-effects model at each voxel with weights 1/(variance + tau2 of the map's group).

    Each group's tau2 is estimated from its own maps, by their rows of the
    design. Where the design fits each group by itself (groups and whatever
    interacts with them), that is metafor's fit by subsets, and for ML and REML
    that of its location-scale model, whose likelihood is then a product over
    groups (Viechtbauer & López-López 2022, Res Synth Methods 13, 697-715).

    Parameters
    ----------
    effect, variance : ndarray, shape (K, B), C order
    covered : ndarray of bool, shape (K, B)
    matrix : ndarray, shape (K, P)
        The design.
    frame : Frame
        Of the design and its tests.
    groups : ndarray of int, shape (K,)
        0 to G - 1.
    method, test : str
        As for `fit_mixed`.

    Returns
    -------
    GroupedFit
        Nothing is estimable where a group leaves no degrees of freedom to its tau2.
    """
    tau2 = np.zeros((int(groups.max()) + 1, effect.shape[1]))
    total, known = np.array(variance), np.ones(effect.shape[1], dtype=np.bool_)
    for group, found in enumerate(tau2):
        rows = groups == group
        own = fit_mixed(effect[rows], variance[rows], covered[rows], frame_design(_span(matrix[rows]), []), method, "z")
        found[:] = own.summary[TAU2]
        total[rows] += found
        known &= (own.counts[0] == 0) | (own.counts[0] > own.counts[1])
    fitted = fit_totals(effect, total, covered, frame, test)
    fixed = fit_fixed(effect, variance, covered, frame)
    tested = Tested(fitted.tested.values * known, fitted.tested.estimable & known)
    return GroupedFit(tested, fitted.counts, tau2 * known, fixed.summary[Q], fitted.identical & known)
