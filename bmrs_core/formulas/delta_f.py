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
from bmrs_core.formulas.normal import SHORT_WIDTH, J_any, J_given, J_wide, beside_one, oriented
from bmrs_core.formulas.primitives import (
    Bool,
    Real,
    absolute,
    decay,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    sqrt,
    sums_over_nodes,
    where,
)
from bmrs_core.formulas.short_support import short_excess

__all__ = [
    "delta_f_gaussian",
    "delta_f_normal_common",
    "delta_f_normal_is_rare",
    "delta_f_normal_rare",
    "delta_f_uniform_common",
    "delta_f_uniform_is_rare",
    "delta_f_uniform_rare",
    "excess_exp",
    "exponent_gap",
    "is_nearly_uniform",
    "log_mass",
    "log_mass_ratio",
    "log_of_either",
    "mean_exp_normal",
    "outside_mass",
    "reduced_posterior",
    "reduced_prior",
    "relative_exponent",
]

# Where less than this part of the prior lies outside the reduced support, log mass and log prior mass
# are both near 0 and are computed from their complements.
NEARLY_ALL = 0.0625

# A reduced prior narrower than this part of the support moves the exponent f of a nearly uniform q by less
# than d = 1e-4 f: what is left out is of the order of d^3 < 1e-12 f^3.
SPIKE = 5e-6

# is_nearly_uniform times sigma^2, in other roundings, must not miss what it holds for.
SLACK = 1.001


# Reciprocal factorials.
E3 = 0.16666666666666666
E4 = 0.041666666666666664
E5 = 0.008333333333333333
E6 = 0.001388888888888889
E7 = 0.0001984126984126984
E8 = 2.48015873015873e-05
E9 = 2.7557319223985893e-06
E10 = 2.755731922398589e-07
E11 = 2.505210838544172e-08
E12 = 2.08767569878681e-09
E13 = 1.6059043836821613e-10
E14 = 1.1470745597729725e-11
E15 = 7.647163731819816e-13


def is_nearly_uniform(w: Real, h: Real) -> Bool:
    """Tell whether the exponent of q ranges over less than about one nat."""
    return (w + h) * w < ONE


def log_of_either(near_one: Bool, x: Real, y: Real) -> Real:
    """Return log(1 + x) where near_one, |x| < 1/2, else log y: one logarithm for both.

    log(1 + x) = log u + (x - (u - 1))/u with u = 1 + x rounded and 1/u ~ 1 - x.
    """
    u = where(near_one, ONE + x, y)
    return log(u) + where(near_one, (x - (u - ONE)) * (ONE - x), ZERO)


def reduced_posterior(
    mu: Real, sigma: Real, mu_p: Real, sigma_p: Real, _a: Real, _b: Real
) -> tuple[Real, Real]:
    """Return (mu~_q, sigma~_q), the posterior under the reduced prior (after paper Eq. 8)."""
    r = sigma_p / sigma
    scale = ONE + r * r
    return mu_p + (mu - mu_p) * (r * r / scale), sigma_p / sqrt(scale)


def exponent_gap(
    alpha: Real, beta: Real, w: Real, r: Real, alpha_p: Real, beta_p: Real, delta: Real, shrink: Real
) -> Real:
    """Return the exponent of q times the reduced prior at its mode, less theirs at their own modes.

    delta = (mu_p - mu)/sigma, r = sigma_p/sigma, shrink = 1/sqrt(1 + r^2); the product's mode is mu~_q,
    or the bound next to it.
    """
    alpha_t = (r * alpha + alpha_p) * shrink
    beta_t = (r * beta + beta_p) * shrink
    below = alpha_t > ZERO
    above = beta_t < ZERO
    m = minimum(maximum(alpha, ZERO), beta)
    pull = delta * (shrink * shrink)
    at_mode = where(below, alpha, where(above, beta, pull))
    from_a = where(below, ZERO, where(above, w, -r * alpha_t * shrink))
    from_b = where(below, -w, where(above, ZERO, -r * beta_t * shrink))
    moved = where(alpha > ZERO, from_a, where(beta < ZERO, from_b, at_mode))
    in_prior = where(below, alpha_p, where(above, beta_p, r * pull))
    return -HALF * (moved * (at_mode + m)) - HALF * in_prior * in_prior


