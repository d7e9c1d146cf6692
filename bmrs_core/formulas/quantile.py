"""The quantile of the truncated log-normal in x = log theta, and its gradient.

Three regimes. Interior (mu inside the support): the inverse normal of the smaller of the two tails.
Tail (mu outside): with R Mills' ratio and A the nearer bound, A t + t^2/2 + log(R(A)/R(A + t)) = y
is solved for the distance t = (x - bound)/sigma by one step of order 5, y the negative log of the
survival, so that nothing is lost however far out the tail. Short support: the integral from the
nearer end, a polynomial, is inverted by two such steps from an exponential's closed form.

Two shortcuts: where less mass than rounding lies beyond a bound, the bound is left out. What is left is
half a line (mu outside) or the whole of it (mu inside).
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    EIGHTH,
    HALF,
    HUGE,
    INV_SQRT_2PI,
    ONE,
    R24,
    SEVEN,
    SIX,
    SIXTH,
    TINY,
    TWO,
    ZERO,
)
from bmrs_core.formulas.mills import mills
from bmrs_core.formulas.moments import effective_support, raw_moments
from bmrs_core.formulas.ndtri import upper_quantile
from bmrs_core.formulas.normal import SHORT_WIDTH, J_any, J_wide, oriented
from bmrs_core.formulas.primitives import (
    Bool,
    Real,
    absolute,
    decay,
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
    "interior_offset",
    "log_quantile_common",
    "log_quantile_grad",
    "log_quantile_half_line",
    "log_quantile_interior",
    "log_quantile_is_half_line",
    "log_quantile_is_interior",
    "log_quantile_is_rare",
    "log_quantile_is_unbounded",
    "log_quantile_rare",
    "log_quantile_unbounded",
    "mass_beyond",
    "offset_rare",
    "quantile_common",
    "quantile_half_line",
    "quantile_interior",
    "quantile_is_half_line",
    "quantile_is_interior",
    "quantile_is_rare",
    "quantile_is_unbounded",
    "quantile_rare",
    "quantile_unbounded",
    "short_integral",
    "short_step",
    "tail_guess",
    "tail_offset",
    "tail_step",
    "within_support",
]

# Below this exponent across the support its slope is left out of the first guess.
FLAT = 1e-3
# What is short times sigma^2 and sigma must also be short in units of sigma, whatever the rounding.
SLACK = 1.001
# Nearer than this fraction of the mass to the bound mu lies beyond, log(R(A)/R(A + t)) would cancel and
# the integral from the bound is inverted: above, at most 16 eps of t are lost, below, none.
AT_BOUND = 0.0625
# Where u and 1 - u exceed this, the far end of a tail is left out if at most e^-FAR_EXPONENT = 2e-35 of the
# mass lies beyond, and the ends of an interior if beyond 12.5 sigma, Phi(-12.5) = 4e-36: 2e-18 of u.
SURE = 1e-17
FAR_EXPONENT = 80.0
FAR_END = 12.5
# e^-BELOW_TINY is below TINY in float64, where -log of a mass ends.
BELOW_TINY = 690.8
# A least-squares fit, reweighted towards equal errors, over 0.06 < y < 692 and all A: see tail_guess.
# G<i>_<j> is the coefficient of growth^i r^j.
G0_0 = 0.0267492
G0_1 = 0.729434
G0_2 = -0.316076
G1_0 = 0.0102442
G1_1 = -1.3688
G1_2 = 0.816006
G2_0 = -0.0665962
G2_1 = 1.44858
G2_2 = -0.912744
G3_0 = 0.0399753
G3_1 = -0.574068
G3_2 = 0.366867


def log_quantile_is_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether the support is short, or x close to the bound mu lies beyond."""
    width = b - a
    middle = HALF * ((a - mu) + (b - mu))
    p = where(middle < ZERO, ONE - u, u)
    at_bound = (p < AT_BOUND) & ((mu <= a) | (mu >= b))
    short = (width * absolute(middle) < sigma * sigma) & (width < SHORT_WIDTH * sigma)
    return short | at_bound


def tail_guess(near: Real, growth: Real, y: Real) -> Real:
    """Return t to 7e-4 of it for 0.06 < y < 40, to 1e-3 for y < 692.

    A hazard 1/R(A + t) linear in t with its slope at the bound, growth = 1 - A R(A), is exact for an
    exponential and 18 per cent too far at worst; the rest is a polynomial.
    """
    root = sqrt(ONE + TWO * growth * y)
    per = ONE / (ONE + root)
    r = (root - ONE) * per
    g0 = (G0_2 * r + G0_1) * r + G0_0
    g1 = (G1_2 * r + G1_1) * r + G1_0
    g2 = (G2_2 * r + G2_1) * r + G2_0
    g3 = (G3_2 * r + G3_1) * r + G3_0
    excess = ((g3 * growth + g2) * growth + g1) * growth + g0
    return TWO * y * near * per * (ONE - growth * r * excess)


