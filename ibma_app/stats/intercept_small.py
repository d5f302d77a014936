"""Kenward & Roger's tests of a random intercept: small-sample covariance, dof and scaled F, in closed form.

The covariance of the maps is linear in two parameters, and any two that span it do. With V itself (a) and ZZ' (r),
of the matrices M, M', M'' of intercept_likelihood.py and Phi = M^-1, in units of sigma2:

    expected information  I_aa = n - p,   I_ar = d log det / dr,   I_rr = -d^2 log det / dr^2,   W = 2 I^-1,
    adjusted covariance   Phi_A = Phi + 2 W_rr Phi (M''/2 - M' Phi M') Phi,

as P_a = -M and Q_aa - P_a Phi P_a = 0 (Kenward & Roger 1997). For one row l with v = l' Phi l, dof = 2 / A with
A = W_aa + 2 W_ar v'/v + W_rr (v'/v)^2; for several, F and its dof by the moments of their article, as R's pbkrtest
(Halekoh & Hojsgaard 2014). Where r is estimated as 0 both variances still count as estimated, as there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import inner
from ibma_app.stats.intercept_likelihood import CURVE, INVERSE, PRODUCT, SLOPE, Point, Work, multiply
from ibma_app.stats.intercept_units import factorise, invert_lower

Floats = NDArray[np.float64]

ROW, ROW_SOLVED = range(2)  # of the vectors of a test
SHARED, BOTH, RATIO = range(3)  # of `Moments.weights`: W_aa, W_ar, W_rr
COVARIANCE, SLOPES, ADJUSTED, LOWER, SPARE = range(5)  # of `Moments.rows`
_IDENTIFIED = 1e-10  # determinant of the information, as a share of its diagonal's, from which r is identified
_SINGULAR = 1e-12


class Moments(NamedTuple):
    """What the tests of one voxel have in common."""

    weights: Floats  # (3,)
    added: Floats  # (P, P) 2 W_rr (M''/2 - M' Phi M')
    solved: Floats  # (Q, P) Phi times each row of an F test
    rows: Floats  # (5, Q, Q) of the rows of an F test


def new_moments(n_columns: int, n_rows: int) -> Moments:
    """Allocate for designs of P columns and tests of at most Q rows."""
    p, q = n_columns, n_rows
    return Moments(np.zeros(3), np.zeros((p, p)), np.zeros((q, p)), np.zeros((5, q, q)))


@inner
def find_moments(point: Point, left: float, rank: int, work: Work, moments: Moments) -> None:
    """Find W and what is added to the covariance, after `evaluate`; ``left`` is n - p."""
    squares, weights = work.squares, moments.weights
    cross, both = point.slope - left * point.q1 / point.q, -point.logs2
    determinant = left * both - cross * cross
    if determinant > _IDENTIFIED * left * both:
        weights[SHARED], weights[BOTH] = 2.0 * both / determinant, -2.0 * cross / determinant
        weights[RATIO] = 2.0 * left / determinant
    else:  # the sum of the variances alone is estimated: least squares
        weights[SHARED], weights[BOTH], weights[RATIO] = 2.0 / left, 0.0, 0.0
    for a in range(rank):
        for b in range(rank):
            total = 0.5 * squares[CURVE, a, b]
            for s in range(rank):
                total -= squares[SLOPE, a, s] * squares[PRODUCT, s, b]
            moments.added[a, b] = 2.0 * weights[RATIO] * total


@inner
def _form(one: Floats, matrix: Floats, other: Floats, rank: int) -> float:
    total = 0.0
    for a in range(rank):
        along = 0.0
        for b in range(rank):
            along += matrix[a, b] * other[b]
        total += one[a] * along
    return total


@inner
def corrected_row(vectors: Floats, rank: int, work: Work, moments: Moments) -> tuple[float, float]:
    """Return the adjusted variance over sigma2 of the row in ``vectors``, and its dof."""
    multiply(work.squares, INVERSE, vectors, ROW, ROW_SOLVED, rank)
    variance, weights, solved = 0.0, moments.weights, vectors[ROW_SOLVED]
    for a in range(rank):
        variance += vectors[ROW, a] * solved[a]
    if not variance > 0.0:
        return 0.0, 0.0
    share = -_form(solved, work.squares[SLOPE], solved, rank) / variance
    spread = weights[SHARED] + 2.0 * weights[BOTH] * share + weights[RATIO] * share * share
    return variance + _form(solved, moments.added, solved, rank), 2.0 / spread


@inner
def _lay_rows(rows: Floats, first: int, size: int, rank: int, work: Work, moments: Moments) -> bool:
    """Write the rows' covariance, its derivative and what is adjusted; return whether it is regular."""
    squares, solved, made, trace = work.squares, moments.solved, moments.rows, 0.0
    for q in range(size):
        for a in range(rank):
            total = 0.0
            for b in range(rank):
                total += squares[INVERSE, a, b] * rows[first + q, b]
            solved[q, a] = total
    for q in range(size):
        for w in range(size):
            total = 0.0
            for a in range(rank):
                total += rows[first + q, a] * solved[w, a]
            made[COVARIANCE, q, w] = total
            made[SLOPES, q, w] = -_form(solved[q], squares[SLOPE], solved[w], rank)
            made[ADJUSTED, q, w] = total + _form(solved[q], moments.added, solved[w], rank)
        trace += made[COVARIANCE, q, q]
    if not np.isfinite(factorise(made[COVARIANCE], size, made[LOWER])):
        return False
    least = np.inf
    for q in range(size):
        least = min(least, made[LOWER, q, q] ** 2)
    return least > _SINGULAR * trace