def reduced_prior(mu_p: Real, sigma_p: Real, a: Real, b: Real) -> tuple[Real, Real, Real]:
    """Return (J_p, E[tau], E[tau^2]) of the reduced prior, tau = (x - mu_p)/sigma_p, mu_p in [a, b]."""
    alpha = (a - mu_p) / sigma_p
    beta = (b - mu_p) / sigma_p
    lower, upper, h = oriented(alpha, beta)
    j = J_any(lower, upper, (b - a) / sigma_p, h)
    at_a = beside_one(-HALF * alpha * alpha) / j
    at_b = beside_one(-HALF * beta * beta) / j
    return j, at_a - at_b, ONE + (alpha * at_a - beta * at_b)


def delta_f_normal_is_rare(
    mu: Real,
    sigma: Real,
    _mu_p: Real,
    sigma_p: Real,
    _j_p: Real,
    _first: Real,
    _second: Real,
    a: Real,
    b: Real,
) -> Bool:
    """Tell whether the reduced prior is no spike and either it may be short or q is nearly uniform."""
    width = b - a
    range_ = width * (width + HALF * absolute((a - mu) + (b - mu)))
    nearly_uniform = range_ < SLACK * sigma * sigma
    return (sigma_p > SPIKE * width) & ((width < SHORT_WIDTH * sigma_p) | nearly_uniform)


def delta_f_normal_common(
    mu: Real,
    sigma: Real,
    mu_p: Real,
    sigma_p: Real,
    j_p: Real,
    first: Real,
    second: Real,
    a: Real,
    b: Real,
) -> Real:
    """Return Delta F_N (Eq. 8) = log(w J~ / (J J_p sqrt(1 + r^2))) + exponent gap.

    J_p and the first two moments of the reduced prior are given, being the same for every structure. Of
    a nearly uniform q, with f its exponent relative to the midpoint and t in [-1, 1] across the support,
    as log E_p~[e^f] - log E_p[e^f], the former by the moments of a spike at mu_p over which f moves by d:
    third powers of d are left out.
    """
    per_sigma = ONE / sigma
    per_sigma_p = ONE / sigma_p
    w = (b - a) * per_sigma
    alpha = (a - mu) * per_sigma
    beta = (b - mu) * per_sigma
    r = sigma_p * per_sigma
    shrink = ONE / sqrt(ONE + r * r)
    alpha_p = (a - mu_p) * per_sigma_p
    beta_p = (b - mu_p) * per_sigma_p
    lower, upper, h = oriented(alpha, beta)
    lower_t, upper_t, h_t = oriented((r * alpha + alpha_p) * shrink, (r * beta + beta_p) * shrink)
    p = HALF * w * h
    q = EIGHTH * w * w
    excess = short_excess(p, q)
    j = J_given(lower, upper, w, h, p, q, excess)
    w_t = (b - a) * per_sigma_p * sqrt(ONE + r * r)
    j_t = J_wide(lower_t, upper_t, w_t, h_t)
    gap = exponent_gap(alpha, beta, w, r, alpha_p, beta_p, (mu_p - mu) * per_sigma, shrink)

    per_range = ONE / (b - a)
    centre = ((mu_p - a) - (b - mu_p)) * per_range
    width = TWO * sigma_p * per_range
    slope = where(alpha + beta < ZERO, -p, p)
    slope_there = slope + TWO * q * centre
    moved = width * (width * second * (HALF * slope_there * slope_there - q) - slope_there * first)
    ratio = (moved - excess) / (ONE + excess)
    nearly_uniform = is_nearly_uniform(w, h)
    offset = where(nearly_uniform, -centre * (slope + q * centre), gap)
    return log_of_either(nearly_uniform, ratio, w * shrink * j_t / (j * j_p)) + offset


def excess_exp(x: Real) -> Real:
    """Return e^x - 1 - x >= 0 with full relative accuracy near 0.

    Below 1/2 in magnitude by its Taylor series to x^14 (truncation below 2e-17 of the sum).
    """
    s = E15 * x + E14
    s = (s * x + E13) * x + E12
    s = (s * x + E11) * x + E10
    s = (s * x + E9) * x + E8
    s = (s * x + E7) * x + E6
    s = (s * x + E5) * x + E4
    s = (s * x + E3) * x + HALF
    return where(absolute(x) < HALF, x * x * s, expm1(x) - x)


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
        g = MANY_W[j] * decay(-HALF * tau * tau)
        total = total + g
        linear = linear + g * f
        excess = excess + g * excess_exp(f)
    return (end - start) * total, (end - start) * linear, (end - start) * excess


