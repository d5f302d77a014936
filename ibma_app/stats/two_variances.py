"""The restricted likelihood of a model with two variances: between clusters, and between the maps of one cluster.

With D = diag(v + omega2) and Z the indicators of clusters, V = D + tau2 Z Z'.
A cluster's block has the inverse D^-1 - tau2 g d d' with d the diagonal of D^-1,
s the sum of d and g = 1 / (1 + tau2 s), so that everything is a sum over maps
and clusters. Minus twice the log likelihood, without constants, is

    f = log|V| + log|X'V^-1 X| + y'P y,    P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1,

with the derivatives f_i = tr(P V_i) - y'P V_i P y and
f_ij = 2 y'P V_i P V_j P y - tr(P V_i P V_j), V_i being Z Z' (tau2) or I (omega2)
(Harville 1977; Gilmour, Thompson & Cullis 1995).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import folded, inner

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BETWEEN, WITHIN, BETWEEN_TWICE, MIXED, WITHIN_TWICE, GRAM, INVERSE, LOWER, ALONG, ACROSS, FORMS = range(11)
"""Forms: columns with V^-1 V_i V^-1 and V^-1 V_i V^-1 V_j V^-1 between them, with V^-1, and places for work."""
LARGE, SMALL = 1e100, 1e-100


class Voxel(NamedTuple):
    """One voxel's k maps, ordered by cluster; the arrays may be longer."""

    x: Floats  # (P + 1, k) columns of the basis, of which ``rank`` are used; then the effects
    v: Floats  # (k,)
    starts: Ints  # (m + 1,) first map of each cluster
    forms: Floats  # (FORMS, P + 1, P + 1)
    d: Floats  # (k,)
    weighted: Floats  # (P + 1, k)
    sums: Floats  # (2, P + 1)


class Point(NamedTuple):
    """Minus twice the log likelihood at one tau2 and omega2, with its derivatives."""

    value: float
    tau: float  # derivative in tau2
    omega: float
    tau_tau: float  # second derivatives
    tau_omega: float
    omega_omega: float
    expected_tau_tau: float  # their expectations
    expected_tau_omega: float
    expected_omega_omega: float


@folded
def _pair(voxel: Voxel, first: int, last: int, a: int, b: int) -> tuple[float, float, float]:
    """Sum x_a V^-1 x_b, and the products of V^-1 x_a and V^-1 x_b without and with d, over a cluster's maps."""
    gram, within, twice = 0.0, 0.0, 0.0
    for i in range(first, last):
        one = voxel.weighted[b, i]
        gram += voxel.x[a, i] * one
        one *= voxel.weighted[a, i]
        within += one
        twice += voxel.d[i] * one
    return gram, within, twice


@folded
def _add_forms(voxel: Voxel, first: int, last: int, columns: int, tau2: float, g: float, s: float) -> None:
    """Weight a cluster's columns, and add it to the forms of all pairs; its sums d x are in the first of ``sums``."""
    forms, between, within = voxel.forms, voxel.sums[0], voxel.sums[1]
    for a in range(columns):
        between[a] *= g  # Z'V^-1 x
        shift, total = tau2 * between[a], 0.0
        for i in range(first, last):
            one = voxel.d[i] * (voxel.x[a, i] - shift)
            voxel.weighted[a, i] = one
            total += voxel.d[i] * one
        within[a] = total
        for b in range(a + 1):
            gram, plain, twice = _pair(voxel, first, last, a, b)
            product = between[a] * between[b]
            forms[GRAM, a, b] += gram
            forms[BETWEEN, a, b] += product
            forms[WITHIN, a, b] += plain
            forms[BETWEEN_TWICE, a, b] += product * g * s
            forms[WITHIN_TWICE, a, b] += twice - tau2 * g * within[a] * within[b]
            forms[MIXED, a, b] += 0.5 * g * (between[a] * within[b] + between[b] * within[a])


class _Traces(NamedTuple):
    """Of V^-1 V_i and V^-1 V_i V^-1 V_j, and log|V|."""

    log: float
    tau: float
    omega: float
    tau_tau: float
    tau_omega: float
    omega_omega: float


