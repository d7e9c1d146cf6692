"""The quantile of the truncated log-normal in x = log theta, and its gradient.

Three regimes. Interior (mu inside the support): the inverse normal of the smaller of the two tails.
Tail (mu outside): with R Mills' ratio and A the nearer bound, A t + t^2/2 + log(R(A)/R(A + t)) = y
is solved for the distance t = (x - bound)/sigma by two Halley steps, y the negative log of the
survival, so that nothing is lost however far out the tail. Short support: the integral from the
nearer end, summed, is inverted by Halley steps from an exponential's closed form.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    EIGHTH,
    HALF,
    HALF_LOG_2PI,
    INV_SQRT_2PI,
    ONE,
    TINY,
    TWO,
    ZERO,
)
from bmrs_core.formulas.mills import mills
from bmrs_core.formulas.moments import effective_support, raw_moments
from bmrs_core.formulas.ndtri import upper_quantile
from bmrs_core.formulas.normal import SHORT_WIDTH, J_any, J_is_short, J_wide, oriented
from bmrs_core.formulas.primitives import (
    Bool,
    Real,
    absolute,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    sqrt,
    where,
)
from bmrs_core.formulas.short_support import short_excess

__all__ = [
    "log_quantile_common",
    "log_quantile_grad",
    "log_quantile_is_rare",
    "log_quantile_rare",
    "offset_common",
    "offset_rare",
    "quantile_common",
    "quantile_is_rare",
    "quantile_rare",
    "short_integral",
    "short_step",
    "tail_step",
]

# From this distance of the nearer bound, or this depth in nats, the first guess is the asymptotic one,
# which leaves out log(1 + t/A) < 1/A^2 of t; nearer, it is the inverse normal, exact but for cancellation.
FAR_BOUND = 30.0
FAR_DEPTH = 700.0
# Below this exponent across the support its slope is left out of the first guess.
FLAT = 1e-3
# Nearer than this fraction of the mass to the bound mu lies beyond, log(R(A)/R(A + t)) would cancel and
# the integral from the bound is summed: above, at most 16 eps of t are lost, below, none.
AT_BOUND = 0.0625


def log_quantile_is_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether the support is short, or x close to the bound mu lies beyond."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    p = where(alpha + beta < ZERO, ONE - u, u)
    at_bound = (p < AT_BOUND) & ((alpha >= ZERO) | (beta <= ZERO))
    return J_is_short((b - a) / sigma, HALF * absolute(alpha + beta)) | at_bound


def tail_step(t: Real, lower: Real, near: Real, y: Real) -> Real:
    """Return t after one Halley step on lower t + t^2/2 + log(R(lower)/R(lower + t)) = y."""
    z = lower + t
    r = mills(z)
    newton = ((lower + HALF * t) * t + log(near / r) - y) * r
    curvature = (ONE - z * r) / r
    return maximum(t - newton / (ONE - HALF * newton * curvature), ZERO)


def offset_common(u: Real, alpha: Real, beta: Real, w: Real) -> tuple[Real, Real]:
    """Return (t, xi): in a tail the distance t from the nearer bound, in the interior y(u) as xi."""
    flipped = alpha + beta < ZERO
    lower, upper, h = oriented(alpha, beta)
    p = where(flipped, ONE - u, u)
    q = where(flipped, u, ONE - u)
    in_tail = lower >= ZERO
    near = mills(absolute(lower))
    far = mills(upper)
    square = HALF * lower * lower

    outside_lower = INV_SQRT_2PI * exp(-square) * near
    outside_upper = INV_SQRT_2PI * exp(-HALF * upper * upper) * far
    below = q * outside_lower + p * (ONE - outside_upper)
    above = q * (ONE - outside_lower) + p * outside_upper

    rest = minimum(exp(-w * h) * far / near, ONE)
    log_survival = log(maximum(where(in_tail, q + p * rest, minimum(below, above)), TINY))
    y = where(p < HALF, -log1p(-p * (ONE - rest)), -log_survival)
    depth = where(in_tail, y + square + HALF_LOG_2PI - log(near), -log_survival)
    z = upper_quantile(depth)

    asymptotic = TWO * y / (absolute(lower) + sqrt(lower * lower + TWO * y) + TINY)
    t = maximum(where((lower < FAR_BOUND) & (depth < FAR_DEPTH), z - lower, asymptotic), ZERO)
    t = tail_step(t, absolute(lower), near, y)
    t = minimum(tail_step(t, absolute(lower), near, y), w)
    return t, where((below < above) == flipped, z, -z)


def log_quantile_common(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return x(u) where it is not close to a bound."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    t, xi = offset_common(u, alpha, beta, (b - a) / sigma)
    x = where(beta <= ZERO, b - sigma * t, where(alpha >= ZERO, a + sigma * t, mu + sigma * xi))
    x = minimum(maximum(x, a), b)
    return where(u > ZERO, where(u < ONE, x, b), a + ZERO * u)


def short_integral(t: Real, slope: Real) -> Real:
    """Return the integral of exp(-tau (slope + tau/2)) from 0 to t, of a short interval."""
    p = HALF * t * (slope + HALF * t)
    q = EIGHTH * t * t
    return t * exp(q - p) * (ONE + short_excess(p, q))


def short_step(t: Real, slope: Real, target: Real, w: Real) -> Real:
    """Return t after one Halley step on short_integral(t, slope) = target."""
    newton = (short_integral(t, slope) - target) * exp(t * (slope + HALF * t))
    return minimum(maximum(t - newton / (ONE + HALF * newton * (slope + t)), ZERO), w)


def offset_rare(u: Real, alpha: Real, beta: Real, w: Real) -> tuple[Bool, Real]:
    """Return (from_a, t): the bound from which x is measured, and its distance.

    Of a short support the bound with less mass between; else the one mu lies beyond. The first guess
    is exact for an exponential with the slope at the middle of the support, or of the bound itself.
    """
    lower, upper, h = oriented(alpha, beta)
    short = J_is_short(w, h)
    from_a = where(short, where(u < HALF, ONE, ZERO), where(alpha >= ZERO, ONE, ZERO)) > HALF
    fraction = where(from_a, u, ONE - u)
    slope = where(from_a, alpha, -beta)
    whole = where(short, short_integral(minimum(w, SHORT_WIDTH), slope), J_wide(lower, upper, w, h))
    target = fraction * whole
    mean_slope = slope + HALF * w
    steep = short & (absolute(mean_slope * w) > FLAT)
    safe_slope = where(steep, mean_slope, ONE)
    drop = where(steep, expm1(-safe_slope * w), -HALF)
    exponential = -log1p(fraction * drop) / safe_slope
    t = minimum(where(steep, exponential, where(short, fraction * w, target)), w)
    t = short_step(t, slope, target, w)
    t = short_step(t, slope, target, w)
    return from_a, short_step(t, slope, target, w)


def log_quantile_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return x(u) of a short support or close to the bound mu lies beyond."""
    from_a, t = offset_rare(u, (a - mu) / sigma, (b - mu) / sigma, (b - a) / sigma)
    return minimum(maximum(where(from_a, a + sigma * t, b - sigma * t), a), b)


