"""Delta F, the change in log evidence under a reduced prior (paper Eq. 6, 8, 10), in closed form.

Both are log[(b - a) E_reduced[q(x)]], q the posterior density of x = log theta: positive where the
reduced prior finds more posterior density than the log-uniform prior does on average. Eq. 8's three
squares are never formed: with every density anchored at its own mode, what is left is one exponent
that is a sum of terms of the same sign. Where q is nearly uniform both Delta F and its terms are
tiny, and it is the difference of two log E[e^f] near 0, f the exponent relative to the midpoint.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    EIGHTH,
    HALF,
    MANY,
    MANY_REACH,
    MANY_T,
    MANY_TC,
    MANY_W,
    ONE,
    QUARTER,
    TWO,
    ZERO,
)
from bmrs_core.formulas.normal import J_any, J_is_short, J_wide, oriented
from bmrs_core.formulas.primitives import (
    Bool,
    Real,
    absolute,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    sqrt,
    sums_over_nodes,
    where,
)
from bmrs_core.formulas.short_support import short_excess
from bmrs_core.formulas.truncated_lognormal import excess_exp

__all__ = [
    "delta_f_gaussian",
    "delta_f_normal_common",
    "delta_f_normal_is_rare",
    "delta_f_normal_rare",
    "delta_f_uniform_common",
    "delta_f_uniform_is_rare",
    "delta_f_uniform_rare",
    "exponent_gap",
    "is_nearly_uniform",
    "log_mass",
    "log_mass_ratio",
    "mean_exp_normal",
    "reduced_posterior",
    "relative_exponent",
]

# Where less than this part of the prior lies outside the reduced support, log mass and log prior mass
# are both near 0 and are computed from their complements.
NEARLY_ALL = 0.0625

# A reduced prior narrower than this part of the support moves the exponent f of a nearly uniform q by less
# than d = 1e-4 f: what is left out is of the order of d^3 < 1e-12 f^3.
SPIKE = 5e-6


def is_nearly_uniform(w: Real, h: Real) -> Bool:
    """Tell whether the exponent of q ranges over less than about one nat."""
    return (w + h) * w < ONE


def reduced_posterior(
    mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, _a: Real, _b: Real
) -> tuple[Real, Real]:
    """Return (mu~_q, sigma~_q), the posterior under the reduced prior (after paper Eq. 8)."""
    r = sigma_p / sigma
    scale = ONE + r * r
    return mu_p + (mu - mu_p) * (r * r / scale), sigma_p / sqrt(scale)


def exponent_gap(alpha: Real, beta: Real, w: Real, r: Real, alpha_p: Real, beta_p: Real, delta: Real) -> Real:
    """Return the exponent of q times the reduced prior at its mode, less theirs at their own modes.

    delta = (mu_p - mu)/sigma, r = sigma_p/sigma; the product's mode is mu~_q, or the bound next to it.
    """
    scale = sqrt(ONE + r * r)
    alpha_t = (r * alpha + alpha_p) / scale
    beta_t = (r * beta + beta_p) / scale
    below = alpha_t > ZERO
    above = beta_t < ZERO
    m = minimum(maximum(alpha, ZERO), beta)
    pull = delta / (scale * scale)
    at_mode = where(below, alpha, where(above, beta, pull))
    from_a = where(below, ZERO, where(above, w, -r * alpha_t / scale))
    from_b = where(below, -w, where(above, ZERO, -r * beta_t / scale))
    moved = where(alpha > ZERO, from_a, where(beta < ZERO, from_b, at_mode))
    in_prior = where(below, alpha_p, where(above, beta_p, r * pull))
    return -HALF * (moved * (at_mode + m)) - HALF * in_prior * in_prior


def delta_f_normal_is_rare(mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, a: Real, b: Real) -> Bool:
    """Tell whether the reduced prior is no spike and either it is short or q nearly uniform."""
    w = (b - a) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    r = sigma_p / sigma
    scale = sqrt(ONE + r * r)
    w_p = (b - a) / sigma_p
    middle_p = HALF * ((a - mu_p) / sigma_p + (b - mu_p) / sigma_p)
    middle_t = (r * HALF * (alpha + beta) + middle_p) / scale
    short = J_is_short(w_p, absolute(middle_p)) | J_is_short(w_p * scale, absolute(middle_t))
    nearly_uniform = is_nearly_uniform(w, HALF * absolute(alpha + beta))
    return short | (nearly_uniform & (sigma_p > SPIKE * (b - a)))


def delta_f_normal_common(mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, a: Real, b: Real) -> Real:
    """Return Delta F_N (Eq. 8) = log(w J~ / (J J_p sqrt(1 + r^2))) + exponent gap.

    Of a nearly uniform q, with f its exponent relative to the midpoint and t in [-1, 1] across the
    support, as log E_p~[e^f] - log E_p[e^f], the former by the moments of a spike at mu_p over which f
    moves by d: third powers of d are left out.
    """
    w = (b - a) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    r = sigma_p / sigma
    scale = sqrt(ONE + r * r)
    w_p = (b - a) / sigma_p
    alpha_p = (a - mu_p) / sigma_p
    beta_p = (b - mu_p) / sigma_p
    lower, upper, h = oriented(alpha, beta)
    lower_p, upper_p, h_p = oriented(alpha_p, beta_p)
    lower_t, upper_t, h_t = oriented((r * alpha + alpha_p) / scale, (r * beta + beta_p) / scale)
    j = J_any(lower, upper, w, h)
    j_p = J_wide(lower_p, upper_p, w_p, h_p)
    j_t = J_wide(lower_t, upper_t, w_p * scale, h_t)
    gap = exponent_gap(alpha, beta, w, r, alpha_p, beta_p, (mu_p - mu) / sigma)

    p = w * QUARTER * (alpha + beta)
    q = EIGHTH * w * w
    centre = ((mu_p - a) - (b - mu_p)) / (b - a)
    width = TWO * sigma_p / (b - a)
    at_lower = exp(-HALF * alpha_p * alpha_p) / j_p
    at_upper = exp(-HALF * beta_p * beta_p) / j_p
    slope = p + TWO * q * centre
    second = ONE + (alpha_p * at_lower - beta_p * at_upper)
    moved = -width * slope * (at_lower - at_upper) + width * width * second * (HALF * slope * slope - q)
    excess = short_excess(p, q)
    flat = log1p((moved - excess) / (ONE + excess)) - centre * (p + q * centre)

    nearly_uniform = is_nearly_uniform(w, h)
    return where(nearly_uniform, flat, log(w / (j * scale) * (j_t / j_p)) + gap)


@sums_over_nodes
def mean_exp_normal(
    p: Real, q: Real, centre: Real, width: Real, start: Real, end: Real
) -> tuple[Real, Real, Real]:
    """Return the sums of g, g f and g (e^f - 1 - f) over tau in [start, end].

    g is exp(-tau^2/2), f(t) = -(p t + q t^2) at t = centre + width tau.
    """
    total = ZERO
    linear = ZERO
    excess = ZERO
    for j in range(MANY):
        tau = start * MANY_TC[j] + end * MANY_T[j]
        t = centre + width * tau
        f = -t * (p + q * t)
        g = MANY_W[j] * exp(-HALF * tau * tau)
        total = total + g
        linear = linear + g * f
        excess = excess + g * excess_exp(f)
    return (end - start) * total, (end - start) * linear, (end - start) * excess


def delta_f_normal_rare(mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, a: Real, b: Real) -> Real:
    """Return Delta F_N with a wide reduced prior: short supports, or a sum where q is nearly uniform."""
    w = (b - a) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    r = sigma_p / sigma
    scale = sqrt(ONE + r * r)
    w_p = (b - a) / sigma_p
    alpha_p = (a - mu_p) / sigma_p
    beta_p = (b - mu_p) / sigma_p
    lower, upper, h = oriented(alpha, beta)
    lower_p, upper_p, h_p = oriented(alpha_p, beta_p)
    lower_t, upper_t, h_t = oriented((r * alpha + alpha_p) / scale, (r * beta + beta_p) / scale)
    j = J_any(lower, upper, w, h)
    j_p = J_any(lower_p, upper_p, w_p, h_p)
    j_t = J_any(lower_t, upper_t, w_p * scale, h_t)
    gap = exponent_gap(alpha, beta, w, r, alpha_p, beta_p, (mu_p - mu) / sigma)

    p = w * QUARTER * (alpha + beta)
    q = EIGHTH * w * w
    centre = ((mu_p - a) - (b - mu_p)) / (b - a)
    width = TWO * sigma_p / (b - a)
    left = mean_exp_normal(p, q, centre, width, maximum(alpha_p, -MANY_REACH), ZERO)
    right = mean_exp_normal(p, q, centre, width, ZERO, minimum(beta_p, MANY_REACH))
    mass = left[0] + right[0]
    excess = short_excess(p, q)
    gained = (left[1] + right[1]) / mass + (left[2] + right[2]) / mass - excess
    flat = log1p(gained / (ONE + excess))
    return where(is_nearly_uniform(w, h), flat, log(w / (j * scale) * (j_t / j_p)) + gap)


def relative_exponent(mu: Real, sigma: Real, a: Real, b: Real, lower: Real, upper: Real) -> Real:
    """Return the exponent of q at its mode on [lower, upper] less that at its mode on [a, b]."""
    mode = minimum(maximum(mu, a), b)
    part = minimum(maximum(mu, lower), upper)
    return HALF * ((mode - part) / sigma) * ((mode - mu) / sigma + (part - mu) / sigma)


def log_mass_ratio(mu: Real, sigma: Real, a: Real, b: Real, lower: Real, upper: Real) -> Real:
    """Return log P(lower <= x <= upper) under q on [a, b], to full absolute accuracy."""
    part_lower, part_upper, part_h = oriented((lower - mu) / sigma, (upper - mu) / sigma)
    whole_lower, whole_upper, h = oriented((a - mu) / sigma, (b - mu) / sigma)
    part = J_any(part_lower, part_upper, (upper - lower) / sigma, part_h)
    whole = J_any(whole_lower, whole_upper, (b - a) / sigma, h)
    return relative_exponent(mu, sigma, a, b, lower, upper) + log(part / whole)


def log_mass(lower: Real, upper: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log P(lower <= x <= upper), near 0 from the complement."""
    inside = log_mass_ratio(mu, sigma, a, b, lower, upper)
    outside = exp(log_mass_ratio(mu, sigma, a, b, a, lower)) + exp(log_mass_ratio(mu, sigma, a, b, upper, b))
    return where(outside < HALF, log1p(-minimum(outside, HALF)), inside)


