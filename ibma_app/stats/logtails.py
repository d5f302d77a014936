"""Log tails of the beta, gamma and normal distributions: compiled, scalar, finite.

Every function returns logarithms, so that no tail underflows, and computes the
smaller of two complementary tails directly, so that no tail cancels.
"""

import math

from ibma_app.stats.compiled import compiled, inner

LOG_2 = math.log(2.0)
LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
SQRT_HALF = math.sqrt(0.5)
_EPS = 1e-15
_TINY = 1e-300
_MOST = 100_000  # terms; about 10 are used, about sqrt(dof) near the median


@inner
def log1mexp(x: float) -> float:
    """Return log(1 - exp(x)) for x < 0; at x = 0, the smallest log there is."""
    if x >= 0.0:
        return -745.0
    if x > -LOG_2:
        return math.log(-math.expm1(x))
    return math.log1p(-math.exp(x))


@inner
def _stirling(a: float) -> float:
    """Return the remainder of Stirling's formula for log gamma(a), a >= 15."""
    s = 1.0 / (a * a)
    return (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s / 1188)))) / a


@compiled
def log_beta(a: float, b: float) -> float:
    """Return log B(a, b) without the cancellation of three log gammas."""
    if a < b:
        a, b = b, a
    if a < 15.0:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    # log gamma(a) - log gamma(a + b), without the terms that grow with a
    ratio = b - b * math.log(a) - (a + b - 0.5) * math.log1p(b / a)
    ratio += _stirling(a) - _stirling(a + b)
    return ratio + math.lgamma(b)


@inner
def _beta_fraction(a: float, b: float, x: float, y: float) -> float:
    """Return a continued fraction f with I_x(a, b) = x^a y^b / (B(a, b) f).

    Didonato & Morris (1992), Algorithm 708, evaluated by the modified Lentz method.
    """
    f = a * (a * y - b * x + 1.0) / (a + 1.0)
    if f == 0.0:
        f = _TINY
    c = f
    d = 0.0
    for m in range(1, _MOST):
        am = a + 2.0 * m
        down = am - 1.0
        mb = m * (b - m)
        top = (a + m - 1.0) * (a + b + m - 1.0) * mb * x * x / (down * down)
        bottom = m + mb * x / down + (a + m) * (a * y - b * x + 1.0 + m * (1.0 + y)) / (am + 1.0)
        d = bottom + top * d
        if d == 0.0:
            d = _TINY
        c = bottom + top / c
        if c == 0.0:
            c = _TINY
        d = 1.0 / d
        delta = c * d
        f *= delta
        if abs(delta - 1.0) < _EPS:
            break
    return f


@inner
def log_beta_tail(a: float, b: float, log_x: float, log_y: float, log_b: float) -> tuple[float, bool]:
    """Return the log of one tail of the beta distribution and whether it is the lower one.

    Parameters
    ----------
    a, b : float
        Shape.
    log_x, log_y : float
        Log of the point and of its complement.
    log_b : float
        `log_beta(a, b)`.

    Returns
    -------
    log_tail : float
        Log of I_x(a, b) when ``lower``, else of I_y(b, a) = 1 - I_x(a, b):
        the one that can be computed without cancellation.
    lower : bool
    """
    x = math.exp(log_x)
    y = math.exp(log_y)
    front = a * log_x + b * log_y - log_b
    if x * (a + b + 2.0) < a + 1.0:
        return front - math.log(_beta_fraction(a, b, x, y)), True
    return front - math.log(_beta_fraction(b, a, y, x)), False


@inner
def log_gamma_tail(a: float, x: float, log_gamma_a: float) -> tuple[float, bool]:
    """Return the log of one tail of the gamma distribution and whether it is the upper one.

    Series below a + 1, Legendre's continued fraction above (DLMF 8.11.4, 8.9.2).
    """
    if x <= 0.0:
        return -math.inf, False
    front = a * math.log(x) - x - log_gamma_a
    if x < a + 1.0:
        term = 1.0 / a
        total = term
        for n in range(1, _MOST):
            term *= x / (a + n)
            total += term
            if term < total * _EPS:
                break
        return front + math.log(total), False
    b = x + 1.0 - a
    c = 1.0 / _TINY
    d = 1.0 / b
    f = d
    for n in range(1, _MOST):
        top = -n * (n - a)
        b += 2.0
        d = top * d + b
        if d == 0.0:
            d = _TINY
        c = b + top / c
        if c == 0.0:
            c = _TINY
        d = 1.0 / d
        delta = c * d
        f *= delta
        if abs(delta - 1.0) < _EPS:
            break
    return front + math.log(f), True


@inner
def log_normal_sf(z: float) -> float:
    """Return log P(Z > z) of the standard normal distribution."""
    if z < 0.0:
        return math.log1p(-0.5 * math.erfc(-z * SQRT_HALF))
    if z < 25.0:
        return math.log(0.5 * math.erfc(z * SQRT_HALF))
    s = 1.0 / (z * z)  # asymptotic; eight terms leave 1e-17
    series = 1.0 - s * (1.0 - s * (3.0 - s * (15.0 - s * (105.0 - s * (945.0 - s * 10395.0)))))
    return -0.5 * z * z - LOG_SQRT_2PI - math.log(z) + math.log(series)


@inner
def z_of_log_sf(log_p: float) -> float:
    """Return z >= 0 with log P(Z > z) = log_p, for log_p <= log(1/2).

    Start: Hastings' rational approximation (Abramowitz & Stegun 26.2.23); then
    Halley's steps on log P, which is nearly a parabola.
    """
    if log_p >= -LOG_2:
        return 0.0
    t = math.sqrt(-2.0 * log_p)
    z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    z = max(z, 0.0)
    for _ in range(20):
        now = log_normal_sf(z)
        mills = math.exp(-0.5 * z * z - LOG_SQRT_2PI - now)
        newton = (now - log_p) / mills
        step = newton / (1.0 + 0.5 * newton * (mills - z))
        z += step
        if abs(step) <= 1e-6 * abs(z):  # the next error is of the third order
            break
    return max(z, 0.0)


@inner
def z_of_central(log_c: float) -> float:
    """Return z >= 0 with P(|Z| < z) = exp(log_c), relatively exact near 0."""
    c = math.exp(log_c)
    s = 0.886226925452758 * c  # sqrt(pi) / 2
    s *= 1.0 + s * s / 3.0
    if s < 1e-9:
        return s / SQRT_HALF
    for _ in range(20):
        newton = (math.erf(s) - c) * 0.886226925452758 * math.exp(s * s)
        step = newton / (1.0 + newton * s)
        s -= step
        if abs(step) <= 1e-6 * s:
            break
    return s / SQRT_HALF


@inner
def z_of_tail(log_tail: float, upper: bool) -> float:  # noqa: FBT001 - compiled code has no keywords
    """Return z whose upper (or lower) tail has this log."""
    if log_tail > -LOG_2:
        log_tail = log1mexp(log_tail)
        upper = not upper
    z = z_of_log_sf(log_tail)
    return z if upper else -z