@inner
def _traces(size: int, moments: Moments) -> tuple[float, float]:
    """Return the traces of C^-1 C' and of its square, C the rows' covariance."""
    made, first, second = moments.rows, 0.0, 0.0
    invert_lower(made[LOWER], size, made[SPARE])
    for q in range(size):
        for w in range(size):
            total = 0.0
            for a in range(q + 1):
                for b in range(w + 1):
                    total += made[SPARE, q, a] * made[SLOPES, a, b] * made[SPARE, w, b]
            second += total * total
            if q == w:
                first += total
    return first, second


@inner
def _scale(size: int, one: float, two: float) -> tuple[float, float]:
    """Return what F is multiplied by and its denominator's dof, from A1 and A2 (Kenward & Roger 1997, section 4)."""
    q = float(size)
    b = (one + 6.0 * two) / (2.0 * q)
    g = ((q + 1.0) * one - (q + 4.0) * two) / ((q + 2.0) * two)
    below = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2.0 - g) / below
    mean = 1.0 / (1.0 - two / q)
    spread = 2.0 / q * (1.0 + c1 * b) / ((1.0 - c2 * b) ** 2 * (1.0 - c3 * b))
    dof = 4.0 + (q + 2.0) / (q * spread / (2.0 * mean * mean) - 1.0)
    if not (mean > 0.0 and spread > 0.0 and dof > 2.0):
        return -1.0, 0.0
    return dof / (mean * (dof - 2.0)), dof


@inner
def corrected_f(
    rows: Floats, first: int, size: int, effects: Floats, rank: int, work: Work, moments: Moments
) -> tuple[float, float]:
    """Return the scaled F of unit sigma2 and its denominator's dof; F is -1 where it has none.

    ``effects`` (P,) are the coefficients on the basis; the test's rows of ``rows`` begin at ``first``.
    """
    if not _lay_rows(rows, first, size, rank, work, moments):
        return -1.0, 0.0
    trace, square = _traces(size, moments)
    weights, q, made = moments.weights, float(size), moments.rows
    one = weights[SHARED] * q * q + 2.0 * weights[BOTH] * q * trace + weights[RATIO] * trace * trace
    two = weights[SHARED] * q + 2.0 * weights[BOTH] * trace + weights[RATIO] * square
    factor, dof = (1.0, 2.0 / one) if size == 1 else _scale(size, one, two)
    if factor < 0.0 or not np.isfinite(factorise(made[ADJUSTED], size, made[LOWER])):
        return -1.0, 0.0
    invert_lower(made[LOWER], size, made[SPARE])
    statistic = 0.0
    for a in range(size):
        along = 0.0
        for b in range(a + 1):
            effect = 0.0
            for i in range(rank):
                effect += rows[first + b, i] * effects[i]
            along += made[SPARE, a, b] * effect
        statistic += along * along
    return factor * statistic / size, dof