def delta_f_uniform_is_rare(_mu: Real, _sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Bool:
    """Tell whether the reduced support is nearly the whole."""
    return (lower - a) + (b - upper) < NEARLY_ALL * (b - a)


def delta_f_uniform_common(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Real:
    """Return Delta F_U (Eq. 10) = log mass of q in [lower, upper] - log mass of the prior there.

    Of a nearly uniform q, with f its exponent relative to the midpoint and t in [-1, 1] across the
    support, as log E[e^f] over the part of t less that over the whole: the part is short, too.
    """
    w = (b - a) / sigma
    part_w = (upper - lower) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    part_lower, part_upper, part_h = oriented((lower - mu) / sigma, (upper - mu) / sigma)
    whole_lower, whole_upper, h = oriented(alpha, beta)
    part = J_any(part_lower, part_upper, part_w, part_h)
    whole = J_any(whole_lower, whole_upper, w, h)
    general = relative_exponent(mu, sigma, a, b, lower, upper) + log(part / whole * (w / part_w))

    p = w * QUARTER * (alpha + beta)
    q = EIGHTH * w * w
    middle = ((lower - a) - (b - upper)) / (b - a)
    part_excess = short_excess(HALF * part_w * part_h, EIGHTH * part_w * part_w)
    excess = short_excess(p, q)
    flat = log1p((part_excess - excess) / (ONE + excess)) - middle * (p + q * middle)
    return where(is_nearly_uniform(w, h), flat, general)


def delta_f_uniform_rare(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Real:
    """Return Delta F_U where the reduced support is nearly the whole, from what lies outside it."""
    outside_prior = ((lower - a) + (b - upper)) / (b - a)
    outside = exp(log_mass_ratio(mu, sigma, a, b, a, lower)) + exp(log_mass_ratio(mu, sigma, a, b, upper, b))
    complement = log1p(-minimum(outside, HALF)) - log1p(-outside_prior)
    common = delta_f_uniform_common(mu, sigma, lower, upper, a, b)
    w = (b - a) / sigma
    nearly_uniform = is_nearly_uniform(w, HALF * absolute((a - mu) / sigma + (b - mu) / sigma))
    return where(nearly_uniform | (outside >= HALF), common, complement)


def delta_f_gaussian(mu: Real, sigma: Real, mu_0: Real, sigma_0: Real, mu_p: Real, sigma_p: Real) -> Real:
    """Return Delta F of a Gaussian posterior, prior and reduced prior.

    With excess the reduced prior's precision less the prior's, the three squares of the textbook
    form collapse into one quotient that stays finite where the two priors' precisions meet.
    """
    ratio = (sigma_0 - sigma_p) / sigma_p
    excess = ratio * (sigma_0 + sigma_p) / (sigma_0 * sigma_0 * sigma_p)
    scale = ONE + excess * sigma * sigma
    from_p = mu - mu_p
    shift = (mu_p - mu_0) / sigma_0
    gained = shift * (shift + TWO * from_p / sigma_0) + shift * shift * (sigma / sigma_p) * (sigma / sigma_p)
    return log1p(ratio) - HALF * log(scale) + HALF * (gained - excess * from_p * from_p) / scale