def tail_step(t: Real, lower: Real, near: Real, y: Real) -> Real:
    """Return t after one step of order 5 towards lower t + t^2/2 + log(R(lower)/R(z)) = y, z = lower + t.

    The first four terms of the inverse's series: with R = R(z) and e = 1 - z R, dt/dy = R, dR/dy = -e R
    and de/dy = e - e^2 - R^2.
    """
    z = lower + t
    r = mills(z)
    d = y - (lower + HALF * t) * t - log(near / r)
    e = ONE - z * r
    square = r * r
    third = e * (TWO * e - ONE) + square
    fourth = e * (SIX * e * (ONE - e) - ONE) + square * (ONE - SEVEN * e)
    return maximum(t + r * d * (ONE + d * (-HALF * e + d * (SIXTH * third + d * (R24 * fourth)))), ZERO)


def tail_offset(u: Real, alpha: Real, beta: Real, w: Real) -> Real:
    """Return the distance t of x(u) from the bound mu lies beyond.

    One step leaves less than 2e-16 of t for 0.06 < y < 40, less than 6e-16 for y < 692 (u > 1e-300).
    """
    flipped = alpha + beta < ZERO
    lower, upper, h = oriented(alpha, beta)
    p = where(flipped, ONE - u, u)
    q = where(flipped, u, ONE - u)
    start = absolute(lower)
    near = mills(start)
    rest = minimum(decay(where(w * h < BELOW_TINY, -w * h, -HUGE)) * (mills(upper) / near), ONE)
    loss = p * (ONE - rest)
    rounded = ONE - loss
    small = p < HALF
    correction = where(small, (ONE - rounded - loss) * (ONE + loss), ZERO)
    y = -(log(maximum(where(small, rounded, q + p * rest), TINY)) + correction)
    t = tail_guess(near, maximum(ONE - start * near, ZERO), y)
    return minimum(tail_step(t, start, near, y), w)


def mass_beyond(z: Real) -> Real:
    """Return 1 - Phi(z) for z >= 0, 0 where it is below TINY."""
    exponent = HALF * z * z
    return INV_SQRT_2PI * (decay(where(exponent < BELOW_TINY, -exponent, -HUGE)) * mills(z))


def interior_offset(u: Real, alpha: Real, beta: Real) -> Real:
    """Return y(u) of an interval around 0, by the inverse normal of the smaller of the two tails."""
    below_alpha = mass_beyond(absolute(alpha))
    above_beta = mass_beyond(absolute(beta))
    below = (ONE - u) * below_alpha + u * (ONE - above_beta)
    above = (ONE - u) * (ONE - below_alpha) + u * above_beta
    z = upper_quantile(maximum(minimum(below, above), TINY))
    return where(below < above, -z, z)


def within_support(x: Real, u: Real, a: Real, b: Real) -> Real:
    """Return x, rounded into the support and exact at u = 0 and u = 1; NaN where u is."""
    inside = minimum(maximum(x, a), b)
    return where(u > ZERO, where(u < ONE, inside, b), a + ZERO * u)