@folded
def _sum_up(voxel: Voxel, m: int, columns: int, tau2: float, omega2: float) -> _Traces:
    """Fill the forms of the first ``columns``, and return the traces."""
    x, v, d, starts, sums = voxel.x, voxel.v, voxel.d, voxel.starts, voxel.sums
    for form in range(INVERSE):
        for a in range(columns):
            for b in range(a + 1):
                voxel.forms[form, a, b] = 0.0
    log, product = 0.0, 1.0
    tau, omega, tau_tau, tau_omega, omega_omega = 0.0, 0.0, 0.0, 0.0, 0.0
    for c in range(m):
        s, q, cube = 0.0, 0.0, 0.0
        for a in range(columns):
            sums[0, a] = 0.0
        for i in range(starts[c], starts[c + 1]):
            variance = v[i] + omega2
            product *= variance
            if product > LARGE or product < SMALL:
                log += math.log(product)
                product = 1.0
            one = 1.0 / variance
            d[i] = one
            s += one
            q += one * one
            cube += one * one * one
            for a in range(columns):
                sums[0, a] += one * x[a, i]
        factor = 1.0 + tau2 * s
        product *= factor
        g = 1.0 / factor
        tau += g * s
        omega += s - tau2 * g * q
        tau_tau += (g * s) ** 2
        tau_omega += g * g * q
        omega_omega += q - 2.0 * tau2 * g * cube + (tau2 * g * q) ** 2
        _add_forms(voxel, starts[c], starts[c + 1], columns, tau2, g, s)
    return _Traces(log + math.log(product), tau, omega, tau_tau, tau_omega, omega_omega)


@inner
def _factor_gram(forms: Floats, rank: int) -> float:
    """Factor X'V^-1 X; return the log of its determinant, nan where it is not positive."""
    log = 0.0
    for a in range(rank):
        for b in range(a + 1):
            total = forms[GRAM, a, b]
            for s in range(b):
                total -= forms[LOWER, a, s] * forms[LOWER, b, s]
            if a > b:
                forms[LOWER, a, b] = total / forms[LOWER, b, b]
            elif total > 0.0:
                forms[LOWER, a, a] = math.sqrt(total)
                log += math.log(total)
            else:
                return np.nan
    return log


@inner
def _invert_gram(forms: Floats, rank: int) -> float:
    """Write the inverse of X'V^-1 X; return the log of its determinant, nan where it is not positive."""
    log = _factor_gram(forms, rank)
    for a in range(rank):  # the inverse of the factor, in the upper half: column a in row a
        for b in range(a, rank):
            total = 1.0 if a == b else 0.0
            for s in range(a, b):
                total -= forms[LOWER, b, s] * forms[ACROSS, a, s]
            forms[ACROSS, a, b] = total / forms[LOWER, b, b]
    for a in range(rank):
        for b in range(a + 1):
            total = 0.0
            for s in range(a, rank):
                total += forms[ACROSS, a, s] * forms[ACROSS, b, s]
            forms[INVERSE, a, b] = total
            forms[INVERSE, b, a] = total
    return log


@inner
def quadratic_of(forms: Floats, form: int, rank: int) -> float:
    """Return e'M e of a form, with e the residual as a combination of columns, in the first row of ``ALONG``."""
    total = 0.0
    for a in range(rank + 1):
        total += forms[form, a, a] * forms[ALONG, 0, a] ** 2
        for b in range(a):
            total += 2.0 * forms[form, a, b] * forms[ALONG, 0, a] * forms[ALONG, 0, b]
    return total


@inner
def trace_of(forms: Floats, form: int, rank: int) -> float:
    """Return tr((X'V^-1 X)^-1 M) of a form."""
    total = 0.0
    for a in range(rank):
        total += forms[INVERSE, a, a] * forms[form, a, a]
        for b in range(a):
            total += 2.0 * forms[INVERSE, a, b] * forms[form, a, b]
    return total


@inner
def _solve(forms: Floats, form: int, rank: int, out: int) -> None:
    """Write (X'V^-1 X)^-1 M of a symmetric form of columns."""
    for a in range(rank):
        for b in range(rank):
            total = 0.0
            for s in range(rank):
                total += forms[INVERSE, a, s] * (forms[form, s, b] if s >= b else forms[form, b, s])
            forms[out, a, b] = total


