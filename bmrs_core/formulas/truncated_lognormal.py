"""The truncated log-normal posterior q (paper Eq. 7): normaliser, divergence from the prior, mean.

x = log theta is normal with mu, sigma, truncated to [a, b] in log units; alpha = (a - mu)/sigma,
beta = (b - mu)/sigma, w = (b - a)/sigma. The prior is log-uniform on the same support.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    EIGHTH,
    HALF,
    MANY,
    MANY_T,
    MANY_TC,
    MANY_W,
    ONE,
    QUARTER,
    SQRT_2PI,
    SQRT_2PI_LOW,
    TWO,
    ZERO,
)
from bmrs_core.formulas.flat_divergence import flat_excess, flat_weighted
from bmrs_core.formulas.mills import mills, mills_excess
from bmrs_core.formulas.moments import effective_support
from bmrs_core.formulas.normal import (
    J_any,
    beside_one,
    log_normal_mass,
    oriented,
)
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
    sums_over_nodes,
    where,
)

__all__ = [
    "anchored_exp",
    "is_narrow",
    "kl_divergence_common",
    "kl_divergence_is_rare",
    "kl_divergence_rare",
    "log_mean_common",
    "log_mean_is_rare",
    "log_mean_rare",
    "log_normalizer",
    "mean",
    "mode_of",
    "tilt",
]

# Where the divergence is below about 0.4 nats it is a polynomial, elsewhere it is in closed form: FLAT_SLOPE
# bounds w h, twice the exponent's linear range, FLAT_WIDTH bounds w. At the border the closed form
# loses a factor of about 10 to cancellation, which the condition number there (>= 4) mostly covers.
FLAT_SLOPE = 4.5
FLAT_WIDTH = 4.0

# Beyond e^+-ROOT_BEYOND an exponential is the square of another; its condition number is as large.
ROOT_BEYOND = 64.0

# Where x varies by less than this over q, and log E[theta] may be near 0, exp(x - mode) - 1 is summed.
NARROW = 0.3


def log_normalizer(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log Z = log(Phi(beta) - Phi(alpha))."""
    return log_normal_mass((a - mu) / sigma, (b - mu) / sigma, (b - a) / sigma)


