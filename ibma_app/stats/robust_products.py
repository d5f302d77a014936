"""Cluster-robust least squares of many relabellings at once, from a few numbers for each cluster.

Where whole clusters change sign or place, all that a relabelling changes is
linear in what it moves. With residuals y_j under the null of cluster j and
coordinates f_j = T'y_j on templates T that every cluster's weights lie in, the
place i of a cluster then holding cluster j gives

    effect = sum of s_i E_i f_j,   z = sum of s_i Z_i f_j,   S_i = s_i G_i f_j - U_i z,

and the covariance of the effects is the sum of S_i S_i' (CR2: G_i the adjusted
weights of residuals, U_i z what the fit takes out of them). In a balanced
design f_j is one number. Effects and z are one matrix product for all
relabellings and voxels; covariances are sums of squares, so that nothing
cancels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import compiled, inner
from ibma_app.stats.cr2 import Adjusted
from ibma_app.stats.partition import same_rows
from ibma_app.stats.ztable import ZTable, z_of_correlations, z_of_shares

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

IN_CACHE = 60_000  # numbers of a tile of voxels that stay in a core's cache
_NONE = 1e-12  # of the largest singular value: no template
_ROUNDING = 1e-13  # remainder of a variance that is rounding error


class Forms(NamedTuple):
    """One test's Q rows, m clusters, F coordinates of each, H dimensions of what the fit takes out."""

    effect: Floats  # (Q, m, F)
    fit: Floats  # (H, m, F)
    own: Floats  # (m, Q, F)
    taken: Floats  # (U, Q, H) the distinct ones: in balanced designs few
    kinds: Integers  # (m,) which of them is a cluster's


class Templates(NamedTuple):
    """Where clusters' maps are, and what they are measured on."""

    rows: Integers  # (m, L) maps of each cluster in the order of their places; -1: it has fewer
    basis: Floats  # (m, L, F) orthonormal in each cluster; the same for those that change places; 0 beyond its rank


def _span(vectors: Floats) -> Floats:
    """Return an orthonormal basis (L, F) of the columns of (L, N)."""
    left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    return left[:, sizes > _NONE * sizes.max(initial=0.0)]


def make_forms(
    basis: Floats, adjusted: Adjusted, rows: slice, places: Integers, groups: Integers
) -> tuple[Forms, Templates]:
    """Reduce one test's weights to what differs between clusters.

    Parameters
    ----------
    basis : ndarray, shape (K, P)
        Orthonormal, of the design.
    adjusted : Adjusted
        Of the design's tests where every map covers.
    rows : slice
        The test's rows.
    places : ndarray of int, shape (m, L)
        As in `Templates`.
    groups : ndarray of int, shape (m,)
        Clusters of one group may change places with each other.
    """
    effect = adjusted.rows[rows] @ basis.T  # (Q, K)
    own = adjusted.weights[rows]
    there = places >= 0

    def cut(values: Floats) -> Floats:  # (R, K) -> (R, m, L)
        return np.where(there, values[:, np.where(there, places, 0)], 0.0)

    fitted = np.einsum("qml,mlp->qmp", cut(own), cut(basis.T).transpose(1, 2, 0))
    directions = _span(fitted.reshape(-1, basis.shape[1]).T)  # (P, H)
    forms = [cut(values) for values in (effect, directions.T @ basis.T, own)]
    stacked = np.concatenate(forms)  # (R, m, L)
    scale = np.sqrt((stacked**2).sum(axis=(1, 2)))
    scaled = stacked / np.where(scale > 0.0, scale, 1.0)[:, None, None]
    spans = {g: _span(scaled[:, groups == g].reshape(-1, places.shape[1]).T) for g in np.unique(groups).tolist()}
    width = max(span.shape[1] for span in spans.values())
    templates = np.zeros((*places.shape, width))
    for i, g in enumerate(groups.tolist()):
        templates[i, :, : spans[g].shape[1]] = spans[g]
    effects, fits, owns = (np.einsum("rml,mlf->rmf", values, templates) for values in forms)
    taken = np.ascontiguousarray((fitted @ directions).swapaxes(0, 1))  # (m, Q, H)
    kinds = same_rows(taken.reshape(len(places), -1))
    first = np.unique(kinds, return_index=True)[1]
    return Forms(effects, fits, np.ascontiguousarray(owns.swapaxes(0, 1)), taken[first], kinds), Templates(
        places, templates
    )


def to_features(residuals: Floats, templates: Templates) -> Floats:
    """Measure residuals (K, B) on the templates: (m, F, B)."""
    there = templates.rows >= 0
    taken = np.where(there[:, :, None], residuals[np.where(there, templates.rows, 0)], 0.0)
    found: Floats = templates.basis.swapaxes(1, 2) @ taken
    return found