def delta_f_normal_rare(
    mu: Real,
    sigma: Real,
    mu_p: Real,
    sigma_p: Real,
    j_p: Real,
    _first: Real,
    _second: Real,
    a: Real,
    b: Real,
) -> Real:
    """Return Delta F_N with a wide reduced prior: short supports, or a sum where q is nearly uniform."""
    w = (b - a) / sigma
    alpha = (a - mu) / sigma
    beta = (b - mu) / sigma
    r = sigma_p / sigma
    shrink = ONE / sqrt(ONE + r * r)
    alpha_p = (a - mu_p) / sigma_p
    beta_p = (b - mu_p) / sigma_p
    lower, upper, h = oriented(alpha, beta)
    lower_t, upper_t, h_t = oriented((r * alpha + alpha_p) * shrink, (r * beta + beta_p) * shrink)
    j = J_any(lower, upper, w, h)
    j_t = J_any(lower_t, upper_t, (b - a) / sigma_p / shrink, h_t)
    gap = exponent_gap(alpha, beta, w, r, alpha_p, beta_p, (mu_p - mu) / sigma, shrink)

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
    return where(is_nearly_uniform(w, h), flat, log(w * shrink * j_t / (j * j_p)) + gap)


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


def outside_mass(mu: Real, sigma: Real, a: Real, b: Real, lower: Real, upper: Real) -> Real:
    """Return P(x < lower or x > upper)."""
    below = log_mass_ratio(mu, sigma, a, b, a, lower)
    above = log_mass_ratio(mu, sigma, a, b, upper, b)
    return decay(below) + decay(above)


def log_mass(lower: Real, upper: Real, mu: Real, sigma: Real, a: Real, b: Real) -> Real:
    """Return log P(lower <= x <= upper), near 0 from the complement."""
    inside = log_mass_ratio(mu, sigma, a, b, lower, upper)
    outside = outside_mass(mu, sigma, a, b, lower, upper)
    return where(outside < HALF, log1p(-minimum(outside, HALF)), inside)


def delta_f_uniform_is_rare(_mu: Real, _sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Bool:
    """Tell whether the reduced support is nearly the whole."""
    return (lower - a) + (b - upper) < NEARLY_ALL * (b - a)


def delta_f_uniform_common(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Real:
    """Return Delta F_U (Eq. 10) = log mass of q in [lower, upper] - log mass of the prior there.

    Of a nearly uniform q, with f its exponent relative to the midpoint and t in [-1, 1] across the
    support, as log E[e^f] over the part of t less that over the whole: the part is short, too.
    """
    per_sigma = ONE / sigma
    w = (b - a) * per_sigma
    part_w = (upper - lower) * per_sigma
    alpha = (a - mu) * per_sigma
    beta = (b - mu) * per_sigma
    part_lower, part_upper, part_h = oriented((lower - mu) * per_sigma, (upper - mu) * per_sigma)
    whole_lower, whole_upper, h = oriented(alpha, beta)
    p = HALF * w * h
    q = EIGHTH * w * w
    excess = short_excess(p, q)
    part_p = HALF * part_w * part_h
    part_q = EIGHTH * part_w * part_w
    part_excess = short_excess(part_p, part_q)
    part = J_given(part_lower, part_upper, part_w, part_h, part_p, part_q, part_excess)
    whole = J_given(whole_lower, whole_upper, w, h, p, q, excess)

    mode = minimum(maximum(mu, a), b)
    part_mode = minimum(maximum(mu, lower), upper)
    gap = HALF * ((mode - part_mode) * per_sigma) * ((mode - mu) * per_sigma + (part_mode - mu) * per_sigma)
    middle = ((lower - a) - (b - upper)) / (b - a)
    slope = where(alpha + beta < ZERO, -p, p)
    nearly_uniform = is_nearly_uniform(w, h)
    ratio = (part_excess - excess) / (ONE + excess)
    offset = where(nearly_uniform, -middle * (slope + q * middle), gap)
    return log_of_either(nearly_uniform, ratio, part * w / (whole * part_w)) + offset


def delta_f_uniform_rare(mu: Real, sigma: Real, lower: Real, upper: Real, a: Real, b: Real) -> Real:
    """Return Delta F_U where the reduced support is nearly the whole, from what lies outside it."""
    outside_prior = ((lower - a) + (b - upper)) / (b - a)
    outside = outside_mass(mu, sigma, a, b, lower, upper)
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