@inner
def _trace_of_two(forms: Floats, one: int, other: int, rank: int) -> float:
    """Return the trace of the product of two square matrices."""
    total = 0.0
    for a in range(rank):
        for b in range(rank):
            total += forms[one, a, b] * forms[other, b, a]
    return total


@inner
def _onto_columns(forms: Floats, form: int, rank: int, row: int) -> None:
    """Write X'V^-1 V_i P y into a row of ``ALONG``."""
    for a in range(rank):
        total = 0.0
        for b in range(rank + 1):
            total += (forms[form, a, b] if a >= b else forms[form, b, a]) * forms[ALONG, 0, b]
        forms[ALONG, row, a] = total


@inner
def _through_inverse(forms: Floats, rank: int, one: int, other: int) -> float:
    """Return the product of two rows of ``ALONG`` through (X'V^-1 X)^-1."""
    total = 0.0
    for a in range(rank):
        for b in range(rank):
            total += forms[ALONG, one, a] * forms[INVERSE, a, b] * forms[ALONG, other, b]
    return total


@inner
def _fit_columns(forms: Floats, rank: int) -> None:
    """Write the residual's combination of columns, (-b, 1)."""
    forms[ALONG, 0, rank] = 1.0
    for a in range(rank):
        total = 0.0
        for b in range(rank):
            total += forms[INVERSE, a, b] * forms[GRAM, rank, b]
        forms[ALONG, 0, a] = -total


@inner
def likelihood(voxel: Voxel, m: int, rank: int, tau2: float, omega2: float) -> float:
    """Return minus twice the log likelihood; leaves (X'V^-1 X)^-1 and the coefficients in the forms."""
    log = _sum_up(voxel, m, rank + 1, tau2, omega2).log + _invert_gram(voxel.forms, rank)
    _fit_columns(voxel.forms, rank)
    return log + quadratic_of(voxel.forms, GRAM, rank)


@inner
def evaluate(voxel: Voxel, m: int, rank: int, tau2: float, omega2: float) -> Point:
    """Return minus twice the log likelihood and its derivatives; the value is nan where X'V^-1 X is singular."""
    forms = voxel.forms
    traces = _sum_up(voxel, m, rank + 1, tau2, omega2)
    log = traces.log + _invert_gram(forms, rank)
    _fit_columns(forms, rank)
    value = log + quadratic_of(forms, GRAM, rank)
    tau = traces.tau - trace_of(forms, BETWEEN, rank) - quadratic_of(forms, BETWEEN, rank)
    omega = traces.omega - trace_of(forms, WITHIN, rank) - quadratic_of(forms, WITHIN, rank)
    _onto_columns(forms, BETWEEN, rank, 1)
    _onto_columns(forms, WITHIN, rank, 2)
    of_tau = quadratic_of(forms, BETWEEN_TWICE, rank) - _through_inverse(forms, rank, 1, 1)
    of_both = quadratic_of(forms, MIXED, rank) - _through_inverse(forms, rank, 1, 2)
    of_omega = quadratic_of(forms, WITHIN_TWICE, rank) - _through_inverse(forms, rank, 2, 2)
    _solve(forms, BETWEEN, rank, LOWER)
    _solve(forms, WITHIN, rank, ACROSS)
    tau_tau = traces.tau_tau - 2.0 * trace_of(forms, BETWEEN_TWICE, rank) + _trace_of_two(forms, LOWER, LOWER, rank)
    both = traces.tau_omega - 2.0 * trace_of(forms, MIXED, rank) + _trace_of_two(forms, LOWER, ACROSS, rank)
    omega_omega = traces.omega_omega - 2.0 * trace_of(forms, WITHIN_TWICE, rank)
    omega_omega += _trace_of_two(forms, ACROSS, ACROSS, rank)
    return Point(
        value, tau, omega, 2.0 * of_tau - tau_tau, 2.0 * of_both - both, 2.0 * of_omega - omega_omega,
        tau_tau, both, omega_omega,
    )  # fmt: skip