@inner
def _factor_row(covariance: Floats, a: int, spare: Floats) -> None:
    """Make row a of the Cholesky factors of covariances (Q, Q, B), in place; NaN where they are not positive."""
    voxels = spare.size
    spare[:] = covariance[a, a]
    for c in range(a + 1):
        for s in range(c):
            for b in range(voxels):
                covariance[a, c, b] -= covariance[a, s, b] * covariance[c, s, b]
        if c < a:
            for b in range(voxels):
                covariance[a, c, b] /= covariance[c, c, b]
    for b in range(voxels):
        left = covariance[a, a, b]
        covariance[a, a, b] = np.sqrt(left) if left > _ROUNDING * spare[b] else np.nan


@compiled
def _t_squared(effect: Floats, covariance: Floats, squared: Floats, spare: Floats) -> None:
    """Turn effects (Q, B) and their covariances (Q, Q, B), both overwritten, into T²; NaN where that does not exist."""
    squared[:] = 0.0
    for a in range(effect.shape[0]):
        _factor_row(covariance, a, spare)
        for c in range(a):
            for b in range(squared.size):
                effect[a, b] -= covariance[a, c, b] * effect[c, b]
        for b in range(squared.size):
            effect[a, b] /= covariance[a, a, b]
            squared[b] += effect[a, b] * effect[a, b]


@compiled
def _covariances(own: Floats, signs: Floats, taken: Floats, kinds: Integers, sums: Floats, covariance: Floats) -> None:
    """Fill the lower half of the covariance (Q, Q, B) of one relabelling; ``sums``, (Q, B), is for work."""
    clusters, rows, voxels = own.shape
    covariance[:] = 0.0
    for i in range(clusters):
        for q in range(rows):
            for b in range(voxels):
                sums[q, b] = signs[i] * own[i, q, b] - taken[kinds[i], q, b]
            for p in range(q + 1):
                for b in range(voxels):
                    covariance[q, p, b] += sums[q, b] * sums[p, b]


@compiled
def _t_to_z(effect: Floats, variance: Floats, dof: float, table: ZTable, scale: Floats, out: Floats) -> None:
    """Turn effects and their variances, (B,), into z."""
    for b in range(out.size):
        total = effect[b] * effect[b] + dof * variance[b]
        scale[b] = 1.0 / np.sqrt(total) if total > 0.0 else 0.0
    z_of_correlations(effect, scale, table, out)


@compiled
def _f_to_z(squared: Floats, dof: float, table: ZTable, out: Floats) -> None:
    """Turn T² into z; NaN into 0."""
    for b in range(out.size):
        out[b] = z_of_shares(squared[b], dof, table) if squared[b] >= 0.0 else 0.0


def _held(own: Floats, values: Floats) -> Floats:
    """Weigh what the clusters' places hold, (m, F, B): (m, Q, B)."""
    found: Floats = own * values if own.shape[2] == 1 else own @ values
    return found


def robust_z(
    forms: Forms, features: Singles, sources: Integers, signs: Floats, dof: float, table: ZTable, out: Floats
) -> None:
    """Compute z maps of D relabellings.

    Parameters
    ----------
    forms : Forms
    features : ndarray, shape (m, F, N)
        Of N voxels.
    sources : ndarray of int, shape (D, m)
        The cluster that each place holds.
    signs : ndarray, shape (D, m)
        By which it is multiplied there.
    dof : float
        Of t, or of the Wishart matrix below T².
    table : ZTable
        Of t with these dof; of F with dof - Q + 1.
    out : ndarray, shape (D, N)
        Filled; 0 where a test cannot be estimated.
    """
    clusters, width, voxels = features.shape
    rows, drawn = forms.effect.shape[0], len(sources)
    both = np.concatenate([forms.effect, forms.fit])
    weights = np.zeros((drawn, *both.shape))
    for d in range(drawn):
        weights[d][:, sources[d]] = both * signs[d][None, :, None]
    flat = weights.reshape(-1, clusters * width)
    taken_weights = forms.taken.reshape(-1, forms.taken.shape[2])
    stays = bool(np.all(sources == np.arange(clusters)))
    tile = max(64, min(4096, IN_CACHE // (clusters * max(width, rows))))
    for first in range(0, voxels, tile):
        values = features[:, :, first : first + tile].astype(np.float64)
        here = values.shape[2]
        products = (flat @ values.reshape(-1, here)).reshape(drawn, -1, here)
        sums, covariance, squared = np.empty((rows, here)), np.empty((rows, rows, here)), np.empty(here)
        own = forms.own @ values if stays else None  # (m, Q, B)
        for d in range(drawn):
            effect, fit = products[d, :rows], products[d, rows:]
            held = _held(forms.own, values[sources[d]]) if own is None else own
            taken = (taken_weights @ fit).reshape(-1, rows, here)
            _covariances(held, signs[d], taken, forms.kinds, sums, covariance)
            there = out[d, first : first + here]
            if table.dof1 == 0.0:
                _t_to_z(effect[0], covariance[0, 0], dof, table, sums[0], there)
            else:
                _t_squared(effect, covariance, squared, sums[0])
                _f_to_z(squared, dof, table, there)