def log_quantile_common(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return x(u) where mu lies outside the support and x is not close to the bound."""
    beta = (b - mu) / sigma
    t = tail_offset(u, (a - mu) / sigma, beta, (b - a) / sigma)
    return within_support(where(beta <= ZERO, b - sigma * t, a + sigma * t), u, a, b)


def log_quantile_is_interior(_u: Real, mu: Real, _sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether mu lies inside the support."""
    return (mu > a) & (mu < b)


def log_quantile_interior(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return x(u) where mu lies inside a support that is not short."""
    return within_support(mu + sigma * interior_offset(u, (a - mu) / sigma, (b - mu) / sigma), u, a, b)


def short_integral(t: Real, slope: Real) -> Real:
    """Return the integral of exp(-tau (slope + tau/2)) from 0 to t, of a short interval."""
    p = HALF * t * (slope + HALF * t)
    q = EIGHTH * t * t
    return t * decay(q - p) * (ONE + short_excess(p, q))


def short_step(t: Real, slope: Real, target: Real, w: Real) -> Real:
    """Return t after one step of order 5 towards short_integral(t, slope) = target: the inverse's series.

    No short support's density falls by more than e^-6 on the way to t.
    """
    d = (target - short_integral(t, slope)) * exp(maximum(t * (slope + HALF * t), -SIX))
    s = slope + t
    square = s * s
    third = SIXTH * (TWO * square + ONE) + d * (R24 * s * (SIX * square + SEVEN))
    return minimum(maximum(t + d * (ONE + d * (HALF * s + d * third)), ZERO), w)


def offset_rare(u: Real, alpha: Real, beta: Real, w: Real) -> tuple[Bool, Real]:
    """Return (from_a, t): the bound from which x is measured, and its distance.

    Of a short support the bound with less mass between; else the one mu lies beyond. The first guess
    is exact for an exponential with the slope at the middle of the support, or of the bound itself.
    """
    lower, upper, h = oriented(alpha, beta)
    short = (w * h < SLACK) & (w < SLACK * SHORT_WIDTH)
    from_a = where(short, where(u < HALF, ONE, ZERO), where(alpha >= ZERO, ONE, ZERO)) > HALF
    fraction = where(from_a, u, ONE - u)
    slope = where(from_a, alpha, -beta)
    whole = where(short, short_integral(minimum(w, SLACK * SHORT_WIDTH), slope), J_wide(lower, upper, w, h))
    target = fraction * whole
    mean_slope = slope + HALF * w
    steep = short & (absolute(mean_slope * w) > FLAT)
    safe_slope = where(steep, mean_slope, ONE)
    drop = where(steep, expm1(-safe_slope * w), -HALF)
    exponential = -log1p(fraction * drop) / safe_slope
    t = minimum(where(steep, exponential, where(short, fraction * w, target)), w)
    t = short_step(t, slope, target, w)
    return from_a, short_step(t, slope, target, w)


def log_quantile_is_half_line(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether mu lies outside the support, so far from its far end that it might be infinite."""
    middle = absolute(HALF * ((a - mu) + (b - mu)))
    p = where(mu <= a, u, ONE - u)
    far = (b - a) * middle > FAR_EXPONENT * sigma * sigma
    return ((mu <= a) | (mu >= b)) & far & (p >= AT_BOUND) & (u > SURE) & (u < ONE)


def log_quantile_half_line(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return x(u) of a support without its far end: the survival is 1 - u or, from b, u itself."""
    from_a = mu <= a
    start = where(from_a, a - mu, mu - b) / sigma
    near = mills(start)
    survival = where(from_a, ONE - u, u)
    correction = where(from_a, (ONE - survival - u) * (ONE + u), ZERO)
    y = -(log(survival) + correction)
    t = tail_step(tail_guess(near, maximum(ONE - start * near, ZERO), y), start, near, y)
    return minimum(maximum(where(from_a, a + sigma * t, b - sigma * t), a), b)


def log_quantile_is_unbounded(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether mu lies so far inside the support that its ends might be infinite."""
    reach = FAR_END * sigma
    return (mu - a > reach) & (b - mu > reach) & (u > SURE) & (u < ONE)


def log_quantile_unbounded(u: Real, mu: Real, sigma: Real, _a: Real, _b: Real) -> Real:
    """Return x(u) of the normal distribution on the whole line."""
    below = u < HALF
    z = upper_quantile(where(below, u, ONE - u))
    return mu + sigma * where(below, -z, z)


def log_quantile_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return x(u) of a short support or close to the bound mu lies beyond."""
    from_a, t = offset_rare(u, (a - mu) / sigma, (b - mu) / sigma, (b - a) / sigma)
    return within_support(where(from_a, a + sigma * t, b - sigma * t), u, a, b)


def quantile_common(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u) where mu lies outside the support and x is not close to the bound."""
    return exp(log_quantile_common(u, mu, sigma, a, b))


def quantile_is_interior(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether mu lies inside the support."""
    return log_quantile_is_interior(u, mu, sigma, a, b)


def quantile_interior(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u) where mu lies inside a support that is not short."""
    return exp(log_quantile_interior(u, mu, sigma, a, b))


def quantile_is_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether the support is short, or x close to the bound mu lies beyond."""
    return log_quantile_is_rare(u, mu, sigma, a, b)


def quantile_rare(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u) of a short support or close to the bound mu lies beyond."""
    return exp(log_quantile_rare(u, mu, sigma, a, b))


def quantile_is_half_line(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether mu lies outside the support, so far from its far end that it might be infinite."""
    return log_quantile_is_half_line(u, mu, sigma, a, b)


def quantile_half_line(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u) of a support without its far end."""
    return exp(log_quantile_half_line(u, mu, sigma, a, b))


def quantile_is_unbounded(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether mu lies so far inside the support that its ends might be infinite."""
    return log_quantile_is_unbounded(u, mu, sigma, a, b)


def quantile_unbounded(u: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return theta(u) of the log-normal that is not truncated."""
    return exp(log_quantile_unbounded(u, mu, sigma, a, b))


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
    inside = lower < ZERO
    xi_interior = interior_offset(u, where(inside, alpha, -ONE), where(inside, beta, ONE))
    common = log_quantile_common(u, mu, sigma, a, b)
    is_interior = log_quantile_is_interior(u, mu, sigma, a, b)
    x = where(is_interior, within_support(mu + sigma * xi_interior, u, a, b), common)
    x = where(rare, log_quantile_rare(u, mu, sigma, a, b), x)
    from_a, t_rare = offset_rare(u, alpha, beta, w)
    t_tail = tail_offset(u, alpha, beta, w)
    same_end = where(from_a, ONE, ZERO) == where(flipped, ZERO, ONE)
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
