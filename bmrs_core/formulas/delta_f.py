"""Delta F, the change in log evidence under a reduced prior (paper Eq. 6, 8, 10), in closed form.

Both are log[(b - a) E_reduced[q(x)]], q the posterior density of x = log theta: positive where the
reduced prior finds more posterior density than the log-uniform prior does on average. Eq. 8's three
squares are never formed: with every density anchored at its own mode, what is left is one exponent
that is a sum of terms of the same sign. Where q is nearly uniform both Delta F and its terms are
tiny, and it is the difference of two means of exp(f) - 1, f the exponent relative to the midpoint.
"""

from __future__ import annotations

from bmrs_core.formulas.constants import (
    FEW,
    FEW_T,
    FEW_TC,
    FEW_W,
    HALF,
    MANY_REACH,
    ONE,
    QUARTER,
    THIRD,
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
    "mean_flat",
    "mean_flat_normal",
    "reduced_posterior",
    "relative_exponent",
]

# Where less than this part of the prior lies outside the reduced support, log mass and log prior mass
# are both near 0 and are computed from their complements.
NEARLY_ALL = 0.0625


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
    """Tell whether q, the reduced prior or their product has a short support, or q is nearly uniform."""
    w = (b - a) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    h = HALF * absolute(alpha + beta)
    r = sigma_p / sigma
    scale = sqrt(ONE + r * r)
    w_p = (b - a) / sigma_p
    middle_p = HALF * ((a - mu_p) / sigma_p + (b - mu_p) / sigma_p)
    middle_t = (r * HALF * (alpha + beta) + middle_p) / scale
    short_p = J_is_short(w_p, absolute(middle_p)) | J_is_short(w_p * scale, absolute(middle_t))
    return short_p | J_is_short(w, h) | is_nearly_uniform(w, h)


def delta_f_normal_common(mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, a: Real, b: Real) -> Real:
    """Return Delta F_N (Eq. 8) = log(w J~ / (J J_p sqrt(1 + r^2))) + exponent gap."""
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
    j = J_wide(lower, upper, w, h)
    j_p = J_wide(lower_p, upper_p, w_p, h_p)
    j_t = J_wide(lower_t, upper_t, w_p * scale, h_t)
    gap = exponent_gap(alpha, beta, w, r, alpha_p, beta_p, (mu_p - mu) / sigma)
    return log(w / (j * scale) * (j_t / j_p)) + gap


@sums_over_nodes
def mean_flat(p: Real, q: Real, first: Real, last: Real) -> Real:
    """Return the mean of e^f - 1 - f, f(t) = -(p t + q t^2), over t uniform in [first, last]."""
    total = ZERO
    for j in range(FEW):
        t = first * FEW_TC[j] + last * FEW_T[j]
        total = total + FEW_W[j] * excess_exp(-t * (p + q * t))
    return total


@sums_over_nodes
def mean_flat_normal(
    p: Real, q: Real, centre: Real, width: Real, start: Real, end: Real
) -> tuple[Real, Real, Real]:
    """Return the sums of g, g f and g (e^f - 1 - f) over tau in [start, end].

    g is exp(-tau^2/2), f(t) = -(p t + q t^2) at t = centre + width tau.
    """
    total = ZERO
    linear = ZERO
    excess = ZERO
    for j in range(FEW):
        tau = start * FEW_TC[j] + end * FEW_T[j]
        t = centre + width * tau
        f = -t * (p + q * t)
        g = FEW_W[j] * exp(-HALF * tau * tau)
        total = total + g
        linear = linear + g * f
        excess = excess + g * excess_exp(f)
    return (end - start) * total, (end - start) * linear, (end - start) * excess


def delta_f_normal_rare(mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, a: Real, b: Real) -> Real:
    """Return Delta F_N with short supports or a nearly uniform q."""
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
    general = log(w / (j * scale) * (j_t / j_p)) + gap

    p = w * QUARTER * (alpha + beta)
    q = QUARTER * HALF * w * w
    centre = ((mu_p - a) - (b - mu_p)) / (b - a)
    width = TWO * sigma_p / (b - a)
    mass_l, linear_l, excess_l = mean_flat_normal(p, q, centre, width, maximum(alpha_p, -MANY_REACH), ZERO)
    mass_r, linear_r, excess_r = mean_flat_normal(p, q, centre, width, ZERO, minimum(beta_p, MANY_REACH))
    mass = mass_l + mass_r
    excess = mean_flat(p, q, -ONE, ONE)
    linear = (linear_l + linear_r) / mass + q * THIRD
    gained = linear + ((excess_l + excess_r) / mass - excess)
    flat = log1p(gained / (ONE + (excess - q * THIRD)))
    return where(is_nearly_uniform(w, h), flat, general)


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


def delta_f_uniform_is_rare(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Bool:
    """Tell whether a support is short, q nearly uniform or the reduced support nearly the whole."""
    w = (b - a) / sigma
    h = HALF * absolute((a - mu) / sigma + (b - mu) / sigma)
    part = (upper - lower) / sigma
    part_h = HALF * absolute((lower - mu) / sigma + (upper - mu) / sigma)
    nearly_all = (lower - a) + (b - upper) < NEARLY_ALL * (b - a)
    return J_is_short(w, h) | J_is_short(part, part_h) | is_nearly_uniform(w, h) | nearly_all


def delta_f_uniform_common(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Real:
    """Return Delta F_U (Eq. 10) = log mass of q in [lower, upper] - log mass of the prior there."""
    part_lower, part_upper, part_h = oriented((lower - mu) / sigma, (upper - mu) / sigma)
    whole_lower, whole_upper, h = oriented((a - mu) / sigma, (b - mu) / sigma)
    w = (b - a) / sigma
    part_w = (upper - lower) / sigma
    part = J_wide(part_lower, part_upper, part_w, part_h)
    whole = J_wide(whole_lower, whole_upper, w, h)
    return relative_exponent(mu, sigma, a, b, lower, upper) + log(part / whole * (w / part_w))


def delta_f_uniform_rare(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Real:
    """Return Delta F_U with short supports, a nearly uniform q or a reduced support nearly the whole."""
    w = (b - a) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    outside_prior = ((lower - a) + (b - upper)) / (b - a)
    outside = exp(log_mass_ratio(mu, sigma, a, b, a, lower)) + exp(log_mass_ratio(mu, sigma, a, b, upper, b))
    complement = log1p(-minimum(outside, HALF)) - log1p(-minimum(outside_prior, HALF))
    direct = log_mass_ratio(mu, sigma, a, b, lower, upper) - log((upper - lower) / (b - a))
    general = where((outside < HALF) & (outside_prior < HALF), complement, direct)

    p = w * QUARTER * (alpha + beta)
    q = QUARTER * HALF * w * w
    first = ((lower - a) - (b - lower)) / (b - a)
    last = ((upper - a) - (b - upper)) / (b - a)
    middle = ((lower - a) - (b - upper)) / (b - a)
    part = (upper - lower) / (b - a)
    linear = -(p * middle + q * (middle * middle + (part * part - ONE) * THIRD))
    excess = mean_flat(p, q, -ONE, ONE)
    gained = linear + (mean_flat(p, q, first, last) - excess)
    flat = log1p(gained / (ONE + (excess - q * THIRD)))
    return where(is_nearly_uniform(w, HALF * absolute(alpha + beta)), flat, general)


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