def quantile_is_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether the support is short."""
    return log_quantile_is_rare(u, mu, sigma, a, b)


def quantile_common(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u)."""
    return exp(log_quantile_common(u, mu, sigma, a, b))


def quantile_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u) of a short support."""
    return exp(log_quantile_rare(u, mu, sigma, a, b))


def log_quantile_grad(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (x(u), dx/dmu, dx/dsigma).

    dx/dmu = u (1 - u) (E[y | y > xi] - E[y | y < xi]) / f(xi), and y^2 in place of y for dx/dsigma:
    differences of conditional means, where 1 - (1 - u) phi(alpha)/phi(xi) - u phi(beta)/phi(xi) would cancel.
    The density at xi is that of the side which has its mode there, u/f(xi) = J of [alpha, xi] if xi < 0,
    so that no exponent of the size of xi^2 enters; but of a side shorter than 1/2, J would inherit the
    relative error of its length, and the density is that at xi.
    """
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    flipped = alpha + beta < ZERO
    lower, upper, h = oriented(alpha, beta)
    rare = log_quantile_is_rare(u, mu, sigma, a, b)
    x = where(rare, log_quantile_rare(u, mu, sigma, a, b), log_quantile_common(u, mu, sigma, a, b))
    from_a, t_rare = offset_rare(u, alpha, beta, w)
    t_tail, xi_interior = offset_common(u, alpha, beta, w)
    same_end = where(from_a, ONE, ZERO) == where(flipped, ZERO, ONE)
    inside = lower < ZERO
    xi = where(flipped, -xi_interior, xi_interior)
    t_common = where(inside, xi - lower, t_tail)
    t = maximum(where(rare, where(same_end, t_rare, w - t_rare), t_common), ZERO)
    rest = maximum(where(rare, where(same_end, w - t_rare, t_rare), w - t_common), ZERO)
    xi = where(inside & (t_common >= ZERO), where(rare, lower + t, xi), lower + t)

    m_l, start_l, end_l = effective_support(lower, xi, t)
    m_r, start_r, end_r = effective_support(xi, upper, rest)
    j_l, mean_l, square_l = raw_moments(m_l, start_l, end_l, m_l)
    j_r, mean_r, square_r = raw_moments(m_r, start_r, end_r, m_r)
    back = where(m_l > lower, m_l - xi, -t)
    ahead = where(m_r > xi, m_r - xi, ZERO)
    means = (ahead + mean_r) - (back + mean_l)
    squares = (ahead * (m_r + xi) + square_r) - (back * (m_l + xi) + square_l)
    p = where(flipped, ONE - u, u)
    exponent = where(inside, HALF * xi * xi, t * (lower + HALF * t))
    by_mass = u * (ONE - u) * J_any(lower, upper, w, h) * exp(exponent)
    by_side = where(xi < ZERO, (ONE - p) * j_l, p * j_r)
    inverse_density = where(where(xi < ZERO, t, rest) > HALF, by_side, by_mass)
    d_mu = inverse_density * means
    d_sigma = inverse_density * where(flipped, -squares, squares)
    within = (u > ZERO) & (u < ONE)
    return x, where(within, d_mu, ZERO * u), where(within, d_sigma, ZERO * u)
