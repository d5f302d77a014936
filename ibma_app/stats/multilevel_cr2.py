"""The adjusted residuals (CR2) of multilevel models, cluster by cluster, and the sums that their tests are made of.

The residuals of cluster i are multiplied with A_i = L (L'(V_i - X_i M X_i')L)^(-1/2) L',
where V_i = L L' is the working covariance of its maps and M that of the
coefficients: the estimate is then unbiased where the working model holds (Bell &
McCaffrey 2002; Pustejovsky & Tipton 2018, as in clubSandwich).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import inner
from ibma_app.stats.cr2 import TAKEN_UP
from ibma_app.stats.jacobi import diagonalise
from ibma_app.stats.two_variances import ACROSS, ALONG, INVERSE, Voxel

Floats = NDArray[np.float64]


class Parts(NamedTuple):
    """What one voxel's tests are made of: R rows, m clusters at most."""

    effects: Floats  # (R,)
    scores: Floats  # (m, R) sums of the adjusted residuals
    inner: Floats  # (m, R, R) products of their weights under the working model
    fitted: Floats  # (m, R, P) their weights on the coefficients
    sizes: Floats  # (R,) the rows' working variances
    taken: Floats  # (R,) the part of these that the design fits exactly
    factor: Floats  # (R, R) for work


class Space(NamedTuple):
    """Space for one cluster of n maps."""

    factor: Floats  # (n, n) L
    matrix: Floats  # (n, n)
    vectors: Floats  # (n, n)
    columns: Floats  # (P, n)
    score: Floats  # (n,)
    work: Floats  # (n,)
    weights: Floats  # (R, n)


@inner
def _factor_cluster(d: Floats, first: int, n: int, tau2: float, factor: Floats) -> None:
    """Write L of a cluster's working covariance diag(1/d) + tau2."""
    for i in range(n):
        for j in range(i + 1):
            total = tau2 + (1.0 / d[first + i] if i == j else 0.0)
            for s in range(j):
                total -= factor[i, s] * factor[j, s]
            factor[i, j] = np.sqrt(total) if i == j else total / factor[j, j]


@inner
def _turn_back(factor: Floats, values: Floats, n: int, out: Floats) -> None:
    """Write L' times a vector; it may be the same array."""
    for i in range(n):
        total = 0.0
        for j in range(i, n):
            total += factor[j, i] * values[j]
        out[i] = total


@inner
def _square(factor: Floats, n: int, out: Floats) -> None:
    """Write L'L."""
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for s in range(i, n):
                total += factor[s, i] * factor[s, j]
            out[i, j], out[j, i] = total, total


@inner
def _adjust(x: Floats, forms: Floats, first: int, n: int, rank: int, space: Space) -> None:
    """Diagonalise L'(V_i - X_i M X_i')L."""
    matrix, columns = space.matrix, space.columns
    for a in range(rank):
        _turn_back(space.factor, x[a, first : first + n], n, columns[a])
    _square(space.factor, n, space.vectors)
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for s in range(n):
                total += space.vectors[i, s] * space.vectors[s, j]
            for a in range(rank):
                for b in range(rank):
                    total -= columns[a, i] * forms[INVERSE, a, b] * columns[b, j]
            matrix[i, j], matrix[j, i] = total, total
    diagonalise(matrix, space.vectors, n)


@inner
def _weigh(first: int, n: int, x: Floats, along: Floats, space: Space, largest: float, out: Floats) -> float:
    """Write the weights of a row's residuals, L G^(-1/2) L^-1 X_i M c; return the part that is fitted exactly."""
    factor, matrix, vectors, score, work = space.factor, space.matrix, space.vectors, space.score, space.work
    for i in range(n):
        total = 0.0
        for a in range(along.size):
            total += x[a, first + i] * along[a]
        for j in range(i):
            total -= factor[i, j] * score[j]
        score[i] = total / factor[i, i]
        work[i] = 0.0
    taken = 0.0
    for e in range(n):
        part = 0.0
        for i in range(n):
            part += vectors[i, e] * score[i]
        if matrix[e, e] <= TAKEN_UP * largest:
            taken += part * part
            continue
        part /= np.sqrt(matrix[e, e])
        for i in range(n):
            work[i] += part * vectors[i, e]
    for i in range(n):
        total = 0.0
        for j in range(i + 1):
            total += factor[i, j] * work[j]
        out[i] = total
    return taken


@inner
def _score(voxel: Voxel, first: int, n: int, rank: int, weights: Floats) -> float:
    """Return the weighted sum of a cluster's residuals."""
    total = 0.0
    for i in range(n):
        residual = 0.0
        for a in range(rank + 1):
            residual += voxel.x[a, first + i] * voxel.forms[ALONG, 0, a]
        total += weights[i] * residual
    return total


@inner
def _project(voxel: Voxel, first: int, n: int, rank: int, weights: Floats, out: Floats) -> None:
    """Write weights on the coefficients, in units of these' covariance."""
    for s in range(rank):
        total = 0.0
        for a in range(s + 1):
            along = 0.0
            for i in range(n):
                along += voxel.x[a, first + i] * weights[i]
            total += along * voxel.forms[ACROSS, a, s]
        out[s] = total


@inner
def _add_cluster(voxel: Voxel, first: int, n: int, rank: int, space: Space, c: int, parts: Parts) -> None:
    """Write a cluster's scores and products from its weights."""
    weights = space.weights
    n_rows = weights.shape[0]
    for r in range(n_rows):
        parts.scores[c, r] = _score(voxel, first, n, rank, weights[r])
        _project(voxel, first, n, rank, weights[r], parts.fitted[c, r])
        _turn_back(space.factor, weights[r], n, weights[r])
    for r in range(n_rows):
        for s in range(n_rows):
            total = 0.0
            for i in range(n):
                total += weights[r, i] * weights[s, i]
            parts.inner[c, r, s] = total


@inner
def take_apart(voxel: Voxel, rows: Floats, m: int, rank: int, tau2: float, space: Space, parts: Parts) -> None:
    """Fill the parts of a voxel whose likelihood was evaluated at its variances, effects aside."""
    forms, n_rows = voxel.forms, rows.shape[0]
    along = np.zeros((n_rows, rank))
    for r in range(n_rows):
        parts.sizes[r], parts.taken[r] = 0.0, 0.0
        for a in range(rank):
            for b in range(rank):
                along[r, a] += forms[INVERSE, a, b] * rows[r, b]
            parts.sizes[r] += rows[r, a] * along[r, a]
    for c in range(m):
        first = voxel.starts[c]
        n = voxel.starts[c + 1] - first
        _factor_cluster(voxel.d, first, n, tau2, space.factor)
        largest = 0.0
        for i in range(n):
            total = 0.0
            for j in range(i, n):
                total += space.factor[j, i] ** 2
            largest = max(largest, total * total)
        _adjust(voxel.x, forms, first, n, rank, space)
        for r in range(n_rows):
            parts.taken[r] += _weigh(first, n, voxel.x, along[r], space, largest, space.weights[r])
        _add_cluster(voxel, first, n, rank, space, c, parts)