def kl_divergence_is_rare(mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether q is so nearly uniform in x that the closed form would cancel."""
    slope = HALF * (b - a) * absolute((a - mu) + (b - mu))
    return (slope < FLAT_SLOPE * sigma * sigma) & (b - a < FLAT_WIDTH * sigma)


def kl_divergence_common(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return KL(q || p) = log(w / J) + E_q[e], e the exponent relative to the mode.

    E[e] = -(1 + (A phi(A) - B phi(B))/Z - m^2)/2. In a tail A^2 is taken out analytically: what is
    left are excesses 1 - z mills(z), so that nothing of the size of A^2 is ever subtracted.
    """
    w = (b - a) / sigma
    lower, upper, h = oriented((a - mu) / sigma, (b - mu) / sigma)
    in_tail = lower >= ZERO
    near = mills(absolute(lower))
    far = mills(upper)
    fall = beside_one(-w * h)
    at_lower = beside_one(-HALF * lower * lower)
    far = fall * far
    j = where(in_tail, near, SQRT_2PI - at_lower * near)
    j = j - where(in_tail, far, at_lower * far - SQRT_2PI_LOW)
    lower_term = lower * where(in_tail, mills_excess(absolute(lower)), ONE)
    upper_term = fall * (upper * where(in_tail, mills_excess(upper), ONE))
    upper_term = upper_term + where(in_tail, TWO * w * h * far, ZERO)
    boundary = (lower_term - upper_term) * where(in_tail, ONE, at_lower)
    return log(w / j) - HALF * (ONE + boundary / j)


def kl_divergence_rare(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return KL(q || p) of a nearly uniform q, to full relative accuracy however small.

    With f the exponent over the support less its mean under the prior, E_p[f] = 0, so that
    E_p[e^f] = 1 + E_p[e^f - 1 - f] and E_q[f] = E_p[f (e^f - 1)] / E_p[e^f].
    """
    w = (b - a) / sigma
    p = w * QUARTER * ((a - mu) / sigma + (b - mu) / sigma)
    q = EIGHTH * w * w
    excess = flat_excess(p * p, q)
    return flat_weighted(p * p, q) / (ONE + excess) - log1p(excess)


def tilt(mu: Real, sigma: Real, a: Real, b: Real, k: Real) -> tuple[Real, Real]:
    """Return (anchor, D) with E[theta^k] = exp(k anchor + D) J_k / J_0.

    J_0 and J_k belong to N(mu, sigma^2) and N(mu + k sigma^2, sigma^2) on [a, b], each anchored at
    its own mode. The anchor is one of a, b, mu, hence exact; D is a sum of terms of one sign, so
    mu + k sigma^2/2 is never formed to be subtracted again.
    """
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    shift = k * sigma
    below = alpha > ZERO
    above = beta < ZERO
    tilted_below = alpha - shift > ZERO
    tilted_above = beta - shift < ZERO
    anchor = where(tilted_below, a, where(tilted_above, b, where(below, a, mu)))
    at_mode = where(below, HALF * (shift - alpha) * (shift - alpha), HALF * shift * shift)
    at_b = where(below, -HALF * (b - a) / sigma * (alpha + beta), where(above, ZERO, -HALF * beta * beta))
    return anchor, where(tilted_below, ZERO, where(tilted_above, at_b, at_mode))


def anchored_exp(anchor: Real, d: Real, factor: Real) -> Real:
    """Return exp(anchor + d) factor, what the sum's rounding loses made good.

    Far from 1 as the square of a root: the exponential alone may leave the range where the product does not.
    """
    total = anchor + d
    part = total - anchor
    lost = (anchor - (total - part)) + (d - part)
    far = absolute(total) > ROOT_BEYOND
    root = exp(where(far, HALF * total, total))
    return root * (factor + factor * lost) * where(far, root, ONE)


def mean(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return E[theta]."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    lower, upper, h = oriented(alpha, beta)
    lower1, upper1, h1 = oriented(alpha - sigma, beta - sigma)
    anchor, d = tilt(mu, sigma, a, b, ONE)
    return anchored_exp(anchor, d, J_any(lower1, upper1, w, h1) / J_any(lower, upper, w, h))


def mode_of(mu: Real, a: Real, b: Real) -> Real:
    """Return the mode of q in x."""
    return minimum(maximum(mu, a), b)


def is_narrow(mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether x varies by less than about NARROW over q."""
    m = minimum(maximum((a - mu) / sigma, ZERO), (b - mu) / sigma)
    return (sigma < NARROW * (ONE + absolute(m))) | (b - a < NARROW)


def log_mean_is_rare(mu: Real, sigma: Real, a: Real, b: Real) -> Bool:
    """Tell whether theta is so near 1 that its logarithm needs a sum of its own."""
    return (absolute(mode_of(mu, a, b)) < ONE) & is_narrow(mu, sigma, a, b)


def log_mean_common(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log E[theta]."""
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    w = (b - a) / sigma
    lower, upper, h = oriented(alpha, beta)
    lower1, upper1, h1 = oriented(alpha - sigma, beta - sigma)
    anchor, d = tilt(mu, sigma, a, b, ONE)
    return anchor + (d + log(J_any(lower1, upper1, w, h1) / J_any(lower, upper, w, h)))


@sums_over_nodes
def log_mean_rare(mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log E[theta] of a narrow q as m + log(1 + E[exp(x - m) - 1]), m its mode."""
    m, start, end = effective_support((a - mu) / sigma, (b - mu) / sigma, (b - a) / sigma)
    mass = ZERO
    excess = ZERO
    for j in range(MANY):
        tau = start * MANY_TC[j] + end * MANY_T[j]
        g = MANY_W[j] * decay(-tau * (m + HALF * tau))
        mass = mass + g
        excess = excess + g * expm1(sigma * tau)
    return mode_of(mu, a, b) + log1p(excess / mass)
